"""The core's reader of tar archives against Python's tarfile; refusals name the place."""

from __future__ import annotations

import contextlib
import os
import re
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import oracle_tar
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_tar import FORMATS, archive, member

from pydt import _core


def listed(data: bytes) -> list[tuple[str, int, int]]:
    """Name, place and size of each file as the core reads an archive."""
    ends, names, headers, offsets, sizes = _core.read_tar(np.frombuffer(data, np.uint8))
    assert (headers + 512 <= offsets).all()
    bounds = ends.tolist()
    texts = [names[a:b].tobytes().decode() for a, b in pairwise(bounds)]
    return list(zip(texts, offsets.tolist(), sizes.tolist(), strict=True))


part = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=60).filter(
    lambda text: text not in (".", "..")
)
name = st.lists(part, min_size=1, max_size=6).map("/".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(name, st.binary(max_size=1500)), max_size=6), st.sampled_from(["gnu", "pax"]))
def test_members_are_those_that_tarfile_lists(files: list[tuple[str, bytes]], form: str) -> None:
    data = archive([member(*file) for file in files], form)
    assert listed(data) == oracle_tar.listed(data)
    assert [data[start : start + size] for _, start, size in listed(data)] == [content for _, content in files]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("abcdefgh", min_size=1, max_size=60), min_size=1, max_size=4).map("/".join))
def test_long_ustar_names_are_put_together(text: str) -> None:
    try:
        data = archive([member(text, b"1")])
    except ValueError:
        return  # too long for a ustar header
    assert listed(data) == oracle_tar.listed(data)


def test_sizes_beyond_octal_and_folders() -> None:
    # A header of 9 GB in base-256 is read as such, and refused since the archive does not hold it.
    info = member("big.jpg")[0]
    info.size = 9 << 30
    header = info.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(ValueError, match=rf"a file of {9 << 30} bytes that the archive does not hold, at byte 0"):
        listed(header + bytes(2048))
    members = [member("cat", type=tarfile.DIRTYPE), member("./cat/1.jpg", b"x")]
    assert listed(archive(members)) == [("cat/1.jpg", 1024, 1)], "a leading ./ is no part of a name"
    # The size in a pax header overrides the other.
    pax = archive([member("a.jpg", b"12345", pax_headers={"size": "5", "comment": "é=\n"})], "pax")
    assert listed(pax) == oracle_tar.listed(pax)


