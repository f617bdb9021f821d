"""One list for all shots: choice and errors against loops, intervals that hold at once, verdicts that can be wrong."""

from __future__ import annotations

import numpy as np
import pytest

from pydt.analyses.best_removal import halves_of
from pydt.analyses.one_list import OneList, one_list
from pydt.analyses.retraining import Arm
from pydt.store import Row

SIZES = (0, 3, 5)


def arm(dropped: int, correct: np.ndarray, weights: np.ndarray, of: int = 0) -> Arm:
    """Rows of one mask; `of` tells lists without as many groups apart."""
    mask = np.ones(40, bool)
    mask[10 * of : 10 * of + dropped] = False
    rows = tuple(Row(mask, i) for i in range(len(correct)))
    return Arm("drop bottom", dropped, rows, ((),) * len(rows), correct @ weights, correct)


def brute_force(
    common: list[list[np.ndarray]], own: list[list[np.ndarray]], weights: np.ndarray, labels: np.ndarray
) -> tuple[list[int], list[list[int]], np.ndarray, np.ndarray]:
    """Chosen positions, gains and losses, by loops; lists are [shots][size] of what rows got right."""
    second = halves_of(labels)

    def mean(correct: np.ndarray, half: int) -> float:
        total = 0.0
        for label in np.unique(labels):
            mine = [i for i in range(len(labels)) if labels[i] == label and second[i] == bool(half)]
            share = weights[labels == label].sum() / weights[mine].sum()
            total += share * np.mean([weights[mine] @ correct[r, mine] for r in range(half, len(correct), 2)])
        return float(total)

    chosen, chosen_own, gains, losses = [], [], [], []
    for half in (0, 1):
        k = max(range(3), key=lambda s: sum(mean(arms[s], half) for arms in common))
        ks = [max(range(3), key=lambda s: mean(arms[s], half)) for arms in own]
        chosen.append(k)
        chosen_own.append(ks)
        gains.append([mean(arms[k], 1 - half) - mean(arms[0], 1 - half) for arms in common])
        losses.append(
            [mean(mine[s], 1 - half) - mean(arms[k], 1 - half) for mine, s, arms in zip(own, ks, common, strict=True)]
        )
    return chosen, chosen_own, np.mean(gains, 0), np.mean(losses, 0)


def test_choices_gains_and_losses_are_those_of_loops() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [8, 20, 30])
    weights = np.repeat([1 / 24, 1 / 60, 1 / 90], [8, 20, 30])
    examples = [{"weights": weights, "labels": labels}] * 3
    chosen = set()
    for _ in range(15):
        full = [random.random((6, 58)) for _ in range(3)]
        lists = [[[one, *(random.random((6, 58)) for _ in SIZES[1:])] for one in full] for _ in range(2)]
        common, own = (
            [[arm(k, c, weights, of * (k > 0)) for k, c in zip(SIZES, arms, strict=True)] for arms in lists[of]]
            for of in range(2)
        )
        found = one_list(common, own, pool(common, own), examples)
        assert found is not None
        ks, ks_own, gain, loss = brute_force(*lists, weights, labels)
        assert list(found.chosen) == [SIZES[k] for k in ks]
        assert [list(pair) for pair in found.own_chosen] == [
            [SIZES[k] for k in pair] for pair in zip(*ks_own, strict=True)
        ]
        assert found.gain == pytest.approx(gain)
        assert found.loss == pytest.approx(loss)
        chosen.update(found.chosen)
    assert chosen == set(SIZES)


def pool(common: list[list[Arm]], own: list[list[Arm]]) -> list[list[list[Arm]]]:
    """At each number of shots and of groups, the arms of both lists."""
    return [[list(arms) for arms in zip(one, other, strict=True)] for one, other in zip(common, own, strict=True)]


def test_intervals_hold_at_once_and_their_spread_is_that_of_all_lists() -> None:
    """Formulas of pydt.analyses.counterfactual and best_removal by hand, with a pooled spread between rows."""
    from scipy import stats

    random = np.random.default_rng(1)
    labels, weights = np.zeros(60, int), np.full(60, 1 / 60)
    full, better, third = (random.random((n, 60)) + random.normal(0, 0.3, (n, 1)) for n in (8, 4, 6))
    common = [[arm(0, full, weights), arm(3, better + 2, weights)]] * 3
    alike = [[[common[0][0]] * 2, [common[0][1], arm(3, third, weights, 2)]]] * 3
    found = one_list(common, [[]] * 3, alike, [{"weights": weights, "labels": labels}] * 3)
    assert found is not None
    assert found.chosen == (3, 3)
    reaches = []
    for half in (0, 1):
        images = halves_of(labels) == bool(half)
        rows = [full[half::2][:, images], better[half::2][:, images]]
        spreads = [full[:, images].mean(1).var(ddof=1)]
        spreads.append((3 * better[:, images].mean(1).var(ddof=1) + 5 * third[:, images].mean(1).var(ddof=1)) / 8)
        parts = [spread / len(one) for spread, one in zip(spreads, rows, strict=True)]
        count = images.sum()
        by_images = (rows[1].mean(0) - rows[0].mean(0)).var(ddof=1) / count
        rest = 0.0
        for one in rows:
            left = one - one.mean(0) - one.mean(1, keepdims=True) + one.mean()
            rest += (left**2).sum() / count**2 / (len(one) - 1) * count / (count - 1) / len(one)
        variance = max(sum(parts) + by_images - rest, sum(parts), by_images)
        df = variance**2 / (parts[0] ** 2 / 7 + parts[1] ** 2 / 8 + by_images**2 / (count - 1))
        reaches.append(stats.t.ppf(1 - 0.025 / 3, df) * variance**0.5)
    reach = np.sqrt(reaches[0] ** 2 + reaches[1] ** 2 + 2 * 0.36 * reaches[0] * reaches[1]) / 2
    assert found.gain_high - found.gain == pytest.approx([reach] * 3, rel=1e-5)
    assert found.gain - found.gain_low == pytest.approx([reach] * 3, rel=1e-5)
    assert np.isnan(found.loss).all()
    assert np.isnan(found.most)
    assert found.serves is None


