"""What `leaks` found, and its page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pydt.analyses.ensemble_view import EnsembleView
from pydt.analyses.leakage.copies import CANDIDATES, PLANTED
from pydt.base import SHOWN, Result, Short, records, t975
from pydt.data import Target, not_compared, pictures, places, shared_images, shared_units
from pydt.ensemble import Plan
from pydt.reporting import (
    Block,
    Column,
    Images,
    Intervals,
    Page,
    Table,
    count,
    csv_of,
    interval_plot,
    listed,
    percent_text,
    plus_minus,
    quoted,
)

NO_GROUP = "(always kept)"
"""Stands for the group of a source example that is in none."""


@dataclass(frozen=True, repr=False)
class Suspect(Short):
    """What is known of one group.

    Attributes:
        name, size: of the group; size in examples.
        p: of the influence test, before Holm's procedure. uneven: whether that flags the group.
        effect, stderr: influence on the examples found by the other half of the models, beyond the rest of their class;
            mean over both directions.
        examples: positions (in the judged data set) of the examples that the first half found.
        copies: source examples in named pairs; same: those that are the same as a target image. leak: whether there
            are such, or more are named than by chance.
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


@dataclass(frozen=True, repr=False)
class Pair(Short):
    """A source example and the target example it looks like a copy of.

    Attributes:
        source: position in the source. group: of the source example.
        target: position in the judged data set; where `half` is "pool" or "validation", in `Target.train`.
        half: of the target example: "score" or "report"; of one that is the same also "pool" or "validation".
        correlation, mirrored: of the best view; see `pydt.analyses.leakage.similarity`.
        p: of such a correlation between images that are no copies.
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


@dataclass(frozen=True, eq=False, repr=False)
class Leaks(Result):
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
        same_bytes: how many of the same are files of the same bytes.
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

    def _columns(self) -> dict[str, Any]:
        return records(Suspect, self.groups)

    def __repr__(self) -> str:
        leaking = [one.name for one in self.groups if one.leak]
        named = f": {listed(leaking, 3)}" if leaking else ""
        held = f"{count(len(leaking), 'group')} with copies{named}"
        uneven = sum(one.uneven for one in self.groups)
        return (
            f"Leaks({count(len(self.groups), 'group')}, {count(self.judged, 'target image')}; "
            f"{count(len(self.pairs), 'pair')} named; {held}; influence flags {uneven:,})"
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the influence of the most suspicious groups on the examples that they move most, with 95 % intervals.

        Args:
            ax: `matplotlib.axes.Axes` to draw into; by default a figure of its own.

        Returns:
            the axes.
        """
        shown, reach = self.groups[:SHOWN], t975(self.df)
        values, errors = np.array([[one.effect, reach * one.stderr] for one in shown]).reshape(-1, 2).T
        label = f"influence beyond the rest of the class ({self.unit}), 95 % intervals"
        return interval_plot([one.name for one in shown], values, errors, label, ax=ax)

    def page(self) -> Page:
        """The page of this analysis."""
        return _page(self)


_METHOD = """
Jain et al. 2023, section 4.3, find leaks by looking at the source images of largest influence. Here a test decides
which groups are looked at first, images decide what is a copy, and both have error rates.

    r_ij = y_ij - b_j (mean of y_i over the rest of the class of j)
    gap = log((1 - c of the next best target image) / (1 - c of the best))

One half of the models finds the target examples of largest influence on r, the other half estimates the influence on
their mean (t test), and back; Holm's procedure over the groups. Images of the same bytes or pixels need no test. Of the
others, c is the largest correlation over 54 views of grey, blurred images; without copies the gap is exponential (Facco
et al. 2017), at the rate of the target's images among themselves, near-duplicates being one image. Benjamini-Hochberg
over the source examples names the pairs; changed copies of target images measure what is missed.
"""
_SURE, _BLIND = 0.8, 0.2  # shares of planted copies: found from the one on, not detectable below the other
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
    low, high = percent_text(min(shares)), percent_text(max(shares))
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def _page(found: Leaks) -> Page:
    leaking = [group for group in found.groups if group.leak]
    uneven = [group for group in found.groups if group.uneven]
    source, task = found._plan.source, found._target
    of = {"pool": task.train, "validation": task.train, "score": task.judged, "report": task.judged}
    keys, theirs = source.all_keys(), {half: data.all_keys() for half, data in of.items()}
    shown = found.pairs[:32]
    pairs = [one for pair in shown for one in ((source, pair.source), (of[pair.half], pair.target))]
    images = [picture for data, i in pairs for picture in pictures(data, [i], passed=found._view.passed)]
    where = [place for data, i in pairs for place in places(data, [i])]
    captions = [
        f"{pair.group}: {keys[pair.source]} = {theirs[pair.half][pair.target]} ({pair.half}), "
        + (f"r {pair.correlation:.4f}" if pair.how == "alike" else pair.how)
        for pair in shown
    ]
    group_columns = (
        Column("group", "name"),
        Column("examples", "size"),
        *map(Column, ("copies", "same", "leak", "uneven", "p", "effect", "stderr")),
        Column("gain on originals", "gain"),
        Column("its stderr", "gain_stderr"),
    )
    pair_columns = (
        Column("source"),
        Column("source_key", lambda pair: keys[pair.source]),
        *map(Column, ("group", "target")),
        Column("target_key", lambda pair: theirs[pair.half][pair.target]),
        *map(Column, ("half", "how", "correlation", "mirrored", "p")),
        Column("phash_bits", "phash"),
        Column("dhash_bits", "dhash"),
        Column("cosine"),
    )
    blocks: list[Block] = []
    if images:
        title = "Copies: the source image and the target image it matches"
        blocks.append(Images(images, captions, title, together=2, places=where))
    suspicious = [group for group in found.groups if group.leak or group.uneven or group.copies]
    if suspicious:
        blocks.append(Table.of(suspicious, group_columns, "Groups with evidence of either kind"))
    ranked, reach = sorted(found.groups, key=lambda group: group.p)[:20], t975(found.df)
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
    planted = f"Share of {min(PLANTED, found.judged)} copies of each kind, made of target images, that would be named"
    heads = ("change", "found in flagged groups", "found elsewhere", "a copy changed so")
    blocks.append(Table(heads, kinds, planted))
    return Page(
        name="leaks",
        title="Leaks",
        question="Does the source hold copies of the target's images, and what do they do?",
        answer=found._view.told(_sentences(found, leaking, uneven)),
        blocks=blocks,
        csv={
            "groups.csv": csv_of(found.groups, group_columns),
            "pairs.csv": csv_of(found.pairs, pair_columns),
            "found.csv": (("change", "flagged_groups", "rest", "verdict"), kinds),
        },
        method=_METHOD,
    )


def _sentences(found: Leaks, leaking: Sequence[Suspect], uneven: Sequence[Suspect]) -> list[str]:
    said = [*_same(found), *_changed(found, leaking)]
    if (outside := sum(pair.group == NO_GROUP for pair in found.pairs)) > 0:
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
