"""What a study found, in words: the recommendation in three sentences, size equivalence, gains over scratch.

Every test and interval comes with the facts; fractions are shown in percent and points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydt.reporting.judgements import LEVEL
from pydt.reporting.text import count, legible, listed, number, p_text, percent_text, quoted

WIDE = 0.05
"""Where a difference of more than this could be hidden, that none is detected says little."""
MOST = 3
"""Targets, or groups of them with one outcome, that a sentence tells of; the tables have the others."""
Facts = Mapping[str, Any]


def recommendation_sentences(facts: Sequence[Facts]) -> list[str]:
    """Three sentences: which source at few shots, what more data brings, and when it stops mattering.

    Args:
        facts: for each target, if sources were trained, what `pydt.studies.recommendation` found: target, mode, method,
            size, shots, and
            kind: "best" (better than every other source beyond noise), "ahead" (than some), "none" (no two sources
                differ beyond noise), "unclear" (some two do, but not the first one), "behind" (some are better than the
                first of the score half) or "one" (one source alone).
            source, second: the first two of the score half. mean, second_mean: their accuracies. lead: the difference.
            better_than, same_as, worse_than: names of the other sources. pairs: (better, worse) of others that differ.
            missed: the largest difference that an interval still holds.
            methods: better_than, same_as, worse_than, or None.
            more: the difference of the two largest sizes, with from and to, or None.
            spread: rows by shots. scratch: a row of the scratch table, or None.
    """
    if not facts:
        return [
            "No source was trained here: public checkpoints are compared, which differ in size, network and length.",
            "So a difference between them does not say which source is better, and none is recommended.",
            "What more data would bring, and when the source stops mattering, takes trainings of one's own.",
        ]
    return [_which(facts), _more_data(facts), _mattering(facts)]


def equivalence_sentence(row: Facts) -> str:
    """How many images of a second source match a first one, with the sizes tried named where they bound the answer."""
    own = f"{_at(row)}: {count(row['size'], 'image')} of {_arm(row, 'first')}"
    return f"{own} {_matched(row)}."


def scratch_sentence(row: Facts) -> str:
    """Whether an arm is better than scratch, up to which shots, and what could be hidden where no gain is detected.

    Args:
        row: of the scratch table: gains by shots, each detected or not; stops_paying_at; and hidden, the largest end of
            an interval from there on.
    """
    size = "" if row["size"] is None else f", {count(row['size'], 'image')}"
    return f"{_on(row)}, {legible(row['method'], 40)}{size}: {_over_scratch(row)}."


def shots_at(shots: int | str) -> str:
    """At so many shots, in words."""
    if isinstance(shots, str):
        return "with all labelled images"
    return f"at {count(shots, 'shot')}" if shots else "without labelled images"


def _matched(row: Facts) -> str:
    """What of the second arm matches the first one."""
    second, least, most = _arm(row, "second"), row["sizes"][0], row["sizes"][-1]
    if row["times"] is None and not row["reached"]:
        more = "" if row["low"] is None else f": it would take more than {_times(row['low'])} as many"
        return f"are not matched by {most:,} of {second}, the most tried{more}"
    if row["low"] is None and row["high"] is None:
        return f"cannot be told from any number of {second} that was tried ({least:,} to {most:,})"
    low = f"fewer than {least:,}" if row["low"] is None else f"{row['low'] * row['size']:,.0f}"
    high = f"more than {most:,}" if row["high"] is None else f"{row['high'] * row['size']:,.0f}"
    if row["times"] is None:
        return (
            f"are not matched by {most:,} of {second}, the most tried, which noise may explain (95 % {low} to {high})"
        )
    images = row["times"] * row["size"]
    if images <= least:
        return f"do no more than {least:,} of {second}, the fewest tried (95 % {low} to {high})"
    return f"do as much as {images:,.0f} of {second} (95 % {low} to {high})"


def _which(facts: Sequence[Facts]) -> str:
    groups: dict[tuple[Any, ...], list[Facts]] = {}
    for one in facts:
        kind = one["kind"]
        about = (
            (one["source"],) if kind in ("best", "one") else () if kind == "none" else (one["source"], one["target"])
        )
        key = (kind, *(one[name] for name in ("shots", "method", "mode", "size")), *about)
        groups.setdefault(key, []).append(one)
    return _sentence([_outcome(own) for own in groups.values()])


def _outcome(own: Sequence[Facts]) -> str:
    """What targets of one outcome have in common."""
    one, kind = own[0], own[0]["kind"]
    how = f"{legible(one['method'], 40)}, {count(one['size'], 'image')}, {legible(one['mode'], 40)}"
    first, shots, on = quoted(one["source"]), shots_at(one["shots"]), _on_targets(own)
    if kind == "one":
        text = f"only {first} was tried {shots} {on} ({how}), so sources are not compared"
    elif kind == "none":
        missed = _points(max(fact["missed"] for fact in own))
        text = f"no source is better than another beyond noise {shots} {on} ({how}); "
        text += f"differences up to {missed} points could have been missed"
    elif kind == "unclear":
        better, worse = one["pairs"][0]
        text = f"no source stands out {shots} {on} ({how}): {first}, first on the score half, is not told from the "
        text += f"others, though {quoted(better)} is better than {quoted(worse)}"
    elif kind == "behind":
        text = f"no source is recommended {shots} {on} ({how}): {first}, first on the score half, is worse than "
        text += f"{listed(one['worse_than'])} on the report half"
    else:
        text = f"pre-train on {first} ({how}): {shots} {_joined([_figures(fact) for fact in own[:MOST]])}"
        others = len(one["better_than"])
        if kind == "best":
            text += f", better than {'the other one' if others == 1 else f'all {others} others'} beyond noise"
        else:
            text += f", better than {listed(one['better_than'])} beyond noise, not told from {listed(one['same_as'])}"
    return text + _by_method(own)


def _on_targets(own: Sequence[Facts]) -> str:
    return f"on {listed([fact['target'] for fact in own])}"


def _figures(one: Facts) -> str:
    """What the first source reached, and the second one."""
    levels = f"{percent_text(one['mean'], 1)} against {percent_text(one['second_mean'], 1)} of {quoted(one['second'])}"
    lead = "" if one["lead"] is None else f" ({_difference(one['lead'])})"
    return f"on {quoted(one['target'])} {levels}{lead}"


def _by_method(own: Sequence[Facts]) -> str:
    """How sure the choice of the method is, if all targets agree."""
    methods = own[0]["methods"]
    if methods is None or any(fact["methods"] != methods for fact in own):
        return ""
    words = {"better_than": "is better than", "worse_than": "is worse than", "same_as": "is not told from"}
    parts = [f"{word} {listed(methods[key])}" for key, word in words.items() if methods[key]]
    return f"; as a method, {legible(own[0]['method'], 40)} {_joined(parts)}"


def _more_data(facts: Sequence[Facts]) -> str:
    known = [one for one in facts if one["more"] is not None]
    if not known:
        return "Each source was tried at one size, so what more data would bring is not known."
    steps: dict[tuple[Any, ...], dict[str, list[str]]] = {}
    for one in known[:MOST]:
        more = one["more"]
        effect = "have no detected effect"
        if more["p_holm"] < LEVEL:
            effect = "help" if more["difference"] > 0 else "hurt"
        step = one["source"], more["from"], more["to"], one["shots"]
        found = f"on {quoted(one['target'])} ({_difference(more)})"
        steps.setdefault(step, {}).setdefault(effect, []).append(found)
    told = [
        f"{large:,} images of {quoted(source)} in place of {small:,} "
        + _joined([f"{effect} {_joined(where)}" for effect, where in effects.items()])
        + f" {shots_at(shots)}"
        for (source, small, large, shots), effects in steps.items()
    ]
    return _sentence(told)


def _mattering(facts: Sequence[Facts]) -> str:
    """When the source stops mattering, and pre-training at all; targets with one answer share it."""
    spreads: dict[str, list[str]] = {}
    gains: dict[str, list[str]] = {}
    for one in facts:
        if one["spread"]:
            text, bound = _until(one["spread"])
            spreads.setdefault(text, []).append(f"{quoted(one['target'])}{bound}")
        if one["scratch"] is not None:
            gains.setdefault(_over_scratch(one["scratch"]), []).append(one["target"])
    told = [f"{text} on {_joined(targets)}" for text, targets in spreads.items()]
    told += [f"on {listed(targets)} {text}" for text, targets in gains.items()]
    if not told:
        return "One source and no scratch network were tried, so from when on it stops mattering is not known."
    return f"Transferred by {quoted(facts[0]['mode'])}, {'; '.join(told)}."


def _until(rows: Sequence[Facts]) -> tuple[str, str]:
    """Up to how many shots the spread between sources can be told from noise, and how large it may be beyond."""
    found = [row["shots"] for row in rows if row["p_holm"] < LEVEL]
    last = max((i for i, row in enumerate(rows) if row["shots"] in found), default=-1)
    after, end = rows[last + 1 :], rows[last]
    bounds = [row["high"] for row in after if row["low"] is not None]
    most = (
        "not bounded" if None in bounds or not bounds else f"standard deviation at most {_points(max(bounds))} points"
    )
    if last < 0:
        return "no spread between sources is told from noise at any number of shots", f" ({most})"
    size = f"{_points(end['tau'])} points of standard deviation {shots_at(end['shots'])}"
    where = _where(found, [row["shots"] for row in rows])
    return f"sources differ {where}", f" ({size}; beyond, {most})" if after else f" ({size})"


def _over_scratch(row: Facts) -> str:
    """Up to how many shots pre-training pays."""
    gains, hidden, who = row["gains"], row["hidden"], quoted(row["source"])
    paid = [one["shots"] for one in gains if one["detected"]]
    lost = [shots_at(one["shots"]) for one in gains if one["p_holm"] < LEVEL and one["difference"] < 0]
    worse = f"; scratch is better {_joined(lost)}" if lost else ""
    where = _where(paid, [one["shots"] for one in gains]) if paid else ""
    if gains[-1]["detected"]:
        return f"{who} pays over scratch {where}{worse}"
    if not paid and hidden is not None and hidden <= 0:
        return f"{who} does not pay: scratch is better {_joined(lost)}" if lost else f"{who} does not pay over scratch"
    bound = "a gain of unknown size" if hidden is None else f"a gain up to {_points(hidden)} points"
    if hidden is None or hidden > WIDE:
        left = f"{bound} could be hidden"
    else:
        left = "no gain is left" if hidden <= 0 else f"a gain above {_points(hidden)} points could not be hidden"
    if not paid:
        return f"{who} is not seen to pay over scratch ({left}){worse}"
    return f"{who} pays over scratch {where} (beyond, {left}){worse}"


def _where(found: Sequence[int | str], tried: Sequence[int | str]) -> str:
    """At which of the shots tried something was found."""
    if len(found) == len(tried):
        return "at all shots tried"
    first = list(found) == list(tried[: len(found)])
    return f"up to {_amount(found[-1])}" if first else _joined([shots_at(k) for k in found])


def _amount(shots: int | str) -> str:
    return "all labelled images" if isinstance(shots, str) else count(shots, "shot")


def _on(row: Facts) -> str:
    return f"On {quoted(row['target'])} ({legible(row['mode'], 40)})"


def _at(row: Facts) -> str:
    how = "" if row["axis"] == "method" else f", {legible(row['method'], 40)}"
    return f"{_on(row)} {shots_at(row['shots'])}{how}"


def _arm(row: Facts, which: str) -> str:
    """An arm of a row of the equivalence."""
    if row["axis"] == "method":
        return f"{quoted(row['at'])} by {legible(row[which], 40)}"
    return quoted(row[which])


def _difference(row: Facts) -> str:
    """A difference with interval and Holm's p, which may be large beside an interval without 0: +5.2 points, 95 % +3.1
    to +7.3, adjusted p = 0.004."""
    value = f"{_points(row['difference'], True)} points"
    if row["low"] is None or row["high"] is None:
        return f"{value}, no interval"
    return (
        f"{value}, 95 % {_points(row['low'], True)} to {_points(row['high'], True)}, adjusted {p_text(row['p_holm'])}"
    )


def _points(value: float, sign: bool = False) -> str:
    return number(100 * value, 1, sign)


def _times(value: float) -> str:
    return f"{number(value, 0 if value >= 10 else 1 if value >= 1 else 2)} times"


def _joined(parts: Sequence[str]) -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _sentence(parts: Sequence[str], most: int = MOST) -> str:
    """The first parts as one sentence."""
    shown = list(parts[:most])
    if len(parts) > most:
        shown.append(f"the tables have {len(parts) - most:,} more")
    text = "; ".join(shown)
    return f"{text[:1].upper()}{text[1:]}."
