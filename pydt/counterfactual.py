"""Remove and retrain: what really happens without the groups that the influences blame.

Influences rank the groups on the score half of the target. Then fresh models are trained without the lowest, without
the highest and without randomly chosen groups, transferred with few-shot draws that the ensemble never saw, and
judged on the report half. A random set is drawn anew for every repeat and matched to the other arms in groups and
images, so the control says what losing that much data costs.

Uncertainty has two parts, and every interval carries both: retraining (Welch's standard error over runs) and target
images (bootstrap); the total comes from a bootstrap crossed over runs and images (Owen 2007), which errs on the wide
side.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt import _core
from pydt.ensemble import Plan, run_rows
from pydt.errors import ConfigError, StoreError
from pydt.estimate import influences
from pydt.files import canonical_json, write_atomic
from pydt.store import Record, Row, Store

if TYPE_CHECKING:
    from pydt.estimate import Fit
    from pydt.transfer import Task

KINDS = ("full", "drop bottom", "drop random", "drop top")
CONTROL = "drop random"
UNITS: dict[str, tuple[str, float]] = {
    "correct": ("points of accuracy", 100.0),
    "probability": ("points of probability", 100.0),
    "margin": ("margin units", 1.0),
    "softmax margin": ("log-odds", 1.0),
    "logit": ("logit units", 1.0),
}
"""In what influences on an output are given, and how many of these units the stored output's 1 is."""
_SEED_STREAM = 8


@dataclass(frozen=True, eq=False)
class Arm:
    """All runs of one kind that dropped the same number of groups.

    Attributes:
        kind: one of KINDS; dropped: groups left out.
        rows: the runs; names: per run, the names of what it left out.
        accuracy: float64 (runs,) the target's metric on the report half, as a fraction, mean over draws.
        correct: float32 (runs, images) share of draws that were right.
    """

    kind: str
    dropped: int
    rows: tuple[Row, ...]
    names: tuple[tuple[str, ...], ...]
    accuracy: np.ndarray
    correct: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.accuracy.mean())

    @property
    def sd(self) -> float | None:
        """Spread between retrainings; None for a single run."""
        return float(self.accuracy.std(ddof=1)) if len(self.accuracy) > 1 else None


@dataclass(frozen=True)
class Contrast:
    """How much better an arm is than the random control of the same size, as fractions of the metric.

    `stderr_retraining` is Welch's, `stderr_images` a bootstrap over images, `stderr` the crossed bootstrap of both;
    `low` and `high` bound 95 % with `stderr` and Welch's degrees of freedom; `p` is Welch's two-sided test over runs.
    """

    kind: str
    dropped: int
    n: int
    control_n: int
    difference: float
    stderr_retraining: float
    stderr_images: float
    stderr: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """The judged arms and their contrasts with the random control; `failed` counts runs that gave no outputs."""

    arms: tuple[Arm, ...]
    contrasts: tuple[Contrast, ...]
    failed: int
    task: str

    def arm(self, kind: str, dropped: int) -> Arm:
        """The arm of a kind and size; raises ConfigError if there is none."""
        for arm in self.arms:
            if (arm.kind, arm.dropped) == (kind, dropped):
                return arm
        known = ", ".join(f"{arm.kind} {arm.dropped}" for arm in self.arms)
        raise ConfigError(f"no arm {kind!r} of {dropped}", "Counterfactual", f"there are: {known}")


def overall(store: Store, plan: Plan | Record | str | None = None, task: Any = None, output: str = "correct") -> Fit:
    """The influence of each group on the whole target: on the weighted mean of an output over the score half.

    OLS where there are models enough for at least half as many residual degrees of freedom as groups, else the LASSO,
    whose de-biased estimates hold for fewer models than groups.

    Returns:
        a fit with `unbiased`, `stderr`, `q` of shape (groups,), in the unit that UNITS names.

    Raises:
        StoreError: fewer than ten rows are finished.
        ConfigError: an output without a unit.
    """
    record = store.plan(plan)
    design = store.design(record)
    finished = store.finished(record)
    if len(finished) < 10:
        raise StoreError(f"{len(finished)} finished rows", str(store.folder), "run more rows of the plan first")
    whole = len(finished) == len(design)
    # A part of a design is handed over as plain masks; its placebo columns stay behind.
    masks = design if whole else np.asarray(design)[finished]
    clusters = None if whole else np.asarray(design.clusters)[finished]
    independent = len(np.unique(np.asarray(design.clusters)[finished]))
    method = "ols" if independent >= 1.5 * design.groups + 2 else "lasso"
    return influences(masks, mean_output(store, record, task, output, "score"), method, clusters=clusters)


