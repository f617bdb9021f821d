"""What the cells of a study say: accuracies, spreads, differences, size equivalence, agreement of orders, gains over
scratch; each a list of rows of results.json (fractions, report half).

A difference is paired: both arms have the same few-shot draws, target images and numbers of seeds, and a seed that
failed in one is left out of both. Each is in a family, over which Holm's method adjusts its p:

    source    all pairs of sources at one place, size and method; captions, noise, mixture: of them, the pairs that
              differ in these alone
    method    all pairs of methods at one place and size, of one source or averaged over the sources that both have;
              length: of them, the pairs that differ in the budget alone
    size      each size against the next smaller one, of all sources by one method, at one place: the page tells that
              of the source that is first, which is above its own mean by chance, too
    scratch   one arm against scratch at all numbers of shots of one target and mode
    checkpoint  all pairs of public checkpoints at one place, whatever else they differ in
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from pydt.estimation import (
    Crossed,
    all_pairs,
    crossed,
    equivalent_size,
    holm,
    kendall,
    rank_agreement,
    spread,
)
from pydt.reporting import equivalence_sentence, scratch_sentence
from pydt.studies.grid import Grid, Place, at_seeds, shared_seeds, stacked
from pydt.studies.sources import Mixture, Source
from pydt.studies.study import Arm, Study
from pydt.studies.values import Cell
from pydt.training import BUDGETS, Recipe

LEVEL = 0.05
Row = dict[str, Any]


def accuracies(grid: Grid) -> list[Row]:
    """One row for each place and arm."""
    found = []
    for place in grid.places:
        for arm in grid.study.arms:
            cell = grid.every(place, arm)
            if cell is not None:
                found.append({**place.named, **_who(grid.study, arm), **_measured(cell)})
    return found


def spreads(grid: Grid) -> list[Row]:
    """How far the sources lie apart, for each place, size and method; Holm's family: the shots of one target and mode.
    The best and the worst source are those of the score half.
    """
    found = []
    for place in grid.places:
        for size, method, arms in _at_equal_size(grid, place):
            names, values = list(arms), stacked(list(arms.values()))
            if values is None:
                continue
            cell = next(iter(arms.values()))
            one = spread(values, cell.weights, cell.labels)
            ranked = sorted(names, key=lambda name: -grid.scored(place, name, size, method))
            numbers = {name: getattr(one, name) for name in _SPREAD}
            if one.high >= 0.5 * (one.arms / (one.arms - 1)) ** 0.5:  # of shares: half are 0, half are 1
                numbers["high"] = None
            if not one.high:  # the arms vary less than noise does: no spread fits, which is no certainty of none
                numbers |= {"low": None, "high": None}
            more = {"best": ranked[0], "worst": ranked[-1], "seeds": values.shape[1], "df": one.df}
            found.append({**place.named, "size": size, "method": method, "sources": len(names), **numbers, **more})
    _adjust(found, lambda row: (row["target"], row["mode"], row["size"], row["method"]))
    return found


def pairs(grid: Grid) -> list[Row]:
    """All differences; see the head of this module."""
    axes = {pair: _axes(*map(grid.study.sources.__getitem__, pair)) for pair in combinations(grid.study.sources, 2)}
    found = [row for place in grid.places for row in (*_sources(grid, place, axes), *_methods(grid, place))]
    found += [row for place in grid.places for row in _sizes(grid, place)]
    found += [row for place in grid.places for row in _checkpoints(grid, place)]
    found += _against_scratch(grid)
    _adjust(found, lambda row: row["family"])
    return found


def equivalences(grid: Grid) -> list[Row]:
    """How many times more of a second source (or of the same one by a second method) matches a first one of a tried
    size below the largest, where the first is ahead on the score half and the second has two sizes or more.
    """
    found = []
    for place in grid.places:
        if not place.shots:
            continue
        for method in grid.study.methods:
            for size in grid.study.sizes[:-1]:
                for first, second in _ahead(grid, place, size, [(name, method) for name in grid.sources(size, method)]):
                    row = _equivalent(grid, place, size, first, second)
                    found += [row] if row else []
        for source in grid.study.sources:
            for size in grid.study.sizes[:-1]:
                arms = [(source, name) for name in grid.methods(source, size) if (source, size, name) not in grid.twins]
                for first, second in _ahead(grid, place, size, arms):
                    row = _equivalent(grid, place, size, first, second)
                    found += [row] if row else []
    return found


def ranks(grid: Grid) -> list[Row]:
    """Whether the order of the sources is the same over shots, targets and seeds, beside what noise alone would give:
    the mean agreement of two orders that are equal in truth and differ by noise.
    """
    found: list[Row] = []
    for method in grid.study.methods:
        for size in grid.study.sizes:
            for mode in grid.study.modes:
                shots = grid.shots(mode)
                steps = list(pairwise(shots)) + ([(shots[0], shots[-1])] if len(shots) > 2 else [])
                for target in grid.study.targets:
                    for one, other in steps:
                        both = Place(target, mode, one), Place(target, mode, other)
                        more = {"over": "shots", "target": target, "shots": None, "first": one, "second": other}
                        found += _agreement(grid, both, size, method, ("seeds", "images"), more)
                    for k in shots:
                        found += _over_seeds(grid, Place(target, mode, k), size, method)
                for k in shots:
                    for first, second in combinations(grid.study.targets, 2):
                        both = Place(first, mode, k), Place(second, mode, k)
                        more = {"over": "targets", "target": None, "shots": k, "first": first, "second": second}
                        found += _agreement(grid, both, size, method, ("seeds",), more)
    return found


def scratch_gains(grid: Grid, found: Sequence[Row]) -> list[Row]:
    """For each target, mode and arm the gain over scratch by shots, and from which on none is detected.

    Args:
        found: what `pairs` gave.
    """
    arms: dict[tuple[Any, ...], list[Row]] = {}
    for row in found:
        if row["axis"] == "scratch":
            arms.setdefault(tuple(row[name] for name in ("target", "mode", "first", "size", "at")), []).append(row)
    result = []
    for rows in arms.values():
        first = rows[0]
        gains = [{name: row[name] for name in ("shots", "difference", "low", "high", "p_holm")} for row in rows]
        for row in gains:
            row["detected"] = row["p_holm"] < LEVEL and row["difference"] > 0
        last = max((i for i, row in enumerate(gains) if row["detected"]), default=-1)
        after = gains[last + 1 :]
        about = {name: first[name] for name in ("target", "mode")}
        about |= {"source": first["first"], "size": first["size"], "method": first["at"]}
        about |= {"stops_paying_at": after[0]["shots"] if after else None}
        about |= {"hidden": max((row["high"] for row in after), default=None), "gains": gains}
        result.append({**about, "told": scratch_sentence(about)})
    return result


# ---- arms -----------------------------------------------------------------------------------------------------------

_SPREAD = ("tau", "low", "high", "p", "stderr", "range", "range_of_noise", "range_high")
_NUMBERS = ("stderr", "df", "low", "high", "p", "seeds", "draws", "images")


def _who(study: Study, arm: Arm) -> Row:
    """An arm in a row of the accuracies."""
    if arm.kind == "trained":
        return {"source": arm.source, "size": arm.size, "method": arm.method, "kind": arm.kind}
    if arm.kind == "checkpoint":
        model = study.checkpoints[arm.name]
        return {"source": arm.name, "size": model.images, "method": model.method, "kind": arm.kind}
    return {"source": None, "size": None, "method": "none", "kind": "scratch"}


def _measured(cell: Cell) -> Row:
    """The accuracy of a cell; numbers are None if no seed counts. A checkpoint is one network, whatever its seeds:
    what another training of it would give is not in its error.
    """
    names = ("mean", "stderr", "df", "low", "high", "sd_seeds", "sd_draws", "draws", "images")
    found = crossed(cell.values, cell.weights, cell.labels) if cell.seeds else None
    numbers = {name: None if found is None else getattr(found, name) for name in names}
    one = cell.arm.kind == "checkpoint"
    unknown = () if found is None else found.unknown
    more: Row = {"seeds": len(cell.seeds), "networks": min(len(cell.seeds), 1) if one else len(cell.seeds)}
    more |= {"unknown": [*unknown, *(["training"] if one else [])], "failed": len(cell.failed), "rate": cell.rate}
    return {**numbers, **more}


def _at_equal_size(grid: Grid, place: Place) -> Iterator[tuple[int, str, dict[str, Cell]]]:
    """The cells by source of every size and method, where there are two or more."""
    for size in grid.study.sizes:
        for method in grid.study.methods:
            cells = {name: grid.trained(place, name, size, method) for name in grid.sources(size, method)}
            arms = {name: cell for name, cell in cells.items() if cell is not None}
            if len(arms) > 1:
                yield size, method, arms


# ---- differences ----------------------------------------------------------------------------------------------------


def _compared(arms: Mapping[str, Mapping[str, Cell]]) -> Iterator[tuple[str, str, Crossed, list[str]]]:
    """All pairs of arms: names, first - second, and over what it is averaged: the keys of the cells that both have."""
    names = list(arms)
    cells = [cell for own in arms.values() for cell in own.values()]
    if not cells:
        return
    weights, labels, keys = cells[0].weights, cells[0].labels, list(arms[names[0]])
    alike = all(list(own) == keys for own in arms.values()) and len({cell.seeds for cell in cells}) == 1
    if alike and len(names) > 1:
        means = [np.mean([at_seeds(cell, cell.seeds) for cell in own.values()], axis=0) for own in arms.values()]
        for i, j, one in all_pairs(np.stack(means), weights, labels):
            yield names[i], names[j], one, keys
        return
    for first, second in combinations(names, 2):
        both = [key for key in arms[first] if key in arms[second]]
        seeds = shared_seeds([arms[name][key] for name in (first, second) for key in both]) if both else ()
        if seeds:
            each = [at_seeds(arms[first][key], seeds) - at_seeds(arms[second][key], seeds) for key in both]
            yield first, second, crossed(np.mean(each, axis=0), weights, labels, difference=True), both


def _row(
    axis: str, place: Place, size: int | None, at: str | None, first: Any, second: Any, one: Crossed, family: str
) -> Row:
    named = {"axis": axis, **place.named, "size": size, "at": at, "first": first, "second": second}
    return {**named, "difference": one.mean, **{name: getattr(one, name) for name in _NUMBERS}, "family": family}


def _sources(grid: Grid, place: Place, axes: Mapping[tuple[str, str], list[str]]) -> Iterator[Row]:
    for size, method, arms in _at_equal_size(grid, place):
        for first, second, one, _ in _compared({name: {"": cell} for name, cell in arms.items()}):
            for axis in ("source", *axes[first, second]):
                what = "all pairs of sources" if axis == "source" else f"pairs of sources that differ in {axis} alone"
                family = f"{what}: {place}, {size:,} images, {method}"
                yield _row(axis, place, size, method, first, second, one, family)


def _methods(grid: Grid, place: Place) -> Iterator[Row]:
    recipes = grid.study.methods
    for size in grid.study.sizes:
        arms: dict[str, dict[str, Cell]] = {}
        for method in recipes:
            cells = {name: grid.trained(place, name, size, method) for name in grid.sources(size, method)}
            arms[method] = {name: cell for name, cell in cells.items() if cell is not None}
        each = [(name, {m: {name: own[name]} for m, own in arms.items() if name in own}) for name in grid.study.sources]
        pooled = [(None, arms)] if sum(len(own) > 1 for own in arms.values()) > 1 else []
        for at, own in (*each, *pooled):
            for first, second, one, over in _compared(own):
                if at is None and len(over) < 2:
                    continue  # the row of that source says it
                for axis in ("method", *(["length"] if differ_in_budget(recipes[first], recipes[second]) else [])):
                    what = (
                        "all pairs of methods" if axis == "method" else "pairs of methods that differ in length alone"
                    )
                    family = f"{what}: {place}, {size:,} images, {at or 'mean over the sources that both have'}"
                    yield _row(axis, place, size, at, first, second, one, family)


def _sizes(grid: Grid, place: Place) -> Iterator[Row]:
    for method in grid.study.methods:
        family = f"each size against the next smaller one, of all sources: {place}, {method}"
        for source in grid.study.sources:
            for small, large in pairwise(grid.sizes(source, method)):
                one = _difference(
                    grid.trained(place, source, large, method), grid.trained(place, source, small, method)
                )
                if one is not None:
                    yield _row("size", place, None, f"{source}, {method}", large, small, one, family)


def _checkpoints(grid: Grid, place: Place) -> Iterator[Row]:
    cells = {arm.name: grid.cell(place, arm) for arm in grid.study.arms if arm.kind == "checkpoint"}
    arms = {name: {"": cell} for name, cell in cells.items() if cell is not None}
    for first, second, one, _ in _compared(arms):
        yield _row("checkpoint", place, None, None, first, second, one, f"all pairs of checkpoints: {place}")


def _against_scratch(grid: Grid) -> Iterator[Row]:
    scratch, study = grid.scratch, grid.study
    for target in study.targets if scratch is not None else ():
        for mode in study.modes:
            for arm in study.arms:
                who = _who(study, arm)
                what = (
                    "all checkpoints" if arm.kind == "checkpoint" else f"all sources, {arm.size:,} images, {arm.method}"
                )
                family = f"against scratch at all shots: {target}, {mode}, {what}"
                for shots in grid.shots(mode) if arm.kind != "scratch" else ():
                    place = Place(target, mode, shots)
                    one = _difference(grid.cell(place, arm), grid.cell(place, scratch))
                    if one is not None:
                        yield _row("scratch", place, who["size"], who["method"], who["source"], "scratch", one, family)


def _difference(first: Cell | None, second: Cell | None) -> Crossed | None:
    """First - second, paired; None if they have no seed in common."""
    if first is None or second is None or not (seeds := shared_seeds([first, second])):
        return None
    return crossed(at_seeds(first, seeds) - at_seeds(second, seeds), first.weights, first.labels, difference=True)


def _adjust(rows: Sequence[Row], family: Callable[[Row], Any]) -> None:
    """Put Holm's p into every row."""
    families: dict[Any, list[Row]] = {}
    for row in rows:
        families.setdefault(family(row), []).append(row)
    for own in families.values():
        for row, p in zip(own, holm(np.array([row["p"] for row in own])).tolist(), strict=True):
            row["p_holm"] = p
            row["tests"] = len(own)


