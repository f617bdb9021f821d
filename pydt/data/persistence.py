"""What a folder with an index holds: from a data set to the index's sections, and back with every doubt raised.

The index says what the bytes were. When a folder is opened, the bytes are compared with that where it is cheap or
where there is reason to: see `Dataset.open`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt import _core
from pydt.base import DataError, available, file_stamp, npy_path, open_npy, whole
from pydt.data.formats import folder as sources
from pydt.data.formats.tar import read_parts
from pydt.data.image_bytes import map_shard
from pydt.data.index_file import FILE, MEND, Records, Sections, Texts, read_index, records_of, repeated
from pydt.data.pixels import BACKGROUND, colour

if TYPE_CHECKING:
    from pydt.data.dataset import Dataset


# Images that pydt wrote itself are read and compared with their checksums at the first open, up to this many bytes.
_VERIFY_LIMIT = 1 << 30
# What this process has compared already: (place, its size, its time of change, digest of all that the index says).
_verified: set[tuple[str, int, int, str]] = set()
# No byte of a file lies behind this one.
_FARTHEST = 1 << 60
_LONGEST = 2 << 30  # bytes of an image
_INT, _TEXTS = "<i8", "texts"
_KINDS = {
    **dict.fromkeys(("labels", "positions", "stamp", "length", "time", "offset", "noted counts"), _INT),
    **dict.fromkeys(("name", "digests", "classes", "images", "paths", "keys", "captions", "columns"), _TEXTS),
    **dict.fromkeys(("left out", "reasons", "background", "noted"), _TEXTS),
    **{"crc": "<u4", "sha": "|u1", "traits": "|u1"},
}
_LENGTHS = {"name": 1, "digests": 2, "images": 1, "stamp": 2, "background": 1}
# Stamp of image files, which have one each.
_MANY = (0, 0)


def threads() -> int:
    """Threads for reading and checking: those this process may use, at most 8."""
    return min(8, available())


def has_index(root: Path) -> bool:
    """Whether a folder has an index."""
    return os.path.lexists(root / FILE)


def sections_of(dataset: Dataset, root: Path) -> dict[str, np.ndarray | Sequence[str]]:
    """What the index of a data set says, for a folder `root`."""
    sections: dict[str, np.ndarray | Sequence[str]] = {
        "name": [dataset.name],
        "digests": [dataset.digest, dataset.full_digest],
        "classes": dataset.classes,
        "labels": dataset.labels,
    }
    if dataset.images is not None:
        mapped = npy_path(dataset.images) or "images.npy"
        sections["images"] = [mapped]
        sections["stamp"] = np.array(file_stamp(root / mapped), np.int64)
        sections["positions"] = dataset.positions
        sections["crc"] = _core.crc_records(dataset.images, dataset.positions, threads())
    else:
        assert dataset.paths is not None
        assert dataset.records is not None
        sections |= {name: part for name, part in dataset.records.parts().items() if part is not None}
        if dataset.records.offset is None:
            paths = [dataset.paths[p] for p in dataset.positions.tolist()]
            here = f"{root.resolve()}/"
            if not all(path == here + key for path, key in zip(paths, dataset.all_keys(), strict=True)):
                sections["paths"] = paths  # else they are the keys below the index's folder, and move with it
        else:
            used, sections["positions"] = np.unique(dataset.positions, return_inverse=True)
            sections["paths"] = [dataset.paths[p] for p in used.tolist()]
    if dataset.keys is not None:
        sections["keys"] = dataset.keys
    if dataset.captions is not None:
        sections["captions"] = dataset.captions
    sections["columns"] = list(dataset.columns)
    for i, (codes, names) in enumerate(dataset.columns.values()):
        sections[f"column {i}"], sections[f"names {i}"] = codes, names
    sections |= sources.packed_notes(dataset.noted)
    if dataset.shown():
        sections["background"] = [dataset.background]
    sections["left out"], sections["reasons"] = list(dataset.left_out), list(dataset.left_out.values())
    return sections


def fields_of(folder: str, seen: tuple[int, int] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a folder with an index holds.

    Args:
        seen: the stamp of images that another process has compared already.

    Returns:
        the fields of the `Dataset`; and what is known of it besides: "stamp", "digest", "full_digest".

    Raises:
        DataError: see `Dataset.open`.
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
        fields = _fields(sections, root)
        (short, full), (name,) = sections["digests"], sections["name"]
        if fields["images"] is None and fields["records"] is None:
            raise ValueError("it has no records of its files, not one a file, or those of a version before 0.1.0")
        if fields["images"] is not None:
            _ = sections["stamp"], sections["crc"]
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"damaged index ({error!r})", str(index), MEND) from error
    faults = _faults(fields, sections, unique=seen is None)
    if faults:
        raise DataError(f"its parts do not fit together: {faults}", str(index), mend)
    known: dict[str, Any] = {"stamp": _MANY, "digest": short, "full_digest": full}
    if fields["images"] is not None:
        file = root / sections["images"][0]
        known["stamp"] = file_stamp(file)
        _compare_images(fields, sections, root.resolve() / file, known["stamp"], seen, mend)
    elif seen is None:
        _compare_files(fields, str(index), full)
    return {**fields, "name": name, "folder": str(root.resolve())}, known


def _check_kinds(sections: Sections) -> None:
    """Refuse sections of another kind, or of another length, than any writer gives them."""
    for name, found in sections.items():
        kind = _INT if name.startswith("column ") else _TEXTS if name.startswith("names ") else _KINDS.get(name)
        if kind is not None and (found.dtype.str if isinstance(found, np.ndarray) else _TEXTS) != kind:
            raise ValueError(
                f"{name} are no {'whole numbers' if kind == _INT else 'sums' if kind != _TEXTS else _TEXTS}"
            )
        if len(found) != _LENGTHS.get(name, len(found)):
            raise ValueError(f"{len(found)} of {name}")


def _fields(sections: Sections, root: Path) -> dict[str, Any]:
    """The sections as fields, their types and lengths unchecked but for what the index's own checks guarantee."""
    images, paths, records, keys = None, None, None, sections.get("keys")
    labels = _integers(sections, "labels")
    if "images" in sections:
        images = open_npy(root / sections["images"][0])
        images = images[..., np.newaxis] if images.ndim == 3 else images
        if images.dtype != np.uint8 or images.ndim != 4:
            raise DataError(
                f"images of dtype {images.dtype}, shape {images.shape}, not uint8 of 3 or 4 dimensions",
                str(root / sections["images"][0]),
                "restore the file, or index it again",
            )
    else:
        paths = sections.get("paths")
        if paths is None and isinstance(keys, Texts):
            paths = Texts(keys.ends, keys.data, f"{root.resolve()}/")
        if not isinstance(paths, Texts):
            raise ValueError("it knows no images and no files")
        records = records_of(sections)
    names = tuple(sections["columns"])
    return {
        "images": images,
        "paths": paths,
        "positions": _integers(sections, "positions") if "positions" in sections else np.arange(len(labels)),
        "labels": labels,
        "classes": tuple(sections["classes"]),
        "columns": {
            name: (_integers(sections, f"column {i}"), tuple(sections[f"names {i}"])) for i, name in enumerate(names)
        },
        "captions": sections.get("captions"),
        "keys": keys,
        "records": records,
        "noted": sources.unpacked_notes(sections),
        "background": colour(sections["background"][0] if "background" in sections else BACKGROUND),
        "left_out": dict(zip(sections.get("left out", ()), sections.get("reasons", ()), strict=True)),
    }


