"""Which alpha: intervals cover, and noise is no finding."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stub_pilots import drawn, planted, study, timed
from stub_report import GROUPS, Stub

from pydt import compare_alphas, design, influences
from pydt.base import ConfigError, EstimateError, StoreError
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, run
from pydt.estimation import mean_output
from pydt.estimation.alpha_pilots import compare_pilots, pilot_of, r2_interval
from pydt.training import Recipe, Task


def test_alphas_of_a_store(tmp_path: Path, source: Dataset, target: Target) -> None:
    store = study(tmp_path, source, target, (0.5, 0.3))
    half, third = sorted(store.plans(), key=lambda name: -store.plan(name).design["alpha"])
    timed(store, {half: 40.0, third: 1.0})
    found = compare_alphas(store)
    assert [pilot.alpha for pilot in found.pilots] == [0.3, 0.5]
    assert found.alpha == 0.3
    assert found.sure
    assert "larger than its noise" in found.reason
    record = store.plan(third)
    outputs = mean_output(store, record, None, "correct", "score")
    assert found.pilots[0].r2 == pytest.approx(float(influences(store.design(record), outputs, "ols").explained))
    assert found.pilots[0].low < found.pilots[0].r2 < found.pilots[0].high
    timed(store, {half: 1.0, third: 1.0})
    assert not compare_alphas(store).sure
    (tmp_path / "log.jsonl").unlink()
    without = compare_alphas(store)
    assert without.alpha is None
    assert without.pilots[0].seconds is None


def test_what_cannot_be_compared_is_refused(tmp_path: Path, source: Dataset, target: Target) -> None:
    one = study(tmp_path / "one", source, target, (0.5,))
    with pytest.raises(ConfigError, match="1 pilots"):
        compare_alphas(one)
    other = study(tmp_path / "other", source.sample(100, 0), target, (0.3,))
    with pytest.raises(StoreError, match="another source"):
        compare_alphas([one, other])
    few = study(tmp_path / "few", source, target, (0.3,), 9)
    with pytest.raises(EstimateError, match=r"alpha 0\.3"):
        compare_alphas([one, few])
    with pytest.raises(ConfigError, match="level"):
        compare_alphas([one, few], level=5)  # type: ignore[arg-type]
    for wrong in (3, None, [1, 2]):
        with pytest.raises(ConfigError, match="is no store"):
            compare_alphas(wrong)  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as executor:
        masks = design.bernoulli(GROUPS, 60, 0.3, seed=1)
        harder = Plan(source, design=masks, recipe=Recipe(), tasks=(Task(target, draws=3),))
        third = run(harder, tmp_path / "task", executor, runner=Stub(0.6, 0.15, 1, frozenset()), progress=False)
    with pytest.raises(StoreError, match="another task"):
        compare_alphas([one, third])


def seen(kind: str, groups: int, models: int, alpha: float, r2: float, seed: int, targets: int) -> list[Any]:
    made = drawn(kind, groups, models, alpha, seed)
    fit = influences(made, planted(made, targets, r2, seed), "ols", errors="classical")
    same = {"counts": fit.counts, "estimand": fit.estimand, "models": models}
    return [SimpleNamespace(explained=fit.explained[j], df=fit.df[j], **same) for j in range(targets)]


@pytest.mark.parametrize(
    ("kind", "groups", "models", "r2"),
    [("random", 30, 60, 0.3), ("bernoulli", 30, 80, 0.7), ("bernoulli", 12, 80, 0.0), ("foldover", 28, 128, 0.5)],
)
def test_intervals_of_r2_cover(kind: str, groups: int, models: int, r2: float) -> None:
    truth = r2 if kind != "foldover" else 2 * r2 / (1 + r2)  # a half-difference has half of the noise
    rank = groups - (kind == "random")
    held = []
    for seed in range(20):
        for one in seen(kind, groups, models, 0.4, r2, seed, 8):
            low, high = r2_interval(one.explained, rank, one.df, 0.1, kind == "foldover")
            held.append(low <= truth <= high)
    assert 0.85 < np.mean(held) < 0.96


def test_equal_alphas_are_seldom_told_apart_and_unequal_ones_often() -> None:
    def sure(first: float, second: float) -> float:
        found = []
        for seed in range(10):
            a, b = seen("random", 30, 90, 0.25, first, seed, 12), seen("bernoulli", 30, 90, 0.5, second, seed + 50, 12)
            pair = [
                [pilot_of(x, alpha, "bernoulli", 1.0, 0.05, rank) for x in c]
                for c, alpha, rank in ((a, 0.25, 29), (b, 0.5, 30))
            ]
            found += [compare_pilots((x, y), 0.05).sure for x, y in zip(*pair, strict=True)]
        return float(np.mean(found))

    assert sure(0.0, 0.0) < 0.07
    assert sure(0.4, 0.4) < 0.11  # 0.05 + 3 SE of 120
    assert sure(0.7, 0.3) > 0.8
