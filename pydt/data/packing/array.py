"""A folder of image files as one array: decoded once, at one size, so that thousands of trainings need no decoder.

Rows of images.npy are filled in any order, a run of files at a time; every row is a function of its file and the
settings alone, so the bytes do not depend on the number of workers, nor on how often the work was broken off
(`pydt.data.packing.resume`).
"""

from __future__ import annotations

import os
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pydt.base import DataError, as_path, available, digest, npy_header, progress, whole, write_atomic
from pydt.data.column_file import with_columns
from pydt.data.dataset import Dataset
from pydt.data.formats import look
from pydt.data.image_files import refuse, undecodable
from pydt.data.index_file import FILE, crc32c, pack_index
from pydt.data.labels import renumber
from pydt.data.packing import resume
from pydt.data.persistence import has_index, sections_of
from pydt.data.pixels import BACKGROUND, decode
from pydt.data.table import ExampleTable

_VERSION = 1
RUN = 64  # files in a run: a second of work, more or less
_HEADER = 128  # bytes before the pixels of a .npy


def pack(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    size: int,
    *,
    exif: bool = False,
    background: str = BACKGROUND,
    bad: str = "raise",
    workers: int | None = None,
    columns: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Decode a folder of images into uint8 (images, size, size, 3) in `out`; `Dataset.open(out)` opens it again.

    Every image is converted to 8 bits RGB (`pydt.data.pixels`), its shorter side is resized to `size` (bilinear,
    antialiased), and the centre is cut out.

    Args:
        folder: as in `Dataset.from_folder`; or a tar shard, or a folder of them.
        out: a folder that does not exist yet, or is empty. Broken off, the same call continues.
        size: side of the images in pixels.
        exif: turn images as their EXIF orientation says; torchvision's loader does not.
        background: what shows through transparent pixels: "white", "black", "grey" or "#rrggbb".
        bad: files that are no image or cannot be decoded: "raise" (once all others are done), or "skip" them.
        workers: threads; as many as this process has cores by default.
        columns: a CSV file of group columns, as `Dataset.from_folder` takes it; they are kept.

    Raises:
        DataError: no such folder, bad files (named), or `out` holds something else.
        StoreError: `out` cannot be written, another process writes it, or the disk is full.
    """
    size = whole(size, "size", "pack", 1, 1 << 14)
    workers = available() if workers is None else whole(workers, "workers", "pack", 1)
    place = as_path(out, "pack", DataError, made=True)
    refuse({}, "", bad)  # refuse a misspelt choice before reading anything
    source = images_at(as_path(folder, "pack", DataError), background)
    if columns is not None:
        source = with_columns(source, columns)
    left_out = dict(source.left_out)
    settings = {"version": _VERSION, "size": size, "exif": bool(exif), "pillow": _pillow(), **source.shown()}
    made_of = {**settings, "source": source.digest, "bad": bad, "left out": left_out}
    made_of |= {"columns": source.full_digest} if source.columns else {}

    def fill(part: Path) -> None:
        left_out.update(_decode_all(source, part, settings, workers))
        refuse(left_out, str(as_path(folder, "pack", DataError)), bad)
        _finish(source, part, size, left_out)

    resume.make(place, made_of, fill)
    return Dataset.open(place)


def is_saved(place: Path) -> bool:
    """Whether a folder is a saved data set; a folder of images has an index, too, but sub-folders."""
    return has_index(place) and not any(entry.is_dir() for entry in place.iterdir())


def images_at(place: Path, background: str = BACKGROUND) -> ExampleTable:
    """The image files in a folder or in tar shards at a place; bad ones are left out."""
    if is_saved(place):
        mend = "give the folder of images from which it was made; --tar takes a saved data set, too"
        raise DataError("is a saved data set", str(place), mend)
    found = None if place.suffix == ".npy" else look(place, background)
    if found is None or found.images is not None:
        raise DataError("no such folder", str(place), "give a folder with one sub-folder of images per class")
    return found


def _pillow() -> str:
    """The decoder: rows of another version are made again."""
    import PIL
    from PIL import features

    return f"{PIL.__version__}, JPEG {features.version('jpg')}"


def _decode_all(source: ExampleTable, part: Path, settings: dict[str, Any], workers: int) -> dict[str, str]:
    """Fill the rows that are missing; gives the reasons of files that cannot be decoded."""
    assert source.records is not None
    size = settings["size"]
    row = size * size * 3
    runs = [np.arange(i, min(i + RUN, len(source))) for i in range(0, len(source), RUN)]
    names = [digest(settings, source.records.sha[run]) for run in runs]
    file = os.open(part / "images.npy", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    bad: dict[str, str] = {}

    def work(number: int) -> tuple[int, int, dict[str, str]]:
        rows, wrong = _run(source, runs[number], size, settings["exif"])
        _write_all(file, rows, _HEADER + int(runs[number][0]) * row)
        return number, crc32c(rows), wrong

    try:
        header = npy_header("|u1", (len(source), size, size, 3))
        whole_size = len(header) + len(source) * row
        if os.fstat(file).st_size < whole_size:
            os.posix_fallocate(file, 0, whole_size)  # a full disk is noticed now, and not hours later
        os.ftruncate(file, whole_size)
        _write_all(file, header, 0)
        done = _believed(file, part, names, runs, row)
        for found in done.values():
            bad |= found
        todo = [i for i in range(len(runs)) if i not in done]
        with warnings.catch_warnings(), progress(sum(len(runs[i]) for i in todo), "packing", "images") as bar:
            warnings.simplefilter("ignore")  # Pillow's remarks on single files
            with ThreadPoolExecutor(workers) as pool:
                waiting: list[Future[tuple[int, int, dict[str, str]]]] = [pool.submit(work, i) for i in todo]
                try:
                    for future in waiting:
                        number, crc, wrong = future.result()
                        resume.done(part, {"run": names[number], "at": number, "crc": crc, "bad": wrong})
                        bad |= wrong
                        bar(len(runs[number]))
                finally:
                    pool.shutdown(cancel_futures=True)
        os.fsync(file)
    finally:
        os.close(file)
    return bad


def _run(source: ExampleTable, run: np.ndarray, size: int, exif: bool) -> tuple[np.ndarray, dict[str, str]]:
    """The rows of a run of files, zero where one cannot be decoded, and the reasons."""
    rows = np.zeros((len(run), size, size, 3), np.uint8)
    bad = {}
    keys = source.all_keys()
    for at, i in enumerate(run.tolist()):
        try:
            (data,) = source.bytes_of([i], check=True)
            rows[at] = decode(data.data, size, exif, source.background)
        except Exception as error:  # decoders raise anything on damaged bytes
            bad[keys[i]] = undecodable(error)
    return rows, bad


def _believed(file: int, part: Path, names: list[str], runs: list[np.ndarray], row: int) -> dict[int, dict[str, str]]:
    """Runs that are logged as finished and whose rows still have their CRC32C: number -> bad files."""
    done: dict[int, dict[str, str]] = {}
    form = {"at": range(len(names)), "run": str, "crc": int, "bad": {str: str}}
    for said in resume.finished(part, form):
        number = said["at"]
        if said["run"] == names[number]:
            rows = os.pread(file, len(runs[number]) * row, _HEADER + int(runs[number][0]) * row)
            if crc32c(rows) == said["crc"]:
                done[number] = said["bad"]
    return done


def _finish(source: ExampleTable, part: Path, size: int, left_out: dict[str, str]) -> None:
    """Close the gaps of bad files, and write the index."""
    keys = source.all_keys()
    good = np.array([i for i, key in enumerate(keys) if key not in left_out], np.int64)
    if not len(good):
        raise DataError("has no image that can be decoded", str(part), "see `pydt inspect`")
    path = part / "images.npy"
    if len(good) < len(source):
        # After a kill in here, rows do not have their logged CRC32C and are made again.
        rows = np.memmap(path, np.uint8, "r+", _HEADER, (len(source), size * size * 3))
        for i in range(0, len(good), RUN):
            rows[i : i + RUN][: len(good) - i] = rows[good[i : i + RUN]]
        rows.flush()
        del rows
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _write_all(file, npy_header("|u1", (len(good), size, size, 3)), 0)
            os.ftruncate(file, _HEADER + len(good) * size * size * 3)
            os.fsync(file)
        finally:
            os.close(file)
    packed = Dataset.from_arrays(path, source.labels[good], source.classes, name=f"{source.name} at {size}")
    packed = replace(packed, keys=tuple(keys[i] for i in good.tolist()), left_out=left_out, noted=source.odd())
    kept = {name: renumber(codes[good], names) for name, (codes, names) in source.columns.items()}
    packed = replace(packed, columns=kept)
    sections = sections_of(packed, part)
    sections["images"] = [path.name]  # moves with the index
    write_atomic(part / FILE, pack_index(sections))


def _write_all(file: int, data: bytes | np.ndarray, at: int) -> None:
    view = memoryview(data if isinstance(data, bytes) else data.data).cast("B")
    while len(view):
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written