def _integers(sections: Sections, name: str) -> np.ndarray:
    found = sections[name]
    if not isinstance(found, np.ndarray) or found.dtype != np.int64:
        raise ValueError(f"{name} are no whole numbers")
    return found


def _faults(fields: dict[str, Any], sections: Sections, unique: bool) -> str | None:
    """What of the fields does not fit together; `unique`: look for names that are there twice."""
    n, positions, labels, records = len(fields["labels"]), fields["positions"], fields["labels"], fields["records"]
    stored = len(fields["paths"] if fields["images"] is None else fields["images"])
    lengths = {"positions": len(positions)}
    lengths |= {name: len(fields[name]) for name in ("captions", "keys") if fields[name] is not None}
    lengths |= {f"column {name!r}": len(codes) for name, (codes, _) in fields["columns"].items()}
    if records is not None:
        lengths |= {name: len(part) for name, part in records.parts().items() if part is not None}
    if fields["images"] is not None:
        lengths["crc"] = len(sections["crc"])
    wrong = next((name for name, length in lengths.items() if length != n), None)
    if not n:
        return "there is no example"
    if wrong is not None:
        return f"{lengths[wrong]} of {wrong} for {n} labels"
    if not 0 <= labels.min() <= labels.max() < len(fields["classes"]):
        return f"labels from {labels.min()} to {labels.max()} for {len(fields['classes'])} classes"
    if not 0 <= positions.min() <= positions.max() < stored:
        return f"positions from {positions.min()} to {positions.max()} for {stored} images"
    for name, (codes, names) in fields["columns"].items():
        if not -1 <= codes.min() <= codes.max() < len(names):
            return f"column {name!r} from {codes.min()} to {codes.max()} for {len(names)} units"
    if not unique:
        return None  # another process has looked, and what it saw is named by `full_digest`
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
    for name in ("keys", "classes"):
        if fields[name] is not None and (twice := repeated(fields[name])) is not None:
            return f"{twice!r} is twice among the {name}"
    return None


