"""SimCLR: the loss against a slow reference, what it learns, and what it refuses before anything is trained."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pydt import design
from pydt.base import ConfigError, DataError
from pydt.data import Dataset, Target
from pydt.data.loading import Augment, Loader
from pydt.ensemble import Plan
from pydt.store.learning_check import hardly_learnt
from pydt.training import Recipe, SimCLR, Task, train, transfer
from pydt.training.methods import METHODS
from pydt.training.methods.simclr import nt_xent

RECIPE = Recipe(
    network="convnet-8",
    method="simclr",
    steps=60,
    batch_size=32,
    lr=0.2,
    augment=Augment(crop_pad=2, mean=(0.3,)),
    simclr=SimCLR(temperature=0.5),
)


def reference(projected: np.ndarray, temperature: float) -> tuple[float, np.ndarray, int]:
    """Loss, gradient and right picks of NT-Xent as Chen et al. 2020 define it (equation 1), one pair at a time.

    The gradient is that of float64 differences, with respect to the vectors before they are brought to unit length.
    """
    count = len(projected) // 2

    def terms(vectors: np.ndarray) -> tuple[float, int]:
        total, right = 0.0, 0
        for i in range(2 * count):
            partner = i + count if i < count else i - count
            similar = {}
            for k in range(2 * count):
                if k != i:
                    cosine = vectors[i] @ vectors[k] / math.sqrt((vectors[i] @ vectors[i]) * (vectors[k] @ vectors[k]))
                    similar[k] = cosine / temperature
            total -= similar[partner] - math.log(sum(math.exp(value) for value in similar.values()))
            right += max(similar, key=lambda k: similar[k]) == partner
        return total / (2 * count), right

    gradient, step = np.empty_like(projected), 1e-5
    for place in np.ndindex(projected.shape):
        ends = []
        for sign in (1, -1):
            moved = projected.copy()
            moved[place] += sign * step
            ends.append(terms(moved)[0])
        gradient[place] = (ends[0] - ends[1]) / (2 * step)
    loss, right = terms(projected)
    return loss, gradient, right


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("examples", [2, 3, 6])
def test_loss_and_gradient_are_the_papers(examples: int, temperature: float) -> None:
    random = np.random.default_rng(examples)
    first = random.normal(size=(examples, 4))
    projected = np.concatenate([first, first + 0.7 * random.normal(size=first.shape)])
    loss, gradient, right = reference(projected, temperature)
    for dtype, most in ((torch.float64, 1e-8), (torch.float32, 1e-5)):
        vectors = torch.tensor(projected, dtype=dtype, requires_grad=True)
        ours, picked = nt_xent(vectors, temperature)
        ours.backward()
        assert ours.item() == pytest.approx(loss, abs=most)
        assert picked.sum().item() == right
        assert vectors.grad is not None
        assert np.abs(vectors.grad.double().numpy() - gradient).max() < most / temperature


def test_the_order_of_a_batch_and_of_the_views_does_not_matter() -> None:
    random = np.random.default_rng(0)
    first, second = torch.from_numpy(random.normal(size=(2, 7, 5)))
    expected, picked = nt_xent(torch.cat([first, second]), 0.3)
    order = torch.from_numpy(random.permutation(7))
    for views in ((first[order], second[order]), (second, first)):
        loss, right = nt_xent(torch.cat(views), 0.3)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
        assert right.sum() == picked.sum()


def test_views_that_tell_nothing_have_the_loss_of_a_guess() -> None:
    loss, _ = nt_xent(torch.ones(10, 3), 0.1)
    assert loss.item() == pytest.approx(math.log(9))


def test_it_learns_without_labels(source: Dataset, target: Target) -> None:
    blind = replace(source, labels=np.zeros_like(source.labels), classes=("all",))
    trained = train(blind, None, RECIPE, 0)
    metrics = trained.metrics
    assert metrics["source_trivial_loss"] == pytest.approx(math.log(63))
    assert 1 / 63 <= metrics["source_trivial_accuracy"] < 0.2
    assert metrics["source_images"] == 5 * 32
    assert metrics["source_accuracy"] > 0.2
    assert hardly_learnt(metrics) is False
    for rate in (1e-9, 1e3):  # where nothing moves, and where all views become the same
        assert hardly_learnt(train(blind, None, replace(RECIPE, lr=rate), 0).metrics) is True
    floor = train(source, None, replace(RECIPE, method="none"), 0)
    task = Task(target, shots=1, draws=8)
    won, lost = (transfer(model, task, 0).scalars["report_accuracy"] for model in (trained, floor))
    assert won > lost + 0.05


def test_the_head_is_dropped_and_the_same_seed_gives_the_same_bits(source: Dataset) -> None:
    short = replace(RECIPE, steps=4)
    one, two, other = (train(source, None, short, seed) for seed in (3, 3, 4))
    plain = train(source, None, replace(short, method="supervised"), 3)
    assert one.body.state_dict().keys() == plain.body.state_dict().keys()
    for name, value in one.body.state_dict().items():
        assert torch.equal(value, two.body.state_dict()[name])
    assert not torch.equal(next(one.body.parameters()), next(other.body.parameters()))


def test_every_batch_has_two_views_of_all_its_examples(source: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    read = Loader.read

    def noted(self: Loader, ids: np.ndarray) -> Any:
        batch = read(self, ids)
        seen.append((len(batch.images), len(batch.labels)))
        return batch

    monkeypatch.setattr(Loader, "read", noted)
    for kept in (65, 33, 2):  # the last batch would be of one example; the last set is less than a batch
        seen.clear()
        metrics = train(source, np.arange(kept), replace(RECIPE, steps=None, epochs=2), 0).metrics
        assert set(seen) == {(2 * min(kept, 32), min(kept, 32))}
        assert metrics["source_trivial_loss"] == pytest.approx(math.log(2 * min(kept, 32) - 1))


def test_settings_stand_in_the_digests_of_their_method_alone() -> None:
    assert "simclr" not in Recipe().described()
    assert Recipe(simclr=SimCLR(temperature=9)).digest == Recipe().digest
    base = Recipe(method="simclr")
    others = [SimCLR(temperature=0.1), SimCLR(hidden=96), SimCLR(out=64)]
    assert len({base.digest, *(replace(base, simclr=settings).digest for settings in others)}) == 4
    assert base.described()["simclr"] == {"temperature": 0.2, "hidden": None, "out": 128}
    assert SimCLR(temperature=1) == SimCLR(temperature=1.0)


def test_an_augmentation_left_at_its_default_is_the_methods() -> None:
    assert Recipe(method="simclr").augment == METHODS["simclr"].augment != Augment()
    assert Recipe().augment == Recipe(method="none").augment == Augment()
    own = Augment(crop_pad=3)
    assert Recipe(method="simclr", augment=own).augment == own
    assert Recipe(method="simclr") == replace(Recipe(), method="simclr")


def one_pixel() -> Dataset:
    images = np.arange(60, dtype=np.uint8).reshape(60, 1, 1)
    return Dataset.from_arrays(images, np.arange(60) % 3, name="dots")


@pytest.mark.parametrize(
    ("recipe", "wrong", "mend"),
    [
        (replace(RECIPE, batch_size=1), "a batch of 1 image", "set it to 2 or more"),
        (replace(RECIPE, augment=Augment(mean=(0.3,))), "can only be equal", "crop at random"),
        (
            replace(RECIPE, augment=Augment(resized_crop=((1, 1), (1, 1)))),
            "can only be equal",
            "resized_crop = [[0.3, 1.0], [0.75, 1.333]]",
        ),
    ],
)
def test_what_cannot_be_told_apart_is_refused(source: Dataset, recipe: Recipe, wrong: str, mend: str) -> None:
    for refused in (
        lambda: train(source, None, recipe, 0),
        lambda: Plan(source, design=design.random(8, 4), recipe=recipe, tasks=[Task(Target(source), shots=1)]),
    ):
        with pytest.raises(ConfigError, match=wrong) as caught:
            refused()
        assert mend in str(caught.value)


def test_images_of_one_pixel_and_single_images_are_refused(source: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"source dots: images of one pixel.*larger images"):
        train(one_pixel(), None, Recipe(method="simclr", augment=Augment(jitter=(0.4, 0.4, 0, 0))), 0)
    with pytest.raises(DataError, match="keeps 1 image"):
        train(source, [3], RECIPE, 0)
    single = Dataset.from_arrays(np.zeros((1, 12, 12), np.uint8), [0], name="single")
    with pytest.raises(ConfigError, match=r"source single: a single image"):
        train(single, None, RECIPE, 0)


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"temperature": "0.5"}, {"hidden": 0}, {"out": 1.5}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"SimCLR.*{next(iter(wrong))}|{next(iter(wrong))}.*SimCLR"):
        SimCLR(**wrong)


class Scarce(nn.Module):
    """Has no memory for a training step of more than 16 images."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(144, 7))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and len(images) > 16:
            torch.empty(1 << 60)  # what the allocator of the CPU says
        return self.layers(images)  # type: ignore[no-any-return]


def test_a_batch_without_memory_is_not_split(source: Dataset) -> None:
    recipe = replace(RECIPE, network=Scarce, lr=0.01, steps=2)
    with pytest.raises(ConfigError, match=r"no memory for batches of 32 images.*lower it: method 'simclr' compares"):
        train(source, None, recipe, 0)
    assert "micro_batches" not in train(source, None, replace(recipe, batch_size=8), 0).metrics
