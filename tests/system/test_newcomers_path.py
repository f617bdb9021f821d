"""The commands of docs/first-study.md, run as written from two folders of images to a kept list; then what goes wrong
for people: a class is removed, the run is killed, the plan is changed, the rate is wrong.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stub_glyphs import glyphs
from stub_processes import kill, wait_for
from typer.testing import CliRunner

from pydt.base import PydtError
from pydt.cli.app import app
from pydt.data import Dataset
from pydt.store import Store

PAGE = Path(__file__).parents[2] / "docs" / "first-study.md"
LETTERS = "ABCEHOSX"
MODELS = 16
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not here"),
]


class Shell:
    """Commands in this process, as ten of them would import torch ten times."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}

    def __call__(self, command: str, code: int = 0) -> str:
        """What a command says, with its error; fails where it ends with another code."""
        words = shlex.split(command, comments=True)
        assert words[0] == "pydt"
        ran = CliRunner().invoke(app, words[1:])
        if ran.exception is not None and not isinstance(ran.exception, (PydtError, SystemExit)):
            raise ran.exception
        text = ran.output + (f"pydt: {ran.exception}" if isinstance(ran.exception, PydtError) else "")
        assert ran.exit_code == code, f"{command}: {text}"
        self.said[command] = text
        return text


def edit(file: Path, *changes: tuple[str, str]) -> None:
    """What people do in an editor; each change must find its line."""
    text = file.read_text(encoding="utf-8")
    for pattern, new in changes:
        text, found = re.subn(pattern, new, text, flags=re.M)
        assert found == 1, (pattern, found)
    file.write_text(text, encoding="utf-8")


def following(text: str) -> list[str]:
    return re.findall(r"^next: (pydt [^\n#]*?)\s*(?:#.*)?$", text, re.M)


def rows(folder: Path) -> dict[str, bytes]:
    """The finished rows of a store, by path."""
    files = [path for path in (folder / "rows").rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path): path.read_bytes() for path in files}


