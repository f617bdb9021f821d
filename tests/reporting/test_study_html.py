"""A study's page and CSV files, checked against the results that they show."""

from __future__ import annotations

import copy
import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stub_browser import Browser
from stub_results import EVIL, Page, plain, runs_its_script_alone
from stub_study import SHOTS, hostile, minimal, study

from pydt.base import ConfigError
from pydt.reporting import study_csv, study_page
from pydt.reporting.study_html import study_html
from pydt.reporting.study_tables import TABLES, head
from pydt.reporting.study_view import LINES


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    return study()


@pytest.fixture(scope="module")
def page(given: dict[str, Any]) -> Page:
    return Page(study_html(given))


def ids(page: Page, tag: str = "section") -> list[str]:
    return [e["attrs"]["id"] for e in page.find(tag) if "id" in e["attrs"]]


def test_one_idea_a_section_in_order(page: Page) -> None:
    expected = ["answer", "curves", "spread", "sizes", "effects", "gains", "arms", "ranks", "held", "reading"]
    assert ids(page) == [*expected, "provenance"]


def test_the_recommendation_is_on_top_word_for_word(given: dict[str, Any], page: Page) -> None:
    lead, then = page.find("p", class_="lead"), page.find("p", class_="then")
    assert [plain(p["text"]) for p in (*lead, *then)] == [plain(s) for s in given["recommendation"]]


def test_the_table_holds_every_accuracy_with_its_error_and_interval(given: dict[str, Any], page: Page) -> None:
    rows = [plain(row["text"]) for row in page.find("tr", class_="arm")]
    assert len(rows) == 4 * (4 * 3 * 3 + 1 + 2), "tasks times arms"
    order = {shots: i for i, shots in enumerate(SHOTS)}
    arms: dict[tuple, list] = {}
    for r in given["accuracy"]:
        arms.setdefault(tuple(r[key] for key in ("target", "mode", "kind", "source", "size", "method")), []).append(r)
    for (_, _, kind, source, size, method), own in arms.items():
        cells = []
        for r in sorted(own, key=lambda r: order[r["shots"]]):
            mean, error, low, high = (f"{100 * r[key]:.1f}" for key in ("mean", "stderr", "low", "high"))
            cells.append(f"{mean} \u00b1 {error}{low} to {high}")
        name = source or "from random weights"
        chosen = (source, size, method) == ("latin", 4500, "supervised")
        name += " recommended" if chosen else "clip" if kind == "checkpoint" else ""
        rate = "\u2013" if kind == "checkpoint" else "0.1"
        row = f"{name} {' '.join(cells)} {own[0]['seeds']} \u00d7 5 {rate}"
        assert row in rows


def test_a_panel_for_each_target_and_way_to_transfer_on_one_scale_a_target(given: dict[str, Any]) -> None:
    text = study_html(given)
    open_ = text[text.index('id="curves"') : text.index("<details>")]
    panels = re.findall(r"<figcaption><bdi>(.*?)</bdi></figcaption>", open_)
    assert panels == [f"{t}, {m}" for t in ("handwritten digits", "textures") for m in ("probe", "finetune")]
    scales = re.findall(r'<svg class="scale".*?</svg>', open_)
    assert scales[0] == scales[1] != scales[2] == scales[3]
    assert re.findall(r'text-anchor="middle">(\w+)</text>', open_)[:6] == ["1", "2", "5", "10", "20", "full"]


def test_curves_stand_where_the_numbers_say() -> None:
    given = study(("a", "b"), (100,), ("clip",), (1, "full"), ("probe",), ("t",), (), False)
    for i, row in enumerate(given["accuracy"]):
        row |= {"mean": 0.2 + 0.1 * i, "low": 0.2 + 0.1 * i - 0.02, "high": 0.2 + 0.1 * i + 0.06}
    text = study_html(given)
    figure = text[text.index('id="curves"') : text.index('id="spread"')]
    bars = re.findall(r'class="bar (line-\d)" x1="([\d.]+)%" x2="[\d.]+%" y1="([\d.]+)" y2="([\d.]+)"', figure)
    assert [bar[0] for bar in bars] == ["line-1", "line-1", "line-2", "line-2"]
    assert bars[0][1] == bars[2][1] != bars[1][1], "both sources at the same shots, full at the other end"
    heights = [(float(low), float(high)) for *_, low, high in bars]
    per_point = (heights[0][0] - heights[0][1]) / 8
    assert all(low - high == pytest.approx(8 * per_point, abs=0.2) for low, high in heights)
    assert heights[0][0] - heights[3][0] == pytest.approx(30 * per_point, abs=0.3)
    shifts = re.findall(r"<g transform=\"translate\(([-\d.]+) 0\)", figure)
    assert len(set(shifts)) == len(shifts) == 2, "bars of the same shots stand beside each other"


