"""Designs: which groups each model of an ensemble is trained on.

A design is a 0/1 matrix, models x groups, drawn from counter-based random numbers keyed by (seed, row): row i is the
same whatever the number of models, so a design grows by `extend` without changing what is already trained. Three
kinds are drawn:

    random      every model keeps round(alpha * groups) groups. Such masks only say how a group compares with the
                average other group (estimand "swap"): adding one group always takes another away.
    bernoulli   every group is kept with probability alpha, on its own. Masks say what adding a group does ("add").
    foldover    rows of a randomly signed Hadamard matrix, each followed by its complement (alpha = 1/2, "add"). In a
                whole block of 2N rows (N the power of two above `groups`) all groups are orthogonal and even-order
                interactions cancel within pairs; blocks are drawn afresh with random columns, signs and row order, so
                any prefix is usable. Up to 5 groups: every mask but the empty and the full one, in pairs.
    stratified  what `random(..., strata=labels)` makes: every model keeps the same number of groups of each stratum, so
                masks say how a group compares with the average other group of its stratum ("swap"), and nothing about
                one stratum against another. There is no stratified form of the other two: coins that are thrown for
                each group on its own have no size to hold, and a foldover block is balanced in every group already.

Masks are never empty: an empty row is drawn again, a foldover block with an empty row gets new signs and columns.

A design is its arguments: rows are drawn when they are asked for (`pydt.design.kinds.rule`), so a design of 100,000
models on
1.3 million units takes no memory to plan. Only what asks for all masks (`packed()`, `numpy.asarray`) holds them.

How masks are drawn is frozen: stored rows are named by their masks, and a design is stored as its arguments alone. The
same arguments give the same bits in every version; another way to draw is another kind.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.base import DesignError, PydtError, digest, share, to_array, whole
from pydt.design.kinds import rule as drawing

KINDS = ("random", "stratified", "bernoulli", "foldover", "explicit")
PLACEBOS = 8
_MOST_PLACEBOS = 4096
_CERTAIN = 64  # two masks that coincide by chance with a probability below 2^-64 never do


@dataclass(frozen=True, eq=False)
class Design:
    """Masks of an ensemble. Make one with `random`, `bernoulli`, `foldover` or `explicit`.

    Attributes:
        kind: "random", "stratified", "bernoulli", "foldover" or "explicit".
        groups, models: columns and rows.
        alpha: share of the groups that a model keeps (for "explicit": the mean share found in the masks).
        seed: seed of the drawing (0 for "explicit").
        placebo_count: columns of `placebos`.
        strata: stratum of each group, int64 (groups,), numbered in order of appearance; None unless "stratified".

    `len(d)` is `models`; `d[i]` is bool (groups,), a slice or index array gives (rows, groups), and iterating gives row
    after row; `np.asarray(d)` is bool (models, groups), without placebos; `d.take(rows)` is the design of some of its
    rows. Only the rows asked for are drawn, about 30 bytes a group at a time, plus 16 to 32 bytes a group that a
    foldover design keeps of its last block. Equal designs have equal digests.
    """

    kind: str
    groups: int
    models: int
    alpha: float
    seed: int = 0
    placebo_count: int = PLACEBOS
    strata: npt.NDArray[np.int64] | None = field(default=None, repr=False)
    _given: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    _rows: npt.NDArray[np.int64] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.models

    def __getitem__(self, index: Any) -> npt.NDArray[np.bool_]:
        rows = np.arange(self.models)[index]
        masks = _unpack(self.packed(rows.reshape(-1)), self.groups)
        return masks.reshape(*rows.shape, self.groups)

    def __iter__(self) -> Iterator[npt.NDArray[np.bool_]]:
        for rows in self._chunks():
            yield from self[rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("a design is drawn, or held packed: its mask array is always a new one")
        masks = _unpack(self.packed(), self.groups)
        return masks if dtype is None else masks.astype(dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Design) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def packed(self, rows: npt.ArrayLike | None = None) -> npt.NDArray[np.uint8]:
        """Masks as uint8 (rows, ceil(groups / 8)), little bit first.

        Args:
            rows: int (n,), which rows; only these are drawn. None: all of them, read-only; the design keeps them.

        Raises:
            DesignError: a row that the design does not have.
        """
        if rows is None:
            return self._bits
        chosen = self._numbers(rows)
        held = self._given if self._given is not None else self.__dict__.get("_bits")
        if held is not None:
            return held[chosen]
        return self._draw(self._rule, chosen, self.groups)

    def _numbers(self, rows: npt.ArrayLike) -> npt.NDArray[np.int64]:
        chosen = to_array(rows, "rows", DesignError)
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise DesignError(
                f"shape {chosen.shape} and dtype {chosen.dtype} are not row numbers",
                "rows",
                "pass whole numbers (n,), as numpy.flatnonzero gives them for a mask of rows",
            )
        outside = chosen[(chosen < 0) | (chosen >= self.models)]
        if outside.size:
            raise DesignError(f"row {outside[0]} of {self.models}", "rows", f"pass numbers from 0 to {self.models - 1}")
        return chosen.astype(np.int64)

    def _chunks(self) -> Iterator[npt.NDArray[np.int64]]:
        """All row numbers, as many at a time as are drawn at once."""
        step = max(1, drawing.CHUNK // self.groups)
        for start in range(0, self.models, step):
            yield np.arange(start, min(start + step, self.models))

    @cached_property
    def _bits(self) -> npt.NDArray[np.uint8]:
        bits = self._given if self._given is not None else self.packed(np.arange(self.models))
        bits.flags.writeable = False
        return bits

    @cached_property
    def _rule(self) -> drawing.Rule:
        return self._rule_of(self.groups, 0, self.strata)

    def _rule_of(self, groups: int, stream: int, strata: npt.NDArray[np.int64] | None) -> drawing.Rule:
        bits = drawing.Bits(self.seed, stream)
        if self.kind == "foldover":
            return drawing.Foldover(groups, bits)
        if self.kind == "bernoulli":
            return drawing.Independent(groups, self.alpha, bits)
        if self.strata is None or strata is None:
            return drawing.FixedSize(groups, np.array([round(self.alpha * groups)]), bits)
        sizes = drawing.stratum_sizes(self.alpha, np.bincount(self.strata), drawing.Bits(self.seed))
        return drawing.FixedSize(groups, np.resize(sizes, int(strata.max()) + 1), bits, strata)

    def _draw(self, rule: drawing.Rule, rows: npt.NDArray[np.int64], columns: int) -> npt.NDArray[np.uint8]:
        """The first columns of some rows of a rule, packed."""
        chosen = rows if self._rows is None else self._rows[rows]
        packed = np.empty((len(rows), -(-columns // 8)), np.uint8)
        step = max(1, drawing.CHUNK // self.groups)
        for start in range(0, len(rows), step):
            drawn = rule(chosen[start : start + step], columns)
            packed[start : start + step] = _core.pack(np.ascontiguousarray(drawn))
        return packed

    @cached_property
    def placebos(self) -> npt.NDArray[np.bool_]:
        """Columns bound to no image, bool (models, placebo_count): drawn by the same rule, on their own.

        They are the first columns of an independent design of max(groups, placebo_count) groups, so their number never
        changes a real mask; of a stratified one, strata as large as those of the groups, in random order. What the
        estimators find for them is what noise looks like. They cost as much to draw as the masks (foldover: nearly
        nothing); for some rows, take those first.
        """
        if not self.placebo_count:
            return np.zeros((self.models, 0), bool)
        groups, strata = max(self.groups, self.placebo_count), self.strata
        if strata is not None:  # as often as there are placebos enough, each time as strata of their own
            times = -(-self.placebo_count // self.groups)
            strata = np.concatenate([strata + i * (int(strata.max()) + 1) for i in range(times)])
            strata = strata[drawing.shuffled(len(strata), drawing.Bits(self.seed, drawing.PLACEBO))]
            groups = len(strata)
        bits = self._draw(self._rule_of(groups, drawing.PLACEBO, strata), np.arange(self.models), self.placebo_count)
        columns = _unpack(bits, self.placebo_count)
        columns.flags.writeable = False
        return columns

    @cached_property
    def clusters(self) -> npt.NDArray[np.int64]:
        """int64 (models,): rows that repeat or complement each other share a number, from 0 in order of appearance.

        Known without drawing a mask where chance repeats none: no two rows of a random or Bernoulli design, and the
        pairs of a foldover design. Elsewhere (few groups, or few kept) masks are compared, by 128-bit digests where
        they are longer.
        """
        if self.kind != "explicit" and 2 * math.log2(self.models) - self._rule.surprise < -_CERTAIN:
            rows = np.arange(self.models) if self._rows is None else self._rows
            rows = rows // 2 if self.kind == "foldover" else rows
            return _number(rows.astype(np.int64)[:, None].view(np.uint8))
        folded = [_shorten(_fold(self.packed(rows), self.groups)) for rows in self._chunks()]
        return _number(np.concatenate(folded))

    @property
    def estimand(self) -> str:
        """What the masks can say: "swap" (a group against the average other group) or "add" (what adding it does)."""
        if self.kind == "explicit":
            return estimand_of(self._bits, self.groups)
        return "swap" if self.kind in ("random", "stratified") else "add"

    @property
    def constants(self) -> int:
        """Sums over groups that no mask changes: 1 where all keep as many groups, one for every stratum, else 0."""
        return 0 if self.estimand == "add" else 1 if self.strata is None else int(self.strata.max()) + 1

    @cached_property
    def digest(self) -> str:
        return digest("design", self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description from which `from_dict` makes the same design."""
        described: dict[str, Any] = {"kind": self.kind, "groups": self.groups, "models": self.models}
        if self._given is not None:
            return {**described, "masks": base64.b64encode(self._given.tobytes()).decode()}
        described |= {"alpha": self.alpha, "seed": self.seed, "placebos": self.placebo_count}
        if self.strata is not None:
            described["strata"] = self.strata.tolist()
        return described if self._rows is None else {**described, "rows": self._rows.tolist()}

    @staticmethod
    def from_dict(description: dict[str, Any]) -> Design:
        """The design that `to_dict` described: the same bits, in every version of this package.

        Raises:
            DesignError: the description lacks an entry, names an unknown kind, or its numbers do not fit together.
        """
        try:
            kind, groups, models = description["kind"], description["groups"], description["models"]
            if kind == "explicit":
                raw = np.frombuffer(base64.b64decode(description["masks"]), np.uint8)
                return Design.explicit(_unpack(raw.reshape(models, -1).copy(), groups))
            alpha, seed, count = description["alpha"], description["seed"], description["placebos"]
            if "rows" in description:
                rows = np.asarray(description["rows"], np.int64)
                plain = {name: value for name, value in description.items() if name != "rows"}
                return Design.from_dict({**plain, "models": int(rows.max()) + 1}).take(rows)
            strata = description["strata"] if kind == "stratified" else None
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DesignError(
                f"not a description of a design ({error})", "from_dict", "use what to_dict returned"
            ) from error
        if kind in ("random", "stratified"):
            return random(groups, models, alpha, seed, placebos=count, strata=strata)
        if kind == "bernoulli":
            return bernoulli(groups, models, alpha, seed, placebos=count)
        if kind == "foldover":
            return foldover(groups, models, seed, alpha=alpha, placebos=count)
        raise DesignError(
            f"unknown kind of design {kind!r}",
            "from_dict",
            'use "random", "stratified", "bernoulli", "foldover" or "explicit"',
        )

    @staticmethod
    def explicit(masks: npt.ArrayLike) -> Design:
        """A design from masks of one's own, 0/1 or bool (models, groups), without placebos; it cannot be extended.

        Raises:
            DesignError: masks of another shape, an entry that is neither 0 nor 1, or an empty row.
        """
        kept = as_masks(masks, DesignError)
        empty = np.flatnonzero(~kept.any(1))
        if empty.size:
            raise DesignError(
                f"row {empty[0]} keeps no group", "masks", "a model needs at least one group to be trained on"
            )
        models, groups = kept.shape
        return Design("explicit", groups, models, float(kept.mean()), 0, 0, _given=_core.pack(kept))

    def extend(self, models: int) -> Design:
        """The same design with `models` rows in all; the rows it has stay as they are.

        Raises:
            DesignError: fewer rows than it has, or masks of one's own.
        """
        models = whole(models, "models", "extend", 1, error=DesignError)
        if models < self.models:
            raise DesignError(f"{models} models are fewer than the {self.models} it has", "models", "ask for more")
        if self._rows is not None:
            raise DesignError(
                "a selection of rows has no next row", "extend", "extend the design, then take rows of it"
            )
        if self.kind == "explicit":
            raise DesignError("masks of one's own have no rule to draw more by", "extend", "make a new explicit design")
        return Design(self.kind, self.groups, models, self.alpha, self.seed, self.placebo_count, self.strata)

    def take(self, rows: npt.ArrayLike) -> Design:
        """The design of some of its rows (those that finished): masks, placebos and clusters are those of the rows.

        It keeps kind, alpha and seed, so pairs stay known as pairs where a partner is missing. The first rows in order
        are the same design with fewer models; any other selection has a digest of its own.

        Args:
            rows: int (n,), each at most once, in any order.

        Raises:
            DesignError: no rows, a row twice, or a row that the design does not have.
        """
        chosen = self._numbers(rows)
        if not chosen.size:
            raise DesignError("no rows: a design has at least one", "rows", "name the rows to take")
        values, counts = np.unique(chosen, return_counts=True)
        if counts.max() > 1:
            raise DesignError(f"row {values[counts.argmax()]} is there twice", "rows", "name every row once")
        if self._given is not None:
            return Design.explicit(self[chosen])
        chosen = chosen if self._rows is None else self._rows[chosen]
        selection = None if np.array_equal(chosen, np.arange(len(chosen))) else chosen
        return replace(self, models=len(chosen), _rows=selection)


