"""The plan of the quickstart."""

from __future__ import annotations

import numpy as np

from pydt.ensemble import MODELS, quickstart_plan


def test_the_quickstarts_plan() -> None:
    plan = quickstart_plan(20, 5)
    assert len(plan.design) == 20
    assert np.asarray(plan.design).sum(1).tolist() == [16] * 20
    assert [(task.shots, task.draws) for task in plan.tasks[:2]] == [(1, 32), (2, 8)]
    assert plan.tasks[0].seed == plan.seed == plan.design.seed == 5
    assert quickstart_plan(20, 5).digest == plan.digest != quickstart_plan(20, 6).digest
    assert MODELS == 600