def _compare_images(
    fields: dict[str, Any],
    sections: Sections,
    file: Path,
    stamp: tuple[int, int],
    seen: tuple[int, int] | None,
    mend: str,
) -> None:
    """Compare mapped images with the checksum of each, where there is reason to."""
    own = sections["images"][0] == "images.npy"
    compared = (str(file), *stamp, sections["digests"][1])
    trusted = seen is not None and stamp == tuple(seen)
    if seen is None and stamp == tuple(np.asarray(sections["stamp"]).tolist()):
        trusted = not (own and stamp[0] <= _VERIFY_LIMIT)
    if not trusted and compared not in _verified:
        found = _core.crc_records(fields["images"], np.ascontiguousarray(fields["positions"]), threads())
        wrong = np.flatnonzero(found != sections["crc"])
        if len(wrong):
            position = fields["positions"][wrong[0]]
            raise DataError(
                "its pixels are not those that were indexed (damaged or changed): "
                f"{len(wrong)} of {len(found)} images, the first is number {position}",
                str(file),
                mend if own else "restore the file, or index it again: Dataset.from_arrays(path, labels).save(folder)",
            )
    _verified.add(compared)


def _compare_files(fields: dict[str, Any], index: str, full: str) -> None:
    """Look at size and time of every file once a process, and read the images of those that have changed since."""
    if (index, *_MANY, full) in _verified:
        return
    records: Records = fields["records"]
    paths, positions = fields["paths"], fields["positions"]
    stamps = sources.stamps("", paths)
    lengths, times = (np.array(values, np.int64)[positions] for values in stamps)
    alone = np.ones(len(positions), bool) if records.offset is None else records.offset < 0
    # Of a shard, the index knows the time and no more than where its last image ends.
    moved = (records.time != times) | (alone & (records.length != lengths))
    bad: sources.Bad = {}
    some = np.flatnonzero(moved & alone)
    names = [paths[p] for p in positions[some].tolist()]
    now = sources.read_records("", names, lengths[some].tolist(), times[some].tolist(), None, bad)
    changed = (now.sha != records.sha[some]).any(axis=1) | (lengths[some] != records.length[some])
    wrong = [f"{name}: {bad.get(name, 'has changed')}" for name, is_new in zip(names, changed, strict=True) if is_new]
    for p in np.unique(positions[moved & ~alone]).tolist():
        wrong += _changed_parts(paths[p], records.take(np.flatnonzero((positions == p) & ~alone)))
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise DataError(
            f"{len(wrong)} of {len(records.length)} image files are not those that were indexed: "
            f"{'; '.join(wrong[:5])}{more}",
            index,
            "restore them, or index the folder again: Dataset.from_folder(path) reads only what has changed",
        )
    _verified.add((index, *_MANY, full))


def _changed_parts(path: str, records: Records) -> list[str]:
    """The parts of a shard that are not what they were: their places, and why."""
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


def check_bytes(dataset: Dataset, n: int | None, seed: int) -> None:
    """See `Dataset.check`."""
    dataset.unchanged()
    count = len(dataset) if n is None else whole(n, "n", "check", 1, len(dataset))
    chosen = np.arange(len(dataset))
    if n is not None:
        random = np.random.default_rng(whole(seed, "seed", "check", most=None))
        chosen = np.sort(random.choice(len(dataset), count, replace=False))
    wrong = dataset._contents.wrong(chosen) if dataset.images is None else _wrong_pixels(dataset, chosen)
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise DataError(
            f"{len(wrong)} of {count:,} images are not those that were indexed: {'; '.join(wrong[:5])}{more}",
            dataset.folder or dataset.name,
            "restore them, or index the data set again",
        )


def _wrong_pixels(dataset: Dataset, chosen: np.ndarray) -> list[str]:
    """Which raw images are not what was saved; none where nothing was, or where another data set lies by now."""
    assert dataset.images is not None
    sections = read_index(Path(str(dataset.folder)) / FILE) if dataset._filed else {}
    if not sections or sections["digests"][1] != dataset.full_digest:
        return []
    said = sections["crc"]
    now = _core.crc_records(dataset.images, np.ascontiguousarray(dataset.positions[chosen]), threads())
    return [f"image {i}" for i in chosen[now != np.asarray(said)[chosen]].tolist()]
