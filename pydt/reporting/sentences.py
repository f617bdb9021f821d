"""The report's claims in words: the verdict in three sentences, and when and why a plan stopped.

Every claim, test and interval comes with the results; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from pydt.base import t975
from pydt.reporting.metric import NO_UNIT, Metric
from pydt.reporting.text import count, digits_for, finite, listed, number, p_text, plus_minus, quoted

LEVEL = 0.05
"""Groups with q below this are marked; intervals have coverage 1 - LEVEL."""

FEW_DF = 10
"""With fewer degrees of freedom a standard error is hardly known: intervals are shown instead of plus or minus."""


def significant(results: Mapping) -> tuple[list[dict], list[dict]]:
    """The groups with q < LEVEL, positive and negative ones, the clearest first."""
    sure = [g for g in results["groups"] if g["q"] is not None and g["q"] < LEVEL and g["value"] is not None]
    sure.sort(key=lambda g: (g["q"], -abs(g["value"])))
    return [g for g in sure if g["value"] > 0], [g for g in sure if g["value"] < 0]


def errors_known(results: Mapping) -> bool:
    """Whether standard errors have enough degrees of freedom to be shown, or to plan models with."""
    df = results.get("df")
    return results.get("errors") != "none" and (df is None or df >= FEW_DF)


def headline_size(contrasts: Sequence[dict]) -> int | None:
    """The number of groups left out with the most repeats (the larger of equals)."""
    judged = [c for c in contrasts if c["kind"] in ("drop bottom", "drop top") and c["difference"] is not None]
    return max(((c["n"], c["dropped"]) for c in judged), default=(0, None))[1]


def decimals(results: Mapping, usual: int) -> int:
    """Of retrained models' levels and differences: `usual` of shares, else by the typical error of a difference."""
    errors = [c["stderr"] for c in results.get("contrasts") or [] if c["stderr"]]
    errors = errors or [a["sd"] for a in results.get("arms") or [] if a["sd"]]
    return Metric.of(results["question"]).decimals(usual, median(errors) if errors else None)


def _against_random(results: Mapping, contrast: Mapping, expected: int, than: str) -> str:
    """How an arm differs from its random control, with its uncertainty; `expected` is the sign the ranking predicts.
    Numbers that would round to 0 have one more decimal."""
    metric, usual = Metric.of(results["question"]), decimals(results, 1)

    def shown(values: Sequence[float], sign: bool) -> list[str]:
        digits = usual + (metric.scale * min(map(abs, values)) < 0.5 * 10.0**-usual)
        return [number(metric.scale * value, digits, sign) for value in values]

    change = contrast["difference"]
    size = f"{shown([abs(change)], False)[0]} {metric.unit and metric.unit + ' '}{metric.compared(change)}{than}"
    test = p_text(contrast["p"])
    if contrast["low"] is None or contrast["high"] is None:
        return f"{size} (no interval: {'nothing varies' if contrast['stderr'] == 0 else 'too few repeats'})"
    interval = "95 % interval {} to {}".format(*shown((contrast["low"], contrast["high"]), True))
    interval += "" if metric.higher_is_better else ", + is better"
    if contrast["low"] <= 0 <= contrast["high"]:
        comma = "" if metric.higher_is_better else ","
        return f"{size}, which cannot be told from no difference ({interval}{comma} includes 0, {test})"
    opposite = ", the opposite of what the ranking predicts" if change * expected < 0 else ""
    return f"{size} ({interval}, {test}){opposite}"


def _counterfactual_sentence(results: Mapping) -> str:
    contrasts = results.get("contrasts") or []
    size = headline_size(contrasts)
    if size is None:
        if results.get("counterfactual"):
            return "Retrainings without part of the groups were run, but too few to compare with a random control."
        return "No model was retrained without the groups in question, so the ranking is not yet proven by experiment."
    metric, digits = Metric.of(results["question"]), decimals(results, 1)
    means = {(a["kind"], a["dropped"]): a["mean"] for a in results.get("arms") or []}
    parts: list[str] = []

    def level(mean: float, first: bool = False) -> str:
        text = f"{number(metric.scale * mean, digits)}{metric.suffix}"
        if not first:
            return text
        return f"{text} {metric.name}" if metric.share else f"a mean {metric.name} of {text}"

    for kind, rank, expected in (("drop bottom", "lowest", 1), ("drop top", "highest", -1)):
        contrast = next((c for c in contrasts if c["kind"] == kind and c["dropped"] == size), None)
        if contrast is None or contrast["difference"] is None:
            continue
        mean = means.get((kind, size))
        gave = "" if mean is None else f" gave {level(mean, not parts)},"
        blamed = f"the {rank}-ranked group" if size == 1 else f"the {size:,} {rank}-ranked groups"
        start = "Retraining without" if not parts else "retraining without"
        than = " than leaving out as many at random" if not parts else ""
        parts.append(f"{start} {blamed}{gave} {_against_random(results, contrast, expected, than)}")
    full = next((a["mean"] for a in results.get("arms") or [] if a["kind"] == "full"), None)
    if full is not None:
        parts.append(f"the full source gave {level(full)}")
    return "; ".join(parts) + "."


