"""Leaks: source groups that hold copies of target images (Jain et al. 2023, section 4.3: data leakage).

Two kinds of evidence, in this order:

influence   A copy moves the outputs on its original, and leaves the rest of the original's class where it is. One half
            of the models finds for each group the examples that it moves most beyond the rest of their class, the other
            half tests it (`pydt.uneven`), and Holm's procedure over the groups keeps the chance of any false flag at
            `level`. A flag says that single examples are moved beyond the rest of their class, by copies or by
            something they share with the group (a sub-type): images decide which.
pairs       Every source example is matched with the target's images, those of flagged groups first, and of the rest
            then (`pydt.duplicates`): pairs are named at an expected share `false` of false ones. A group holds copies
            where more pairs are named, or one of a smaller p, than chance would give, by Holm's procedure over all
            groups at `level`.

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

from pydt.duplicates import CANDIDATES, PLANTED, Seeker
from pydt.errors import ConfigError
from pydt.figures import t975
from pydt.nearest import Rows, common_side, pictures
from pydt.overall import method_for
from pydt.pages import Images, Intervals, Page, Table
from pydt.plan import Plan
from pydt.store import HALVES, Store
from pydt.subject import Subject, plus_minus
from pydt.uneven import Array, Asked, holm, own_influences, uneven
from pydt.words import listed, quoted

if TYPE_CHECKING:
    from pydt.data import Dataset
    from pydt.train import Trained

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
        copies: named pairs. leak: whether chance would hardly name them.
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
    leak: bool = False
    originals: int = 0
    gain: float = math.nan
    gain_stderr: float = math.nan


@dataclass(frozen=True)
class Pair:
    """A source example and the target example it looks like a copy of.

    Attributes:
        source, target: positions in the source and in the judged data set. group: of the source example.
        half: of the target example, "score" or "report".
        correlation, mirrored: of the best view; see `pydt.nearest`. p: of such a correlation between images that are no
            copies.
        phash, dhash: bits in which the hashes differ (of the mirrored image where `mirrored`).
        cosine: of the features, where an embedding was given.
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


