"""The cells of a store (one row seen through one task each), as files or in blocks.

Folders are listed and headers read: ten thousand cells take less than a second. Every bit of an array is checked when
read; a damaged cell goes to quarantine and counts as missing. An unreadable file (permission, I/O error) is an error
and stays where it is: its state is unknown.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pydt.base import (
    Form,
    StoreError,
    Unreadable,
    append_line,
    as_path,
    check,
    checksum,
    encode,
    gone,
    load,
    move,
    opened,
    parse,
    write_atomic,
)
from pydt.store.block_format import STATUS, Block, Finder, as_keys
from pydt.store.plan_record import FORMAT
from pydt.store.row_format import CELL, peek, says_ok
from pydt.store.rows import FACTS, Outcome

_CELL = re.compile(r"[0-9a-f]{32}\.safetensors")
_LONGEST = 1 << 20  # bytes of a line of the log


class Cells:
    """The part of `pydt.Store` that reads and writes cells by their keys."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = as_path(folder, "store")
        self.renamed: Path | None = None  # where it was before it was renamed
        self._held: int | None = None
        self.reads_only = False  # what is damaged is left where it is
        self.damaged: dict[Path, str] = {}  # files and blocks that were found damaged, and why
        self.facts: dict[str, set[str]] = {name: set() for name in FACTS}  # what computed the cells seen so far
        self._blocks: dict[str, Block] = {}

    def hold(self) -> None:
        """From now on, follow the folder if it is renamed; `renamed` then says where it was."""
        try:
            self._held = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            wrong = f"cannot be read ({error.strerror or error})"
            raise StoreError(wrong, str(self.folder), "make the folder readable") from error
        weakref.finalize(self, os.close, self._held)

    def write(self, name: str | Path, data: bytes) -> None:
        """Write a file of the store; `name` is relative to its folder.

        Raises:
            StoreError: it cannot be written, or the folder is gone.
        """
        self._follow()
        write_atomic(self.folder / name, data, within=self.folder)

    def _follow(self) -> None:
        """Before a write, find the new name of a folder that was renamed."""
        if self._held is None:
            return
        ours = os.fstat(self._held)
        with contextlib.suppress(OSError):
            if os.path.samestat(ours, os.stat(self.folder)):
                return
        with contextlib.suppress(OSError):  # no /proc, or deleted
            now = Path(os.readlink(f"/proc/self/fd/{self._held}"))
            if os.path.samestat(ours, os.stat(now)):
                self.renamed, self.folder = self.renamed or self.folder, now
                return
        raise gone(self.folder)

    def path(self, key: str) -> Path:
        """The file of a cell."""
        return Path(f"{self.folder}/rows/{key[:2]}/{key}.safetensors")

    def done(self, key: str) -> bool:
        """Whether a cell is there and whole; a damaged one goes to quarantine."""
        return self._sound(key) is not None

    def get(self, key: str) -> Outcome:
        """One cell.

        Raises:
            StoreError: it is missing, or damaged (then it is in quarantine now).
        """
        return self._get(key)[0]

    def metadata(self, key: str) -> dict[str, Any]:
        """Digests of source, groups, recipe and task, what computed it, kept groups (hex), seed, status, scalars."""
        return self._get(key)[1]

    def put(self, key: str, outcome: Outcome, metadata: Mapping[str, Any]) -> bool:
        """Write a cell; False if an equal one is there.

        Raises:
            StoreError: another result is stored under this key, or the folder cannot be written.
        """
        self._follow()
        stored = self._sound(key)
        if stored is not None:
            if not same(stored, outcome):
                wrong = "a different result is stored under this key: the same row gave other numbers this time"
                raise StoreError(wrong, str(self.path(key)), "make the rows deterministic, or use a new folder")
            return False
        body = {**metadata, **_facts(outcome), "key": key, "format": FORMAT}
        self.write(self.path(key).relative_to(self.folder), encode(outcome.arrays, body))
        return True

    def there(self, cells: np.ndarray) -> np.ndarray:
        """Which cells, uint8 (..., 16), are there in either form, bool (...); only folders are read."""
        files = [key for keys in self.listed(np.unique(cells[..., 0]).tolist()) for key in keys]
        self.blocks()  # after the files: a cell leaves its file only when it is in a block
        found: np.ndarray = Finder(as_keys(files))(cells) >= 0
        for block in self._blocks.values():
            found |= block.finder(cells) >= 0
        return found

    def listed(self, starts: Iterable[int] = range(256)) -> Iterator[list[str]]:
        """Keys of the cells that are files, folder by folder; `starts`: first bytes."""
        rows = f"{self.folder}/rows"
        with contextlib.suppress(FileNotFoundError):
            present = set(os.listdir(rows)) if os.path.isdir(rows) else set()
            for start in map("{:02x}".format, starts):
                if start in present:
                    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                        yield [name[:32] for name in os.listdir(f"{rows}/{start}") if _CELL.fullmatch(name)]

    def log(self, **entry: Any) -> None:
        """Append one line to log.jsonl, with its time. The log is never read as data."""
        line = json.dumps({"time": round(time.time(), 3), **entry}, ensure_ascii=False, default=str)
        self._follow()
        append_line(self.folder / "log.jsonl", line.encode("utf-8", "backslashreplace"))  # as JSON does

    def logged(self, event: str, form: Form) -> Iterator[dict[str, Any]]:
        """The entries of log.jsonl about an event ("row": a driver stored one) that have a form."""
        try:
            with opened(self.folder / "log.jsonl") as (descriptor, _), open(descriptor, "rb", closefd=False) as lines:
                while line := lines.readline(_LONGEST):
                    with contextlib.suppress(StoreError):
                        entry = parse(line)
                        check(entry, {**form, "event": {event}})
                        yield entry
        except (FileNotFoundError, Unreadable):
            return

    def size(self, key: str) -> int | None:
        """Bytes that a cell takes; None if it is missing."""
        with contextlib.suppress(FileNotFoundError):
            return self.path(key).stat().st_size
        self.blocks()
        return None if (found := self.packed(key)) is None else found[0].size(found[1])

    def _sound(self, key: str) -> Outcome | None:
        """A cell, or None; a damaged one is in quarantine now."""
        try:
            return self.read(key)[0]
        except FileNotFoundError:
            return None
        except Unreadable:
            raise
        except StoreError as error:
            self.discard(key, error)
            return self._sound(key)  # it may be there in the other form

    def _get(self, key: str) -> tuple[Outcome, dict[str, Any]]:
        again = "run the same plan again: only what is missing is computed"
        try:
            return self.read(key)
        except FileNotFoundError:
            raise StoreError("is not there", str(self.path(key)), again) from None
        except Unreadable:
            raise
        except StoreError as error:
            where = self.discard(key, error)
            raise StoreError(f"{error.what}; it was moved to quarantine", str(where), again) from error

    def read(self, key: str) -> tuple[Outcome, dict[str, Any]]:
        """A cell, every bit checked; nothing is moved.

        Raises:
            StoreError: it is damaged. FileNotFoundError: it is missing.
        """
        arrays, metadata = self._either(key, Block.read, load)
        check(metadata, CELL)
        if metadata["key"] != key:
            raise StoreError("holds another cell than its name says")
        self._note(metadata)
        return Outcome(arrays, metadata["scalars"], metadata["status"], metadata["reason"]), metadata

    def _peek(self, key: str) -> dict[str, Any]:
        """The metadata of a cell, from its header; raises as `read` does."""
        metadata: dict[str, Any] = self._either(key, Block.peek, peek)
        if metadata["key"] != key:
            raise StoreError("holds another cell than its name says")
        self._note(metadata)
        return metadata

    def state(self, key: str) -> tuple[int, str]:
        """Status of a cell, of `STATUS`, and why it failed; raises as `read` does.

        A header that says "ok" is believed; any other cell is read with its checksum.
        """
        if self.packed(key) is None:
            with contextlib.suppress(OSError):
                if says_ok(f"{self.folder}/rows/{key[:2]}/{key}.safetensors", key):
                    return STATUS["ok"], ""
        outcome = self.read(key)[0]
        return STATUS[outcome.status], outcome.reason or "no reason given"

    def _either(self, key: str, packed: Callable[[Block, int], Any], single: Callable[[str], Any]) -> Any:
        """A cell in either form, which may change at any moment."""
        if (found := self.packed(key)) is not None:
            with contextlib.suppress(FileNotFoundError):
                return packed(*found)
        try:
            return single(f"{self.folder}/rows/{key[:2]}/{key}.safetensors")
        except FileNotFoundError:
            self.blocks()
            if (found := self.packed(key)) is None:
                raise
            return packed(*found)

    def packed(self, key: str) -> tuple[Block, int] | None:
        """The known block that a cell is in, and its position there."""
        if not self._blocks:
            return None
        name = bytes.fromhex(key)
        for block in self._blocks.values():
            if (position := block.finder.one(name)) >= 0:
                return block, position
        return None

    def _note(self, metadata: Mapping[str, Any]) -> None:
        for name, seen in self.facts.items():
            if name in metadata:
                seen.add(str(metadata[name]))

    def discard(self, key: str, error: StoreError) -> Path:
        """Put a damaged cell aside, so that it counts as missing; the file or block that it was in."""
        if (found := self.packed(key)) is None:
            self.quarantine(self.path(key), error)
            return self.path(key)
        block, position = found
        self.write(block.dropped(position).relative_to(self.folder), b"")
        del self._blocks[block.folder.name]  # it is read again
        self.blocks()
        self.log(event="quarantine", file=str(block.dropped(position).relative_to(self.folder)), reason=error.what)
        return block.folder

    def quarantine(self, path: Path, error: StoreError) -> None:
        self.damaged[path] = error.what
        if self.reads_only:
            return
        target = self.folder / "quarantine" / f"{time.time_ns()}-{path.name}"
        try:
            move(path, target, within=self.folder)
        except FileNotFoundError:
            return  # another process moved it
        except OSError as problem:
            wrong = f"{error.what} and cannot be moved to {target.parent} ({problem.strerror})"
            raise StoreError(wrong, str(path), "remove it by hand") from problem
        self.log(event="quarantine", file=str(path.relative_to(self.folder)), moved=target.name, reason=error.what)

    def blocks(self) -> list[Block]:
        """The blocks as they are now; damaged ones go to quarantine."""
        again = True
        while again:
            again = False
            try:
                entries = list(os.scandir(self.folder / "packed"))
                names = {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
            except (FileNotFoundError, NotADirectoryError):
                names = set()
            for name in self._blocks.keys() - names:
                del self._blocks[name]
            for name in sorted(names - self._blocks.keys()):
                folder = self.folder / "packed" / name
                try:
                    self._blocks[name] = Block(folder)
                except FileNotFoundError:
                    again = again or not folder.exists()  # replaced by another since it was listed
                except Unreadable:
                    raise
                except StoreError as error:
                    self.quarantine(folder, error)
        self._blocks = dict(sorted(self._blocks.items(), key=lambda item: (item[1].worn, item[0])))  # the best first
        return list(self._blocks.values())


@contextlib.contextmanager
def placed(path: Path, mend: str, lost: str = "") -> Iterator[None]:
    """Give the error of a damaged file its place and mend, and say what is `lost`."""
    try:
        yield
    except Unreadable:  # says both already
        raise
    except StoreError as error:
        raise StoreError(f"{error.what}{lost}", str(path), mend) from error


def every_key(cells: Cells) -> Iterator[str]:
    """Keys of all cells: of files first, then of blocks, each once."""
    # In this order: a cell leaves its file only when it is in a block.
    files = list(cells.listed())
    seen = [Finder(as_keys([key for keys in files for key in keys]))]
    blocks = cells.blocks()
    for keys in files:
        yield from keys
    for block in blocks:
        for key in block.keys:
            if not any(finder.one(key.tobytes()) >= 0 for finder in seen):
                yield key.tobytes().hex()
        seen.append(block.finder)


def torn(cells: Cells) -> dict[str, str]:
    """Indexes of blocks with unreadable lines, and how many rows that costs."""
    blocks = [block for block in cells.blocks() if block.torn]
    return {relative(cells, b.folder / "index.jsonl"): f"{b.torn} of its rows are damaged" for b in blocks}


def relative(cells: Cells, path: Path) -> str:
    """A path below the store's folder, as reports name it."""
    return str(path.relative_to(cells.folder))


def stems(cells: Cells, kind: str, suffix: str) -> list[str]:
    """Names, without suffix, of the files in one of the store's folders."""
    return [name.removesuffix(suffix) for name in entries(cells.folder / kind) if name.endswith(suffix)]


def entries(folder: Path) -> list[str]:
    """Names of a folder's visible files and folders, sorted; none if it is not there."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except FileNotFoundError:
        return []


def same(a: Outcome, b: Outcome) -> bool:
    """Whether two outcomes are equal, bit by bit."""
    return checksum(a.arrays, _facts(a)) == checksum(b.arrays, _facts(b))


def _facts(outcome: Outcome) -> dict[str, Any]:
    return {"status": outcome.status, "reason": outcome.reason, "scalars": dict(outcome.scalars)}
