"""What a way to transfer is given: a target, its few-shot draws, and the images to judge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pydt.data import Dataset, Target


@dataclass(frozen=True)
class Draws:
    """A target and what is drawn from it.

    Attributes:
        target: its class names, and `target.train`, of which a way to transfer may read the examples in `train` alone.
        train: int64 (draws, n), the labelled examples of each draw, in `target.train`.
        data, judged: the examples to give outputs for: a data set, and int64 (examples,) in it. Their labels are not a
            way's to read.
        task_seed, seed: of the task, and of the row: both seed what is random in the transfer.
    """

    target: Target
    train: np.ndarray
    data: Dataset
    judged: np.ndarray
    task_seed: int
    seed: int
