"""What the arms of a study are pre-trained on: parts of data sets, changed in captions or labels, and mixtures of them.

Every sample is nested: `take(n, seed)` holds the images of every smaller n of the same seed. A sample is an index;
images stay where they are, but for mixtures of several arrays, which are joined in memory.

Shares of a mixture are kept by Tijdeman's rule for the chairman assignment problem (Discrete Mathematics 32, 1980): a
fixed sequence of picks whose first n, for every n, hold of each of m sources its share of n up to 1 - 1/(2m - 2) images
(of two sources: rounded to the nearest). The largest remainder alone is as near, but not nested.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from pydt.base import ConfigError, DataError, digest, hash_order, one_of, real, shown, suggest, whole
from pydt.data import Dataset
from pydt.training import Recipe

CAPTIONS = ("raw", "template", "none")
TEMPLATE = "a photo of a {}"
_SUM = 1e-9  # how far the sum of the weights of a mixture may be from 1
_FINEST = 10**6  # weights that are no fraction with a denominator up to 10,000 are rounded to one millionth


@dataclass(frozen=True, eq=False)
class Source:
    """A part of a data set on which the arms of a study are pre-trained.

    Args:
        dataset: an indexed data set of any kind.
        where: keeps the examples whose group column has one of these values: {"source": "latin"} or {"source":
            ["latin", "greek"]}; "class" for the classes. Several columns: examples for which all hold.
        captions: "raw": as they are. "template": made of the label of each image, wrong where `noise` makes it wrong.
            "none": none, so that method "clip" is refused: it has no text to learn from. No other method reads
            captions, and its rows are the same for all three.
        template: where "{}" stands for the class.
        classes: class -> its name in the template, for classes that are codes or signs; others keep theirs.
        noise: share of the images, 0 to below 1, that get the label of another class of this source, each of the
            others with equal chance. Of n images `round(noise * n)` do; those that do at a lower share do at a higher
            one, and get the same wrong label.

    Raises:
        ConfigError: no such column or value (the nearest is named), no example has them, a setting is unknown or out
            of range, or noise of a source of one class.
    """

    dataset: Dataset
    where: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    captions: str = field(default="raw", kw_only=True)
    template: str = field(default=TEMPLATE, kw_only=True)
    classes: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    noise: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.dataset, Dataset):
            raise ConfigError(f"a {type(self.dataset).__name__}", "Source", "give a pydt.Dataset")
        one_of(self.captions, CAPTIONS, "captions", "Source")
        if not isinstance(self.template, str) or self.template.count("{}") != 1:
            raise ConfigError(f"template {shown(self.template)}", "Source", f"put {{}} in it once: {TEMPLATE!r}")
        object.__setattr__(self, "noise", real(self.noise, "noise", "Source", least=0, below=1))
        object.__setattr__(self, "where", self._known_where())
        object.__setattr__(self, "classes", self._known_classes())
        if not len(self._kept):
            raise ConfigError(f"no example has {_phrase(self.where)}", f"source {self.dataset.name}", "ask for less")
        if self.noise and len(self._present) < 2:
            raise ConfigError("noise in the labels of one class", self.name, "keep two classes at least")

    def _known_where(self) -> dict[str, tuple[str, ...]]:
        """`where` as column -> values; each is known."""
        if not isinstance(self.where, Mapping):
            raise ConfigError(f"where is {shown(self.where)}", "Source", 'give {"column": "value"}')
        found = {}
        for column, value in self.where.items():
            known = ["class", *self.dataset.columns]
            if column not in known:
                raise ConfigError(f"no group column {column!r}", f"source {self.dataset.name}", suggest(column, known))
            values = value if isinstance(value, (list, tuple)) else [value]
            names = self.dataset.units(column)[1]
            for one in map(str, values):
                if one not in names:
                    wrong = f"no {one!r} in column {column!r}"
                    raise ConfigError(wrong, f"source {self.dataset.name}", suggest(one, names[:1000]))
            found[column] = tuple(sorted({*map(str, values)}, key=names.index))
        return found

    def _known_classes(self) -> dict[str, str]:
        """`classes`; each is one of the data set."""
        if not isinstance(self.classes, Mapping):
            raise ConfigError(f"classes is {shown(self.classes)}", "Source", 'give {"class": "its name"}')
        for name, text in self.classes.items():
            if name not in self.dataset.classes:
                where = f"source {self.dataset.name}"
                raise ConfigError(f"no class {name!r}", where, suggest(name, self.dataset.classes[:1000]))
            if not isinstance(text, str):
                raise ConfigError(f"class {name!r} is called {shown(text)}", "Source", "give a text")
        return dict(self.classes)

    @cached_property
    def _kept(self) -> np.ndarray:
        """Positions of the examples that `where` keeps, int64."""
        kept = np.ones(len(self.dataset), bool)
        for column, values in self.where.items():
            codes, names = self.dataset.units(column)
            kept &= np.isin(codes, [names.index(value) for value in values])
        return np.flatnonzero(kept)

    @cached_property
    def _part(self) -> Dataset:
        """All examples of this source, unchanged."""
        return self.dataset.take(self._kept)

    @cached_property
    def _present(self) -> np.ndarray:
        """The classes of this source as codes of the data set, sorted."""
        return np.unique(self.dataset.labels[self._kept])

    def __len__(self) -> int:
        """How many images it has."""
        return len(self._kept)

    @property
    def largest(self) -> int:
        """The largest sample that `take` can give."""
        return len(self)

    @property
    def name(self) -> str:
        """The values that `where` keeps, or the name of the data set."""
        return _values(self.where) or self.dataset.name

    @property
    def told(self) -> str:
        """The source in a few words, changes included."""
        captions = {"raw": [], "template": [f"captions {self.template!r}"], "none": ["no captions"]}[self.captions]
        return ", ".join([self.name, *captions, *([_wrong(self.noise)] if self.noise else [])])

    @cached_property
    def digest(self) -> str:
        """Names the images, labels and captions of all samples; settings at their defaults are not part of it."""
        data = self.dataset
        settings: dict[str, Any] = {}
        if self.noise:
            settings["noise"] = self.noise
        if self.captions != "raw":
            settings["captions"] = self.captions
        if self.captions == "template":
            settings |= {"template": self.template, "classes": dict(sorted(self.classes.items()))}
        texts = None
        if self.captions == "raw" and data.captions is not None:
            texts = [data.captions[i] for i in self._kept]
        return digest("source", data.digest, self._kept, texts, settings)

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe whose method reads captions where this source has none.

        Raises:
            ConfigError: it does; the mend is named.
        """
        missing = self.captions == "none" or (self.captions == "raw" and self.dataset.captions is None)
        if recipe.method == "clip" and missing:
            mend = 'give captions="template", or leave this source and method out of cells'
            raise ConfigError('has no captions, from which method "clip" learns', f"source {self.told}", mend)

    def take(self, n: int, seed: int = 0) -> Dataset:
        """The sample of n images, 1 to len(self), that belongs to a seed; it holds that of every smaller n.

        Which labels are wrong depends on the seed, too, so that seeds vary in it. At another n they are others for a
        few images, since their number is exact for each n.

        Raises:
            DataError: n or seed is no whole number, or out of range.
        """
        sample = self._part.sample(n, seed)
        if self.noise:
            sample = self._mislabelled(sample, seed)
        if self.captions == "none":
            sample = replace(sample, captions=None)
        elif self.captions == "template":
            texts = [self.template.replace("{}", self.classes.get(name, name)) for name in sample.classes]
            sample = replace(sample, captions=tuple(texts[label] for label in sample.labels))
        wrong = [_wrong(self.noise)] if self.noise else []
        return replace(sample, name=", ".join([self.name, f"{len(sample):,} images", *wrong]))

    def _mislabelled(self, sample: Dataset, seed: int) -> Dataset:
        """The sample with wrong labels, drawn among all classes of the source."""
        names = tuple(self.dataset.classes[code] for code in self._present)
        number = {name: code for code, name in enumerate(names)}
        labels = np.array([number[name] for name in sample.classes], np.int64)[sample.labels]
        keys = sample.all_keys()
        order = np.argsort(hash_order(keys, f"noise {seed}"), kind="stable")[: round(self.noise * len(sample))]
        others = hash_order([keys[i] for i in order], f"wrong label {seed}") % np.uint64(len(names) - 1)
        other = others.astype(np.int64)
        labels[order] = other + (other >= labels[order])
        return replace(sample, labels=labels, classes=names).take(np.arange(len(sample)))


