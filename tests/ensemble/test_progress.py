"""The view of a run: the same facts on a terminal, as plain lines and as JSON."""

from __future__ import annotations

import io
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from stub_rows import StubTask, effect_row, go, plan, stub_row, studied

from pydt import influences
from pydt.base import ConfigError, TrainError
from pydt.ensemble import RowInput, run
from pydt.ensemble import progress as live
from pydt.ensemble.progress import Progress, interval, panel
from pydt.estimation import mean_output
from pydt.store import Store


class Clock:
    """Time that passes by itself: 20 ms whenever somebody asks."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.02
        return self.now


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that seem to take long, so that everything is drawn."""
    monkeypatch.setattr(Progress, "clock", Clock())
    monkeypatch.setattr(Progress, "share", 100.0)
    monkeypatch.setattr(Progress, "every", 0.5)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(job: Any, folder: Path, runner: Any = stub_row, **more: Any) -> Store:
    with ThreadPoolExecutor(1) as threads:
        return run(job, folder, threads, runner=runner, **more)


def drawn(facts: dict[str, Any], width: int = 100, ascii_only: bool = False) -> str:
    from rich.console import Console

    console = Console(record=True, width=width, file=io.StringIO())
    console.print(panel(facts, "/a/folder", ascii_only))
    return console.export_text()


FACTS: dict[str, Any] = {
    **{"rows": 1200, "of": 3000, "stored_before": 200, "seconds": 3700.0, "rows_per_hour": 973.0, "seconds_left": 6660},
    **{"workers": 2, "failed": 2, "workers_died": 1, "latest_accuracy": 0.7812},
    "failures": [{"row": 17, "reason": "loss is not finite\n\x1b[2J[bold]"}],
    "stop": {"rule": "sign 3 level 0.05", "rows": 1150, "looks": 7, "reason": "1 of 6 groups", "next": 1208},
    "leading": {
        **{"unit": "points of accuracy", "models": 1198},
        "groups": [
            {"name": "a\x1b[31mb", "value": 4.0, "stderr": 1.0, "reach": 1.96 * 1.0},
            {"name": "[red]", "value": 0.5, "stderr": 1.0, "reach": 1.96 * 1.0},
            {"name": "\u6f22" * 40, "value": -8.0, "stderr": 1.0, "reach": 1.96 * 1.0},
        ],
    },
}


def test_panel_shows_all_facts_and_no_name_can_spoil_it() -> None:
    text = drawn(FACTS)
    lines = text.splitlines()
    for wanted in ("1,200 of 3,000 rows", "973 an hour", "at most 1:51:00 left", "2 workers, 1 died and replaced"):
        assert wanted in text
    for wanted in ("latest accuracy 78.1 %", "2 failed", "/a/folder", "rule sign 3 level 0.05: 1 of 6 groups"):
        assert wanted in text
    assert "next look at row 1,208" in text
    assert "row 17 failed: loss is not finite ?[2J[bold]" in text
    assert "a?[31mb" in text
    assert "[red]" in text
    assert "\x1b" not in text
    assert "1,198 models, 95 % intervals" in text
    bars = [line for line in lines if "\u25cf" in line]
    assert len(bars) == 3
    assert bars[0].index("\u2502") < bars[0].index("\u25cf")
    assert bars[2].index("\u25cf") < bars[2].index("\u2502")
    assert "\u253c" in bars[1]  # its interval holds 0
    assert len({line.index(c) for line in bars for c in "\u2502\u253c" if c in line} - {bars[2].index("\u2502")}) <= 2
    for width in (40, 60, 200):
        assert all(len(line) <= width for line in drawn(FACTS, width).splitlines())
    drawn(FACTS, ascii_only=True).replace("\u2501", "").replace("\u6f22", "").replace("\u2026", "").encode("ascii")


def test_panel_at_the_start_and_at_the_end() -> None:
    nothing = {"rows": 0, "of": 10, "seconds": 0.0, "workers": 1, "failed": 0, "workers_died": 0}
    text = drawn(nothing)
    assert "0 of 10 rows" in text
    assert "starting" in text
    assert "1 worker, none failed" in text
    text = drawn({**nothing, "rows": 10, "rows_per_hour": 100.0, "seconds": 61.0})
    assert "1:01 in all" in text
    assert "left" not in text


def test_intervals_are_to_scale() -> None:
    wide, narrow = (interval(1.0, half, 5.0) for half in (3.0, 0.5))
    assert len(wide) == len(narrow)
    assert wide.index("\u25cf") == narrow.index("\u25cf") > len(wide) // 2
    assert wide.count("\u2500") > 4 * narrow.count("\u2500") > 0
    assert interval(0.0, 1.0, 5.0).index("\u25cf") == len(wide) // 2
    assert interval(1e9, 1.0, 5.0)[-1] == "\u25cf"  # never beyond the end
    interval(-1.0, 2.0, 5.0, ascii_only=True).encode("ascii")


