"""Ensembles of rows that read no labels, from a plan file to equal bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from stub_processes import Driver, alive, kill, started, wait_for
from stub_rows import contents, environment

from pydt import design
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, write_plan
from pydt.store import Store
from pydt.training import Recipe, SimCLR, Task

ROWS = 60
RECIPES = {
    "simclr": Recipe(network="convnet-4", method="simclr", steps=6, batch_size=16, simclr=SimCLR(temperature=0.2)),
    "clip": Recipe(network="convnet-4", method="clip", steps=6, batch_size=16),
}


def started_from(plan: Path, workers: int, marker: str) -> Driver:
    """`pydt run PLAN`; its store is the folder of the plan's name."""
    command = [sys.executable, "-c", "from pydt.cli import main; main()", "run", str(plan)]
    driver = subprocess.Popen([*command, "--workers", str(workers)], env=environment(marker), start_new_session=True)
    started.append(driver)
    return driver


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.slow
@pytest.mark.parametrize("method", list(RECIPES))
def test_rows_of_a_method_are_equal_bytes_however_they_were_run(
    source: Dataset, target: Target, method: str, tmp_path: Path, marker: str
) -> None:
    named = replace(source, captions=[f"the letter {source.classes[label]}" for label in source.labels])
    job = Plan(named, design=design.random(8, ROWS), recipe=RECIPES[method], tasks=[Task(target, shots=2, draws=2)])
    for name in ("whole", "killed"):
        write_plan(job, tmp_path / f"{name}.toml")
    assert started_from(tmp_path / "whole.toml", 1, marker).wait(300) == 0

    folder = tmp_path / "killed"
    driver = started_from(tmp_path / "killed.toml", 2, marker)
    rows = lambda: len(list(folder.glob("rows/*/*.safetensors")))  # noqa: E731
    assert wait_for(lambda: rows() >= 5, 120)
    os.killpg(driver.pid, 9)
    driver.wait()
    for worker in alive(marker):
        kill(worker)
    assert 5 <= rows() < ROWS, "killed in the middle"
    assert started_from(tmp_path / "killed.toml", 2, marker).wait(300) == 0

    found, whole = (contents(place) for place in (folder, tmp_path / "whole"))
    for one in (found, whole):
        del one[f"names/{job.digest}.json"]  # says which of the two files was run
    assert found == whole
    store = Store(folder)
    assert len(store.finished()) == ROWS
    losses = {scalars["source_loss"] for scalars in store.scalars(job.tasks[0])}
    assert len(losses) == ROWS, "every row saw other images"
