"""Files: all or nothing, whoever else writes, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pydt.base import StoreError, write_atomic
from pydt.store import Store

NAME = "ab" + 30 * "0"


def test_only_abandoned_temporary_files_are_removed(tmp_path: Path) -> None:
    Store.create(tmp_path)
    (tmp_path / "rows" / "ab").mkdir()
    (tmp_path / "data" / "digest").mkdir(parents=True)
    code = "import os; from pydt.base import machine; print(f'{machine()}-{os.getpid()}')"
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here, pid = dead.split("-")
    gone = [
        tmp_path / "rows" / "ab" / f".{NAME}.safetensors.{dead}-01234567.tmp",
        tmp_path / "data" / "digest" / f".images.npy.{dead}-01234567.tmp",
        tmp_path / f".store.json.{dead}-01234567.tmp",
        tmp_path / "rows" / f".old.{here}-{os.getpid()}-01234567.tmp",
        tmp_path / "rows" / ".old.tmp",
    ]
    kept = [
        tmp_path / "rows" / "ab" / f".{NAME}.safetensors.{here}-{os.getppid()}-01234567.tmp",
        tmp_path / "rows" / "ab" / f".other.safetensors.{here}-{os.getpid()}-01234567.tmp",  # of another thread
        tmp_path / "rows" / "ab" / f".{NAME}.safetensors.00000000-{pid}-01234567.tmp",  # of another host
        tmp_path / "rows" / "ab" / f".{NAME}.safetensors.{pid}.tmp",
    ]
    for path in [*gone, *kept]:
        path.write_text("half a")
    for path in gone[-2:]:
        os.utime(path, (0, time.time() - 25 * 3600))
    Store.create(tmp_path)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)


def test_threads_may_write_one_path_at_once(tmp_path: Path) -> None:
    texts = [bytes([i]) * 5000 for i in range(64)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda text: write_atomic(tmp_path / "new" / "file", text), texts))
    assert (tmp_path / "new" / "file").read_bytes() in texts
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_new_folders_are_synced_into_their_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            synced.append(found.st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomic(tmp_path / "rows" / "ab" / "cell", b"x")
    folders = [tmp_path, tmp_path / "rows", tmp_path / "rows" / "ab"]
    assert synced == [folder.stat().st_ino for folder in folders]
    synced.clear()
    write_atomic(tmp_path / "rows" / "ab" / "cell", b"y")
    assert synced == [folders[-1].stat().st_ino]  # nothing new: no more than needed


@pytest.mark.parametrize("fault", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt(), MemoryError()])
def test_a_failed_write_leaves_no_temporary_file(
    fault: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise fault

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(StoreError if isinstance(fault, OSError) else type(fault)):
                write_atomic(tmp_path / "file", b"x")
        assert list(tmp_path.iterdir()) == []


def test_interrupted_calls_and_short_writes_are_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, random = ("open", "write", "fsync", "replace", "mkdir"), np.random.default_rng(0)
    reals = {name: getattr(os, name) for name in names}
    for name in names:

        def now_and_then(*arguments: Any, _name: str = name) -> Any:
            if random.random() < 0.5:
                raise InterruptedError(errno.EINTR, "Interrupted system call")
            if _name == "write":
                arguments = (arguments[0], arguments[1][: random.integers(1, 9)])
            return reals[_name](*arguments)

        monkeypatch.setattr(os, name, now_and_then)
    write_atomic(tmp_path / "a" / "b" / "file", bytes(range(100)))
    monkeypatch.undo()
    assert (tmp_path / "a" / "b" / "file").read_bytes() == bytes(range(100))
