"""A target and how to transfer to it, as a value with a digest; few-shot draws."""

from __future__ import annotations

from dataclasses import dataclass, field, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pydt.base import ConfigError, DataError, digest, generator, one_of, real, whole
from pydt.data import Target
from pydt.training.settings import described
from pydt.training.transfer.finetune import FineTune
from pydt.training.transfer.modes import MODES


@dataclass(frozen=True)
class Task:
    """A target and how to transfer to it.

    Attributes:
        target: the target and its splits.
        mode: of `pydt.training.transfer.modes`: "probe" (frozen features, ridge classifier) or "finetune" (all layers).
        shots: labelled examples per class, or "full" for the whole pool.
        draws: how many few-shot draws; outputs are kept per draw. "full" has one.
        seed: of the draws. Ensembles and counterfactuals use different seeds, so that no lucky draw serves twice.
        penalty: of the ridge probe, on features standardised on the draw.
        finetune: see `FineTune`; only read in mode "finetune".
        name: what reports call it.

    Raises:
        DataError: a class of the pool has fewer examples than shots.
        ConfigError: an unknown mode or a value out of range.
    """

    target: Target
    mode: str = "probe"
    shots: int | str = 5
    draws: int = 8
    seed: int = 0
    penalty: float = 10.0
    finetune: FineTune = field(default_factory=FineTune)
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.target, Target):
            raise ConfigError(f"a {type(self.target).__name__}", "Task.target", "give pydt.Target(dataset)")
        least = {"draws": 1, "seed": 0} | ({} if self.shots == "full" else {"shots": 1})
        for name, smallest in least.items():
            object.__setattr__(self, name, whole(getattr(self, name), name, "Task", smallest, error=ConfigError))
        object.__setattr__(self, "penalty", real(self.penalty, "penalty", "Task", above=0))
        if self.mode == "zero-shot":
            wrong = "mode 'zero-shot' needs a text tower, which is not built yet"
            raise ConfigError(wrong, "Task", 'use "probe" or "finetune"')
        one_of(self.mode, tuple(MODES), "mode", "Task")
        if self.shots == "full":
            object.__setattr__(self, "draws", 1)
        else:
            labels = self.target.train.labels[self.target.split["pool"]]
            counts = np.bincount(labels, minlength=len(self.target.classes))
            if counts.min() < int(self.shots):
                scarce = self.target.classes[int(counts.argmin())]
                wrong = f"{self.shots} shots, but class {scarce!r} has {counts.min()} examples in the pool"
                mend = "ask for fewer shots, or give a larger pool: Target(pool=...)"
                raise DataError(wrong, self.target.name, mend)
        if not self.name:
            object.__setattr__(self, "name", f"{self.target.name}, {self.shots}-shot {self.mode}")

    def check(self, recipe: Any) -> None:
        """Refuse a recipe whose models cannot be transferred so.

        Raises:
            ConfigError: they cannot; the task and the mend are named.
        """
        MODES[self.mode].check(recipe, self)

    @cached_property
    def digest(self) -> str:
        """Name of the task: a digest of all that its mode reads, so not of its name."""
        how = self._settings().values()
        return digest("task", self.target.digest, self.mode, self.shots, self.draws, self.seed, *how)

    def _settings(self) -> dict[str, Any]:
        """The settings that the mode reads, as JSON types."""
        read = {name: getattr(self, name) for name in MODES[self.mode].settings}
        return {name: described(value) if is_dataclass(value) else value for name, value in read.items()}

    def described(self) -> dict[str, Any]:
        """The task as JSON types, for plan files and reports."""
        target = {
            "name": self.target.name,
            "digest": self.target.digest,
            "classes": list(self.target.classes),
            "metric": self.target.metric,
            **{part: len(ids) for part, ids in self.target.split.items()},
        }
        about = {"name": self.name, "target": target, "mode": self.mode}
        return {**about, "shots": self.shots, "draws": self.draws, "seed": self.seed, **self._settings()}

    def few_shot(self) -> np.ndarray:
        """Positions in `target.train`, int64 (draws, n): `shots` per class, or the whole pool.

        Draws are nested: more shots only add examples.
        """
        pool = self.target.split["pool"]
        if self.shots == "full":
            return pool[np.newaxis]
        labels = self.target.train.labels[pool]
        chosen = []
        for draw in range(self.draws):
            order = generator("few-shot draw", self.seed, draw).permutation(len(pool))
            by_class = [order[labels[order] == c][: self.shots] for c in range(len(self.target.classes))]
            chosen.append(np.sort(np.concatenate(by_class)))
        return pool[np.stack(chosen)]
