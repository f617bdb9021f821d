"""Single source images as the groups: the paper's example-level influence (Jain et al. 2023, section 4.3), and what can
be said of it.

    v_k = mean of y over models with image k - mean of y over models without = sum over models of A_ki y_i

Thousands of images on some hundred models: no image is tested. The ranking is tested as a whole (`global_test`), and a
rule is valued: "the s highest images", chosen by one half of the models on the score half of the target, are worth a'y
to the other half on its report half, with a the mean of their A_k and standard error sd(y) |a|; averaged over random
splits and both ways (`pydt.analyses.sample_splitting.ERROR_OF_WAYS`).

Memory: the masks of half of the models as float32, (models / 2, images), and nothing of images x images.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import design
from pydt.analyses.ensemble_view import LEVEL, Array, EnsembleView
from pydt.analyses.sample_splitting import ERROR_OF_WAYS, SPLITS, halves
from pydt.base import ConfigError, Result, whole
from pydt.data import Dataset, pictures, places
from pydt.design import Design
from pydt.ensemble import Plan
from pydt.estimation import ModelPlan, PredictionTest, global_test, mean_output, overall, plan_models
from pydt.reporting import (
    Block,
    Column,
    Curve,
    Images,
    Page,
    Table,
    called,
    count,
    csv_of,
    digits_for,
    interval_plot,
    number,
    p_text,
    plus_minus,
)
from pydt.store import Store, Weak, weak_rows

_SHOWN = 20
_OWN = 'give a plan whose source is pydt.Groups(ids, by="example"), with every example its own group'


@dataclass(frozen=True, eq=False, repr=False)
class Examples(Result):
    """Influences of single source images on the whole target; see the module's head.

    Attributes:
        values, stderr: float64 (images,), in `unit`. kept: int64 (images,), models with each image.
        models, output, unit: what was estimated.
        test: of the ranking as a whole.
        size: images in a rule. claimed, judged, judged_stderr: (2,) mean influence of the highest and of the lowest, by
            the ranking itself, and by other models on other target images.
        spread: standard deviation of the true influences, estimated; 0 where no more than noise is seen.
        needed: models that would find an image of that influence (of one standard error, where it is 0); None where too
            many rows hardly learnt their source. weak: these rows.
    """

    values: Array
    stderr: Array
    kept: npt.NDArray[np.int64]
    models: int
    output: str
    unit: str
    test: PredictionTest
    size: int
    claimed: Array
    judged: Array
    judged_stderr: Array
    spread: float
    needed: ModelPlan | None
    weak: Weak
    _plan: Plan = field(repr=False)
    _view: EnsembleView = field(repr=False)

    def _columns(self) -> dict[str, Any]:
        places = {"image": range(len(self.values)), "value": self.values, "stderr": self.stderr}
        return {**places, "kept": self.kept}

    def __repr__(self) -> str:
        facts = f"{count(len(self.values), 'image')}, {count(self.models, 'model')}, {self.unit}"
        ends = [
            f"the {self.size:,} {end} {plus_minus(value, error)}"
            for end, value, error in zip(("highest", "lowest"), self.judged, self.judged_stderr, strict=True)
        ]
        return (
            f"Examples({facts}; as other models judge: {', '.join(ends)}; ranking against noise: {p_text(self.test.p)})"
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw what the highest and the lowest images are worth: by the ranking that chose them, and to other models.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        ends = f"the {self.size:,} highest", f"the {self.size:,} lowest"
        names = [f"{end}, {how}" for end in ends for how in ("by their own ranking", "by other models")]
        values = np.stack([self.claimed, self.judged], 1).reshape(-1)
        errors = np.stack([np.full(2, np.nan), self.judged_stderr], 1).reshape(-1)
        return interval_plot(names, values, errors, f"mean influence ({self.unit}), one standard error", ax=ax)

    def page(self) -> Page:
        """What a reader sees: the images of both ends, the ranking against noise, and all as CSV."""
        return _page(self)


def by_example(plan: Plan, models: int = 100, seed: int = 0) -> Plan:
    """The same experiment with single images as groups: random halves of them, the paper's design.

    Raises:
        ConfigError: the source is a `pydt.Groups`: make one whose every example is a group.
    """
    if not isinstance(plan.source, Dataset):
        raise ConfigError(f"groups by {plan.by!r}", "by_example", _OWN)
    masks = design.random(len(plan.source), models, alpha=0.5, seed=seed)
    return Plan(plan.source, by="example", design=masks, recipe=plan.recipe, tasks=plan.tasks, seed=seed)


def examples(
    store: Store | str | os.PathLike[str],
    plan: Plan,
    *,
    task: Any = None,
    output: str | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Examples:
    """Rank the single images of a source, and say what the ranking is worth (F10).

    Args:
        store: where the plan's rows are, or its folder.
        plan: a plan by example, with its source, whose images are shown; see `by_example`. Of a
            `pydt.Groups(ids, by="example")` the examples are named.
        task: one of its tasks, the first by default. output: see `pydt.store.units_of`; by default the target's metric.
        size: images of the rule that is judged; by default a hundredth of all, ten at least.
        seed: of the halves.

    Raises:
        ConfigError: a plan whose groups are not single images.
        StoreError: no such task, or fewer than ten finished rows.
    """
    whole(seed, "seed", "examples", error=ConfigError)
    if plan.by != "example":
        mend = 'give a plan by="example": pydt.examples.by_example(plan)'
        raise ConfigError(f"groups by {plan.by!r}", "examples", mend if isinstance(plan.source, Dataset) else _OWN)
    view = EnsembleView.of(store, plan, task)
    output = view.output(output)
    masks, images = view.masks, view.masks.groups
    size = min(max(10, images // 100), images // 4) if size is None else size
    size = whole(size, "size", "examples", 1, error=ConfigError)
    fit = overall(view.store, view.record, view.task, output)
    values, stderr = np.asarray(fit.values, np.float64), np.asarray(fit.stderr, np.float64)
    score, report = (mean_output(view.store, view.record, view.task, output, h) for h in ("score", "report"))
    spread = float(np.sqrt(max(0.0, values.var() - (stderr**2).mean())))
    effect = spread or float(np.median(stderr))
    order = np.argsort(-values, kind="stable")
    judged, judged_stderr = _judged(masks, score, report, size, seed)
    weak = weak_rows(view.store, view.record, view.task)
    wish = f"effect {effect:.12g}"
    return Examples(
        values,
        stderr,
        fit.counts,
        fit.models,
        output,
        view.unit(output).name,
        global_test(masks, score, report, fit.method)[1],
        size,
        np.array([values[order[:size]].mean(), values[order[-size:]].mean()]),
        judged,
        judged_stderr,
        spread,
        None if weak.many else plan_models(view.store, wish, view.record, task=view.task, output=output),
        weak,
        plan,
        view,
    )


def _contrasts(masks: Design) -> npt.NDArray[np.float32]:
    """A of the module's head, float32 (images, models); 0 for an image that all models keep, or none."""
    kept = np.asarray(masks).T.astype(np.float32)
    models = kept.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(kept > 0, 1 / models, -1 / (len(masks) - models))
    return np.where((models > 0) & (models < len(masks)), found, 0).astype(np.float32)


