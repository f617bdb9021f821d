"""Where files go: a path means one place for good, an empty one none, and a store that is renamed loses no row."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_rows import environment, go, plan, stub_row
from stub_store import computed

import pydt
from pydt.base import PydtError, StoreError, files
from pydt.data import Dataset
from pydt.ensemble import progress as live
from pydt.ensemble import run
from pydt.reporting import write_pages
from pydt.store import Store, compact, export, merge, status, verify

# ---- one place, whatever the working folder becomes


def test_a_store_stays_where_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    store = go(plan(5), Path("store"))
    opened = Store("store")
    monkeypatch.chdir(tmp_path / "b")
    assert len(opened.masks()) == len(store.masks()) == 5
    assert opened.folder == tmp_path / "a" / "store"
    store.log(event="x")
    assert not list((tmp_path / "b").iterdir())


class Wanders(Executor):
    """Computes rows here and goes to another folder meanwhile."""

    def __init__(self, act: Callable[[int], Any]) -> None:
        self.act, self.number = act, 0

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        self.number += 1
        self.act(self.number)
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **named))
        return future


def test_a_run_whose_process_goes_elsewhere_fills_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path)
    job = Wanders(lambda number: os.chdir(tmp_path / "b") if number == 3 else None)
    store = run(plan(8), "store", job, runner=stub_row, progress=False)
    assert len(store.masks()) == 8
    assert not list((tmp_path / "b").iterdir())
    assert verify(tmp_path / "store")["verified"]


def test_a_data_set_stays_where_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 255, (6, 4, 4, 1), np.uint8)
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", images)
    made = Dataset.from_arrays("images.npy", np.arange(6) % 2, name="x")
    saved = made.save("data")
    opened = Dataset.open("data")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    for one in (made, saved, opened):
        np.testing.assert_array_equal(np.asarray(one.images), images)
        one.check()
    assert opened.folder == str(tmp_path / "data")


# ---- no place at all

MADE: dict[str, Callable[[Any], Any]] = {
    "run": lambda path: go(plan(3), path),
    "create": Store.create,
    "merge": lambda path: merge(path, "store"),
    "compact": compact,
    "export": lambda path: export("store", path),
    "save": lambda path: Dataset.from_arrays(np.zeros((2, 4, 4, 1), np.uint8), [0, 1]).save(path),
    "report": lambda path: pydt.report("store", path),
    "write_plan": lambda path: pydt.write_plan(plan(3), path),
    "pages": lambda path: write_pages([], path, "x", []),
}


@pytest.mark.parametrize("path", ["", Path(), b""], ids=repr)
@pytest.mark.parametrize("what", MADE)
def test_an_empty_path_fills_nothing(what: str, path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed(tmp_path / "store", plan(3))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PydtError, match="is an empty path"):
        MADE[what](path)
    assert os.listdir(tmp_path) == ["store"]


@pytest.mark.parametrize("ask", [Store, status, verify, Dataset.open, pydt.read_plan])
@pytest.mark.parametrize("path", ["", None, 3, "a\0b", ["x"]], ids=repr)
def test_what_is_no_path_is_refused(ask: Callable[[Any], Any], path: Any) -> None:
    with pytest.raises(PydtError, match=r"is an empty path|is no path"):
        ask(path)


def test_the_working_folder_by_its_name_is_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(go(plan(3), ".").masks()) == 3
    assert status(Path("."))["finished"] == 3


# ---- a store that is renamed


@pytest.mark.parametrize("replaced", [False, True])
def test_a_store_that_is_renamed_during_a_run_keeps_all_rows(replaced: bool, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "moved" / "new"
    new.parent.mkdir()

    def act(number: int) -> None:
        if number == 4:
            old.rename(new)
            if replaced:
                computed(old, plan(2, seconds=0))

    with pytest.raises(
        StoreError, match=rf"{old}: was renamed to {new} during the run.*run the same plan with its new"
    ):
        run(plan(9), old, Wanders(act), workers=2, runner=stub_row, progress=False)
    assert old.exists() == replaced
    if replaced:
        assert len(Store(old).masks()) == 2
        assert not (old / ".lock").exists()
    assert not (new / ".lock").exists()
    there = len(Store(new).finished())
    assert there >= 4
    assert len(go(plan(9), new).masks()) == 9
    rows = [json.loads(line) for line in (new / "log.jsonl").read_text().splitlines()]
    assert len([row for row in rows if row["event"] == "row"]) == 9


def test_a_store_that_is_deleted_during_a_run_is_not_made_anew(tmp_path: Path) -> None:
    import shutil

    job = Wanders(lambda number: shutil.rmtree(tmp_path / "store") if number == 3 else None)
    with pytest.raises(StoreError, match=r"store: is not there any more: it was renamed, moved or deleted"):
        run(plan(9), tmp_path / "store", job, workers=1, runner=stub_row, progress=False)
    assert not (tmp_path / "store").exists()


def test_a_folder_that_is_gone_is_not_made_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    files.write_atomic(tmp_path / "a" / "b" / "c", b"x", within=tmp_path / "a")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"x"
    with pytest.raises(StoreError, match="is not there any more"):
        files.write_atomic(tmp_path / "gone" / "b" / "c", b"x", within=tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


# ---- rows count once


def test_rows_that_replace_damaged_ones_count_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = plan(12)
    store = computed(tmp_path, job, range(10))
    for row in (2, 7):
        path = store.path(store.plan().keys[row][0])
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    run(job, tmp_path, Wanders(lambda number: None), workers=1, runner=stub_row, progress="json")
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert told[0]["rows"] == 10
    assert told[-1]["event"] == "end"
    assert (told[-1]["rows"], told[-1]["of"], told[-1]["stored_before"]) == (12, 12, 8)
    assert max(entry.get("rows", 0) for entry in told) == 12
    assert "2 stored rows are damaged and trained again" in [entry.get("text") for entry in told]
    found = status(tmp_path)
    assert (found["rows"], found["finished"], found["missing"]) == (12, 12, 0)


# ---- no terminal


class Closed(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.close()


@pytest.mark.parametrize("stream", [None, Closed()], ids=["none", "closed"])
@pytest.mark.parametrize("progress", [True, "json"])
def test_a_run_needs_no_stderr(
    stream: Any, progress: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert isinstance(live.Progress.of(True), live.Lines)
    store = run(plan(4), tmp_path, Wanders(lambda number: None), runner=stub_row, progress=progress)
    assert len(store.masks()) == 4
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_a_driver_without_standard_streams_writes_whole_rows(closed: str, tmp_path: Path) -> None:
    code = f"import stub_rows as s; s.run(s.plan(4), {str(tmp_path)!r}, workers=2, runner=s.stub_row)"
    shell = ["/bin/sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code]
    done = subprocess.run(shell, check=False, env=environment())
    assert done.returncode == 0
    assert verify(tmp_path)["verified"]
    assert len(Store(tmp_path).masks()) == 4
