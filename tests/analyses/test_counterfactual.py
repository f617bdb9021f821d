"""The counterfactual: arms as promised, intervals that cover, a control that is a control."""

from __future__ import annotations

import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stub_truth
from scipy import stats

from pydt import design
from pydt.analyses import counterfactual
from pydt.analyses.counterfactual import contrast, detectable, numbers_to_drop, retrainings, stored
from pydt.analyses.report import results
from pydt.analyses.retraining import Arm, arm_rows, group_images
from pydt.base import ConfigError, StoreError
from pydt.data import Dataset, Target
from pydt.data.loading import Augment
from pydt.ensemble import Plan, RowInput, run
from pydt.estimation import overall
from pydt.reporting.judgements import judged_size
from pydt.store import Outcome, Row, Store, merge
from pydt.training import Recipe, Task

ROW = Row(np.ones(3, bool), 0, "full")


def arm(kind: str, correct: np.ndarray) -> Arm:
    n = len(correct)
    return Arm(kind, 1, (ROW,) * n, ((),) * n, correct.mean(1), correct)


def test_welch_part_is_scipys() -> None:
    random = np.random.default_rng(0)
    a, b = arm("drop bottom", random.random((9, 40))), arm("drop random", random.random((14, 40)) - 0.02)
    found = contrast(a, b, np.full(40, 1 / 40), np.zeros(40, int))
    expected = stats.ttest_ind(a.accuracy, b.accuracy, equal_var=False)
    assert found.difference == pytest.approx(a.mean - b.mean)
    assert found.difference / found.stderr_retraining == pytest.approx(expected.statistic)
    assert found.n == 9
    assert found.control_n == 14


@pytest.mark.parametrize("noise", [0.05, 1.0])
def test_errors_are_those_of_the_formulas_written_out(noise: float) -> None:
    """Classes of unequal size, one of a single image, weighted by class; more and less noise in the cells."""
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2, 3], [1, 4, 9, 26])
    weights = 0.25 / np.bincount(labels)[labels]
    images = random.normal(0, 0.3, 40)

    def runs(n: int, effect: np.ndarray | float) -> Arm:
        correct = 0.5 + effect + random.normal(0, 0.02, (n, 1)) + random.normal(0, noise, (n, 40))
        return Arm("drop top", 3, (ROW,) * n, ((),) * n, correct @ weights, correct)

    arms = runs(5, images), runs(8, 0.0)
    found = contrast(*arms, weights, labels)
    parts, cells, by_images = [], 0.0, 0.0
    for one in arms:
        n, count = one.correct.shape
        parts.append(sum((value - one.accuracy.mean()) ** 2 for value in one.accuracy) / (n - 1) / n)
        for r in range(n):
            for i in range(count):
                cell = one.correct[r, i] - one.correct[r].mean() - one.correct[:, i].mean() + one.correct.mean()
                cells += weights[i] ** 2 * cell**2 / ((n - 1) * (count - 1) / count) / n
    each = weights * (arms[0].correct.mean(0) - arms[1].correct.mean(0))
    for label, size in enumerate(np.bincount(labels)):
        if size > 1:
            by_images += size * np.var(each[labels == label], ddof=1)
    assert found.stderr_retraining == pytest.approx(np.sqrt(sum(parts)))
    assert found.stderr_images == pytest.approx(np.sqrt(by_images))
    assert found.stderr**2 == pytest.approx(max(sum(parts) + by_images - cells, sum(parts), by_images))
    difference = arms[0].accuracy.mean() - arms[1].accuracy.mean()
    df = found.stderr**4 / (parts[0] ** 2 / 4 + parts[1] ** 2 / 7 + by_images**2 / (40 - 4))
    reach = stats.t.ppf(0.975, df) * found.stderr
    assert (found.difference, found.low, found.high) == pytest.approx(
        (difference, difference - reach, difference + reach)
    )
    assert found.p == pytest.approx(2 * stats.t.sf(abs(difference) / found.stderr, df))
    assert (found.kind, found.dropped, found.n, found.control_n) == ("drop top", 3, 5, 8)
    assert arms[0].sd == pytest.approx(np.sqrt(parts[0] * 5))
    assert runs(1, 0.0).sd is None


