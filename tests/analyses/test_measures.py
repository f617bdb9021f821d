"""Analyses of rows of a user's own: in the measure's unit and direction, with its ids; refused where they need more.

The same rows told as accuracy and as error are alike; those of a task told as a measure have the task's influences.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stub_measures
from stub_influence import Additive, filled, many_classes, plan_of
from stub_measures import CLASSES, EXAMPLES, WAYS
from typer.testing import CliRunner

from pydt import design
from pydt.analyses import (
    analyse,
    brittleness,
    compare_outputs,
    failures,
    leaks,
    misleading,
    ranking,
    stability,
    subpopulations,
)
from pydt.analyses.agreement import disjoint_influences
from pydt.analyses.catalogue import ANALYSES
from pydt.analyses.ensemble_view import EnsembleView
from pydt.analyses.examples import by_example, examples
from pydt.base import ConfigError
from pydt.cli import app as cli
from pydt.data import Groups, Target
from pydt.ensemble import Function, Plan, RowInput, read_plan, run
from pydt.estimation import compare_alphas, influences, lds, overall, prediction_test
from pydt.store import Measure, Store

Told = dict[str, tuple[Plan, Store]]
MANY = 300  # source examples, each its own group


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Told:
    plans = {way: stub_measures.told_as(way) for way in WAYS}
    return {way: (job, stub_measures.filled(job, tmp_path_factory.mktemp(way))) for way, job in plans.items()}


def alike(one: Any, other: Any) -> None:
    assert np.allclose(one, other, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("per", ["target", "class", "example"])
def test_accuracy_and_error_rank_alike(ways: Told, per: str) -> None:
    right, wrong = (ranking(store, job, per) for job, store in ways.values())
    for part in ("values", "stderr", "q", "family_q", "tests_q"):
        alike(getattr(right, part), getattr(wrong, part))
    assert right.columns == wrong.columns or per == "target"
    assert right.leaders is not None
    assert wrong.leaders is not None
    alike(right.leaders.judged, wrong.leaders.judged)
    assert (right.unit, wrong.unit) == ("points of accuracy", "points of error")
    if per == "target":
        assert right.top(3) == wrong.top(3)
        assert right.bottom(1) == wrong.bottom(1) == ["g1"]
        truth = overall(ways["error"][1], ways["error"][0])
        alike(wrong.values[:, 0], truth.unbiased)
    elif per == "example":
        assert right.score is not None
        assert wrong.score is not None
        assert right.score.lds == pytest.approx(wrong.score.lds, abs=1e-3)
        assert right.output == "value"
    else:
        means = influences(right._view.masks, right._view.columns("class", "value", "score"), right.estimator)
        alike(means.unbiased, right.values)


@pytest.mark.parametrize("per", ["target", "class", "example"])
def test_accuracy_and_error_are_as_stable(ways: Told, per: str) -> None:
    right, wrong = (stability(store, job, per=per) for job, store in ways.values())
    for part in ("sizes", "rank", "overlap", "expected", "differ", "stderr", "by_errors"):
        alike(getattr(right, part), getattr(wrong, part))


def test_accuracy_and_error_move_the_same_examples(ways: Told) -> None:
    right, wrong = (subpopulations(store, job) for job, store in ways.values())
    for part in ("effect", "judged", "judged_stderr", "q", "overlap"):
        alike(getattr(right, part), getattr(wrong, part))


def test_accuracy_and_error_predict_and_agree_alike(ways: Told) -> None:
    found = []
    for job, store in ways.values():
        view = EnsembleView.of(store, job, None)
        score, report = (view.columns("class", "value", half) for half in ("score", "report"))
        test = prediction_test(view.masks, score[:, 0], report[:, 0])
        one, other, error = disjoint_influences(view.masks, score, "agreement", 0)
        found.append((test.correlation, test.p, lds(view.masks, score).lds, one, other, error))
    for right, wrong in zip(*found, strict=True):
        alike(right, wrong)
    assert found[0][0] > 0.5


def test_shares_of_groups_are_compared_alike(tmp_path: Path) -> None:
    told = []
    for way in WAYS:
        stores = []
        for alpha in (0.5, 0.75):
            masks = design.bernoulli(stub_measures.GROUPS, 60, alpha=alpha, seed=3)
            measure = stub_measures.told_as(way).tasks[0]
            job = Plan(stub_measures.source(), design=masks, recipe=Function(stub_measures.told), tasks=[measure])
            stores.append(stub_measures.filled(job, tmp_path / f"{way} {alpha}"))
        told.append([(pilot.alpha, pilot.r2, pilot.low, pilot.high) for pilot in compare_alphas(stores).pilots])
    alike(*told)


def test_the_measure_of_a_tasks_correct_values_has_its_influences(tmp_path: Path, target: Target) -> None:
    count = len(target.described()["labels"])
    random = np.random.default_rng(5)
    plan = plan_of(many_classes(), target, design.random(20, 80, alpha=0.5, seed=2))
    store = filled(tmp_path / "task", plan, Additive(random.normal(size=count), random.normal(size=(20, count)) / 3))
    about = store.examples(plan.tasks[0].digest, "all")
    values = dict(zip((row.seed for row in store.rows()), store.outputs(plan.tasks[0], "correct", "all"), strict=True))

    def known(row: RowInput) -> dict[str, np.ndarray]:
        return {"correct": values[row.seed]}

    classes = [target.classes[label] for label in about["labels"]]
    more: dict[str, Any] = {"half": about["half"], "weights": about["weights"], "classes": classes}
    measure = Measure("correct", count, unit="points", scale=100, **more)
    own = Plan(plan.source, by=plan.by, design=plan.design, recipe=Function(known), tasks=[measure])
    told = stub_measures.filled(own, tmp_path / "measure")
    for per in ("target", "class", "example"):
        one, other = ranking(store, plan, per, output="correct"), ranking(told, own, per)
        columns = [other.column(name) for name in one.columns] if per == "class" else slice(None)
        for part in ("values", "stderr", "q"):
            assert np.allclose(getattr(one, part), getattr(other, part)[:, columns], atol=1e-6, equal_nan=True)


def test_pages_name_examples_by_their_ids_and_speak_of_no_images(tmp_path: Path) -> None:
    ids = [f"patient {i}" for i in range(EXAMPLES)]
    for name, classes in (("with", CLASSES), ("without", None)):
        measure = Measure("error", ids, unit="nats", higher_is_better=False, classes=classes)
        job = stub_measures.plan(measure)
        store = stub_measures.filled(job, tmp_path / name)
        found = ranking(store, job, "example")
        half = store.examples(measure.digest, "score")["ids"]
        assert found.columns == tuple(ids[i] for i in half)
        assert ranking(store, store.plan(), "example").columns == found.columns, "also without the plan"
        done = analyse(job, tmp_path / name)
        assert not done.failed
        assert ("ranking-class" in done.unsuited) == (classes is None)
        assert {"failures", "misleading", "leaks", "outputs", "brittleness", "examples"} <= done.unsuited.keys()
        assert done.skipped == ("removal",)
        made = {"ranking-target", "ranking-example", "subpopulations", "stability"}
        assert set(done.pages) == made | ({"ranking-class"} if classes else set())
        for page in done.pages:
            text = (tmp_path / name / "analyses" / f"{page}.html").read_text()
            said = re.sub(r"<style.*?</style>|<[^>]*>|The paper shows such images", "", text, flags=re.S)
            assert not re.search(r"image|accurac|probabilit(?!ies)", said), page
            assert "stability" in page or "Lower values are better" in said
            if page in ("ranking-example", "subpopulations"):
                assert "patient " in said or classes
        rows = (tmp_path / name / "analyses" / "subpopulations" / "examples.csv").read_text().splitlines()
        assert ("class" in rows[0].split(",")) == (classes is not None)
        assert rows[1].split(",")[2].startswith("patient ")
        index = done.index.read_text() if done.index is not None else ""
        assert "not for this plan (it needs logits" in index
        assert "could not" not in index


def test_a_function_that_gives_all_measures_serves_one_alone(tmp_path: Path) -> None:
    """What is retrained, and what a plan with one more measure lacks, is asked of one measure."""

    def both(row: RowInput) -> dict[str, np.ndarray]:
        right = stub_measures.right(row)
        return {"accuracy": right, "error": ~right}

    measures = [Measure(way, EXAMPLES, higher_is_better=way == "accuracy") for way in WAYS]
    masks = design.bernoulli(stub_measures.GROUPS, 60, seed=3)
    for tasks in (measures[:1], measures):
        job = Plan(stub_measures.source(), design=masks, recipe=Function(both), tasks=tasks)
        store = stub_measures.filled(job, tmp_path / "both")
    with ThreadPoolExecutor(1) as executor:
        for task in WAYS:
            settings = {"removal": {"repeats": 2, "sizes": [1], "task": task, "executor": executor}}
            done = analyse(job, store.folder, only=["removal"], train=True, settings=settings)
            assert [page.partition("-")[0] for page in done.pages] == ["removal"], done.failed


def test_one_scalar_is_ranked_as_a_whole_alone(tmp_path: Path) -> None:
    def mean(row: RowInput) -> dict[str, float]:
        return {"share": float(stub_measures.right(row).mean())}

    job = stub_measures.plan(Measure("share", unit="points", scale=100), mean)
    store = stub_measures.filled(job, tmp_path / "one")
    done = analyse(job, tmp_path / "one")
    assert not done.failed
    assert done.pages == ("ranking-target", "stability")
    assert done.unsuited["subpopulations"] == "not for this plan (it needs ten target examples or more)"
    with pytest.raises(ConfigError, match="needs more than one target example"):
        ranking(store, job, "example")


def refusing() -> list[tuple[str, Callable[..., Any], str]]:
    logits, both = "needs logits and predictions", "needs the images of a pydt.Dataset source, and logits"
    return [
        ("failures", failures, logits),
        ("brittleness", lambda *where: brittleness(*where, verify=1), logits),
        ("outputs", compare_outputs, logits),
        ("misleading", misleading, both),
        ("misleading-examples", lambda *where: misleading(*where, "example"), both),
        ("leaks", leaks, both),
        ("ranking-target", lambda *where: ranking(*where, estimator="paper"), logits),
        ("examples", examples, 'pydt.Groups\\(ids, by="example"\\)'),
        ("examples", lambda store, plan: by_example(plan), 'pydt.Groups\\(ids, by="example"\\)'),
    ]


def test_what_a_plan_lacks_is_told_before_anything_is_trained(ways: Told) -> None:
    job, store = ways["error"]
    before = sorted(path.name for path in store.folder.rglob("*") if path.is_file())
    known = {analysis.name: analysis for analysis in ANALYSES}
    for name, call, said in refusing():
        with pytest.raises(ConfigError, match=said) as raised:
            call(store, job)
        if "logits" in said:
            assert "ranking, stability, subpopulations" in str(raised.value)
            with pytest.raises(ConfigError, match="needs logits and predictions"):  # also where only the store is given
                call(store, store.plan())
            assert ("logits" in known[name].needs) == (name != "ranking-target")
    assert sorted(path.name for path in store.folder.rglob("*") if path.is_file()) == before


def test_the_command_lists_what_is_not_for_a_plan_and_succeeds(tmp_path: Path) -> None:
    (tmp_path / "sites.txt").write_text("\n".join(f"g{i % stub_measures.GROUPS}" for i in range(80)))
    (tmp_path / "own.toml").write_text(
        '[run]\ndir = "own"\n[runner]\ncommand = ["python", "train.py", "{keep}", "{out}"]\n'
        '[source]\ngroups = "sites.txt"\nname = "table"\nby = "site"\n'
        '[design]\nkind = "bernoulli"\nmodels = 60\nseed = 3\n'
        f'[[tasks]]\nmeasure = "error"\nexamples = {EXAMPLES}\nunit = "points"\nhigher_is_better = false\n'
    )
    job = read_plan(tmp_path / "own.toml").plan
    with ThreadPoolExecutor(1) as executor:
        run(job, tmp_path / "own", executor, runner=stub_measures.told, progress=False)
    done = CliRunner().invoke(cli.app, ["analyse", str(tmp_path / "own.toml")])
    assert done.exit_code == 0, done.output
    assert "not for this plan, the list of pages says why: ranking-class, failures, examples" in done.output
    assert "could not be made" not in done.output
    alone = CliRunner().invoke(cli.app, ["analyse", str(tmp_path / "own.toml"), "--only", "leaks"])
    assert alone.exit_code == 1, "what was asked for was not made"


def test_many_single_examples_are_ranked_by_the_difference_of_means(tmp_path: Path) -> None:
    effect = np.random.default_rng(1).normal(size=MANY) / 100
    effect[:20] += 0.3

    def loss(row: RowInput) -> dict[str, np.ndarray]:
        random = np.random.default_rng(row.seed)
        return {"loss": 3 - effect[row.examples].sum() + random.normal(size=40) / 10}

    ids = [f"row {i:04}" for i in range(MANY)]
    measure = Measure("loss", 40, unit="nats", higher_is_better=False)
    masks = design.random(MANY, 100, alpha=0.5, seed=0)
    job = Plan(Groups(ids, by="example", ids=ids), design=masks, recipe=Function(loss), tasks=[measure])
    store = stub_measures.filled(job, tmp_path / "many")
    found = examples(store, job)
    kept, mean = store.masks(), store.outputs(measure, "value", "score").mean(1)
    by_hand = [-(mean[kept[:, k]].mean() - mean[~kept[:, k]].mean()) for k in range(MANY)]
    alike(found.values, by_hand)
    assert found.values[:20].mean() > 3 * found.values[20:].std() / 20**0.5
    assert found.unit == "nats"
    assert ranking(store, job).estimator == "difference"
    done = analyse(job, tmp_path / "many")
    assert done.pages == ("examples",)
    assert not done.failed
    text = (tmp_path / "many" / "analyses" / "examples.html").read_text()
    assert "row 00" in text
    assert "Which single examples of source help loss" in text or "Which single examples of the source" in text
