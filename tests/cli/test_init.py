"""`pydt init`: folders as people have them become a plan that loads, and that runs as it is."""

from __future__ import annotations

import contextlib
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stub_drawings import SHAPES, drawings
from typer.testing import CliRunner

from pydt.base import PydtError
from pydt.cli.app import app
from pydt.data.packing import pack, pack_tar
from pydt.ensemble import read_plan, run


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def pydt(*arguments: str, cwd: Path) -> Done:
    """The command in this process: ten of them would import torch ten times."""
    with contextlib.chdir(cwd):
        found = CliRunner().invoke(app, list(arguments))
    if found.exception is not None and not isinstance(found.exception, (PydtError, SystemExit)):
        raise found.exception
    return Done(found.exit_code, found.output, str(found.exception))


def test_two_folders_become_a_plan_that_loads(tmp_path: Path) -> None:
    drawings(tmp_path / "icons")
    drawings(tmp_path / "task", SHAPES[1:5], seed=1)
    (tmp_path / "icons" / "disc" / "bad.png").write_bytes(b"")
    done = pydt("init", "icons", "task", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for told in (
        "icons: 120 images of 6 classes, 20 a class",
        "grey images, seen as RGB: 6",
        "images with transparent pixels, shown on white: 114",
        "broken: 1 (disc/bad.png: ",
        "60 models (convnet-24), each on 50% of the classes of icons",
        "cost: roughly ",
        "next: pydt plan study.toml  # says what it costs; nothing is trained for good",
    ):
        assert told in done.stdout
    text = (tmp_path / "study.toml").read_text()
    assert tomllib.loads(text)["source"] == {"folder": "icons", "bad": "skip"}
    assert "name" not in tomllib.loads(text)["tasks"][0], "it would go on to say 3 after the shots were changed"
    read = read_plan(tmp_path / "study.toml")
    assert read.dir == tmp_path / "study"
    assert len(read.plan.design) == 60
    assert [task.name for task in read.plan.tasks] == ["task, 3-shot probe"]
    again = pydt("init", "icons", "task", cwd=tmp_path)
    assert again.returncode == 1
    assert "study.toml: is there already" in again.stderr
    assert (tmp_path / "study.toml").read_text() == text


@pytest.mark.slow
def test_the_plan_runs_as_it_is_and_its_models_learn(tmp_path: Path) -> None:
    """The networks beat an untrained one and a guess on the report half, which nothing was chosen on."""
    pytest.importorskip("nvidia.dali")
    drawings(tmp_path / "icons")
    drawings(tmp_path / "task", SHAPES[1:5], seed=1)
    assert pydt("init", "icons", "task", cwd=tmp_path).returncode == 0
    text = (tmp_path / "study.toml").read_text()
    (tmp_path / "study.toml").write_text(text.replace('"random"', '"random"\nrows = [0, 1, 2, 3]'))
    read = read_plan(tmp_path / "study.toml")
    store = run(read.plan, read.dir, workers=2, progress=False)
    rows = store.scalars(read.plan.tasks[0])
    assert np.mean([row["report_accuracy"] for row in rows]) > 0.25 + 0.3  # of four classes
    assert not store.failed()


def test_parts_of_a_split_target_are_used_and_two_targets_are_two_tasks(tmp_path: Path) -> None:
    drawings(tmp_path / "icons" / "train")
    drawings(tmp_path / "icons" / "val", seed=9)
    drawings(tmp_path / "a" / "train", SHAPES[:3], seed=1)
    drawings(tmp_path / "a" / "test", SHAPES[:3], seed=2)
    drawings(tmp_path / "b", SHAPES[3:], 60, seed=3)
    (tmp_path / "plans").mkdir()
    done = pydt("init", "icons", "a", "b", "--out", "plans/mine.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = read_plan(tmp_path / "plans" / "mine.toml").plan
    assert len(plan.source) == 120
    first, second = (task.target for task in plan.tasks)
    assert first.test is not None
    assert second.test is None
    assert [task.name for task in plan.tasks] == ["a, 5-shot probe", "b, 5-shot probe"]
    drawings(tmp_path / "c" / "train", SHAPES[:2], seed=1)
    drawings(tmp_path / "c" / "test", SHAPES[:3], seed=2)
    refused = pydt("init", "icons", "c", "--out", "c.toml", cwd=tmp_path)
    assert "has classes that train lacks: square" in refused.stderr
    assert not (tmp_path / "c.toml").exists()


def test_shards_and_packed_images_are_named_as_what_they_are(tmp_path: Path) -> None:
    drawings(tmp_path / "icons")
    drawings(tmp_path / "task", SHAPES[1:5], 30, seed=1)
    pack_tar(tmp_path / "icons", tmp_path / "shards")
    pack(tmp_path / "icons", tmp_path / "icons-32", 32)
    pack(tmp_path / "task", tmp_path / "task-32", 32)
    for source, target, kinds in (("shards", "task", ("tar", "folder")), ("icons-32", "task-32", ("saved", "saved"))):
        done = pydt("init", source, target, "--out", f"{source}.toml", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        told = tomllib.loads((tmp_path / f"{source}.toml").read_text())
        assert next(iter(told["source"])) == kinds[0]
        assert next(iter(told["tasks"][0]["target"]["train"])) == kinds[1]
        recipe = read_plan(tmp_path / f"{source}.toml").plan.recipe
        assert recipe.augment.size == (64 if source == "shards" else None)


def test_copies_are_told_and_what_cannot_be_planned_leaves_no_file(tmp_path: Path) -> None:
    drawings(tmp_path / "icons")
    done = pydt("init", "icons", "icons", cwd=tmp_path)
    assert "Note: " in done.stdout
    assert "copies" in done.stdout
    np.save(tmp_path / "images.npy", np.zeros((9, 8, 8), np.uint8))
    drawings(tmp_path / "damaged", SHAPES[:3])
    image = tmp_path / "damaged" / "disc" / "3.png"
    data = bytearray(image.read_bytes())
    data[45:60] = bytes(15)
    image.write_bytes(data)
    drawings(tmp_path / "alone", SHAPES[:1])
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    for arguments, wrong in (
        (["images.npy", "icons"], "is an array without labels"),
        (["alone", "icons"], "alone: has 1 class: too few to compare"),
        (["icons", "damaged"], "disc/3.png"),
        (["photo.png", "icons"], "is a file that is no data set"),
        (["nowhere", "icons"], "no such folder"),
        (["icons", "icons", "--out", "no/such.toml"], "its folder is not there"),
        (["icons", "icons", "--out", "plan"], "is no name of a plan file"),
    ):
        refused = pydt("init", *(["--out", "x.toml"] if "--out" not in arguments else []), *arguments, cwd=tmp_path)
        assert refused.returncode == 1, refused.stdout
        assert wrong in refused.stderr, refused.stderr
        assert not (tmp_path / "x.toml").exists()


def test_targets_may_have_one_name(tmp_path: Path) -> None:
    drawings(tmp_path / "icons")
    for name in ("a", "b"):
        drawings(tmp_path / name / "images", SHAPES[1:5], seed=1)
    done = pydt("init", "icons", "a/images", "b/images", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = [task.name for task in read_plan(tmp_path / "study.toml").plan.tasks]
    assert names == ["a/images, 3-shot probe", "b/images, 3-shot probe"]
    twice = pydt("init", "icons", "a/images", "b/../a/images", "--out", "other.toml", cwd=tmp_path)
    assert "b/../a/images: is given twice. give each target once" in twice.stderr
    assert "images of" not in twice.stdout


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    drawings(tmp_path / "icons")
    done = pydt("init", "icons", "icons", "--out", f"{'a' * 300}.toml", cwd=tmp_path)
    assert done.returncode == 1
    assert "name too long" in done.stderr
