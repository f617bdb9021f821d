"""What is said on the terminal: lines, and a bar while files are read."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator


def terminal() -> bool:
    """Whether there is a terminal to tell something: a service may have no stderr, or a closed one."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:
        return False


def tell(text: str) -> None:
    """Print a line on stderr, if it is there; nobody who cannot hear it is a reason to end a run of days."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


def open_streams() -> None:
    """Open what is closed of stdin, stdout and stderr on the null device.

    Else the next file that is opened gets that number, and what some library prints would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free


# Fewer files than this are read before a progress bar could be looked at.
_BAR_FROM = 5_000


@contextlib.contextmanager
def progress(total: int, what: str, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal, if there is one and enough to do; call what it gives with the number done since."""
    if total < _BAR_FROM or not terminal():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)
