"""The driver: an executor trains the rows that are missing, and only the driver writes the store.

A row follows from the plan alone, so any worker may compute it, a duplicate is harmless, and the same command continues
a killed run. A plan and a list of rows are runs of one part; a study has many, of one pool of workers. Rows are handed
out part by part, so a worker needs few contexts at once.

More than 500 lines: `_Driver` is one state machine with one owner of its queues.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydt.base import ConfigError, PydtError, StoreError, open_streams
from pydt.data import Dataset
from pydt.ensemble.code_version import facts_of, in_words, others, refuse_others, versions
from pydt.ensemble.data_remarks import RemarksOf, changed_files, design_remark
from pydt.ensemble.executors.call import WorkerDied
from pydt.ensemble.executors.call import work as call
from pydt.ensemble.executors.local import Processes, places
from pydt.ensemble.interim import Interim
from pydt.ensemble.keeping import Keeping, checked_keep, other_code
from pydt.ensemble.learning import Learning
from pydt.ensemble.parts import Asked, Part, Work, asked_of, work_on
from pydt.ensemble.plan import Context, Plan, check, make_record
from pydt.ensemble.progress import Progress
from pydt.ensemble.row import Runner, run_row
from pydt.ensemble.sending import Sending
from pydt.ensemble.signals import caught_signals
from pydt.estimation import StoppingRule, unmet
from pydt.store import Measure, Outcome, Row, Store, checked, encoded_draws, write_remarks

if TYPE_CHECKING:
    from pydt.training import Recipe, Task


_MOST_PICTURED = 6000  # groups; a file of more pictures would be slow to open
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
            live panel on a terminal, one line that renews itself in a notebook and plain lines elsewhere, "json" for
            JSON lines.
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
    more: dict[str, Any] = {"workers": workers, "runner": runner, "progress": progress, "limit": limit}
    more |= {"same_code": same_code, "keep": keep, "keep_bytes": keep_bytes}
    store = run_asked([Asked("", plan.context, plan.record(), plan.design)], dir, executor, rule, remarks=True, **more)
    store.default(plan.record())
    return store


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
    record = make_record(context, rows)
    more: dict[str, Any] = {"workers": workers, "runner": runner, "progress": progress, "limit": limit}
    store = run_asked([Asked("", context, record)], dir, executor, keep=keep, keep_bytes=keep_bytes, **more)
    store.default(record)
    return store


def run_parts(
    parts: Sequence[Part],
    dir: str | os.PathLike[str],
    executor: Executor | None = None,
    *,
    workers: int | None = None,
    runner: Runner = run_row,
    progress: bool | str = True,
    limit: float | None = None,
    same_code: bool = False,
    keep: str = "none",
    keep_bytes: int | None = None,
) -> Store:
    """`run` for many lists of rows, each of another source, recipe or tasks, with one pool of workers.

    Each part has the rows and the plan that `run_rows` would store for it. A row that several parts ask for is computed
    once. Memory does not grow with the parts' data: a worker holds the contexts of four parts at most.

    Args:
        parts: in the order in which their rows are handed out; those without a name are called "part 0", "part 1", ...
        dir, executor, runner, progress, limit, same_code, keep, keep_bytes: as in `run`.
        workers: as in `run`; None: as many as the part whose rows need the most cores or GPUs allows.

    Returns:
        The store, without a default plan: ask it with `plan=part.record`.

    Raises:
        PydtError: as `run` does; an error of a row names its part.
    """
    more: dict[str, Any] = {"workers": workers, "runner": runner, "progress": progress, "limit": limit}
    more |= {"same_code": same_code, "keep": keep, "keep_bytes": keep_bytes}
    return run_asked(asked_of(parts), dir, executor, remarks=True, **more)


# ---- the driver ----------------------------------------------------------------------------------------------------


@dataclass
class _Job:
    """One row of a part, and the positions of the tasks it still lacks."""

    of: Work
    number: int
    row: Row
    tasks: tuple[int, ...]
    errors: int = 0
    deaths: int = 0

    def __str__(self) -> str:
        return f"{self.called} ({self.row})"

    @property
    def called(self) -> str:
        return self.of.called(self.number)

    @property
    def facts(self) -> dict[str, Any]:
        """What the log calls the row."""
        return ({"part": self.of.name} if self.of.name else {}) | {"row": self.number}


def run_asked(
    asked: Sequence[Asked],
    dir: str | os.PathLike[str],
    executor: Executor | None,
    rule: StoppingRule | None = None,
    *,
    workers: int | None,
    runner: Runner,
    progress: bool | str,
    limit: float | None,
    keep: str,
    keep_bytes: int | None,
    same_code: bool = False,
    remarks: bool = False,
) -> Store:
    """Compute what a store lacks of some parts; arguments as in `run`.

    Args:
        rule: of a single part with a design.
        remarks: whether to say, and to store, what is to be said of the data.
    """
    rule = rule or StoppingRule("none")
    if workers is not None and workers < 1:
        raise ConfigError(f"must be at least 1, is {workers}", "workers", "leave it out to use every core")
    if limit is not None and not 0 < limit < math.inf:
        raise ConfigError(
            f"no row can be done in {limit!r} seconds", "limit", "leave it out to let rows take their time"
        )
    for one in asked:
        keep, most = checked_keep(keep, keep_bytes, runner, one.context.recipe)
    open_streams()
    view = Progress.of(progress)
    if rule.kind != "none":
        rule.look(asked[0].design, [])  # refuses a rule that this plan cannot satisfy, before anything is trained
    with Store.create(dir).writing() as store:
        said = RemarksOf()
        described = set[str]()
        for one in asked:
            for task in one.context.tasks:
                if task.digest not in described:
                    own = isinstance(task, Measure)
                    about = task.stored() if own else task.examples() | encoded_draws(*task.drawn())
                    store.put_task(task.digest, about)
                    described.add(task.digest)
            if len(one.record.names) <= _MOST_PICTURED and not store.has_thumbnails(one.record):
                store.put_thumbnails(one.record, *one.context.source.pictured(one.context.by, 3))
            store.put_plan(one.record)
            write_remarks(store, one.record, said.add(one.name, one.context) if remarks else [])
        works = work_on(store, asked, same_code)
        if same_code:
            refuse_others(store, versions())
        kept = Keeping(store, runner, keep, most, same_code)
        sending = Sending(runner, store.folder / "data", isinstance(executor, ThreadPoolExecutor))
        run = _Driver(store, works, rule, view, limit, same_code, kept, sending)
        if run.settled():
            return store
        run.notes = said.told() + _notes(store, asked)
        waiting = [work for work in works if work.missing]
        for work in waiting:  # refuses what cannot be sent, before anything is trained
            work.parcel = sending.parcel(work.asked.context, work.name)
        room = [places(one.context.recipe) for one in asked]
        usual, gpus = min(count for count, _ in room), max((found for _, found in room), key=len)
        if executor is not None:
            count = workers or getattr(executor, "_max_workers", None) or usual
            run.drive(executor, int(count))
            return store
        wanted, first = workers or usual, waiting[0].parcel
        assert first is not None
        count = min(wanted, sum(len(work.missing) for work in waiting))
        # Of the workers that were asked for: a row's memory does not depend on how many rows are still missing.
        share = -(-wanted // max(1, len(gpus)))
        pool = Processes(count, max(int(one.context.recipe.threads) for one in asked), first, gpus, share)
        try:
            run.drive(pool, count, first if len(works) == 1 else None)
            pool.shutdown()
        finally:
            pool.kill()
        return store


def _notes(store: Store, asked: Sequence[Asked]) -> list[tuple[str, str]]:
    """What to say of changed files and designs at the start of a run: event, text."""
    designs, notes = store.designs(), []
    for one in asked:
        notes += [("files changed", text) for text in changed_files(one.record, designs)]
        method = one.record.settings.get("method", "")
        if one.design is not None and (text := design_remark(one.design, one.record.names, method)):
            notes.append(("design", text))
    return notes


@dataclass(eq=False)
class _Driver:
    """Hands out the missing rows, stores the results and decides when to end."""

    store: Store
    works: list[Work]
    rule: StoppingRule  # of the first part
    view: Progress
    limit: float | None
    same_code: bool
    kept: Keeping
    sending: Sending
    notes: list[tuple[str, str]] = field(default_factory=list)  # shown and logged at the start: event, text
    told: set[str] = field(default_factory=set)  # messages about workers with other code
    again: deque[_Job] = field(default_factory=deque)  # rows to try again
    running: dict[Future[Any], _Job] = field(default_factory=dict)
    learning: Learning = field(default_factory=Learning)
    shown: bool = False
    done: bool = False  # the rule is satisfied
    lost_row: bool = False  # a row cannot be computed: the run ends once those that are running are stored

    @property
    def interim(self) -> Interim:
        """What the rule sees."""
        return self.works[0].interim

    @property
    def rows(self) -> tuple[int, int]:
        """How many rows there are, and are stored."""
        return sum(work.total for work in self.works), sum(len(work.whole) for work in self.works)

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
        if not (self._waiting() or self.again or self.running or self.done):
            for work in self.works:
                while not signals and work.interim.read(0.2):
                    pass
        damaged = sum(work.take_damaged() for work in self.works)
        if damaged and self.shown:
            self.view.damaged(damaged)
        return bool(self._waiting() or self.again or self.running)

    def _waiting(self) -> Work | None:
        """The first part with rows to hand out."""
        return next((work for work in self.works if work.missing), None)

    def drive(self, executor: Executor, workers: int, has: bytes | None = None) -> None:
        """Train until nothing is missing, the rule is satisfied or a signal asks for a stop.

        Args:
            has: the parcel that the workers have already.
        """
        other = self._other_code()
        alive = getattr(executor, "alive", None)
        alive = alive if callable(alive) else None
        with (
            caught_signals() as signals,
            self.view.shown(*self.rows, self.interim, self.rule, workers, alive),
        ):
            self.shown = True
            for event, text in self.notes:
                self.view.say(text)
                self.store.log(event=event, text=text)
            if other:
                self.view.say(f"some stored rows were computed by other code: {other}")
            if self.rule.kind != "none" and self.interim.last.next > len(self.works[0].record.rows):
                self.view.say(f"the plan is too short for a look by {self.rule}: all of it is trained")
            end = math.inf
            try:
                while self._left(signals):
                    while (self._waiting() or self.again) and len(self.running) < 2 * workers and not signals:
                        self._submit(executor, has)
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
                self._report(self.learning.last())
                if not self.done and self.rule.kind != "none" and (note := self.store.rule(self.works[0].record)):
                    self.view.say(unmet(note))
            except BaseException as error:
                if self.lost_row:
                    self._finish_running(signals)
                self._rescue()
                total, whole = self.rows
                stored = f"{whole} of {total} rows are stored in {self.store.folder}"
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
        if found := others(self.store, now):
            self.store.log(event="code changed", stored=found, now={name: now.get(name) for name in found})
        return in_words(found, now)

    def _look_at_code(self, job: _Job, result: dict[str, Any]) -> None:
        """Report a worker or a network of the bank whose code differs from this process's, once, or refuse it."""
        by = {f"{result['host']} computes": result["versions"]}
        if "trained_by" in result:
            by["networks of the bank were trained"] = result["trained_by"]
        for what, facts in by.items():
            if not (found := other_code(facts)):
                continue
            wrong = f"{what} by other code than this process: {in_words(found, versions())}"
            if self.same_code:
                raise PydtError(wrong, str(job), "install the same everywhere, or go on without same_code")
            if wrong not in self.told:
                self.told.add(wrong)
                self.view.say(wrong)

    def _report(self, entries: Iterable[dict[str, Any]]) -> None:
        """Show and log what is to be said of the rows' learning."""
        for entry in entries:
            self.view.say(entry["text"])
            self.store.log(**entry)

    def _submit(self, executor: Executor, has: bytes | None) -> None:
        if self.again:
            job = self.again.popleft()
        else:
            work = self._waiting()
            assert work is not None
            number, lacks = work.missing.popleft()
            work.out += 1
            job = _Job(work, number, work.record.rows[number], lacks)
        of = job.of
        if of.parcel is None:
            of.parcel = self.sending.parcel(of.asked.context, of.name)
        parcel = None if of.parcel is has else of.parcel
        try:
            more = self.kept.arguments(of.record.sources[job.number])
            more |= {} if self.limit is None else {"limit": self.limit}
            future = executor.submit(call, parcel, job.row, job.tasks, **more)
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
            self.store.log(event="not used", **job.facts, reason=str(error))  # rows after the stop do not count

    def _put(self, job: _Job, result: dict[str, Any]) -> None:
        self._look_at_code(job, result)
        of, record = job.of, job.of.record
        outcomes = self._checked(job, result["outcomes"])
        keys = [record.keys[job.number][position] for position in job.tasks]
        source = record.sources[job.number]
        # before the cells: a run that is killed between the two finds the row missing, and both are whole at the end
        if (text := self.kept.take(source, result)) is not None:
            self.view.say(text)
            self.store.log(event="bank full", text=text)
        for (position, outcome), key in zip(outcomes.items(), keys, strict=True):
            self.store.put(key, outcome, self._metadata(job, position, facts_of(result)))
        of.put(job.number, outcomes)
        bad = [outcome.reason for outcome in outcomes.values() if outcome.status != "ok"]
        told = ("seconds", "host", "pid", "versions", "warnings", "network")
        details = {name: result[name] for name in told if name in result}
        self.store.log(event="row", **job.facts, source=source, keys=keys, failed=bad, **details)
        self.view.row(job.facts, of.interim, outcomes.get(0), bad, result.get("network") == "bank")
        if bad and (log := self._logged(job, result)) is not None:
            self.view.say(f"{job.called} failed ({bad[0]}); its log: {log}")
        self._report(self.learning.add(of, job.number, outcomes))

    def _result(self, future: Future[Any], job: _Job) -> dict[str, Any] | None:
        """The result of a row, or None: try it again."""
        kept = "all finished rows are stored"
        try:
            result: dict[str, Any] = future.result()
        except WorkerDied as error:
            job.deaths += 1
            self.store.log(event="worker died", **job.facts, reason=str(error), deaths=job.deaths)
            if job.deaths < _LIVES:
                self.view.death(job.called, str(error))
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
            self.store.log(event="note", **job.facts, text=text)
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
        self.store.log(event="error", **job.facts, tries=job.errors, traceback=text)
        if job.errors < _TRIES:
            return None
        raise PydtError(f"raised twice; {kept}. The second time:\n{text}", str(job))

    def _logged(self, job: _Job, result: dict[str, Any]) -> Path | None:
        """Keep what the program of a failed row printed last; the file, if there is one."""
        if not result.get("log"):
            return None
        number = job.of.record.sources[job.number][:16] if job.of.name else str(job.number)
        name = Path("logs") / f"row-{number}.log"
        self.store.write(name, result["log"].encode())
        return self.store.folder / name

    def _checked(self, job: _Job, given: Any) -> dict[int, Outcome]:
        """Outcomes by task position."""
        given = given if isinstance(given, dict) else {}
        tasks = {position: job.of.record.tasks[position] for position in job.tasks}
        return {position: checked(given.get(task["digest"]), task, str(job)) for position, task in tasks.items()}

    def _metadata(self, job: _Job, position: int, facts: dict[str, str]) -> dict[str, Any]:
        record = job.of.record
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
        if self.rule.kind == "none":
            for work in self.works:
                self.store.note_stop(work.record, None)
                self.store.note_rule(work.record, None)
            return
        record, look = self.works[0].record, self.interim.last
        note: dict[str, Any] = {"rule": str(self.rule), "looks": look.looks, "reason": look.reason}
        if self.rule.kind == "sign":
            note["decided"] = [[record.names[i], sign] for i, sign in zip(look.decided, look.signs, strict=True)]
        self.store.note_stop(record, {**note, "rows": look.rows} if look.stopped else None)
        self.store.note_rule(record, None if look.stopped else {**note, "looked": look.rows})

    def _hand_out_no_more(self) -> None:
        for work in self.works:
            work.missing.clear()
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