@dataclass(frozen=True, eq=False)
class Leaks:
    """Groups by suspicion and named pairs.

    Attributes:
        groups: first those that hold copies, by their share of copies, then by p.
        pairs: by p.
        cuts: correlation from which on a pair is named: in flagged groups and in the rest (NaN where nothing was
            sought).
        found: by change, the share of copies made that way which would be named in flagged groups, and in the rest.
        alike: quantiles 0.5, 0.9, 0.99, 1 of the best correlations of target images with other target images.
        compared: source examples sought; exhaustive: whether with every target image.
        cosine_cut: the 99 % quantile of the best cosines among target images; None without an embedding.
        models: in each half of the influence test. df: of its t test. top: examples found for a group. judged: target
            examples.
        level, false, unit: see `leaks`.
    """

    groups: tuple[Suspect, ...]
    pairs: tuple[Pair, ...]
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
    _target: Dataset
    _seen: Subject

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
        output: whose influences are looked at (see `pydt.cells.derive`).
        level: chance of any false flag, of each kind of evidence.
        false: expected share of false pairs among those named.
        share: of the target examples, on which a group's influence is taken to be concentrated.
        embedding: a trained network (`pydt.train.train`): its features propose pairs, too, and their cosine is told.
        seed: of the halves.

    Raises:
        ConfigError: no pydt.Plan, an output without a unit, or a share that is none.
        StoreError: no such task, or fewer than 20 finished rows. DataError: fewer than 20 judged images.
    """
    for name, value in (("level", level), ("false", false), ("share", share)):
        if not isinstance(value, (int, float)) or not 0 < value < 1:
            raise ConfigError(f"{value!r} is no share", name, "give a number between 0 and 1")
    asked = Asked.of(store, plan, task, output)
    tested = uneven(asked, share, seed)
    flagged = holm(tested.p, level)
    source, target = plan.source, asked.target.judged
    unit_of, names = plan.context.units
    seeker = Seeker(target, asked.ids, common_side(source, target), embedding)
    first = np.append(flagged, False)[unit_of]
    pairs: list[Pair] = []
    limits, exhaustive = [math.nan, math.nan], [True, True]
    for stage, ids in enumerate((np.flatnonzero(first), np.flatnonzero(~first))):
        if len(ids):
            found, limits[stage], exhaustive[stage] = seeker.seek(source, ids, false)
            pairs += [_pair(asked, names, unit_of, *one) for one in found]
    pairs.sort(key=lambda pair: (pair.p, pair.source))
    sizes = np.bincount(unit_of[unit_of >= 0], minlength=len(names))
    copies = _held(pairs, names)
    chance = np.array([_by_chance([pair.p for pair in held], int(size), limits[int(not flag)])
                       for held, size, flag in zip(copies, sizes, flagged, strict=True)])  # fmt: skip
    leak = holm(chance, level) & [len(held) > 0 for held in copies]
    gain, gain_stderr = _gains(asked, [np.unique([pair.target for pair in held]) for held in copies])
    groups = [
        Suspect(
            name,
            int(sizes[k]),
            float(tested.p[k]),
            bool(flagged[k]),
            float(tested.effect[k]),
            float(tested.stderr[k]),
            tuple(asked.ids[tested.examples[k]].tolist()),
            len(copies[k]),
            bool(leak[k]),
            len({pair.target for pair in copies[k]}),
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
        cuts=(seeker.null.correlation(limits[0]), seeker.null.correlation(limits[1])),
        found=recall,
        alike=seeker.null.quantiles,
        compared=len(source),
        exhaustive=all(exhaustive),
        cosine_cut=seeker.cosine_cut,
        models=tested.models,
        df=tested.df,
        top=tested.examples.shape[1],
        judged=len(asked.ids),
        level=float(level),
        false=float(false),
        output=output,
        unit=asked.unit,
        _plan=plan,
        _target=target,
        _seen=asked.seen,
    )


# ---- what a leak does ------------------------------------------------------------------------------------------------


def _gains(asked: Asked, originals: Sequence[Rows]) -> tuple[Array, Array]:
    """Influence of each group on the originals of its copies, less that on the rest of their classes."""
    gain, stderr = (np.full(len(originals), np.nan) for _ in range(2))
    columns, of = [], []
    for k, targets in enumerate(originals):
        copied = np.isin(asked.ids, targets)
        parts = []
        for label in np.unique(asked.labels[copied]):
            same = asked.labels == label
            if (same & ~copied).any():
                inside, outside = (asked.outputs[:, same & one].astype(np.float64) for one in (copied, ~copied))
                parts.append((inside.shape[1], inside.mean(1) - outside.mean(1)))
        if parts:
            columns.append(sum(n * column for n, column in parts) / sum(n for n, _ in parts))
            of.append(k)
    if of:
        found = own_influences(
            asked.design, np.stack(columns, axis=1), method_for(asked.record, asked.design), np.array(of)
        )
        gain[of], stderr[of] = found[0], found[1]
    return gain, stderr


# ---- pairs ----------------------------------------------------------------------------------------------------------


def _pair(asked: Asked, names: Sequence[str], unit_of: Rows, source: int, target: int, *facts: Any) -> Pair:
    group = names[unit_of[source]] if unit_of[source] >= 0 else _NO_UNIT
    return Pair(source, int(asked.ids[target]), group, HALF_NAMES[asked.half[target]], *facts)


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
Pairs: the largest correlation over 54 views (mirrored or not, three zooms, moved by a pixel) of grey, blurred images;
its p value comes from a Gumbel law of the best matches among different target images, and Benjamini-Hochberg over the
source examples names the pairs. Thresholds are those of this data.
"""


