"""The laboratory: experiments on planted sources and targets, and whether the analyses find what was planted
(`pydt.data.samples.planted`; by number of shots `planted_by_shots`). What was needed for large, additive effects:
docs/laboratory.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pydt.analyses.ensemble_view import LEVEL
from pydt.analyses.failures import failures
from pydt.analyses.leakage.leaks import leaks
from pydt.analyses.shots import ByShots, influence_by_shots
from pydt.analyses.shots_kinds import FEW
from pydt.base import ConfigError, Result
from pydt.data import HALVES
from pydt.data.samples import (
    COLUMN,
    EACH,
    GREY,
    KINDS,
    KINDS_BY_SHOTS,
    SUBTYPE,
    Planted,
    PlantedByShots,
    planted,
    planted_by_shots,
)
from pydt.ensemble import Plan
from pydt.estimation import influences, method_for, overall
from pydt.store import Store

__all__ = [
    "COLUMN",
    "EACH",
    "KINDS",
    "KINDS_BY_SHOTS",
    "LEVEL",
    "SHOTS",
    "Finding",
    "Planted",
    "PlantedByShots",
    "findings",
    "findings_by_shots",
    "plan",
    "plan_by_shots",
    "planted",
    "planted_by_shots",
]

SHOTS: tuple[int | str, ...] = (1, 2, 5, 20, "full")
"""Numbers of shots of `plan_by_shots`."""


def plan(made: Planted, models: int = 256, seed: int = 0) -> Plan:
    """The experiment on a planted source: half of the groups in every model, in pairs of complements.

    Args:
        made: from `planted`.
        models: rows; with 256 every plant was found on nine seeds of ten (docs/laboratory.md).
        seed: of masks, trainings and few-shot draws.

    Raises:
        DesignError, ConfigError: as `pydt.Plan`.
    """
    from pydt import design
    from pydt.data.loading import Augment
    from pydt.training import Recipe, Task

    recipe = Recipe(
        network="bottleneck-16",
        epochs=20,
        batch_size=48,
        lr=0.1,
        weight_decay=0,
        augment=Augment(mean=(0.2,), std=(0.35,)),
    )
    task = Task(made.target, shots=2, draws=16, penalty=3.0, seed=seed, name="planted digits")
    masks = design.foldover(len(made.kinds), models, seed=seed)
    return Plan(made.source, by=COLUMN, design=masks, recipe=recipe, tasks=(task,), seed=seed)


@dataclass(frozen=True, repr=False)
class Finding(Result):
    """Whether one plant was found: name, ok, detail (a sentence) and the numbers behind it."""

    name: str
    ok: bool
    detail: str
    numbers: dict[str, float]


def findings(
    store: Store | str | os.PathLike[str], made: Planted, plan: Plan, *, retrain: int = 10, workers: int | None = None
) -> Iterator[Finding]:
    """Look for everything that was planted, with the analyses that everybody uses.

    Rankings are of the influence on the accuracy of the score half; tests are at level 0.05 over what they look at,
    that of the placebos at 0.01.

    Args:
        store: with finished rows of the plan, or its folder.
        made, plan: what was planted, and the plan that `plan` made of it.
        retrain: trainings of each arm of failure debugging; 0 leaves that out. Rows go to the store.
        workers: of those trainings.

    Yields:
        "leak first", "leak flagged", "leak pairs", "harm", "placebos", "irrelevant", "sub-type", and, retrained,
        "misleading".
    """
    store = store if isinstance(store, Store) else Store(store, plan)
    yield from _ranked(store, made, plan)
    yield from _leaked(store, made, plan)
    yield _subtype(store, made, plan)
    if retrain:
        yield _misled(store, made, plan, retrain, workers)


def _ranked(store: Store, made: Planted, plan: Plan) -> Iterator[Finding]:
    from scipy import stats

    fit = overall(store, plan)
    values, names = fit.unbiased.astype(float), list(made.kinds)
    helpful = np.concatenate([made.of("help"), made.of("leak")])
    leak = int(made.of("leak")[0])
    first, second = np.argsort(-values)[:2].tolist()
    against = second if first == leak else first
    rank = 1 + int((values > values[leak]).sum())
    yield Finding(
        "leak first",
        first == leak,
        f"the leak is number {rank} of {len(names)}: {values[leak]:+.1f} +- {fit.stderr[leak]:.1f} points, "
        f"{names[against]} {values[against]:+.1f} ({fit.models} models)",
        {"rank": rank, "value": values[leak], "stderr": float(fit.stderr[leak]), "next": values[against]},
    )
    harm = made.of("harm")
    weights = np.eye(len(names))[harm] - 1 / len(names)
    lower, error = fit.contrast(weights)
    p = stats.t.cdf(lower / error, float(fit.least_df))
    yield Finding(
        "harm",
        bool(len(harm) * p.max() < LEVEL),
        "groups with shuffled labels, against the average group: "
        + ", ".join(f"{v:+.1f} +- {e:.1f}" for v, e in zip(lower, error, strict=True))
        + f" points; the largest p, times {len(harm)}, is {min(1.0, len(harm) * p.max()):.2g}",
        {"highest": float(lower.max()), "p": float(p.max())},
    )
    assert fit.placebo_values is not None
    assert fit.placebo_stderr is not None
    t = fit.placebo_values / fit.placebo_stderr
    p = 2 * stats.t.sf(np.abs(t), fit.placebo_df)
    yield Finding(
        "placebos",
        bool(len(p) * p.min() >= LEVEL / 5),  # rightly estimated, they fail by chance: not in one run of twenty
        f"{len(p)} columns bound to no image: the largest |t| is {np.abs(t).max():.1f}, "
        f"p times {len(p)} is {min(1.0, len(p) * p.min()):.2g}",
        {f"p{i}": float(one) for i, one in enumerate(p)},
    )
    irrelevant = made.of("irrelevant")
    most, least = np.abs(values[irrelevant]).max(), values[helpful].min()
    yield Finding(
        "irrelevant",
        bool(most < least),
        f"the largest |influence| of {len(irrelevant)} irrelevant groups is {most:.2f} points, the smallest influence "
        f"of {len(helpful)} helpful ones {least:+.2f} (+- {fit.stderr.mean():.2f})",
        {"irrelevant": float(most), "helpful": float(least), "stderr": float(fit.stderr.mean())},
    )


def _leaked(store: Store, made: Planted, plan: Plan) -> Iterator[Finding]:
    found = leaks(store, plan)
    suspects = {group.name: group for group in found.groups}
    leak = list(made.kinds)[made.of("leak")[0]]
    # Influence on single images may rightly flag what holds a sub-type or misleads; only copies make a leak.
    others = [name for name, group in suspects.items() if group.leak and name != leak]
    suspect = suspects[leak]
    yield Finding(
        "leak flagged",
        suspect.leak and suspect.uneven and not others,
        f"the leak moves single images beyond their class by {suspect.effect:.2f} +- {suspect.stderr:.2f} "
        f"(p = {suspect.p:.1g}{'' if suspect.uneven else ', not flagged'}), and holds {suspect.copies} copies"
        f"{'' if suspect.leak else ', not flagged'}; falsely called a leak: {', '.join(others) or 'none'}",
        {"p": suspect.p, "uneven": float(suspect.uneven), "leak": float(suspect.leak), "false": len(others)},
    )
    named = {(pair.source, pair.target) for pair in found.pairs}
    true = {(int(copy), int(original)) for copy, original in made.pairs}
    right = len(named & true)
    precision, recall = right / max(len(named), 1), right / len(true)
    yield Finding(
        "leak pairs",
        precision >= 0.95 and recall >= 0.95,
        f"{right} of {len(true)} pairs named, and {len(named) - right} false ones",
        {"precision": precision, "recall": recall},
    )


def _subtype(store: Store, made: Planted, plan: Plan) -> Finding:
    task, group = plan.tasks[0], made.of("sub-type")[0]
    design = store.design(plan).take(store.finished(plan))
    ids = store.examples(task, "all", plan)["ids"]
    here = made.target.judged.labels[ids] == SUBTYPE
    outputs = store.outputs(task, "margin", "all", plan)[:, here]
    values = influences(design, outputs, method_for(store.plan(plan), design)).unbiased[group]
    hidden = made.subtype[ids][here]
    area = float(np.mean(np.sign(values[hidden][:, None] - values[~hidden]) / 2 + 0.5))
    return Finding(
        "sub-type",
        area >= 0.9,
        f"{hidden.sum()} slashed zeros among {here.sum()}, by the influence of the group of slashed zeros on each: "
        f"area under the ROC curve {area:.3f}",
        {"auc": area},
    )


def _misled(store: Store, made: Planted, plan: Plan, retrain: int, workers: int | None) -> Finding:
    found = failures(store, plan, models=retrain, repeats=retrain, most=10 * retrain, workers=workers, progress=False)
    name = list(made.kinds)[made.of("misleading")[0]]
    failing = [image for image in found.images if made.spoiled[image.position]]
    judged = int(made.spoiled[np.concatenate([made.target.split[half] for half in HALVES])].sum())
    blamed = sum(image.group == name for image in failing)
    flips = next((flips for group, _, flips in found.groups if group == name), None)
    detail = f"{len(failing)} of {judged} stamped sevens fail, {blamed} of them blame the misleading group"
    numbers: dict[str, float] = {"spoiled": judged, "failing": len(failing), "blamed": blamed}
    if flips is None:
        return Finding("misleading", False, f"{detail}; that was not retrained", numbers)
    compared, every = flips.compared, found.flips
    numbers |= {"images": flips.blamed.images, "without": flips.blamed.rate, "random": flips.random.rate}
    numbers |= {"full": flips.full.rate, "ratio": compared.ratio, "ratio_low": compared.ratio_low}
    assert every is not None
    numbers |= {"all_images": every.blamed.images, "all_without": every.blamed.rate, "all_random": every.random.rate}
    numbers |= {"all_ratio": every.compared.ratio, "all_ratio_low": every.compared.ratio_low}
    return Finding(
        "misleading",
        2 * len(failing) > judged and 2 * blamed > len(failing) and compared.ratio >= 2,
        f"{detail}; of the {flips.blamed.images} images that blame it {flips.blamed.rate:.0%} are right without it "
        f"({flips.blamed.low:.0%} to {flips.blamed.high:.0%}), {flips.random.rate:.0%} without a random group, "
        f"{flips.full.rate:.0%} again with all: ratio to random {compared.ratio:.3g} (95 % from "
        f"{compared.ratio_low:.2g}; {retrain} fresh trainings each)",
        numbers,
    )


def plan_by_shots(made: PlantedByShots, models: int = 240, seed: int = 0) -> Plan:
    """The experiment on a source planted by shots: probes of the same rows at each of `SHOTS`.

    Args:
        made: from `planted_by_shots`.
        models: rows, of which each keeps half of the groups, in pairs of complements.
        seed: of masks, trainings and few-shot draws.

    Raises:
        DesignError, ConfigError: as `pydt.Plan`.
    """
    from pydt import design
    from pydt.data.loading import Augment
    from pydt.training import Recipe, Task

    recipe = Recipe(
        network="bottleneck-64",
        epochs=10,
        batch_size=48,
        lr=0.1,
        weight_decay=0,
        label_smoothing=0,
        augment=Augment(mean=(GREY / 255,), std=(0.2,)),  # plain grey is zero: it teaches nothing
    )
    tasks = tuple(Task(made.target, shots=k, draws=16, penalty=3.0, seed=seed) for k in SHOTS)
    masks = design.foldover(len(made.kinds), models, seed=seed)
    return Plan(made.source, by=COLUMN, design=masks, recipe=recipe, tasks=tasks, seed=seed)


def findings_by_shots(store: Store | str | os.PathLike[str], made: PlantedByShots, plan: Plan) -> Iterator[Finding]:
    """Look for what was planted by shots, by `pydt.influence_by_shots` of the accuracy.

    Args:
        store: with finished rows of the plan, or its folder.
        made, plan: what was planted, and the plan that `plan_by_shots` made of it.

    Yields:
        "mainly at few shots": this is said of the groups of kind "few" and of no others. "at all shots": those of kind
        "all" surely help at every number of shots. "irrelevant": no change of these is sure at level 0.01 over them
        all.

    Raises:
        ConfigError: the plan has other groups.
    """
    if set(plan.context.units[1]) != set(made.kinds):
        mend = "make it with lab.plan_by_shots(made)"
        raise ConfigError("has other groups than were planted", "findings_by_shots, plan", mend)
    found = influence_by_shots(store, plan)
    few, every, irrelevant = (
        np.array([found.groups.index(name) for name in made.of(kind)]) for kind in ("few", "all", "irrelevant")
    )
    said = found.of_kind(FEW)
    yield Finding(
        FEW,
        set(said) == set(made.of("few")),
        f"said of {', '.join(sorted(said)) or 'no group'}, planted in {', '.join(made.of('few'))}: {_ends(found, few)}",
        {"last": float(np.abs(found.values[few, -1]).max()), "q": float(found.trend.q[few].max())},
    )
    least = float(found.low[every].min())
    yield Finding(
        "at all shots",
        least > 0,
        f"groups that teach a stroke: {_ends(found, every)}; all intervals lie above {least:+.1f} points",
        {"low": least},
    )
    p = found.trend.p[irrelevant]
    false = int((found.trend.q[irrelevant] < LEVEL).sum())
    yield Finding(
        "irrelevant",
        bool(len(p) * p.min() >= LEVEL / 5),  # rightly estimated, they fail by chance: not in one run of twenty
        f"{len(p)} irrelevant groups: {_ends(found, irrelevant)}; {false} said to change; the smallest p, times "
        f"{len(p)}, is {min(1.0, len(p) * p.min()):.2g}",
        {"p": float(p.min()), "false": false},
    )


def _ends(found: ByShots, groups: np.ndarray) -> str:
    """Influences of some groups at the fewest and at the most shots, with their mean standard error."""
    parts = []
    for end, when in ((0, "at 1 shot"), (-1, "with the whole pool")):
        values = ", ".join(f"{value:+.1f}" for value in found.values[groups, end])
        parts.append(f"{values} +- {found.stderr[groups, end].mean():.1f} points {when}")
    return ", ".join(parts)