def random(
    groups: int,
    models: int,
    alpha: float = 0.5,
    seed: int = 0,
    *,
    placebos: int = PLACEBOS,
    strata: npt.ArrayLike | None = None,
) -> Design:
    """Masks that each keep exactly round(alpha * groups) groups, any of them equally likely.

    With `strata`, every mask keeps the same number of groups of each stratum, any of them equally likely: alpha times
    the stratum's groups, rounded up or down (at least 1) so that they are round(alpha * groups) in all; where strata
    have equal claims on a group more, the seed decides, once for the whole design. Sizes of strata then vary no output:
    a group is only compared with the others of its stratum (`estimand` "swap"), and of differences between strata
    nothing is learnt.

    Args:
        strata: stratum of each group, (groups,) whole numbers or strings; at least two groups in each.

    Raises:
        DesignError: `alpha` keeps no group or all of them, of the whole or of a stratum; or an argument is out of
            range.
    """
    groups, models, alpha, seed, placebos = _checked(groups, models, alpha, seed, placebos)
    size = round(alpha * groups)
    if size in (0, groups):
        kept = "no group" if size == 0 else "all groups"
        raise DesignError(
            f"alpha = {alpha:g} of {groups} groups keeps {kept}", "alpha", "nothing would vary: choose another"
        )
    if strata is None:
        return Design("random", groups, models, alpha, seed, placebos)
    return Design("stratified", groups, models, alpha, seed, placebos, _strata(strata, groups, alpha, seed))


