"""A table as a folder with an index file, and back. When a folder is opened, its bytes are compared with the checksums
of the index where that is cheap or there is reason to: see `Dataset.open`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pydt import _core
from pydt.base import DataError, file_stamp, npy_path, open_npy, whole, write_atomic
from pydt.data.image_bytes import map_shard
from pydt.data.image_files import Bad, read_parts, read_records, reading_threads, stamps
from pydt.data.index_file import (
    FILE,
    MEND,
    Records,
    Sections,
    Texts,
    integers_in,
    pack_index,
    packed_notes,
    read_index,
    records_of,
    repeated,
    texts_in,
    unpacked_notes,
)
from pydt.data.pixels import BACKGROUND, colour
from pydt.data.table import ExampleTable, Saved

# Bytes of images, written by pydt itself, that are compared with their checksums at the first open of a process.
_VERIFY_LIMIT = 1 << 30
# What this process has compared: (place, size, time of change, full digest).
verified: set[tuple[str, int, int, str]] = set()
_FARTHEST = 1 << 60  # place of a byte in a file
_LONGEST = 2 << 30  # bytes of an image
_INT, _TEXTS = "<i8", "texts"
_KINDS = {
    **dict.fromkeys(("labels", "positions", "stamp", "length", "time", "offset", "noted counts"), _INT),
    **dict.fromkeys(("name", "digests", "classes", "images", "paths", "keys", "captions", "columns"), _TEXTS),
    **dict.fromkeys(("left out", "reasons", "background", "noted"), _TEXTS),
    **{"crc": "<u4", "sha": "|u1", "traits": "|u1"},
}
_LENGTHS = {"name": 1, "digests": 2, "images": 1, "stamp": 2, "background": 1}
_MANY = (0, 0)  # instead of a stamp: image files have one each


def has_index(root: Path) -> bool:
    """Whether a folder has an index."""
    return os.path.lexists(root / FILE)


def sections_of(table: ExampleTable, root: Path) -> dict[str, np.ndarray | Sequence[str]]:
    """What the index of a data set says, for a folder `root`."""
    sections: dict[str, np.ndarray | Sequence[str]] = {
        "name": [table.name],
        "digests": [table.digest, table.full_digest],
        "classes": table.classes,
        "labels": table.labels,
    }
    if table.images is not None:
        mapped = npy_path(table.images) or "images.npy"
        sections["images"] = [mapped]
        sections["stamp"] = np.array(file_stamp(root / mapped), np.int64)
        sections["positions"] = table.positions
        sections["crc"] = _core.crc_records(table.images, table.positions, reading_threads())
    else:
        assert table.paths is not None
        assert table.records is not None
        sections |= {name: part for name, part in table.records.parts().items() if part is not None}
        if table.records.offset is None:
            paths = [table.paths[p] for p in table.positions.tolist()]
            here = f"{root.resolve()}/"
            if not all(path == here + key for path, key in zip(paths, table.all_keys(), strict=True)):
                sections["paths"] = paths  # else they are the keys below the index's folder, and move with it
        else:
            used, sections["positions"] = np.unique(table.positions, return_inverse=True)
            sections["paths"] = [table.paths[p] for p in used.tolist()]
    if table.keys is not None:
        sections["keys"] = table.keys
    if table.captions is not None:
        sections["captions"] = table.captions
    sections["columns"] = list(table.columns)
    for i, (codes, names) in enumerate(table.columns.values()):
        sections[f"column {i}"], sections[f"names {i}"] = codes, names
    sections |= packed_notes(table.noted)
    if table.shown():
        sections["background"] = [table.background]
    sections["left out"], sections["reasons"] = list(table.left_out), list(table.left_out.values())
    return sections


def save(table: ExampleTable, root: Path) -> None:
    """Write the index, and raw images that are only in memory; see `Dataset.save`."""
    stored = table
    if table.images is not None and npy_path(table.images) is None:
        # The new places of the examples are not what they were known by.
        first = np.arange(len(table))
        keys = table.keys if table.keys is not None or np.array_equal(table.positions, first) else table.all_keys()
        pixels = np.ascontiguousarray(table.images[table.positions])
        buffer = io.BytesIO()
        np.save(buffer, pixels, allow_pickle=False)
        write_atomic(root / "images.npy", buffer.getbuffer())
        stored = replace(table, images=pixels, positions=first, keys=keys)
        stored.__dict__.update(digest=table.digest, full_digest=table.full_digest)  # they are the same
    write_atomic(root / FILE, pack_index(sections_of(stored, root)))


def opened(folder: str, seen: tuple[int, int] | None) -> ExampleTable:
    """What a folder with an index holds; see `Dataset.open`. `seen`: the stamp of images that another process has
    compared already.
    """
    root = Path(folder)
    index = root / FILE
    if not has_index(root):
        old = ", index.safetensors is of a version before 0.1.0" * (root / "index.safetensors").exists()
        raise DataError(f"no data set here ({FILE} is missing{old})", str(root), "write one with Dataset.save(folder)")
    mend = f"delete {root} and write it again with Dataset.save; a run or the sample does so by itself"
    sections = read_index(index)
    try:
        _check_kinds(sections)
        table = _table(sections, root)
        short, full = texts_in(sections, "digests")
        if table.images is None and table.records is None:
            raise ValueError("it has no records of its files, not one a file, or those of a version before 0.1.0")
        if table.images is not None:
            _ = sections["stamp"], sections["crc"]
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"damaged index ({error!r})", str(index), MEND) from error
    faults = _faults(table, sections, unique=seen is None)
    if faults:
        raise DataError(f"its parts do not fit together: {faults}", str(index), mend)
    saved = Saved(_MANY, short, full)
    if table.images is not None:
        file = root / texts_in(sections, "images")[0]
        saved = replace(saved, stamp=file_stamp(file))
        _compare_images(table, sections, root.resolve() / file, saved.stamp, seen, mend)
    elif seen is None:
        _compare_files(table, str(index), full)
    # Where nothing was compared, the digests that the writer computed are taken as they are: reading every byte at each
    # open would cost more than a short training.
    return table.saved_in(str(root.resolve()), saved)


def _check_kinds(sections: Sections) -> None:
    """Refuse sections of a kind or a length that no writer gives them."""
    for name, found in sections.items():
        kind = _INT if name.startswith("column ") else _TEXTS if name.startswith("names ") else _KINDS.get(name)
        if kind is not None and (found.dtype.str if isinstance(found, np.ndarray) else _TEXTS) != kind:
            raise ValueError(
                f"{name} are no {'whole numbers' if kind == _INT else 'sums' if kind != _TEXTS else _TEXTS}"
            )
        if len(found) != _LENGTHS.get(name, len(found)):
            raise ValueError(f"{len(found)} of {name}")


def _table(sections: Sections, root: Path) -> ExampleTable:
    """The sections as a table; only what the index's own checks guarantee is checked of types and lengths."""
    images, paths, records = None, None, None
    labels = integers_in(sections, "labels")
    keys = texts_in(sections, "keys") if "keys" in sections else None
    if "images" in sections:
        images = open_npy(root / texts_in(sections, "images")[0])
        images = images[..., np.newaxis] if images.ndim == 3 else images
        if images.dtype != np.uint8 or images.ndim != 4:
            what = f"images of dtype {images.dtype}, shape {images.shape}, not uint8 of 3 or 4 dimensions"
            raise DataError(what, str(root / texts_in(sections, "images")[0]), "restore the file, or index it again")
    else:
        if "paths" in sections:
            paths = texts_in(sections, "paths")
        elif keys is not None:
            paths = Texts(keys.ends, keys.data, f"{root.resolve()}/")
        else:
            raise ValueError("it knows no images and no files")
        records = records_of(sections)
    names = enumerate(texts_in(sections, "columns"))
    (name,) = texts_in(sections, "name")
    return ExampleTable(
        images,
        paths,
        integers_in(sections, "positions") if "positions" in sections else np.arange(len(labels)),
        labels,
        tuple(texts_in(sections, "classes")),
        columns={
            column: (integers_in(sections, f"column {i}"), tuple(texts_in(sections, f"names {i}")))
            for i, column in names
        },
        captions=texts_in(sections, "captions") if "captions" in sections else None,
        keys=keys,
        name=name,
        records=records,
        noted=unpacked_notes(sections),
        background=colour(texts_in(sections, "background")[0] if "background" in sections else BACKGROUND),
        left_out=dict(zip(sections.get("left out", ()), sections.get("reasons", ()), strict=True)),
    )


