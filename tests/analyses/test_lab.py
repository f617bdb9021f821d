"""The laboratory: what is said to be planted is there, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
import stub_store
from typer.testing import CliRunner

from pydt.analyses import laboratory as lab
from pydt.base import DataError
from pydt.cli import doctor
from pydt.cli.app import app
from pydt.store import Outcome


@pytest.fixture(scope="module")
def made() -> lab.Planted:
    return lab.planted(3)


def pixels(dataset) -> np.ndarray:
    return dataset.images[dataset.positions][..., 0].astype(float)


def group(made: lab.Planted, name: str) -> np.ndarray:
    unit, names = made.source.units(lab.COLUMN)
    return np.flatnonzero(unit == names.index(name))


def distances(made: lab.Planted) -> np.ndarray:
    """Least mean square difference over moves by up to a pixel, of each source from each target image."""
    source, judged = pixels(made.source), pixels(made.target.judged).reshape(-1, 784)
    least = np.full((len(source), len(judged)), np.inf)
    for y in (-1, 0, 1):
        for x in (-1, 0, 1):
            moved = np.roll(source, (y, x), (1, 2)).reshape(-1, 784)
            apart = (moved**2).sum(1)[:, None] + (judged**2).sum(1) - 2 * moved @ judged.T
            least = np.minimum(least, apart / 784)
    return least


def test_groups_are_of_one_size_and_their_kinds_in_the_order_of_the_units(made):
    unit, names = made.source.units(lab.COLUMN)
    assert tuple(made.kinds) == names
    assert np.bincount(unit).tolist() == [lab.EACH] * 17
    assert {kind: len(made.of(kind)) for kind in lab.KINDS} == lab.KINDS
    assert names[made.of("leak")[0]] == "leak"


def test_the_same_for_the_same_seed_only(made):
    again = lab.planted(3)
    assert (again.source.full_digest, again.target.digest) == (made.source.full_digest, made.target.digest)
    assert np.array_equal(again.pairs, made.pairs)
    other = lab.planted(4)
    assert other.source.digest != made.source.digest
    assert other.target.digest != made.target.digest
    with pytest.raises(DataError, match="seed"):
        lab.planted(0.5)


def test_copies_are_near_their_originals_and_nothing_else_is_near_the_target(made):
    copies, originals = made.pairs.T
    apart = distances(made)
    assert np.array_equal(np.sort(copies), group(made, "leak"))
    assert apart[copies, originals].min() > 0
    assert apart[copies, originals].max() < 180
    apart[copies, originals] = np.inf
    assert np.delete(apart, copies, 0).min() > 200
    assert apart[copies].min() > 200  # no copy is near a second image either
    for half in ("score", "report"):
        assert np.isin(originals, made.target.split[half]).sum() == lab.EACH // 2
    assert not (made.subtype | made.spoiled)[originals].any()
    assert len(np.unique(pixels(made.source).reshape(-1, 784), axis=0)) == len(made.source)  # no image twice


def test_a_copy_has_the_label_of_its_original(made):
    copies, originals = made.pairs.T
    labels = [made.source.classes[label] for label in made.source.labels[copies]]
    assert labels == [str(label) for label in made.target.judged.labels[originals]]


def test_labels_are_right_but_where_they_are_planted_wrong(made):
    labels = np.array(made.source.classes)[made.source.labels]
    for number in range(5):
        shown, counts = np.unique(labels[group(made, f"help {number + 1}")], return_counts=True)
        assert (shown.tolist(), counts.tolist()) == ([str(number), str(number + 5)], [24, 24])
    for number in range(3):
        assert len(np.unique(labels[group(made, f"harm {number + 1}")])) >= 8
    for name, label in {"sub-type": "0", "misleading": "2", "irrelevant 1": "other"}.items():
        assert set(labels[group(made, name)]) == {label}


def test_sub_type_and_spoiled_images_bear_their_mark(made):
    labels, judged = made.target.judged.labels, pixels(made.target.judged)
    assert set(labels[made.subtype]) == {0}
    assert made.subtype.sum() == round(0.4 * (labels == 0).sum())
    stamp = judged[:, 23:27, 23:27].min((1, 2)) == 255
    assert np.array_equal(stamp, made.spoiled)
    assert set(labels[made.spoiled]) == {7}
    assert not made.spoiled[made.target.split["pool"]].any()
    source = pixels(made.source)
    assert (source[group(made, "misleading")][:, 23:27, 23:27] == 255).all()
    zeros = labels == 0  # a slash fills the middle of a zero
    filled = judged[:, 13:15, 13:15].mean((1, 2))
    assert filled[made.subtype].min() > filled[zeros & ~made.subtype].mean() + 50
    assert source[group(made, "sub-type"), 13:15, 13:15].mean((1, 2)).min() > 50


def test_the_plan_keeps_half_of_the_groups_and_its_rows_can_be_trained(made):
    from pydt.ensemble import run_row

    plan = lab.plan(made, 8, seed=1)
    assert plan.context.units[1] == tuple(made.kinds)
    assert plan.design.estimand == "add"
    masks = np.asarray(plan.design)
    assert masks.shape == (8, 17)
    assert np.array_equal(masks[::2], ~masks[1::2])
    (outcome,) = run_row(plan.context, plan.rows()[0], plan.tasks).values()
    assert outcome.scalars["report_accuracy"] > 0.3


def made_up(made: lab.Planted, effect: float):
    """Outputs of a row as its mask says: what `stub_store.computed` asks for, without any training."""
    ids = made.target.described()["ids"]
    labels = made.target.judged.labels[ids]
    effects = np.zeros((len(made.kinds), len(ids)))
    for k, (name, kind) in enumerate(made.kinds.items()):
        if kind == "help":
            effects[k, labels % 5 == int(name[-1]) - 1] = 1
        elif kind in ("harm", "leak"):
            effects[k] = {"harm": -0.3, "leak": 0.3}[kind]
    effects[made.of("leak")[0], np.isin(ids, made.pairs[:, 1])] = 2
    effects[made.of("sub-type")[0], made.subtype[ids]] = 1.5
    effects[made.of("misleading")[0], made.spoiled[ids]] = -2

    def outcome(context, row, task) -> Outcome:
        random = np.random.default_rng(row.seed)
        noise = random.normal(0, 0.5, (task.draws, len(ids))) + random.normal(0, 0.2)
        margins = (effect * (row.mask.astype(float) @ effects) + noise - effect / 2) / 2
        said = np.where(margins > 0, labels, (labels + 1) % 10)
        return Outcome({"primitives": np.stack([margins, -margins, -margins + 1, said]).astype(np.float32)})

    return outcome


NEED_EFFECTS = {"leak first", "leak flagged", "harm", "irrelevant", "sub-type"}


@pytest.mark.parametrize("effect", [1.0, 0.0])
def test_what_was_planted_is_found_where_it_acts_and_missed_where_it_does_not(made, effect, tmp_path, monkeypatch):
    plan = lab.plan(made, 128, seed=3)
    monkeypatch.setattr(stub_store, "outcome", made_up(made, effect))
    store = stub_store.computed(tmp_path, plan)
    found = {finding.name: finding for finding in lab.findings(store, made, plan, retrain=0)}
    missed = {name for name, finding in found.items() if not finding.ok}
    assert missed == (set() if effect else NEED_EFFECTS), [finding.detail for finding in found.values()]
    assert found["leak pairs"].numbers == {"precision": 1, "recall": 1}  # images tell


def test_doctor_fails_where_a_plant_is_not_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {}

    def deep(**how):
        asked.update(how)
        yield doctor.Check("harm", False, "shuffled labels look harmless")

    monkeypatch.setattr(doctor, "deep_checks", deep)
    done = CliRunner().invoke(app, ["doctor", "--deep", "--seed", "7"])
    assert done.exit_code == 1
    assert "FAIL  harm: shuffled labels look harmless" in done.stdout
    assert asked == {"seed": 7, "workers": None}
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0


@pytest.mark.slow
def test_a_small_laboratory_finds_its_plants():
    checks = list(doctor.deep_checks(models=96, retrain=0, seed=0, workers=2))
    assert [check.detail for check in checks if not check.ok] == []
    assert len(checks) == 8
