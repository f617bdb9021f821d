"""What the rows of many parts will cost, from few pilot rows.

One row is timed for each recipe and list of tasks, on the smallest source that it has. It trains; it transfers to tasks
without a learning rate as they are, and by each fine-tuning to the fewest and to the most labelled images of a target,
once. From these

    row = training * steps / steps of the pilot  +  tasks without a rate  +  sum of draws * fine-tuning of one draw

where the time of a fine-tuning is linear in its labelled images, between those two. What it leaves out: workers that
start, and a training's fixed share, which is counted once for every multiple of the pilot's steps. Rows of the user's
own are timed whole. Times of stored rows of the same recipe, tasks and number of images come before pilots.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from pydt.base import HEX32, ConfigError, Result, TrainError
from pydt.ensemble.driver import run_asked
from pydt.ensemble.executors.local import places
from pydt.ensemble.keeping import checked_keep
from pydt.ensemble.parts import Asked, Part, asked_of, own_rows
from pydt.ensemble.plan import make_record
from pydt.ensemble.plan_cost import in_size, in_time, steps
from pydt.ensemble.rates import chosen_rates_of
from pydt.ensemble.row import Context, RowInput, Runner, is_own, run_row
from pydt.store import Bank, Outcome, Store

_TRAIN, _TRANSFER = "pilot_train_seconds", "pilot_transfer_seconds"  # scalars of pilot rows


@dataclass(frozen=True, repr=False)
class PartsCost(Result):
    """What the rows of some parts will cost.

    Attributes:
        rows, stored: of all parts, each training of a list of tasks once, and those in the store already.
        kept: missing rows whose trained network is in the bank.
        workers: rows trained at once.
        seconds: of one worker for all missing rows and trials; of them, for trials of learning rates.
        longest: seconds of the longest row.
        timed: pilot rows that were trained for this estimate.
        bytes: that the missing rows will add to the store; trials add less than as much for each rate.
        bank_bytes: that the networks of the missing rows will add to the bank.
        price: of an hour of the whole machine, or None.
        failed: names of parts whose pilot row failed: its times are not in `seconds`.
    """

    rows: int
    stored: int
    kept: int
    workers: int
    seconds: float
    trials: float
    longest: float
    timed: int
    bytes: float
    bank_bytes: float
    price: float | None = None
    failed: tuple[str, ...] = ()

    @property
    def hours(self) -> float:
        """Until all rows are stored."""
        return max(self.seconds / self.workers, self.longest) / 3600

    @property
    def money(self) -> float | None:
        """The price of these hours."""
        return None if self.price is None else self.hours * self.price

    def __str__(self) -> str:
        at_once = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        money = "" if self.money is None else f", {self.money:,.2f} at {self.price:,.2f} an hour"
        missing = self.rows - self.stored
        trials = f", of which trials of learning rates {in_time(self.trials / self.workers)}" if self.trials else ""
        lines = [
            f"{self.rows:,} rows, {self.stored:,} of them stored",
            f"{missing:,} rows with {at_once}: about {in_time(3600 * self.hours)}{trials}, "
            f"{in_size(self.bytes)} of disk{money}",
        ]
        if self.kept:
            lines.append(f"{self.kept:,} of these need no training: their networks are in the bank")
        if self.bank_bytes:
            lines.append(f"bank: {in_size(self.bank_bytes)} more")
        if self.timed:
            lines.append(f"from {self.timed:,} pilot rows, one a recipe, scaled to optimiser steps and tasks")
        if self.failed:
            lines.append(f"Note: the pilot row of {'; '.join(self.failed)} failed: its recipe's rows are not counted.")
        return "\n".join(lines)


def cost_of(
    parts: Sequence[Part],
    dir: str | os.PathLike[str] | None = None,
    *,
    workers: int | None = None,
    price: float | None = None,
    runner: Runner = run_row,
    keep: str = "none",
    tried: Sequence[Part] = (),
    rates: Sequence[float] = (),
) -> PartsCost:
    """Estimate what `run_parts` will cost for the rows that a store lacks; how, is told at the top of this file.

    Args:
        parts: to be run.
        dir: their store, if there is one already.
        workers, runner, keep: as in `run_parts`.
        price: of an hour of the whole machine, in any currency.
        tried, rates: parts on whose rows `choose_rates_of` will try these rates; those that have chosen cost nothing.

    Raises:
        ConfigError: workers below 1 or price below 0.
        PydtError: what a pilot row raises.
        StoreError: the store in `dir` cannot be read.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"must be at least 1, is {workers}", "workers", "leave it out to use every core")
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise ConfigError(f"must be zero or more, is {price}", "price", "give the price of an hour")
    asked = asked_of(parts)
    for one in asked:
        checked_keep(keep, None, runner, one.context.recipe)
    usual = min(places(one.context.recipe)[0] for one in asked)
    store = None
    if dir is not None and (Path(dir) / "store.json").exists():
        store = Store(dir)
        store.reads_only = True
    total, missing = _missing(store, asked)
    bank = Bank(store).sizes() if store is not None and runner is run_row else {}
    count = max(1, min(workers or usual, len(missing)))
    known = {} if store is None else _logged(store, asked)
    untried = _untried(tried, dir, rates)
    wanted = [(one, row) for one, row, _ in missing if _kind(one, row) not in known]
    wanted += [(one, row) for one in untried for row in range(len(one.record.rows))]
    pilots = _pilots(wanted, workers or usual, runner)
    networks: dict[str, int] = {}
    seconds, size, bank_bytes, kept = [0.0], 0.0, 0.0, 0
    for one, row, lacks in missing:
        in_bank = one.record.sources[row] in bank
        if (timed := known.get(_kind(one, row))) is not None:
            seconds.append(timed[0])
            size += timed[1]
        elif not (pilot := pilots[_settings(one.context)]).failed:
            tasks = [one.context.tasks[i] for i in lacks]
            seconds.append(pilot.seconds(_images(one, row), tasks, in_bank))
            size += pilot.size(tasks)
        kept += in_bank
        if keep != "none" and not in_bank:
            recipe = one.context.recipe.digest
            if recipe not in networks:
                networks[recipe] = _network_bytes(keep, one.context)
            bank_bytes += networks[recipe]
    trials = 0.0
    for one in untried:
        if not (pilot := pilots[_settings(one.context)]).failed:
            tuned = [task for task in one.context.tasks if task.rate is not None]
            trials += len(rates) * len(one.record.rows) * pilot.transfer(tuned)
    failed = tuple(pilot.name for pilot in pilots.values() if pilot.failed)
    return PartsCost(
        total, total - len(missing), kept, count, sum(seconds) + trials, trials, max(seconds), len(pilots), size,
        bank_bytes, price, failed,
    )  # fmt: skip


