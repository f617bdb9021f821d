"""The view of a run: the same facts on a terminal, as plain lines and as JSON."""

from __future__ import annotations

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from stub_rows import StubTask, go, plan, stub_row

from pydt.ensemble import run


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_live_on_a_terminal_plain_elsewhere_and_silent_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go(plan(4), tmp_path / "silent")
    out = capsys.readouterr()
    assert out.out == out.err == ""

    with ThreadPoolExecutor(1) as threads:
        run(plan(11, what="fail"), tmp_path / "plain", threads, runner=stub_row)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3  # the rows are quicker than the next line is due
    assert lines[0].startswith("11 rows")
    assert lines[1] == "row 9 failed: diverged"
    assert lines[2].startswith("11/11 rows")
    assert "1 failed" in lines[2]

    monkeypatch.setattr("pydt.live.View.every", 0.0)
    with ThreadPoolExecutor(1) as threads:
        run(plan(13), tmp_path / "plain", threads, runner=stub_row)
    text = capsys.readouterr().err
    assert "13 rows, 11 are stored already" in text
    assert "an hour" in text
    assert "latest accuracy" in text

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with ThreadPoolExecutor(1) as threads:
        run(plan(15), tmp_path / "plain", threads, runner=stub_row)
    assert "15 of 15 rows" in screen.getvalue()


def test_latest_accuracy_is_of_the_report_half_of_the_first_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = replace(plan(1), tasks=(StubTask("letters"), StubTask()))
    with ThreadPoolExecutor(1) as threads:
        store = run(job, tmp_path, threads, runner=stub_row)
    share = store.scalars("letters")[0]["report_accuracy"]
    assert f"latest accuracy {100 * share:.1f} %" in capsys.readouterr().err
    store.path(store.plan().keys[0][1]).unlink()  # the other task says nothing about the first
    with ThreadPoolExecutor(1) as threads:
        run(job, tmp_path, threads, runner=stub_row)
    assert "latest accuracy" not in capsys.readouterr().err
