"""What a runner of the user's measures of a row: one number for each target example, with unit, direction and halves.

It stands where a `pydt.Task` stands with pydt's own training. Numbers are stored as they were given; unit, scale and
direction are read when influences are estimated, so that correcting them computes no row again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base import ConfigError, DataError, digest, hash_order, real, shown, to_array, whole
from pydt.store.descriptions import HALVES, NAMES, encoded_texts
from pydt.store.rows import VALUE

_SHOWN = 3


class Measure:
    """A number that a row gives for each of some target examples.

    Args:
        name: by which a runner returns it, and what reports call it.
        examples: how many target examples, or an id for each (texts or whole numbers), such as the names of several
            scalars. One example, the default, is one scalar a row: it serves both halves, and reports say so.
        unit: of its influences, in the plural: "points of accuracy", "nats".
        scale: how many of these units a difference of 1 is: 100 for points of a share.
        higher_is_better: False for losses and errors; a positive influence always helps.
        half: "score" (groups are ranked by it) or "report" (verdicts are judged by it) for each example; None: every
            other one, by a hash of the ids within each class.
        classes: the class of each example, by which reports split influences; None: no classes.
        weights: of each example in the mean over its half; None: equal ones.

    Raises:
        ConfigError: no name or unit, or a scale that is not above zero.
        DataError: ids that are not unique, a half without examples, or entries that do not fit the examples.
    """

    def __init__(
        self,
        name: str,
        examples: Any = 1,
        *,
        unit: str = "units",
        scale: float = 1.0,
        higher_is_better: bool = True,
        half: Any = None,
        classes: Any = None,
        weights: Any = None,
    ) -> None:
        for what, text in (("name", name), ("unit", unit)):
            if not isinstance(text, str) or not text.strip():
                raise ConfigError(f"is {text!r}", f"Measure.{what}", "give a text")
        if not isinstance(higher_is_better, bool):
            raise ConfigError(f"is {higher_is_better!r}", "Measure.higher_is_better", "give True or False")
        self.name, self.unit, self.higher_is_better = name, unit, higher_is_better
        self.scale = real(scale, "scale", f"Measure {name!r}", above=0)
        self.ids = None if isinstance(examples, (int, np.integer)) else _ids(examples, self._where("examples"))
        self.count = len(self.ids) if self.ids is not None else whole(examples, "examples", self._where(), 1)
        self.shared = self.count == 1  # one scalar is both halves
        if self.shared and half is not None:
            raise DataError("one example serves both halves", self._where("half"), "leave half out")
        names, labels = np.unique(_texts(classes, self.count, self._where("classes")), return_inverse=True)
        self.classes: tuple[str, ...] = () if classes is None else tuple(map(str, names.tolist()))
        self._labels = labels.astype(np.int64)
        self._half = np.array([0, 1], np.uint8) if self.shared else self._halves(half)
        self._weights = self._weighed(weights)
        for array in (self._labels, self._half, self._weights):  # the digest stands for them
            array.flags.writeable = False

    def _where(self, part: str = "") -> str:
        return f"Measure {self.name!r}" + (f", {part}" if part else "")

    def _halves(self, half: Any) -> npt.NDArray[np.uint8]:
        if half is None:
            order = np.lexsort((hash_order(self.keys(), "measure"), self._labels))
            found = np.empty(self.count, np.uint8)
            found[order] = np.arange(self.count) % 2
            return found
        given = np.asarray(to_array(half, self._where("half"), DataError))
        if given.shape != (self.count,):
            raise DataError(f"shape {given.shape} for {self.count} examples", self._where("half"), "give one each")
        known = {**HALVES, **{str(number): number for number in HALVES.values()}}
        wrong = next((one for one in given.tolist() if str(one) not in known), None)
        if wrong is not None:
            raise DataError(f"{wrong!r} is no half", self._where("half"), 'give "score" or "report"')
        found = np.array([known[str(one)] for one in given.tolist()], np.uint8)
        for name, number in HALVES.items():
            if not (found == number).any():
                raise DataError(f"no example in the {name} half", self._where("half"), "give both halves examples")
        return found

    def _weighed(self, weights: Any) -> npt.NDArray[np.float64]:
        """Weights that sum to 1 within each half."""
        given = np.ones(len(self._half)) if weights is None else to_array(weights, self._where("weights"), DataError)
        given = given.repeat(2) if self.shared and given.shape == (1,) else given
        fits = given.shape == self._half.shape and given.dtype.kind in "biuf"
        if not fits or not np.isfinite(given).all() or (given < 0).any():
            raise DataError("not a number >= 0 for each example", self._where("weights"), "give one each")
        sums = np.bincount(self._half, given.astype(np.float64), minlength=2)
        if not np.isfinite(sums).all():
            raise DataError("their sum is infinite", self._where("weights"), "give smaller ones")
        if not (sums > 0).all():
            raise DataError("all are zero in a half", self._where("weights"), "give some examples weight")
        # what a measure's own weights are given to keeps their bits, so a plan file's measure has the same digest
        scaled = given if (abs(sums - 1) < 1e-12).all() else given / sums[self._half]
        return np.array(scaled, np.float64)

    def keys(self) -> tuple[str, ...]:
        """What identifies each example, in order."""
        return self.ids if self.ids is not None else tuple(map(str, range(self.count)))

    @cached_property
    def digest(self) -> str:
        """Name of the measure: a digest of its name and its examples, not of unit, scale and direction."""
        ids = self.count if self.ids is None else list(self.ids)
        return digest("measure", self.name, ids, self._half, self._weights, self._labels, list(self.classes))

    def described(self) -> dict[str, Any]:
        """The measure as JSON types, for stores and reports."""
        halves = {name: int((self._half == number).sum()) for name, number in HALVES.items()}
        target = {"name": self.name, "digest": self.digest, "classes": list(self.classes), "metric": VALUE}
        about = {"unit": self.unit, "scale": self.scale, "higher_is_better": self.higher_is_better}
        return {
            "name": self.name,
            "target": {**target, "pool": 0, "validation": 0, **halves},
            "measure": {**about, "shared": self.shared},
            "mode": "measure",
            "shots": 0,
            "draws": 1,
            "seed": 0,
        }

    def examples(self) -> dict[str, np.ndarray]:
        """The examples as a store describes them, all (examples,): positions, classes, halves and weights."""
        ids = np.zeros(2, np.int64) if self.shared else np.arange(self.count)
        labels = self._labels.repeat(2) if self.shared else self._labels
        return {"ids": ids, "labels": labels, "half": self._half, "weights": self._weights}

    def stored(self) -> dict[str, np.ndarray]:
        """`examples` and, where they have ids, these: what a store keeps of the measure."""
        return self.examples() | ({} if self.ids is None else {NAMES: encoded_texts(self.ids)})

    def values(self, given: Any) -> npt.NDArray[np.float32]:
        """What a runner returned, in the order of the examples, float32 (draws, examples).

        Args:
            given: (examples,) or (draws, examples) numbers; a mapping from each id to its number; of one example also
                a number.

        Raises:
            DataError: another number of examples, other ids, or what is not numeric.
        """
        where = f"outputs of {self.name!r}"
        if isinstance(given, Mapping):
            given = self._ordered(given, where)
        found = to_array(given, where, DataError)
        if found.dtype.kind not in "biuf":
            raise DataError(f"are of type {found.dtype}, not numbers", where, "return one number for each example")
        found = found.reshape(1, 1) if found.shape == () and self.shared else np.atleast_1d(found)
        found = found[np.newaxis] if found.ndim == 1 else found
        if found.ndim != 2 or found.shape[1] != self.count or not len(found):
            mend = f"return one number for each of the {self.count:,} examples, in their order"
            raise DataError(f"are of shape {np.shape(given)}, not ({self.count},)", where, mend)
        with np.errstate(over="ignore"):  # what is infinite is told when the row is stored
            return (found.repeat(2, axis=1) if self.shared else found).astype(np.float32)

    def _ordered(self, given: Mapping[Any, Any], where: str) -> list[Any]:
        """The numbers of a mapping in the order of the examples."""
        by_id = {str(key): value for key, value in given.items()}
        if len(by_id) < len(given):
            raise DataError("name an example twice, as a text and as a number", where, "name each example once")
        keys = self.keys()
        if lacks := [key for key in keys if key not in by_id]:
            wrong = f"lack {len(lacks):,} of {self.count:,} examples ({', '.join(map(shown, lacks[:_SHOWN]))})"
            raise DataError(wrong, where, "return a number for each example")
        if len(by_id) > len(keys):
            others = sorted(by_id.keys() - set(keys))
            wrong = f"have {len(others):,} examples that the measure has not ({', '.join(map(shown, others[:_SHOWN]))})"
            raise DataError(wrong, where, "return the examples of the measure alone, or declare these")
        return [by_id[key] for key in keys]


def _ids(values: Any, where: str) -> tuple[str, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise DataError(f"{shown(values)} is neither a number of examples nor a list of ids", where, "give one of them")
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    found = tuple(one if isinstance(one, str) else str(whole(one, "id", where)) for one in listed)
    if len(set(found)) < len(found) or not found:
        wrong = "is empty" if not found else "has an id twice"
        raise DataError(wrong, where, "give every example an id of its own")
    return found


def _texts(classes: Any, count: int, where: str) -> npt.NDArray[Any]:
    if classes is None:
        return np.zeros(count, np.int64)
    found = np.asarray(to_array(classes, where, DataError))
    if found.shape != (count,):
        raise DataError(f"shape {found.shape} for {count} examples", where, "give one class for each")
    return found if found.dtype.kind in "iu" else found.astype(str)
