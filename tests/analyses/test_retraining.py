"""Retrained rows: what each arm leaves out, matched random sets, rows that stay the same when more are asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import stats

from pydt.analyses.retraining import KINDS, arm_rows, group_images


def test_arms_drop_what_they_say() -> None:
    values = np.array([3.0, -1.0, 2.0, 0.0, 5.0, 1.0, -2.0, 4.0])
    rows = arm_rows(values, np.full(8, 10), [4, 2], [5, 3], seed=1)
    by_kind = {kind: [row for row in rows if row.kind == kind] for kind in KINDS}
    assert {kind: len(members) for kind, members in by_kind.items()} == {
        "full": 5,
        "drop bottom": 8,
        "drop random": 8,
        "drop top": 8,
    }
    assert all(row.mask.all() for row in by_kind["full"])
    assert {tuple(np.flatnonzero(~row.mask)) for row in by_kind["drop bottom"]} == {(1, 3, 5, 6), (1, 6)}
    assert {tuple(np.flatnonzero(~row.mask)) for row in by_kind["drop top"]} == {(0, 2, 4, 7), (4, 7)}
    assert len({row.keep for row in by_kind["drop random"]}) > 5, "every random repeat draws a set of its own"
    assert len({row.seed for row in rows}) == len(rows)


def test_random_sets_are_matched_in_images() -> None:
    # The lowest groups are huge: a random set of as many groups would usually hold far fewer images.
    images = np.array([500] * 5 + [20] * 35)
    values = np.arange(40.0)
    rows = [row for row in arm_rows(values, images, [20], [30], 0) if row.kind == "drop random"]
    wanted = (images[:20].sum() + images[20:].sum()) / 2
    dropped = [images[~row.mask].sum() for row in rows]
    # 400 + 480 k images with k huge groups among 20: two or three of them come closest to 1,600.
    assert wanted == 1600
    assert set(dropped) <= {1360, 1840}
    assert all((~row.mask).sum() == 20 for row in rows)


def test_equal_groups_make_random_sets_uniform() -> None:
    rows = [row for row in arm_rows(np.arange(6.0), np.full(6, 7), [3], [600], 0) if row.kind == "drop random"]
    assert stats.chisquare(sum(~row.mask for row in rows)).pvalue > 1e-4


def test_groups_are_counted_with_those_that_have_no_image() -> None:
    units = np.array([0, 1, -1, 1]), ("a", "b", "c")
    plan: Any = SimpleNamespace(context=SimpleNamespace(units=units))
    assert group_images(plan).tolist() == [1, 2, 0]


def test_more_repeats_and_other_sizes_keep_the_runs_that_are_there() -> None:
    values, images = np.arange(12.0), np.full(12, 10)
    few = {(row.kind, row.keep, row.seed) for row in arm_rows(values, images, [6, 3], [4, 2], 0)}
    more = {(row.kind, row.keep, row.seed) for row in arm_rows(values, images, [6, 9, 3], [7, 2, 3], 0)}
    assert few < more
    assert not few & {(row.kind, row.keep, row.seed) for row in arm_rows(values, images, [6, 3], [4, 2], 1)}
