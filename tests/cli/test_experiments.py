"""Commands that plan, train, prove and report: the quickstart and plan files."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pydt import design
from pydt.base import ConfigError, StoreError
from pydt.cli import experiments
from pydt.cli.app import app
from pydt.data import Dataset, Target
from pydt.data.loading import Augment
from pydt.ensemble import Plan, read_plan, write_plan
from pydt.store import Store
from pydt.training import FineTune, Recipe, Task


def small_plan(source: Dataset, target: Target) -> Plan:
    recipe = Recipe(network="convnet-2", epochs=1, batch_size=32, lr=0.3, augment=Augment(mean=(0.3,), std=(0.2,)))
    return Plan(source, design=design.random(8, 30, seed=2), recipe=recipe, tasks=(Task(target, draws=2),), seed=2)


def test_the_main_job(tmp_path: Path, source: Dataset, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "quickstart_plan", lambda models, seed: small_plan(source, target))
    out = tmp_path / "out"
    runs = []
    for _ in range(2):
        done = CliRunner().invoke(app, ["quickstart", "--out", str(out), "--seed", "2", "--workers", "1"])
        assert done.exit_code == 0, done.output
        runs.append(json.loads((out / "results.json").read_text()))
    for found in runs:
        found.pop("seconds")
    assert runs[0] == runs[1], "the same command again changes nothing"
    found = runs[0]
    assert set(found) >= {"models", "verdict", "estimand", "groups", "counterfactual", "versions"}
    assert found["models"] == 30
    assert found["estimand"] == "swap"
    assert set(found["verdict"]) >= {"correlation", "p"}
    assert [set(group) for group in found["groups"]] == [{"name", "value", "stderr", "df", "q", "models"}] * 8
    assert abs(sum(group["value"] for group in found["groups"])) < 1e-3, "swap values sum to zero"
    kinds = [run["kind"] for run in found["counterfactual"]]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "full": 24,
        "drop top": 24 + 4 + 4,
        "drop bottom": 24 + 4 + 4,
        "drop random": 24 + 4 + 4,
    }
    for run in found["counterfactual"]:
        assert len(run["names"]) == run["dropped"]
        assert 0 <= run["accuracy"] <= 1
    page = (out / "report.html").read_text()
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


@pytest.mark.slow
def test_the_command_reads_a_file_and_writes_nothing(tmp_path: Path) -> None:
    text = """
        [source]
        sample = "alphanumerics"
        each = 2
        [design]
        kind = "random"
        models = 500
        alpha = 0.1
        [recipe]
        epochs = 1
        [[tasks]]
        draws = 1
        target.train.sample = "digits"
    """
    (tmp_path / "study.toml").write_text(text)
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "study.toml"), "--price", "10", "--workers", "1"])
    assert done.exit_code == 0, done.output
    assert re.search(r"500 rows, 0 of them stored", done.output)
    assert ", 62 groups (by class), 1 task, into " in done.output
    assert re.search(r"500 rows with 1 worker: .* of disk, .* at 10.00 an hour", done.output)
    assert [path.name for path in tmp_path.iterdir()] == ["study.toml"]


@pytest.mark.slow
def test_a_network_that_does_not_fit_is_one_error_before_the_first_row(tmp_path: Path) -> None:
    text = """
        [run]
        dir = "out"
        workers = 1
        [source]
        sample = "alphanumerics"
        each = 2
        [design]
        kind = "random"
        models = 24
        [recipe]
        network = "vgg11"
        [[tasks]]
        target.train.sample = "digits"
    """
    (tmp_path / "study.toml").write_text(text)
    for command in ("plan", "run"):
        done = CliRunner().invoke(app, [command, str(tmp_path / "study.toml")])
        assert isinstance(done.exception, ConfigError), done.output
        told = str(done.exception)
        assert re.search(r"row \d+ \(.*\): network vgg11: cannot be trained on images of 28 x 28 pixels", told)
        assert re.search("sides that work: 32, 40", told)
        assert "\n" not in told
    assert len(Store(tmp_path / "out").missing()) == 24
    assert not (tmp_path / "out" / "log.jsonl").exists(), "it would tell of a first try"


@pytest.mark.slow
def test_a_plan_file_is_run_continued_proved_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
        [run]
        dir = "out"
        workers = 1
        [source]
        sample = "alphanumerics"
        each = 2
        [design]
        kind = "random"
        models = 24
        alpha = 0.2
        [recipe]
        epochs = 1
        network = "convnet-4"
        batch_size = 16
        [[tasks]]
        draws = 1
        target.train.sample = "digits"
    """
    file = tmp_path / "study.toml"
    file.write_text(text)
    first = CliRunner().invoke(app, ["run", str(file), "--json"])
    assert first.exit_code == 0, first.output
    assert "24 rows are in" in first.output
    assert all(json.loads(line) for line in first.stderr.splitlines())
    commands = [line.split("  # ")[0] for line in first.output.splitlines()[-2:]]
    assert commands == [f"next: pydt run {file}", f"next: pydt report {file}"]  # one epoch teaches hardly anything
    assert Store(tmp_path / "out").masks().shape == (24, 62)
    again = CliRunner().invoke(app, ["run", str(file), "--same-code"])
    assert again.exit_code == 0, again.output
    assert "24 rows are in" in again.output
    with monkeypatch.context() as patch:
        patch.setattr("pydt.ensemble.driver.versions", lambda: {"torch": "9.9"})
        refused = CliRunner().invoke(app, ["run", str(file), "--same-code"])
    assert isinstance(refused.exception, StoreError)
    assert "now 9.9" in str(refused.exception)
    other = tmp_path / "other.toml"
    other.write_text(text.replace("models = 24", "models = 25"))
    short = Store(tmp_path / "out").plan().digest[:8]
    both = CliRunner().invoke(app, ["run", str(other)])
    assert both.exit_code == 0, both.output
    assert (
        "also in out: plan study (24 rows, 24 finished): 24 of them serve other (design.models 24 -> 25)" in both.output
    )
    unnamed = CliRunner().invoke(app, ["report", str(tmp_path / "out")])
    assert "name one: --plan NAME, or give the plan file" in str(unnamed.exception)
    unrun = tmp_path / "unrun.toml"
    unrun.write_text(text.replace("models = 24", "models = 26"))
    for command in (["prove"], ["report"], ["status"], ["analyse", "--only", "ranking-target"]):
        refused = CliRunner().invoke(app, [*command, str(unrun)])
        assert isinstance(refused.exception, StoreError), command
        assert f"run `pydt run {unrun}` first" in str(refused.exception)
    by_file = CliRunner().invoke(app, ["report", str(other)])
    assert by_file.exit_code == 0, by_file.output
    assert "25 models" in by_file.output
    assert "24 rows: 24 finished" in CliRunner().invoke(app, ["status", str(file)]).output
    assert CliRunner().invoke(app, ["verify", str(unrun)]).exit_code == 0
    exported = CliRunner().invoke(app, ["export", str(other), str(tmp_path / "bundle")])
    assert "25 models" in exported.output
    assert "25 cells went into 1 block" in CliRunner().invoke(app, ["compact", str(file)]).output
    named = CliRunner().invoke(app, ["report", str(tmp_path / "out"), "--plan", short])
    assert named.exit_code == 0, named.output
    assert "24 models" in named.output
    proved = CliRunner().invoke(app, ["prove", str(file)])
    assert proved.exit_code == 0, proved.output
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {"full", "drop top", "drop bottom", "drop random"} == {row["kind"] for row in found["counterfactual"]}


