"""AUROC as a mean of one value per example: against pairs, scikit-learn and DeLong; a row, and a half of one class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle_auroc import auroc, delong
from sklearn.metrics import roc_auc_score

from pydt.analyses.counterfactual import _between_images
from pydt.base import DataError
from pydt.data import Dataset, Target
from pydt.training import Recipe, Task, train, transfer
from pydt.training.transfer.auroc import auroc_values, log_odds

COUNTS = [(40, 9), (30, 12, 5, 2), (3, 0, 4), (1, 1), (2, 25, 2, 2, 2, 2)]


def examples(counts: tuple[int, ...], seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Logits (examples, classes) that know a little, and labels."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(len(counts)), counts))
    logits = random.normal(0, 2, (len(labels), len(counts))) + np.eye(len(counts))[labels]
    return (np.round(logits / 2) if ties else logits), labels


def weights(labels: np.ndarray) -> np.ndarray:
    counts = np.bincount(labels)
    return 1 / counts[labels] / (counts > 0).sum()


def values(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return auroc_values(torch.from_numpy(logits)[None], labels, np.zeros(len(labels), np.uint8))[0].astype(np.float64)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("counts", COUNTS)
def test_the_weighted_mean_is_the_auroc_of_all_pairs(counts: tuple[int, ...], ties: bool) -> None:
    logits, labels = examples(counts, ties=ties)
    expected = auroc(logits, labels)
    assert weights(labels) @ values(logits, labels) == pytest.approx(expected, abs=1e-6)
    if len(counts) == 2:
        assert expected == pytest.approx(roc_auc_score(labels, logits[:, 1] - logits[:, 0]))


def test_log_odds_are_those_of_the_softmax_also_far_out() -> None:
    logits = np.random.default_rng(2).normal(0, 4, (50, 7))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(log_odds(torch.from_numpy(logits)), np.log(p / (1 - p)), rtol=1e-5)
    far = torch.tensor([[900.0, 0.0, 1.0], [0.0, -900.0, 2.0]], dtype=torch.float64)
    rest = np.logaddexp(0, [1, 2])  # what a difference of a total and one term would lose
    np.testing.assert_allclose(log_odds(far)[0, 0], 900 - rest[0], rtol=1e-7)
    np.testing.assert_allclose(log_odds(far)[1, [1, 2]], [-900 - rest[1], 2.0], rtol=1e-7)


def test_the_spread_within_the_classes_is_delongs() -> None:
    logits, labels = examples((60, 13), 4)
    others = logits + np.random.default_rng(5).normal(0, 1, logits.shape)
    own, other = (scores[:, 1] - scores[:, 0] for scores in (logits, others))
    part = values(logits, labels) * weights(labels)
    alone = delong(own, np.zeros(len(own)), labels)
    assert _between_images(part, labels) == pytest.approx(alone, rel=1e-5)
    difference = part - values(others, labels) * weights(labels)
    assert _between_images(difference, labels) == pytest.approx(delong(own, other, labels), rel=1e-5)


def test_the_spread_of_many_classes_is_that_of_fresh_images() -> None:
    counts = (40, 20, 20)
    found = []
    told = []
    for seed in range(400):
        logits, labels = examples(counts, seed)
        found.append(auroc_mean(logits, labels))
        told.append(_between_images(values(logits, labels) * weights(labels), labels))
    # the standard deviation of 400 draws is known to 3.5 %
    assert np.sqrt(np.mean(told)) == pytest.approx(np.std(found, ddof=1), rel=0.12)


def auroc_mean(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(weights(labels) @ values(logits, labels))


def test_halves_and_draws_are_apart() -> None:
    one, labels = examples((30, 10, 10), 6)
    two = examples((30, 10, 10), 7)[0]
    half = (np.arange(50) % 3 == 0).astype(np.uint8)
    found = auroc_values(torch.from_numpy(np.stack([one, two])), labels, half)
    assert (found.dtype, found.shape) == (np.dtype(np.float32), (2, 50))
    for draw, logits in enumerate((one, two)):
        for part in (0, 1):
            own = half == part
            np.testing.assert_array_equal(found[draw, own], values(logits[own], labels[own]).astype(np.float32))


def binary(source: Dataset, rare: int = 40) -> Dataset:
    """A class against all others, with `rare` images of it."""
    labels = (source.labels == 0).astype(np.int64)
    keep = np.concatenate([np.flatnonzero(labels == 1)[:rare], np.flatnonzero(labels == 0)])
    return Dataset.from_arrays(source.images[keep], labels[keep], classes=["other", "this"], name="rare")


def test_a_transfer_stores_the_values_and_their_mean(source: Dataset) -> None:
    target = Target(binary(source), metric="auroc")
    trained = train(source, None, Recipe(network="convnet-4", epochs=1, batch_size=32), 0)
    outputs = transfer(trained, Task(target, shots=2, draws=3), 0)
    plain = transfer(trained, Task(Target(target.train), shots=2, draws=3), 0)
    np.testing.assert_array_equal(outputs.primitives, plain.primitives)
    assert list(plain.arrays) == ["primitives"]
    assert list(outputs.arrays) == ["primitives", "auroc"]
    described = target.described()
    correct, other = outputs.primitives[:2].astype(np.float64)  # of two classes: both logits
    labels = described["labels"]
    score = np.where(labels == 1, correct - other, other - correct)
    for i, half in enumerate(("score", "report")):
        own = described["half"] == i
        expected = np.mean([roc_auc_score(labels[own], draw[own]) for draw in score])
        assert outputs.scalars[f"{half}_accuracy"] == pytest.approx(expected, abs=1e-6)
        assert described["weights"][own].sum() == pytest.approx(1)


def test_a_half_of_one_class_has_no_auroc(source: Dataset) -> None:
    data = binary(source, 5)
    assert Target(data, pool=4, validation=0).metric == "top-1"
    with pytest.raises(DataError, match="half has images of class 'other' alone"):
        Target(binary(source, 1), metric="auroc")