def test_every_line_differs_in_shape_and_dash_or_colour(given: dict[str, Any]) -> None:
    many = study([f"s{i}" for i in range(LINES)], (10,), ("clip",), (1, 5), ("probe",), ("t",), ())
    text = study_html(many)
    legend = text[text.index('class="legend"') : text.index('class="panels"')]
    assert len(set(re.findall(r' d="(.*?)"', legend))) == LINES, "the grey circle of scratch is the first one, hollow"
    assert len(set(re.findall(r'class="trend (\S+)"', legend))) == LINES + 1


def test_of_many_sources_the_best_the_worst_and_the_chosen_are_drawn() -> None:
    names = [f"s{i}" for i in range(12)]
    given = study(names, (10,), ("clip",), (1,), ("probe",), ("t",), ())
    for row in given["accuracy"]:
        if row["kind"] == "trained":
            row["mean"] = 0.9 - 0.01 * names.index(row["source"])
    given["chosen"]["source"] = "s5"
    page = Page(study_html(given))
    legend = page.find("ul", class_="legend")[0]["text"].split("\n")
    assert [n for n in legend if n.startswith("s")] == ["s0", "s1", "s2", "s3", "s5", "s9", "s10", "s11"]
    assert "Of 12 sources the best, the worst and the recommended one are drawn" in plain(page.section("curves"))
    assert len(page.find("tr", class_="arm")) == 13, "the table holds all"


def test_spreads_and_differences_are_those_of_the_results(given: dict[str, Any], page: Page) -> None:
    rows, task = [], ""
    for e in page.find("tr"):
        if "spread-table" in e["inside"]:
            task = plain(e["text"]) if e["attrs"].get("class") == "break" else task
            rows.append(f"{task} {plain(e['text'])}")
    own = [r for r in given["spread"] if (r["size"], r["method"]) == (4500, "supervised")]
    assert len(rows) == 1 + 4 + 24 == 5 + len(own)
    for r in own:
        tau, low, high, wide, noise = (f"{100 * r[k]:.1f}" for k in ("tau", "low", "high", "range", "range_of_noise"))
        bound, p = f"{100 * r['range_high']:.1f}", f"{r['p_holm']:.3f}"
        shots = "full" if r["shots"] == "full" else f"{r['shots']} shot{'s' * (r['shots'] > 1)}"
        numbers = f"{tau} {low} to {high} {p} {wide} {noise} {bound}"
        assert f"{r['target']}, {r['mode']} {shots} {numbers} {r['best']} {r['worst']}" in rows


def test_methods_are_compared_by_their_means_over_the_sources(given: dict[str, Any], page: Page) -> None:
    text = plain(page.section("effects"))
    assert "handwritten digits, probe; mean over the sources, 4,500 images" in text
    own = [r for r in given["pairs"] if (r["axis"], r["size"], r["at"]) == ("method", 4500, None)]
    rows = [plain(e["text"]) for e in page.find("tr") if "effects" in e["inside"] and not e["attrs"].get("class")]
    rows = [row for row in rows if "interval" not in row]
    assert len(rows) == len(own) == 4 * 6 * 3
    for r in own:
        shots = "full" if r["shots"] == "full" else f"{r['shots']} shot{'s' * (r['shots'] > 1)}"
        low, high = (f"{100 * r[k]:+.1f}".replace("+0.0", "0.0").replace("-0.0", "0.0") for k in ("low", "high"))
        assert any(row.startswith(f"{shots} ") and f"{low} to {high}" in row for row in rows)


def test_orders_are_compared_at_the_ends_and_the_others_folded(given: dict[str, Any], page: Page) -> None:
    text = plain(page.section("ranks"))
    kendall = {(r["first"], r["second"]): r["kendall"] for r in given["ranks"] if r["over"] == "shots"}
    opened, folded = text.split("Across shots: all")
    assert f"textures, probe 1 and full {kendall[1, 'full']:.2f} 0.80 0.030" in opened
    assert "2 and 5" not in opened
    assert f"2 and 5 {kendall[2, 5]:.2f} 0.80 \u2013 " in folded
    assert "if sources were equal" in folded
    assert "handwritten digits, probe 1 shot 0.55 0.00 full 0.55 0.00" in folded


