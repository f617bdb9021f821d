"""Cells of studies whose truth is known: accuracies that a function gives, with noise of seeds, draws and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pydt.data import Dataset, Target
from pydt.studies import Cell, Study
from pydt.studies.study import Arm
from pydt.training import FineTune, Recipe

Truth = Callable[[Arm, str, str, Any], float]
Cells = dict[tuple[str, str], Cell]
FAST = Recipe(network="convnet-8", steps=3, batch_size=8)
SCRATCH = Recipe(method="none", network="convnet-8")


def images(name: str, count: int = 60, classes: int = 2, seed: int = 0) -> Dataset:
    """A small data set of noise."""
    rng = np.random.default_rng([seed, len(name), *map(ord, name)])
    pixels = rng.integers(0, 255, (count, 8, 8, 1), dtype=np.uint8)
    return Dataset.from_arrays(pixels, np.arange(count) % classes, [f"class {i}" for i in range(classes)], name=name)


def small_study(**more: Any) -> Study:
    """Four sources, two sizes, one method, two targets, three numbers of shots, probe; what `more` says otherwise."""
    about: dict[str, Any] = {
        "sources": {name: images(name) for name in ("latin", "greek", "cyrillic", "signs")},
        "methods": {"supervised": FAST},
        "targets": {name: Target(images(name, 180)) for name in ("digits", "textures")},
        "sizes": (20, 40),
        "shots": (1, 5, "full"),
        "modes": ("probe",),
    }
    return Study(**{**about, **more})


@dataclass(frozen=True)
class World:
    """How cells are made.

    Attributes:
        truth: the true accuracy of an arm on a target, by mode, at shots.
        images: of each half. seed_noise, draw_noise: standard deviations of the effects of seeds (of one arm) and draws
            (the same for all arms). failed: seeds that gave nothing, by name of arm.
        shift: added to the truth on one half: {"score": shift}.
    """

    truth: Truth
    images: int = 300
    seed_noise: float = 0.006
    draw_noise: float = 0.01
    failed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    shift: Mapping[str, Truth] = field(default_factory=dict)

    def cells(self, study: Study, seed: int = 0) -> dict[str, Cells]:
        """Both halves of a study."""
        return {half: self._half(study, half, seed) for half in ("report", "score")}

    def _half(self, study: Study, half: str, seed: int) -> Cells:
        found: Cells = {}
        labels = np.arange(self.images) % 2
        weights = np.full(self.images, 1 / self.images)
        for a, arm in enumerate(study.arms):
            of_seeds = np.random.default_rng([seed, 1, a]).normal(0, self.seed_noise, study.seeds)
            for t, asked in enumerate(study.asked(arm)):
                task = asked.task
                of_draws = np.random.default_rng([seed, 2, t]).normal(0, self.draw_noise, task.draws)
                # an image is right where its difficulty, common to all arms, lies below the accuracy
                hard = np.random.default_rng([seed, 3, t, half == "score"]).random(self.images)
                own = np.random.default_rng([seed, 4, a, t, half == "score"])
                mean = self.truth(arm, asked.target, asked.mode, asked.shots)
                if half in self.shift:
                    mean += self.shift[half](arm, asked.target, asked.mode, asked.shots)
                level = mean + of_seeds[:, None, None] + of_draws[None, :, None]
                shape = (study.seeds, task.draws, self.images)
                mixed = np.where(own.random(shape) < 0.7, hard, own.random(shape))
                values = (mixed < level).astype(np.float32)
                failed = self.failed.get(arm.name, ())
                seeds = tuple(s for s in range(study.seeds) if s not in failed)
                reasons = tuple("diverged" for _ in failed)
                rate = task.rate
                of = arm, asked, values[list(seeds)], seeds, weights, labels, reasons, rate
                found[arm.name, task.name] = Cell(*of)
        return found


FINETUNE = {"probe": {}, "finetune": {"finetune": FineTune(epochs=15)}}