def test_image_errors_are_those_of_drawing_images_anew() -> None:
    random = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], [20, 30, 50])
    weights = np.repeat([1 / 60, 1 / 90, 1 / 150], [20, 30, 50])
    one, other = (arm("drop top", random.random((5, 100)) + 0.3 * labels * k) for k in (1, 0))
    parts = (one.correct.mean(0) - other.correct.mean(0)) * weights
    resampled = np.zeros(20000)
    for label in range(3):
        members = np.flatnonzero(labels == label)
        resampled += parts[random.choice(members, (20000, len(members)))].sum(1)
    found = contrast(one, other, weights, labels).stderr_images
    assert found == pytest.approx(resampled.std(), rel=0.04), "the bootstrap is smaller by (n - 1) / n, class by class"


def test_how_many_groups_are_left_out() -> None:
    """A third, a sixth and a half, the third first; never nothing, and a single group only where asked for."""
    assert numbers_to_drop(62, None) == [20, 10, 31]
    assert numbers_to_drop(7, None) == [2, 1, 3]
    assert numbers_to_drop(4, None) == [1, 2]
    assert numbers_to_drop(3, None) == [1]
    assert numbers_to_drop(8, [4, 1, 7, 4]) == [4, 1, 7]
    assert numbers_to_drop(8, [1, 7]) == [1, 7], "the first that was asked for is the main comparison"
    for groups, drop in ((8, [0]), (8, [8]), (8, [4, -1]), (8, []), (2, [2])):
        with pytest.raises(ConfigError, match=f"use numbers from 1 to {groups - 1}"):
            numbers_to_drop(groups, drop)


@pytest.mark.parametrize("n", [4, 14])
@pytest.mark.parametrize(("run_sd", "image_sd"), [(0.02, 0.0), (0.0, 0.25), (0.02, 0.25)])
def test_intervals_cover_with_both_parts_of_the_uncertainty(run_sd: float, image_sd: float, n: int) -> None:
    # Truth: difference 0.03 on the population of images; every trial draws images, runs and cell noise afresh.
    random = np.random.default_rng(5)
    covered, trials, widths = 0, 200, []
    for _ in range(trials):
        image = random.normal(0, image_sd, 60)

        def runs(shift: np.ndarray | float) -> np.ndarray:
            return 0.5 + shift + random.normal(0, run_sd, (n, 1)) + random.normal(0, 0.2, (n, 60))

        one, other = arm("drop top", runs(0.03 + image)), arm("drop random", runs(0.0))
        found = contrast(one, other, np.full(60, 1 / 60), np.zeros(60, int))
        covered += found.low <= 0.03 <= found.high
        widths.append((found.stderr, np.hypot(np.sqrt(2 * (run_sd**2 + 0.04 / 60) / n), image_sd / np.sqrt(60))))
        assert found.stderr >= found.stderr_retraining, "both parts together are not less than one of them"
    # 0.95 less three standard errors over 200 trials; and not wide for nothing.
    assert covered / trials > 0.90
    ratio = np.mean([a for a, _ in widths]) / np.mean([b for _, b in widths])
    assert 0.9 < ratio < 1.2


def half_fails(given: RowInput) -> dict[str, Outcome]:
    """As `additive`; without the highest groups, rows of an odd seed fail."""
    row = given.row
    found = stub_truth.additive(given)
    bad = row.kind == "drop top" and row.seed % 2
    return {task: Outcome(status="failed", reason="bad luck") for task in found} if bad else found


def test_an_arm_of_one_run_is_shown_and_compared_with_nothing(tmp_path: Path) -> None:
    plan = stub_truth.plan(40)
    store = stub_truth.trained(plan, tmp_path)
    values = np.asarray(overall(store, plan, plan.tasks[0], "correct").unbiased)

    def odd(seed: int) -> int:
        rows = arm_rows(values, group_images(plan), [4], [2], seed)
        return sum(row.seed % 2 for row in rows if row.kind == "drop top")

    seed = next(seed for seed in range(50) if odd(seed) == 1)
    with ThreadPoolExecutor(1) as executor:
        found = counterfactual(
            store, plan, drop=[4], repeats=2, seed=seed, runner=half_fails, executor=executor, progress=False
        )
    assert found.failed == 1
    assert [(one.kind, len(one.rows), one.failed) for one in found.arms] == [
        ("full", 2, 0),
        ("drop bottom", 2, 0),
        ("drop random", 2, 0),
        ("drop top", 1, 1),
    ]
    assert [one.kind for one in found.contrasts] == ["drop bottom"]
    assert found.arms[-1].sd is None


