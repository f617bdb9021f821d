"""From a plan to a full store: any executor trains the rows that are missing, only the driver writes.

A row can be computed from the plan alone, by anybody; a duplicate is harmless, and the same command continues a killed
run.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydt.cells import FACTS, Outcome, Row, checked
from pydt.errors import ConfigError, PydtError, TrainError
from pydt.live import View
from pydt.plan import Context, Plan, check, make_record
from pydt.store import Record, Store
from pydt.workers import Processes, WorkerDied, pack, places, versions, work

if TYPE_CHECKING:
    from pydt.data import Dataset
    from pydt.train import Recipe
    from pydt.transfer import Task

Runner = Callable[["Context", Row, tuple[Any, ...]], dict[str, Outcome]]

_MOST_PICTURED = 2000  # units; beyond that, example images would weigh more than the rows
_TRIES = 2  # an exception may be bad luck once
_LIVES = 3  # a process may be killed by something else twice


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
    check(context, rows)
    return _run(context, make_record(context, rows), dir, executor, workers, runner, progress)


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

    with _interrupts() as stop, View(total, before, store.folder, progress) as view:
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
