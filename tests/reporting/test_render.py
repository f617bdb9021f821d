"""The report's page, sentences and CSV files, checked against the results they were made from."""

from __future__ import annotations

import base64
import copy
import csv
import io
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from pydt.base import ConfigError, StoreError, t975
from pydt.reporting import number, render, sentences, write_csv
from pydt.reporting.csv_files import COLUMNS, csv_text
from pydt.reporting.pictures import png, shrink
from pydt.reporting.svg import Axis

EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "it's {{ 7*7 }} & more",
    "שלום",
    "عربي (123)",
    "🦊",
    '=HYPERLINK("http://evil.example")',
    "-",
    "+",
    "@x",
    "'quoted",
    "",
    "\u202egnp.exe",
    "a\nb\tc\x00",
    "</title></style>",
    "\ud800x",
    "very " * 60,
]


def results(
    names: list[str], *, found: bool = True, estimand: str = "swap", counterfactual: bool = True, seed: int = 0
) -> dict[str, Any]:
    """A results dict as the report's assembler writes it, of numbers that hang together."""
    rng = np.random.default_rng(seed)
    groups = len(names)
    stderr = 0.06 * np.exp(rng.normal(0, 0.05, groups))
    values = (rng.normal(0, 0.1, groups) if found else 0) + rng.normal(0, 1, groups) * stderr
    q = [min(1.0, 12 * math.erfc(abs(v / s) / math.sqrt(2))) for v, s in zip(values, stderr, strict=True)]
    arms, runs = [], []
    means = {"full": 0.782, "drop bottom": 0.81, "drop random": 0.79, "drop top": 0.746}
    order = [names[i] for i in np.argsort(values)]
    half = max(1, groups // 2)
    for kind, mean in means.items() if counterfactual else ():
        dropped = 0 if kind == "full" else half
        accuracy = rng.normal(mean if found else 0.93, 0.01, 14)
        left = {"drop bottom": order[:half], "drop random": order[::2], "drop top": order[-half:]}.get(kind, [])
        runs += [
            {"kind": kind, "dropped": dropped, "names": left, "seed": i, "accuracy": float(a)}
            for i, a in enumerate(accuracy)
        ]
        sd = float(accuracy.std(ddof=1))
        arm = {"kind": kind, "dropped": dropped, "n": 14, "mean": float(accuracy.mean()), "sd": sd}
        arms.append({**arm, "stderr": sd / math.sqrt(14), "failed": 0})
    contrasts = []
    random = next((a for a in arms if a["kind"] == "drop random"), None)
    for arm in arms:
        if arm["kind"] in ("drop top", "drop bottom") and random is not None:
            difference, retraining = arm["mean"] - random["mean"], math.hypot(arm["stderr"], random["stderr"])
            both = math.hypot(retraining, 0.004)
            contrast = {"kind": arm["kind"], "dropped": half, "n": 14, "control": "drop random", "control_n": 14}
            contrast |= {"difference": difference, "stderr_retraining": retraining, "stderr_images": 0.004}
            contrast |= {"stderr": both, "low": difference - 2.05 * both, "high": difference + 2.05 * both}
            contrasts.append({**contrast, "p": math.erfc(abs(difference / retraining) / math.sqrt(2))})
    return {
        "title": "Characters to digits",
        "question": {
            **{"source": "printed characters", "source_images": 96 * groups, "groups": groups, "by": "class"},
            **{"target": "handwritten digits", "target_classes": 10, "score_images": 598, "report_images": 599},
            **{"metric": "top-1", "mode": "probe", "shots": 5, "draws": 8, "design": "random", "alpha": 0.25},
            **{"planned_models": 300, "method": "supervised"},
        },
        **{"models": 300, "failed": 0, "failure_p": None, "seconds": 312.4},
        **{"output": "margin", "unit": "logit units", "estimand": estimand, "estimator": "ols"},
        "verdict": {
            **{"correlation": 0.35 if found else 0.02, "p": 0.001 if found else 0.41, "permutations": 999},
            **{"found": found, "significant_groups": sum(x < 0.05 for x in q), "median_stderr": 0.06, "spread": 0.1},
            **{"models_needed": 2400, "models_needed_for": "a standard error of half the spread", "blocked": None},
        },
        "groups": [
            {"name": n, "value": float(v), "stderr": float(s), "df": 200.5, "q": x, "models": 75}
            for n, v, s, x in zip(names, values, stderr, q, strict=True)
        ],
        "placebos": [
            {"name": f"placebo {i + 1}", "value": float(v), "stderr": 0.06, "df": 190.0, "q": 0.9}
            for i, v in enumerate(rng.normal(0, 0.06, 8))
        ],
        **{"counterfactual": runs, "arms": arms, "contrasts": contrasts, "explained": 0.31},
        "rows": {"accuracy": rng.normal(0.7, 0.03, 300).tolist(), "output": rng.normal(0.9, 0.2, 300).tolist()},
        "target_classes": {
            "names": list("0123456789"),
            **{name: rng.normal(0.5, 0.1, (groups, 10)).tolist() for name in ("influence", "stderr", "q")},
        },
        "provenance": {"plan": "9f86d081884c7d65", "seed": 0, "code": "0.1.0"},
        "versions": {"pydt": "0.1.0", "python": "3.12", "core": "avx2"},
    }


LETTERS = list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """The elements of a page: well nested, every tag with its attributes and the text beneath it."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[dict[str, Any]] = []
        self.open: list[dict[str, Any]] = []
        self.feed(page)
        self.close()
        assert not self.open, [e["tag"] for e in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "inside": [e["attrs"].get("id") for e in self.open]}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append({"tag": tag, "attrs": dict(attrs), "text": "", "inside": []})

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()["tag"] == tag
        if tag in ("td", "th", "dt", "dd"):
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element["text"] += data

    def find(self, tag: str, **attrs: str) -> list[dict[str, Any]]:
        named = {k.rstrip("_"): v for k, v in attrs.items()}
        return [e for e in self.elements if e["tag"] == tag and all(e["attrs"].get(k) == v for k, v in named.items())]

    def section(self, name: str) -> str:
        return next(e["text"] for e in self.elements if e["attrs"].get("id") == name)


def plain(text: str) -> str:
    return " ".join(text.replace("\u00a0", " ").replace("\u2212", "-").split())


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
    names = {"full": "nothing left out", "drop bottom": "without the lowest-ranked"}
    names |= {"drop random": "without random ones", "drop top": "without the highest-ranked"}
    wanted = []
    for kind in ("full", "drop bottom", "drop random", "drop top"):
        arm = arms[kind]
        row = f"{names[kind]} {arm['dropped']} 14 {100 * arm['mean']:.2f} {100 * arm['sd']:.2f}"
        if kind in contrasts:
            c = contrasts[kind]
            low, high = 100 * c["low"], 100 * c["high"]
            row += f" {100 * c['difference']:+.2f} {low:+.2f} to {high:+.2f} "
            row += "< 0.0001" if c["p"] < 0.0001 else f"{c['p']:.4f}"
        wanted.append(row)
    assert rows == wanted
    assert len([e for e in page.elements if e["tag"] == "circle" and "run" in e["attrs"]["class"]]) == 4 * 14
    label = next(e for e in page.find("svg", role="img") if "removal" in e["inside"])["attrs"]["aria-label"]
    assert f"without the lowest-ranked (31): {100 * arms['drop bottom']['mean']:.1f} %" in label


def test_three_sentences_when_found() -> None:
    given = results(LETTERS)
    first, second, third = sentences(given)
    assert "300 models" in first
    assert "held-out correlation 0.35, permutation p = 0.001" in first
    sure = sorted((g for g in given["groups"] if g["q"] < 0.05), key=lambda g: g["q"])
    best = next(g for g in sure if g["value"] > 0)
    assert f"“{best['name']}”" in second
    assert "better than an average group" in second
    assert "worse than an average group" in second
    assert not re.search("hurt|help", second)
    assert f"the other {62 - len(sure)} groups" in second
    bottom, top = (next(c for c in given["contrasts"] if c["kind"] == k) for k in ("drop bottom", "drop top"))
    plainly = plain(third)
    assert f"without the 31 lowest-ranked groups gave {100 * given['arms'][1]['mean']:.1f} % accuracy" in plainly
    assert f"{100 * bottom['difference']:.1f} points more than leaving out as many at random" in plainly
    assert f"95 % interval {100 * bottom['low']:+.1f} to {100 * bottom['high']:+.1f}, p" in plainly
    assert f"{-100 * top['difference']:.1f} points less (95 % interval {100 * top['low']:+.1f}" in plainly
    assert "includes 0" not in third
    assert "opposite" not in third
    page = Page(render(given))
    assert [plain(e["text"]) for e in page.find("p", class_="lead")] == [plain(first)]
    assert [plain(e["text"]) for e in page.find("p", class_="then")] == [plain(second), plain(third)]


def test_adding_helps_or_hurts_only_where_the_design_can_say_so() -> None:
    second = sentences(results(LETTERS, estimand="add"))[1]
    assert re.match("Adding “.*helps, and adding “.*hurts", second)
    assert "hurt" not in render(results(LETTERS)).replace("cannot say whether a group hurts", "")


def test_no_group_stands_out() -> None:
    given = results(LETTERS)
    for group in given["groups"]:
        group["q"] = 0.3
    second = sentences(given)[1]
    assert "none of the 62 groups can be told from an average one" in second
    assert "0.060 logit units" in second
    assert not any(f"“{n}”" in second for n in LETTERS)


def test_three_sentences_when_nothing_is_found() -> None:
    given = results(LETTERS, found=False)
    given["contrasts"][0] |= {"difference": 0.003, "low": -0.007, "high": 0.013, "p": 0.44}
    first, second, third = sentences(given)
    assert first.startswith("Nothing can be told from noise with 300 models")
    assert "permutation p = 0.41" in first
    assert second == "About 2,400 models would be needed for a standard error of half the spread."
    wanted = "0.3 points more than leaving out as many at random, which cannot be told from no difference "
    assert wanted + "(95 % interval -0.7 to +1.3 includes 0, p = 0.44)" in plain(third)
    assert "not findings" in plain(Page(render(given)).section("ranking"))
    given["contrasts"][0] |= {"difference": 0.02, "low": 0.007, "high": 0.033, "p": 0.001}
    assert sentences(given)[0].startswith("Two tests disagree: influences estimated on some of the 300 models do not")
    assert "The answer: two tests disagree" in render(given)
    given["contrasts"][0] |= {"difference": -0.02, "low": -0.033, "high": -0.007}
    given["contrasts"][1] |= {"difference": 0.02, "low": 0.007, "high": 0.033, "p": 0.001}
    assert sentences(given)[0].startswith("Nothing can be told"), "the wrong side proves nothing"
    given["verdict"]["models_needed"] = 300
    enough = "These models were enough for a standard error of half the spread: no group seems to do as much."
    assert sentences(given)[1] == enough, "asking for fewer models than were trained makes no sense"
    given["verdict"]["models_needed"] = None
    assert "cannot be said" in sentences(given)[1]


def test_with_few_degrees_of_freedom_nothing_contradicts_the_interval() -> None:
    """A standard error on one degree of freedom reads like knowledge beside an interval twelve times as wide."""
    given = results(LETTERS)
    given["df"] = 1.0
    given["groups"][3] |= {"value": 1.8, "stderr": 0.14, "df": 1.0, "q": 0.0}
    page = plain(render(given))
    assert "\u00b1 s.e." not in page
    assert "is hardly known" in page
    assert f"; +1.80 {given['unit']}, 95 % interval +0.02 to +3.58, for " in plain(sentences(given)[1])
    given["verdict"] |= {"found": False, "models_needed": None}
    given["contrasts"] = []
    assert sentences(given)[1].endswith("with 1 degree of freedom the errors are hardly known themselves.")
    given["df"] = 10.0
    assert "\u00b1 s.e." in plain(render(given))
    assert "freedom" not in sentences(given)[1]


def test_an_interval_that_ends_near_zero_keeps_its_side() -> None:
    given = results(LETTERS)
    given["contrasts"][0] |= {"difference": 0.006, "low": 0.0003, "high": 0.012}
    assert "+0.03 to +1.20" in sentences(given)[2]
    given["contrasts"][0] |= {"difference": -0.02, "low": -0.03, "high": -0.01}
    assert "the opposite of what the ranking predicts" in sentences(given)[2]
    given["contrasts"][0] |= {"low": None, "high": None, "p": None, "stderr": None}
    assert "no interval: too few repeats" in sentences(given)[2]


def test_blocked_gives_the_reason_and_no_verdict() -> None:
    given = results(LETTERS)
    given |= {"failed": 12, "failure_p": 0.03}
    given["verdict"]["blocked"] = "4 % of the models failed, more than the 2 % allowed"
    first, second, third = sentences(given)
    assert first == "No verdict is given: 4 % of the models failed, more than the 2 % allowed."
    assert "12 models failed" in second
    assert "p = 0.030" in second
    assert "support no claim" in third
    answer = plain(Page(render(given)).section("answer"))
    assert "0.35" not in answer
    assert "real difference" not in answer


def test_sections_without_results_are_left_out_or_named() -> None:
    given = results(["only"], counterfactual=False)
    for key in ("placebos", "rows", "target_classes", "provenance", "versions", "explained", "seconds"):
        del given[key]
    del given["counterfactual"], given["arms"], given["contrasts"]
    assert "No model was retrained" in sentences(given)[2]
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
    assert not page.find("script")
    assert all(e["attrs"]["src"].startswith("data:image/png;base64,") for e in page.find("img"))
    assert len(page.find("img")) == len(EVIL)
    assert not any(name.startswith("on") for e in page.elements for name in e["attrs"])
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
    assert "“\u2068שלום\u2069”" in sentences(given)[1]


def test_a_thousand_groups_stay_small() -> None:
    names = [f"group {i}" for i in range(1000)]
    given = results(names)
    given["target_classes"] = {"names": [f"class {i}" for i in range(500)], "influence": np.ones((1000, 500)).tolist()}
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    text = render(given, dict.fromkeys(names, images))
    assert len(text) < 2_000_000
    page = Page(text)
    rows = page.find("tr", class_="group")
    order = sorted(range(1000), key=lambda i: -given["groups"][i]["value"])
    assert [r["attrs"]["id"] for r in rows] == [f"group-{i}" for i in order[:40] + order[-40:]]
    assert "920 groups of the middle are left out" in plain(page.section("ranking"))


def test_page_is_self_contained() -> None:
    text = render(results(LETTERS), {"A": np.zeros((2, 28, 28), np.uint8)})
    page = Page(text)
    policy = page.find("meta", **{"http-equiv": "Content-Security-Policy"})[0]["attrs"]["content"]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text)
    links = [e["attrs"].get(k) for e in page.elements for k in ("src", "href") if k in e["attrs"]]
    assert all(link.startswith("data:") for link in links)
    ids = [e["attrs"]["id"] for e in page.elements if "id" in e["attrs"]]
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


def test_csv_holds_every_number(tmp_path: Any) -> None:
    given = results(EVIL)
    given["groups"][2]["stderr"] = None
    paths = write_csv(given, tmp_path / "csv")
    assert sorted(p.name for p in paths) == sorted(COLUMNS)
    tables = {}
    for path in paths:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
        with open(path, encoding="utf-8", newline="") as file:
            assert tuple(next(csv.reader(file))) == COLUMNS[path.name]
        tables[path.name] = rows
        for row in rows:
            for cell in row.values():
                assert cell[:1] not in ("=", "+", "@", "\t", "\r")
                assert not cell.startswith("-") or float(cell) < 0

    def text(cell: str) -> str:
        return cell[1:] if cell.startswith("'") else cell

    ranked = sorted(given["groups"], key=lambda g: -g["value"])
    for rank, (row, group) in enumerate(zip(tables["groups.csv"], ranked, strict=True), 1):
        name = group["name"].encode("utf-8", "backslashreplace").decode()
        assert (int(row["rank"]), text(row["name"])) == (rank, name)
        assert float(row["value"]) == group["value"]
        assert row["stderr"] == ("" if group["stderr"] is None else repr(group["stderr"]))
        assert float(row["q"]) == group["q"]
    for name in ("contrasts", "arms", "placebos", "counterfactual"):
        for row, item in zip(tables[f"{name}.csv"], given[name], strict=True):
            for column in COLUMNS[f"{name}.csv"]:
                if column == "names":
                    listed = [n.encode("utf-8", "backslashreplace").decode() for n in item["names"]]
                    assert json.loads(row["names"].replace("\\ud800", "\\\\ud800")) == listed
                elif isinstance(item[column], str):
                    assert text(row[column]) == item[column]
                else:
                    assert float(row[column]) == item[column]
    assert [float(r["accuracy"]) for r in tables["rows.csv"]] == given["rows"]["accuracy"]
    influence = np.array([float(r["influence"]) for r in tables["target_classes.csv"]]).reshape(-1, 10)
    np.testing.assert_array_equal(influence, given["target_classes"]["influence"])
    assert csv_text("'=1") == "''=1"


def test_csv_where_nothing_can_be_written(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        write_csv(results(["a", "b"]), tmp_path / "file")


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4)])
def test_png_is_read_back_by_another_reader(shape: tuple[int, ...]) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    read = np.asarray(image.open(io.BytesIO(png(pixels))))
    np.testing.assert_array_equal(read, pixels[..., 0] if shape[-1:] == (1,) else pixels)


def test_example_images_are_the_first_three_shrunken() -> None:
    image = pytest.importorskip("PIL.Image")
    ramp = np.arange(4 * 64 * 64, dtype=np.int64).reshape(4, 64, 64) % 251
    text = render(results(["a", "b"]), {"a": ramp.astype(np.uint8)})
    found = [base64.b64decode(e["attrs"]["src"].split(",")[1]) for e in Page(text).find("img")]
    assert len(found) == 3
    for i, data in enumerate(found):
        mean = ramp[i].reshape(32, 2, 32, 2).mean(axis=(1, 3))
        assert np.abs(np.asarray(image.open(io.BytesIO(data))) - mean).max() <= 0.5
    assert shrink(np.zeros((1, 1000), np.uint8), 32).shape == (1, 31)


def test_small_words() -> None:
    assert number(-0.0004, 2, True) == "0.00"
    assert number(-1.5, 1) == "\u22121.5"
    assert number(None, 3) == "–"
    # Student t, 97.5 %: published table values.
    for df, wanted in ((1, 12.706), (5, 2.571), (13, 2.160), (30, 2.042), (120, 1.980), (None, 1.960)):
        assert t975(df) == pytest.approx(wanted, abs=1e-3)
    assert Axis.around([0.0, 1.0]).ticks(5) == [0.0, 0.5, 1.0]
    assert Axis(-0.34, 0.5).ticks(5) == pytest.approx([-0.2, 0, 0.2, 0.4])
    assert Axis.around([None]).ticks(5)
    assert Axis.around([3.0, 3.0]).ticks(5)


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_in_a_browser(width: int, tmp_path: Any) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium")
    given = results(LETTERS + EVIL[:10])
    text = render(given, {n: np.zeros((3, 28, 28), np.uint8) for n in LETTERS})
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    # A frame of the width asked for, as windows have a smallest one; the copy measures itself, so it has no policy.
    measure = "<script>parent.postMessage(document.documentElement.scrollWidth, '*')</script>"
    freed = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", measure + "</body>")
    (tmp_path / "freed.html").write_text(freed, encoding="utf-8")
    tell = "onmessage = e => document.title = 'wide ' + e.data"
    frame = f"<iframe src='freed.html' style='width:{width}px;height:900px;border:0'></iframe>"
    (tmp_path / "outer.html").write_text(f"<title>none</title><script>{tell}</script>{frame}", encoding="utf-8")

    def load(name: str) -> tuple[str, str]:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0", "--dump-dom"]
        command += ["--virtual-time-budget=3000", f"--window-size={width},900", (tmp_path / name).as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, done.stderr

    dom, log = load("page.html")
    assert "CONSOLE" not in log
    assert "Influence of each group" in dom
    wide = re.search(r"<title>wide (\d+)</title>", load("outer.html")[0])
    assert wide is not None
    assert int(wide.group(1)) <= width
    # The same run does report what a page does wrong: the check above can fail.
    (tmp_path / "page.html").write_text(text.replace("</body>", "<script>1</script></body>"), encoding="utf-8")
    assert "CONSOLE" in load("page.html")[1]
