"""Data sets on nodes that do not see the driver's files: found by digest, copied once, every byte compared."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stub_tars as tars

from pydt.base import DataError, machine
from pydt.data import Dataset
from pydt.data import replica as copies
from pydt.data.index_file import FILE, pack_index, read_index
from pydt.ensemble.executors.pickling import load, needs


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYDT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def arrays(folder: Path) -> Dataset:
    """Images that pydt wrote itself."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (30, 6, 5, 3), np.uint8)
    return Dataset.from_arrays(images, np.arange(30) % 3, columns={"site": np.arange(30) % 2}).save(folder)


def mapped(folder: Path) -> Dataset:
    """A sample of the images of a user's own file."""
    folder.mkdir()
    np.save(folder / "mine.npy", np.random.default_rng(0).integers(0, 256, (30, 6, 5), np.uint8))
    return Dataset.from_arrays(folder / "mine.npy", np.arange(30) % 3).sample(20).save(folder / "index")


def files(folder: Path) -> Dataset:
    """Image files of two folders, under one index."""
    from PIL import Image

    parts = []
    for name in ("one", "two"):
        for i in range(6):
            place = folder / name / f"class {i % 2}" / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4 + i, 5, 3), 20 * i + len(name), np.uint8)).save(place)
        parts.append(Dataset.from_folder(folder / name))
    return Dataset.concat(parts, ["one", "two"]).save(folder / "index")


def encoded(made: Dataset) -> list[bytes]:
    return [view.tobytes() for view in made.bytes_of(np.arange(len(made)), check=True)]


def stream(folder: str) -> io.BytesIO:
    written = io.BytesIO()
    copies.send(folder, written)
    written.seek(0)
    return written


def shards(folder: Path) -> Dataset:
    """A part of two tar shards and an image file, under one index."""
    members = [(name, data) for i in range(6) for name, data in ((f"{i}.jpg", tars.jpeg(i)), (f"{i}.cls", b"1"))]
    for k in range(2):
        tars.write(folder / "tars" / f"{k}.tar", [tars.member(f"{k}/{name}", data) for name, data in members])
    (folder / "folder" / "a").mkdir(parents=True)
    (folder / "folder" / "a" / "x.jpg").write_bytes(tars.jpeg(9))
    parts = [Dataset.from_tar(folder / "tars").sample(8), Dataset.from_folder(folder / "folder")]
    return Dataset.concat(parts, ["tar", "folder"]).save(folder / "index")


@pytest.mark.parametrize("make", [arrays, mapped, files, shards])
def test_a_copy_is_the_same_data_set_elsewhere(make: Any, tmp_path: Path, cache: Path) -> None:
    made = make(tmp_path / "here")
    packed = pickle.dumps(made)
    value, wanted = needs(packed)
    assert wanted == [(made.folder, made.full_digest)]
    assert value.digest == made.digest
    assert copies.missing(wanted) == []
    sent = stream(str(made.folder))
    pixels = encoded(made) if made.encoded else made.images[made.positions]
    for path in made.paths or []:
        os.unlink(path)
    shutil.rmtree(tmp_path / "here")
    assert copies.missing(wanted) == [made.full_digest]
    with pytest.raises(DataError):
        load(packed)

    copies.receive(made.full_digest, lambda: sent)
    assert copies.missing(wanted) == []
    found = load(packed)
    assert (found.digest, found.full_digest, found.name) == (made.digest, made.full_digest, made.name)
    assert Path(found.folder) == cache / made.full_digest
    for theirs, ours in zip(found.columns.values(), made.columns.values(), strict=True):
        np.testing.assert_array_equal(theirs[0], ours[0])
    if made.encoded:
        assert encoded(found) == pixels
        found.check()
    else:
        np.testing.assert_array_equal(found.images[found.positions], pixels)
    assert [p.name for p in cache.iterdir()] == [made.full_digest]
    copies.receive(made.full_digest, lambda: pytest.fail("it is here already"))


def test_another_data_set_in_the_same_place_is_not_taken_for_it(tmp_path: Path) -> None:
    made = arrays(tmp_path / "here")
    packed, sent = pickle.dumps(made), stream(str(made.folder))
    other = Dataset.from_arrays(255 - np.asarray(made.images), made.labels).save(tmp_path / "here")
    assert other.full_digest != made.full_digest
    assert copies.missing([(str(made.folder), made.full_digest)]) == [made.full_digest]
    copies.receive(made.full_digest, lambda: sent)
    assert load(packed).digest == made.digest


