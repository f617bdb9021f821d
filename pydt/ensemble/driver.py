"""The driver: an executor trains the rows that are missing, and only the driver writes the store.

A row follows from the plan alone, so any worker may compute it, a duplicate is harmless, and the same command continues
a killed run. More than 500 lines: `_Driver` is one state machine with one owner of its queues.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydt.base import ConfigError, PydtError, StoreError, open_streams
from pydt.data import Dataset, Target, spool
from pydt.ensemble.code_version import versions
from pydt.ensemble.data_remarks import changed_files, design_remark, remarks
from pydt.ensemble.executors.call import WorkerDied, work
from pydt.ensemble.executors.local import Processes, places
from pydt.ensemble.executors.pickling import pack
from pydt.ensemble.interim import Interim
from pydt.ensemble.keeping import Keeping, checked_keep, other_code
from pydt.ensemble.plan import Context, Plan, check, make_record
from pydt.ensemble.progress import Progress
from pydt.ensemble.row import Runner, run_row
from pydt.estimation import StoppingRule, unmet
from pydt.store import (
    FACTS,
    Measure,
    Outcome,
    Record,
    Row,
    Store,
    at_chance,
    checked,
    encoded_draws,
    weak,
    write_remarks,
)

if TYPE_CHECKING:
    from pydt.training import Recipe, Task


_JUDGED = 3  # rows after which a warning says that networks hardly learn; it is not left to the end of the run
_MOST_PICTURED = 2000  # groups; above that, example images would be larger than the rows
_TRIES = 2  # an exception may be chance once
_LIVES = 3  # another process may kill a worker twice
_GRACE = 10.0  # seconds that running rows get after SIGTERM; the sender waits 10 (containers) to 30 (Slurm)


def run(
    plan: Plan,
    dir: str | os.PathLike[str],
    executor: Executor | None = None,
    *,
    workers: int | None = None,
    runner: Runner = run_row,
    progress: bool | str = True,
    stop: str | StoppingRule | None = None,
    limit: float | None = None,
    same_code: bool = False,
    keep: str = "none",
    keep_bytes: int | None = None,
) -> Store:
    """Compute the rows of a plan that a store lacks.

    Args:
        plan: what to compute.
        dir: folder of the store, made if needed.
        executor: anything with the `concurrent.futures` protocol; None: processes on this machine.
        workers: processes; None: one for every `recipe.threads` cores, or with a recipe for "cuda" one for every GPU.
            With an executor: how many rows it runs at once.
        runner: computes a row in place of the plan's recipe: `runner(row) -> {name of a task: outputs}`, called with a
            `pydt.RowInput` in a worker. Its code is not in the rows' names: recipe=pydt.Function(f) puts it there.
        progress: show rows done, rate, time left, workers, failures and the leading influences on stderr: True for a
            live panel on a terminal and plain lines elsewhere, "json" for JSON lines.
        stop: when to stop before the end of the plan, as `StoppingRule.parse` reads it. The rule sees the plan's first
            task, its metric on the score half, as the report does, and complete prefixes of the plan only: the stop is
            the same for any number of workers and after any kill. Rows that were running are stored, but do not count
            (`Store.stopped`). Another rule starts again at the first row; without a rule all rows are trained and
            count.
        limit: seconds that a row may take; a longer one ends its worker and is tried again, twice. Of a
            `pydt.Command` the program alone is ended, and tried again as often as its `tries` says.
        same_code: refuse a store or a worker whose rows were computed by another version of pydt, torch or torchvision
            or for another instruction set; otherwise this is only reported.
        keep: what to keep of trained networks in the store's bank, so that a task added later trains no source:
            "none"; "weights", which serve every task; or "features" of the tasks' images, which serve probes of the
            same targets. No result depends on it. Rows use what is kept of them, whatever `keep` is; rows that are
            stored are not trained again.
        keep_bytes: of the whole bank, at most; None: 20 GB. When it is full, no more are kept, and the run says so.

    Returns:
        The store, whose default plan is this one.

    Raises:
        ConfigError: an argument out of range, a rule that no such plan can satisfy, or `keep` with another runner.
        StoreError: the folder cannot be written, a row gave other numbers than those stored, or, with `same_code`,
            stored rows were computed by other code.
        PydtError: a row raised twice, or killed its worker three times; all finished rows are stored.
        KeyboardInterrupt: Ctrl-C; all finished rows are stored, the text says how many and how to continue.
        SystemExit: SIGTERM, unless the caller handles it; running rows got ten seconds to finish.
    """
    rule = stop if isinstance(stop, StoppingRule) else StoppingRule.parse(stop)
    about = plan.context, plan.record(), plan.design
    return _run(*about, dir, executor, workers, runner, progress, rule, limit, keep, keep_bytes, same_code)


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
    progress: bool | str = True,
    limit: float | None = None,
    keep: str = "none",
    keep_bytes: int | None = None,
) -> Store:
    """`run` for any list of rows, which the store records as a plan without a design.

    Returns:
        The store, whose default plan is this list: `store.finished()` are positions in `rows`.

    Raises:
        PydtError: as `Plan` and `run` do.
    """
    context = Context(source, by, recipe, tuple(tasks))
    check(context, rows)
    record, rule = make_record(context, rows), StoppingRule("none")
    return _run(context, record, None, dir, executor, workers, runner, progress, rule, limit, keep, keep_bytes)


# ---- the driver ----------------------------------------------------------------------------------------------------


@dataclass
class _Job:
    """One row and the positions of the tasks it still lacks."""

    number: int
    row: Row
    tasks: tuple[int, ...]
    errors: int = 0
    deaths: int = 0

    def __str__(self) -> str:
        return f"row {self.number} ({self.row})"


def _run(
    context: Context,
    record: Record,
    design: Any,
    dir: str | os.PathLike[str],
    executor: Executor | None,
    workers: int | None,
    runner: Runner,
    progress: bool | str,
    rule: StoppingRule,
    limit: float | None,
    keep: str,
    keep_bytes: int | None,
    same_code: bool = False,
) -> Store:
    if workers is not None and workers < 1:
        raise ConfigError(f"must be at least 1, is {workers}", "workers", "leave it out to use every core")
    if limit is not None and not 0 < limit < math.inf:
        raise ConfigError(
            f"no row can be done in {limit!r} seconds", "limit", "leave it out to let rows take their time"
        )
    keep, most = checked_keep(keep, keep_bytes, runner, context.recipe)
    open_streams()
    view = Progress.of(progress)
    if rule.kind != "none":
        rule.look(design, [])  # refuses a rule that this plan cannot satisfy, before anything is trained
    with Store.create(dir).writing() as store:
        for task in context.tasks:
            own = isinstance(task, Measure)
            store.put_task(task.digest, task.stored() if own else task.examples() | encoded_draws(*task.drawn()))
        if len(record.names) <= _MOST_PICTURED and not store.has_thumbnails(record):
            store.put_thumbnails(record, context.source.thumbnails(context.by, 3))
        store.put_plan(record)
        store.default(record)
        told = [] if design is None else remarks(context)
        copied = [] if design is None else _copied(context)
        write_remarks(store, record, copied + told)
        missing, stored = _missing(store, record, same_code)
        interim = Interim(store, record, design, stored)
        kept = Keeping(store, runner, keep, most, same_code)
        run = _Driver(store, record, interim, rule, missing, set(stored), view, limit, same_code, kept)
        if run.settled():
            return store
        run.notes = [("shared images", text) for text in copied] + [("data", text) for text in told]
        run.notes += [("files changed", text) for text in changed_files(record, store.designs())]
        if design is not None and (text := design_remark(design, record.names, record.settings.get("method", ""))):
            run.notes.append(("design", text))
        shared = runner, _spooled(context, store.folder / "data")
        try:
            parcel = _parcel(shared, isinstance(executor, ThreadPoolExecutor))
        except PydtError:
            raise
        except Exception as error:
            wrong = f"runner, source, recipe or task cannot be sent to a worker ({error})"
            raise ConfigError(wrong, "run", "use functions and classes that a module defines at its top") from error
        usual, gpus = places(context.recipe)
        if executor is not None:
            count = workers or getattr(executor, "_max_workers", None) or usual
            run.drive(executor, parcel, int(count))
            return store
        count = min(workers or usual, len(missing))
        pool = Processes(count, int(context.recipe.threads), parcel, gpus)
        try:
            run.drive(pool, None, count)
            pool.shutdown()
        finally:
            pool.kill()
        return store


def _parcel(shared: Any, here: bool) -> bytes:
    """Runner and context as bytes; what stays in this process keeps its functions, if modules have them by name."""
    if here:
        with contextlib.suppress(Exception):
            return pickle.dumps(shared)
    return pack(shared)


def _spooled(context: Context, folder: Path) -> Context:
    """The same context with all data in files: what is in memory is written once and travels to workers as a path."""
    source = spool(context.source, folder) if isinstance(context.source, Dataset) else context.source
    tasks = [
        replace(task, target=task.target.spool(folder)) if isinstance(getattr(task, "target", None), Target) else task
        for task in context.tasks
    ]
    return Context(source, context.by, context.recipe, tuple(tasks))


def _copied(context: Context) -> list[str]:
    """A sentence for each target that shares images with the source."""
    if not isinstance(context.source, Dataset):
        return []
    found = [task.target for task in context.tasks if isinstance(getattr(task, "target", None), Target)]
    targets = {target.digest: target for target in found}
    return [text for target in targets.values() for text in target.copied(context.source, *context.units)]


def _missing(store: Store, record: Record, same_code: bool) -> tuple[deque[tuple[int, tuple[int, ...]]], list[int]]:
    """`Store.left`; raises StoreError for other code where `same_code` is asked for."""
    missing, stored = store.left(record, every=same_code)
    if same_code and (others := _others(store, versions())):
        mend = "use those versions, a new folder, or go on without same_code"
        raise StoreError(f"holds rows computed by other code: {_in_words(others, versions())}", str(store.folder), mend)
    return deque(missing), stored


def _others(store: Store, now: dict[str, str]) -> dict[str, list[str]]:
    """Facts of the code behind stored rows that are not those of this process, by name."""
    others = {name: sorted(seen - {str(now.get(name))}) for name, seen in store.facts.items()}
    return {name: seen for name, seen in others.items() if seen}


def _in_words(others: dict[str, list[str]], now: dict[str, str]) -> str:
    return "; ".join(f"{name} {', '.join(seen)} (now {now.get(name)})" for name, seen in others.items())


def _facts(result: dict[str, Any]) -> dict[str, str]:
    """What computed a row, by the names in `FACTS`: both versions, where its network comes from a bank of another."""
    now, before = result["versions"], result.get("trained_by", {})
    found = {name: str(now[name]) for name in FACTS if name in now}
    return {name: has if before.get(name, has) == has else f"{before[name]} and {has}" for name, has in found.items()}


@dataclass(eq=False)
class _Driver:
    """Hands out the missing rows, stores the results and decides when to end."""

    store: Store
    record: Record
    interim: Interim
    rule: StoppingRule
    missing: deque[tuple[int, tuple[int, ...]]]
    whole: set[int]  # rows stored for every task
    view: Progress
    limit: float | None
    same_code: bool
    kept: Keeping
    notes: list[tuple[str, str]] = field(default_factory=list)  # shown and logged at the start: event, text
    told: set[str] = field(default_factory=set)  # messages about workers with other code
    again: deque[_Job] = field(default_factory=deque)  # rows to try again
    running: dict[Future[Any], _Job] = field(default_factory=dict)
    trained: list[tuple[int, dict[str, Any]]] = field(default_factory=list)  # rows of this run with their scalars
    zero_shot: dict[int, list[dict[str, Any]]] = field(default_factory=dict)  # those of zero-shot tasks, by position
    at_chance: set[int] = field(default_factory=set)  # zero-shot tasks of which a warning was given
    shown: bool = False
    done: bool = False  # the rule is satisfied
    lost_row: bool = False  # a row cannot be computed: the run ends once those that are running are stored

    def settled(self) -> bool:
        """Whether there is nothing to train: all rows are stored, or the stored ones satisfy the rule."""
        satisfied = self.rule.kind != "none" and self.interim.settled(self.rule)
        self._note()
        return satisfied or not self._left()

    def _left(self, signals: Sequence[int] = ()) -> bool:
        """Whether there is something to train.

        Stored rows are counted by their headers first, so that training starts at once. The progress display reads them
        in full while rows train, and this method before the end: damaged ones are trained again.
        """
        if not (self.missing or self.again or self.running or self.done):
            while not signals and self.interim.read(0.2):
                pass
        for row in reversed(self.interim.damaged):  # to the front: a rule waits for them
            lacks = [i for i, key in enumerate(self.record.keys[row]) if not self.store.done(key)]
            self.missing.appendleft((row, tuple(lacks)))
            self.whole.discard(row)
        if self.interim.damaged and self.shown:
            self.view.damaged(len(self.interim.damaged))
        self.interim.damaged.clear()
        return bool(self.missing or self.again or self.running)

    def drive(self, executor: Executor, parcel: bytes | None, workers: int) -> None:
        """Train until nothing is missing, the rule is satisfied or a signal asks for a stop."""
        others = self._other_code()
        alive = getattr(executor, "alive", None)
        alive = alive if callable(alive) else None
        with (
            _signals() as signals,
            self.view.shown(self.record.distinct, len(self.whole), self.interim, self.rule, workers, alive),
        ):
            self.shown = True
            for event, text in self.notes:
                self.view.say(text)
                self.store.log(event=event, text=text)
            if others:
                self.view.say(f"some stored rows were computed by other code: {others}")
            if self.rule.kind != "none" and self.interim.last.next > len(self.record.rows):
                self.view.say(f"the plan is too short for a look by {self.rule}: all of it is trained")
            end = math.inf
            try:
                while self._left(signals):
                    while (self.missing or self.again) and len(self.running) < 2 * workers and not signals:
                        self._submit(executor, parcel)
                    done = wait(self.running, timeout=0.2, return_when=FIRST_COMPLETED).done
                    for future in [own for own in self.running if own in done]:  # in order: the first error is raised
                        self._collect(future)
                    if self.store.renamed is not None:
                        wrong = f"was renamed to {self.store.folder} during the run, whose rows are all stored there"
                        mend = "give it this name again, or run the same plan with its new one"
                        raise StoreError(wrong, str(self.store.renamed), mend)
                    if signal.SIGINT in signals:
                        raise KeyboardInterrupt
                    if signals and end == math.inf:  # SIGTERM: running rows may finish within the grace period
                        self._hand_out_no_more()
                        end = time.monotonic() + _GRACE
                    if time.monotonic() > end:
                        raise SystemExit
                    if not self.done and self.rule.kind != "none":
                        looks = self.interim.last.looks
                        if self.interim.look(self.rule).stopped:
                            self._stop()
                        elif self.interim.last.looks > looks:
                            self._note()
                    self.view.tick()
                if signals:
                    raise KeyboardInterrupt if signal.SIGINT in signals else SystemExit
                if len(self.trained) != _JUDGED:
                    self._look_at_learning()
                if not self.done and (note := self.store.rule(self.record)) is not None:
                    self.view.say(unmet(note))
            except BaseException as error:
                if self.lost_row:
                    self._finish_running(signals)
                self._rescue()
                stored = f"{len(self.whole)} of {self.record.distinct} rows are stored in {self.store.folder}"
                text = f"stopped: {stored}; the same command continues"
                if isinstance(error, KeyboardInterrupt):
                    raise KeyboardInterrupt(text) from None
                if isinstance(error, SystemExit):
                    self.view.say(text)
                    raise SystemExit(128 + signal.SIGTERM) from None
                raise

    def _other_code(self) -> str:
        """Log and describe other code that computed stored rows."""
        now = versions()
        others = _others(self.store, now)
        if others:
            self.store.log(event="code changed", stored=others, now={name: now.get(name) for name in others})
        return _in_words(others, now)

    def _look_at_code(self, job: _Job, result: dict[str, Any]) -> None:
        """Report a worker or a network of the bank whose code differs from this process's, once, or refuse it."""
        by = {f"{result['host']} computes": result["versions"]}
        if "trained_by" in result:
            by["networks of the bank were trained"] = result["trained_by"]
        for what, facts in by.items():
            if not (others := other_code(facts)):
                continue
            wrong = f"{what} by other code than this process: {_in_words(others, versions())}"
            if self.same_code:
                raise PydtError(wrong, str(job), "install the same everywhere, or go on without same_code")
            if wrong not in self.told:
                self.told.add(wrong)
                self.view.say(wrong)

    def _look_at_learning(self) -> None:
        """Report networks that hardly learnt their source, or diverged; and, once a task, zero-shot at chance."""
        found = weak([scalars for _, scalars in self.trained], self.record.settings)
        for text in found.notes("rows", [row for row, _ in self.trained]):
            self.view.say(text)
            self.store.log(event="hardly learnt", rows=len(found.at), of=found.judged, text=text)
        for position, scalars in self.zero_shot.items():
            if position not in self.at_chance and (low := at_chance(scalars, "rows")) is not None:
                self.at_chance.add(position)
                text = f"{self.record.tasks[position]['name']}: {low}"
                self.view.say(text)
                self.store.log(event="at chance", task=self.record.tasks[position]["digest"], text=text)

    def _submit(self, executor: Executor, parcel: bytes | None) -> None:
        if self.again:
            job = self.again.popleft()
        else:
            number, lacks = self.missing.popleft()
            job = _Job(number, self.record.rows[number], lacks)
        try:
            more = self.kept.arguments(self.record.sources[job.number])
            more |= {} if self.limit is None else {"limit": self.limit}
            future = executor.submit(work, parcel, job.row, job.tasks, **more)
        except RuntimeError as error:  # broken, or shut down
            wrong = f"the executor takes no more rows ({error})"
            raise PydtError(wrong, "executor", "run again with a fresh one") from error
        self.running[future] = job

    def _collect(self, future: Future[Any]) -> None:
        job = self.running.pop(future)
        try:
            try:
                result = self._result(future, job)
            except PydtError:
                self.lost_row = True
                raise
            if result is not None:
                self._put(job, result)
            elif not self.done:
                self.again.append(job)
        except PydtError as error:
            if not self.done:
                raise
            self.store.log(event="not used", row=job.number, reason=str(error))  # rows after the stop do not count

    def _put(self, job: _Job, result: dict[str, Any]) -> None:
        self._look_at_code(job, result)
        outcomes = self._checked(job, result["outcomes"])
        keys = [self.record.keys[job.number][position] for position in job.tasks]
        source = self.record.sources[job.number]
        # before the cells: a run that is killed between the two finds the row missing, and both are whole at the end
        if (text := self.kept.take(source, result)) is not None:
            self.view.say(text)
            self.store.log(event="bank full", text=text)
        for (position, outcome), key in zip(outcomes.items(), keys, strict=True):
            self.store.put(key, outcome, self._metadata(job, position, _facts(result)))
        self.whole.add(job.number)
        self.interim.add(job.number, outcomes)
        bad = [outcome.reason for outcome in outcomes.values() if outcome.status != "ok"]
        told = ("seconds", "host", "pid", "versions", "warnings", "network")
        details = {name: result[name] for name in told if name in result}
        self.store.log(event="row", row=job.number, source=source, keys=keys, failed=bad, **details)
        self.view.row(job.number, outcomes.get(0), bad, result.get("network") == "bank")
        if bad and (log := self._logged(job, result)) is not None:
            self.view.say(f"row {job.number} failed ({bad[0]}); its log: {log}")
        self.trained += [(job.number, dict(one.scalars)) for one in list(outcomes.values())[:1] if one.status == "ok"]
        for position, outcome in outcomes.items():
            if "zero_shot_p" in outcome.scalars:
                self.zero_shot.setdefault(position, []).append(dict(outcome.scalars))
        if len(self.trained) == _JUDGED:
            self._look_at_learning()

    def _result(self, future: Future[Any], job: _Job) -> dict[str, Any] | None:
        """The result of a row, or None: try it again."""
        kept = "all finished rows are stored"
        try:
            result: dict[str, Any] = future.result()
        except WorkerDied as error:
            job.deaths += 1
            self.store.log(event="worker died", row=job.number, reason=str(error), deaths=job.deaths)
            if job.deaths < _LIVES:
                self.view.death(job.number, str(error))
                return None
            if str(error).startswith("ran longer"):
                mend = f"allow more than limit={self.limit:g}, or find out on what it hangs; {kept}"
                raise PydtError(f"{error}, {_LIVES} times", str(job), mend) from error
            mend = f"give the workers more memory, or use fewer; {kept}"
            raise PydtError(f"killed its worker {_LIVES} times ({error})", str(job), mend) from error
        except (BrokenExecutor, CancelledError) as error:
            wrong = f"the executor gave up ({type(error).__name__}: {error})"
            raise PydtError(wrong, str(job), f"run again with a fresh executor; {kept}") from error
        except Exception as error:
            raise PydtError(f"the executor raised {type(error).__name__}: {error}", str(job), kept) from error
        for text in result.get("notes", ()):
            self.store.log(event="note", row=job.number, text=text)
        if "error" not in result:
            return result
        problem, text = result["error"], result["traceback"]
        if isinstance(problem, PydtError):
            # raised by our own checks: another try gives the same
            where = str(job) if problem.where is None else f"{job}: {problem.where}"
            log = self._logged(job, result)
            printed = [] if log is None else [f"its log: {log}", kept]
            mend = "; ".join(filter(None, [problem.mend, *printed]))
            raise type(problem)(problem.what, where, mend or None)
        job.errors += 1
        self.store.log(event="error", row=job.number, tries=job.errors, traceback=text)
        if job.errors < _TRIES:
            return None
        raise PydtError(f"raised twice; {kept}. The second time:\n{text}", str(job))

    def _logged(self, job: _Job, result: dict[str, Any]) -> Path | None:
        """Keep what the program of a failed row printed last; the file, if there is one."""
        if not result.get("log"):
            return None
        name = Path("logs") / f"row-{job.number}.log"
        self.store.write(name, result["log"].encode())
        return self.store.folder / name

    def _checked(self, job: _Job, given: Any) -> dict[int, Outcome]:
        """Outcomes by task position."""
        given = given if isinstance(given, dict) else {}
        tasks = {position: self.record.tasks[position] for position in job.tasks}
        return {position: checked(given.get(task["digest"]), task, str(job)) for position, task in tasks.items()}

    def _metadata(self, job: _Job, position: int, facts: dict[str, str]) -> dict[str, Any]:
        record = self.record
        return {
            "source": record.source,
            "units": record.units,
            **record.named(job.number),
            "groups": job.row.groups,
            "seed": job.row.seed,
            "recipe": record.recipe,
            "task": record.tasks[position]["digest"],
            "training": record.sources[job.number],
            **facts,
        }

    def _stop(self) -> None:
        """The rule is satisfied: running rows are stored, but do not count."""
        self.done = True
        self._note()
        self._hand_out_no_more()
        self.view.say(f"stopped by {self.rule}: {self.interim.last.reason}")

    def _note(self) -> None:
        """Store what the rule said last, also that there is none: an earlier run may have had one."""
        look, names = self.interim.last, self.record.names
        note: dict[str, Any] = {"rule": str(self.rule), "looks": look.looks, "reason": look.reason}
        if self.rule.kind == "sign":
            note["decided"] = [[names[i], sign] for i, sign in zip(look.decided, look.signs, strict=True)]
        unmet = self.rule.kind != "none" and not look.stopped
        self.store.note_stop(self.record, {**note, "rows": look.rows} if look.stopped else None)
        self.store.note_rule(self.record, {**note, "looked": look.rows} if unmet else None)

    def _hand_out_no_more(self) -> None:
        self.missing.clear()
        self.again.clear()
        for future in list(self.running):
            if future.cancel():
                del self.running[future]

    def _finish_running(self, signals: Sequence[int]) -> None:
        """Wait for the rows that are running, which may be hours old, and store them."""
        self._hand_out_no_more()
        if self.running:
            many = "a row that is" if len(self.running) == 1 else f"{len(self.running)} rows that are"
            self.view.say(f"a row cannot be computed; waiting for {many} running, Ctrl-C ends now")
        while self.running and not signals:
            done = wait(self.running, timeout=0.2, return_when=FIRST_COMPLETED).done
            for future in [own for own in self.running if own in done]:
                with contextlib.suppress(PydtError):  # the first error is raised
                    self._collect(future)
            self.again.clear()

    def _rescue(self) -> None:
        """Store the results that have arrived, before an error ends the run."""
        self._hand_out_no_more()
        for future in list(self.running):
            if future.done():
                with contextlib.suppress(PydtError):  # the first error is raised
                    self._collect(future)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """A list to which the first Ctrl-C or SIGTERM is added; a second raises at once. Works in the main thread only."""
    seen: list[int] = []

    def handle(number: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit
        seen.append(number)

    ours: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        if ours[signal.SIGINT] in (signal.SIG_IGN, None):
            del ours[signal.SIGINT]
        if ours[signal.SIGTERM] != signal.SIG_DFL:
            del ours[signal.SIGTERM]  # the caller handles it
    for number in ours:
        signal.signal(number, handle)
    try:
        yield seen
    finally:
        for number, previous in ours.items():
            signal.signal(number, previous)
