"""Small multiples: where the numbers stand, what is coloured, what is cut, and what a screen reader hears."""

from __future__ import annotations

import base64
import io
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from stub_browser import Browser
from stub_results import EVIL, plain, runs_its_script_alone
from stub_results import Page as Html

from pydt.base import ConfigError
from pydt.reporting import Multiples, Page, write_pages
from pydt.reporting.page import PANELS

SHOTS = ("1", "2", "5", "10", "20", "all")
VALUES = np.array([[1.5, 1.2, 0.8, 0.5, 0.3, 0.2], [-0.9, -0.5, -0.2, 0.1, 0.0, 0.0], [0.1, 0.6, -0.4, 0.2, 0.1, -0.3]])
HALF = np.array([1.0, 0.7, 0.5, 0.3, 0.25, 0.2])


def multiples(values: Any = VALUES, half: Any = HALF, x: Any = SHOTS, **more: Any) -> Multiples:
    values = np.asarray(values, float)
    names = more.pop("names", [f"group {i}" for i in range(len(values))])
    given = {"low": values - half, "high": values + half, "title": "Curves", **more}
    return Multiples(names, x, values, unit="points", x_label="labelled images per class", **given)


def written(block: Multiples, folder: Path) -> str:
    csv = {"shots.csv": (("name",), [(name,) for name in block.names])}
    write_pages([Page("shots", "Shots", "Which?", ["These."], [block], csv, "A formula.")], folder, "t")
    return (folder / "shots.html").read_text(encoding="utf-8")


class Panel:
    """What a panel shows, in pixels and percent."""

    def __init__(self, html: str) -> None:
        self.scale, self.plot = ElementTree.fromstring(f"<div>{html}</div>")
        self.label = self.plot.attrib["aria-label"]
        self.height = float(self.plot.attrib["height"])
        self.numbers = {plain(e.text or ""): float(e.attrib["y"]) - 4 for e in self.scale.iter("text")}
        self.places = [(e.text, self.x(e, "x")) for e in self.plot.iter("text")]
        lines = list(self.plot.iter("line"))
        self.zero = [float(e.attrib["y1"]) for e in lines if e.attrib["class"] == "zero"]
        self.trends = [self.ends(e) for e in lines if e.attrib["class"].startswith("trend")]
        self.bars = [self.ends(e) for e in lines if e.attrib["class"].startswith("bar")]
        marks = [(self.x(e, "x"), float(e.attrib["y"]), e[0].attrib) for e in self.plot.findall("svg")]
        self.marks = [(x, y) for x, y, attrib in marks if "end" not in attrib["class"].split()]
        self.shapes = [attrib["d"] for _, _, attrib in marks if "end" not in attrib["class"].split()]
        self.caps = [(x, y, attrib["d"]) for x, y, attrib in marks if "end" in attrib["class"].split()]
        self.styles = {attrib["class"].replace("mark ", "").replace("end ", "") for _, _, attrib in marks}

    def x(self, element: ElementTree.Element, key: str) -> float:
        return float(element.attrib[key].removesuffix("%"))

    def ends(self, line: ElementTree.Element) -> tuple[float, ...]:
        return (*(self.x(line, key) for key in ("x1", "x2")), *(float(line.attrib[key]) for key in ("y1", "y2")))


def panels(text: str) -> list[Panel]:
    return [Panel(html) for html in re.findall(r'<div class="curve">(.*?)</div>', text)]


def test_all_panels_have_one_scale_and_everything_stands_on_it(tmp_path: Path) -> None:
    shown = panels(written(multiples(), tmp_path))
    marks = np.array([panel.marks for panel in shown])
    slope, offset = np.polyfit(VALUES.ravel(), marks[..., 1].ravel(), 1)
    assert slope < 0  # upwards on the page is down in its numbers
    np.testing.assert_allclose(marks[..., 1], slope * VALUES + offset, atol=0.1)
    np.testing.assert_allclose(np.diff(marks[..., 0]), 100 / 6, atol=1e-2)
    np.testing.assert_allclose(marks[..., 0], marks[0, :, 0] * np.ones((3, 1)))
    bars = np.array([panel.bars for panel in shown])
    np.testing.assert_allclose(bars[..., 0], marks[..., 0])
    np.testing.assert_allclose(bars[..., 0], bars[..., 1])
    for side, end in ((2, VALUES - HALF), (3, VALUES + HALF)):
        np.testing.assert_allclose(bars[..., side], slope * end + offset, atol=0.1)
        caps = [[cap[1] for cap in panel.caps[side - 2 :: 2]] for panel in shown]
        np.testing.assert_allclose(caps, bars[..., side])
    for panel in shown:
        assert panel.trends == [(a[0], b[0], a[1], b[1]) for a, b in pairwise(panel.marks)]
        assert panel.zero == [pytest.approx(offset, abs=0.1)]
        assert [text for text, _ in panel.places] == list(SHOTS)
        np.testing.assert_allclose([x for _, x in panel.places], marks[0, :, 0])
        assert list(panel.numbers) == ["-2", "0", "+2"]
        np.testing.assert_allclose(list(panel.numbers.values()), slope * np.array([-2, 0, 2]) + offset, atol=0.1)
    every = [*bars[..., 2:].ravel(), *shown[0].numbers.values()]
    assert min(every) > 0
    assert max(every) < shown[0].height - 14, "above the texts of the places"


