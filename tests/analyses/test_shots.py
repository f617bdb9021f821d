"""Influence by shots: kinds told apart, noise called noise, and pages that hold every number.

More than 500 lines: each sentence of one page is held to planted numbers, with and without power.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stub_influence import filled, many_classes

from pydt import design
from pydt.analyses import influence_by_shots, ranking
from pydt.analyses.shots import ByShots
from pydt.analyses.shots_kinds import (
    ALIKE,
    CHANGES,
    FADES,
    FEW,
    GROWS,
    MANY_SHOTS,
    MEANING,
    NOTHING,
    TURNS,
    UNCHANGED,
    kinds_of,
)
from pydt.analyses.shots_lists import common_score, lists_of
from pydt.analyses.shots_page import _explained
from pydt.base import ConfigError, EstimateError, StoreError
from pydt.data import Target
from pydt.ensemble import Plan, RowInput
from pydt.estimation import influences
from pydt.reporting import Multiples, Table, write_pages
from pydt.store import Outcome, Store
from pydt.training import Recipe, Task

GROUPS, MODELS, EXAMPLES = 20, 160, 40
SHOTS = (1, 2, 5, "full")
TASKS = {1: "one", 2: "two", 5: "five", "full": "all"}
CURVES = np.zeros((GROUPS, 4))  # in points
CURVES[2] = 6, 4, 2, 0
CURVES[5] = 0, 2, 4, 6
CURVES[7] = 6, 6, 6, 6
CURVES[9] = 6, 2, -2, -6
CURVES[11] = -12, -10, -8, -6


def measured(folder: Path, curves: np.ndarray, noise: float = 1.0, seed: int = 0, sign: int = 1, **more: Any) -> Store:
    """Rows whose output at each number of shots is the sum of what the kept groups give, and noise that numbers of
    shots share by half."""
    masks = design.bernoulli(len(curves), MODELS, seed=seed)
    random = np.random.default_rng(seed)
    common = random.normal(size=MODELS)
    outputs = {}
    for j, name in enumerate(TASKS.values()):
        own = np.asarray(masks[np.arange(MODELS)], float) @ curves[:, j] + noise * (common + random.normal(size=MODELS))
        outputs[name] = sign * own[:, None] + sign * 0.1 * random.normal(size=(MODELS, EXAMPLES))
    more = {"half": np.arange(EXAMPLES) % 2, "unit": "points", "groups": [f"g{i}" for i in range(len(curves))], **more}
    return Store.from_arrays(folder, np.asarray(masks[np.arange(MODELS)]), outputs, **more)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> ByShots:
    return influence_by_shots(measured(tmp_path_factory.mktemp("planted"), CURVES, seed=1), tasks=TASKS)


@pytest.fixture(scope="module")
def null(tmp_path_factory: pytest.TempPathFactory) -> ByShots:
    return influence_by_shots(measured(tmp_path_factory.mktemp("null"), np.zeros((GROUPS, 4)), seed=3), tasks=TASKS)


@dataclass(frozen=True)
class OfShots:
    """A runner of tasks at several numbers of shots: a kept group adds effects[shots][group] to the margin."""

    effects: dict[Any, np.ndarray]
    failing: frozenset[int] = frozenset()
    right: Any = None

    def __call__(self, given: RowInput) -> dict[str, Outcome]:
        found = {}
        random = np.random.default_rng(given.row.seed)
        for task in given.tasks:
            labels = task.target.described()["labels"]
            base = np.linspace(-2, 2, len(labels)) if task.shots != self.right else 50.0
            of_draw = np.random.default_rng(3).normal(size=(task.draws, 1))
            margin = (
                base + self.effects[task.shots] @ given.row.mask + 0.3 * of_draw * random.normal(size=of_draw.shape)
            )
            margin = margin + 0.3 * random.normal() + 0 * labels
            right = np.where(margin > 0, labels, (labels + 1) % 4)
            primitives = np.stack([margin, 0 * margin, 0 * margin, right]).astype(np.float32)
            found[task.digest] = Outcome({"primitives": primitives}, {"seconds": 1.0})
        if given.row.seed in self.failing:
            return {task.digest: Outcome(status="failed", reason="the loss became nan") for task in given.tasks}
        return found


def runner_of(**more: Any) -> OfShots:
    """Group 3 helps at 1 shot, and less at 5."""
    effects = {k: np.zeros(GROUPS) for k in (1, 5, "full")}
    effects[1][3] = 1.0
    effects[5][3] = 0.4
    return OfShots(effects, **more)


def trained(folder: Path, target: Target, **more: Any) -> tuple[Store, Plan]:
    tasks = tuple(Task(target, shots=k, draws=1 if k == "full" else 3, name=f"{k} shots") for k in ("full", 5, 1))
    plan = Plan(
        many_classes(), design=design.random(GROUPS, 90, alpha=0.5, seed=2), recipe=Recipe(), tasks=tasks, seed=0
    )
    return filled(folder, plan, runner_of(**more)), plan


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, target: Target) -> tuple[Store, Plan]:
    return trained(tmp_path_factory.mktemp("tasks"), target)


def rows_of(found: ByShots, file: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    heads, rows = found.page().csv[file]
    return list(heads), [tuple(row) for row in rows]


def note_of(found: ByShots, title: str) -> str:
    (note,) = (block.note for block in found.page().blocks if block.title == title)
    return note


def test_each_kind_is_told_from_the_others() -> None:
    cases = {  # values, half the width of the intervals, whether the trend passes
        FEW: ((3, 2, 1, 0.2), 1, True),
        MANY_SHOTS: ((0.2, 1, 2, 3), 1, True),
        FADES: ((-5, -4, -3, -2), 1, True),
        GROWS: ((2, 3, 4, 5), 1, True),
        TURNS: ((3, 1, 0, -3), 1, True),
        CHANGES: ((0.9, 0.3, -0.3, -0.9), 1, True),
        ALIKE: ((3, 3, 2, 3), 1, False),
        UNCHANGED: ((3, 3, 0.5, 3), 1, False),
        NOTHING: ((0.9, 0.9, 0.9, 0.9), 1, False),
    }
    values = np.array([case[0] for case in cases.values()], float)
    width = np.array([[case[1]] for case in cases.values()], float)
    q = np.array([0.01 if case[2] else 0.2 for case in cases.values()])
    matters = np.full(len(cases), 0.01)
    assert kinds_of(values, values - width, values + width, q, matters) == tuple(cases)
    by_chance = kinds_of(values, values - width, values + width, q, np.full(len(cases), 0.2))
    assert by_chance == tuple(UNCHANGED if kind == ALIKE else kind for kind in cases)
    assert set(MEANING) == set(cases)
    mirrored = kinds_of(values[:, ::-1], values[:, ::-1] - width, values[:, ::-1] + width, q, matters)
    other = {FEW: MANY_SHOTS, MANY_SHOTS: FEW, FADES: GROWS, GROWS: FADES}
    assert mirrored == tuple(other.get(kind, kind) for kind in cases), "backwards"
    assert kinds_of(-values, -values - width, -values + width, q, matters) == tuple(cases), "harm is told as help is"


def test_what_matters_at_neither_end_is_no_finding_at_few_shots() -> None:
    middle = np.array([[0.2, 2.0, 0.1], [0.2, 0.3, 2.0]])
    assert kinds_of(middle, middle - 1, middle + 1, np.full(2, 0.01), np.ones(2)) == (CHANGES, MANY_SHOTS)
    grown = np.array([[1.5, 1.6, 1.7, 1.8]])
    wide = np.array([[1.0, 1.0, 1.0, 2.0]])
    assert kinds_of(grown, grown - wide, grown + wide, np.full(1, 0.01), np.ones(1)) == (CHANGES,), "it does not fall"
    unknown = np.full((1, 4), np.nan)
    assert kinds_of(unknown, unknown, unknown, unknown[:, 0], unknown[:, 0]) == (NOTHING,)


def test_planted_curves_are_told_apart(planted: ByShots) -> None:
    expected = {2: FEW, 5: MANY_SHOTS, 7: ALIKE, 9: TURNS, 11: FADES}
    assert {i: planted.kinds[i] for i in expected} == expected
    assert planted.shots == SHOTS
    assert planted.estimand == "add"
    assert np.abs(planted.values - CURVES).max() < 5 * planted.stderr.max()
    assert (planted.low < planted.values).all()
    assert (planted.trend.q[[2, 5, 9, 11]] < 1e-4).all()
    assert planted.trend.q[7] > 0.05
    assert planted.of_kind(FEW) == ["g2"]
    first = planted.order()[:4]
    assert set(first.tolist()) == {2, 5, 9, 11}
    assert np.allclose(planted.spread, CURVES.std(0, ddof=1), rtol=0.1)
    assert ((planted.spread_low < planted.spread) & (planted.spread < planted.spread_high)).all()


def test_values_are_those_of_one_number_of_shots_alone(tasks: tuple[Store, Plan], planted: ByShots) -> None:
    store, plan = tasks
    for output in (None, "margin"):
        found = influence_by_shots(store, plan, output=output)
        assert found.shots == (1, 5, "full")
        for j, k in enumerate(found.shots):
            alone = ranking(store, plan, task=f"{k} shots", output=output)
            assert np.allclose(found.values[:, j], alone.values[:, 0], atol=1e-4)
            assert np.allclose(found.stderr[:, j], alone.stderr[:, 0], atol=1e-4)
            assert found.unit == alone.unit
    again = ranking(planted._view.store, task="five")
    assert np.allclose(planted.values[:, 2], again.values[:, 0], atol=1e-4)


def test_what_is_found_in_noise_is_nothing(null: ByShots) -> None:
    assert set(null.kinds) <= {NOTHING, UNCHANGED}
    page = null.page()
    sure = ((null.low > 0) | (null.high < 0)).any(1).sum()
    assert page.answer[0].startswith(f"{sure} of 20 groups matter" if sure else "No group of 20 is seen to matter")
    assert page.answer[-1].startswith("Leave nothing out yet: at no number of shots is the common list surely below 0")
    assert page.detail[0].startswith(
        "Of 20 groups (160 models), none is found to change with the number of labelled images"
    )
    assert not any(p < 0.05 for p in null.differ.values())
    text = " ".join(page.detail)
    assert "0 of 20 influences change" in note_of(null, "All groups")
    assert "would be found with a probability of 80 %" in text, "and what could have been found is said"
    assert "may change by one factor" not in text
    assert null.lists is not None
    assert (np.abs(null.lists.cost) < 4 * null.lists.cost_stderr).all()


def test_noise_that_all_numbers_of_shots_share_is_no_influence_at_all_of_them(tmp_path: Path) -> None:
    store = measured(tmp_path, np.zeros((60, 4)), seed=1)
    found = influence_by_shots(store, tasks={1: "one", 2: "one", "full": "one"})
    everywhere = ((found.low > 0) | (found.high < 0)).all(1)
    assert 1 <= everywhere.sum() <= 8, "by chance"
    assert ALIKE not in found.kinds
    assert (found.spread_low == 0).all()
    assert (found.spread < found.values.std(0, ddof=1) / 2).all(), "errors are taken out"


def test_the_cross_fit_of_lists_is_the_loop() -> None:
    masks = design.random(12, 80, alpha=0.5, seed=1)
    random = np.random.default_rng(0)
    kept = np.asarray(masks[np.arange(80)], float)
    found, judged = (kept @ random.normal(size=(12, 3)) + random.normal(size=(80, 3)) for _ in range(2))
    from pydt.analyses.sample_splitting import ERROR_OF_WAYS, halves

    ways = []
    for pair in halves(masks, 10, "lists by shots", 7):
        for one, other in (pair, pair[::-1]):
            first = influences(masks.take(one), found[one], "ols")
            second = influences(masks.take(other), judged[other], "ols").unbiased
            t = first.unbiased / first.stderr
            worth = np.empty((4, 3))
            for i, score in enumerate([*first.unbiased.T, t.mean(1)]):
                worst = sorted(range(12), key=lambda k, score=score: score[k])[:3]
                worth[i] = [np.mean([second[k, j] for k in worst]) for j in range(3)]
            ways.append(worth)
    lists = lists_of(masks, found, judged, "ols", 7)
    assert lists is not None
    assert (lists.size, lists.splits) == (3, 10)
    assert np.allclose(lists.worth, np.mean(ways, 0), atol=1e-5)
    assert np.allclose(lists.stderr, ERROR_OF_WAYS * np.std(ways, 0, ddof=1), atol=1e-5)
    cost = np.array([[way[3, j] - way[j, j] for j in range(3)] for way in ways])
    assert np.allclose(lists.cost, cost.mean(0), atol=1e-5)
    assert np.allclose(lists.cost_stderr, ERROR_OF_WAYS * cost.std(0, ddof=1), atol=1e-5)


def test_lists_need_halves_that_tell_the_groups_apart() -> None:
    masks = design.random(12, 14, alpha=0.9, seed=1)
    assert lists_of(masks, np.ones((14, 2)), np.ones((14, 2)), "difference", 0) is None


def test_the_common_ranking_passes_over_columns_without_errors() -> None:
    values = np.array([[2.0, 0.0], [-3.0, 0.0]])
    stderr = np.array([[1.0, np.nan], [1.0, np.nan]])
    assert common_score(values, stderr).tolist() == [1.0, -1.5]


def test_two_opposite_orders_need_two_lists(tmp_path: Path) -> None:
    curves = np.zeros((GROUPS, 4))
    curves[:5] = -4, -4, 4, 4
    curves[5:10] = 4, 4, -4, -4
    found = influence_by_shots(measured(tmp_path, curves), tasks=TASKS)
    assert found.lists is not None
    assert (found.lists.cost > 3 * found.lists.cost_stderr).all()
    own, other = found.lists.worth[0, 0], found.lists.worth[3, 0]
    assert own < -3 < 3 < other, "the list of all labelled images is a wrong one at 1 shot"
    page = found.page()
    assert "does not serve all numbers of shots: at 1 shot, at 2 shots, at 5 shots, with all" in page.answer[1]
    (table,) = (block for block in page.blocks if block.title == "One list for all?")
    assert isinstance(table, Table)
    against = [row[table.columns.index("common list against own")] for row in table.rows]
    assert against == (-found.lists.cost).tolist(), "better is positive"
    assert found.agreement[0, 3].rho < -0.8
    assert found.differ[0, 3] < 0.05
    assert "4 of 6 pairs of numbers of shots order the groups differently, most surely " in " ".join(page.detail)
    assert "Different orders: " in note_of(found, "Do two numbers of shots order groups alike?")


def test_the_page_holds_every_number(planted: ByShots, tmp_path: Path) -> None:
    page = planted.page()
    assert page.name == "shots"
    assert page.detail[0].startswith("Of 20 groups (160 models), 1 matters mainly at few shots (\u201cg2\u201d), ")
    assert "1 matters mainly at many shots (\u201cg5\u201d)" in page.detail[0]
    assert len(page.answer) == 3
    sure = ((planted.low > 0) | (planted.high < 0)).any(1).sum()
    assert page.answer[0].startswith(
        f"{sure} of 20 groups matter at some number of shots (by chance alone 1.0 would): "
    )
    assert "; the influences of 4 surely change with the number of labelled images." in page.answer[0]
    most = [np.abs([planted.low[i, j], planted.high[i, j]]).max() for i, j in ((2, -1), (5, 0))]
    assert page.detail[1] == (
        f"Mainly does not mean only: up to {most[0]:.2f} points may remain with all labelled images and up to "
        f"{most[1]:.2f} points may remain at 1 shot (95 % for each group)."
    )
    ends = r" \u2212?\S+ to \+\S+"
    note = note_of(planted, "Influence by number of shots")
    assert re.search(
        f"With all labelled images there may remain: \u201cg2\u201d{ends}. At 1 shot .* \u201cg5\u201d{ends}", note
    )
    heads, rows = rows_of(planted, "curves.csv")
    assert heads[:3] == ["group", "shots", "influence (points)"]
    assert sum("simultaneous" in head for head in heads) == 2
    assert len(rows) == GROUPS * 4
    assert [row[1] for row in rows[:4]] == ["1", "2", "5", "all"]
    assert rows[4 * 2][2:] == tuple(part[2, 0] for part in (planted.values, planted.stderr, planted.low, planted.high))
    heads, rows = rows_of(planted, "groups.csv")
    assert heads == [
        "group",
        "kind",
        "trend, first to last (points)",
        "stderr of trend",
        "p of trend",
        "q of trend",
        "q of the mean over shots",
        "p of any change (Hotelling)",
        "q of any change (Hotelling)",
    ]
    assert rows[5][:3] == ("g5", MANY_SHOTS, planted.trend.values[5])
    assert [row[0] for row in rows_of(planted, "shares.csv")[1]] == ["1", "2", "5", "all"]
    heads, rows = rows_of(planted, "agreement.csv")
    assert len(rows) == 6
    assert rows[2][:2] == ("1", "all")
    assert rows[2][heads.index("correlation of true influences")] == planted.agreement[0, 3].rho
    heads, rows = rows_of(planted, "lists.csv")
    assert planted.lists is not None
    assert rows[1][heads.index("list of all (points)")] == planted.lists.worth[3, 1]
    assert rows[1][heads.index("common list (points)")] == planted.lists.worth[4, 1]
    write_pages([page], tmp_path, "measures")
    assert "mainly at few shots" in (tmp_path / "shots.html").read_text()


def test_panels_begin_with_the_groups_that_change(planted: ByShots) -> None:
    panels, shares = (block for block in planted.page().blocks if isinstance(block, Multiples))
    assert set(panels.names[:4]) == {"g2", "g5", "g9", "g11"}
    assert panels.names[4] == "g7"
    order = planted.order()
    assert np.array_equal(panels.marked, ((planted.low > 0) | (planted.high < 0))[order]), "every sure point"
    assert panels.marked[0].any()
    assert list(panels.x) == ["1", "2", "5", "all"]
    assert panels.captions[panels.names.index("g2")] == FEW
    assert shares.names[0] == "groups"
    tables = [block.title for block in planted.page().blocks if isinstance(block, Table)]
    assert tables == ["Do two numbers of shots order groups alike?", "One list for all?", "All groups"]


def shares_of(groups: tuple[float, ...], noiseless: tuple[float, ...], width: float) -> Any:
    """Parts of the variance at some numbers of shots, and the fall of each, with intervals of this half width (times
    the number of falls that hold at once)."""

    def difference(a: int, b: int, part: str, tests: int) -> Any:
        value = {"groups": groups, "noiseless": noiseless}[part]
        return SimpleNamespace(value=value[a] - value[b], low=value[a] - value[b] - width * tests)

    parts = (SimpleNamespace(values=x, low=x - width, high=x + width) for x in map(np.array, (groups, noiseless)))
    return SimpleNamespace(**dict(zip(("groups", "noiseless"), parts, strict=True)), difference=difference)


@pytest.mark.parametrize(
    ("groups", "noiseless", "width", "says"),
    [
        ((0.6, 0.2), (0.7, 0.3), 0.1, "This fall is not only noise of which images are labelled and judged: "),
        ((0.6, 0.2), (0.7, 0.65), 0.1, "Most of this fall seems to be noise"),
        ((0.6, 0.2), (0.7, 0.4), 0.35, "Whether this fall is more than noise of"),
        ((0.6, 0.2), (0.7, np.nan), 0.1, "How much of this fall is noise of which images .* cannot be told"),
        ((0.6, 0.5), (0.7, 0.1), 0.2, None),
        ((0.5, 0.6), (0.7, 0.1), 0.0, None),
    ],
)
def test_what_of_a_fall_is_noise_is_said_as_surely_as_it_is_known(
    planted: ByShots, groups: tuple[float, float], noiseless: tuple[float, float], width: float, says: str | None
) -> None:
    shares = shares_of(groups, noiseless, width)
    said = _explained(replace(planted, shots=(1, "full"), shares=shares))
    assert said[0].startswith("Of the variance of value between models the groups explain ")
    assert len(said) == (2 if says else 1)
    assert says is None or re.match(says, said[1])


def test_a_share_below_0_is_explained(planted: ByShots) -> None:
    for last, told in ((-0.05, True), (0.05, False)):
        shares = shares_of((0.2, 0.1, 0.1, last), (0.2, 0.1, 0.1, 0.1), 0.3)
        assert ("a small share may be below 0)." in _explained(replace(planted, shares=shares))[0]) is told


def test_a_fall_from_the_largest_of_several_shares_is_tested_as_one_of_them(planted: ByShots) -> None:
    def said(width: float) -> int:
        return len(_explained(replace(planted, shares=shares_of((0.5, 0.6, 0.5, 0.5), (0.5, 0.7, 0.5, 0.5), width))))

    assert said(0.03) == 2
    assert said(0.05) == 1, "one of three falls: the largest of equal shares seems to fall in 8 %"


def test_orders_that_could_not_be_told_are_not_called_alike(planted: ByShots) -> None:
    no_power = {pair: replace(one, low=-0.5) for pair, one in planted.agreement.items()}
    unknown = dict.fromkeys(planted.differ, 1.0)
    found = replace(planted, agreement=no_power, differ=unknown)
    assert found.page().detail[-2] == "Whether numbers of shots order the groups alike could not be told."
    some = {pair: replace(one, low=-0.5 if pair == (0, 3) else 0.9) for pair, one in planted.agreement.items()}
    said = replace(planted, agreement=some, differ=unknown).page().detail[-2]
    assert said.startswith("No two numbers of shots are found to order the groups differently: all true influences may")
    assert said.endswith("; in 1 of 6 pairs other orders could hide.")


def test_shares_tell_groups_from_draws(tasks: tuple[Store, Plan], planted: ByShots) -> None:
    found = influence_by_shots(*tasks, output="margin")
    assert planted.shares is not None
    assert (planted.shares.images.values > 0).all(), "two halves of the images"
    assert found.shares is not None
    assert found.shares.groups.values[0] > 0.5 > found.shares.groups.values[2]
    assert found.shares.draws.values[1] > 0.02, "draws differ"
    assert found.shares.draws.values[2] == 0, "one draw"


def test_noise_of_images_is_known_where_halves_differ_in_size(tmp_path: Path) -> None:
    outputs = np.random.default_rng(0).normal(size=(MODELS, 4, EXAMPLES))
    masks = np.asarray(design.bernoulli(8, MODELS, seed=0)[np.arange(MODELS)])
    training = np.random.default_rng(1).normal(size=(MODELS, 1)) * 0.5
    half = (np.arange(EXAMPLES) >= 4).astype(int)  # of 4 and 36 examples: 1 / 4 of the variance of one, and 1 / 36
    named = {name: training + outputs[:, j] for j, name in enumerate(TASKS.values())}
    found = influence_by_shots(Store.from_arrays(tmp_path, masks, named, half=half, unit="points"), tasks=TASKS)
    assert found.shares is not None
    assert np.abs(found.shares.images.values - 0.5).max() < 0.12, "0.25 of 0.5; half of the difference would be 0.28"


def test_a_record_is_enough_without_retraining(tasks: tuple[Store, Plan]) -> None:
    store, plan = tasks
    with_plan, without = influence_by_shots(store, plan), influence_by_shots(store)
    assert np.array_equal(with_plan.values, without.values)
    assert without.page().answer == with_plan.page().answer


def test_a_number_of_shots_at_which_all_models_agree_is_left_out(tmp_path: Path, target: Target) -> None:
    store, plan = trained(tmp_path, target, right="full")
    found = influence_by_shots(store, plan)
    assert (found.shots, found.constant) == ((1, 5), ("full",))
    assert found.values.shape == (GROUPS, 2)
    assert "all models have the same accuracy there: all labelled images" in found.page().detail[-1]
    write_pages([found.page()], tmp_path / "pages", "blobs")
    masks = np.asarray(design.random(GROUPS, MODELS)[np.arange(MODELS)])
    outputs = {name: np.ones((MODELS, 4)) for name in TASKS.values()}
    still = Store.from_arrays(tmp_path / "still", masks, outputs, unit="points")
    with pytest.raises(EstimateError, match="same value at 4 of 4 numbers of shots"):
        influence_by_shots(still, tasks=TASKS)


def test_lower_may_be_better(planted: ByShots, tmp_path: Path) -> None:
    turned = influence_by_shots(measured(tmp_path, CURVES, seed=1, sign=-1, higher_is_better=False), tasks=TASKS)
    assert np.allclose(turned.values, planted.values, atol=1e-4)
    assert turned.kinds == planted.kinds
    assert turned.lists is not None
    assert planted.lists is not None
    assert np.allclose(turned.lists.worth, planted.lists.worth, atol=1e-4)
    assert "Lower values are better here" in turned.page().method


def test_equal_outputs_at_two_numbers_of_shots_do_no_harm(tmp_path: Path) -> None:
    store = measured(tmp_path, CURVES[:, [0, 0, 2, 3]], seed=1)
    twice = influence_by_shots(store, tasks={1: "one", 2: "one", "full": "all"})
    assert np.isfinite(twice.low).all()
    assert twice.agreement[0, 1].rho > 0.99
    alone = influence_by_shots(store, tasks={1: "one", 2: "one"})
    assert set(alone.kinds) <= {ALIKE, UNCHANGED, NOTHING}
    for found in (twice, alone):
        write_pages([found.page()], tmp_path / "pages", "equal")
    assert "0 of 20 influences change" in note_of(alone, "All groups")


def test_few_groups_are_told_what_they_can_be(tmp_path: Path) -> None:
    found = influence_by_shots(measured(tmp_path, CURVES[[2, 5, 7]], seed=1), tasks=TASKS)
    assert found.kinds == (FEW, MANY_SHOTS, ALIKE)
    assert not found.agreement
    page = found.page()
    assert "Orders are not compared: there are too few groups." in page.detail
    assert "agreement.csv" not in page.csv
    write_pages([page], tmp_path / "pages", "few")


def test_failed_rows_come_first_where_they_are_many(tmp_path: Path, target: Target, tasks: tuple[Store, Plan]) -> None:
    lost = frozenset(row.seed for row in tasks[1].rows()[:3])
    store, plan = trained(tmp_path, target, failing=lost)
    found = influence_by_shots(store, plan)
    assert found.models == 87
    assert found.page().answer[0].startswith("No verdict: 3 of 90 rows failed, more than 2%")


def test_retraining_judges_the_lists(tmp_path: Path, target: Target) -> None:
    store, plan = trained(tmp_path, target)
    with ThreadPoolExecutor(1) as executor:
        found = influence_by_shots(
            store, plan, repeats=4, sizes=[3, 8], runner=runner_of(), executor=executor, progress=False
        )
    assert found.kept is not None
    assert (found.kept.shots, found.kept.sizes) == ((1, 5, "full"), (3, 8))
    lowest = np.argsort(found.values[:, 0], kind="stable")[:3]
    assert found.kept.ranked[1][:3] == tuple(found.groups[i] for i in lowest)
    page = found.page()
    assert set(found.kept.csv()) < set(page.csv)
    assert "lists.csv" in page.csv
    assert page.answer[1:] == found.kept.sentences()
    assert len(page.answer) <= 3
    titles = [block.title for block in page.blocks]
    assert all(block.title in titles for block in found.kept.blocks())
    write_pages([page], tmp_path / "pages", "blobs")
    assert influence_by_shots(store, plan).kept is None


def test_retraining_needs_a_plan(tasks: tuple[Store, Plan]) -> None:
    with pytest.raises(ConfigError, match=r"trains nothing.*give the pydt\.Plan itself"):
        influence_by_shots(tasks[0], repeats=4)
    with pytest.raises(ConfigError, match=r"repeats -1 is out of range.*>= 2"):
        influence_by_shots(*tasks, repeats=-1)
    with pytest.raises(ConfigError, match="sizes without retraining"):
        influence_by_shots(*tasks, sizes=[3])


def test_bad_questions_are_refused(tasks: tuple[Store, Plan], tmp_path: Path) -> None:
    store, plan = tasks
    with pytest.raises(ConfigError, match="no target 'moon'"):
        influence_by_shots(store, plan, target="moon")
    with pytest.raises(ConfigError, match="no influences on output 'prediction'"):
        influence_by_shots(store, plan, output="prediction")
    with pytest.raises(StoreError, match="holds no store"):
        influence_by_shots(tmp_path / "nowhere")
