"""The examples of a plan's source behind its groups, and what identifies them outside of pydt."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import PydtError, digest
from pydt.data import Dataset
from pydt.data.samples import glyphs
from pydt.ensemble import Plan
from pydt.store import Record, Store

_SAMPLE = "printed alphanumerics"  # the source of the quickstart, which lies in the user's cache, not in the store


def source_of(store: Store, record: Record, plan: Any) -> tuple[Any, npt.NDArray[np.int64] | None]:
    """The source, and the group of each of its examples; None for what is not at hand."""
    if isinstance(plan, Plan):
        return plan.source, np.asarray(plan.context.units[0], np.int64)
    if record.by == "example":
        codes = np.arange(len(record.names))
        if digest("units", codes, list(record.names)) == record.units:
            return None, codes
    makers: list[Callable[[], Dataset]] = [glyphs.source] if record.source_facts["name"] == _SAMPLE else []
    makers += [partial(Dataset.open, folder) for folder in sorted((store.folder / "data").glob("*"))]
    for make in makers:
        try:
            found = make()
            codes, names = found.units(record.by)
        except PydtError:  # of another plan, or damaged: `pydt verify` tells
            continue
        seen = (
            {found.digest}
            if found.captions is None
            else {found.digest, digest("captions", found.digest, list(found.captions))}
        )
        if record.source in seen and digest("units", codes, list(names)) == record.units:
            return found, codes
    return None, None


def keys_of(source: Any) -> tuple[Sequence[str] | None, str]:
    """What identifies the examples outside of pydt, and what kind of keys these are: "folder", "shards", "files" (of
    several data sets), "arrays" (no keys), "ids"; "" where the source is not at hand."""
    if source is None:
        return None, ""
    if not isinstance(source, Dataset):
        return getattr(source, "ids", None), "ids"
    if source.records is None:
        return None, "arrays"
    keys, offset = source.all_keys(), source.records.offset
    if _joined(source, keys):
        return keys, "files"  # of several data sets: a key begins with the name of its own
    if offset is None or (offset < 0).all():
        return keys, "folder"
    if (offset < 0).any():
        return keys, "files"
    return tuple(re.sub(r"(?<=[^/])\.[^/]*$", "", key) for key in keys), "shards"  # up to the first dot of the name


def _joined(source: Dataset, keys: Sequence[str]) -> bool:
    """Whether it was made by `Dataset.concat`."""
    if "source" not in source.columns:
        return False
    codes, names = source.columns["source"]
    return all(code >= 0 and key.startswith(f"{names[code]}/") for code, key in zip(codes.tolist(), keys, strict=True))
