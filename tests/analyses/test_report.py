"""From a store to an answer: what is planted is found, noise is called noise, and nothing is claimed on bad ground."""

from __future__ import annotations

import csv
import html
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from stub_report import GROUPS, Stub, study, twice
from typer.testing import CliRunner

from pydt import design
from pydt.analyses import counterfactual, report
from pydt.analyses.report import results, too_few_masks
from pydt.base import ConfigError, EstimateError, StoreError
from pydt.cli.app import app
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, run
from pydt.estimation import influences, mean_output, overall, plan_models
from pydt.reporting import render, sentences, stopped
from pydt.store import Store, compact, units_of
from pydt.training import Recipe, Task


def test_what_is_planted_is_found(tmp_path: Path, source: Dataset, target: Target) -> None:
    store = study(tmp_path / "store", source, target)
    found = report(store, tmp_path / "out", seconds=1.5, command="make it again")
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == found
    assert found["verdict"]["found"]
    assert found["verdict"]["p"] < 0.01
    assert found["estimand"] == "add"
    assert found["unit"] == "points of accuracy"
    groups = {group["name"]: group for group in found["groups"]}
    assert groups["c2"]["q"] < 0.05
    assert abs(groups["c2"]["value"] - 15) < 4 * groups["c2"]["stderr"]
    assert abs(groups["c5"]["value"] + 15) < 4 * groups["c5"]["stderr"]
    assert [g["models"] for g in found["groups"]] == store.masks().sum(0).tolist()
    page = (tmp_path / "out" / "report.html").read_text()
    said = re.sub("</?a[^>]*>", "", html.unescape(page)).replace("\u00a0", " ")
    for sentence in sentences(found):
        assert sentence in said
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"groups.csv", "rows.csv", "report.html"}


def test_influences_come_from_the_score_half_and_verdicts_from_the_report_half(
    tmp_path: Path, source: Dataset, target: Target
) -> None:
    store = study(tmp_path, source, target)
    record = store.plan()
    outputs = store.outputs(record.tasks[0]["digest"], "correct", "all")
    half = store.task(record.tasks[0]["digest"])["half"]
    expected = influences(store.masks(), 100 * outputs[:, half == 0].mean(1, dtype=np.float64), "ols")
    assert np.allclose(overall(store).unbiased, expected.unbiased, atol=1e-5)
    judged = 100 * outputs[:, half == 1].mean(1, dtype=np.float64)
    assert np.allclose(mean_output(store, record, None, "correct", "report"), judged, atol=1e-4)
    assert results(store)["rows"]["accuracy"] == pytest.approx(judged / 100)


@pytest.mark.parametrize("chance", [0.6, 1.0, 0.0], ids=["noise", "saturated", "all wrong"])
def test_noise_and_saturation_are_called_nothing(
    tmp_path: Path, source: Dataset, target: Target, chance: float
) -> None:
    store = study(tmp_path / "store", source, target, chance, 0.0, seed=3)
    found = report(store, tmp_path / "out")
    assert not found["verdict"]["found"]
    assert found["verdict"]["significant_groups"] == 0
    assert sentences(found)[0].startswith("Keep the whole source for now: 60 models show no ranking of the 8 groups")
    assert ("saturated" in " ".join(found["notes"])) == (chance != 0.6)
    if chance == 0.6:
        assert found["verdict"]["models_needed"] > 0
        assert "would be needed" in sentences(found)[-1]


def test_failed_rows_are_counted_and_too_many_block_the_verdict(
    tmp_path: Path, source: Dataset, target: Target
) -> None:
    store = study(tmp_path / "one", source, target, fail=1)
    assert results(store)["failed"] == 1
    assert results(store)["models"] == 59
    assert results(store)["verdict"]["found"], "1 of 60 is below 2 %"
    many = study(tmp_path / "many", source, target, fail=3)
    blocked = results(many)
    assert not blocked["verdict"]["found"]
    assert "3 of 60 rows failed" in blocked["verdict"]["blocked"]
    assert sentences(blocked)[0].startswith("No recommendation: 3 of 60 rows failed")
    assert results(many, allow_failed=True)["verdict"]["found"]


def test_replaced_images_are_told_of(tmp_path: Path, source: Dataset, target: Target) -> None:
    store = study(tmp_path / "broken", source, target, fail=1, broken=9)
    assert store.replaced() == (9, 18)
    said = "9 of 59 models met broken images, 18 in all"
    assert any(said in note for note in results(store)["notes"])
    for _ in range(2):
        done = CliRunner().invoke(app, ["status", str(store.folder)])
        assert "9 finished with broken images replaced by others, 18 in all; see log.jsonl" in done.output
        compact(store.folder)
    whole = study(tmp_path / "whole", source, target)
    assert whole.replaced() == (0, 0)
    assert "broken" not in " ".join(results(whole)["notes"])
    assert "broken" not in CliRunner().invoke(app, ["status", str(whole.folder)]).output