def test_interval_and_p_are_of_one_test() -> None:
    """Whatever varies: p < 0.05 exactly where the interval excludes 0."""
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1], 30)
    seen = set()
    for trial in range(200):
        shift, runs = random.normal(0, 0.03), random.choice([0.0, 0.03])
        image = random.normal(0, random.choice([0.0, 0.1]), 60)
        one, other = (
            arm(kind, 0.5 + at + random.normal(0, runs, (3, 1)) + np.zeros((3, 60)))
            for kind, at in (("drop top", shift + image), ("drop random", 0.0))
        )
        found = contrast(one, other, np.full(60, 1 / 60), labels)
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high), trial
        assert found.low <= found.difference <= found.high
        assert 0 < found.p <= 1
        seen.add(found.p < 0.05)
    assert seen == {True, False}


def test_arms_that_never_vary_are_no_certainty() -> None:
    """Every run right on the same images: once p was 0 beside an interval of 25 points."""
    weights, labels = np.full(40, 1 / 40), np.zeros(40, int)
    right = np.zeros((4, 40))
    right[:, :20] = 1
    other = right.copy()
    other[:, 20:23] = 1  # three images more, in every run
    found = contrast(arm("drop top", other), arm("drop random", right), weights, labels)
    assert found.stderr_retraining == 0
    expected = stats.ttest_1samp(other[0] - right[0], 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    alike = contrast(arm("drop top", right), arm("drop random", right), weights, labels)  # nothing varies at all
    assert alike.p == 1
    low, high = proportion_interval(20, 40)
    assert alike.low == pytest.approx(-np.hypot(0.5 - low, high - 0.5))
    assert alike.high == pytest.approx(np.hypot(high - 0.5, 0.5 - low))
    opposite = contrast(arm("drop top", np.ones((4, 40))), arm("drop random", np.zeros((4, 40))), weights, labels)
    assert opposite.difference == 1
    assert 0 < opposite.p < 1e-6
    assert opposite.low == pytest.approx(
        1 - np.hypot(1 - proportion_interval(40, 40)[0], proportion_interval(0, 40)[1])
    )


def test_classes_of_one_image_have_an_error_of_images() -> None:
    """Two judged images a class, one in each half: what a third of the classes say is no certainty of all."""
    weights = np.full(60, 1 / 60)
    labels = np.r_[np.arange(30), np.repeat(30, 30)]  # 30 classes of one image, one of 30
    right, worse = np.ones((5, 60)), np.ones((5, 60))
    worse[:, :30:3] = 0
    worse[0, 0] = 1  # a run differs, so that there is some error
    found = contrast(arm("drop top", right), arm("drop random", worse), weights, labels)
    each = (right.mean(0) - worse.mean(0)) / 60
    assert found.stderr_images == pytest.approx(np.sqrt(30 * np.var(each[:30], ddof=1)))
    assert found.high - found.low > 0.1


def proportion_interval(right: int, of: int) -> tuple[float, float]:
    found = stats.binomtest(right, of).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def test_a_class_that_never_varies_adds_no_uncertainty() -> None:
    # Mean per class over 10 and 290 images: one class always right, the other always wrong, in every run.
    labels = np.repeat([0, 1], [10, 290])
    weights = np.where(labels == 0, 0.5 / 10, 0.5 / 290)
    right = np.tile(labels == 0, (5, 1)).astype(float)
    wrong = np.zeros((5, 300))
    found = contrast(arm("drop top", right), arm("drop random", wrong), weights, labels)
    assert found.stderr_images == pytest.approx(0, abs=1e-12)


def test_from_plan_to_verdict_and_back(source: Dataset, target: Target, tmp_path: Path) -> None:
    recipe = Recipe(network="convnet-2", epochs=1, batch_size=32, lr=0.3, augment=Augment(mean=(0.3,), std=(0.2,)))
    task = Task(target, draws=2)
    plan = Plan(source, design=design.bernoulli(8, 24, seed=1), recipe=recipe, tasks=(task,))
    store = run(plan, tmp_path, workers=1, progress=False)
    found = counterfactual(store, plan, drop=[4], repeats=2, workers=1, progress=False)
    assert [(a.kind, a.dropped, len(a.rows)) for a in found.arms] == [
        ("full", 0, 2),
        ("drop bottom", 4, 2),
        ("drop random", 4, 2),
        ("drop top", 4, 2),
    ]
    assert found.task != task.digest, "judged with other few-shot draws than the ensemble's"
    assert {c.kind for c in found.contrasts} == {"drop bottom", "drop top"}
    for one in found.arms:
        assert one.correct.shape == (2, len(target.split["report"]))
        assert np.allclose(one.accuracy, one.correct.mean(1))
    before = sorted(path.name for path in tmp_path.glob("rows/*/*"))
    again = counterfactual(store, plan, drop=[4], repeats=2, workers=1, progress=False)
    assert sorted(path.name for path in tmp_path.glob("rows/*/*")) == before, "nothing is trained twice"
    reread = stored(store, store.plan(plan))
    assert reread is not None
    assert reread.contrasts == found.contrasts == again.contrasts
    assert stored(store, store.plan(plan), task.digest) is not None
    assert stored(store, store.plan(plan), "another") is None, "a report of another task does not show it"

    with pytest.raises(ConfigError, match="use numbers from 1 to 7"):
        counterfactual(store, plan, drop=[8])
    for repeats in ((1, 2), (2, 1)):
        with pytest.raises(ConfigError, match="at least 2"):
            counterfactual(store, plan, repeats=repeats[0], other_repeats=repeats[1])
    assert found.arm("drop top", 4) is found.arms[3]
    with pytest.raises(ConfigError, match=r"no arm 'drop top' of 3.*full 0, drop bottom 4"):
        found.arm("drop top", 3)
    assert found.length == reread.length == "steps"
    full, bottom = found.arms[:2]
    kinds = [(gain.kind, gain.dropped) for gain in found.gains]
    assert kinds == [("drop bottom", 4), ("drop random", 4), ("drop top", 4)]
    assert found.gains[0].difference == pytest.approx(bottom.mean - full.mean), "against the whole source"
    assert found.gains == reread.gains
    (link,) = tmp_path.glob("counterfactual/*.json")
    said = json.loads(link.read_text())
    old = {name: said[name] for name in ("plan", "rows", "task", "ranked_task")}
    link.write_text(json.dumps(old))
    assert stored(store, store.plan(plan)).length == "steps", "a link that names no length: what the recipe counts"
    del old["ranked_task"]
    link.write_text(json.dumps(old))
    assert stored(store, store.plan(plan), "another") is None, "the oldest links are of the first task"
    assert stored(store, store.plan(plan), task.digest) is not None
    link.write_text("{")
    with pytest.raises(StoreError, match="delete it and run"):
        stored(store, store.plan(plan))
    link.unlink()
    assert stored(store, store.plan(plan)) is None


def test_the_main_comparison_is_the_first_that_was_asked_for(source: Dataset, target: Target, tmp_path: Path) -> None:
    """Not the largest or the best: with as many repeats of each, nothing else tells them apart."""
    recipe = Recipe(network="convnet-2", epochs=1, batch_size=32, lr=0.3, augment=Augment(mean=(0.3,), std=(0.2,)))
    plan = Plan(source, design=design.bernoulli(8, 24, seed=1), recipe=recipe, tasks=(Task(target, draws=2),))
    store = run(plan, tmp_path, workers=1, progress=False)
    how: dict[str, Any] = {"repeats": 2, "other_repeats": 2, "workers": 1, "progress": False}
    found = counterfactual(store, plan, drop=[3, 1, 5], **how)
    assert found.main == 3
    assert re.findall(r"drop bottom (\d)", repr(found)) == ["3", "3"]
    told = results(store)
    assert told["main"] == 3
    assert judged_size(told) == 3
    assert {one["dropped"] for one in told["gains"]} == {1, 3, 5}


@pytest.mark.parametrize(("n", "between_images", "noise"), [(5, 0.1, 0.3), (5, 0.0, 0.05), (14, 0.1, 0.3)])
def test_the_difference_that_would_be_seen_is_seen_in_4_of_5_cases(n: int, between_images: float, noise: float) -> None:
    """The median of what is stated is the true difference of other retrainings like these."""
    random = np.random.default_rng(0)
    labels, weights = np.repeat(np.arange(10), 12), np.full(120, 1 / 120)

    def one(difference: float) -> Any:
        images = random.normal(difference, between_images, 120), np.zeros(120)
        runs = [mean + random.normal(0, 0.03, (n, 1)) + random.normal(0, noise, (n, 120)) for mean in images]
        return contrast(arm("drop bottom", runs[0]), arm("drop random", runs[1]), weights, labels)

    stated = float(np.median([detectable(one(0.0)) for _ in range(400)]))
    assert np.mean([one(stated).low > 0 for _ in range(800)]) == pytest.approx(0.8, abs=0.035)


def test_what_never_varies_has_the_power_of_its_interval() -> None:
    same = arm("drop bottom", np.ones((5, 100))), arm("drop random", np.ones((5, 100)))
    found = contrast(*same, np.full(100, 0.01), np.zeros(100, int))
    assert found.stderr == 0
    assert detectable(found) == pytest.approx((found.high - found.low) / 2 * (1 + 0.8416 / 1.96), rel=1e-3)


def test_retrainings_take_as_many_steps_as_the_whole_source(source: Dataset, target: Target, tmp_path: Path) -> None:
    recipe = Recipe(network="convnet-2", epochs=2, batch_size=32, lr=0.3, augment=Augment(mean=(0.3,), std=(0.2,)))
    plan = Plan(source, design=design.bernoulli(8, 24, seed=1), recipe=recipe, tasks=(Task(target, draws=2),))
    store = run(plan, tmp_path, workers=1, progress=False)
    how: dict[str, Any] = {"drop": [4], "repeats": 2, "workers": 1, "progress": False}
    same = counterfactual(store, plan, **how)
    assert same.full_record is not None
    assert same.full_record.recipe == recipe.digest, "the whole source is trained as the plan says"
    steps = 2 * math.ceil(len(source) / 32)
    assert same.record.recipe == replace(recipe, epochs=None, steps=steps).digest
    before = len(store.plans())
    epochs = counterfactual(store, plan, steps="epochs", **how)
    assert (epochs.length, epochs.full_record, epochs.record.recipe) == ("epochs", None, recipe.digest)
    assert len(store.plans()) == before + 1
    full = [found.arm("full", 0) for found in (same, epochs)]
    assert [row.seed for row in full[0].rows] == [row.seed for row in full[1].rows]
    assert np.array_equal(full[0].correct, full[1].correct), "and not trained twice"
    assert not np.array_equal(same.arm("drop bottom", 4).correct, epochs.arm("drop bottom", 4).correct)
    assert {record.digest for record in same.records} == {same.record.digest, same.full_record.digest}
    counterfactual(store, plan, **how)
    (tmp_path / "merged").mkdir()
    merge(tmp_path / "merged", tmp_path)
    copy = Store(tmp_path / "merged")
    assert stored(copy, copy.plan(plan)).gains == same.gains, "a store with retrainings of equal steps can be merged"
    with pytest.raises(ConfigError, match="choose one of: same, epochs"):
        counterfactual(store, plan, steps="both", **how)


@pytest.mark.parametrize("groups", [2, 3, 4, 5, 8, 62])
def test_the_number_of_retrainings_is_known_before(groups: int) -> None:
    if groups == 2:
        assert retrainings(groups) == 0
        return
    sizes = numbers_to_drop(groups, None)
    rows = arm_rows(np.arange(groups), np.ones(groups), sizes, [14] + [4] * (len(sizes) - 1), 0)
    assert retrainings(groups) == len(rows)
