"""From a plan to a full store: any executor trains the rows that are missing, only the driver writes.

A row can be computed from the plan alone, by anybody; a duplicate is harmless, and the same command continues a killed
run.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt.cells import FACTS, Outcome, Row, checked, whole
from pydt.errors import ConfigError, DataError, DesignError, PydtError, TrainError
from pydt.files import digest
from pydt.store import Record, Store
from pydt.workers import Processes, WorkerDied, pack, places, versions, work

if TYPE_CHECKING:
    from pydt.data import Dataset
    from pydt.design import Design
    from pydt.train import Recipe
    from pydt.transfer import Task

Runner = Callable[["Context", Row, tuple[Any, ...]], dict[str, Outcome]]

_SEED_STREAM = 7  # stream of the counter-based generator that gives row i its seed
_MOST_PICTURED = 2000  # units; beyond that, example images would weigh more than the rows
_TRIES = 2  # an exception may be bad luck once
_LIVES = 3  # a process may be killed by something else twice


@dataclass(frozen=True, eq=False)
class Plan:
    """What to train and what to look at: one row per row of the design.

    Args:
        source: the source data set.
        by: the column that partitions it into units.
        design: which units each row keeps (a `pydt.Design`).
        recipe: how a row is trained.
        tasks: the targets every row is transferred to.
        seeds: one training seed a row; None: row i gets 31 random bits keyed by (`seed`, i).
        seed: key of the rows' seeds.

    Raises:
        ConfigError: no task, two tasks of one name, not one seed a row, or an argument that is something else.
        DesignError: no design, one with other groups than the source has units, or a row keeps nothing.
        DataError: a unit without examples, or target images with other channels than the source's.
    """

    source: Dataset
    by: str = "class"
    design: Design = field(kw_only=True)
    recipe: Recipe = field(kw_only=True)
    tasks: tuple[Task, ...] = field(kw_only=True)
    seeds: tuple[int, ...] | None = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        _expect(self.source, "units", "Plan.source", "give a pydt.Dataset")
        _expect(self.recipe, "described", "Plan.recipe", "give a pydt.Recipe: recipe=pydt.Recipe()")
        object.__setattr__(self, "tasks", _several(self.tasks, "Plan.tasks", "put it into a list: tasks=[task]"))
        _expect(self.design, "to_dict", "Plan.design", "make one: pydt.Design.explicit(masks)", DesignError)
        object.__setattr__(self, "seed", whole(self.seed, "Plan.seed"))
        if self.seeds is not None:
            seeds = _several(self.seeds, "Plan.seeds", "give a list of whole numbers")
            object.__setattr__(self, "seeds", tuple(whole(seed, f"Plan.seeds[{i}]") for i, seed in enumerate(seeds)))
            if len(self.seeds) != len(self.design):
                wrong = f"{len(self.seeds)} seeds for {len(self.design)} rows"
                raise ConfigError(wrong, "Plan.seeds", "give one seed a row")
        _check(self.context, self.rows())

    @cached_property
    def context(self) -> Context:
        """What a worker needs to know besides the row."""
        return Context(self.source, self.by, self.recipe, self.tasks)

    @cached_property
    def digest(self) -> str:
        """Name of the plan."""
        return self.record().digest

    def rows(self) -> list[Row]:
        """The rows in design order."""
        seeds = self.seeds if self.seeds is not None else row_seeds(self.seed, len(self.design))
        return [Row(mask, seed, "design") for mask, seed in zip(np.asarray(self.design), seeds, strict=True)]

    def record(self) -> Record:
        """The plan as the store remembers it."""
        return _record(self.context, self.rows(), self.design, self.seed)


def row_seeds(seed: int, rows: int) -> tuple[int, ...]:
    """Training seeds of the first rows of a plan: 31 random bits keyed by (seed, row), so more rows change none."""
    from pydt._core import random_bits

    bits = random_bits(seed, _SEED_STREAM, np.arange(rows, dtype=np.int64))
    return tuple(int(value) >> 33 for value in bits)


@dataclass(frozen=True, eq=False)
class Context:
    """What all rows of a run share; a runner gets it with each row."""

    source: Any
    by: str
    recipe: Any
    tasks: tuple[Any, ...]

    @cached_property
    def units(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Unit of each example, int64 (examples,), -1 in none; and the units' names."""
        unit, names = self.source.units(self.by)
        return np.asarray(unit, np.int64), tuple(names)

    @cached_property
    def units_digest(self) -> str:
        """Digest of the partition."""
        return digest("units", self.units[0], list(self.units[1]))

    def keep_examples(self, row: Row) -> np.ndarray:
        """The examples a row trains on, bool (examples,): those of the kept units and those in no unit."""
        unit = self.units[0]
        return np.append(row.mask, True)[unit]  # unit -1 reads the appended entry


