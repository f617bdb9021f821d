"""Shards for tests, written by Python's tarfile."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def jpeg(i: int, side: int = 24) -> bytes:
    """A small JPEG; different i, different bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    y, x = np.mgrid[0:side, 0:side]
    pixels = np.stack([x * 8 + i, y * 8, np.full((side, side), 40 * (i % 5))], axis=2) % 256
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def member(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A member of an archive; `fields` are those of tarfile.TarInfo."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def archive(members: Iterable[tuple[tarfile.TarInfo, bytes]], form: str = "ustar") -> bytes:
    """The bytes of an archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=FORMATS[form]) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def examples(numbers: Iterable[int], **beside: str) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Images `NUMBER.jpg` with further fields; {i} in these stands for the number."""
    members = []
    for i in numbers:
        members.append(member(f"{i:03d}.jpg", jpeg(i)))
        members += [member(f"{i:03d}.{field}", text.replace("{i}", str(i)).encode()) for field, text in beside.items()]
    return members


def write(path: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]], form: str = "ustar") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(archive(members, form))
    return path
