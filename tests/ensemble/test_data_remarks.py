"""What was left out of the data is told where results are made and where they are read."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stub_report import Stub
from typer.testing import CliRunner

from pydt import design
from pydt.analyses import report
from pydt.base import DataError
from pydt.cli import app as cli
from pydt.data import Dataset, Groups, Target
from pydt.data.formats import folder as sources
from pydt.data.inspect import inspect, lines
from pydt.ensemble import Command, Plan, read_plan, remarks, run
from pydt.ensemble.data_remarks import changed_files
from pydt.store import Measure, Record, Store, merge, stored_remarks, verify
from pydt.training import Recipe, Task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight classes of three: a transparent image in each of the first two, a deep one, a checkpoint, a text."""
    root = tmp_path / "photos"
    for label in range(8):
        (root / f"c{label}").mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (30 * label, 80 * i, 0)).save(root / f"c{label}" / f"{i}.jpg")
    for label in range(2):
        Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(root / f"c{label}" / "clear.png")
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(root / "c5" / "deep.png")
    (root / "c6" / ".ipynb_checkpoints").mkdir()
    Image.new("RGB", (8, 8)).save(root / "c6" / ".ipynb_checkpoints" / "0-checkpoint.jpg")
    (root / "c7" / "about.txt").write_text("what these are")
    return root


def in_colours(target: Target) -> Target:
    train = target.train
    return Target(Dataset.from_arrays(np.repeat(train.images, 3, axis=3), train.labels, train.classes))


SAID = [
    "images with transparent pixels, shown on white: 2 (c0/clear.png, ...)",
    "images of more than 8 bits a pixel, scaled to 8: 1 (c5/deep.png)",
    "images of one colour (all the same shade) on white; another background= may show them: 2 (c0/clear.png, ...)",
    f"{sources.INSIDE}: 1 (c6/.ipynb_checkpoints/0-checkpoint.jpg)",
    f"{sources.OTHER}: 1 (c7/about.txt)",
]