@pytest.mark.usefixtures("slow")
def test_json_lines_say_what_happened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = shown(studied(), tmp_path, effect_row, progress="json", stop="sign 2")
    out = capsys.readouterr()
    assert out.out == ""
    lines = [json.loads(line) for line in out.err.splitlines()]
    events = [line["event"] for line in lines]
    assert events[0] == "start"
    assert events[-1] == "end"
    assert set(events) == {"start", "progress", "failed", "message", "end"}
    assert lines[0]["of"] == 200
    assert lines[0]["folder"] == str(tmp_path)
    assert lines[0]["stop"]["next"] == 27
    failed = [line["row"] for line in lines if line["event"] == "failed"]
    assert failed[:2] == [16, 33]
    assert all(line["time"] > 1.6e9 for line in lines)
    progress = [line for line in lines if line["event"] == "progress"]
    assert [line["rows"] for line in progress] == sorted(line["rows"] for line in progress)
    assert all(line["rows_per_hour"] > 0 for line in progress[1:])
    rows = store.stopped()["rows"]
    end = lines[-1]
    assert end["complete"]
    assert end["stop"] == {
        **{name: store.stopped()[name] for name in ("rule", "rows", "looks", "reason")},
        "stopped": True,
    }
    assert rows <= end["rows"] <= rows + 4
    assert end["failures"][0] == {"row": 16, "reason": "bad luck"}

    # the influences at the end are those of all rows that are there, whatever counts
    fit = influences(*everything(store), "ols")
    groups = {group["name"]: group for group in end["leading"]["groups"]}
    assert end["leading"]["models"] == fit.models
    assert groups["class 1"]["value"] == pytest.approx(float(fit.unbiased[1]), rel=1e-5)
    assert groups["class 4"]["stderr"] == pytest.approx(float(fit.stderr[4]), rel=1e-5)
    assert [group["value"] for group in end["leading"]["groups"]] == sorted(fit.unbiased.tolist(), reverse=True)
    for group in end["leading"]["groups"]:  # the interval is that of the fit, not a normal one
        i = store.plan().names.index(group["name"])
        free = float(np.broadcast_to(fit.df, fit.stderr.shape)[i])
        assert group["reach"] == pytest.approx(stats.t.ppf(0.975, free) * float(fit.stderr[i]))
    first = next(line["leading"]["groups"][0]["stderr"] for line in progress if "leading" in line)
    assert first > end["leading"]["groups"][0]["stderr"]  # error bars shrink


