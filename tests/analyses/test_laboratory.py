"""The laboratory: what was planted is found where it acts, and missed where it does not."""

from __future__ import annotations

import numpy as np
import pytest
import stub_store
from typer.testing import CliRunner

from pydt.analyses import laboratory as lab
from pydt.cli import doctor
from pydt.cli.app import app
from pydt.store import Outcome


@pytest.fixture(scope="module")
def made() -> lab.Planted:
    return lab.planted(3)


def test_the_plan_keeps_half_of_the_groups_and_its_rows_can_be_trained(made):
    from pydt.ensemble import RowInput, run_row

    plan = lab.plan(made, 8, seed=1)
    assert plan.context.units[1] == tuple(made.kinds)
    assert plan.design.estimand == "add"
    masks = np.asarray(plan.design)
    assert masks.shape == (8, 17)
    assert np.array_equal(masks[::2], ~masks[1::2])
    (outcome,) = run_row(RowInput(plan.context, plan.rows()[0], plan.tasks, lambda: None)).values()
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