def run_row(context: Context, row: Row, tasks: tuple[Any, ...]) -> dict[str, Outcome]:
    """Train one row and transfer it to tasks: the default runner.

    Returns:
        One outcome per task digest.

    Raises:
        TrainError: the training gave nothing usable; that is a result, and all cells of the row are stored as failed.
            One in a transfer only spoils the cell of its task.
    """
    from pydt.train import train
    from pydt.transfer import transfer

    trained = train(context.source, context.keep_examples(row), context.recipe, row.seed)
    outcomes = {}
    for task in tasks:
        try:
            outputs = transfer(trained, task, row.seed)
            outcomes[task.digest] = Outcome({"primitives": outputs.primitives}, {**trained.metrics, **outputs.scalars})
        except TrainError as error:
            outcomes[task.digest] = Outcome(status="failed", reason=str(error))
    return outcomes


def run(
    plan: Plan,
    dir: str | os.PathLike[str],
    executor: Executor | None = None,
    *,
    workers: int | None = None,
    runner: Runner = run_row,
    progress: bool = True,
) -> Store:
    """Compute what a plan still lacks in a store, and return the store with this plan as its default.

    Args:
        plan: what to compute.
        dir: folder of the store, made if needed.
        executor: anything with the `concurrent.futures` protocol; None: processes on this machine.
        workers: processes; None: one for every `recipe.threads` cores, or with a recipe for "cuda" one for every GPU.
            With an executor: how many rows it runs at once.
        runner: called as `runner(context, row, tasks)` in a worker; must be importable there.
        progress: show rows done, rate, time left, latest accuracy and failures on stderr.

    Raises:
        StoreError: the folder cannot be written, or a row gave other numbers than the ones stored.
        PydtError: a row raised twice, or killed its worker three times; all finished rows are stored.
        KeyboardInterrupt: Ctrl-C; all finished rows are stored, its text says how many and how to continue.
    """
    return _run(plan.context, plan.record(), dir, executor, workers, runner, progress)


def run_rows(
    source: Dataset,
    by: str,
    recipe: Recipe,
    tasks: Sequence[Task],
    rows: Sequence[Row],
    dir: str | os.PathLike[str],
    executor: Executor | None = None,
    *,
    workers: int | None = None,
    runner: Runner = run_row,
    progress: bool = True,
) -> Store:
    """`run` without a design: any list of rows, which the store remembers as a plan of its own, without a design.

    The returned store has this list as its default plan: `store.finished()` are positions in `rows`. Raises what `Plan`
    and `run` raise.
    """
    context = Context(source, by, recipe, tuple(tasks))
    _check(context, rows)
    return _run(context, _record(context, rows), dir, executor, workers, runner, progress)


def _expect(value: Any, method: str, where: str, mend: str, kind: type[PydtError] = ConfigError) -> None:
    """Refuse what is not the kind of thing an argument is for, before it trips something deep inside."""
    if isinstance(value, type) or not hasattr(value, method):
        raise kind(f"is {value!r}" if value is None else f"is of type {type(value).__name__}", where, mend)


def _several(values: Any, where: str, mend: str) -> tuple[Any, ...]:
    try:
        return tuple(values)
    except TypeError:
        raise ConfigError(f"is one {type(values).__name__}, not a list", where, mend) from None


def _channels(data: Any) -> int:
    return 3 if data.images is None else int(data.images.shape[3])  # encoded files are decoded to RGB