def _faults(table: ExampleTable, sections: Sections, unique: bool) -> str | None:
    """What does not fit together; `unique`: look for duplicates, too."""
    n, positions, labels, records = len(table), table.positions, table.labels, table.records
    stored = len(table.images if table.images is not None else table.paths or ())
    lengths = {"positions": len(positions)}
    lengths |= {name: len(part) for name in ("captions", "keys") if (part := getattr(table, name)) is not None}
    lengths |= {f"column {name!r}": len(codes) for name, (codes, _) in table.columns.items()}
    if records is not None:
        lengths |= {name: len(part) for name, part in records.parts().items() if part is not None}
    if table.images is not None:
        lengths["crc"] = len(sections["crc"])
    wrong = next((name for name, length in lengths.items() if length != n), None)
    if not n:
        return "there is no example"
    if wrong is not None:
        return f"{lengths[wrong]} of {wrong} for {n} labels"
    if not 0 <= labels.min() <= labels.max() < len(table.classes):
        return f"labels from {labels.min()} to {labels.max()} for {len(table.classes)} classes"
    if not 0 <= positions.min() <= positions.max() < stored:
        return f"positions from {positions.min()} to {positions.max()} for {stored} images"
    for name, (codes, names) in table.columns.items():
        if not -1 <= codes.min() <= codes.max() < len(names):
            return f"column {name!r} from {codes.min()} to {codes.max()} for {len(names)} groups"
    if not unique:
        return None  # another process has looked: `full_digest` is the same
    if records is not None and not 0 <= records.length.min() <= records.length.max() <= _LONGEST:
        return "lengths that no image has"
    if records is not None and records.offset is not None:
        if records.offset.min() < -1 or records.offset.max() > _FARTHEST:
            return "places that no file has"
        order = np.lexsort((records.offset, positions))
        same = (np.diff(positions[order]) == 0) & (np.diff(records.offset[order]) == 0)
        if same.any():
            return f"image {order[same.argmax()]} is there twice"
    elif (np.diff(positions) <= 0).any() and np.bincount(positions).max() > 1:
        return f"image {np.bincount(positions).argmax()} is there twice"
    for name, texts in (("keys", table.keys), ("classes", table.classes)):
        if texts is not None and (twice := repeated(texts)) is not None:
            return f"{twice!r} is twice among the {name}"
    return None