def test_an_arm_without_some_shots_has_a_dash_there() -> None:
    given = study(("a", "b"), (100,), ("clip",), (1, 5, "full"), ("probe",), ("t",), ())
    given["accuracy"] = [r for r in given["accuracy"] if (r["source"], r["shots"]) != ("b", 1)]
    row = next(plain(r["text"]) for r in Page(study_html(given)).find("tr", class_="arm") if r["text"].startswith("b"))
    assert row.startswith("b \u2013 ")
    assert row.count("to") == 2


def test_a_difference_is_filled_where_its_corrected_p_is_small() -> None:
    given = study(("a", "b"), (100,), ("clip",), (1,), ("probe",), ("t",), (), False)
    for p_holm, difference, kind in ((0.04, 0.1, "better"), (0.04, -0.1, "worse"), (0.06, 0.1, "plain")):
        given["pairs"][0] |= {"p": 0.01, "p_holm": p_holm, "difference": difference}
        assert f'<circle class="dot {kind}"' in study_html(given)


def test_sizes_that_match_are_told_for_the_fewest_shots(given: dict[str, Any], page: Page) -> None:
    told = plain(page.section("sizes"))
    first = [r for r in given["equivalence"] if (r["shots"], r["method"]) == (1, "supervised")]
    assert all(r["told"] in told for r in first)
    assert "1.00 to beyond the sizes tried" in told
    assert "latin 500 of supervised simclr not reached 3.00 to beyond the sizes tried" in told
    assert "4,500 \u2212 1,500" in page.section("sizes")
    given = copy.deepcopy(given)
    given["equivalence"] = [given["equivalence"][0] | {"low": None}]
    assert "below the sizes tried to beyond the sizes tried" in plain(Page(study_html(given)).section("sizes"))


def test_where_pre_training_stops_paying_stands_in_a_table() -> None:
    given = study(("a", "b"), (100,), ("clip",), (1, 5, "full"), ("probe",), ("t",), ())
    given["scratch"][0] |= {"stops_paying_at": "full", "hidden": 0.0234}
    given["scratch"][1] |= {"stops_paying_at": None, "hidden": None}
    rows = [plain(e["text"]) for e in Page(study_html(given)).find("tr") if "stops" in e["inside"]]
    assert rows == ["source t, probe", "a full, up to 2.3", "b pays at all tried"]


def test_gains_are_drawn_from_zero_and_none_is_left_possible_below_it() -> None:
    given = study(("a", "b"), (100,), ("clip",), (1, "full"), ("probe",), ("t",), ())
    for record in given["scratch"]:
        record |= {"stops_paying_at": 1, "hidden": -0.01}
        record["gains"] = [g | {"difference": -0.1, "low": -0.12, "high": -0.08} for g in record["gains"]]
    text = study_html(given)
    gains = text[text.index('id="gains"') : text.index('id="arms"')]
    assert '<line class="zero"' in gains
    assert "up to" not in plain(gains[gains.index('id="stops"') :])


def test_sections_without_numbers_are_left_out() -> None:
    page = Page(study_html(minimal()))
    assert ids(page) == ["answer", "curves", "spread", "arms", "reading", "provenance"]
    alone = minimal() | {"spread": [], "pairs": [], "notes": ["n"]}
    assert ids(Page(study_html(alone))) == ["answer", "curves", "arms", "held", "reading", "provenance"]


def test_zero_shot_stands_beside_the_shots_of_other_modes() -> None:
    given = study(("a", "b"), (100, 200), ("clip",), (0, 1, 5, "full"), ("probe", "zero-shot"), ("t",), (), False)
    given["ranks"] = []
    for table in ("accuracy", "spread", "pairs", "equivalence"):
        given[table] = [r for r in given[table] if (r["mode"] == "zero-shot") == (r["shots"] == 0)]
    page = Page(study_html(given))
    assert "clip, 1 shot" in plain(page.section("sizes")), "the fewest labelled images stand open"
    assert "t, probe, 1 shot" in plain(page.section("answer"))
    tables = [plain(e["text"]) for e in page.find("table", class_="made held all")]
    assert [text.split(" seeds")[0] for text in tables] == [
        "pre-trained on 1 shot 5 shots full",
        "pre-trained on zero-shot",
    ]


def test_numbers_that_are_missing_are_dashes() -> None:
    given = minimal()
    for row in given["accuracy"]:
        row |= dict.fromkeys(("mean", "stderr", "df", "low", "high", "rate"))
    given["accuracy"][0] |= {"mean": 0.5}
    given["spread"][0] |= dict.fromkeys(("tau", "low", "high", "p", "range_of_noise"), float("nan"))
    given["pairs"][0] |= dict.fromkeys(("difference", "stderr", "low", "high", "p", "p_holm"))
    text = plain(study_html(given))
    assert not re.search(r"\b(None|nan)\b", text[text.index("<main>") :])
    assert '50.0 <span class="se">\u00b1 \u2013</span><br><span class="se">\u2013</span>' in text


