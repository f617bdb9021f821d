"""A folder of image files as tar shards, which `Dataset.from_tar`, WebDataset and DALI read: nothing is decoded.

Shards are filled in the order of the examples up to a limit of bytes; times, owners and permissions are fixed. So the
bytes are a function of the images, their names and the settings alone. A finished shard is known by its SHA-256
(`pydt.data.packing.resume`).
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from pydt.base import DataError, DataWarning, as_path, available, canonical_json, digest, progress, whole, writing
from pydt.data.column_file import with_columns
from pydt.data.dataset import Dataset
from pydt.data.formats.folder import OTHER
from pydt.data.formats.tar_shard import CLASSES, REMARK
from pydt.data.image_files import IMAGE_SUFFIXES, batches, refuse
from pydt.data.packing import resume
from pydt.data.packing.array import images_at, is_saved
from pydt.data.persistence import opened
from pydt.data.table import ExampleTable

_VERSION = 1
_SMALLEST = 1 << 20
_BLOCK = 512


def pack_tar(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    limit: int = 500_000_000,
    bad: str = "raise",
    workers: int | None = None,
    columns: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Write the images of a folder into tar shards: `KEY.jpg` (or its suffix) as it is, its class number as `KEY.cls`,
    its caption as `KEY.txt` and its groups as `KEY.json`; class names are the first member of each shard.
    `Dataset.from_tar(out)` has the digest of `Dataset.from_folder(folder)`.

    A key is the file's name without its suffix. Dots in it become "_", since the field begins at the first one; where
    two files then have one key ("a.jpg", "a.png"), each gets its suffix ("a_jpg.jpg"). A name without a suffix of
    images gets that of its format ("photo.jpg_large": "photo_jpg_large.jpg"). Data with such names have another digest.

    Args:
        folder: as in `Dataset.from_folder`; or a tar shard, a folder of them, or a data set of files that
            `Dataset.save` wrote: its captions and groups go with it.
        out: a folder that does not exist yet, or is empty. Broken off, the same call continues.
        limit: bytes of a shard, which only a single image may exceed; from 1 MiB.
        bad: what to do about bad files: "raise", or "skip" them.
        workers: threads; as many as this process has cores by default.
        columns: a CSV file of group columns, as `Dataset.from_folder` takes it: they go into `KEY.json`.

    Raises:
        DataError: no such folder, bad files, names that cannot be told apart (named), a file that changed meanwhile, or
            `out` holds something else.
        StoreError: `out` cannot be written, another process writes it, or the disk is full.
    """
    limit = whole(limit, "limit", "pack", _SMALLEST)
    workers = available() if workers is None else whole(workers, "workers", "pack", 1)
    place = as_path(out, "pack", DataError, made=True)
    refuse({}, "", bad)  # refuse a misspelt choice before reading anything
    origin = as_path(folder, "pack", DataError)
    source = opened(str(origin), None) if is_saved(origin) else images_at(origin)
    if columns is not None:
        source = with_columns(source, columns)
    if source.records is None:
        raise DataError("holds raw images, no files", str(origin), "give a data set of image files")
    if not is_saved(origin):  # what a saved one left out was said when it was made
        refuse(dict(source.left_out), str(origin), bad)
    _tell_of_texts(source)
    made_of = {"version": _VERSION, "tar": limit, "source": source.full_digest, "left out": dict(source.left_out)}

    def fill(part: Path) -> None:
        _write_all(source, member_names(_suffixed(source)), part, limit, workers)
        _compare(source, Dataset.from_tar(part), part)

    resume.make(place, made_of, fill)
    return Dataset.from_tar(place)


def _tell_of_texts(source: ExampleTable) -> None:
    """Warn of texts beside images, which may be meant as captions."""
    if OTHER not in source.noted or source.captions is not None:
        return
    found = [stem for path in source.paths or () if os.path.isfile(stem := f"{os.path.splitext(path)[0]}.txt")]
    if found:
        told = (
            f"{len(found):,} texts beside images are not taken as captions ({found[0]}{', ...' * (len(found) > 1)}): "
        )
        told += "Dataset.from_folder(folder, captions={file: text}).save(DIR), then pack DIR"
        warnings.warn(told, DataWarning, stacklevel=3)


def _suffixed(source: ExampleTable) -> list[str]:
    """Keys, with a suffix of images each."""
    keys = list(source.all_keys())
    for i, key in enumerate(keys):
        if not key.lower().endswith(IMAGE_SUFFIXES):
            start = source.bytes_of([i])[0][:4].tobytes()
            known = {b"\xff\xd8": "jpg", b"\x89P": "png", b"GI": "gif", b"RI": "webp"}  # what `list_folder` takes so
            keys[i] = f"{key}.{known.get(start[:2], 'jpg')}"
    return keys


def member_names(keys: Sequence[str]) -> list[str]:
    """Names of the images in a shard; see `pack_tar`. Two that would be equal are refused."""
    parts = []
    for key in keys:
        folder, slash, base = key.rpartition("/")
        stem, _, suffix = base.rpartition(".")
        # What looks like one of WebDataset's remarks is none.
        parts.append((("-" if REMARK.match(key) else "") + folder + slash + (stem.replace(".", "_") or "_"), suffix))
    count = Counter(stem for stem, _ in parts)
    parts = [(f"{stem}_{suffix}" if count[stem] > 1 else stem, suffix) for stem, suffix in parts]
    first: dict[str, str] = {}
    for (stem, _), key in zip(parts, keys, strict=True):
        if stem in first:
            what = f"{first[stem]!r} and {key!r} would both be {stem!r} in a shard"
            raise DataError(what, "pack", "rename one of them")
        first[stem] = key
    return [f"{stem}.{suffix}" for stem, suffix in parts]


