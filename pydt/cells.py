"""Cells: one training seen through one task, as an object and as a file that is either whole or refused."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import operator
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pydt.errors import ConfigError, DesignError, PydtError, StoreError
from pydt.files import canonical_json, digest, escaped
from pydt.schema import HEX32, HEX64, SEED, Form, check, parse

OUTPUTS = ("logit", "margin", "softmax margin", "probability", "correct", "prediction")
FACTS = ("code", "torch", "torchvision", "isa")
"""What `pydt.workers.versions` says that may change a row's numbers; stored with each cell."""
_LARGEST_HEADER = 1 << 24
_HEADER: Form = {"__metadata__": {"pydt": str}}  # of a safetensors file
LARGEST_TEXT = 1 << 30
"""Bytes of a file of JSON; a sparse file of terabytes would fill the memory."""
_STATUS = b'\\"status\\":'
_OK = _STATUS + b'\\"ok\\"'
_ENDS = re.compile(rb'"data_offsets":\[\d+,(\d+)\]')


CELL: Form = {
    "key": HEX32,
    "status": {"ok", "failed"},
    "reason": str | None,
    "scalars": {str: int | float | str},
    "seed?": SEED,
    "groups?": range(1 << 31),
    "keep?": str,
    "rule?": str,
    "row?": SEED,
    **{f"{name}?": str for name in (*FACTS, "source", "units", "recipe", "task", "training")},
}
"""What the metadata of a cell say."""


class Unreadable(StoreError):
    """A file that the system does not give: nobody knows whether it is damaged."""

    @classmethod
    def of(cls, error: OSError, path: str | os.PathLike[str]) -> Unreadable:
        mend = "make it readable, or delete this one file and run the same plan again"
        return cls(f"cannot be read ({error.strerror or error})", str(path), mend)


@dataclass(frozen=True)
class Row:
    """One source training: the units it keeps and its seed.

    Args:
        keep: 0/1 array-like (groups,), or its packed form (little bit first) together with `groups`.
        seed: seed of everything random in the training.
        kind: what the row is for ("design", "keep", "drop top", ...); it names, it does not change the training.
        groups: number of units; only needed with packed `keep`.

    Raises:
        DesignError: `keep` is not a vector of zeros and ones.
        ConfigError: `seed` is not a whole number, or negative.
    """

    keep: bytes
    seed: int
    kind: str = "keep"
    groups: int = -1

    def __post_init__(self) -> None:
        if not isinstance(self.keep, bytes):
            mask = np.asarray(self.keep)
            if mask.ndim != 1 or not np.isin(mask, (0, 1)).all():
                raise DesignError("must be one vector of zeros and ones", "Row.keep", "give one entry per unit")
            object.__setattr__(self, "groups", len(mask))
            object.__setattr__(self, "keep", np.packbits(mask.astype(bool), bitorder="little").tobytes())
        elif self.groups < 0 or len(self.keep) != (self.groups + 7) // 8:
            wrong = f"{len(self.keep)} bytes for {self.groups} units"
            raise DesignError(wrong, "Row.keep", "give `groups` with packed bits")
        object.__setattr__(self, "seed", whole(self.seed, "Row.seed"))

    @property
    def mask(self) -> np.ndarray:
        """The kept units, bool (groups,)."""
        packed = np.frombuffer(self.keep, np.uint8)
        return np.unpackbits(packed, count=self.groups, bitorder="little").astype(bool)

    def __str__(self) -> str:
        return f"{self.kind} row with seed {self.seed}, {int(self.mask.sum())} of {self.groups} units kept"


