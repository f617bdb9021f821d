"""Groups of which nothing can be said are named, with what a plan can do about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import stub_rows

from pydt import Design, design
from pydt.base import EstimateError
from pydt.ensemble import run
from pydt.estimation import overall, uncompared
from pydt.store import Store


def test_groups_in_no_row_and_in_every_row_are_named() -> None:
    masks = np.eye(6, dtype=bool) | (np.arange(6) == 5)
    masks[1] = masks[0]
    found = uncompared(Design.explicit(masks), [f"c{i}" for i in range(6)])
    assert found is not None
    assert found[0] == "group 'c1' is in no row and group 'c5' is in every row of 6"
    assert "leave these columns out of the masks" in found[1]
    same = uncompared(Design.explicit(np.ones((3, 6), bool)), [f"c{i}" for i in range(6)])
    assert same is not None
    assert same[0] == "all 3 rows keep the same groups"


@pytest.mark.parametrize("models", [12, 200, 3000])
def test_the_same_as_whole_masks_say(models: int) -> None:
    """Of many masks only as many are drawn as it takes."""
    for seed in range(3):
        made = design.random(62, models, alpha=0.1, seed=seed)
        masks = np.asarray(made)
        found = uncompared(made, [f"<{i}>" for i in range(62)])
        never = np.flatnonzero(~masks.any(0))
        assert (found is None) == (not never.size)
        if found is not None:
            assert all(f"'<{i}>'" in found[0] for i in never[:5])
            assert f"models = {3 * 62} or more" in found[1]


def test_a_late_row_may_be_the_first_with_a_group() -> None:
    masks = np.random.default_rng(0).random((1500, 9)) < 0.5
    masks[:1400, 3], masks[1400:, 3], masks[:, 0] = False, True, np.arange(1500) % 3 < 2
    masks[:, 1] |= ~masks.any(1)
    assert uncompared(Design.explicit(masks), list("abcdefghi")) is None
    masks[:, 8] = True
    assert "'i' is in every row" in (uncompared(Design.explicit(masks), list("abcdefghi")) or ("",))[0]


def test_a_store_names_the_groups_and_what_to_change(tmp_path: Path) -> None:
    plan = stub_rows.plan(12)
    masks = next(
        made
        for made in (design.random(stub_rows.GROUPS, 12, alpha=1 / stub_rows.GROUPS, seed=seed) for seed in range(50))
        if not np.asarray(made).any(0).all()
    )
    names = plan.context.units[1]
    never = [names[i] for i in np.flatnonzero(~np.asarray(masks).any(0))]
    poor = replace(plan, design=masks)
    store = run(poor, tmp_path / "poor", workers=1, runner=stub_rows.stub_row, progress=False)
    assert "no report can be made" in (tmp_path / "poor" / "log.jsonl").read_text()
    with pytest.raises(EstimateError, match=f"{never[0]!r}.* in no row of 12.*models = 18 or more"):
        overall(store)
    whole = run(stub_rows.plan(12), tmp_path / "whole", workers=1, runner=stub_rows.stub_row, progress=False)
    assert "no report can be made" not in (tmp_path / "whole" / "log.jsonl").read_text()
    assert uncompared(whole.design(), names) is None


def test_a_plan_that_is_not_done_is_to_be_run_on(tmp_path: Path) -> None:
    masks = np.random.default_rng(1).random((14, stub_rows.GROUPS)) < 0.5
    masks[:10, 0], masks[10:, 0], masks[:, 1] = False, True, np.arange(14) % 2
    masks[:, 2] |= ~masks.any(1)
    plan = replace(stub_rows.plan(14), design=Design.explicit(masks))
    store = run(plan, tmp_path, workers=1, runner=stub_rows.stub_row, progress=False)
    for row in range(10, 14):
        store.path(store.plan().keys[row][0]).unlink()
    with pytest.raises(EstimateError, match=r"in no row of 10\. run the plan on"):
        overall(Store(tmp_path))
