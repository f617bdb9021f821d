"""Outputs compared: does another output of the models rank the groups alike, and which one predicts models best?

Influences of two outputs a and b come from disjoint halves of the models (`pydt.analyses.agreement`). They cannot agree
better across halves than each agrees with itself, r_ab <= sqrt(r_aa r_bb); their ratio is the agreement without noise
(Spearman 1904). Nothing is said where an output's agreement with itself is not surely above zero.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.agreement import agreement, disjoint_influences
from pydt.analyses.ensemble_view import Array, EnsembleView
from pydt.base import ConfigError, Result, whole
from pydt.design import Design
from pydt.ensemble import Plan
from pydt.estimation import PredictionTest, Score, best_method, global_test, influences, lds
from pydt.reporting import (
    Column,
    Page,
    Table,
    called_output,
    count,
    csv_of,
    interval_plot,
    number,
    p_text,
    plus_minus,
    quoted,
)
from pydt.store import Record, Store, units_of

_PERMUTATIONS = 9  # of the score of single images, an output


@dataclass(frozen=True, eq=False, repr=False)
class OutputComparison(Result):
    """Influences on the whole target by output; see the module's head. All matrices are (outputs, outputs).

    Attributes:
        outputs, groups: names. values, stderr: float64 (groups, outputs), each in the unit of its output.
        together: agreement of influences from the same models, which share their noise.
        apart, apart_stderr: from disjoint halves of the models; the diagonal is an output's agreement with itself.
        ceiling: the largest possible `apart`. agreement, agreement_stderr: without noise, at most 1; NaN where an
            output's agreement with itself is not surely above zero.
        own, accuracy: per output, how influences learnt on the score half from some models predict the report half in
            others: the output itself, and the target's metric. images: the same of single score images (rank
            correlation); None where all models agree on all of them.
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

    def _columns(self) -> dict[str, Any]:
        groups, outputs = self.values.shape
        names = {"group": [name for name in self.groups for _ in range(outputs)], "output": [*self.outputs] * groups}
        return {**names, "value": self.values.reshape(-1), "stderr": self.stderr.reshape(-1)}

    def __repr__(self) -> str:
        facts = f"{count(len(self.groups), 'group')}, {count(self.models, 'model')}"
        pairs = itertools.combinations(range(len(self.outputs)), 2)
        told = [f"{self.outputs[a]} and {self.outputs[b]} {number(self.agreement[a, b], 2)}" for a, b in pairs]
        more = ", ..." if len(told) > 3 else ""
        return f"OutputComparison({facts}; agreement without noise: {', '.join(told[:3])}{more})"

    def plot(self, ax: Any = None) -> Any:
        """Draw how alike each pair of outputs ranks the groups, without noise; nothing of a pair where that is unknown.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        pairs = list(itertools.combinations(range(len(self.outputs)), 2))
        names = [f"{self.outputs[a]} and {self.outputs[b]}" for a, b in pairs]
        values, errors = (np.array([one[pair] for pair in pairs]) for one in (self.agreement, self.agreement_stderr))
        return interval_plot(names, values, errors, "rank correlation without noise, one standard error", ax=ax)

    def page(self) -> Page:
        """What a reader sees."""
        outputs, metric = range(len(self.outputs)), called_output(self._view.output())
        pairs = list(itertools.combinations(outputs, 2))
        pair_columns = (
            Column("output", lambda pair: self.outputs[pair[0]]),
            Column("other output", lambda pair: self.outputs[pair[1]]),
            Column("same models", self.together.__getitem__, digits=2),
            Column("other models", self.apart.__getitem__, digits=2),
            Column("stderr", self.apart_stderr.__getitem__, digits=2),
            Column("ceiling", self.ceiling.__getitem__, digits=2),
            Column("without noise", self.agreement.__getitem__, digits=2),
            Column("its stderr", self.agreement_stderr.__getitem__, digits=2),
        )
        columns = (
            Column("output", lambda i: self.outputs[i]),
            Column("with itself", lambda i: self.apart[i, i], digits=2),
            Column("stderr", lambda i: self.apart_stderr[i, i], digits=2),
            Column("predicts itself", lambda i: self.own[i].correlation, digits=2),
            Column("p", lambda i: self.own[i].p, digits=3),
            Column(f"predicts {metric}", lambda i: self.accuracy[i].correlation, digits=2),
            Column("p of that", lambda i: self.accuracy[i].p, digits=3),
            Column("single images", lambda i: getattr(self.images[i], "lds", None), digits=2),
            Column("stderr of that", lambda i: getattr(self.images[i], "stderr", None), digits=2),
        )
        both = np.stack([self.values, self.stderr], 2).reshape(len(self.groups), -1)
        values = [(group, *row) for group, row in zip(self.groups, both.tolist(), strict=True)]
        named = ("group", *(f"{name}{what}" for name in self.outputs for what in ("", ", stderr")))
        note = (
            "Rank correlation of influences from disjoint halves of the models, held-out correlation with the report "
            f"half (itself, and {metric}), and the mean rank correlation with held-out models on single score images."
        )
        return Page(
            name="outputs",
            title="Outputs compared",
            question="Does the ranking depend on which output of the models is looked at, and which output tells most?",
            answer=self._view.told(_answer(self, pairs)),
            blocks=[
                Table.of(outputs, columns, "Each output", note),
                Table.of(pairs, pair_columns, "Each pair", "Rank correlation of the influences of all groups."),
            ],
            csv={
                "outputs.csv": csv_of(outputs, columns),
                "pairs.csv": csv_of(pairs, pair_columns),
                "influences.csv": (named, values),
            },
            method=_METHOD.format(splits=self.splits, groups=len(self.groups)),
        )


def compare_outputs(
    store: Store | str | os.PathLike[str],
    plan: Plan | Record | str | None = None,
    *,
    task: Any = None,
    outputs: Sequence[str] | None = None,
    seed: int = 0,
) -> OutputComparison:
    """Compare the influences on the whole target that different outputs give (F14).

    Args:
        store: a store, or its folder.
        plan: a plan of the store, or its digest; by default the store's own.
        task: which of the plan's tasks; the first by default.
        outputs: two or more that have a unit (`pydt.store.units_of`); by default all that the task has.
        seed: of the random halves of the models, and of permutations.

    Raises:
        ConfigError: an unknown output, or fewer than two: of a measure there is one.
        EstimateError: half of the models do not tell the groups apart.
        StoreError: no such plan or task, or fewer than ten finished rows.
    """
    whole(seed, "seed", "compare_outputs", error=ConfigError)
    view = EnsembleView.of(store, plan, task, needs=("logits",))
    known = list(units_of(view.described))
    outputs = tuple(known if outputs is None else outputs)
    if len(set(outputs)) != len(outputs) or len(outputs) < 2:
        raise ConfigError(f"{outputs}", "outputs", f"name two or more of: {', '.join(known)}")
    score, report = (
        np.concatenate([view.columns("target", one, half) for one in outputs], 1) for half in ("score", "report")
    )
    accuracy = view.columns("target", view.output(), "report")[:, 0]
    masks = view.masks
    method = best_method(masks)
    fit = influences(masks, score, method)
    one, other, _ = disjoint_influences(masks, score, "outputs", seed)
    apart, draws = agreement(one, other)
    reliable = np.diag(apart) > 2 * draws[:, range(len(outputs)), range(len(outputs))].std(0)
    told = np.outer(reliable, reliable)
    true = 6 / np.pi * np.arcsin(np.clip(_without_noise(apart), -1, 1) / 2)
    return OutputComparison(
        outputs=outputs,
        groups=view.record.names,
        models=fit.models,
        splits=len(one),
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


def _without_noise(apart: Array) -> Array:
    """Pearson's agreement over its ceiling, (..., outputs, outputs); by noise it may be above 1."""
    r = 2 * np.sin(np.pi / 6 * apart)
    own = np.diagonal(r, axis1=-2, axis2=-1)
    ceiling = np.sqrt(np.maximum(own[..., :, None] * own[..., None, :], 0))
    return np.asarray(np.divide(r, ceiling, out=np.full_like(r, np.nan), where=ceiling > 0))


