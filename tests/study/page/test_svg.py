from __future__ import annotations

import re
import warnings
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from sizeless.study import style
from sizeless.study.page.colors import lightened
from sizeless.study.page.mathtext import flow
from sizeless.study.page.svg import draw


def figure_with(*texts, **keywords):
    figure, (axes,) = style.panels(1)
    style.clean(axes)
    for text in texts:
        axes.text(0.5, 0.5, text, **keywords)
    return figure


def parsed(figure, **keywords):
    drawing = draw(figure, "what it shows", prefix="f1", **keywords)
    assert drawing.svg
    return ElementTree.fromstring(drawing.svg)


def styles(root, tag):
    return [element.get("style", "") for element in root.iter(tag)]


def text_of(root, words):
    (found,) = (e for e in root.iter("text") if "".join(e.itertext()) == words)
    return found


def test_the_element_stands_in_html_as_it_is():
    drawing = draw(figure_with("a < b & c"), 'says "a"', prefix="f1")
    assert drawing.svg.startswith("<svg viewBox=")
    assert not re.search(r"<\?xml|<!DOCTYPE|<metadata|<style|xmlns|http|ns0:|date", drawing.svg)
    root = ElementTree.fromstring(drawing.svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'says "a"'
    assert (drawing.width, drawing.height) == (864, round(2.6 * 96))
    assert text_of(root, "a < b & c") is not None


def test_the_same_figure_gives_the_same_text():
    figure = figure_with("$10^2$")
    figure.axes[0].imshow(np.eye(3))
    first, second = (draw(figure, "alt", prefix="f1").svg for _ in range(2))
    assert first == second
    again = figure_with("$10^2$")
    again.axes[0].imshow(np.eye(3))
    assert draw(again, "alt", prefix="f1").svg == first


def test_names_begin_with_the_prefix_and_every_reference_has_one():
    figure = figure_with()
    figure.axes[0].plot([0, 1], [0, 1], marker="o")
    figure.axes[0].bar([0], [1], hatch="/")
    svg = draw(figure, "alt", prefix="f7").svg
    names = re.findall(r' id="([^"]+)"', svg)
    referred = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    assert len(names) == len(set(names)) > 2
    assert set(names) == referred
    assert all(name.startswith("f7_") for name in names)


@pytest.mark.parametrize(
    ("color", "variable"),
    [
        (style.INK, "--ink"),
        (style.AXIS, "--axis"),
        (style.FAINT, "--faint"),
        (style.SHADE, "--shade"),
        ("black", "--ink"),
        ("white", "--paper"),
    ],
)
def test_greys_of_the_house_follow_the_theme(color, variable):
    figure = figure_with()
    figure.axes[0].plot([0, 1], [0, 1], color=color, linewidth=3.25)
    (line,) = (each for each in styles(parsed(figure), "path") if "3.25" in each)
    assert f"stroke:var({variable})" in line
    assert "#" not in line.replace("url(#", "")


def test_every_grey_of_the_house_and_the_ground_is_replaced():
    figure = figure_with("label", color=style.INK)
    svg = draw(figure, "alt", prefix="f1").svg
    for color in (style.INK, style.AXIS, "#ffffff", "#000000"):
        assert color not in svg


def test_other_colors_have_a_light_twin_for_the_dark_theme():
    figure = figure_with()
    figure.axes[0].plot([0, 1], [0, 1], color="#440154")
    (line,) = (each for each in styles(parsed(figure), "path") if "#440154" in each)
    assert f"stroke:#440154;stroke:light-dark(#440154, {lightened('#440154')})" in line


def test_black_text_follows_the_theme_through_the_color_that_it_inherits():
    root = parsed(figure_with("word", color="black"))
    assert "fill" not in text_of(root, "word").get("style")


def luminance(color):
    levels = np.array([int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(light @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scale", ["viridis", "RdBu_r", "tab10", "gray"])
def test_no_color_is_lost_in_the_dark(scale):
    paper = luminance("#14171b")
    for place in np.linspace(0, 1, 12):
        color = lightened(mpl.colors.to_hex(mpl.colormaps[scale](place)))
        assert (luminance(color) + 0.05) / (paper + 0.05) > 1.9


def test_the_order_of_a_scale_stays_in_the_dark():
    colors = [mpl.colors.to_hex(mpl.colormaps["viridis"](place)) for place in np.linspace(0, 1, 9)]
    lights = [luminance(lightened(color)) for color in colors]
    assert lights == sorted(lights)


def test_meshes_and_the_text_on_them_keep_their_colors():
    figure, (axes,) = style.panels(1)
    axes.pcolormesh([[0.0, 1.0]], cmap="gray")
    for place, color in ((0.5, "white"), (1.5, style.INK)):
        axes.text(place, 0.5, color, color=color, ha="center")
    axes.set_title("title", color=style.INK)
    root = parsed(figure)
    cells = [each for each in styles(root, "path") if "fill:" in each and "light-dark" in each]
    assert not cells
    assert "fill:#ffffff" in text_of(root, "white").get("style")
    assert f"fill:{style.INK}" in text_of(root, style.INK).get("style")
    assert "fill:var(--ink)" in text_of(root, "title").get("style")
    assert all(text.get_gid() is None for text in axes.texts), "the figure was changed"


def test_text_beside_an_image_of_the_same_axes_follows_the_theme():
    figure, (axes,) = style.panels(1)
    axes.imshow(np.eye(2), extent=(0, 1, 0, 1))
    axes.set_xlim(0, 5)
    axes.text(0.5, 0.5, "on", color=style.INK, ha="center")
    axes.text(4, 0.5, "beside", color=style.INK, ha="center")
    root = parsed(figure)
    assert f"fill:{style.INK}" in text_of(root, "on").get("style")
    assert "fill:var(--ink)" in text_of(root, "beside").get("style")


def test_lines_on_an_image_keep_their_colors():
    figure, (axes,) = style.panels(1)
    axes.imshow(np.eye(4))
    axes.plot([1, 2], [1, 2], color=style.INK, linewidth=3.25)
    axes.add_patch(Ellipse((1.5, 1.5), 2, 1, fill=False, color="#440154", linewidth=2.25))
    axes.plot([], [])
    paths = styles(parsed(figure), "path")
    (line,) = (each for each in paths if "3.25" in each)
    (ellipse,) = (each for each in paths if "2.25" in each)
    assert f"stroke:{style.INK}" in line
    assert "light-dark" not in ellipse


def test_an_artist_may_ask_for_its_own_colors():
    figure = figure_with()
    figure.axes[0].plot([0, 1], [0, 1], color=style.INK, linewidth=3.25, gid="as-is")
    (line,) = (each for each in styles(parsed(figure), "path") if "3.25" in each)
    assert f"stroke:{style.INK}" in line


def test_images_stay_as_they_are():
    figure, (axes,) = style.panels(1)
    axes.imshow(np.random.default_rng(0).normal(size=(4, 4)))
    (image,) = parsed(figure).iter("image")
    assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", image.get("href"))


def test_text_has_the_font_of_the_page_and_its_own_place():
    root = parsed(figure_with("middle", ha="center", family="serif", weight="bold"))
    declared = text_of(root, "middle").get("style")
    assert "text-anchor:middle" in declared
    assert "font-weight:700" in declared
    assert "family" not in declared
    mono = text_of(parsed(figure_with("x", family="monospace")), "x")
    assert "font-family:var(--mono)" in mono.get("style")


def ends(root, words):
    """Where a line begins, and where it is held, along its own direction."""
    text = text_of(root, words)
    return text.get("transform"), float(text.get("x")), text.get("style").split("text-anchor:")[1]


def test_lines_of_one_text_are_held_where_they_are_aligned():
    figure = figure_with("a short\nand a longer line", ha="right")
    held = parsed(figure)
    lines = [ends(held, "a short"), ends(held, "and a longer line")]
    rights = [float(re.search(r"\(([\d.]+)", turn)[1]) + x for turn, x, _ in lines]
    assert rights[0] == pytest.approx(rights[1], abs=0.6)
    assert [place for _, _, place in lines] == ["end", "end"]
    assert all(text.get_gid() is None for text in figure.axes[0].texts)


@pytest.mark.parametrize(
    ("rotation", "ha", "va", "place"),
    [
        (90, "center", "top", "end"),
        (90, "right", "center", "middle"),
        (45, "right", "top", "end"),
        (30, "center", "top", "middle"),
        (270, "center", "bottom", "end"),
    ],
)
def test_slanted_text_is_held_where_it_meets_its_place(rotation, ha, va, place):
    root = parsed(figure_with("slanted", rotation=rotation, ha=ha, va=va))
    assert ends(root, "slanted")[2] == place


def test_text_held_by_its_start_stays_as_it_was():
    root = parsed(figure_with("slanted", rotation=90, va="bottom"))
    assert text_of(root, "slanted").get("x") is None


def test_labels_of_ticks_are_held_too():
    figure = figure_with()
    figure.axes[0].set_yticks([0.5], ["two\nlines"])
    assert ends(parsed(figure), "two")[2] == "end"


def test_a_formula_runs_on_and_its_superscript_is_raised():
    text = text_of(parsed(figure_with("$10^{-3}$")), "10−3")
    assert [span.text for span in text] == ["10", "−3"]
    assert [span.get("x") for span in text] == [None, None]
    assert float(text[1].get("dy")) < 0
    assert float(text[1].get("dy")) > -10


def test_a_fraction_stays_where_its_letters_were_put():
    root = parsed(figure_with(r"$\frac{a}{b}$"))
    (text,) = (text for text in root.iter("text") if len(text))
    assert all(span.get("x") is not None for span in text)


def test_letters_that_share_an_element_stay_where_they_are():
    formula = '<svg><g><text><tspan style="font: 8px x" x="0 5" y="0">10</tspan></text></g></svg>'
    root = ElementTree.fromstring(formula)
    flow(root)
    assert ElementTree.tostring(root, encoding="unicode") == formula


def test_letters_that_the_font_lacks_pass_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = parsed(figure_with("卷積 σ"))
    assert text_of(root, "卷積 σ") is not None


def test_a_figure_of_many_points_is_an_image():
    figure = figure_with()
    figure.axes[0].scatter(*np.random.default_rng(0).normal(size=(2, 3500)), s=2)
    first, second = (draw(figure, "alt", prefix="f1") for _ in range(2))
    assert first.svg == ""
    assert first.image.startswith("data:image/png;base64,iVBOR")
    assert len(first.image) < 400_000
    assert first == second


def test_the_users_settings_change_nothing():
    before = draw(figure_with("x"), "alt", prefix="f1")
    with mpl.rc_context({"savefig.bbox": "tight", "svg.fonttype": "path", "svg.hashsalt": None}):
        assert draw(figure_with("x"), "alt", prefix="f1") == before
        assert mpl.rcParams["svg.fonttype"] == "path"


def test_an_empty_figure_is_drawn():
    assert draw(Figure(figsize=(2, 1)), "nothing", prefix="f1").svg
