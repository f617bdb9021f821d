"""The report's page, checked against the results that it shows."""

from __future__ import annotations

import base64
import copy
import io
import re
from typing import Any

import numpy as np
import pytest
from stub_browser import Browser
from stub_results import EVIL, LETTERS, Page, plain, results, runs_its_script_alone

from pydt.base import ConfigError
from pydt.reporting import render, sentences
from pydt.training.transfer.modes import MODES


def test_ranking_shows_every_group_in_order_with_its_numbers() -> None:
    given = results(LETTERS)
    page = Page(render(given))
    rows = page.find("tr", class_="group")
    order = sorted(range(62), key=lambda i: -given["groups"][i]["value"])
    assert [r["attrs"]["id"] for r in rows] == [f"group-{i}" for i in order]
    for rank, (row, i) in enumerate(zip(rows, order, strict=True), 1):
        group = given["groups"][i]
        sign = {True: "\u25b2 ", False: "\u25bc "}[group["value"] > 0] if group["q"] < 0.05 else ""
        q = "<.001" if group["q"] < 0.001 else f"{group['q']:.3f}"
        numbers = f"{group['value']:+.3f} \u00b1 {group['stderr']:.3f} {sign}{q} 75"
        assert plain(row["text"]) == f"{rank} {group['name']} {numbers}"
    placebos = page.find("tr", class_="placebo")
    shown = [plain(r["text"]) for r in placebos]
    assert shown == [f"{p['name']} {p['value']:+.3f} \u00b1 0.060 0.900" for p in given["placebos"]]


PHRASES = {
    "zero-shot": "the class names alone (zero-shot), mean",
    "probe": "a linear probe on the frozen network, 5 labelled images per class",
    "finetune": "full fine-tuning, 5",
    "lp-ft": "a linear probe, then full fine-tuning from it, 5",
    "last-n": "fine-tuning of the last layers, 5",
    "drifting-probe": "a linear head on frozen weights, with drifting batch-norm statistics, 5",
    "wise-ft": "weights between those before and after fine-tuning (WiSE-FT), 5",
}


@pytest.mark.parametrize("mode", MODES)
def test_every_way_to_transfer_has_a_phrase(mode: str) -> None:
    given = results(LETTERS)
    given["question"] |= {"mode": mode, "shots": 5 if MODES[mode].labelled else 0}
    assert PHRASES[mode] in plain(render(given))


def test_settings_of_the_way_to_transfer_are_told() -> None:
    given = results(LETTERS)
    given["question"] |= {"mode": "last-n", "shots": 5, "draws": 1}
    given["question"]["transfer"] = {
        "last": 2,
        "finetune": {"lr": 0.3, "epochs": 15},
        "zero_shot": {"templates": ["{}"]},
    }
    told = "fine-tuning of the last layers, last 2, learning rate 0.3, 5 labelled images per class"
    assert told in plain(render(given))


@pytest.mark.parametrize(("used", "told"), [(True, "; 200 more labelled images to choose settings"), (False, "")])
def test_labels_that_settings_were_chosen_by_are_told_beside_the_shots(used: bool, told: str) -> None:
    given = results(LETTERS)
    given["question"] |= {"validation_images": 200, "validation_used": used}
    assert f", 5 labelled images per class{told}, mean over 8 draws" in plain(render(given))


def test_one_class_has_a_part_of_the_auroc() -> None:
    given = results(LETTERS)
    assert "part of the AUROC" not in plain(render(given))
    assert "part of the AUROC" in plain(render(given | {"output": "AUROC", "unit": "points of AUROC"}))


def test_intervals_are_drawn_where_the_numbers_say() -> None:
    given = results(LETTERS, seed=3)
    for group in given["groups"]:
        group["df"] = 6  # with robust errors each group has its own
    page = render(given)
    groups = {f"group-{i}": g for i, g in enumerate(given["groups"])}
    found = re.findall(r'<tr id="(group-\d+)".*?</tr>', page, re.S)
    drawn = re.findall(
        r'<tr id="group-\d+".*?class="bar \w+" x1="([\d.]+)%" x2="([\d.]+)%".*?cx="([\d.]+)%"', page, re.S
    )
    left, right, dot = np.array(drawn, float).T
    values = np.array([groups[name]["value"] for name in found])
    stderr = np.array([groups[name]["stderr"] for name in found])
    slope, offset = np.polyfit(values, dot, 1)
    np.testing.assert_allclose(dot, slope * values + offset, atol=2e-3)
    np.testing.assert_allclose(left, slope * (values - 2.44691 * stderr) + offset, atol=2e-2)  # t, 6 df, 97.5 %
    np.testing.assert_allclose(right, slope * (values + 2.44691 * stderr) + offset, atol=2e-2)


