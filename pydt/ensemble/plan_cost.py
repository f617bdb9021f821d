"""What a plan will cost in hours, disk space and money, from rows that were timed."""

from __future__ import annotations

import itertools
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt.base import ConfigError, PydtError, Result
from pydt.ensemble.driver import run_rows
from pydt.ensemble.executors.local import Processes, places
from pydt.ensemble.executors.pickling import pack
from pydt.ensemble.interim import Interim
from pydt.ensemble.keeping import checked_keep
from pydt.ensemble.plan import Context, Plan, make_record
from pydt.ensemble.progress import Progress
from pydt.ensemble.row import Runner, run_row
from pydt.estimation import StoppingRule
from pydt.store import Bank, Record, Row, Store, row_seconds, weak

if TYPE_CHECKING:
    from pydt.training import Recipe, Task


_TIMED = {"seconds": float, "pid": int}
# Seconds; shorter rows, and compiled ones, are timed twice in each worker: the first loads the libraries and
# compiles.
_SHORT = 30.0
_SEEN = 200  # rows from which the pilot takes those of average size


@dataclass(frozen=True, repr=False)
class Cost(Result):
    """What a plan will cost.

    Attributes:
        rows, stored: of the plan, and those in the store already.
        workers: rows trained at once.
        seconds: of one row on one worker.
        timed: rows of which `seconds` is the mean.
        row_bytes: of one row in the store.
        price: of an hour of the whole machine, or None.
        warning: says which rows failed or hardly learnt their source; empty if none did.
        kept: missing rows whose trained network is in the bank.
        network_bytes: that the run keeps of one network; 0 if it keeps none.
    """

    rows: int
    stored: int
    workers: int
    seconds: float
    timed: int
    row_bytes: float
    price: float | None = None
    warning: str = ""
    kept: int = 0
    network_bytes: float = 0.0

    @property
    def hours(self) -> float:
        """Until all rows are stored; less where networks are in the bank."""
        return math.ceil((self.rows - self.stored) / self.workers) * self.seconds / 3600

    @property
    def bytes(self) -> float:
        """That the missing rows will add to the store."""
        return (self.rows - self.stored) * self.row_bytes

    @property
    def bank_bytes(self) -> float:
        """That the networks of the missing rows will add to the bank."""
        return (self.rows - self.stored - self.kept) * self.network_bytes

    @property
    def money(self) -> float | None:
        """The price of these hours."""
        return None if self.price is None else self.hours * self.price

    def __str__(self) -> str:
        missing = self.rows - self.stored
        at_once = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        lines = [
            f"{self.rows:,} rows, {self.stored:,} of them stored",
            f"one row: {in_time(self.seconds)} (mean of {self.timed} timed), {in_size(self.row_bytes)}",
            f"{missing:,} rows with {at_once}: {in_time(3600 * self.hours)}, {in_size(self.bytes)} of disk"
            + ("" if self.money is None else f", {self.money:,.2f} at {self.price:,.2f} an hour"),
        ]
        if self.kept:
            lines.append(f"{self.kept:,} of these need no training, and take less: their networks are in the bank")
        if self.network_bytes:
            lines.append(f"bank: {in_size(self.bank_bytes)} more ({in_size(self.network_bytes)} a network)")
        if self.warning:
            lines.append(f"Note: {self.warning}.")
        return "\n".join(lines)