def test_lists_of_the_same_groups_lose_nothing() -> None:
    random = np.random.default_rng(2)
    labels, weights = np.arange(60) % 3, np.full(60, 1 / 60)
    common = [[arm(0, random.random((4, 60)), weights), arm(3, 1 + random.random((4, 60)), weights)] for _ in range(2)]
    found = one_list(common, common, pool(common, common), [{"weights": weights, "labels": labels}] * 2)
    assert found is not None
    assert (found.loss == 0).all()
    assert (found.loss_low == 0).all()
    assert found.most == 0
    assert found.serves


def test_nothing_is_judged_with_few_rows_or_one_example() -> None:
    random = np.random.default_rng(3)
    labels, weights = np.arange(60) % 3, np.full(60, 1 / 60)
    arms = [arm(k, random.random((4, 60)), weights) for k in (0, 3)]
    few = [arms[0], arm(3, random.random((3, 60)), weights)]
    examples = [{"weights": weights, "labels": labels}]
    assert one_list([arms], [few], pool([arms], [few]), examples) is None
    assert one_list([few], [arms], pool([few], [arms]), examples) is None
    alone = [arm(k, random.random((4, 1)), np.ones(1)) for k in (0, 3)]
    one = [{"weights": np.ones(1), "labels": np.zeros(1, int)}]
    assert one_list([alone], [alone], pool([alone], [alone]), one) is None


def simulated(random: np.random.Generator, gains: np.ndarray, images: int = 150, rows: int = 4) -> OneList:
    """Of true gains (lists, sizes, shots), the common list last: what a row and an image do is alike at all shots. Rows
    vary more without more groups."""
    lists, sizes, shots = gains.shape
    labels, weights = np.arange(images) % 3, np.full(images, 1 / images)
    base = random.normal(0.6, 0.2, images)

    def correct(gain: np.ndarray, spread: float, rows: int, more: float) -> np.ndarray:
        of_rows = more * (random.normal(0, 0.01, (rows, 1, 1)) + random.normal(0, 0.006, (rows, 1, shots)))
        rest = random.normal(0, 0.15, (rows, images, 1)) + random.normal(0, 0.1, (rows, images, shots))
        of_images = random.normal(0, spread, (images, 1)) + random.normal(0, spread / 2, (images, shots))
        return base[None, :, None] + gain + of_rows + rest + of_images

    def arms(values: np.ndarray, dropped: int, of: int) -> list[Arm]:
        return [arm(dropped, values[..., j], weights, of) for j in range(shots)]

    full = arms(correct(np.zeros(shots), 0.0, 2 * rows, 1), 0, 0)
    found = [
        [arms(correct(gains[of, k], 0.08, rows, 1 + 0.4 * k), k + 1, of) for k in range(sizes)] for of in range(lists)
    ]
    common = [[full[j], *(one[j] for one in found[-1])] for j in range(shots)]
    own = [[full[j], *(one[j] for one in found[j])] for j in range(shots)]
    alike = [[[full[j]], *([one[k][j] for one in found] for k in range(sizes))] for j in range(shots)]
    judged = one_list(common, own, alike, [{"weights": weights, "labels": labels}] * shots)
    assert judged is not None
    return judged


GAINS = {
    "nothing does anything": np.zeros((4, 3, 3)),
    "all lists gain": np.broadcast_to(np.array([0.02, 0.03, 0.01])[None, :, None], (4, 3, 3)),
    "each helps its own shots": np.array(
        [[[0.07 if of == j else -0.03 for j in range(3)]] * 3 for of in range(3)] + [[[0.005] * 3] * 3]
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", GAINS)
def test_what_was_chosen_is_judged_without_bias_and_intervals_hold_at_once(case: str) -> None:
    random, gains, trials = np.random.default_rng(7), GAINS[case], 250
    with_none = np.concatenate([np.zeros((4, 1, 3)), gains], axis=1)
    errors, held, verdicts = [], np.zeros(2), []
    for _ in range(trials):
        found = simulated(random, gains)
        common = with_none[-1, list(found.chosen)].mean(0)
        own = np.array([with_none[j, list(pair), j].mean() for j, pair in enumerate(found.own_chosen)])
        errors.append([found.gain - common, found.loss - (own - common)])
        held += [
            bool(((found.gain_low <= common) & (common <= found.gain_high)).all()),
            bool(((found.loss_low <= own - common) & (own - common <= found.loss_high)).all()),
        ]
        verdicts.append(found.serves)
    spread = np.std(errors, 0) / trials**0.5
    assert (np.abs(np.mean(errors, 0)) < 3.5 * spread).all(), "unbiased"
    assert (held / trials > 0.92).all(), "0.95 less two standard errors"
    print(case, held / trials, [verdicts.count(v) / trials for v in (True, False, None)])
    if case == "each helps its own shots":
        assert verdicts.count(True) == 0
        assert verdicts.count(False) > 0.5 * trials
    else:
        assert verdicts.count(False) < 0.09 * trials