def _strata(strata: npt.ArrayLike, groups: int, alpha: float, seed: int) -> npt.NDArray[np.int64]:
    """The strata numbered in order of appearance, each large enough to vary."""
    labels = to_array(strata, "strata", DesignError)
    if labels.dtype == object and all(isinstance(label, str) for label in labels.flat):
        labels = labels.astype(str)
    if labels.shape != (groups,) or labels.dtype.kind not in "biuU":
        raise DesignError(
            f"strata of shape {labels.shape} and dtype {labels.dtype} for {groups} groups",
            "strata",
            "pass one whole number or string per group",
        )
    names, first, code = np.unique(labels, return_index=True, return_inverse=True)
    code = np.argsort(np.argsort(first))[code.reshape(-1)].astype(np.int64)
    counts = np.bincount(code)
    sizes = drawing.stratum_sizes(alpha, counts, drawing.Bits(seed))
    if sizes.min() < 0:
        wrong = int(sizes.argmin())
        name, number = names[np.argsort(first)][wrong].item(), int(counts[wrong])
        raise DesignError(
            f"stratum {name!r} has {number} group{'s' * (number > 1)}: alpha = {alpha:g} must keep some, not all",
            "strata",
            "merge it with another stratum, or choose an alpha that keeps at least one and leaves one out of each",
        )
    return code


