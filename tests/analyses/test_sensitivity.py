"""Outputs compared and stability: equal to brute force over disjoint halves, right about what is planted and noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import oracle_rankings as oracle
import pytest
from scipy import stats
from stub_influence import Additive, filled, many_classes, plan_of

from pydt import design
from pydt.analyses import compare_outputs, stability
from pydt.analyses.agreement import agreement, spearman_brown
from pydt.analyses.sample_splitting import halves
from pydt.base import ConfigError, EstimateError
from pydt.data import Target
from pydt.ensemble import Plan
from pydt.ensemble.plan import Context
from pydt.reporting import write_pages
from pydt.store import Outcome, Row, Store
from pydt.training import Task

GROUPS, MODELS = 20, 120
RANDOM = np.random.default_rng(11)
CORRECT, OTHER = RANDOM.normal(size=GROUPS), 2 * RANDOM.normal(size=GROUPS)


@dataclass(frozen=True)
class TwoLogits:
    """Groups move the correct logit by `CORRECT` and the best other one by `OTHER`; both share a noise of the model."""

    noise: float = 1.0

    def __call__(self, context: Context, row: Row, tasks: tuple[Task, ...]) -> dict[str, Outcome]:
        random = np.random.default_rng([5, row.seed])
        found = {}
        for task in tasks:
            labels = task.target.described()["labels"]
            shape = (task.draws, len(labels))
            shared = self.noise * random.normal()
            correct = row.mask @ CORRECT + shared + 0.3 * random.normal(size=shape)
            other = row.mask @ OTHER - shared + 0.3 * random.normal(size=shape)
            right = np.where(correct > other, labels, (labels + 1) % 4)
            primitives = np.stack([correct, other, other + 0.5, right]).astype(np.float32)
            found[task.digest] = Outcome({"primitives": primitives}, {})
        return found


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, target: Target) -> tuple[Store, Plan]:
    plan = plan_of(many_classes(), target, design.random(GROUPS, MODELS, alpha=0.5, seed=4))
    return filled(tmp_path_factory.mktemp("study"), plan, TwoLogits()), plan


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory, target: Target) -> Store:
    count = len(target.described()["labels"])
    plan = plan_of(many_classes(), target, design.random(GROUPS, MODELS, alpha=0.5, seed=1))
    runner = Additive(np.zeros(count), np.zeros((GROUPS, count)), common=1.0)
    return filled(tmp_path_factory.mktemp("noise"), plan, runner)


def columns_of(store: Store, outputs: tuple[str, ...], half: str = "score") -> np.ndarray:
    scale = {"correct": 100, "probability": 100}
    task = store.plan().tasks[0]["digest"]
    means = [scale.get(o, 1) * np.asarray(store.outputs(task, o, half), np.float64).mean(1) for o in outputs]
    return np.stack(means, 1)


def test_outputs_are_compared_as_by_brute_force(study: tuple[Store, Plan]) -> None:
    store, plan = study
    names = ("logit", "margin", "correct")
    found = compare_outputs(store, plan, outputs=names, seed=7)
    y, masks = columns_of(store, names), store.masks().astype(float)
    values, stderr, _ = oracle.least_squares(masks, y)
    assert np.allclose(found.values, values, atol=1e-4)
    assert np.allclose(found.stderr, stderr, atol=1e-4)
    apart = np.zeros((3, 3))
    for one, other in halves(plan.design, found.splits, "outputs", 7):
        a, b = (oracle.least_squares(masks[rows], y[rows])[0] for rows in (one, other))
        for i, j in np.ndindex(3, 3):
            apart[i, j] += stats.spearmanr(a[:, i], b[:, j])[0] + stats.spearmanr(a[:, j], b[:, i])[0]
    assert np.allclose(found.apart, apart / 2 / found.splits, atol=1e-6)
    for i, j in np.ndindex(3, 3):
        assert found.together[i, j] == pytest.approx(stats.spearmanr(values[:, i], values[:, j])[0])
    assert np.allclose(found.ceiling**2, np.outer(np.diag(found.apart), np.diag(found.apart)))
    pearson = 2 * np.sin(np.pi / 6 * found.apart)
    expected = 6 / np.pi * np.arcsin(pearson[0, 1] / np.sqrt(pearson[0, 0] * pearson[1, 1]) / 2)
    assert found.agreement[0, 1] == pytest.approx(expected)


def test_agreement_without_noise_is_that_of_the_truth(study: tuple[Store, Plan]) -> None:
    """Noise that both outputs share, with opposite signs, must not make them look different, nor alike."""
    found = compare_outputs(study[0], outputs=("logit", "margin"))
    truth = stats.spearmanr(CORRECT, CORRECT - OTHER)[0]
    assert abs(found.agreement[0, 1] - truth) < 2 * found.agreement_stderr[0, 1] + 0.05
    assert found.agreement[0, 0] == pytest.approx(1)
    assert (np.diag(found.apart) > 0.5).all()
    assert found.own[1].p < 0.05
    assert found.accuracy[1].correlation > found.accuracy[0].correlation, "the margin decides what is right"


def test_of_noise_nothing_is_said(noise: Store) -> None:
    found = compare_outputs(noise, outputs=("correct", "margin"))
    assert found.together[0, 1] > 0.5, "one set of models makes outputs look alike"
    assert abs(found.apart[0, 1]) < 0.5
    assert np.isnan(found.agreement[0, 1])
    assert "nothing can be said" in found.page().answer[0]


def test_agreement_is_the_mean_of_spearmans_and_its_error_is_that_of_samples() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 3, 50, 2))
    mean, draws = agreement(one, other)
    for i, j in np.ndindex(2, 2):
        pairs = [(a[:, i], b[:, j]) for a, b in zip(one, other, strict=True)]
        pairs += [(a[:, j], b[:, i]) for a, b in zip(one, other, strict=True)]
        assert mean[i, j] == pytest.approx(np.mean([stats.spearmanr(*pair)[0] for pair in pairs]))
    single, alone = agreement(one, other, columns=False)
    assert single == pytest.approx(np.diag(mean).mean())
    assert draws.shape == (400, 2, 2)
    assert alone.shape == (400,)
    apart = [agreement(*random.normal(size=(2, 1, 50, 1)), columns=False)[0] for _ in range(200)]
    assert 1 < draws.std(0)[0, 0] * 3**0.5 / np.std(apart) < 1.7, "three splits here that share nothing; widened by 1.2"


def test_spearman_and_brown_hold_for_noisy_influences() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=20_000)
    for factor in (1, 2, 5):
        few, many = ([truth + 2 * random.normal(size=truth.size) / root for _ in range(2)] for root in (1, factor**0.5))
        small, large = stats.spearmanr(*few)[0], stats.spearmanr(*many)[0]
        assert spearman_brown(np.array(small), np.array(factor)) == pytest.approx(large, abs=0.02)


def test_stability_is_that_of_disjoint_sets(study: tuple[Store, Plan]) -> None:
    store, plan = study
    found = stability(store, plan, sizes=(60, 45), top=4, seed=3)
    y, masks = columns_of(store, ("correct",)), store.masks().astype(float)
    assert found.sizes.tolist() == [45, 60]
    assert found.methods == ("ols", "ols")
    for at, size in enumerate((45, 60)):
        rank, shared, apart, told = [], [], [], []
        for one, other in halves(plan.design, found.splits, "stability", 3, size=size):
            assert len(one) == len(other) == size
            (a, error), (b, other_error) = (oracle.least_squares(masks[rows], y[rows])[:2] for rows in (one, other))
            apart.append(((a - b) ** 2).mean() / 2)
            told += [(error**2).mean(), (other_error**2).mean()]
            a, b = a[:, 0], b[:, 0]
            rank.append(stats.spearmanr(a, b)[0])
            shared.append([len(set(np.argsort(s * a)[:4]) & set(np.argsort(s * b)[:4])) / 4 for s in (-1, 1)])
        assert found.rank[at] == pytest.approx(np.mean(rank), abs=1e-6)
        assert np.allclose(found.overlap[:, at], np.mean(shared, 0))
        assert found.differ[at] == pytest.approx(np.mean(apart) ** 0.5, rel=1e-4)
        assert found.stderr[at] == pytest.approx(np.mean(told) ** 0.5, rel=1e-4)
        assert 0.8 < found.differ[at] / found.stderr[at] < 1.25
        assert found.low[at] < found.rank[at] < found.high[at]
    factor = (MODELS - GROUPS - 1) / (60 - GROUPS - 1)
    assert found.further.tolist() == [120, 240, 480]
    assert found.expected[0] == pytest.approx(spearman_brown(found.rank[1], np.array(factor)))
    assert (np.diff(found.expected) > 0).all()
    values, stderr, _ = oracle.least_squares(masks, y)
    assert found.by_errors == pytest.approx(1 - (stderr**2).mean() / values.var(ddof=1), abs=1e-3)
    assert abs(found.by_errors - found.expected[0]) < 0.2


def test_stability_per_class_and_image_is_the_mean_over_them(study: tuple[Store, Plan], noise: Store) -> None:
    store, plan = study
    found = stability(store, plan, per="class", sizes=(60,), output="margin")
    y = np.asarray(store.outputs(store.plan().tasks[0]["digest"], "margin"), np.float64)
    labels, masks = store.examples(store.plan().tasks[0]["digest"])["labels"], store.masks().astype(float)
    y = np.stack([y[:, labels == c].mean(1) for c in range(4)], 1)
    rank = []
    for one, other in halves(plan.design, found.splits, "stability", 0, size=60):
        a, b = (oracle.least_squares(masks[rows], y[rows])[0] for rows in (one, other))
        rank += [stats.spearmanr(a[:, c], b[:, c])[0] for c in range(4)]
    assert found.rank[0] == pytest.approx(np.mean(rank), abs=1e-6)
    nothing = stability(noise, per="example", output="margin")
    assert nothing.columns == 60
    assert nothing.methods[-1] == "ols"
    assert (np.abs(nothing.rank) < 3 * nothing.rank_stderr + 0.02).all()
    assert np.allclose(nothing.overlap, 0.25, atol=0.1), "five of twenty, by chance"


def test_pages_and_refusals(study: tuple[Store, Plan], tmp_path: Path) -> None:
    store, _ = study
    write_pages([compare_outputs(store).page(), stability(store).page()], tmp_path, "blobs")
    assert len((tmp_path / "outputs" / "pairs.csv").read_text().splitlines()) == 11
    assert len((tmp_path / "outputs" / "influences.csv").read_text().splitlines()) == 1 + GROUPS
    text = (tmp_path / "stability" / "stability.csv").read_text()
    assert text.count("True") + text.count("true") >= 2
    page = (tmp_path / "stability.html").read_text()
    assert "Extrapolated, not measured" in page.replace("\u00a0", " ")
    with pytest.raises(ConfigError, match="two or more of: correct"):
        compare_outputs(store, outputs=("margin",))
    with pytest.raises(ConfigError, match="no influences on output 'loss'"):
        compare_outputs(store, outputs=("margin", "loss"))
    with pytest.raises(ConfigError, match="two disjoint sets have at most 60 each"):
        stability(store, sizes=(61,))
    with pytest.raises(ConfigError, match="per 'pixel'"):
        stability(store, per="pixel")
    with pytest.raises(ConfigError, match="21 of 20 groups"):
        stability(store, top=21)


def test_saturated_outputs_have_no_ranking(tmp_path: Path, target: Target) -> None:
    count = len(target.described()["labels"])
    plan = plan_of(many_classes(), target, design.random(GROUPS, 60, alpha=0.5))
    store = filled(tmp_path, plan, Additive(np.full(count, 50.0), np.zeros((GROUPS, count))))
    with pytest.raises(EstimateError, match="all models give the same output"):
        stability(store)
    found = compare_outputs(store, outputs=("correct", "margin"))
    assert found.images[0] is None
    assert np.isnan(found.agreement[0, 1])
    found.page()
