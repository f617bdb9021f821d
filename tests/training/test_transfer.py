"""Transfer: the probe against scikit-learn, the primitives against their definitions, draws that cannot leak."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from pydt.base import ConfigError, DataError
from pydt.data import Dataset, Target
from pydt.data.loading import Augment
from pydt.store import derive
from pydt.training import FineTune, Recipe, Task, Trained, train, transfer
from pydt.training.transfer.probe import ridge_probe
from pydt.training.transfer.run import primitives_of

AUGMENT = Augment(mean=(0.3,), std=(0.2,))


@pytest.fixture(scope="module")
def trained(source: Dataset) -> Trained:
    return train(source, None, Recipe(network="convnet-4", epochs=3, batch_size=32, augment=AUGMENT), 0)


@pytest.mark.parametrize(("n", "dim"), [(12, 30), (40, 9), (20, 20)])
def test_ridge_probe_is_scikit_learns(n: int, dim: int) -> None:
    random = np.random.default_rng(0)
    train_x = random.normal(3, 2, (2, n, dim))
    train_x[:, :, 0] = 1.5  # a feature that never varies in the draw
    features = random.normal(3, 2, (17, dim))
    labels = np.stack([random.permutation(np.arange(n) % 4) for _ in range(2)])
    ours = ridge_probe(torch.from_numpy(train_x), torch.from_numpy(labels), torch.from_numpy(features), 4, 10.0).numpy()
    for draw in range(2):
        mean, std = train_x[draw].mean(0), train_x[draw].std(0)
        std[std == 0] = 1
        model = Ridge(alpha=10.0).fit((train_x[draw] - mean) / std, np.eye(4)[labels[draw]])
        assert np.abs(ours[draw] - model.predict((features - mean) / std)).max() < 1e-9


def test_primitives_and_the_six_outputs() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 3, (3, 11, 5))
    labels = random.integers(0, 5, 11)
    primitives = primitives_of(torch.from_numpy(logits), torch.from_numpy(labels))
    assert primitives.dtype == np.float32
    assert primitives.shape == (4, 3, 11)
    softmax = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    for draw in range(3):
        for i in range(11):
            own, rest = logits[draw, i, labels[i]], np.delete(logits[draw, i], labels[i])
            p = softmax[draw, i, labels[i]]
            expected = {
                "logit": own,
                "margin": own - rest.max(),
                "softmax margin": np.log(p / (1 - p)),
                "probability": p,
                "correct": float(logits[draw, i].argmax() == labels[i]),
                "prediction": float(logits[draw, i].argmax()),
            }
            for name, value in expected.items():
                assert derive(primitives, labels, name)[draw, i] == pytest.approx(value, abs=2e-5), name


def test_a_probe_transfers_what_was_learnt(trained: Trained, target: Target) -> None:
    outputs = transfer(trained, Task(target, shots=5, draws=3), 0)
    assert outputs.primitives.shape == (4, 3, len(target.split["score"]) + len(target.split["report"]))
    described = target.described()
    right = outputs.primitives[3] == described["labels"]
    assert outputs.scalars["report_accuracy"] == pytest.approx(right[:, described["half"] == 1].mean())
    assert outputs.scalars["report_accuracy"] > 0.6, "chance is 0.25"


def test_labels_and_images_keep_their_order(trained: Trained, target: Target) -> None:
    # Permuted examples must give the same output for the same image: nothing may be matched up by position.
    images, labels = target.train.images, target.train.labels
    assert images is not None
    outputs = transfer(trained, Task(target, shots="full"), 0)
    ids = target.described()["ids"]
    features = trained.features(target.train, ids)
    pool = target.split["pool"]
    alone = ridge_probe(
        trained.features(target.train, pool).double()[None],
        torch.from_numpy(labels[pool])[None],
        features.double(),
        4,
        10.0,
    )
    assert np.array_equal(outputs.primitives[3, 0], alone[0].argmax(1).numpy())


def test_tasks_of_one_target_share_its_features(trained: Trained, target: Target) -> None:
    seen: list[int] = []
    fresh = replace(trained, _known={})
    hook = fresh.body.register_forward_hook(lambda body, images, out: seen.append(len(images[0])))
    few, many = Task(target, shots=2), Task(target, shots=4)
    first = transfer(fresh, few, 0)
    alone = sum(seen)
    second = transfer(fresh, many, 0)
    judged = len(target.described()["ids"])
    assert sum(seen) < 2 * alone - judged + len(target.split["pool"])  # only the other draws' images
    hook.remove()
    for task, found in ((few, first), (many, second)):
        assert np.array_equal(transfer(replace(trained, _known={}), task, 0).primitives, found.primitives)


def test_draws_are_balanced_nested_and_only_from_the_pool(target: Target) -> None:
    five, three = Task(target, shots=5, draws=6).few_shot(), Task(target, shots=3, draws=6).few_shot()
    other = Task(target, shots=5, draws=6, seed=1).few_shot()
    pool = set(target.split["pool"].tolist())
    for draw in range(6):
        assert np.bincount(target.train.labels[five[draw]]).tolist() == [5] * 4
        assert set(five[draw]) <= pool
        assert set(three[draw]) <= set(five[draw])
    assert len({tuple(draw) for draw in [*five, *other]}) == 12
    assert set(Task(target, shots="full").few_shot()[0]) == pool


def test_judged_labels_are_never_used(trained: Trained, target: Target) -> None:
    # Transfer with the labels of score and report halves scrambled: predictions must not move.
    labels = target.train.labels.copy()
    for half in ("score", "report"):
        labels[target.split[half]] = (labels[target.split[half]] + 1) % 4
    blind = Target(replace(target.train, labels=labels))
    object.__setattr__(blind, "split", target.split)
    for how in ({}, {"mode": "finetune", "draws": 1, "finetune": FineTune(epochs=1)}):
        seen = transfer(trained, Task(target, **how), 0).primitives[3]  # type: ignore[arg-type]
        assert np.array_equal(seen, transfer(trained, Task(blind, **how), 0).primitives[3])  # type: ignore[arg-type]


def test_fine_tuning_moves_all_layers_of_a_copy(trained: Trained, target: Target) -> None:
    before = {name: value.clone() for name, value in trained.body.state_dict().items()}
    task = Task(target, mode="finetune", shots=8, draws=2, finetune=FineTune(epochs=30, lr=0.1, batch_size=16))
    outputs = transfer(trained, task, 3)
    assert all(torch.equal(value, before[name]) for name, value in trained.body.state_dict().items())
    assert np.array_equal(outputs.primitives, transfer(trained, task, 3).primitives), (
        "the same seed gives the same bits"
    )
    assert not np.array_equal(outputs.primitives, transfer(trained, task, 4).primitives)
    assert outputs.scalars["report_accuracy"] > 0.7


def test_task_digests(target: Target) -> None:
    base = Task(target)
    same = [Task(target, name="another name"), Task(target, finetune=FineTune(epochs=99))]
    other = [
        Task(target, shots=4),
        Task(target, draws=7),
        Task(target, seed=1),
        Task(target, penalty=1.0),
        Task(target, mode="finetune"),
        Task(replace(target, metric="mean per class")),
    ]
    assert all(task.digest == base.digest for task in same)
    assert len({task.digest for task in [base, *other]}) == len(other) + 1


def test_what_cannot_be_meant_is_refused(target: Target) -> None:
    with pytest.raises(DataError, match=r"11 shots, but class '.' has 10 examples"):
        Task(target, shots=11)
    for wrong in (
        {"mode": "zero-shot", "shots": 5},
        {"mode": "prob"},
        {"shots": 0},
        {"shots": "all"},
        {"draws": 0},
        {"penalty": 0.0},
    ):
        with pytest.raises(ConfigError):
            Task(target, **wrong)  # type: ignore[arg-type]
