"""A target without its judged halves: what a learning rate may be chosen on, until the choice is stored.

Its data set holds the examples of the pool and of validation alone, so the labels of the score and the report half are
not in the process that computes a trial. Asked for them, it raises; its digest is that of the whole target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np

from pydt.base import DataError
from pydt.data.dataset import Dataset
from pydt.data.target import HALVES, Target

_OPEN = ("pool", "validation")


class _Parts(dict[str, np.ndarray]):
    """Parts of a guarded target: the halves are not there, and asking for one says why."""

    def __init__(self, parts: Mapping[str, np.ndarray], name: str) -> None:
        super().__init__(parts)
        self.name = name

    def __missing__(self, part: str) -> NoReturn:
        if part in HALVES:
            raise _closed(f"the {part} half", self.name)
        raise KeyError(part)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self), self.name)


@dataclass(frozen=True, eq=False)
class GuardedTarget(Target):
    """The pool and the validation examples of a target. Make one with `guarded`.

    Attributes:
        parts: sorted int64 positions in `train` of the parts "pool" and "validation".
        ids: int64 (len(train),), positions of the examples in the whole target's `train`.
        whole: digest of the whole target.
    """

    parts: Mapping[str, np.ndarray] = field(default_factory=dict)
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    whole: str = ""

    def __post_init__(self) -> None:
        pass  # the whole target was checked

    @property
    def split(self) -> dict[str, np.ndarray]:
        """Sorted int64 positions in `train`: "pool" and "validation". Another half raises a DataError."""
        return _Parts(self.parts, self.name)

    @property
    def digest(self) -> str:
        """Digest of the whole target."""
        return self.whole

    @property
    def judged(self) -> Dataset:
        """Raises a DataError: the judged examples are not there."""
        raise _closed("the judged examples", self.name)

    def described(self) -> dict[str, np.ndarray]:
        """Raises a DataError: the judged examples are not there."""
        raise _closed("the judged examples", self.name)


def guarded(target: Target) -> GuardedTarget:
    """A target without its judged halves.

    Raises:
        DataError: it has no validation examples.
    """
    if isinstance(target, GuardedTarget):
        return target
    if not len(target.split["validation"]):
        mend = "give it some: Target(validation=...), in a plan file target.validation = ..."
        raise DataError("has no validation images, on which a learning rate could be chosen", target.name, mend)
    ids = np.sort(np.concatenate([target.split[part] for part in _OPEN]))
    # `take` numbers the classes anew; a class without images here keeps its number
    train = replace(target.train.take(ids), labels=target.train.labels[ids], classes=target.classes)
    parts = {part: np.searchsorted(ids, target.split[part]) for part in _OPEN}
    sizes = {part: len(parts[part]) for part in _OPEN}
    # the metric is of the judged halves: few validation images may lack classes, and then there is no AUROC
    return GuardedTarget(train, None, "top-1", **sizes, parts=parts, ids=ids, whole=target.digest)


def _closed(what: str, target: str) -> DataError:
    wrong = f"{what} cannot be read: a learning rate is being chosen, and the choice is not stored yet"
    return DataError(wrong, f"target {target}", "read the pool and the validation examples alone")