@dataclass(frozen=True)
class Outcome:
    """What one row gave for one task.

    Args:
        arrays: "primitives" float32 (4, draws, examples): correct logit, best other logit, logsumexp of the others,
            prediction. Empty when the row failed.
        scalars: finite numbers or short texts. No times and no host names: equal rows must be equal bytes.
        status: "ok" or "failed".
        reason: why it failed.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    scalars: dict[str, float | int | str] = field(default_factory=dict)
    status: str = "ok"
    reason: str | None = None


def whole(value: Any, where: str) -> int:
    """A seed as an int.

    Raises:
        ConfigError: it is not a whole number from 0 to 2^63 - 1.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < 1 << 63:
        raise ConfigError(f"{value!r} is not a seed", where, "use whole numbers from 0 on")
    return number


def checked(given: Any, task: Mapping[str, Any], where: str) -> Outcome:
    """What a runner gave for a task, fit to be stored; numbers that are not finite make a failed cell, never data.

    Args:
        given: an `Outcome`, if the runner does what it should.
        task: "name" and "examples" (how many) of the task.
        where: names the row.

    Raises:
        PydtError: it is no outcome, or its arrays are not numbers, or not (4, draws, examples).
    """
    mend = "a runner returns one pydt.cells.Outcome of arrays per task digest"
    if not isinstance(given, Outcome) or given.status not in ("ok", "failed"):
        raise PydtError(f"its runner gave no outcome for task {task['name']!r}", where, mend)
    if not isinstance(given.arrays, Mapping) or not isinstance(given.scalars, Mapping):
        raise PydtError(f"its runner gave arrays or scalars for task {task['name']!r} without names", where, mend)
    lost: str | None = None
    for name, array in given.arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise PydtError(f"its runner gave {name!r} as {type(array).__name__}, not a numeric array", where, mend)
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("__"):
            raise PydtError(f"its runner gave an array the name {name!r}", where, "use a plain word")
        if given.status == "ok" and not np.isfinite(array).all():
            lost = lost or f"{name} are not all finite"
    shape: tuple[int, ...] = getattr(given.arrays.get("primitives"), "shape", ())
    examples = task["examples"]
    if given.status == "ok" and lost is None and (len(shape) != 3 or shape[::2] != (4, examples) or not shape[1]):
        raise PydtError(f"its runner gave primitives of shape {shape}, not (4, draws, {examples})", where, mend)
    reason = None if given.reason is None else escaped(str(given.reason))
    scalars: dict[str, float | int | str] = {}
    for name, value in given.scalars.items():
        plain: Any = value
        if getattr(value, "shape", None) == ():  # of numpy, of torch
            plain = plain.item()
        if not isinstance(name, str) or not isinstance(plain, float | int | str):
            wrong = f"its runner gave the scalar {name!r} as {type(plain).__name__}"
            raise PydtError(wrong, where, "scalars are numbers or short texts")
        if isinstance(plain, float) and not np.isfinite(plain):
            lost = lost or f"{name} is not finite"
        scalars[escaped(name)] = escaped(plain) if isinstance(plain, str) else plain
    if lost is not None:
        return Outcome(status="failed", reason=reason or lost)
    return Outcome(dict(given.arrays), scalars, given.status, reason)


def primitives_of(outcome: Outcome, examples: int, where: str) -> np.ndarray:
    """The primitives of a finished cell, float (4, draws, examples).

    Raises:
        StoreError: it has none, or of another number of examples: somebody wrote it who does not know the task.
    """
    found = outcome.arrays.get("primitives")
    shape = (0,) if found is None else found.shape
    if found is None or len(shape) != 3 or shape[::2] != (4, examples) or not shape[1] or found.dtype.kind != "f":
        mend = "let `pydt verify` put it aside, and run the same plan again"
        raise StoreError(f"has no outputs of the {examples} examples", where, mend)
    return found


def source_key(source: str, units: str, row: Row, recipe: str) -> str:
    """Name of a training: digests of the source, of its partition into units and of the recipe, kept units, seed."""
    return digest("training", source, units, row.groups, row.keep, row.seed, recipe)


def result_key(source_key: str, task: str) -> str:
    """Name of a cell: a training seen through a task."""
    return digest("cell", source_key, task)