def test_findings_are_coloured_by_the_value_farthest_from_0_in_units_of_its_interval(tmp_path: Path) -> None:
    values = [[1.2, -0.5], [-1.2, 0.5], [1.0, 1.0], [0.0, 0.0], [np.nan, -0.1]]
    block = multiples(values, [1.0, 0.1], ("1", "all"), marked=[True, True, False, True, True])
    text = written(block, tmp_path)
    hollow = "plain second"
    assert [panel.styles for panel in panels(text)] == [{"worse"}, {"better"}, {hollow}, {hollow}, {"worse"}]
    legend = re.findall(r'class="mark ([a-z ]+)".*?<bdi>(.*?)</bdi>', text.split('<ul class="multiples">')[0])
    assert legend == [("better", "finding, above 0"), ("worse", "finding, below 0"), (hollow, "no finding")]
    text = written(multiples(values[2:4], [1.0, 0.1], ("1", "all")), tmp_path)
    assert 'class="legend"' not in text, "nothing is a finding where nothing was tested"
    assert all(panel.styles == {hollow} for panel in panels(text))
    alone = multiples([[0.3, -0.2]], 0, ("1", "all"), marked=[True], low=[[None] * 2], high=[[None] * 2])
    assert panels(written(alone, tmp_path))[0].styles == {"better"}, "no interval is known"


def test_each_point_that_is_a_finding_has_the_colour_of_its_own_sign(tmp_path: Path) -> None:
    marked = np.array([[True, True], [False, True], [False, False]])
    text = written(multiples([[1.2, -0.5]] * 3, 0.1, ("1", "all"), marked=marked), tmp_path)
    hollow = "plain second"
    assert [panel.styles - {hollow} for panel in panels(text)] == [{"better", "worse"}, {"worse"}, set()]
    assert "finding, above 0" in text
    with pytest.raises(ConfigError, match="a row of marked does not have 2 entries"):
        multiples([[1.2, -0.5]], 0.1, ("1", "all"), marked=[[True]])


def test_what_is_missing_is_left_open(tmp_path: Path) -> None:
    values, half = np.array([[1.0, np.nan, 0.5, 0.4, -np.inf, 0.2]]), np.array([0.5, 0.5, np.nan, np.inf, 0.5, 0.1])
    (panel,) = panels(written(multiples(values, half), tmp_path))
    xs = [x for x, _ in panel.marks]
    np.testing.assert_allclose(xs, [100 / 12, 500 / 12, 700 / 12, 1100 / 12], atol=1e-2)
    assert [bar[0] for bar in panel.bars] == [xs[0], xs[3]]
    assert [trend[:2] for trend in panel.trends] == [(xs[1], xs[2])], "no line across a gap"
    assert plain(panel.label) == (
        "group 0, points against labelled images per class, with 95 % intervals. 1: 1.00 (0.50 to 1.50); "
        "2: no value; 5: 0.50; 10: 0.40; 20: no value; all: 0.20 (0.10 to 0.30)."
    )
    without = multiples(values, low=values - half, high=np.where(np.isfinite(values), values + half, 90.0))
    assert panels(written(without, tmp_path))[0].marks == panel.marks, "an interval without its value is not drawn"
    (panel,) = panels(written(multiples(np.full((1, 6), np.nan)), tmp_path))
    assert not panel.marks
    assert "all: no value" in panel.label


def test_a_screen_reader_hears_every_number(tmp_path: Path) -> None:
    first = panels(written(multiples(names=["a\u202eb", "", "<b>"]), tmp_path))
    assert plain(first[1].label) == (
        "(no name), points against labelled images per class, with 95 % intervals. 1: -0.90 (-1.90 to +0.10); "
        "2: -0.50 (-1.20 to +0.20); 5: -0.20 (-0.70 to +0.30); 10: +0.10 (-0.20 to +0.40); "
        "20: 0.00 (-0.25 to +0.25); all: 0.00 (-0.20 to +0.20)."
    )
    assert first[0].label.startswith("ab, ")
    assert first[2].label.startswith("<b>, ")


