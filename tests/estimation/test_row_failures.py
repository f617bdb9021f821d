"""Whether failures go with groups: against Fisher's test, and in tiles."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import fisher_exact
from stub_rows import StubRecipe, StubSource, StubTask
from stub_store import GOOD, METADATA, computed, filled, record

from pydt import design
from pydt.ensemble import Plan
from pydt.estimation import failure_test
from pydt.store import Outcome, Row, Store


def test_failure_test_agrees_with_fisher_on_one_unit(tmp_path: Path) -> None:
    kept = np.arange(30) % 2 == 0
    bad = (0, 2, 4, 6, 8, 10, 3)  # six of the seven failures kept the unit
    store = Store.create(tmp_path)
    plan = record([Row([1, kept[i]], i, "design") for i in range(30)], design=True)
    store.put_plan(plan)
    for i, keys in enumerate(plan.keys):
        store.put(keys[0], Outcome(status="failed", reason="x") if i in bad else GOOD, METADATA)
    failed, total, p = failure_test(store, permutations=4999)
    table = [[6, 1], [15 - 6, 15 - 1]]
    assert (failed, total) == (7, 30)
    assert p == pytest.approx(fisher_exact(table).pvalue, abs=0.02)


def test_failure_test_weighs_rare_and_common_units_alike(tmp_path: Path) -> None:
    """All 495 sets of four failures among twelve rows, by the |z| of each unit written out."""
    kept = np.zeros((12, 10), bool)
    for unit, rows in enumerate((2, 6, 10, 5, 3, 7, 12, 4, 9, 1)):
        kept[np.random.default_rng(unit).permutation(12)[:rows], unit] = True
    bad = tuple(np.flatnonzero(kept[:, 0])) + tuple(np.flatnonzero(~kept[:, 0])[:2])  # both rows of a rare unit
    plan = record([Row(kept[i], i, "design") for i in range(12)], design=True)
    store = Store.create(tmp_path)
    store.put_plan(plan)
    for i, keys in enumerate(plan.keys):
        store.put(keys[0], Outcome(status="failed", reason="x") if i in bad else GOOD, METADATA)

    def largest(failed: tuple[int, ...]) -> float:
        found = []
        for column in kept.T:
            share = column.mean()
            if 0 < share < 1:
                variance = 4 * share * (1 - share) * (12 - 4) / (12 - 1)
                found.append(abs(column[list(failed)].sum() - 4 * share) / np.sqrt(variance))
        return max(found)

    every = [largest(failed) >= largest(bad) - 1e-9 for failed in itertools.combinations(range(12), 4)]
    assert failure_test(store, permutations=3999) == (4, 12, pytest.approx(np.mean(every), abs=0.03))


def test_failure_test_without_failures_and_with_a_culprit(tmp_path: Path) -> None:
    store = filled(tmp_path / "a", 40)
    assert failure_test(store) == (0, 40, 1.0)
    culprit = tuple(np.flatnonzero(store.masks()[:, 3])[:8])
    assert failure_test(filled(tmp_path / "b", 40, culprit))[2] < 0.05
    assert failure_test(filled(tmp_path / "c", 40, tuple(range(40)))) == (40, 40, 1.0)


def test_the_test_of_failures_is_the_same_in_tiles(tmp_path: Path) -> None:
    drawn = design.random(30, 40, 0.5)

    class Wide(StubSource):
        def __len__(self) -> int:
            return 30

        def units(self, by: str) -> tuple[np.ndarray, tuple[str, ...]]:
            return np.arange(30), tuple(f"{by} {i}" for i in range(30))

    job = Plan(Wide(), design=drawn, recipe=StubRecipe(), tasks=(StubTask(),))
    bad = tuple(np.flatnonzero(np.asarray(drawn)[:, 21])[:9].tolist())
    store = computed(tmp_path, job, failures=bad)
    whole = failure_test(store)
    assert whole[:2] == (9, 40)
    assert whole[2] < 0.1
    assert failure_test(store, tile=1) == whole