def test_colour_marks_only_groups_below_the_level_and_only_when_something_was_found() -> None:
    given = results(LETTERS)
    sure = {f"group-{i}" for i, g in enumerate(given["groups"]) if g["q"] < 0.05}
    assert 0 < len(sure) < 62

    def coloured(page: str) -> set[str]:
        rows = re.findall(r'<tr id="(group-\d+)".*?class="dot (\w+)"', page, re.S)
        return {name for name, kind in rows if kind != "plain"}

    assert coloured(render(given)) == sure
    given["verdict"]["found"] = False
    page = render(given)
    assert coloured(page) == set()
    assert "hints at most" in plain(Page(page).section("ranking"))
    given["verdict"] |= {"found": True, "blocked": "6 % of the models failed"}
    assert coloured(render(given)) == set()


def test_removal_table_holds_arms_and_contrasts() -> None:
    given = results(LETTERS)
    page = Page(render(given))
    rows = [plain(e["text"]) for e in page.find("tr") if "removal" in e["inside"]][1:]
    arms = {a["kind"]: a for a in given["arms"]}
    contrasts = {c["kind"]: c for c in given["contrasts"]}
    names = {"full": "the whole source", "drop bottom": "without the lowest-ranked"}
    names |= {"drop random": "without random ones", "drop top": "without the highest-ranked"}
    gains = {c["kind"]: c for c in given["gains"]}
    wanted = []
    for kind in ("full", "drop bottom", "drop random", "drop top"):
        arm = arms[kind]
        row = f"{names[kind]} {arm['dropped']} 14 {100 * arm['mean']:.2f}"
        for found in (gains, contrasts):
            if kind in found:
                value, low, high = (100 * found[kind][name] for name in ("difference", "low", "high"))
                row += f" {value:+.2f} ({low:+.2f} to {high:+.2f})"
        wanted.append(row)
    assert rows == wanted
    assert len([e for e in page.elements if e["tag"] == "circle" and "run" in e["attrs"]["class"]]) == 4 * 14
    label = next(e for e in page.find("svg", role="img") if "removal" in e["inside"])["attrs"]["aria-label"]
    assert f"without the lowest-ranked (31): {100 * arms['drop bottom']['mean']:.1f} %" in label
    given["gains"] = []
    assert "against the whole source" not in Page(render(given)).section("removal")


def test_a_line_in_the_ranking_says_what_was_left_out() -> None:
    given = results(LETTERS)
    line = "The 31 below were left out in the test."
    texts = [plain(e["text"]) for e in Page(render(given)).find("tr") if "ranking" in e["inside"]]
    assert texts.index(line) == 1 + 31, "the head and those that stay stand above it"
    runs = [run for run in given["counterfactual"] if run["kind"] == "drop bottom"]
    runs[0]["names"] = given["groups"][0]["name"], *runs[0]["names"][1:]
    assert "below were left out" not in render(given), "others were left out than are now the lowest"
    assert "below were left out" not in render(results(LETTERS, counterfactual=False))


def test_sizes_with_fewer_retrainings_are_a_first_look() -> None:
    given = results(LETTERS)
    assert "a first look" not in plain(render(given))
    for key in ("arms", "contrasts", "gains"):
        given[key] += [{**one, "dropped": 10, "n": 4} for one in given[key] if one["kind"] == "drop bottom"]
    page = render(given)
    assert "In bold: what the answer rests on. The others: 4 models each, a first look." in plain(page)
    table = re.findall(r'<tr( class="\w+")?><th scope="row"><svg.*?</svg> (.*?)</th><td data-l="groups">(\d+)', page)
    assert [(kind[8:-1], size) for kind, _, size in table] == [("", "0"), ("minor", "10"), *[("main", "31")] * 3]


def test_default_names_of_tasks_say_labelled_images_and_own_names_stay() -> None:
    given = results(LETTERS)
    assert "Task: handwritten digits, 5 labelled images a class" in Page(render(given)).section("answer")
    given |= {"task": "digits, full-shot finetune"}
    given["question"] |= {"shots": "full", "mode": "finetune"}
    assert "Task: digits, all labelled images (finetune)" in Page(render(given)).section("answer")
    given |= {"task": "my 5-shot probe"}
    assert "Task: my 5-shot probe" in Page(render(given)).section("answer")