def _judged(masks: Design, score: Array, report: Array, size: int, seed: int) -> tuple[Array, Array]:
    total, square = np.zeros(2), np.zeros(2)
    for pair in halves(masks, SPLITS, "examples", seed):
        for finding, judging in (pair, pair[::-1]):
            found = _contrasts(masks.take(finding)) @ (score[finding] - score[finding].mean()).astype(np.float32)
            order = np.argsort(-found, kind="stable")
            other = _contrasts(masks.take(judging))
            for end, chosen in enumerate((order[:size], order[-size:])):
                weights = other[chosen].mean(0, dtype=np.float64)
                total[end] += weights @ report[judging]
                square[end] += report[judging].var(ddof=1) * (weights @ weights)
    ways = 2 * SPLITS
    return total / ways, ERROR_OF_WAYS * np.sqrt(square / ways)


def _thing(found: Examples) -> str:
    """What a source example is, in a word."""
    return "image" if isinstance(found._plan.source, Dataset) else "example"


def _answer(found: Examples) -> list[str]:
    thing = _thing(found)
    models, many = count(found.models, "model"), len(found.values)
    test = f"held-out correlation {number(found.test.correlation, 2)}, permutation {p_text(found.test.p)}"
    stderr = float(np.median(found.stderr))
    error = f"{number(stderr, digits_for(stderr))} {found.unit}"
    if found.test.p < LEVEL:
        first = f"Which single {thing}s the source keeps matters: some of the {models} predict the others ({test})."
    else:
        first = f"Nothing can be told from noise with {models} on {many:,} single {thing}s ({test})."
    ends = [
        f"the {end} {number(claimed, digits_for(error_of), True)} as shown, {plus_minus(judged, error_of)} judged"
        for end, claimed, judged, error_of in zip(
            ("highest", "lowest"), found.claimed, found.judged, found.judged_stderr, strict=True
        )
    ]
    worth = (
        f"The {found.size:,} extreme {thing}s together, on average an {thing}, in {found.unit}: {'; '.join(ends)}. "
        f"Judged: chosen by one half of the models, valued by the other on the report half, {SPLITS} random splits."
    )
    if found.spread:
        wish = f"one as large as their estimated true spread, {number(found.spread, digits_for(stderr))} {found.unit},"
    else:
        wish = f"no spread is seen above the noise; one of a standard error, {error},"
    if found.needed is None:
        found_by = f"would be found by nobody knows how many models: {found.weak.text()}"
    else:
        models = f"about {found.needed.models:,} models"
        found_by = f"would be found with a chance of 80 % by {models} (5 % level, one {thing} alone)"
    power = (
        f"No significance is asked of any single {thing}: the standard error of one influence is {error} (median); "
        f"{wish} {found_by}."
    )
    return found._view.told([first, worth, power])