def broken_header(data: bytes, at: int, field: slice, value: bytes) -> bytes:
    """An archive with some bytes of a header changed and its checksum corrected."""
    header = bytearray(data[at : at + 512])
    header[field] = value.ljust(field.stop - field.start, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return data[:at] + bytes(header) + data[at + 512 :]


PLAIN = archive([member("a.jpg", b"1" * 700), member("b.jpg", b"2")])
NAME, SIZE, KIND, MAGIC = slice(0, 100), slice(124, 136), slice(156, 157), slice(257, 263)
PAX = archive([member("é" * 80 + ".jpg", b"1")], "pax")
GNU = archive([member("e" * 120 + ".jpg", b"1")], "gnu")
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file, at byte 0"),
    "text": (b"no archive at all" * 100, "no header of a ustar, GNU or pax archive, at byte 0"),
    "gzip": (b"\x1f\x8b" + bytes(600), "compressed by gzip"),
    "bzip2": (b"BZh9" + bytes(600), "compressed by bzip2"),
    "xz": (b"\xfd7zXZ\0" + bytes(600), "compressed by xz"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(600), "compressed by zstd"),
    "checksum": (PLAIN[:1536] + b"c" + PLAIN[1537:], "a damaged header, at byte 1536"),
    "no checksum": (PLAIN[:148] + b"x" * 8 + PLAIN[156:], "whose checksum is no number, at byte 0"),
    "old magic": (broken_header(PLAIN, 1536, MAGIC, b""), "no header of a ustar, GNU or pax archive, at byte 1536"),
    "absolute": (broken_header(PLAIN, 1536, NAME, b"/etc/a.jpg"), "an absolute name, at byte 1536"),
    "up": (broken_header(PLAIN, 1536, NAME, b"a/../../b.jpg"), r'a name that holds "\.\.", at byte 1536'),
    "up at the end": (broken_header(PLAIN, 1536, NAME, b"a/.."), r'a name that holds "\.\.", at byte 1536'),
    "no name": (broken_header(PLAIN, 1536, NAME, b""), "a file without a name, at byte 1536"),
    "folder's name": (broken_header(PLAIN, 0, NAME, b"a/"), "a file with the name of a folder, at byte 0"),
    "nothing but ./": (broken_header(PLAIN, 0, NAME, b"./"), "a file with the name of a folder, at byte 0"),
    "no utf-8": (broken_header(PLAIN, 1536, NAME, b"\xff.jpg"), "a name that is not UTF-8, at byte 1536"),
    "hard link": (broken_header(PLAIN, 0, KIND, b"1"), "a link, at byte 0"),
    "soft link": (broken_header(PLAIN, 0, KIND, b"2"), "a link, at byte 0"),
    "device": (broken_header(PLAIN, 0, KIND, b"3"), "a device or FIFO, at byte 0"),
    "block device": (broken_header(PLAIN, 0, KIND, b"4"), "a device or FIFO, at byte 0"),
    "fifo": (broken_header(PLAIN, 0, KIND, b"6"), "a device or FIFO, at byte 0"),
    "sparse": (broken_header(PLAIN, 0, KIND, b"S"), "a sparse file, at byte 0"),
    "split": (broken_header(PLAIN, 0, KIND, b"M"), "a part of a split or incremental archive, at byte 0"),
    "unknown type": (broken_header(PLAIN, 0, KIND, b"Z"), "a member of unknown type, at byte 0"),
    "folder of bytes": (broken_header(PLAIN, 0, KIND, b"5"), "a folder that has bytes, at byte 0"),
    "negative size": (broken_header(PLAIN, 0, SIZE, b"-0000000001"), "whose size is no number"),
    "negative base-256": (broken_header(PLAIN, 0, SIZE, b"\xff" * 12), "whose size is no number"),
    "huge base-256": (broken_header(PLAIN, 0, SIZE, b"\x80" + b"\xff" * 11), "whose size is no number"),
    "largest base-256": (broken_header(PLAIN, 0, SIZE, b"\x80\0\0\0\x3f" + b"\xff" * 7), "does not hold, at byte 0"),
    "no size": (broken_header(PLAIN, 0, SIZE, b""), "whose size is no number"),
    "size out of the file": (broken_header(PLAIN, 1536, SIZE, b"77777777777"), "does not hold, at byte 1536"),
    "second archive": (PLAIN + PLAIN, "bytes behind the end mark"),
    "sparse by pax": (
        archive([member("a.jpg", b"1", pax_headers={"GNU.sparse.major": "1"})], "pax"),
        "a sparse file, at byte 0",
    ),
    "global path": (broken_header(PAX, 0, KIND, b"g"), "a pax header that gives all files one path, at byte 0"),
    "damaged pax": (PAX[:512] + b"9" + PAX[513:], "a damaged pax header, at byte 0"),
    "pax without file": (PAX[:1024] + bytes(1024), "an extended header without its file, at byte 1024"),
    "long name without file": (GNU[:1024] + bytes(1024), "an extended header without its file, at byte 1024"),
    "huge long name": (broken_header(GNU, 0, SIZE, b"10000000"), "does not hold, at byte 0"),
    "huge long name, held": (
        broken_header(GNU[:512], 0, SIZE, b"10000000") + bytes(3 << 20),
        "an extended header of 2097152 bytes, at byte 0",
    ),
    "pax size": (
        archive([member("a.jpg", b"12", pax_headers={"size": "9" * 18})], "pax"),
        "that the archive does not hold",
    ),
    "pax charset": (
        archive([member("a.jpg", b"12", pax_headers={"hdrcharset": "BINARY"})], "pax"),
        "names that are not UTF-8",
    ),
    "pax name with NUL": (
        PAX[:512] + PAX[512:1024].replace("é".encode(), b"a\0", 1) + PAX[1024:],
        "a damaged pax header",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_are_refused_with_the_place(case: str) -> None:
    data, what = HOSTILE[case]
    with pytest.raises(ValueError, match=f"^tar: .*{what}") as caught:
        listed(data)
    assert re.search(r", at byte \d+$", str(caught.value))


@pytest.mark.parametrize("form", FORMATS)
def test_a_cut_at_any_place_is_refused(form: str) -> None:
    long = "x" * 90 + "/" + "y" * 60 if form == "ustar" else "ü" * 130
    members = [
        member("a.jpg", b"1" * 700),
        member(long, b"2" * 512),
        member("c.txt"),
        member("d", b"3"),
    ]
    whole = archive(members, form)
    end = max(start + (size + 511) // 512 * 512 for _, start, size in oracle_tar.listed(whole))
    assert whole[end:] == bytes(len(whole) - end)
    random = np.random.default_rng(0)
    places = {*range(0, end + 1024, 512), *random.integers(0, end + 1023, 200).tolist(), end + 1023, end + 1025}
    for cut in places:
        with pytest.raises(ValueError, match=r"at byte \d+$"):
            listed(whole[:cut])
    assert listed(whole[: end + 1024]) == listed(whole) == oracle_tar.listed(whole), (
        "less than two blocks of zeros is no end"
    )


def test_changed_bytes_are_refused_or_read_as_tarfile_reads_them() -> None:
    whole = archive([member("a.jpg", b"1" * 30), member("é" * 60, b"2" * 30)], "pax")
    random = np.random.default_rng(0)
    for _ in range(3000):
        changed = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            changed[random.integers(0, 5 * 512)] = random.choice([0, 1, 0x20, 0x30, 0x37, 0x7F, 0x80, 0xFF])
        try:
            found = listed(bytes(changed))
        except ValueError:
            continue
        assert found == oracle_tar.listed(bytes(changed))


def test_f3_one_flipped_bit_in_any_header() -> None:
    whole = archive([member("a.jpg", b"1" * 30), member("é" * 60, b"2" * 30)], "pax")
    found = listed(whole)
    accepted = set()
    # The second file has a pax header and its content before its own.
    for header in [h for h in (0, 1024, 2048, 3072) if whole[h + 257 : h + 262] == b"ustar"]:
        for bit in range(512 * 8):
            changed = bytearray(whole)
            changed[header + bit // 8] ^= 1 << bit % 8
            with contextlib.suppress(ValueError):
                assert listed(bytes(changed)) == found
                accepted.add(bit // 8)
    assert accepted <= set(range(148, 156)), "a digit 0 may be a space before the checksum, a space a NUL behind it"


def test_f10_terabytes_of_zeros_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tar"
    path.write_bytes(archive([member("a.jpg", b"1")]))
    os.truncate(path, 1 << 41)
    with pytest.raises(ValueError, match="2199023254528 bytes from the end mark on, at byte 1024"):
        _core.read_tar(_core.map_file(bytes(path))[0])


def test_parts_are_checked_where_they_lie() -> None:
    data = np.frombuffer(b"\xff\xd8\xff..\xff\xd9" + b"text" + b"\xff\xd8\xff", np.uint8)
    offsets, lengths = np.array([0, 7, 11, 3]), np.array([7, 4, 3, 0])
    status, crc = _core.check_parts(data, offsets, lengths, 2)
    assert status.tolist() == [0, -4, -5, -3]
    assert crc.tolist() == [_core.crc32c(data[o : o + n]) for o, n in zip(offsets, lengths, strict=True)]
    for place, size in [(-1, 1), (0, -1), (0, 15), (14, 1), (15, 0), (1, 2**63 - 1)]:
        with pytest.raises(ValueError, match=r"^offsets: lie out of the bytes, at 1$"):
            _core.check_parts(data, np.array([0, place]), np.array([1, size]), 1)


def test_a_mapping_lives_as_long_as_its_views(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    before = os.listdir("/proc/self/fd")
    array, time, device, inode = _core.map_file(bytes(path))
    state = path.stat()
    assert (time, device, inode) == (state.st_mtime_ns, state.st_dev, state.st_ino)
    assert os.listdir("/proc/self/fd") == before, "no descriptor stays open"
    view = array[3:5]
    del array
    path.unlink()
    assert view.tobytes() == b"34"
    assert not view.flags.writeable
    path.write_bytes(b"")
    assert len(_core.map_file(bytes(path))[0]) == 0
    for wrong, error in [
        (tmp_path / "none", FileNotFoundError),
        (tmp_path, ValueError),
        (Path("/dev/zero"), ValueError),
    ]:
        with pytest.raises(error):
            _core.map_file(bytes(wrong))
