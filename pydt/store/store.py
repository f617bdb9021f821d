"""The store: a folder of finished rows, safe against the death of its writers at any moment.

DIR/store.json                       format of the store
DIR/rows/ab/<key>.safetensors        one cell, the outputs of one row on one task; `ab` are its key's first two digits
DIR/bank/ab/<key>.safetensors        what a run kept of one source training (`bank.py`)
DIR/packed/<digest>/                 many cells in three files, after `pydt.store.compact` (`block_format.py`)
DIR/tasks/<digest>.safetensors       half, label and id of each target example of a task; the examples of every draw
DIR/thumbnails/<digest>.safetensors  the first images of each group of a source, and where they lie
DIR/plans/<digest>.json              what was asked: names of the groups, design, recipe, tasks, rows
DIR/stops/<digest>.json              of a plan that stopped early: how many of its first rows count, and why
DIR/rules/<digest>.json              what a stopping rule had reached that did not end its plan
DIR/choices/<digest>.json            a learning rate that was chosen on validation images; see `choices.py`
DIR/names/<digest>.json              what people call a plan, and its file; see `plan_names.py`
DIR/notes/<digest>.json              what was left out of a plan's data; see `pydt.ensemble.data_remarks`
DIR/log.jsonl                        times, hosts, versions, warnings: all that differs between equal runs
DIR/quarantine/                      files that failed their checks
DIR/.lock                            names the process that writes, while it does

Folders are listed and headers read: a store of 10,000 rows opens within a second. Every bit of an array is checked when
it is read, so damage is found before it is used; the file then goes to quarantine.

More than 500 lines: one class answers all questions about the rows of a plan.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from pydt.base import (
    LARGEST_TEXT,
    SEED,
    ConfigError,
    Form,
    StoreError,
    Unreadable,
    as_path,
    canonical_json,
    checksum,
    clear,
    digest,
    encode,
    exclusive,
    html_table,
    one_of,
    place_by_name,
    read_json,
    remove,
    suggest,
    to_frame,
    whole,
    write_atomic,
)
from pydt.design import Design
from pydt.store.block_format import STATUS
from pydt.store.cells import Cells, placed
from pydt.store.descriptions import (
    DRAWN,
    HALVES,
    NAMES,
    decoded_draws,
    decoded_texts,
    described,
    pictures,
    with_draws,
)
from pydt.store.imported import checked_arrays
from pydt.store.notes import read_note, write_note
from pydt.store.outputs import averaged, known_output, metric_output
from pydt.store.plan_names import read_names
from pydt.store.plan_record import FORMAT, Drawn, Record, read_plan
from pydt.store.row_format import file_name
from pydt.store.rows import Row

_SAMPLE = 250  # cells whose headers tell what computed all of them
_STOP: Form = {"rule?": str, "reason?": str, "looks?": SEED, "decided?": [(str, range(-1, 2))]}
_RULE: Form = {**_STOP, "rule": str, "reason": str, "looks": SEED, "looked": SEED}
T = TypeVar("T")
_PREFIX = re.compile("[0-9a-f]{4,}")  # of a digest: as git abbreviates its own
_LISTED = 20  # plans that an error names
_REWRITTEN = "run the same plan again: it writes this file anew"


class Store(Cells):
    """A folder of finished rows; `pydt.run` fills it, any number of plans may share it.

    `Store(folder)` opens one that exists, `Store.create(folder)` makes or opens it for writing. Methods that take
    `plan` accept a `Plan`, its name (see `called`) or its digest, or how one of them begins, or None: the plan whose
    `run` returned this store, or the only plan with a design. A row is finished when it has cells for all the plan's
    tasks, and failed when one of these failed; `masks()` and `outputs()` have the rows that finished and did not fail,
    in plan order. Where a plan stopped early (`stopped`), later rows do not count.

    Raises:
        StoreError: there is no store in `folder`, or it was written by a newer format.
    """

    def __init__(self, folder: str | os.PathLike[str], plan: Any = None) -> None:
        super().__init__(folder)
        self._default = plan
        self._records: dict[str, Record] = {}
        self._damaged: set[str] = set()  # plan files that were found damaged, and logged
        self._seen: dict[str, tuple[np.ndarray, dict[tuple[int, int], str]]] = {}  # of a plan: states, reasons
        self.kept = 1 << 30  # bytes of outputs that are kept for the next question
        self._outputs: dict[tuple[str, ...], tuple[bytes, np.ndarray]] = {}  # with the rows of each
        marker = self.folder / "store.json"
        if self.folder.is_file():
            mend = "give the folder: of a plan file, `dir` of its table run, by default its name without .toml"
            raise StoreError("is a file, not the folder of a store", str(self.folder), mend)
        try:
            with placed(marker, "delete this one file and run again"):
                found = read_json(marker, {"format": int}, 4096)["format"]
        except FileNotFoundError:
            raise StoreError("holds no store", str(self.folder), "run a plan into it first") from None
        if found != FORMAT:
            wrong = f"has format {found}, this is format {FORMAT}"
            raise StoreError(wrong, str(self.folder), "use the pydt that wrote it")

    @classmethod
    def create(cls, folder: str | os.PathLike[str]) -> Store:
        """Open a store for writing, making it if needed; temporary files of dead writers are removed.

        Raises:
            StoreError: the folder cannot be written.
        """
        folder = as_path(folder, "store", made=True)
        marker = folder / "store.json"
        if not marker.exists():
            write_atomic(marker, canonical_json({"format": FORMAT}).encode())
        store = cls(folder)
        store.hold()
        # the folder may be read-only by now: better to know before the first training
        store.write("rows/.probe", b"")
        remove(folder / "rows" / ".probe")
        clear(folder)
        return store

    @classmethod
    def from_arrays(
        cls,
        folder: str | os.PathLike[str],
        masks: Any,
        outputs: Any,
        *,
        groups: Any = None,
        examples: Any = None,
        half: Any = None,
        weights: Any = None,
        unit: str = "units",
        scale: float = 1.0,
        higher_is_better: bool = True,
        name: str = "outputs",
        source: str = "source",
        by: str = "group",
        seeds: Any = None,
        bitorder: str = "little",
    ) -> Store:
        """Store an ensemble that was trained elsewhere: reports, rankings and scores then need no training.

        Again with the same arrays, nothing is written; other arrays become another plan. A row with NaN or infinite
        outputs is stored as failed, as is one of zeros alone where no other row has a zero: it was never written.

        Args:
            folder: of the store, made if needed.
            masks: bool or 0/1 (models, groups), 1 where a group was kept; or packed bits, uint8 (models,
                ceil(groups / 8)), with `groups`. A memory map is read in parts, as are those of outputs.
            outputs: numbers (models, examples) of any dtype, or (models,); several measures as {name: numbers}, or
                {pydt.Measure: numbers}, which says for itself what follows from `examples` to `higher_is_better`.
            groups: names of the groups, or how many there are; by default those of the columns, if masks are a table.
            examples: an entry for each target example: its id where all differ, its class where they repeat; by default
                the names of the columns of outputs, if they are a table.
            half, weights, unit, scale, higher_is_better: as of `pydt.Measure`.
            name: of the measure, where `outputs` has no names.
            source, by: what reports call the source, and a group in a word.
            seeds: of the rows, whole numbers; 0, 1, ... by default.
            bitorder: of packed masks: "little", or "big", the default of numpy.packbits.

        Returns:
            the store, with this plan as its own.

        Raises:
            DataError: outputs, names, ids or seeds that do not fit, or rows that failed all.
            DesignError: masks of other numbers than 0 and 1 or of another shape, or a row that keeps no group.
            ConfigError: a measure without name or unit. StoreError: the folder cannot be written.
        """
        about = {"unit": unit, "scale": scale, "higher_is_better": higher_is_better, "half": half, "weights": weights}
        given = checked_arrays(
            masks, outputs, groups=groups, examples=examples, about=about, name=name, source=source, by=by,
            seeds=seeds, bitorder=bitorder,
        )  # fmt: skip
        store = cls.create(folder)
        with store.writing():
            for measure in given.measures:
                store.put_task(measure.digest, measure.stored())
            written = given.put(store)
            known = given.record.digest in store.plans()
            store.put_plan(given.record)  # last: a plan that is there has all its rows
            if written or not known:
                store.log(event="import", plan=given.record.digest, rows=len(given.record.rows), cells=written)
        store.default(given.record)
        return store

    def default(self, record: Record) -> None:
        """Let methods that take `plan` mean this one where none is given."""
        self._default = record.digest

    @contextlib.contextmanager
    def writing(self) -> Iterator[Store]:
        """Be the only process that computes rows into this store; readers need no lock.

        Raises:
            StoreError: another driver is at work (which process, on which host), or the folder cannot be written.
        """
        with exclusive(self.folder / ".lock"):
            yield self

    def lacking(self, plan: Any = None, every: bool = False) -> np.ndarray:
        """Which cells of a plan are missing, bool (rows, tasks), of all its rows.

        Folders are listed and some headers read (or `every` one), so that `facts` says what computed the cells; damage
        is found by `check`.
        """
        cells = self.plan(plan).cells
        lacks: np.ndarray = ~self.there(cells)
        known = cells[~lacks]
        for key in known[:: 1 if every else max(1, len(known) // _SAMPLE)]:
            with contextlib.suppress(StoreError, FileNotFoundError):
                self._peek(key.tobytes().hex())
        return lacks

    def left(self, plan: Any = None, every: bool = False) -> tuple[list[tuple[int, tuple[int, ...]]], list[int]]:
        """What `pydt.run` has to train of a plan, and what is stored; each training once, by its first row.

        A plan that was never run into this store may have rows here: of a longer plan, or one with other names. Args
        as `lacking`.

        Returns:
            rows that lack a cell, with the positions of the tasks that they lack; rows that lack none.
        """
        record = self.plan(plan)
        lacks, once = self.lacking(record, every), record.first == np.arange(len(record.rows))
        missing, stored = (np.flatnonzero(once & part).tolist() for part in (lacks.any(1), ~lacks.any(1)))
        return [(i, tuple(np.flatnonzero(lacks[i]).tolist())) for i in missing], stored

    def check(self, plan: Any = None, rows: np.ndarray | None = None) -> int:
        """Read every bit of some rows of a plan (None: of all); how many damaged cells went to quarantine."""
        record, damaged = self.plan(plan), 0
        there = self.there(record.cells)
        for i in np.arange(len(there)) if rows is None else rows:
            for column in np.flatnonzero(there[i]):
                damaged += not self.done(record.cells[i, column].tobytes().hex())
        return damaged

    def put_task(self, task: str, description: Mapping[str, np.ndarray]) -> None:
        """Write what `Target.described()` says of the target examples, and `Task.drawn()` of the draws, once per task
        digest. What an older store lacks is added.

        Raises:
            StoreError: other labels, ids, halves or draws are stored, or weights that differ by more than rounding.
        """
        path = self.folder / "tasks" / f"{task}.safetensors"
        stored = self._stored(path, with_draws) or {}
        arrays = {name: np.asarray(values) for name, values in description.items()}
        for name in sorted((stored.keys() & arrays.keys()) - {"draw_keys"}):  # names may change, examples may not
            old, new = stored[name], arrays[name]
            slack = 1e-12 if name == "weights" else 0.0
            if old.shape != new.shape or not np.allclose(old, new, slack, 0.0):
                raise StoreError(f"other {name} of the target examples are stored", str(path), "use a new folder")
        if not arrays.keys() <= stored.keys():
            self.write(f"tasks/{task}.safetensors", encode({**arrays, **stored}, {"task": task, "format": FORMAT}))

    def put_thumbnails(
        self,
        record: Record,
        thumbnails: Mapping[str, np.ndarray],
        captions: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        """Write the first images of each group, uint8 (n, height, width, channels) by its name, and where each of them
        lies; some may be missing.
        """
        numbered = {str(i): thumbnails[name] for i, name in enumerate(record.names) if name in thumbnails}
        told = {str(i): list(captions[name]) for i, name in enumerate(record.names) if name in captions}
        path, metadata = self._thumbnails(record), {"units": record.units, "format": FORMAT}
        old, known = self._stored(path, pictures) or (None, None)
        if old is None or known != told or checksum(old, metadata) != checksum(numbered, metadata):
            # no number depends on them: the latest way to draw them wins
            self.write(path.relative_to(self.folder), encode(numbered, {**metadata, "captions": told}))

    def has_thumbnails(self, record: Record) -> bool:
        """Whether sound thumbnails with captions are stored, so that none need be drawn."""
        stored = self._stored(self._thumbnails(record), pictures)
        return stored is not None and stored[1] is not None

    def put_plan(self, record: Record) -> None:
        """Write a plan's description, unless it is there."""
        path = self.folder / "plans" / f"{record.digest}.json"
        if self._stored(path, read_plan) is None:
            self._same_rule(record)
            text = canonical_json(record.to_json()).encode()
            if len(text) > LARGEST_TEXT:
                wrong = f"plan {record.digest} takes {len(text) >> 20} MiB to write down"
                raise StoreError(wrong, str(path), "draw its design by a rule, or take fewer rows")
            self.write(f"plans/{record.digest}.json", text)
        self._records[record.digest] = record

    def _same_rule(self, record: Record) -> None:
        """Refuse rows named by a rule that now draws other masks than for a stored plan: they get the same names."""
        if isinstance(record.rows, Drawn) and record.rows.rule is not None:
            for other in self.plans().values():
                if isinstance(other.rows, Drawn) and other.rows.rule == record.rows.rule:
                    other.rows.check()

    def note_stop(self, plan: Any, note: Mapping[str, Any] | None) -> None:
        """Write that a plan stopped early: only its first `note["rows"]` rows count. None: all count again.

        Equal stops are equal bytes: a note holds no times and no hosts.

        Raises:
            StoreError: it cannot be written.
        """
        record = self.plan(plan)
        body = None if note is None else {**note, "rows": whole(note["rows"], "rows", "note_stop", error=ConfigError)}
        write_note(self, "stops", record.digest, body)

    def stopped(self, plan: Any = None) -> dict[str, Any] | None:
        """What `note_stop` wrote about a plan; None if it did not stop early.

        Raises:
            StoreError: the note is damaged.
        """
        record = self.plan(plan)
        form = {**_STOP, "rows": range(len(record.rows) + 1)}
        if (note := read_note(self, "stops", record.digest, form, ": how many rows count is not known")) is None:
            return None
        return {"rule": "a rule that is not named", "looks": 1, "reason": "no reason given", **note}

    def note_rule(self, plan: Any, note: Mapping[str, Any] | None) -> None:
        """Write what a stopping rule that did not end a plan had reached, see `rule`; None: there is none."""
        write_note(self, "rules", self.plan(plan).digest, note)

    def rule(self, plan: Any = None) -> dict[str, Any] | None:
        """The stopping rule of a plan's last run and what it had reached; None: there was no rule.

        Returns:
            "met": whether it ended the plan. If so, the rest is as in `stopped`; else "rule", "reason" (what it had
            reached), "looks", "looked" (rows at the last look), and of "sign" "decided": name and sign.

        Raises:
            StoreError: the note is damaged.
        """
        record = self.plan(plan)
        if (stop := self.stopped(record)) is not None:
            return {"met": True, **stop}
        note = read_note(self, "rules", record.digest, _RULE)
        return None if note is None else {"met": False, **note}

    def plans(self) -> dict[str, Record]:
        """Every plan of this store, by digest; damaged ones are logged and left out."""
        for path in sorted((self.folder / "plans").glob("*.json")):
            try:
                self._plan(path.stem)
            except FileNotFoundError:
                continue  # another process moved it
            except Unreadable:
                raise
            except StoreError as error:
                self.damaged[path] = error.what
                if path.stem not in self._damaged:
                    self._damaged.add(path.stem)
                    if self.reads_only:
                        continue
                    with contextlib.suppress(StoreError):  # a reader may have no right to write
                        self.log(event="damaged plan", file=str(path.relative_to(self.folder)), reason=error.what)
        return dict(self._records)

    def plan(self, plan: Any = None) -> Record:
        """One plan: the one given (a `Plan`, a name or digest, or how it begins), this store's own, or the only
        design's.

        Raises:
            StoreError: no such plan, or several and none was named, or its description is damaged.
            ConfigError: something that is no plan.
        """
        wanted = plan if plan is not None else self._default
        if isinstance(wanted, Record):
            return wanted
        if wanted is not None:
            if not isinstance(wanted, str) and not isinstance(getattr(wanted, "digest", None), str):
                mend = "give a pydt.Plan, or a name or digest as text; pydt.read_plan(path).plan is the plan of a file"
                raise ConfigError(f"is of type {type(wanted).__name__}, not a plan", "Store.plan", mend)
            name = wanted if isinstance(wanted, str) else wanted.digest
            with contextlib.suppress(FileNotFoundError):
                return self._plan(name)
            if not isinstance(wanted, str):
                mend = "run it into this store first; a plan of another recipe, design or task is another plan"
                raise StoreError(f"no plan {name[:8]!r}", str(self.folder), mend)
            return self._named(name)
        designs = self.designs()
        if not designs and self._damaged:
            self._plan(min(self._damaged))
        if not designs and (lists := len(self.plans())):
            mend = "`pydt study FILE` writes the page of a study; else name a plan: plan=NAME"
            raise StoreError(f"none of its {lists:,} plans has a design", str(self.folder), mend)
        if len(designs) != 1:
            raise StoreError(f"{len(designs)} plans", str(self.folder), self._choose(designs))
        return designs[0]

    def designs(self) -> list[Record]:
        """The plans with a design."""
        return [record for record in self.plans().values() if record.kind == "design"]

    def called(self, plan: Any = None) -> str:
        """What people call a plan: the name that `pydt run` noted, else the first eight digits of its digest."""
        return self._called(self.plan(plan).digest)

    def _called(self, plan: str) -> str:
        known = read_names(self).get(plan)
        return plan[:8] if known is None else known.name

    def _named(self, name: str) -> Record:
        """The plan of this name, or the only plan, or damaged file of one, whose name begins so, or whose digest does
        (four hex digits or more)."""
        plans, named = self.plans(), {one.plan: one.name for one in read_names(self).values()}
        known = sorted({*plans, *self._damaged})
        found = [plan for plan in known if named.get(plan) == name] or [
            plan
            for plan in known
            if (name and named.get(plan, "").startswith(name)) or (_PREFIX.fullmatch(name) and plan.startswith(name))
        ]
        if len(found) > 1:
            what = f"{len(found)} plans start with {name!r}"
            whole, damaged = ([plan for plan in found if (plan in plans) == there] for there in (True, False))
            raise StoreError(what, str(self.folder), self._choose([plans[plan] for plan in whole], damaged))
        if not found:
            near = suggest(name, [self._called(plan) for plan in known])
            raise StoreError(f"no plan {name!r}", str(self.folder), near if near.startswith("did") else self._choose())
        return self._plan(found[0])

    def _choose(self, plans: Sequence[Record] | None = None, damaged: Sequence[str] = ()) -> str:
        """How to name one of several plans (by default those with a design), with what tells them apart."""
        named = {one.plan: one.name for one in read_names(self).values()}
        digits = 8
        records = self.designs() if plans is None else plans
        while len({name[:digits] for name in (*(p.digest for p in records), *damaged)}) < len(records) + len(damaged):
            digits += 1

        def facts(record: Record) -> str:
            tasks = ", ".join(task["name"] for task in record.tasks[:3]) + (", ..." if len(record.tasks) > 3 else "")
            rows = f"{len(record.rows):,} row{'s' * (len(record.rows) != 1)}"
            return f"{named.get(record.digest, record.digest[:digits])} ({rows}; {tasks})"

        known = [*sorted(map(facts, records))[:_LISTED], *(f"{name[:digits]} (damaged)" for name in damaged[:_LISTED])]
        known += ["..."] if max(len(records), len(damaged)) > _LISTED else []
        how = "name one: plan=NAME, or give the plan file"
        return f"{how}; there are: {'; '.join(known) or 'none'}"

    def _plan(self, name: str) -> Record:
        if name not in self._records:
            path = self.folder / "plans" / f"{file_name(name)}.json"
            with placed(path, _REWRITTEN):
                self._records[name] = read_plan(path)
        return self._records[name]

    def names(self, plan: Any = None) -> tuple[str, ...]:
        """The names of the groups, in mask order."""
        return self.plan(plan).names

    def design(self, plan: Any = None) -> Design:
        """The plan's design, of all its rows; `finished()` gives the positions of those that finished.

        Raises:
            StoreError: the plan is a list of rows without a design, or this pydt draws other masks from it than those
                the rows were trained on.
        """
        record = self.plan(plan)
        if not isinstance(record.rows, Drawn):
            raise StoreError(
                "has no design, only rows", f"plan {self._called(record.digest)}", "use rows() and masks()"
            )
        record.rows.check()
        return record.rows.design

    def thumbnails(self, plan: Any = None) -> dict[str, np.ndarray]:
        """The first images of each group, uint8 (n, height, width, channels) by its name; empty if none were kept.

        Raises:
            StoreError: the file is damaged.
        """
        record = self.plan(plan)
        arrays = self._pictured(record)[0]
        return {name: arrays[str(i)] for i, name in enumerate(record.names) if str(i) in arrays}

    def captions(self, plan: Any = None) -> dict[str, tuple[str, ...]]:
        """Where each image of `thumbnails` lies, by name of the group: the path of its file below the source's folder,
        its key in a shard, its position in an array. Empty of a store that an earlier version wrote.

        Raises:
            StoreError: the file is damaged.
        """
        record = self.plan(plan)
        told = self._pictured(record)[1] or {}
        return {name: tuple(told[str(i)]) for i, name in enumerate(record.names) if str(i) in told}

    def _pictured(self, record: Record) -> tuple[dict[str, np.ndarray], dict[str, list[str]] | None]:
        path = self._thumbnails(record)
        try:
            with placed(path, _REWRITTEN):
                return pictures(path)
        except FileNotFoundError:
            return {}, None

    def finished(self, plan: Any = None) -> np.ndarray:
        """Positions in the plan of the rows that finished and did not fail, int64 (models,)."""
        return self.split(self.plan(plan))[0]

    def missing(self, plan: Any = None) -> np.ndarray:
        """Positions in the plan of the rows that are missing, int64."""
        return self.split(self.plan(plan))[2]

    def failed(self, plan: Any = None) -> list[tuple[int, Row, str]]:
        """Position, row and reason of each row that failed, in plan order."""
        record = self.plan(plan)
        return [(i, record.rows[i], reason) for i, reason in self.split(record)[1]]

    def rows(self, plan: Any = None) -> list[Row]:
        """The finished rows that did not fail, in plan order: row i belongs to `masks()[i]` and `outputs(...)[i]`."""
        record = self.plan(plan)
        return [record.rows[i] for i in self.split(record)[0].tolist()]

    def masks(self, plan: Any = None) -> np.ndarray:
        """The kept groups of the finished rows, bool (models, groups)."""
        record = self.plan(plan)
        packed, groups = record.packed(self.split(record)[0]), len(record.names)
        return np.unpackbits(packed, axis=1, count=groups, bitorder="little").view(bool)

    def to_frame(self, plan: Any = None) -> Any:
        """The masks of the finished rows as a `pandas.DataFrame`: bool, by the names of the groups; its index is the
        position of each row in the plan. `pydt.influences` keeps the names.

        Raises:
            ConfigError: pandas is not installed.
        """
        record = self.plan(plan)
        return to_frame(self.masks(record), "Store", names=list(record.names), index=("row", self.finished(record)))

    def __repr__(self) -> str:
        plans = len(list((self.folder / "plans").glob("*.json")))
        return f"Store({str(self.folder)!r}, {plans:,} plan{'' if plans == 1 else 's'})"

    def _repr_html_(self) -> str:
        def line(record: Record) -> tuple[str, ...]:
            finished, failed, _ = self.split(record)
            tasks = ", ".join(task["name"] for task in record.tasks[:3]) + (", ..." if len(record.tasks) > 3 else "")
            numbers = (len(record.rows), len(finished), len(failed), len(record.names))
            return (self._called(record.digest), record.kind, *(f"{one:,}" for one in numbers), tasks)

        plans = sorted(self.plans().values(), key=lambda record: record.kind != "design")
        heads = "plan", "kind", "rows", "finished", "failed", "groups", "tasks"
        return html_table(repr(self), heads, map(line, plans), len(plans), "plans")

    def outputs(self, task: Any, output: str = "margin", half: str = "score", plan: Any = None) -> np.ndarray:
        """One output of every finished row on every target example, averaged over the few-shot draws.

        Args:
            task: a `Task`, its name in the plan, or its digest.
            output: one of `OUTPUTS` (see `pydt.store.derive`). "correct" becomes the share of draws that were right,
                "prediction" the most frequent prediction (the smallest on a tie). Of targets with the metric "auroc"
                also "auroc": the values whose weighted mean over a half is its AUROC. Of a measure "value" alone, as
                its runner gave it.
            half: "score" (influences), "report" (verdicts) or "all".

        Returns:
            float32 (models, examples), read-only, rows as in `masks()`, examples as in `examples(task, half)`.

        Raises:
            ConfigError: unknown output or half. StoreError: unknown task, or a damaged file.
        """
        record = self.plan(plan)
        column, name = self._task(record, task)
        known_output(output, record.tasks[column], "Store.outputs")
        finished = self.split(record)[0]
        wanted, rows = (record.digest, name, output, half), finished.tobytes()
        known, values = self._outputs.pop(wanted, (None, np.empty((0, 0), np.float32)))
        if known != rows:
            chosen, labels = self._half(name, half), self.task(name)["labels"]
            values = np.empty((len(finished), len(chosen)), np.float32)
            for i, position in enumerate(finished):
                key = record.cells[position, column].tobytes().hex()
                values[i] = averaged(self.get(key), labels, output, str(self.path(key)), chosen)
            values.flags.writeable = False
        while self._outputs and values.nbytes + sum(kept.nbytes for _, kept in self._outputs.values()) > self.kept:
            del self._outputs[next(iter(self._outputs))]  # asked for longest ago
        self._outputs[wanted] = rows, values
        return values

    def metric_output(self, task: Any = None, plan: Any = None, asked: str | None = None) -> str:
        """The output whose weighted mean over a half is the metric of a task (the plan's first), "correct", "auroc" or
        "value"; or another one that was asked for."""
        return metric_output(self.described(task, plan)) if asked is None else asked

    def described(self, task: Any = None, plan: Any = None) -> dict[str, Any]:
        """What a plan says of one of its tasks, the first by default: "digest", "name", "examples", "settings".

        Raises:
            StoreError: it has no such task.
        """
        record = self.plan(plan)
        return record.tasks[0 if task is None else self._task(record, task)[0]]

    def scalars(self, task: Any, plan: Any = None) -> list[dict[str, Any]]:
        """The scalars (source accuracy and the like) of every finished row, as in `masks()`."""
        record = self.plan(plan)
        column, _ = self._task(record, task)
        finished = self.split(record)[0]
        return [dict(self.get(key.tobytes().hex()).scalars) for key in record.cells[finished, column]]

    def glimpse(self, plan: Any = None, most: int = 200, task: Any = None) -> list[dict[str, Any]]:
        """The scalars of at most so many finished rows on a task (the first), evenly spaced, from headers: not
        checksummed."""
        record = self.plan(plan)
        cells = record.cells[self.split(record)[0], 0 if task is None else self._task(record, task)[0]]
        chosen = np.linspace(0, len(cells) - 1, min(most, len(cells))).astype(int)
        return [dict(self._peek(cells[i].tobytes().hex())["scalars"]) for i in chosen]

    def replaced(self, plan: Any = None) -> tuple[int, int]:
        """Finished rows in which broken source images were replaced by others, and how many images, summed over rows.

        Known from headers; (0, 0) where the recipe does not allow it.
        """
        record = self.plan(plan)
        if record.settings.get("on_error") != "skip":
            return 0, 0
        cells = record.cells[self.split(record)[0], 0]
        met = [self._peek(key.tobytes().hex())["scalars"].get("skipped", 0) for key in cells]
        met = [images for images in met if isinstance(images, int) and images > 0]
        return len(met), sum(met)

    def task(self, task: Any) -> dict[str, np.ndarray]:
        """A task's target examples: "half" uint8 (0 score, 1 report), "labels" and "ids", all (examples,).

        Raises:
            StoreError: no such task, or its file is damaged.
        """
        return self._task_file(task, described)

    def draws(self, task: Any) -> dict[str, Any]:
        """The labelled examples of every few-shot draw of a task.

        Returns:
            "positions" int64 (draws, n) in `target.train`; "labels" of the same shape; "keys": what the data set calls
            them, a list of n texts for each draw.

        Raises:
            StoreError: no such task, its file is damaged, or an older version wrote it without draws.
        """
        arrays, where = self._task_file(task, with_draws), str(self._task_path(task))
        if DRAWN[0] not in arrays:
            raise StoreError("names no draws", where, "run the same plan again: it adds them and trains nothing anew")
        return decoded_draws(arrays, where)

    def example_names(self, task: Any) -> list[str] | None:
        """The ids that a measure gives its examples; None where they have positions alone. Raises as `task`."""
        where, found = str(self._task_path(task)), self._task_file(task, with_draws)
        if NAMES not in found:
            return None
        names = decoded_texts(found[NAMES], where)
        if len(names) <= int(found["ids"].max()):
            raise StoreError("is damaged (not an id for each example)", where)
        return names

    def whole_task(self, task: Any) -> dict[str, np.ndarray]:
        """All that `put_task` has written of a task; raises as `task`."""
        return self._task_file(task, with_draws)

    def _task_path(self, task: Any) -> Path:
        return self.folder / "tasks" / f"{file_name(getattr(task, 'digest', task))}.safetensors"

    def _task_file(self, task: Any, reader: Callable[[Path], T]) -> T:
        path = self._task_path(task)
        try:
            with placed(path, _REWRITTEN):
                return reader(path)
        except FileNotFoundError:
            raise StoreError("is not there", str(path), "run a plan with this task") from None

    def examples(self, task: Any, half: str = "score", plan: Any = None) -> dict[str, np.ndarray]:
        """Labels, ids and half of the target examples of one half, in the order of the columns of `outputs`."""
        name = self._task(self.plan(plan), task)[1]
        chosen = self._half(name, half)
        return {column: values[chosen] for column, values in self.task(name).items()}

    def _stored(self, path: Path, reader: Callable[[Path], T]) -> T | None:
        """What a file holds; None if it is not there, or was damaged and is in quarantine now."""
        try:
            return reader(path)
        except FileNotFoundError:
            pass
        except Unreadable:
            raise
        except StoreError as error:
            self.quarantine(path, error)
        return None

    def _thumbnails(self, record: Record) -> Path:
        return self.folder / "thumbnails" / f"{digest('thumbnails', record.source, record.units)}.safetensors"

    def _look(self, record: Record) -> tuple[np.ndarray, dict[tuple[int, int], str]]:
        """State of each cell of a plan, uint8 (rows, tasks), 0 if missing, else of STATUS; and why some failed."""
        cells = record.cells
        states, reasons = self._seen.setdefault(record.digest, (np.zeros(cells.shape[:2], np.uint8), {}))
        there = self.there(cells)
        states[~there] = 0
        for block in self.blocks():
            position = block.finder(cells)
            fine = (position >= 0) & (states == 0)
            fine[fine] = block.status[position[fine]] == STATUS["ok"]
            states[fine] = STATUS["ok"]
        for i, column in np.argwhere(there & (states == 0)).tolist():
            key = cells[i, column].tobytes().hex()
            try:
                states[i, column], reason = self.state(key)
                if states[i, column] == STATUS["failed"]:
                    reasons[i, column] = reason
            except FileNotFoundError:
                continue
            except Unreadable:
                raise
            except StoreError as error:
                self.discard(key, error)
        return states, reasons

    def split(self, record: Record, all: bool = False) -> tuple[np.ndarray, list[tuple[int, str]], np.ndarray]:
        """Positions of a plan's rows that count (or of `all`): finished; failed, with the reason; missing."""
        states, reasons = self._look(record)
        if not all and (note := self.stopped(record)) is not None:
            states = states[: note["rows"]]
        lost, whole = (states == STATUS["failed"]).any(1), (states != 0).all(1)
        bad = np.flatnonzero(whole & lost).tolist()
        first = (states == STATUS["failed"]).argmax(1)
        return (
            np.flatnonzero(whole & ~lost),
            [(i, reasons[i, int(first[i])]) for i in bad],
            np.flatnonzero(~whole),
        )

    def _task(self, record: Record, task: Any) -> tuple[int, str]:
        """Column and digest of a task in a plan."""
        wanted = getattr(task, "digest", task)
        names, digests = ([known[part] for known in record.tasks] for part in ("name", "digest"))
        at = place_by_name(wanted, names, digests, "task", f"plan {self._called(record.digest)}", StoreError)
        return at, digests[at]

    def _half(self, task: str, half: str) -> np.ndarray:
        members = self.task(task)["half"]
        if one_of(half, [*HALVES, "all"], "half", "Store") == "all":
            return np.arange(len(members))
        return np.flatnonzero(members == HALVES[half])