def _spread(draws: Array) -> Array:
    """Half the distance between the 16 % and 84 % quantiles, robust to a few draws with a ceiling near zero."""
    known = np.where(np.isnan(draws).all(0), 0.0, draws)
    low, high = np.nanquantile(known, [0.16, 0.84], axis=0)
    return np.asarray((high - low) / 2)


def _on_images(masks: Design, outputs: npt.NDArray[np.float32], seed: int) -> Score | None:
    if not (outputs.std(0) > 0).any():
        return None
    return lds(masks, outputs, method="ridge", permutations=_PERMUTATIONS, seed=seed)


def _answer(found: OutputComparison, pairs: list[tuple[int, int]]) -> list[str]:
    metric = called_output(found._view.output())
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
        f"Influences on {quoted(found.outputs[best])} predict the {metric} of other models on the report half best: "
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


_METHOD = """Influences of the groups on the mean output over the score half, for each output. Agreement is
Spearman's rank correlation over the {groups} groups; "other models" takes one output from one random half of the models
and the other output from the other half (mean of {splits} splits, both ways), so that shared noise does not count.

    without noise = agreement across halves / sqrt(own agreement of one x own agreement of the other)

Errors are a bootstrap over groups. Jain et al. 2023 use the softmax probability of the correct class and store the
others; held-out correlations are judged on the report half, by permutation of models."""
