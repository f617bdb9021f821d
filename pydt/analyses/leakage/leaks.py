"""Leaks: source groups that hold copies of target images (Jain et al. 2023, section 4.3: data leakage).

Two kinds of evidence, in this order:

influence   A copy moves the outputs on its original, and leaves the rest of the original's class where it is. One half
            of the models finds for each group the examples that it moves most beyond the rest of their class, the other
            half tests it (`pydt.analyses.leakage.influence_test`), and Holm's procedure over the groups keeps the
            chance of any false flag at
            `level`. A flag says that single examples are moved beyond the rest of their class, by copies or by
            something they share with the group (a sub-type): images decide which.
images      An image that is the same as a target image, in all bytes or all decoded pixels, is a copy without a test
            (`pydt.data.identical`). Every other source example is matched with the target's judged images, those of
            flagged
            groups first, and of the rest then (`pydt.analyses.leakage.copies`): pairs are named at an expected share
            `false` of
            false ones. A group holds copies where an image is the same, or where more pairs are named, or one of a
            smaller p, than chance would give, by Holm's procedure over all groups at `level`. Changed target images
            that are planted tell what could not have been found.

The influence of a group on the originals of its copies, against the rest of their classes, then says what the leak
does. The images chose the originals, so this needs no split: all models count.
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
from pydt.analyses.leakage.copies import CANDIDATES, PLANTED, Seeker
from pydt.analyses.leakage.influence_test import FEWEST, Array, own_influences, uneven
from pydt.analyses.leakage.similarity import Rows, common_side
from pydt.base import share as a_share
from pydt.base import t975
from pydt.data import not_compared, pictures, shared_images, shared_units
from pydt.ensemble import Plan
from pydt.estimation import holm, method_for
from pydt.reporting import Images, Intervals, Page, Table, listed, plus_minus, quoted
from pydt.store import HALVES, UNITS, Store

if TYPE_CHECKING:
    from pydt.data import Dataset, Target
    from pydt.training import Trained


_NO_UNIT = "(always kept)"
HALF_NAMES = {number: name for name, number in HALVES.items()}


@dataclass(frozen=True)
class Suspect:
    """What is known of one group.

    Attributes:
        name, size: of the group; size in examples.
        p: of the influence test, before Holm's procedure. uneven: whether that flags the group.
        effect, stderr: influence on the examples found by the other half of the models, beyond the rest of their class;
            mean over both directions.
        examples: positions (in the judged data set) of the examples that the first half found.
        copies: source examples in named pairs; same: those of them that are the same as a target image. leak: whether
            there is one of those, or chance would hardly name the others.
        originals: target examples they are copies of. gain, gain_stderr: the group's influence on those, beyond the
            rest of their classes; NaN where there is none.
    """

    name: str
    size: int
    p: float
    uneven: bool
    effect: float
    stderr: float
    examples: tuple[int, ...]
    copies: int = 0
    same: int = 0
    leak: bool = False
    originals: int = 0
    gain: float = math.nan
    gain_stderr: float = math.nan


@dataclass(frozen=True)
class Pair:
    """A source example and the target example it looks like a copy of.

    Attributes:
        source: position in the source. group: of the source example.
        target: position in the judged data set; where `half` is "pool" or "validation", in `Target.train`.
        half: of the target example: "score" or "report"; of one that is the same also "pool" or "validation".
        correlation, mirrored: of the best view; see `pydt.analyses.leakage.similarity`. p: of such a correlation
            between images that are no
            copies.
        phash, dhash: bits in which the hashes differ (of the mirrored image where `mirrored`).
        cosine: of the features, where an embedding was given.
        how: "same bytes" (of the file), "same pixels", or "alike".
    """

    source: int
    target: int
    group: str
    half: str
    correlation: float
    mirrored: bool
    p: float
    phash: int
    dhash: int
    cosine: float | None = None
    how: str = "alike"


@dataclass(frozen=True, eq=False)
class Leaks:
    """Groups by suspicion and named pairs.

    Attributes:
        groups: first those that hold copies, by their share of copies, then by p.
        pairs: those that are the same, then by p.
        same: part of the target -> how many of its images are in the source, in all bytes or pixels.
        cuts: how many times less a source example has to differ from its match, in 1 - correlation, than from the next
            best in order to be named: in flagged groups and in the rest (NaN where nothing was sought).
        found: by change, the share of copies made that way which would be named in flagged groups, and in the rest;
            of one copy among all.
        alike: quantiles 0.5, 0.9, 0.99, 1 of the best correlations of target images with other target images.
        same_bytes: how many of these are so in all bytes of a file.
        blank: source and target images of one colour that equal each other in pixels alone, and so are not compared.
        compared: source examples sought, beside those that are the same; exhaustive: whether with every target image.
        cosine_cut: the 99 % quantile of the best cosines among target images; None without an embedding.
        models: in each half of the influence test. df: of its t test. top: examples found for a group. judged: target
            examples.
        level, false, unit: see `leaks`.
    """

    groups: tuple[Suspect, ...]
    pairs: tuple[Pair, ...]
    same: dict[str, int]
    same_bytes: int
    blank: tuple[int, int]
    cuts: tuple[float, float]
    found: dict[str, tuple[float, float]]
    alike: tuple[float, float, float, float]
    compared: int
    exhaustive: bool
    cosine_cut: float | None
    models: tuple[int, int]
    df: float
    top: int
    judged: int
    level: float
    false: float
    output: str
    unit: str
    _plan: Plan
    _target: Target
    _view: EnsembleView

    @property
    def flagged(self) -> tuple[Suspect, ...]:
        """The groups with evidence of either kind."""
        return tuple(group for group in self.groups if group.leak or group.uneven)

    def page(self) -> Page:
        """The page of this analysis."""
        return _page(self)


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

    Both halves of the target are searched: a copy is a defect wherever it is, and nothing of what is found here is a
    statement about accuracy.

    Args:
        store: where the plan's rows are, or its folder.
        plan: with its source; the images are looked at.
        task: one of its tasks, the first by default; its target's judged images are those sought.
        output: whose influences are looked at (see `pydt.store.derive`).
        level: chance of any false flag, of each kind of evidence.
        false: expected share of false pairs among those named.
        share: of the target examples, on which a group's influence is taken to be concentrated.
        embedding: a trained network (`pydt.training.train`): its features propose pairs, too, and their cosine is told.
        seed: of the halves.

    Raises:
        ConfigError: no pydt.Plan, an output without a unit, or a share that is none.
        StoreError: no such task, or fewer than 20 finished rows. DataError: fewer than 20 judged images.
    """
    for name, value in (("level", level), ("false", false), ("share", share)):
        a_share(value, name, "leaks")
    view = EnsembleView.of(store, plan, task, FEWEST, images=True)
    outputs, ids = view.outputs(output, "all"), view.examples["ids"]
    tested = uneven(view.record, view.masks, outputs, view.examples["labels"], share, seed)
    flagged = holm(tested.p, level)
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
    chance = np.array([_by_chance([pair.p for pair in own if pair.how == "alike"], int(size), limits[int(not flag)])
                       for own, size, flag in zip(held, sizes - same, flagged, strict=True)])  # fmt: skip
    leak = (holm(chance, level) & (chance < 1)) | (same > 0)
    originals = [
        np.union1d(equal.judged(np.flatnonzero(unit_of == k)), [pair.target for pair in own if pair.how == "alike"])
        for k, own in enumerate(held)
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
    recall = seeker.recall(limits, seed, exhaustive)
    return Leaks(
        groups=tuple(groups),
        pairs=tuple(pairs),
        same=equal.parts,
        same_bytes=equal.by_bytes,
        blank=equal.blank,
        cuts=(seeker.null(exhaustive[0]).factor(limits[0]), seeker.null(exhaustive[1]).factor(limits[1])),
        found=recall,
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
        unit=UNITS[output][0],
        _plan=plan,
        _target=view.target,
        _view=view,
    )


# ---- what a leak does ------------------------------------------------------------------------------------------------


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


# ---- pairs ----------------------------------------------------------------------------------------------------------


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
    group = names[unit_of[source]] if unit_of[source] >= 0 else _NO_UNIT
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


# ---- page ------------------------------------------------------------------------------------------------------------

_METHOD = """
Jain et al. 2023, section 4.3, find leaks by looking at the source images of largest influence. Here a test decides
which groups are looked at first, images decide what is a copy, and both have error rates.

    r_ij = y_ij - b_j (mean of y_i over the rest of the class of j)

For each group one half of the models finds the target examples with the largest influence on r, the other half
estimates the influence on their mean (t test), and back; the sum of both p values is tested by Holm's procedure.
Images that are the same in all bytes or all decoded pixels need no test. Of the others, c is the largest correlation
over 54 views (mirrored or not, three zooms, moved by a pixel) of grey, blurred images, and

    gap = log((1 - c of the next best target image) / (1 - c of the best))

follows an exponential law where nothing is copied (ratio of distances to the nearest two; Facco et al. 2017). Its rate
comes from the target's images among themselves; near-duplicates within the target are one image to it.
Benjamini-Hochberg over the source examples names the pairs. Thresholds are those of this data, and what they would
miss is measured with changed copies of target images.
"""
_SURE, _BLIND = 0.8, 0.2
_VERDICTS = "would be found", "may be missed", "could not have been detected"


def _power(found: Leaks) -> dict[str, tuple[float, int]]:
    """By change, the share of planted copies that would be named wherever something was sought, and its verdict; empty
    where nothing was."""
    least = {change: min((s for s in shares if s == s), default=math.nan) for change, shares in found.found.items()}
    return {
        change: (share, 0 if share >= _SURE else 1 if share >= _BLIND else 2)
        for change, share in least.items()
        if share == share
    }


def _range(shares: Sequence[float]) -> str:
    low, high = (f"{100 * share:.0f}" for share in (min(shares), max(shares)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def _page(found: Leaks) -> Page:
    leaking = [group for group in found.groups if group.leak]
    uneven = [group for group in found.groups if group.uneven]
    source, task = found._plan.source, found._target
    of = {"pool": task.train, "validation": task.train, "score": task.judged, "report": task.judged}
    keys, theirs = source.all_keys(), {half: data.all_keys() for half, data in of.items()}
    shown = found.pairs[:32]
    images = [
        picture
        for pair in shown
        for of_pair, i in ((source, pair.source), (of[pair.half], pair.target))
        for picture in pictures(of_pair, [i], passed=found._view.passed)
    ]
    captions = [
        f"{pair.group}: {keys[pair.source]} = {theirs[pair.half][pair.target]} ({pair.half}), "
        + (f"r {pair.correlation:.4f}" if pair.how == "alike" else pair.how)
        for pair in shown
    ]
    reach = t975(found.df)
    ranked = sorted(found.groups, key=lambda group: group.p)[:20]
    blocks: list[Any] = []
    if images:
        title = "Copies: the source image and the target image it matches"
        blocks.append(Images(images, captions, title, together=2))
    columns = (
        "group",
        "examples",
        "copies",
        "same",
        "leak",
        "uneven",
        "p",
        "effect",
        "stderr",
        "gain on originals",
        "its stderr",
    )
    lines = [
        (g.name, g.size, g.copies, g.same, g.leak, g.uneven, g.p, g.effect, g.stderr, g.gain, g.gain_stderr)
        for g in found.groups
    ]
    suspicious = [line for g, line in zip(found.groups, lines, strict=True) if g.leak or g.uneven or g.copies]
    if suspicious:
        blocks.append(Table(columns, suspicious, "Groups with evidence of either kind"))
    blocks.append(
        Intervals(
            [group.name for group in ranked],
            [group.effect for group in ranked],
            [group.effect - reach * group.stderr for group in ranked],
            [group.effect + reach * group.stderr for group in ranked],
            found.unit,
            f"Influence on {found.top} examples beyond the rest of their class",
            "The examples were found with other models than those that judge. Filled: flagged.",
            marked=[group.uneven for group in ranked],
        )
    )
    power = _power(found)
    kinds = [
        (change, *shares, _VERDICTS[power[change][1]] if change in power else None)
        for change, shares in found.found.items()
    ]
    blocks.append(
        Table(
            ("change", "found in flagged groups", "found elsewhere", "a copy changed so"),
            kinds,
            f"Share of {min(PLANTED, found.judged)} copies of each kind, made of target images, that would be named",
        )
    )
    pair_columns = (
        *("source", "source_key", "group", "target", "target_key", "half", "how", "correlation", "mirrored", "p"),
        *("phash_bits", "dhash_bits", "cosine"),
    )
    pair_rows = [
        (
            *(
                pair.source,
                keys[pair.source],
                pair.group,
                pair.target,
                theirs[pair.half][pair.target],
                pair.half,
                pair.how,
            ),
            *(pair.correlation, pair.mirrored, pair.p, pair.phash, pair.dhash, pair.cosine),
        )
        for pair in found.pairs
    ]
    return Page(
        name="leaks",
        title="Leaks",
        question="Does the source hold copies of the target's images, and what do they do?",
        answer=found._view.told(_sentences(found, leaking, uneven)),
        blocks=blocks,
        csv={
            "groups.csv": (columns, lines),
            "pairs.csv": (pair_columns, pair_rows),
            "found.csv": (("change", "flagged_groups", "rest", "verdict"), kinds),
        },
        method=_METHOD,
    )


def _sentences(found: Leaks, leaking: Sequence[Suspect], uneven: Sequence[Suspect]) -> list[str]:
    said = [*_same(found), *_changed(found, leaking)]
    if (outside := sum(pair.group == _NO_UNIT for pair in found.pairs)) > 0:
        said.append(f"{outside} of these source images are in no group: every model was trained on them.")
    groups = len(found.groups)
    test = (
        f"(chance of any false flag {100 * found.level:g} %; found with {found.models[0]} models, judged with "
        f"{found.models[1]}, and back)"
    )
    beyond = f"{found.top} target examples beyond the rest of their class"
    influence = (
        f"By influence {len(uneven)} of {groups} groups are flagged {test}: they move {beyond}."
        if uneven
        else f"By influence no group is flagged for moving {beyond} {test}; what may have escaped, the intervals show."
    )
    clean = [group.name for group in uneven if not group.leak]
    if clean:
        blind = any(verdict for _, verdict in _power(found).values())
        influence += f" No copy was found in {listed(clean)}: " + (
            "some changed copies could not have been, so look at their images."
            if blind
            else "what they share with these examples may be something else, as a sub-type."
        )
    return [*said, influence]


def _same(found: Leaks) -> list[str]:
    """Of target images that are in the source as they are, and of those that were not compared."""
    apart = [f"{not_compared(*found.blank, 'the target')}."] if found.blank[1] else []
    exact = [pair for pair in found.pairs if pair.how != "alike"]
    if not exact:
        return apart
    units, names = found._plan.context.units
    images = sum(found.same.values())
    where = shared_units(units[[pair.source for pair in exact]], names, quoted)
    parts = ", ".join(f"{count:,} {part}" for part, count in found.same.items() if count)
    told = shared_images(images, "the target", found.same_bytes)
    return [f"{told}, {where}. By part of the target: {parts}.", *apart]


def _changed(found: Leaks, leaking: Sequence[Suspect]) -> list[str]:
    """Of copies that are not the same: what was found, and what could have been."""
    groups, exact = len(found.groups), sum(found.same.values())
    alike = sum(pair.how == "alike" for pair in found.pairs)
    power = _power(found)
    kinds = [{change: share for change, (share, one) in power.items() if one == verdict} for verdict in range(3)]
    sure, blind = (", ".join(kinds[verdict]) for verdict in (0, 2))
    said = []
    if leaking:
        first = leaking[0]
        more = f", and {len(leaking) - 1} more of {groups} groups hold copies" if len(leaking) > 1 else ""
        said.append(
            f"{quoted(first.name)} holds {first.copies} copies of target images among its {first.size} examples{more}."
        )
        if first.gain == first.gain:
            said.append(
                f"On the {first.originals} originals the influence of {quoted(first.name)} is "
                f"{plus_minus(first.gain, first.gain_stderr)} {found.unit} (standard error) beyond that on the rest of "
                "their classes."
            )
    elif alike:
        said.append(
            f"{alike} source images look like copies of target images, but no group holds more than chance names."
        )
    elif power and not sure:
        rest = "" if exact else ", and no image of the target is in the source byte for byte or pixel for pixel"
        said.append(f"Changed copies could not have been detected{rest}.")
    elif power and not exact:
        said.append(
            f"No copy of a target image was found in the {groups} groups: none of the same bytes or pixels, and none "
            f"that is {sure}" + (f"; one that is {blind} could not have been detected." if blind else ".")
        )
    if not power:
        return said
    told = [
        f"{', '.join(kind)}: {_range([*kind.values()])}{remark}"
        for kind, remark in zip(kinds, ("", "", " (could not have been detected)"), strict=True)
        if kind
    ]
    those = (
        f"all {found.judged:,}" if found.exhaustive else f"{CANDIDATES} or more candidates among the {found.judged:,}"
    )
    cuts = " and ".join(
        f"{cut:.3g} times{where if all(other == other for other in found.cuts) else ''}"
        for cut, where in zip(found.cuts, (" (in flagged groups)", " (elsewhere)"), strict=True)
        if cut == cut
    )
    return [
        *said,
        f"Of planted copies, one at a time, so many would be named: {'; '.join(told)}.",
        f"{alike} of {found.compared:,} {'other ' if exact else ''}source images are named. Each was compared with "
        f"{those} target images; of the named {100 * found.false:g} % are expected to be false. A pair is named where "
        f"1 \u2212 correlation is {cuts} smaller than with the next best target image; different target images reach a "
        f"correlation of {found.alike[0]:.4f} (median of best matches), {found.alike[2]:.4f} (99 %).",
    ]
