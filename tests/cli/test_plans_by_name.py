"""Several plans in a store by name, commands by file or folder, and printed commands that work as they stand."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_influence import Additive, filled, many_classes, plan_of
from typer.testing import CliRunner

from pydt import design
from pydt.base import ConfigError, StoreError
from pydt.cli.app import app
from pydt.data import Target
from pydt.ensemble import Plan, read_plan, write_plan
from pydt.store import Store, merge, name_plan, verify
from pydt.store.notes import write_note
from pydt.training import Recipe


def pydt(*arguments: Any) -> str:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def following(output: str) -> list[list[str]]:
    """The words of the commands that an output says may come next, as a shell takes them."""
    lines = [line.removeprefix("next: ") for line in output.splitlines() if line.startswith("next: ")]
    found = [shlex.split(line, comments=True) for line in lines]
    assert all(words[0] == "pydt" for words in found)
    return [words[1:] for words in found]


def runner() -> Additive:
    effects = np.zeros((20, 120))
    effects[4] = -2.0
    return Additive(np.zeros(120), effects, common=0.1)


def plan(target: Target, rows: int = 60, epochs: int = 1) -> Plan:
    made = plan_of(many_classes(), target, design.random(20, rows, alpha=0.5, seed=3))
    return replace(made, recipe=Recipe(network="convnet-2", epochs=epochs, batch_size=16))


def study(folder: Path, target: Target) -> tuple[Path, Path]:
    """Two plan files of one store, the second with four rows more; all rows are there."""
    folder.mkdir()
    files = folder / "first.toml", folder / "second try.toml"
    for file, rows in zip(files, (60, 64), strict=True):
        write_plan(plan(target, rows), file, dir="out", workers=1)
        filled(folder / "out", read_plan(file).plan, runner())
    return files


def test_plans_of_a_store_are_called_by_the_names_of_their_files(tmp_path: Path, target: Target) -> None:
    first, second = study(tmp_path / "a study", target)
    out = first.parent / "out"
    said = pydt("run", first)
    assert "60 rows are in " in said
    assert following(said) == [["report", str(first)], ["prove", str(first)]]
    more = pydt("run", second)
    assert "plan first (60 rows, 60 finished): 60 of them serve second try (design.models 60 -> 64)" in more
    store = Store(out)
    plans = {"first": read_plan(first).plan, "second try": read_plan(second).plan}
    for name, made in plans.items():
        assert store.called(made) == name
        for wanted in (name, name[:3], name[:-1], made.digest, made.digest[:8]):
            assert store.plan(wanted).digest == made.digest
    told = pydt("status", out, "--plan", "fir")
    assert f"{out}: plan first\n" in told
    assert "also plan second try: 64 rows: 64 finished" in told
    found = json.loads(pydt("status", out, "--plan", "second try", "--json"))
    assert (found["name"], found["plan"]) == ("second try", plans["second try"].digest)
    for wrong in (["report", out], ["report", out, "--plan", "third"], ["keep", out, "--drop", 3, "--plan", "x"]):
        with pytest.raises(StoreError, match=r"there are: first \(60 rows; .*; second try \(64 rows") as error:
            pydt(*wrong)
        assert not any(made.digest[:9] in str(error.value) for made in plans.values()), "nobody types 32 digits"


def test_printed_commands_work_as_they_stand(tmp_path: Path, target: Target) -> None:
    first, second = study(tmp_path / "a study", target)
    out = first.parent / "out"
    pydt("run", first)
    for place in ([first], [out, "--plan", "first"]):
        asked = [str(one) for one in place]
        for words in following(pydt("run", *place)):
            assert words[1:] == asked
        (prove,) = following(pydt("report", *place))
        assert prove == ["prove", *asked]
        (prove,) = following(pydt("keep", *place, "--drop", 5))
        assert prove == ["prove", *asked, "--drop", "5"]
        (removal,) = following(pydt("keep", *place, "--sure"))
        assert removal[: len(asked) + 4] == ["analyse", *asked, "--only", "removal", "--train"]
    (kept,) = following(pydt("report", out, "--plan", read_plan(second).plan.digest[:8]))
    assert kept[:2] == ["keep", str(out)], "no file is known that makes this plan: nothing can be retrained"
    pydt(*kept)
    planned = following(pydt("plan", out, "--plan", "first"))
    assert planned == [["prove", str(out), "--plan", "first"]], "all rows are there"


def test_a_folder_knows_the_file_that_its_plan_was_run_from(tmp_path: Path, target: Target) -> None:
    first, _ = study(tmp_path / "a", target)
    pydt("run", first)
    moved = tmp_path / "b"
    first.parent.rename(moved)
    out = moved / "out"
    assert "positions" not in pydt("keep", out, "--plan", "first", "--drop", 3), "both moved together"
    text = (moved / "first.toml").read_text()
    (moved / "first.toml").write_text(text.replace("epochs = 1", "epochs = 2"))
    for command in ("prove", "run", "plan", "analyse"):
        with pytest.raises(
            StoreError, match=r"is not plan first any more: recipe\.epochs 1 -> 2\. undo that .*pydt run"
        ):
            pydt(command, out, "--plan", "first")
    assert "no positions of examples" in pydt("keep", out, "--plan", "first", "--drop", 3)
    (moved / "first.toml").unlink()
    with pytest.raises(StoreError, match=r"first\.toml: plan first was run from this file, which is not there"):
        pydt("prove", out, "--plan", "first")
    with pytest.raises(StoreError, match=r"does not say from which file plan .{8} was run.*pydt\.counterfactual"):
        pydt("prove", out, "--plan", read_plan(moved / "second try.toml").plan.digest)


def test_names_stay_are_numbered_and_are_chosen(tmp_path: Path, target: Target) -> None:
    file = tmp_path / "study.toml"
    names = []
    for rows, name in ((30, None), (31, None), (32, "nice one"), (30, None), (30, "nice one")):
        write_plan(plan(target, rows), file, name=name, workers=1)
        made = read_plan(file).plan
        filled(tmp_path / "study", made, runner())
        pydt("run", file)
        names.append(Store(tmp_path / "study").called(made))
    assert names == ["study", "study-2", "nice one", "study", "nice one-2"]


@pytest.mark.parametrize("bad", ["", " x", "-x", "a\nb", "x" * 81])
def test_a_name_can_be_typed(tmp_path: Path, target: Target, bad: str) -> None:
    write_plan(plan(target), tmp_path / "study.toml", name=bad)
    with pytest.raises(ConfigError, match=r"study\.toml: run\.name: is .* give one line of at most 80 characters"):
        read_plan(tmp_path / "study.toml")


def test_a_store_does_not_choose_which_command_is_run(tmp_path: Path) -> None:
    text = """
        source.groups = ["a", "b", "c", "a", "b", "c"]
        design.kind = "bernoulli"
        design.models = 4
        runner.command = ["false", "{keep}", "{out}"]
        [[tasks]]
        measure = "accuracy"
    """
    (tmp_path / "own.toml").write_text(text)
    CliRunner().invoke(app, ["run", str(tmp_path / "own.toml"), "--workers", "1"])
    assert len(Store(tmp_path / "own").plans()) == 1
    for command in ("run", "plan", "prove", "analyse"):
        with pytest.raises(ConfigError, match="which a folder alone does not start"):
            pydt(command, tmp_path / "own")


def test_merged_stores_keep_names_and_damaged_ones_do_no_harm(tmp_path: Path, target: Target) -> None:
    first, _ = study(tmp_path / "a", target)
    pydt("run", first)
    name_plan(Store(first.parent / "out"), "0" * 32, "first-2")
    merge(tmp_path / "merged", first.parent / "out")
    made = read_plan(first).plan
    store = Store(tmp_path / "merged")
    assert store.called(made) == "first"
    assert "next: pydt prove" in pydt("keep", store.folder, "--plan", "first", "--drop", 4)
    note = store.folder / "names" / f"{made.digest}.json"
    note.write_text(note.read_text().replace("first", "other"))
    assert Store(store.folder).called(made) == made.digest[:8]
    assert note.name in str(verify(store.folder)["damaged"])
    assert "Report: " in pydt("report", store.folder, "--plan", made.digest[:8])
    assert "kept-16-of-20" in pydt("keep", store.folder, "--plan", made.digest[:8], "--drop", 4)
    with pytest.raises(StoreError, match=rf"names/{note.name}: is damaged.*delete this one file"):
        pydt("prove", store.folder, "--plan", made.digest[:8])
    merge(tmp_path / "again", store.folder)
    assert len(Store(tmp_path / "again").plans()) == 2


@pytest.mark.parametrize("file", ["a" * 300, "\x1b[31mred", "a" * 5000, "a\0b"])
def test_a_file_that_a_store_names_may_be_none(tmp_path: Path, target: Target, file: str) -> None:
    store, made = filled(tmp_path / "out", plan(target), runner()), plan(target)
    write_note(store, "names", made.digest, {"name": "first", "of": "plan", "file": file})
    assert "Report: " in pydt("report", store.folder)
    with pytest.raises(StoreError) as refused:
        pydt("prove", store.folder)
    assert str(refused.value).isprintable()


def test_something_that_is_no_plan_is_refused(tmp_path: Path, target: Target) -> None:
    store = Store(filled(tmp_path / "out", plan(target), runner()).folder)
    with pytest.raises(ConfigError, match=r"Store\.plan: is of type PosixPath, not a plan.*pydt\.read_plan"):
        store.masks(tmp_path / "study.toml")


def test_errors_name_the_options(tmp_path: Path, target: Target) -> None:
    first, _ = study(tmp_path / "a", target)
    with pytest.raises(ConfigError, match=r"give one of --drop N, --top N, --sure$"):
        pydt("keep", first)
    with pytest.raises(ConfigError, match=r"give one of --drop N"):
        pydt("keep", first, "--drop", 3, "--sure")


@pytest.mark.slow  # a few dozen small trainings
def test_a_whole_session_runs_by_the_printed_lines(tmp_path: Path, target: Target) -> None:
    folder = tmp_path / "a study"
    folder.mkdir()
    write_plan(plan(target, 40), folder / "first.toml", workers=2)
    said, seen = pydt("plan", folder / "first.toml", "--price", 2), []
    assert "timing one row" in said
    assert "the proof comes on top: 80 retrainings of up to " in said
    assert "with --quick: 15 retrainings" in said
    while (words := next((one for one in following(said) if one[0] not in seen), None)) is not None:
        seen.append(words[0])
        said = pydt(*words, *(["--quick"] if words[0] == "prove" else []))
        if words[0] == "prove":
            assert "Quick proof: it would have seen a difference of" in said
    assert seen == ["run", "report", "prove", "keep"]
    store = Store(folder / "first")
    kinds = [row.kind for name, record in store.plans().items() if record.kind == "rows" for row in store.rows(name)]
    assert {kind: kinds.count(kind) for kind in kinds} == {"full": 5, "drop bottom": 5, "drop random": 5}


def test_an_analysis_that_trains_says_first_what_that_takes(tmp_path: Path, target: Target) -> None:
    first, _ = study(tmp_path / "a", target)
    pydt("run", first)
    out = first.parent / "out"
    done = CliRunner().invoke(app, ["analyse", str(out), "--plan", "first", "--only", "removal", "--workers", "2"])
    assert done.exit_code == 1, "no page was made"
    assert "0 pages" not in done.output
    sizes, kinds, lengths, repeats = 6, 3, 2, 8
    most = repeats * (1 + sizes * kinds * lengths)
    assert done.output.startswith(f"removal trains models: up to {most} trainings")
    words = ["analyse", str(out), "--plan", "first", "--only", "removal", "--train"]
    assert following(done.output) == [words]
    said = pydt("analyse", first, "--only", "stability", "--only", "ranking-target")
    lines = [line for line in said.splitlines() if line.startswith(("stability: ", "ranking-target: "))]
    assert len(lines) == 2, "the main sentence of each page"
    assert following(said) == []


def test_the_help_of_analyse_lists_the_analyses() -> None:
    said = CliRunner().invoke(app, ["analyse", "--help"], env={"COLUMNS": "140"}).output
    for name, asks in (("removal", "what does leaving groups out do? (trains)"), ("targets", "does one list serve")):
        assert f"{name}: {asks}" in said
