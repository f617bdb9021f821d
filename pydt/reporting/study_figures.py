"""The figures of a study's page: panels of lines, one for each target and way to transfer, and paired differences.

One combination of method and size stands open, the others come as folds. Panels of one target share their scale.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydt.reporting.judgements import LEVEL
from pydt.reporting.study_view import (
    LINES,
    NAME,
    SCRATCH,
    STYLES,
    Arm,
    Combination,
    Task,
    View,
    combined_text,
    p_number,
    short_size,
    shots_text,
    table_of,
    task_text,
)
from pydt.reporting.svg import Axis, LogAxis, Series, axis_row, ground, interval_row, line_symbol, plot
from pydt.reporting.text import DASH, MINUS, count, legible, number, tied

FOLDS = 24
"""Further combinations of method and size that are drawn, each in a fold."""
PAIRS = 24
"""Differences drawn in one figure; of more, those at the fewest and the most shots."""
SENTENCES = 12
"""Sentences that stand open; the others are in the CSV file."""

_AXES = {
    **{"source": "Sources, pair by pair", "method": "Methods", "captions": "Captions", "noise": "Label noise"},
    **{"length": "Longer training", "mixture": "Mixtures", "size": "Larger against smaller"},
}
_ELSEWHERE = ("source", "size", "scratch")
"""Axes of pairs that stand in sections of their own."""
_X = "labelled images per class"


class _Line(NamedTuple):
    """One line of a figure."""

    name: str
    style: str
    shape: str
    points: list[tuple[float, float, float | None, float | None]]


def _figure(
    view: View,
    lines: Callable[[Task], Iterable[_Line]],
    labels: tuple[str, str],
    named: Mapping[float, str],
    scale: type[Axis] = Axis,
    zero: bool = False,
) -> dict[str, Any] | None:
    """Panels and legend of a figure; None where nothing is known.

    Args:
        lines: of a task.
        labels: of the scales.
        named: texts below x.
        scale: of x.
        zero: whether the scale of y holds 0.
    """
    found = {task: [line for line in lines(task) if line.points] for task in view.tasks}
    found = {task: own for task, own in found.items() if own}
    if not found:
        return None
    legend = {line.style: line for own in found.values() for line in own}
    order = sorted(legend, key=lambda style: style == SCRATCH[0])
    shift = {style: 5 * (i - (len(order) - 1) / 2) for i, style in enumerate(order)}
    xs = sorted(named)
    panels = []
    for task, own in found.items():
        same = [line for (target, _), other in found.items() if target == task[0] for line in other]
        values = [v for line in same for point in line.points for v in point[1:] if v is not None] + [0.0] * zero
        y_axis = Axis.around(values, 0.06)
        y_axis = Axis(0.0, y_axis.high) if y_axis.low < 0 <= min(values) else y_axis
        series = [Series(line.style, line.shape, line.points, shift=shift[line.style]) for line in own]
        told = f"{task_text(task)}: {labels[1]} against {labels[0]}"
        words = (html.escape(labels[0]), "", html.escape(told, quote=True))
        svg = plot(series, scale.around(xs, 0.09), y_axis, xs, words, named=named, height=270)
        panels.append({"title": task_text(task), "svg": svg})
    marks = [(line_symbol(style, legend[style].shape), legend[style].name) for style in order]
    return {"panels": panels, "legend": marks}


def _drawn(row: Mapping[str, Any] | None, x: float, share: bool = False) -> list[tuple]:
    """The point of a record, in percent; bars of shares end at 0 and 100 %. Empty without a mean."""
    if row is None or row["mean"] is None:
        return []
    low, high = row["low"], row["high"]
    if low is None or high is None:
        return [(x, 100 * row["mean"], None, None)]
    if share:
        low, high = max(0.0, low), min(1.0, high)
    return [(x, 100 * row["mean"], 100 * low, 100 * high)]


def _by_shots(view: View, records: Mapping[int | str, Mapping[str, Any]], share: bool = False) -> list[tuple]:
    """The points of records that are held by shots."""
    return [point for i, shots in enumerate(view.shots) for point in _drawn(records.get(shots), i, share)]


def _positions(view: View) -> dict[float, str]:
    return {float(i): str(shots) for i, shots in enumerate(view.shots)}


def curves(view: View) -> dict[str, Any] | None:
    """Accuracy against shots: one line a source, and scratch."""

    def line(task: Task, arm: Arm, name: str | None, style: tuple[str, str]) -> _Line:
        return _Line(legible(name or "", NAME), *style, _by_shots(view, view.arms(task).get(arm, {}), True))

    def scratch(task: Task) -> Iterable[_Line]:
        arms = [arm for arm in view.arms(task) if arm[0] == "scratch"]
        return [line(task, arm, "no pre-training", SCRATCH) for arm in arms[:1]]

    def trained(method: str, size: int | None) -> Callable[[Task], Iterable[_Line]]:
        def lines(task: Task) -> Iterable[_Line]:
            for source in view.drawn:
                yield line(task, ("trained", source, size, method), source, view.style(source))
            yield from scratch(task)

        return lines

    def public(task: Task) -> Iterable[_Line]:
        arms = [arm for arm in view.arms(task) if arm[0] == "checkpoint"][:LINES]
        yield from (line(task, arm, arm[1], style) for arm, style in zip(arms, STYLES, strict=False))
        yield from scratch(task) if arms else ()

    labels = (_X, f"{view.level}, %")
    found = _opened(view, lambda one: _figure(view, trained(*one), labels, _positions(view)))
    if found and (figure := _figure(view, public, labels, _positions(view))):
        title = "Public checkpoints, not comparable in size, architecture and epochs"
        found["folds"].append({"title": title, **figure})
    return found


def _opened(view: View, figure: Callable[[Combination], dict[str, Any] | None]) -> dict[str, Any] | None:
    """The figure of the first combination that has one, and those of the others for folds."""
    figures = [(one, found) for one in view.combinations if (found := figure(one))]
    if not figures:
        return None
    folds = [{"title": combined_text(one), **found} for one, found in figures[1 : FOLDS + 1]]
    left = max(0, len(figures) - 1 - FOLDS)
    return {"of": combined_text(figures[0][0]), **figures[0][1], "folds": folds, "left_out": left}


def spread(view: View) -> dict[str, Any] | None:
    """How far the sources lie apart: tau, and the range beside that of noise."""
    records = view.results.get("spread") or []
    found = {(r["target"], r["mode"], r["shots"], r["method"], r["size"]): r for r in records}

    def lines(combination: Combination) -> Callable[[Task], Iterable[_Line]]:
        def own(task: Task) -> Iterable[_Line]:
            rows = {shots: found[key] for shots in view.shots if (key := (*task, shots, *combination)) in found}
            for name, style, keys in (
                ("spread beyond noise, with 95 % interval", ("ink", "full"), ("tau", "low", "high")),
                ("best \u2212 worst, as measured", STYLES[0], ("range", "", "")),
                (
                    "best \u2212 worst by noise alone, up to its 95 % bound",
                    SCRATCH,
                    ("range_of_noise",) * 2 + ("range_high",),
                ),
            ):
                drawn = {
                    k: dict(zip(("mean", "low", "high"), map(row.get, keys), strict=True)) for k, row in rows.items()
                }
                yield _Line(name, *style, _by_shots(view, drawn))

        return own

    figure = _opened(view, lambda one: _figure(view, lines(one), (_X, "points"), _positions(view), zero=True))
    if figure is None:
        return None
    order = {shots: i for i, shots in enumerate(view.shots)}
    rows = []
    for (*task, shots, method, size), row in found.items():
        if (method, size) == view.combinations[0]:
            what = [task_text((task[0], task[1])), shots_text(shots), view.points(row["tau"], False)]
            what += [view.interval(row["low"], row["high"]), p_number(row.get("p_holm", row["p"]))]
            what += [view.points(row.get(key), False) for key in ("range", "range_of_noise", "range_high")]
            what += [legible(row["best"], NAME), legible(row["worst"], NAME)]
            rows.append(((view.tasks.index((task[0], task[1])), order[shots]), what))
    heads = ["target, transfer", "shots", "spread", "95 % interval", "p (Holm)"]
    heads += ["best \u2212 worst", "by noise", "95 % of noise", "best", "worst"]
    table = table_of(heads, [row for _, row in sorted(rows)], "llrrrrrrll", "spread.csv")
    return {**figure, "table": table, "pairs": _pairs(view, "source")}


def sizes(view: View) -> dict[str, Any] | None:
    """Accuracy against the size of the source, and which sizes of two sources match."""
    figures, matches = _by_size(view), _matches(view)
    found = {"open": figures[:1], "folds": figures[1:], "pairs": _pairs(view, "size"), **matches}
    return found if figures or found["pairs"] or found["table"] else None


def _by_size(view: View) -> list[dict[str, Any]]:
    """One figure for each number of shots, and one for each further method at the fewest."""
    known = sorted({size for kind, _, size, _ in view.all_arms if kind == "trained" and size})
    if len(known) < 2:
        return []

    def lines(method: str, shots: int | str) -> Callable[[Task], Iterable[_Line]]:
        def own(task: Task) -> Iterable[_Line]:
            for source in view.drawn:
                rows = [(size, view.arms(task).get(("trained", source, size, method), {})) for size in known]
                points = [point for size, row in rows for point in _drawn(row.get(shots), size, True)]
                yield _Line(legible(source, NAME), *view.style(source), points)

        return own

    labels, named = ("images of the source", f"{view.level}, %"), {float(size): short_size(size) for size in known}
    methods = list(dict.fromkeys(method for method, _ in view.combinations))
    shots = dict.fromkeys((view.ends[0], *view.shots))
    views = [*((methods[0], one) for one in shots), *((method, view.ends[0]) for method in methods[1:])]
    return [
        {"title": f"{legible(method, NAME)}, {shots_text(one)}", **figure}
        for method, one in views
        if (figure := _figure(view, lines(method, one), labels, named, LogAxis))
    ]


def _matches(view: View) -> dict[str, Any]:
    """Sizes that match: in sentences for the fewest shots of the first target, all of them as a table."""
    order = {shots: i for i, shots in enumerate(view.shots)}
    first = view.combinations[0][0] if view.combinations else None
    matches = view.results.get("equivalence") or []
    tasks = {task: i for i, task in enumerate(view.tasks)}
    matches = sorted(
        matches, key=lambda one: (tasks[one["target"], one["mode"]], one["method"] != first, order[one["shots"]])
    )
    rows, said, heard = [], [], ""
    for match in matches:
        place = [task_text((match["target"], match["mode"])), shots_text(match["shots"])]
        place.append(legible(match["method"] or match["at"], NAME))
        heard = heard or ", ".join(place)
        if ", ".join(place) == heard:
            said.append(tied(legible(match["told"], 400)))
        times = "not reached" if match["times"] is None else number(match["times"], 2)
        what = (f"{match['size']:,} of {legible(match['first'], NAME)}", legible(match["second"], NAME))
        rows.append([*place, *what, times, _times(match)])
    heads = ["target, transfer", "shots", "method or source", "images", "match of", "times as many", "95 % interval"]
    table = table_of(heads, rows, "lllllrr", "equivalence.csv") if rows else None
    return {"told": said[:SENTENCES], "table": table}


def _times(match: Mapping[str, Any]) -> str:
    """The interval of a size that matches; its ends may lie outside the sizes tried."""
    low = "below the sizes tried" if match["low"] is None else number(match["low"], 2)
    return f"{low} to {'beyond the sizes tried' if match['high'] is None else number(match['high'], 2)}"


def effects(view: View) -> list[dict[str, Any]]:
    """Paired differences of what else was varied, one figure an axis."""
    axes = dict.fromkeys(pair["axis"] for pair in view.results.get("pairs") or [])
    return [found for axis in axes if axis not in _ELSEWHERE and (found := _pairs(view, axis))]


def _pairs(view: View, axis: str) -> dict[str, Any] | None:
    """The differences of an axis as intervals: a figure for each task, the first one open.

    Of differences at several levels, those averaged over all are shown, or those of the first combination.
    """
    pairs = [pair for pair in view.results.get("pairs") or [] if pair["axis"] == axis]
    method, size = view.combinations[0] if view.combinations else (None, None)
    pairs = [pair for pair in pairs if pair["size"] in (None, size)] or pairs
    own = {method, *(f"{source}, {method}" for source in view.drawn)}
    pooled = [pair for pair in pairs if pair["at"] is None]
    pairs = pooled or [pair for pair in pairs if pair["at"] in own] or pairs
    figures = []
    for task in view.tasks:
        if found := [pair for pair in pairs if (pair["target"], pair["mode"]) == task]:
            figures.append({"title": task_text(task), **_differences(view, found)})
    if not figures:
        return None
    ats, sizes = ({pair[key] for pair in pairs} for key in ("at", "size"))
    at = [] if len(ats) > 1 else ["mean over the sources" if pooled else legible(str(*ats), NAME)]
    at += [count(one, "image") for one in sizes if one is not None] if len(sizes) == 1 else []
    title = _AXES.get(axis) or legible(f"{axis[:1].upper()}{axis[1:]}", NAME)
    return {"title": title, "at": ", ".join(at), "figures": figures}


def _end(name: str | int) -> str:
    """One side of a difference: a name, or a number of images."""
    return legible(name, NAME) if isinstance(name, str) else f"{name:,}"


def _differences(view: View, pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One figure of intervals: the pairs below one another, each with its shots."""
    order = {shots: i for i, shots in enumerate(view.shots)}
    shown = pairs if len(pairs) <= PAIRS else [pair for pair in pairs if pair["shots"] in view.ends] or pairs
    if len(shown) > PAIRS:
        chosen = (view.results.get("chosen") or {}).values()
        shown = sorted(shown, key=lambda pair: pair["first"] not in chosen and pair["second"] not in chosen)[:PAIRS]
    axis = Axis.around(
        [0.0, *(100 * pair[k] for pair in shown for k in ("difference", "low", "high") if pair[k] is not None)]
    )
    ats = list(dict.fromkeys(pair["at"] for pair in shown))
    groups: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for pair in shown:
        both, at = f"{_end(pair['first'])} {MINUS} {_end(pair['second'])}", legible(str(pair["at"]), 2 * NAME)
        title, rest = (at, f", {both}") if pair["axis"] == "size" else (both, f", {at}" if len(ats) > 1 else "")
        groups.setdefault(title, []).append((shots_text(pair["shots"]) + rest, pair))
    found, wide = [], 0
    for title, own in groups.items():
        rows: list[dict[str, str]] = []
        for name, pair in sorted(own, key=lambda one: (ats.index(one[1]["at"]), order[one[1]["shots"]])):
            value, low, high = (None if pair[k] is None else 100 * pair[k] for k in ("difference", "low", "high"))
            p = pair["p"] if pair["p_holm"] is None else pair["p_holm"]
            sure = p is not None and p < LEVEL
            kind = "plain" if not sure or not value else "better" if value > 0 else "worse"
            rows.append(
                {
                    "name": name,
                    "svg": interval_row(axis, value, low, high, kind),
                    "value": view.points(pair["difference"]),
                    "interval": view.interval(pair["low"], pair["high"], True),
                    "p": p_number(p),
                }
            )
        wide = max(wide, *(len(row["name"]) for row in rows))
        found.append({"title": title, "rows": rows})
    return {
        "axis": axis_row(axis),
        "ground": ground(axis, None),
        "groups": found,
        "left_out": len(pairs) - len(shown),
        "width": min(24, max(8, wide)),
    }


