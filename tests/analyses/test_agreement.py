"""Rank agreement and its error, and what more models would give."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pydt.analyses.agreement import agreement, spearman_brown


def test_agreement_is_the_mean_of_spearmans_and_its_error_is_that_of_samples() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 3, 50, 2))
    mean, draws = agreement(one, other)
    for i, j in np.ndindex(2, 2):
        pairs = [(a[:, i], b[:, j]) for a, b in zip(one, other, strict=True)]
        pairs += [(a[:, j], b[:, i]) for a, b in zip(one, other, strict=True)]
        assert mean[i, j] == pytest.approx(np.mean([stats.spearmanr(*pair)[0] for pair in pairs]))
    single, alone = agreement(one, other, columns=False)
    assert single == pytest.approx(np.diag(mean).mean())
    assert draws.shape == (400, 2, 2)
    assert alone.shape == (400,)
    apart = [agreement(*random.normal(size=(2, 1, 50, 1)), columns=False)[0] for _ in range(200)]
    assert 1 < draws.std(0)[0, 0] * 3**0.5 / np.std(apart) < 1.7, "three splits here that share nothing; widened by 1.2"


def test_spearman_and_brown_hold_for_noisy_influences() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=20_000)
    for factor in (1, 2, 5):
        few, many = ([truth + 2 * random.normal(size=truth.size) / root for _ in range(2)] for root in (1, factor**0.5))
        small, large = stats.spearmanr(*few)[0], stats.spearmanr(*many)[0]
        assert spearman_brown(np.array(small), np.array(factor)) == pytest.approx(large, abs=0.02)
