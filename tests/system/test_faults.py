"""Full disks, I/O errors, short writes and kills at every system call that writes a store: all or nothing, and the same
command ends with the same bytes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stub_faults import JOBS, calls, left, prepare, readable, values

from pydt.base import PydtError

KINDS = (errno.ENOSPC, errno.EIO, errno.EDQUOT)
QUICK = [pytest.param(job, marks=pytest.mark.slow if job == "train" else ()) for job in JOBS]


def undisturbed(folder: Path, job: str) -> tuple[int, Any, Any]:
    """Number of calls, rows and bytes of a job that runs undisturbed."""
    prepare(folder, job)
    with calls(lambda number, name: None) as count:
        JOBS[job](folder)
    return count[0], values(folder), left(folder)


@pytest.mark.parametrize("job", QUICK)
def test_an_error_of_the_disk_at_any_call_is_all_or_nothing(job: str, tmp_path: Path) -> None:
    total, expected, whole = undisturbed(tmp_path / "whole", job)
    refused = 0
    for number in range(1, total + 1):
        code = KINDS[number % 3]

        def fail(i: int, name: str, number: int = number, code: int = code) -> bool:
            # an I/O error strikes once, a full disk stays full: but files are still removed and folders read
            if i == number or (i > number and code != errno.EIO and name in ("write", "mkdir", "replace")):
                raise OSError(code, os.strerror(code))
            return False

        prepare(tmp_path / "a", job)
        with calls(fail):
            try:
                JOBS[job](tmp_path / "a")
            except PydtError as error:
                told = error
                refused += 1
            else:
                told = None
        if told is not None:
            assert os.strerror(code) in str(told)
            assert told.mend
            assert str(tmp_path) in str(told.where)
        readable(tmp_path / "a", job, expected)
        with calls(lambda number, name: None):
            JOBS[job](tmp_path / "a")
        # what this process could not remove waits for its end
        found = {name: data for name, data in left(tmp_path / "a").items() if ".folder." not in name}
        assert found == whole, f"call {number}"
    assert refused > total / 3


@pytest.mark.parametrize("job", QUICK)
def test_short_writes_and_interrupted_calls_change_nothing(job: str, tmp_path: Path) -> None:
    whole = undisturbed(tmp_path / "whole", job)[2]
    seen: set[int] = set()

    def disturb(number: int, name: str) -> bool:
        if name in ("write", "fsync", "replace", "mkdir") and len(seen) < number // 2:
            seen.add(number)
            raise InterruptedError(errno.EINTR, "Interrupted system call")
        return True

    prepare(tmp_path / "a", job)
    with calls(disturb):
        JOBS[job](tmp_path / "a")
    assert left(tmp_path / "a") == whole


@pytest.mark.parametrize("job", [*QUICK[2:], *(pytest.param(job, marks=pytest.mark.slow) for job in ("rows", "train"))])
def test_kills_at_every_call(job: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import stub_faults; stub_faults.main()", str(tmp_path), job]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "stubs")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 5
