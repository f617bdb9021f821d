"""Designs: which groups each model of an ensemble is trained on, bool (models, groups).

Masks are drawn from counter-based random numbers keyed by (seed, row): row i does not depend on the number of models,
so a design grows by `extend`, and rows are drawn when they are asked for. A design of 100,000 models on 1.3 million
groups takes no memory to plan; only `packed()` and `numpy.asarray` hold all masks. docs/designs.md compares the kinds.

How masks are drawn is frozen: stored rows are named by their masks, and a design is stored as its arguments alone. The
same arguments give the same bits in every version; another way to draw is another kind (`pydt.design.kinds`).
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.base import DesignError, digest, html_table, share, to_array, to_frame, whole
from pydt.design.kinds import KINDS
from pydt.design.kinds import common as drawing
from pydt.design.kinds.fixed_size import numbered, shuffled
from pydt.design.masks import as_masks, estimand_of, find_repeats, fold, shorten, unpack

PLACEBOS = 8
_MOST_PLACEBOS = 4096
_SAYS = {"swap": "better or worse than the average other group (swap)", "add": "what adding the group does (add)"}
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
    after row; `np.asarray(d)` is bool (models, groups), without placebos. Only the rows asked for are drawn, with 30
    bytes a group, plus 16 to 32 that a foldover design keeps of its last block. Equal designs have equal digests.
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
        masks = unpack(self.packed(rows.reshape(-1)), self.groups)
        return masks.reshape(*rows.shape, self.groups)

    def __iter__(self) -> Iterator[npt.NDArray[np.bool_]]:
        for rows in self._chunks():
            yield from self[rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("a design is drawn, or held packed: its mask array is always a new one")
        masks = unpack(self.packed(), self.groups)
        return masks if dtype is None else masks.astype(dtype)

    def to_frame(self, names: Sequence[str] | None = None) -> Any:
        """All masks as a `pandas.DataFrame`: bool, one line for each model and one column for each group.

        Args:
            names: of the groups, in mask order, such as `dataset.classes` or `store.names()`; else their positions.

        Raises:
            DesignError: names of another number of groups. ConfigError: pandas is not installed.
        """
        if names is not None and len(names) != self.groups:
            raise DesignError(f"{len(names)} names for {self.groups} groups", "to_frame", "give one for each group")
        return to_frame(np.asarray(self), "Design", names=None if names is None else list(names))

    def _repr_html_(self) -> str:
        facts = {"kind": self.kind, "groups": f"{self.groups:,}", "models": f"{self.models:,}"}
        facts |= {"share of groups that a model keeps": f"{self.alpha:.3g}", "an influence says": _SAYS[self.estimand]}
        return html_table(f"Design of {self.models:,} models", ("", ""), facts.items(), len(facts))

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
            wrong = f"shape {chosen.shape} and dtype {chosen.dtype} are not row numbers"
            mend = "pass whole numbers (n,), as numpy.flatnonzero gives them for a mask of rows"
            raise DesignError(wrong, "rows", mend)
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
        make = KINDS[self.kind].rule
        assert make is not None
        counts = None if self.strata is None else np.bincount(self.strata)
        return make(groups, self.alpha, drawing.Bits(self.seed, stream), strata, counts)

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
        """Columns bound to no image, bool (models, placebo_count): what estimators find for them is noise.

        They are the first columns of an independent design of max(groups, placebo_count) groups by the same rule, so
        their number never changes a real mask; a stratified one has strata of the same sizes, in random order. They
        cost as much to draw as the masks (foldover: nearly nothing); for some rows, take those first.
        """
        if not self.placebo_count:
            return np.zeros((self.models, 0), bool)
        groups, strata = max(self.groups, self.placebo_count), self.strata
        if strata is not None:  # repeated until there are enough placebos, as strata of their own
            times = -(-self.placebo_count // self.groups)
            strata = np.concatenate([strata + i * (int(strata.max()) + 1) for i in range(times)])
            strata = strata[shuffled(len(strata), drawing.Bits(self.seed, drawing.PLACEBO))]
            groups = len(strata)
        bits = self._draw(self._rule_of(groups, drawing.PLACEBO, strata), np.arange(self.models), self.placebo_count)
        columns = unpack(bits, self.placebo_count)
        columns.flags.writeable = False
        return columns

    @cached_property
    def clusters(self) -> npt.NDArray[np.int64]:
        """int64 (models,): rows that repeat or complement each other share a number, from 0 in order of appearance.

        Where chance repeats no mask, none is drawn: only the pairs of a foldover design share a number. Elsewhere (few
        groups, or few kept) masks are compared, longer ones by 128-bit digests.
        """
        if self.drawn and 2 * math.log2(self.models) - self._rule.surprise < -_CERTAIN:
            rows = np.arange(self.models) if self._rows is None else self._rows
            rows = rows // 2 if self.pairs else rows
            return find_repeats(rows.astype(np.int64)[:, None].view(np.uint8))
        folded = [shorten(fold(self.packed(rows), self.groups)) for rows in self._chunks()]
        return find_repeats(np.concatenate(folded))

    @property
    def drawn(self) -> bool:
        """Whether a rule draws the masks; False: they were given."""
        return KINDS[self.kind].rule is not None

    @property
    def pairs(self) -> bool:
        """Whether row 2i + 1 is the complement of row 2i."""
        return KINDS[self.kind].pairs

    @property
    def estimand(self) -> str:
        """What the masks can say: "swap" (a group against the average other group) or "add" (what adding it does)."""
        if not self.drawn:
            return estimand_of(self._bits, self.groups)
        return "swap" if KINDS[self.kind].one_size else "add"

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
            if kind not in KINDS:
                known = ", ".join(json.dumps(name) for name in KINDS)
                raise DesignError(f"unknown kind of design {kind!r}", "from_dict", f"use one of {known}")
            if kind == "explicit":
                raw = np.frombuffer(base64.b64decode(description["masks"]), np.uint8)
                return Design.explicit(unpack(raw.reshape(models, -1).copy(), groups))
            alpha, seed, count = description["alpha"], description["seed"], description["placebos"]
            if "rows" in description:
                rows = np.asarray(description["rows"], np.int64)
                plain = {name: value for name, value in description.items() if name != "rows"}
                return Design.from_dict({**plain, "models": int(rows.max()) + 1}).take(rows)
            strata = description["strata"] if "strata" in KINDS[kind].arguments else None
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            wrong = f"not a description of a design ({error})"
            raise DesignError(wrong, "from_dict", "use what to_dict returned") from error
        return draw(kind, groups, models, alpha, seed, count, strata)

    @staticmethod
    def explicit(masks: npt.ArrayLike) -> Design:
        """A design from given masks, 0/1 or bool (models, groups), without placebos; it cannot be extended.

        Raises:
            DesignError: masks of another shape, an entry that is neither 0 nor 1, or an empty row.
        """
        kept = as_masks(masks, DesignError)
        empty = np.flatnonzero(~kept.any(1))
        if empty.size:
            wrong = f"row {empty[0]} keeps no group"
            raise DesignError(wrong, "masks", "a model needs at least one group to be trained on")
        models, groups = kept.shape
        return Design("explicit", groups, models, float(kept.mean()), 0, 0, _given=_core.pack(kept))

    def extend(self, models: int) -> Design:
        """The same design with `models` rows in all; the rows it has stay as they are.

        Raises:
            DesignError: fewer rows than it has, a selection of rows, or given masks.
        """
        models = whole(models, "models", "extend", 1, error=DesignError)
        if models < self.models:
            raise DesignError(f"{models} models are fewer than the {self.models} it has", "models", "ask for more")
        if self._rows is not None:
            wrong = "a selection of rows has no next row"
            raise DesignError(wrong, "extend", "extend the design, then take rows of it")
        if not self.drawn:
            raise DesignError("masks of one's own have no rule to draw more by", "extend", "make a new explicit design")
        return Design(self.kind, self.groups, models, self.alpha, self.seed, self.placebo_count, self.strata)

    def take(self, rows: npt.ArrayLike) -> Design:
        """The design of some of its rows, such as those that finished, with their masks, placebos and clusters.

        It keeps kind, alpha and seed, so pairs stay known where a partner is missing. The first rows in order are the
        same design with fewer models; any other selection has its own digest.

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


