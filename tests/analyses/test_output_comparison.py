"""Outputs compared: equal to brute force over disjoint halves, right about what is planted and noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import oracle_rankings as oracle
import pytest
from scipy import stats
from stub_influence import Additive, filled, many_classes, plan_of
from stub_outputs import CORRECT, GROUPS, OTHER, columns_of

from pydt import design
from pydt.analyses import compare_outputs
from pydt.analyses.sample_splitting import halves
from pydt.base import ConfigError
from pydt.data import Target
from pydt.ensemble import Plan
from pydt.reporting import write_pages
from pydt.store import Store


def test_outputs_are_compared_as_by_brute_force(two_logits: tuple[Store, Plan]) -> None:
    store, plan = two_logits
    names = ("logit", "margin", "correct")
    found = compare_outputs(store, plan, outputs=names, seed=7)
    y, masks = columns_of(store, names), store.masks().astype(float)
    values, stderr, _ = oracle.least_squares(masks, y)
    assert np.allclose(found.values, values, atol=1e-4)
    assert np.allclose(found.stderr, stderr, atol=1e-4)
    apart = np.zeros((3, 3))
    for one, other in halves(plan.design, found.splits, "outputs", 7):
        a, b = (oracle.least_squares(masks[rows], y[rows])[0] for rows in (one, other))
        for i, j in np.ndindex(3, 3):
            apart[i, j] += stats.spearmanr(a[:, i], b[:, j])[0] + stats.spearmanr(a[:, j], b[:, i])[0]
    assert np.allclose(found.apart, apart / 2 / found.splits, atol=1e-6)
    for i, j in np.ndindex(3, 3):
        assert found.together[i, j] == pytest.approx(stats.spearmanr(values[:, i], values[:, j])[0])
    assert np.allclose(found.ceiling**2, np.outer(np.diag(found.apart), np.diag(found.apart)))
    pearson = 2 * np.sin(np.pi / 6 * found.apart)
    expected = 6 / np.pi * np.arcsin(pearson[0, 1] / np.sqrt(pearson[0, 0] * pearson[1, 1]) / 2)
    assert found.agreement[0, 1] == pytest.approx(expected)


def test_agreement_without_noise_is_that_of_the_truth(two_logits: tuple[Store, Plan]) -> None:
    """Noise that both outputs share, with opposite signs, must not make them look different, nor alike."""
    found = compare_outputs(two_logits[0], outputs=("logit", "margin"))
    truth = stats.spearmanr(CORRECT, CORRECT - OTHER)[0]
    assert abs(found.agreement[0, 1] - truth) < 2 * found.agreement_stderr[0, 1] + 0.05
    assert found.agreement[0, 0] == pytest.approx(1)
    assert (np.diag(found.apart) > 0.5).all()
    assert found.own[1].p < 0.05
    assert found.accuracy[1].correlation > found.accuracy[0].correlation, "the margin decides what is right"


def test_of_noise_nothing_is_said(noisy: Store) -> None:
    found = compare_outputs(noisy, outputs=("correct", "margin"))
    assert found.together[0, 1] > 0.5, "one set of models makes outputs look alike"
    assert abs(found.apart[0, 1]) < 0.5
    assert np.isnan(found.agreement[0, 1])
    assert "nothing can be said" in found.page().answer[0]


def test_the_page_and_refusals(two_logits: tuple[Store, Plan], tmp_path: Path) -> None:
    store, _ = two_logits
    write_pages([compare_outputs(store).page()], tmp_path, "blobs")
    assert len((tmp_path / "outputs" / "pairs.csv").read_text().splitlines()) == 11
    assert len((tmp_path / "outputs" / "influences.csv").read_text().splitlines()) == 1 + GROUPS
    with pytest.raises(ConfigError, match="two or more of: correct"):
        compare_outputs(store, outputs=("margin",))
    with pytest.raises(ConfigError, match="unknown output 'loss'"):
        compare_outputs(store, outputs=("margin", "loss"))


def test_saturated_outputs_do_not_agree(tmp_path: Path, target: Target) -> None:
    count = len(target.described()["labels"])
    plan = plan_of(many_classes(), target, design.random(GROUPS, 60, alpha=0.5))
    store = filled(tmp_path, plan, Additive(np.full(count, 50.0), np.zeros((GROUPS, count))))
    found = compare_outputs(store, outputs=("correct", "margin"))
    assert found.images[0] is None
    assert np.isnan(found.agreement[0, 1])
    found.page()
