"""Rules of when to stop: what is proved holds, the rest is measured, and the order of arrival changes nothing."""

from __future__ import annotations

import numpy as np
import oracle_estimate as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pydt import Design, StoppingRule, design, influences
from pydt.base import ConfigError, EstimateError
from pydt.estimation import Look
from pydt.estimation.stopping import always_valid, t_radius

KINDS = ("random", "bernoulli", "foldover")


def drawn(kind: str, groups: int, models: int, seed: int, alpha: float = 0.4) -> Design:
    if kind == "foldover":
        return design.foldover(groups, models, seed)
    if kind == "stratified":
        return design.random(groups, models, 0.5, seed, strata=np.arange(groups) % 2)
    return getattr(design, kind)(groups, models, alpha, seed)


def test_rules_are_read_strictly() -> None:
    assert StoppingRule.parse("stderr < 0.01") == StoppingRule("stderr", size=0.01)
    assert StoppingRule.parse(" STDERR<1e-2 ") == StoppingRule("stderr", size=0.01)
    assert StoppingRule.parse("sign 10") == StoppingRule("sign", count=10)
    assert StoppingRule.parse("sign 3 level 0.01") == StoppingRule("sign", count=3, level=0.01)
    assert StoppingRule.parse("none") == StoppingRule.parse(None) == StoppingRule("none")
    for text in ("stderr < 0.01", "sign 3 level 0.01", "none"):
        assert str(StoppingRule.parse(text)) == text
    for wrong in ("", "stderr", "stderr > 1", "stderr < 0", "stderr < -1", "sign", "sign 0", "sign 2.5", "sign -1"):
        with pytest.raises(ConfigError, match="stop"):
            StoppingRule.parse(wrong)
    for wrong in ("sign 1 level 0", "sign 1 level 1", "sign 1 power 0.9", "stderr < 1e999", "never", 7):
        with pytest.raises(ConfigError, match="stop"):
            StoppingRule.parse(wrong)  # type: ignore[arg-type]


@settings(deadline=None)  # a loaded machine
@given(st.floats(0.01, 1e5), st.integers(1, 500), st.floats(1e-6, 0.5), st.sampled_from([0.25, 1.0, 8.0]))
def test_the_radius_is_where_the_likelihood_ratio_reaches_its_bound(
    ratio: float, df: int, level: float, phi: float
) -> None:
    """E written out from the densities of t: scaled by sqrt(c) under effects, unscaled without."""
    t = float(t_radius(np.array([ratio * phi]), phi, df, level)[0])
    if np.isfinite(t) and t < 1e6:
        root = np.sqrt(1 + ratio)
        log_ratio = stats.t.logpdf(t / root, df) - np.log(root) - stats.t.logpdf(t, df)
        assert log_ratio == pytest.approx(-np.log(level), abs=1e-4)
        assert t > stats.t.isf(level / 2, df)  # looking as often as one likes has its price
    elif not np.isfinite(t):
        assert 0.5 * df * np.log1p(ratio) <= -np.log(level) * (1 + 1e-9)  # even an infinite t would not do


