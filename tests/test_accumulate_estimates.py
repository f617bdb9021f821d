"""Estimates from an accumulator are those from the outputs themselves."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from test_accumulate import DESIGNS, filled, outputs_of

import pydt
from pydt import design
from pydt.accumulate import Accumulator
from pydt.errors import EstimateError
from pydt.fit import Fit

PAGE = Path(__file__).parent.parent / "docs" / "streaming.md"
METHODS: list[tuple[str, dict[str, int]]] = [
    ("difference", {}),
    ("ols", {}),
    ("ridge", {}),
    ("ridge", {"cv": 5}),
    ("lasso", {}),
    ("lasso", {"cv": 5}),
]
FIELDS = ("values", "unbiased", "placebo_values")
PER_TARGET = ("noise", "training_noise", "mask_noise", "penalty", "df", "explained")


def assert_same(one: Fit, other: Fit, share: float) -> None:
    """Equal to a share of the standard error."""
    assert (one.models, one.estimand, one.method) == (other.models, other.estimand, other.method)
    np.testing.assert_array_equal(one.counts, other.counts)
    for name in FIELDS:
        a, b = getattr(one, name), getattr(other, name)
        error = other.placebo_stderr if name == "placebo_values" else other.stderr
        assert (a is None) == (b is None), name
        if a is not None:
            np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
            # results are float32, and a ridge or a LASSO path stops within its tolerance
            limit = share * error + 2e-7 * np.abs(b)
            assert np.nanmax(np.abs(a - b) / limit, initial=0) <= 1, name
    np.testing.assert_allclose(one.stderr, other.stderr, rtol=max(share, 2e-7))
    for name in PER_TARGET:
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=0, atol=10 * share * np.nanmax(np.abs(b)), err_msg=name)


@pytest.mark.parametrize("name", DESIGNS)
def test_every_method_agrees(name: str) -> None:
    plan = DESIGNS[name]
    outputs = outputs_of(plan, 5, "float64")
    accumulator = filled(plan, outputs)
    for method, how in METHODS:
        direct = pydt.influences(plan, outputs, method, **how, errors="classical")
        assert_same(pydt.influences(accumulator, method=method, **how), direct, 1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", ["random, wide", "bernoulli", "foldover"])
def test_small_floats_agree_to_rounding(name: str, dtype: str) -> None:
    plan = DESIGNS[name]
    random = np.random.default_rng(0)
    outputs = np.asarray(plan) @ random.normal(size=(plan.groups, 70)) / 3 + random.normal(size=(len(plan), 70))
    accumulator = filled(plan, outputs.astype(dtype))
    for method in ("difference", "ols"):
        assert_same(
            pydt.influences(accumulator, method=method),
            pydt.influences(plan, outputs.astype(dtype), method, errors="classical"),
            1e-5,
        )


@pytest.mark.parametrize("name", ["random, wide", "bernoulli", "foldover", "bernoulli, repeats", "random"])
def test_rows_that_are_missing_or_failed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = DESIGNS[name]
    outputs = outputs_of(plan, 4, "float64")
    random = np.random.default_rng(5)
    missing = np.flatnonzero(random.random(len(plan)) < 0.1)
    missing = np.union1d(missing, np.arange(200, 290))
    lost = missing[::3]
    arrived = np.setdiff1d(np.arange(len(plan)), missing)
    accumulator = filled(plan, outputs, arrived, tuple(lost))
    masks = accumulator.statistics().geometry.masks
    # the folds of the whole plan, which the rows alone do not know
    monkeypatch.setattr("pydt.inputs.assign_folds", lambda *_: masks.folds(5)[masks.units.used])
    for method, how in METHODS:
        direct = pydt.influences(plan.take(arrived), outputs[arrived], method, **how, errors="classical")
        assert_same(pydt.influences(accumulator, method=method, **how), direct, 1e-6)


def test_the_first_rows_of_a_plan_have_the_folds_they_would_have_alone() -> None:
    for plan in (DESIGNS["bernoulli"], DESIGNS["foldover"]):
        outputs = outputs_of(plan, 3, "float64")
        accumulator = filled(plan, outputs, np.arange(520))
        direct = pydt.influences(plan.take(np.arange(520)), outputs[:520], "lasso", errors="classical")
        assert_same(pydt.influences(accumulator, method="lasso"), direct, 1e-6)


def test_tiles_of_targets_and_one_target() -> None:
    plan = design.bernoulli(60, 1100, seed=0)
    outputs = outputs_of(plan, 9000, "float32")  # more than one tile
    fit = pydt.influences(filled(plan, outputs), method="ols")
    assert_same(fit, pydt.influences(plan, outputs, "ols", errors="classical"), 1e-4)
    tile = Accumulator(plan, slice(8990, None))
    tile.add(np.arange(len(plan)), outputs)
    part = pydt.influences(tile, method="ols")
    np.testing.assert_allclose(part.values, fit.values[:, 8990:], rtol=1e-5, atol=1e-6)
    single = Accumulator(plan)
    single.add(np.arange(len(plan)), outputs[:, 0])
    assert pydt.influences(single).values.shape == (60,)
    out = np.empty((60, 10), np.float32)
    assert pydt.influences(tile, method="ols", out=out).values is out
    np.testing.assert_array_equal(out, part.values)


def test_a_view_without_rows_gives_what_the_rest_gives() -> None:
    plan = DESIGNS["foldover"]
    outputs = outputs_of(plan, 3, "float64")
    gone = np.r_[10:14, 400:402]
    outputs[gone] += 1e3  # models that went wrong
    rest = np.setdiff1d(np.arange(len(plan)), gone)
    view = filled(plan, outputs).statistics().remove(gone, outputs[gone])
    for method in ("difference", "ols"):
        direct = pydt.influences(plan.take(rest), outputs[rest], method, errors="classical")
        assert_same(pydt.influences(view, method=method), direct, 1e-6)


def test_flagged_targets_are_nan_and_spoil_no_other() -> None:
    plan = DESIGNS["random"]
    outputs = outputs_of(plan, 4, "float32")
    outputs[300, 1], outputs[0, 2] = np.nan, np.inf
    accumulator = Accumulator(plan, nan="flag")
    accumulator.add(np.arange(len(plan)), outputs)
    for method in ("difference", "ols", "lasso"):
        fit = pydt.influences(accumulator, method=method)
        direct = pydt.influences(plan, outputs, method, nan="flag", errors="classical")
        assert np.isnan(fit.values[:, 1:3]).all()
        # a gap of 1e-6 with 700 models leaves a solution within about sqrt(700e-6) errors of the optimum
        assert_same(fit, direct, 0.04 if method == "lasso" else 1e-4)
    huge = filled(plan, np.full((len(plan), 2), 1e37) * np.arange(len(plan))[:, None])
    with pytest.raises(EstimateError, match="target 0: outputs are too large or small for float32"):
        pydt.influences(huge)


def test_few_rows_are_refused_with_the_mend() -> None:
    plan, outputs = DESIGNS["foldover"], outputs_of(DESIGNS["foldover"])
    with pytest.raises(EstimateError, match="no row has arrived"):
        pydt.influences(Accumulator(plan))
    with pytest.raises(EstimateError, match=r"groups? .* of the 1 models that have arrived.*more rows"):
        pydt.influences(filled(plan, outputs, np.array([5])))
    some = np.arange(0, 60, 2)
    with pytest.raises(EstimateError, match=r"no mask has arrived with its complement.*add more rows"):
        pydt.influences(filled(plan, outputs, some))
    whole = filled(plan, outputs)
    with pytest.raises(EstimateError, match=r"10 folds, but the rows were summed in 5.*use 5"):
        pydt.influences(whole, method="ridge", cv=10)
    with pytest.raises(EstimateError, match="statistics bring their own"):
        pydt.influences(whole, outputs)


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not here")
def test_the_example_of_the_documentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    exec(compile(script, PAGE.name, "exec"), {})
    assert capsys.readouterr().out.split("\n")[:2] == re.findall(r"print\(.*?\)\s+# (.*)", script)