def test_tabs_are_numbers_of_labelled_images_where_all_names_are_default_ones() -> None:
    given = results(LETTERS)
    other = {**results(LETTERS, seed=1), "task": "handwritten digits, full-shot probe"}
    other["question"]["shots"] = "full"
    given["tasks"] = [{"name": other["task"], "results": other}]
    page = render(given)
    assert re.findall('data-switch="([^"]*)" data-label', page) == ["Labelled images a class"]
    assert re.findall('data-name="([^"]*)"', page) == ["5", "all"]
    given["tasks"][0]["name"] = other["task"] = "handwritten digits, mine"
    page = render(given)
    assert 'data-switch="Task">' in page
    assert re.findall('data-name="([^"]*)"', page) == ["5 labelled images a class", "mine"]


def test_the_whole_source_is_a_line_across_the_figure() -> None:
    given = results(LETTERS)
    text = render(given)
    height = re.findall(r'<line class="level" x1="0" x2="100%" y1="([\d.]+)" y2="([\d.]+)"/>', text)
    assert len(height) == 1
    assert height[0][0] == height[0][1]
    full = re.search(r'<g transform="translate\(0 0\)">.*?<line class="bar ink"[^>]* y1="([\d.]+)" y2="([\d.]+)"', text)
    assert full is not None
    assert float(height[0][0]) == pytest.approx((float(full[1]) + float(full[2])) / 2, abs=0.11)


def test_sections_without_results_are_left_out_or_named() -> None:
    given = results(["only"], counterfactual=False)
    for key in ("placebos", "rows", "target_classes", "provenance", "versions", "explained", "seconds"):
        del given[key]
    del given["counterfactual"], given["arms"], given["contrasts"]
    assert "No model was retrained" in sentences(given)[1]
    text = render(given)
    page = Page(text)
    assert "Not run" in page.section("removal")
    assert not any(e["attrs"].get("id") in ("classes", "placebos") for e in page.elements)
    assert "Not recorded" in page.section("provenance")
    del given["verdict"], given["unit"]
    with pytest.raises(ConfigError, match="unit, verdict missing"):
        render(given)


def test_nothing_that_is_not_a_number_is_shown() -> None:
    given = results(list("abcd"))
    given["groups"][0] |= {"value": None, "stderr": None, "q": None}
    given["groups"][1] |= {"stderr": float("nan"), "q": float("nan")}
    given["verdict"] |= {"correlation": float("nan"), "p": None, "median_stderr": None, "spread": None}
    given["contrasts"][0] |= {"low": None, "high": None, "p": float("nan")}
    given["arms"][0] |= {"n": 1, "sd": None, "stderr": None}
    given["rows"]["accuracy"][3] = None
    given["explained"] = float("inf")
    given["target_classes"]["influence"][0][0] = None
    text = render(given)
    assert not re.search(r"\b(nan|NaN|inf|None)\b", text)
    rows = Page(text).find("tr", class_="group")
    assert rows[-1]["attrs"]["id"] == "group-0"
    assert "– ± –" in plain(rows[-1]["text"])


def test_evil_names_are_text_and_stay_legible() -> None:
    given = results(EVIL)
    given["title"] = given["question"]["source"] = EVIL[0]
    given["target_classes"]["names"] = EVIL[:10]
    given["provenance"]["plan"] = EVIL[1]
    given["verdict"]["models_needed_for"] = EVIL[1]
    text = render(given, {n: np.zeros((1, 4, 4), np.uint8) for n in EVIL})
    text.encode("utf-8")
    page = Page(text)
    assert runs_its_script_alone(page)
    assert all(e["attrs"]["src"].startswith("data:image/png;base64,") for e in page.find("img"))
    assert len(page.find("img")) == len(EVIL)
    rows = {r["attrs"]["id"]: plain(r["text"]) for r in page.find("tr", class_="group")}
    for i in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14):
        assert EVIL[i] in rows[f"group-{i}"]
    assert "(no name)" in rows["group-11"]
    assert "\u202e" not in text
    assert "gnp.exe" in rows["group-12"]
    assert "a b c\u2400" in rows["group-13"]
    assert len(rows["group-16"]) < 120
    for group in given["groups"]:
        group["q"] = 0.001 if group["name"] in EVIL[3:5] else 0.9
    assert "“\u2068שלום\u2069”" in sentences(given)[2]


