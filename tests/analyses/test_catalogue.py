"""The command that makes all pages: which analyses, what is trained, what goes wrong, and that it continues."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stub_report import GROUPS, Stub, study
from typer.testing import CliRunner, Result

import pydt as package
from pydt import design
from pydt.analyses import analyse
from pydt.analyses.catalogue import ANALYSES, Analysis, Job
from pydt.base import ConfigError, EstimateError
from pydt.cli import app as cli
from pydt.cli import experiments
from pydt.data import Dataset, Target
from pydt.data.loading import Augment
from pydt.ensemble import Cost, Plan, RowInput, run, write_plan
from pydt.reporting import Page
from pydt.store import Outcome, Row, Store
from pydt.training import Recipe, Task

module = importlib.import_module("pydt.analyses.catalogue")  # `pydt.analyses.catalogue` is the function


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three analyses that only leave a note: one estimates, one trains, one fails."""
    made: list[str] = []

    def maker(name: str) -> Callable[[Job], Page]:
        def make(job: Job) -> Page:
            made.append(name)
            if name == "gamma":
                raise EstimateError("no two halves", "masks", "train more models")
            models = len(job.store.finished(job.plan))
            csv = {"numbers.csv": (("n",), ((i,) for i in range(3)))}
            return Page(name, name.title(), "Why?", [f"{models} models, seed {job.seed}."], [], csv, "As it is.")

        return make

    stubs = tuple(Analysis(name, f"asks {name}", name == "beta", maker(name)) for name in ("alpha", "beta", "gamma"))
    monkeypatch.setattr(module, "ANALYSES", stubs)
    return made


@pytest.fixture
def plan(source: Dataset, target: Target, tmp_path: Path) -> Plan:
    """Of a study whose rows lie in tmp_path/study; tmp_path/study.toml describes it."""
    study(tmp_path / "study", source, target)
    masks = design.bernoulli(GROUPS, 60, seed=0)
    made = Plan(source, design=masks, recipe=Recipe(), tasks=(Task(target, draws=4),))
    write_plan(made, tmp_path / "study.toml", dir="study")
    return made