def _members(source: ExampleTable, name: str, i: int) -> list[tuple[str, bytes]]:
    """What goes with an image: names and contents."""
    stem = name[: name.rindex(".")]
    beside = [(f"{stem}.cls", str(source.labels[i]).encode())]
    if source.columns:
        units = {column: names[codes[i]] for column, (codes, names) in source.columns.items() if codes[i] >= 0}
        beside.append((f"{stem}.json", canonical_json(units).encode()))
    if source.captions is not None:
        beside.append((f"{stem}.txt", source.captions[i].encode()))
    return beside


def _classes(source: ExampleTable) -> bytes:
    """The first member of every shard: class names, one a line."""
    for name in source.classes:
        if "\n" in name:
            raise DataError(f"class {name!r} holds a line break", source.name, "rename it")
    return "\n".join([*source.classes, ""]).encode()


def _most_bytes(name: str, length: int) -> int:
    """The most bytes that a member takes: long and non-ASCII names have a pax header before their own."""
    encoded = len(name.encode())
    extra = 0 if encoded == len(name) <= 100 else 2 * _BLOCK + _padded(encoded + 20)
    return _BLOCK + extra + _padded(length)


def _padded(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK


def shards_of(source: ExampleTable, names: list[str], limit: int) -> list[np.ndarray]:
    """The examples of each shard."""
    assert source.records is not None
    shards: list[list[int]] = []
    empty = limit - 2 * _BLOCK - _most_bytes(CLASSES, len(_classes(source)))
    room = 0
    for i, length in enumerate(source.records.length.tolist()):
        needed = _most_bytes(names[i], length)
        needed += sum(_most_bytes(name, len(data)) for name, data in _members(source, names[i], i))
        if not shards or needed > room:
            shards.append([])
            room = empty
        shards[-1].append(i)
        room -= needed
    return [np.array(shard, np.int64) for shard in shards]


def _write_all(source: ExampleTable, names: list[str], part: Path, limit: int, workers: int) -> None:
    """Write every shard that is not there yet."""
    assert source.records is not None
    shards = shards_of(source, names, limit)
    files = [part / f"shard-{number:06d}.tar" for number in range(len(shards))]
    made_of = [
        digest(_VERSION, list(source.classes), [names[i] for i in ids], source.records.sha[ids])
        + digest(*(data for i in ids for _, data in _members(source, names[i], i)))
        for ids in shards
    ]
    for file in part.glob("*shard-*"):
        if file not in files:
            file.unlink()
    done = _believed(part, files, made_of)
    todo = [number for number in range(len(shards)) if number not in done]
    total = sum(int(source.records.length[shards[number]].sum()) for number in todo) >> 20

    def work(number: int) -> tuple[int, str]:
        return number, write_shard(source, names, shards[number], files[number])

    with progress(total, "packing", "MB") as advance, ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(work, number) for number in todo]
        try:
            for future in waiting:
                number, found = future.result()
                resume.done(part, {"at": number, "of": made_of[number], "sha": found})
                advance(int(source.records.length[shards[number]].sum()) >> 20)
        except BaseException:
            for future in waiting:
                future.cancel()
            raise


def _believed(part: Path, files: list[Path], made_of: list[str]) -> set[int]:
    """The shards that are logged as finished and still have their SHA-256."""
    done = set()
    for said in resume.finished(part, {"at": range(len(files)), "of": str, "sha": str}):
        number = said["at"]
        with suppress(FileNotFoundError):  # a shard that is gone
            if said["of"] == made_of[number] and said["sha"] == _sum_of(files[number]):
                done.add(number)
    return done


def _sum_of(file: Path) -> str:
    with open(file, "rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def write_shard(source: ExampleTable, names: list[str], ids: np.ndarray, file: Path) -> str:
    """Write a shard; its SHA-256."""
    assert source.records is not None
    found = hashlib.sha256()
    with writing(file) as write:

        def put(name: str, data: bytes | memoryview) -> None:
            length = len(data)
            for piece in (_header(name, length), data, bytes(_padded(length) - length)):
                write(piece)
                found.update(piece)

        put(CLASSES, _classes(source))
        for run in batches(list(range(len(ids))), source.records.length[ids].tolist()):
            for i, view in zip(ids[run].tolist(), source.bytes_of(ids[run], check=True), strict=True):
                put(names[i], view.data)
                for name, data in _members(source, names[i], i):
                    put(name, data)
        end = bytes(2 * _BLOCK)
        write(end)
        found.update(end)
    return found.hexdigest()


def _header(name: str, length: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = length
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _compare(source: ExampleTable, made: ExampleTable, part: Path) -> None:
    """Raise where the shards do not hold what was read."""
    same = made.content_digest == source.content_digest and made.classes == source.classes
    if not (same and np.array_equal(made.labels, source.labels)):
        raise DataError("what was written is not what was read", str(part), "delete it, and look after the disk")