def _compare_images(
    table: ExampleTable, sections: Sections, file: Path, stamp: tuple[int, int], seen: tuple[int, int] | None, mend: str
) -> None:
    """Compare mapped images with their checksums, where there is reason to."""
    assert table.images is not None
    own = texts_in(sections, "images")[0] == "images.npy"
    compared = (str(file), *stamp, texts_in(sections, "digests")[1])
    trusted = seen is not None and stamp == tuple(seen)
    if seen is None and stamp == tuple(np.asarray(sections["stamp"]).tolist()):
        trusted = not (own and stamp[0] <= _VERIFY_LIMIT)
    if not trusted and compared not in verified:
        found = _core.crc_records(table.images, np.ascontiguousarray(table.positions), reading_threads())
        wrong = np.flatnonzero(found != sections["crc"])
        if len(wrong):
            position = table.positions[wrong[0]]
            which = f"{len(wrong)} of {len(found)} images, the first is number {position}"
            again = "restore the file, or index it again: Dataset.from_arrays(path, labels).save(folder)"
            what = f"its pixels are not those that were indexed (damaged or changed): {which}"
            raise DataError(what, str(file), mend if own else again)
    verified.add(compared)


def _compare_files(table: ExampleTable, index: str, full: str) -> None:
    """Compare size and time of every file, once in a process, and read those that differ."""
    if (index, *_MANY, full) in verified:
        return
    records, paths, positions = table.records, table.paths, table.positions
    assert records is not None
    assert paths is not None
    lengths, times = (np.array(values, np.int64)[positions] for values in stamps("", paths))
    alone = np.ones(len(positions), bool) if records.offset is None else records.offset < 0
    # Of a shard, the index has the time, but not the size.
    moved = (records.time != times) | (alone & (records.length != lengths))
    bad: Bad = {}
    some = np.flatnonzero(moved & alone)
    names = [paths[p] for p in positions[some].tolist()]
    now = read_records("", names, lengths[some].tolist(), times[some].tolist(), None, bad)
    changed = (now.sha != records.sha[some]).any(axis=1) | (lengths[some] != records.length[some])
    wrong = [f"{name}: {bad.get(name, 'has changed')}" for name, is_new in zip(names, changed, strict=True) if is_new]
    for p in np.unique(positions[moved & ~alone]).tolist():
        wrong += _changed_parts(paths[p], records.take(np.flatnonzero((positions == p) & ~alone)))
    if wrong:
        what = f"{len(wrong)} of {len(records.length)} image files are not those that were indexed: {_first(wrong)}"
        mend = "restore them, or index the folder again: Dataset.from_folder(path) reads only what has changed"
        raise DataError(what, index, mend)
    verified.add((index, *_MANY, full))


