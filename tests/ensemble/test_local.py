"""Worker processes: what ends them, what replaces them, what they see."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stub_rows import plan, stub_row

from pydt.base import GPU_SHARE, ConfigError, machine
from pydt.ensemble import RowInput, run
from pydt.ensemble.executors import call
from pydt.ensemble.executors.call import WorkerDied, work
from pydt.ensemble.executors.local import Processes
from pydt.ensemble.executors.pickling import pack
from pydt.store import Outcome, Row

CONTEXT = SimpleNamespace(tasks=())  # of rows that are looked at through no task


def sleeping(given: RowInput) -> dict[str, Any]:
    """Seconds to sleep are the row's seed."""
    row = given.row
    time.sleep(row.seed)
    return {}


def stuck(given: RowInput) -> dict[str, Any]:
    """Native code that keeps the interpreter to itself: no thread of Python runs any more."""
    row = given.row
    call.GRACE = 0.2
    return {"slept": ctypes.PyDLL(None).sleep(60)} if row.seed else {}


def test_an_overlong_row_ends_its_worker_and_says_where_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    with Processes(1, 1, pack((sleeping, CONTEXT))) as pool:
        first = pool.submit(work, None, Row([1], 60), (), limit=0.3)
        second = pool.submit(work, None, Row([1], 0), (), limit=30.0)
        assert second.result()["outcomes"] == {}
        with pytest.raises(WorkerDied, match=r"^ran longer than 0\.3 s$"):
            first.result()
    assert time.monotonic() - start < 30
    assert "in sleeping" in capfd.readouterr().err


def test_also_when_native_code_has_the_interpreter() -> None:
    start = time.monotonic()
    with Processes(1, 1, pack((stuck, CONTEXT))) as pool:
        pool.submit(work, None, Row([1], 0), (), limit=30.0).result()  # sets the grace
        with pytest.raises(WorkerDied, match=r"^ran longer than 0\.3 s$"):
            pool.submit(work, None, Row([1], 1), (), limit=0.3).result()
    assert time.monotonic() - start < 30


def test_a_row_within_its_limit_leaves_no_watchdog_behind() -> None:
    with Processes(1, 1, pack((sleeping, CONTEXT))) as pool:
        one = pool.submit(work, None, Row([1], 0), (), limit=0.4).result()
        two = pool.submit(work, None, Row([1], 1), ()).result()
        assert one["pid"] == two["pid"] != os.getpid()
        assert pool.submit(signal.getitimer, signal.ITIMER_REAL).result() == (0.0, 0.0)


def test_other_deaths_are_not_taken_for_it() -> None:
    with Processes(1, 1, pack((sleeping, CONTEXT))) as pool:
        with pytest.raises(WorkerDied, match="exit status 124"):
            pool.submit(os._exit, 124).result()
        with pytest.raises(WorkerDied, match="exit status -9"):
            pool.submit(signal.raise_signal, signal.SIGKILL).result()
        assert pool.submit(os.getpid).result() != os.getpid()


def test_a_limit_is_refused_where_it_would_end_the_users_own_process() -> None:
    with ThreadPoolExecutor(1) as threads:
        given = threads.submit(work, pack((sleeping, CONTEXT)), Row([1], 0), (), limit=5.0).result()
    assert isinstance(given["error"], ConfigError)
    assert "leave the executor out" in str(given["error"])


def test_the_first_parcel_can_be_asked_for_after_many_others() -> None:
    others = [pack((sleeping, SimpleNamespace(tasks=(), number=i))) for i in range(6)]
    with Processes(1, 1, pack((sleeping, CONTEXT))) as pool:
        given = [pool.submit(work, parcel, Row([1], 0), ()).result() for parcel in (None, *others, None, others[0])]
    assert [one["outcomes"] for one in given] == [{}] * 9


def test_more_workers_than_gpus_share_them_in_turn(tmp_path: Path) -> None:
    with Processes(5, 1, pack((sleeping, CONTEXT)), ("3", "7")) as pool:
        calls = [pool.submit(gpus_of_five, str(tmp_path)) for _ in range(5)]
        assert sorted(call.result() for call in calls) == ["3", "3", "3", "7", "7"]


def gpus_of_five(folder: str) -> str:
    """CUDA_VISIBLE_DEVICES of a worker, once five workers have a call each."""
    Path(folder, str(os.getpid())).touch()
    while len(os.listdir(folder)) < 5:
        time.sleep(0.01)
    return os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.parametrize(
    ("workers", "gpus", "share", "told"),
    [
        (1, ("3",), None, None),
        (2, ("3", "7"), None, None),
        (3, ("3", "7"), None, "0.4500"),
        (4, ("3",), None, "0.2250"),
        (2, (), None, "0.4500"),  # all may use the same GPU
        (1, (), 4, "0.2250"),
        (1, (), 0.5, None),
    ],
)
def test_workers_on_one_gpu_are_told_their_share_of_it(
    workers: int, gpus: tuple[str, ...], share: float | None, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(GPU_SHARE, raising=False)
    with Processes(workers, 1, pack((sleeping, CONTEXT)), gpus, share) as pool:
        assert pool.submit(os.getenv, GPU_SHARE).result() == told


def test_what_python_passes_over_in_its_path_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])  # no string
    with Processes(1, 1, pack((sleeping, CONTEXT))) as pool:
        assert pool.submit(os.getpid).result(60) != os.getpid()


def test_a_worker_that_cannot_be_started_is_an_error_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socketpair", full)
        pool = Processes(1, 1, pack((sleeping, CONTEXT)))
        with pytest.raises(WorkerDied, match="Too many open files"):
            pool.submit(os.getpid).result(60)
    with pool:
        assert pool.submit(os.getpid).result(60) != os.getpid()


def test_a_module_of_the_users_folder_is_not_taken_for_pythons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("json", "signal", "ctypes"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)  # which the tests set for themselves
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # as of the command `pydt`
    with Processes(1, 1, pack((sleeping, CONTEXT))) as pool:
        assert pool.submit(os.getpid).result(60) != os.getpid()


def _tidy(given: RowInput) -> dict[str, Outcome]:
    """Leaves a file, another working folder, and says where both were."""
    (given.scratch / "left").touch()
    with open(given.context.recipe.folder + "/seen", "a") as file:
        file.write(f"{given.scratch}\t{os.getcwd()}\n")
    os.chdir("/")
    return stub_row(given)


def test_rows_begin_in_the_same_folder_and_leave_no_scratch_also_of_killed_processes(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    places = [Path(tempfile.gettempdir()) / f"pydt-row-{machine()}-{pid}-x" for pid in (dead.pid, os.getpid())]
    for place in places:
        place.mkdir()
    run(plan(3, folder=str(tmp_path)), tmp_path / "store", workers=1, runner=_tidy, progress=False)
    seen = [line.split("\t") for line in (tmp_path / "seen").read_text().splitlines()]
    assert [folder for _, folder in seen] == 3 * [os.getcwd()]
    assert not any(Path(scratch).exists() for scratch, _ in seen)
    assert len({scratch for scratch, _ in seen}) == 3
    assert [place.exists() for place in places] == [False, True]
    places[1].rmdir()
