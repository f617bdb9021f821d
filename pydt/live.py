"""What a run shows while it is under way."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from pydt.cells import Outcome


class View:
    """Progress on stderr: a live line on a terminal, a plain line now and then elsewhere, nothing if not wanted."""

    every = 5.0  # seconds between plain lines

    def __init__(self, total: int, before: int, folder: Path, wanted: bool) -> None:
        self.total, self.before, self.folder, self.wanted = total, before, folder, wanted
        self.done, self.failures, self.latest = before, 0, ""
        self.start = self.last = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> View:
        if self.wanted and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = TextColumn("rows"), BarColumn(), TextColumn("{task.description}")
            self.bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
            self.bar.add_task(self.text(), total=self.total, completed=self.done)
            self.bar.start()
        elif self.wanted:
            more = f", {self.before} are stored already" if self.before else ""
            self.say(f"{self.total} rows{more}: {self.folder}")
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.tick()
            self.bar.stop()
        elif self.wanted and self.done == self.total:
            self.say(self.text())

    def text(self) -> str:
        """Rows done, rate, time left, latest accuracy, failures."""
        # From the first row on: before it, the workers were starting.
        seconds, fresh = time.monotonic() - self.start, self.done - self.before - 1
        parts = [f"{self.done}/{self.total} rows"]
        if fresh > 0 and seconds > 0:
            left = round((self.total - self.done) * seconds / fresh)
            parts += [f"{60 * fresh / seconds:.0f} a minute", f"{left // 60}:{left % 60:02d} left"]
        if self.latest:
            parts.append(self.latest)
        if self.failures:
            parts.append(f"{self.failures} failed")
        return ", ".join(parts)

    def row(self, outcome: Outcome | None, failed: bool) -> None:
        """One more row is done; the outcome is that of the plan's first task, if the row lacked it."""
        if self.done == self.before:
            self.start = time.monotonic()
        self.done += 1
        self.failures += failed
        accuracy = None if outcome is None else outcome.scalars.get("report_accuracy")
        if isinstance(accuracy, float):
            self.latest = f"latest accuracy {100 * accuracy:.1f} %"

    def tick(self) -> None:
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.done, description=self.text())
        elif self.wanted and self.done > self.before and time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            self.say(self.text())

    def say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False)
        elif self.wanted:
            print(text, file=sys.stderr, flush=True)