def _axes(first: Source | Mixture, second: Source | Mixture) -> list[str]:
    """In what alone two sources differ: captions, noise, or that one mixes what the other is, or mixes otherwise."""
    if isinstance(first, Source) and isinstance(second, Source):
        same, words, wrong = (
            replace(first, **changes).digest == replace(second, **changes).digest
            for changes in ({"captions": "raw", "noise": 0.0}, {"noise": 0.0}, {"captions": "raw"})
        )
        return [] if not same or words == wrong else ["noise" if words else "captions"]
    parts = [
        {one.digest for one in source.sources.values()} if isinstance(source, Mixture) else {source.digest}
        for source in (first, second)
    ]
    return ["mixture"] if parts[0] <= parts[1] or parts[1] <= parts[0] else []


def differ_in_budget(first: Recipe, second: Recipe) -> bool:
    """Whether two recipes differ in how long they train, and in nothing else."""
    one, other = first.described(), second.described()
    return one != other and all(one.get(name) == other.get(name) for name in {*one, *other} - {*BUDGETS})


# ---- size equivalence -----------------------------------------------------------------------------------------------


def _ahead(
    grid: Grid, place: Place, size: int, arms: Sequence[tuple[str, str]]
) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """Pairs of arms (source, method), the one that is ahead on the score half first."""
    for pair in combinations(arms, 2):
        first, second = sorted(pair, key=lambda arm: -grid.scored(place, arm[0], size, arm[1]))
        yield first, second


