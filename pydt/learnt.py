"""Whether models learnt their source at all: what a network that learnt nothing does to the target is no influence.

A training that learnt nothing does no better than a guess that never looks at an image: always the commonest class is
right as often as that class is frequent, p, and the best constant probabilities have the entropy of the classes as
their loss (with label smoothing, of the smoothed classes). `pydt.train.train` stores both beside the accuracy a and the
loss of the last epoch, and the number n of images behind them. A row hardly learnt its source if

    a <= p + max(2 sqrt(p (1 - p) / n), min(p, (1 - p) / s)),    s = 20, or 10 where loss >= entropy

that is, within two standard errors of the guess, or closer to it than twice p (of rare classes) or a twentieth of what
was left to gain (of frequent ones); a tenth where the loss is no better than that of the guess either. (The loss alone
tells nothing: that of a network which is right three times as often as a guess, but too sure, may be above it.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pydt.store import Record, Store

MOST_WEAK = 0.1
"""Where a larger share of the models hardly learnt their source, no advice is taken from them."""
_NAMED = 5
_MEND = "try a lower learning rate, more epochs, or another network"


@dataclass(frozen=True)
class Weak:
    """Which of some rows hardly learnt their source.

    Attributes:
        at: their places among the rows asked about. judged: rows that say how well they learnt. accuracy, trivial: mean
            over those at `at`, as fractions. alone: how many of them kept one class only.
    """

    at: tuple[int, ...]
    judged: int
    accuracy: float = math.nan
    trivial: float = math.nan
    alone: int = 0

    @property
    def mend(self) -> str:
        """What to do about them."""
        if not self.alone:
            return _MEND
        rest = f"; for the others, {_MEND}" if self.alone < len(self.at) else ""
        return f"{self.alone:,} kept one class only, of which nothing can be learnt: let rows keep more (alpha){rest}"

    @property
    def many(self) -> bool:
        """Whether so many did that nothing should be planned by these rows."""
        return len(self.at) > MOST_WEAK * self.judged

    def text(self, what: str = "models", numbers: Sequence[int] | None = None) -> str:
        """What is to be said of them, without what to do about it; numbers: of the rows asked about, in the plan."""
        named = ""
        if numbers is not None:
            first = [str(numbers[i]) for i in self.at[:_NAMED]]
            more = f" and {len(self.at) - _NAMED:,} more" if len(self.at) > _NAMED else ""
            named = f" ({'row' if len(self.at) == 1 else 'rows'} {', '.join(first)}{more})"
        return (
            f"{len(self.at):,} of {self.judged:,} {what} hardly learnt their own source{named}: accuracy "
            f"{100 * self.accuracy:.1f} %, where always naming the commonest class gives {100 * self.trivial:.1f} %"
        )


def hardly_learnt(scalars: Mapping[str, Any], classes: int | None = None) -> bool | None:
    """Whether a row hardly learnt its source; None if it does not say how well it learnt.

    Args:
        scalars: of a finished row, as `Store.scalars` gives them.
        classes: that it kept, if known: rows of earlier versions do not say what a guess gives. It is 1 / classes then.
    """
    if (facts := _facts(scalars, classes)) is None:
        return None
    accuracy, trivial, loss, entropy, images = facts
    error = math.sqrt(trivial * (1 - trivial) / images)
    near = 10 if loss >= entropy else 20
    return accuracy <= trivial + max(2 * error, min(trivial, (1 - trivial) / near))


def weak(scalars: Sequence[Mapping[str, Any]], classes: Sequence[int] | None = None) -> Weak:
    """Which of some rows hardly learnt their source, by their scalars; those that do not say are not judged."""
    kept = [None] * len(scalars) if classes is None else classes
    states = [hardly_learnt(one, of) for one, of in zip(scalars, kept, strict=True)]
    at = tuple(i for i, state in enumerate(states) if state)
    judged = sum(state is not None for state in states)
    if not at:
        return Weak((), judged)
    facts = [found for i in at if (found := _facts(scalars[i], kept[i])) is not None]
    accuracy, trivial = (fmean(one[i] for one in facts) for i in (0, 1))
    return Weak(at, judged, accuracy, trivial, sum(one[1] == 1 for one in facts))


def weak_rows(store: Store, record: Record, task: Any = None) -> Weak:
    """Which of a plan's finished rows hardly learnt their source; `at` are positions in `store.finished(record)`."""
    scalars = store.scalars(record.tasks[0]["digest"] if task is None else task, record)
    return weak(scalars, store.masks(record).sum(1).tolist() if record.by == "class" else None)


def _facts(scalars: Mapping[str, Any], classes: int | None) -> tuple[float, float, float, float, float] | None:
    """Accuracy and that of a guess, loss and that of a guess, images."""
    names = "accuracy", "trivial_accuracy", "loss", "trivial_loss", "images"
    found = [scalars.get(f"source_{name}") for name in names]
    if all(isinstance(value, (int, float)) for value in found):
        return tuple(map(float, found))  # type: ignore[return-value, arg-type]
    if isinstance(found[0], float) and classes is not None and classes > 2:
        return found[0], 1 / classes, 0.0, math.inf, math.inf
    return None
