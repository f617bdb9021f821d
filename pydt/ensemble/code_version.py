"""Which code computes rows: the version of pydt, a digest of the files that decide a row's numbers, the libraries."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import pydt
from pydt import __version__
from pydt.base import StoreError, digest
from pydt.store import FACTS

if TYPE_CHECKING:
    from pydt.store import Store

PACKAGE = Path(pydt.__file__).parent
DECISIVE = (
    *("base", "data", "design", "training"),
    *("ensemble/row.py", "ensemble/runners", "store/rows.py", "store/measure.py"),
)
"""What decides a row's numbers: data, masks (`Row.mask`), training, transfer, what calls them or the user's program
and reads its outputs, and which outcomes count as failed (`checked`). The compiled core has the version of pydt."""


def decisive(package: Path = PACKAGE) -> list[Path]:
    """The files behind `DECISIVE`."""
    return sorted(file for name in DECISIVE for file in (package / name, *(package / name).rglob("*")) if _code(file))


def _code(file: Path) -> bool:
    return file.suffix == ".py" and file.is_file()


def code_version(package: Path = PACKAGE) -> str:
    """Version of pydt and a digest of the files that decide a row's numbers."""
    return f"{__version__}+{digest(*(file.read_bytes() for file in decisive(package)))[:12]}"


@cache
def versions() -> dict[str, str]:
    """What computes rows in this process: the code, the libraries and the instruction set of the core."""
    from pydt import _core

    found = {"code": code_version(), "python": platform.python_version(), "numpy": np.__version__, "isa": _core.isa()}
    for name in ("torch", "torchvision", "pillow", "nvidia-dali-cuda130"):  # as installed, whether loaded yet or not
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def others(store: Store, now: Mapping[str, str]) -> dict[str, list[str]]:
    """Facts of the code behind stored rows that are not those of this process, by name."""
    found = {name: sorted(seen - {str(now.get(name))}) for name, seen in store.facts.items()}
    return {name: seen for name, seen in found.items() if seen}


def refuse_others(store: Store, now: Mapping[str, str]) -> None:
    """Refuse a store of which a row whose header was read was computed by other code than that of this process."""
    if found := others(store, now):
        mend = "use those versions, a new folder, or go on without same_code"
        wrong = f"holds rows computed by other code: {in_words(found, now)}"
        raise StoreError(wrong, str(store.folder), mend)


def in_words(others: Mapping[str, list[str]], now: Mapping[str, str]) -> str:
    """Other code beside that of this process, for a message."""
    return "; ".join(f"{name} {', '.join(seen)} (now {now.get(name)})" for name, seen in others.items())


def facts_of(result: Mapping[str, Any]) -> dict[str, str]:
    """What computed a row, by the names in `FACTS`: both versions, where its network comes from a bank of another."""
    now, before = result["versions"], result.get("trained_by", {})
    found = {name: str(now[name]) for name in FACTS if name in now}
    return {name: has if before.get(name, has) == has else f"{before[name]} and {has}" for name, has in found.items()}
