"""From the four primitives that a row stores per example to the six outputs, and their units."""

from __future__ import annotations

import numpy as np

from pydt.base import StoreError, one_of
from pydt.store.rows import Outcome

OUTPUTS = ("logit", "margin", "softmax margin", "probability", "correct", "prediction")


def primitives_of(outcome: Outcome, examples: int, where: str) -> np.ndarray:
    """The primitives of a finished cell, float (4, draws, examples).

    Raises:
        StoreError: it has none, or of another number of examples.
    """
    found = outcome.arrays.get("primitives")
    shape = (0,) if found is None else found.shape
    if found is None or len(shape) != 3 or shape[::2] != (4, examples) or not shape[1] or found.dtype.kind != "f":
        mend = "let `pydt verify` put it aside, and run the same plan again"
        raise StoreError(f"has no outputs of the {examples} examples", where, mend)
    return found


def derive(primitives: np.ndarray, labels: np.ndarray, name: str) -> np.ndarray:
    """One of the six outputs from the four primitives.

    Args:
        primitives: float (4, ..., examples): correct logit, best other logit, logsumexp of the others, prediction.
        labels: int (examples,).
        name: "logit" (of the correct class), "margin" (correct - best other), "softmax margin" (correct - logsumexp of
            the others: the log-odds of the correct class), "probability" (sigmoid of that), "correct" (0 or 1),
            "prediction".

    Returns:
        float32 (..., examples).

    Raises:
        ConfigError: unknown name.
    """
    correct, other, others, prediction = primitives
    if name == "logit":
        value = correct
    elif name == "margin":
        value = correct - other
    elif name in ("softmax margin", "probability"):
        value = correct - others
        if name == "probability":
            # exp of -|x| only, so that neither tail overflows
            small = np.exp(-np.abs(value))
            value = np.where(value >= 0, 1, small) / (1 + small)
    elif name == "correct":
        value = prediction == labels
    elif name == "prediction":
        value = prediction
    else:
        one_of(name, OUTPUTS, "output", "derive")
    return value.astype(np.float32)


def averaged(primitives: np.ndarray, labels: np.ndarray, name: str) -> np.ndarray:
    """`derive`, averaged over the draws, float32 (examples,); of predictions the most frequent."""
    draws = derive(primitives, labels, name)
    value: np.ndarray = most_frequent(draws) if name == "prediction" else draws.mean(axis=0)
    return value.astype(np.float32, copy=False)


def most_frequent(draws: np.ndarray) -> np.ndarray:
    """The most frequent value of each column of float (draws, examples), the smallest on a tie."""
    votes = (draws[:, None] == draws[None]).sum(axis=1)
    return np.where(votes == votes.max(axis=0), draws, np.inf).min(axis=0)


UNITS: dict[str, tuple[str, float]] = {
    "correct": ("points of accuracy", 100.0),
    "probability": ("points of probability", 100.0),
    "margin": ("margin units", 1.0),
    "softmax margin": ("log-odds", 1.0),
    "logit": ("logit units", 1.0),
}
"""In what influences on an output are given, and how many of these units the stored output's 1 is."""