# ---- what is missing, and what is known of it


def _missing(store: Store | None, asked: Sequence[Asked]) -> tuple[int, list[tuple[Asked, int, tuple[int, ...]]]]:
    """How many rows there are, and those that are missing, with the positions of the tasks that they lack."""
    total, missing = 0, []
    for one, rows in zip(asked, own_rows(asked), strict=True):
        total += len(rows)
        every = tuple(range(len(one.context.tasks)))
        lacks = dict.fromkeys(rows, every) if store is None else dict(store.left(one.record)[0])
        missing += [(one, row, lacks[row]) for row in rows if row in lacks]
    return total, missing


def _untried(tried: Sequence[Part], dir: str | os.PathLike[str] | None, rates: Sequence[float]) -> list[Asked]:
    """The parts that have not chosen their rates."""
    if not tried:
        return []
    asked = asked_of(tried)
    if dir is None:
        return asked
    return [one for one, found in zip(asked, chosen_rates_of(tried, dir, rates), strict=True) if found is None]


def _images(one: Asked, row: int) -> int:
    return int(one.context.keep_examples(one.record.rows[row]).sum())


def _shape(task: Any) -> tuple[Any, ...]:
    """What the time of a transfer depends on: not on the learning rate."""
    if not hasattr(task, "rate"):  # a pydt.Measure
        return (task.digest,)
    return *_group(task), task.shots, task.draws, task.part


