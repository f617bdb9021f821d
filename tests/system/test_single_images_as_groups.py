"""Single source images as the groups: the paper's difference of means, in bounded memory, through run, store and report
(Jain et al. 2023, section 4.3)."""

from __future__ import annotations

import csv
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats
from stub_examples import HELPFUL, Helps

import pydt
from pydt import _core, design
from pydt.analyses import report
from pydt.base import EstimateError
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, run
from pydt.estimation import (
    ESTIMATORS,
    best_method,
    influences,
    mean_output,
    models_for_effect,
    overall,
    plan_models,
    prediction_test,
)
from pydt.store import Store
from pydt.training import Recipe, Task


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, source: Dataset, target: Target) -> tuple[Store, Plan]:
    """160 source images, 60 models."""
    plan = Plan(
        source, "example", design=design.random(160, 60, 0.5, seed=4), recipe=Recipe(), tasks=[Task(target, draws=2)]
    )
    with ThreadPoolExecutor(1) as executor:
        return run(plan, tmp_path_factory.mktemp("examples"), executor, runner=Helps(0.4), progress=False), plan


@pytest.mark.parametrize("kind", ["random", "bernoulli"])
def test_influences_equal_a_brute_force_loop(kind: str) -> None:
    """Shares of eighths, as few-shot draws give them, sum without rounding: not a bit may differ."""
    masks = getattr(design, kind)(200, 90, 0.5, seed=1)
    outputs = np.random.default_rng(1).integers(0, 9, (90, 20)) / 8
    fit = influences(masks, outputs, "difference")
    expected = np.empty((200, 20))
    for k in range(200):
        with_it = [i for i in range(90) if masks[i][k]]
        without = [i for i in range(90) if not masks[i][k]]
        for j in range(20):
            mean_with = sum(outputs[i, j] for i in with_it) / len(with_it)
            expected[k, j] = mean_with - sum(outputs[i, j] for i in without) / len(without)
    assert np.abs(fit.values - expected).max() < 2e-8 + np.spacing(np.float32(np.abs(expected).max()))
    whole = np.rint(expected * 8 * np.outer(fit.counts, np.ones(20)) * (90 - fit.counts)[:, None])
    again = np.rint(fit.values.astype(np.float64) * 8 * fit.counts[:, None] * (90 - fit.counts)[:, None])
    assert np.array_equal(whole, again)


def test_no_matrix_of_examples_by_examples_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = design.random(3000, 40, 0.5, seed=2)
    outputs = np.random.default_rng(2).normal(size=(40, 5))
    expected = influences(masks, outputs, "difference")

    def refuse(*_: object) -> None:
        raise AssertionError("a Gram matrix is made")

    monkeypatch.setattr(_core, "gram", refuse)
    fit = influences(masks, outputs, "difference")
    assert np.array_equal(fit.values, expected.values)
    with pytest.raises(EstimateError, match="cannot tell 3000 groups apart"):
        influences(masks, outputs, "ols")
    with pytest.raises(AssertionError):
        fit.contrast(np.ones(3000) / 3000)
    y = outputs[:, 0]
    kept = np.asarray(masks)
    # Errors by hand: the variance within "with" and "without", times 1 / with + 1 / without.
    for k in (0, 1234, 2999):
        with_it, without = y[kept[:, k]], y[~kept[:, k]]
        pooled = (with_it.var() * len(with_it) + without.var() * len(without)) / 38
        assert fit.stderr[k, 0] == pytest.approx(math.sqrt(pooled * (1 / len(with_it) + 1 / len(without))), rel=1e-5)


def test_columns_of_targets_do_not_change_with_their_neighbours() -> None:
    masks = design.random(5000, 30, 0.5, seed=3)
    outputs = np.random.default_rng(3).normal(size=(30, 300)).astype(np.float32)
    fit = influences(masks, outputs, "difference")
    for j in (0, 63, 64, 299):
        alone = influences(masks, outputs[:, j], "difference")
        assert np.array_equal(alone.values, fit.values[:, j])
        assert np.array_equal(alone.stderr, fit.stderr[:, j])


def test_prediction_with_more_groups_than_models_is_that_of_the_whole_matrix() -> None:
    x = np.asarray(design.random(120, 30, 0.5, seed=5), np.float64)
    centred = x - x.mean(0)
    gram = centred.T @ centred
    expected = np.linalg.solve(gram + np.trace(gram) / 30 * np.eye(120), centred.T)
    predictor = ESTIMATORS["ridge"].predictor
    assert predictor is not None
    assert np.allclose(predictor(centred, 1), expected)
    y = np.random.default_rng(0).normal(size=30)
    assert 0 < prediction_test(x, y, y, method="ridge", permutations=99).p <= 1


