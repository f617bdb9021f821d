"""Stability: equal to brute force over disjoint sets of models, and nothing for noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import oracle_rankings as oracle
import pytest
from matplotlib import pyplot
from scipy import stats
from stub_influence import Additive, filled, many_classes, plan_of
from stub_outputs import GROUPS, MODELS, columns_of

from pydt import design
from pydt.analyses import stability
from pydt.analyses.agreement import spearman_brown
from pydt.analyses.sample_splitting import halves
from pydt.base import ConfigError, EstimateError
from pydt.data import Target
from pydt.ensemble import Plan
from pydt.reporting import write_pages
from pydt.store import Store


def test_stability_is_that_of_disjoint_sets(two_logits: tuple[Store, Plan]) -> None:
    store, plan = two_logits
    found = stability(store, plan, sizes=(60, 45), top=4, seed=3)
    y, masks = columns_of(store, ("correct",)), store.masks().astype(float)
    assert found.sizes.tolist() == [45, 60]
    assert found.methods == ("ols", "ols")
    for at, size in enumerate((45, 60)):
        rank, shared, apart, told = [], [], [], []
        for one, other in halves(plan.design, found.splits, "stability", 3, size=size):
            assert len(one) == len(other) == size
            (a, error), (b, other_error) = (oracle.least_squares(masks[rows], y[rows])[:2] for rows in (one, other))
            apart.append(((a - b) ** 2).mean() / 2)
            told += [(error**2).mean(), (other_error**2).mean()]
            a, b = a[:, 0], b[:, 0]
            rank.append(stats.spearmanr(a, b)[0])
            shared.append([len(set(np.argsort(s * a)[:4]) & set(np.argsort(s * b)[:4])) / 4 for s in (-1, 1)])
        assert found.rank[at] == pytest.approx(np.mean(rank), abs=1e-6)
        assert np.allclose(found.overlap[:, at], np.mean(shared, 0))
        assert found.differ[at] == pytest.approx(np.mean(apart) ** 0.5, rel=1e-4)
        assert found.stderr[at] == pytest.approx(np.mean(told) ** 0.5, rel=1e-4)
        assert 0.8 < found.differ[at] / found.stderr[at] < 1.25
        assert found.low[at] < found.rank[at] < found.high[at]
    factor = (MODELS - GROUPS - 1) / (60 - GROUPS - 1)
    assert found.further.tolist() == [120, 240, 480]
    assert found.expected[0] == pytest.approx(spearman_brown(found.rank[1], np.array(factor)))
    assert (np.diff(found.expected) > 0).all()
    values, stderr, _ = oracle.least_squares(masks, y)
    assert found.by_errors == pytest.approx(1 - (stderr**2).mean() / values.var(ddof=1), abs=1e-3)
    assert abs(found.by_errors - found.expected[0]) < 0.2


def test_stability_per_class_and_image_is_the_mean_over_them(two_logits: tuple[Store, Plan], noisy: Store) -> None:
    store, plan = two_logits
    found = stability(store, plan, per="class", sizes=(60,), output="margin")
    y = np.asarray(store.outputs(store.plan().tasks[0]["digest"], "margin"), np.float64)
    labels, masks = store.examples(store.plan().tasks[0]["digest"])["labels"], store.masks().astype(float)
    y = np.stack([y[:, labels == c].mean(1) for c in range(4)], 1)
    rank = []
    for one, other in halves(plan.design, found.splits, "stability", 0, size=60):
        a, b = (oracle.least_squares(masks[rows], y[rows])[0] for rows in (one, other))
        rank += [stats.spearmanr(a[:, c], b[:, c])[0] for c in range(4)]
    assert found.rank[0] == pytest.approx(np.mean(rank), abs=1e-6)
    nothing = stability(noisy, per="example", output="margin")
    assert nothing.columns == 60
    assert nothing.methods[-1] == "ols"
    assert (np.abs(nothing.rank) < 3 * nothing.rank_stderr + 0.02).all()
    assert np.allclose(nothing.overlap, 0.25, atol=0.1), "five of twenty, by chance"


def test_it_shows_itself_in_python_and_notebooks(two_logits: tuple[Store, Plan]) -> None:
    store, _ = two_logits
    found = stability(store)
    line = repr(found)
    assert f"{found.models} models; rankings by {found.sizes.max()} models each agree at " in line
    assert found._repr_html_().count("<tr>") == 1 + len(found.sizes)
    ax, order = found.plot(), np.argsort(found.sizes)
    assert np.array_equal(ax.containers[0][0].get_ydata(), found.rank[order])
    ends = np.array([segment[:, 1] for segment in ax.containers[0][2][0].get_segments()])
    assert np.allclose(ends, np.stack([found.low, found.high], 1)[order])
    pyplot.close(ax.figure)
    pytest.importorskip("pandas")
    frame = found.to_frame()
    assert frame["models"].tolist() == found.sizes.tolist()
    for name in ("rank", "low", "high", "differ", "stderr", "rank_stderr"):
        assert np.array_equal(frame[name], getattr(found, name), equal_nan=True), name
    assert np.array_equal(frame[["overlap_highest", "overlap_lowest"]].to_numpy().T, found.overlap)


def test_pages_and_refusals(two_logits: tuple[Store, Plan], tmp_path: Path) -> None:
    store, _ = two_logits
    write_pages([stability(store).page()], tmp_path, "blobs")
    text = (tmp_path / "stability" / "stability.csv").read_text()
    assert text.count("True") + text.count("true") >= 2
    page = (tmp_path / "stability.html").read_text()
    assert "Extrapolated, not measured" in page.replace("\u00a0", " ")
    with pytest.raises(ConfigError, match="two disjoint sets have at most 60 each"):
        stability(store, sizes=(61,))
    with pytest.raises(ConfigError, match="per 'pixel'"):
        stability(store, per="pixel")
    with pytest.raises(ConfigError, match="21 of 20 groups"):
        stability(store, top=21)


def test_saturated_outputs_have_no_ranking(tmp_path: Path, target: Target) -> None:
    count = len(target.described()["labels"])
    plan = plan_of(many_classes(), target, design.random(GROUPS, 60, alpha=0.5))
    store = filled(tmp_path, plan, Additive(np.full(count, 50.0), np.zeros((GROUPS, count))))
    with pytest.raises(EstimateError, match="all models give the same output"):
        stability(store)