def everything(store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Masks and numbers of all rows that are stored, the later ones too."""
    record = store.plan()
    store.note_stop(record, None)
    fresh = Store(store.folder)
    return fresh.masks(), mean_output(fresh, record, None, "correct", "score")


@pytest.mark.usefixtures("slow")
def test_rows_that_were_stored_before_are_in_the_influences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = studied()
    store = shown(job, tmp_path, effect_row, progress=False)
    for keys in store.plan().keys[150:]:
        store.path(keys[0]).unlink()
    store = shown(job, tmp_path, effect_row, progress="json")
    end = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert end["stored_before"] == 150
    assert end["leading"]["models"] == len(store.masks()) == 200 - 200 // 17


def test_estimates_take_a_hundredth_of_the_time_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a clock on which rows take 0.1 s and an estimate 3 s."""
    clock = Clock()
    monkeypatch.setattr(Progress, "clock", staticmethod(lambda: clock.now))
    estimates, real = [], live.leading

    def leading(interim: Any) -> Any:
        estimates.append(clock.now)
        clock.now += 3.0
        return real(interim)

    def row(self: Progress, *given: Any) -> None:
        clock.now += 10.0
        done(self, *given)

    done = Progress.row
    monkeypatch.setattr(live, "leading", leading)
    monkeypatch.setattr(Progress, "row", row)
    shown(studied(), tmp_path, effect_row, progress="json")
    assert 5 <= len(estimates) <= 9  # of 2,000 s
    assert min(np.diff(estimates[:-1])) >= 290, "all but the last one, which is of all rows"


def test_the_last_ranking_is_of_all_rows_whatever_time_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a clock on which no time passes after the first ranking, so that there is none for a second."""
    clock = Clock()
    monkeypatch.setattr(Progress, "clock", staticmethod(lambda: clock.now))
    rows, real = [], live.leading

    def row(self: Progress, *given: Any) -> None:
        clock.now += 10.0 if not rows else 0.0
        done(self, *given)

    def leading(interim: Any) -> Any:
        found = real(interim)
        if found is not None:
            rows.append(found["models"])
        return found

    done = Progress.row
    monkeypatch.setattr(live, "leading", leading)
    monkeypatch.setattr(Progress, "row", row)
    store = shown(studied(), tmp_path, effect_row)
    last = capsys.readouterr().err.splitlines()[-1]
    fit = influences(*everything(store), "ols")
    value, stderr = max(zip(fit.unbiased.tolist(), fit.stderr.tolist(), strict=True))
    assert rows[0] < rows[-1] == fit.models
    assert f"{value:+.2f} +- {stderr:.2f}, least" in last
    assert last.endswith(f"(points of accuracy, {fit.models} models)")


def test_progress_is_live_on_a_terminal_plain_elsewhere_and_silent_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go(plan(4), tmp_path / "silent")
    out = capsys.readouterr()
    assert out.out == out.err == ""

    shown(plan(11, what="fail"), tmp_path / "plain")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3  # the rows are quicker than the next line is due
    assert lines[0].startswith("11 rows")
    assert lines[1] == "row 9 failed: diverged"
    assert lines[2].startswith("11/11 rows")
    assert "1 failed" in lines[2]

    monkeypatch.setattr(Progress, "every", 0.0)
    shown(plan(13), tmp_path / "plain")
    text = capsys.readouterr().err
    assert "13 rows, 11 are stored already" in text
    assert "an hour" in text
    assert "latest accuracy" in text

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    shown(plan(15), tmp_path / "plain")
    assert "15 of 15 rows" in screen.getvalue()


class Kernel:
    """A stand-in for IPython in a notebook: what is displayed, and what it then becomes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kernel: object) -> None:
        self.displayed: list[dict[str, str]] = []
        self.updates: list[dict[str, str]] = []
        ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
        ipython.get_ipython = lambda: SimpleNamespace(kernel=kernel)  # type: ignore[attr-defined]
        display.display = self.display  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", display)

    def display(self, shown: dict[str, str], *, raw: bool, display_id: bool) -> Kernel:
        assert raw
        assert display_id
        self.displayed.append(shown)
        return self

    def update(self, shown: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.updates.append(shown)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("broken", ["display", "update"])
def test_a_display_that_fails_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    kernel = Kernel(monkeypatch, kernel=object())

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the kernel is gone")

    if broken == "update":
        kernel.update = fail  # type: ignore[method-assign]
    else:
        sys.modules["IPython.display"].display = fail  # type: ignore[attr-defined]
    assert len(shown(plan(31), tmp_path).finished()) == 31


@pytest.mark.usefixtures("slow")
def test_a_notebook_has_one_line_that_renews_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = Kernel(monkeypatch, kernel=object())
    shown(plan(31, what="fail"), tmp_path / "a<b>")
    assert len(kernel.displayed) == 1
    assert len(kernel.updates) > 1
    bars = [int(re.findall(r'value="(\d+)" max="31"', one["text/html"])[0]) for one in kernel.updates]
    assert bars == sorted(bars)
    assert bars[-1] == 31
    last = kernel.updates[-1]
    assert "31/31 rows" in last["text/plain"]
    assert "a&lt;b&gt;" in last["text/html"]
    assert "<b>" not in last["text/html"]
    assert capsys.readouterr().err.splitlines() == [f"row {row} failed: diverged" for row in (9, 19, 29)]


def test_ipython_on_a_terminal_is_no_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = Kernel(monkeypatch, kernel=None)
    shown(plan(3), tmp_path)
    assert not kernel.displayed
    assert "3/3 rows" in capsys.readouterr().err


@pytest.mark.usefixtures("slow")
def test_many_failures_are_counted_and_few_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown(plan(200, what="fail"), tmp_path)
    text = capsys.readouterr().err
    assert text.count(" failed: diverged") == 5
    assert "further ones are only counted" in text
    assert text.splitlines()[-1].count("20 failed") == 1


def test_deaths_of_workers_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(plan(11, what="die once", folder=str(tmp_path)), tmp_path / "s", workers=1, runner=stub_row)
    assert "a worker died in row 9 (exit status -9); the row is tried again" in capsys.readouterr().err


def test_other_wishes_for_progress_are_refused(tmp_path: Path) -> None:
    for wrong in ("jsn", "yes", 2, None):
        with pytest.raises(ConfigError, match="progress"):
            shown(plan(1), tmp_path / "s", progress=wrong)
    assert not (tmp_path / "s").exists()


def test_latest_accuracy_is_of_the_report_half_of_the_first_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = replace(plan(1), tasks=(StubTask("letters"), StubTask()))
    store = shown(job, tmp_path)
    share = store.scalars("letters")[0]["report_accuracy"]
    assert f"latest accuracy {100 * share:.1f} %" in capsys.readouterr().err
    store.path(store.plan().keys[0][1]).unlink()  # the other task says nothing about the first
    shown(job, tmp_path)
    assert "latest accuracy" not in capsys.readouterr().err


class Gone(Screen):
    """The terminal of a connection that has broken, or a file on a full disk."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    flush = write  # type: ignore[assignment]


@pytest.mark.parametrize("progress", ["lines", "json", "screen"])
def test_a_run_goes_on_when_nobody_can_hear_of_it(
    progress: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: None
) -> None:
    gone = Gone()
    gone.terminal = progress == "screen"
    monkeypatch.setattr(sys, "stderr", gone)
    store = shown(plan(20, what="fail"), tmp_path, progress="json" if progress == "json" else True)
    assert len(store.masks()) + len(store.failed()) == 20


def test_a_reason_cannot_move_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown(plan(10), tmp_path, runner=_coloured)
    told = capsys.readouterr().err
    assert "row 0 failed: epoch 1: ?[2Jtwo lines" in told
    assert "\x1b" not in told


def _coloured(given: RowInput) -> Any:
    raise TrainError("\x1b[2Jtwo\nlines", "epoch 1")
