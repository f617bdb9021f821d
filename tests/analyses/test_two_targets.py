"""Two targets compared: tests as by hand, planted disagreement found, chance left alone, and what a reader is told."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle_rankings as oracle
import pytest
from scipy import stats
from stub_influence import many_classes

from pydt import compare_tasks, design
from pydt.analyses import TaskComparison
from pydt.analyses.catalogue import ANALYSES, Job
from pydt.analyses.two_targets import pairs_of
from pydt.base import ConfigError, EstimateError, StoreError
from pydt.data import Dataset, Target
from pydt.ensemble import Plan
from pydt.reporting import Intervals, Scatter, Table, write_pages
from pydt.store import Measure, Store
from pydt.training import Recipe, Task

GROUPS, MODELS, EXAMPLES = 24, 160, 40
A, B = "apples", "pears"


def measured(folder: Path, effects: np.ndarray, noise: float = 1.0, seed: int = 0, **more: Any) -> Store:
    """Rows whose outputs are the sum of what the kept groups give each task, effects (groups, tasks), and noise that
    tasks share by half."""
    groups, tasks = effects.shape
    masks = np.asarray(design.bernoulli(groups, MODELS, seed=seed)[np.arange(MODELS)])
    random = np.random.default_rng(seed)
    common = random.normal(size=MODELS)
    outputs = {}
    for j, name in enumerate((A, B, "plums", "figs", "limes")[:tasks]):
        own = masks.astype(float) @ effects[:, j] + noise * (common + random.normal(size=MODELS)) / np.sqrt(2)
        outputs[name] = own[:, None] + 0.1 * random.normal(size=(MODELS, EXAMPLES))
    given = {"half": np.arange(EXAMPLES) % 2, "unit": "points", "groups": [f"g{i}" for i in range(groups)], **more}
    return Store.from_arrays(folder, masks, outputs, **given)


def alike() -> np.ndarray:
    effects = np.linspace(-3, 3, GROUPS)
    return np.stack([effects, effects], 1)


def opposed() -> np.ndarray:
    """Both order most groups alike; g3 and g20 help one and hurt the other, g10 helps the second alone."""
    effects = 0.3 * alike()
    effects[3], effects[20], effects[10] = (-3, 3), (3, -3), (0, 3)
    return effects


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> TaskComparison:
    return compare_tasks(measured(tmp_path_factory.mktemp("planted"), opposed(), seed=1))


def test_the_difference_is_tested_as_by_least_squares_on_the_differences(planted: TaskComparison) -> None:
    store = planted._view.store
    masks = store.masks().astype(np.float64)
    y = np.stack([store.outputs(task, "value", "score").astype(np.float64).mean(1) for task in (A, B)], 1)
    values, stderr, df = oracle.least_squares(masks, np.column_stack([y, y[:, 0] - y[:, 1]]))
    assert np.allclose(planted.values, values[:, :2], atol=1e-4)
    assert np.allclose(planted.stderr, stderr[:, :2], atol=1e-4)
    assert np.allclose(planted.difference, values[:, 2], atol=1e-4)
    assert np.allclose(planted.difference_stderr, stderr[:, 2], rtol=1e-3)
    apart = np.sqrt((stderr[:, :2] ** 2).sum(1))
    assert (planted.difference_stderr < 0.85 * apart).all(), "noise that both share leaves the difference"
    t = values[:, 2] / stderr[:, 2]
    p = 2 * stats.t.sf(np.abs(t), df)
    assert np.allclose(planted.difference_p, p, rtol=1e-2, atol=1e-12)
    assert np.allclose(planted.difference_q, stats.false_discovery_control(p), rtol=1e-2, atol=1e-12)
    one_sided = stats.t.sf(np.abs(values[:, :2] / stderr[:, :2]), df).max(1)
    crossed = np.where(values[:, 0] * values[:, 1] < 0, one_sided, 1.0)
    assert np.allclose(planted.opposed_p, crossed, rtol=1e-2, atol=1e-12)


def test_planted_disagreement_is_found_and_named(planted: TaskComparison) -> None:
    assert np.flatnonzero(planted.opposed).tolist() == [3, 20]
    assert set(np.flatnonzero(planted.difference_q < 0.05).tolist()) == {3, 10, 20}
    kinds = planted.kinds()
    assert kinds[3] == "helps pears, hurts apples"
    assert kinds[20] == "helps apples, hurts pears"
    assert kinds[10] == "differs"
    assert planted.order()[:2].tolist() in ([3, 20], [20, 3])
    answer = planted.page().answer
    assert re.match(
        r"2 groups help one target and hurt the other: “g\d+” \([+−]\d.*on apples, [+−]\d.*on pears\), ", answer[-3]
    )
    assert "3 of 24 influences differ between the two" in answer[-2]


def test_what_acts_on_one_target_alone_is_seldom_said_to_act_on_both(planted: TaskComparison) -> None:
    """2,000 groups that are far from 0 on one target and at 0 on the other: intervals alone err on 25 of them."""
    random = np.random.default_rng(0)
    values = np.stack([random.choice([-9.0, 9.0], 2000), random.normal(0, 1, 2000)], 1)
    many = replace(
        planted,
        groups=tuple(map(str, range(2000))),
        values=values,
        stderr=np.ones((2000, 2)),
        low=values - 2.24,
        high=values + 2.24,
        df=np.full(2000, 1e4),
        opposed=np.zeros(2000, bool),
        difference_q=np.ones(2000),
    )
    assert sum("both" in kind for kind in many.kinds()) <= 2


def test_one_list_serves_targets_that_want_the_same(tmp_path: Path) -> None:
    found = compare_tasks(measured(tmp_path, alike(), seed=2))
    assert found.serves is True
    assert not found.opposed.any()
    first, then = found.page().answer[:2]
    assert first == "One list serves both: leave out the 6 lowest groups of “apples” and “pears” together."
    assert "; lists of their own would be lower by at most " in then
    assert found.agreement is not None
    assert found.agreement.low > 0.8
    truth = alike()[:6].mean()
    assert np.allclose(found.lists.worth[-1], truth, atol=0.3)  # type: ignore[union-attr]
    assert np.allclose(found.lists.gain[-1], -truth, atol=0.3)  # type: ignore[union-attr]


def test_targets_that_want_the_opposite_choose_each_its_own(tmp_path: Path) -> None:
    found = compare_tasks(measured(tmp_path, alike() * [1, -1], seed=3))
    assert found.serves is False
    cost, low, high = found.cost or ()
    assert (low > 0).all()
    first = found.page().answer[0]
    assert first.startswith("Choose for each target: one common list of the 6 lowest groups costs “apples” ")
    assert f"{cost[1]:.2f}"[:3] in first
    assert ((low < cost) & (cost < high)).all()
    assert found.agreement is not None
    assert found.agreement.high < -0.8
    assert "they surely do not order the groups alike" in found.page().answer[-1]


def test_of_noise_nothing_is_told(tmp_path: Path) -> None:
    found = compare_tasks(measured(tmp_path, np.zeros((GROUPS, 2)), seed=4))
    assert found.serves is None
    assert found.page().answer[0].startswith("Cannot be told whether one list serves “apples” and “pears”: 160 models")
    assert "Of no single group it is sure that it helps one target and hurts the other." in found.page().answer
    one_sided = np.column_stack([alike()[:, 0], np.zeros(GROUPS)])
    blind = compare_tasks(measured(tmp_path / "blind", one_sided, seed=5))
    assert blind.serves is not True
    assert not blind.opposed.any()


@pytest.mark.slow
def test_chance_is_called_disagreement_as_seldom_as_it_says(tmp_path: Path) -> None:
    """Of proportional and of strong but equal influences, in 40 ensembles."""
    any_difference, any_opposed, chosen, p = 0, 0, 0, []
    for seed in range(40):
        effects = alike() * (1, 1 if seed % 2 else 0.001)
        found = compare_tasks(measured(tmp_path / str(seed), effects, noise=2.0, seed=100 + seed))
        any_opposed += bool(found.opposed.any())
        if seed % 2:
            any_difference += bool((found.difference_q < 0.05).any())
            chosen += found.serves is False
            p.append(found.difference_p)
    assert any_opposed <= 5
    assert any_difference <= 4
    assert chosen <= 3
    assert stats.kstest(np.concatenate(p), "uniform").pvalue > 0.001


def test_units_that_differ_are_not_subtracted(tmp_path: Path) -> None:
    masks = np.asarray(design.random(GROUPS, MODELS, alpha=0.5, seed=0)[np.arange(MODELS)])
    random = np.random.default_rng(0)
    y = masks @ opposed() + random.normal(size=(MODELS, 2))
    outputs = {Measure(A, unit="points"): y[:, 0], Measure(B, unit="nats", higher_is_better=False): -1000 * y[:, 1]}
    store = Store.from_arrays(tmp_path, masks, outputs, groups=[f"g{i}" for i in range(GROUPS)])
    found = compare_tasks(store)
    assert found.unit == ""
    assert np.isnan(found.difference).all()
    assert np.flatnonzero(found.opposed).tolist() == [3, 20], "signs are those of better, not of larger"
    page = found.page()
    assert any(text.startswith("Units differ (points, nats)") for text in page.answer)
    assert not any(isinstance(block, Intervals) for block in page.blocks)
    (scatter,) = (block for block in page.blocks if isinstance(block, Scatter))
    assert not scatter.alike
    assert "difference" not in " ".join(page.csv["groups.csv"][0])
    write_pages([page], tmp_path / "pages", "units")


def test_what_cannot_be_compared_is_said(tmp_path: Path, planted: TaskComparison) -> None:
    one = measured(tmp_path / "one", alike()[:, :1])
    with pytest.raises(ConfigError, match=r"one task alone, 'apples'.*second table \[\[tasks\]\]"):
        compare_tasks(one)
    store = planted._view.store
    for tasks, why in {
        (A,): "name two of: 'apples', 'pears'",
        (A, A): "both tasks are 'apples'.*name two different ones",
        (A, B, A): "name two of",
    }.items():
        with pytest.raises(ConfigError, match=why):
            compare_tasks(store, tasks=tasks)
    with pytest.raises(ConfigError, match="name two of"):
        compare_tasks(store, tasks=A)
    with pytest.raises(StoreError, match="no task 'plums'"):
        compare_tasks(store, tasks=(A, "plums"))
    constant = measured(tmp_path / "same", alike() * 0, noise=0.0)
    same = Store.from_arrays(tmp_path / "c", constant.masks(), {A: np.ones(MODELS), B: np.arange(MODELS) * 1.0})
    with pytest.raises(EstimateError, match="all models have the same value on 'apples'"):
        compare_tasks(same)


def test_tasks_are_named_by_their_beginnings_and_in_the_order_given(planted: TaskComparison) -> None:
    found = compare_tasks(planted._view.store, tasks=("pe", "ap"))
    assert found.tasks == (B, A)
    assert np.allclose(found.values, planted.values[:, ::-1])
    assert np.allclose(found.difference, -planted.difference)
    assert found.kinds()[3] == planted.kinds()[3]


def test_few_groups_and_few_models_are_told(tmp_path: Path) -> None:
    found = compare_tasks(measured(tmp_path, np.array([[1.0, -1], [0, 0], [-1, 1]]), noise=0.3))
    assert found.agreement is None
    assert "Orders are not compared: there are too few groups." in found.page().answer
    assert found.opposed.tolist() == [True, False, True]


def test_every_number_of_the_page_is_in_its_files(planted: TaskComparison, tmp_path: Path) -> None:
    page = planted.page()
    heads, rows = page.csv["groups.csv"]
    rows = list(rows)
    assert len(rows) == GROUPS
    at = {name: i for i, name in enumerate(heads)}
    order = planted.order()
    assert [row[0] for row in rows] == [planted.groups[i] for i in order]
    assert [row[at["influence on pears (points)"]] for row in rows] == pytest.approx(planted.values[order, 1].tolist())
    assert [row[at["q of difference"]] for row in rows] == pytest.approx(planted.difference_q[order].tolist())
    heads, costs = page.csv["lists.csv"]
    assert planted.cost is not None
    assert [row[list(heads).index("cost of the common list")] for row in costs] == pytest.approx(
        planted.cost[0].tolist()
    )
    tables = [block for block in page.blocks if isinstance(block, Table)]
    assert [table.title for table in tables] == ["What one list costs", "All groups"]
    write_pages([page], tmp_path, "fruit")
    text = (tmp_path / "targets.html").read_text()
    assert "<title>g3: " in text
    assert text.count("</title>") >= GROUPS


def test_frame_line_and_plot(planted: TaskComparison) -> None:
    frame = planted.to_frame()
    assert frame.shape == (2 * GROUPS, 11)
    assert frame[frame.group == "g3"].value.tolist() == planted.values[3].tolist()
    assert frame.task.unique().tolist() == [A, B]
    assert frame.attrs == {"unit": "points"}
    assert repr(planted).startswith("TaskComparison(apples and pears: 24 groups, 160 models; ")
    assert "2 groups help one and hurt the other: “g" in repr(planted)
    assert "helps pears, hurts apples" in planted._repr_html_()
    axes = planted.plot()
    assert "influence on apples (points)" in axes.get_xlabel()
    assert {text.get_text() for text in axes.texts} == {"g3", "g10", "g20"}


def test_each_pair_of_targets_has_a_page_up_to_a_limit(tmp_path: Path) -> None:
    store = measured(tmp_path, np.column_stack([alike()[:, 0]] * 5), seed=6)
    record: Any = store.plan()
    assert len(pairs_of(record)) == 10
    analysis = next(one for one in ANALYSES if one.name == "targets")
    pages = analysis.make(Job(store, record))
    assert isinstance(pages, list)
    assert [page.name for page in pages] == ["targets", *(f"targets-{i}" for i in range(2, 7))]
    assert pages[1].title == "apples and plums"
    assert pages[0].answer[-1].startswith("10 pairs of targets: pages show the first 6; with a task, ")
    pages = analysis.make(Job(store, record, settings={"task": "limes"}))
    assert isinstance(pages, list)
    assert [page.name for page in pages] == ["targets-4", "targets-7", "targets-9", "targets-10"]
    assert [page.title for page in pages][1] == "pears and limes"
    (page,) = analysis.make(Job(store, record, settings={"tasks": ("figs", "limes")}))  # type: ignore[misc]
    assert page.title == "figs and limes"


def test_pairs_are_of_different_targets_with_as_many_shots(target: Target, source: Dataset) -> None:
    other = Target(source)
    tasks = [Task(target, shots=k) for k in (1, 3)] + [Task(other, shots=k) for k in (3, 2)]
    plan = Plan(many_classes(), design=design.random(20, 10, seed=0), recipe=Recipe(), tasks=tasks)
    assert pairs_of(plan.record()) == [(tasks[1].digest, tasks[2].digest)]
    plan = Plan(many_classes(), design=design.random(20, 10, seed=0), recipe=Recipe(), tasks=tasks[:2])
    assert pairs_of(plan.record()) == []