def derive(primitives: np.ndarray, labels: np.ndarray, name: str) -> np.ndarray:
    """One of the six outputs from the four primitives.

    Args:
        primitives: float (4, ..., examples): correct logit, best other logit, logsumexp of the others, prediction.
        labels: int (examples,).
        name: "logit" (of the correct class), "margin" (correct - best other), "softmax margin" (correct - logsumexp of
            the others: the log-odds of the correct class), "probability" (sigmoid of that), "correct" (0 or 1),
            "prediction".

    Returns:
        float32 (..., examples).

    Raises:
        ConfigError: unknown name.
    """
    correct, other, others, prediction = primitives
    if name == "logit":
        value = correct
    elif name == "margin":
        value = correct - other
    elif name in ("softmax margin", "probability"):
        value = correct - others
        if name == "probability":
            # exp of -|x| only, so that neither tail overflows
            small = np.exp(-np.abs(value))
            value = np.where(value >= 0, 1, small) / (1 + small)
    elif name == "correct":
        value = prediction == labels
    elif name == "prediction":
        value = prediction
    else:
        raise ConfigError(f"unknown output {name!r}", "output", suggest(name, OUTPUTS))
    return value.astype(np.float32)


def averaged(primitives: np.ndarray, labels: np.ndarray, name: str) -> np.ndarray:
    """`derive`, averaged over the draws, float32 (examples,); of predictions the most frequent."""
    draws = derive(primitives, labels, name)
    value: np.ndarray = most_frequent(draws) if name == "prediction" else draws.mean(axis=0)
    return value.astype(np.float32, copy=False)