def _groups_sentence(results: Mapping) -> str:
    better, worse = ([g["name"] for g in side] for side in significant(results))
    total, unit = len(results["groups"]), results["unit"]
    verdict = results["verdict"]
    swap = results["estimand"] == "swap"
    stratum = " of its stratum" if results["question"]["design"] == "stratified" else ""
    if not better and not worse:
        stderr = verdict.get("median_stderr")
        size = number(stderr, digits_for(stderr))
        known = stderr is not None and errors_known(results)
        error = "" if not known else f", and the standard error of one is {size} {unit}"
        what = f"told from an average one{stratum}" if swap else "shown to help or to hurt"
        group = "the only group cannot" if total == 1 else f"none of the {count(total, 'group')} can"
        untested = all(g["q"] is None for g in results["groups"])
        none = "no group was tested on its own" if untested else f"every q is at least {LEVEL}"
        return f"Taken one by one, {group} be {what} ({none}{error}): the evidence lies in the ranking as a whole."
    parts = []
    for names, how, does in ((better, "better", "helps"), (worse, "worse", "hurts")):
        if names:
            do = "does" if len(names) == 1 else "do"
            text = (
                f"{listed(names)} {do} {how} than an average group{stratum}"
                if swap
                else f"adding {listed(names)} {does}"
            )
            parts.append(text)
    first = significant(results)[0 if better else 1][0]
    metric = Metric.of(results["question"])
    if errors_known(results) and not metric.higher_is_better:
        way = "lower" if first["value"] > 0 else "higher"
        moved = plus_minus(abs(first["value"]), first["stderr"], False)
        clearest = f"{metric.name} {way} by {moved} {unit}".removesuffix(f" {NO_UNIT}")
    elif errors_known(results):
        clearest = f"{plus_minus(first['value'], first['stderr'])} {unit}"
    else:
        reach = t975(first.get("df") or results["df"]) * first["stderr"]
        digits = digits_for(reach / 2)
        low, value, high = (number(first["value"] + way * reach, digits, True) for way in (-1, 0, 1))
        remark = "" if metric.higher_is_better else " (+ is better)"
        clearest = f"{value} {unit}{remark}, 95 % interval {low} to {high},"
    clearest += f" for {quoted(first['name'])}"
    rest = total - len(better) - len(worse)
    average = f"told from an average one{stratum}" if swap else "told from no effect"
    others = "" if not rest else f"; one by one, the other {count(rest, 'group')} cannot be {average}"
    text = f"{', and '.join(parts)} (false discovery rate 5 % among {count(total, 'group')}; {clearest}){others}."
    return text[0].upper() + text[1:]


def proven(results: Mapping) -> bool:
    """Whether retraining confirms the ranking: an arm differs as predicted, at LEVEL / 2 since there are two arms."""
    contrasts = results.get("contrasts") or []
    size = headline_size(contrasts)
    signs = {"drop bottom": 1, "drop top": -1}
    return any(
        c["dropped"] == size
        and c["p"] is not None
        and c["p"] < LEVEL / 2
        and c["low"] is not None
        and min(c["low"] * sign, c["high"] * sign) > 0
        for c in contrasts
        if (sign := signs.get(c["kind"], 0))
    )