def gains(view: View) -> dict[str, Any] | None:
    """Gain over a network without pre-training, against shots, and where it ends."""
    records = view.results.get("scratch") or []
    found = {(r["target"], r["mode"], r["method"], r["size"], r["source"]): r for r in records}

    def lines(combination: Combination) -> Callable[[Task], Iterable[_Line]]:
        def own(task: Task) -> Iterable[_Line]:
            for source in view.drawn:
                record = found.get((*task, *combination, source)) or {"gains": []}
                gains = {gain["shots"]: {**gain, "mean": gain["difference"]} for gain in record["gains"]}
                yield _Line(legible(source, NAME), *view.style(source), _by_shots(view, gains))

        return own

    figure = _opened(
        view, lambda one: _figure(view, lines(one), (_X, "points over no pre-training"), _positions(view), zero=True)
    )
    if figure is None:
        return None
    rows = []
    for source in view.names("sources"):
        cells = [found.get((*task, *view.combinations[0], source)) for task in view.tasks]
        if any(cells):
            stops = [DASH if record is None else _stop(view, record) for record in cells]
            rows.append([legible(source, NAME), *stops])
    told = [r for key, r in found.items() if key[2:4] == view.combinations[0] and r.get("told")]
    heads = ["source", *(task_text(task) for task in view.tasks)]
    table = table_of(heads, rows, "l" + "r" * len(view.tasks), "scratch.csv") if rows else None
    return {**figure, "table": table, "told": [tied(legible(r["told"], 400)) for r in told]}


def _stop(view: View, record: Mapping[str, Any]) -> str:
    """From which shots on no gain is seen, and how large a gain the intervals leave possible, if any."""
    if record["stops_paying_at"] is None:
        return "pays at all tried"
    hidden = record.get("hidden")
    return shots_text(record["stops_paying_at"]) + (
        f", up to {view.points(hidden, False)}" if hidden and hidden > 0 else ""
    )
