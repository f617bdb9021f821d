"""How many models: what is planned comes true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from stub_pilots import drawn, planted, study, timed

from pydt import Design, design, influences, models_for_stderr, plan_models
from pydt.base import ConfigError, EstimateError
from pydt.data import Dataset, Target
from pydt.estimation import ModelPlan, best_method, few_masks, overall
from pydt.estimation.goal import Wish
from pydt.estimation.power import Law, plan_fit, power_of


def test_masks_of_one_size_may_be_few() -> None:
    said = few_masks(design.random(4, 20, alpha=0.5))
    assert said is not None
    assert "only 6 masks of this size (2 kept)" in said
    assert "bernoulli" in said
    for enough in (design.random(6, 20, alpha=0.5), design.bernoulli(4, 20), design.random(62, 20, alpha=0.25)):
        assert few_masks(enough) is None
    assert few_masks(design.random(30, 20, alpha=1 / 30)) is not None, "one kept"
    assert "only 3 pairs" in (few_masks(design.foldover(3, 20)) or "")
    assert few_masks(design.foldover(4, 20)) is None


def test_wishes_are_read_strictly() -> None:
    assert Wish.parse("stderr < 0.5") == Wish("stderr", 0.5)
    assert Wish.parse("STDERR<.5e-1") == Wish("stderr", 0.05)
    assert Wish.parse("effect 1.0") == Wish("effect", 1.0, 0.8, 0.05)
    assert Wish.parse("effect -2 level 0.01 power 0.9") == Wish("effect", 2.0, 0.9, 0.01)
    assert Wish.parse("effect 1 q 0.1") == Wish("effect", 1.0, 0.8, 0.1, True)
    assert Wish.parse("effect 1 q 0.1").per_group(50) == 0.1 / 50
    for text, said in {
        "": "is not a wish",
        "stder < 1": "did you mean 'stderr'",
        "stderr > 1": "is not a wish",
        "stderr < 1 power 0.9": "is not a wish",
        "stderr < 0": "not a positive number",
        "stderr < -1": "not a positive number",
        "stderr < nan": "not a positive number",
        "stderr < 1e999": "not a positive number",
        "stderr < 0.5.1": "not a positive|is not a wish",
        "effect": "is not a wish",
        "effect 0": "not a number",
        "effect 1 power": "is not a wish",
        "effect 1 powr 0.9": "did you mean 'power'",
        "effect 1 power 80": "not between 0 and 1",
        "effect 1 power 0.8 power 0.9": "twice",
        "effect 1 level 0.1 q 0.1": "exclude each other",
        "effect 1 power 0.04": "no more than the level",
    }.items():
        with pytest.raises(ConfigError, match=said):
            Wish.parse(text)
    with pytest.raises(ConfigError):
        Wish.parse(3)  # type: ignore[arg-type]


def test_masks_and_outputs_are_no_store() -> None:
    with pytest.raises(ConfigError, match=r"store: a ndarray is no store.*models_for_stderr"):
        plan_models(np.zeros((3, 4)), "stderr < 1")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="wish: a ndarray is not a wish"):
        plan_models("anywhere", np.zeros((300, 4)))  # type: ignore[arg-type]


@settings(deadline=None)  # a loaded machine
@given(st.text("stderfclvlpowq<> .0159e-+", max_size=30))
def test_any_text_is_a_wish_or_a_config_error(text: str) -> None:
    try:
        wish = Wish.parse(text)
    except ConfigError:
        return
    assert Wish.parse(str(wish)).kind == wish.kind


@settings(deadline=None)  # a loaded machine
@given(st.floats(3, 1e4), st.floats(0, 12), st.floats(1e-4, 0.3))
def test_power_is_that_of_the_noncentral_t(df: float, centre: float, level: float) -> None:
    bound = stats.t.isf(level / 2, df)
    expected = stats.nct.sf(bound, df, centre) + stats.nct.cdf(-bound, df, centre)
    if np.isfinite(expected):  # scipy's gives up far out in the tails
        assert power_of(centre, 1.0, df, level) == pytest.approx(expected, abs=1e-3)
    assert power_of(centre + 1, 1.0, df, level) >= power_of(centre, 1.0, df, level) >= level - 1e-3


def plans(made: Design, outputs: np.ndarray, now: int, wish: Wish) -> list[ModelPlan]:
    rows = np.arange(now)
    part = made.take(rows)
    method = best_method(part)
    return [plan_fit(influences(part, outputs[:now, j], method), made, rows, wish) for j in range(outputs.shape[1])]


@pytest.mark.parametrize(
    ("kind", "groups", "now"),
    [
        ("random", 30, 90),
        ("bernoulli", 30, 60),
        ("foldover", 20, 76),  # inside the second block, and inside the third after doubling
        ("foldover", 20, 64),
        ("foldover", 4, 60),
        ("bernoulli", 4, 60),
    ],
)
def test_doubling_as_planned_gives_the_wished_stderr(kind: str, groups: int, now: int) -> None:
    """Mean over 400 targets of the squared error: planned without bias; one plan has the noise of its own s."""
    made = drawn(kind, groups, 2 * now, 0.4, 3)
    outputs = planted(made, 400, 0.5)
    rows = np.arange(now)
    then, before = influences(made, outputs, "ols"), influences(made.take(rows), outputs[:now], "ols")
    fit = influences(made.take(rows), outputs[:now, 0], "ols")
    wish = Law(fit, made, rows, None).stderr(2 * now)
    plan = plan_fit(fit, made, rows, Wish("stderr", wish * (1 + 1e-9)))
    assert (plan.models, plan.now, plan.more, plan.method) == (2 * now, now, now, "ols")
    ratio = wish / plan.stderr * np.sqrt((np.median(before.stderr, 0) ** 2).mean())
    found = np.sqrt((np.median(then.stderr, 0) ** 2).mean()) / ratio
    assert found == pytest.approx(1, abs=0.013)  # as docs/how-many-models.md says
    assert all(a[1] >= b[1] for a, b in zip(plan.curve, plan.curve[1:], strict=False))
    assert plan.curve[0][1] >= plan.stderr


@pytest.mark.parametrize(
    ("kind", "groups", "alpha"), [("bernoulli", 20, 0.5), ("random", 20, 0.25), ("foldover", 20, 0.5)]
)
def test_planned_power_is_reached(kind: str, groups: int, alpha: float) -> None:
    """One group has the effect: found in 80 % of 3,000 fresh experiments, at level 0.01 and at least with q 0.1."""
    made = drawn(kind, groups, 60, alpha, 0)
    fit = influences(made, np.random.default_rng(0).standard_normal(60), "ols")
    unit = float(fit.noise) ** 0.5  # the noise of one model, as the plan sees it
    if fit.errors == "robust":
        plain = influences(made, np.random.default_rng(0).standard_normal(60), "ols", errors="classical")
        unit *= float(np.sqrt((fit.stderr**2).mean()) / np.median(plain.stderr))
    effect = 0.8 * unit
    shares: dict[str, list[float]] = {"level": [], "q": []}
    for name in shares:
        wish = Wish.parse(f"effect {effect} power 0.8 {name} {0.01 if name == 'level' else 0.1}")
        plan = plan_fit(fit, made, np.arange(60), wish)
        for seed in range(30):
            fresh = drawn(kind, groups, plan.models, alpha, 100 + seed)
            group = seed % groups
            size = effect * (groups / (groups - 1) if kind == "random" else 1)  # less the mean over groups
            noise = unit * np.random.default_rng(seed).standard_normal((plan.models, 100))
            found = influences(fresh, size * np.asarray(fresh)[:, [group]] + noise, "ols")
            p = 2 * stats.t.sf(np.abs(found.unbiased / found.stderr), found.df)
            shares[name].append(float((p[group] < 0.01).mean() if name == "level" else (found.q[group] < 0.1).mean()))
    assert np.mean(shares["level"]) == pytest.approx(0.8, abs=0.035)  # 3 SE over 3,000 runs, and the step of one model
    assert 0.77 < np.mean(shares["q"]) < 0.92


def test_few_models_are_planned_by_the_lasso_first() -> None:
    made = design.bernoulli(40, 400, 0.5, seed=1)
    outputs = planted(made, 1, 0.5)
    for plan in plans(made, outputs, 40, Wish("stderr", 0.01)):
        assert plan.method == "ols"
        assert "OLS from 61 models" in plan.assumption
    fit = influences(made.take(np.arange(30)), outputs[:30, 0], "lasso")
    near = plan_fit(fit, made, np.arange(30), Wish("stderr", float(np.median(fit.stderr)) * 0.9))
    assert near.method == "lasso"
    assert near.models == 38  # 30 / 0.81 = 37.04
    better = plan_fit(fit, made, np.arange(30), Wish("stderr", 0.1), noise=float(fit.noise) / 4)
    worse = plan_fit(fit, made, np.arange(30), Wish("stderr", 0.1))
    assert better.models < worse.models
    assert "the LASSO leaves" in worse.assumption
    assert "the LASSO leaves" not in better.assumption


def test_masks_of_ones_own_follow_the_law() -> None:
    made = design.bernoulli(15, 60, 0.5, seed=1)
    own = Design.explicit(np.asarray(made))
    outputs = planted(made, 1, 0.3)[:, 0]
    fit = influences(own, outputs, "ols")
    wish = float(np.median(fit.stderr)) / 3
    plan = plan_fit(fit, own, np.arange(60), Wish("stderr", wish))
    assert abs(plan.models - models_for_stderr(fit, wish)) <= 1
    known = plan_fit(fit, made, np.arange(60), Wish("stderr", wish))
    assert plan.models == pytest.approx(known.models, rel=0.05)
    with pytest.raises(EstimateError, match="more than"):
        plan_fit(fit, own, np.arange(60), Wish("stderr", 1e-9))


def test_orthogonal_masks_spend_no_models_on_other_groups() -> None:
    """Four blocks need half the error of one: the parameters of the regression do not come into it."""
    made = design.foldover(40, 128, 0)
    fit = influences(made, planted(made, 1, 0.5)[:, 0], "ols")
    assert models_for_stderr(fit, float(np.median(fit.stderr)) / 2) == pytest.approx(512, abs=2)
    with pytest.raises(EstimateError, match="more than"):
        models_for_stderr(fit, 1e-300)


def test_a_store_is_planned_as_it_is_reported(tmp_path: Path, source: Dataset, target: Target) -> None:
    store = study(tmp_path, source, target, (0.5,))
    timed(store, {store.plan().digest: 2.0})
    fit = overall(store)
    now = float(np.median(fit.stderr))
    plan = plan_models(tmp_path, f"stderr < {now / 2}")
    assert plan.now == 60
    assert plan.stderr == pytest.approx(now)
    assert plan.models == pytest.approx(models_for_stderr(fit, now / 2), rel=0.1)
    assert plan.seconds == pytest.approx(2.0 * (plan.models - 60))
    assert plan.unit == "points of accuracy"
    assert "stderr <" in str(plan)
    done = plan_models(store, f"stderr < {now * 1.5}")
    assert (done.more, done.seconds) == (0, 0.0)
    assert done.models <= 60
    found = plan_models(store, "effect 5 power 0.9")
    assert "no allowance is made for 8 groups" in found.assumption
    family = plan_models(store, "effect 5 power 0.9 q 0.05")
    assert "Benjamini-Hochberg" in family.assumption
    assert found.models < family.models
    chances = [chance for _, _, chance in found.curve]
    assert chances == sorted(chances)
    assert {m: c for m, _, c in found.curve}[found.models] >= 0.9
    (tmp_path / "log.jsonl").unlink()
    assert plan_models(store, "effect 5").seconds is None


def test_robust_errors_are_planned_by_their_mean_square() -> None:
    """Each is a few squares' worth: their median is too small, by 7 % of the models here."""
    made = design.bernoulli(20, 60, 0.2, seed=0, placebos=0)
    outputs = np.random.default_rng(0).standard_normal((60, 1000))
    fit = influences(made, outputs, "ols")
    assert fit.errors == "robust"
    scatter = float(np.sqrt((fit.values.astype(np.float64) ** 2).mean()))  # the truth is 0
    typical = [models_for_stderr(influences(made, outputs[:, j], "ols"), scatter) for j in range(0, 1000, 5)]
    assert np.mean(typical) > 59
    assert models_for_stderr(fit, scatter) == pytest.approx(60, abs=1.5)