def _page(found: Leaks) -> Page:
    leaking = [group for group in found.groups if group.leak]
    uneven = [group for group in found.groups if group.uneven]
    target, source = found._target, found._plan.source
    keys, theirs = source.all_keys(), target.all_keys()
    shown = found.pairs[:32]
    images = [
        picture
        for pair in shown
        for picture in (pictures(source, [pair.source])[0], pictures(target, [pair.target])[0])
    ]
    captions = [
        f"{pair.group}: {keys[pair.source]} = {theirs[pair.target]} ({pair.half}), r {pair.correlation:.4f}"
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
        "leak",
        "uneven",
        "p",
        "effect",
        "stderr",
        "gain on originals",
        "its stderr",
    )
    lines = [
        (g.name, g.size, g.copies, g.leak, g.uneven, g.p, g.effect, g.stderr, g.gain, g.gain_stderr)
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
    kinds = [(change, *shares) for change, shares in found.found.items()]
    blocks.append(
        Table(
            ("change", "found in flagged groups", "found elsewhere"),
            kinds,
            f"Share of {min(PLANTED, found.judged)} copies of each kind, made of target images, that would be named",
        )
    )
    pair_columns = (
        *("source", "source_key", "group", "target", "target_key", "half", "correlation", "mirrored", "p"),
        *("phash_bits", "dhash_bits", "cosine"),
    )
    pair_rows = [
        (
            *(pair.source, keys[pair.source], pair.group, pair.target, theirs[pair.target], pair.half),
            *(pair.correlation, pair.mirrored, pair.p, pair.phash, pair.dhash, pair.cosine),
        )
        for pair in found.pairs
    ]
    return Page(
        name="leaks",
        title="Leaks",
        question="Does the source hold copies of the target's images, and what do they do?",
        answer=found._seen.told(_sentences(found, leaking, uneven)),
        blocks=blocks,
        csv={
            "groups.csv": (columns, lines),
            "pairs.csv": (pair_columns, pair_rows),
            "found.csv": (("change", "flagged_groups", "rest"), kinds),
        },
        method=_METHOD,
    )


def _sentences(found: Leaks, leaking: Sequence[Suspect], uneven: Sequence[Suspect]) -> list[str]:
    cuts = " and ".join(
        f"{cut:.4f} {where}"
        for cut, where in zip(found.cuts, ("in flagged groups", "elsewhere"), strict=True)
        if cut == cut
    )
    many, groups = len(found.pairs), len(found.groups)
    if leaking:
        first = leaking[0]
        told = f"{quoted(first.name)} holds {first.copies} copies of target images among its {first.size} examples"
        more = f", and {len(leaking) - 1} more of {groups} groups hold copies" if len(leaking) > 1 else ""
        said = [f"{told}{more}."]
        if first.gain == first.gain:
            said.append(
                f"On the {first.originals} originals the influence of {quoted(first.name)} is "
                f"{plus_minus(first.gain, first.gain_stderr)} {found.unit} (standard error) beyond that on the rest of "
                "their classes."
            )
    elif many:
        said = [f"{many} source images look like copies of target images, but no group holds more than chance names."]
    else:
        said = [f"No copy of a target image was found in the {groups} groups."]
    those = (
        f"all {found.judged:,}" if found.exhaustive else f"{CANDIDATES} or more candidates among the {found.judged:,}"
    )
    said.append(
        f"{many} of {found.compared:,} source images are named. Each was compared with {those} target images; of the "
        f"named {100 * found.false:g} % are expected to be false. A pair is named from a correlation of "
        f"{cuts} on; different target images reach {found.alike[0]:.4f} (median of best matches), "
        f"{found.alike[2]:.4f} (99 %)."
    )
    if (outside := sum(pair.group == _NO_UNIT for pair in found.pairs)) > 0:
        said.append(f"{outside} of them are in no group: every model was trained on them.")
    clean = [group.name for group in uneven if not group.leak]
    influence = (
        f"By influence {len(uneven)} of {groups} groups are flagged (chance of any false flag {100 * found.level:g} %; "
        f"found with {found.models[0]} models, judged with {found.models[1]}, and back): they move {found.top} target "
        "examples beyond the rest of their class."
    )
    if clean:
        names = listed(clean)
        influence += f" No leak was found in {names}: they share something else with these examples."
    said.append(influence)
    return said
