"""What a study recommends: facts for three sentences, read off its tables.

One pre-training serves all targets, so one method and one mode are chosen for all: those whose accuracy on the score
half, averaged over sources and targets, is highest at the fewest shots and at the largest size that two sources or more
have. An average over the sources says nothing of their differences, so the tests of these keep their level. For each
target, the source that is first on the score half is then judged on the report half by its pairs with all others. The
halves share trainings and draws, so p comes from the family of all pairs, which holds whichever source is picked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pydt.base import t975
from pydt.studies.comparing import LEVEL, Row
from pydt.studies.grid import Grid, Place

Tables = Mapping[str, Sequence[Row]]


def recommended(grid: Grid, tables: Tables) -> list[Row]:
    """The facts of each target; see `pydt.reporting.recommendation_sentences`.

    Args:
        tables: accuracy, spread, pairs and scratch, as `comparing` gives them.
    """
    choice = _choice(grid)
    return [] if choice is None else [_of_target(grid, tables, target, *choice) for target in grid.study.targets]


def chosen_arm(facts: Sequence[Row]) -> Row | None:
    """The size and method of which the recommendation speaks, and the source that it recommends for all targets: None
    if they differ, or none is better beyond noise.
    """
    if not facts:
        return None
    sources = {fact["source"] if fact["kind"] in ("best", "ahead") else None for fact in facts}
    source = sources.pop() if len(sources) == 1 else None
    return {"source": source, "size": facts[0]["size"], "method": facts[0]["method"]}


def _choice(grid: Grid) -> tuple[str, int | str, int, str] | None:
    """The mode, shots, size and method of which the recommendation speaks."""
    study = grid.study
    shots = {k for mode in study.modes for k in grid.shots(mode)}
    for k in sorted(shots, key=lambda k: (not k, _order(k))):  # without labelled images only if there is nothing else
        for least in (2, 1):
            for size in reversed(study.sizes):
                scores = {}
                for mode in study.modes:
                    for method in study.methods:
                        own = [_scores(grid, Place(target, mode, k), size, method) for target in study.targets]
                        if all(len(scored) >= least for scored in own):
                            scores[mode, method] = np.mean([np.mean(list(scored.values())) for scored in own])
                if scores:
                    mode, method = max(scores, key=lambda one: scores[one])
                    return mode, k, size, method
    return None


def _scores(grid: Grid, place: Place, size: int, method: str) -> dict[str, float]:
    """The means of the sources on the score half, of those that the report half has, too."""
    names = [name for name in grid.sources(size, method) if grid.trained(place, name, size, method)]
    return {name: grid.scored(place, name, size, method) for name in names}


def _of_target(grid: Grid, tables: Tables, target: str, mode: str, shots: int | str, size: int, method: str) -> Row:
    place = Place(target, mode, shots)
    scores = _scores(grid, place, size, method)
    names = sorted(scores, key=lambda name: -scores[name])
    first, second = names[0], names[1] if len(names) > 1 else None
    about = {"target": target, "mode": mode, "size": size, "method": method}
    scratch = _rows(tables["scratch"], **about, source=first)
    return {
        **about,
        "shots": shots,
        "source": first,
        "second": second,
        **_judged(tables, place, size, method, names),
        "methods": _methods(tables, place, size, method, first),
        "more": _more(tables, place, first, method),
        "spread": _rows(tables["spread"], **about),
        "scratch": scratch[0] if scratch else None,
    }


def _order(shots: int | str) -> float:
    return np.inf if isinstance(shots, str) else shots


def _judged(tables: Tables, place: Place, size: int, method: str, names: Sequence[str]) -> Row:
    """What the report half says of the first source."""
    means = {row["source"]: row["mean"] for row in _rows(tables["accuracy"], **place.named, size=size, method=method)}
    if len(names) == 1:
        return {"kind": "one", "mean": means[names[0]]}
    first, second = names[:2]
    pairs = _rows(tables["pairs"], axis="source", **place.named, size=size, at=method)
    own = {other: _turned(pairs, first, other) for other in names[1:]}
    told = {name: row for name, row in own.items() if row is not None}
    better = [n for n, row in told.items() if row["p_holm"] < LEVEL and row["difference"] > 0]
    worse = [n for n, row in told.items() if row["p_holm"] < LEVEL and row["difference"] < 0]
    others = [
        (row["first"], row["second"]) if row["difference"] > 0 else (row["second"], row["first"])
        for row in pairs
        if row["p_holm"] < LEVEL and first not in (row["first"], row["second"])
    ]
    kind = "unclear" if others else "none"
    if worse:
        kind = "behind"
    elif better:
        kind = "best" if len(better) == len(names) - 1 else "ahead"
    # simultaneous ends, as Holm's test is: the first step of its p is Bonferroni's
    ends = [abs(row["difference"]) + t975(row["df"], len(pairs)) * row["stderr"] for row in pairs]
    return {
        "kind": kind,
        "mean": means[first],
        "second_mean": means[second],
        "lead": own[second],
        "better_than": better,
        "worse_than": worse,
        "same_as": [name for name in names[1:] if name not in better and name not in worse],
        "pairs": others,
        "missed": min(max(ends, default=1.0), 1.0),
    }


def _methods(tables: Tables, place: Place, size: int, method: str, source: str) -> Row | None:
    """The chosen method against the others, averaged over the sources or, where that is not known, of the source."""
    rows = _rows(tables["pairs"], axis="method", **place.named, size=size)
    pooled = [row for row in rows if row["at"] is None] or [row for row in rows if row["at"] == source]
    found: Row = {"better_than": [], "same_as": [], "worse_than": []}
    for row in pooled:
        if method in (row["first"], row["second"]):
            other = row["second"] if row["first"] == method else row["first"]
            ahead = row["difference"] if row["first"] == method else -row["difference"]
            sure = row["p_holm"] < LEVEL
            found["better_than" if sure and ahead > 0 else "worse_than" if sure else "same_as"].append(other)
    return found if any(found.values()) else None


def _more(tables: Tables, place: Place, source: str, method: str) -> Row | None:
    """The largest size of the source against the next smaller one."""
    rows = _rows(tables["pairs"], axis="size", **place.named, at=f"{source}, {method}")
    return {**rows[-1], "from": rows[-1]["second"], "to": rows[-1]["first"]} if rows else None


def _turned(rows: Sequence[Row], first: str, second: str) -> Row | None:
    """The difference first - second."""
    for row in rows:
        if (row["first"], row["second"]) == (first, second):
            return row
        if (row["first"], row["second"]) == (second, first):
            return {**row, "difference": -row["difference"], "low": -row["high"], "high": -row["low"]}
    return None


def _rows(rows: Sequence[Row], **about: Any) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in about.items())]