def encode(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> bytes:
    """A safetensors file with one metadata entry, "pydt": JSON with a SHA-256 over the rest of it and the arrays."""
    from safetensors.numpy import save

    # C order, and one byte order: the checksum is of what a reader will see
    tensors = {name: np.asarray(a, a.dtype.newbyteorder("<"), order="C") for name, a in sorted(arrays.items())}
    signed = {**metadata, "sha256": checksum(tensors, metadata)}
    # Several metadata entries would be written in the order of a hash map: two equal rows would not be equal bytes.
    return bytes(save(tensors, metadata={"pydt": canonical_json(signed)}))


def decode(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and metadata of `encode`, every bit of both checked.

    Raises:
        StoreError: the bytes are not what was written.
    """
    header = parse(data[8 : 8 + int.from_bytes(data[:8], "little")])
    check(header, _HEADER)
    return _decode(data, header["__metadata__"]["pydt"])


def _decode(data: bytes, text: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """`decode` where the header was parsed already: `text` is its entry "pydt"."""
    from safetensors.numpy import load

    metadata = parse(text)
    check(metadata, {"sha256": HEX64})
    expected = metadata.pop("sha256")
    try:
        arrays = load(data)  # checks the header's length, the offsets and the shapes against the size of the data
        found = checksum(arrays, metadata)
    except Exception as error:  # whatever that parser trips over means the same here
        raise StoreError(f"is damaged ({type(error).__name__})") from error
    if found != expected:
        raise StoreError("is damaged (its checksum does not match)")
    return arrays, metadata


def checksum(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> str:
    shapes = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    state = hashlib.sha256(canonical_json([metadata, shapes]).encode())
    for name in sorted(arrays):
        state.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def file_name(name: Any) -> str:
    """A name that may become one of a file, or the name of none: from a plan of somebody else's it might be a path."""
    text = str(name)
    return text if text.isprintable() and not set(text) & set("/\\") and len(text) <= 100 else "-"


def suggest(name: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(name), known, 1)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(map(repr, known))


def read(path: str | os.PathLike[str], most: int = LARGEST_TEXT) -> bytes:
    """The bytes of a regular file of text, `most` at most.

    A pipe or a device under its name would block or never end.
    """
    with opened(path) as (descriptor, size):
        return text_of(descriptor, size, most)


def read_json(path: str | os.PathLike[str], form: Form, most: int = LARGEST_TEXT) -> Any:
    """What a JSON file says, of the given form; see `pydt.schema`.

    Raises:
        StoreError: it has another form, or is larger than `most` bytes. FileNotFoundError: it is not there.
    """
    with opened(path) as (descriptor, size):
        value = parse(text_of(descriptor, size, most))
        check(value, form)
        return value


def text_of(descriptor: int, size: int, most: int = LARGEST_TEXT) -> bytes:
    """All of an open file of text."""
    if size > most:
        raise StoreError(f"is damaged (larger than {most:,} bytes)")
    return exactly(descriptor, size, 0)


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """`decode` of a file whose size fits its header: a sparse file of terabytes would fill the memory."""
    with opened(path) as (descriptor, size):
        text = header_of(descriptor, size)
        return _decode(exactly(descriptor, size, 0), text)


def peek(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata of a cell's file, without the arrays: well formed, the size fits; not checksummed.

    Raises:
        StoreError: it is damaged, as far as that can be seen. FileNotFoundError: it is not there.
    """
    with opened(path) as (descriptor, size):
        metadata: dict[str, Any] = parse(header_of(descriptor, size))
        check(metadata, {**CELL, "sha256": HEX64})
        del metadata["sha256"]
        return metadata


def says_ok(path: str, key: str) -> bool:
    """Whether the header of a cell's file says that it is whole and did not fail; False: `peek` will tell.

    The text is searched, not parsed, which takes a third of the time: the writer's JSON has one form. A quote inside of
    a text has more backslashes there, so no scalar can be taken for the status.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        start, size = os.pread(descriptor, 4096, 0), os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    end = 8 + int.from_bytes(start[:8], "little")
    text = start[8:end]
    if 8 + len(text) != end or _OK not in text or b'\\"key\\":\\"%s\\"' % key.encode() not in text:
        return False
    if text.count(_STATUS) > 1:  # a scalar of that name
        return False
    return max([int(offset) for offset in _ENDS.findall(text)], default=0) == size - end


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple[int, int]]:
    """Descriptor and size of a regular file; errors from inside name it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for its writer
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise StoreError("is damaged (not a regular file)")
            yield descriptor, state.st_size
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable.of(error, path) from error
    except StoreError as error:
        raise error if error.where is not None else StoreError(error.what, os.fspath(path), error.mend) from error


def header_of(descriptor: int, size: int) -> str:
    """The metadata entry "pydt" of a safetensors file whose size is what its header says."""
    start = os.pread(descriptor, 4096, 0)  # more than most headers
    length = int.from_bytes(start[:8], "little")
    if length > min(size - 8, _LARGEST_HEADER):
        raise StoreError("is damaged (its header does not fit)")
    text = start[8 : 8 + length]
    tensors = parse(text if len(text) == length else exactly(descriptor, length, 8))
    check(tensors, _HEADER)
    metadata: str = tensors.pop("__metadata__")["pydt"]
    check(tensors, {str: {"data_offsets": (SEED, SEED)}})
    if max([tensor["data_offsets"][1] for tensor in tensors.values()], default=0) != size - 8 - length:
        raise StoreError("is damaged (its size does not fit)")
    return metadata


def exactly(descriptor: int, length: int, offset: int) -> bytes:
    """So many bytes of a file; a file that shrinks meanwhile, and a system that gives less at a time, included."""
    parts = []
    while length:
        part = os.pread(descriptor, length, offset)
        if not part:
            raise StoreError("is damaged (it ends too early)")
        parts.append(part)
        length, offset = length - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def most_frequent(draws: np.ndarray) -> np.ndarray:
    """The most frequent value of each column of float (draws, examples), the smallest on a tie."""
    votes = (draws[:, None] == draws[None]).sum(axis=1)
    return np.where(votes == votes.max(axis=0), draws, np.inf).min(axis=0)
