"""Every result of a public function has a short line, a table, a frame and, where one makes sense, a plot."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot

import pydt
from pydt.analyses import catalogue
from pydt.analyses.brittleness import Brittle, Brittleness
from pydt.analyses.counterfactual import contrast
from pydt.analyses.examples import Examples
from pydt.analyses.failures import Failure, Failures, Flips
from pydt.analyses.laboratory import Finding
from pydt.analyses.leakage.leaks_page import Leaks, Suspect
from pydt.analyses.learning_rates import LearningRates
from pydt.analyses.misleading import Claim, Misleading
from pydt.analyses.output_comparison import OutputComparison
from pydt.analyses.rates import Compared, Rate
from pydt.analyses.retraining import Arm
from pydt.analyses.shots_removal import KeptLists, ShotsList
from pydt.base import ConfigError
from pydt.ensemble import ChosenRates, Cost, PartsCost, RatesOfPart, TriedRate
from pydt.estimation import (
    EquivalentSize,
    Look,
    ModelPlan,
    PredictionTest,
    RankAgreement,
    Spread,
    StoppingRule,
    TrueAgreement,
    VarianceShares,
    all_pairs,
    joint_influences,
    variance_shares,
)
from pydt.estimation.alpha_pilots import AlphaComparison, AlphaPilot
from pydt.reporting import ACCURACY
from pydt.store import Row

GROUPS, MODELS = 30, 150
NAMES = tuple(f"<b>{i}</b> & co" for i in range(GROUPS))
NONE: Any = None  # what no line, table, frame or plot looks at: plans and views

FACES = "pydt", "pydt.estimate", "pydt.lab", "pydt.examples"
TESTED = {  # in files of their own
    "Counterfactual", "Kept", "Ranking", "Removal", "ByShots", "Stability", "SubPopulations", "Fit", "MixturesByShots",
    "TaskComparison",
}  # fmt: skip
NOT_RESULTS = {
    "Dataset": "data: a frame, no plot",
    "ExampleTable": "data, as `Dataset`",
    "Target": "data that users make",
    "Design": "masks: a frame, no plot",
    "Store": "rows: a frame, no plot",
    "Plan": "what users ask for",
    "PlanFile": "what users ask for",
    "StudyFile": "what users ask for",
    "StoppingRule": "what users ask for",
    "Task": "what users ask for",
    "StudyTask": "what users ask for",
    "Part": "rows to be run",
    "Context": "rows to be run",
    "Arm": "of a study or of retraining: the result of either says all of it",
    "Row": "one row of a store",
    "Record": "a stored plan",
    "TriedRate": "a line of `ChosenRates`",
    "Claim": "a line of `Misleading`",
    "Suspect": "a line of `Leaks`",
    "Point": "a line of `Removal`",
    "SourceEffect": "a line of `MixturesByShots`",
    "Same": "positions of equal images, for `leaks`",
    "Batch": "tensors for a training step",
    "Page": "is written as HTML",
}
NO_PLOT = {
    "Analysed": "names of pages",
    "Finding": "one fact",
    "Cost": "one number",
    "PartsCost": "one number",
    "PredictionTest": "one number",
    "RankAgreement": "one number",
    "TrueAgreement": "one number",
    "EquivalentSize": "one number",
    "Crossed": "one number",
    "Spread": "one number",
    "ShareDifference": "one number",
}


def made(kind: type, **given: Any) -> Any:
    """An instance whose other fields are None: nothing that is shown reads them."""
    return kind(**{one.name: given.get(one.name) for one in fields(kind)})


def ensemble() -> tuple[np.ndarray, np.ndarray]:
    """Group 4 helps more and more over three columns."""
    random = np.random.default_rng(0)
    masks = random.random((MODELS, GROUPS)) < 0.5
    return masks, masks[:, [4]] * [0.0, 2.0, 4.0] + random.normal(size=(MODELS, 3))


def _brittleness() -> Brittleness:
    images = [Brittle(i, "c", 0.5, NAMES[: i % 29], 0.5, 0.9) for i in range(25)]
    more = {name: np.linspace(0.1, 0.4, 3) for name in ("flipped", "random", "flipped_stderr", "random_stderr")}
    more["random"] = more["random"] / 2
    return made(Brittleness, images=tuple(images), judged=40, models=99, most=3, limits=np.arange(1, 4), **more)


def _failures() -> Failures:
    images = [Failure(i, "report", "c", "d", 0.7, NAMES[i], -2.0, 0.5, 0.01) for i in range(25)]
    rates = {
        arm: Rate(share, share - 0.1, share + 0.2, 25, 10)
        for arm, share in zip(("blamed", "random", "full"), (0.6, 0.3, 0.2), strict=True)
    }
    flips = Flips(**rates, compared=Compared(*7 * (0.3,)), kept=Compared(*7 * (0.4,)))
    groups = tuple((name, 1, flips) for name in NAMES)
    return made(Failures, images=tuple(images), judged=40, flips=flips, groups=groups, retrained=30, failed=1)


def _misleading() -> Misleading:
    claims = [
        Claim("c", "c", NAMES[i], -2.0, 0.5, -1.0 - i, 0.4, 60.0, 0.01, 0.001 if i else 0.5, 3, (1, 2), 7)
        for i in range(25)
    ]
    return made(Misleading, claims=tuple(claims), per="class", groups=GROUPS, asked=True, unit="points")


def _leaks() -> Leaks:
    groups = [Suspect(NAMES[i], 10, 0.01, i < 3, 2.0 - i, 0.5, (1, 2, 3), leak=i < 2) for i in range(GROUPS)]
    return made(Leaks, groups=tuple(groups), pairs=(), df=50.0, judged=60, unit="logit units")


def _outputs() -> OutputComparison:
    square, values = np.array([[1.0, 0.6], [0.6, 1.0]]), np.arange(2.0 * GROUPS).reshape(GROUPS, 2)
    more = {"agreement": square, "agreement_stderr": square / 10}
    return made(
        OutputComparison, outputs=("<b>", "margin"), groups=NAMES, models=99, values=values, stderr=values + 1, **more
    )


def _examples() -> Examples:
    values = np.arange(GROUPS, dtype=float)
    test = PredictionTest(0.3, 0.01, 99, 5, 99, 0.1)
    more = {"claimed": np.array([3.0, -3.0]), "judged": np.array([1.0, -0.5]), "judged_stderr": np.array([0.2, 0.3])}
    return made(
        Examples,
        values=values,
        stderr=values + 1,
        kept=np.arange(GROUPS),
        models=99,
        unit="points",
        test=test,
        size=3,
        **more,
    )


def _tried() -> tuple[TriedRate, ...]:
    rates = 0.01, 0.1, 1.0
    return tuple(
        TriedRate(f"<b>{task}", rate, loss, 0.1, 0.7, 0.1, 0.0, 0.0, 4, 8, 99, int(rate), rate == 0.01)
        for task in range(2)
        for rate, loss in zip(rates, (1.01, 1.1, None), strict=True)
    )


def _kept_lists() -> KeptLists:
    random = np.random.default_rng(0)

    def arm(level: float) -> Arm:
        correct = (random.random((6, 50)) < level).astype(np.float32)
        rows = tuple(Row(np.ones(3, bool), i, "arm") for i in range(6))
        return Arm("drop", 3, rows, 6 * ((),), correct.mean(1, dtype=np.float64), correct)

    full, weights = arm(0.5), np.full(50, 1 / 50)
    lists = []
    for of in (1, "full", "all"):
        for size in (5, 10):
            arms = arm(0.6), arm(0.7)
            gains = tuple(contrast(one, full, weights, np.zeros(50, int)) for one in arms)
            lists.append(ShotsList(of, NAMES[:size], arms, gains, (None, gains[1]), None))
    ranked = dict.fromkeys((1, "full", "all"), NAMES)
    more = {"metric": ACCURACY, "retrained": 72, "failed": 0}
    return made(KeptLists, shots=(1, "full"), sizes=(5, 10), ranked=ranked, lists=tuple(lists), **more)


def _look() -> Look:
    masks, outputs = ensemble()
    rule = StoppingRule.parse("sign 1")
    return rule.look(pydt.Design.explicit(masks), outputs[:, 2])


def _shares() -> VarianceShares:
    masks, outputs = ensemble()
    return variance_shares(masks, list(outputs.T))


MAKERS: dict[str, Any] = {
    "Brittleness": _brittleness,
    "Failures": _failures,
    "Misleading": _misleading,
    "Leaks": _leaks,
    "OutputComparison": _outputs,
    "Examples": _examples,
    "LearningRates": lambda: LearningRates((_tried()[:3], _tried()[3:])),
    "ChosenRates": lambda: ChosenRates(NONE, _tried(), ("a note",)),
    "RatesOfPart": lambda: RatesOfPart((), _tried(), ()),
    "KeptLists": _kept_lists,
    "JointFit": lambda: joint_influences(*ensemble()),
    "Trend": lambda: joint_influences(*ensemble()).trend(),
    "VarianceShares": _shares,
    "ShareDifference": lambda: _shares().difference(0, 1),
    "Look": _look,
    "Score": lambda: pydt.lds(*ensemble(), permutations=9),
    "PredictionTest": lambda: pydt.prediction_test(ensemble()[0], *ensemble()[1].T[1:], permutations=19),
    "ModelPlan": lambda: ModelPlan(
        "stderr < 0.5", "points", 900, 300, 600, 1.5, "ols", "as <b>now", 9.0, ((300, 1.5, None), (900, 0.5, 0.8))
    ),
    "AlphaComparison": lambda: AlphaComparison(
        tuple(AlphaPilot(a, "random", 99, 0.4, 0.3, 0.6, 1.0, 0.7, 0.5, 1.1) for a in (0.25, 0.5)),
        0.25,
        False,
        0.05,
        "why",
    ),
    "Cost": lambda: Cost(300, 20, 2, 1.5, 4, 900.0),
    "PartsCost": lambda: PartsCost(300, 20, 0, 2, 900.0, 9.0, 3.0, 4, 9e6, 0.0, failed=("<b>",)),
    "Analysed": lambda: catalogue.Analysed(
        Path("index.html"), ("ranking",), {"<b>": "no <b>"}, ("removal",), {"leaks": "no images"}
    ),
    "Finding": lambda: Finding("harm", True, "the <b> group", {"rank": 1.0}),
    "Crossed": lambda: all_pairs(np.random.default_rng(0).normal(size=(2, 4, 3, 20)))[0][2],
    "Spread": lambda: made(Spread, arms=4, mean=0.5, tau=0.1, unknown=("seeds",)),
    "RankAgreement": lambda: RankAgreement(5, 0.6, 0.8, 0.4, 0.3, True),
    "TrueAgreement": lambda: TrueAgreement(0.3, 0.0, 0.6, 0.1, 0.9, 0.2, 0.01, (1.0, 2.0)),
    "EquivalentSize": lambda: EquivalentSize(2.0, 1.5, np.inf, True, True, False),
}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def classes_of(function: Any) -> Iterator[type]:
    """The classes of pydt that a function or a property says it returns."""
    function = inspect.unwrap(function)
    said = getattr(function, "__annotations__", {}).get("return")
    if isinstance(said, str):
        try:
            said = eval(said, {**vars(typing), **vars(importlib.import_module(function.__module__))})
        except NameError:  # imported for types alone
            return
    todo = [said]
    while todo:
        one = todo.pop()
        todo += typing.get_args(one)
        if isinstance(one, type) and one.__module__.startswith("pydt"):
            yield one


def public_results() -> dict[str, type]:
    """By name, what the public functions return, and the methods of these classes and of the public ones."""
    todo: list[Any] = []
    for face in map(importlib.import_module, FACES):
        names = [name for name in getattr(face, "__all__", vars(face)) if not name.startswith("_")]
        own = [getattr(face, name) for name in names]
        todo += [one for one in own if getattr(one, "__module__", "").startswith(face.__name__)]
    found: dict[str, type] = {}
    seen: set[int] = set()
    while todo:
        one = todo.pop()
        if id(one) in seen or not getattr(one, "__module__", "").startswith("pydt"):
            continue
        seen.add(id(one))
        members = [one]
        if inspect.isclass(one):
            own = [value for name, value in vars(one).items() if not name.startswith("_")]
            members = [
                getattr(value, "__func__", getattr(value, "fget", getattr(value, "func", value))) for value in own
            ]
        for member in filter(inspect.isfunction, members):
            for kind in classes_of(member):
                found[kind.__name__] = kind
                todo += [kind] if kind.__name__ not in NOT_RESULTS else []
    return found


def test_every_result_of_a_public_function_is_shown() -> None:
    found = public_results()
    assert {"Fit", "Brittleness", "Leaks", "ShareDifference", "Trend"} <= found.keys()
    assert not found.keys() - TESTED - NOT_RESULTS.keys() - MAKERS.keys()
    for name, kind in found.items():
        if name not in NOT_RESULTS:
            wanted = {"to_frame", "_repr_html_"} | ({"plot"} if name not in NO_PLOT else set())
            assert not {method for method in wanted if not hasattr(kind, method)}, name
            assert "dataclass" not in getattr(kind.__repr__, "__qualname__", ""), name
    assert NO_PLOT.keys() <= MAKERS.keys()
    assert NOT_RESULTS.keys() <= found.keys(), "reasons for nothing"


@pytest.mark.parametrize("name", MAKERS)
def test_lines_are_short_tables_escaped_and_pandas_is_optional(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    found = MAKERS[name]()
    line, html = repr(found), found._repr_html_()
    assert line.startswith(f"{name}(")
    assert line.endswith(")")
    assert "array(" not in line
    assert len(line) <= 300
    assert len(line.splitlines()) == 1
    assert "<b>" not in html
    assert "<table>" in html
    assert 2 <= html.count("<tr>") <= 21
    with pytest.raises(ConfigError, match=rf"{name}\.to_frame: pandas is not .*pip install pandas"):
        found.to_frame()


@pytest.mark.parametrize("name", MAKERS)
def test_a_frame_has_the_columns_and_lines_of_the_table(name: str) -> None:
    pytest.importorskip("pandas")
    found = MAKERS[name]()
    frame, html = found.to_frame(), found._repr_html_()
    assert re.findall("<th>(.*?)</th>", html) == list(frame.columns)
    more = re.search(r"<p>([\d,]+) more rows</p>", html)
    assert len(frame) == html.count("<tr>") - 1 + (int(more[1].replace(",", "")) if more else 0)
    assert frame.attrs.get("unit", "") == getattr(found, "unit", "")


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in NO_PLOT])
def test_a_plot_is_drawn_into_axes_that_are_given_or_its_own(name: str) -> None:
    found = MAKERS[name]()
    _, ax = pyplot.subplots()
    assert found.plot(ax=ax) is ax
    ax.figure.canvas.draw()
    assert ax.containers
    assert found.plot().figure is not ax.figure


def test_frames_of_records_hold_them_in_order() -> None:
    pytest.importorskip("pandas")
    for name, own in (("Brittleness", "images"), ("Failures", "images"), ("Misleading", "claims"), ("Leaks", "groups")):
        found = MAKERS[name]()
        kept = getattr(found, own)
        frame = found.to_frame()
        for one in fields(kept[0]):
            assert (
                frame[one.name].tolist() == [getattr(record, one.name) for record in kept]
                or frame[one.name].isna().all()
            )


def test_frames_of_arrays_put_each_number_beside_its_names() -> None:
    pytest.importorskip("pandas")
    outputs, joint, shares = (MAKERS[name]() for name in ("OutputComparison", "JointFit", "VarianceShares"))
    wide = outputs.to_frame().pivot(index="group", columns="output", values="stderr")
    assert np.array_equal(wide.loc[list(NAMES), list(outputs.outputs)], outputs.stderr)
    for part in ("value", "stderr", "low", "high"):
        wide = joint.to_frame().pivot(index="group", columns="column", values=part)
        assert np.array_equal(wide, getattr(joint, {"value": "values"}.get(part, part))), part
    frame = shares.to_frame().set_index(["part", "column"])
    for part in ("groups", "rest"):
        assert np.array_equal(frame.loc[part, "low"], getattr(shares, part).low, equal_nan=True), part
    lists = MAKERS["KeptLists"]()
    line = lists.to_frame().set_index(["list", "left_out", "shots"]).loc[("full", 10, 1)]
    assert line["gain_low"] == lists.lists[3].gains[0].low
    assert np.isnan(line["which_difference"])


def test_plots_show_the_numbers_with_their_intervals() -> None:
    brittle, failing, misled = (MAKERS[name]() for name in ("Brittleness", "Failures", "Misleading"))
    bars = brittle.plot().containers
    assert np.allclose(bars[0][0].get_ydata(), 100 * brittle.flipped)
    assert np.allclose(bars[1][0].get_ydata(), 100 * brittle.random)
    (ax,) = failing.plot().containers
    assert np.allclose(ax[0].get_xdata(), [60, 30, 20])
    assert np.allclose([segment[:, 0] for segment in ax[2][0].get_segments()], [[50, 80], [20, 50], [10, 40]])
    (ax,) = misled.plot().containers
    assert ax[0].get_xdata().tolist() == [claim.effect for claim in misled.claims[:20]]
    rates = MAKERS["ChosenRates"]().plot()
    assert [text.get_text() for text in rates.get_xticklabels()] == ["0.01", "0.1", "1"]
    assert np.allclose(rates.containers[0][0].get_ydata(), [1.01, 1.1, np.nan], equal_nan=True)
    lists = MAKERS["KeptLists"]()
    assert np.allclose(
        lists.plot().containers[1][0].get_ydata(), [100 * gain.difference for gain in lists.lists[-1].gains]
    )


def test_lines_say_what_was_found() -> None:
    line = {name: repr(make()) for name, make in MAKERS.items()}
    assert "25 of 40 images right in the majority; sets of at most 3 groups flip 40.0 +- 40.0 %" in line["Brittleness"]
    assert "fresh models get right: 60% without the blamed group, 30% without a random group" in line["Failures"]
    assert "24 at q < 0.05" in line["Misleading"]
    assert "2 groups with copies: “<b>0</b> & co” and “<b>1</b> & co”; influence flags 3" in line["Leaks"]
    assert "“<b>” and “margin” 0.60" in line["OutputComparison"] or "<b> and margin 0.60" in line["OutputComparison"]
    assert "2 tasks; <b>0: 0.01, <b>1: 0.01" in line["ChosenRates"]
    assert "values: float64 (30, 3)" in line["JointFit"]
    assert line["Score"].startswith("Score(lds=0.")
    assert "Plan" not in line["ChosenRates"]


def test_what_lies_inside_a_result_is_short_too() -> None:
    shares, lists = MAKERS["VarianceShares"](), MAKERS["KeptLists"]()
    for one in (shares.groups, lists.lists[0], lists.lists[0].arms[0], MAKERS["Brittleness"]().images[-1]):
        assert "array(" not in repr(one)
        assert len(repr(one)) <= 300