def _page(found: Examples) -> Page:
    plan, order = found._plan, np.argsort(-found.values, kind="stable")
    source, keys, thing = plan.source, found._view.record.names, _thing(found)
    pictured = isinstance(source, Dataset)
    classes = [source.classes[label] for label in source.labels.tolist()] if pictured else []
    target, name = found._view.target_name, called(source.name, "source")
    blocks: list[Block] = []
    digits = digits_for(float(np.median(found.stderr)))
    for end, chosen in (("highest", order[:_SHOWN]), ("lowest", order[::-1][:_SHOWN])) if pictured else ():
        captions = [f"{classes[i]} {number(found.values[i], digits, True)}" for i in chosen.tolist()]
        note = f"Class and influence in {found.unit}. Chosen by their own noise too: to look at, not to believe."
        blocks.append(
            Images(
                pictures(source, chosen, passed=found._view.passed),
                captions,
                f"The {end} images",
                note,
                places=places(source, chosen),
            )
        )
    rank = np.arange(1, len(order) + 1)
    noise = -np.sort(-_quantiles(len(order)) * float(np.sqrt((found.stderr**2).mean())))
    curve = {"as estimated": (rank, found.values[order], None, None), "noise alone": (rank, noise, None, None)}
    title = f"All {thing}s in order, and what noise alone would look like"
    blocks.append(Curve(curve, "rank", f"influence in {found.unit}", title, control="noise alone"))
    columns = (
        Column(thing, lambda i: keys[i]),
        *([Column("class", lambda i: classes[i])] if pictured else []),
        Column("influence", found.values.__getitem__),
        Column("stderr", found.stderr.__getitem__),
        Column("models", found.kept.__getitem__),
    )
    if not pictured:
        note = "Chosen by their own noise too: to look at, not to believe."
        for end, chosen in (("highest", order[:_SHOWN]), ("lowest", order[::-1][:_SHOWN])):
            blocks.append(Table.of(chosen, columns, f"The {end} examples", note))
    ends = zip(("highest", "lowest"), found.claimed, found.judged, found.judged_stderr, strict=True)
    return Page(
        name="examples",
        title=f"Single source {thing}s",
        question=f"Which single {thing}s of {name} help {target}, and can that be told at all?",
        answer=_answer(found),
        blocks=blocks,
        csv={
            "influences.csv": csv_of(order, columns),
            "leaders.csv": (("end", "shown", "judged", "stderr"), list(ends)),
        },
        method=(
            f"The influence of an {thing} is the difference of means of the target's output over {found.models} models "
            "(Jain et al. 2023, section 4.3):\n\n"
            f"    influence = mean output with the {thing} - mean output without it\n\n"
            "The paper shows the extreme images. Here the ranking is tested as a whole, and the extreme ones are "
            f"valued by models and target {found._view.thing}s that did not choose them."
        ),
    )


def _quantiles(n: int) -> Array:
    from scipy import special

    found: Array = special.ndtri((np.arange(n) + 0.5) / n)
    return found
