"""Networks that learnt nothing are named, and nothing is planned by them."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from pydt import design
from pydt.analyses.report import results
from pydt.base import EstimateError, TrainError
from pydt.cli.app import app
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, RowInput, cost, run
from pydt.estimation import compare_alphas, plan_models
from pydt.reporting import sentences
from pydt.store import Outcome, Store, status, weak
from pydt.store.learning_check import hardly_learnt
from pydt.training import Recipe, Task, train
from pydt.training.methods.supervised import trivial_guess

FAIR = {"source_accuracy": 0.9, "source_loss": 0.4}
BAD = {"source_accuracy": 0.1, "source_loss": 2.8}
GUESS = {"source_trivial_accuracy": 0.07, "source_trivial_loss": 2.7, "source_images": 1000}


@dataclass(frozen=True)
class Learning:
    """A runner without training: each example is right with chance 1/2; group 2 adds `effect`, group 5 takes it.

    Rows whose seed is in `bad` say that they learnt nothing, the others that they did.
    """

    effect: float
    bad: frozenset[int] = frozenset()

    def __call__(self, given: RowInput) -> dict[str, Outcome]:
        row, tasks = given.row, given.tasks
        random, found = np.random.default_rng(row.seed), {}
        for task in tasks:
            labels = task.target.described()["labels"]
            chance = 0.5 + self.effect * (float(row.mask[2]) - float(row.mask[5]))
            right = random.random((task.draws, len(labels))) < chance
            margin = np.where(right, 1.0, -1.0)
            primitives = np.stack([margin, 0 * margin, 0 * margin, np.where(right, labels, (labels + 1) % 4)])
            scalars = {**(BAD if row.seed in self.bad else FAIR), **GUESS}
            found[task.digest] = Outcome({"primitives": primitives.astype(np.float32)}, scalars)
        return found


def study(folder: Path, source: Dataset, target: Target, bad: int, effect: float = 0.3) -> tuple[Store, Plan]:
    """60 rows, of which the first `bad` hardly learnt their source."""
    tasks = (Task(target, draws=4),)
    plan = Plan(source, design=design.random(8, 60, alpha=0.5, placebos=2), recipe=Recipe(), tasks=tasks)
    runner = Learning(effect, frozenset(row.seed for row in plan.rows()[:bad]))
    with ThreadPoolExecutor(1) as executor:
        return run(plan, folder, executor, runner=runner), plan


def test_what_a_guess_gives_is_the_best_constant_prediction() -> None:
    labels, smoothing = torch.tensor([0] * 6 + [1] * 3 + [2] * 1), 0.1
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    best = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        best.zero_grad()
        value = cross_entropy(logits.expand(10, 3), labels, label_smoothing=smoothing)
        value.backward()
        return value

    best.step(loss)  # type: ignore[arg-type]
    entropy, accuracy = trivial_guess(np.bincount(labels), smoothing)
    assert entropy == pytest.approx(float(loss().detach()), rel=1e-6)
    assert accuracy == 0.6


def test_training_says_what_a_guess_gives(source: Dataset) -> None:
    keep = np.flatnonzero(source.labels < 3)[5:]  # 15, 20 and 20 images of three classes
    trained = train(source, keep, Recipe(network="convnet-4", epochs=2, batch_size=16, label_smoothing=0.0), 0)
    share = np.array([15, 20, 20]) / 55
    assert trained.metrics["source_trivial_accuracy"] == pytest.approx(20 / 55)
    assert trained.metrics["source_trivial_loss"] == pytest.approx(-(share * np.log(share)).sum())
    assert trained.metrics["source_images"] == 48, "three whole batches"


@pytest.mark.parametrize(
    ("accuracy", "loss", "trivial", "entropy", "images", "expected"),
    [
        (0.10, 2.80, 0.07, 2.7, 1000, True),  # above chance, but worse than a guess of equal chances
        (0.10, 2.60, 0.07, 2.7, 1000, True),  # hardly more
        (0.30, 2.10, 0.07, 2.7, 1000, False),
        (0.13, 2.60, 0.07, 2.7, 1000, False),
        (0.13, 2.80, 0.07, 2.7, 1000, True),
        (0.371, 2.18, 0.125, 2.08, 768, False),  # measured: far above a guess, but too sure of itself
        (0.54, 0.69, 0.50, 0.70, 5000, False),
        (0.54, 0.71, 0.50, 0.70, 5000, True),
        (0.30, 2.10, 0.07, 2.7, 3, True),  # of three images that is one
        (0.004, 6.5, 0.001, 6.9, 100_000, False),  # of a thousand classes, four times as often as chance
        (0.60, 0.60, 0.60, 0.673, 1000, True),  # always the commonest class
        (0.70, 0.60, 0.60, 0.673, 1000, False),
        (0.985, 0.08, 0.97, 0.13, 5000, False),  # half of the rare class
        (1.0, 0.0, 1.0, 0.0, 100, None),  # one class: nothing to learn, so nothing to judge
        (0.539, 3.896, 0.255, 1.386, 256, False),  # measured: it learnt, though its loss is above that of a guess
    ],
)
def test_the_rule(
    accuracy: float, loss: float, trivial: float, entropy: float, images: int, expected: bool | None
) -> None:
    found = {"source_accuracy": accuracy, "source_loss": loss, "source_images": images}
    found |= {"source_trivial_accuracy": trivial, "source_trivial_loss": entropy}
    assert hardly_learnt(found) is expected


def test_rows_of_one_class_are_not_judged_but_told_of() -> None:
    one = {"source_accuracy": 1.0, "source_loss": 0.0, "source_images": 8}
    one |= {"source_trivial_accuracy": 1.0, "source_trivial_loss": 0.0}
    found = weak([one, {**BAD, **GUESS}, {**FAIR, **GUESS}, one])
    assert (found.at, found.judged, found.many) == ((1,), 2, True)
    said = found.notes("rows", [5, 6, 7, 8])
    assert len(said) == 2
    assert said[0].startswith("1 of 2 rows hardly learnt their own source (row 6): accuracy 10.0 %")
    assert said[1] == (
        "2 of 4 rows kept images of one class only (rows 5, 8), of which nothing can be learnt: they are not judged"
    )
    alone = weak([one] * 3)
    assert (alone.at, alone.judged, alone.many) == ((), 0, False)
    assert len(alone.notes("rows")) == 1


def ended(accuracy: float, loss: float, trivial: float = 0.255, entropy: float = 1.386) -> dict[str, float]:
    """What a network of 256 images says."""
    found = {"source_accuracy": accuracy, "source_loss": loss, "source_images": 256}
    return {**found, "source_trivial_accuracy": trivial, "source_trivial_loss": entropy}


def test_a_loss_far_above_that_of_a_guess_is_named_though_the_network_learnt() -> None:
    """Eight networks of resnet18 at lr 0.2, as measured; then ones that are a little too sure of themselves."""
    diverged = [(0.539, 3.896), (0.531, 6.803), (0.617, 2.062), (0.465, 5.895), (0.242, 2.464), (0.422, 6.345)]
    found = weak([ended(*one) for one in [*diverged, (0.738, 3.093), (0.238, 3.415)]])
    assert found.at == (4, 7), "these two learnt nothing"
    assert found.above == (0, 1, 2, 3, 5, 6)
    said = found.notes("models", list(range(8)))
    assert said[1] == (
        "6 of 8 models ended with a loss above that of a guess (rows 0, 1, 2, 3, 5 and 1 more): 4.68, where one that "
        "never looks at an image has 1.39; the learning rate is too high: try a lower one"
    )
    few = [ended(0.371, 2.18, 0.125, 2.08), ended(0.76, 0.86), ended(0.99, 0.08, 0.9, 0.13), ended(0.5, 1.5)]
    assert not weak(few).notes("models")


def test_guesses_are_hardly_ever_taken_for_learning_and_rows_that_say_nothing_are_not_judged() -> None:
    random = np.random.default_rng(0)
    told = 0
    for _ in range(500):
        accuracy = random.binomial(400, 0.125) / 400
        told += bool(hardly_learnt({**GUESS, **FAIR, "source_accuracy": accuracy, "source_trivial_accuracy": 0.125}))
    assert told > 0.97 * 500
    assert hardly_learnt({}) is None
    assert hardly_learnt({"source_accuracy": 0.3}) is None
    found = weak([{}, {**BAD, **GUESS}, {**FAIR, **GUESS}])
    assert (found.at, found.judged, found.accuracy, found.trivial) == ((1,), 2, 0.1, 0.07)


def test_they_are_named_while_they_run(
    tmp_path: Path, source: Dataset, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    study(tmp_path, source, target, bad=2)
    told = capsys.readouterr().err.splitlines()
    after = "2 of 3 rows hardly learnt their own source (rows 0, 1): accuracy 10.0 %, not clearly better than the"
    assert any(line.startswith(after) for line in told)
    assert any(line.startswith("2 of 60 rows hardly learnt their own source (rows 0, 1)") for line in told), (
        "at the end"
    )
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(e["rows"], e["of"]) for e in events if e["event"] == "hardly learnt"] == [(2, 3), (2, 60)]
    assert "learning rate" in "".join(told)


def test_good_rows_are_not_named(
    tmp_path: Path, source: Dataset, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    store, plan = study(tmp_path, source, target, bad=0)
    assert "learnt" not in capsys.readouterr().err
    assert results(store)["hardly_learnt"] is None
    assert plan_models(store, "stderr < 0.5").now == 60
    assert "learnt" not in str(cost(plan, tmp_path))


def test_no_advice_is_derived_from_them(tmp_path: Path, source: Dataset, target: Target) -> None:
    store, plan = study(tmp_path, source, target, bad=40, effect=0.0)
    with pytest.raises(EstimateError, match=r"40 of 60 models hardly learnt their own source.*lower learning rate"):
        plan_models(store, "effect 1.0")
    with pytest.raises(EstimateError, match="hardly learnt"):
        compare_alphas([store, store])
    found = results(store)
    assert found["hardly_learnt"]["rows"] == list(range(40))
    assert found["hardly_learnt"]["judged"] == 60
    assert found["verdict"]["models_needed"] is None
    assert found["verdict"]["models_needed_for"] is None
    if not found["verdict"]["found"]:
        text = sentences(found)[-1]
        assert "cannot be said: 40 of 60 hardly learnt their own source" in text
    assert any(note.startswith("40 of 60 models hardly learnt their own source (rows 0, 1,") for note in found["notes"])
    assert "hardly learnt" in str(cost(plan, tmp_path))
    assert status(tmp_path)["hardly_learnt"] == [40, 60]
    told = CliRunner().invoke(app, ["status", str(tmp_path)]).output
    assert "40 of 60 rows looked at hardly learnt their own source" in told


def test_a_few_of_them_are_left_out_of_the_advice(tmp_path: Path, source: Dataset, target: Target) -> None:
    store, plan = study(tmp_path, source, target, bad=4)
    advice = plan_models(store, "stderr < 0.5")
    assert advice.now == 56
    rest = Plan(source, design=plan.design.take(np.arange(4, 60)), recipe=plan.recipe, tasks=plan.tasks,
                seeds=[row.seed for row in plan.rows()[4:]])  # fmt: skip
    with ThreadPoolExecutor(1) as executor:
        run(rest, tmp_path, executor, runner=Learning(0.3), progress=False)
    assert math.isclose(plan_models(store, "stderr < 0.5", rest).stderr, advice.stderr, rel_tol=1e-6)
    assert results(store)["verdict"]["models_needed"] is not None


def flat_row(given: RowInput) -> dict[str, Outcome]:
    """A runner whose networks learn nothing."""
    row = given.row
    return Learning(0.0, frozenset([row.seed]))(given)


def diverging_row(given: RowInput) -> dict[str, Outcome]:
    """A runner of which every row fails."""
    raise TrainError("the loss became nan", "epoch 1 of 6", "lower the learning rate")


def test_a_pilot_of_which_every_row_fails_says_so(source: Dataset, target: Target) -> None:
    plan = Plan(source, design=design.random(8, 60, alpha=0.5), recipe=Recipe(), tasks=(Task(target),))
    told = str(cost(plan, workers=1, runner=diverging_row))
    assert "3 of 3 pilot rows failed (epoch 1 of 6: the loss became nan. lower the learning rate)" in told


def test_a_pilot_says_so_too(source: Dataset, target: Target) -> None:
    plan = Plan(source, design=design.random(8, 60, alpha=0.5), recipe=Recipe(), tasks=(Task(target),))
    assert "hardly learnt their own source" in str(cost(plan, workers=1, runner=flat_row))


@dataclass(frozen=True)
class Diverged:
    """A runner whose networks learn, and end with a loss far above that of a guess."""

    def __call__(self, given: RowInput) -> dict[str, Outcome]:
        found = Learning(0.0)(given)
        return {key: Outcome(one.arrays, ended(0.539, 3.896)) for key, one in found.items()}


def test_a_loss_above_a_guess_is_told_by_the_pilot_the_run_and_the_report(
    tmp_path: Path, source: Dataset, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(source, design=design.random(8, 20, alpha=0.5), recipe=Recipe(), tasks=(Task(target),))
    assert "loss above that of a guess" in str(cost(plan, workers=1, runner=Diverged()))
    with ThreadPoolExecutor(1) as executor:
        store = run(plan, tmp_path, executor, runner=Diverged())
    told = capsys.readouterr().err
    assert "3 of 3 rows ended with a loss above that of a guess (rows 0, 1, 2): 3.90" in told
    assert "20 of 20 rows ended with a loss above that of a guess" in told
    found = results(store)
    assert any(note.startswith("20 of 20 models ended with a loss above that of a guess") for note in found["notes"])
    assert found["hardly_learnt"] is None, "they learnt"


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"epochs": 3, "batch_size": 128}, "6 optimiser steps"),
        ({"epochs": 1, "batch_size": 500}, "1 optimiser step "),
        ({"steps": 7, "batch_size": 128}, "7 optimiser steps"),
        ({"samples": 1280, "batch_size": 128}, "10 optimiser steps"),
        ({"epochs": 30, "batch_size": 128}, ""),
        ({"steps": 30, "batch_size": 128}, ""),
        ({}, ""),
    ],
)
def test_few_steps_are_named_before_the_learning_rate(settings: dict[str, int], steps: str) -> None:
    found = weak([ended(0.26, 1.386), ended(0.9, 0.1)], settings)
    assert found.at == (0,)
    (note,) = found.notes()
    assert (f"{steps} of a row are few" if steps.strip()[-1:] == "s" else steps) in note
    assert ("lower learning rate" in note) == (not steps)


def test_the_accuracy_of_a_method_is_told() -> None:
    def said(method: str) -> str:
        return weak([ended(0.26, 1.386)], {"method": method}).text()

    assert "accuracy (the other view of an image found among its batch) 26.0 %, not clearly" in said("simclr")
    assert "own caption found among those of its batch) 26.0 %" in said("clip")
    assert ": accuracy 26.0 %, not clearly better than the 25.5 % of one" in said("supervised")
