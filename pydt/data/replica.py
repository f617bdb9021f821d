"""Copies of data sets on nodes that do not see the folders that a plan names.

A data set travels to a worker as its folder and digest. Where that folder is missing or holds something else, the
worker takes this node's copy, `$PYDT_CACHE/<digest>` (by default `~/.cache/pydt/<digest>`), which one process of the
node makes and all share. It comes as one uncompressed tar stream of the index and the files it names, and every byte is
compared with the index's checksums before use. A copy may be deleted when no run uses it.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from pydt.base import DataError, StoreError, building, exclusive
from pydt.data.dataset import Dataset
from pydt.data.index_file import FILE, LARGEST, Sections, pack_index, read_index

Need = tuple[str, str]
"""Folder and `full_digest` of a data set."""


def cache() -> Path:
    """Where this node's copies are."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pydt"
    return Path(os.environ.get("PYDT_CACHE") or user).absolute()


def copy_of(digest: str) -> Path:
    """Where this node's copy of a data set is, or would be. DataError where an index names what is no digest: it
    becomes part of a path.
    """
    if re.fullmatch("[0-9a-f]{32}", digest) is None:
        raise DataError(f"an index names {digest!r}, which is no digest", None, "write it again with Dataset.save")
    return cache() / digest


def missing(wanted: list[Need]) -> list[str]:
    """Digests of the data sets that this node neither sees in their folders nor has a copy of."""
    return [
        digest for folder, digest in wanted if not (_holds(Path(folder), digest) or _holds(copy_of(digest), digest))
    ]


def _holds(folder: Path, digest: str) -> bool:
    """Whether a folder has the index of a data set and seems to have its files (the first and the last)."""
    try:
        sections = read_index(folder / FILE)
        files = _files(sections, folder)
        return sections["digests"][1] == digest and all(os.path.exists(files[i]) for i in (0, -1))
    except (DataError, LookupError):
        return False


def _files(sections: Sections, folder: Path) -> list[str]:
    """The files that hold a data set's images."""
    if "images" in sections:
        return [str(folder / str(sections["images"][0]))]
    paths = sections.get("paths")
    return [f"{folder}/{key}" for key in sections["keys"]] if paths is None else [str(path) for path in paths]


def send(folder: str, stream: Any) -> None:
    """Write a data set to a stream: its index, without its place, and its files in order. DataError where one of them
    is missing, damaged, or changes meanwhile.
    """
    sections = read_index(Path(folder) / FILE)
    files = _files(sections, Path(folder))
    packed = pack_index({name: value for name, value in sections.items() if name not in ("images", "paths")})
    try:
        with tarfile.open(fileobj=stream, mode="w|") as tar:
            head = tarfile.TarInfo("array" if "images" in sections else "files")
            head.size = len(packed)
            tar.addfile(head, io.BytesIO(packed))
            for i, path in enumerate(files):
                with open(path, "rb") as file:
                    member = tarfile.TarInfo(str(i) + Path(path).suffix)
                    member.size = os.fstat(file.fileno()).st_size
                    tar.addfile(member, file)
    except OSError as error:
        raise DataError(
            f"cannot be sent to another node ({error})", folder, "restore its files, and run again"
        ) from error


def receive(digest: str, stream: Callable[[], IO[bytes]]) -> None:
    """Make this node's copy of a data set, unless another process has made it meanwhile.

    Args:
        digest: its `full_digest`.
        stream: opens what `send` wrote; called only if there is no copy yet.

    Raises:
        DataError: what came is damaged or another data set, or the cache cannot be written.
    """
    place = copy_of(digest)
    try:
        cache().mkdir(parents=True, exist_ok=True)
        with exclusive(cache() / f"{digest}.lock", wait=True):
            if _holds(place, digest):
                return
            with building(cache()) as folder:
                folder.path.chmod(0o700)  # images may be confidential, and other users have this node, too
                with stream() as source, tarfile.open(fileobj=source, mode="r|") as tar:
                    _unpack(tar, folder.path, place)
                shutil.rmtree(place, ignore_errors=True)
                folder.commit(digest)
            _verify(place, digest)
    except (OSError, StoreError, tarfile.TarError) as error:
        mend = "free space, or set PYDT_CACHE to a folder on a larger local disk"
        raise DataError(f"cannot be copied to this node ({error})", str(place), mend) from error


def _unpack(tar: tarfile.TarFile, temporary: Path, place: Path) -> None:
    """Unpack the stream under names of our own: a name in it is never used as a path."""
    index, names, array = b"", [], False
    for i, member in enumerate(tar):
        content = tar.extractfile(member) if member.isreg() else None
        if content is None or member.issparse():
            raise tarfile.TarError("a member that is no file")
        if not i:
            if member.size > LARGEST:
                raise tarfile.TarError("an index that is too large")
            index, array = content.read(), member.name == "array"
            continue
        suffix = Path(member.name).suffix
        name = "images.npy" if array else f"files/{i // 1000:04d}/{i % 1000:03d}{suffix}"
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        with open(temporary / name, "xb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
        names.append(name)
    (temporary / FILE).write_bytes(index)
    sections: dict[str, Any] = dict(read_index(temporary / FILE))
    sections["images" if array else "paths"] = names if array else [str(place / name) for name in names]
    (temporary / FILE).write_bytes(pack_index(sections))


def _verify(place: Path, digest: str) -> None:
    """Compare a new copy with its index: every file is newer than the index says, so opening reads them all. Then the
    files get the times of the index, so that later processes need not read them.
    """
    try:
        opened = Dataset.open(place)
        if opened.full_digest != digest:
            raise DataError("it is another one")
    except DataError as error:
        shutil.rmtree(place, ignore_errors=True)
        wrong = f"what was copied to this node is not the data set that was sent ({error.what})"
        raise DataError(wrong, str(place), "run again, and look after the disks and the network") from error
    sections = read_index(place / FILE)
    files = _files(sections, place)
    times = np.zeros(len(files), np.int64)
    if opened.records is None:
        times[0] = sections["stamp"][1]
    else:
        times[opened.positions] = opened.records.time
    for path, time in zip(files, times.tolist(), strict=True):
        os.utime(path, ns=(time, time))
