"""Encoded images as bytes, from tar shards and from files: `python bench/records.py --json FILE`.

10,000 made-up JPEGs of 23.7 kB (noise between a JPEG's first and last bytes: nothing here decodes), 100 classes, in
five shards and as files. Reading them for the index, handing out batches, comparing checksums, packing. Seconds of
processor time, so that other jobs disturb less; both sides in turns, medians; warm cache. What is handed out is
compared with what was written before anything is timed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from pydt import _core
from pydt.data import Dataset
from pydt.data.packing import pack_tar

COUNT, CLASSES, BATCH, LIMIT = 10_000, 100, 128, 62_000_000
Case = dict[str, Any]


def folder_of_files(folder: Path, count: int) -> Path:
    random = np.random.default_rng(0)
    for c in range(CLASSES):
        (folder / f"{c:03d}").mkdir(parents=True)
    for i in range(count):
        body = random.bytes(int(random.integers(12_000, 35_400)))
        (folder / f"{i % CLASSES:03d}" / f"{i:06d}.jpg").write_bytes(b"\xff\xd8\xff" + body + b"\xff\xd9")
    return folder


def in_turns(calls: list[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Processor seconds of each; the first turn warms caches."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for side, call in zip(times, calls, strict=True):
            start = time.process_time()
            call()
            if turn:
                side.append(time.process_time() - start)
    return times


def case(name: str, ours_s: list[float], peer: str = "", peer_s: list[float] | None = None) -> Case:
    found = {"case": name, "ours_s": statistics.median(ours_s), "range": [min(ours_s), max(ours_s)], "n": len(ours_s)}
    text = f"{name}: {found['ours_s']:.4g} s ({min(ours_s):.4g}-{max(ours_s):.4g}, n = {len(ours_s)})"
    if peer_s is not None:
        found |= {"peer": peer, "peer_s": statistics.median(peer_s), "peer_range": [min(peer_s), max(peer_s)]}
        found["ratio"] = found["peer_s"] / found["ours_s"]
        text += f"; {peer} {found['peer_s']:.4g} s: {found['ratio']:.2f}x"
    print(text, flush=True)
    return {**found, "checked": True}


def by_tarfile(shards: list[Path], content: bool) -> list[tuple[int, bytes]]:
    """Place of each member, and the SHA-256 of the images: what an index needs, by the standard library."""
    found = []
    for shard in shards:
        with tarfile.open(shard) as tar, open(shard, "rb") as file:
            for member in tar:
                sha = b""
                if content and member.name.endswith(".jpg"):
                    file.seek(member.offset_data)
                    sha = hashlib.sha256(file.read(member.size)).digest()[:16]
                found.append((member.offset_data, sha))
    return found


def indexing(shards: list[Path], repeats: int) -> list[Case]:
    def walk() -> list[int]:
        return [o for shard in shards for o in _core.read_tar(_core.map_file(bytes(shard))[0])[3].tolist()]

    def index() -> Dataset:
        for shard in shards:
            Path(f"{shard}.pydt").unlink(missing_ok=True)
        return Dataset.from_tar(shards)

    assert walk() == [offset for offset, _ in by_tarfile(shards, False)]
    records = index().records
    assert records is not None
    assert [sha.tobytes() for sha in records.sha] == [sha for _, sha in by_tarfile(shards, True) if sha]
    calls: list[Callable[[], object]] = [
        walk,
        lambda: by_tarfile(shards, False),
        index,
        lambda: by_tarfile(shards, True),
        lambda: Dataset.from_tar(shards),
    ]
    ours, peer, whole, peers, again = in_turns(calls, repeats)
    return [
        case(f"headers of {2 * COUNT:,} members", ours, "tarfile", peer),
        case(f"index of {COUNT:,} images, with CRC32C and SHA-256", whole, "tarfile, with SHA-256", peers),
        case("the same shards again", again),
    ]


def feeding(tar: Dataset, files: Dataset, repeats: int) -> list[Case]:
    batches = np.random.default_rng(0).permutation(COUNT)[: COUNT // BATCH * BATCH].reshape(-1, BATCH)
    paths = [str(path) for path in files.paths or ()]
    for ids in batches[:5]:
        plain = [np.fromfile(paths[i], np.uint8) for i in ids.tolist()]
        for views in (tar.bytes_of(ids, check=True), files.bytes_of(ids)):
            assert all(np.array_equal(a, b) for a, b in zip(views, plain, strict=True))

    def touched(read: Callable[[np.ndarray], list[np.ndarray]]) -> Callable[[], int]:
        # A byte of every page, so that a view is not cheaper than what it saves for later.
        return lambda: sum(int(view[::4096].sum()) for ids in batches for view in read(ids))

    calls: list[Callable[[], object]] = [
        lambda: [tar.bytes_of(ids) for ids in batches],
        touched(tar.bytes_of),
        touched(files.bytes_of),
        touched(lambda ids: [np.fromfile(paths[i], np.uint8) for i in ids.tolist()]),
        lambda: [tar.bytes_of(ids, check=True) for ids in batches],
        lambda: tar.check(),
        lambda: tar.check(100),
    ]
    views, shards, loose, plain_s, checked, whole, spot = in_turns(calls, repeats)
    count = batches.size
    return [
        case(f"{count:,} images from shards, views alone", views),
        case(f"{count:,} images from shards, a byte of each page read", shards, "numpy.fromfile of files", plain_s),
        case(f"{count:,} images from files, a byte of each page read", loose, "numpy.fromfile of files", plain_s),
        case(f"{count:,} images from shards, CRC32C compared", checked),
        case(f"check() of {COUNT:,} images", whole),
        case("check(100)", spot),
    ]


def packing(folder: Path, work: Path, repeats: int) -> list[Case]:
    turn = iter(range(1000))

    def plain() -> None:
        with tarfile.open(work / "plain.tar", "w") as tar:
            for path in sorted(folder.glob("*/*.jpg")):
                data = path.read_bytes()
                for name, content in ((path.name, data), (path.stem + ".cls", path.parent.name.encode())):
                    member = tarfile.TarInfo(f"{path.parent.name}/{name}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))

    ours, peer = in_turns([lambda: pack_tar(folder, work / f"out {next(turn)}", workers=1), plain], repeats)
    return [case(f"pack --tar of {COUNT:,} files, compared and indexed", ours, "tarfile, neither", peer)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        files = Dataset.from_folder(folder_of_files(work / "files", COUNT))
        tar = pack_tar(work / "files", work / "shards", limit=LIMIT)
        assert tar.digest == files.digest
        shards = sorted((work / "shards").glob("*.tar"))
        print(f"{sum(shard.stat().st_size for shard in shards) / 1e6:.0f} MB in {len(shards)} shards")
        cases = indexing(shards, asked.repeats) + feeding(tar, files, asked.repeats)
        cases += packing(work / "files", work, min(3, asked.repeats))
    if asked.json:
        asked.json.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
