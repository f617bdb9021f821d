"""A small ensemble judged by AUROC, from training to the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from stub_images import blobs

from pydt import design
from pydt.analyses import compare_outputs, ranking, report, stability
from pydt.analyses.counterfactual import counterfactual
from pydt.base import ConfigError
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, run
from pydt.ensemble.interim import Interim
from pydt.estimation import influences, mean_output, overall, plan_models
from pydt.reporting import sentences
from pydt.store import Store
from pydt.training import Recipe, Task

pytestmark = pytest.mark.slow
MODELS = 40


@pytest.fixture(scope="module")
def plan(source: Dataset) -> Plan:
    images, labels = blobs(40, 4, 99)
    some = np.concatenate([np.flatnonzero(labels == 0)[:24], np.flatnonzero(labels != 0)])
    rare = Dataset.from_arrays(images[some], (labels[some] == 0).astype(np.int64), ["other", "rare"], name="rare blobs")
    recipe = Recipe(network="convnet-4", epochs=5, batch_size=16)
    tasks = [Task(Target(rare, metric="auroc"), shots=3, draws=2), Task(Target(rare), shots=3, draws=2, name="plain")]
    return Plan(source, by="class", design=design.bernoulli(8, MODELS, seed=1), recipe=recipe, tasks=tasks)


@pytest.fixture(scope="module")
def store(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return run(plan, tmp_path_factory.mktemp("auroc") / "store", workers=1, progress=False)


def aurocs(store: Store, half: int) -> np.ndarray:
    """The AUROC of each row by scikit-learn, from the stored logits, mean over draws."""
    described, record = store.task(store.plan().tasks[0]["digest"]), store.plan()
    own = described["half"] == half
    sign = np.where(described["labels"] == 1, 1, -1)
    found = []
    for keys in record.keys:
        correct, other = store.get(keys[0]).arrays["primitives"][:2].astype(np.float64)
        found.append(np.mean([roc_auc_score(described["labels"][own], s[own]) for s in (correct - other) * sign]))
    return np.array(found)


def test_influences_are_of_the_auroc(store: Store, plan: Plan) -> None:
    record = store.plan()
    score, judged = aurocs(store, 0), aurocs(store, 1)
    np.testing.assert_allclose(mean_output(store, record, None, None, "score"), 100 * score, atol=1e-3)
    np.testing.assert_allclose(mean_output(store, record, None, None, "report"), 100 * judged, atol=1e-3)
    expected = influences(store.masks(), 100 * score, "ols")
    np.testing.assert_allclose(overall(store).unbiased, expected.unbiased, atol=1e-2)
    assert [row["report_accuracy"] for row in store.scalars(plan.tasks[0])] == pytest.approx(judged, abs=1e-5)
    seen = Interim(store, record, store.design(), range(MODELS))
    assert not seen.read(np.inf)
    np.testing.assert_allclose(seen.values, 100 * score, atol=1e-3)
    assert plan_models(store, "stderr < 1").unit == "points of AUROC"
    assert ranking(store).unit == stability(store, sizes=[12]).unit == "points of AUROC"
    assert ranking(store, task="plain").unit == "points of accuracy"
    compared = compare_outputs(store)
    assert "auroc" in compared.outputs
    assert "predict the AUROC of other models" in " ".join(compared.page().answer)
    assert "auroc" not in compare_outputs(store, task="plain").outputs
    with pytest.raises(ConfigError, match="rows have no AUROC for 'plain'"):
        ranking(store, task="plain", output="auroc")


def test_the_report_says_auroc(store: Store, plan: Plan, tmp_path: Path) -> None:
    judged = counterfactual(store, plan, drop=[4], repeats=2, workers=1, progress=False)
    assert {arm.kind for arm in judged.arms} == {"full", "drop bottom", "drop random", "drop top"}
    weights = store.examples(plan.tasks[0], "report")["weights"]
    for arm in judged.arms:
        np.testing.assert_allclose(arm.accuracy, arm.correct.astype(np.float64) @ weights)
        assert len(np.unique(arm.correct)) > 5, "values, not right or wrong"
    found = report(store, tmp_path)
    assert (found["output"], found["unit"]) == ("AUROC", "points of AUROC")
    assert found["rows"]["accuracy"] == pytest.approx(aurocs(store, 1), abs=1e-5)
    assert found["target_classes"] is None, "both classes have one AUROC"
    assert not found["question"]["validation_used"]
    assert "points of AUROC" in sentences(found)[0]
    page = (tmp_path / "report.html").read_text().partition('data-name="plain"')[0]  # the other task has accuracy
    assert "change of the mean AUROC" in page
    assert "points of accuracy" not in page
    assert "to choose settings" not in page
