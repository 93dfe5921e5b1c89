from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizeless.study import style
from sizeless.study.page import (
    Card,
    Code,
    Group,
    Page,
    Picture,
    Section,
    Table,
    Text,
    render,
    write,
)
from sizeless.study.page.prose import anchors

VOID = {"meta", "link", "input", "img", "br", "wbr", "hr"}
PHRASING = {"p", "h1", "h2", "span", "b", "code", "a", "dt", "button", "summary"}
FLOW = {"p", "div", "ul", "ol", "table", "figure", "section", "details", "dl", "h1", "h2", "pre"}


class Reader(HTMLParser):
    """Elements with their attributes and parents; fails where one is not closed in its turn."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute of {tag} is there twice"
        assert not (tag in FLOW and set(self.open) & PHRASING), f"{tag} within {self.open}"
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        assert self.open, f"{tag} was never opened"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append((data, tuple(self.open)))

    def all(self, tag):
        return [attributes for name, attributes, _ in self.elements if name == tag]

    def words(self, tag):
        return ["".join(data.split()) for data, inside in self.text if tag in inside]


def page(*blocks, **keywords):
    return Page("Title", sections=[Section("Part", blocks)], **keywords)


@pytest.fixture(scope="module")
def html(rich_page):
    return render(rich_page)


def test_elements_are_nested_and_closed(html):
    read = Reader(html)
    assert len(read.all("section")) == 6
    assert len(read.all("h1")) == len(read.all("main")) == len(read.all("title")) == 1


def test_names_are_unique_and_links_lead_to_them(html):
    read = Reader(html)
    names = [attributes["id"] for _, attributes, _ in read.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes, _ in read.elements:
        for key in ("href", "aria-labelledby", "for", "popovertarget"):
            value = attributes.get(key, "#main_content")
            if key != "href" or value.startswith("#"):
                assert value.lstrip("#") in names, value


def test_nothing_is_loaded_from_elsewhere(html):
    assert not re.search(r"https?://", html)
    assert not re.search(r"@import|url\((?!#)", html)
    for _, attributes, _ in Reader(html).elements:
        for key in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(key, "#").startswith(("#", "data:image/"))


def test_the_policy_allows_the_scripts_of_the_page_only(html):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)
    assert "default-src &#39;none&#39;" in policy
    assert policy.count("sha256-") == html.count("<script>") == 2
    assert not re.search(r"\son\w+=", html)


def test_the_same_page_gives_the_same_bytes(rich_page, html, tmp_path):
    write(rich_page, tmp_path / "folder" / "page.html")
    assert (tmp_path / "folder" / "page.html").read_bytes() == html.encode()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["page.html"]


EVIL = """<script>alert("x")</script> & 'q' {{ 7 * 7 }} `<i>` </title></pre><!--"""


def test_text_of_every_place_is_taken_literally():
    figure, _ = style.panels(1)
    blocks = [
        Text(EVIL),
        Text(f"- {EVIL}"),
        Picture(figure, EVIL, EVIL),
        Table(pd.DataFrame({EVIL: [EVIL, (EVIL, EVIL)]}), EVIL, units={EVIL: EVIL}),
        Table(pd.DataFrame({EVIL: [1.0]}).set_index(pd.Index(["a"], name=EVIL))),
        Code(EVIL, EVIL, EVIL),
        Group(EVIL, [Text(EVIL)]),
    ]
    cards = [Card(EVIL, EVIL, EVIL)]
    made = render(Page(EVIL, EVIL, [Section(EVIL, blocks, EVIL)], EVIL, cards))
    read = Reader(made)
    assert len(read.all("script")) == 2
    assert not read.all("i")
    assert "{{ 7 * 7 }}" in made
    assert '<script>alert("x")' not in made


def test_a_page_without_anything_is_a_page():
    read = Reader(render(Page("Nothing")))
    assert not read.all("nav")
    assert not read.all("button")
    assert not read.all("dl")
    assert len(read.all("input")) == 3, "the theme can still be chosen"


def test_sections_of_one_title_have_anchors_of_their_own():
    made = render(Page("T", sections=[Section("Same"), Section("Same"), Section("Same 2")]))
    targets = [attributes["id"] for attributes in Reader(made).all("h2")]
    assert targets == ["same", "same-2", "same-2-2"]


@given(st.lists(st.text(max_size=8), max_size=6))
def test_anchors_are_different_and_fit_for_an_address(titles):
    names = anchors(titles)
    assert len(set(names)) == len(names) == len(titles)
    assert not any(re.search(r"[\s_#\"'<>&%]", name) or not name for name in names)


def test_a_table_has_headers_units_and_keys():
    frame = pd.DataFrame({"layer": ["a10", "a9"], "size": [123.5, np.nan], "on": [True, False]})
    read = Reader(render(page(Table(frame, units={"size": "taps"}))))
    heads = read.all("th")
    assert [head["scope"] for head in heads] == ["col"] * 3 + ["row"] * 2
    assert "size" in read.words("thead")
    assert "taps" in read.words("thead")
    cells = read.all("td")
    assert cells[0] == {"class": "number", "data-key": "123.5"}
    assert cells[2] == {"class": "number", "data-missing": None}
    assert {"title": "no value"} in read.all("span")
    assert read.words("td") == ["123.5", "yes", "–", "no"]


def test_a_table_without_rows_or_columns_says_so():
    empty = Reader(render(page(Table(pd.DataFrame({"a": [], "b": []})))))
    assert empty.words("td") == ["norows"]
    assert empty.all("td")[0]["colspan"] == "2"
    assert "no columns" in render(page(Table(pd.DataFrame())))


def test_rows_beyond_the_first_ones_open_on_demand():
    frame = pd.DataFrame({"a": range(5)})
    long, short = (Reader(render(page(Table(frame, rows=rows)))) for rows in (3, 5))
    assert [row.get("class") for row in long.all("tr")[1:]] == [None] * 3 + ["extra"] * 2
    assert {"class": "more"} in long.all("details")
    assert not short.all("details")


def test_figures_and_tables_are_numbered_as_they_come():
    figure, _ = style.panels(1)
    table = Table(pd.DataFrame({"a": [1]}), "T")
    blocks = [Picture(figure, "a"), table, Group("more", [Picture(figure, "b", "C"), table])]
    words = [word for word in Reader(render(page(*blocks))).words("b") if word]
    assert words == ["Figure1", "Table1", "Figure2", "Table2"]


def test_a_long_name_may_break_and_stays_whole():
    name = "encoder." + ".".join(f"stage_{n}" for n in range(40))
    made = render(page(Table(pd.DataFrame({"layer": [name]}))))
    assert "encoder.<wbr>stage_<wbr>0.<wbr>stage_" in made
    assert name in made.replace("<wbr>", "")


def test_no_line_ends_within_a_size_or_a_share():
    made = render(page(Text("a map of 16 × 16, 90 % of it, 3 a")))
    assert "a map of 16\xa0×\xa016, 90\xa0% of it, 3 a" in made


def test_code_keeps_every_blank_and_line():
    text = "\n  a:\n\tb  \n\n"
    assert f'<code class="language-yaml">{text}</code>' in render(page(Code(text, "yaml")))


def test_unicode_stays_readable():
    made = render(page(Text("卷積 σ ≥ 2 🙂"), Table(pd.DataFrame({"σ": ["卷積"]}))))
    assert "卷積 σ ≥ 2 🙂" in made
    assert made.encode("utf-8")


@settings(max_examples=20)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=30))
def test_any_text_leaves_the_page_whole(text):
    read = Reader(render(page(Text(text), Code(text), Table(pd.DataFrame({"a": [text]})))))
    assert len(read.all("section")) == 1


@pytest.mark.parametrize(
    ("count", "row"), [(1, 3), (3, 3), (4, 4), (5, 5), (6, 3), (7, 4), (8, 4), (9, 3)]
)
def test_rows_of_cards_are_even(count, row):
    cards = [Card("a", number) for number in range(count)]
    made = render(Page("T", cards=cards))
    assert f'class="cards" style="--row:{row}"' in made


def test_values_of_cards_are_written_like_those_of_tables():
    made = render(Page("T", cards=[Card("a", 1234567), Card("b", None), Card("c", 0.98712)]))
    words = [word for word in Reader(made).words("dd") if word]
    assert words == ["1,234,567", "–", "0.9871"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: render("page"), TypeError, "page must be a Page"),
        (lambda: render(page("text")), TypeError, "blocks must hold .*'text'"),
        (lambda: render(Page("T", sections=["x"])), TypeError, "sections must hold Section .*'x'"),
        (lambda: Picture(style.panels(1)[0], " "), ValueError, "alt must say"),
        (lambda: Picture("plot.png", "alt"), TypeError, "figure must be a matplotlib Figure"),
        (lambda: Table([[1]]), TypeError, "frame must be a pandas DataFrame.*list"),
        (lambda: Table(pd.DataFrame(), rows=0), ValueError, "rows must be at least 1"),
    ],
)
def test_what_is_no_part_of_a_page_is_an_error(make, error, message):
    with pytest.raises(error, match=message):
        make()