EIGHT = np.tile(VALUES[0], (8, 1))
OTHERS = (0, 1, 2, 4, 5, 6, 7)


@pytest.mark.parametrize(("outlier", "half", "smaller", "pixels"), [(0.0, 30.0, 3.3, 5), (200.0, 0.1, 4.4, 4)])
def test_one_panel_does_not_make_the_others_too_small(
    outlier: float, half: float, smaller: float, pixels: float, tmp_path: Path
) -> None:
    usual = written(multiples(EIGHT), tmp_path)
    assert "beyond the scale" not in usual
    values, halves = EIGHT.copy(), np.tile(HALF, (8, 1))
    values[3, :2], halves[3] = [-outlier, outlier], half
    text = written(multiples(values, halves), tmp_path)
    assert "Arrows at the edge point to what lies beyond the scale." in text
    before, after = panels(usual), panels(text)
    assert {shape for panel in before for *_, shape in panel.caps} == {before[0].caps[0][2]}
    for i in OTHERS:
        was, now = (abs(np.diff(np.array(p[i].bars)[:, 2:])) for p in (before, after))
        assert np.all(now > was / smaller)
        assert now.min() > pixels
        assert after[i].shapes == before[i].shapes
        assert [shape for *_, shape in after[i].caps] == [shape for *_, shape in before[i].caps]
    top, bottom = min(y for p in after for _, y, _ in p.caps), max(y for p in after for _, y, _ in p.caps)
    assert 0 <= top < bottom < after[0].height - 14
    (_, low, down), (_, high, up) = after[3].caps[:2] if not outlier else (after[3].caps[0], after[3].caps[3])
    assert (low, high) == (bottom, top)
    if outlier:
        assert [y for _, y in after[3].marks[:2]] == [bottom, top]
        assert len(set(after[3].shapes)) == 3, "arrows down and up, and circles"
        assert "-200.00" in plain(after[3].label)
    else:
        assert len({down, up, after[0].caps[0][2]}) == 3, "arrows down and up are no end points"


def test_a_large_finding_is_not_cut(tmp_path: Path) -> None:
    values = EIGHT.copy()
    values[3] *= 3
    shown = panels(written(multiples(values), tmp_path))
    assert len({shape for panel in shown for shape in panel.shapes}) == 1
    assert len({shape for *_, shape in shown[3].caps}) == 2, "the end of its widest interval is"


def test_panels_of_zeros_do_not_hide_the_others(tmp_path: Path) -> None:
    shown = panels(written(multiples([*np.zeros((4, 6)), VALUES[0]], 0.0), tmp_path))
    heights = [y for _, y in shown[4].marks]
    assert heights == sorted(set(heights)), "six values, none of them at the edge"
    assert len(set(shown[4].shapes)) == 1


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    for n, said in ((PANELS, ""), (PANELS + 1, "1 more is not shown"), (PANELS + 1200, "1,200 more are not shown")):
        text = written(multiples(np.tile(VALUES[0], (n, 1)), names=[f"g{i}" for i in range(n)]), tmp_path)
        assert len(panels(text)) == PANELS
        assert ("not shown" in text) == bool(said)
        assert not said or f"{said}; the CSV files below hold all." in text
        assert f"<bdi>g{PANELS - 1}</bdi>" in text
        assert f"<bdi>g{PANELS}</bdi>" not in text


@pytest.mark.parametrize(
    ("values", "half"),
    [
        ([[0.5]], 0.1),
        ([[0.0] * 6] * 3, 0.0),
        ([[7.0] * 6], 0.0),
        ([[-7.0] * 6], 1.0),
        ([[1e300, -1e300, 1.7e308, -1.7e308, 0, 1]], 1e290),
        ([[0.0] * 6, [0.0] * 6, [1.7e308] * 6], 0.0),
        ([[1e12, 2e12, 3e12, 4e12, 5e12, 6e12]], 1e11),
        ([[1e-12, -2e-12, 3e-12, 0, 0, 0]], 1e-13),
        ([[4.02, -4.02, 0, 0, 0, 0]], 0.0),
    ],
)
def test_any_numbers_give_a_scale_that_holds_0(values: list[list[float]], half: float, tmp_path: Path) -> None:
    block = multiples(values, half, SHOTS[-len(values[0]) :])
    for panel, row in zip(panels(written(block, tmp_path)), values, strict=True):
        assert len(panel.marks) == len(row)
        assert len(panel.zero) == 1
        assert len(panel.numbers) > 1, "0 alone tells no scale"
        assert max(map(len, panel.numbers)) <= 8
        places = [panel.zero[0], *(y for _, y in panel.marks), *(y for _, y, _ in panel.caps), *panel.numbers.values()]
        assert 0 <= min(places) <= max(places) < panel.height - 14