def test_the_influences_of_a_plan_by_example_are_differences(study: tuple[Store, Plan]) -> None:
    store, plan = study
    fit = overall(store)
    assert fit.method == "difference"
    kept, mean = np.asarray(plan.design), mean_output(store, store.plan(), None, "correct", "score")
    expected = [mean[kept[:, k]].mean() - mean[~kept[:, k]].mean() for k in range(160)]
    assert np.allclose(fit.values, expected, atol=1e-5)
    assert int(np.argmax(fit.values)) == HELPFUL


def power(shift: float, df: int, level: float = 0.05) -> float:
    """Of the two-sided t test, T noncentral t."""
    beyond = stats.t.isf(level / 2, df)
    return float(stats.nct.sf(beyond, df, shift) + stats.nct.cdf(-beyond, df, shift))


def test_power_is_that_of_the_law(study: tuple[Store, Plan]) -> None:
    """By hand: the standard error falls with the root of the models, and T is noncentral t."""
    store, _ = study
    fit = overall(store)
    effect = 0.5 * float(np.median(fit.stderr))
    found = plan_models(store, f"effect {effect} power 0.8 level 0.05")
    assert (found.method, found.now) == ("difference", 60)
    stderr = float(np.median(fit.stderr)) * math.sqrt(60 / found.models)
    below = float(np.median(fit.stderr)) * math.sqrt(60 / (found.models - 1))
    assert power(effect / stderr, found.models - 2) >= 0.8 > power(effect / below, found.models - 3)
    assert "difference of means' squared error falls with 1 / models" in found.assumption
    # (z(0.975) + z(0.8))^2 = 7.85 times the ratio of variances
    normal = 60 * (special.ndtri(0.975) + special.ndtri(0.8)) ** 2 / 0.25
    assert found.models == pytest.approx(normal, rel=0.01)
    assert models_for_effect(fit, effect) == pytest.approx(normal, rel=0.001)
    wide = plan_models(store, f"effect {effect} q 0.05")
    assert wide.models > 2 * found.models
    few = plan_models(store, f"stderr < {float(np.median(fit.stderr)) / 2}")
    assert few.models in (240, 241)


def test_the_report_tests_the_ranking_and_no_single_image(study: tuple[Store, Plan], tmp_path: Path) -> None:
    store, _ = study
    found = report(store, tmp_path)
    assert found["estimator"] == "difference"
    assert found["verdict"]["estimator"] == "ridge"
    assert found["verdict"]["significant_groups"] == 0
    assert all(group["q"] is None for group in found["groups"])
    assert any("no significance is asked" in note for note in found["notes"])
    with (tmp_path / "groups.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 160
    assert (rows[0]["name"], rows[0]["q"]) == (str(HELPFUL), "")
    page = (tmp_path / "report.html").read_text()
    assert "no significance is asked" in page.replace("\u00a0", " ")
    assert "shown to help" not in page


def test_a_plan_by_example_trains_on_the_kept_images_and_resumes(
    tmp_path: Path, source: Dataset, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = source.sample(48, seed=1)
    recipe = Recipe(network="convnet-8", epochs=1, batch_size=8)
    plan = Plan(few, "example", design=design.random(48, 4, 0.5, seed=6), recipe=recipe, tasks=[Task(target, draws=1)])
    seen = []
    train = pydt.training.train

    def noted(source: Dataset, keep: np.ndarray, recipe: Recipe, seed: int) -> object:
        seen.append(np.asarray(keep).copy())
        return train(source, keep, recipe, seed)

    monkeypatch.setattr("pydt.training.train", noted)
    with ThreadPoolExecutor(1) as executor:
        store = run(plan, tmp_path, executor, progress=False)
        assert len(store.finished()) == 4
        assert len(run(plan, tmp_path, executor, progress=False).finished()) == 4
    assert len(seen) == 4
    kept = {np.flatnonzero(one).tobytes() if one.dtype == bool else np.sort(one).tobytes() for one in seen}
    assert kept == {np.flatnonzero(mask).tobytes() for mask in np.asarray(plan.design)}
    assert store.names() == tuple(few.all_keys())
    by_class = replace(plan, by="class", design=design.random(8, 4, 0.5))
    assert by_class.digest != plan.digest


def test_so_many_groups_that_the_lasso_would_not_fit_get_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "gram", None)
    assert best_method(design.random(5000, 30, 0.5, seed=1)) == "difference"
    assert best_method(design.random(4999, 30, 0.5, seed=1)) == "lasso"
