"""What the rows of a study gave: for each arm and task an array of seeds x draws x images.

    values float32 (seeds, draws, images): 0 or 1, whether the prediction was right; of targets with the metric "auroc"
    values whose weighted mean over the images is the AUROC

Rows that failed are left out and counted: an arm may have fewer seeds than the study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pydt.base import Short
from pydt.store import HALVES, Store, per_draw
from pydt.studies.running import tasks_with_rates
from pydt.studies.study import Arm, Study, StudyTask

AUROC = "auroc"


@dataclass(frozen=True, eq=False, repr=False)
class Cell(Short):
    """One arm on one task.

    Attributes:
        values: of one half of the target, float32 (seeds, draws, images).
        seeds: the numbers of the seeds that count, one for each entry of `values`.
        weights, labels: of the images.
        failed: reasons of the seeds that gave nothing.
        rate: the learning rate of the transfer; None where it has none.
    """

    arm: Arm
    asked: StudyTask
    values: npt.NDArray[np.float32]
    seeds: tuple[int, ...]
    weights: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    failed: tuple[str, ...]
    rate: float | None

    @property
    def mean(self) -> float:
        """The metric, mean over seeds and draws; NaN if no seed counts."""
        if not len(self.values):
            return float("nan")
        return float(self.values.mean((0, 1), dtype=np.float64) @ self.weights)


def cells_of(study: Study, store: Store, half: str = "report") -> Mapping[tuple[str, str], Cell]:
    """The cells of a study by name of arm and task.

    Args:
        half: of the targets: "score" to select by, "report" to judge by.

    Raises:
        StoreError: rows are missing: the study is not finished; or a file is damaged.
    """
    return halves_of(study, store, (half,))[half]


def halves_of(
    study: Study, store: Store, halves: Sequence[str] = tuple(HALVES)
) -> dict[str, Mapping[tuple[str, str], Cell]]:
    """`cells_of` for each of several halves; every stored row is read once."""
    found: dict[str, dict[tuple[str, str], Cell]] = {half: {} for half in halves}
    for arm in study.arms:
        tasks = tasks_with_rates(study, store.folder, arm)
        parts = [study.part(arm, seed, tasks) for seed in range(study.seeds)]
        for position, (asked, task) in enumerate(zip(study.asked(arm), tasks, strict=True)):
            about = store.task(task.digest)
            output = AUROC if task.target.metric == AUROC else "correct"
            values, seeds, failed = [], [], []
            for seed, part in enumerate(parts):
                key = part.record.keys[0][position]
                outcome = store.get(key)
                if outcome.status != "ok":
                    failed.append(outcome.reason or "no reason given")
                    continue
                values.append(per_draw(outcome, about["labels"], output, str(store.path(key))).astype(np.float32))
                seeds.append(seed)
            stacked = np.stack(values) if values else np.empty((0, task.draws, len(about["labels"])), np.float32)
            for half in halves:
                own = about["half"] == HALVES[half]
                images = about["weights"][own].astype(np.float64), about["labels"][own].astype(np.int64)
                of = arm, asked, stacked[..., own], tuple(seeds), *images, tuple(failed), task.rate
                found[half][arm.name, task.name] = Cell(*of)
    return dict(found)
