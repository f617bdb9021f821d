"""The statistics behind the answer in words, for "How sure, in detail": tests, p, q, and why a plan stopped.

Every claim, test and interval comes with the results; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydt.base import t975
from pydt.reporting.judgements import LEVEL, decimals, errors_known, judged_size, significant
from pydt.reporting.metric import NO_UNIT, Metric
from pydt.reporting.text import count, digits_for, finite, listed, number, p_text, plus_minus, quoted


def _compared(results: Mapping, contrast: Mapping, expected: int, than: str) -> str:
    """How an arm differs from another, with its uncertainty; `expected` is the sign the ranking predicts.
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
    size = judged_size(results)
    if size is None or results.get("moved"):  # they left out other groups than are lowest now
        return ""
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
        parts.append(f"{start} {blamed}{gave} {_compared(results, contrast, expected, than)}")
    full = next((a["mean"] for a in results.get("arms") or [] if a["kind"] == "full"), None)
    gain = next((c for c in results.get("gains") or [] if (c["kind"], c["dropped"]) == ("drop bottom", size)), None)
    if full is not None:
        parts.append(f"the whole source gave {level(full)}")
    if gain is not None and gain["difference"] is not None:
        change = _compared(results, gain, 1, " without the lowest than with all")
        parts[-1] += f": {change}" if full is not None else ""
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
        whole = ": the evidence lies in the ranking as a whole" if verdict.get("found") else ""
        none = "no group was tested on its own" if untested else f"every q is at least {LEVEL}"
        return f"Taken one by one, {group} be {what} ({none}{error}){whole}."
    parts = []
    for names, how, does in ((better, "better", "help"), (worse, "worse", "hurt")):
        if names:
            one = len(names) == 1
            do = f"{'does' if one else 'do'} {how} than an average group{stratum}" if swap else f"{does}{'s' * one}"
            parts.append(f"{count(len(names), 'group')} {do}")
    first = min(significant(results)[0 if better else 1], key=lambda g: (g["q"], -abs(g["value"])))
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
    return f"{' and '.join(parts)} (false discovery rate 5 % among {count(total, 'group')}; {clearest}){others}."


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


def detailed(results: Mapping) -> list[str]:
    """The tests behind the answer, in sentences; none where too many rows failed."""
    results = finite(results)
    verdict = results["verdict"]
    if verdict.get("blocked"):
        return []
    correlation = verdict.get("correlation")
    measured = "" if correlation is None else f"held-out correlation {number(correlation, 2)}, "
    test = f"{measured}permutation {p_text(verdict.get('p'))}"
    do = "predict" if verdict.get("found") else "do not predict"
    first = f"Influences estimated on some of the {count(results['models'], 'model')} {do} the others ({test})."
    return [first, _groups_sentence(results), *filter(None, [_counterfactual_sentence(results)])]
