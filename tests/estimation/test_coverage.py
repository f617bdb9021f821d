"""Are the errors honest? Coverage over fresh designs with planted truths; silence where there is nothing to find.

Every case draws whole designs anew: an interval that is right only on one lucky design would fail.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import special, stats

from pydt import Design, design, influences, prediction_test
from pydt.base import EstimateError
from pydt.estimation import Fit, global_test
from pydt.estimation.inputs import assign_folds

R2 = (0.2, 0.5, 0.9)
TRUTHS = ("dense", "sparse")


def truth_of(rng: np.random.Generator, groups: int, targets: int, truth: str) -> np.ndarray:
    effects = rng.standard_normal((groups, targets))
    if truth == "sparse":
        effects *= rng.random((groups, targets)).argsort(0) < max(3, groups // 10)
    return effects


def draw(kind: str, groups: int, models: int, seed: int) -> Design:
    return (
        design.foldover(groups, models, seed)
        if kind == "foldover"
        else getattr(design, kind)(groups, models, 0.4, seed)
    )


def covered(fit: Fit, truth: np.ndarray, level: float = 0.95) -> float:
    quantile = special.stdtrit(fit.df, (1 + level) / 2)
    return float((np.abs(fit.unbiased - truth) <= quantile * fit.stderr).mean())


def coverage(
    kind: str, method: str, groups: int, models: int, r2: float, truth: str, designs: int, targets: int
) -> tuple[float, float]:
    """Share of true effects inside their 95 % interval; share of placebos whose interval holds zero."""
    found, placebos = [], []
    for seed in range(designs):
        rng = np.random.default_rng([seed, groups, models])
        made = draw(kind, groups, models, seed)
        effects = truth_of(rng, groups, targets, truth)
        if kind == "random":
            effects -= effects.mean(0)  # what masks of one size can say
        effects *= np.sqrt(r2 / ((effects**2).sum(0) * made.alpha * (1 - made.alpha)))
        outputs = np.asarray(made) @ effects + np.sqrt(1 - r2) * rng.standard_normal((models, targets))
        fit = influences(made, outputs.astype(np.float32), method)
        found.append(covered(fit, effects))
        if fit.placebo_values is not None and fit.placebo_stderr is not None:
            placebos.append(
                (np.abs(fit.placebo_values) <= special.stdtrit(fit.placebo_df, 0.975) * fit.placebo_stderr).mean()
            )
    return float(np.mean(found)), float(np.mean(placebos))


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("r2", [0.2, 0.9])
@pytest.mark.parametrize("method", ["difference", "ols"])
@pytest.mark.parametrize(("kind", "models"), [("bernoulli", 120), ("random", 120), ("foldover", 128)])
def test_difference_and_ols_cover(kind: str, models: int, method: str, r2: float, truth: str) -> None:
    """24 fresh designs x 40 groups x 100 targets; a whole foldover block has 128 rows."""
    share, placebos = coverage(kind, method, 40, models, r2, truth, 24, 100)
    assert 0.935 < share < 0.965
    assert 0.93 < placebos < 0.97


@pytest.mark.parametrize("r2", [0.2, 0.9])
@pytest.mark.parametrize("models", [80, 20])
@pytest.mark.parametrize(("kind", "truth"), [("bernoulli", "sparse"), ("random", "dense")])
def test_debiased_lasso_covers(kind: str, models: int, r2: float, truth: str) -> None:
    """m = 2K and K/2: 24 fresh designs x 40 groups x 5 targets; every group, not only those the LASSO kept."""
    share, placebos = coverage(kind, "lasso", 40, models, r2, truth, 24, 5)
    assert 0.93 < share < 0.97
    assert 0.92 < placebos < 0.98


@pytest.mark.slow
@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("r2", R2)
@pytest.mark.parametrize(
    ("kind", "method", "groups", "models"),
    [
        *((kind, method, 100, 220) for kind in ("bernoulli", "random") for method in ("difference", "ols")),
        *((kind, "difference", 100, 80) for kind in ("bernoulli", "random")),
        *((kind, "lasso", 100, models) for kind in ("bernoulli", "random") for models in (200, 50)),
        *(("foldover", method, 100, 512) for method in ("difference", "ols", "lasso")),
        *(("foldover", method, 40, 300) for method in ("difference", "ols", "lasso")),  # not a whole number of blocks
    ],
)
def test_larger_designs_cover(kind: str, method: str, groups: int, models: int, r2: float, truth: str) -> None:
    share, placebos = coverage(kind, method, groups, models, r2, truth, 25, 12 if method == "lasso" else 60)
    assert 0.935 < share < 0.965
    assert 0.92 < placebos < 0.98


@pytest.mark.parametrize(
    ("kind", "groups", "models"),
    [
        *((kind, *size) for size in ((4, 48), (5, 60), (6, 200)) for kind in ("bernoulli", "foldover")),
        ("bernoulli", 3, 60),
    ],
)
def test_few_groups_cover_though_their_masks_repeat(kind: str, groups: int, models: int) -> None:
    """The difference may be wide: with so few masks its errors add two parts, each of few degrees of freedom."""
    for method, most in (("difference", 0.99), ("ols", 0.965)):
        share, _ = coverage(kind, method, groups, models, 0.5, "dense", 30, 200)
        assert 0.935 < share < most


def test_errors_of_repeats_hold_what_the_linear_model_leaves_out() -> None:
    """Each mask trained four times: rows share what is not linear in it, so only cluster means are independent."""
    found = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        made = design.bernoulli(20, 60, 0.5, seed)
        rows = np.repeat(np.arange(60), 4)[rng.permutation(240)]
        effects = truth_of(rng, 20, 100, "dense")
        outputs = (np.asarray(made) @ effects + rng.standard_normal((60, 100)))[rows] + rng.standard_normal((240, 100))
        for method in ("difference", "ols"):
            found.append(covered(influences(np.asarray(made)[rows], outputs, method), effects))
    assert 0.935 < np.mean(found[0::2]) < 0.965
    assert 0.935 < np.mean(found[1::2]) < 0.965


@pytest.mark.parametrize("kind", ["bernoulli", "random", "foldover"])
@pytest.mark.parametrize("method", ["difference", "ols", "lasso"])
def test_contrasts_cover(kind: str, method: str) -> None:
    """One group against another, a super-class of ten against the rest, and weights at random, over fresh designs."""
    found = []
    for seed in range(24):
        rng = np.random.default_rng([seed, 7])
        made = draw(kind, 40, 128, seed)
        effects = truth_of(rng, 40, 20 if method == "lasso" else 60, "dense")
        effects *= np.sqrt(0.5 / ((effects**2).sum(0) * made.alpha * (1 - made.alpha)))
        outputs = np.asarray(made) @ effects + np.sqrt(0.5) * rng.standard_normal((128, effects.shape[1]))
        weights = rng.standard_normal((6, 40))
        weights[0], weights[1] = 0, -1 / 30
        weights[0, :2], weights[1, :10] = (1, -1), 1 / 10
        weights -= weights.mean(1, keepdims=True)  # free of the zero that masks of one size leave open
        fit = influences(made, outputs, method)
        value, stderr = fit.contrast(weights)
        scale = (
            40 / 39 if method == "difference" and kind == "random" else 1.0
        )  # against the mean of the *other* groups
        inside = np.abs(value - scale * weights @ effects) <= special.stdtrit(fit.least_df, 0.975) * stderr
        found.append(inside.mean(1))
    share = np.mean(found, axis=0)
    assert np.all((share > 0.92) & (share < 0.98)), share
    assert 0.935 < share.mean() < 0.967


@pytest.mark.parametrize("method", ["difference", "ols", "lasso"])
def test_foldover_covers_where_groups_interact(method: str) -> None:
    """Pairs of groups cancel within a pair of models; triples are noise of the half-differences, and are judged so."""
    found = []
    for seed in range(24):
        rng = np.random.default_rng([seed, 8])
        made = design.foldover(20, 128, seed)
        signs, targets = 2.0 * np.asarray(made) - 1, 10 if method == "lasso" else 60
        effects = truth_of(rng, 20, targets, "dense")
        two = np.stack([signs[:, i] * signs[:, j] for i in range(20) for j in range(i)], axis=1)
        three = np.stack([signs[:, a] * signs[:, b] * signs[:, c] for a, b, c in rng.permuted(
            np.tile(np.arange(20), (150, 1)), axis=1)[:, :3]], axis=1)  # fmt: skip
        outputs = np.asarray(made) @ effects + 0.5 * rng.standard_normal((128, targets))
        outputs += two @ (0.5 * rng.standard_normal((two.shape[1], targets)))
        outputs += three @ (0.1 * rng.standard_normal((three.shape[1], targets)))
        found.append(covered(influences(made, outputs, method), effects))
    assert 0.935 < np.mean(found) < 0.967


def permuted(clusters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order of the rows in which clusters of one size move as wholes."""
    order = np.arange(len(clusters))
    members = [np.flatnonzero(clusters == c) for c in np.unique(clusters)]
    for size in {len(m) for m in members}:
        same = [m for m in members if len(m) == size]
        for old, new in zip(same, rng.permutation(len(same)), strict=True):
            order[old] = same[new]
    return order