def _check(context: Context, rows: Sequence[Row]) -> None:
    from pydt.data import Dataset

    for i, task in enumerate(context.tasks):
        _expect(task, "target", f"tasks[{i}]", "give pydt.Task objects: pydt.Task(target)")
    names = [task.name for task in context.tasks]
    if not names:
        raise ConfigError("is empty", "tasks", "give at least one pydt.Task")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two tasks are called {name!r}", "tasks", "give each its own name")
    unit, units = context.units
    if unit.shape != (len(context.source),):
        wrong = f"{unit.shape} units for {len(context.source)} examples"
        raise DataError(wrong, f"by={context.by!r}", "give one unit an example")
    sizes = np.bincount(unit[unit >= 0], minlength=len(units))
    if (sizes == 0).any():
        empty = ", ".join(units[i] for i in np.flatnonzero(sizes == 0)[:5])
        raise DataError(f"no examples in {empty}", f"by={context.by!r}", "drop units without examples")
    for task in context.tasks:
        data = getattr(task.target, "train", None)
        if not isinstance(data, Dataset) or not isinstance(context.source, Dataset):
            continue
        theirs, ours = _channels(data), _channels(context.source)
        if theirs != ours:
            wrong = f"{data.name} has images of {theirs} channels, the source {context.source.name} of {ours}"
            mend = "bring both to one number: grey[..., None].repeat(3, axis=3) makes RGB of grey"
            raise DataError(wrong, f"task {task.name!r}", mend)
    always = bool((unit < 0).any())
    for i, row in enumerate(rows):
        if row.groups != len(units):
            wrong = f"{row.groups} groups for the {len(units)} units of the source"
            raise DesignError(wrong, f"row {i}", f"draw the design with groups={len(units)}")
        if not always and not any(row.keep):
            raise DesignError("keeps nothing to train on", f"row {i}", "keep at least one unit in every row")


def _record(context: Context, rows: Sequence[Row], design: Design | None = None, seed: int = 0) -> Record:
    recipe = context.recipe
    tasks = tuple(
        {
            "digest": task.digest,
            "name": task.name,
            "target": task.target.digest,
            "examples": len(task.target.described()["labels"]),
            "settings": task.described(),
        }
        for task in context.tasks
    )
    return Record(
        kind="rows" if design is None else "design",
        source=context.source.digest,
        source_facts={"name": context.source.name, "examples": len(context.source)},
        units=context.units_digest,
        by=str(context.by),
        names=context.units[1],
        recipe=recipe.digest,
        settings=recipe.described(),
        tasks=tasks,
        design=None if design is None else design.to_dict(),
        seed=seed,
        rows=tuple(rows),
    )


# ---- the driver ----------------------------------------------------------------------------------------------------


@dataclass
class _Job:
    """One row and the positions of the tasks it still lacks."""

    number: int
    row: Row
    tasks: tuple[int, ...]
    keys: tuple[str, ...]
    source_key: str
    errors: int = 0
    deaths: int = 0


def _run(
    context: Context,
    record: Record,
    dir: str | os.PathLike[str],
    executor: Executor | None,
    workers: int | None,
    runner: Runner,
    progress: bool,
) -> Store:
    if workers is not None and workers < 1:
        raise ConfigError(f"must be at least 1, is {workers}", "workers", "leave it out to use every core")
    store = Store.create(dir)
    for task in context.tasks:
        store.put_task(task.digest, task.target.described())
    if len(record.names) <= _MOST_PICTURED:
        store.put_thumbnails(record, context.source.thumbnails(context.by, 3))
    store.put_plan(record)
    store = Store(dir, record.digest)
    jobs = _missing(store, record)
    if not jobs:
        return store
    shared = runner, _spooled(context, store.folder / "data")
    try:
        parcel = pickle.dumps(shared) if executor is not None else pack(shared)
    except PydtError:
        raise
    except Exception as error:
        wrong = f"runner, source, recipe or task cannot be sent to a worker ({error})"
        raise ConfigError(wrong, "run", "use functions and classes that a module defines at its top") from error
    usual, gpus = places(context.recipe)
    if executor is not None:
        count = workers or getattr(executor, "_max_workers", None) or usual
        _drive(store, record, jobs, executor, parcel, 2 * int(count), progress)
        return store
    count = min(workers or usual, len(jobs))
    pool = Processes(count, int(context.recipe.threads), parcel, gpus)
    try:
        _drive(store, record, jobs, pool, None, 2 * count, progress)
        pool.shutdown()
    finally:
        pool.kill()
    return store


