"""Kept lists by shots: planted truths come back, rows are shared and those of a removal curve, bad input is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stub_measures
import stub_truth
from stub_truth import GROUPS

from pydt.analyses import removal_curve
from pydt.analyses.shots_removal import ALL, KeptLists, kept_lists
from pydt.analyses.shots_tasks import ShotsTasks, shots_tasks
from pydt.base import ConfigError
from pydt.ensemble import Plan, RowInput
from pydt.reporting import Page, write_pages
from pydt.store import Measure, Outcome, Store
from pydt.training import Task

SHOTS = (1, 5, "full")
ALIKE = np.outer([0.04, -0.08, 0.05, 0.03, 0.03, -0.06, 0.02, 0.03], [1, 0.8, 0.5])
APART = ALIKE.copy()
APART[:, 2] = -0.8 * ALIKE[:, 0]  # with all labelled images what hurts is what helps at one shot
CALLS: list[int] = []  # seeds of the rows that were trained


class ByShots:
    """A runner: shares of right images that add up group by group, with effects of each number of shots."""

    def __init__(self, effects: np.ndarray, failing: tuple[str, ...] = ()) -> None:
        self.effects, self.failing = effects, failing

    def __call__(self, given: RowInput) -> dict[str, Outcome]:
        row = given.row
        CALLS.append(row.seed)
        random = np.random.default_rng(row.seed)
        run = 0.005 * random.normal()
        found = {}
        for task in given.tasks:
            if row.kind in self.failing and row.seed % 2:
                found[task.digest] = Outcome(status="failed", reason="bad luck")
                continue
            images = len(task.target.described()["labels"])
            chance = 0.6 + float(self.effects[:, SHOTS.index(task.shots)] @ row.mask) + run
            hard = np.random.default_rng(9).random(images)
            margin = chance + 0.2 * (random.random((task.draws, images)) - 0.5) - hard
            found[task.digest] = stub_truth.outcome(task, margin, (task.target.described()["labels"] + 1) % 4)
        return found


def plan_of(sizes: tuple[int, ...] = (stub_truth.EACH,) * GROUPS) -> Plan:
    job = stub_truth.plan(20, sizes)
    target = job.tasks[0].target
    return replace(job, tasks=tuple(Task(target, shots=k, draws=1 if k == "full" else 2) for k in SHOTS))


def lists(
    folder: Path, effects: np.ndarray, job: Plan | None = None, *, runner: Any = None, values: Any = None, **more: Any
) -> KeptLists:
    job = job or plan_of()
    more = {"sizes": (2, 4), "repeats": 6, "progress": False, **more}
    values = effects if values is None else values
    if not (folder / "store.json").exists():
        stub_truth.trained(job, folder, ByShots(effects))
        CALLS.clear()
    with ThreadPoolExecutor(1) as executor:
        return kept_lists(
            folder, job, shots_tasks(job.record()), values, np.full(values.shape, 0.01),
            runner=runner or ByShots(effects), executor=executor, **more,
        )  # fmt: skip


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> KeptLists:
    return lists(tmp_path_factory.mktemp("alike"), ALIKE)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> KeptLists:
    return lists(tmp_path_factory.mktemp("apart"), APART)


def true_gain(effects: np.ndarray, left_out: tuple[str, ...], j: int) -> float:
    return -float(sum(effects[int(name[1:]), j] for name in left_out))


@pytest.mark.parametrize("which", ["alike", "apart"])
def test_every_list_gains_at_every_number_of_shots_what_is_true_of_it(
    which: str, request: pytest.FixtureRequest
) -> None:
    found, effects = request.getfixturevalue(which), {"alike": ALIKE, "apart": APART}[which]
    assert [(one.shots, one.size) for one in found.lists] == [(k, size) for k in (*SHOTS, ALL) for size in (2, 4)]
    for one in found.lists:
        if one.shots != ALL:
            order = np.argsort(effects[:, SHOTS.index(one.shots)], kind="stable")
            assert one.left_out == tuple(f"g{i}" for i in order[: one.size])
        for j, gain in enumerate(one.gains):
            assert gain is not None
            # 285 report images, whose hardness is uniform
            assert gain.difference == pytest.approx(true_gain(effects, one.left_out, j), abs=0.06)
            assert (gain.n, gain.control_n) == (6, 12)


def test_one_list_serves_where_all_shots_agree(alike: KeptLists) -> None:
    one = alike.one
    assert one is not None
    assert one.serves
    assert one.chosen == (2, 2)
    assert one.size == 2
    assert one.most == 0, "all lists leave out the same groups"
    assert all(own.over_common is None for own in alike.lists)
    assert alike.retrained == 12 + 2 * 6 + 2 * 6, "the full source, one list for all and random sets"
    assert set(alike.keep()) == set(alike.keep(1)) == {"g0", "g2", "g3", "g4", "g6", "g7"}
    said = alike.sentences()[0]
    assert said == (
        "One list serves all shots: leaving out the 2 lowest groups of the common ranking costs at most 0.00 points "
        "against the list of each number of shots (95 %, all at once)."
    )


def test_shots_that_need_a_list_of_their_own_are_named(apart: KeptLists) -> None:
    one = apart.one
    assert one is not None
    assert one.serves is False
    assert one.loss_low[2] > 0
    assert (one.loss_low[:2] <= 0).all()
    assert apart.best[2] is not None
    assert apart.best[2].chosen == (4, 4)
    assert "the own list is better with all labelled images by +" in apart.sentences()[0]
    assert "at 1 shot" not in apart.sentences()[0]
    full = next(own for own in apart.lists if (own.shots, own.size) == ("full", 4))
    assert full.over_common is not None
    assert full.over_common.low > 0
    over = [one.over_common for one in apart.lists if one.over_common is not None]
    up, down = sum(one.low > 0 for one in over), sum(one.high < 0 for one in over)
    assert up > down
    note = next(block.note for block in apart.blocks() if block.title.startswith("Gain of each list"))
    assert f"the own list is better than the common one in {up} and worse in {down} of {len(over)} comparisons" in note
    assert apart.keep("full") == full_kept(apart, 4)
    assert apart.keep("full", 2) == full_kept(apart, 2)


def full_kept(found: KeptLists, size: int) -> tuple[str, ...]:
    return found.ranked["full"][size:]


def test_rows_are_those_of_removal_curves_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    job = plan_of()
    with ThreadPoolExecutor(1) as executor:
        store = stub_truth.trained(job, tmp_path, ByShots(APART))
        curve = removal_curve(
            store, job, task=job.tasks[2], sizes=[2, 4], repeats=6, steps="same", runner=ByShots(APART),
            executor=executor, progress=False,
        )  # fmt: skip
        ranked = np.zeros((GROUPS, 3))
        place = np.argsort([int(name[1:]) for name in curve.ranked])
        ranked[:, 0], ranked[:, 1], ranked[:, 2] = np.arange(GROUPS), np.arange(GROUPS), place
        found = lists(tmp_path, APART, job, values=ranked)
        arms = {point.arm.kind + str(point.arm.dropped): point.arm for point in curve.points}
        own = {f"drop bottom{one.size}": one.arms[2] for one in found.lists if one.shots == "full"}
        control = {f"drop random{size}": arm[2] for size, arm in found.random.items()}
        for name, arm in ({"full0": found.full[2]} | own | control).items():
            assert [(row.keep, row.seed) for row in arm.rows[:6]] == [(row.keep, row.seed) for row in arms[name].rows]
            assert np.array_equal(arm.correct[:6], arms[name].correct)
        CALLS.clear()
        again = lists(store.folder, APART, job, values=ranked)
        assert not CALLS
        assert again.one is not None
        assert found.one is not None
        assert np.array_equal(again.one.loss, found.one.loss)
        # The other way round, a curve finds all that it needs but the rows without the highest groups.
        removal_curve(
            store, job, task=job.tasks[0], kinds=("random",), sizes=[2, 4], repeats=6, steps="same",
            runner=ByShots(APART), executor=executor, progress=False,
        )  # fmt: skip
        assert not CALLS


def test_lists_that_leave_out_the_same_groups_are_trained_once(tmp_path: Path) -> None:
    values = APART.copy()
    values[:, 1] = values[:, 0]
    found = lists(tmp_path, APART, values=values, sizes=(2,), repeats=4)
    assert len(CALLS) == len(set(CALLS)) + 4, "two lists have the seeds of one, as their rows are otherwise alike"
    different = {one.left_out for one in found.lists}
    assert len({frozenset(names) for names in different}) == 2
    assert found.retrained == len(CALLS) == 8 + 2 * 4 + 4


def test_the_common_ranking_is_the_mean_of_t_values_without_what_is_not_known(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(GROUPS, 3))
    values[:, 1] = np.nan
    stderr = np.ones((GROUPS, 3)) * [0.5, np.nan, 0.4]
    job = plan_of()
    stub_truth.trained(job, tmp_path, ByShots(ALIKE))
    with ThreadPoolExecutor(1) as executor:
        found = kept_lists(
            tmp_path, job, shots_tasks(job.record()), values, stderr, sizes=[1], repeats=4, runner=ByShots(ALIKE),
            executor=executor, progress=False,
        )  # fmt: skip
    expected = np.argsort(values[:, 0] / 0.5 + values[:, 2] / 0.4)
    assert (expected != np.argsort(values[:, 0])).any()
    assert (expected != np.argsort(values[:, 2])).any()
    assert found.ranked[ALL] == tuple(f"g{i}" for i in expected)
    assert set(found.ranked) == {1, "full", ALL}
    assert found.best[1] is None
    assert found.one is not None
    assert np.isnan(found.one.loss).tolist() == [False, True, False]
    assert found.one.serves is not True
    with pytest.raises(ConfigError, match="no list 5"):
        found.keep(5)


def test_steps_and_epochs_are_recipes_of_their_own(tmp_path: Path) -> None:
    found = lists(tmp_path, ALIKE, sizes=(2,), repeats=2, steps="epochs")
    assert found.length == "epochs"
    assert found.one is None
    assert found.best == (None, None, None)
    assert "was not judged: this needs 4 finished retrainings" in found.sentences()[0]
    with pytest.raises(ConfigError, match="at least 4 repeats"):
        found.keep()
    assert len(found.keep(size=2)) == 6
    recipes = {record.recipe for record in Store(tmp_path).plans().values()}
    assert len(recipes) == 1
    assert lists(tmp_path, ALIKE, sizes=(2,), repeats=2).length == "steps"
    assert len({record.recipe for record in Store(tmp_path).plans().values()}) == 2


def test_groups_of_unequal_size_are_matched_in_images(tmp_path: Path) -> None:
    sizes = (40, 8, 40, 8, 40, 8, 8, 8)
    found = lists(tmp_path, ALIKE, plan_of(sizes), sizes=(2,), repeats=4)
    counts = np.array(sizes)
    assert {int(counts[~row.mask].sum()) for row in found.random[2][0].rows} == {16}, "g1 and g5 are small"


def test_failed_rows_leave_arms_with_fewer(tmp_path: Path) -> None:
    found = lists(tmp_path, ALIKE, runner=ByShots(ALIKE, ("full",)), repeats=4)
    lost = found.full[0].failed
    assert 0 < lost == found.failed < 8
    assert all(len(arm.rows) == 8 - lost for arm in found.full)
    found = lists(tmp_path / "again", ALIKE, runner=ByShots(ALIKE, ("drop bottom",)), repeats=2, sizes=(2,), seed=3)
    page(found)


def page(found: KeptLists) -> Page:
    return Page("shots", "By shots", "What?", found.sentences(), found.blocks(), found.csv(), "How.")


@pytest.mark.parametrize("which", ["alike", "apart"])
def test_the_page_shows_what_was_found(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found: KeptLists = request.getfixturevalue(which)
    made = page(found)
    write_pages([made], tmp_path, "a study")
    assert "Gain of one list for all shots" in (tmp_path / "shots.html").read_text()
    head, rows = found.csv()["kept-gains.csv"]
    assert len(list(rows)) == 4 * 2 * 3
    assert found.one is not None
    kept = {row[0]: row for row in found.csv()["kept-one.csv"][1]}
    assert kept[5][3] == found.one.gain[1]
    places = found.csv()["kept-ranks.csv"][1]
    assert [row[-1] for row in places] == list(range(1, GROUPS + 1))
    of_common = [row for row in found.csv()["kept-gains.csv"][1] if row[0] == ALL]
    assert all(row[head.index("over common")] is None for row in of_common)


# ---- measures ------------------------------------------------------------------------------------------------------


def measured(way: str, folder: Path) -> KeptLists:
    """The same rows told as accuracy or as error, at two numbers of shots."""
    first = stub_measures.told_as(way).tasks[0]
    tasks = [replace_name(first, f"{way} at {k}") for k in (1, 5)]
    job = stub_measures.plan(first, lambda row: {t.name: told(way, row) for t in row.tasks})
    job = replace(job, tasks=tuple(tasks))
    asked = ShotsTasks((1, 5), tuple(task.digest for task in tasks), "", "")
    values = np.stack([stub_measures.EFFECTS] * 2, 1)
    stub_measures.filled(job, folder)
    with ThreadPoolExecutor(1) as executor:
        return kept_lists(
            folder, job, asked, values, np.ones(values.shape), sizes=[2], repeats=4, executor=executor, progress=False
        )


def told(way: str, row: RowInput) -> np.ndarray:
    right = stub_measures.right(row)
    return right if way == "accuracy" else ~right


def replace_name(measure: Measure, name: str) -> Measure:
    half = np.arange(stub_measures.EXAMPLES) // 4 % 2
    return Measure(
        name, stub_measures.EXAMPLES, unit=measure.unit, scale=100, higher_is_better=measure.higher_is_better,
        half=half, classes=stub_measures.CLASSES,
    )  # fmt: skip


def test_lower_is_better_gains_as_much_as_higher(tmp_path: Path) -> None:
    one, other = (measured(way, tmp_path / way) for way in stub_measures.WAYS)
    assert one.length == other.length == "own"
    assert one.one is not None
    assert other.one is not None
    assert one.one.chosen == other.one.chosen == (2, 2)
    assert one.one.gain == pytest.approx(other.one.gain)
    assert (one.one.gain > 0.1).all()
    assert one.lists[0].gains[0] is not None
    assert other.lists[0].gains[0] is not None
    assert one.lists[0].gains[0].difference == pytest.approx(other.lists[0].gains[0].difference)
    page(one), page(other)


# ---- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"sizes": [8]}, "size 8 is out of range.*from 1 to 7"),
        ({"sizes": []}, "give a list of numbers from 1 to 7"),
        ({"sizes": 2}, "give a list of numbers from 1 to 7"),
        ({"sizes": [0, 2]}, "size 0 is out of range.*from 1 to 7"),
        ({"sizes": [2.5]}, "size 2.5 is not a whole number"),
        ({"repeats": 1}, "repeats 1 is out of range.*>= 2"),
        ({"repeats": "4"}, "repeats '4' is not a whole number"),
        ({"steps": "both"}, "same, epochs"),
        ({"values": np.zeros((GROUPS, 2))}, r"give \(groups, shots\)"),
        ({"values": np.full((GROUPS, 3), np.nan)}, "no number of shots has influences"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_trained(
    tmp_path: Path, how: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        lists(tmp_path, ALIKE, **how)
    assert error.value.where
    assert error.value.mend
    assert not CALLS


def test_a_record_cannot_be_retrained(tmp_path: Path) -> None:
    job: Any = plan_of().record()
    with pytest.raises(ConfigError, match="is a Record, which trains nothing"):
        kept_lists(tmp_path, job, shots_tasks(job), ALIKE, ALIKE)


def test_tasks_of_two_metrics_have_no_mean(tmp_path: Path) -> None:
    job = plan_of()
    other = stub_truth.mean_per_class(job).tasks[0]
    job = replace(job, tasks=(job.tasks[0], replace(other, name="per class")))
    asked = ShotsTasks((1, 5), tuple(task.digest for task in job.tasks), "", "")
    stub_truth.trained(job, tmp_path, ByShots(ALIKE))
    with pytest.raises(ConfigError, match="have no mean"):
        kept_lists(tmp_path, job, asked, ALIKE[:, :2], ALIKE[:, :2])


def test_how_many_retrainings_is_said_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists(tmp_path, ALIKE, sizes=(2,), repeats=2, progress=True)
    assert "8 retrainings" in capsys.readouterr().err
