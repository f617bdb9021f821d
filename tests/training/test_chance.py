"""What chance gives, against shuffled labels; a zero-shot head in the wrong order is told from a right one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from stub_text import StubTower
from torch import nn

from pydt.data import Dataset, Target
from pydt.training import Recipe, Task, Trained, train, transfer
from pydt.training.transfer.chance import against_chance, auroc_against_chance
from pydt.training.transfer.modes import MODES


@pytest.mark.parametrize("counts", [(50, 40, 30), (110, 8, 2), (30, 90)])
def test_chance_is_what_shuffled_labels_give(counts: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    predictions = np.where(random.random(len(labels)) < 0.4, labels, random.integers(0, len(counts), len(labels)))
    shuffled = np.array([(predictions == random.permutation(labels)).mean() for _ in range(4000)])
    found = against_chance(predictions, labels)
    assert found["zero_shot_accuracy"] == (predictions == labels).mean()
    assert found["zero_shot_by_chance"] == pytest.approx(shuffled.mean(), abs=4 * shuffled.std() / 4000**0.5)
    # p of predictions about two deviations above chance, where 4,000 shuffles know it to 0.003
    for right in range(len(labels)):
        made = np.roll(labels, -1).copy()
        made[:right] = labels[:right]
        p = against_chance(made, labels)["zero_shot_p"]
        if p < 0.04:
            share = np.mean(
                [(made == random.permutation(labels)).mean() >= (made == labels).mean() for _ in range(4000)]
            )
            assert p == pytest.approx(share, abs=0.02)
            break


def test_one_class_for_all_is_chance_however_frequent() -> None:
    labels = np.repeat([0, 1], [95, 5])
    found = against_chance(np.zeros(100, np.int64), labels)
    assert found == {"zero_shot_accuracy": 0.95, "zero_shot_by_chance": 0.95, "zero_shot_p": 1.0}
    assert against_chance(1 - labels, labels)["zero_shot_p"] > 0.99, "always wrong is not above chance"


def test_aurocs_by_chance() -> None:
    labels, half = np.repeat([0, 1], [60, 40]), np.tile([0, 1], 50)
    deviation = (51 / (12 * 30 * 20)) ** 0.5 / 2**0.5  # of the mean of two halves
    at = auroc_against_chance({0: 0.5 + deviation, 1: 0.5 + deviation}, labels, half)
    assert at["zero_shot_p"] == pytest.approx(0.1586553)
    assert auroc_against_chance({0: 0.5, 1: 0.5}, labels, half)["zero_shot_p"] == pytest.approx(0.5)
    three = auroc_against_chance({0: 0.9, 1: 0.9}, np.arange(100) % 3, half)
    assert three["zero_shot_p"] < 1e-6


class Centres(StubTower):
    """A text's vector is the mean of the features of a class, from `centre`: a tower that knows the classes."""

    def __init__(self, centre: torch.Tensor, means: dict[str, torch.Tensor]) -> None:
        super().__init__(len(centre))
        self.project: nn.Module = nn.Linear(len(centre), len(centre))
        with torch.no_grad():
            self.project.weight.copy_(torch.eye(len(centre)))
            self.project.bias.copy_(-centre)
        self.centres = {name: mean - centre for name, mean in means.items()}

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        return nn.functional.normalize(torch.stack([self.centres[text] for text in texts]), dim=1)


def test_a_head_in_the_wrong_order_is_at_chance(source: Dataset, target: Target) -> None:
    trained = train(source, None, Recipe(network="convnet-4", epochs=3, batch_size=32), 0)
    pool = target.split["pool"]
    features = trained.features(target.train, pool).float()
    labels = torch.from_numpy(target.train.labels[pool])
    centre = features.mean(0)
    means = [features[labels == c].mean(0) for c in range(len(target.classes))]

    def seen(names: Sequence[str], metric: str = "top-1") -> dict[str, float]:
        tower = Centres(centre, dict(zip(names, means, strict=True)))
        return transfer(told(trained, tower), Task(replace(target, metric=metric), "zero-shot"), 0).scalars

    right = seen(target.classes)
    assert right["zero_shot_p"] < 1e-3
    assert right["zero_shot_by_chance"] < 0.5 < right["zero_shot_accuracy"]
    wrong = seen([*target.classes[1:], target.classes[0]])
    assert wrong["zero_shot_p"] > 0.05
    assert seen(target.classes, "auroc")["zero_shot_p"] < 1e-3
    assert seen([*target.classes[1:], target.classes[0]], "auroc")["zero_shot_p"] > 0.05


def told(trained: Trained, tower: StubTower) -> Trained:
    return replace(trained, text=tower, _known={})


def test_only_outputs_without_labels_are_compared_with_chance(source: Dataset, target: Target) -> None:
    assert [name for name, mode in MODES.items() if not mode.labelled] == ["zero-shot"]
    trained = train(source, None, Recipe(network="convnet-4", epochs=1, batch_size=32), 0)
    assert set(transfer(trained, Task(target, shots=1, draws=1), 0).scalars) == {"score_accuracy", "report_accuracy"}
