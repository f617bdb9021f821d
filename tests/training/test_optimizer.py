"""Optimisers and schedules against their formulas, and where their settings stand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pydt.base import ConfigError
from pydt.training import FineTune, Recipe
from pydt.training.optimizer import make_optimizer


def rates(schedule: str, steps: int, **more: Any) -> list[float]:
    """The rate of every step."""
    recipe = Recipe(schedule=schedule, lr=0.5, **more)
    optimizer, scheduler = make_optimizer([nn.Parameter(torch.zeros(1))], recipe, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_schedules() -> None:
    triangle = rates("triangular", 160)
    # 0 -> peak at one eighth (epoch 2 of 16) -> 0, straight lines.
    assert triangle[0] == 0
    assert triangle[20] == pytest.approx(0.5)
    assert triangle[10] == pytest.approx(0.25)
    assert triangle[90] == pytest.approx(0.25)
    assert triangle[159] == pytest.approx(0.5 / 140)
    assert rates("triangular", 1) == [0.5]
    assert rates("triangular", 2) == [0, 0.5]
    cycle = rates("one-cycle", 160)
    assert max(cycle) == pytest.approx(0.5, rel=1e-3)
    assert cycle[-1] < 1e-4


def test_cosine_rises_over_a_share_of_the_steps_and_falls_to_nothing() -> None:
    found = rates("cosine", 160, warmup=0.25)
    assert found[:40] == pytest.approx([0.5 * (step + 1) / 40 for step in range(40)])
    assert found[40] == pytest.approx(0.5)
    assert found[100] == pytest.approx(0.25)
    assert found[159] == pytest.approx(0.5 * (1 - np.cos(np.pi / 120)) / 2)
    assert rates("cosine", 160, warmup=0)[0] == 0.5
    # However few the steps: the peak is reached, and the rate falls after it.
    for steps in (1, 2, 3, 5, 10):
        few = rates("cosine", steps, warmup=0.99)
        assert max(few) == 0.5
        assert all(rate > 0 for rate in few)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.98)])
def test_adamw_is_the_adamw_of_its_paper(betas: tuple[float, float]) -> None:
    """Against Loshchilov and Hutter 2019, algorithm 2, with the decay of all parameters."""
    recipe = Recipe(optimizer="adamw", lr=0.1, betas=betas, weight_decay=0.2, schedule="cosine", warmup=0)
    random = np.random.default_rng(0)
    start, gradients = random.normal(size=5), random.normal(size=(4, 5))
    parameter = nn.Parameter(torch.tensor(start))
    optimizer, scheduler = make_optimizer([parameter], recipe, 4)
    expected, m, v = start.copy(), np.zeros(5), np.zeros(5)
    for step, gradient in enumerate(gradients):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        scheduler.step()
        rate = 0.1 * (1 + np.cos(np.pi * step / 4)) / 2
        m = betas[0] * m + (1 - betas[0]) * gradient
        v = betas[1] * v + (1 - betas[1]) * gradient**2
        ahead = m / (1 - betas[0] ** (step + 1)) / (np.sqrt(v / (1 - betas[1] ** (step + 1))) + 1e-8)
        expected -= rate * (ahead + 0.2 * expected)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-6)


def test_gradients_are_clipped_by_their_norm_over_all_parameters() -> None:
    how: dict[str, Any] = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "schedule": "cosine", "warmup": 0}
    for norm, scale in ((None, 1.0), (10.0, 1.0), (2.5, 0.5)):
        parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
        optimizer, _ = make_optimizer(parameters, Recipe(clip_norm=norm, **how), 1)
        for parameter, gradient in zip(parameters, (3.0, 4.0), strict=True):
            parameter.grad = torch.tensor([gradient])
        optimizer.step()
        found = [parameter.item() for parameter in parameters]
        assert found == pytest.approx([-3 * scale, -4 * scale], rel=1e-5)


def test_optimizer_settings_stand_in_a_digest_where_they_are_read() -> None:
    assert {"optimizer", "betas", "warmup", "clip_norm"} & set(Recipe().described()) == set()
    same = [Recipe(), Recipe(betas=(0.5, 0.5)), Recipe(warmup=0.3), Recipe(epochs=6)]
    assert len({recipe.digest for recipe in same}) == 1
    adamw = Recipe(optimizer="adamw")
    assert adamw.digest == Recipe(optimizer="adamw", momentum=0.5, nesterov=False).digest
    cosine = Recipe(schedule="cosine")
    other = [Recipe(), adamw, cosine, Recipe(clip_norm=1), Recipe(optimizer="adamw", betas=(0.9, 0.98))]
    other += [replace(cosine, warmup=0.3), replace(adamw, lr=0.02)]
    assert len({recipe.digest for recipe in other}) == len(other)
    assert (adamw.lr, Recipe(network="resnet18", optimizer="adamw").lr) == (0.01, 1e-3)
    assert FineTune() == FineTune(lr=0.05)
    assert FineTune(optimizer="adamw").lr == 1e-3


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": "adam"}, {"schedule": "linear"}, {"betas": 0.9}, {"betas": (0.9, 1.0)}, {"betas": (0.9,) * 3},
        {"warmup": 1.0}, {"warmup": 500}, {"warmup": -0.1}, {"clip_norm": 0}, {"clip_norm": "1"}, {"lr": 0},
        {"momentum": -0.1}, {"momentum": 1}, {"weight_decay": -1e-4},
    ],
)  # fmt: skip
@pytest.mark.parametrize("settings", [Recipe, FineTune])
def test_wrong_optimizer_settings_are_refused(settings: type, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{settings.__name__}"):
        settings(**wrong)
