"""A target and how to transfer to it, as a value with a digest; few-shot draws."""

from __future__ import annotations

from dataclasses import dataclass, field, is_dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pydt.base import ConfigError, DataError, digest, generator, one_of, real, whole
from pydt.data import Dataset, GuardedTarget, Target, guarded
from pydt.training.settings import YOUNG, described, ignored
from pydt.training.transfer.finetune import FineTune
from pydt.training.transfer.modes import MODES
from pydt.training.transfer.zero_shot import ZeroShot

_OF_MODE: Any = None
_FEW = 3  # further classes that an error lists


@dataclass(frozen=True)
class Task:
    """A target and how to transfer to it.

    Attributes:
        target: the target and its splits.
        mode: "zero-shot" (class names are the classifier), "probe" (frozen features, ridge classifier), "finetune" (all
            layers), "lp-ft" (a linear head first, then all layers), "last-n" (the last layers), "drifting-probe" (a
            linear head, while batch-norm statistics drift) or "wise-ft" (between before and after fine-tuning); see
            docs/methods.md.
        shots: labelled examples per class, or "full" for the whole pool; 5 by default, 0 in mode "zero-shot".
        draws: how many few-shot draws; outputs are kept per draw. "full" and "zero-shot" have one.
        seed: of the draws. Ensembles and counterfactuals use different seeds, so that no lucky draw serves twice.
        penalty: of the ridge probe, on features standardised on the draw.
        finetune: see `FineTune`; read in all modes but "zero-shot" and "probe".
        name: what reports call it.
        zero_shot: see `ZeroShot`; read in mode "zero-shot", and where fine-tuning begins with the zero-shot head.
        last: of mode "last-n": how many layers are trained besides the head; 0 is the head alone.
        alpha: of mode "wise-ft": the weight of what fine-tuning gave, from 0 to 1.
        part: of the target whose outputs are stored: "judged" (score and report half), or "validation" for the trials
            of `pydt.choose_rates`, whose target is then guarded: it has no judged examples.

    Raises:
        DataError: a class of the pool has fewer examples than shots, or there are no validation examples for a trial.
        ConfigError: an unknown mode, a value out of range, or a head that the mode does not read.
    """

    target: Target
    mode: str = "probe"
    shots: int | str = _OF_MODE
    draws: int = 8
    seed: int = 0
    penalty: float = 10.0
    finetune: FineTune = field(default_factory=FineTune)
    name: str = ""
    zero_shot: ZeroShot = field(default_factory=ZeroShot)
    last: int = 1
    alpha: float = 0.5
    part: str = field(default="judged", metadata=YOUNG)

    def __post_init__(self) -> None:
        if not isinstance(self.target, Target):
            raise ConfigError(f"a {type(self.target).__name__}", "Task.target", "give pydt.Target(dataset)")
        one_of(self.part, ("judged", "validation"), "part", "Task")
        if self.part == "validation":
            object.__setattr__(self, "target", guarded(self.target))
        one_of(self.mode, tuple(MODES), "mode", "Task")
        labelled = MODES[self.mode].labelled
        if self.shots is None:
            object.__setattr__(self, "shots", 5 if labelled else 0)
        if not labelled and self.shots != 0:
            wrong = f"shots {self.shots!r}, but mode {self.mode!r} reads no labelled image"
            raise ConfigError(wrong, "Task", "leave shots out")
        if isinstance(self.shots, str) and self.shots != "full":
            raise ConfigError(f"shots {self.shots!r}", "Task", 'use a whole number, or "full" for the whole pool')
        least = {"draws": 1, "seed": 0, "last": 0} | ({} if self.shots == "full" else {"shots": int(labelled)})
        for name, smallest in least.items():
            object.__setattr__(self, name, whole(getattr(self, name), name, "Task", smallest, error=ConfigError))
        object.__setattr__(self, "penalty", real(self.penalty, "penalty", "Task", above=0))
        object.__setattr__(self, "alpha", real(self.alpha, "alpha", "Task", least=0, most=1))
        for name, kind in (("finetune", FineTune), ("zero_shot", ZeroShot)):
            if not isinstance(getattr(self, name), kind):
                wrong = f"a {type(getattr(self, name)).__name__}"
                raise ConfigError(wrong, f"Task.{name}", f"give {kind.__name__}(...)")
        if self.finetune.head != "auto" and MODES[self.mode].learns and self.mode not in ("finetune", "last-n"):
            wrong = f"mode {self.mode!r} has a head of its own, not {self.finetune.head!r}"
            raise ConfigError(wrong, "Task.finetune.head", "leave it out")
        if self.shots in ("full", 0):
            object.__setattr__(self, "draws", 1)
        else:
            labels = self.target.train.labels[self.target.split["pool"]]
            counts = np.bincount(labels, minlength=len(self.target.classes))
            if counts.min() < int(self.shots):
                raise _too_few(self.target, counts, int(self.shots))
        if not self.name:
            how = f"{self.shots}-shot {self.mode}" if labelled else self.mode
            object.__setattr__(self, "name", f"{self.target.name}, {how}")

    @property
    def rate(self) -> float | None:
        """The learning rate; None where the mode has none."""
        return self.finetune.lr if "finetune" in MODES[self.mode].settings else None

    @property
    def ignored(self) -> list[str]:
        """Settings away from their default that the mode does not read."""
        return ignored(self, MODES[self.mode].settings, {name for mode in MODES.values() for name in mode.settings})

    def at(self, rate: float) -> Task:
        """The same task at another learning rate."""
        return replace(self, finetune=replace(self.finetune, lr=rate))

    def check(self, recipe: Any, source: Dataset) -> None:
        """Refuse a recipe whose models of this source cannot be transferred so.

        Raises:
            ConfigError: they cannot; the task and the mend are named.
        """
        MODES[self.mode].check(recipe, self, source)

    @cached_property
    def digest(self) -> str:
        """Name of the task: a digest of all that its mode reads, so not of its name."""
        how = [*self._settings().values(), *(() if self.part == "judged" else (self.part,))]
        return digest("task", self.target.digest, self.mode, self.shots, self.draws, self.seed, *how)

    def _settings(self) -> dict[str, Any]:
        """The settings that the mode reads, as JSON types."""
        read = {name: getattr(self, name) for name in MODES[self.mode].settings}
        # sentences at their defaults are not named: digests of fine-tuning are older than they
        return {name: _plain(value) for name, value in read.items() if value != ZeroShot()}

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
        about |= {} if self.part == "judged" else {"part": self.part}
        return {**about, "shots": self.shots, "draws": self.draws, "seed": self.seed, **self._settings()}

    def examples(self) -> dict[str, np.ndarray]:
        """The examples whose outputs are stored, in their order.

        Returns:
            "ids", "labels", "half" and "weights" as `Target.described`; of validation examples, "ids" are positions in
            the whole target's `train`, "half" is 2 and every example has the same weight.
        """
        if not isinstance(self.target, GuardedTarget):
            return self.target.described()
        positions = self.target.split["validation"]
        labels, number = self.target.train.labels[positions], len(positions)
        half, weights = np.full(number, 2, np.uint8), np.full(number, 1 / number)
        return {"ids": self.target.ids[positions], "labels": labels, "half": half, "weights": weights}

    def shown(self) -> tuple[Dataset, np.ndarray]:
        """Where the images of `examples` lie: a data set, and int64 (examples,) positions in it."""
        if isinstance(self.target, GuardedTarget):
            return self.target.train, self.target.split["validation"]
        return self.target.judged, self.target.described()["ids"]

    def few_shot(self) -> np.ndarray:
        """Positions in `target.train`, int64 (draws, n): `shots` per class, or the whole pool; none for zero-shot.

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

    def drawn(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """The draws as a store keeps them.

        Returns:
            positions in the whole target's `train` and labels, int64 (draws, n); the keys of the examples that are in
            any draw, by position.
        """
        found, train = self.few_shot(), self.target.train
        every = train.all_keys()
        keys = [every[i] for i in np.unique(found).tolist()]
        ids = self.target.ids[found] if isinstance(self.target, GuardedTarget) else found
        return ids, train.labels[found], keys


def _too_few(target: Target, counts: np.ndarray, shots: int) -> DataError:
    """The error about classes of which the pool has fewer images than shots, with the sum of the smallest."""
    few = sorted(np.flatnonzero(counts < shots).tolist(), key=lambda c: int(counts[c]))
    scarce = few[0]
    wrong = f"{shots} shots, but class {target.classes[scarce]!r} has {counts[scarce]} examples in the pool"
    if others := [f"{target.classes[c]!r} {counts[c]}" for c in few[1 : 1 + _FEW]]:
        wrong += f", {', '.join(others)}" + (f", and {len(few) - 1 - _FEW} classes more" * (len(few) > 1 + _FEW))
    wrong += f" ({target.sum_of(scarce)})" if not isinstance(target, GuardedTarget) else ""
    fewer = f"take shots = {counts[scarce]}" if counts[scarce] else "give the class more images, or leave it out"
    larger = "give a larger pool: Target(pool=...)"
    other = "" if target.test is not None else ", or a test set of its own (a folder): then all but 1/9 is the pool"
    return DataError(wrong, target.name, f"{fewer}, {larger}{other}")


def _plain(value: Any) -> Any:
    """A setting as JSON types."""
    return value.described() if hasattr(value, "described") else described(value) if is_dataclass(value) else value