@dataclass(frozen=True, eq=False)
class Mixture:
    """Two or more sources in fixed shares. Classes of one name are one class, as in `Dataset.concat`.

    Args:
        sources: name -> `Source` or data set.
        weights: name -> share of the images, above 0; their sum is 1.

    Raises:
        ConfigError: fewer than two sources, a source that is none, names that differ, weights that are out of range or
            do not sum to 1, or one image in two sources of one data set.
        DataError: the sources are not of one kind or shape.
    """

    sources: Mapping[str, Source | Dataset]
    weights: Mapping[str, float] = field(kw_only=True)

    def __post_init__(self) -> None:
        for name, value in (("sources", self.sources), ("weights", self.weights)):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{name} {shown(value)}", "Mixture", f"give {name}={{name: ...}}")
        if len(self.sources) < 2:
            raise ConfigError(f"{len(self.sources)} of at least two sources", "Mixture", "give one more, or a Source")
        strange = next((name for name in self.weights if name not in self.sources), None)
        if strange is not None:
            raise ConfigError(f"no source {strange!r}", "Mixture.weights", suggest(strange, list(self.sources)))
        lacking = next((name for name in self.sources if name not in self.weights), None)
        if lacking is not None:
            raise ConfigError(f"source {lacking!r} has no weight", "Mixture.weights", "give one for each source")
        found = {name: real(self.weights[name], f"weight of {name!r}", "Mixture", above=0) for name in self.sources}
        total = sum(found.values())
        if abs(total - 1) > _SUM:
            fair = ", ".join(f"{name!r}: {weight / total:.4g}" for name, weight in found.items())
            raise ConfigError(f"weights sum to {total:.10g}, not to 1", "Mixture", f"in these proportions: {fair}")
        object.__setattr__(self, "weights", found)
        for name, one in self.sources.items():
            if not isinstance(one, (Source, Dataset)):
                mend = "give a pydt.Dataset or pydt.Source; of a mixture its sources, each with its weight"
                raise ConfigError(f"source {name!r} is a {type(one).__name__}", "Mixture", mend)
        object.__setattr__(self, "sources", {name: as_source(one) for name, one in self.sources.items()})
        refuse_shared(self._parts, "Mixture")
        if not self.largest:
            raise ConfigError("no sample has an image of each source", "Mixture", "give larger sources")
        Dataset.concat([part.take(1) for part in self._parts.values()], self.sources)  # refuses kinds that differ

    @property
    def _parts(self) -> dict[str, Source]:
        return self.sources  # type: ignore[return-value]

    def __len__(self) -> int:
        """How many images its sources have together."""
        return sum(map(len, self._parts.values()))

    def counts(self, n: int) -> dict[str, int]:
        """How many images of each source are in a sample of n."""
        period, picks = _picks(tuple(self.weights.values()))
        rounds, rest = divmod(n, sum(period))
        first = np.bincount(picks[:rest], minlength=len(period)).tolist()
        return {name: rounds * period[i] + first[i] for i, name in enumerate(self.sources)}

    @cached_property
    def largest(self) -> int:
        """The largest sample that `take` can give: the first source that ends bounds it."""

        def lacks(n: int) -> bool:
            return any(count > len(self._parts[name]) for name, count in self.counts(n).items())

        return bisect_right(range(len(self) + 1), False, key=lacks) - 1

    @property
    def name(self) -> str:
        """Names and shares of the sources."""
        return " + ".join(f"{100 * weight:.3g} % {name}" for name, weight in self.weights.items())

    @property
    def told(self) -> str:
        """The mixture in a few words, changes of its sources included."""
        parts = self._parts.items()
        return " + ".join(f"{100 * self.weights[name]:.3g} % {_extended(name, part.told)}" for name, part in parts)

    @cached_property
    def digest(self) -> str:
        """Names the images, labels and captions of all samples."""
        return digest("mixture", [[name, part.digest, self.weights[name]] for name, part in self._parts.items()])

    def check(self, recipe: Recipe) -> None:
        """`Source.check` of each source."""
        for part in self._parts.values():
            part.check(recipe)

    def take(self, n: int, seed: int = 0) -> Dataset:
        """The sample of n images that belongs to a seed; it holds that of every smaller n. Group column "source" names
        the source of each image. Its shares are the weights, rounded as the head of this module says.

        Raises:
            DataError: n or seed is no whole number, or n is not within 1 to `largest`.
        """
        n = whole(n, "n", "take", 1)
        if n > self.largest:
            ends = max(self._parts, key=lambda name: self.counts(n)[name] / len(self._parts[name]))
            wrong = f"a sample of {n:,} wants {self.counts(n)[ends]:,} of the {len(self._parts[ends]):,} of {ends!r}"
            raise DataError(wrong, f"mixture {self.name}", f"ask for at most {self.largest:,}, or change the weights")
        wanted = {name: count for name, count in self.counts(n).items() if count}
        sample = Dataset.concat([self._parts[name].take(count, seed) for name, count in wanted.items()], wanted)
        wrong_labels = sorted({_wrong(part.noise) for part in self._parts.values() if part.noise})
        return replace(sample, name=", ".join([self.name, f"{n:,} images", *wrong_labels]))