@pytest.mark.parametrize("make", [arrays, files, shards])
def test_damage_on_the_way_is_noticed_and_nothing_is_kept(make: Any, tmp_path: Path, cache: Path) -> None:
    made = make(tmp_path / "here")
    whole = stream(str(made.folder)).getvalue()
    with pytest.raises(DataError, match="copied to this node"):
        copies.receive(made.full_digest, lambda: io.BytesIO(whole[: len(whole) // 2]))
    damaged = bytearray(whole)
    place = whole.index(encoded(made)[7] if made.encoded else made.images[7].tobytes())
    damaged[place + 45] ^= 1
    with pytest.raises(DataError, match="is not the data set that was sent"):
        copies.receive(made.full_digest, lambda: io.BytesIO(bytes(damaged)))
    with pytest.raises(DataError, match="it is another one"):
        copies.receive("0" * 32, lambda: io.BytesIO(whole))
    assert not list(cache.iterdir())
    copies.receive(made.full_digest, lambda: io.BytesIO(whole))
    assert copies.missing([("nowhere", made.full_digest)]) == []


def test_names_in_a_stream_are_never_paths(tmp_path: Path, cache: Path) -> None:
    import tarfile

    made = files(tmp_path / "here")
    sent = stream(str(made.folder))
    hostile = io.BytesIO()
    with tarfile.open(fileobj=sent, mode="r|") as old, tarfile.open(fileobj=hostile, mode="w|") as new:
        for i, member in enumerate(old):
            content = old.extractfile(member)
            if i:
                member.name = f"../../outside {i}.png"
            new.addfile(member, content)
    copies.receive(made.full_digest, lambda: io.BytesIO(hostile.getvalue()))
    assert not list(tmp_path.glob("**/outside*"))
    assert len(list((cache / made.full_digest).glob("files/0000/*.png"))) == 12


@pytest.mark.parametrize("name", ["../../evil", "/evil", "0" * 31, "A" * 32, ""])
def test_a_digest_in_an_index_is_never_a_path(name: str, tmp_path: Path) -> None:
    made = arrays(tmp_path / "here")
    sections = dict(read_index(tmp_path / "here" / FILE))
    sections["digests"] = [made.digest, name]
    (tmp_path / "here" / FILE).write_bytes(pack_index(sections))
    packed = pickle.dumps(Dataset.open(tmp_path / "here"))
    before = sorted(tmp_path.rglob("*"))
    for look in (needs, lambda data: copies.missing([("nowhere", name)])):
        with pytest.raises(DataError, match="no digest"):
            look(packed)
    with pytest.raises(DataError, match="no digest"):
        copies.receive(name, lambda: stream(str(made.folder)))
    assert sorted(tmp_path.rglob("*")) == before


def test_one_process_copies_and_the_others_wait_for_it(tmp_path: Path) -> None:
    made = arrays(tmp_path / "here")
    whole, opened = stream(str(made.folder)).getvalue(), []

    def source() -> io.BytesIO:
        opened.append(threading.get_ident())
        return io.BytesIO(whole)

    threads = [threading.Thread(target=copies.receive, args=(made.full_digest, source)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1


def test_a_copy_is_its_owners_alone(tmp_path: Path) -> None:
    made = arrays(tmp_path / "here")
    copies.receive(made.full_digest, lambda: stream(str(made.folder)))
    assert copies.copy_of(made.full_digest).stat().st_mode & 0o777 == 0o700


def test_what_a_killed_copy_left_is_removed(tmp_path: Path, cache: Path) -> None:
    made = arrays(tmp_path / "here")
    sent = stream(str(made.folder))
    left = cache / f".folder.{machine()}-{1 << 30}-ab.tmp"
    left.mkdir(parents=True)
    (left / "images.npy").write_bytes(b"half")
    copies.receive(made.full_digest, lambda: sent)
    assert not left.exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = arrays(tmp_path / "here")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYDT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="PYDT_CACHE"):
        copies.receive(made.full_digest, lambda: stream(str(made.folder)))