def cost(
    plan: Plan,
    dir: str | os.PathLike[str] | None = None,
    *,
    workers: int | None = None,
    price: float | None = None,
    stop: str | StoppingRule | None = None,
    runner: Runner = run_row,
    keep: str = "none",
    tell: Callable[[str], None] = lambda text: None,
) -> Cost:
    """Time a row of a plan, and estimate the cost of all that are missing.

    If `dir` holds rows of this plan with all its tasks, their times come from its log. Otherwise pilot rows are
    trained in a temporary folder: one and, where that took less than half a minute, two more on each worker, all
    workers at once, of which the second ones count. Rows are stored if `run` would not train them: a shorter plan,
    or one with other names of tasks, has the same rows.

    Args:
        plan: the plan.
        dir: its store, if there is one already.
        workers, stop: as in `pydt.run`. If stored rows satisfy the rule, nothing is missing; otherwise all rows count,
            though the rule may end the run earlier.
        price: of an hour of the whole machine, in any currency.
        keep: as in `pydt.run`.
        tell: called with a line before pilot rows are trained.

    Raises:
        ConfigError: workers below 1 or price below 0.
        PydtError: what a pilot row raises.
        StoreError: the store in `dir` cannot be read.
    """
    rule = stop if isinstance(stop, StoppingRule) else StoppingRule.parse(stop)
    usual = places(plan.recipe)[0]
    if workers is not None and workers < 1:
        raise ConfigError(f"must be at least 1, is {workers}", "workers", "leave it out to use every core")
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise ConfigError(f"must be zero or more, is {price}", "price", "give the price of an hour")
    checked_keep(keep, None, runner, plan.recipe)
    record = plan.record()
    rows = missing = record.distinct
    store, more = None, {"network_bytes": 0}
    if keep != "none":
        from pydt.training import kept_bytes

        more["network_bytes"] = kept_bytes(keep, plan.source, plan.recipe, plan.tasks)
    if dir is not None and (Path(dir) / "store.json").exists():
        store = Store(dir)
        store.reads_only = True
        rows, missing, kept = _left(store, plan, rule)
        more["kept"] = kept if runner is run_row else 0
    count = max(1, min(workers or usual, rows))
    # without whole rows, the log tells of rows of fewer tasks: neither their time nor their size is that of these
    seconds = None if store is None or missing == rows else row_seconds(store, record)
    if store is not None and seconds is not None:
        told = _warning(store.glimpse(record), [], "rows looked at", record.settings)
        return Cost(
            rows, rows - missing, count, seconds, rows - missing, _row_bytes(store, record), price, told, **more
        )
    with tempfile.TemporaryDirectory(prefix="pydt-pilot-") as folder:
        at_once = "" if count == 1 else f", then two on each of {count} workers if it takes less than {_SHORT:.0f} s"
        tell(f"timing one row in a temporary folder{at_once} ...")
        try:
            seconds, timed, size, told = _pilot(plan, Path(folder), count, runner)
        except PydtError as error:
            if (mend := error.mend) is None or folder not in mend:
                raise
            parts = itertools.takewhile(lambda part: folder not in part, mend.split("; "))  # its log is gone
            raise type(error)(error.what, error.where, "; ".join([*parts, "a run keeps all that it prints"])) from error
    return Cost(rows, rows - missing, count, seconds, timed, size, price, told, **more)


def _left(store: Store, plan: Plan, rule: StoppingRule) -> tuple[int, int, int]:
    """Rows of a plan (those that count, where stored rows satisfy the rule), how many are missing, and how many of
    these have their network in the bank.
    """
    record = plan.record()
    missing, stored = store.left(record)
    if rule.kind != "none" and stored:
        interim = Interim(store, record, plan.design, stored)
        if interim.settled(rule):
            return interim.last.rows, 0, 0
        missing += [(row, ()) for row in interim.damaged]
    bank = Bank(store).sizes()
    return record.distinct, len(missing), sum(record.sources[row] in bank for row, _ in missing)


def announce(
    store: Store,
    plan: Plan,
    jobs: Sequence[tuple[Recipe, tuple[Task, ...], Sequence[Row]]],
    executor: Executor | None,
    workers: int | None,
    progress: bool | str,
) -> int:
    """Print how many retrainings will run and how long they take; returns how many are not stored yet.

    The time of a retraining is that of the plan's own rows, scaled to its optimiser steps where pydt trains.

    Args:
        store, plan: whose rows were timed.
        jobs: recipe, tasks and rows of each list to run.
        executor, workers, progress: as in `pydt.run`.
    """
    total, left, done = 0, 0, 0.0
    for recipe, tasks, rows in jobs:
        context = Context(plan.source, plan.by, recipe, tasks)
        missing = store.left(make_record(context, rows))[0]
        total, left = total + len(rows), left + len(missing)
        images = [int(context.keep_examples(rows[i]).sum()) for i, _ in missing]
        done += sum(steps(recipe, kept) for kept in images)
    text = f"{total} retrainings" + (f", {total - left} of them stored" if left < total else "")
    seconds = row_seconds(store, store.plan(plan)) if left else None
    if seconds is not None:
        usual = places(plan.recipe)[0] if executor is None else getattr(executor, "_max_workers", None) or 1
        count = max(1, min(workers or usual, left))
        a_step = _step_seconds(plan, seconds)
        text += f"{'; the others take' if left < total else ','} about {in_time(done * a_step / count)}"
    Progress.of(progress).say(text)
    return left


