"""A fit in Python and notebooks: its line, its table, its frame and its plot say what its attributes hold."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats

import pydt
from pydt.base import ConfigError, EstimateError
from pydt.estimation import joint_influences, prediction_test

GROUPS, MODELS = 30, 200
NAMES = [f"<b>{i}</b>" for i in range(GROUPS)]


def ensemble(targets: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Masks of different sizes, and outputs in which group 4 adds 3 and group 7 takes 3."""
    random = np.random.default_rng(seed)
    masks = random.random((MODELS, GROUPS)) < 0.5
    effects = 3.0 * (np.arange(GROUPS) == 4) - 3.0 * (np.arange(GROUPS) == 7)
    return masks, (masks @ effects)[:, None] + random.normal(size=(MODELS, targets))


def tables(targets: int = 3) -> tuple[Any, Any]:
    pandas = pytest.importorskip("pandas")
    masks, outputs = ensemble(targets)
    index = [f"run {i}" for i in range(MODELS)]
    columns = [f"class {j}" for j in range(targets)]
    return pandas.DataFrame(masks, index, NAMES), pandas.DataFrame(outputs, index, columns)


@pytest.mark.parametrize("method", ["difference", "ols", "ridge", "lasso"])
@pytest.mark.parametrize("errors", ["auto", "robust"])
def test_a_frame_has_the_numbers_of_the_attributes_by_name(method: str, errors: str) -> None:
    masks, outputs = tables()
    if (method, errors) == ("ridge", "robust"):
        return
    fit = pydt.influences(masks, outputs, method, errors=errors)
    assert fit.groups == tuple(NAMES)
    assert fit.targets == ("class 0", "class 1", "class 2")
    frame = fit.to_frame()
    for column, expected in (
        ("value", fit.values), ("unbiased", fit.unbiased), ("stderr", fit.stderr), ("q", fit.q),
        ("kept", np.repeat(fit.counts[:, None], 3, 1)),
    ):  # fmt: skip
        wide = frame.pivot(index="group", columns="target", values=column).loc[list(fit.groups), list(fit.targets)]
        assert np.array_equal(wide.to_numpy(), expected, equal_nan=True), column
    reach = stats.t.ppf(0.975, fit.df) * fit.stderr.astype(float)
    reach = np.full(fit.values.shape, np.nan) if method == "ridge" else reach
    for column, sign in (("low", -1), ("high", 1)):
        assert np.allclose(frame[column], (fit.unbiased + sign * reach).reshape(-1), equal_nan=True), column


def test_without_names_groups_and_targets_are_positions_and_one_dimension_has_no_targets() -> None:
    pytest.importorskip("pandas")
    masks, outputs = ensemble()
    fit = pydt.influences(masks, outputs)
    assert fit.groups is None
    assert fit.targets is None
    frame = fit.to_frame()
    assert frame["group"].tolist() == np.repeat(np.arange(GROUPS), 3).tolist()
    assert frame["target"].tolist() == [0, 1, 2] * GROUPS
    flat = pydt.influences(masks, outputs[:, 1], "ols").to_frame()
    assert "target" not in flat
    assert len(flat) == GROUPS
    assert np.isfinite(flat["low"]).all()


def test_rows_in_another_order_are_refused_and_never_joined() -> None:
    masks, outputs = tables()
    turned = outputs.iloc[::-1]
    mend = r"outputs: .* of masks in another order\. give outputs the order of masks, with \.loc\[masks\.index\]"
    for asked in (
        lambda: pydt.influences(masks, turned),
        lambda: pydt.influences(masks, turned["class 0"]),
        lambda: joint_influences(masks, turned),
        lambda: pydt.lds(masks, turned),
    ):
        with pytest.raises(EstimateError, match=mend):
            asked()
    assert np.array_equal(pydt.influences(masks, turned.loc[masks.index]).values,
                          pydt.influences(masks, outputs).values)  # fmt: skip
    with pytest.raises(EstimateError, match="row 0 is 0, and 'run 0' in masks"):
        pydt.influences(masks, outputs.reset_index(drop=True))
    with pytest.raises(EstimateError, match="clusters: the index of masks in another order"):
        pydt.influences(masks, outputs.to_numpy(), clusters=turned["class 0"].round().astype(int))
    with pytest.raises(EstimateError, match="report: the index of score in another order"):
        prediction_test(masks.to_numpy(), outputs["class 0"], turned["class 0"])


