"""Whether rows learnt their source at all: what a network that learnt nothing does to the target is no influence.

The best guess that looks at no image has accuracy p (the share of the commonest class) and, as loss, the entropy of the
(smoothed) classes; methods without labels say what these two are for them (`pydt/training/methods`). A row of accuracy
a over n images hardly learnt its source if

    a <= p + max(2 sqrt(p (1 - p) / n), min(p, (1 - p) / s)),    s = 20, or 10 where loss >= entropy

that is, within two standard errors of the guess, or closer to it than twice p (rare classes) or 1/s of what was left
to gain (frequent ones). A row that learnt by this rule diverged if its loss is above 1.25 times the entropy (a good
but too sure network may lie a little above it). Rows of one class (p = 1) are not judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pydt.store.plan_record import Record
from pydt.store.store import Store

MOST_WEAK = 0.1
"""Where a larger share of the models hardly learnt their source, nothing is planned by them."""
_FAR = 1.25  # times the loss of a guess; measured: 1.05 if well learnt and too sure, 1.5 to 5 at a rate of 0.2
_NAMED = 5
_FEW_STEPS = 30  # optimiser steps with which a network of random weights has hardly begun
_ACCURACY = {
    "simclr": "accuracy (the other view of an image found among its batch)",
    "clip": "accuracy (an image's own caption found among those of its batch)",
}
_LEVEL = 0.05  # one-sided, a row


@dataclass(frozen=True)
class Weak:
    """Which of some rows hardly learnt their source.

    Attributes:
        at: their positions among the rows asked about. judged: rows that say how well they learnt. accuracy, trivial:
            means over those at `at`, as fractions.
        above: positions of rows that learnt, but ended with a loss far above that of a guess. loss, trivial_loss: means
            over these. alone: positions of rows of one class, which are not judged. rows: all. method: of the recipe,
            if known. steps: optimiser steps of a row at `at`, about; None if not known.
    """

    at: tuple[int, ...]
    judged: int
    accuracy: float = math.nan
    trivial: float = math.nan
    above: tuple[int, ...] = ()
    loss: float = math.nan
    trivial_loss: float = math.nan
    alone: tuple[int, ...] = ()
    rows: int = 0
    method: str = ""
    steps: float | None = None

    @property
    def mend(self) -> str:
        """What may help."""
        if self.steps is not None and self.steps < _FEW_STEPS:
            few = "1 optimiser step" if round(self.steps) <= 1 else f"{self.steps:.0f} optimiser steps"
            return f"{few} of a row are few: train longer (epochs, steps) or give a smaller batch_size"
        return "try a lower learning rate, more epochs, or another network"

    @property
    def many(self) -> bool:
        """Whether too many did to plan by these rows."""
        return len(self.at) > MOST_WEAK * self.judged

    def text(self, what: str = "models", numbers: Sequence[int] | None = None) -> str:
        """The finding without its mend; numbers: of the rows asked about, in the plan."""
        return (
            f"{len(self.at):,} of {self.judged:,} {what} hardly learnt their own source{_named(self.at, numbers)}: "
            f"{_ACCURACY.get(self.method, 'accuracy')} {100 * self.accuracy:.1f} %, not clearly better than the "
            f"{100 * self.trivial:.1f} % of one that learns nothing"
        )

    def notes(self, what: str = "models", numbers: Sequence[int] | None = None, effect: str = "") -> list[str]:
        """All findings as sentences without a full stop; effect: put before the first mend."""
        told = [f"{self.text(what, numbers)}{effect or '; '}{self.mend}"] if self.at else []
        if self.above:
            told.append(
                f"{len(self.above):,} of {self.judged:,} {what} ended with a loss above that of a guess"
                f"{_named(self.above, numbers)}: {self.loss:.2f}, where one that never looks at an image has "
                f"{self.trivial_loss:.2f}; the learning rate is too high: try a lower one"
            )
        if self.alone:
            told.append(
                f"{len(self.alone):,} of {self.rows:,} {what} kept images of one class only"
                f"{_named(self.alone, numbers)}, of which nothing can be learnt: they are not judged"
            )
        return told


def _named(at: tuple[int, ...], numbers: Sequence[int] | None) -> str:
    """The first of some rows by their numbers in the plan, if these are given."""
    if numbers is None:
        return ""
    more = f" and {len(at) - _NAMED:,} more" if len(at) > _NAMED else ""
    return f" ({'row' if len(at) == 1 else 'rows'} {', '.join(str(numbers[i]) for i in at[:_NAMED])}{more})"


def hardly_learnt(scalars: Mapping[str, Any]) -> bool | None:
    """Whether a row hardly learnt its source; None if it does not say how well, or kept images of one class only.

    Args:
        scalars: of a finished row, as `Store.scalars` gives them.
    """
    if (facts := _facts(scalars)) is None:
        return None
    accuracy, trivial, loss, entropy, images = facts
    if trivial == 1:
        return None
    error = math.sqrt(trivial * (1 - trivial) / images)
    near = 10 if loss >= entropy else 20
    return accuracy <= trivial + max(2 * error, min(trivial, (1 - trivial) / near))


def weak(scalars: Sequence[Mapping[str, Any]], settings: Mapping[str, Any] | None = None) -> Weak:
    """Which of some rows hardly learnt their source, or diverged; those whose scalars do not say are not judged.

    Args:
        settings: of their recipe (`Record.settings`), by which the mend is chosen.
    """
    states = [hardly_learnt(one) for one in scalars]
    at = tuple(i for i, state in enumerate(states) if state)
    judged = sum(state is not None for state in states)
    facts = [_facts(one) or (math.nan,) * 5 for one in scalars]
    above = tuple(i for i, state in enumerate(states) if state is False and facts[i][2] > _FAR * facts[i][3])
    alone = tuple(i for i, one in enumerate(facts) if one[1] == 1)
    accuracy, trivial = (_mean(facts[i][k] for i in at) for k in (0, 1))
    loss, entropy = (_mean(facts[i][k] for i in above) for k in (2, 3))
    asked = {} if settings is None else settings
    steps = [n for i in at if (n := _steps(asked, facts[i][4])) is not None]
    method, mean_steps = str(asked.get("method", "")), fmean(steps) if steps else None
    return Weak(at, judged, accuracy, trivial, above, loss, entropy, alone, len(facts), method, mean_steps)


def _steps(settings: Mapping[str, Any], images: float) -> float | None:
    """Optimiser steps of a row that saw so many images in its last pass."""
    batch = settings.get("batch_size")
    if isinstance(settings.get("steps"), int) or not isinstance(batch, int):
        return settings.get("steps")
    if isinstance(samples := settings.get("samples"), int):
        return max(1, samples // batch)
    epochs = settings.get("epochs")
    return epochs * max(1, images // batch) if isinstance(epochs, int) else None


def at_chance(scalars: Sequence[Mapping[str, Any]], what: str = "models") -> str | None:
    """That zero-shot outputs of some rows cannot be told from chance, with the likely causes; None if all can be.

    Args:
        scalars: of finished rows on one task; only those of mode "zero-shot" say how they compare with chance.
    """
    names = "zero_shot_p", "zero_shot_accuracy", "zero_shot_by_chance"
    found: list[list[Any]] = [[one.get(name) for name in names] for one in scalars]
    tested = [facts for facts in found if all(isinstance(value, (int, float)) for value in facts)]
    low = [facts for facts in tested if facts[0] >= _LEVEL]
    if not low:
        return None
    mean, chance = (100 * fmean(facts[i] for facts in low) for i in (1, 2))
    return (
        f"{len(low):,} of {len(tested):,} {what} are not clearly better than chance without labelled images: "
        f"{mean:.1f} % on average, where chance gives {chance:.1f} % (a row is, where chance does as well in less than "
        f"{100 * _LEVEL:.0f} % of cases); are the class names words of the captions (else say what they "
        "are called there: zero_shot.names), and do the templates fit?"
    )


def _mean(values: Iterable[float]) -> float:
    """NaN of none."""
    given = list(values)
    return fmean(given) if given else math.nan


def weak_rows(store: Store, record: Record, task: Any = None) -> Weak:
    """Which of a plan's finished rows hardly learnt their source; `at` are positions in `store.finished(record)`."""
    return weak(store.scalars(record.tasks[0]["digest"] if task is None else task, record), record.settings)


def _facts(scalars: Mapping[str, Any]) -> tuple[float, float, float, float, float] | None:
    """Accuracy and that of a guess, loss and that of a guess, images."""
    names = "accuracy", "trivial_accuracy", "loss", "trivial_loss", "images"
    found = [scalars.get(f"source_{name}") for name in names]
    if all(isinstance(value, (int, float)) for value in found):
        return tuple(map(float, found))  # type: ignore[return-value, arg-type]
    return None
