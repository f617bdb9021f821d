"""What results say, before it is put into words: which groups are sure, what retraining showed, what to do.

    blocked     too many rows failed
    drop        without the K lowest, the task gains: the interval against the whole source is above 0
    free        it costs nothing measurable: the interval holds 0 and no loss above `nothing_measurable`
    unclear     the interval holds 0 and larger losses
    whole       it costs: the interval is below 0
    compared    retrained, but only compared with leaving out as many at random (results of earlier versions)
    unproven    the ranking predicts other models, and nothing was retrained
    moved       it does, and what was retrained left out other groups than are lowest now
    disagree    retraining shows an effect, though the ranking predicts no other models
    nothing     neither does

K is the number that was asked for first ("main"), whatever came out; of results of earlier versions the one with the
most retrainings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from pydt.reporting.csv_files import ranked
from pydt.reporting.metric import Metric

LEVEL = 0.05
"""Groups with q below this are marked; intervals have coverage 1 - LEVEL."""

FEW_DF = 10
"""With fewer degrees of freedom a standard error is hardly known: intervals are shown instead of plus or minus."""


def significant(results: Mapping) -> tuple[list[dict], list[dict]]:
    """The groups with q < LEVEL, positive and negative ones, in the order of the ranking: highest first."""
    groups = [group for _, group in ranked(results["groups"])]
    sure = [g for g in groups if g["q"] is not None and g["q"] < LEVEL and g["value"] is not None]
    return [g for g in sure if g["value"] > 0], [g for g in sure if g["value"] < 0]


def errors_known(results: Mapping) -> bool:
    """Whether standard errors have enough degrees of freedom to be shown, or to plan models with."""
    df = results.get("df")
    return results.get("errors") != "none" and (df is None or df >= FEW_DF)


def decimals(results: Mapping, usual: int) -> int:
    """Of retrained models' levels and differences: `usual` of shares, else by the typical error of a difference."""
    errors = [c["stderr"] for c in results.get("contrasts") or [] if c["stderr"]]
    errors = errors or [a["sd"] for a in results.get("arms") or [] if a["sd"]]
    return Metric.of(results["question"]).decimals(usual, median(errors) if errors else None)


def contrast_of(contrasts: Sequence[dict] | None, kind: str, size: int | None) -> dict | None:
    """The contrast of an arm, if it has an interval."""
    found = (c for c in contrasts or [] if (c["kind"], c["dropped"]) == (kind, size))
    return next((c for c in found if None not in (c["difference"], c["low"], c["high"])), None)


def judged_size(results: Mapping) -> int | None:
    """The number of groups of which the headline tells: the one asked for first, if it was judged, else the one with
    the most repeats (the larger of equals); None where nothing was retrained, or too little to judge."""
    every = [*(results.get("gains") or []), *(results.get("contrasts") or [])]
    judged = [c for c in every if c["kind"] in ("drop bottom", "drop top") and c["difference"] is not None]
    if (main := results.get("main")) is not None and any(c["dropped"] == main for c in judged):
        return int(main)
    return max(((c["n"], c["dropped"]) for c in judged), default=(0, None))[1]


def gain_of(results: Mapping) -> dict | None:
    """What the source without its lowest groups gains over the whole source."""
    return contrast_of(results.get("gains"), "drop bottom", judged_size(results))


def left_out(results: Mapping) -> list[str]:
    """The lowest groups, if they are the ones that the retrainings of the judged size were without."""
    size = judged_size(results) or 0
    lowest = [group["name"] for _, group in ranked(results["groups"])[-size:]] if size else []
    runs = (
        r["names"] for r in results.get("counterfactual") or [] if (r["kind"], r["dropped"]) == ("drop bottom", size)
    )
    return lowest if sorted(next(runs, [])) == sorted(lowest) else []


def nothing_measurable(results: Mapping) -> float:
    """The largest loss that counts as none, as rows store it: one point of a share, else the spread (SD) between two
    retrainings of the whole source."""
    metric = Metric.of(results["question"])
    full = next((a["sd"] for a in results.get("arms") or [] if a["kind"] == "full"), None)
    return 1 / metric.scale if metric.share else full or 0.0


def advice(results: Mapping) -> str:
    """The case of the headline; see the head of this file."""
    found, gain = bool(results["verdict"].get("found")), gain_of(results)
    if results["verdict"].get("blocked"):
        return "blocked"
    if results.get("moved"):
        return "moved" if found else "nothing"
    if gain is not None and gain["high"] < 0:
        return "whole"
    if not found:
        return "disagree" if proven(results) or (gain is not None and gain["low"] > 0) else "nothing"
    if gain is not None:
        if gain["low"] > 0:
            return "drop"
        return "free" if -gain["low"] <= nothing_measurable(results) else "unclear"
    against = contrast_of(results.get("contrasts"), "drop bottom", judged_size(results))
    return "unproven" if against is None else "compared"


STABLE = ((0.8, "very stable"), (0.6, "fairly stable"), (0.4, "moderately stable"), (0.2, "weakly stable"))
"""What a ranking is called by the rank correlation of two rankings, each from half of the models: from this on."""


def stability_word(correlation: float) -> str:
    """What a ranking is called whose two halves agree by so much; of halves, so of all models it claims no more."""
    return next((word for least, word in STABLE if correlation >= least), "hardly stable")


def proven(results: Mapping) -> bool:
    """Whether retraining confirms the ranking: an arm differs as predicted, at LEVEL / 2 since there are two arms."""
    contrasts = results.get("contrasts") or []
    size = judged_size(results)
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
