"""Whether one list of groups to leave out serves all numbers of shots, by cross-fitting as in
`pydt.analyses.best_removal`: one half of the report images and of the rows of each arm chooses, the other judges, both
ways round.

The one list is the common ranking with the number K of groups whose gain is largest in the mean over shots, in plain
units of the metric. With K and each own list's best number K_j of one half, judged on the other:

    gain_j = mean(common, K) - mean(full),   loss_j = mean(own list of j, K_j) - mean(common, K)

The intervals of each hold for all numbers of shots at once (Bonferroni). A half has few rows of each arm, so the spread
between retrainings is pooled over all lists without as many groups (in a sample, one-shot rows without half of the
groups varied twice as much as those of the full source, and those of several lists alike). Where both lists leave out
the same groups they are the same rows, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pydt.analyses.best_removal import FEWEST, halves_of, joined, part_of, spreads_of, weights_of
from pydt.analyses.counterfactual import contrast
from pydt.analyses.retraining import Arm
from pydt.base import Short


@dataclass(frozen=True, eq=False, repr=False)
class OneList(Short):
    """The common ranking with one number of groups for all shots, judged by what did not choose it: fractions of the
    metric, or of a `pydt.Measure` numbers as rows store them; positive where it is better.

    Attributes:
        size: the number of lowest groups that is best by all images and rows; 0: leave nothing out.
        chosen: what each half chose for the other; own_chosen: for each number of shots what each half chose of its
            own list.
        gain, gain_low, gain_high: float64 (shots,) over the full source.
        loss, loss_low, loss_high: float64 (shots,) against the own list of each; NaN where it has none.
            The 95 % intervals of gain hold for all shots at once, and so do those of loss.
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

    @property
    def most(self) -> float:
        """The largest loss that it may be, over all shots (95 %); NaN where it is not known."""
        return float(np.max([0.0, *self.loss_high]))

    @property
    def serves(self) -> bool | None:
        """True: no loss is surely above 0, and `most` is less than the mean gain. False: some number of shots surely
        loses. None: neither could be told."""
        if (self.loss_low > 0).any():
            return False
        return True if self.most < self.gain.mean() else None


def one_list(
    common: Sequence[Sequence[Arm]],
    own: Sequence[Sequence[Arm]],
    alike: Sequence[Sequence[Sequence[Arm]]],
    examples: Sequence[Mapping[str, np.ndarray]],
) -> OneList | None:
    """Choose and judge; None with fewer than four rows in an arm, or where one of the two halves of the examples has
    none of any weight.

    Args:
        common, own: at each number of shots the full source and the list without more and more groups; an own list may
            be missing ().
        alike: at each number of shots, for each number of groups left out, the arms whose rows vary alike: the spread
            between retrainings is pooled over them.
        examples: `weights` and `labels` of the report half at each.
    """
    sides = [halves_of(one["labels"]) for one in examples]
    halved = all(one["weights"][s].any() and one["weights"][~s].any() for one, s in zip(examples, sides, strict=True))
    if not halved or min(len(arm.rows) for arms in (*common, *own) for arm in arms) < FEWEST:
        return None
    shots = len(common)
    numbers = [arm.dropped for arm in common[0]]

    def part(arm: Arm, j: int, half: int) -> Arm:
        return part_of(arm, half, sides[j] == bool(half), examples[j]["weights"], examples[j]["labels"])

    def judged(arms: tuple[Arm, Arm], ks: tuple[int, int], j: int, half: int) -> tuple[float, float]:
        """How much better an arm is than another one in one half, and half the interval; ks: places of their sizes."""
        if arms[0].rows == arms[1].rows:
            return 0.0, 0.0
        mine, weights, labels = sides[j] == bool(half), examples[j]["weights"], examples[j]["labels"]
        spreads = spreads_of((alike[j][ks[0]], alike[j][ks[1]]), mine, weights, labels)
        one, other = (part(arm, j, half) for arm in arms)
        share = weights_of(weights, labels, mine)
        found = contrast(one, other, share, labels[mine], tests=shots, spreads=spreads)
        return found.difference, (found.high - found.low) / 2

    gains, losses = np.zeros((2, 2, shots)), np.full((2, 2, shots), np.nan)  # value and reach, half, shots
    chosen, own_chosen = [0, 0], [[0, 0] for _ in range(shots)]
    for half in range(2):
        best = int(np.argmax(np.mean([[part(arm, j, half).goodness for arm in common[j]] for j in range(shots)], 0)))
        chosen[half] = numbers[best]
        for j, arms in enumerate(own):
            gains[:, half, j] = judged((common[j][best], common[j][0]), (best, 0), j, 1 - half)
            if arms:
                k = int(np.argmax([part(arm, j, half).goodness for arm in arms]))
                own_chosen[j][half] = numbers[k]
                losses[:, half, j] = judged((arms[k], common[j][best]), (k, best), j, 1 - half)
    everywhere = np.mean([[arm.goodness for arm in arms] for arms in common], 0)
    (gain, reach), (loss, loss_reach) = (
        (values.mean(0), np.array([joined(*both) for both in reaches.T])) for values, reaches in (gains, losses)
    )
    return OneList(
        numbers[int(np.argmax(everywhere))],
        (chosen[0], chosen[1]),
        tuple((one, other) for one, other in own_chosen),
        gain,
        gain - reach,
        gain + reach,
        loss,
        loss - loss_reach,
        loss + loss_reach,
    )
