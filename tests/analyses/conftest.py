"""Stores that several analyses look at."""

from __future__ import annotations

import numpy as np
import pytest
from stub_influence import Additive, filled, many_classes, plan_of
from stub_outputs import GROUPS, MODELS, TwoLogits

from pydt import design
from pydt.data import Target
from pydt.ensemble import Plan
from pydt.store import Store


@pytest.fixture(scope="session")
def two_logits(tmp_path_factory: pytest.TempPathFactory, target: Target) -> tuple[Store, Plan]:
    plan = plan_of(many_classes(), target, design.random(GROUPS, MODELS, alpha=0.5, seed=4))
    return filled(tmp_path_factory.mktemp("study"), plan, TwoLogits()), plan


@pytest.fixture(scope="session")
def noisy(tmp_path_factory: pytest.TempPathFactory, target: Target) -> Store:
    count = len(target.described()["labels"])
    plan = plan_of(many_classes(), target, design.random(GROUPS, MODELS, alpha=0.5, seed=1))
    runner = Additive(np.zeros(count), np.zeros((GROUPS, count)), common=1.0)
    return filled(tmp_path_factory.mktemp("noise"), plan, runner)