def test_many_degrees_of_freedom_give_the_normal_mixture() -> None:
    """Robbins' boundary, as Waudby-Smith and others have it."""
    ratio = np.array([0.5, 3.0, 100.0])
    expected = np.sqrt((ratio + 1) / ratio * np.log((ratio + 1) / 0.05**2))
    np.testing.assert_allclose(t_radius(ratio, 1.0, 1e9, 0.05), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", [*KINDS, "stratified"])
def test_values_and_errors_are_those_of_ols(kind: str) -> None:
    made = drawn(kind, 20, 120, 0)
    y = np.random.default_rng(0).standard_normal((120, 3)) + np.asarray(made)[:, :3]
    found = always_valid(made, np.arange(120), y, 0.05)
    assert found is not None
    if kind == "foldover":
        values, stderr, df = oracle.half_differences(np.asarray(made).astype(float), y)
    else:
        values, stderr, df = oracle.ols(np.asarray(made).astype(float), y)
    np.testing.assert_allclose(found[0], values, atol=1e-10)
    share = 0.05 / 20
    wide = -2 * np.log(share) + np.log(1 - 2 * np.log(share))
    one = stderr / np.sqrt(found_noise(kind, made, y, df))  # for noise 1: the information is its square's inverse
    phi = 5 * 20 * made.alpha * (1 - made.alpha) / wide
    radius = t_radius(1 / one[:, 0] ** 2, phi, df, share)[:, None] * stderr
    np.testing.assert_allclose(found[1], radius, rtol=1e-8)
    if kind != "stratified":
        fit = influences(made, y, "ols", errors="classical")
        np.testing.assert_allclose(fit.unbiased, values, atol=1e-5)
        np.testing.assert_allclose(fit.stderr, stderr, rtol=1e-4)


def test_masks_that_repeat_by_chance_are_rows_of_their_own() -> None:
    """A design knows that its rows were drawn independently; only masks of one's own are averaged where they repeat."""
    made = design.bernoulli(3, 90, seed=1)
    y = np.random.default_rng(0).standard_normal((90, 2)) + np.asarray(made)[:, :2]
    found = always_valid(made, np.arange(90), y, 0.05)
    assert found is not None
    values, stderr, df = oracle.ols(np.asarray(made).astype(float), y)
    assert df == 86
    np.testing.assert_allclose(found[0], values, atol=1e-10)
    share, noise = 0.05 / 3, found_noise("bernoulli", made, y, df)
    wide = -2 * np.log(share) + np.log(1 - 2 * np.log(share))
    information = noise[0] / stderr[:, 0] ** 2
    radius = t_radius(information, 5 * 3 * 0.25 / wide, df, share)[:, None] * stderr
    np.testing.assert_allclose(found[1], radius, rtol=1e-8)


def found_noise(kind: str, made: Design, y: np.ndarray, df: int) -> np.ndarray:
    """Residual variance of one row."""
    masks = np.asarray(made).astype(float)
    if kind == "foldover":
        x, z = (masks[0::2] - masks[1::2]) / np.sqrt(2), (y[0::2] - y[1::2]) / np.sqrt(2)
    else:
        x, z = masks - masks.mean(0), y - y.mean(0)
    return ((z - x @ np.linalg.pinv(x) @ z) ** 2).sum(0) / df


def test_repeats_of_masks_of_ones_own_are_one_unit() -> None:
    """Rows of one mask that share all of their noise must not count as independent."""
    once = np.asarray(design.bernoulli(8, 60, seed=2))
    made = Design.explicit(np.repeat(once, 3, axis=0))
    y = np.random.default_rng(0).standard_normal((60, 2))
    single = always_valid(Design.explicit(once), np.arange(60), y, 0.05)
    triple = always_valid(made, np.arange(180), np.repeat(y, 3, axis=0), 0.05)
    assert single is not None
    assert triple is not None
    np.testing.assert_allclose(triple[0], single[0], atol=1e-9)
    assert (triple[1] > 0.9 * single[1]).all()


def decided(kind: str, groups: int, models: int, runs: int, noise: str, each: int = 50) -> np.ndarray:
    """Whether any group was ever decided in experiments without effects, bool (runs,)."""
    found = []
    for seed in range(runs // each):
        made = drawn(kind, groups, models, seed)
        rng = np.random.default_rng([seed, groups])
        y = rng.standard_normal((models, each))
        if noise == "accuracy":
            y = rng.binomial(25, 0.93, (models, each)) / 25
        rule, ever = StoppingRule("sign", count=1), np.zeros(each, bool)
        for rows in rule.prefixes(made):
            fit = always_valid(made, np.arange(rows), y[:rows], rule.level)
            if fit is not None:
                ever |= (np.abs(fit[0]) > fit[1]).any(0)
        found.append(ever)
    return np.concatenate(found)


@pytest.mark.parametrize("noise", ["gaussian", "accuracy"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_decided_where_nothing_is(kind: str, noise: str) -> None:
    """200 experiments of up to 20 models a group, about 50 looks each: at most 5 % + 3 SE with any group decided."""
    assert decided(kind, 12, 240, 200, noise).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["gaussian", "accuracy"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [5, 20, 62])
def test_nothing_is_decided_in_2000_experiments(kind: str, groups: int, noise: str) -> None:
    share = decided(kind, groups, 20 * groups if groups < 50 else 620, 2000, noise).mean()
    assert share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_looking_with_ordinary_intervals_would_break_the_promise() -> None:
    """What the rule protects from: 95 % intervals with Bonferroni, looked at as often, are wrong far more often."""
    wrong = 0
    for seed in range(4):
        made = drawn("bernoulli", 12, 480, seed)
        y, ever = np.random.default_rng(seed).standard_normal((480, 50)), np.zeros(50, bool)
        for rows in StoppingRule("sign", count=1).prefixes(made):
            fit = influences(made.take(np.arange(rows)), y[:rows], "ols")
            ever |= (np.abs(fit.unbiased / fit.stderr) > stats.t.isf(0.025 / 12, fit.df)).any(0)
        wrong += int(ever.sum())
    assert wrong / 200 > 0.13


def planted(made: Design, seed: int, size: float = 1.0) -> np.ndarray:
    effects = np.zeros(made.groups)
    effects[:4] = size, -size, size, -size
    return np.asarray(made) @ effects + 0.6 * np.random.default_rng(seed).standard_normal(len(made))


@pytest.mark.parametrize("text", ["sign 4", "stderr < 0.16"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_stop_is_the_same_whatever_the_order_of_arrival(kind: str, text: str) -> None:
    """Rows arrive in random orders or in one go: same prefix, same groups, and later rows change nothing."""
    made, rule = drawn(kind, 10, 200, 1), StoppingRule.parse(text)
    y = planted(made, 3)
    whole = rule.look(made, y)
    assert whole.stopped
    assert 0 < whole.rows < 200
    if text == "sign 4":
        assert set(whole.decided) >= {0, 1, 2, 3}
        assert [whole.signs[whole.decided.index(i)] for i in range(4)] == [1, -1, 1, -1]
    for seed in range(3):
        arrived, look = np.zeros(200, bool), None
        window = np.random.default_rng(seed).permutation(200) / 200 * 60 + np.arange(200)  # workers run ahead of others
        for row in np.argsort(window):
            arrived[row] = True
            prefix = int(arrived.argmin()) if not arrived.all() else 200
            if look is None or prefix >= look.next:
                look = rule.look(made, y[:prefix], look)
            if look.stopped:
                break
        assert look is not None
        assert (look.rows, look.decided, look.signs, look.reason) == (
            whole.rows,
            whole.decided,
            whole.signs,
            whole.reason,
        )
        assert look.looks == whole.looks
        np.testing.assert_array_equal(look.radius, whole.radius)
    assert rule.look(made, y[: whole.rows]).rows == whole.rows
    before = rule.look(made, y[: whole.rows - 1])
    assert not before.stopped
    assert before.next == whole.rows
    assert rule.look(made.extend(400), np.r_[y, np.zeros(200)]).rows == whole.rows  # a longer plan stops there, too
    assert kind != "foldover" or whole.rows % 2 == 0


def test_stderr_is_that_of_the_report_and_every_groups() -> None:
    made = drawn("bernoulli", 10, 200, 1)
    y = planted(made, 3)
    look = StoppingRule.parse("stderr < 0.16").look(made, y)
    fit = influences(made.take(np.arange(look.rows)), y[: look.rows], "ols")
    np.testing.assert_allclose(look.radius, fit.stderr)
    assert fit.stderr.max() < 0.16
    assert fit.stderr.max() > 0.14
    assert "largest standard error" in look.reason
    never = StoppingRule.parse("stderr < 0.001").look(made, y)
    assert not never.stopped
    assert never.next > 200


def test_failed_rows_are_left_out() -> None:
    rule = StoppingRule.parse("sign 4")
    for kind in KINDS:
        made = drawn(kind, 10, 200, 1)
        y = planted(made, 3)
        y[[7, 30, 31, 44]] = np.nan
        look = rule.look(made, y)
        assert look.stopped
        kept = np.arange(look.rows)[np.isfinite(y[: look.rows])]
        if kind == "foldover":
            kept = kept[np.isin(kept ^ 1, kept)]
        fit = influences(made.take(kept), y[kept], "ols")
        np.testing.assert_allclose(look.values, fit.unbiased, atol=1e-5)


@pytest.mark.parametrize("text", ["sign 1", "stderr < 0.16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_whose_first_rows_all_failed_goes_on(kind: str, text: str) -> None:
    made, rule = drawn(kind, 10, 400, 1), StoppingRule.parse(text)
    y = planted(made, 3)
    y[:70] = np.nan
    early = rule.look(made, y[:70])
    assert (early.stopped, early.values) == (False, None)
    assert early.rows > 0
    assert "0 of" in early.reason or "cannot tell" in early.reason
    y[7] = 0.5
    assert not rule.look(made, y[:70]).stopped
    assert rule.look(made, y).stopped


def test_outputs_without_noise_decide_nothing_by_rounding() -> None:
    """All models right on everything, or all differences explained: only true effects are decided."""
    made = drawn("bernoulli", 6, 80, 0)
    rule = StoppingRule.parse("sign 1")
    assert not rule.look(made, np.full(80, np.float32(0.93))).decided
    exact = (0.3 + 0.1 * np.asarray(made)[:, 2]).astype(np.float32)
    assert rule.look(made, exact).decided == (2,)


def test_an_output_that_never_changes_has_no_known_error() -> None:
    made = drawn("bernoulli", 6, 80, 0)
    look = StoppingRule.parse("stderr < 0.1").look(made, np.where(np.arange(80) == 3, np.nan, np.float32(0.93)))
    assert not look.stopped
    assert "the same in all" in look.reason


def test_looks_come_with_twenty_degrees_of_freedom_or_half_the_groups_and_then_with_a_twentieth_more_rows() -> None:
    def first(kind: str, groups: int, text: str) -> list[int]:
        return list(StoppingRule.parse(text).prefixes(drawn(kind, groups, 400, 0)))[:5]

    assert first("bernoulli", 10, "sign 1") == [31, 33, 35, 37, 39]
    assert first("bernoulli", 62, "sign 1") == [94, 99, 104, 110, 116]
    assert first("random", 10, "stderr < 1") == [22, 24, 26, 28, 30]
    assert first("random", 45, "stderr < 1") == [25, 27, 29, 31, 33]
    assert first("foldover", 10, "sign 1") == [62, 66, 70, 74, 78]
    assert first("foldover", 45, "sign 1") == [138, 146, 154, 162, 172]
    assert list(StoppingRule.parse("sign 1").prefixes(drawn("bernoulli", 10, 31, 0))) == [31]
    assert list(StoppingRule.parse("sign 1").prefixes(drawn("bernoulli", 10, 30, 0))) == []


def test_no_look_splits_a_cluster() -> None:
    masks = np.asarray(design.bernoulli(12, 60, seed=0))
    own = Design.explicit(np.concatenate([masks, ~masks[:3]]))
    assert list(StoppingRule("sign", count=1).prefixes(own)) == [63]
    assert StoppingRule("sign", count=1).look(own, np.arange(62.0)).next == 63
    pairs = np.asarray(design.foldover(12, 120, seed=0))
    ends = list(StoppingRule("sign", count=1).prefixes(Design.explicit(pairs)))
    assert ends
    assert all(rows % 2 == 0 for rows in ends)
    none = StoppingRule("sign", count=1).look(np.repeat(masks[:30], 2, axis=0)[np.r_[:60:2, 1:60:2]], np.zeros(59))
    assert (none.stopped, none.rows) == (False, 0)


def test_a_rule_made_by_hand_means_something_or_is_refused() -> None:
    assert StoppingRule("sign", count=2) == StoppingRule.parse("sign 2")
    for fields in (
        {"kind": "sign"},
        {"kind": "sing", "count": 2},
        {"kind": "sign", "count": 2, "level": 0.0},
        {"kind": "stderr"},
    ):
        with pytest.raises(ConfigError, match="is no rule"):
            StoppingRule(**fields)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="since"):
        StoppingRule("sign", count=2).look(design.bernoulli(5, 50), [], since=3)  # type: ignore[arg-type]


def test_what_cannot_be_judged_is_refused() -> None:
    made, rule = drawn("random", 10, 50, 0), StoppingRule.parse("sign 11")
    with pytest.raises(ConfigError, match="11 of 10"):
        rule.look(made, np.zeros(10))
    rule = StoppingRule.parse("sign 1")
    for wrong in (np.zeros((10, 2)), np.zeros(51), np.array(["a"])):
        with pytest.raises(EstimateError, match="outputs"):
            rule.look(made, wrong)
    with pytest.raises(EstimateError, match="row 3"):
        rule.look(made, [0, 1, 2, np.inf])
    with pytest.raises(EstimateError, match="not in pairs"):
        rule.look(drawn("foldover", 4, 80, 0).take(np.arange(79) + 1), np.arange(79.0))
    look = StoppingRule.parse("none").look(made, np.zeros(50))
    assert isinstance(look, Look)
    assert not look.stopped


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_intervals_after_a_stop_for_precision_cover(kind: str) -> None:
    """400 experiments: 95 % intervals where "stderr < 0.25" stopped hold 93 to 96.5 % of the truths."""
    rule, held = StoppingRule.parse("stderr < 0.25"), []
    for seed in range(400):
        made = drawn(kind, 12, 240, seed // 10)
        rng = np.random.default_rng(seed)
        effects = rng.standard_normal(12)
        effects -= effects.mean()
        look = rule.look(made, np.asarray(made) @ effects + rng.standard_normal(240))
        assert look.stopped
        units = look.rows / (2 if kind == "foldover" else 1)
        bound = stats.t.isf(0.025, units - 12 - (kind == "bernoulli"))
        held.append((np.abs(look.values - effects) <= bound * look.radius).mean())
    assert 0.93 < np.mean(held) < 0.965
