"""Shards for tests, written by Python's tarfile."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from oracle_tar import Member, archive, member

__all__ = ["archive", "examples", "jpeg", "member", "write"]


def jpeg(i: int, side: int = 24) -> bytes:
    """A small JPEG; different i, different bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    y, x = np.mgrid[0:side, 0:side]
    pixels = np.stack([x * 8 + i, y * 8, np.full((side, side), 40 * (i % 5))], axis=2) % 256
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def examples(numbers: Iterable[int], **beside: str) -> list[Member]:
    """Images `NUMBER.jpg` with further fields; {i} in these stands for the number."""
    members = []
    for i in numbers:
        members.append(member(f"{i:03d}.jpg", jpeg(i)))
        members += [member(f"{i:03d}.{field}", text.replace("{i}", str(i)).encode()) for field, text in beside.items()]
    return members


def write(path: Path, members: Iterable[Member], form: str = "ustar") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(archive(members, form))
    return path