def _spooled(context: Context, folder: Path) -> Context:
    """The same context over files: what is only in memory is written once, so that it travels to workers as a path."""
    from pydt.data import Dataset, spool
    from pydt.target import Target

    source = spool(context.source, folder) if isinstance(context.source, Dataset) else context.source
    tasks = [
        replace(task, target=task.target.spool(folder)) if isinstance(task.target, Target) else task
        for task in context.tasks
    ]
    return Context(source, context.by, context.recipe, tuple(tasks))


def _missing(store: Store, record: Record) -> deque[_Job]:
    """The rows that lack a cell, each training once however often the plan names it."""
    jobs: dict[str, _Job] = {}
    for i, (row, source, keys) in enumerate(zip(record.rows, record.sources, record.keys, strict=True)):
        lacks = tuple(position for position, key in enumerate(keys) if not store.done(key))
        if lacks and source not in jobs:
            jobs[source] = _Job(i, row, lacks, tuple(keys[position] for position in lacks), source)
    return deque(jobs.values())


def _drive(
    store: Store,
    record: Record,
    jobs: deque[_Job],
    executor: Executor,
    parcel: bytes | None,
    limit: int,
    progress: bool,
) -> None:
    total, before = len(set(record.sources)), len(set(record.sources)) - len(jobs)
    now = versions()
    others = {name: sorted(seen - {now.get(name)}) for name, seen in store.facts.items()}
    others = {name: seen for name, seen in others.items() if seen}
    if others:
        store.log(event="code changed", stored=others, now={name: now.get(name) for name in others})
    running: dict[Future[Any], _Job] = {}
    stored = before

    def collect(future: Future[Any]) -> None:
        nonlocal stored
        job = running.pop(future)
        result = _result(future, job, store)
        if result is None:
            jobs.appendleft(job)
            return
        outcomes = _checked(result["outcomes"], record, job)
        for position, key in zip(job.tasks, job.keys, strict=True):
            store.put(key, outcomes[position], _metadata(record, job, position, result["versions"]))
        stored += 1
        bad = [outcome.reason for outcome in outcomes.values() if outcome.status != "ok"]
        details = {name: result[name] for name in ("seconds", "host", "pid", "versions", "warnings")}
        store.log(event="row", row=job.number, source=job.source_key, keys=job.keys, failed=bad, **details)
        view.row(outcomes.get(0), bool(bad))

    with _interrupts() as stop, _View(total, before, store.folder, progress) as view:
        if others:
            changed = "; ".join(f"{name} {', '.join(seen)} (now {now.get(name)})" for name, seen in others.items())
            view.say(f"some stored rows were computed by other code: {changed}")
        try:
            while jobs or running:
                while jobs and len(running) < limit and not stop:
                    job = jobs.popleft()
                    running[_submit(executor, parcel, job)] = job
                for future in wait(running, timeout=0.2, return_when=FIRST_COMPLETED).done:
                    collect(future)
                if stop:
                    raise KeyboardInterrupt
                view.tick()
        except BaseException as error:
            for future in list(running):
                if not future.cancel() and future.done():
                    with contextlib.suppress(PydtError):  # the first error is the one to tell
                        collect(future)
            if isinstance(error, KeyboardInterrupt):
                done = f"{stored} of {total} rows are stored in {store.folder}"
                raise KeyboardInterrupt(f"stopped: {done}; the same command continues") from None
            raise


def _submit(executor: Executor, parcel: bytes | None, job: _Job) -> Future[Any]:
    try:
        return executor.submit(work, parcel, job.row, job.tasks)
    except RuntimeError as error:  # broken, or shut down
        raise PydtError(
            f"the executor takes no more rows ({error})", "executor", "run again with a fresh one"
        ) from error


