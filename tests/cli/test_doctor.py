"""The self-check of an installation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pydt import _core


def pydt(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pydt.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_doctor_is_content_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = pydt("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal to float64 numpy" in done.stdout
    assert not list(tmp_path.iterdir())


def test_doctor_finds_wrong_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydt.cli.doctor import checks

    right = _core.gram
    monkeypatch.setattr(_core, "gram", lambda *arguments: right(*arguments) + 1)
    failed = [check for check in checks() if not check.ok]
    assert [check.name for check in failed] == ["core, statistics"]
    assert "WRONG" in failed[0].detail
