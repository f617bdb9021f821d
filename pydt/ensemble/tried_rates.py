"""Learning rates that were tried, in Python and notebooks: what `pydt.choose_rates` and its page have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pydt.base import Result, records
from pydt.reporting import count, curve_plot

_CURVES = 6  # tasks of a plot


@dataclass(frozen=True)
class TriedRate:
    """One rate of one task; numbers are None where a row failed at it.

    Attributes:
        task: its name. rate: the learning rate.
        loss, stderr: mean cross-entropy of validation images (in nats) and its standard error over rows and draws; None
            for the error of one row with one draw.
        accuracy, accuracy_stderr: share of the validation images that are right.
        behind, behind_stderr: loss minus that of the chosen rate in the same rows, draws and images.
        rows, draws, images: rows that count, draws of each, labelled validation images. failed: rows that failed here.
        chosen: whether it has the least loss.
    """

    task: str
    rate: float
    loss: float | None
    stderr: float | None
    accuracy: float | None
    accuracy_stderr: float | None
    behind: float | None
    behind_stderr: float | None
    rows: int
    draws: int
    images: int
    failed: int
    chosen: bool


class RatesResult(Result):
    """A dataclass that has `tried`, the rates of some tasks: its frame has a line for each task and rate."""

    @property
    def tried(self) -> Sequence[TriedRate]:
        """One entry for each task and rate, rates from the lowest to the highest."""
        raise NotImplementedError

    def _columns(self) -> dict[str, Any]:
        return records(TriedRate, self.tried)

    def __repr__(self) -> str:
        chosen = [one for one in self.tried if one.chosen]
        told = [f"{one.task}: {one.rate:g}" for one in chosen[:3]] + (["..."] if len(chosen) > 3 else [])
        return f"{type(self).__name__}({count(len(chosen), 'task')}; {', '.join(told)})"

    def plot(self, ax: Any = None) -> Any:
        """Draw the loss on validation images by rate, with one standard error, of six tasks at most.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        found = {(one.task, one.rate): one for one in self.tried}
        tasks, rates = list(dict.fromkeys(task for task, _ in found))[:_CURVES], sorted({rate for _, rate in found})
        loss, stderr = (
            np.array([[getattr(found.get((task, rate)), part, None) for rate in rates] for task in tasks], np.float64)
            for part in ("loss", "stderr")
        )
        x, labels = [f"{rate:g}" for rate in rates], ("learning rate", "cross-entropy, one standard error")
        return curve_plot(tasks, x, loss, np.stack([stderr, stderr], 1), labels, "Loss on validation images", ax)
