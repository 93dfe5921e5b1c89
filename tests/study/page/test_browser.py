"""The page in a real browser: what a reader sees, clicks, and prints."""

from __future__ import annotations

import base64
import json
import shutil

import pytest

from sizeless.study.page import write

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDE, NARROW = 1400, 400

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no chromium is installed"),
    pytest.mark.skipif(DRIVER is None, reason="no chromedriver is installed"),
]


class Reader:
    """A reader with a browser, who opens the page anew for each test."""

    def __init__(self, driver, address):
        self.driver, self.address = driver, address

    def open(self, *, width=WIDE, theme="light", media="screen", scripts=True):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == NARROW}
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.command("Emulation.setDeviceMetricsOverride", **size)
        self.command("Emulation.setEmulatedMedia", media=media, features=features)
        self.command("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.driver.get("about:blank")
        self.driver.get(self.address)

    def command(self, name, **arguments):
        return self.driver.execute_cdp_cmd(name, arguments)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def column(self, table, place):
        """The cells of a column, from the top."""
        script = (
            "return [...arguments[0].tBodies[0].rows].map(r => r.cells[arguments[1]].innerText)"
        )
        return self.run(script, table, place)

    def style(self, selector, name):
        script = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
        return self.run(script, selector, name)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(rich_page, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    write(rich_page, path)
    return path.as_uri()


@pytest.fixture
def reader(driver, address):
    reader = Reader(driver, address)
    reader.open()
    reader.run("sessionStorage.clear()")
    return reader


def test_the_page_loads_without_an_error_or_a_request(reader):
    reader.driver.get_log("performance")
    reader.open()
    reader.find("#theme_dark + label").click()
    reader.run("window.scrollTo(0, document.body.scrollHeight)")
    assert reader.driver.get_log("browser") == []
    messages = [
        json.loads(entry["message"])["message"] for entry in reader.driver.get_log("performance")
    ]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert reader.address in asked
    assert all(url.startswith(("data:", "about:")) or url == reader.address for url in asked)


def test_what_another_script_would_load_is_refused(reader):
    refused = reader.run(
        "const image = new Image();"
        "return new Promise(done => { image.onerror = () => done(true);"
        "image.onload = () => done(false); image.src = arguments[0]; })",
        reader.address.replace("page.html", "other.png"),
    )
    assert refused
    assert any(
        "Content Security Policy" in entry["message"] for entry in reader.driver.get_log("browser")
    )


def test_a_click_on_a_header_sorts_numbers_as_numbers(reader):
    table = reader.all("table")[0]
    head = table.find_elements(By.TAG_NAME, "th")[5]
    assert head.text.startswith("untrained")
    assert head.get_attribute("aria-sort") == "none"
    for order in ("ascending", "descending", "ascending"):
        head.find_element(By.TAG_NAME, "button").click()
        assert head.get_attribute("aria-sort") == order
        values = reader.column(table, 5)
        numbers = [float(value) for value in values if value != "–"]
        assert numbers == sorted(numbers, reverse=order == "descending")
        assert 0 < len(numbers) < len(values)
        assert set(values[len(numbers) :]) == {"–"}, "what is missing stays last"


def test_powers_of_ten_and_thousands_sort_by_value(reader):
    table = reader.all("table")[0]
    rows = "return [...arguments[0].tBodies[0].rows]"
    keys = f"{rows}.map(row => Number(row.cells[arguments[1]].dataset.key))"
    for place in (3, 6):
        table.find_elements(By.TAG_NAME, "th")[place].find_element(By.TAG_NAME, "button").click()
        values = reader.run(keys, table, place)
        assert values == sorted(values)
    assert "×10" in reader.column(table, 6)[0]


def test_names_sort_with_their_numbers_and_one_column_at_a_time(reader):
    table = reader.all("table")[0]
    names = reader.column(table, 0)
    heads = table.find_elements(By.TAG_NAME, "th")
    heads[4].find_element(By.TAG_NAME, "button").click()
    assert reader.column(table, 0) != names
    heads[0].find_element(By.TAG_NAME, "button").click()
    assert reader.column(table, 0) == names
    sorted_by = [head.get_attribute("aria-sort") for head in heads[:8]]
    assert sorted_by == ["ascending"] + ["none"] * 7


@pytest.mark.parametrize("key", [Keys.ENTER, Keys.SPACE], ids=["enter", "space"])
def test_tables_sort_by_keyboard(reader, key):
    table = reader.all("table")[1]
    table.find_element(By.TAG_NAME, "button").send_keys(Keys.TAB)
    focused = reader.driver.switch_to.active_element
    assert focused.text == "accuracy"
    focused.send_keys(key)
    assert reader.column(table, 1) == ["90.00%", "93.42%", "98.71%"]
    focused.send_keys(key)
    assert reader.column(table, 1) == ["98.71%", "93.42%", "90.00%"]


def test_a_long_table_shows_its_first_rows_in_whatever_order(reader):
    table, more = reader.all("table")[0], reader.find(".more summary")

    def shown():
        return [row.is_displayed() for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")]

    assert shown() == [True] * 12 + [False] * 12
    table.find_elements(By.TAG_NAME, "button")[4].click()
    assert shown() == [True] * 12 + [False] * 12
    assert more.text == "Show all 24 rows"
    more.click()
    assert all(shown())
    assert more.text == "Show 12 rows only"


def test_every_picture_has_an_alternative_text(reader):
    pictures = reader.all("figure.picture svg, figure.picture img")
    assert len(pictures) == 4
    assert {picture.tag_name for picture in pictures} == {"svg", "img"}
    for picture in pictures:
        assert picture.accessible_name
        assert picture.aria_role in {"image", "img"}
    for icon in reader.all("label svg"):
        assert icon.get_attribute("aria-hidden") == "true"


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_controls_have_names(reader, width):
    reader.open(width=width)
    controls = reader.all("button, input, a, summary, [tabindex]")
    shown = [control for control in controls if control.is_displayed()]
    assert len(shown) > 20
    for control in shown:
        assert control.accessible_name, control.get_attribute("outerHTML")


@pytest.mark.parametrize("width", [320, NARROW, 700, 1119, 1120, WIDE])
def test_nothing_but_boxes_scrolls_sideways(reader, width):
    reader.open(width=width)
    reader.run("document.querySelectorAll('details').forEach(part => part.open = true)")
    sizes = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    content, window = reader.run(sizes)
    assert content <= window
    for box in reader.all(".scroll"):
        assert box.rect["x"] + box.rect["width"] <= width + 0.5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_in_both_themes(reader, theme):
    reader.open(theme=theme)
    grounds = {"light": (255, 255, 255), "dark": (20, 23, 27)}
    assert rgb(reader.style("body", "backgroundColor")) == grounds[theme]
    pairs = reader.run(CONTRASTS)
    assert len(pairs) > 100
    for words, ink, ground in pairs:
        assert contrast(rgb(ink), rgb(ground)) >= 4.5, (words, ink, ground)


CONTRASTS = """
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const words = walker.currentNode.textContent.trim();
  if (!words || !element.checkVisibility({ opacityProperty: true })) continue;
  if (element.closest("script, style, .unseen, .skip")) continue;
  const drawn = element.closest("figure svg");
  // What is written on a mesh has colours of its own.
  if (drawn && element.closest("[style='fill:#000']")) continue;
  const behind = (part) => getComputedStyle(part).backgroundColor;
  let ground = element;
  while (behind(ground) === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
  const style = getComputedStyle(element);
  found.push([words, drawn ? style.fill : style.color, behind(ground)]);
}
return found;
"""


def rgb(color):
    return tuple(int(part) for part in color[color.index("(") + 1 : -1].split(",")[:3])


def contrast(one, other):
    lights = sorted(luminance(color) for color in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(color):
    levels = [level / 255 for level in color]
    light = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in levels]
    return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]


def test_lines_of_a_figure_follow_the_theme(reader):
    def axis():
        return rgb(reader.style("figure svg text", "fill"))

    light = axis()
    reader.find("#theme_dark + label").click()
    assert luminance(axis()) > 0.5 > luminance(light)


def test_the_chosen_theme_is_kept_for_the_visit(reader):
    reader.open(theme="dark")
    dark = reader.style("body", "backgroundColor")
    reader.find("#theme_light + label").click()
    light = reader.style("body", "backgroundColor")
    assert light != dark
    reader.open(theme="dark")
    assert reader.find("#theme_light").is_selected()
    assert reader.style("body", "backgroundColor") == light
    reader.find("#theme_auto + label").click()
    assert reader.style("body", "backgroundColor") == dark


def test_the_theme_can_be_chosen_by_keyboard(reader):
    before = reader.style("body", "backgroundColor")
    reader.find("#theme_auto").send_keys(Keys.ARROW_LEFT)
    assert reader.find("#theme_dark").is_selected()
    assert reader.style("body", "backgroundColor") != before


def test_the_page_works_without_scripts(reader):
    reader.open(scripts=False)
    assert not reader.all("thead button")
    assert len(reader.all("tbody tr")) > 24
    reader.find("#theme_dark + label").click()
    ground = reader.find("body").value_of_css_property("background-color")
    assert rgb(ground) == (20, 23, 27)
    reader.open(scripts=False, width=NARROW)
    assert not reader.find("nav").is_displayed()
    reader.find(".opener").click()
    assert reader.find("nav").is_displayed()


def test_links_of_the_contents_jump_and_mark_where_one_is(reader):
    for link in reader.all("nav a"):
        link.click()
        name = link.get_attribute("hash").lstrip("#")
        top = reader.run(
            "return document.getElementById(arguments[0]).getBoundingClientRect().top", name
        )
        end = reader.run(
            "return innerHeight + scrollY >= document.documentElement.scrollHeight - 2"
        )
        assert 0 <= top < 60 or end
        assert reader.find("nav").is_displayed()
    reader.all("nav a")[1].click()
    marked = "return [...document.querySelectorAll('nav a[aria-current]')].map(a => a.textContent)"
    reader.run(
        "return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    assert reader.run(marked) == ["Effective size of every layer"]


def test_the_contents_are_folded_on_a_phone(reader):
    reader.open(width=NARROW)
    contents = reader.find("nav")
    assert not contents.is_displayed()
    reader.find(".opener").click()
    assert contents.is_displayed()
    reader.all("nav a")[2].click()
    assert not contents.is_displayed()
    heading = "return document.getElementById('kernels').getBoundingClientRect().top"
    bar = reader.find(".bar").rect["height"]
    assert bar <= reader.run(heading) < bar + 60


def test_headings_have_links_to_themselves(reader):
    anchor = reader.find("h2 a")
    anchor.send_keys(Keys.ENTER)
    assert reader.driver.current_url == reader.address + "#learned-sizes"


def test_on_paper_there_is_no_navigation_and_everything_is_open(reader):
    reader.open(theme="dark", media="print")
    assert not reader.find(".side").is_displayed()
    assert rgb(reader.style("body", "backgroundColor")) == (255, 255, 255)
    rows = reader.all("figure.table tbody tr")
    reader.run("window.dispatchEvent(new Event('beforeprint'))")
    assert all(row.is_displayed() for row in rows)
    assert reader.find(".group pre").is_displayed()
    reader.run("window.dispatchEvent(new Event('afterprint'))")
    assert not reader.all("details[open]")


def test_the_page_prints(reader):
    made = reader.command("Page.printToPDF", preferCSSPageSize=True)
    assert base64.b64decode(made["data"]).startswith(b"%PDF")
    assert not reader.all("details[open]"), "it is as it was, afterwards"


def test_figures_fit_on_paper(reader):
    reader.open(width=640, media="print")
    page = reader.find("main").rect
    for drawing in reader.all(".drawing"):
        assert drawing.rect["x"] >= page["x"]
        assert drawing.rect["x"] + drawing.rect["width"] <= page["x"] + page["width"] + 0.5
    content, window = reader.run(
        "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    )
    assert content <= window
