"""Brittleness: means over all masks without a set, probabilities from other models, and retraining that agrees."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import oracle_rankings as oracle
import pytest
from scipy import special
from stub_influence import Additive, filled, many_classes, plan_of

from pydt import design
from pydt.analyses import brittleness
from pydt.analyses.brittleness import chance_wrong, members, one_way, smallest_sets
from pydt.base import ConfigError, EstimateError
from pydt.data import Target
from pydt.design import Design
from pydt.ensemble import Plan
from pydt.estimation import influences
from pydt.reporting import write_pages
from pydt.store import Store

GROUPS, MODELS = 20, 160


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, target: Target) -> tuple[Store, Plan, Additive, np.ndarray]:
    """Half of the images are right by group 3 alone, the others are safe. Positions of the brittle ones."""
    described = target.described()
    brittle = np.flatnonzero(described["ids"] % 2 == 0)
    effects = np.zeros((GROUPS, len(described["ids"])))
    effects[3, brittle], effects[11, brittle] = 2.0, 0.3
    base = np.where(np.isin(np.arange(len(described["ids"])), brittle), -0.9, 4.0)
    runner = Additive(base, effects, common=0.2, noise=0.3)
    plan = plan_of(many_classes(), target, design.random(GROUPS, MODELS, alpha=0.5, seed=8))
    return filled(tmp_path_factory.mktemp("study"), plan, runner), plan, runner, brittle


def mean_without(masks: np.ndarray, constant: float, values: np.ndarray, removed: set[int]) -> float:
    """The mean prediction over every mask there is without a set: of as many groups, or each mask with its chance."""
    groups, kept = masks.shape[1], masks.sum(1)
    rest = [k for k in range(groups) if k not in removed]
    if (kept == kept[0]).all():
        return float(np.mean([constant + values[list(some)].sum() for some in combinations(rest, int(kept[0]))]))
    share = masks.mean(0)
    total = 0.0
    for number in range(len(rest) + 1):
        for some in combinations(rest, number):
            chance = np.prod([share[k] if k in some else 1 - share[k] for k in rest])
            total += chance * (constant + values[list(some)].sum())
    return total


@pytest.mark.parametrize("masks", [design.random(9, 60, alpha=0.5), design.bernoulli(9, 60, alpha=0.6)])
def test_sets_are_the_smallest_of_all(masks: Design) -> None:
    """Every set of up to four groups is tried on every image; means are taken over every mask without it."""
    random = np.random.default_rng(2)
    kept = np.asarray(masks).astype(float)
    margin = (kept @ random.normal(size=(9, 12)) + 0.4 + 0.2 * random.normal(size=(60, 12))).astype(np.float32)
    order, size = smallest_sets(masks, margin, 4)
    values = influences(masks, margin, "ridge").values.astype(float)
    mean = margin.mean(0, dtype=float)
    assert (size > 0).sum() >= 3
    assert (size[mean <= 0] == 0).all()
    for x in np.flatnonzero(mean > 0):
        constant = mean[x] - kept.mean(0) @ values[:, x]
        found = 0
        for number in range(1, 5):
            means = [mean_without(kept, constant, values[:, x], set(some)) for some in combinations(range(9), number)]
            if min(means) < 0:
                best = set(list(combinations(range(9), number))[int(np.argmin(means))])
                assert set(order[:number, x]) == best
                found = number
                break
        assert size[x] == found
    assert members(order, size, 9).sum(0).tolist() == size.tolist()


@pytest.mark.parametrize("masks", [design.random(9, 60, alpha=0.5), design.bernoulli(9, 60, alpha=0.6)])
def test_probabilities_are_those_of_least_squares(masks: Design) -> None:
    random = np.random.default_rng(3)
    kept = np.asarray(masks).astype(float)
    margin = kept @ random.normal(size=(9, 5)) + 0.3 * random.normal(size=(60, 5))
    removed = random.random((9, 5)) < 0.3
    unlike = Design.explicit(np.unique(np.asarray(masks), axis=0))  # no mask twice, so that rows are what counts
    kept, margin = np.asarray(unlike).astype(float), margin[: len(unlike)]
    if len(np.unique(unlike.clusters)) < len(unlike):
        first = np.sort(np.unique(unlike.clusters, return_index=True)[1])
        unlike, kept, margin = unlike.take(first), kept[first], margin[first]
    fit = influences(unlike, margin, "ols", errors="classical")
    found = chance_wrong(fit, np.asarray(unlike), margin.mean(0), removed)
    values, _, df = oracle.least_squares(kept, margin)
    x = kept - kept.mean(0)
    inverse = np.linalg.pinv(x.T @ x, rcond=1e-9, hermitian=True)
    noise = ((margin - margin.mean(0) - x @ values) ** 2).sum(0) / df
    for j in range(5):
        gone = set(np.flatnonzero(removed[:, j]))
        constant = margin[:, j].mean() - kept.mean(0) @ values[:, j]
        mean = mean_without(kept, constant, values[:, j], gone)
        outside = np.array([k not in gone for k in range(9)])
        chance = outside * (kept[0].sum() / outside.sum() if unlike.estimand == "swap" else kept.mean(0))
        moved = chance - kept.mean(0)
        error = np.sqrt(noise[j] * (1 / len(kept) + moved @ inverse @ moved))
        assert found[j] == pytest.approx(special.stdtr(df, -mean / error), abs=1e-4)


def test_what_is_brittle_is_found_and_what_is_safe_is_not(study: tuple, target: Target) -> None:
    store, plan, _, brittle = study
    found = brittleness(store, plan)
    positions = set(target.described()["ids"][brittle])
    for image in found.images:
        if image.position in positions:
            assert image.groups == ("c3",)
            assert image.probability > 0.8
        else:
            assert image.groups == ()
            assert image.probability == 0
    share = sum(image.position in positions for image in found.images) / len(found.images)
    assert found.claimed[-1] == pytest.approx(share, abs=0.1)
    assert found.flipped[-1] == pytest.approx(share, abs=0.15)
    assert found.random[-1] < 0.4 * found.flipped[-1]
    assert (np.diff(found.flipped) >= 0).all()
    assert found.more[0] == pytest.approx(found.flipped[-1] - found.random[-1])
    assert found.more[0] > 5 * found.more[1] > 0
    assert found.lacking is not None
    wrong = {name: share for name, (share, _, _) in found.lacking.items()}
    assert wrong["set"] > 0.9
    assert abs(wrong["all"] - 0.5) < 0.1
    assert wrong["random"] < 0.65


def test_models_without_a_set_are_counted(study: tuple) -> None:
    store, plan, _, _ = study
    margin = np.asarray(store.outputs(plan.tasks[0], "margin", "report"))
    finding, judging = np.arange(0, 80), np.arange(80, 160)
    way = one_way(plan.design, margin, finding, judging, 5, np.random.default_rng(0))
    order, size = smallest_sets(plan.design.take(finding), margin[finding], 5)
    masks = store.masks()[judging]
    for x in np.flatnonzero(size)[:5]:
        lacks = [i for i in range(80) if not any(masks[i, k] for k in order[: size[x], x])]
        assert way.seen["set"][1][x] == len(lacks)
        assert way.seen["set"][0][x] == pytest.approx(np.mean([margin[judging[i], x] < 0 for i in lacks]))
    assert way.right == (margin[finding].mean(0) > 0).sum()


def test_of_noise_little_is_claimed_and_nothing_more_than_of_randomsmallest_sets(
    tmp_path: Path, target: Target
) -> None:
    count = len(target.described()["ids"])
    plan = plan_of(many_classes(), target, design.random(GROUPS, 100, alpha=0.5, seed=1))
    store = filled(tmp_path, plan, Additive(np.full(count, 0.3), np.zeros((GROUPS, count)), noise=1.0))
    found = brittleness(store)
    assert found.flipped[-1] < 0.1
    assert found.more[0] < 2 * found.more[1]
    assert "not surely above zero" in found.page().answer[0]


def test_retraining_tells_the_real_rates(study: tuple, tmp_path: Path) -> None:
    store, plan, runner, _ = study
    with ThreadPoolExecutor(1) as executor:
        how = {"verify": 3, "repeats": 3, "executor": executor, "runner": runner, "progress": False}
        found = brittleness(store, plan, **how)
        again = brittleness(store, plan, **how)
    v = found.verified
    assert v is not None
    assert (v.retrained, v.failed, len(v.images)) == (3 + 2 * 3 * 3, 0, 3)
    assert v.images == tuple(b.position for b in sorted(found.images, key=lambda b: -b.probability)[:3])
    assert v.full.rate == 0, "all groups together make every image right"
    assert v.set.rate > 0.6
    assert v.random.rate < 0.4
    assert again.verified == v, "what is in the store is not trained again, and gives the same"
    rows = store.plan(next(d for d, r in Store(store.folder).plans().items() if r.kind == "rows")).rows
    sizes = {(row.kind, int((~row.mask).sum())) for row in rows}
    assert {size for kind, size in sizes if kind == "drop set"} == {size for kind, size in sizes if "random" in kind}
    write_pages([found.page()], tmp_path, "blobs")
    one = replace(found, most=1).page()
    assert "without up to 1 group of their own" in one.answer[0]
    assert "The smallest set of up to 1 group is found" in one.method
    assert "Retrained on the whole source" in (tmp_path / "brittleness.html").read_text().replace("\u00a0", " ")
    assert len((tmp_path / "brittleness" / "images.csv").read_text().splitlines()) == 1 + len(found.images)


def test_an_image_whose_retrainings_all_fail_is_left_out(study: tuple, tmp_path: Path) -> None:
    _, plan, runner, _ = study
    store = filled(tmp_path / "all", plan, runner)
    with ThreadPoolExecutor(1) as executor:
        how = {"verify": 3, "repeats": 2, "executor": executor, "progress": False}
        brittleness(store, plan, runner=runner, **how)
        rows = store.plan(next(d for d, r in Store(store.folder).plans().items() if r.kind == "rows")).rows
        lost = frozenset([row.seed for row in rows if row.kind == "drop set"][:2])  # both of the first image
        broken = replace(runner, failing=lost)
        store = filled(tmp_path / "broken", plan, runner)
        found = brittleness(store, plan, runner=broken, **how)
        nothing = brittleness(store, plan, runner=broken, **{**how, "verify": 1})
    v = found.verified
    assert v is not None
    assert (v.retrained, v.failed, len(v.images), v.set.images) == (2 + 2 * 3 * 2, 2, 2, 2)
    assert v.images == tuple(b.position for b in sorted(found.images, key=lambda b: -b.probability)[1:3])
    assert found.page().answer[0].startswith("No verdict: 2 of 14 retrainings failed")
    assert nothing.verified is None


def test_refusals(study: tuple, tmp_path: Path, target: Target) -> None:
    store, plan, runner, _ = study
    with pytest.raises(ConfigError, match=r"plan.*pass the pydt\.Plan itself"):
        brittleness(store, verify=1)
    with pytest.raises(ConfigError, match="at least 0 and 2"):
        brittleness(store, plan, verify=1, repeats=1)
    with pytest.raises(ConfigError, match=r"10 of 20 groups.*at most 9"):
        brittleness(store, plan, most=10)
    strata = design.random(GROUPS, 40, alpha=0.5, strata=np.arange(GROUPS) % 2)
    other = filled(tmp_path, plan_of(many_classes(), target, strata), runner)
    with pytest.raises(EstimateError, match=r"stratum by stratum.*without strata"):
        brittleness(other)