def draw(
    kind: str,
    groups: int,
    models: int,
    alpha: float = 0.5,
    seed: int = 0,
    placebos: int = PLACEBOS,
    strata: npt.ArrayLike | None = None,
) -> Design:
    """A design of a kind that has a rule; arguments and errors are those of `random`, `bernoulli` and `foldover`."""
    groups = whole(groups, "groups", "design", 1, error=DesignError)
    models = whole(models, "models", "design", 1, error=DesignError)
    alpha = share(alpha, "alpha", "design", DesignError)
    seed = whole(seed, "seed", "design", error=DesignError)
    placebos = whole(placebos, "placebos", "design", error=DesignError)
    if placebos > _MOST_PLACEBOS:
        wrong = f"{placebos:,} columns, more than {_MOST_PLACEBOS:,}"
        raise DesignError(wrong, "placebos", f"{PLACEBOS} show what noise looks like")
    KINDS[kind].check(groups, alpha)
    code = numbered(strata, groups, alpha, seed) if "strata" in KINDS[kind].arguments else None
    return Design(kind, groups, models, alpha, seed, placebos, code)


def random(
    groups: int,
    models: int,
    alpha: float = 0.5,
    seed: int = 0,
    *,
    placebos: int = PLACEBOS,
    strata: npt.ArrayLike | None = None,
) -> Design:
    """Masks that each keep exactly round(alpha * groups) groups, any of them equally likely ("swap").

    With `strata`, every mask keeps the same number of groups of each stratum: alpha times its groups, rounded up or
    down (at least 1) so that they are round(alpha * groups) in all; the seed settles ties, once for the whole design. A
    group is then only compared with the others of its stratum; nothing is learnt about differences between strata.

    Args:
        strata: stratum of each group, (groups,) whole numbers or strings; at least two groups in each.

    Raises:
        DesignError: `alpha` keeps no group or all of them (of a stratum), or an argument is out of range.
    """
    return draw("random" if strata is None else "stratified", groups, models, alpha, seed, placebos, strata)


def bernoulli(groups: int, models: int, alpha: float = 0.5, seed: int = 0, *, placebos: int = PLACEBOS) -> Design:
    """Masks that keep each group with probability `alpha`, independently ("add"); empty masks are drawn again.

    Raises:
        DesignError: most masks would be empty, or a number is out of range.
    """
    return draw("bernoulli", groups, models, alpha, seed, placebos)


def foldover(groups: int, models: int, seed: int = 0, *, alpha: float = 0.5, placebos: int = PLACEBOS) -> Design:
    """Rows of randomly signed Hadamard matrices, each followed by its complement ("add").

    In a whole block of 2N rows (N the power of two above `groups`) all groups are orthogonal, and even-order
    interactions cancel within pairs; any prefix is usable. Up to 5 groups: every mask but the empty and the full one.
    An odd number of models ends with half a pair.

    Raises:
        DesignError: `alpha` is not 1/2, there are fewer than 3 groups, or a number is out of range.
    """
    return draw("foldover", groups, models, alpha, seed, placebos)