def _equivalent(grid: Grid, place: Place, size: int, first: tuple[str, str], second: tuple[str, str]) -> Row | None:
    """How many images of the second arm match the first one of this size."""
    reference = grid.trained(place, first[0], size, first[1])
    curve = {n: grid.trained(place, second[0], n, second[1]) for n in grid.sizes(*second)}
    cells = {n: cell for n, cell in curve.items() if cell is not None}
    values = None if reference is None else stacked([reference, *cells.values()])
    if reference is None or values is None or len(cells) < 2:
        return None
    sizes = np.array(list(cells), np.float64)
    found = equivalent_size(values[0], size, values[1:], sizes, reference.weights, reference.labels)
    differ, same = (0, 1) if first[1] == second[1] else (1, 0)
    row = {"axis": ("source", "method")[differ], **place.named, "method": None if differ else first[1]}
    row |= {"source": first[0] if differ else None, "at": first[same]}
    row |= {"first": first[differ], "size": size, "second": second[differ]}
    row |= {"times": found.times if found.reached else None, "low": found.low or None}
    row |= {"high": found.high, "reached": found.reached, "beyond": found.beyond, "at_smallest": found.at_smallest}
    row |= {"sizes": [int(n) for n in cells], "told": ""}
    row = {name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in row.items()}
    return {**row, "told": equivalence_sentence(row)}


