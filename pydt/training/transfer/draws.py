"""What a way to transfer is given: a target, its few-shot draws, and the images to judge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pydt.data import Target


@dataclass(frozen=True)
class Draws:
    """A target and what is drawn from it.

    Attributes:
        train: int64 (draws, n), the labelled examples of each draw, in `target.train`.
        judged: int64 (examples,), in `target.judged`.
        task_seed, seed: of the task, and of the row: both seed what is random in the transfer.
    """

    target: Target
    train: np.ndarray
    judged: np.ndarray
    task_seed: int
    seed: int