def test_zero_panels_say_so(tmp_path: Path) -> None:
    for empty in (np.empty((0, 6)), []):
        text = written(Multiples([], SHOTS, empty, empty, empty, "points", "shots", "Curves"), tmp_path)
        assert "There is nothing to show." in text
        assert not panels(text)


def test_texts_of_places_do_not_overlap(tmp_path: Path) -> None:
    def texts(n: int, length: int) -> list[str]:
        x = [f"{i:0{length}d}" for i in range(n)]
        (panel,) = panels(written(multiples(np.ones((1, n)), 0.1, x), tmp_path))
        shown = [text for text, _ in panel.places]
        places = [x for _, x in panel.places]
        assert len(shown) == 1 or min(np.diff(places)) * 1.3 > 6 * length, "on 130 pixels"
        assert shown[-1] == x[-1]
        assert shown[0] == x[0] or len(shown) == 1
        return shown

    assert len(texts(6, 2)) == 6
    assert len(texts(12, 3)) < 12
    assert len(texts(300, 4)) < 6
    assert len(texts(3, 20)) == 1


def test_pictures_and_captions_belong_to_their_panels(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 7), dtype=np.uint8)
    captions = ["fades, q 0.01", "", "change -2 & more"]
    text = written(multiples(images={"group 1": pixels}, captions=captions), tmp_path)
    items = re.findall(r"<li>\n(.*?)</li>", text.split('<ul class="multiples">')[1], re.S)
    assert [re.findall(r'<span class="of">(.*?)</span>', item) for item in items] == [
        ["fades, q 0.01"],
        [],
        ["change \u22122 &amp; more"],
    ]
    found = [re.findall(r'base64,([^"]+)" alt="(.*?)"', item) for item in items]
    assert [len(own) for own in found] == [0, 3, 0]
    assert [alt for _, alt in found[1]] == ["example of group 1", "", ""]
    for (data, _), image in zip(found[1], pixels[:3], strict=True):
        assert np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).tolist() == image.tolist()
    assert "<img" not in written(multiples(), tmp_path)


def evil() -> Multiples:
    values = np.linspace(-1, 1, len(EVIL))[:, None] * np.ones(6)
    pixels = dict.fromkeys(EVIL, np.zeros((3, 40, 40, 3), np.uint8))
    more = {"names": EVIL, "captions": EVIL, "images": pixels, "marked": values[:, 0] > 0, "note": EVIL[0]}
    block = multiples(values, 0.3, [*EVIL[:5], "all"], **more)
    return Multiples(**vars(block) | {"title": EVIL[1], "unit": EVIL[2], "x_label": EVIL[1]})


def test_names_are_text(tmp_path: Path) -> None:
    text = written(evil(), tmp_path)
    html = Html(text)
    assert runs_its_script_alone(html)
    assert len(html.find("img")) == 3 * len(EVIL)
    assert len(panels(text)) == len(EVIL)
    assert EVIL[1] in panels(text)[1].label
    assert "\u202e" not in text


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_in_a_browser(width: int, tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    for block in (evil(), multiples(np.tile(VALUES * 1e9, (10, 1)), HALF * 1e9)):
        text = written(block, tmp_path)
        _, log = browser.load(text, width)
        assert "CONSOLE" not in log
        assert browser.wide(text, width) <= width


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"x": []}, "x is empty"),
        ({"values": VALUES[:2]}, "values has length 2 for 3 panels"),
        ({"low": VALUES[:, :5]}, "a row of low does not have 6 numbers"),
        ({"high": VALUES[0]}, "high has length 6"),
        ({"high": [1.0, 2.0, 3.0]}, "a row of high does not have 6 numbers"),
        ({"values": [*VALUES[:2], [1.0]]}, "a row of values does not have 6 numbers"),
        ({"marked": [True]}, "marked has length 1"),
        ({"captions": ["a", "b"]}, "captions has length 2"),
    ],
)
def test_what_does_not_fit_together_is_refused(changed: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong) as refused:
        Multiples(**vars(multiples()) | changed)
    assert "Multiples 'Curves'" in str(refused.value)