def _first(wrong: list[str]) -> str:
    return "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")


def _changed_parts(path: str, records: Records) -> list[str]:
    """The parts of a shard that have changed: place and reason."""
    assert records.offset is not None
    try:
        data = map_shard(path).data
    except DataError as error:
        return [f"{path}: {error.what}"]
    inside = records.offset + records.length <= len(data)
    sha = np.zeros((len(inside), 16), np.uint8)
    sha[inside] = read_parts(data, records.offset[inside], records.length[inside])[2]
    wrong = np.flatnonzero((sha != records.sha).any(axis=1))
    return [f"{path}, byte {records.offset[i]}: {'has changed' if inside[i] else 'is cut off'}" for i in wrong]


def check_bytes(dataset: ExampleTable, n: int | None, seed: int) -> None:
    """See `Dataset.check`."""
    dataset.unchanged()
    count = len(dataset) if n is None else whole(n, "n", "check", 1, len(dataset))
    chosen = np.arange(len(dataset))
    if n is not None:
        random = np.random.default_rng(whole(seed, "seed", "check", most=None))
        chosen = np.sort(random.choice(len(dataset), count, replace=False))
    wrong = dataset.contents.wrong(chosen) if dataset.images is None else _wrong_pixels(dataset, chosen)
    if wrong:
        what = f"{len(wrong)} of {count:,} images are not those that were indexed: {_first(wrong)}"
        raise DataError(what, dataset.folder or dataset.name, "restore them, or index the data set again")


def _wrong_pixels(dataset: ExampleTable, chosen: np.ndarray) -> list[str]:
    """Raw images that differ from what was saved; none where the folder does not hold this data set."""
    assert dataset.images is not None
    sections = read_index(Path(str(dataset.folder)) / FILE) if dataset.saved is not None else {}
    if not sections or texts_in(sections, "digests")[1] != dataset.full_digest:
        return []
    said = sections["crc"]
    now = _core.crc_records(dataset.images, np.ascontiguousarray(dataset.positions[chosen]), reading_threads())
    return [f"image {i}" for i in chosen[now != np.asarray(said)[chosen]].tolist()]