def bernoulli(groups: int, models: int, alpha: float = 0.5, seed: int = 0, *, placebos: int = PLACEBOS) -> Design:
    """Masks in which every group is kept with probability `alpha`, on its own; empty masks are drawn again.

    Raises:
        DesignError: most masks would be empty, or a number is out of range.
    """
    groups, models, alpha, seed, placebos = _checked(groups, models, alpha, seed, placebos)
    if (1 - alpha) ** groups > 0.5:
        raise DesignError(
            f"alpha = {alpha:g} of {groups} groups leaves most masks empty", "alpha", "choose a larger one"
        )
    return Design("bernoulli", groups, models, alpha, seed, placebos)


def foldover(groups: int, models: int, seed: int = 0, *, alpha: float = 0.5, placebos: int = PLACEBOS) -> Design:
    """Randomised Hadamard masks, each followed by its complement; an odd number of models ends with half a pair.

    Raises:
        DesignError: `alpha` is not 1/2, there are fewer than 3 groups, or a number is out of range.
    """
    groups, models, alpha, seed, placebos = _checked(groups, models, alpha, seed, placebos)
    if alpha != 0.5:
        raise DesignError(
            f"foldover masks keep half of the groups, not alpha = {alpha:g}",
            "alpha",
            "use random or bernoulli for that share",
        )
    if groups < 3:
        raise DesignError(
            f"foldover cannot tell {groups} groups apart without empty masks",
            "groups",
            "use bernoulli, or finer groups",
        )
    return Design("foldover", groups, models, alpha, seed, placebos)