def _result(future: Future[Any], job: _Job, store: Store) -> dict[str, Any] | None:
    """What a worker gave back; None if the row is to be tried again."""
    where = f"row {job.number} ({job.row})"
    kept = "all finished rows are stored"
    try:
        result: dict[str, Any] = future.result()
    except WorkerDied as error:
        job.deaths += 1
        store.log(event="worker died", row=job.number, reason=str(error), deaths=job.deaths)
        if job.deaths < _LIVES:
            return None
        mend = f"give the workers more memory, or use fewer; {kept}"
        raise PydtError(f"killed its worker {_LIVES} times ({error})", where, mend) from error
    except (BrokenExecutor, CancelledError) as error:
        wrong = f"the executor gave up ({type(error).__name__}: {error})"
        raise PydtError(wrong, where, f"run again with a fresh executor; {kept}") from error
    except Exception as error:
        raise PydtError(f"the executor raised {type(error).__name__}: {error}", where, kept) from error
    if "error" not in result:
        return result
    problem, text = result["error"], result["traceback"]
    if isinstance(problem, PydtError):
        # on purpose, so trying again would not help; it keeps its kind and its mend
        raise type(problem)(problem.what, where if problem.where is None else f"{where}: {problem.where}", problem.mend)
    job.errors += 1
    store.log(event="error", row=job.number, tries=job.errors, traceback=text)
    if job.errors < _TRIES:
        return None
    raise PydtError(f"raised twice; {kept}. The second time:\n{text}", where)


def _checked(given: Any, record: Record, job: _Job) -> dict[int, Outcome]:
    """Outcomes by task position."""
    where, given = f"row {job.number} ({job.row})", given if isinstance(given, dict) else {}
    tasks = {position: record.tasks[position] for position in job.tasks}
    return {position: checked(given.get(task["digest"]), task, where) for position, task in tasks.items()}


def _metadata(record: Record, job: _Job, position: int, facts: dict[str, str]) -> dict[str, Any]:
    return {
        "source": record.source,
        "units": record.units,
        "keep": job.row.keep.hex(),
        "groups": job.row.groups,
        "seed": job.row.seed,
        "recipe": record.recipe,
        "task": record.tasks[position]["digest"],
        "training": job.source_key,
        **{name: facts[name] for name in FACTS if name in facts},
    }


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list that the first Ctrl-C fills; a second one raises at once. Only the main thread can listen."""
    stop: list[int] = []
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or previous in (signal.SIG_IGN, None):
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.append(number)

    signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)


class _View:
    """Progress on stderr: a live line on a terminal, a plain line now and then elsewhere, nothing if not wanted."""

    every = 5.0  # seconds between plain lines

    def __init__(self, total: int, before: int, folder: Path, wanted: bool) -> None:
        self.total, self.before, self.folder, self.wanted = total, before, folder, wanted
        self.done, self.failures, self.latest = before, 0, ""
        self.start = self.last = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> _View:
        if self.wanted and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = TextColumn("rows"), BarColumn(), TextColumn("{task.description}")
            self.bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
            self.bar.add_task(self.text(), total=self.total, completed=self.done)
            self.bar.start()
        elif self.wanted:
            more = f", {self.before} are stored already" if self.before else ""
            self.say(f"{self.total} rows{more}: {self.folder}")
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.tick()
            self.bar.stop()
        elif self.wanted and self.done == self.total:
            self.say(self.text())

    def text(self) -> str:
        """Rows done, rate, time left, latest accuracy, failures."""
        # From the first row on: before it, the workers were starting.
        seconds, fresh = time.monotonic() - self.start, self.done - self.before - 1
        parts = [f"{self.done}/{self.total} rows"]
        if fresh > 0 and seconds > 0:
            left = round((self.total - self.done) * seconds / fresh)
            parts += [f"{60 * fresh / seconds:.0f} a minute", f"{left // 60}:{left % 60:02d} left"]
        if self.latest:
            parts.append(self.latest)
        if self.failures:
            parts.append(f"{self.failures} failed")
        return ", ".join(parts)

    def row(self, outcome: Outcome | None, failed: bool) -> None:
        """One more row is done; the outcome is that of the plan's first task, if the row lacked it."""
        if self.done == self.before:
            self.start = time.monotonic()
        self.done += 1
        self.failures += failed
        accuracy = None if outcome is None else outcome.scalars.get("report_accuracy")
        if isinstance(accuracy, float):
            self.latest = f"latest accuracy {100 * accuracy:.1f} %"

    def tick(self) -> None:
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.done, description=self.text())
        elif self.wanted and self.done > self.before and time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            self.say(self.text())

    def say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False)
        elif self.wanted:
            print(text, file=sys.stderr, flush=True)