def stopped(results: Mapping) -> str:
    """When and why a plan stopped early and what that means for the numbers, or what a rule that did not stop it had
    reached; empty without a rule.
    """
    stop = results.get("stop")
    if not stop:
        return _unmet(results)
    looks = f"its {stop['looks']:,}{_ordinal(stop['looks'])} look" if stop["looks"] > 1 else "its first look"
    text = (
        f"Stopped early: {stop['rows']:,} of {count(stop['planned'], 'planned row')} are used, because the rule "
        f"\u201c{stop['rule']}\u201d was satisfied at {looks} ({str(stop['reason']).strip().rstrip('.')})."
    )
    text += _decided(stop)
    fixed = "q and p on this page are computed as if the number of models had been fixed in advance"
    if stop.get("decided"):
        return f"{text} These signs allow for all looks; {fixed}."
    return f"{text} A stop by precision costs the intervals little of their coverage; {fixed}."


def _unmet(results: Mapping) -> str:
    """That a stopping rule was not met, and why this does not contradict the numbers of the page."""
    rule = results.get("unmet")
    if not rule:
        return ""
    reached = str(rule["reason"]).strip().rstrip(".")
    text = f"The stop rule \u201c{rule['rule']}\u201d was not met, so no row is left out: {reached}.{_decided(rule)}"
    if str(rule["rule"]).startswith("sign"):
        text += (
            " Its intervals hold at all looks and for all groups together, so they are wider than those on this page: "
            "a group may have a small q here and no sign by the rule."
        )
    return text


def _decided(stop: Mapping) -> str:
    """The groups whose sign a stopping rule has decided."""
    text = ""
    for sign, what in ((1, "Up"), (-1, "Down")):
        if names := [one["name"] for one in stop.get("decided") or [] if one["sign"] == sign]:
            text += f" {what}: {listed(names, 12)}."
    return text


def _ordinal(n: int) -> str:
    return "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")


def sentences(results: Mapping) -> list[str]:
    """The answer in exactly three plain sentences, with its uncertainty.

    Found: the ranking is more than noise; which groups stand out; what retraining without them did. Not found: nothing
    can be told; how many models would be needed; what retraining did. Blocked: why there is no verdict. With estimand
    "swap" groups are better or worse than an average group; only with "add" do they help or hurt.
    """
    results = finite(results)
    verdict = results["verdict"]
    models = count(results["models"], "model")
    if verdict.get("blocked"):
        reason = str(verdict["blocked"]).strip().rstrip(".")
        failed = f"{count(results.get('failed') or 0, 'model')} failed"
        linked = results.get("failure_p")
        link = "" if linked is None else f" (association of the failures with the groups kept: {p_text(linked)})"
        return [
            f"No verdict is given: {reason}.",
            f"{models} finished and {failed}{link}.",
            "The numbers below, those of retraining included, are for inspection and support no claim.",
        ]
    correlation = verdict.get("correlation")
    measured = "" if correlation is None else f"held-out correlation {number(correlation, 2)}, "
    test = f"{measured}permutation {p_text(verdict.get('p'))}"
    if verdict.get("found"):
        matters = "Which groups the source keeps makes a real difference to the target"
        first = f"{matters}: influences estimated on some of the {models} predict the others ({test})."
        return [first, _groups_sentence(results), _counterfactual_sentence(results)]
    if proven(results):
        first = (
            f"Two tests disagree: influences estimated on some of the {models} do not predict the others ({test}), but "
            "retraining, a test of its own, tells the lowest- or the highest-ranked groups from random ones."
        )
    else:
        nothing = f"Nothing can be told from noise with {models}"
        first = f"{nothing}: influences estimated on some do not predict the others ({test})."
    needed, wish = verdict.get("models_needed"), verdict.get("models_needed_for")
    weak = results.get("hardly_learnt") or {"many": False}
    if weak["many"]:
        second = (
            f"How many models would be needed cannot be said: {len(weak['rows']):,} of {weak['judged']:,} hardly "
            "learnt their own source, so what they do to the target says little about the data."
        )
    elif results.get("errors") == "none":
        second = "How many models would be needed cannot be said: the masks leave nothing to judge the errors by."
    elif not errors_known(results):
        second = (
            f"How many models would be needed cannot be said: with {count(round(results['df']), 'degree')} of freedom "
            "the errors are hardly known themselves."
        )
    elif needed is None:
        second = "How many models would be needed cannot be said: no spread between the groups is seen above the noise."
    elif wish and needed <= results["models"]:
        second = f"These models were enough for {str(wish).strip().rstrip('.')}: no group seems to do as much."
    else:
        purpose = f" for {str(wish).strip().rstrip('.')}" if wish else ""
        second = f"About {count(needed, 'model')} would be needed{purpose}."
    return [first, second, _counterfactual_sentence(results)]
