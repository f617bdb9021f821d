"""Sub-populations: a planted one is found and sized without selection, and noise has none."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import oracle_rankings as oracle
import pytest
from matplotlib import pyplot
from scipy import stats
from stub_influence import Additive, filled, many_classes, plan_of

from pydt import design
from pydt.analyses import subpopulations
from pydt.analyses.ensemble_view import detectable
from pydt.analyses.sample_splitting import ERROR_OF_WAYS, halves
from pydt.analyses.subpopulations import SubPopulations
from pydt.base import ConfigError
from pydt.data import Target
from pydt.ensemble import Plan
from pydt.reporting import write_pages
from pydt.store import Store

GROUPS, MODELS = 20, 120


def planted(target: Target, size: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Group 4 moves twelve images of class 1, and all of class 2; group 7 everything. Positions, effects."""
    described = target.described()
    hidden = np.flatnonzero(described["labels"] == 1)[:size]
    effects = np.zeros((GROUPS, len(described["labels"])))
    effects[4, hidden] = 1.5
    effects[4, described["labels"] == 2] = 1.5
    effects[7] = 1.0
    return hidden, effects


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, target: Target) -> tuple[Store, Plan]:
    _, effects = planted(target)
    plan = plan_of(many_classes(), target, design.random(GROUPS, MODELS, alpha=0.5, seed=2))
    base = np.random.default_rng(3).normal(-0.5, 0.5, effects.shape[1])
    return filled(tmp_path_factory.mktemp("study"), plan, Additive(base, effects, common=0.3)), plan


