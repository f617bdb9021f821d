"""From what a row stores per example to its outputs, and their units.

Six outputs follow from the four primitives. The seventh, "auroc", is stored beside them, for targets of that metric
alone: it compares the logits of an example with those of the others. A `Measure` has one output, "value", as its runner
gave it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pydt.base import ConfigError, StoreError, one_of
from pydt.store.rows import AUROC, VALUE, Outcome, metric_of

OUTPUTS = ("logit", "margin", "softmax margin", "probability", "correct", "prediction")


def metric_output(task: Mapping[str, Any]) -> str:
    """The output whose weighted mean over a half is the metric of a task of a plan: "correct", "auroc" or "value"."""
    return metric if (metric := metric_of(task)) in (AUROC, VALUE) else "correct"


def outputs_of(task: Mapping[str, Any]) -> tuple[str, ...]:
    """The outputs that rows have for a task of a plan."""
    if metric_of(task) == VALUE:
        return (VALUE,)
    return (*OUTPUTS, AUROC) if metric_of(task) == AUROC else OUTPUTS


def known_output(name: str, task: Mapping[str, Any], where: str) -> None:
    """Raise a ConfigError if rows have no such output for a task of a plan."""
    if name == AUROC and metric_of(task) != AUROC:
        wrong = f"rows have no AUROC for {task['name']!r}, whose metric is {metric_of(task)}"
        raise ConfigError(wrong, where, 'choose another output, or make the target with metric="auroc"')
    if name in OUTPUTS and metric_of(task) == VALUE:
        wrong = f"rows have no {name} for {task['name']!r}, a measure whose values alone are stored"
        raise ConfigError(wrong, where, f'choose output="{VALUE}", or leave it out')
    one_of(name, outputs_of(task), "output", where)


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


def per_draw(outcome: Outcome, labels: np.ndarray, name: str, where: str, chosen: Any = slice(None)) -> np.ndarray:
    """An output of a finished cell for each draw, float (draws, examples).

    Args:
        labels: int (examples,), of all examples. name: as of `derive`, "auroc" or "value". where: names the cell.
        chosen: the examples that are wanted, by default all.

    Raises:
        StoreError: it has no such output, or of another number of examples.
    """
    if name == VALUE:
        return _per_example(outcome, VALUE, len(labels), where)[:, chosen]
    primitives = primitives_of(outcome, len(labels), where)
    if name == AUROC:
        return _per_example(outcome, AUROC, len(labels), where)[:, chosen]
    return derive(primitives[..., chosen], labels[chosen], name)


def averaged(outcome: Outcome, labels: np.ndarray, name: str, where: str, chosen: Any = slice(None)) -> np.ndarray:
    """An output of a finished cell, averaged over the draws, float32 (examples,); of predictions the most frequent.
    Arguments and errors are those of `per_draw`.
    """
    draws = per_draw(outcome, labels, name, where, chosen)
    value: np.ndarray = most_frequent(draws) if name == "prediction" else draws.mean(axis=0)
    return value.astype(np.float32, copy=False)


def _per_example(outcome: Outcome, name: str, examples: int, where: str) -> np.ndarray:
    """An array that is stored as (draws, examples)."""
    found = outcome.arrays.get(name)
    if found is None or found.ndim != 2 or found.shape[1] != examples or not len(found) or found.dtype.kind != "f":
        mend = "let `pydt verify` put it aside, and run the same plan again"
        raise StoreError(f"has no {name} of the {examples} examples", where, mend)
    return found


def most_frequent(draws: np.ndarray) -> np.ndarray:
    """The most frequent value of each column of float (draws, examples), the smallest on a tie."""
    votes = (draws[:, None] == draws[None]).sum(axis=1)
    return np.where(votes == votes.max(axis=0), draws, np.inf).min(axis=0)


class Unit(NamedTuple):
    """In what influences on an output are given.

    Attributes:
        name: the unit.
        factor: how many of these units the stored output's 1 is; negative where lower outputs are better, so that a
            positive influence always helps.
    """

    name: str
    factor: float


_UNITS = {
    "correct": Unit("points of accuracy", 100.0),
    AUROC: Unit("points of AUROC", 100.0),
    "probability": Unit("points of probability", 100.0),
    "margin": Unit("margin units", 1.0),
    "softmax margin": Unit("log-odds", 1.0),
    "logit": Unit("logit units", 1.0),
}


def unit_of(task: Mapping[str, Any], output: str, where: str = "output") -> Unit:
    """The unit of influences on an output of a task of a plan.

    Raises:
        ConfigError: rows have no such output for the task, or it has no unit: there are no influences on it.
    """
    units = units_of(task)
    if output not in units:
        known_output(output, task, where)
        raise ConfigError(f"no influences on output {output!r}", where, f"choose one of: {', '.join(units)}")
    return units[output]


def units_of(task: Mapping[str, Any]) -> dict[str, Unit]:
    """The outputs of a task of a plan that have influences, with their units."""
    if metric_of(task) == VALUE:
        about = task["settings"]["measure"]
        return {VALUE: Unit(about["unit"], about["scale"] * (1.0 if about["higher_is_better"] else -1.0))}
    return {name: unit for name, unit in _UNITS.items() if name in outputs_of(task)}