def nothing_to_find(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks, and two outputs that depend on everything but the masks: skewed, and alike within clusters."""
    rng = np.random.default_rng([seed, 99])
    if kind == "repeats":
        masks = np.repeat(np.asarray(design.bernoulli(15, 40, 0.4, seed)), 2, axis=0)
        shared = np.repeat(rng.standard_normal((40, 1)), 2, axis=0)
    else:
        masks = np.asarray(draw(kind, 15, 80, seed))
        shared = (
            np.repeat(rng.standard_normal((40, 1)), 2, axis=0) if kind == "foldover" else rng.standard_normal((80, 1))
        )
    return masks, shared + rng.gamma(2.0, 1.0, (80, 1)) + 0.5 * rng.standard_normal((80, 2))


@pytest.mark.parametrize("kind", ["random", "bernoulli", "foldover", "repeats"])
def test_permuted_rows_are_silent(kind: str) -> None:
    """200 copies of one experiment, rows permuted with clusters whole: 1 to 9 % show any q < 0.05."""
    masks, outputs = nothing_to_find(kind, 1)
    outputs = outputs + masks[:, :3] @ np.array([[3.0], [-2.0], [1.0]])  # there was something before the permutation
    clusters = Design.explicit(masks).clusters
    rng = np.random.default_rng(5)
    copies = [permuted(clusters, rng) for _ in range(200)]
    for method in ("difference", "ols", "lasso"):
        alarms = 0
        for start in range(0, 200, 50) if method == "lasso" else (0,):
            part = copies if method != "lasso" else copies[start : start + 50]
            fit = influences(masks, np.stack([outputs[order, 0] for order in part], axis=1), method)
            alarms += int((fit.q < 0.05).any(0).sum())
        assert 2 <= alarms <= 18, (method, alarms)
    assert (influences(masks, outputs[:, 0], "ols").q < 0.05).any(), "the experiment itself is not silent"


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *((kind, "ols") for kind in ("random", "bernoulli", "foldover", "repeats")),
        ("random", "ridge"),
        ("repeats", "difference"),
    ],
)
def test_p_of_the_global_test_is_uniform_without_influence(kind: str, method: str) -> None:
    p = []
    for seed in range(100):
        masks, outputs = nothing_to_find(kind, seed)
        # these repeats share more than the mask: the caller keeps them together
        clusters = np.repeat(np.arange(40), 2) if kind == "repeats" else None
        p.append(prediction_test(masks, *outputs.T, method=method, clusters=clusters, permutations=99, seed=seed).p)
    jittered = np.array(p) - np.random.default_rng(0).random(100) / 100  # p is a multiple of 1/100
    assert stats.kstest(jittered, "uniform").pvalue > 0.01


FEW = [
    *(("bernoulli", groups, 0.5) for groups in (2, 3, 4, 5)),
    ("random", 2, 0.5),
    ("random", 3, 0.34),
    ("random", 4, 0.25),
    ("random", 4, 0.5),
    ("random", 5, 0.4),
    *(("foldover", groups, 0.5) for groups in (3, 4, 5)),
]


def few(kind: str, groups: int, alpha: float, models: int, seed: int) -> Design:
    if kind == "foldover":
        return design.foldover(groups, models, seed)
    return getattr(design, kind)(groups, models, alpha, seed)


@pytest.mark.parametrize(("kind", "groups", "alpha"), FEW)
def test_global_test_of_few_groups(kind: str, groups: int, alpha: float) -> None:
    """Which source? A handful of masks, each trained often: p is uniform in silence, and small if there is anything.

    Foldover pairs share a skewed part, as interactions of even order would give them.
    """
    p = []
    for seed in range(100):
        made = few(kind, groups, alpha, 60 if kind != "foldover" else 61, seed)
        rng = np.random.default_rng([seed, groups, len(kind), int(100 * alpha)])
        shared = (
            rng.gamma(2.0, 1.0, (31, 1))[np.arange(61) // 2] if kind == "foldover" else rng.gamma(2.0, 1.0, (60, 1))
        )
        outputs = shared + 0.5 * rng.standard_normal(shared.shape) + 0.5 * rng.standard_normal((len(made), 2))
        p.append(prediction_test(made, *outputs.T, permutations=99, seed=seed).p)
    jittered = np.array(p) - np.random.default_rng(0).random(100) / 100
    assert stats.kstest(jittered, "uniform").pvalue > 0.001  # a dozen cases are asked

    found = []
    for seed in range(20):
        made = few(kind, groups, alpha, 80, seed)
        rng = np.random.default_rng([seed, groups])
        signal = np.asarray(made) @ np.arange(groups)
        score, report = (signal / signal.std() + 1.5 * rng.standard_normal(80) for _ in range(2))
        found.append(prediction_test(made, score, report, permutations=99, seed=seed).p)
    assert np.mean(np.array(found) <= 0.05) >= 0.8


@pytest.mark.parametrize("made", [design.bernoulli(4, 200), design.random(5, 200, 0.4)], ids=["bernoulli", "random"])
def test_strong_effects_of_few_groups_are_sure(made: Design) -> None:
    rng = np.random.default_rng(0)
    signal = np.asarray(made) @ (3.0 * np.arange(made.groups))
    score, report = (signal + rng.standard_normal(200) for _ in range(2))
    found = prediction_test(made, score, report)
    assert found.p == 1 / 1000
    assert 0.97 < found.correlation < 1


def test_outputs_that_never_vary_confirm_nothing() -> None:
    made, noise = design.bernoulli(4, 40), np.random.default_rng(0).standard_normal(40)
    still = prediction_test(made, noise, np.full(40, 0.5), permutations=99)
    assert (still.correlation, still.p, still.null_sd) == (0, 1, 0)
    assert prediction_test(made, np.full(40, 0.5), noise, permutations=99).p > 0.05


def test_the_verdict_is_by_ols_where_four_fifths_of_the_rows_can_fit_it() -> None:
    masks = np.array(design.bernoulli(5, 40, seed=2))
    score, report = masks @ np.arange(5.0) + np.random.default_rng(0).standard_normal((2, 40))
    for given, method in (("ols", "ols"), ("lasso", "ridge"), ("difference", "ridge")):
        assert global_test(masks, score, report, given) == (
            method,
            prediction_test(masks, score, report, method=method),
        )
    masks[:, 4] = np.arange(40) == 7  # in one fold, and in no other
    assert global_test(masks, score, report, "ols") == ("ridge", prediction_test(masks, score, report, method="ridge"))


def test_even_interactions_are_no_finding_of_foldover() -> None:
    """What complements share moves nothing, however large; were rows permuted, it would hide what is there."""
    for groups in (4, 5):
        made = design.foldover(groups, 90, 1)
        signs = 2.0 * np.asarray(made) - 1
        rng = np.random.default_rng(groups)
        score, report = (signs[:, 2] + 2 * rng.standard_normal(90) for _ in range(2))
        even = 50 * signs[:, 0] * signs[:, 1]
        plain = prediction_test(made, score, report, permutations=199, method="difference")
        disturbed = prediction_test(made, score + even, report, permutations=199, method="difference")
        np.testing.assert_allclose(disturbed.correlation, plain.correlation, rtol=1e-6)
        assert disturbed.p == plain.p


def arrangements(parts: list[list[int]], turn: bool) -> list[list[int]]:
    """Every order of the rows that moves parts as wholes among parts of their size; `turn`: either way round."""
    found = []
    for order in itertools.permutations(range(len(parts))):
        if any(len(parts[i]) != len(part) for i, part in zip(order, parts, strict=True)):
            continue
        for turned in itertools.product((False, True), repeat=len(parts) if turn else 0):
            moved = [0] * sum(map(len, parts))
            for i, (source, part) in enumerate(zip(order, parts, strict=True)):
                given = parts[source][::-1] if turn and turned[i] else parts[source]
                for place, row in zip(part, given, strict=True):
                    moved[place] = row
            found.append(moved)
    return found


def correlation_by_hand(masks: np.ndarray, score: np.ndarray, report: np.ndarray, fold: np.ndarray) -> float:
    """Differences of means of the other folds, tried on each fold in turn, centred within it."""
    guess, truth = np.zeros(len(masks)), np.zeros(len(masks))
    for i in np.unique(fold):
        train, test = fold != i, fold == i
        for column in masks.T:
            on, off = score[train & column], score[train & ~column]
            value = on.mean() - off.mean() if len(on) and len(off) else 0.0
            guess[test] += value * (column[test] - column[test].mean())
        truth[test] = report[test] - report[test].mean()
    return float(guess @ truth / np.sqrt((guess @ guess) * (truth @ truth)))


@pytest.mark.parametrize("kind", ["pairs", "repeated pairs", "clusters", "rows"])
def test_p_is_the_share_of_all_arrangements(kind: str) -> None:
    """Few rows, so that every arrangement can be listed: pairs go to each other's places either way round, clusters
    and rows the way they are."""
    rng = np.random.default_rng(3)
    if kind.endswith("pairs"):
        third = [1, 0, 0] if kind == "pairs" else [1, 0, 1]  # the second once more: its own pair all the same
        masks = np.repeat([[1, 1, 0], [1, 0, 1], third, [1, 1, 1]], 2, axis=0).astype(bool)
        masks[1::2] ^= True
        parts = [[0, 1], [2, 3], [4, 5], [6, 7]]
    elif kind == "clusters":
        masks = rng.random((11, 2)) < 0.5
        parts = [[0, 4], [1, 5], [2, 6], [3, 7], [8, 9, 10]]
    else:
        masks = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]], bool)  # one group once
        parts = [[i] for i in range(6)]
    part_of = np.empty(len(masks), np.int64)
    for i, part in enumerate(parts):
        part_of[part] = i
    folds = 3 if kind == "rows" else len(parts)  # one part a fold, whatever their order, where the centring allows it
    fold = assign_folds(part_of, folds, 0)
    score, report = (masks[:, 0] + 0.5 * masks[:, 1] + 0.8 * rng.standard_normal(len(masks)) for _ in range(2))
    every = arrangements(parts, kind.endswith("pairs"))
    assert len(every) == {"clusters": 24, "rows": 720}.get(kind, 384)
    exact = np.array([correlation_by_hand(masks, score[order], report[order], fold) for order in every])
    observed = correlation_by_hand(masks, score, report, fold)
    found = prediction_test(
        masks,
        score,
        report,
        method="difference",
        clusters=part_of if kind == "clusters" else None,
        folds=folds,
        permutations=4000,
    )
    assert found.correlation == pytest.approx(observed, rel=1e-9)
    assert found.p == pytest.approx((exact >= observed - 1e-12).mean(), abs=0.03)
    assert found.null_sd == pytest.approx(exact.std(), rel=0.06)


def test_what_cannot_be_permuted_is_said() -> None:
    made = design.bernoulli(4, 60, seed=1)
    y = np.random.default_rng(0).standard_normal((60, 2))
    uneven = np.repeat(np.arange(6), [5, 7, 9, 11, 13, 15])
    with pytest.raises(
        EstimateError, match=r"clusters: 6 clusters, 1 of one size.* in 1 different ways.*leave them out"
    ):
        prediction_test(made, *y.T, clusters=uneven)
    with pytest.raises(EstimateError, match=r"masks: 4 models on 2 different masks.* in 4 different ways.*train more"):
        prediction_test([[1, 0], [0, 1], [1, 0], [0, 1]], *y[:4].T, clusters=None, method="ridge", folds=2)
    even = prediction_test(made, *y.T, clusters=np.repeat(np.arange(4), 15), permutations=9)
    assert even.folds == 4  # 24 ways
    assert prediction_test(made, *y.T, folds=7, permutations=9).folds == 7


def test_global_test_finds_what_is_there() -> None:
    made = design.random(30, 120, 0.25, seed=2)
    rng = np.random.default_rng(0)
    signal = np.asarray(made) @ rng.standard_normal(30)
    signal /= signal.std()
    score, report = (signal + 1.5 * rng.standard_normal(120) for _ in range(2))
    for method in ("ols", "ridge", "difference"):
        found = prediction_test(made, score, report, method=method)
        assert (found.n, found.folds, found.permutations) == (120, 5, 999)
        assert found.p <= 0.01
        assert found.correlation > 2 * found.null_sd
    again = prediction_test(made, score, report)
    assert again == prediction_test(made, score, report)
    assert 0.05 < again.null_sd < 0.15
    # a report half that goes the other way is no confirmation
    assert prediction_test(made, score, -report).p > 0.9


@pytest.mark.parametrize(("groups", "method"), [(8, "ols"), (8, "ridge"), (70, "ridge")])
def test_global_test_is_the_plain_cross_fit(groups: int, method: str) -> None:
    """The matrix that makes permutations cheap gives what fitting fold by fold gives."""
    made = design.bernoulli(groups, 60, 0.5, seed=3)
    rng = np.random.default_rng(1)
    masks = np.asarray(made).astype(float)
    score, report = (masks @ rng.standard_normal(groups) + rng.standard_normal(60) for _ in range(2))
    fold = assign_folds(np.arange(60), 5, 0)
    guess, truth = np.zeros(60), np.zeros(60)
    for i in range(5):
        train, test = fold != i, fold == i
        x, y = masks[train] - masks[train].mean(0), score[train] - score[train].mean()
        penalty = groups * masks[train].var(0).mean() if method == "ridge" else 0.0
        values = np.linalg.lstsq(x.T @ x + penalty * np.eye(groups), x.T @ y, rcond=None)[0]
        guess[test] = (masks[test] - masks[test].mean(0)) @ values
        truth[test] = report[test] - report[test].mean()
    expected = (guess @ truth) / np.sqrt((guess @ guess) * (truth @ truth))
    found = prediction_test(made, score, report, method=method, permutations=9)
    np.testing.assert_allclose(found.correlation, expected, rtol=1e-9)
