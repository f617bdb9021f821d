"""Files that describe a task's target examples and draws (tasks/) and a source's groups in pictures (thumbnails/)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pydt.base import StoreError, canonical_json, check, load, parse

HALVES = {"score": 0, "report": 1}
PARTS = {**HALVES, "validation": 2}
"""The numbers of column "half": a trial of a learning rate has validation examples alone."""


DRAWN = ("draws", "draw_labels", "draw_keys")
NAMES = "example_keys"


def described(path: Path) -> dict[str, np.ndarray]:
    """The target examples that a file of tasks/ describes, all (examples,): "half" uint8, "labels", "ids", numbers.

    Raises:
        StoreError: it is damaged. FileNotFoundError: it is not there.
    """
    return {name: array for name, array in with_draws(path).items() if name not in (*DRAWN, NAMES)}


def with_draws(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file of tasks/: those of `described`, of DRAWN what `encoded_draws` made, and NAMES of a measure
    whose examples have ids.

    Raises:
        StoreError: it is damaged. FileNotFoundError: it is not there.
    """
    everything, metadata = load(path)
    drawn = {name: array for name, array in everything.items() if name in DRAWN}
    arrays = {name: array for name, array in everything.items() if name not in (*DRAWN, NAMES)}
    wrong = next((name for name in ("half", "labels", "ids") if name not in arrays), None)
    if wrong is not None or metadata.get("task") != path.stem or any(a.ndim != 1 for a in arrays.values()):
        raise StoreError("is damaged (not the examples of one task)", str(path))
    if drawn:
        kinds = [drawn[name].dtype.kind for name in DRAWN if name in drawn]
        shapes = [drawn[name].shape for name in DRAWN[:2] if name in drawn]
        if kinds != ["i", "i", "u"] or len(set(shapes)) > 1 or len(shapes[0]) != 2 or drawn["draw_keys"].ndim != 1:
            raise StoreError("is damaged (not the draws of one task)", str(path))
    half, labels, weights = arrays["half"], arrays["labels"], arrays.get("weights", np.ones(1))
    whole = {half.dtype.kind, labels.dtype.kind, arrays["ids"].dtype.kind} <= set("iu")
    numbers = whole and labels.min(initial=0) >= 0 and weights.dtype.kind == "f" and np.isfinite(weights).all()
    if NAMES in everything and (everything[NAMES].dtype != np.uint8 or everything[NAMES].ndim != 1):
        raise StoreError("is damaged (not the ids of examples)", str(path))
    if len({len(a) for a in arrays.values()}) > 1 or not len(half) or not numbers or half.max() > max(PARTS.values()):
        raise StoreError("is damaged (not the examples of one task)", str(path))
    return everything


def encoded_draws(positions: np.ndarray, labels: np.ndarray, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The labelled examples of every draw as arrays of a file of tasks/.

    Args:
        positions, labels, keys: as of `Task.drawn`.
    """
    return dict(zip(DRAWN, (positions, labels, encoded_texts(keys)), strict=True))


def encoded_texts(texts: Sequence[str]) -> np.ndarray:
    """Texts as an array of a file, uint8."""
    return np.frombuffer(canonical_json(list(texts)).encode(), np.uint8)


def decoded_texts(array: np.ndarray, where: str) -> list[str]:
    """The texts of `encoded_texts`; raises a StoreError that names the place."""
    try:
        texts: list[str] = parse(array.tobytes())
        check(texts, [str])
    except StoreError as error:
        raise StoreError(error.what, where) from error
    return texts


def decoded_draws(arrays: Mapping[str, np.ndarray], where: str) -> dict[str, Any]:
    """What `Store.draws` gives of arrays that `encoded_draws` made.

    Raises:
        StoreError: the keys are damaged.
    """
    positions = arrays["draws"]
    used, place = np.unique(positions, return_inverse=True)
    keys = decoded_texts(arrays["draw_keys"], where)
    if len(keys) != len(used):
        raise StoreError("is damaged (not a key for each labelled example)", where)
    named = [[keys[i] for i in draw] for draw in place.reshape(positions.shape)]
    return {"positions": positions, "labels": arrays["draw_labels"], "keys": named}


def pictures(path: Path) -> tuple[dict[str, np.ndarray], dict[str, list[str]] | None]:
    """The images that a file of thumbnails/ holds, uint8 (n, height, width, channels) by number of their group, and the
    caption of each; None of a file without captions, as older versions wrote them.

    Raises:
        StoreError: it is damaged. FileNotFoundError: it is not there.
    """
    arrays, metadata = load(path)
    for name, images in arrays.items():
        if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape or images.shape[3] not in (1, 3):
            raise StoreError(f"is damaged (images of {name!r}: {images.dtype}, shape {images.shape})", str(path))
    captions = metadata.get("captions")
    if captions is None:
        return arrays, None
    try:
        check(captions, {str: [str]})
    except StoreError as error:
        raise StoreError(error.what, str(path)) from error
    if any(name not in arrays or len(arrays[name]) != len(own) for name, own in captions.items()):
        raise StoreError("is damaged (captions of other images)", str(path))
    return arrays, captions