def cost_of_retraining(plan: Plan, rows: int, of: Cost) -> Cost:
    """What so many retrainings cost that train as long as on the whole source and are transferred to one task.

    Args:
        of: what the plan's own rows cost; times are scaled by optimiser steps, so that they are too high by the part
            of a row that transfer takes.
    """
    seconds = _step_seconds(plan, of.seconds) * steps(plan.recipe, len(plan.source))
    size = of.row_bytes / len(plan.tasks)
    return Cost(rows, 0, max(1, min(of.workers, rows)), seconds, of.timed, size, of.price)


def _step_seconds(plan: Plan, seconds: float) -> float:
    """Seconds of an optimiser step, from the mean of a plan's rows."""
    few = [plan.rows()[i] for i in range(min(len(plan.design), _SEEN))]
    kept = [int(plan.context.keep_examples(row).sum()) for row in few]
    return seconds / float(np.mean([steps(plan.recipe, images) for images in kept]))


def steps(recipe: Any, kept: int) -> float:
    """Optimiser steps of a training on so many images; a row of the user's own counts as one."""
    if hasattr(recipe, "compute"):
        return 1.0
    from pydt.training import steps_of

    return steps_of(recipe, kept)


def _pilot(plan: Plan, folder: Path, workers: int, runner: Runner) -> tuple[float, int, float, str]:
    """Seconds of a row, rows timed, bytes of a stored row, and a warning about their learning."""
    rows = plan.rows()
    sizes = [int(plan.context.keep_examples(rows[i]).sum()) for i in range(min(len(rows), _SEEN))]
    middling = np.argsort(np.abs(np.array(sizes) - np.mean(sizes)), kind="stable")

    def train(chosen: list[int], at_once: int) -> Store:
        return run_rows(
            plan.source, plan.by, plan.recipe, plan.tasks, [rows[i] for i in chosen], folder, pool,
            workers=at_once, runner=runner, progress=False,
        )  # fmt: skip

    # the same workers for both steps: all load their libraries while the first row is trained
    pool = Processes(workers, int(plan.recipe.threads), pack((runner, plan.recipe)), places(plan.recipe)[1])
    try:
        store = train([int(middling[0])], 1)
        scalars, reasons = store.glimpse(), [reason for _, _, reason in store.failed()]
        times = [entry["seconds"] for entry in store.logged("row", _TIMED)]
        again = times[0] < _SHORT or getattr(plan.recipe, "compile", False)
        if again and len(middling) > 1:
            store = train([int(i) for i in middling[1 : 1 + 2 * workers]], workers)
            scalars, reasons = scalars + store.glimpse(), reasons + [reason for _, _, reason in store.failed()]
            by_worker: dict[int, list[float]] = {}
            for entry in list(store.logged("row", _TIMED))[1:]:
                by_worker.setdefault(entry["pid"], []).append(entry["seconds"])
            times = [seconds for own in by_worker.values() for seconds in own[1:]] or times
    finally:
        pool.kill()
    told = _warning(scalars, reasons, "pilot rows", store.plan().settings)
    return statistics.fmean(times), len(times), _row_bytes(store, store.plan()), told


def _warning(scalars: list[dict[str, Any]], reasons: list[str], what: str, settings: dict[str, Any]) -> str:
    """A warning about rows that failed for these reasons, and about others by their scalars; may be empty."""
    total, found, told = len(scalars) + len(reasons), weak(scalars, settings), []
    if reasons:
        told.append(f"{len(reasons)} of {total} {what} failed ({reasons[0]})")
    return ". ".join(told + found.notes(what))


def _row_bytes(store: Store, record: Record) -> float:
    """Mean bytes of a stored row."""
    there = np.flatnonzero(store.there(record.cells).all(1))[:_SEEN].tolist()
    sizes = [sum(store.size(key) or 0 for key in record.keys[i]) for i in there]
    return statistics.fmean(sizes) if sizes else 0.0


def in_time(seconds: float) -> str:
    """Seconds in a unit that is read at once."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def in_size(count: float) -> str:
    """Bytes in a unit that is read at once."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
