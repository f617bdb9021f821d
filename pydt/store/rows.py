"""A row (one trained model), its outcome for one task, and their keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pydt.base import ConfigError, DesignError, PydtError, digest, escaped, whole

FACTS = ("code", "torch", "torchvision", "isa")
"""What `pydt.ensemble.code_version.versions` says that may change a row's numbers; stored with each cell."""
AUROC = "auroc"
"""The metric, the array that rows store for it beside the primitives, and the output that it is."""
VALUE = "value"
"""The metric of a `Measure`, the only array that rows store for it, and the output that it is."""


@dataclass(frozen=True)
class Row:
    """One source training: the groups that it keeps, and its seed.

    Args:
        keep: 0/1 array-like (groups,), or its packed form (little bit first) together with `groups`.
        seed: seed of everything random in the training.
        kind: what the row is for ("design", "keep", "drop top", ...); it does not change the training.
        groups: number of groups; only needed with packed `keep`.

    Raises:
        DesignError: `keep` is not a vector of zeros and ones.
        ConfigError: `seed` is not a whole number, or negative.
    """

    keep: bytes
    seed: int
    kind: str = "keep"
    groups: int = -1

    def __post_init__(self) -> None:
        if not isinstance(self.keep, bytes):
            mask = np.asarray(self.keep)
            if mask.ndim != 1 or not np.isin(mask, (0, 1)).all():
                raise DesignError("must be one vector of zeros and ones", "Row.keep", "give one entry per group")
            object.__setattr__(self, "groups", len(mask))
            object.__setattr__(self, "keep", np.packbits(mask.astype(bool), bitorder="little").tobytes())
        elif self.groups < 0 or len(self.keep) != (self.groups + 7) // 8:
            wrong = f"{len(self.keep)} bytes for {self.groups} groups"
            raise DesignError(wrong, "Row.keep", "give `groups` with packed bits")
        object.__setattr__(self, "seed", whole(self.seed, "seed", "Row", error=ConfigError))

    @property
    def mask(self) -> np.ndarray:
        """The kept groups, bool (groups,)."""
        packed = np.frombuffer(self.keep, np.uint8)
        return np.unpackbits(packed, count=self.groups, bitorder="little").astype(bool)

    def __str__(self) -> str:
        return f"{self.kind} row with seed {self.seed}, {int(self.mask.sum())} of {self.groups} groups kept"


@dataclass(frozen=True)
class Outcome:
    """What one row gave for one task.

    Args:
        arrays: "primitives" float32 (4, draws, examples): correct logit, best other logit, logsumexp of the others,
            prediction; of targets with the metric "auroc" also "auroc" float32 (draws, examples). Of a
            `pydt.Measure` "value" float32 (draws, examples) alone. Empty when the row failed.
        scalars: finite numbers or short texts. No times and no host names: equal rows must be equal bytes.
        status: "ok" or "failed".
        reason: why it failed.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    scalars: dict[str, float | int | str] = field(default_factory=dict)
    status: str = "ok"
    reason: str | None = None


def metric_of(task: Mapping[str, Any]) -> Any:
    """The metric of a task of a plan."""
    return task.get("settings", {}).get("target", {}).get("metric", "top-1")


def checked(given: Any, task: Mapping[str, Any], where: str) -> Outcome:
    """What a runner gave for a task, fit to be stored; numbers that are not finite make a failed cell.

    Args:
        given: an `Outcome`, if the runner is right.
        task: "name", "examples" (how many) and "settings" of the task, as a plan has them.
        where: names the row.

    Raises:
        PydtError: it is no outcome, or its arrays are not numbers, not (4, draws, examples), or lack the AUROC values
            of a target with this metric; of a `Measure`, not (draws, examples).
    """
    mend = "a runner returns the outputs of each task: see docs/any-trainer.md"
    if not isinstance(given, Outcome) or given.status not in ("ok", "failed"):
        raise PydtError(f"its runner gave no outcome for task {task['name']!r}", where, mend)
    if not isinstance(given.arrays, Mapping) or not isinstance(given.scalars, Mapping):
        raise PydtError(f"its runner gave arrays or scalars for task {task['name']!r} without names", where, mend)
    lost: str | None = None
    for name, array in given.arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise PydtError(f"its runner gave {name!r} as {type(array).__name__}, not a numeric array", where, mend)
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("__"):
            raise PydtError(f"its runner gave an array the name {name!r}", where, "use a plain word")
        if given.status == "ok" and not np.isfinite(array).all():
            lost = lost or f"{name} are not all finite"
    if given.status == "ok" and lost is None and (wrong := misshapen(given.arrays, task)) is not None:
        raise PydtError(f"its runner gave {wrong}", where, mend)
    reason = None if given.reason is None else escaped(str(given.reason))
    scalars: dict[str, float | int | str] = {}
    for name, value in given.scalars.items():
        plain: Any = value
        if getattr(value, "shape", None) == ():  # numpy, torch
            plain = plain.item()
        if not isinstance(name, str) or not isinstance(plain, float | int | str):
            wrong = f"its runner gave the scalar {name!r} as {type(plain).__name__}"
            raise PydtError(wrong, where, "scalars are numbers or short texts")
        if isinstance(plain, float) and not np.isfinite(plain):
            lost = lost or f"{name} is not finite"
        scalars[escaped(name)] = escaped(plain) if isinstance(plain, str) else plain
    if lost is not None:
        return Outcome(status="failed", reason=reason or lost)
    return Outcome(dict(given.arrays), scalars, given.status, reason)


def misshapen(arrays: Mapping[str, np.ndarray], task: Mapping[str, Any]) -> str | None:
    """Which array of a finished cell has not the shape that its task asks for; None if all have.

    Args:
        task: "examples" (how many) and, if known, "settings" of the task, as a plan has them.
    """
    examples, shapes = task["examples"], {name: array.shape for name, array in arrays.items()}
    if metric_of(task) == VALUE or (VALUE in shapes and "settings" not in task):
        shape = shapes.get(VALUE, ())
        fits = len(shape) == 2 and shape[1] == examples and shape[0]
        return None if fits and len(shapes) == 1 else f"{VALUE!r} of shape {shape}, not (draws, {examples})"
    shape = shapes.get("primitives", ())
    if len(shape) != 3 or shape[::2] != (4, examples) or not shape[1]:
        return f"primitives of shape {shape}, not (4, draws, {examples})"
    if (auroc := shapes.get(AUROC)) != shape[1:] and (auroc is not None or metric_of(task) == AUROC):
        return f"{AUROC!r} of shape {auroc}, not {shape[1:]}"
    return None


def source_key(source: str, units: str, row: Row, recipe: str) -> str:
    """Name of a training: digests of source, groups and recipe; kept groups, seed."""
    return digest("training", source, units, row.groups, row.keep, row.seed, recipe)


def result_key(source_key: str, task: str) -> str:
    """Name of a cell: a training seen through a task."""
    return digest("cell", source_key, task)
