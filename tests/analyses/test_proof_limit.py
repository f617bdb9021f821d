"""The limit of a row holds in a proof, too."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pydt import design
from pydt.analyses import counterfactual
from pydt.base import ConfigError
from pydt.data import Groups
from pydt.ensemble import Function, Plan, RowInput, run
from pydt.store import Measure


def _row(row: RowInput) -> dict[str, float]:
    return {"m": float(row.mask.sum()) + row.seed % 7}


def test_a_limit_reaches_the_retrainings(tmp_path: Path) -> None:
    masks = design.bernoulli(groups=4, models=14, seed=1)
    plan = Plan(Groups(["a", "b", "c", "d"]), design=masks, recipe=Function(_row), tasks=[Measure("m")])
    with ThreadPoolExecutor(1) as executor:
        store = run(plan, tmp_path, executor, workers=1, progress=False)
        with pytest.raises(ConfigError, match="limit: only a process of its own"):
            counterfactual(store, plan, executor=executor, workers=1, progress=False, limit=60)
