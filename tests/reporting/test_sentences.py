"""The verdict in three sentences: what is claimed, and what is not."""

from __future__ import annotations

import re

from stub_results import LETTERS, Page, plain, results

from pydt.reporting import render, sentences


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