def test_a_plan_file_with_rates_chooses_first_and_says_so(tmp_path: Path, source: Dataset, target: Target) -> None:
    plan = small_plan(source, target)
    tuned = Task(target, mode="finetune", shots=2, draws=2, finetune=FineTune(epochs=1), name="tuned")
    plan = replace(plan, design=design.random(8, 3, seed=2), tasks=(tuned, Task(target, draws=2)))
    file = tmp_path / "study.toml"
    write_plan(plan, file, workers=1, rates=(0.001, 0.1), rate_rows=2)

    def pydt(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == code, done.output
        return done.output

    assert "2 learning rates of 1 task on 2 rows, tried before the rest: this comes on top" in pydt("plan", str(file))
    assert not (tmp_path / "study").exists()
    for command in ("prove", "analyse"):
        done = CliRunner().invoke(app, [command, str(file)])
        assert "holds no choice of the plan's learning rates" in str(done.exception)
    said = pydt("run", str(file))
    chosen = read_plan(file).chosen()
    rate = chosen.tasks[0].finetune.lr
    assert rate in (0.001, 0.1)
    assert f"learning rate of tuned: {rate:g} (loss " in said
    assert "Note: tuned: the chosen rate" in said, "of two rates each is an edge"
    store = Store(tmp_path / "study")
    assert store.plan().digest == chosen.digest
    assert len(store.finished()) == 3
    assert "learning rates: chosen already" in pydt("plan", str(file))
    assert "3 rows: 3 finished" in pydt("status", str(tmp_path / "study"))


def test_the_page_shows_a_plan_of_a_command(tmp_path: Path) -> None:
    """The plan and the script of docs/plans.md, from the shell."""
    page = (Path(__file__).parents[2] / "docs" / "plans.md").read_text()
    section = page.split("## Rows that your own command computes")[1]
    script = section.split("```python\n")[1].split("```")[0]
    text = section.split("```toml\n")[1].split("```")[0].replace('"python"', json.dumps(sys.executable))
    file = tmp_path / "own.toml"
    file.write_text("run.workers = 2\n" + text)
    (tmp_path / "train.py").write_text(script)
    random = np.random.default_rng(0)
    sites, x, truth = random.integers(0, 6, 300), random.normal(size=(300, 5)), random.normal(size=5)
    y = np.sign(x @ truth) * np.where(sites == 2, -1, 1)  # the labels of site 2 are flipped
    x_test = random.normal(size=(400, 5))
    np.savez(tmp_path / "table.npz", x=x, y=y, x_test=x_test, y_test=np.sign(x_test @ truth))
    (tmp_path / "sites.txt").write_text("".join(f"site {one}\n" for one in sites))

    def pydt(*arguments: str) -> str:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == 0, done.output
        if arguments[0] != "report":
            assert not re.search(r"image|network|\btrain", done.output)
        return done.output

    planned = pydt("plan", str(file))
    assert ": source, 300 examples, 6 groups (by site), 1 task, into " in planned
    assert "60 rows, 0 of them stored" in planned
    assert not (tmp_path / "own").exists()
    assert "60 rows are in " in pydt("run", str(file))
    store = Store(tmp_path / "own")
    right = store.outputs("accuracy", "value")
    assert right.shape == (60, 200), "of the half by which groups are ranked"
    without = right.mean(1)[~store.masks()[:, 2]]
    assert without.min() > 0.9, "where the flipped site is left out, least squares finds the truth"
    assert "60 rows, 60 of them stored" in pydt("plan", str(file))
    assert "60 rows: 60 finished" in pydt("status", str(file))
    assert "60 cells went into 1 block" in pydt("compact", str(file))
    assert "60 cells are whole" in pydt("verify", str(file))
    assert "60 models x 6 groups" in pydt("export", str(file), str(tmp_path / "bundle"))
    said = pydt("report", str(file))
    found = json.loads((tmp_path / "own" / "results.json").read_text())
    worst = min(found["groups"], key=lambda group: group["value"])
    assert worst["name"] == "site 2"
    assert worst["q"] < 0.05
    assert re.search("\u201csite 2\u201d[^.;]* clearly hurts?", said)
    assert "Note" not in said
    (tmp_path / "train.py").write_text(script + "# another\n")
    assert "60 rows, 0 of them stored" in pydt("plan", str(file)), "another script, other rows"
    refused = CliRunner().invoke(app, ["run", str(file), "--keep", "weights"])
    assert isinstance(refused.exception, ConfigError)
    assert "a runner of your own computes the rows" in str(refused.exception)


def test_rows_that_keep_every_group_are_told_by_their_metric(tmp_path: Path, source: Dataset, target: Target) -> None:
    small = small_plan(source, target)
    tasks = (small.tasks[0], Task(replace(target, metric="auroc"), draws=2, name="ranked"))
    untrained = replace(small.recipe, method="none")
    plan = replace(small, design=design.Design.explicit(np.ones((3, 8), bool)), recipe=untrained, tasks=tasks)
    write_plan(plan, tmp_path / "ones.toml", dir="ones")
    done = CliRunner().invoke(app, ["run", str(tmp_path / "ones.toml"), "--workers", "1"])
    assert done.exit_code == 0, done.output
    assert "next:" not in done.output
    assert done.output.splitlines()[-1] == "all 3 rows keep the same groups: there is nothing to prove or report"
    assert "no report can be made" not in done.output, "nobody asked for one"
    store = Store(tmp_path / "ones")
    told = CliRunner().invoke(app, ["status", str(tmp_path / "ones")]).output
    for task, name in zip(tasks, ("accuracy", "AUROC"), strict=True):
        values = 100 * np.array([one["report_accuracy"] for one in store.scalars(task)])
        if name == "accuracy":
            examples = store.examples(task, "report")
            means = (store.outputs(task, "correct", "report") * examples["weights"]).sum(1)
            assert np.allclose(values, 100 * means, atol=1e-4)
        line = f"{task.name}: {name} {values.mean():.1f} % on average, SD {values.std(ddof=1):.1f} over 3 rows"
        assert line in done.output.splitlines()
        assert f"  {line}" in told.splitlines()
    refused = CliRunner().invoke(app, ["report", str(tmp_path / "ones.toml")])
    assert "3 finished rows" in str(refused.exception)
