"""Kills of runs that keep their networks: no entry is half, and the same command ends with the same store and bank."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from stub_keep import plan
from stub_processes import alive, kill, started, wait_for
from stub_rows import environment
from stub_store import contents

from pydt.ensemble import run
from pydt.store import Bank, Store, verify

ROWS = 8


def driver(folder: Path, workers: int, marker: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "import stub_keep; stub_keep.main()", str(folder), str(ROWS), str(workers)]
    process = subprocess.Popen(command, env=environment(marker), start_new_session=True)
    started.append(process)
    return process


def told(folder: Path) -> dict[str, bytes]:
    """All files but those of data, whose index says when it was written."""
    return {name: data for name, data in contents(folder).items() if not name.startswith("data/")}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_kills_then_the_same_command_gives_the_same_rows_and_the_same_bank(
    workers: int, tmp_path: Path, marker: str
) -> None:
    run(plan(ROWS), tmp_path / "whole", workers=1, progress=False, keep="weights")
    folder = tmp_path / "killed"
    for goal in (1, 3, 6):
        process = driver(folder, workers, marker)
        assert wait_for(lambda goal=goal: len(list(folder.glob("bank/*/*.safetensors"))) >= goal, 60)
        kill(process.pid)
        process.wait()
        assert wait_for(lambda: not alive(marker), 5.0)
        store = Store(folder)
        bank = Bank(store)
        assert all(bank.read(key).kind == "weights" for key in bank.sizes())
    assert len(bank.sizes()) < ROWS
    assert driver(folder, workers, marker).wait(120) == 0
    assert told(folder) == told(tmp_path / "whole")
    assert verify(folder)["verified"]
