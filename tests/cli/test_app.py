"""The command line as a process: exit codes, messages, Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from pydt import __version__, _core
from pydt.cli.app import app


def pydt(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pydt.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_version_tells_instruction_set_and_cuda() -> None:
    done = pydt("--version")
    assert done.returncode == 0
    assert f"pydt {__version__}" in done.stdout
    assert _core.isa() in done.stdout
    assert "CUDA:" in done.stdout


def test_exit_codes(tmp_path: Path) -> None:
    missing = pydt("report", str(tmp_path / "nothing"))
    assert missing.returncode == 1
    assert "holds no store" in missing.stderr
    assert "Traceback" not in missing.stderr
    for name, told in (
        ("no-plan.txt", "is a file, not the folder of a store. give the folder"),
        ("a.toml", "source: is"),
    ):
        (tmp_path / name).write_text("seed = 1")
        assert f"{name}: {told}" in pydt("report", str(tmp_path / name)).stderr
    assert pydt("quikstart").returncode == 2
    assert pydt("quickstart", "--models", "3").returncode == 2


def test_help_holds_nothing_that_is_taken_for_markup() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        texts = [command.callback.__doc__ or ""]
        for parameter in get_type_hints(command.callback, include_extras=True).values():
            texts += [one.help or "" for one in getattr(parameter, "__metadata__", ())]
        assert not any("[" in text for text in texts), command.callback.__name__
    assert "table `rates`" in " ".join(pydt("run", "--help").stdout.replace("\u2502", "").split())


def test_the_help_says_what_the_number_of_models_changes() -> None:
    words = pydt("analyse", "--help").stdout.replace("\u2502", " ").split()
    assert "What the analyses retrain stays as many." in " ".join(words)


def test_a_bad_instruction_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYDT_ISA", "sse9")
    done = pydt("doctor", cwd=tmp_path)
    assert done.returncode == 1
    assert "FAIL" in done.stdout
    assert "sse9" in done.stdout


def test_ctrl_c_says_what_is_stored_and_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from pydt.cli import main; main()", "quickstart", "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("600 rows"):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "of 600 rows are stored" in errors
    assert "the same command continues" in errors
    assert "Traceback" not in errors