def test_indexes_of_other_kinds_are_refused_with_the_same_error() -> None:
    pandas = pytest.importorskip("pandas")
    masks, outputs = tables()
    numbers = np.arange(MODELS)
    for one, other in (
        (pandas.MultiIndex.from_arrays([numbers, numbers]), pandas.Index(numbers)),
        (pandas.Index(numbers), pandas.MultiIndex.from_arrays([numbers, numbers])),
        (pandas.CategoricalIndex(numbers), pandas.CategoricalIndex(numbers + 1)),
        (pandas.date_range("2020", periods=MODELS), pandas.date_range("2020", periods=MODELS, tz="UTC")),
        (pandas.Index(numbers), pandas.Index(numbers.astype(str))),
    ):
        with pytest.raises(EstimateError, match=r"outputs: row 0 is .*, and .* in masks\. give both the same index"):
            pydt.influences(masks.set_axis(one), outputs.set_axis(other))
    pydt.influences(masks.set_axis(pandas.RangeIndex(MODELS)), outputs.set_axis(pandas.Index(numbers)))


def test_columns_that_are_data_are_no_names() -> None:
    arrow = pytest.importorskip("pyarrow")
    masks, outputs = ensemble()
    fit = pydt.influences(masks, arrow.table({f"class {j}": column for j, column in enumerate(outputs.T)}))
    assert fit.targets is None


def test_a_series_names_its_target() -> None:
    masks, outputs = tables()
    fit = pydt.influences(masks, outputs["class 1"])
    assert fit.targets == ("class 1",)
    assert fit.values.shape == (GROUPS,)


@pytest.mark.parametrize("targets", [1, 3, 40])
def test_the_table_of_a_notebook_is_short_and_escaped(targets: int) -> None:
    fit = pydt.influences(*tables(targets))
    shown = fit._repr_html_()
    assert "<b>" not in shown
    assert "&lt;b&gt;4&lt;/b&gt;" in shown
    assert "<script" not in shown
    assert shown.count("<tr>") == 1 + min(20, GROUPS if targets == 1 else targets)
    assert ("10 more groups between them" in shown) == (targets == 1)
    assert ("20 more targets" in shown) == (targets == 40)


def test_the_line_says_sizes_and_what_was_found() -> None:
    masks, outputs = ensemble(1)
    fit = pydt.influences(masks, outputs[:, 0], "ols")
    sure = int((fit.q < 0.05).sum())
    assert sure >= 2
    assert repr(fit) == (
        f"Fit(ols, add: 30 groups, 1 target, 200 models; explains {100 * fit.explained:.0f} %, "
        f"{sure} influences at q < 0.05)"
    )
    assert len(repr(pydt.influences(masks, ensemble(500)[1]))) < 120


def test_without_pandas_the_error_names_the_mend_and_the_rest_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    fit = pydt.influences(*ensemble())
    with pytest.raises(ConfigError, match=r"Fit\.to_frame: pandas is not installed .*pip install pandas"):
        fit.to_frame()
    assert "30 groups" in fit._repr_html_()
    assert "30 groups" in repr(fit)


def test_a_plot_shows_both_ends_with_their_intervals() -> None:
    from matplotlib import pyplot

    masks, outputs = tables()
    fit = pydt.influences(masks, outputs, "ols")
    figure, ax = pyplot.subplots()
    assert fit.plot("class 2", ax=ax) is ax
    drawn, _, bars = ax.containers[0]
    order = np.argsort(-fit.unbiased[:, 2], kind="stable")
    ends = np.r_[order[:10], order[-10:]]
    assert np.allclose(drawn.get_xdata(), fit.unbiased[ends, 2])
    reach = stats.t.ppf(0.975, fit.df[2]) * fit.stderr[ends, 2]
    segments = np.array([segment[:, 0] for segment in bars[0].get_segments()])
    assert np.allclose(segments, np.stack([fit.unbiased[ends, 2] - reach, fit.unbiased[ends, 2] + reach], 1))
    assert [text.get_text() for text in ax.get_yticklabels()] == [NAMES[i] for i in ends]
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the highest is on top"
    pyplot.close(figure)
    own = pydt.influences(masks, outputs, "ridge").plot()
    own.figure.canvas.draw()
    assert len(own.containers[0][0].get_xdata()) == 20
    pyplot.close(own.figure)
    with pytest.raises(ConfigError, match=r"no target 'class 9' among 3\. there are: 'class 0'"):
        fit.plot("class 9")


def test_targets_that_are_nan_or_constant_are_shown_as_unknown() -> None:
    from matplotlib import pyplot

    masks, outputs = ensemble()
    outputs[3, 0], outputs[:, 1] = np.nan, 2.0
    fit = pydt.influences(masks, outputs, "ols", nan="flag")
    assert f"explains {100 * fit.explained[2]:.0f} % on average" in repr(fit)
    assert fit._repr_html_().count("<tr>") == 4
    for target, points in ((0, 0), (1, 20), (2, 20)):
        ax = fit.plot(target)
        ax.figure.canvas.draw()
        assert len(ax.containers[0][0].get_xdata()) == points
        pyplot.close(ax.figure)
    alone = pydt.influences(masks, outputs[:, 0], nan="flag")
    assert repr(alone).endswith("200 models)")
    assert "<tr>" not in alone._repr_html_()
