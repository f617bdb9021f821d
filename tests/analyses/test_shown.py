"""Results of analyses in Python and notebooks: frames hold the attributes, tables are escaped, plots are whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot
from scipy import stats

from pydt import design
from pydt.analyses import Counterfactual, influence_by_shots, ranking
from pydt.analyses.counterfactual import contrast
from pydt.analyses.ranking import Ranking
from pydt.analyses.retraining import Arm
from pydt.analyses.shots import ByShots
from pydt.base import ConfigError
from pydt.store import Row, Store

GROUPS, MODELS, EXAMPLES = 30, 150, 40
TASKS = {1: "one", 5: "five", "full": "all"}
NAMES = [f"<i>{i}</i> & co" for i in range(GROUPS)]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Group 3 matters at one shot alone, group 8 at every number of shots."""
    masks = design.bernoulli(GROUPS, MODELS, seed=1)[np.arange(MODELS)]
    random, outputs = np.random.default_rng(0), {}
    for name, effect in zip(TASKS.values(), (6.0, 3.0, 0.0), strict=True):
        own = effect * masks[:, 3] - 5.0 * masks[:, 8] + random.normal(size=MODELS)
        outputs[name] = own[:, None] + 0.1 * random.normal(size=(MODELS, EXAMPLES))
    more: dict[str, Any] = {"half": np.arange(EXAMPLES) // 2 % 2, "unit": "points", "groups": NAMES}
    more["examples"] = [f"class {i % 2}" for i in range(EXAMPLES)]
    return Store.from_arrays(tmp_path_factory.mktemp("store"), masks, outputs, **more)


@pytest.fixture(scope="module")
def ranked(store: Store) -> Ranking:
    return ranking(store)


@pytest.fixture(scope="module")
def by_shots(store: Store) -> ByShots:
    return influence_by_shots(store, tasks=TASKS)


@pytest.fixture(scope="module")
def retrained() -> Counterfactual:
    random, arms = np.random.default_rng(2), []
    for kind, level in (("full", 0.8), ("drop bottom", 0.85), ("drop random", 0.78), ("drop top", 0.6)):
        n = 1 if kind == "drop top" else 6
        correct = (random.random((n, 200)) < level).astype(np.float32)
        rows = tuple(Row(np.ones(3, bool), i, kind) for i in range(n))
        dropped = 0 if kind == "full" else 15
        arms.append(Arm(kind, dropped, rows, ((),) * n, correct.mean(1, dtype=np.float64), correct, failed=6 - n))
    judged = contrast(arms[1], arms[2], np.full(200, 1 / 200), np.zeros(200, int))
    record: Any = SimpleNamespace(rows=[Row(np.arange(30) >= 15, 0, "drop bottom")])
    return Counterfactual(tuple(arms), (judged,), 5, "task", record)


def wide(frame: Any, column: str, value: str, rows: Any, columns: Any) -> np.ndarray:
    return frame.pivot(index="group", columns=column, values=value).loc[list(rows), list(columns)].to_numpy()


@pytest.mark.parametrize("per", ["target", "class"])
def test_the_frame_of_a_ranking_holds_its_attributes(store: Store, per: str) -> None:
    pytest.importorskip("pandas")
    found = ranking(store, per=per)
    frame = found.to_frame()
    assert frame.attrs["unit"] == found.unit
    parts = {name: getattr(found, name) for name in ("stderr", "q", "family_q")} | {"value": found.values}
    parts["kept"] = np.repeat(found.kept[:, None], len(found.columns), 1)
    df = np.broadcast_to(found._fit.df, found.values.shape)
    parts["high"] = found.values + stats.t.ppf(0.975, df) * found.stderr
    parts["low"] = 2 * found.values - parts["high"]
    for name, expected in parts.items():
        assert np.allclose(wide(frame, "column", name, found.groups, found.columns), expected), name
    assert set(frame["group"]) == set(NAMES)


def test_the_frame_by_shots_holds_its_attributes(by_shots: ByShots) -> None:
    pytest.importorskip("pandas")
    frame = by_shots.to_frame()
    assert frame.attrs["unit"] == by_shots.unit
    for name in ("stderr", "low", "high"):
        assert np.array_equal(wide(frame, "shots", name, NAMES, TASKS), getattr(by_shots, name)), name
    assert np.array_equal(wide(frame, "shots", "value", NAMES, TASKS), by_shots.values)
    first = frame[frame["shots"] == 5]
    assert first["group"].tolist() == NAMES
    assert np.array_equal(first["change"], by_shots.trend.values)
    assert np.array_equal(first["change_stderr"], by_shots.trend.stderr)
    assert np.array_equal(first["change_q"], by_shots.trend.q)
    assert first["kind"].tolist() == list(by_shots.kinds)


def test_the_frame_of_retraining_has_arms_and_their_contrasts(retrained: Counterfactual) -> None:
    pytest.importorskip("pandas")
    frame = retrained.to_frame().set_index("kind")
    assert frame.index.tolist() == ["full", "drop bottom", "drop random", "drop top"]
    for arm in retrained.arms:
        line = frame.loc[arm.kind]
        assert (line["dropped"], line["rows"], line["failed"]) == (arm.dropped, len(arm.rows), arm.failed)
        assert line["mean"] == pytest.approx(arm.mean)
        if arm.sd is None:
            assert np.isnan([line["sd"], line["low"], line["high"]]).all()
        else:
            low, high = stats.t.interval(0.95, 5, arm.mean, arm.sd / 6**0.5)
            assert (line["low"], line["high"]) == pytest.approx((low, high))
    one = retrained.contrasts[0]
    names = ["difference", "difference_stderr", "difference_low", "difference_high", "p"]
    assert frame.loc["drop bottom", names].tolist() == [one.difference, one.stderr, one.low, one.high, one.p]
    assert frame.loc[["full", "drop random", "drop top"], names].isna().to_numpy().all()


@pytest.mark.parametrize("name", ["ranked", "by_shots", "retrained"])
def test_lines_are_short_tables_escaped_and_pandas_is_optional(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    found = request.getfixturevalue(name)
    line, html = repr(found), found._repr_html_()
    assert line.startswith(type(found).__name__ + "(")
    assert len(line.splitlines()) <= 2
    assert len(line) < 300
    assert "<i>" not in html
    assert "<script" not in html
    assert html.count("<tr>") == 1 + (4 if name == "retrained" else 20)
    if name != "retrained":
        assert "&lt;i&gt;8&lt;/i&gt; &amp; co" in html
        assert "10 more groups" in html
    with pytest.raises(ConfigError, match=rf"{type(found).__name__}\.to_frame: pandas is not .*pip install pandas"):
        found.to_frame()


def test_lines_say_what_was_found(ranked: Ranking, by_shots: ByShots, retrained: Counterfactual) -> None:
    sure = int((ranked.q < 0.05).sum())
    assert f"30 groups, 1 column, 150 models, points; {sure} influences at q < 0.05)" in repr(ranked)
    assert "highest “<i>3</i> & co”" in repr(ranked)
    changed = int((by_shots.trend.q < 0.05).sum())
    assert repr(by_shots).startswith("ByShots(1, 5, full shots: 30 groups, 150 models, points; ")
    assert f"{changed} group{'s' if changed > 1 else ''} surely change" in repr(by_shots)
    full, one = retrained.arm("full", 0).mean, retrained.contrasts[0]
    assert repr(retrained).splitlines()[0] == "Counterfactual(4 arms, 19 rows, 5 failed)"
    assert f"accuracy: full {100 * full:.1f} %; " in repr(retrained)
    assert f"drop bottom 15 against random +{100 * one.difference:.1f} (" in repr(retrained)


def test_the_table_of_several_columns_has_a_line_for_each(store: Store) -> None:
    html = ranking(store, per="class")._repr_html_()
    assert html.count("<tr>") == 1 + 2
    assert "class 1" in html


def test_plots_have_as_many_points_as_they_say(ranked: Ranking, by_shots: ByShots, retrained: Counterfactual) -> None:
    _, axes = pyplot.subplots(1, 3)
    for found, ax in zip((ranked, by_shots, retrained), axes, strict=True):
        assert found.plot(ax=ax) is ax
    axes[0].figure.canvas.draw()
    order = ranked.order()
    ends = np.r_[order[:10], order[-10:]]
    assert np.array_equal(axes[0].containers[0][0].get_xdata(), ranked.values[ends, 0])
    assert axes[0].get_title() == "the 10 highest and the 10 lowest of 30 groups"
    assert len(axes[1].containers) == 6
    for bars, i in zip(axes[1].containers, by_shots.order(), strict=False):
        assert np.array_equal(bars[0].get_ydata(), by_shots.values[i])
        ends_of = np.array([segment[:, 1] for segment in bars[2][0].get_segments()])
        assert np.allclose(ends_of, np.stack([by_shots.low[i], by_shots.high[i]], 1))
    assert np.allclose(axes[2].containers[0][0].get_xdata(), [100 * arm.mean for arm in retrained.arms])
    assert ranked.plot().figure is not axes[0].figure, "a figure of its own"


def test_a_formula_in_a_name_is_drawn_as_text(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    masks = design.bernoulli(4, 60)[np.arange(60)]
    names = ["$x_1$", "cost in $", "$\\undefined$", "_hidden" + 60 * "long "]
    found = ranking(Store.from_arrays(tmp_path, masks, random.normal(size=(60, 20)), groups=names))
    found.plot().figure.canvas.draw()
    assert repr(found).count("“") == 4, "the two highest and the two lowest of four groups"
