"""Pages of analyses: what is shown, what is cut, what is escaped, and that the CSV files are whole."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stub_results import EVIL, runs_its_script_alone
from stub_results import Page as Html

from pydt.base import ConfigError
from pydt.reporting import Column, Curve, Images, Intervals, Page, Table, csv_of, write_pages
from pydt.reporting.page_html import LISTED, ROWS

X = np.array([50, 100, 200])


def page(name: str = "stability", blocks: Any = (), **changed: Any) -> Page:
    given: dict[str, Any] = {
        "title": "Stability",
        "question": "How far may one trust the ranking?",
        "answer": ["Two halves of 100 models agree with rank correlation 0.61 (n = 2).", "More models: -2 of 1-3."],
        "csv": {"values.csv": (("name", "value"), [("a", 0.1), ("b", None)])},
        "method": "Spearman's correlation\nof two halves:\n    \n    r = cov(a, b) / (s_a s_b)\nAppendix of the paper.",
    }
    return Page(name=name, blocks=blocks, **given | changed)


def shown(folder: Path, name: str = "stability") -> Html:
    return Html((folder / f"{name}.html").read_text(encoding="utf-8"))


def svg(folder: Path) -> str:
    return (folder / "stability.html").read_text(encoding="utf-8")


def plain(text: str) -> str:
    return " ".join(text.replace("\u00a0", " ").replace("\u2212", "-").split())


def test_a_page_says_what_it_was_given(tmp_path: Path) -> None:
    index = write_pages([page()], tmp_path, "characters to digits", [("plan", "abc")])
    html = shown(tmp_path)
    assert [plain(e["text"]) for e in html.find("p")] == [
        "How far may one trust the ranking?",
        "Two halves of 100 models agree with rank correlation 0.61 (n = 2).",
        "More models: -2 of 1-3.",
        "Spearman's correlation of two halves:",
        "r = cov(a, b) / (s_a s_b)",
        "Appendix of the paper.",
        "Every number in full precision: values.csv.",
    ]
    assert "More models: \u22122 of 1-3." in svg(tmp_path)
    assert "abc" in html.section("provenance")
    assert (tmp_path / html.find("a")[-1]["attrs"]["href"]).read_text() == "name,value\na,0.1\nb,\n"
    listed = Html(index.read_text())
    assert "Two halves of 100 models" in plain(listed.find("li")[0]["text"])
    assert "More models" not in listed.find("li")[0]["text"]
    assert (tmp_path / listed.find("a")[0]["attrs"]["href"]).is_file()


def test_no_page_needs_the_network_or_runs_what_it_was_given(tmp_path: Path) -> None:
    pixels = np.zeros((len(EVIL), 8, 8, 3), np.uint8)
    values = np.linspace(-1, 1, len(EVIL))
    blocks = [
        Images(pixels, EVIL, EVIL[0], EVIL[1]),
        Table([EVIL[0], "n"], [(text, 1) for text in EVIL], EVIL[1]),
        Intervals(EVIL, values, values - 1, values + 1, EVIL[0], EVIL[0]),
        Curve(dict.fromkeys(EVIL, (X, X, None, None)), EVIL[0], EVIL[1], EVIL[14]),
    ]
    answer = [f"It is {text}" for text in EVIL]
    csv_rows = {"v.csv": (["name"], [[text] for text in EVIL])}
    evil = page(blocks=blocks, answer=answer, csv=csv_rows, method=EVIL[0], title=EVIL[0], question=EVIL[0])
    write_pages([evil], tmp_path, EVIL[0], [(EVIL[0], EVIL[1])])
    for name in ("stability", "index"):
        html = shown(tmp_path, name)
        assert runs_its_script_alone(html)
        links = [e["attrs"][key] for e in html.elements for key in ("src", "href") if key in e["attrs"]]
        assert all(link.startswith("data:") or (tmp_path / link).exists() for link in links)
    assert "<script>" in shown(tmp_path).find("h2")[0]["text"]
    with open(tmp_path / "stability" / "v.csv", newline="", encoding="utf-8") as file:
        cells = [row[0] for row in csv.reader(file)][1:]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@")]


def test_pictures_are_the_pixels_given_and_pairs_stay_together(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 7), dtype=np.uint8)
    write_pages([page(blocks=[Images(pixels, ["a", "b", "c"], "Pairs", together=2)])], tmp_path, "t")
    tiles = re.findall(r"<li>(.*?)</li>", svg(tmp_path), re.S)
    assert len(tiles) == 3
    for i, tile in enumerate(tiles):
        found = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", tile)]
        assert [np.asarray(Image.open(io.BytesIO(f))).tolist() for f in found] == pixels[2 * i : 2 * i + 2].tolist()
        assert f"<bdi>{'abc'[i]}</bdi>" in tile


def test_pictures_open_larger_with_the_place_of_their_file(tmp_path: Path) -> None:
    pixels = np.zeros((3, 4, 4), np.uint8)
    places = ["a/<1>.png", "a/2.png", "b/3.png"]
    block = Images(pixels, ["one", "two", "three"], "x", places=places, beside=1, heads=("the group", "the target"))
    values = np.array([1.0, 2.0])
    lines = Intervals(
        ["g", "h"], values, values, values, "points", "y", images={"g": pixels[:2]}, places={"g": places[:2]}
    )
    write_pages([page(blocks=[block, lines])], tmp_path, "t")
    html = shown(tmp_path)
    buttons = [e["attrs"] for e in html.find("button")]
    assert [b["title"] for b in buttons] == [
        *("one: a/<1>.png", "two: a/2.png", "three: b/3.png", "g: a/<1>.png, a/2.png"),
    ]
    assert {b["class"] for b in buttons} == {"picture"}
    assert [e["attrs"]["data-caption"] for e in html.find("img")] == [*places, *places[:2]]
    assert [plain(e["text"]) for e in html.find("h3")] == ["the group", "the target"]
    assert [len(re.findall("<li>", part)) for part in svg(tmp_path).split("<h3>")[1:]] == [1, 2]
    with pytest.raises(ConfigError, match="2 places of 3 pictures"):
        Images(pixels, ["one", "two", "three"], "x", places=places[:2])


def test_what_is_long_is_cut_and_says_so(tmp_path: Path) -> None:
    many = 2 * ROWS + 7
    values = np.linspace(1, -1, many)
    names = [f"g{i}" for i in range(many)]
    blocks = [
        Images(np.zeros((100, 4, 4), np.uint8), names[:87] + names[:13], "Pictures"),
        Table(("name", "value"), [(f"t{i}", i) for i in range(LISTED + 5)], "Table"),
        Intervals(names, values, values - 0.1, values + 0.1, "points", "Values"),
        Curve(dict.fromkeys(names[:10], (X, X, None, None)), "x", "y", "Lines"),
        Curve({"a": (np.arange(1000), np.arange(1000), None, None)}, "x", "y", "Long"),
    ]
    write_pages([page(blocks=blocks)], tmp_path, "t")
    html = shown(tmp_path)
    text = plain(html.find("main")[0]["text"])
    assert "4 more are not shown." in text
    assert "The first 1,000 of 1,005 rows; all of them are in the CSV files below." in text
    table = next(e for e in html.find("table") if "block-2" in e["inside"])["attrs"]
    assert (table["data-first"], table["data-filter"]) == (str(ROWS), "Filter rows")
    assert [plain(e["text"]) for e in html.find("tr") if "block-2" in e["inside"]][1:] == [
        f"t{i} {i:,}" for i in range(LISTED)
    ]
    assert "left out" not in text
    assert "2 more lines are not shown." in text
    rows = [plain(e["text"]).split()[0] for e in html.find("tr") if "block-3" in e["inside"]][1:]
    assert rows == names
    assert svg(tmp_path).count('class="mark better"') < 20, "a thousand points are a line"
    assert 200 < svg(tmp_path).count('class="trend better"') < 400
    assert len(svg(tmp_path)) < 300_000


def test_bars_stand_where_the_numbers_say_and_only_findings_are_coloured(tmp_path: Path) -> None:
    values, low, high = np.array([0.9, 0.2, -0.4]), np.array([0.5, -0.2, -0.9]), np.array([1.3, 0.6, 0.1])
    names, marked = ["a", "b", "c"], [True, False, True]
    write_pages([page(blocks=[Intervals(names, values, low, high, "points", "V", marked=marked)])], tmp_path, "t")
    drawn = re.findall(r'class="bar (\w+)" x1="([\d.]+)%" x2="([\d.]+)%".*?cx="([\d.]+)%"', svg(tmp_path))
    assert [kind for kind, *_ in drawn] == ["better", "plain", "worse"]
    place = np.array([numbers for _, *numbers in drawn], float)
    slope, offset = np.polyfit(values, place[:, 2], 1)
    np.testing.assert_allclose(place, slope * np.stack([low, high, values], 1) + offset, atol=5e-3)
    assert "+0.90 +0.50 to +1.30" in plain(shown(tmp_path).find("tr")[1]["text"])


def test_lines_stand_where_the_numbers_say(tmp_path: Path) -> None:
    up, control = np.array([1.0, 2.0, 4.0]), np.array([1.5, np.nan, 1.0])
    block = Curve({"up": (X, up, up - 0.5, up + 0.5), "control": (X, control, None, None)}, "models", "r", "L")
    write_pages([page(blocks=[block])], tmp_path, "t")
    marks = re.findall(r'<svg x="([\d.]+)%" y="([\d.]+)".*?mark (\w+)', svg(tmp_path))
    good = np.array([(x, y) for x, y, kind in marks if kind == "better"], float)
    bad = np.array([(x, y) for x, y, kind in marks if kind == "worse"], float)
    assert len(good) == 3
    assert len(bad) == 2  # a value that is not there has no mark
    (a, b), (c, d) = np.polyfit(X, good[:, 0], 1), np.polyfit(up, good[:, 1], 1)
    assert a > 0 > c  # upwards on the page is down in its numbers
    np.testing.assert_allclose(good, np.stack([a * X + b, c * up + d], 1), atol=0.1)
    np.testing.assert_allclose(bad, np.stack([a * X[[0, 2]] + b, c * control[[0, 2]] + d], 1), atol=0.1)
    bars = np.array(re.findall(r'class="bar better" .*?y1="([\d.]+)" y2="([\d.]+)"', svg(tmp_path)), float)
    np.testing.assert_allclose(bars, np.stack([c * (up - 0.5) + d, c * (up + 0.5) + d], 1), atol=0.2)


def test_a_logarithmic_scale_has_equal_ratios_at_equal_distances(tmp_path: Path) -> None:
    rates = np.array([0.001, 0.01, 0.1])
    write_pages(
        [page(blocks=[Curve({"a": (rates, rates, None, None)}, "rate", "loss", "L", log=True)])], tmp_path, "", []
    )
    places = re.findall(r'<text x="([0-9.]+)%" y="[0-9]+" text-anchor="middle">(0\.[0-9]+)</text>', svg(tmp_path))
    assert [float(text) for _, text in places] == rates.tolist()
    low, middle, high = (float(place) for place, _ in places)
    assert middle - low == pytest.approx(high - middle, abs=0.01)
    assert low > 0


def test_tables_show_numbers_as_a_reader_wants_them(tmp_path: Path) -> None:
    rows = [("a", 12345, 0.01234, True, None), ("b", -1, np.float32("nan"), False, 3), ("c", 0, 1e-9, True, "d")]
    table = Table(("name", "n", "v", "flag", "other"), rows, "T", digits={"v": 4})
    write_pages([page(blocks=[table])], tmp_path, "t")
    assert [plain(e["text"]) for e in shown(tmp_path).find("tr")][1:] == [
        "a 12,345 0.0123 yes \u2013",
        "b -1 \u2013 no 3",
        "c 0 < 0.0001 yes d",
    ]


def test_cells_carry_the_numbers_that_their_texts_round(tmp_path: Path) -> None:
    rows = [("a", 12345, 0.0123456, True, 1.0), ("b", -1, float("nan"), False, "x")]
    write_pages([page(blocks=[Table(("name", "n", "v", "flag", "mixed"), rows, "T", digits={"v": 2})])], tmp_path, "t")
    html = shown(tmp_path)
    assert [e["attrs"]["data-kind"] for e in html.find("th")] == ["text", "number", "number", "text", "text"]
    assert [e["attrs"].get("data-v") for e in html.find("td")] == [None, None, "0.0123456", *[None] * 7]


def test_one_list_of_columns_gives_the_table_and_the_csv_file() -> None:
    records = [SimpleNamespace(group="a", gain=0.125, low=-0.5), SimpleNamespace(group="=b", gain=None, low=0.25)]
    columns = [
        Column("group"),
        Column("percent", "gain", digits=1, scale=100),
        Column("worst", lambda r: r.low, only="csv"),
        Column("sign", "low", lambda r: "+" if r.low > 0 else "-", only="table"),
    ]
    table = Table.of(records, columns, "Gains", "Of two groups.")
    assert table.columns == ["group", "percent", "sign"]
    assert table.rows == [("a", 12.5, "-"), ("=b", None, "+")]
    assert (table.title, table.note, table.digits) == ("Gains", "Of two groups.", {"percent": 1})
    heads, rows = csv_of(records, columns)
    assert heads == ["group", "percent", "worst"]
    assert rows == [("a", 0.125, -0.5), ("=b", None, 0.25)]


def test_the_index_keeps_the_pages_of_earlier_calls(tmp_path: Path) -> None:
    write_pages([page("one"), page("two")], tmp_path, "t")
    write_pages([page("three"), page("one", title="Again")], tmp_path, "t")
    links = [e["attrs"]["href"] for e in shown(tmp_path, "index").find("a")]
    assert links == ["three.html", "one.html", "two.html"]
    assert "Again" in shown(tmp_path, "index").find("li")[1]["text"]
    write_pages([page("four")], tmp_path, "t", order=["zero", "one", "two"])
    links = [e["attrs"]["href"] for e in shown(tmp_path, "index").find("a")]
    assert links == ["one.html", "two.html", "four.html", "three.html"]
    for name in ("one", "two", "four"):
        (tmp_path / f"{name}.html").unlink()
    for damage in (b"", b"[]", b'{"x": 1}', b'[["../../x", {"title": "", "question": "", "answer": ""}]]'):
        (tmp_path / "index.json").write_bytes(damage)
        write_pages([page("three")], tmp_path, "t")
        assert [name for name, _ in json.loads((tmp_path / "index.json").read_bytes())] == ["three"]


def test_the_index_tells_what_could_not_be_made_until_it_is(tmp_path: Path) -> None:
    write_pages([page("one")], tmp_path, "t", absent={"two": ("Why two?", "few <masks>"), "one": ("Why?", "again")})
    write_pages([page("three")], tmp_path, "t")
    items = [item["text"] for item in shown(tmp_path, "index").find("li")]
    assert len(items) == 3
    assert "an earlier one: again" in items[1]
    assert "two" in items[2]
    assert "Not made: few <masks>" in items[2]
    assert [e["attrs"]["href"] for e in shown(tmp_path, "index").find("a")] == ["three.html", "one.html"]
    write_pages([page("one"), page("two")], tmp_path, "t")
    assert "Not made" not in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    "make",
    [
        lambda: page("Not a name"),
        lambda: page("../up"),
        lambda: page("index"),
        lambda: page(answer=[]),
        lambda: page(answer="a text"),
        lambda: page(csv={"../values.csv": ((), [])}),
        lambda: Images(np.zeros((3, 4, 4), np.uint8), ["a"], "t"),
        lambda: Images(np.zeros((3, 4, 4), np.uint8), ["a"], "t", together=2),
        lambda: Table(("a", "b"), [(1,)], "t"),
        lambda: Intervals(["a"], [1.0, 2.0], [0.0], [3.0], "", "t"),
        lambda: Intervals(["a"], [1.0], [0.0], [3.0], "", "t", marked=[True, False]),
        lambda: Curve({"a": (X, X[:2], None, None)}, "x", "y", "t"),
    ],
)
def test_what_does_not_fit_together_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()
