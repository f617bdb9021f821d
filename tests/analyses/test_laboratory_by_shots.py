"""The laboratory by number of shots: what was planted is found where it acts, and missed where it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import stub_store

import pydt
from pydt import design, lab
from pydt.analyses import ByShots
from pydt.analyses.shots_kinds import CHANGED
from pydt.base import ConfigError
from pydt.store import Outcome, Store


@pytest.fixture(scope="module")
def made() -> lab.PlantedByShots:
    return lab.planted_by_shots(3)


def test_the_plan_has_one_target_at_all_numbers_of_shots_and_its_rows_can_be_trained(made):
    from pydt.ensemble import RowInput, run_row

    plan = lab.plan_by_shots(made, 8, seed=1)
    assert plan.context.units[1] == tuple(made.kinds)
    assert [task.shots for task in plan.tasks] == [1, 2, 5, 20, "full"]
    assert {task.target.digest for task in plan.tasks} == {made.target.digest}
    masks = np.asarray(plan.design)
    assert masks.shape == (8, 10)
    assert np.array_equal(masks[::2], ~masks[1::2])
    outcomes = run_row(RowInput(plan.context, plan.rows()[0], plan.tasks, lambda: None))
    accuracy = [outcomes[task.digest].scalars["report_accuracy"] for task in plan.tasks]
    assert accuracy == sorted(accuracy)
    assert accuracy[-1] > 0.5


def test_a_plan_of_another_source_is_refused(made, tmp_path):
    other = replace(made, kinds={**made.kinds, "all 4": "all"})
    with pytest.raises(ConfigError, match=r"has other groups than were planted\. make it with lab\.plan_by_shots"):
        list(lab.findings_by_shots(tmp_path, other, lab.plan_by_shots(made, 8)))


def made_up(made: lab.PlantedByShots, acts: dict[str, tuple[float, float]]):
    """Outputs of a row as its mask says: what `stub_store.computed` asks for, without any training.

    A group of a kind moves margins by the first number at one shot, by the second with the whole pool, and in between
    on a straight line over the places.
    """
    labels = made.target.judged.labels[made.target.described()["ids"]]
    ends = np.array([acts.get(kind, (0.0, 0.0)) for kind in made.kinds.values()])

    def outcome(context, row, task) -> Outcome:
        place = lab.SHOTS.index(task.shots) / (len(lab.SHOTS) - 1)
        random = np.random.default_rng(row.seed)  # one noise of a row at all shots
        effect = row.mask.astype(float) @ (ends @ [1 - place, place]) + random.normal(0, 0.05)
        margins = (effect + random.normal(0, 0.5, (task.draws, len(labels)))) / 2
        said = np.where(margins > 0, labels, (labels + 1) % 8)
        return Outcome({"primitives": np.stack([margins, -margins, -margins + 1, said]).astype(np.float32)})

    return outcome


@pytest.mark.parametrize(
    ("acts", "missed"),
    [
        ({"few": (-0.3, 0), "all": (0.3, 0.3)}, []),
        ({"few": (-0.3, -0.3), "all": (0.3, 0.3)}, ["mainly at few shots"]),
        ({"few": (-0.3, 0), "all": (0, 0.3)}, ["at all shots"]),
        ({"few": (-0.3, 0), "all": (0.3, 0.3), "irrelevant": (0.3, 0)}, ["mainly at few shots", "irrelevant"]),
        ({}, ["mainly at few shots", "at all shots"]),
    ],
)
def test_what_was_planted_is_found_where_it_acts_and_missed_where_it_does_not(
    made, acts, missed, tmp_path, monkeypatch
):
    plan = lab.plan_by_shots(made, 64, seed=3)
    plan = replace(plan, tasks=tuple(replace(task, draws=2) for task in plan.tasks))
    monkeypatch.setattr(stub_store, "outcome", made_up(made, acts))
    store = stub_store.computed(tmp_path, plan)
    found = list(lab.findings_by_shots(store, made, plan))
    assert [finding.name for finding in found] == ["mainly at few shots", "at all shots", "irrelevant"]
    assert [finding.name for finding in found if not finding.ok] == missed, [finding.detail for finding in found]


def null(seed: int, change: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Masks and outputs of 40 rows at three numbers of shots; errors are shared in part, and their size differs.

    The first of eight groups has an influence that falls by `change`; the others' are the same at all numbers of shots.
    """
    random = np.random.default_rng(seed)
    masks = np.asarray(design.foldover(8, 40, seed=seed))
    influence = random.normal(0, 2, 8)
    shared = random.normal(0, 1, 40)
    outputs = {}
    for place, (name, size) in enumerate({"one": 1.5, "five": 1.0, "pool": 0.7}.items()):
        falls = masks[:, 0] * change * place / 2
        noise = size * (0.6 * shared + 0.8 * random.normal(0, 1, 40))
        outputs[name] = (masks @ influence - falls + noise)[:, None] + random.normal(0, 0.1, (40, 4))
    return masks, outputs


def changed(folder, seed: int, change: float = 0.0) -> tuple[list[str], ByShots]:
    """Groups of an ensemble that are said to change with the number of shots, and the answer."""
    masks, outputs = null(seed, change)
    store = Store.from_arrays(folder, masks, outputs, unit="points")
    found = pydt.influence_by_shots(store, tasks={1: "one", 5: "five", "full": "pool"})
    return [name for name, kind in zip(found.groups, found.kinds, strict=True) if kind in CHANGED], found


def test_a_change_in_arrays_is_found(tmp_path):
    names, found = changed(tmp_path, 0, change=5.0)
    assert names[:1] == [found.groups[0]]
    assert found.trend.values[0] == pytest.approx(-5, abs=3 * found.trend.stderr[0])


@pytest.mark.slow
def test_at_most_one_ensemble_in_twenty_without_a_change_is_said_to_have_one(tmp_path):
    ensembles = 60
    false = sum(bool(changed(tmp_path / str(seed), seed)[0]) for seed in range(ensembles))
    assert false / ensembles <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / ensembles)


@pytest.mark.slow
def test_few_and_all_shots_are_told_apart_by_real_trainings(tmp_path):
    made = lab.planted_by_shots(3)
    plan = lab.plan_by_shots(made, seed=3)
    store = pydt.run(plan, tmp_path, workers=2, progress=False)
    found = lab.findings_by_shots(store, made, plan)
    assert [finding.detail for finding in found if not finding.ok] == []
