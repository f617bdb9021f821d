"""Data sets over tar shards: what Python's tarfile wrote is what is handed out, and what is odd is refused with its
place. More than 500 lines: every odd archive is built by hand.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import stub_tars as tars
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pydt import _core
from pydt.base import DataError
from pydt.data import Dataset, spool
from pydt.data import persistence as saved
from pydt.data.formats import folder as sources
from pydt.data.formats import tar as module
from pydt.data.index_file import FILE, pack_index, read_index
from pydt.data.inspect import inspect, load
from pydt.data.loading import Augment, Loader
from pydt.data.packing import pack_tar


def shards(folder: Path) -> list[Path]:
    """Two shards of numbered examples of three classes, with captions and values."""
    beside = {"txt": "number {i}", "json": '{"site": "s{i}", "odd": {i}, "list": [1], "part": 0.5}'}
    return [
        tars.write(
            folder / f"part-{k}.tar", [m for i in ids for m in tars.examples([i], cls=str(i % 3), **beside)], form
        )
        for k, (ids, form) in enumerate([(range(7), "pax"), (range(7, 12), "gnu")])
    ]


def test_refused_archives_are_named(tmp_path: Path) -> None:
    whole = tars.archive(tars.examples([0], cls="1"))
    cases = {
        whole[:1000]: (r"refused: cut off: a file of \d+ bytes that the archive does not hold, at byte 0", "again"),
        gzip.compress(whole): ("refused: an archive compressed by gzip, at byte 0", "unpack it"),
        tars.archive([tars.member("/a.jpg")]).replace(b"ustar\x00", b"xxxxxx"): (
            "refused: no header of a ustar",
            "again",
        ),
    }
    path = tmp_path / "shard.tar"
    for data, (what, mend) in cases.items():
        path.write_bytes(data)
        with pytest.raises(DataError, match=what) as caught:
            Dataset.from_tar(path, bad="skip")
        assert caught.value.where == str(path)
        assert mend in str(caught.value.mend)
        assert not list(tmp_path.glob("*.pydt")), "nothing is left of it"


def test_what_a_data_set_over_shards_is(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    before = os.listdir("/proc/self/fd")
    data = Dataset.from_tar(paths, ["a", "b", "c"], columns=["site", "odd"])
    assert list(data.all_keys()) == [f"{i:03d}.jpg" for i in range(12)]
    assert data.labels.tolist() == [i % 3 for i in range(12)]
    assert data.classes == ("a", "b", "c")
    assert list(data.captions or ()) == [f"number {i}" for i in range(12)]
    assert [data.columns["odd"][1][c] for c in data.columns["odd"][0]] == [str(i) for i in range(12)]
    ids = [11, 0, 7, 3, 0]
    assert [v.tobytes() for v in data.bytes_of(ids, check=True)] == [tars.jpeg(i) for i in ids]
    assert all(not v.flags.writeable and v.dtype == np.uint8 for v in data.bytes_of(ids))
    assert data.bytes_of([0])[0].ctypes.data == data.bytes_of([0])[0].ctypes.data, "views of one mapping, no copies"
    assert os.listdir("/proc/self/fd") == before, "nothing stays open"
    assert data.place_of(0).startswith(f"{paths[0]}, 000.jpg, byte ")
    assert data.name == tmp_path.name
    assert Dataset.from_tar(paths[1]).name == "part-1"
    again = Dataset.from_tar(tmp_path, ["a", "b", "c"], columns=["site", "odd"])
    assert again.full_digest == data.full_digest, "a folder is its .tar files"
    files = {p.name for p in tmp_path.iterdir()}
    assert files == {"part-0.tar", "part-1.tar", "part-0.tar.pydt", "part-1.tar.pydt"}
    data.check()
    data.check(3, seed=1)


KEYS = (
    st.lists(st.text("abü _-", min_size=1, max_size=90), min_size=1, max_size=3)
    .map("/".join)
    .filter(
        lambda key: not key.startswith("__")  # which may be a remark
    )
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(KEYS, min_size=1, max_size=5, unique=True),
    st.sampled_from(["jpg", "JPEG", "png"]),
    st.booleans(),
    st.sampled_from(["gnu", "pax"]),
    st.randoms(use_true_random=False),
)
def test_examples_are_those_that_tarfile_groups(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str], suffix: str, captioned: bool, form: str, random: Random
) -> None:
    members = []
    for i, key in enumerate(keys):
        members += [tars.member(f"{key}.{suffix}", tars.jpeg(i)), tars.member(f"{key}.cls", f"class {i % 2}".encode())]
        members += [tars.member(f"{key}.txt", key.encode())] if captioned else []
    random.shuffle(members)
    path = tars.write(tmp_path_factory.mktemp("shard") / "a.tar", members, form)
    found = Dataset.from_tar(path)
    with tarfile.open(path) as tar:
        content = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    images = [name for name in content if name.endswith(suffix)]
    assert list(found.all_keys()) == images
    assert [view.tobytes() for view in found.bytes_of(range(len(images)), check=True)] == [content[n] for n in images]
    stems = [name.removesuffix(f".{suffix}") for name in images]
    assert [found.classes[label] for label in found.labels] == [content[f"{stem}.cls"].decode() for stem in stems]
    assert found.captions == (tuple(stems) if captioned else None)


def test_a_shard_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = shards(tmp_path)
    first = Dataset.from_tar(paths)
    read: list[int] = []
    honest = _core.read_tar
    monkeypatch.setattr(_core, "read_tar", lambda data: (read.append(len(data)), honest(data))[1])
    assert Dataset.from_tar(paths).full_digest == first.full_digest
    assert not read
    tars.write(paths[1], tars.examples(range(20, 22), cls="1", txt=""))
    changed = Dataset.from_tar(paths)
    assert len(read) == 1, "the changed one alone"
    assert list(changed.all_keys())[-2:] == ["020.jpg", "021.jpg"]
    for damage in (b"", b"x" * 300, (tmp_path / "part-0.tar.pydt").read_bytes()[:-5]):
        (tmp_path / "part-0.tar.pydt").write_bytes(damage)
        assert Dataset.from_tar(paths).full_digest == changed.full_digest
    assert len(read) == 4
    shutil.copy(tmp_path / "part-1.tar.pydt", tmp_path / "part-0.tar.pydt")
    assert Dataset.from_tar(paths).full_digest == changed.full_digest, "the index of another shard is not believed"


def test_folder_and_shards_of_the_same_images_are_the_same_data(folder_of_images: Path, tmp_path: Path) -> None:
    folder = Dataset.from_folder(folder_of_images)
    members = []
    for i, key in enumerate(folder.all_keys()):
        members.append(tars.member(key, (folder_of_images / key).read_bytes()))
        members.append(tars.member(key.replace(".jpg", ".cls"), str(folder.labels[i]).encode()))
    tar = Dataset.from_tar(tars.write(tmp_path / "elsewhere" / "a.tar", members), folder.classes)
    assert tar.digest == folder.digest, "so rows of a store serve both"
    assert list(tar.sample(5, 3).all_keys()) == list(folder.sample(5, 3).all_keys())


def test_labels_captions_and_columns(tmp_path: Path) -> None:
    named = tars.write(
        tmp_path / "named.tar", tars.examples(range(4), cls="kind {i}\n", json='{"who": null, "n": true}')
    )
    data = Dataset.from_tar(named, columns=["n"])
    assert data.classes == ("kind 0", "kind 1", "kind 2", "kind 3")
    assert data.captions is None
    assert data.columns["n"][1] == ("True",)
    assert Dataset.from_tar(named, [f"kind {i}" for i in (3, 2, 1, 0)]).labels.tolist() == [3, 2, 1, 0]
    with pytest.raises(DataError, match="'kind 3' is not among the classes"):
        Dataset.from_tar(named, ["kind 0", "kind 1", "kind 2"])
    bare = tars.write(
        tmp_path / "bare.tar", tars.examples(range(3), txt="t{i}", json='{"kind": "k{i}", "m": {"a": 1}}')
    )
    with pytest.raises(DataError, match=r"no image has a \.cls\. label=\"NAME\""):
        Dataset.from_tar(bare)
    assert Dataset.from_tar(bare, label=None).classes == ("all",)
    assert Dataset.from_tar(bare, label="kind").classes == ("k0", "k1", "k2")
    assert Dataset.from_tar(bare, label="kind", caption=None).captions is None
    for ask, what in [
        ({"label": "absent"}, "no .json has 'absent'"),
        ({"label": None, "columns": ["absent"]}, "no .json has 'absent'"),
        ({"label": None, "columns": ["m"]}, "'m' of its .json is a dict, no simple value"),
        ({"label": None, "columns": "kind"}, "is no list of texts"),
        ({"label": None, "caption": "text"}, "caption='text'"),
        ({"label": None, "bad": "ignore"}, "unknown bad 'ignore'"),
    ]:
        with pytest.raises(DataError, match=what):
            Dataset.from_tar(bare, **ask)  # type: ignore[arg-type]
    for text in (
        "[1]",
        "{",
        '{"a": 1, "a": 2}',
        '{"a": Infinity}',
        '{"a": 0.5}',
        "[" * 100_000,
        '{"a": 1}\xff',
        '{"a": "\\ud800"}',
    ):
        members = [*tars.examples([0], cls="0", json='{"a": 1}'), *tars.examples([1], cls="0")]
        members.append(tars.member("001.json", text.encode("latin-1")))
        path = tars.write(tmp_path / "json.tar", members)
        with pytest.raises(DataError, match=r"001\.jpg: its \.json cannot be used .*; at byte \d+"):
            Dataset.from_tar(path, columns=["a"])
        assert len(Dataset.from_tar(path)) == 2, "what is not asked for is not looked at"


def test_examples_that_lack_something(tmp_path: Path) -> None:
    whole = tars.examples(range(3), cls="1", txt="t")
    cases = {
        "no label": (tars.examples([9], txt="t"), "009.jpg: has no label; at byte"),
        "empty label": (tars.examples([9], cls=" \n", txt="t"), "009.jpg: has no label"),
        "no caption": (tars.examples([9], cls="1"), "009.jpg: has no caption"),
        "no image": ([tars.member("009.cls", b"1")], "009.cls: its example has no image; at byte"),
        "no image, captioned": ([tars.member("009.txt", b"1")], "009.txt: its example has no image; at byte"),
        "empty image": ([tars.member("009.jpg"), *tars.examples([9], cls="1", txt="t")[1:]], "empty image file"),
        "cut image": (
            [tars.member("009.jpg", tars.jpeg(9)[:-2]), *tars.examples([9], cls="1", txt="t")[1:]],
            "truncated",
        ),
        "text": ([tars.member("009.jpg", b"text"), *tars.examples([9], cls="1", txt="t")[1:]], "is no JPEG"),
        "label of bytes": (
            [*tars.examples([9], txt="t"), tars.member("009.cls", b"\xff")],
            r"its \.cls cannot be used",
        ),
        "long label": (
            [*tars.examples([9], txt="t"), tars.member("009.cls", b"1" * 2000)],
            r"its \.cls cannot be used",
        ),
        "caption of bytes": (
            [*tars.examples([9], cls="1"), tars.member("009.txt", b"\xff")],
            r"its \.txt cannot be used",
        ),
        "dots": ([tars.member("a.b.jpg", tars.jpeg(9))], r"a\.b\.jpg: its name has several dots"),
    }
    for at, (members, what) in enumerate(cases.values()):
        path = tars.write(tmp_path / f"{at}.tar", [*whole, *members])
        for _ in range(2):  # read, and from the index beside it
            with pytest.raises(DataError, match=what):
                Dataset.from_tar(path)
            left = Dataset.from_tar(path, bad="skip")
            assert list(left.all_keys()) == ["000.jpg", "001.jpg", "002.jpg"]
            assert len(left.left_out) == 1
    path = tars.write(tmp_path / "all.tar", [tars.member("009.jpg"), tars.member("README", b"hello")])
    with pytest.raises(DataError, match="no images"):
        Dataset.from_tar(path, bad="skip")


def test_what_is_passed_over(tmp_path: Path) -> None:
    members = [
        tars.member("cat", type=tarfile.DIRTYPE),
        *[tars.member(f"cat/{info.name}", data) for info, data in tars.examples(range(2), cls="1")],
        *[
            tars.member(name, b"1")
            for name in ("cat/._000.jpg", "README.md", "cat/000.seg.png", "cat/000.npy", "x.json")
        ],
        tars.member("__meta__/a.jpg", b"1"),
        tars.member("cat/002.JPG", tars.jpeg(2)),
        tars.member("cat/002.CLS", b"1"),
    ]
    assert list(Dataset.from_tar(tars.write(tmp_path / "a.tar", members)).all_keys()) == [
        "cat/000.jpg",
        "cat/001.jpg",
        "cat/002.JPG",
    ]


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    members = [tars.member(f"cat/{info.name}", data) for info, data in tars.examples(range(3), cls="1")]
    members += [tars.member("cat/003.jfif", tars.jpeg(3)), tars.member("cat/003.cls", b"0")]
    image = tars.jpeg(4)
    left = {
        sources.HIDDEN: ["cat/._000.jpg", "cat/.DS_Store", "Thumbs.db", "__meta__/a.jpg"],
        sources.INSIDE: ["__MACOSX/cat/000.jpg", ".thumbnails/000.png", "cat/.ipynb_checkpoints/000.jpg"],
        sources.OTHER: ["cat/000.seg", "README", "cat/001.pyd"],
        ".npy files, which are not read, left out": ["cat/001.npy"],
        "further images of an example (KEY.FIELD.png), left out": ["cat/000.seg.png", "cat/001.seg.png"],
    }
    members += [tars.member(name, image) for names in left.values() for name in names]
    path = tars.write(tmp_path / "a.tar", members)
    for _ in range(2):  # read, and from the index beside it
        dataset = Dataset.from_tar(path)
        assert list(dataset.all_keys()) == ["cat/000.jpg", "cat/001.jpg", "cat/002.jpg", "cat/003.jfif"]
        assert dataset.noted == {reason: (len(n), f"a.tar, {min(n)}") for reason, n in left.items()}
    assert "Thumbs.db" in " ".join(Dataset.open(dataset.save(tmp_path / "saved").folder or "").notes())


def test_what_lies_beside_shards_is_counted(tmp_path: Path) -> None:
    tars.write(tmp_path / "a.tar", tars.examples(range(3), cls="1"))
    for name in ("b.tar.gz", "c.tar.gz", "README.md", "._a.tar"):
        (tmp_path / name).write_bytes(b"")
    for _ in range(2):
        dataset = Dataset.from_tar(tmp_path)
        assert dataset.noted == {
            sources.HIDDEN: (1, "._a.tar"),
            sources.OTHER: (1, "README.md"),
            ".gz files, which are not read, left out": (2, "b.tar.gz"),
        }
    assert Dataset.from_tar(tmp_path / "a.tar").noted == {}


def test_names_that_are_there_twice(tmp_path: Path) -> None:
    one = tars.examples(range(2), cls="1")
    path = tars.write(tmp_path / "a.tar", [*one, *one[:1]])
    with pytest.raises(DataError, match=r"'000\.jpg' \(byte 0\) and '000\.jpg' \(byte \d+\) are of one example"):
        Dataset.from_tar(path)
    path = tars.write(tmp_path / "a.tar", [*one, tars.member("000.png", b"1")])
    with pytest.raises(DataError, match=r"'000\.png' \(byte \d+\) are of one example"):
        Dataset.from_tar(path)
    first, second = (tars.write(tmp_path / f"{x}.tar", one) for x in "bc")
    with pytest.raises(DataError, match=r"b\.tar and .*c\.tar: image '000\.jpg' is in both"):
        Dataset.from_tar([first, second])
    both = Dataset.concat([Dataset.from_tar(first), Dataset.from_tar(second)])
    assert list(both.all_keys()) == ["b/000.jpg", "b/001.jpg", "c/000.jpg", "c/001.jpg"]
    for paths, what in [
        ([], "no shard"),
        ([first, first], "is given twice"),
        (3, "is no path"),
        ([3], "are no paths"),
        (tmp_path / "*.tar", "patterns are not expanded"),
        (tmp_path / "none.tar", "No such file"),
        ("a\0b.tar", r"no path \(embedded null byte\)|No such file"),
        ("x" * 300, "File name too long"),
        ([tmp_path, first], "not a regular file"),
        (tmp_path / "sub", r"has no \.tar files"),
    ]:
        (tmp_path / "sub").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=what):
            Dataset.from_tar(paths)


def test_parts_joins_and_copies(tmp_path: Path, folder_of_images: Path) -> None:
    folder = Dataset.from_folder(folder_of_images)
    data = Dataset.from_tar(shards(tmp_path / "shards"), ["a", "b", "c"])
    expected = [tars.jpeg(i) for i in range(12)] + [(folder_of_images / key).read_bytes() for key in folder.all_keys()]
    both = Dataset.concat([data, folder], ["tar", "folder"])
    small = both.sample(9, seed=2)
    keys = {key: i for i, key in enumerate(both.all_keys())}
    for made in (
        both,
        small,
        both.save(tmp_path / "both"),
        small.save(tmp_path / "small"),
        spool(both, tmp_path / "spool"),
    ):
        for one in (made, pickle.loads(pickle.dumps(made)), Dataset.open(made.folder) if made.folder else made):
            ids = np.random.default_rng(0).permutation(len(one))
            views = one.bytes_of(ids, check=True)
            assert [v.tobytes() for v in views] == [expected[keys[one.all_keys()[i]]] for i in ids]
            assert one.full_digest == made.full_digest
            one.check()
    assert len(both.paths or ()) == 2 + len(folder)
    assert len(Dataset.open(tmp_path / "spool" / both.full_digest)) == len(both)


def test_shards_that_change(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    stored = Dataset.from_tar(paths).save(tmp_path / "saved")
    (view,) = stored.bytes_of([0])
    content = paths[0].read_bytes()
    at = int(stored.records.offset[0]) + 50  # type: ignore[union-attr,index]
    # Copied elsewhere and back: other times, the same bytes.
    os.utime(paths[0], ns=(1, 1))
    with pytest.raises(DataError, match="written to while it was in use"):
        stored.bytes_of([0])
    assert Dataset.open(tmp_path / "saved").bytes_of([0])[0].tobytes() == view.tobytes()
    # Replaced by renaming: whoever has it open goes on, the next one notices.
    opened = Dataset.open(tmp_path / "saved")
    opened.bytes_of([0])
    changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    (tmp_path / "new").write_bytes(changed)
    (tmp_path / "new").replace(paths[0])
    assert opened.bytes_of([0], check=True)[0].tobytes() == view.tobytes()
    paths[0].unlink()
    assert opened.bytes_of([0], check=True)[0].tobytes() == view.tobytes()
    paths[0].write_bytes(changed)
    fresh = replace(opened)
    with pytest.raises(DataError, match="its bytes are not those that were indexed") as caught:
        fresh.bytes_of([1, 0])
    assert caught.value.where == f"{paths[0]}, 000.jpg, byte {at - 50}", "a shard of another time is compared"
    with pytest.raises(
        DataError, match=r"1 of 12 images are not those that were indexed: .*part-0\.tar, 00\d\.jpg, byte"
    ):
        fresh.check()
    # Cut: before it is mapped, and while it is.
    paths[0].write_bytes(content)
    held = Dataset.from_tar(paths)
    held.bytes_of([0, 11])
    os.truncate(paths[0], 5000)
    with pytest.raises(DataError, match=r"was written to while it was in use \(5000 bytes, \d+ when it was mapped\)"):
        held.bytes_of([0])
    with pytest.raises(DataError, match="lies behind the end of the shard, at byte 5000"):
        replace(held).bytes_of([6])
    with pytest.raises(DataError, match="refused: cut off"):
        Dataset.from_tar(paths)


def test_an_unknown_format_is_named_without_addresses(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    data = bytearray(paths[0].read_bytes())
    frame = data.index(b"\xff\xc0", data.index(b"003.jpg"))
    data[frame : frame + 19] = bytes(19)  # which indexing does not look at
    paths[0].write_bytes(data)
    found = inspect(Dataset.from_tar(paths))["broken"]
    assert found == {"003.jpg": "cannot be decoded (no image format that is known)"}


def test_opening_compares_shards_that_have_other_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = shards(tmp_path)
    content = paths[0].read_bytes()
    for i, change in enumerate([content[:3000], content.replace(tars.jpeg(2), tars.jpeg(3)[: len(tars.jpeg(2))])]):
        paths[0].write_bytes(content)
        Dataset.from_tar(paths).save(tmp_path / f"saved {i}")
        paths[0].write_bytes(change)
        os.utime(paths[0], ns=(i, i))
        monkeypatch.setattr(saved, "verified", set())  # as in another process
        with pytest.raises(DataError, match=r"of 12 image files are not those that were indexed: .*part-0\.tar, byte"):
            Dataset.open(tmp_path / f"saved {i}")
    paths[0].unlink()
    with pytest.raises(DataError, match=r"part-0\.tar: cannot be read \(No such file"):
        Dataset.open(tmp_path / "saved 0")


def test_a_shard_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shards(tmp_path)[0]
    honest = _core.check_parts

    def changing(*arguments: object) -> object:
        found = honest(*arguments)  # type: ignore[arg-type]
        os.utime(path, ns=(5, 5))
        return found

    monkeypatch.setattr(_core, "check_parts", changing)
    with pytest.raises(DataError, match="written to while it was in use"):
        Dataset.from_tar(path)
    assert not (tmp_path / "part-0.tar.pydt").exists()


def test_awkward_shards(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.tar")
    (tmp_path / "loop.tar").symlink_to("loop.tar")
    for path in (tmp_path / "fifo.tar", tmp_path / "loop.tar", Path("/dev/zero")):
        with pytest.raises(DataError, match="cannot be read"):
            Dataset.from_tar(path)


def test_inspect_of_shards(tmp_path: Path) -> None:
    shards(tmp_path)
    for place in (tmp_path, tmp_path / "part-0.tar"):
        found = inspect(load(place))
        assert found["images"] == (12 if place == tmp_path else 7)
        assert found["modes"] == {"RGB": found["images"]}
        assert not found["broken"]
    bare = tars.write(tmp_path / "bare" / "a.tar", tars.examples(range(3), json=json.dumps({})))
    assert inspect(load(bare.parent))["classes"] == {"all": 3}


def test_batches_of_shards_are_those_of_the_files(folder_of_images: Path, tmp_path: Path) -> None:
    folder = Dataset.from_folder(folder_of_images)
    tar = pack_tar(folder_of_images, tmp_path.parent / f"{tmp_path.name} out")
    keep = np.arange(len(folder)) % 3 > 0
    for train in (True, False):
        ours, theirs = (Loader(d, keep, 5, train, Augment(size=32), seed=3, check=True) for d in (tar, folder))
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a.index, b.index)
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.labels, b.labels)
    batches = iter(Loader(tar, batch_size=5, augment=Augment(size=32)))
    next(batches)
    assert tar.paths is not None
    os.truncate(tar.paths[0], 4096)
    with pytest.raises(DataError, match="was written to while it was in use"):
        next(batches)


def test_images_too_large_are_not_read(tmp_path: Path) -> None:
    """A sparse file takes no room on the disk, and hours to read."""
    large, small = tarfile.TarInfo("a.jpg"), tars.archive(tars.examples([0], cls="1"))
    large.size = 3 << 30
    with open(tmp_path / "a.tar", "wb") as file:
        file.write(large.tobuf())
        file.seek(large.size, os.SEEK_CUR)
        file.write(small)
    found = Dataset.from_tar(tmp_path / "a.tar", bad="skip")
    assert found.left_out == {"a.tar, a.jpg": "of 3221225472 bytes is too large for an image; at byte 0"}
    assert len(found) == 1


def test_shards_of_one_name_list_all_that_is_left_out(tmp_path: Path) -> None:
    paths = [
        tars.write(tmp_path / str(k) / "a.tar", [tars.member("bad.jpg", b""), *tars.examples([k], cls="1")])
        for k in range(2)
    ]
    assert set(Dataset.from_tar(paths, bad="skip").left_out) == {f"{path}, bad.jpg" for path in paths}
    with pytest.raises(DataError, match="2 bad files"):
        Dataset.from_tar(paths)


def test_a_shard_is_not_replaced_between_its_images_and_their_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = shards(tmp_path)
    Dataset.from_tar(path, columns=["site"])
    honest = module.map_shard

    def replaced(name: str) -> object:
        os.replace(other, path)
        return honest(name)

    monkeypatch.setattr(module, "map_shard", replaced)
    with pytest.raises(DataError, match=r"part-0\.tar: was replaced while it was read"):
        Dataset.from_tar(path, columns=["site"])


def test_names_of_shards_are_texts(tmp_path: Path) -> None:
    path = os.fsencode(shards(tmp_path)[0]) + b"\xff.tar"
    shutil.copy(tmp_path / "part-0.tar", path)
    with pytest.raises(DataError, match=r"is not UTF-8\. rename it"):
        Dataset.from_tar(path)


@pytest.mark.parametrize("length", [-5, 2**62, 2**63 - 1])
@pytest.mark.parametrize("sort", ["files", "shards"])
def test_lengths_in_an_index_are_not_believed(folder_of_images: Path, tmp_path: Path, sort: str, length: int) -> None:
    made = Dataset.from_folder(folder_of_images) if sort == "files" else Dataset.from_tar(shards(tmp_path))
    place = tmp_path / "saved"
    made.save(place)
    sections = dict(read_index(place / FILE))
    lengths = np.array(sections["length"])
    lengths[1] = length
    (place / FILE).write_bytes(pack_index(sections | {"length": lengths}))
    with pytest.raises(DataError, match="lengths that no image has"):
        Dataset.open(place)


def test_a_length_in_an_index_of_files_is_compared(
    folder_of_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Dataset.from_folder(folder_of_images).save(tmp_path / "saved")
    sections = dict(read_index(tmp_path / "saved" / FILE))
    (tmp_path / "saved" / FILE).write_bytes(pack_index(sections | {"length": np.asarray(sections["length"]) + 1}))
    monkeypatch.setattr(saved, "verified", set())
    with pytest.raises(DataError, match="has changed"):
        Dataset.open(tmp_path / "saved")


def test_some_of_the_shards_have_some_of_the_classes(tmp_path: Path) -> None:
    names = tars.member("__pydt__/classes.txt", b"10\n2\nant\n")
    one = tars.write(tmp_path / "a.tar", [names, *tars.examples(range(2), cls="1")])
    two = tars.write(tmp_path / "b.tar", [names, *tars.examples(range(2, 4), cls="2")])
    data = Dataset.from_tar([one, two])
    assert [data.classes[label] for label in data.labels] == ["2", "2", "ant", "ant"], "numbers are those of the list"
    assert data.notes() == ["class names without images, left out: 1 (10)"]
    assert Dataset.from_tar(one).notes() == ["class names without images, left out: 2 (10, ...)"]
    with pytest.raises(DataError, match="classes without images: 10"):
        Dataset.from_tar([one, two], ["10", "2", "ant"])
