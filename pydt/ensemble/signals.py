"""Ctrl-C and SIGTERM during a run."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """A list to which the first Ctrl-C or SIGTERM is added; a second raises at once. Works in the main thread only."""
    seen: list[int] = []

    def handle(number: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit
        seen.append(number)

    ours: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        if ours[signal.SIGINT] in (signal.SIG_IGN, None):
            del ours[signal.SIGINT]
        if ours[signal.SIGTERM] != signal.SIG_DFL:
            del ours[signal.SIGTERM]  # the caller handles it
    for number in ours:
        signal.signal(number, handle)
    try:
        yield seen
    finally:
        for number, previous in ours.items():
            signal.signal(number, previous)