def test_data_without_a_name_are_the_source_and_the_target(tmp_path: Path, source: Dataset, target: Target) -> None:
    unnamed = Dataset.from_arrays(source.images, source.labels)
    found = results(study(tmp_path, unnamed, Target(Dataset.from_arrays(target.train.images, target.train.labels))))
    assert found["title"] == "the source \u2192 the target"
    assert (found["question"]["source"], found["question"]["target"]) == ("the source", "the target")


def test_a_half_finished_plan_is_reported_as_such(tmp_path: Path, source: Dataset, target: Target) -> None:
    store = study(tmp_path, source, target)
    for key in store.plan().keys[40:]:
        store.path(key[0]).unlink()
    found = results(Store(tmp_path))
    assert found["models"] == 40
    assert found["question"]["planned_models"] == 60
    for key in store.plan().keys[2:40]:
        store.path(key[0]).unlink()
    with pytest.raises(StoreError, match="2 finished rows"):
        results(Store(tmp_path))


def test_a_proof_of_fewer_models_is_no_proof_of_the_ranking_of_all(
    tmp_path: Path, source: Dataset, target: Target
) -> None:
    """The ranking goes on after `pydt prove`: what was retrained may then be another list than the lowest groups."""
    store = study(tmp_path, source, target)
    record = store.plan()
    plan = Plan(source, design=store.design(record), recipe=Recipe(), tasks=(Task(target, draws=4),))
    assert plan.digest == record.digest
    kept = {key[0]: store.path(key[0]).read_bytes() for key in record.keys[14:]}
    for key in kept:
        store.path(key).unlink()
    early = Store(tmp_path, plan)
    with ThreadPoolExecutor(1) as executor:
        how = {"executor": executor, "runner": Stub(0.6, 0.15, 0, frozenset()), "progress": False}
        counterfactual(early, plan, drop=[3], repeats=3, **how)
    then = results(early)
    assert then["moved"] == 0
    left = {name for run in then["counterfactual"] if run["kind"] == "drop bottom" for name in run["names"]}
    for key, data in kept.items():
        store.path(key).write_bytes(data)
    found = results(Store(tmp_path, plan))
    lowest = {group["name"] for group in sorted(found["groups"], key=lambda group: group["value"])[:3]}
    assert found["models"] == 60
    assert found["moved"] == len(lowest - left) > 0
    assert found["verdict"]["found"]
    assert sentences(found)[0].startswith("Prove the ranking again before you act on it")


def test_a_plan_that_stopped_says_when_and_why_and_uses_nothing_later(
    tmp_path: Path, source: Dataset, target: Target
) -> None:
    store = study(tmp_path / "store", source, target, effect=0.3, stop="sign 2")
    found = report(store, tmp_path / "out")
    stop = found["stop"]
    assert 29 <= stop["rows"] < stop["planned"] == 60
    assert found["models"] == stop["rows"] == len(found["rows"]["accuracy"])
    assert {(one["name"], one["sign"]) for one in stop["decided"]} == {("c2", 1), ("c5", -1)}
    text = stopped(found)
    assert text.startswith(f"Stopped early: {stop['rows']} of 60 planned rows are used, because the rule")
    assert "Up: \u201cc2\u201d. Down: \u201cc5\u201d." in text
    page = (tmp_path / "out" / "report.html").read_text().replace("\u00a0", " ")
    assert f"Stopped early: {stop['rows']} of 60 planned rows" in page
    assert "Interim" not in page

    easy = study(tmp_path / "store", source, target, effect=0.3, stop="stderr < 20")
    text = stopped(results(easy))
    assert "was satisfied at its 5th look" in text
    assert "costs the intervals little" in text

    store = study(tmp_path / "store", source, target, effect=0.3, stop="sign 8")
    unmet = results(store)
    note = store.rule()
    assert note is not None
    assert unmet["stop"] is None
    assert {**unmet["unmet"], "decided": None} == {
        **{name: note[name] for name in ("rule", "looks", "reason")}, "rows": note["looked"], "decided": None,
    }  # fmt: skip
    assert [one["name"] for one in unmet["unmet"]["decided"]] == [name for name, _ in note["decided"]]
    assert unmet["models"] == 60, "all rows count"
    page = render(unmet)
    assert "The stop rule \u201csign 8 level 0.05\u201d was not met, so no row is left out" in page
    assert "a small q here and no sign by the rule" in page
    assert "was satisfied" not in page

    everything = results(study(tmp_path / "store", source, target, effect=0.3))
    assert everything["unmet"] is None
    assert everything["stop"] is None
    assert stopped(everything) == ""
    assert everything["models"] == 60