def find_clusters(packed: npt.NDArray[np.uint8], groups: int) -> npt.NDArray[np.int64]:
    """Number the rows so that equal and complementary masks share a number, int64 (models,), in order of appearance.

    Args:
        packed: uint8 (models, ceil(groups / 8)), little bit first.
    """
    return _number(_fold(packed, groups))


def find_repeats(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Number the rows so that equal masks share a number, int64 (models,), in order of appearance."""
    return _number(packed)


def estimand_of(packed: npt.NDArray[np.uint8], groups: int) -> str:
    """ "swap" if all masks keep the same number of groups, else "add"."""
    sizes = np.bitwise_count(packed).sum(1, dtype=np.int64)
    return "swap" if groups > 1 and np.all(sizes == sizes[0]) else "add"


def as_masks(
    masks: npt.ArrayLike, kind: type[PydtError] = DesignError, mend: str = "pass 0/1 masks"
) -> npt.NDArray[np.bool_]:
    """Any 0/1 array-like (models, groups) as C-contiguous bool; raises `kind`, naming the entry that is neither."""
    array = to_array(masks, "masks", kind)
    if array.ndim != 2 or 0 in array.shape:
        raise kind(f"shape {array.shape} is not (models, groups)", "masks", "pass one row of 0 and 1 per model")
    if array.dtype != bool:
        if array.dtype.kind not in "iuf":
            raise kind(f"dtype {array.dtype} is not one of masks", "masks", "pass bool, or numbers 0 and 1")
        wrong = np.argwhere((array != 0) & (array != 1))
        if wrong.size:
            row, group = wrong[0]
            raise kind(f"{array[row, group]} is neither 0 nor 1", f"masks, row {row}, group {group}", mend)
        array = array != 0
    return np.ascontiguousarray(array)


def _fold(packed: npt.NDArray[np.uint8], groups: int) -> npt.NDArray[np.uint8]:
    """Each mask or its complement, whichever leaves group 0 out: one form for both halves of a pair."""
    ones = _core.pack(np.ones((1, groups), bool))
    return np.where(packed[:, :1] & 1, packed ^ ones, packed)


def _shorten(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Rows of at most 16 bytes: longer ones become digests of that length."""
    if rows.shape[1] <= 16:
        return rows
    names = b"".join(hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows)
    return np.frombuffer(names, np.uint8).reshape(-1, 16)


def _number(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    rows = np.ascontiguousarray(rows)
    keys = rows.view(np.dtype((np.void, rows.shape[1]))).reshape(-1)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first, kind="stable")] = np.arange(len(first))
    return order[inverse.reshape(-1)]


def _unpack(packed: npt.NDArray[np.uint8], groups: int) -> npt.NDArray[np.bool_]:
    return _core.unpack(np.ascontiguousarray(packed), groups)


def _checked(groups: Any, models: Any, alpha: Any, seed: Any, placebos: Any) -> tuple[int, int, float, int, int]:
    groups = whole(groups, "groups", "design", 1, error=DesignError)
    models = whole(models, "models", "design", 1, error=DesignError)
    alpha = share(alpha, "alpha", "design", DesignError)
    seed = whole(seed, "seed", "design", error=DesignError)
    placebos = whole(placebos, "placebos", "design", error=DesignError)
    if placebos > _MOST_PLACEBOS:
        wrong = f"{placebos:,} columns, more than {_MOST_PLACEBOS:,}"
        raise DesignError(wrong, "placebos", f"{PLACEBOS} show what noise looks like")
    return groups, models, alpha, seed, placebos
