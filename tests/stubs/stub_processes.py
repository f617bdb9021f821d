"""Drivers in processes of their own, found again by a marker in their environment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stub_rows import MARKER, environment

Driver = subprocess.Popen[bytes]


started: list[Driver] = []


def start(folder: Path, rows: int, marker: str, seconds: float = 0.05, rule: str = "", **more: Any) -> Driver:
    command = [sys.executable, "-c", "import stub_rows; stub_rows.main()", str(folder), str(rows), "2", str(seconds)]
    driver = subprocess.Popen([*command, rule], env=environment(marker), start_new_session=True, **more)
    started.append(driver)
    return driver


def alive(marker: str) -> list[int]:
    """Processes that carry a marker in their environment and are not zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"{MARKER}={marker}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def wait_for(condition: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return bool(condition())


@pytest.fixture
def marker() -> Iterator[str]:
    name = uuid.uuid4().hex
    yield name
    for pid in alive(name):
        kill(pid)
    while started:
        driver = started.pop()
        driver.kill()
        driver.communicate()


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