def as_source(value: Source | Mixture | Dataset) -> Source | Mixture:
    """A source or mixture as it is, a data set as a source."""
    return Source(value) if isinstance(value, Dataset) else value


def refuse_shared(parts: Mapping[str, Source], where: str) -> None:
    """Raise where two parts of one data set overlap."""
    named = list(parts.items())
    for i, (first, one) in enumerate(named):
        for second, other in named[i + 1 :]:
            shared = np.intersect1d(one._kept, other._kept)
            if len(shared) and one.dataset.digest == other.dataset.digest:
                key = one.dataset.all_keys()[shared[0]]
                wrong = f"{first!r} and {second!r} share {len(shared):,} images, the first {key!r}"
                raise ConfigError(wrong, where, "choose parts that do not overlap: where={...}")


@lru_cache(maxsize=16)
def _picks(weights: tuple[float, ...]) -> tuple[list[int], np.ndarray]:
    """Tijdeman's sequence: images of each source in a period, after which it begins anew; and the source of each image
    of the period.
    """
    total = sum(weights)
    shares = np.array(weights) / total
    periods = np.arange(1, 10_001)[:, None] * shares
    fits = np.flatnonzero((np.abs(periods - np.rint(periods)) <= _SUM * len(shares)).all(1))
    period = np.rint(periods[fits[0]] if len(fits) else shares * _FINEST).astype(int)
    each, length = period.tolist(), int(period.sum())
    scale = 2 * len(each) - 2
    taken, picks = [0] * len(each), np.empty(length, np.int64)
    for t in range(1, length + 1):
        # how far each source is behind its share, times `scale` and `length`: whole numbers, so nothing is rounded
        behind = [scale * (share * t - length * had) for share, had in zip(each, taken, strict=True)]
        due = [i for i, late in enumerate(behind) if late >= length]
        pick = min(due, key=lambda i: ((scale - 1) * length - behind[i]) / each[i])
        taken[pick] += 1
        picks[t - 1] = pick
    return each, picks


def _values(where: Mapping[str, tuple[str, ...]]) -> str:
    """The values of each column, three at most."""
    shown = [[*values[:3], *([f"{len(values) - 3} more"] if len(values) > 3 else [])] for values in where.values()]
    return ", ".join(" + ".join(values) for values in shown)


def _phrase(where: Mapping[str, tuple[str, ...]]) -> str:
    return " and ".join(f"{column} {' or '.join(map(repr, values))}" for column, values in where.items())


def _wrong(noise: float) -> str:
    return f"{100 * noise:.3g} % wrong labels"


def _extended(name: str, told: str) -> str:
    return name if told == name else f"{name} ({told})"