def pydt(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def test_without_training_only_what_is_stored_is_used(plan: Plan, calls: list[str], tmp_path: Path) -> None:
    done = pydt("analyse", str(tmp_path / "study.toml"), "--only", "alpha", "--only", "beta")
    assert done.exit_code == 0, done.output
    assert calls == ["alpha"]
    assert "--only beta --train" in done.output
    assert "60 models, seed 0." in (tmp_path / "study" / "analyses" / "alpha.html").read_text()


def test_one_failure_does_not_stop_the_others(plan: Plan, calls: list[str], tmp_path: Path) -> None:
    told: list[str] = []
    done = analyse(plan, tmp_path / "study", train=True, seed=3, only=["gamma", "beta", "alpha"], tell=told.append)
    assert calls == ["alpha", "beta", "gamma"], "in the order of the index, whatever was asked for"
    assert done.pages == ("alpha", "beta")
    assert done.skipped == ()
    assert "no two halves" in done.failed["gamma"]
    assert done.index == tmp_path / "study" / "analyses" / "index.html"
    assert any("no two halves" in line for line in told)
    index = done.index.read_text()
    assert index.index("alpha.html") < index.index("beta.html")
    for name in ("alpha", "beta"):  # rows that can be read once are in the file, whatever is made after them
        assert (tmp_path / "study" / "analyses" / name / "numbers.csv").read_text().split() == ["n", "0", "1", "2"]
    # Made again one by one, in any order, the index keeps its order.
    for name in ("beta", "alpha"):
        analyse(plan, tmp_path / "study", train=True, only=[name])
    assert done.index.read_text().index("alpha.html") < done.index.read_text().index("beta.html")
    failing = pydt("analyse", str(tmp_path / "study.toml"), "--only", "gamma")
    assert failing.exit_code == 1


def test_few_masks_are_named_as_the_cause(
    tmp_path: Path, source: Dataset, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four groups of which two are kept have six masks: halves of the models cannot tell the groups apart."""
    four = Dataset.from_arrays(source.images[:80], source.labels[:80], source.classes[:4], name="four")
    masks = design.random(4, 20, alpha=0.5, seed=0)
    plan = Plan(four, design=masks, recipe=Recipe(), tasks=(Task(target, draws=4),))
    with ThreadPoolExecutor(1) as executor:
        run(plan, tmp_path / "few", executor, runner=_pairs, progress=False)
    write_plan(plan, tmp_path / "few.toml", dir="few")
    done = pydt("analyse", str(tmp_path / "few.toml"), "--only", "outputs", "--only", "removal")
    assert done.exit_code == 1, done.output
    assert "could not be made, the list of pages says why: outputs" in done.output
    index = (tmp_path / "few" / "analyses" / "index.html").read_text().replace("\u00a0", " ")
    assert "Not made: 4 groups have only 6 masks of this size" in index
    assert "drop these columns" not in done.output + index
    assert "it trains models: pydt analyse FILE --train" in index
    again = pydt("analyse", str(tmp_path / "few.toml"), "--only", "ranking-target")
    assert again.exit_code == 0, again.output
    cost = Cost(20, 20, 1, 1.0, 1, 10.0)
    monkeypatch.setattr(importlib.import_module("pydt.ensemble.plan_cost"), "cost", lambda plan, folder, **how: cost)
    for command in ("plan", "run"):
        told = pydt(command, str(tmp_path / "few.toml"))
        assert told.exit_code == 0, told.output
        assert "Note: 4 groups have only 6 masks" in told.output
    assert "Note" not in pydt("run", str(tmp_path / "few.toml"), "--json").output


def _pairs(given: RowInput) -> dict[str, Outcome]:
    """A runner of a source of four groups."""
    row = given.row
    eight = Row(np.concatenate([row.mask, row.mask]), row.seed, "design")
    return Stub(0.6, 0.03, 0, frozenset())(replace(given, row=eight))


def test_a_misspelt_name_is_refused_before_anything_is_trained(calls: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="alpha"):
        module.chosen(["alhpa"], train=True)
    done = pydt("analyse", "sample", "--out", str(tmp_path / "out"), "--only", "alhpa")
    assert done.exit_code == 1
    assert isinstance(done.exception, ConfigError)
    assert not (tmp_path / "out").exists()
    assert pydt("analyse", "study.toml", "--models", "30").exit_code == 2


def test_rows_that_are_missing_are_trained_where_that_is_asked(
    plan: Plan, calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "study", plan)
    for key in store.plan().keys[40:]:
        store.path(key[0]).unlink()

    def trained(plan: Plan, folder: Path, **how: object) -> Store:
        with ThreadPoolExecutor(1) as executor:
            return run(plan, folder, executor, runner=Stub(0.6, 0.15, 0, frozenset()), progress=False)

    monkeypatch.setattr("pydt.ensemble.run", trained)
    for flag, models in (("--no-train", 40), ("--train", 60)):
        done = pydt("analyse", str(tmp_path / "study.toml"), "--only", "alpha", flag, "--seed", "7")
        assert done.exit_code == 0, done.output
        assert f"{models} models, seed 7." in (tmp_path / "study" / "analyses" / "alpha.html").read_text()


@pytest.mark.parametrize("what", ["sample", "lab"])
def test_what_is_embedded_trains_by_itself(
    what: str, plan: Plan, calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "quickstart_plan", lambda models, seed: plan)
    monkeypatch.setattr("pydt.analyses.laboratory.planted", lambda seed: None)
    monkeypatch.setattr("pydt.analyses.laboratory.plan", lambda made, models, seed: plan)
    done = pydt("analyse", what, "--out", str(tmp_path / "study"), "--only", "beta", "--workers", "1")
    assert done.exit_code == 0, done.output
    assert calls == ["beta"]


def test_lists_picked_by_hand_are_read_from_files(
    plan: Plan, calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Job] = []

    def make(job: Job) -> Page:
        seen.append(job)
        return Page("alpha", "A", "Why?", ["So."], [], {}, "As it is.")

    monkeypatch.setattr(module, "ANALYSES", (Analysis("removal", "asks", False, make),))
    (tmp_path / "mine.txt").write_text("c1\n\nc3 \n", encoding="utf-8")
    done = pydt("analyse", str(tmp_path / "study.toml"), "--keep", str(tmp_path / "mine.txt"))
    assert done.exit_code == 0, done.output
    assert seen[0].settings == {"keep_lists": {"mine": ["c1", "c3"]}}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("c2\n", encoding="utf-8")
    both = [text for name in ("mine.txt", "other/mine.txt") for text in ("--keep", str(tmp_path / name))]
    assert pydt("analyse", str(tmp_path / "study.toml"), *both).exit_code == 2, "no list is lost"
    assert len(seen) == 1
    monkeypatch.setattr(module, "ANALYSES", (Analysis("removal", "asks", True, make),))
    unused = pydt("analyse", str(tmp_path / "study.toml"), "--keep", str(tmp_path / "mine.txt"))
    assert unused.exit_code == 2, "a list that nothing reads is refused"
    assert "--train" in unused.output
    missing = pydt("analyse", str(tmp_path / "study.toml"), "--keep", str(tmp_path / "none.txt"))
    assert missing.exit_code == 1
    assert isinstance(missing.exception, ConfigError)


def test_every_analysis_has_a_name_for_the_command_line() -> None:
    names = [analysis.name for analysis in ANALYSES]
    assert len(names) == len(set(names))
    assert all(name == name.lower() and name.replace("-", "").isalnum() for name in names)


DOCS = Path(__file__).parents[2] / "docs" / "analyses.md"


@pytest.mark.skipif(not DOCS.is_file(), reason="the documentation is not here")
def test_the_table_names_what_exists() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [f"| F{i} |" in text for i in range(1, 18)] == [True] * 17
    assert set(re.findall(r"--only ([a-z-]+)", text)) <= {analysis.name for analysis in ANALYSES}
    for analysis in ANALYSES:
        assert f"`{analysis.name}`" in text or f"--only {analysis.name}" in text, analysis.name
    for file in set(re.findall(r"`(test_\w+\.py)`", text)):
        assert list(Path(__file__).parents[1].glob(f"*/{file}")), file
    for name in set(re.findall(r"pydt\.([a-zA-Z_.]+[a-z])", text)):
        found: object = package
        for part in name.split("."):
            found = getattr(found, part) if hasattr(found, part) else importlib.import_module(f"pydt.{part}")


def _of_shots(target: Target) -> tuple[Task, ...]:
    """One target at two numbers of shots, by two ways to transfer."""
    return tuple(Task(target, shots=k, penalty=p, draws=4, name=f"{k}, {p}") for p in (10.0, 3.0) for k in (1, 5))


def test_each_way_to_transfer_has_a_page_by_shots(tmp_path: Path, source: Dataset, target: Target) -> None:
    masks = design.bernoulli(GROUPS, 60, seed=0)
    plan = Plan(source, design=masks, recipe=Recipe(), tasks=_of_shots(target))
    with ThreadPoolExecutor(1) as executor:
        run(plan, tmp_path, executor, runner=Stub(0.6, 0.15, 0, frozenset()), progress=False)
    done = analyse(plan, tmp_path, only=["shots"])
    assert done.failed == {}
    assert done.pages == ("shots", "shots-2")
    assert {"shots.html", "shots-2.html"} <= {path.name for path in (tmp_path / "analyses").iterdir()}
    tasks = {1: "1, 3.0", 5: "5, 10.0"}
    assert analyse(plan, tmp_path, only=["shots"], settings={"shots": {"tasks": tasks}}).pages == ("shots",)


def test_a_plan_of_one_number_of_shots_gets_more_where_that_is_asked(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = pydt("analyse", str(tmp_path / "study.toml"), "--only", "shots")
    assert told.exit_code == 1
    assert "no target of the plan has two numbers of shots" in told.output
    whole = analyse(plan, tmp_path / "study", only=None, settings={})
    assert "shots" not in {*whole.pages, *whole.failed}, "not made where it was not named"
    asked: list[Plan] = []

    def trained(made: Plan, folder: Path, **how: object) -> Store:
        asked.append(made)
        with ThreadPoolExecutor(1) as executor:
            return run(made, folder, executor, runner=Stub(0.6, 0.15, 0, frozenset()), progress=False)

    monkeypatch.setattr(module, "run", trained)
    settings = {"shots": {"repeats": 0}}
    done = analyse(plan, tmp_path / "study", only=["shots"], train=True, settings=settings)
    assert done.pages == ("shots",)
    assert [task.shots for task in asked[0].tasks][:3] == [5, 1, 2]
    assert (tmp_path / "study" / "shots" / "rows").is_dir(), "beside the plan's own store"
    assert len(Store(tmp_path / "study").designs()) == 1


@pytest.mark.slow
def test_all_pages_of_a_tiny_plan_and_again(tmp_path: Path, source: Dataset, target: Target) -> None:
    """Trained in earnest; the second time nothing is trained and every page and number is the same."""
    recipe = Recipe(network="convnet-2", epochs=1, batch_size=32, lr=0.3, augment=Augment(mean=(0.3,), std=(0.2,)))
    tasks = (Task(target, draws=2), Task(target, shots=1, draws=2))
    made = Plan(source, design=design.random(GROUPS, 44, seed=2), recipe=recipe, tasks=tasks, seed=2)
    settings = {
        "removal": {"sizes": (4,), "repeats": 4, "steps": "epochs"},
        "shots": {"sizes": (4,), "repeats": 4, "steps": "epochs"},
        "failures": {"models": 3, "repeats": 2, "share": 0.5, "most": 9},
        "examples": {"models": 10},
        "subpopulations": {"size": 4},
        "brittleness": {"verify": 1, "repeats": 2},
    }
    found = []
    for _ in range(2):
        run(made, tmp_path, workers=1, progress=False)
        done = analyse(made, tmp_path, train=True, workers=1, settings=settings)
        assert done.failed == {}
        without = {"rates", "targets"}  # no rate was chosen, and there is one target
        assert [*done.pages] == [analysis.name for analysis in ANALYSES if analysis.name not in without]
        files = sorted(path for path in (tmp_path / "analyses").rglob("*") if path.is_file())
        rows = sum(1 for _ in tmp_path.glob("rows/*/*"))
        found.append((rows, {str(path): path.read_bytes() for path in files}))
    assert found[0] == found[1]
    assert len(list((tmp_path / "analyses").glob("*/*.csv"))) > len(ANALYSES)
