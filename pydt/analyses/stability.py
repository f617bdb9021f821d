"""How far a ranking depends on what was measured and on how many models: outputs compared, and stability.

Both compare influences that were estimated from *disjoint* random halves (or smaller parts) of the models, drawn anew
for every split and never splitting repeated or complementary masks. Influences from the same models share the models'
noise and agree by it; a nested part agrees with its whole by construction. Agreement is Spearman's rank correlation
over the groups, its mean over the splits. Its error is a bootstrap over groups that resamples all splits together, so
that what splits share is in it, and whose deviations are widened by 1.2: without that, simulated intervals (20 and 62
groups, 120 and 300 models, with and without influence, 10 splits) held the truth in 86 to 97 instead of 95 %.

    ceiling      two outputs a and b cannot agree better across halves than each agrees with itself:
                 r_ab <= sqrt(r_aa r_bb). Their ratio is the agreement without noise (Spearman 1904), of r turned into
                 Pearson's by 2 sin(pi r / 6), and back; nothing is said where a ceiling is not surely above zero
    more models  with noise of variance v at s models and v / f at n, an agreement of r becomes
                     r_n = f r / (1 + (f - 1) r)                                     (Spearman and Brown 1910)
                 f = (n - p - 1) / (s - p - 1) for least squares, which uses up p parameters, else n / s. It is an
                 extrapolation, marked as such; sqrt(r_n) is the correlation with the true influences. On the embedded
                 sample two real ensembles of 300 models (other masks, seeds and few-shot draws) agree with 0.68, where
                 0.75 (0.58 to 0.84) is extrapolated from the halves of one of them
    the top k    share of the k highest (lowest) groups that two disjoint parts have in common; k / groups by chance

Jain et al. 2023 choose the output and the number of models (appendix). A ranking compared with that of all models, of
which its own are a part, would reach 1 at the number one has, whatever the noise; hence the disjoint sets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.ensemble_view import ERROR_OF_WAYS, Array, EnsembleView
from pydt.analyses.sample_splitting import halves
from pydt.base import ConfigError, EstimateError, one_of, whole
from pydt.design import Design
from pydt.ensemble import Plan
from pydt.estimation import PredictionTest, Score, best_method, global_test, influences, lds
from pydt.reporting import Curve, Page, Table, count, number, p_text, plus_minus, quoted
from pydt.store import UNITS, Record, Store

OUTPUTS = tuple(UNITS)
"""The outputs that are compared."""
_SPLITS = 10
_BOOTSTRAPS = 400
_WIDER = 1.2  # than the bootstrap's
_PERMUTATIONS = 9  # of the score of single images, an output
_FEWEST = 20  # models of a part


@dataclass(frozen=True, eq=False)
class OutputComparison:
    """Influences on the whole target by output; see the top of this file. All matrices are (outputs, outputs).

    Attributes:
        outputs, groups: names. values, stderr: float64 (groups, outputs), each in the unit of its output.
        together: agreement of influences from the same models, which share their noise.
        apart, apart_stderr: from disjoint halves of the models; the diagonal is an output's agreement with itself.
        ceiling: what `apart` could be at best. agreement, agreement_stderr: without noise, at most 1; NaN where that
            cannot be told.
        own, accuracy: per output, how influences learnt on the score half from some models predict the report half in
            others: the output itself, and the accuracy. images: the same of single score images (rank correlation);
            None where all models agree on all of them.
    """

    outputs: tuple[str, ...]
    groups: tuple[str, ...]
    models: int
    splits: int
    values: Array
    stderr: Array
    together: Array
    apart: Array
    apart_stderr: Array
    ceiling: Array
    agreement: Array
    agreement_stderr: Array
    own: tuple[PredictionTest, ...]
    accuracy: tuple[PredictionTest, ...]
    images: tuple[Score | None, ...]
    _view: EnsembleView = field(repr=False)

    def page(self) -> Page:
        """What a reader sees."""
        pairs = [(a, b) for a in range(len(self.outputs)) for b in range(a + 1, len(self.outputs))]
        rows = [
            (
                self.outputs[a],
                self.outputs[b],
                *(float(m[a, b]) for m in (self.together, self.apart, self.apart_stderr, self.ceiling)),
                *(float(m[a, b]) for m in (self.agreement, self.agreement_stderr)),
            )
            for a, b in pairs
        ]
        heads = (
            "output",
            "other output",
            "same models",
            "other models",
            "stderr",
            "ceiling",
            "without noise",
            "its stderr",
        )
        each = [
            (
                name,
                float(self.apart[i, i]),
                float(self.apart_stderr[i, i]),
                self.own[i].correlation,
                self.own[i].p,
                self.accuracy[i].correlation,
                self.accuracy[i].p,
                None if (score := self.images[i]) is None else score.lds,
                None if score is None else score.stderr,
            )
            for i, name in enumerate(self.outputs)
        ]
        columns: tuple[str, ...] = (
            "output",
            "with itself",
            "stderr",
            "predicts itself",
            "p",
            "predicts accuracy",
            "p of that",
        )
        columns += ("single images", "stderr of that")
        values = [
            (group, *(float(v) for j in range(len(self.outputs)) for v in (self.values[i, j], self.stderr[i, j])))
            for i, group in enumerate(self.groups)
        ]
        named = ("group", *(f"{name}{what}" for name in self.outputs for what in ("", ", stderr")))
        digits = dict.fromkeys((*heads[2:], *columns[1:]), 2) | {"p": 3, "p of that": 3}
        note = (
            "Rank correlation of influences from disjoint halves of the models, held-out correlation with the report "
            "half (itself, and accuracy), and the mean rank correlation with held-out models on single score images."
        )
        return Page(
            name="outputs",
            title="Outputs compared",
            question="Does the ranking depend on which output of the models is looked at, and which output tells most?",
            answer=self._view.told(_outputs_answer(self, pairs)),
            blocks=[
                Table(columns, each, "Each output", note, digits),
                Table(heads, rows, "Each pair", "Rank correlation of the influences of all groups.", digits),
            ],
            csv={"outputs.csv": (columns, each), "pairs.csv": (heads, rows), "influences.csv": (named, values)},
            method=_OUTPUTS_METHOD.format(splits=self.splits, groups=len(self.groups)),
        )


def compare_outputs(
    store: Store | str | os.PathLike[str],
    plan: Plan | Record | str | None = None,
    *,
    task: Any = None,
    outputs: Sequence[str] = OUTPUTS,
    seed: int = 0,
) -> OutputComparison:
    """Compare the influences on the whole target that different outputs give (F14).

    Args:
        store: a store, or its folder.
        plan: a plan of the store, or its digest; by default the store's own.
        task: which of the plan's tasks; the first by default.
        outputs: two or more of OUTPUTS.
        seed: of the random halves of the models, and of permutations.

    Raises:
        ConfigError: an unknown output, or fewer than two.
        EstimateError: half of the models do not tell the groups apart.
        StoreError: no such plan or task, or fewer than ten finished rows.
    """
    view = EnsembleView.of(store, plan, task)
    outputs = tuple(outputs)
    if len(set(outputs)) != len(outputs) or len(outputs) < 2:
        raise ConfigError(f"{outputs}", "outputs", f"name two or more of: {', '.join(OUTPUTS)}")
    score, report = (
        np.concatenate([view.columns("target", one, half) for one in outputs], 1) for half in ("score", "report")
    )
    accuracy = view.columns("target", "correct", "report")[:, 0]
    masks = view.masks
    method = best_method(masks)
    fit = influences(masks, score, method)
    parts = _parts(masks, score, _SPLITS, None, "outputs", seed)
    apart, draws = agreement(*parts[:2])
    reliable = np.diag(apart) > 2 * draws[:, range(len(outputs)), range(len(outputs))].std(0)
    told = np.outer(reliable, reliable)
    true = 6 / np.pi * np.arcsin(np.clip(_without_noise(apart), -1, 1) / 2)
    return OutputComparison(
        outputs=outputs,
        groups=view.record.names,
        models=fit.models,
        splits=len(parts[0]),
        values=np.asarray(fit.unbiased, np.float64),
        stderr=np.asarray(fit.stderr, np.float64),
        together=agreement(fit.unbiased[None], fit.unbiased[None])[0],
        apart=apart,
        apart_stderr=draws.std(0),
        ceiling=np.sqrt(np.maximum(np.outer(np.diag(apart), np.diag(apart)), 0)),
        agreement=np.where(told, true, np.nan),
        agreement_stderr=np.where(told, _spread(_without_noise(draws)), np.nan),
        own=tuple(global_test(masks, score[:, i], report[:, i], method)[1] for i in range(len(outputs))),
        accuracy=tuple(global_test(masks, score[:, i], accuracy, method)[1] for i in range(len(outputs))),
        images=tuple(_on_images(masks, view.outputs(one, "score"), seed) for one in outputs),
        _view=view,
    )


@dataclass(frozen=True, eq=False)
class Stability:
    """Agreement of rankings from disjoint sets of models, by their size; see the top of this file.

    Attributes:
        per, output, top: what was ranked, and how many groups count as the top.
        sizes: int64 (sizes,), models of each set; methods: the estimator at that size.
        rank, rank_stderr, low, high: float64 (sizes,): rank correlation (mean over the columns), 95 % interval.
        overlap, overlap_stderr: float64 (2, sizes): share of the `top` highest and lowest groups in common.
        further: int64 (n,), sizes extrapolated to (the plan's own first); expected, expected_low, expected_high:
            float64 (n,), their rank correlation by Spearman and Brown from the largest size measured.
        differ, stderr: float64 (sizes,), in `unit`: by how much the value of a group differs between two disjoint sets,
            over sqrt(2), and its standard error as told: root mean squares over groups, columns and splits.
        by_errors: reliability at the plan's own size as the standard errors have it: 1 - mean stderr^2 / variance of
            the influences, mean over columns; `expected[0]` measures the same without them.
    """

    per: str
    output: str
    groups: int
    columns: int
    models: int
    top: int
    splits: int
    sizes: npt.NDArray[np.int64]
    methods: tuple[str, ...]
    rank: Array
    rank_stderr: Array
    low: Array
    high: Array
    overlap: Array
    overlap_stderr: Array
    further: npt.NDArray[np.int64]
    expected: Array
    expected_low: Array
    expected_high: Array
    differ: Array
    stderr: Array
    unit: str
    by_errors: float
    _view: EnsembleView = field(repr=False)

    def page(self) -> Page:
        """What a reader sees."""
        measured = (self.sizes, self.rank, self.low, self.high)
        ahead = (self.further, self.expected, self.expected_low, self.expected_high)
        reach = 1.96 * self.overlap_stderr
        ends = {
            f"{self.top} {end}": (self.sizes, self.overlap[i], self.overlap[i] - reach[i], self.overlap[i] + reach[i])
            for i, end in enumerate(("highest", "lowest"))
        }
        chance = np.full(len(self.sizes), self.top / self.groups)
        heads: tuple[str, ...] = ("models", "estimator", "rank correlation", "stderr", "low", "high", "measured")
        heads += ("highest in common", "stderr of highest", "lowest in common", "stderr of lowest")
        heads += ("values differ by", "their stderr")
        rows: list[tuple[Any, ...]] = []
        for i, size in enumerate(self.sizes.tolist()):
            own = (self.rank[i], self.rank_stderr[i], self.low[i], self.high[i])
            common = (v for end in (0, 1) for v in (self.overlap[end, i], self.overlap_stderr[end, i]))
            values = float(self.differ[i]), float(self.stderr[i])
            rows.append((size, self.methods[i], *map(float, own), True, *map(float, common), *values))
        for i, size in enumerate(self.further.tolist()):
            own = (self.expected[i], np.nan, self.expected_low[i], self.expected_high[i])
            rows.append((size, self.methods[-1], *map(float, own), False, *[None] * 6))
        what = {"target": "the target", "class": "a class", "example": "an image"}[self.per]
        return Page(
            name="stability" if self.per == "target" else f"stability-{self.per}",
            title="Stability" if self.per == "target" else f"Stability per {self.per}",
            question=f"How far would another set of as many models rank the groups for {what} alike?",
            answer=self._view.told(_stability_answer(self)),
            blocks=[
                Curve(
                    {"measured on disjoint sets": measured, "extrapolated (Spearman-Brown)": ahead},
                    "models of each ranking",
                    "rank correlation of two rankings",
                    "Agreement of two rankings",
                    "95 % intervals by a bootstrap over groups.",
                ),
                Curve(
                    {**ends, "by chance": (self.sizes, chance, None, None)},
                    "models of each ranking",
                    "share in common",
                    f"The {self.top} highest and lowest groups",
                    f"95 % intervals from the spread over {self.splits} random splits.",
                ),
                Curve(
                    {
                        "differ between disjoint sets": (self.sizes, self.differ, None, None),
                        "standard error as told": (self.sizes, self.stderr, None, None),
                    },
                    "models of each ranking",
                    self.unit,
                    "The value of a group",
                    "Root mean squares; the difference of two sets over sqrt(2).",
                ),
                Table(heads, rows, "In numbers", digits=dict.fromkeys(heads[2:], 2)),
            ],
            csv={"stability.csv": (heads, rows)},
            method=_STABILITY_METHOD.format(splits=self.splits, output=self.output),
        )


def stability(
    store: Store | str | os.PathLike[str],
    plan: Plan | Record | str | None = None,
    *,
    per: str = "target",
    task: Any = None,
    output: str = "correct",
    sizes: Sequence[int] | None = None,
    top: int | None = None,
    seed: int = 0,
) -> Stability:
    """Measure how far rankings from disjoint sets of models agree, by the number of models (F16).

    Args:
        store: a store, or its folder.
        plan: a plan of the store, or its digest; by default the store's own.
        per: "target", "class" or "example": then the mean over those.
        task: which of the plan's tasks; the first by default.
        output: of which the influences are (see `pydt.store.UNITS`).
        sizes: models of each set, at most half of those there are; by default a half, and 0.7, 0.5, 0.35, 0.25 of that,
            as far as there are twenty and every group is kept by some.
        top: how many groups count as the highest and the lowest; ten, or a quarter if that is less.
        seed: of the random sets.

    Raises:
        ConfigError: an unknown `per` or output, or sizes that cannot be.
        EstimateError: half of the models do not tell the groups apart.
        StoreError: no such plan or task, or fewer than ten finished rows.
    """
    one_of(per, ("target", "class", "example"), "per", "stability")
    view = EnsembleView.of(store, plan, task)
    masks, groups = view.masks, len(view.record.names)
    half = len(masks) // 2
    top = max(1, min(10, groups // 4)) if top is None else whole(top, "top", "stability", 1, error=ConfigError)
    if top > groups:
        raise ConfigError(f"{top} of {groups} groups", "top", "choose fewer")
    found = view.columns(per, output, "score")
    found = found[:, found.std(0) > 0]
    if not found.shape[1]:
        raise EstimateError("all models give the same output", "stability", "there is nothing to rank by")
    wanted = [round(half * part) for part in (0.25, 0.35, 0.5, 0.7, 1)] if sizes is None else sorted(set(sizes))
    if sizes is not None and not all(isinstance(s, (int, np.integer)) and 2 <= s <= half for s in wanted):
        raise ConfigError(
            f"{list(sizes)} of {len(masks)} models", "sizes", f"two disjoint sets have at most {half} each"
        )
    measured: list[tuple[Any, ...]] = []
    for size in wanted:
        if sizes is None and size < min(_FEWEST, half):
            continue
        try:
            one, other, errors = _parts(masks, found, _SPLITS, size, "stability", seed)
        except EstimateError:
            if sizes is not None or size == wanted[-1]:
                raise
            continue
        mean, draws = agreement(one, other, columns=False)
        method = best_method(masks.take(next(halves(masks, 1, "stability", seed, size=size))[0]))
        shares = np.stack([_common(one, other, top, sign) for sign in (-1, 1)])
        differ = float(np.sqrt(((one - other) ** 2).mean(dtype=np.float64) / 2))
        spread = ERROR_OF_WAYS * shares.std(1, ddof=1)
        measured.append((size, method, float(mean), draws, shares.mean(1), spread, differ, errors))
    sizes_, methods, rank, draws_, overlap, overlap_stderr, differs, told = zip(*measured, strict=True)
    fit = influences(masks, found, best_method(masks))
    used = fit.parameters if methods[-1] == "ols" else 0.0
    further = np.array([len(masks), 2 * len(masks), 4 * len(masks)])
    factor = (further - used - 1) / (sizes_[-1] - used - 1) if used else further / sizes_[-1]
    ahead = spearman_brown(draws_[-1][:, None], factor)
    variance = np.var(fit.unbiased, 0, dtype=np.float64, ddof=1)
    return Stability(
        per=per,
        output=output,
        groups=groups,
        columns=found.shape[1],
        models=len(masks),
        top=top,
        splits=_SPLITS,
        sizes=np.array(sizes_, np.int64),
        methods=methods,
        rank=np.array(rank),
        rank_stderr=np.array([one.std() for one in draws_]),
        low=np.array([np.quantile(one, 0.025) for one in draws_]),
        high=np.array([np.quantile(one, 0.975) for one in draws_]),
        overlap=np.stack(overlap, 1),
        overlap_stderr=np.stack(overlap_stderr, 1),
        further=further,
        expected=spearman_brown(np.array(rank[-1]), factor),
        expected_low=np.quantile(ahead, 0.025, axis=0),
        expected_high=np.quantile(ahead, 0.975, axis=0),
        differ=np.array(differs),
        stderr=np.array(told),
        unit=UNITS[output][0],
        by_errors=float(np.mean(1 - np.mean(fit.stderr.astype(np.float64) ** 2, 0) / variance)),
        _view=view,
    )


def agreement(
    one: npt.NDArray[Any], other: npt.NDArray[Any], columns: bool = True, seed: int = 0
) -> tuple[Array, Array]:
    """Spearman's correlation over groups between two sets of influences, its mean over splits, and bootstrap draws.

    Args:
        one, other: (splits, groups, columns).
        columns: every column of one with every column of other, both ways averaged: (columns, columns); else only each
            with its own, averaged over the columns: a single number.

    Returns:
        the mean, and the same with resampled groups, with a first axis of 400.
    """
    from scipy import stats

    splits, groups, number_of = one.shape
    a, b = (stats.rankdata(part, axis=1) for part in (one, other))
    a, b = ((part - (groups + 1) / 2) / groups for part in (a, b))
    random = np.random.default_rng(np.random.Philox([seed, groups]))
    weights = np.concatenate(
        [np.ones((1, groups)), random.multinomial(groups, np.full(groups, 1 / groups), _BOOTSTRAPS)]
    )
    weights /= groups
    total: Any = 0.0
    for x, y in zip(a, b, strict=True):
        means = weights @ x, weights @ y
        spreads = [np.sqrt(np.maximum(weights @ z**2 - m**2, 0)) for z, m in zip((x, y), means, strict=True)]
        if columns:
            product = weights @ (x[:, :, None] * y[:, None, :]).reshape(groups, -1)
            product = product.reshape(-1, number_of, number_of) - means[0][:, :, None] * means[1][:, None, :]
            scale = spreads[0][:, :, None] * spreads[1][:, None, :]
        else:
            product, scale = weights @ (x * y) - means[0] * means[1], spreads[0] * spreads[1]
        found = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
        total = total + (found + found.swapaxes(1, 2)) / 2 if columns else total + found.mean(1)
    mean = total[0] / splits
    return mean, mean + _WIDER * (total[1:] / splits - mean)


def spearman_brown(rank: npt.NDArray[Any], factor: npt.NDArray[Any]) -> Array:
    """The rank correlation expected with `factor` times as much information; see the top of this file."""
    r = 2 * np.sin(np.pi / 6 * np.asarray(rank, np.float64))
    more = factor * r / np.maximum(1 + (factor - 1) * r, 1e-9)
    return np.asarray(6 / np.pi * np.arcsin(np.clip(more, -1, 1) / 2))


def _parts(
    masks: Design, outputs: Array, splits: int, size: int | None, purpose: str, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]:
    """Influences from disjoint sets of models, (splits, groups, columns) each; root mean square of their errors."""
    found: tuple[list[Any], list[Any]] = ([], [])
    squares = []
    for pair in halves(masks, splits, purpose, seed, size=size):
        for rows, into in zip(pair, found, strict=True):
            part = masks.take(rows)
            fit = influences(part, outputs[rows], best_method(part))
            into.append(fit.unbiased)
            known = np.isfinite(fit.stderr)  # not of an output that is the same in all of these models
            squares.append((fit.stderr[known].astype(np.float64) ** 2).mean() if known.any() else np.nan)
    return np.stack(found[0]), np.stack(found[1]), float(np.sqrt(np.mean(squares)))


def _common(one: npt.NDArray[Any], other: npt.NDArray[Any], top: int, sign: int) -> Array:
    """Share of the `top` groups in common, mean over columns, float64 (splits,)."""
    ranks = [np.argsort(np.argsort(sign * part, 1, kind="stable"), 1, kind="stable") < top for part in (one, other)]
    return np.asarray((ranks[0] & ranks[1]).sum(1).mean(1) / top)


def _without_noise(apart: Array) -> Array:
    """Pearson's agreement over its ceiling, (..., outputs, outputs); by noise it may be above 1."""
    r = 2 * np.sin(np.pi / 6 * apart)
    own = np.diagonal(r, axis1=-2, axis2=-1)
    ceiling = np.sqrt(np.maximum(own[..., :, None] * own[..., None, :], 0))
    return np.asarray(np.divide(r, ceiling, out=np.full_like(r, np.nan), where=ceiling > 0))


def _spread(draws: Array) -> Array:
    """Half the distance between the 16 % and the 84 % quantile: a few draws with a ceiling near zero count no more."""
    known = np.where(np.isnan(draws).all(0), 0.0, draws)
    low, high = np.nanquantile(known, [0.16, 0.84], axis=0)
    return np.asarray((high - low) / 2)


def _on_images(masks: Design, outputs: npt.NDArray[np.float32], seed: int) -> Score | None:
    if not (outputs.std(0) > 0).any():
        return None
    return lds(masks, outputs, method="ridge", permutations=_PERMUTATIONS, seed=seed)


def _outputs_answer(found: OutputComparison, pairs: list[tuple[int, int]]) -> list[str]:
    models, best = count(found.models, "model"), int(np.argmax([test.correlation for test in found.accuracy]))
    told = [found.agreement[a, b] for a, b in pairs if np.isfinite(found.agreement[a, b])]
    if told:
        low, high = number(float(min(told)), 2), number(float(max(told)), 2)
        error = number(float(np.nanmax([found.agreement_stderr[a, b] for a, b in pairs])), 2)
        first = f"Without noise, outputs rank the groups alike with a rank correlation of {low} to {high} ({models}; "
        first += f"errors up to {error})."
    else:
        first = f"With {models} no output ranks the groups alike twice: nothing can be said of their agreement."
    same = [found.together[a, b] for a, b in pairs]
    other = [found.apart[a, b] for a, b in pairs]
    own = np.diag(found.apart)
    test = found.accuracy[best]
    sentences = [
        first,
        f"From the same models they agree with {number(float(min(same)), 2)} to {number(float(max(same)), 2)}, from "
        f"disjoint halves with {number(float(min(other)), 2)} to {number(float(max(other)), 2)}; an output agrees with "
        f"itself with {number(float(own.min()), 2)} to {number(float(own.max()), 2)} there (mean of {found.splits} "
        f"random splits; errors about {number(float(np.median(found.apart_stderr)), 2)}).",
        f"Influences on {quoted(found.outputs[best])} predict the accuracy of other models on the report half best: "
        f"correlation {number(test.correlation, 2)} ({p_text(test.p)}; the worst output "
        f"{number(min(one.correlation for one in found.accuracy), 2)}; an error of such a correlation is about "
        f"{number((1 - test.correlation**2) / np.sqrt(found.models - 3), 2)}, outputs share the models, and the best "
        f"of {len(found.outputs)} looks better than it is).",
    ]
    scored = [(score, name) for score, name in zip(found.images, found.outputs, strict=True) if score is not None]
    if scored:
        score, name = max(scored, key=lambda pair: pair[0].lds)
        least, worst = min(scored, key=lambda pair: pair[0].lds)
        sentences.append(
            f"Of single images {quoted(name)} is predicted best in held-out models, with a mean rank correlation of "
            f"{plus_minus(score.lds, score.stderr, False)}; {quoted(worst)} worst, "
            f"{plus_minus(least.lds, least.stderr, False)}."
        )
    return sentences


def _stability_answer(found: Stability) -> list[str]:
    what = {"target": "the target", "class": "a class", "example": "an image"}[found.per]
    mean = "" if found.per == "target" else f" on average over {found.columns:,}"
    ends = " and ".join(
        f"{100 * found.overlap[i, -1]:.0f} % of the {found.top} {end}" for i, end in enumerate(("highest", "lowest"))
    )
    ahead = f"{number(float(found.expected[0]), 2)} ({number(float(found.expected_low[0]), 2)} to " + (
        f"{number(float(found.expected_high[0]), 2)})"
    )
    with_truth = number(float(np.sqrt(max(found.expected[0], 0))), 2)
    return [
        f"Two disjoint sets of {found.sizes[-1]} models rank the {found.groups} groups for {what}{mean} with a rank "
        f"correlation of {plus_minus(float(found.rank[-1]), float(found.rank_stderr[-1]), False)}.",
        f"They have {ends} groups in common ({100 * found.top / found.groups:.0f} % by chance; {found.splits} random "
        "splits).",
        f"The value of a group differs between them by {number(float(found.differ[-1]), 2)} {found.unit} (root mean "
        f"square over sqrt(2)); its standard errors say {number(float(found.stderr[-1]), 2)}.",
        f"Extrapolated, not measured: two sets of all {found.models} models would agree with {ahead}, and the ranking "
        f"of these models with the true one with about {with_truth}; {found.further[1]:,} models a set would reach "
        f"{number(float(found.expected[1]), 2)}, {found.further[2]:,} {number(float(found.expected[2]), 2)}.",
        f"The standard errors of the influences say {number(found.by_errors, 2)} for all {found.models} models: "
        "1 - mean squared error / variance of the influences, which should agree with the extrapolation.",
    ]


_OUTPUTS_METHOD = """Influences of the groups on the mean output over the score half, for each output. Agreement is
Spearman's rank correlation over the {groups} groups; "other models" takes one output from one random half of the models
and the other output from the other half (mean of {splits} splits, both ways), so that shared noise does not count.

    without noise = agreement across halves / sqrt(own agreement of one x own agreement of the other)

Errors are a bootstrap over groups. Jain et al. 2023 use the softmax probability of the correct class and store the
others; held-out correlations are judged on the report half, by permutation of models."""
_STABILITY_METHOD = """Influences on the {output} of the score half from two disjoint random sets of models, {splits}
random splits for each size; Spearman's rank correlation over the groups.

    expected at n models = f r / (1 + (f - 1) r), f = information of n models / that of those measured

(Spearman and Brown; of r turned into Pearson's and back; least squares uses up as many models as it has parameters.)
Number of models: Jain et al. 2023, appendix. Rankings of which one's models are a part of the other's would agree by
sharing them."""