def _group(task: Any) -> tuple[Any, ...]:
    """Tasks that differ in their labelled images, draws and rates alone."""
    return task.target.digest, task.mode, task.finetune.epochs, task.finetune.batch_size


def _settings(context: Context) -> tuple[str, frozenset[Any]]:
    """What rows of one pilot have in common."""
    return context.recipe.digest, frozenset(map(_shape, context.tasks))


def _kind(one: Asked, row: int) -> tuple[Any, ...]:
    """What rows of one time have in common."""
    return *_settings(one.context), _images(one, row)


def _logged(store: Store, asked: Sequence[Asked]) -> dict[tuple[Any, ...], tuple[float, float]]:
    """Mean seconds, by the store's log, and bytes of the stored rows of each kind."""
    seconds: dict[str, float] = {}  # by the keys of all cells that a row was computed for
    for entry in store.logged("row", {"keys": [HEX32], "seconds": float, "network?": str}):
        if entry.get("network") != "bank" and math.isfinite(entry["seconds"]):
            seconds[",".join(sorted(entry["keys"]))] = entry["seconds"]
    found: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for one in asked:
        for row, keys in enumerate(one.record.keys):
            if (timed := seconds.get(",".join(sorted(keys)))) is not None:
                size = sum(store.size(key) or 0 for key in keys)
                found.setdefault(_kind(one, row), []).append((timed, size))
    return {kind: (fmean(t for t, _ in of), fmean(b for _, b in of)) for kind, of in found.items()}


def _network_bytes(keep: str, context: Context) -> int:
    from pydt.training import kept_bytes

    return kept_bytes(keep, context.source, context.recipe, context.tasks)


# ---- pilot rows


@dataclass(frozen=True, eq=False)
class _Pilot:
    """One row that was timed.

    Attributes:
        name: of its part. recipe, images: what it trained, on how many.
        whole, train: seconds of the row and of its training; the latter is NaN for rows of the user's own.
        tasks: tasks it was transferred to, with seconds, bytes and bytes of arrays of each.
        failed: whether it failed for one.
    """

    name: str
    recipe: Any
    images: int
    whole: float
    train: float
    tasks: tuple[tuple[Any, float, int, int], ...]
    failed: bool

    def seconds(self, images: int, tasks: Sequence[Any], in_bank: bool) -> float:
        """Of a row on so many images with these tasks."""
        if math.isnan(self.train):
            return self.whole
        train = 0.0 if in_bank else self.train * steps(self.recipe, images) / max(steps(self.recipe, self.images), 1)
        return train + self.transfer(tasks)

    def transfer(self, tasks: Sequence[Any]) -> float:
        """Seconds of transfers; of a task that is no pilot's, between those to the fewest and to the most images."""
        total = 0.0
        for task in tasks:
            same = [one for one in self.tasks if _shape(one[0]) == _shape(task)]
            if same:
                total += same[0][1]
                continue
            ends = sorted((_labelled(one[0]), one[1]) for one in self.tasks if _alike(one[0], task))
            (few, low), (many, high) = ends[0], ends[-1]
            share = (_labelled(task) - few) / (many - few) if many > few else 0.0
            total += task.draws * (low + share * (high - low))
        return total

    def size(self, tasks: Sequence[Any]) -> float:
        """Bytes of a row with these tasks."""
        total = 0.0
        for task in tasks:
            like = next(one for one in self.tasks if _shape(one[0]) == _shape(task) or _alike(one[0], task))
            _, _, size, arrays = like
            again = 0.0 if _shape(like[0]) == _shape(task) else task.draws / like[0].draws - 1
            total += size + arrays * again
        return total


def _alike(one: Any, other: Any) -> bool:
    """Whether two tasks differ in their labelled images, draws and rates alone."""
    return hasattr(one, "rate") and hasattr(other, "rate") and _group(one) == _group(other)


