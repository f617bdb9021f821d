"""Writes the fuzzers' seed corpora: a few index files and the beginnings of image files, and tar archives.

    python tests/fuzz/seeds.py FOLDER

Uses the standard library only: checksums are 0, and the fuzzer's build ignores them.
"""

from __future__ import annotations

import io
import struct
import sys
import tarfile
from pathlib import Path

Section = tuple[bytes, int, int, bytes]


def texts(*values: str) -> tuple[int, bytes]:
    """Count and payload of a section of texts."""
    encoded = [value.encode() for value in values]
    ends = [sum(map(len, encoded[:i])) for i in range(len(encoded) + 1)]
    return len(encoded), struct.pack(f"<{len(ends)}q", *ends) + b"".join(encoded)


def index(*sections: Section) -> bytes:
    """An index file of (name, kind, count, payload)."""
    table, payloads, end = b"", b"", 64 + 64 * len(sections)
    for name, kind, count, payload in sections:
        table += struct.pack("<40sIIqq", name, kind, 0, count, len(payload))
        payloads += bytes(-end % 64) + payload
        end += -end % 64 + len(payload)
    return struct.pack("<8sIIQII32x", b"\x89PYDT\r\n\x1a", 3, len(sections), end, 0, 0) + table + payloads


def tar(form: int, *names: str) -> bytes:
    """An archive of small files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for i, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            member.size = 0 if member.isdir() else 300 * i
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    data = buffer.getvalue()
    return data.rstrip(b"\0").ljust(-(-len(data.rstrip(b"\0")) // 512) * 512, b"\0") + bytes(1024)


def main(folder: Path) -> None:
    (folder / "index").mkdir(parents=True, exist_ok=True)
    (folder / "tar").mkdir(parents=True, exist_ok=True)
    labels = (b"labels", 3, 3, struct.pack("<3q", 0, 1, 1))
    seeds = {
        "none": index(),
        "one": index(labels),
        "texts": index((b"classes", 4, *texts("cat", "", "Häuser", "\U0001f600")), labels),
        "all": index(
            (b"sha", 1, 32, bytes(range(32))),
            (b"crc", 2, 2, bytes(8)),
            labels,
            (b"keys", 4, *texts("a/1", "a/2", "a/1")),
        ),
        "empty": index((b"columns", 4, *texts()), (b"crc", 2, 0, b"")),
        "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\xff\xd9",
        "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\x00IEND\xaeB`\x82",
        "clear": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
        b"\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00\xaa\xaa\xaa\xaa"
        b"\x00\x00\x00\x02tRNS\x00\x07\xaa\xaa\xaa\xaa\x00\x00\x00\x00IDAT\xaa\xaa\xaa\xaaIEND",
        "gif": b"GIF89a\x01\x00\x01\x00",
        "avif": b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00mif1",
        "webp": b"RIFF\x04\x00\x00\x00WEBP",
        "pnm": b"P6 1 1 255 abc",
    }
    for name, data in seeds.items():
        (folder / "index" / name).write_bytes(data)
    archives = {
        "none": tar(tarfile.USTAR_FORMAT),
        "ustar": tar(tarfile.USTAR_FORMAT, "cat/", "cat/1.jpg", "./cat/1.cls", "a" * 90 + "/" + "b" * 60),
        "gnu": tar(tarfile.GNU_FORMAT, "1.jpg", "a" * 150),
        "pax": tar(tarfile.PAX_FORMAT, "1.jpg", "ü" * 80, "2.jpg"),
    }
    for name, data in archives.items():
        (folder / "tar" / name).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