def mean_output(store: Store, record: Record, task: Any, output: str, half: str) -> np.ndarray:
    """The weighted mean of an output over the examples of a half, per finished row: float64 (models,), in its unit."""
    if output not in UNITS:
        raise ConfigError(f"no influences on output {output!r}", "output", f"choose one of: {', '.join(UNITS)}")
    task = record.tasks[0]["digest"] if task is None else task
    weights = store.examples(task, half, record)["weights"] * UNITS[output][1]
    return np.asarray(store.outputs(task, output, half, record), np.float64) @ weights


def counterfactual(
    store: Store,
    plan: Plan,
    *,
    task: Task | None = None,
    output: str = "correct",
    drop: Sequence[int] | None = None,
    repeats: int = 14,
    other_repeats: int = 4,
    seed: int = 0,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Counterfactual:
    """Retrain without the worst, the best and random groups, and judge on the report half.

    Args:
        store: where the plan's rows are; the new rows go there too, and what is there is not trained again.
        plan: the plan whose influences rank the groups.
        task: which of its tasks; the first by default. The retrained models are transferred with other few-shot draws.
        output: of which the ranking influences are (see `pydt.store.derive`).
        drop: how many groups to leave out; half of them comes first and gets `repeats` runs an arm (as does "full"),
            every other number `other_repeats`. By default a half, a quarter and three quarters.
        seed: of the retrainings and the random sets.
        executor, workers, progress: see `pydt.run`.

    Raises:
        ConfigError: a number of groups that leaves nothing, or fewer than two repeats.
        StoreError: the plan has too few finished rows to rank by.
    """
    task = plan.tasks[0] if task is None else task
    groups = len(plan.context.units[1])
    sizes = _sizes(groups, drop)
    if repeats < 2 or other_repeats < 2:
        raise ConfigError(
            f"{repeats} and {other_repeats} repeats", "counterfactual", "use at least 2: one run has no spread"
        )
    values = np.asarray(overall(store, plan, task, output).unbiased)
    rows = _rows(values, _images(plan), sizes, [repeats] + [other_repeats] * (len(sizes) - 1), seed)
    fresh = replace(task, seed=task.seed + 1_000_003, name=f"{task.name}, other draws")
    done = run_rows(
        plan.source, plan.by, plan.recipe, (fresh,), rows, store.folder, executor, workers=workers, progress=progress
    )
    # The link from a plan to what was retrained because of it, so that a report needs nothing but the folder.
    link = {"plan": plan.digest, "rows": done.plan().digest, "task": fresh.digest, "ranked_task": task.digest}
    write_atomic(_link(store, plan.digest), canonical_json(link).encode())
    return judge(done, done.plan(), fresh.digest)


def stored(store: Store, record: Record) -> Counterfactual | None:
    """The counterfactual that was run for a plan, judged again from its rows; None if there was none."""
    path = _link(store, record.digest)
    if not path.is_file():
        return None
    try:
        link = json.loads(path.read_bytes())
        return judge(store, store.plan(link["rows"]), link["task"])
    except (ValueError, KeyError) as error:
        raise StoreError(f"damaged ({error})", str(path), "delete it and run the counterfactual again") from error


def judge(store: Store, record: Record, task: str) -> Counterfactual:
    """Arms and contrasts from finished counterfactual rows, on the report half."""
    rows = store.rows(record)
    correct = np.asarray(store.outputs(task, "correct", "report", record))
    weights = store.examples(task, "report", record)["weights"]
    members: dict[tuple[str, int], list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault((row.kind, int((~row.mask).sum())), []).append(i)
    arms = []
    for (kind, dropped), where in sorted(members.items(), key=lambda item: (KINDS.index(item[0][0]), item[0][1])):
        chosen = tuple(rows[i] for i in where)
        names = tuple(tuple(record.names[j] for j in np.flatnonzero(~row.mask)) for row in chosen)
        arms.append(Arm(kind, dropped, chosen, names, correct[where].astype(np.float64) @ weights, correct[where]))
    control = {arm.dropped: arm for arm in arms if arm.kind == CONTROL}
    contrasts = tuple(
        contrast(arm, control[arm.dropped], weights)
        for arm in arms
        if arm.kind not in (CONTROL, "full")
        and arm.dropped in control
        and len(arm.rows) > 1
        and len(control[arm.dropped].rows) > 1
    )
    return Counterfactual(tuple(arms), contrasts, len(store.failed(record)), task)


def contrast(arm: Arm, control: Arm, weights: np.ndarray, *, bootstraps: int = 4000, seed: int = 0) -> Contrast:
    """Compare two arms on the same images.

    Args:
        weights: float64 (images,) of the metric; see `Target.described`.
        bootstraps, seed: resamples, and their randomness.
    """
    from scipy import stats

    difference = arm.mean - control.mean
    parts = [a.accuracy.var(ddof=1) / len(a.accuracy) for a in (arm, control)]
    retraining = float(np.sqrt(sum(parts)))
    if retraining > 0:
        df = sum(parts) ** 2 / sum(
            part**2 / (len(a.accuracy) - 1) for part, a in zip(parts, (arm, control), strict=True)
        )
        p = float(2 * stats.t.sf(abs(difference) / retraining, df))
    else:
        df, p = 1.0, 1.0 if difference == 0 else 0.0
    random = np.random.default_rng(seed)
    images = random.multinomial(len(weights), np.full(len(weights), 1 / len(weights)), bootstraps).astype(np.float64)
    totals = images @ weights
    by_image, crossed = np.zeros(bootstraps), np.zeros(bootstraps)
    for sign, a in ((1, arm), (-1, control)):
        n = len(a.accuracy)
        resampled = (a.correct * weights) @ images.T / totals
        by_image += sign * resampled.mean(0)
        crossed += sign * (random.multinomial(n, np.full(n, 1 / n), bootstraps).T * resampled).sum(0) / n
    stderr = float(crossed.std(ddof=1))
    reach = float(stats.t.ppf(0.975, df)) * stderr
    return Contrast(
        arm.kind,
        arm.dropped,
        len(arm.accuracy),
        len(control.accuracy),
        difference,
        retraining,
        float(by_image.std(ddof=1)),
        stderr,
        difference - reach,
        difference + reach,
        p,
    )


def _sizes(groups: int, drop: Sequence[int] | None) -> list[int]:
    half = groups // 2
    wanted = [half, groups // 4, (3 * groups) // 4] if drop is None else list(drop)
    sizes = list(dict.fromkeys(int(size) for size in wanted if drop is not None or 0 < size < groups - 1))
    if not sizes or any(not 0 < size < groups for size in sizes):
        raise ConfigError(f"drop {wanted} of {groups} groups", "counterfactual", f"use numbers from 1 to {groups - 1}")
    # The main comparison gets the most runs wherever it stands in the list.
    return sorted(sizes, key=lambda size: size != half)


def _images(plan: Plan) -> np.ndarray:
    units, names = plan.context.units
    return np.bincount(units[units >= 0], minlength=len(names))


def _rows(values: np.ndarray, images: np.ndarray, sizes: Sequence[int], repeats: Sequence[int], seed: int) -> list[Row]:
    groups = len(values)
    order = np.argsort(values, kind="stable")
    random = np.random.Generator(np.random.Philox(key=[seed, 0]))
    kept: list[tuple[str, Any]] = [("full", np.ones(groups, bool))] * repeats[0]
    for size, runs in zip(sizes, repeats, strict=True):
        arms = {"drop bottom": order[:size], "drop top": order[groups - size :]}
        wanted = float(np.mean([images[dropped].sum() for dropped in arms.values()]))
        for _ in range(runs):
            for kind, dropped in arms.items():
                kept.append((kind, _without(groups, dropped)))
            kept.append((CONTROL, _without(groups, _matched(random, images, size, wanted))))
    seeds = _core.random_bits(seed, _SEED_STREAM, np.arange(len(kept), dtype=np.int64)) >> np.uint64(33)
    return [Row(mask, int(number), kind) for (kind, mask), number in zip(kept, seeds, strict=True)]


def _without(groups: int, dropped: np.ndarray) -> np.ndarray:
    mask = np.ones(groups, bool)
    mask[dropped] = False
    return mask


def _matched(random: np.random.Generator, images: np.ndarray, size: int, wanted: float) -> np.ndarray:
    """A random set of groups with about as many images as the arms it is compared with: the closest of 64 draws.

    With groups of one size every draw matches and the first is taken, so the set is uniformly random.
    """
    draws = [random.permutation(len(images))[:size] for _ in range(64)]
    return min(draws, key=lambda dropped: abs(float(images[dropped].sum()) - wanted))


def _link(store: Store, plan: str) -> Any:
    return store.folder / "counterfactual" / f"{os.path.basename(plan)}.json"
