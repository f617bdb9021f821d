"""What influences by shots mean for a decision, proved by retraining: whether each number of shots needs a list of
groups of its own, or one list serves all.

Rows without the lowest groups by each number of shots' own ranking and by one common ranking (the mean over shots of
value / stderr) are transferred at every number of shots and judged on the report half. The rows of "full", of the
random sets and of each own list are those of `pydt.removal_curve` with the same seed.

What is chosen is judged apart: one half of the report images and of the rows of each arm chooses, the other judges,
both ways round (`pydt.analyses.best_removal`). The one list for all is the common ranking with the number of groups
whose gain is largest in the mean over shots, in plain units of the metric. With K of one half, judged on the other:

    gain_j = mean(common, K) - mean(full),   loss_j = mean(own list of j, its own best K_j) - mean(common, K)

The intervals of these hold for all numbers of shots at once (Bonferroni).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.best_removal import Best
from pydt.analyses.counterfactual import Contrast
from pydt.analyses.retraining import Arm
from pydt.analyses.shots_tasks import ShotsTasks
from pydt.ensemble import Plan, Runner, run_row
from pydt.reporting import Block, Metric
from pydt.store import Store

ALL = "all"
"""The list by the common ranking."""


@dataclass(frozen=True, eq=False)
class ShotsList:
    """One list without one number of its lowest groups, judged at every number of shots.

    Attributes:
        shots: whose ranking it is by, or `ALL`. left_out: names of the groups, the lowest first.
        arms: at each number of shots; None where all its rows failed.
        gains: against "full"; which: against random sets of as many groups. None where an arm has fewer than two rows.
        over_common: of an own list at its own shots: how much better it is than the common list without as many groups;
            None where both leave out the same groups, and of the common list itself.
    """

    shots: int | str
    left_out: tuple[str, ...]
    arms: tuple[Arm | None, ...]
    gains: tuple[Contrast | None, ...]
    which: tuple[Contrast | None, ...]
    over_common: Contrast | None

    @property
    def size(self) -> int:
        return len(self.left_out)


@dataclass(frozen=True, eq=False)
class OneList:
    """The common ranking with one number of groups for all shots, judged by what did not choose it: fractions of the
    metric, or of a `pydt.Measure` numbers as rows store them; positive where it is better.

    Attributes:
        size: the number of lowest groups that is best by all images and rows; 0: leave nothing out.
        chosen: what each half chose for the other; own_chosen: for each number of shots what each half chose of its
            own list.
        gain, gain_low, gain_high: float64 (shots,) over the full source.
        loss, loss_low, loss_high: float64 (shots,) against the own list of each; NaN where it has none.
            The 95 % intervals of gain hold for all shots at once, and so do those of loss.
        serves: True: no loss is surely above 0, and the largest that it may be is smaller than the mean gain.
            False: some number of shots surely loses. None: neither could be told.
    """

    size: int
    chosen: tuple[int, int]
    own_chosen: tuple[tuple[int, int], ...]
    gain: npt.NDArray[np.float64]
    gain_low: npt.NDArray[np.float64]
    gain_high: npt.NDArray[np.float64]
    loss: npt.NDArray[np.float64]
    loss_low: npt.NDArray[np.float64]
    loss_high: npt.NDArray[np.float64]
    serves: bool | None


@dataclass(frozen=True, eq=False)
class KeptLists:
    """What the lists gain at every number of shots.

    Attributes:
        shots: from the fewest to the most. sizes: numbers of lowest groups left out, ascending.
        ranked: by number of shots and `ALL`, all groups, the lowest first.
        lists: the own lists in order of shots, then the common one; of each by size.
        full: the arms of the full source at each number of shots; random: of the random sets, by size.
        best: of each number of shots the best number of its own list, chosen and judged apart; None with fewer than
            four rows in an arm.
        one: the one list for all; None with fewer than four rows in an arm.
        metric: of the tasks. retrained: rows trained for it, of which `failed` gave no outputs.
    """

    shots: tuple[int | str, ...]
    sizes: tuple[int, ...]
    ranked: Mapping[int | str, tuple[str, ...]]
    lists: tuple[ShotsList, ...]
    full: tuple[Arm | None, ...]
    random: Mapping[int, tuple[Arm | None, ...]]
    best: tuple[Best | None, ...]
    one: OneList | None
    metric: Metric
    retrained: int
    failed: int

    def keep(self, shots: int | str = ALL, size: int | None = None) -> tuple[str, ...]:
        """The groups that stay by the list of a number of shots, or by the common one.

        Args:
            size: lowest groups left out, by default the best number.

        Raises:
            ConfigError: no such list, a size out of range, or no best number.
        """
        raise NotImplementedError

    def sentences(self) -> list[str]:
        """The verdict, then what it rests on, for the answer of a page."""
        raise NotImplementedError

    def blocks(self) -> list[Block]:
        """Figures and tables for a page."""
        raise NotImplementedError

    def csv(self) -> dict[str, tuple[Sequence[str], list[tuple[Any, ...]]]]:
        """The files of a page: "lists.csv" (every list, size and number of shots), "best-lists.csv", "one-list.csv"
        and "keep-all.csv" (the groups that stay)."""
        raise NotImplementedError


def kept_lists(
    store: Store | str | os.PathLike[str],
    plan: Plan,
    asked: ShotsTasks,
    values: npt.NDArray[np.float64],
    stderr: npt.NDArray[np.float64],
    *,
    sizes: Sequence[int] | None = None,
    repeats: int = 6,
    steps: str = "same",
    seed: int = 0,
    runner: Runner = run_row,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: bool | str = True,
) -> KeptLists:
    """Retrain without the lowest groups by each number of shots' own ranking and by a common one.

    The number of retrainings, and how long they will take, is printed before they begin. Lists that leave out the same
    groups share their rows, and rows stored before are not trained again.

    Args:
        store: where the plan's rows are, or its folder; the new rows go there, too.
        asked: the tasks (see `pydt.analyses.shots_tasks`). Retrained models are transferred with other few-shot draws.
        values, stderr: (groups, shots) influences on the score half and their errors, which rank the groups. A number
            of shots without finite values has no list of its own and no part in the common ranking.
        sizes: numbers of lowest groups to leave out, by default a quarter and a half of the groups.
        repeats: rows of each arm; best numbers and the verdict need at least four.
        steps: "same" trains all arms for the steps that the full source takes, "epochs" for the plan's epochs. Rows of
            a program of the user's have the length that it has.
        seed: of the retrainings and the random sets.
        runner, executor, workers, progress: see `pydt.run`.

    Raises:
        ConfigError: an argument out of range, a plan that is only a record, or tasks of different metrics.
    """
    raise NotImplementedError
