"""The lock of a driver: one writer of a folder, whoever dies, forks or has no locks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from pydt.base import StoreError
from pydt.store import Store

HOLD = "import sys; from pydt.store import Store; s = Store.create(sys.argv[1]); lock = s.writing(); lock.__enter__()"


def test_a_second_driver_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    code = f"{HOLD}; print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline() == b"held\n"
    store = Store.create(tmp_path)  # making or opening it is not writing rows
    with (
        pytest.raises(StoreError, match=rf"is being written by process {first.pid} on {platform.node()}\. wait"),
        store.writing(),
    ):
        pass
    first.kill()  # the kernel releases the lock; the file stays
    first.communicate()
    assert (tmp_path / ".lock").exists()
    with store.writing():
        pass
    assert not (tmp_path / ".lock").exists()


def test_the_lock_is_one_per_driver_not_per_process_and_no_child_keeps_it(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    with store.writing():
        with pytest.raises(StoreError, match=f"process {os.getpid()} on"), store.writing():
            pass
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads; this child only sleeps
            child = os.fork()
        if child == 0:  # as a pool of forked processes that outlives its driver
            signal.pause()
            os._exit(0)
    try:
        with store.writing():
            assert json.loads((tmp_path / ".lock").read_bytes()) == {"pid": os.getpid(), "host": platform.node()}
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_lock_on_a_file_that_was_just_removed_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, real, times = Store.create(tmp_path), fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        if not times:
            (tmp_path / ".lock").unlink()  # by its last holder, between open and lock
        times.append(1)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with store.writing():
        assert len(times) == 2
        with pytest.raises(StoreError, match="is being written"), store.writing():
            pass


def test_a_lock_file_that_another_host_removed_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, real, times = Store.create(tmp_path), fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        times.append(1)
        if len(times) == 1:
            raise OSError(errno.ESTALE, "Stale file handle")
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with store.writing():
        assert len(times) == 2
        with pytest.raises(StoreError, match="is being written"), store.writing():
            pass


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    store = Store.create(tmp_path)
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(RuntimeWarning, match="without locks: start no second driver"), store.writing():
        pass
