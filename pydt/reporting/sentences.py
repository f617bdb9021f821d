"""The answer in at most four sentences: what to do and how sure, for people who are no statisticians.

    1  what to do, by the case of `judgements.advice`
    2  whether it matters which groups are left out, against as many at random, and how long the retrainings trained
    3  which groups stand out on their own, in the order of the ranking
    4  how stable the ranking is

Tests and p values stand in `sentences_in_detail`. Every number comes with the results; nothing is computed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydt.reporting.csv_files import ranked
from pydt.reporting.judgements import (
    advice,
    contrast_of,
    decimals,
    errors_known,
    gain_of,
    judged_size,
    significant,
    stability_word,
)
from pydt.reporting.metric import Metric
from pydt.reporting.text import count, finite, listed, number, p_text, quoted

_NAMED = 3  # groups named at each end
_POINTS = re.compile("\u201c[^\u201d]*\u201d|(?<=\\d) points\\b")  # a name in quotes is passed over


def sentences(results: Mapping) -> list[str]:
    """The answer in at most four plain sentences. The first says what to do; see the head of this file.

    With estimand "swap" groups are better or worse than an average group; only with "add" do they help or hurt.
    """
    results = finite(results)
    case = advice(results)
    if case == "blocked":
        return _blocked(results)
    found = bool(results["verdict"].get("found"))
    rest = [_standing_out(results, case), _stability(results)] if found else [_needed(results)]
    texts = [text for text in (_headline(results, case), _proof(results, case), *rest) if text]
    return _of_percent(texts) if Metric.of(results["question"]).share else texts


def _of_percent(texts: Sequence[str]) -> list[str]:
    """The texts, where the first points are percentage points."""
    for at, text in enumerate(texts):
        for match in _POINTS.finditer(text):
            if match[0] == " points":
                return [*texts[:at], f"{text[: match.start()]} percentage{text[match.start() :]}", *texts[at + 1 :]]
    return list(texts)


def _headline(results: Mapping, case: str) -> str:
    size, groups, models = judged_size(results), _groups(results), count(results["models"], "model")
    metric, gain = Metric.of(results["question"]), gain_of(results)
    lowest = f"the {'' if size in (None, 1) else f'{size:,} '}lowest-ranked of {groups}"
    if case == "drop" and gain is not None:
        value, low, high = _shown(results, gain)
        rises = "rises" if metric.higher_is_better else "falls"
        by = f"{_unit(metric, value)} (95 % interval: {low} to {high})"
        return f"Leave out {lowest}: {metric.name} {rises} by {by} over the whole source."
    if case == "whole" and gain is not None:
        value, high, low = _shown(results, gain)
        falls = "falls" if metric.higher_is_better else "rises"
        by = f"{_unit(metric, value)} (95 % interval: {low} to {high})"
        return f"Keep the whole source: without {lowest}, {metric.name} {falls} by {by}."
    if case == "free" and gain is not None:
        change = f"at most {_of(results, -gain['low'])} ({_interval(results, gain)})"
        return f"Keep {_kept(results, size)}: leaving out {lowest} costs nothing measurable, {change}."
    if case == "unclear" and gain is not None:
        cost, more = _of(results, -gain["low"]), _sizes(results, (gain["high"],))[0]
        risk = f"could cost up to {cost}, or gain up to {more} (95 % interval)"
        return f"Keep the whole source for now: leaving out {lowest} {risk}."
    if case == "compared":
        return _against_random_alone(results, lowest)
    if case == "unproven":
        start = "Not proven for this task" if results.get("proof_of") else "Prove the ranking before you act on it"
        return f"{start}: {_ranks(results)}."
    if case == "moved":
        moved, what = results["moved"], "was" if results["moved"] == 1 else "were"
        start = f"Prove the ranking again before you act on it: of {lowest}, {moved:,} {what} not left out"
        return f"{start} when models were retrained."
    if case == "disagree":
        shown = "tells the lowest- or the highest-ranked groups from random ones"
        if gain is not None and gain["low"] > 0:
            shown = f"without {lowest} gained {_of(results, gain['difference'])} ({_interval(results, gain)})"
        ranking = f"the ranking by {models} does not predict other models"
        return f"Train more models before you act, since two tests disagree: retraining {shown}, but {ranking}."
    if len(results["groups"]) == 1:
        return f"Keep the whole source for now: {models} do not show what the only group does."
    return f"Keep the whole source for now: {models} show no ranking of {groups} that can be told from noise."


def _against_random_alone(results: Mapping, lowest: str) -> str:
    """The headline where retrainings were compared with random groups, and not with the whole source."""
    contrast = contrast_of(results["contrasts"], "drop bottom", judged_size(results)) or {}
    alone = "retrainings were not compared with the whole source"
    if contrast["low"] > 0:
        return f"If groups have to go, leave out {lowest}; {alone}."
    return (
        f"Keep the whole source for now: leaving out {lowest} is not shown to be better than a random choice; {alone}."
    )


def _proof(results: Mapping, case: str) -> str:
    """Whether it matters which groups are left out, and how long the retrainings trained."""
    size = judged_size(results)
    if size is None:
        if results.get("proof_of"):
            return f"The retrainings of this plan follow another ranking, that of {quoted(results['proof_of'])}."
        if results.get("counterfactual"):
            return "Retrainings were run, but too few to be judged."
        return "No model was retrained without the lowest-ranked groups: that would be the proof."
    if results.get("moved"):
        return (
            "The retrainings follow another ranking, of fewer models or by another output: they do not prove this one."
        )
    contrast, metric = contrast_of(results.get("contrasts"), "drop bottom", size), Metric.of(results["question"])
    chance = "leaving out as many at random"
    if case == "nothing" and (gain := gain_of(results)) is not None:
        change = f"{_unit(metric, _shown(results, gain, True)[0])} ({_interval(results, gain)})"
        text = f"Retrained without the {size:,} lowest, the change against the whole source is {change}"
    elif contrast is None:
        text = f"How {chance} compares was not judged: too few repeats, or nothing varies"
    else:
        value, interval = _unit(metric, _shown(results, contrast)[0]), _interval(results, contrast)
        if contrast["low"] > 0:
            start = "Leaving them out" if case == "disagree" else "Which groups they are matters: that"
            text = f"{start} is {value} better than {chance} ({interval})"
        elif contrast["high"] < 0:
            text = f"The ranking misleads: {chance} is {value} better ({interval})"
        else:
            worse = "worse" if contrast["difference"] >= 0 else "better"
            text = f"Whether it matters which groups they are is not shown: {chance} is {value} {worse} ({interval})"
    return "; ".join([text, *filter(None, [_length(results)])]) + "."


def _length(results: Mapping) -> str:
    """How long the retrainings trained, beside the whole source."""
    lengths = {
        "steps": "all trained as long as the whole source",
        "epochs": "all trained for as many epochs, so a smaller source for less long",
        "own": "how long each trained was up to the program that trains",
    }
    return lengths.get(results.get("length") or "", "")


def _standing_out(results: Mapping, case: str) -> str:
    """The groups that are clear on their own, highest first and lowest last, and why others are left out too."""
    sides, total = significant(results), len(results["groups"])
    swap = results["estimand"] == "swap"
    stratum = " of its stratum" if results["question"].get("design") == "stratified" else ""
    if not any(sides):
        if all(g["q"] is None for g in results["groups"]):
            return f"No {_thing(results)} was tested on its own: the evidence lies in the ranking as a whole."
        text = "No single group stands out clearly" if total > 1 else "Its influence is not clear"
        return f"{text} ({count(results['models'], 'model')}).{_together(results, case, 0)}"
    parts: list[str] = []
    for side, how, does in ((sides[0], "better", "help"), (sides[1], "worse", "hurt")):
        if not side:
            continue
        does += "s" * (len(side) == 1)
        than = "" if parts else f" than an average group{stratum}"
        what = f"clearly {how}{than}" if swap else f"clearly {does}"
        names, last = [g["name"] for g in side], how == "worse"
        if len(side) <= _NAMED + 1:
            who, end = listed(names), ""
        else:
            named = names[-_NAMED:] if last else names[:_NAMED]
            who, end = f"{len(side):,} {_thing(results)}s", f", {listed(named)} {'last' if last else 'first'}"
        verb = "" if not swap else "is " if len(side) == 1 else "are "
        parts.append(f"{who} {verb}{what}{end}")
    text = "; ".join(parts)
    chance = f"{count(results['models'], 'model')}; on average at most 1 in 20 such claims is chance"
    return f"{text[0].upper()}{text[1:]} ({chance}).{_together(results, case, len(sides[1]))}"


def _together(results: Mapping, case: str, clear: int) -> str:
    """Why more groups are left out than the `clear` ones."""
    size = judged_size(results) or 0
    if case not in ("drop", "free") or size < 2 or size <= clear:
        return ""
    if not clear:
        return f" The {size:,} were tried together."
    return f" The others of the {size:,} rank low, none clearly by itself; they were tried together."


def _stability(results: Mapping) -> str:
    agreement = (results.get("agreement") or {}).get("correlation")
    if agreement is None:
        return ""
    halves = f"two halves of the {count(results['models'], 'model')} agree at {number(agreement, 2)}"
    return f"The ranking is {stability_word(agreement)}: {halves} (0 is chance, 1 the same order)."


def _needed(results: Mapping) -> str:
    """How many models would show something, where nothing was found."""
    verdict = results["verdict"]
    needed, wish = verdict.get("models_needed"), verdict.get("models_needed_for")
    weak = results.get("hardly_learnt") or {"many": False}
    unknown = "How many models would be needed cannot be said"
    if weak["many"]:
        return (
            f"{unknown}: {len(weak['rows']):,} of {weak['judged']:,} hardly "
            "learnt their own source, so what they do to the target says little about the data."
        )
    if results.get("errors") == "none":
        return f"{unknown}: the masks leave nothing to judge the errors by."
    if not errors_known(results):
        freedom = count(round(results["df"]), "degree")
        return f"{unknown}: with {freedom} of freedom the errors are hardly known themselves."
    if needed is None:
        return f"{unknown}: no spread between the groups is seen above the noise."
    if wish and needed <= results["models"]:
        return f"These models were enough for {str(wish).strip().rstrip('.')}: no group seems to do as much."
    purpose = f" for {str(wish).strip().rstrip('.')}" if wish else ""
    return f"About {count(needed, 'model')} would be needed{purpose}."


def _blocked(results: Mapping) -> list[str]:
    reason = str(results["verdict"]["blocked"]).strip().rstrip(".")
    failed = f"{count(results.get('failed') or 0, 'model')} failed"
    linked = results.get("failure_p")
    link = "" if linked is None else f" (association of the failures with the groups kept: {p_text(linked)})"
    return [
        f"No recommendation: {reason}.",
        f"{count(results['models'], 'model')} finished and {failed}{link}.",
        "The numbers below, those of retraining included, are for inspection and support no claim.",
    ]


def _thing(results: Mapping) -> str:
    """What is ranked: a group, or a single example."""
    one = Metric.of(results["question"]).examples.removesuffix("s")
    return f"single {one}" if results["question"].get("by") == "example" else "group"


def _groups(results: Mapping) -> str:
    total = len(results["groups"])
    return "the only group" if total == 1 else f"the {count(total, _thing(results))}"


def _kept(results: Mapping, size: int | None) -> str:
    """What stays: the highest by name."""
    stay = len(results["groups"]) - (size or 0)
    if results["question"].get("by") == "example":
        return f"the {stay:,} highest-ranked"
    return listed([group["name"] for _, group in ranked(results["groups"])[:stay]], _NAMED)


def _ranks(results: Mapping) -> str:
    """What the ranking says, by name."""
    order = [group["name"] for _, group in ranked(results["groups"])]
    most = min(_NAMED, len(order) // 2)
    if results["question"].get("by") == "example":
        return f"the order of {_groups(results)} predicts other models"
    if not most:
        return f"only models with and without {quoted(order[0])} were compared"
    return f"it has {listed(order[:most])} at the top and {listed(order[-most:])} at the bottom"


def _sizes(results: Mapping, values: Sequence[float], sign: bool = False) -> list[str]:
    """Differences as they are shown; numbers that would round to 0 have one more decimal."""
    metric, usual = Metric.of(results["question"]), decimals(results, 1)
    digits = usual + (metric.scale * min(map(abs, values)) < 0.5 * 10.0**-usual)
    return [number(metric.scale * (value if sign else abs(value)), digits, sign) for value in values]


def _shown(results: Mapping, contrast: Mapping, sign: bool = False) -> list[str]:
    return [
        *_sizes(results, (contrast["difference"],), sign),
        *_sizes(results, (contrast["low"], contrast["high"]), sign),
    ]


def _interval(results: Mapping, contrast: Mapping) -> str:
    _, low, high = _shown(results, contrast, True)
    better = "" if Metric.of(results["question"]).higher_is_better else ", + is better"
    return f"95 % interval: {low} to {high}{better}"


def _unit(metric: Metric, value: str) -> str:
    """A difference with its unit."""
    return f"{value} {metric.unit}".rstrip()


def _of(results: Mapping, change: float) -> str:
    """The size of a difference with its unit, and of what it is."""
    metric, value = Metric.of(results["question"]), _sizes(results, (change,))[0]
    return f"{_unit(metric, value)} of {metric.name}" if metric.share else f"{_unit(metric, value)} ({metric.name})"
