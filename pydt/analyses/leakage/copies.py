"""Changed copies of a target's images among source images: how alike is too alike, what is named, what would be missed.

    gap = log((1 - c_next) / (1 - c_best)),  c: correlations of an image with the target's (`similarity.match`)

1 - c is half a squared distance. Of an image that is no copy the gap is exponential with rate d / 2, d the dimension of
the set on which images lie (Facco et al. 2017), in crowded and empty places alike. The rate comes from the gaps of the
target's images among themselves: the smallest that the 50, 90 and 95 % quantiles give. The family of an image (its
near-duplicates) are its nearest others, KEPT - 1 at most, before the last gap so large that chance makes one in a
target of a hundred; the next best is sought outside the family of the best, and images that have a family do not count
for the rate. Benjamini-Hochberg over the source examples names the pairs. What that misses is measured: target images
are copied, changed, and sought. Reasons, figures and what lost: docs/analyses.md, "Copies of target images".
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pydt.analyses.ensemble_view import Array
from pydt.analyses.leakage.similarity import (
    KEPT,
    Matches,
    Rows,
    dhash,
    grey,
    greys,
    hamming,
    match,
    nearest,
    phash,
    propose,
    resized,
    unit,
)
from pydt.base import DataError, one_of
from pydt.data import pictures

if TYPE_CHECKING:
    from pydt.data import Dataset
    from pydt.training import Trained


CHANGES = ("moved", "brighter", "darker", "noisy", "JPEG", "mirrored", "rescaled", "cropped")
"""What is done to the planted copies; see `changed`."""
CANDIDATES = 64
"""Candidates a source image where not all pairs are compared."""
PLANTED = 64
"""Target images that are copied, changed and sought, to measure what would be missed."""
EXHAUSTIVE = 4e12
"""Operations up to which all pairs are compared."""
AT_ONCE = 4096
"""Source images in memory."""
_OWN = 1e12  # as EXHAUSTIVE, of the target's images with each other
_CHANCE = 0.01  # of a family in a target without near-duplicates
_TAIL = (0.5, 0.9, 0.95)
_ROUNDS = 4
_FEWEST_SINGLE = 10  # target images without near-duplicates
_FEWEST = 20  # target images


@dataclass(frozen=True, eq=False)
class Null:
    """What is known of images that are no copies: the law of their gaps; see the module's head.

    Attributes:
        rate: of the exponential law; 0, which names nothing, where hardly any target image lacks near-duplicates.
        families: int64 (images, KEPT - 1): the near-duplicates of each target image within the target, then -1.
        quantiles: 0.5, 0.9, 0.99, 1 of the best correlations of target images with others.
    """

    rate: float
    families: Rows
    quantiles: tuple[float, float, float, float]

    @staticmethod
    def of(own: Matches) -> Null:
        """From the matches of each target image among the others."""
        nearness = _nearness(own.alike)
        steps = nearness[:, :-1] - nearness[:, 1:]
        families = np.full((len(steps), KEPT - 1), -1, np.int64)
        for _ in range(_ROUNDS):
            single = families[:, 0] < 0
            if not single.any():
                break
            rate = math.log(2) / _scale(np.median(_gaps(own, families)[single]))
            large = steps >= math.log(len(steps) / _CHANCE) / rate
            size = np.where(large.any(axis=1), KEPT - 1 - large[:, ::-1].argmax(axis=1), 0)
            families = np.where(np.arange(KEPT - 1) < size[:, None], own.ranked[:, : KEPT - 1], -1)
        gaps = _gaps(own, families)[families[:, 0] < 0]
        tail = [np.quantile(gaps, q) / -math.log(1 - q) for q in _TAIL] if len(gaps) >= _FEWEST_SINGLE else [math.inf]
        shown = np.quantile(own.correlation, [0.5, 0.9, 0.99, 1]).tolist()
        return Null(1 / _scale(max(tail)), families, tuple(shown))

    def p(self, found: Matches) -> Array:
        """Of the best match of each image, (n,)."""
        return np.exp(-self.rate * _gaps(found, self.families))

    def right(self, found: Matches, originals: Rows) -> npt.NDArray[np.bool_]:
        """Whether the best match of each copy is its original, or one of its near-duplicates."""
        return (found.index == originals) | (found.index[:, None] == self.families[originals]).any(axis=1)

    def factor(self, p: float) -> float:
        """exp(gap) where p is reached: how many times less a copy differs from its best match than from the next."""
        if not (p > 0 and self.rate > 0):
            return math.nan if p != p else math.inf
        return math.exp(min(-math.log(p) / self.rate, 700))


def _scale(value: Any) -> float:
    """A mean gap, at least that of 100 dimensions: where all gaps are zero, none counts as large."""
    return max(float(value), 0.02)


def _nearness(correlations: npt.NDArray[Any]) -> Array:
    return -np.log(np.clip(1 - np.asarray(correlations, np.float64), 1e-6, 2))


def _gaps(found: Matches, families: Rows) -> Array:
    """The gap between each image's best match and the next that is not of the best one's family."""
    inside = (found.ranked[:, 1:, None] == families[found.index][:, None, :]).any(axis=2) & (found.ranked[:, 1:] >= 0)
    inside[:, -1] = False  # all are of one family: the last is the farthest known
    following = np.take_along_axis(found.alike, 1 + inside.argmin(axis=1)[:, None], 1)[:, 0]
    gaps: Array = _nearness(found.correlation) - _nearness(following)
    return gaps


class Seeker:
    """Searches for copies of a target's images.

    Args:
        ids: positions of the target's images. side: of the images that are compared.
        embedding: a network whose features propose pairs, too. passed: as in `pydt.data.pictures`.
        candidates, exhaustive, at_once: see `CANDIDATES`, `EXHAUSTIVE`, `AT_ONCE`.

    Raises:
        DataError: fewer than 20 images.
    """

    def __init__(
        self,
        target: Dataset,
        ids: Rows,
        side: int,
        embedding: Trained | None = None,
        passed: set[str] | None = None,
        *,
        candidates: int = CANDIDATES,
        exhaustive: float = EXHAUSTIVE,
        at_once: int = AT_ONCE,
    ) -> None:
        self.target, self.ids, self.side, self.embedding, self.passed = target, ids, side, embedding, passed
        self.candidates, self.exhaustive, self.at_once = candidates, exhaustive, at_once
        self.images = greys(target, ids, side, passed)
        if len(ids) < _FEWEST:
            raise DataError(f"{len(ids)} judged images", target.name, f"give {_FEWEST} at least to compare with")
        # Among candidates the next best may be missing: what is sought so is judged by gaps that were found so.
        self._nulls: dict[bool, Null] = {}
        self.features = None if embedding is None else unit(embedding.features(target, ids).numpy())
        self.cosine_cut = None
        if self.features is not None:
            best = nearest(self.features, self.features, 1, skip_self=True)[1][:, 0]
            self.cosine_cut = float(np.quantile(best, 0.99))

    def null(self, whole: bool) -> Null:
        """The law for images that are compared with all target images, or with candidates."""
        if whole not in self._nulls:
            images, own = self.images, np.arange(len(self.ids))
            every = whole and self._cost(len(own)) <= _OWN
            both = None if self.features is None else (self.features, self.features)
            proposed = None if every else propose(images, images, self.candidates, both)
            self._nulls[whole] = Null.of(match(images, images, proposed, skip=own))
        return self._nulls[whole]

    def _cost(self, images: int) -> float:
        """Operations to compare so many images with all of the target."""
        return 54.0 * 2 * (self.side // 2) ** 2 * images * len(self.ids)

    def seek(self, source: Dataset, ids: Rows, false: float) -> tuple[list[tuple[Any, ...]], float, bool]:
        """Pairs named among these source examples: (example, target, correlation, mirrored, p, phash, dhash, cosine).

        Returns:
            the pairs, the p value up to which they were named, and whether all pairs were compared.
        """
        whole = self._cost(len(ids)) <= self.exhaustive
        null = self.null(whole)
        parts = []
        cosines = None if self.features is None else np.zeros(len(ids), np.float32)
        for start in range(0, len(ids), self.at_once):
            part = ids[start : start + self.at_once]
            images, both = greys(source, part, self.side, self.passed), None
            if self.embedding is not None and self.features is not None:
                both = unit(self.embedding.features(source, part).numpy()), self.features
            candidates = None if whole else propose(images, self.images, self.candidates, both)
            found = match(images, self.images, candidates)
            if both is not None and cosines is not None:
                cosines[start : start + len(part)] = np.einsum("nd,nd->n", both[0], both[1][found.index])
            parts.append((found.index, found.correlation, found.mirrored, null.p(found)))
        index, correlation, mirrored, p = (np.concatenate(part) for part in zip(*parts, strict=True))
        ranked = np.sort(p)
        passed = np.flatnonzero(ranked <= false * np.arange(1, len(p) + 1) / len(p))
        limit = false * (passed[-1] + 1 if len(passed) else 1) / len(p)
        named = np.flatnonzero(p <= limit)
        ours = greys(source, ids[named], self.side, self.passed)
        ours[mirrored[named]] = ours[mirrored[named], :, ::-1]
        theirs = self.images[index[named]]
        bits = hamming(phash(ours), phash(theirs)), hamming(dhash(ours), dhash(theirs))
        facts = (ids[named], index[named], correlation[named], mirrored[named], p[named], *bits)
        cosine = [None] * len(named) if cosines is None else cosines[named].tolist()
        return list(zip(*(one.tolist() for one in facts), cosine, strict=True)), limit, whole

    def recall(
        self, limits: Sequence[float], seed: int, exhaustive: Sequence[bool] = (True, True)
    ) -> dict[str, tuple[float, float]]:
        """By change, the share of changed copies of target images that would be named at each p value.

        Args:
            exhaustive: for each p value, whether all pairs are compared. Else copies are sought as `seek` seeks, among
                candidates, but for those that features propose: the share is then at least as large.
        """
        random = np.random.default_rng([seed, 7])
        chosen = random.permutation(len(self.ids))[:PLANTED]
        originals = [
            _shades(grey(picture[None])[0])
            for picture in pictures(self.target, self.ids[chosen], passed=self.passed, exact=True)
        ]
        found = {}
        for change in CHANGES:
            made = [changed(image, change, random)[None] for image in originals]
            copies = np.concatenate([resized(image, self.side, self.side) for image in made])
            ways = {
                whole: match(copies, self.images, None if whole else propose(copies, self.images, self.candidates))
                for whole in set(exhaustive)
            }
            named = []
            for limit, whole in zip(limits, exhaustive, strict=True):
                null = self.null(whole)
                right = (null.p(ways[whole]) <= limit) & null.right(ways[whole], chosen)
                named.append(float(right.mean()) if limit == limit else math.nan)
            found[change] = (named[0], named[1])
        return found


def changed(image: npt.NDArray[np.uint8], change: str, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A copy of a grey image (H, W), as copies are found in the wild.

    Args:
        change: "moved" by a pixel (of 32) in one of eight directions, "brighter" or "darker" by up to 30 %, "noisy"
            (Gaussian, sd 6 of 255), "JPEG" (quality 50 to 90), "mirrored", "rescaled" (to three quarters and back), or
            "cropped" (94 % of each side, somewhere inside, enlarged).
    """
    one_of(change, CHANGES, "change", "changed")
    if change == "moved":
        step = max(1, round(max(image.shape) / 32))
        ways = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
        y, x = ways[int(random.integers(8))]
        return np.roll(image, (y * step, x * step), axis=(0, 1))
    if change == "mirrored":
        return image[:, ::-1]
    if change in ("JPEG", "rescaled", "cropped"):
        from PIL import Image

        picture = Image.fromarray(image)
        if change == "JPEG":
            stream = io.BytesIO()
            picture.save(stream, "JPEG", quality=int(random.integers(50, 91)))
            return np.asarray(Image.open(stream))
        if change == "cropped":
            left, top = (float(random.uniform(0, 0.06 * side)) for side in picture.size)
            box = (left, top, left + 0.94 * picture.width, top + 0.94 * picture.height)
            return np.asarray(picture.resize(picture.size, Image.Resampling.BILINEAR, box=box))
        smaller = picture.resize([max(1, round(0.75 * side)) for side in picture.size], Image.Resampling.BILINEAR)
        return np.asarray(smaller.resize(picture.size, Image.Resampling.BICUBIC))
    if change == "noisy":
        return _shades(image + random.normal(0, 6, image.shape))
    return _shades(image * (random.uniform(1, 1.3) if change == "brighter" else random.uniform(0.7, 1)))


def _shades(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