def kill_in_the_middle(command: str, until: Callable[[], bool]) -> str:
    """A command in a process of its own, killed without warning; what it had said."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", "from pydt.cli import main; main()", *shlex.split(command)[1:]]
    with Path("said.txt").open("w") as out:
        process = subprocess.Popen(words, env=environment, stdout=out, stderr=out)
        try:
            assert wait_for(lambda: until() or process.poll() is not None, 180)
            assert process.poll() is None, Path("said.txt").read_text()
        finally:
            kill(process.pid)
            process.wait()
    return Path("said.txt").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("nvidia.dali")
    folder = tmp_path_factory.mktemp("newcomer")
    glyphs(folder / "photos", LETTERS, 16, seed=0)
    glyphs(folder / "my-task", "aceo", 20, seed=1)
    glyphs(folder / "other-task", "hosx", 20, seed=2)
    return folder


def test_the_page_leads_from_folders_to_a_list_and_back_from_what_goes_wrong(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shell, plan, store = Shell(), place / "study.toml", place / "study"
    checks = {
        "init": _init,
        "plan": _plan,
        "run": _run,
        "prove": _prove,
        "keep": _keep,
        "report": _report,
        "status": _status,
        "analyse": _targets,
    }
    page = PAGE.read_text(encoding="utf-8")
    path, trouble = page.split("## When something is wrong")
    done = []
    for snippet, commands in re.findall(r"```python\n(.*?)```|```\n(pydt [^`]*)```", path, re.S):
        if snippet:
            exec(compile(snippet, PAGE.name, "exec"), {})
            assert capsys.readouterr().out.endswith(f"96 of 128 images, classes {_kept(store)}\n")
        for command in filter(None, commands.splitlines()):
            said = shell(command)
            done.append(command.split()[1])
            checks[done[-1]](said, place)
            for line in following(said):
                words = line.split()[1]
                assert words in checks, line
                if words in ("report", "keep"):  # those that train take their time, and come below
                    shell(line)
            if done[-1] == "init":
                edit(
                    place / command.split()[-1] if "--out" in command else plan,
                    (r"^models = \d+", f"models = {MODELS}"),
                )
    assert done[:6] == ["init", "plan", "run", "prove", "keep", "report"]
    assert following(shell.said["pydt init photos my-task"]) == ["pydt plan study.toml"]
    assert following(shell.said["pydt plan study.toml"]) == ["pydt run study.toml"]
    told_next = following(shell.said["pydt run study.toml"])
    assert told_next == ["pydt report study.toml", "pydt prove study.toml"]

    further = re.findall(r"```\n(pydt [^`]*?)\n```", trouble)
    assert further == ["pydt status study.toml", "pydt report study --plan study"]
    _removed_class(shell, place, further)
    _more_models(shell, place)
    _other_share(shell, place)
    _wrong_rate(shell, place)


def _init(said: str, place: Path) -> None:
    assert "photos: 128 images of 8 classes, 16 a class" in said
    assert "grey images, seen as RGB: 8" in said
    assert "images with transparent pixels, shown on white: 120" in said
    assert "broken: none" in said
    assert re.search(r"^written: \w+\.toml, with a reason for each setting$", said, re.M)


def _plan(said: str, place: Path) -> None:
    assert f"{MODELS} rows, 0 of them stored" in said
    assert re.search(rf"^{MODELS} rows with \d+ workers?: \d", said, re.M)
    assert "--quick" in said
    assert not (place / "study").exists()


def _run(said: str, place: Path) -> None:
    assert f"{MODELS} rows are in " in said
    assert re.search(r"my-task, \d-shot probe: accuracy \d\d\.\d % on average", said)
    assert "hardly learnt" not in said


def _prove(said: str, place: Path) -> None:
    assert "Quick proof: it would have seen a difference of" in said
    assert f"Report: {place / 'study' / 'report.html'}" in said
    assert len(following(said)) == 1
    assert following(said)[0].startswith("pydt keep study.toml --drop ")
    results = json.loads((place / "study" / "results.json").read_text())
    assert results["gains"]
    assert results["length"] == "steps"


def _kept(store: Path) -> str:
    return ", ".join(sorted((store / "kept" / "kept-6-of-8-dropped-2-lowest.txt").read_text().split()))


def _keep(said: str, place: Path) -> None:
    assert "Kept: 6 of 8 groups (by class), 96 of 128 source images" in said
    stem = place / "study" / "kept" / "kept-6-of-8-dropped-2-lowest"
    names = stem.with_suffix(".txt").read_text().split()
    ranking = json.loads((place / "study" / "results.json").read_text())["groups"]
    lowest = {one["name"] for one in sorted(ranking, key=lambda one: one["value"])[:2]}
    assert set(names) == set(LETTERS) - lowest
    source = Dataset.from_folder(place / "photos")
    kept = source.keep(stem.with_suffix(".txt"))
    keys = Path(f"{stem}-keys.txt").read_text().splitlines()
    assert sorted(keys) == sorted(f"{name}/{i}.{'jpg' if i == 0 else 'png'}" for name in names for i in range(16))
    assert len(kept) == len(keys) == len(np.load(stem.with_suffix(".npy"))) == 96
    for path in re.findall(r"^(/\S+)$", said, re.M):
        assert Path(path).is_file()


def _report(said: str, place: Path) -> None:
    packed = place / "study" / "study-report.zip"
    assert f"To share: {packed}" in said
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
    assert any(name.endswith("report.html") for name in names)
    assert any(name.endswith("kept-6-of-8-dropped-2-lowest.txt") for name in names)
    html = (place / "study" / "report.html").read_text()
    assert html.count("data:image/") >= 8, "pictures of the classes"
    assert said.splitlines()[0] in _plain(html), "command and page begin with the same sentence"


def _plain(html: str) -> str:
    import html as entities

    return " ".join(entities.unescape(re.sub(r"<[^>]+>", "", html)).split())


def _status(said: str, place: Path) -> None:
    assert f"{MODELS} rows: {MODELS} finished, 0 failed, 0 missing" in said


def _targets(said: str, place: Path) -> None:
    assert "my-task" in said
    assert "other-task" in said
    assert any("targets" in path.name for path in (place / "both").rglob("*.html"))


def _removed_class(shell: Shell, place: Path, further: list[str]) -> None:
    """Its run, killed in the middle, says what changed; with the class back all is as it was."""
    before, store = rows(place / "study"), place / "study"
    answer = json.loads((store / "results.json").read_text())["groups"]
    shutil.move(place / "photos" / "X", place / "removed")
    said = kill_in_the_middle("pydt run study.toml", lambda: len(rows(store)) > len(before))
    assert "also in study: plan study (16 rows, 16 finished): none of them serves study-2" in said
    assert "source photos: 128 -> 112 examples, without X" in said
    assert "resized_crop" not in said, "only what changed"
    assert f"{MODELS} rows: " in shell("pydt status study --plan study-2")
    report = shell(further[1])
    assert json.loads((store / "results.json").read_text())["groups"] == answer
    assert "Report: " in report
    shutil.move(place / "removed", place / "photos" / "X")
    _status(shell(further[0]), place)
    assert before.items() <= rows(store).items()


def _more_models(shell: Shell, place: Path) -> None:
    """Only new rows are trained, also when the run is killed between them."""
    before, plan, store = rows(place / "study"), place / "study.toml", place / "study"
    edit(plan, (r"^models = \d+", f"models = {MODELS + 4}"))
    said = kill_in_the_middle("pydt run study.toml", lambda: len(rows(store)) > len(before))
    assert "16 of them serve study-3" in said
    said = shell("pydt run study.toml")
    assert f"{MODELS + 4} rows are in" in said
    after = rows(store)
    assert before.items() <= after.items()
    record = Store(store).plan("study-3")
    assert len(record.rows) == MODELS + 4
    assert len(Store(store).finished(record)) == MODELS + 4
    assert len(after) - len(before) == 4


def _other_share(shell: Shell, place: Path) -> None:
    """Another plan in the same folder, by its name."""
    edit(
        place / "study.toml",
        (r'^dir = "study".*$', 'dir = "study"\nname = "quarter"'),
        (r"^alpha = 0.5 ", "alpha = 0.25 "),
        (r"^models = \d+", "models = 10"),
    )
    assert "plan quarter" in shell("pydt run study.toml")
    assert "10 rows: 10 finished" in shell("pydt status study --plan quarter")
    assert "Report: " in shell("pydt report study --plan quarter")
    several = shell("pydt report study", code=1)
    assert "name one: --plan NAME" in several
    assert "quarter" in several


def _wrong_rate(shell: Shell, place: Path) -> None:
    """Networks that hardly learn, and such as fail: run and report say so, and what to do."""
    plan = place / "study.toml"
    edit(plan, (r'^dir = "study"\nname = "quarter"', 'dir = "wrong"'), (r"^lr = 0.2 ", "lr = 20.0 "))
    said = shell("pydt run study.toml")
    assert "10 of 10 rows hardly learnt their own source" in said
    assert "try a lower learning rate" in said
    assert following(said) == ["pydt run study.toml", "pydt report study.toml"]
    assert "hardly learnt their own source" in shell("pydt report study.toml")
    assert "hardly learnt their own source" in _plain((place / "wrong" / "report.html").read_text())

    edit(plan, (r'^dir = "wrong"', 'dir = "worse"'), (r"^lr = 20.0 ", "lr = 500.0 "))
    said = shell("pydt run study.toml")
    assert "0 rows are in" in said
    assert "the loss became nan. lower the learning rate" in said
    assert following(said) == ["pydt run study.toml"]
    assert "0 finished rows, 10 failed" in shell("pydt report study.toml", code=1)

    edit(plan, (r'^dir = "worse"', 'dir = "wrong"'), (r"^lr = 500.0 ", "lr = 0.2 "))
    said = kill_in_the_middle("pydt run study.toml", lambda: len(rows(place / "wrong")) > 10)
    assert "recipe.lr 20.0 -> 0.2" in said
    assert "Report: wrong/report.html" in shell("pydt report wrong --plan study")