def numbered(groups: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Results of so many groups, each with pictures that do not compress."""
    names = [f"group {i}" for i in range(groups)]
    given = results(names)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    return given, dict.fromkeys(names, pixels)


def test_all_groups_are_listed_and_those_of_both_ends_have_pictures() -> None:
    given, pictures = numbered(250)
    page = Page(render(given, pictures))
    order = sorted(range(250), key=lambda i: -given["groups"][i]["value"])
    assert [r["attrs"]["id"] for r in page.find("tr", class_="group")] == [f"group-{i}" for i in order]
    pictured = [e["attrs"]["data-caption"] for e in page.find("button", class_="picture")]
    assert pictured == [f"group {i}" for i in order[:100] + order[-100:]]
    ranking = plain(page.section("ranking"))
    assert "Pictures are of the 100 highest and the 100 lowest groups." in ranking
    assert "groups.csv" not in ranking
    table = page.find("table", class_="ranking")[0]["attrs"]
    assert (table["data-first"], table["data-last"], table["data-filter"]) == ("40", "40", "Filter groups")
    assert "Groups: the 40 highest and the 40 lowest" in plain(page.section("classes"))


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "listed"), [(5000, 5000), (5007, 2500)])
def test_thousands_of_groups_stand_in_a_page_of_five_megabytes(groups: int, listed: int) -> None:
    given, pictures = numbered(groups)
    text = render(given, pictures)
    assert len(text.encode()) < 5_000_000
    order = sorted(range(groups), key=lambda i: -given["groups"][i]["value"])
    order = order if listed == groups else order[:listed] + order[-listed:]
    assert re.findall(r'<tr id="(group-\d+)"', text) == [f"group-{i}" for i in order]
    told = "The table has the 2,500 highest and the 2,500 lowest groups; all are in groups.csv."
    assert (told in text) == (groups > listed)


def test_few_groups_have_large_pictures_and_no_filter() -> None:
    from PIL import Image

    ramp = np.add.outer(np.arange(0, 192), np.arange(0, 192)).astype(np.uint8)
    text = render(results(list("abc")), {"a": np.stack([ramp] * 4)})
    page = Page(text)
    assert "data-filter" not in page.find("table")[0]["attrs"]
    assert len(page.find("img")) == 3
    data = base64.b64decode(page.find("img")[0]["attrs"]["src"].split(",")[1])
    assert Image.open(io.BytesIO(data)).size == (96, 96)


def test_cells_carry_the_numbers_that_their_texts_round() -> None:
    given = results(list("ab"))
    given["groups"][0] |= {"value": 0.1234567, "q": 0.00012}
    given["groups"][1] |= {"value": None, "stderr": None, "q": None}
    page = Page(render(given))
    assert [e["attrs"]["data-v"] for e in page.find("td") if "data-v" in e["attrs"]] == ["0.123457", "0.00012", "", ""]
    heads = [(plain(e["text"]), e["attrs"].get("data-kind")) for e in page.find("th") if "ranking" in e["inside"]]
    assert heads[:2] == [("rank", "number"), ("group", "text")]


def test_page_is_self_contained() -> None:
    text = render(results(LETTERS), {"A": np.zeros((2, 28, 28), np.uint8)})
    page = Page(text)
    assert runs_its_script_alone(page)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text)
    links = [e["attrs"].get(k) for e in page.elements for k in ("src", "href") if k in e["attrs"]]
    ids = [e["attrs"]["id"] for e in page.elements if "id" in e["attrs"]]
    assert all(link.startswith("data:") or link[1:] in ids for link in links)
    assert len(ids) == len(set(ids))
    assert next(e["tag"] for e in page.elements if re.fullmatch("h[1-6]", e["tag"])) == "h1"
    for section in page.find("section"):
        assert section["attrs"]["aria-labelledby"] in ids
    assert all(
        e["attrs"].get("aria-label") or e["attrs"].get("aria-hidden") for e in page.find("svg") if "role" in e["attrs"]
    )


def test_results_are_not_changed_and_the_page_is_the_same_twice() -> None:
    given = results(LETTERS)
    before = copy.deepcopy(given)
    assert render(given) == render(given)
    assert given == before


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_in_a_browser(width: int, tmp_path: Any) -> None:
    browser = Browser(tmp_path)
    given = results(LETTERS + EVIL[:10])
    text = render(given, {n: np.zeros((3, 28, 28), np.uint8) for n in LETTERS})
    dom, log = browser.load(text, width)
    assert "CONSOLE" not in log
    assert "Influence of each group" in dom
    assert browser.wide(text, width) <= width
    # The same run does report what a page does wrong: the check above can fail.
    assert "CONSOLE" in browser.load(text.replace("</body>", "<script>1</script></body>"), width)[1]