def test_models_that_learnt_nothing_and_too_few_models_are_noted(
    tmp_path: Path, source: Dataset, target: Target
) -> None:
    recipe = Recipe(network="convnet-2", epochs=1, batch_size=160, lr=1e-9)
    tasks = (Task(target, draws=1),)
    plan = Plan(source, design=design.random(8, 12, alpha=0.5), recipe=recipe, tasks=tasks)
    with ThreadPoolExecutor(1) as executor:
        found = results(run(plan, tmp_path, executor, progress=False))
    text = " ".join(found["notes"])
    assert "hardly learnt their own source" in text
    assert "12 models for 8 groups are few" in text
    assert not results(study(tmp_path / "good", source, target))["notes"]


def test_errors_on_few_distinct_masks_promise_nothing(tmp_path: Path, source: Dataset, target: Target) -> None:
    plan = Plan(source, design=design.random(GROUPS, 12, alpha=0.5), recipe=Recipe(), tasks=(Task(target, draws=4),))
    with ThreadPoolExecutor(1) as executor:
        runner = Stub(0.6, 0.15, 0, frozenset())
        found = report(run(plan, tmp_path / "store", executor, runner=runner, progress=False), tmp_path / "out")
    distinct = len(np.unique(np.asarray(plan.design), axis=0))
    assert found["df"] < 10
    assert found["verdict"]["models_needed"] is None
    assert found["verdict"]["models_needed_for"] is None
    assert f"12 models on {distinct} distinct masks leave {round(found['df'])} degree" in " ".join(found["notes"])
    assert found["notes"][-1].endswith("Train more models.")
    assert "80 %" not in " ".join(sentences(found))


def test_what_helps_against_few_degrees_of_freedom_depends_on_the_design() -> None:
    def said(made: design.Design) -> str:
        return too_few_masks(made, made, "robust", 8.2)[0]

    assert said(design.foldover(8, 32)).startswith("32 models on 32 distinct masks leave 8 degrees of freedom")
    assert said(design.foldover(8, 32)).endswith("intervals are wide. Train more models.")
    assert said(design.bernoulli(8, 17, seed=1)).endswith("Train more models.")
    assert said(design.foldover(4, 200)).endswith("Use more groups: there are no other masks.")
    assert 'the design "bernoulli"' in said(design.foldover(3, 20))
    own = design.Design.explicit(np.asarray(design.bernoulli(8, 20, seed=1)))
    assert said(own).endswith('Train more models on other masks, of the design "bernoulli" or "foldover".')


