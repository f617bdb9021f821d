"""The answer in at most four sentences: what to do in each case, and what is never claimed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from stub_results import LETTERS, Page, plain, results

from pydt.reporting import render, sentences
from pydt.reporting.judgements import STABLE, advice, stability_word
from pydt.reporting.sentences_in_detail import detailed

CHANCE = "; on average at most 1 in 20 such claims is chance"
KEPT = "“C”, “H”, “P” and 28 more"
LOWEST = "the 31 lowest-ranked of the 62 groups"
LOSS = {"unit": "nats", "scale": 1.0, "higher_is_better": False, "shared": False, "name": "loss"}


def gains(given: dict[str, Any], low: float, difference: float, high: float) -> dict[str, Any]:
    """The results with another interval against the whole source."""
    next(one for one in given["gains"] if one["kind"] == "drop bottom").update(
        low=low, difference=difference, high=high
    )
    return given


def measured(given: dict[str, Any]) -> dict[str, Any]:
    """The results as those of a loss: what was a point is 0.01 nats."""
    given["question"]["measure"] = LOSS
    return given


CASES = [
    (
        *("drop", 0.011, 0.025, 0.039),
        f"Leave out {LOWEST}: accuracy rises by 2.5 percentage points (95 % interval: 1.1 to 3.9) over the "
        "whole source.",
    ),
    (
        *("free", -0.005, 0.001, 0.007),
        f"Keep {KEPT}: leaving out {LOWEST} costs nothing measurable, at most 0.5 percentage points of accuracy "
        "(95 % interval: -0.5 to +0.7).",
    ),
    (
        *("unclear", -0.03, -0.004, 0.021),
        f"Keep the whole source for now: leaving out {LOWEST} could cost up to 3.0 percentage points of accuracy, "
        "or gain up to 2.1 (95 % interval).",
    ),
    (
        *("whole", -0.032, -0.021, -0.01),
        f"Keep the whole source: without {LOWEST}, accuracy falls by 2.1 percentage points (95 % interval: 1.0 "
        "to 3.2).",
    ),
]


@pytest.mark.parametrize(("case", "low", "difference", "high", "said"), CASES, ids=[one[0] for one in CASES])
def test_the_headline_follows_from_the_interval_against_the_whole_source(
    case: str, low: float, difference: float, high: float, said: str
) -> None:
    given = gains(results(LETTERS), low, difference, high)
    assert advice(given) == case
    assert plain(sentences(given)[0]) == said


def test_the_bounds_of_the_cases() -> None:
    """Just 0 is no gain and no loss; a point is the largest loss that counts as none."""
    assert advice(gains(results(LETTERS), 0.0001, 0.01, 0.02)) == "drop"
    assert advice(gains(results(LETTERS), 0.0, 0.01, 0.02)) == "free"
    assert advice(gains(results(LETTERS), -0.01, 0.0, 0.01)) == "free"
    assert advice(gains(results(LETTERS), -0.0101, 0.0, 0.01)) == "unclear"
    assert advice(gains(results(LETTERS), -0.0099, 0.0, 0.0)) == "free"
    assert advice(gains(results(LETTERS), -0.02, -0.01, -0.0001)) == "whole"
    wide = measured(gains(results(LETTERS), -0.01, 0.0, 0.01))
    wide["arms"][0] |= {"sd": 0.009}
    assert advice(wide) == "unclear", "more than two retrainings of the whole source differ by"
    wide["arms"][0] |= {"sd": 0.011}
    assert advice(wide) == "free"


def test_a_loss_falls_and_its_interval_says_what_is_better() -> None:
    def first(low: float, difference: float, high: float) -> str:
        given = measured(gains(results(LETTERS), low, difference, high))
        given["arms"][0] |= {"sd": 0.006}
        return plain(sentences(given)[0])

    assert "loss falls by 0.0250 nats (95 % interval: 0.0110 to 0.0390)" in first(0.011, 0.025, 0.039)
    assert "loss rises by 0.0210 nats (95 % interval: 0.0100 to 0.0320)" in first(-0.032, -0.021, -0.01)
    free = "at most 0.0050 nats (loss) (95 % interval: -0.0050 to +0.0070, + is better)"
    assert free in first(-0.005, 0.001, 0.007)
    assert "could cost up to 0.0300 nats (loss), or gain up to 0.0210" in first(-0.03, -0.004, 0.021)


def test_the_size_with_the_most_retrainings_makes_the_headline() -> None:
    """It was fixed before; the best of several sizes would flatter."""
    given = gains(results(LETTERS), -0.005, 0.001, 0.007)
    better = {**given["gains"][0], "dropped": 15, "n": 4, "low": 0.02, "difference": 0.03, "high": 0.04}
    given["gains"].append(better)
    assert "31 lowest-ranked" in sentences(given)[0]
    assert "costs nothing measurable" in sentences(given)[0]
    better["n"] = 15
    assert sentences(given)[0].startswith("Leave out the 15 lowest-ranked")
    given["main"] = 31
    assert "31 lowest-ranked" in sentences(given)[0], "what was asked for first, however often others were retrained"
    assert "31 lowest" in detailed(given)[2]
    given["main"] = 40
    assert "15 lowest-ranked" in sentences(given)[0], "of which nothing was judged"


@pytest.mark.parametrize(("low", "difference", "high"), [one[1:4] for one in CASES])
def test_retrainings_of_another_ranking_support_no_advice(low: float, difference: float, high: float) -> None:
    given = gains(results(LETTERS), low, difference, high) | {"main": 31, "moved": 2}
    first, second, *_ = sentences(given)
    assert advice(given) == "moved"
    again = f"Prove the ranking again before you act on it: of {LOWEST}, 2 were not left out"
    assert first == f"{again} when models were retrained."
    assert "do not prove this one" in second
    assert not any("Retraining" in text for text in detailed(given))
    assert "lowest, against random" not in render(given)
    given["verdict"]["found"] = False
    assert advice(given) == "nothing"
    assert "do not prove this one" in sentences(given)[1]


def test_the_second_sentence_compares_with_random_groups_and_says_how_long_they_trained() -> None:
    given = results(LETTERS)
    bottom = next(c for c in given["contrasts"] if c["kind"] == "drop bottom")
    bottom |= {"low": 0.009, "difference": 0.019, "high": 0.029}
    chance = "leaving out as many at random"
    assert plain(sentences(given)[1]) == (
        f"Which groups they are matters: that is 1.9 points better than {chance} (95 % interval: +0.9 to +2.9); all "
        "trained as long as the whole source."
    )
    given["length"] = "epochs"
    assert sentences(given)[1].endswith("; all trained for as many epochs, so a smaller source for less long.")
    given["length"] = "own"
    assert sentences(given)[1].endswith("how long each trained was up to the program that trains.")
    given["length"] = None
    bottom |= {"low": -0.003, "difference": 0.004}
    unclear = f"Whether it matters which groups they are is not shown: {chance} is 0.4 points worse"
    assert plain(sentences(given)[1]) == f"{unclear} (95 % interval: -0.3 to +2.9)."
    bottom |= {"low": -0.03, "difference": -0.02, "high": -0.01}
    misleads = f"The ranking misleads: {chance} is 2.0 points better (95 % interval: -3.0 to -1.0)."
    assert plain(sentences(given)[1]) == misleads
    bottom |= {"low": None, "high": None}
    assert sentences(given)[1] == f"How {chance} compares was not judged: too few repeats, or nothing varies."


def test_not_proven() -> None:
    given = results(LETTERS, counterfactual=False)
    assert advice(given) == "unproven"
    first, second, *_ = sentences(given)
    assert first == (
        "Prove the ranking before you act on it: it has “C”, “H” and “P” at the top and “Z”, “h” and “M” at the bottom."
    )
    assert second == "No model was retrained without the lowest-ranked groups: that would be the proof."
    given["proof_of"] = "1 shot"
    assert sentences(given)[0].startswith("Not proven for this task: it has “C”")
    assert sentences(given)[1] == "The retrainings of this plan follow another ranking, that of “1 shot”."
    del given["proof_of"]
    given["counterfactual"] = [{"kind": "full", "dropped": 0, "names": [], "seed": 0, "accuracy": 0.9}]
    assert sentences(given)[1] == "Retrainings were run, but too few to be judged."
    given["question"]["by"] = "example"
    said = "Prove the ranking before you act on it: the order of the 62 single images predicts other models."
    assert sentences(given)[0] == said


def test_results_of_before_the_whole_source_was_compared() -> None:
    given = results(LETTERS)
    given["gains"] = []
    assert sentences(given)[0] == (
        f"If groups have to go, leave out {LOWEST}; retrainings were not compared with the whole source."
    )
    given["contrasts"][0] |= {"low": -0.01}
    assert sentences(given)[0].startswith(f"Keep the whole source for now: leaving out {LOWEST} is not shown to be")
    del given["gains"], given["length"], given["agreement"], given["task"]
    assert len(sentences(given)) == 3


def test_nothing_to_be_told_from_noise() -> None:
    given = gains(results(LETTERS, found=False), -0.013, -0.002, 0.009)
    given["contrasts"][0] |= {"difference": 0.003, "low": -0.007, "high": 0.013, "p": 0.44}
    first, second, third = sentences(given)
    assert first == (
        "Keep the whole source for now: 300 models show no ranking of the 62 groups that can be told from noise."
    )
    change = "the change against the whole source is -0.2 percentage points (95 % interval: -1.3 to +0.9)"
    assert plain(second).startswith(f"Retrained without the 31 lowest, {change}; all trained as long as the whole")
    assert third == "About 2,400 models would be needed for a standard error of half the spread."
    assert "not findings" in plain(Page(render(given)).section("ranking"))
    given["verdict"]["models_needed"] = 300
    enough = "These models were enough for a standard error of half the spread: no group seems to do as much."
    assert sentences(given)[2] == enough, "asking for fewer models than were trained makes no sense"
    given["verdict"]["models_needed"] = None
    assert "cannot be said" in sentences(given)[2]
    assert advice(gains(given, -0.03, -0.02, -0.01)) == "whole", "the loss is measured, whatever the ranking"


def test_two_tests_that_disagree() -> None:
    given = gains(results(LETTERS, found=False), -0.013, -0.002, 0.009)
    given["contrasts"][0] |= {"difference": 0.02, "low": 0.007, "high": 0.033, "p": 0.001}
    given["contrasts"][1] |= {"difference": 0.001, "low": -0.01, "high": 0.012, "p": 0.9}
    first, second, _ = sentences(given)
    assert first == (
        "Train more models before you act, since two tests disagree: retraining tells the lowest- or the "
        "highest-ranked groups from random ones, but the ranking by 300 models does not predict other models."
    )
    assert plain(second).startswith("Leaving them out is 2.0 percentage points better than leaving out as many at")
    gains(given, 0.01, 0.02, 0.03)
    assert (
        f"retraining without {LOWEST} gained 2.0 percentage points of accuracy (95 % interval: +1.0"
        in sentences(given)[0]
    )
    gains(given, -0.013, -0.002, 0.009)
    given["contrasts"][0] |= {"difference": -0.02, "low": -0.033, "high": -0.007}
    given["contrasts"][1] |= {"difference": 0.02, "low": 0.007, "high": 0.033, "p": 0.001}
    assert advice(given) == "nothing", "the wrong side proves nothing"


def test_blocked_gives_the_reason_and_no_recommendation() -> None:
    given = results(LETTERS)
    given |= {"failed": 12, "failure_p": 0.03}
    given["verdict"]["blocked"] = "4 % of the models failed, more than the 2 % allowed"
    first, second, third = sentences(given)
    assert first == "No recommendation: 4 % of the models failed, more than the 2 % allowed."
    assert "12 models failed" in second
    assert "p = 0.030" in second
    assert "support no claim" in third
    answer = plain(Page(render(given)).section("answer"))
    assert "0.35" not in answer
    assert "Leave out" not in answer
    assert detailed(given) == []


@pytest.mark.parametrize("seed", range(8))
def test_names_stand_in_the_order_of_the_table(seed: int) -> None:
    """The highest first and the lowest last, in the headline, in the sentence of groups that are sure, in the table."""
    given = gains(results(LETTERS, seed=seed), -0.005, 0.001, 0.007)
    random = np.random.default_rng(seed)
    for group in given["groups"]:  # ties, and an order that q does not have
        group["value"] = round(group["value"], 1)
        group["q"] = float(random.random() / 10)
    page = Page(render(given))
    table = [plain(e["text"]) for e in page.find("th", class_="nm") if "ranked" in e["inside"]]
    assert len(table) == 62
    first, _, third, _ = sentences(given)
    assert re.findall("“(.*?)”", first) == table[:3]
    sure = [name for name in table if next(g for g in given["groups"] if g["name"] == name)["q"] < 0.05]
    value = {g["name"]: g["value"] for g in given["groups"]}
    up, down = [n for n in sure if value[n] > 0], [n for n in sure if value[n] < 0]
    named = re.findall("“(.*?)”", third)
    assert named == [*(up if len(up) <= 4 else up[:3]), *(down if len(down) <= 4 else down[-3:])]


def test_groups_that_stand_out() -> None:
    given = results(LETTERS)
    for group in given["groups"]:
        group |= {"value": 0.0, "q": 0.9}
    assert sentences(given)[2] == "No single group stands out clearly (300 models). The 31 were tried together."
    for i, value in enumerate((0.5, 0.4, 0.3, 0.2, 0.1)):
        given["groups"][i] |= {"value": value, "q": 0.01}
    better = f"5 groups are clearly better than an average group, “0”, “1” and “2” first (300 models{CHANCE})."
    assert sentences(given)[2] == f"{better} The 31 were tried together."
    given["groups"][61] |= {"value": -0.1, "q": 0.049}
    others = "The others of the 31 rank low, none clearly by itself; they were tried together."
    assert f"“2” first; “z” is clearly worse (300 models{CHANCE}). {others}" in sentences(given)[2]
    given["gains"] = []
    assert sentences(given)[2].endswith(f"(300 models{CHANCE})."), "only where they are to be left out"
    given["estimand"] = "add"
    assert sentences(given)[2] == (
        f"5 groups clearly help, “0”, “1” and “2” first; “z” clearly hurts (300 models{CHANCE})."
    )
    for group in given["groups"]:
        group["q"] = None
    assert sentences(given)[2] == "No group was tested on its own: the evidence lies in the ranking as a whole."


def test_adding_helps_or_hurts_only_where_the_design_can_say_so() -> None:
    assert "clearly help" in sentences(results(LETTERS, estimand="add"))[2]
    page = render(results(LETTERS)).replace("cannot say whether a group hurts", "")
    assert "hurt" not in page.split("</style>")[1]


def test_the_words_for_stability_claim_no_more_than_was_measured() -> None:
    words = ["hardly", "weakly", "moderately", "fairly", "very"]
    bands = [-0.1, 0.0, 0.19999, 0.2, 0.39999, 0.4, 0.59999, 0.6, 0.79999, 0.8, 1.0]
    expected = [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [stability_word(x) for x in bands] == [f"{words[i]} stable" for i in expected]
    assert [least for least, _ in STABLE] == sorted((least for least, _ in STABLE), reverse=True)
    given = results(LETTERS)
    assert sentences(given)[3] == (
        "The ranking is moderately stable: two halves of the 300 models agree at 0.46 (0 is chance, 1 the same order)."
    )
    given["agreement"] = None
    assert len(sentences(given)) == 3
    given = results(LETTERS, found=False)
    assert "stable" not in " ".join(sentences(given)), "of what is noise nothing is stable"


def test_never_more_than_four_sentences_and_no_words_of_statistics_in_them() -> None:
    for found in (True, False):
        for proof in (True, False):
            given = results(LETTERS, found=found, counterfactual=proof)
            told = sentences(given)
            assert len(told) <= 4
            assert not re.search(
                r"\bp [=<]|\bq [=<]|permutation|correlation|false discovery|OLS|design", " ".join(told)
            )


def test_statistics_stand_in_the_detail() -> None:
    given = results(LETTERS)
    first, groups, proof = detailed(given)
    assert first == (
        "Influences estimated on some of the 300 models predict the others (held-out correlation 0.35, permutation "
        "p = 0.001)."
    )
    assert "false discovery rate 5 % among 62 groups" in groups
    bottom, top = (next(c for c in given["contrasts"] if c["kind"] == k) for k in ("drop bottom", "drop top"))
    plainly = plain(proof)
    assert f"without the 31 lowest-ranked groups gave {100 * given['arms'][1]['mean']:.1f} % accuracy" in plainly
    assert f"{100 * bottom['difference']:.1f} points more than leaving out as many at random" in plainly
    assert f"95 % interval {100 * bottom['low']:+.1f} to {100 * bottom['high']:+.1f}, p" in plainly
    assert f"{-100 * top['difference']:.1f} points less (95 % interval {100 * top['low']:+.1f}" in plainly
    assert f"the whole source gave {100 * given['arms'][0]['mean']:.1f} %: " in plainly
    gain = given["gains"][0]
    assert f"{100 * gain['difference']:.1f} points more without the lowest than with all (95 % interval" in plainly
    page = Page(render(given))
    assert all(plain(text) in plain(page.section("how-sure")) for text in (first, groups, proof))
    assert "permutation" not in page.section("answer")
    given["verdict"]["found"] = False
    assert "do not predict the others" in detailed(given)[0]
    for group in given["groups"]:
        group["q"] = 0.3
    assert "none of the 62 groups can be told from an average one" in detailed(given)[1]
    assert "as a whole" not in detailed(given)[1]


def test_with_few_degrees_of_freedom_nothing_contradicts_the_interval() -> None:
    """A standard error on one degree of freedom reads like knowledge beside an interval twelve times as wide."""
    given = results(LETTERS)
    given["df"] = 1.0
    given["groups"][3] |= {"value": 1.8, "stderr": 0.14, "df": 1.0, "q": 0.0}
    page = plain(render(given))
    assert "\u00b1 s.e." not in page
    assert "is hardly known" in page
    assert f"; +1.80 {given['unit']}, 95 % interval +0.02 to +3.58, for " in plain(detailed(given)[1])
    given["verdict"] |= {"found": False, "models_needed": None}
    given["contrasts"] = []
    assert sentences(given)[-1].endswith("with 1 degree of freedom the errors are hardly known themselves.")
    given["df"] = 10.0
    assert "\u00b1 s.e." in plain(render(given))
    assert "freedom" not in sentences(given)[-1]


def test_an_interval_that_ends_near_zero_keeps_its_side() -> None:
    given = gains(results(LETTERS), 0.0003, 0.006, 0.012)
    assert "0.6 percentage points (95 % interval: 0.03 to 1.20)" in sentences(given)[0]
    given["contrasts"][0] |= {"difference": 0.006, "low": 0.0003, "high": 0.012}
    assert "+0.03 to +1.20" in sentences(given)[1]
    given["contrasts"][0] |= {"difference": -0.02, "low": -0.03, "high": -0.01}
    assert "the opposite of what the ranking predicts" in detailed(given)[2]
    given["contrasts"][0] |= {"low": None, "high": None, "p": None, "stderr": None}
    assert "no interval: too few repeats" in detailed(given)[2]


def test_one_group() -> None:
    given = results(["only"], estimand="add", counterfactual=False)
    given["groups"][0] |= {"value": 0.5, "q": 0.001}
    given["agreement"] = None
    first, _, third = sentences(given)
    assert first.endswith("only models with and without “only” were compared.")
    assert third == f"“only” clearly helps (300 models{CHANCE})."
    given["verdict"]["found"] = False
    assert sentences(given)[0].endswith("300 models do not show what the only group does.")
