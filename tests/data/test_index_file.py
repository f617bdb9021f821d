"""The index file against every way of being wrong, and what stands beside it.

Rows named F1 to F14: an empty, cut, damaged, foreign, hostile, sparse, vanishing or unreadable file is a DataError that
says so, never a crash or a number.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_crc import crc32c

from pydt import _core
from pydt.base import DataError, open_npy
from pydt.data import Dataset
from pydt.data.index_file import FILE, Texts, pack_index, read_index, repeated
from pydt.data.loading import Loader

Section = tuple[bytes, int, int, bytes]  # name, kind, count, payload


def texts(*values: bytes, ends: list[int] | None = None) -> bytes:
    """Payload of a section of texts, with other ends if they are given."""
    ends = [sum(map(len, values[:i])) for i in range(len(values) + 1)] if ends is None else ends
    return struct.pack(f"<{len(ends)}q", *ends) + b"".join(values)


def craft(
    sections: list[Section], *, version: int = 3, size: int | None = None, count: int | None = None, **claims: int
) -> bytes:
    """An index file written from the description of the format, every checksum right; `claims`: bytes of the first
    section."""
    table, payloads, end = b"", b"", 64 + 64 * len(sections)
    for i, (name, kind, entries, payload) in enumerate(sections):
        said = claims.get("claimed", len(payload)) if i == 0 else len(payload)
        table += struct.pack("<40sIIQQ", name, kind, crc32c(payload), entries % 2**64, said % 2**64)
        payloads += bytes(-end % 64) + payload
        end += -end % 64 + len(payload)
    head = struct.pack(
        "<8sIIQI",
        b"\x89PYDT\r\n\x1a",
        version,
        (len(sections) if count is None else count) % 2**32,
        (end if size is None else size) % 2**64,
        crc32c(table),
    )
    return head + struct.pack("<I32x", crc32c(head)) + table + payloads


def small() -> Dataset:
    images = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    return Dataset.from_arrays(
        images,
        list("abcabc"),
        columns={"site": ["x", None, "y", "x", "y", "y"]},
        captions=["one", "zwei", "три", "", "five", "six"],
    )


def refused(data: bytes, folder: Path, match: str = "damaged index") -> None:
    (folder / FILE).write_bytes(data)
    with pytest.raises(DataError, match=match) as caught:
        read_index(folder / FILE)
    assert FILE in str(caught.value)
    assert caught.value.mend


# ---- what is written is read ---------------------------------------------------------------------------------------

ARRAYS = st.one_of(
    st.binary(max_size=200).map(lambda b: np.frombuffer(b, np.uint8)),
    st.lists(st.integers(0, 2**32 - 1), max_size=20).map(lambda v: np.array(v, np.uint32)),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20).map(lambda v: np.array(v, np.int64)),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=10),
)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=10)


@given(sections=st.dictionaries(NAMES, ARRAYS, max_size=6))
@settings(max_examples=60, deadline=None)
def test_sections_come_back_and_are_laid_out_as_described(
    tmp_path_factory: pytest.TempPathFactory, sections: dict
) -> None:
    kinds = {"uint8": 1, "uint32": 2, "int64": 3}
    crafted: list[Section] = []
    for name, value in sections.items():
        if isinstance(value, np.ndarray):
            crafted.append((name.encode(), kinds[value.dtype.name], value.size, value.tobytes()))
        else:
            crafted.append((name.encode(), 4, len(value), texts(*(text.encode() for text in value))))
    data = pack_index(sections)
    assert data == craft(crafted)
    path = tmp_path_factory.mktemp("index") / FILE
    path.write_bytes(data)
    found = read_index(path)
    assert list(found) == list(sections)
    for name, value in sections.items():
        if isinstance(value, np.ndarray):
            assert found[name].dtype == value.dtype
            assert np.array_equal(found[name], value)
        else:
            assert tuple(found[name]) == tuple(value)
            assert [found[name][i] for i in range(-len(value), len(value))] == [*value, *value]


@given(data=st.data(), changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_a_changed_file_is_refused_or_means_the_same(data: st.DataObject, changes: list[tuple[int, int]]) -> None:
    whole = np.frombuffer(pack_index({"a": np.arange(9), "t": ["x", "", "yz"], "b": np.zeros(3, np.uint8)}), np.uint8)
    broken = whole[: data.draw(st.integers(0, len(whole)), "length") or len(whole)].copy()
    for place, value in changes:
        broken[place % len(broken)] = value
    if np.array_equal(broken, whole):
        assert len(_core.read_index(broken)) == 3
    else:
        with pytest.raises(ValueError, match=r"^index: "):
            _core.read_index(broken)


@given(values=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=30))
def test_repeated_texts(values: list[str]) -> None:
    twice = [v for i, v in enumerate(values) if v in values[:i]]
    assert repeated(values) == (twice[0] if twice else None)


@given(data=st.binary(max_size=100), start=st.integers(0, 7))
def test_crc32c_is_castagnolis(data: bytes, start: int) -> None:
    array = np.frombuffer(bytes(start) + data, np.uint8)[start:]
    assert _core.crc32c(array) == crc32c(data)


def test_crc32c_of_the_standard() -> None:
    assert _core.crc32c(np.frombuffer(b"123456789", np.uint8)) == 0xE3069283  # RFC 3720, and every list of CRCs
    assert _core.crc32c(np.zeros(32, np.uint8)) == 0x8A9136AA  # RFC 3720, appendix B.4
    images = np.random.default_rng(0).integers(0, 256, (700, 5, 3, 3), np.uint8)
    positions = np.random.default_rng(1).integers(0, 700, 600)
    expected = [crc32c(images[p].tobytes()) for p in positions]
    for threads in (1, 3):
        assert _core.crc_records(images, positions, threads).tolist() == expected
    with pytest.raises(ValueError, match="index"):
        _core.crc_records(images, np.array([700]), 1)


# ---- F1 to F14 -----------------------------------------------------------------------------------------------------


def test_f1_empty_files(tmp_path: Path) -> None:
    refused(b"", tmp_path, "0 bytes is too short")
    (tmp_path / "x.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.npy: cannot be mapped"):
        Dataset.from_arrays(tmp_path / "x.npy", [0])


def test_f2_truncated_at_every_byte(tmp_path: Path) -> None:
    small().save(tmp_path)
    whole = np.frombuffer((tmp_path / FILE).read_bytes(), np.uint8)
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r"^index: "):
            _core.read_index(whole[:length].copy())
    refused(whole[:-1].tobytes(), tmp_path, "says that it has")
    images = (tmp_path / "images.npy").read_bytes()
    for length in range(len(images)):
        (tmp_path / "cut.npy").write_bytes(images[:length])
        with pytest.raises(DataError, match=r"cut\.npy"):
            open_npy(tmp_path / "cut.npy")


def test_f3_one_flipped_bit_anywhere(tmp_path: Path) -> None:
    small().save(tmp_path)
    whole = np.frombuffer((tmp_path / FILE).read_bytes(), np.uint8).copy()
    assert _core.read_index(whole)
    for place in range(len(whole)):
        for bit in range(8):
            whole[place] ^= 1 << bit
            with pytest.raises(ValueError, match=r"^index: "):
                _core.read_index(whole)
            whole[place] ^= 1 << bit
    images = bytearray((tmp_path / "images.npy").read_bytes())
    for place in range(0, len(images), 3):
        images[place] ^= 1 << place % 8
        (tmp_path / "images.npy").write_bytes(images)
        with pytest.raises(DataError, match=r"images\.npy|do not fit"):
            Dataset.open(tmp_path)
        images[place] ^= 1 << place % 8


def test_f4_magic_and_versions(tmp_path: Path) -> None:
    refused(b"PK" + bytes(100), tmp_path, "does not start as one")
    refused(craft([], version=4), tmp_path, "version 4; this pydt reads 3")
    refused(craft([], version=0), tmp_path, "version 0")
    (tmp_path / FILE).rename(tmp_path / "index.safetensors")
    with pytest.raises(DataError, match=r"index\.safetensors is of a version before 0\.1\.0.*Dataset\.save"):
        Dataset.open(tmp_path)


def test_records_without_traits_are_of_an_older_version(folder_of_images: Path) -> None:
    Dataset.from_folder(folder_of_images)
    edited(folder_of_images, traits=None)
    with pytest.raises(DataError, match=r"version before 0\.1\.0.*index again"):
        Dataset.open(folder_of_images)
    assert Dataset.from_folder(folder_of_images).traits().tolist() == Dataset.open(folder_of_images).traits().tolist()


@pytest.mark.parametrize("claimed", [0, 7, 9, 64, -1, -(2**63), 2**62, 2**63])
def test_f5_lengths_that_are_not_so(tmp_path: Path, claimed: int) -> None:
    payload = struct.pack("<q", 5)
    refused(craft([(b"labels", 3, 1, payload)], claimed=claimed), tmp_path, "which does not fit")
    refused(craft([(b"labels", 3, 1, payload)], size=claimed), tmp_path, "says that it has")
    refused(craft([(b"labels", 3, 1, payload)], count=claimed), tmp_path, "damaged|sections")


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [2**61, 2**61 + 1, 2**62, 2**63 - 1, 2**63, -1])
def test_f6_products_beyond_64_bits(tmp_path: Path, kind: int, count: int) -> None:
    refused(craft([(b"x", kind, count, struct.pack("<q", 0))]), tmp_path, "which does not fit")


@pytest.mark.parametrize("shape", [(2**32, 2**32, 1), (2**62, 4, 4), (2**63, 1, 1), (-1, 4, 4), (3, 2**64, 0)])
def test_f6_npy_shapes_beyond_64_bits(tmp_path: Path, shape: tuple[int, ...]) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".encode()
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + bytes(64)
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.npy|no pixels"):
        Dataset.from_arrays(tmp_path / "x.npy", [0])


@pytest.mark.parametrize(
    ("ends", "what"),
    [
        ([0, 5, 4, 6], "out of order"),
        ([0, 2, 7, 6], "out of the section"),
        ([0, 2, 2**63 - 1, 6], "out of the section"),
        ([0, -1, 4, 6], "out of order"),
        ([1, 2, 4, 6], "do not start at 0"),
        ([0, 2, 4, 5], "do not fill the section"),
    ],
)
def test_f7_places_out_of_range_or_order(tmp_path: Path, ends: list[int], what: str) -> None:
    refused(craft([(b"keys", 4, 3, texts(b"ab", b"cd", b"ef", ends=ends))]), tmp_path, what)


def test_f7_gaps_and_what_follows(tmp_path: Path) -> None:
    whole = craft([(b"x", 1, 3, b"abc"), (b"y", 1, 1, b"d")])
    gap = bytearray(whole)
    gap[64 + 128 + 3] = 1
    refused(bytes(gap), tmp_path, "bytes between its sections")
    refused(craft([(b"x", 1, 3, b"abc")], size=64 + 64 + 3 + 4) + b"tail", tmp_path, "4 bytes after its last section")


def edited(folder: Path, **changes: np.ndarray | list[str] | None) -> None:
    """Rewrite the index in a folder with other sections; None leaves one out."""
    sections: dict = dict(read_index(folder / FILE))
    for name, value in changes.items():
        name = name.replace("_", " ")
        if value is None:
            del sections[name]
        else:
            sections[name] = value
    (folder / FILE).write_bytes(pack_index(sections))


WRONG = {
    "labels out of range (F14)": ({"labels": np.array([0, 1, 2, 0, 1, 3])}, "labels from 0 to 3 for 3 classes"),
    "negative label (F14)": ({"labels": np.array([0, 1, 2, 0, 1, -1])}, "labels from -1"),
    "fewer labels (F14)": ({"labels": np.array([0, 1, 2])}, "6 of positions for 3 labels"),
    "position out of the images (F7)": ({"positions": np.array([0, 1, 2, 3, 4, 6])}, "positions from 0 to 6"),
    "an image twice (F14)": ({"positions": np.array([0, 1, 2, 3, 4, 4])}, "image 4 is there twice"),
    "a key twice (F14)": ({"keys": list("abcdea")}, "'a' is twice among the keys"),
    "a class twice (F14)": ({"classes": ["a", "b", "a"]}, "'a' is twice among the classes"),
    "a column of another height (F14)": ({"column_0": np.array([0, 1])}, "2 of column 'site' for 6"),
    "a unit out of range (F14)": ({"column_0": np.array([0, 1, 2, 0, 0, 0])}, "column 'site' from 0 to 2 for 2"),
    "captions of another number (F14)": ({"captions": ["one"]}, "1 of captions for 6"),
    "no examples (F8)": ({"labels": np.zeros(0, np.int64)}, "no example"),
    "no classes (F8)": ({"classes": []}, "for 0 classes"),
    "no labels at all (F9)": ({"labels": None}, "damaged index.*labels"),
    "no images at all (F9)": ({"images": None}, "damaged index.*no images and no files"),
    "labels of another type (F9)": ({"labels": np.zeros(6, np.uint32)}, "damaged index.*no whole numbers"),
    "labels as texts (F9)": ({"labels": list("abcabc")}, "damaged index.*no whole numbers"),
    "two names (F9)": ({"name": ["a", "b"]}, "damaged index"),
    "a column without names (F9)": ({"names_0": None}, "damaged index.*names 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_f8_f9_f14_parts_that_do_not_fit(tmp_path: Path, case: str) -> None:
    changes, message = WRONG[case]
    small().save(tmp_path)
    edited(tmp_path, **changes)
    with pytest.raises(DataError, match=f"(?s){message}") as caught:
        Dataset.open(tmp_path)
    assert caught.value.mend


def test_f8_nothing_in_it(tmp_path: Path) -> None:
    refused(bytes(64), tmp_path, "does not start as one")
    (tmp_path / FILE).write_bytes(craft([]))
    with pytest.raises(DataError, match="damaged index"):
        Dataset.open(tmp_path)
    with pytest.raises(DataError, match="no pixels"):
        Dataset.from_arrays(np.zeros((3, 0, 4), np.uint8), [0, 1, 2])


def test_f9_kinds_names_and_texts(tmp_path: Path) -> None:
    one = (b"x", 1, 1, b"a")
    for kind in (0, 5, 2**32 - 1):
        refused(craft([(b"x", kind, 1, b"a")]), tmp_path, "unknown kind")
    refused(craft([one, one]), tmp_path, "section 'x' twice")
    for name in (b"", b"a\0b", b"\xff", b"x" * 40):
        refused(craft([(name, 1, 1, b"a")]), tmp_path, "without a proper name")
    for text in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"):
        refused(craft([(b"keys", 4, 1, texts(text))]), tmp_path, "are not UTF-8, at 0")
    # a character that is cut in two by the border between texts
    refused(craft([(b"keys", 4, 2, texts(b"\xc3", b"\xa9"))]), tmp_path, "are not UTF-8, at 0")
    refused(craft([one], count=2**31), tmp_path, "sections")
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 3), ">u2"))
    with pytest.raises(DataError, match=r"dtype >u2, not uint8"):
        Dataset.from_arrays(tmp_path / "x.npy", [0, 1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sparse files")
def test_f10_a_sparse_file_of_a_terabyte(tmp_path: Path) -> None:
    import resource

    for start in (b"", craft([], size=1 << 40)):
        (tmp_path / FILE).write_bytes(start)
        os.truncate(tmp_path / FILE, 1 << 40)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(DataError, match="too large for an index"):
            read_index(tmp_path / FILE)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000, "refused before room is made"
    # Below that limit the header decides, before the file is read.
    (tmp_path / FILE).write_bytes(b"")
    os.truncate(tmp_path / FILE, 15 << 30)
    with pytest.raises(DataError, match="does not start as one"):
        read_index(tmp_path / FILE)


def test_f11_files_that_shrink_while_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = small().save(tmp_path)
    saved.check()
    batches = iter(Loader(saved, batch_size=1))
    next(batches)
    pixels = (tmp_path / "images.npy").read_bytes()
    with open(tmp_path / "images.npy", "r+b") as file:
        file.seek(len(pixels) - 1)
        file.write(bytes([pixels[-1] ^ 1]))
    saved.unchanged()
    with pytest.raises(DataError, match="1 of 6 images are not those that were indexed: image 5"):
        saved.check()
    os.truncate(tmp_path / "images.npy", 100)
    with pytest.raises(DataError, match=r"images\.npy: has 100 bytes"):
        next(batches)
    with pytest.raises(DataError, match=r"images\.npy: has 100 bytes, fewer than the 200"):
        saved.check()
    with pytest.raises(DataError, match=r"images\.npy: has 100 bytes, fewer than the 200"):
        next(iter(Loader(saved)))
    (tmp_path / "images.npy").unlink()
    with pytest.raises(DataError, match=r"images\.npy: has 0 bytes"):
        saved.check()
    honest = _core.check_index_head

    def shrinking(head: np.ndarray, size: int) -> None:
        honest(head, size)
        os.truncate(tmp_path / FILE, 100)

    monkeypatch.setattr(_core, "check_index_head", shrinking)
    with pytest.raises(DataError, match="became shorter while it was read"):
        read_index(tmp_path / FILE)


def test_f11_a_replaced_file_leaves_the_open_one_alone(tmp_path: Path) -> None:
    saved = small().save(tmp_path)
    replace(small(), images=np.zeros((6, 4, 3, 1), np.uint8)).save(tmp_path)
    assert saved.images is not None
    assert np.array_equal(saved.images.reshape(-1), np.arange(72)), "the mapping keeps what it was made of"
    saved.check()
    with pytest.raises(DataError, match="holds another data set"):
        pickle.loads(pickle.dumps(saved))


def awkward(folder: Path) -> dict[str, Path]:
    """Things with the name of a file that are none."""
    (folder / "folder").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    (folder / "gone").symlink_to("nowhere")
    names = ("folder", "fifo", "loop", "gone")
    return {name: folder / name for name in names} | {
        "device": Path("/dev/zero"),
        "long": folder / ("x" * 4096),
        "zero": folder / "a\0b",
        "newline": folder / "a\nb",
    }


@pytest.mark.parametrize("name", ["folder", "fifo", "loop", "gone", "device", "long", "zero", "newline"])
def test_f12_what_is_no_regular_file(tmp_path: Path, name: str) -> None:
    path = awkward(tmp_path)[name]
    for read in (read_index, open_npy, lambda path: Dataset.from_arrays(path, [0])):
        with pytest.raises(DataError, match=r"cannot be read|no regular file|embedded null") as caught:
            read(path)
        assert len(str(caught.value)) < 500
        assert "\n" not in str(caught.value)
    if name in ("fifo", "folder", "loop"):
        path.rename(tmp_path / FILE)
        with pytest.raises(DataError, match=r"regular file|cannot be read"):
            Dataset.open(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_f12_no_permission(tmp_path: Path) -> None:
    small().save(tmp_path)
    (tmp_path / FILE).chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        Dataset.open(tmp_path)


def hostile() -> dict[str, bytes]:
    archive, arrays, objects = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("images.npy", bytes(10 << 20))
    np.savez(arrays, images=np.zeros((2, 3, 3), np.uint8))
    np.save(objects, np.array([{}, {}], object), allow_pickle=True)
    return {
        "pickle": pickle.dumps(np.zeros((2, 3, 3), np.uint8)),
        "zip": archive.getvalue(),
        "npz": arrays.getvalue(),
        "objects": objects.getvalue(),
    }


@pytest.mark.parametrize("kind", ["pickle", "zip", "npz", "objects"])
def test_f13_pickles_and_archives(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("something was unpickled")

    data = hostile()[kind]
    monkeypatch.setattr(pickle, "load", never)
    monkeypatch.setattr(pickle, "loads", never)
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.npy: cannot be mapped as \.npy"):
        Dataset.from_arrays(tmp_path / "x.npy", [0, 1])
    refused(data, tmp_path, "does not start as one")


def test_texts_are_a_sequence() -> None:
    made = Texts.of(["a", "", "ü"])
    assert made == ("a", "", "ü")
    assert made != ("a", "", "u")
    assert made[1:] == ("", "ü")
    assert made[-1] == "ü"
    assert hash(made) == hash(("a", "", "ü"))
    assert Texts(made.ends, made.data, "x/")[2] == "x/ü"
    assert list(Texts.of(Texts(made.ends, made.data, "x/"))) == ["x/a", "x/", "x/ü"]
    read: Callable[[int], str] = made.__getitem__
    for i in (3, -4):
        with pytest.raises(IndexError):
            read(i)
    assert pickle.loads(pickle.dumps(made)) == made