# ---- orders ---------------------------------------------------------------------------------------------------------


def _agreement(
    grid: Grid, both: tuple[Place, Place], size: int, method: str, shared: tuple[str, ...], more: Row
) -> list[Row]:
    """The agreement of the orders of the sources at two places."""
    names = grid.sources(size, method)
    cells = {name: [grid.trained(place, name, size, method) for place in both] for name in names}
    own = {name: [cell for cell in pair if cell is not None] for name, pair in cells.items()}
    own = {name: pair for name, pair in own.items() if len(pair) == 2}
    if len(own) < 2 or not (seeds := shared_seeds([cell for pair in own.values() for cell in pair])):
        return []
    first, second = (np.stack([at_seeds(pair[i], seeds) for pair in own.values()]) for i in (0, 1))
    one, other = next(iter(own.values()))
    found = rank_agreement(
        first, second, one.weights, one.labels, second_weights=other.weights, second_labels=other.labels, shared=shared
    )
    numbers = {"kendall": found.kendall, "expected_by_noise": found.expected, "low_by_noise": found.low, "p": found.p}
    numbers |= {"detectable": found.detectable, "sources": len(own), "seeds": len(seeds)}
    return [{**more, "mode": both[0].mode, "method": method, "size": size, **numbers}]


def _over_seeds(grid: Grid, place: Place, size: int, method: str) -> list[Row]:
    """The orders of the sources seed by seed, and the mean agreement of two of them: 0 if no source is better."""
    cells = {name: grid.trained(place, name, size, method) for name in grid.sources(size, method)}
    own = {name: cell for name, cell in cells.items() if cell is not None}
    if len(own) < 2 or len(seeds := shared_seeds(own.values())) < 2:
        return []
    means = np.array([at_seeds(cell, seeds).mean(1) @ cell.weights for cell in own.values()])  # (sources, seeds)
    both = np.array(list(combinations(means.T, 2)))  # (pairs of seeds, 2, sources)
    names = list(own)
    orders = [[names[i] for i in np.argsort(-means[:, s], kind="stable")] for s in range(len(seeds))]
    about = {"over": "seeds", **place.named, "method": method, "size": size, "first": "one seed", "second": "another"}
    numbers = {"kendall": float(kendall(both[:, 0], both[:, 1]).mean()), "expected_by_noise": None}
    return [{**about, **numbers, "orders": orders, "sources": len(own), "seeds": len(seeds)}]