@pytest.mark.parametrize(("alpha", "errors"), [(0.5, "classical"), (0.3, "robust")])
def test_errors_are_named_and_every_number_has_its_own(
    tmp_path: Path, source: Dataset, target: Target, alpha: float, errors: str
) -> None:
    """Groups and classes have the errors, degrees of freedom and q of the fit, in results.json and the CSV files."""
    plan = Plan(
        source, design=design.bernoulli(GROUPS, 60, alpha, seed=3), recipe=Recipe(), tasks=(Task(target, draws=4),)
    )
    with ThreadPoolExecutor(1) as executor:
        store = run(plan, tmp_path / "store", executor, runner=Stub(0.6, 0.15, 1, frozenset()), progress=False)
    found = report(store, tmp_path / "out")
    assert found["errors"] == errors
    fit = overall(store)
    assert [g["df"] for g in found["groups"]] == pytest.approx(np.broadcast_to(fit.df, (GROUPS,)).tolist())
    assert found["df"] == pytest.approx(float(np.median(fit.df)))
    page = (tmp_path / "out" / "report.html").read_text()
    assert ("The errors are robust" in page) == (errors == "robust")
    assert ("One variance of the noise is taken" in page) == (errors == "classical")
    task = store.plan().tasks[0]["digest"]
    outputs, labels = 100 * store.outputs(task, "correct", "score"), store.examples(task, "score")["labels"]
    means = np.stack([outputs[:, labels == c].mean(1, dtype=np.float64) for c in range(4)], axis=1)
    by_class = influences(store.design(), means, "ols")
    assert found["target_classes"]["q"] == pytest.approx(by_class.q)
    with open(tmp_path / "out" / "target_classes.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    for name, expected in (("influence", by_class.values), ("stderr", by_class.stderr), ("q", by_class.q)):
        assert [float(line[name]) for line in lines] == pytest.approx(expected.ravel().tolist())


def test_masks_without_freedom_are_told_and_give_no_errors(tmp_path: Path, source: Dataset, target: Target) -> None:
    """Four groups, one kept in each model: values stand, nothing is sure, and every page says why."""
    four = Dataset.from_arrays(source.images[:80], source.labels[:80], source.classes[:4], name="four")
    plan = Plan(four, design=design.random(4, 40, 0.25, seed=0), recipe=Recipe(), tasks=(Task(target, draws=4),))

    with ThreadPoolExecutor(1) as executor:
        store = run(plan, tmp_path / "store", executor, runner=twice, progress=False)
    found = report(store, tmp_path / "out")
    assert found["errors"] == "none"
    assert found["df"] is None
    assert all(g["value"] is not None and g["stderr"] is None and g["q"] is None for g in found["groups"])
    assert any("nothing shows what a mask does by itself" in note and "bernoulli" in note for note in found["notes"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r">[^<]*\bnan\b", page)
    assert "the masks leave nothing to judge them by" in page
    found["verdict"] |= {"found": False}
    assert "the masks leave nothing to judge the errors by" in sentences(found)[-1]
    assert store.plan()
    with pytest.raises(EstimateError):
        plan_models(store, "stderr < 1")


def test_every_output_has_a_unit_or_is_refused(tmp_path: Path, source: Dataset, target: Target) -> None:
    store = study(tmp_path, source, target)
    units = units_of(store.described())
    assert set(units) == {"correct", "probability", "margin", "softmax margin", "logit"}
    for output, unit in units.items():
        assert results(store, output=output)["unit"] == unit.name
    with pytest.raises(ConfigError, match="whose metric is top-1"):
        results(store, output="auroc")
    with pytest.raises(ConfigError, match="no influences on output 'prediction'"):
        results(store, output="prediction")


def test_one_of_several_tasks_is_reported_and_says_so(tmp_path: Path, source: Dataset, target: Target) -> None:
    """Rows of the second task are those of a plan with it alone, so its numbers are, too."""
    tasks = Task(target, draws=4), Task(target, shots=2, draws=3, name='the "second"')
    masks = design.bernoulli(GROUPS, 60)
    plan = Plan(source, design=masks, recipe=Recipe(), tasks=tasks)
    with ThreadPoolExecutor(1) as executor:
        store = run(plan, tmp_path / "both", executor, runner=Stub(0.6, 0.15, 0, frozenset()), progress=False)
    found = results(store)
    assert found == results(store, task=tasks[0])
    second = report(store, tmp_path / "out", task=tasks[1].name)
    (other,) = second.pop("tasks")
    assert second == results(store, task=tasks[1].digest) == results(store, task=tasks[1])
    assert second["provenance"]["task"] == tasks[1].digest
    assert second["question"]["shots"] == 2
    assert (other["name"], other["digest"]) == (tasks[0].name, tasks[0].digest)
    with open(tmp_path / "out" / "tasks.csv", newline="") as file:
        assert [line["task"] for line in csv.DictReader(file)] == [tasks[1].name, tasks[0].name]
    shared = found.keys() - other["results"].keys()
    assert {"provenance", "versions", "models", "failed", "title", "target_classes"} <= shared
    assert other["results"] == {key: value for key, value in found.items() if key not in shared}
    assert {key for key in shared if found[key] != second[key]} <= {"target_classes", "provenance", "task"}
    page = (tmp_path / "out" / "report.html").read_text()
    names = [html.unescape(name) for name in re.findall('data-name="([^"]*)"', page)]
    assert names == ['the "second"', "four blobs, 5 labelled images a class"], "the task that was asked for comes first"
    assert page.count("<h1") == 1
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    said = re.sub("</?a[^>]*>", "", html.unescape(page)).replace("\u00a0", " ")
    for one in (second, found):
        assert all(sentence in said for sentence in sentences(one))
    for name in ("score", "report"):
        assert not np.array_equal(*(mean_output(store, store.plan(), t.digest, None, name) for t in tasks))
    assert second["rows"]["output"] == mean_output(store, store.plan(), tasks[1].digest, None, "score").tolist()
    values = overall(store, None, tasks[1].digest).unbiased
    assert [group["value"] for group in second["groups"]] == values.tolist()
    assert second["groups"] != found["groups"]
    assert second["target_classes"] != found["target_classes"]
    with pytest.raises(StoreError, match="no task 'third'"):
        results(store, task="third")
    assert "tasks" not in report(study(tmp_path / "one", source, target), tmp_path / "alone")
    assert "data-switch=" not in (tmp_path / "alone" / "report.html").read_text()
    done = CliRunner().invoke(app, ["report", str(store.folder), "--task", tasks[1].name])
    assert 'Task: the "second" (1 more in the report)' in done.output