def _labelled(task: Any) -> int:
    """Labelled images of a draw."""
    return len(task.target.split["pool"]) if task.shots == "full" else int(task.shots) * len(task.target.classes)


def _pilot_tasks(context: Context) -> tuple[Any, ...]:
    """The tasks without a rate, and one draw of the fewest and of the most images of each kind of fine-tuning."""
    if is_own(context.recipe):
        return context.tasks
    groups: dict[Any, list[Any]] = {}
    for task in context.tasks:
        if getattr(task, "rate", None) is not None:
            groups.setdefault(_group(task), []).append(task)
    tuned = []
    for of in groups.values():
        ordered = sorted(of, key=_labelled)
        ends = [ordered[0], ordered[-1]] if _labelled(ordered[-1]) > _labelled(ordered[0]) else ordered[:1]
        tuned += [replace(task, draws=1) for task in ends]
    return (*(task for task in context.tasks if getattr(task, "rate", None) is None), *tuned)


def _pilots(wanted: Sequence[tuple[Asked, int]], workers: int, runner: Runner) -> dict[Any, _Pilot]:
    """A pilot of each recipe and list of tasks, on the smallest source."""
    smallest: dict[Any, tuple[int, Asked, int]] = {}
    for one, row in wanted:
        mine, key = (_images(one, row), one, row), _settings(one.context)
        smallest[key] = min(mine, smallest.get(key, mine), key=lambda found: found[0])
    if not smallest:
        return {}
    jobs = []
    for i, (_, one, row) in enumerate(smallest.values()):
        context = replace(one.context, tasks=_pilot_tasks(one.context))
        jobs.append(Asked(f"{one.name} (pilot {i})", context, make_record(context, [one.record.rows[row]])))
    with tempfile.TemporaryDirectory(prefix="pydt-pilot-") as folder:
        store = run_asked(
            jobs, folder, None, workers=workers, runner=_Timed(runner), progress=False, limit=None, keep="none",
            keep_bytes=None,
        )  # fmt: skip
        form = {"part": str, "seconds": float}
        whole = {entry["part"]: entry["seconds"] for entry in store.logged("row", form)}
        found = {}
        for (key, (images, one, _)), job in zip(smallest.items(), jobs, strict=True):
            outcomes = [store.get(name) for name in job.record.keys[0]]
            tasks, train = [], math.nan
            for task, outcome, name in zip(job.context.tasks, outcomes, job.record.keys[0], strict=True):
                train = float(outcome.scalars.get(_TRAIN, math.nan))
                arrays = sum(array.nbytes for array in outcome.arrays.values())
                tasks.append((task, float(outcome.scalars.get(_TRANSFER, math.nan)), store.size(name) or 0, arrays))
            failed = any(outcome.status != "ok" for outcome in outcomes)
            recipe = one.context.recipe
            found[key] = _Pilot(one.name, recipe, images, whole[job.name], train, tuple(tasks), failed)
    return found


@dataclass(frozen=True)
class _Timed:
    """A runner that says how long training and each transfer took; of rows of the user's own, nothing."""

    runner: Runner

    def __call__(self, given: RowInput) -> Mapping[str, Any]:
        context, row = given.context, given.row
        if self.runner is not run_row or is_own(context.recipe):
            return self.runner(given)
        from pydt.training import train, transfer, trial

        keep = context.keep_examples(row)
        trial(context.source, keep, context.recipe, given.tasks)  # also loads the libraries
        start = time.perf_counter()
        trained = train(context.source, keep, context.recipe, row.seed)
        seconds, found = time.perf_counter() - start, {}
        for task in given.tasks:
            start = time.perf_counter()
            try:
                outputs = transfer(trained, task, row.seed)
            except TrainError as error:
                found[task.digest] = Outcome(status="failed", reason=str(error))
                continue
            scalars = {_TRAIN: seconds, _TRANSFER: time.perf_counter() - start}
            found[task.digest] = Outcome(outputs.arrays, {**trained.metrics, **outputs.scalars, **scalars})
        return found
