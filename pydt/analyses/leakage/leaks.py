"""Leaks: source groups that hold copies of target images (Jain et al. 2023, section 4.3: data leakage).

    influence  A copy moves the outputs on its original beyond the rest of the original's class. One half of the models
               finds for each group the examples that it moves most so, the other half tests it
               (`pydt.analyses.leakage.influence_test`); Holm's procedure over the groups keeps the chance of any false
               flag at `level`. A sub-type shared by group and examples is flagged, too: images decide.
    images     The same bytes or decoded pixels are a copy without a test (`pydt.data.identical`). All other source
               examples, those of flagged groups first, are matched with the judged target images
               (`pydt.analyses.leakage.copies`); pairs are named at an expected share `false` of false ones. A group
               holds copies where an image is the same, or where more pairs are named, or one of a smaller p, than
               chance would give, by Holm's procedure over all groups at `level`.

The influence of a group on the originals of its copies, against the rest of their classes, says what the leak does. The
images chose the originals, so this needs no split: all models count. docs/analyses.md, "Copies of target images".
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.ensemble_view import EnsembleView
from pydt.analyses.leakage.copies import Seeker
from pydt.analyses.leakage.influence_test import FEWEST, Array, own_influences, uneven
from pydt.analyses.leakage.leaks_page import NO_GROUP, Leaks, Pair, Suspect
from pydt.analyses.leakage.similarity import Rows, common_side
from pydt.base import ConfigError, real, whole
from pydt.data import Dataset, Target
from pydt.ensemble import Plan
from pydt.estimation import holm, method_for
from pydt.store import HALVES, Store

if TYPE_CHECKING:
    from pydt.training import Trained


HALF_NAMES = {number: name for name, number in HALVES.items()}


def leaks(
    store: Store | str | os.PathLike[str],
    plan: Plan,
    *,
    task: Any = None,
    output: str = "margin",
    level: float = 0.05,
    false: float = 0.01,
    share: float = 0.01,
    embedding: Trained | None = None,
    seed: int = 0,
) -> Leaks:
    """Which source groups hold copies of target images, which images, and what that does to the target's outputs.

    Both halves of the target are searched: a copy is a defect in either, and nothing here is a claim about accuracy.

    Args:
        store: where the plan's rows are, or its folder.
        plan: with its source; the images are looked at.
        task: one of its tasks, the first by default; its target's judged images are those sought.
        output: whose influences are looked at (see `pydt.store.derive`).
        level: chance of any false flag, of each kind of evidence.
        false: expected share of false pairs among those named.
        share: of the target examples, on which a group's influence is assumed to concentrate.
        embedding: a trained network (see `pydt.train`), whose features propose pairs, too; each pair has their cosine.
        seed: of the halves.

    Raises:
        ConfigError: no pydt.Plan, or one without images or of measures; an output without a unit; a
            share that is not between 0 and 1.
        StoreError: no such task, or fewer than 20 finished rows. DataError: fewer than 20 judged images.
    """
    whole(seed, "seed", "leaks", error=ConfigError)
    for name, value in (("level", level), ("false", false), ("share", share)):
        real(value, name, "leaks", above=0, below=1)
    view = EnsembleView.of(store, plan, task, FEWEST, ("images", "logits"))
    outputs, ids = view.outputs(output, "all"), view.examples["ids"]
    tested = uneven(view.record, view.masks, outputs, view.examples["labels"], share, seed)
    flagged = holm(tested.p) <= level
    source, target = plan.source, view.target.judged
    unit_of, names = plan.context.units
    equal = _Equal.of(view.target, ids, source)
    pairs = [_pair(names, unit_of, *one) for one in equal.pairs]
    seeker = Seeker(target, ids, common_side(source, target), embedding, view.passed)
    first = np.append(flagged, False)[unit_of]
    limits, exhaustive = [math.nan, math.nan], [True, True]
    for stage, chosen in enumerate((first & ~equal.held, ~first & ~equal.held)):
        if chosen.any():
            found, limits[stage], exhaustive[stage] = seeker.seek(source, np.flatnonzero(chosen), false)
            pairs += [
                _pair(names, unit_of, one, int(ids[other]), HALF_NAMES[view.examples["half"][other]], *facts)
                for one, other, *facts in found
            ]
    pairs.sort(key=lambda pair: (pair.how == "alike", pair.p, pair.source))
    sizes = np.bincount(unit_of[unit_of >= 0], minlength=len(names))
    held = _held(pairs, names)
    same = np.bincount(unit_of[equal.held & (unit_of >= 0)], minlength=len(names))
    alike = [[pair for pair in own if pair.how == "alike"] for own in held]
    by_chance = [
        _by_chance([pair.p for pair in own], int(size), limits[int(not flag)])
        for own, size, flag in zip(alike, sizes - same, flagged, strict=True)
    ]
    chance = np.array(by_chance)
    leak = ((holm(chance) <= level) & (chance < 1)) | (same > 0)
    originals = [
        np.union1d(equal.judged(np.flatnonzero(unit_of == k)), [pair.target for pair in own])
        for k, own in enumerate(alike)
    ]
    gain, gain_stderr = _gains(view, outputs, originals)
    groups = [
        Suspect(
            name,
            int(sizes[k]),
            float(tested.p[k]),
            bool(flagged[k]),
            float(tested.effect[k]),
            float(tested.stderr[k]),
            tuple(ids[tested.examples[k]].tolist()),
            len(held[k]),
            int(same[k]),
            bool(leak[k]),
            len(originals[k]),
            float(gain[k]),
            float(gain_stderr[k]),
        )
        for k, name in enumerate(names)
    ]
    groups.sort(key=lambda group: (not group.leak, -group.copies / group.size if group.leak else 0.0, group.p))
    return Leaks(
        groups=tuple(groups),
        pairs=tuple(pairs),
        same=equal.parts,
        same_bytes=equal.by_bytes,
        blank=equal.blank,
        cuts=(seeker.null(exhaustive[0]).factor(limits[0]), seeker.null(exhaustive[1]).factor(limits[1])),
        found=seeker.recall(limits, seed, exhaustive),
        alike=seeker.null(all(exhaustive)).quantiles,
        compared=len(source) - int(equal.held.sum()),
        exhaustive=all(exhaustive),
        cosine_cut=seeker.cosine_cut,
        models=tested.models,
        df=tested.df,
        top=tested.examples.shape[1],
        judged=len(ids),
        level=float(level),
        false=float(false),
        output=output,
        unit=view.unit(output).name,
        _plan=plan,
        _target=view.target,
        _view=view,
    )


def _gains(view: EnsembleView, outputs: npt.NDArray[np.float32], originals: Sequence[Rows]) -> tuple[Array, Array]:
    """Influence of each group on the originals of its copies, less that on the rest of their classes."""
    gain, stderr = (np.full(len(originals), np.nan) for _ in range(2))
    ids, labels = view.examples["ids"], view.examples["labels"]
    columns, of = [], []
    for k, targets in enumerate(originals):
        copied = np.isin(ids, targets)
        parts = []
        for label in np.unique(labels[copied]):
            same = labels == label
            if (same & ~copied).any():
                inside, outside = (outputs[:, same & one].astype(np.float64) for one in (copied, ~copied))
                parts.append((inside.shape[1], inside.mean(1) - outside.mean(1)))
        if parts:
            columns.append(sum(n * column for n, column in parts) / sum(n for n, _ in parts))
            of.append(k)
    if of:
        found = own_influences(view.masks, np.stack(columns, axis=1), method_for(view.record, view.masks), np.array(of))
        gain[of], stderr[of] = found[0], found[1]
    return gain, stderr


@dataclass(frozen=True, eq=False)
class _Equal:
    """The images that the source shares with the target.

    Attributes:
        held: bool (source examples,). parts, by_bytes, blank: as `Leaks.same`, `same_bytes` and `blank`.
        pairs: (source example, target example, part, facts of a pair ...): one for each example held.
        numbers: of each source example and of each judged one, in order of `ids`; see `pydt.data.identical.Same`.
    """

    held: npt.NDArray[np.bool_]
    parts: dict[str, int]
    by_bytes: int
    blank: tuple[int, int]
    pairs: list[tuple[Any, ...]]
    numbers: tuple[Rows, Rows]
    ids: Rows

    @staticmethod
    def of(target: Target, judged_ids: Rows, source: Dataset) -> _Equal:
        found = target.shared(source)
        judged = "train" if target.test is None else "test"
        own = {"pool": "train", "validation": "train", "score": judged, "report": judged}
        parts, best, by_bytes, blank = {}, {}, 0, 0
        for part, name in own.items():  # the judged ones last, so that pairs name them where they can
            ids, theirs = target.split[part], found[name].theirs
            shared = ids[theirs[ids] >= 0]
            parts[part] = len(shared)
            by_bytes += int(found[name].theirs_by_bytes[shared].sum())
            blank += int(found[name].theirs_blank[ids].sum())
            places = {int(theirs[i]): int(i) for i in shared[::-1]}
            for i, number in enumerate(found[name].ours.tolist()):
                if number in places:
                    how = "same bytes" if found[name].by_bytes[i] else "same pixels"
                    best[i] = (i, places[number], part, 1.0, False, 0.0, 0, 0, None, how)
        held = np.isin(np.arange(len(source)), list(best))
        numbers = found[judged].ours, found[judged].theirs[judged_ids]
        ours = int((np.any([one.blank for one in found.values()], axis=0) & ~held).sum())
        return _Equal(held, parts, by_bytes, (ours, blank), [best[i] for i in sorted(best)], numbers, judged_ids)

    def judged(self, examples: Rows) -> Rows:
        """The judged images that some source examples are the same as."""
        numbers = self.numbers[0][examples]
        return self.ids[np.isin(self.numbers[1], numbers[numbers >= 0])]


def _pair(names: Sequence[str], unit_of: Rows, source: int, target: int, half: str, *facts: Any) -> Pair:
    group = names[unit_of[source]] if unit_of[source] >= 0 else NO_GROUP
    return Pair(source, target, group, half, *facts)


def _held(pairs: Sequence[Pair], names: Sequence[str]) -> list[list[Pair]]:
    """The pairs of each group."""
    held: dict[str, list[Pair]] = {name: [] for name in names}
    for pair in pairs:
        if pair.group in held:
            held[pair.group].append(pair)
    return list(held.values())


def _by_chance(p: Sequence[float], size: int, limit: float) -> float:
    """Chance that `size` examples that are no copies give as many named ones, or as small a p; of two looks, twice the
    smaller."""
    from scipy import special

    if not p:
        return 1.0
    return min(1.0, 2 * min(float(special.bdtrc(len(p) - 1, size, limit)), size * min(p)))
