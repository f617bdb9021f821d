"""The command that writes which groups to keep: by a plan file, and by the folder of its store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stub_influence import Additive, filled, many_classes, plan_of
from typer.testing import CliRunner

from pydt import design
from pydt.base import ConfigError, StoreError
from pydt.cli.app import app
from pydt.data import Dataset, Target, read_list
from pydt.ensemble import read_plan, write_plan
from pydt.training import Task


def said(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, ["keep", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, target: Target) -> Path:
    """A plan file of two tasks, whose store is filled: group c4 harms the first one, c7 the second."""
    folder = tmp_path_factory.mktemp("study")
    plan = plan_of(many_classes(), target, design.random(20, 60, alpha=0.5, seed=3))
    plan = replace(plan, tasks=(*plan.tasks, Task(target, shots=1, draws=2, name="one shot")))
    write_plan(plan, folder / "study.toml")
    read = read_plan(folder / "study.toml")

    class ByTask(Additive):
        def __call__(self, given):  # type: ignore[no-untyped-def]
            found = {}
            for task, harms in zip(read.plan.tasks, (4, 7), strict=True):
                effects = np.zeros((20, 120))
                effects[harms] = -2.0
                found |= Additive(self.base, effects)(replace(given, tasks=(task,)))
            return found

    filled(read.dir, read.plan, ByTask(np.zeros(120), np.zeros((20, 120))))
    return folder / "study.toml"


def test_the_command_writes_what_it_says(file: Path, tmp_path: Path) -> None:
    output = said(file, "--drop", 5, "--out", tmp_path / "lists")
    paths = [Path(line) for line in output.splitlines() if line.startswith(str(tmp_path))]
    assert [path.is_file() for path in paths] == [True] * 4
    text = next(path for path in paths if path.suffix == ".txt")
    assert text.name.startswith("kept-15-of-20-dropped-5-lowest-for-")
    names = read_list(text)
    assert len(names) == 15
    assert "c4" not in names
    assert "Kept: 15 of 20 groups (by class), 45 of 60 source images. Left out: the 5 lowest for " in output
    source = read_plan(file).plan.source
    assert isinstance(source, Dataset)
    line = next(line for line in output.splitlines() if line.startswith("pydt:")).removeprefix("pydt:")
    assert eval(line.strip(), {"dataset": source}).classes == tuple(names)
    assert f"pydt prove {file} --drop 5" in output


def test_tasks_have_lists_of_their_own(file: Path, tmp_path: Path) -> None:
    output = said(file, "--sure", "--task", "one", "--out", tmp_path)
    assert "c7" in output.split("How sure")[0]
    assert output.splitlines()[-1].split("  # ")[0].endswith(".txt --task one"), (
        "what tests it retrains for the same task"
    )
    (text,) = tmp_path.glob("*.txt")
    assert text.name.endswith("-surely-below-average-for-one-shot.txt")
    assert "c7" not in read_list(text)


def test_one_order_serves_all_numbers_of_shots(file: Path, tmp_path: Path) -> None:
    output = said(file, "--drop", 5, "--shots", "common", "--out", tmp_path)
    assert "one order for 1 and " in output
    assert {"c4", "c7"} <= set(output.split("Left out")[1].split("How sure")[0].replace("“", "”").split("”"))
    (text,) = tmp_path.glob("kept-15-of-20-dropped-5-lowest-for-1-*-shots.txt")
    assert f"pydt analyse {file} --only removal --train --keep {text}" in output


def test_a_store_will_do(file: Path, tmp_path: Path) -> None:
    read = read_plan(file)
    by_file, by_folder = (said(place, "--top", 3, "--out", tmp_path / "lists") for place in (file, read.dir))
    assert by_folder.splitlines()[0] == by_file.splitlines()[0].replace(", 9 of 60 source images", "")
    assert by_folder.splitlines()[1:3] == by_file.splitlines()[1:3]
    assert "does not hold the source; a plan file in its place tells them" in by_folder, (
        "it was saved beside the plan file"
    )
    assert said(file, "--top", 3, "--plan", read.plan.digest[:6]).splitlines()[0] == by_file.splitlines()[0]
    assert "next: pydt prove" in by_file
    assert (read.dir / "kept").is_dir()
    with pytest.raises(StoreError, match="no plan"):
        said(file, "--top", 3, "--plan", "0123")


def test_a_rule_is_asked_for(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no rule"):
        said(file)
    with pytest.raises(ConfigError, match="drop and top at once"):
        said(file, "--drop", 3, "--top", 3)
    write_plan(read_plan(file).plan, tmp_path / "new.toml")
    with pytest.raises(StoreError, match=rf"run `pydt run {tmp_path / 'new.toml'}` first"):
        said(tmp_path / "new.toml", "--drop", 3)


def test_another_plan_of_the_store_is_not_proved_by_this_file(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    first = plan_of(many_classes(), read_plan(file).plan.tasks[0].target, design.random(20, 60, alpha=0.5, seed=3))
    second = replace(first, design=design.random(20, 60, alpha=0.5, seed=4))
    folder.mkdir()
    write_plan(first, folder / "study.toml")
    read = read_plan(folder / "study.toml")
    for plan in (read.plan, second):
        filled(read.dir, plan, Additive(np.zeros(120), np.zeros((20, 120))))
    own, other = (said(folder / "study.toml", "--drop", 4, "--plan", plan.digest) for plan in (read.plan, second))
    assert f"pydt prove '{folder / 'study.toml'}' --drop 4" in own, "ready for a shell"
    assert "next:" not in other
    assert f"-for-plan-{second.digest[:8]}.txt" in other


def test_tasks_of_like_names_have_files_of_their_own(target: Target, tmp_path: Path) -> None:
    plan = plan_of(many_classes(), target, design.random(20, 60, alpha=0.5, seed=3))
    names = "one shot", "one: shot", "???"
    plan = replace(plan, tasks=tuple(Task(target, shots=i + 1, draws=2, name=name) for i, name in enumerate(names)))
    filled(tmp_path / "store", plan, Additive(np.zeros(120), np.zeros((20, 120))))
    for name in names:
        said(tmp_path / "store", "--drop", 4, "--task", name, "--out", tmp_path / "lists")
    assert len(list((tmp_path / "lists").glob("*.txt"))) == 3
