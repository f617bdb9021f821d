"""The store: a folder of finished cells that survives whatever happens to those who write it.

DIR/store.json                       format of the store
DIR/rows/ab/<key>.safetensors        one cell; `ab` are the first two hex digits of its key
DIR/tasks/<digest>.safetensors       half, label and id of each target example of a task
DIR/thumbnails/<digest>.safetensors  the first images of each unit of a source
DIR/plans/<digest>.json              what was asked: unit names, design, recipe, tasks, every row
DIR/stops/<digest>.json              of a plan that stopped early: how many of its first rows count, and why
DIR/log.jsonl                        times, hosts, versions, warnings: all that differs between equal runs
DIR/quarantine/                      files that failed their checks
DIR/.lock                            names the process that writes; there as long as it does
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt.cells import (
    FACTS,
    OUTPUTS,
    Outcome,
    Row,
    checksum,
    decode,
    derive,
    encode,
    most_frequent,
    read,
    suggest,
    whole,
)  # fmt: skip
from pydt.errors import ConfigError, StoreError
from pydt.files import abandoned, canonical_json, digest, exclusive, remove, write_atomic
from pydt.record import FORMAT, Record, read_plan

if TYPE_CHECKING:
    from pydt.design import Design

HALVES = {"score": 0, "report": 1}
_REWRITTEN = "run the same plan again: it writes this file anew"


class Store:
    """A folder of finished cells; `pydt.run` fills it, any number of plans may share it.

    `Store(folder)` opens one that exists, `Store.create(folder)` makes or opens it for writing. Methods that take
    `plan` accept a `Plan`, a digest, or None: then the plan whose `run` returned this store, or the only plan with a
    design.
    Where a plan stopped early (`stopped`), only the rows up to there are used; later ones are stored all the same.
    A row counts as finished when its cells of all the plan's tasks are there, and as failed when one of them failed, so
    `masks()` and `outputs()` of one plan always have the same models, in plan order.

    Raises:
        StoreError: there is no store in `folder`, or it was written by a newer format.
    """

    def __init__(self, folder: str | os.PathLike[str], plan: Any = None) -> None:
        self.folder = Path(folder)
        self._default = plan
        self._status: dict[str, tuple[str, str | None, dict[str, Any]]] = {}
        self.facts: dict[str, set[str]] = {name: set() for name in FACTS}  # what computed the cells read so far
        self._records: dict[str, Record] = {}
        self._damaged: set[str] = set()  # plan files that were found damaged, and logged
        self._outputs: dict[tuple[Any, ...], np.ndarray] = {}
        marker = self.folder / "store.json"
        try:
            found = json.loads(read(marker))["format"]
        except FileNotFoundError:
            raise StoreError("holds no store", str(folder), "run a plan into it first") from None
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError("is damaged", str(marker), "delete this one file and run again") from error
        if found != FORMAT:
            raise StoreError(f"has format {found}, this is format {FORMAT}", str(folder), "use the pydt that wrote it")

    @classmethod
    def create(cls, folder: str | os.PathLike[str]) -> Store:
        """Open a store for writing, making it if needed; temporary files that dead writers left are removed.

        Raises:
            StoreError: the folder cannot be written.
        """
        folder = Path(folder)
        marker = folder / "store.json"
        if not marker.exists():
            write_atomic(marker, canonical_json({"format": FORMAT}).encode())
        store = cls(folder)
        # A folder that was written once may be read-only by now: better to know before the first training.
        probe = folder / "rows" / ".probe"
        write_atomic(probe, b"")
        probe.unlink(missing_ok=True)
        for leftover in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp"), *folder.glob("*/*/.*.tmp")]:
            if abandoned(leftover):
                leftover.unlink(missing_ok=True)
        return store

    @contextlib.contextmanager
    def writing(self) -> Iterator[Store]:
        """Be the only one who computes rows into this store, as long as the context lasts; readers need no lock.

        Raises:
            StoreError: another driver is at it: which process, on which host. Or the folder cannot be written.
        """
        with exclusive(self.folder / ".lock"):
            yield self

    def path(self, key: str) -> Path:
        """The file of a cell."""
        return self.folder / "rows" / key[:2] / f"{key}.safetensors"

    def done(self, key: str) -> bool:
        """Whether a cell is there and whole; a damaged one is put into quarantine, so that it is computed again."""
        if key not in self._status:
            try:
                self._load(key)
            except FileNotFoundError:
                return False
            except StoreError as error:
                self._quarantine(self.path(key), error)
                return False
        return True

    def get(self, key: str) -> Outcome:
        """One cell.

        Raises:
            StoreError: it is not there, or damaged (then it is in quarantine now).
        """
        return self._get(key)[0]

    def metadata(self, key: str) -> dict[str, Any]:
        """Digests of source, units, recipe and task, what computed it, kept units (hex), seed, status, scalars."""
        return self._get(key)[1]

    def put(self, key: str, outcome: Outcome, metadata: Mapping[str, Any]) -> bool:
        """Write a cell; False if the same one is there already.

        Raises:
            StoreError: another result is stored under this key, or the folder cannot be written.
        """
        if self.done(key):
            stored = self.get(key)
            if checksum(stored.arrays, _facts(stored)) != checksum(outcome.arrays, _facts(outcome)):
                raise StoreError(
                    "a different result is stored under this key: the same row gave other numbers this time",
                    str(self.path(key)),
                    "make the rows deterministic, or use a new folder",
                )
            return False
        body = {**metadata, **_facts(outcome), "key": key, "format": FORMAT}
        write_atomic(self.path(key), encode(outcome.arrays, body))
        self._status[key] = outcome.status, outcome.reason, dict(outcome.scalars)
        return True

    def put_task(self, task: str, description: Mapping[str, np.ndarray]) -> None:
        """Write what `Target.described()` says of the target examples, once per task digest.

        Raises:
            StoreError: other labels, ids or halves are stored, or weights that differ by more than rounding.
        """
        path = self.folder / "tasks" / f"{task}.safetensors"
        stored = self._stored(path)
        arrays = {name: np.asarray(values) for name, values in description.items()}
        for name in stored.keys() & arrays.keys():
            old, new = stored[name], arrays[name]
            slack = 1e-12 if name == "weights" else 0.0
            if old.shape != new.shape or not np.allclose(old, new, slack, 0.0):
                raise StoreError(f"other {name} of the target examples are stored", str(path), "use a new folder")
        if not arrays.keys() <= stored.keys():
            write_atomic(path, encode({**arrays, **stored}, {"task": task, "format": FORMAT}))

    def put_thumbnails(self, record: Record, thumbnails: Mapping[str, np.ndarray]) -> None:
        """Write the first images of each unit, uint8 (n, height, width, channels) by unit name; some may be missing."""
        numbered = {str(i): thumbnails[name] for i, name in enumerate(record.names) if name in thumbnails}
        path, metadata = self._thumbnails(record), {"units": record.units, "format": FORMAT}
        stored = self._stored(path)
        if not path.exists() or checksum(stored, metadata) != checksum(numbered, metadata):
            write_atomic(path, encode(numbered, metadata))  # only for the eye: the latest way to draw them is the best

    def put_plan(self, record: Record) -> None:
        """Write a plan's description, unless it is there."""
        path = self.folder / "plans" / f"{record.digest}.json"
        stored = None
        try:
            stored = read_plan(path)
        except FileNotFoundError:
            pass
        except StoreError as error:
            self._quarantine(path, error)
        if stored is None:
            write_atomic(path, canonical_json(record.to_json()).encode())
        self._records[record.digest] = record

    def note_stop(self, plan: Any, note: Mapping[str, Any] | None) -> None:
        """Write that a plan stopped early: from now on only its first `note["rows"]` rows count. None: all count again.

        Equal stops are equal bytes, so a note holds no times and no hosts.

        Raises:
            StoreError: it cannot be written.
        """
        record = self.plan(plan)
        path = self._stop(record)
        if note is None:
            remove(path)
        else:
            body = {**note, "rows": whole(note["rows"], "note_stop"), "plan": record.digest}
            write_atomic(path, canonical_json({**body, "sha256": digest("stop", body)}).encode())

    def stopped(self, plan: Any = None) -> dict[str, Any] | None:
        """What `note_stop` wrote about a plan; None if it did not stop early.

        Raises:
            StoreError: the note is damaged.
        """
        record = self.plan(plan)
        path = self._stop(record)
        try:
            note = json.loads(read(path))
            if note.pop("sha256") != digest("stop", note) or note.pop("plan") != record.digest:
                raise ValueError
        except FileNotFoundError:
            return None
        except (StoreError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            mend = "delete this one file and run the same plan again"
            raise StoreError("is damaged: how many rows count is not known", str(path), mend) from error
        return dict(note)

    def _stop(self, record: Record) -> Path:
        return self.folder / "stops" / f"{record.digest}.json"

    def plans(self) -> dict[str, Record]:
        """Every plan of this store, by digest. Damaged descriptions are logged and left out."""
        for path in sorted((self.folder / "plans").glob("*.json")):
            try:
                self._plan(path.stem)
            except FileNotFoundError:
                continue  # another process has just moved it
            except StoreError as error:
                if path.stem not in self._damaged:
                    self._damaged.add(path.stem)
                    with contextlib.suppress(StoreError):  # who only reads may not be allowed to write
                        self.log(event="damaged plan", file=str(path.relative_to(self.folder)), reason=error.what)
        return dict(self._records)

    def plan(self, plan: Any = None) -> Record:
        """One plan: the one given (a `Plan` or a digest), this store's own, or the only one with a design.

        Raises:
            StoreError: no such plan, or several and none was named, or its description is damaged.
        """
        wanted = plan if plan is not None else self._default
        if isinstance(wanted, Record):
            return wanted
        if wanted is not None:
            name = wanted if isinstance(wanted, str) else wanted.digest
            try:
                return self._plan(name)
            except FileNotFoundError:
                mend = suggest(name, sorted(self.plans()))
                raise StoreError(f"no plan {name!r}", str(self.folder), mend) from None
        designs = [record for record in self.plans().values() if record.kind == "design"]
        if not designs and self._damaged:
            self._plan(min(self._damaged))
        if len(designs) != 1:
            known = ", ".join(f"{record.digest} ({len(record.rows)} rows)" for record in designs) or "none"
            raise StoreError(f"{len(designs)} plans", str(self.folder), f"name one with plan=; there are: {known}")
        return designs[0]

    def _plan(self, name: str) -> Record:
        if name not in self._records:
            path = self.folder / "plans" / f"{name}.json"
            try:
                self._records[name] = read_plan(path)
            except StoreError as error:
                raise StoreError(error.what, str(path), _REWRITTEN) from error
        return self._records[name]

    def names(self, plan: Any = None) -> tuple[str, ...]:
        """The names of the units, in mask order."""
        return self.plan(plan).names

    def design(self, plan: Any = None) -> Design:
        """The plan's design: all its rows, finished or not; `finished()` gives the positions that are.

        Raises:
            StoreError: the plan is a list of rows without a design, or this pydt draws other masks from it than those
                the rows were trained on.
        """
        from pydt.design import Design

        record = self.plan(plan)
        if record.design is None:
            raise StoreError("has no design, only rows", f"plan {record.digest}", "use rows() and masks()")
        design = Design.from_dict(record.design)
        if [mask.tobytes() for mask in design.packed()] != [row.keep for row in record.rows]:
            mend = "use the pydt that wrote it, or pydt.Design.explicit(store.masks())"
            raise StoreError("its design now gives other masks than the rows have", f"plan {record.digest}", mend)
        return design

    def thumbnails(self, plan: Any = None) -> dict[str, np.ndarray]:
        """The first images of each unit, uint8 (n, height, width, channels) by unit name; empty if none were kept.

        Raises:
            StoreError: the file is damaged.
        """
        record = self.plan(plan)
        path = self._thumbnails(record)
        try:
            arrays = decode(read(path))[0]
        except FileNotFoundError:
            return {}
        except StoreError as error:
            raise StoreError(error.what, str(path), _REWRITTEN) from error
        return {record.names[int(i)]: images for i, images in arrays.items()}

    def finished(self, plan: Any = None) -> np.ndarray:
        """Positions in the plan of the rows that are there and did not fail, int64 (models,)."""
        return np.array(self._sorted(self.plan(plan))[0], np.int64)

    def missing(self, plan: Any = None) -> np.ndarray:
        """Positions in the plan of the rows that still have to be computed, int64."""
        return np.array(self._sorted(self.plan(plan))[2], np.int64)

    def failed(self, plan: Any = None) -> list[tuple[int, Row, str]]:
        """Position, row and reason of each row that failed, in plan order."""
        record = self.plan(plan)
        return [(i, record.rows[i], reason) for i, reason in self._sorted(record)[1]]

    def rows(self, plan: Any = None) -> list[Row]:
        """The finished rows that did not fail, in plan order: row i belongs to `masks()[i]` and `outputs(...)[i]`."""
        record = self.plan(plan)
        return [record.rows[i] for i in self._sorted(record)[0]]

    def masks(self, plan: Any = None) -> np.ndarray:
        """The kept units of the finished rows, bool (models, groups)."""
        record = self.plan(plan)
        masks = [record.rows[i].mask for i in self._sorted(record)[0]]
        return np.array(masks, bool).reshape(len(masks), len(record.names))

    def outputs(self, task: Any, output: str = "margin", half: str = "score", plan: Any = None) -> np.ndarray:
        """One output of every finished row on every target example, averaged over the few-shot draws.

        Args:
            task: a `Task`, its name in the plan, or its digest.
            output: one of `OUTPUTS` (see `derive`). "correct" becomes the share of draws that were right, "prediction"
                the most frequent prediction (the smallest on a tie).
            half: "score" (influences), "report" (verdicts) or "all".

        Returns:
            float32 (models, examples), read-only, rows as in `masks()`, examples as in `examples(task, half)`.

        Raises:
            ConfigError: unknown output or half. StoreError: unknown task, or a damaged file.
        """
        record = self.plan(plan)
        column, name = self._task(record, task)
        if output not in OUTPUTS:
            raise ConfigError(f"unknown output {output!r}", "output", suggest(output, OUTPUTS))
        finished = tuple(self._sorted(record)[0])
        wanted = (record.digest, name, output, half, finished)
        if wanted not in self._outputs:
            chosen, labels = self._half(name, half), self.task(name)["labels"]
            values = np.empty((len(finished), len(chosen)), np.float32)
            for i, position in enumerate(finished):
                key = record.keys[position][column]
                primitives = self.get(key).arrays["primitives"]
                draws = derive(primitives[..., chosen], labels[chosen], output)
                values[i] = most_frequent(draws) if output == "prediction" else draws.mean(axis=0)
            values.flags.writeable = False
            self._outputs[wanted] = values
        return self._outputs[wanted]

    def scalars(self, task: Any, plan: Any = None) -> list[dict[str, Any]]:
        """The scalars (source accuracy and the like) of every finished row, as in `masks()`."""
        record = self.plan(plan)
        column, _ = self._task(record, task)
        return [dict(self._status[record.keys[i][column]][2]) for i in self._sorted(record)[0]]

    def task(self, task: Any) -> dict[str, np.ndarray]:
        """A task's target examples: "half" uint8 (0 score, 1 report), "labels" and "ids", all (examples,).

        Raises:
            StoreError: no such task, or its file is damaged.
        """
        path = self.folder / "tasks" / f"{getattr(task, 'digest', task)}.safetensors"
        try:
            return decode(read(path))[0]
        except FileNotFoundError:
            raise StoreError("is not there", str(path), "run a plan with this task") from None
        except StoreError as error:
            raise StoreError(error.what, str(path), _REWRITTEN) from error

    def examples(self, task: Any, half: str = "score", plan: Any = None) -> dict[str, np.ndarray]:
        """Labels, ids and half of the target examples of one half, in the order of the columns of `outputs`."""
        name = self._task(self.plan(plan), task)[1]
        chosen = self._half(name, half)
        return {column: values[chosen] for column, values in self.task(name).items()}

    def failure_test(self, plan: Any = None, permutations: int = 999) -> tuple[int, int, float]:
        """Whether failures go with some units: failed rows, finished rows (failed ones included), p.

        The statistic is the largest |z|, over the units, of the hypergeometric count "failed rows that kept the unit".
        Its distribution comes from permuting which rows failed: p = (1 + number at least as big) / (1 + permutations).
        """
        record = self.plan(plan)
        good, bad, _ = self._sorted(record)
        total, failed = len(good) + len(bad), len(bad)
        if failed in (0, total):
            return failed, total, 1.0
        order = [i for i, _ in bad] + good
        masks = np.array([record.rows[i].mask for i in order], np.float32)
        share = masks.mean(axis=0, dtype=np.float64)
        spread = np.sqrt(failed * share * (1 - share) * (total - failed) / (total - 1))
        varies = spread > 0
        if not varies.any():
            return failed, total, 1.0
        random = np.random.default_rng(0)
        largest = np.empty(1 + permutations)
        for i in range(1 + permutations):
            chosen = np.arange(failed) if i == 0 else random.permutation(total)[:failed]
            count = masks[chosen].sum(axis=0, dtype=np.float64)
            largest[i] = np.abs((count - failed * share)[varies] / spread[varies]).max()
        # the counts are whole numbers: equal ones may differ in the last bit after the division
        above = int((largest[1:] >= largest[0] - 1e-9).sum())
        return failed, total, (1 + above) / (1 + permutations)

    def log(self, **entry: Any) -> None:
        """Append one line to log.jsonl: what happened, with its time. The log is never read back as data."""
        path = self.folder / "log.jsonl"
        line = json.dumps({"time": round(time.time(), 3), **entry}, ensure_ascii=False, default=str) + "\n"
        try:
            with open(path, "ab+") as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # a writer died in the middle of its line
                        line = "\n" + line
                file.write(line.encode())
        except OSError as error:
            raise StoreError(f"cannot be written ({error.strerror})", str(path), "free space") from error

    def _stored(self, path: Path) -> dict[str, np.ndarray]:
        """The arrays of a file; none if it is not there, or was damaged and is in quarantine now."""
        try:
            return decode(read(path))[0]
        except FileNotFoundError:
            pass
        except StoreError as error:
            self._quarantine(path, error)
        return {}

    def _thumbnails(self, record: Record) -> Path:
        return self.folder / "thumbnails" / f"{digest('thumbnails', record.source, record.units)}.safetensors"

    def _load(self, key: str) -> tuple[Outcome, dict[str, Any]]:
        arrays, metadata = decode(read(self.path(key)))
        if metadata.get("key") != key:
            raise StoreError("holds another cell than its name says")
        outcome = Outcome(arrays, metadata["scalars"], metadata["status"], metadata["reason"])
        self._status[key] = outcome.status, outcome.reason, dict(outcome.scalars)
        for name, seen in self.facts.items():
            if name in metadata:
                seen.add(str(metadata[name]))
        return outcome, metadata

    def _get(self, key: str) -> tuple[Outcome, dict[str, Any]]:
        again = "run the same plan again: only what is missing is computed"
        try:
            return self._load(key)
        except FileNotFoundError:
            self._status.pop(key, None)
            raise StoreError("is not there", str(self.path(key)), again) from None
        except StoreError as error:
            self._quarantine(self.path(key), error)
            raise StoreError(f"{error.what}; it was moved to quarantine", str(self.path(key)), again) from error

    def _quarantine(self, path: Path, error: StoreError) -> None:
        self._status.pop(path.stem, None)
        target = self.folder / "quarantine" / f"{time.time_ns()}-{path.name}"
        try:
            target.parent.mkdir(exist_ok=True)
            os.replace(path, target)
        except FileNotFoundError:
            return  # another process was quicker
        except OSError as problem:
            wrong = f"{error.what} and cannot be moved to {target.parent} ({problem.strerror})"
            raise StoreError(wrong, str(path), "remove it by hand") from problem
        self.log(event="quarantine", file=str(path.relative_to(self.folder)), moved=target.name, reason=error.what)

    def _sorted(self, record: Record) -> tuple[list[int], list[tuple[int, str]], list[int]]:
        """Positions of a plan's rows: finished and ok; failed, with the reason; missing. Only of those that count."""
        good: list[int] = []
        bad: list[tuple[int, str]] = []
        missing: list[int] = []
        note = self.stopped(record)
        for i, keys in enumerate(record.keys if note is None else record.keys[: note["rows"]]):
            if not all(self.done(key) for key in keys):
                missing.append(i)
                continue
            reasons = [self._status[key][1] or "no reason given" for key in keys if self._status[key][0] != "ok"]
            if reasons:
                bad.append((i, reasons[0]))
            else:
                good.append(i)
        return good, bad, missing

    def _task(self, record: Record, task: Any) -> tuple[int, str]:
        """Column and digest of a task in a plan."""
        wanted = getattr(task, "digest", task)
        for i, known in enumerate(record.tasks):
            if wanted in (known["digest"], known["name"]):
                return i, known["digest"]
        names = [known["name"] for known in record.tasks]
        raise StoreError(f"no task {wanted!r}", f"plan {record.digest}", suggest(wanted, names))

    def _half(self, task: str, half: str) -> np.ndarray:
        members = self.task(task)["half"]
        if half == "all":
            return np.arange(len(members))
        if half not in HALVES:
            raise ConfigError(f"unknown half {half!r}", "half", suggest(half, [*HALVES, "all"]))
        return np.flatnonzero(members == HALVES[half])


def _facts(outcome: Outcome) -> dict[str, Any]:
    return {"status": outcome.status, "reason": outcome.reason, "scalars": dict(outcome.scalars)}