def test_failed_rows_are_told() -> None:
    given = minimal()
    given["study"]["failed"], given["accuracy"][0]["failed"], given["accuracy"][0]["seeds"] = 1, 1, 2
    text = plain(study_html(given))
    assert "1 of 6 rows failed" in text
    assert '2 \u00d7 5<br><span class="se">1 failed</span>' in text


def test_evil_names_stay_text() -> None:
    text = study_html(hostile())
    page = Page(text)
    assert runs_its_script_alone(page)
    assert not page.find("img")
    assert page.find("h1")[0]["text"] == EVIL[0]
    assert "it's {{ 7*7 }} & more" in page.section("curves")
    assert "a name of exactly 40 characters, you see" in page.section("arms"), "no name of 40 characters is cut"
    assert text.encode(), "no lone surrogates"


def test_the_page_is_one_file_without_requests(given: dict[str, Any], tmp_path: Path) -> None:
    path = study_page(given, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "study.html"
    assert study_page(given, tmp_path / "other.html") == tmp_path / "other.html"
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert runs_its_script_alone(page)
    tags = {e["tag"] for e in page.elements}
    assert not tags & {"iframe", "object", "embed", "img", "form"}
    links = [e["attrs"]["href"] for e in page.find("a")]
    assert sorted(links) == sorted(["results.json", *(f"{table}.csv" for table in TABLES)])
    assert not re.search(r"https?:|url\(", text)
    assert study_html(given) == study_html(copy.deepcopy(given)), "the same bytes again"


def test_results_without_a_required_part_are_refused() -> None:
    with pytest.raises(ConfigError, match="recommendation, accuracy missing"):
        study_html({"study": minimal()["study"], "accuracy": []})


def test_csv_files_hold_every_number(tmp_path: Path) -> None:
    given = hostile()
    paths = study_csv(given, tmp_path / "csv")
    assert [p.name for p in paths] == [f"{table}.csv" for table in TABLES]
    for path in paths:
        table = path.stem
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
        records = given[table]
        if table == "scratch":
            records = [{**r, **gain} for r in records for gain in r["gains"]]
        assert len(rows) == len(records) > 0
        for row, record in zip(rows, records, strict=True):
            for key in set(TABLES[table]) & set(record):
                cell, value = row[head(table, key)], record[key]
                if value is None:
                    assert cell == ""
                elif isinstance(value, str):
                    assert (cell[1:] if cell.startswith("'") else cell) == value
                else:
                    assert float(cell) == value
            for cell in row.values():
                assert cell[:1] not in ("=", "+", "@", "\t", "\r")
                assert not cell.startswith("-") or float(cell) < 0


def test_csv_heads_name_units_and_further_keys_follow(tmp_path: Path) -> None:
    given = minimal()
    given["spread"][0]["q"] = 12.5
    study_csv(given, tmp_path)
    heads = (tmp_path / "spread.csv").read_text(encoding="utf-8").splitlines()[0]
    assert heads.startswith("target,mode,shots (labelled images per class),size (images),method,sources,tau (fraction)")
    assert heads.endswith(",best,worst,range_high (fraction),p_holm,df,q")
    given["accuracy"][0]["unknown"] = ["draws", '"']
    study_csv(given, tmp_path)
    accuracy = csv.DictReader((tmp_path / "accuracy.csv").read_text(encoding="utf-8").splitlines())
    assert next(accuracy)["unknown"] == '["draws", "\\""]', "lists are JSON"
    assert "low (times as many)" in (tmp_path / "equivalence.csv").read_text(encoding="utf-8")
    assert len((tmp_path / "ranks.csv").read_text(encoding="utf-8").splitlines()) == 1, "a head alone"


def test_a_listed_grid_opens_with_the_combination_of_most_sources() -> None:
    given = study(("a", "b"), (100, 200), ("clip",), (1,), ("probe",), ("t",), ())
    given["accuracy"] = [r for r in given["accuracy"] if (r["source"], r["size"]) != ("b", 200)]
    given |= {"chosen": {"source": "a", "size": 200, "method": "clip"}}
    assert "pre-trained on one source: clip, 100 images" in plain(Page(study_html(given)).section("curves"))


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 390, 1280])
@pytest.mark.parametrize("of", [study, hostile, minimal])
def test_in_a_browser(width: int, of: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    text = study_html(of()).replace("<details>", "<details open>")
    dom, log = browser.load(text, width)
    assert "CONSOLE" not in log
    assert "All arms" in dom
    assert browser.wide(text, width) <= width