def test_what_is_left_out_is_told_from_inspect_to_the_report(
    folder: Path, tmp_path: Path, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Dataset.from_folder(folder)
    said = lines(inspect(source))
    assert all(text in said for text in SAID)
    tasks = [Task(in_colours(target), draws=1)]
    plan = Plan(source, design=design.random(8, 40), recipe=Recipe(method="none", network="convnet-4"), tasks=tasks)
    told = [f"photos: {text}" for text in SAID]
    assert remarks(plan.context) == told
    seen = []
    for _ in range(2):  # trained, and with nothing left to do
        with ThreadPoolExecutor(1) as threads:
            store = run(plan, tmp_path / "run", threads, progress="json", runner=Stub(0.6, 0.1, 0, frozenset()))
        assert stored_remarks(store, store.plan()) == told
        seen.append(capsys.readouterr().err)
    assert all(text in seen[0] for text in told)
    events = [
        json.loads(line)["text"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()[: len(told)]
    ]
    assert events == told
    assert report(tmp_path / "run", tmp_path / "run")["notes"][: len(told)] == told
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(text in page for text in ("shown on white: 2", ".ipynb_checkpoints"))
    merge(tmp_path / "other", tmp_path / "run")
    assert stored_remarks(Store(tmp_path / "other"), store.plan()) == told
    (file,) = (tmp_path / "run" / "notes").iterdir()
    file.write_text(file.read_text().replace("white", "black"))
    (entry,) = verify(tmp_path / "run")["damaged"]
    assert (entry["file"], entry["moved"]) == (f"notes/{store.plan().digest}.json", False)
    (damaged,) = stored_remarks(store, store.plan())
    assert "is damaged" in damaged
    assert report(tmp_path / "run", tmp_path / "run")["notes"][0] == damaged


def test_what_source_and_target_have_in_common_is_said_once(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "pictures")
    source, other = Dataset.from_folder(folder), Dataset.from_folder(tmp_path / "pictures")

    def told(train: Dataset) -> list[str]:
        task = SimpleNamespace(target=Target(train), name="task", mode="probe")
        return remarks(SimpleNamespace(source=source, tasks=[task], recipe=SimpleNamespace(method="supervised")))

    assert told(other)[0] == "images with transparent pixels, shown on white: 2 in photos, 2 in pictures"
    assert len(told(other)) == len(SAID)
    found = told(other.take(np.flatnonzero(other.labels != other.classes.index("c5"))))  # without the deep one
    assert f"photos: {SAID[1]}" in found
    assert f"{sources.OTHER}: 1 in photos, 1 in pictures" in found


def test_plan_says_so_before_anything_is_trained(folder: Path, tmp_path: Path, target: Target) -> None:
    in_colours(target).train.save(tmp_path / "target")
    (tmp_path / "plan.toml").write_text(
        f'[source]\nfolder = "{folder.name}"\nbackground = "black"\n[design]\nkind = "random"\nmodels = 4\n'
        '[[tasks]]\ntarget.train.saved = "target"\n'
    )
    assert "shown on black: 2" in remarks(read_plan(tmp_path / "plan.toml").plan.context)[0]


def test_bad_files_that_were_skipped_are_told_of(folder: Path) -> None:
    (folder / "c0" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    notes = Dataset.from_folder(folder, bad="skip").notes()
    assert notes[-1] == "bad files, left out: 1 (c0/cut.jpg: truncated: the image has no end)"


def test_arrays_with_alpha(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for channels in (2, 4):
        images = random.integers(0, 256, (5, 6, 7, channels), np.uint8)
        images[1:3, ..., -1] = 255
        raw = Dataset.from_arrays(images, [0, 1, 0, 1, 0])
        (note,) = raw.notes()
        assert note.startswith(f"images of {channels} channels, each of which networks see (is the last one alpha?")
        shown = Dataset.from_arrays(images, [0, 1, 0, 1, 0], background="grey")
        assert shown.images is not None
        share = images[..., -1:] / 255
        expected = share * images[..., :-1] + (1 - share) * 128
        assert np.abs(shown.images - expected).max() <= 0.5
        assert shown.notes() == ["images with transparent pixels, shown on grey: 3 (0, ...)"]
        again = shown.save(tmp_path / str(channels))
        assert again.notes() == shown.notes()
        assert raw.digest != shown.digest
    for channels in (1, 3):
        with pytest.raises(DataError, match=f"for images of {channels} channels, none of which is alpha"):
            Dataset.from_arrays(np.zeros((2, 3, 3, channels), np.uint8), [0, 1], background="white")


def test_the_commands_say_so(folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["inspect", str(folder)])
    assert all(text in done.stdout for text in SAID)
    done = CliRunner().invoke(
        cli.app, ["pack", str(folder), str(tmp_path / "out"), "--size", "8", "--background", "#102030"]
    )
    assert done.exit_code == 0, done.output
    assert "images with transparent pixels, shown on #102030: 2" in done.stderr
    packed = Dataset.open(tmp_path / "out")
    assert packed.images is not None
    assert packed.images[list(packed.all_keys()).index("c0/clear.png"), 0, 0].tolist() == [16, 32, 48]
    assert packed.notes()[1:] == [text.replace("on white", "on #102030") for text in SAID[1:]]


def test_settings_that_nothing_reads_are_told_and_stand_in_no_digest(source: Dataset, target: Target) -> None:
    task, recipe = Task(target, mode="finetune", shots=2, last=2), Recipe(method="simclr", label_smoothing=0.2)
    plan = Plan(source, design=design.random(8, 12), recipe=recipe, tasks=[task])
    assert remarks(plan.context) == [
        "method 'simclr' does not read label_smoothing: it changes nothing",
        f"task {task.name!r}: mode 'finetune' does not read last: it changes nothing",
    ]
    plain = Plan(
        source,
        design=design.random(8, 12),
        recipe=Recipe(method="simclr"),
        tasks=[Task(target, mode="finetune", shots=2)],
    )
    assert (plain.digest, remarks(plain.context)) == (plan.digest, [])


def test_a_changed_file_of_a_stored_plan_is_told(tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text("1")

    def record(masks: int = 4, **more: Any) -> Record:
        recipe = Command(["fit", "{keep}", "{out}"], depends=["fit.py"], folder=str(tmp_path), **more)
        source, made = Groups(["a", "b"]), design.bernoulli(2, masks)
        return Plan(source, design=made, recipe=recipe, tasks=[Measure("loss")]).record()

    before = record()
    assert changed_files(before, [before, record(6), record(keep="groups")]) == []
    (tmp_path / "fit.py").write_text("2")
    assert changed_files(record(), [before]) == [
        f"fit.py has changed since plan {before.digest[:8]} was run into this store: its rows stay, those of this plan "
        "are computed"
    ]
