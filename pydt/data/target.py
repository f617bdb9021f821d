"""Targets: labelled tasks whose examples are split once and for all into parts that never meet.

The parts: a few-shot pool, validation, a *score* half from which influences are computed, a *report* half on which
every verdict is judged. They are stratified by label and ordered by a hash of the example's key, so no seed changes
them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pydt.base import DataError, digest, hash_order, one_of, whole
from pydt.data.dataset import Dataset, spool
from pydt.data.identical import Same, not_compared, same, shared_images, shared_units

HALVES = ("score", "report")
_FEW = 3  # classes that an error or a note lists
METRICS = ("top-1", "mean per class", "auroc")
# Pairs of digests that are known to share nothing: a target is built again for each store that it enters.
_apart: set[tuple[str, str]] = set()
# What a source shares with the data sets of a target, by the digests of all of them.
shared_by_digest: dict[tuple[str, ...], dict[str, Same]] = {}


@dataclass(frozen=True, eq=False)
class Target:
    """A labelled target task, split once and for all.

    Args:
        train: the labelled examples from which few-shot draws and validation come.
        test: a test set of its own, split into the score and the report half; without one, `train` is split four ways.
            Its classes are known by their names: each must be one of `train`, but it need not have all of them.
            It must share no example with `train`: raw images are compared by their pixels, encoded ones by the bytes
            of their files.
        metric: "top-1" (every example counts the same), "mean per class" (every class does) or "auroc" (area under the
            ROC curve: of two classes, or the mean over the classes of one against the rest).
        pool, validation: how many examples of `train` go there; by default 2/9 and 1/9 of it, or with a test set all
            but 1/9, and 1/9.

    Raises:
        DataError: train and test differ in classes or shape or share examples, there is one class only, pool or
            validation is no whole number, a part would be empty, or, for "auroc", a judged half has one class.
    """

    train: Dataset
    test: Dataset | None = None
    metric: str = "top-1"
    pool: int | None = None
    validation: int | None = None

    def __post_init__(self) -> None:
        one_of(self.metric, METRICS, "metric", "Target", DataError)
        for name, data in (("train", self.train), ("test", self.test)):
            if not (isinstance(data, Dataset) or (name == "test" and data is None)):
                raise DataError(f"{name} is a {type(data).__name__}", "Target", f"give {name}=Dataset.from_arrays(...)")
        for name in ("pool", "validation"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole(getattr(self, name), name, "Target", most=None))
        classes = self.train.classes
        if len(classes) < 2:
            raise DataError(
                f"{len(classes)} class", self.train.name, "a target needs at least two classes to tell apart"
            )
        if self.test is not None:
            object.__setattr__(self, "test", _numbered_as(self.test, classes))
            if (self.test.images is None) != (self.train.images is None) or (
                self.test.images is not None and self.test.images.shape[1:] != self.train.images.shape[1:]  # type: ignore[union-attr]
            ):
                raise DataError("train and test images have different shapes", "Target", "bring both to one shape")
            _refuse_shared(self.train, self.test)
        for part in ("pool", *HALVES):
            if not len(self.split[part]):
                sizes = " + ".join(f"{len(self.split[name])} {name}" for name in ("pool", "validation", *HALVES))
                wrong = f"the {part} part has no example: {len(self.train):,} images of train are split into {sizes}"
                wrong = wrong if self.test is None else f"{wrong}, the halves from {len(self.test):,} of test"
                mend = "give more target examples, or other sizes: Target(pool=..., validation=...)"
                raise DataError(wrong, self.train.name, mend)
        for half in HALVES if self.metric == "auroc" else ():
            found = np.unique(self.judged.labels[self.split[half]])
            if len(found) < 2:
                wrong = f"the {half} half has images of class {classes[found[0]]!r} alone, so there is no AUROC"
                raise DataError(wrong, self.judged.name, "give more images of the other classes, or another metric")

    @property
    def name(self) -> str:
        return self.train.name

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    @property
    def judged(self) -> Dataset:
        """The data set whose examples are split into the score and the report half."""
        return self.train if self.test is None else self.test

    @cached_property
    def split(self) -> dict[str, np.ndarray]:
        """Sorted int64 positions: "pool" and "validation" in `train`, "score" and "report" in `judged`."""
        order = _stratified_order(self.train)
        n = len(order)
        validation = max(n // 9, 1) if self.validation is None else self.validation
        pool = self.pool
        if pool is None:
            pool = round(2 * n / 9) if self.test is None else n - validation
        if pool < 0 or validation < 0 or pool + validation > n:
            what = f"pool {pool} and validation {validation} of {n} examples"
            raise DataError(what, self.train.name, "make them smaller")
        judged = order[pool + validation :] if self.test is None else _stratified_order(self.test)
        half = len(judged) // 2
        parts = {"pool": order[:pool], "validation": order[pool : pool + validation]}
        parts |= {"score": judged[:half], "report": judged[half:]}
        return {name: np.sort(part) for name, part in parts.items()}

    @cached_property
    def digest(self) -> str:
        test = None if self.test is None else self.test.digest
        parts = [digest(self.split[name]) for name in ("pool", "validation", *HALVES)]
        return digest("target", self.train.digest, test, self.metric, parts)

    def counts(self) -> dict[str, np.ndarray]:
        """Images of each class in each part, int64 (classes,)."""
        data = {"pool": self.train, "validation": self.train} | dict.fromkeys(HALVES, self.judged)
        return {
            part: np.bincount(data[part].labels[ids], minlength=len(self.classes)) for part, ids in self.split.items()
        }

    def sum_of(self, label: int) -> str:
        """The images of a class by part: "class 'cat' has 7 images: 2 pool + 1 validation + 2 score + 2 report"."""
        counts = {part: int(own[label]) for part, own in self.counts().items()}
        parts = " + ".join(f"{number} {part}" for part, number in counts.items())
        total = sum(counts.values())
        return f"class {self.classes[label]!r} has {total} image{'' if total == 1 else 's'}: {parts}"

    def notes(self) -> list[str]:
        """A sentence where classes that few-shot draws may learn have no image in a judged half of one data set. (A
        test set of its own may lack classes.)
        """
        if self.test is not None or not {*HALVES} <= self.split.keys():
            return []
        counts = self.counts()
        lacking = [c for c in range(len(self.classes)) if not counts["score"][c] or not counts["report"][c]]
        if not lacking:
            return []
        first = sorted(lacking, key=lambda c: sum(int(own[c]) for own in counts.values()))[:_FEW]
        more = f"; and {len(lacking) - _FEW} more classes" if len(lacking) > _FEW else ""
        told = "; ".join(self.sum_of(c) for c in first)
        return [f"{told}{more}: too few to judge in both halves; give more images, or a test set of its own"]

    def described(self) -> dict[str, np.ndarray]:
        """The judged examples in the order of every stored output.

        Returns:
            "ids": int64 positions in `judged`; "labels": int64; "half": uint8, 0 score and 1 report; "weights":
            float64, whose sum over the correct examples of a half is the metric; for "auroc", that with the
            examples' values (`pydt.training.transfer.auroc`) in place of 0 and 1.
        """
        ids = np.concatenate([self.split[half] for half in HALVES])
        half = np.repeat(np.arange(2, dtype=np.uint8), [len(self.split[h]) for h in HALVES])
        labels = self.judged.labels[ids]
        weights = np.empty(len(ids))
        for i in range(2):
            counts = np.bincount(labels[half == i], minlength=len(self.classes))
            per_class = 1 / np.maximum(counts, 1) / (counts > 0).sum()
            weights[half == i] = 1 / counts.sum() if self.metric == "top-1" else per_class[labels[half == i]]
        return {"ids": ids, "labels": labels, "half": half, "weights": weights}

    def shared(self, source: Dataset, pixels: bool | None = True) -> dict[str, Same]:
        """The images that a source shares with "train" and "test" (if any). `pydt.leaks` finds changed copies."""
        sets = {"train": self.train} | ({} if self.test is None else {"test": self.test})
        return {name: same(source, data, pixels) for name, data in sets.items()}

    def copied(self, source: Dataset, units: np.ndarray, names: Sequence[str]) -> list[str]:
        """Sentences about images of this target that a source holds, and in which of its groups (int64 (examples,), -1
        for none; and their names). Pixels of files are compared where that is quick; else a sentence says that they
        were not.
        """
        key = (source.digest, self.train.digest, *(() if self.test is None else (self.test.digest,)))
        if key not in shared_by_digest:
            shared_by_digest[key] = self.shared(source, None)
        found = shared_by_digest[key].values()
        images = sum(int((one.theirs >= 0).sum()) for one in found)
        compared = all(one.pixels for one in found)
        held = np.any([one.ours >= 0 for one in found], axis=0)
        ours = int((np.any([one.blank for one in found], axis=0) & ~held).sum())
        blank = sum(int(one.theirs_blank.sum()) for one in found)
        apart = [not_compared(ours, blank, f"the target {self.name!r}")] if blank else []
        if not images and compared:
            return apart
        if not images:
            return [
                f"no image of the target {self.name!r} is in the source byte for byte; one of the same pixels could "
                "not have been detected: there are too many files to compare them now, pydt.leaks does"
            ]
        by_bytes = sum(int((one.theirs_by_bytes & (one.theirs >= 0)).sum()) for one in found)
        first = source.all_keys()[int(held.argmax())]
        told = shared_images(images, f"the target {self.name!r}", by_bytes)
        less = "" if compared else "; the pixels of files were not compared"
        where = f"{shared_units(units[held], names)} (the first: {first!r})"
        return [f"{told}, {where}{less}; models trained on these groups have seen the copies", *apart]

    def spool(self, folder: str | os.PathLike[str]) -> Target:
        """The same target over data sets saved below `folder`, so that it travels to other processes as paths."""
        train = spool(self.train, folder)
        return replace(self, train=train, test=None if self.test is None else spool(self.test, folder))


def _numbered_as(test: Dataset, classes: tuple[str, ...]) -> Dataset:
    """A test set with the class numbers of the training set: a part of a data set may lack classes."""
    if test.classes == classes:
        return test
    strange = next((name for name in test.classes if name not in classes), None)
    if strange is not None:
        what = f"train and test have different class names: {strange!r} is in test alone"
        raise DataError(what, "Target", "give both the same classes=[...], or leave its images out of test")
    number = np.array([classes.index(name) for name in test.classes], np.int64)
    return replace(test, labels=number[test.labels], classes=classes)


def _stratified_order(dataset: Dataset) -> np.ndarray:
    """Positions such that every contiguous run holds the classes in proportion; within a class, ordered by key hash."""
    hashed = hash_order(dataset.all_keys(), "target split")
    by_class = np.lexsort((hashed, dataset.labels))
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    rank = np.arange(len(dataset)) - np.repeat(np.cumsum(counts) - counts, counts)
    quantile = np.empty(len(dataset))
    quantile[by_class] = (rank + 0.5) / np.repeat(counts, counts)
    return np.lexsort((hashed, quantile))


def _refuse_shared(train: Dataset, test: Dataset) -> None:
    """Raise where an image that few-shot draws may learn from would also be judged."""
    pair = (train.digest, test.digest)
    if pair in _apart:
        return
    mend = "leave them out of the test set, or give the images once and let Target(train=...) split them"
    if pair[0] == pair[1]:
        raise DataError("train and test are the same examples", "Target", mend)
    shared = np.flatnonzero(same(test, train, pixels=False).ours >= 0).tolist()
    if shared:
        first = f"the first is {test.all_keys()[shared[0]]!r} at position {shared[0]}"
        raise DataError(f"{len(shared)} of {len(test)} test examples are in train too, {first}", "Target", mend)
    _apart.add(pair)
