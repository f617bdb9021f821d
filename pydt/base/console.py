"""Lines and progress bars on the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator


def terminal() -> bool:
    """Whether stderr is a terminal; a service may have none, or a closed one."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:
        return False


def tell(text: str) -> None:
    """Print a line on stderr. If that fails nothing happens: it must not end a run of days."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


def open_streams() -> None:
    """Open stdin, stdout and stderr on the null device where they are closed.

    Otherwise the next file that is opened gets their number, and whatever a library prints goes into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free


_BAR_FROM = 5_000  # fewer items are done before a bar is of use


@contextlib.contextmanager
def progress(total: int, what: str, unit: str) -> Iterator[Callable[[int], None]]:
    """A progress bar, if there is a terminal and enough to do. Gives a function: call it with the number newly done."""
    if total < _BAR_FROM or not terminal():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)