def against_class(y: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([y[:, i] - y[:, labels == labels[i]].mean(1) for i in range(len(labels))], 1)


def test_it_shows_itself_in_python_and_notebooks(study: tuple[Store, Plan]) -> None:
    found = subpopulations(*study, size=8)
    assert "at q < 0.05: “c4”" in repr(found)
    assert f"{len(found.ids)} images, {MODELS} models" in repr(found)
    assert found._repr_html_().count("<tr>") == 1 + min(20, GROUPS)
    ax, order = found.plot(), np.argsort(-found.judged, kind="stable")
    assert np.array_equal(ax.containers[0][0].get_xdata()[:3], found.judged[order[:3]])
    pyplot.close(ax.figure)
    pytest.importorskip("pandas")
    frame = found.to_frame()
    assert frame["group"].tolist() == list(found.groups)
    for name, part in (("judged", found.judged), ("stderr", found.judged_stderr), ("p", found.p), ("q", found.q)):
        assert np.array_equal(frame[name], part), name
    assert np.allclose((frame["high"] - frame["judged"]) / found.judged_stderr, stats.t.ppf(0.975, found.df))


def test_the_hidden_part_of_a_class_is_found(study: tuple[Store, Plan], target: Target) -> None:
    hidden, _ = planted(target)
    found = subpopulations(*study, size=8)
    k = found.groups.index("c4")
    assert set(found.found[k]) <= set(hidden), "not class 2, which is moved as a whole"
    inside = np.isin(np.arange(len(found.ids)), hidden)
    pairs = found.effect[k][inside][:, None] > found.effect[k][~inside][None]
    assert pairs.mean() > 0.9, "area under the ROC curve"
    assert found.ranked("c4").tolist() == np.argsort(-found.effect[k], kind="stable").tolist()
    assert found.q[k] < 0.01
    assert (found.q < 0.05).sum() == 1, "not group 7, which moves all images alike"
    assert found.overlap[k] > 5 * found.by_chance
    one = subpopulations(*study, "c4", size=8)
    assert (one.groups, one.q[0], one.judged[0]) == (("c4",), found.q[k], found.judged[k])
    assert one.page().answer[0].startswith("“c4” moves its 8 images")
    assert found.page().answer[0].startswith("1 of 20 groups have images")


def test_effects_are_those_of_brute_force(study: tuple[Store, Plan]) -> None:
    store, plan = study
    found = subpopulations(store, size=5, seed=9)
    task = store.plan().tasks[0]["digest"]
    labels = store.examples(task, "all")["labels"]
    moved = against_class(100 * np.asarray(store.outputs(task, "probability", "all"), np.float64), labels)
    masks = store.masks().astype(float)
    values, stderr, _ = oracle.least_squares(masks, moved)
    assert np.allclose(found.effect, values, atol=1e-4)
    assert np.allclose(found.stderr, stderr, atol=1e-4)
    assert np.allclose(found.claimed, np.sort(values, 1)[:, -5:].mean(1), atol=1e-4)
    judged, variance, common = [], [], []
    for pair in halves(plan.design, found.splits, "sub-populations", 9):
        lists = []
        for one, other in (pair, pair[::-1]):
            first, _, _ = oracle.least_squares(masks[one], moved[one])
            chosen = np.argsort(-first, 1, kind="stable")[:, :5]
            lists.append(chosen)
            fits = [oracle.least_squares(masks[other], moved[other][:, c].mean(1, keepdims=True)) for c in chosen]
            judged.append([fit[0][k, 0] for k, fit in enumerate(fits)])
            variance.append([fit[1][k, 0] ** 2 for k, fit in enumerate(fits)])
        common.append([len(set(a) & set(b)) / 5 for a, b in zip(*lists, strict=True)])
    assert np.allclose(found.judged, np.mean(judged, 0), atol=1e-4)
    assert np.allclose(found.judged_stderr, ERROR_OF_WAYS * np.sqrt(np.mean(variance, 0)), atol=1e-4)
    assert np.allclose(found.overlap, np.mean(common, 0))


def null(folder: Path, target: Target, seed: int) -> SubPopulations:
    count = len(target.described()["labels"])
    plan = plan_of(many_classes(), target, design.random(GROUPS, 80, alpha=0.5, seed=seed), seed=seed)
    runner = Additive(np.zeros(count), np.zeros((GROUPS, count)), common=1.0, seed=seed)
    return subpopulations(filled(folder, plan, runner), plan, size=4)


def test_noise_has_no_sub_populations(tmp_path: Path, target: Target) -> None:
    """Selected images look moved; judged they are not, and the error covers: |judged| / stderr is not above its due."""
    found = [null(tmp_path / str(seed), target, seed) for seed in range(3)]
    t = np.concatenate([one.judged / one.judged_stderr for one in found])
    assert np.concatenate([one.claimed / one.judged_stderr for one in found]).min() > 1
    assert abs(t.mean()) < 0.5
    assert (t**2).mean() < 1.5
    assert sum((one.q < 0.05).sum() for one in found) == 0
    first = found[0].page().answer[0]
    assert first.startswith("No group surely moves")
    said = re.search(r" by ([0-9.]+) .* would have been sure with a chance of 80 %", first)
    assert said is not None
    assert float(said[1]) > 3 * float(np.median(found[0].judged_stderr))


@pytest.mark.parametrize(("df", "tests"), [(8, 1), (20, 6), (100, 60)])
def test_an_effect_called_detectable_is_found_in_four_of_five_studies(df: int, tests: int) -> None:
    random, count = np.random.default_rng(0), 20_000
    effect = detectable(0.3, df, tests, 0.05)
    t = (effect + 0.3 * random.normal(size=count)) / (0.3 * np.sqrt(random.chisquare(df, count) / df))
    assert (stats.t.sf(t, df) < 0.05 / tests).mean() == pytest.approx(0.8, abs=0.04)


def test_pages_and_refusals(study: tuple[Store, Plan], tmp_path: Path) -> None:
    store, plan = study
    page = subpopulations(store, plan).page()
    write_pages([page], tmp_path, "blobs")
    text = (tmp_path / "subpopulations" / "images.csv").read_text().splitlines()
    assert len(text) == 1 + GROUPS * 8
    assert (tmp_path / "subpopulations.html").read_text().count("data:image/png") >= 12 * 8
    kinds = [type(block).__name__ for block in subpopulations(store).page().blocks]
    assert kinds == ["Intervals", "Table"], "no plan, no images"
    with pytest.raises(ConfigError, match="no group 'zebra'"):
        subpopulations(store, group="zebra")
    with pytest.raises(ConfigError, match="13 of 120 images"):
        subpopulations(store, size=13)
    with pytest.raises(ConfigError, match="no group 'zebra'"):
        subpopulations(store).ranked("zebra")


def test_few_judged_images_have_fewer_a_group(tmp_path: Path, target: Target) -> None:
    """By default; a size that is asked for is refused."""
    judged = target.judged
    few = Target(judged.take(np.arange(0, len(judged), 2)))
    number = len(few.described()["labels"])
    plan = plan_of(many_classes(), few, design.random(GROUPS, 100, alpha=0.5, seed=3))
    store = filled(tmp_path, plan, Additive(np.zeros(number), np.zeros((GROUPS, number))))
    assert number < 80
    assert subpopulations(store).found.shape == (GROUPS, number // 10)
    with pytest.raises(ConfigError, match=f"8 of {number} images"):
        subpopulations(store, size=8)
