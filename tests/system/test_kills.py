"""Kills: whoever dies and whenever, nothing is lost, nothing is half, nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stub_processes import Driver, alive, kill, start, wait_for
from stub_rows import contents, effect_row, go, plan, studied

from pydt.base import StoreError
from pydt.ensemble import run
from pydt.store import Store

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def stored(folder: Path) -> int:
    return len(list(folder.glob("rows/*/*.safetensors")))


@linux
@pytest.mark.parametrize(("kills", "rows"), [(8, 100), pytest.param(50, 600, marks=pytest.mark.slow)])
def test_kills_of_drivers_and_workers_then_the_same_command_gives_the_same_store(
    kills: int, rows: int, tmp_path: Path, marker: str
) -> None:
    dice = random.Random(kills)
    go(plan(rows), tmp_path / "whole")
    folder, grown = tmp_path / "killed", set()
    driver: Driver | None = None
    for number in range(kills):
        if driver is None or driver.poll() is not None:
            driver = start(folder, rows, marker)
        before = stored(folder)
        if number % 2:  # at any moment, the start-up included
            time.sleep(dice.random() * 0.8)
        else:  # in the middle of the work, however slow the machine
            wait_for(lambda before=before, driver=driver: stored(folder) > before or driver.poll() is not None, 60)
            time.sleep(dice.random() * 0.25)
        what = ("workers", "driver", "both", "one worker, then the driver")[number % 4]
        if what == "workers":  # the driver replaces them
            for worker in set(alive(marker)) - {driver.pid}:
                kill(worker)
        elif what == "both":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(driver.pid, signal.SIGKILL)
        else:
            if what != "driver":
                for worker in [pid for pid in alive(marker) if pid != driver.pid][:1]:
                    kill(worker)
                time.sleep(dice.random() * 0.1)
            kill(driver.pid)
        if what != "workers":
            driver.wait()
            assert wait_for(lambda: not alive(marker), 2.0), f"left after kill {number}: {alive(marker)}"
        grown.add(stored(folder))
    assert len(grown) > kills / 5
    assert driver is not None
    assert driver.wait(60) is not None
    go(plan(rows), folder)
    assert contents(folder) == contents(tmp_path / "whole")


@linux
def test_a_run_that_stops_when_sure_stops_at_the_same_row_after_kills(tmp_path: Path, marker: str) -> None:
    with ThreadPoolExecutor(1) as threads:
        whole = run(studied(), tmp_path / "whole", threads, runner=effect_row, progress=False, stop="sign 2")
    folder = tmp_path / "killed"
    for number in range(3):
        driver = start(folder, 0, marker, seconds=0.01, rule="sign 2")
        wait_for(lambda goal=20 * (number + 1), driver=driver: stored(folder) > goal or driver.poll() is not None, 20)
        kill(driver.pid)
        driver.wait()
    again = start(folder, 0, marker, rule="sign 2")
    assert again.wait(60) == 0
    assert contents(folder / "stops") == contents(tmp_path / "whole" / "stops")
    killed = Store(folder)
    assert killed.finished().tolist() == whole.finished().tolist()
    assert killed.outputs("digits").tobytes() == whole.outputs("digits").tobytes()


@linux
def test_workers_in_the_middle_of_a_long_row_die_with_their_driver(tmp_path: Path, marker: str) -> None:
    driver = start(tmp_path, 4, marker, seconds=300)
    assert wait_for(lambda: len(alive(marker)) == 3, 30)
    time.sleep(1.0)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert wait_for(lambda: not alive(marker), 2.0)


@linux
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_stops_says_so_and_the_same_command_continues(times: int, tmp_path: Path, marker: str) -> None:
    driver = start(tmp_path, 60, marker, stderr=subprocess.PIPE)
    assert wait_for(lambda: stored(tmp_path) > 3, 30)
    for _ in range(times):
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the driver and to its workers
    text = driver.communicate(timeout=30)[1].decode()
    assert driver.returncode == -signal.SIGINT  # what a shell shows as 130
    assert wait_for(lambda: not alive(marker), 2.0)
    kept = stored(tmp_path)
    assert f"stopped: {kept} of 60 rows are stored in {tmp_path}; the same command continues" in text
    assert text.count("Traceback") == 1  # the driver's own
    assert 3 < kept < 60
    assert len(go(plan(60), tmp_path).masks()) == 60


@linux
@pytest.mark.parametrize("whom", ["driver", "everybody"])
def test_sigterm_lets_rows_under_way_finish_and_the_same_command_continues(
    whom: str, tmp_path: Path, marker: str
) -> None:
    driver = start(tmp_path, 12, marker, seconds=0.5)
    assert wait_for(lambda: stored(tmp_path) >= 2, 30)
    before = stored(tmp_path)
    (os.kill if whom == "driver" else os.killpg)(driver.pid, signal.SIGTERM)  # Slurm and systemd ask everybody
    assert driver.wait(30) == 128 + signal.SIGTERM
    assert wait_for(lambda: not alive(marker), 2.0)
    assert before + 1 <= stored(tmp_path) <= before + 4  # those under way
    assert len(go(plan(12), tmp_path).masks()) == 12


@linux
def test_a_second_sigterm_ends_at_once(tmp_path: Path, marker: str) -> None:
    driver = start(tmp_path, 12, marker, seconds=300)
    assert wait_for(lambda: len(alive(marker)) == 3, 30)
    time.sleep(1.0)
    for _ in range(2):
        os.kill(driver.pid, signal.SIGTERM)
        time.sleep(0.5)
    assert driver.wait(5) == 128 + signal.SIGTERM
    assert wait_for(lambda: not alive(marker), 2.0)


@linux
def test_second_driver_on_a_store_is_refused_and_does_no_harm(tmp_path: Path, marker: str) -> None:
    go(plan(40), tmp_path / "whole")
    folder = tmp_path / "both"
    first = start(folder, 40, marker)
    assert wait_for(lambda: stored(folder) > 3, 30)
    os.kill(first.pid, signal.SIGSTOP)  # it shall not be done before the second one has started
    with pytest.raises(StoreError, match=rf"being written by process {first.pid} on"):
        go(plan(40), folder)
    second = start(folder, 40, marker, stderr=subprocess.PIPE)
    assert f"process {first.pid} on".encode() in second.communicate(timeout=30)[1]
    assert second.returncode == 1
    assert len(Store(folder).masks()) > 3  # readers need not ask
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait(60) == 0
    assert contents(folder) == contents(tmp_path / "whole")


@linux
def test_the_lock_of_a_killed_driver_is_no_obstacle(tmp_path: Path, marker: str) -> None:
    first = start(tmp_path, 40, marker)
    assert wait_for(lambda: stored(tmp_path) > 3, 30)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert len(go(plan(40), tmp_path).masks()) == 40
