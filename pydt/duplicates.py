"""Copies of a target's images among source images: how alike is too alike, what is named, and what would be missed.

How alike are images that are no copies? Each target image's best match (`pydt.nearest.match`) among the *other* target
images tells: x = -log(1 - correlation) of those follows a Gumbel law, fitted to their median and 90 % quantile, so that
a few copies within the target spoil nothing. It gives each source example a p value, and Benjamini-Hochberg names the
pairs. What that misses is measured: target images are copied, changed, and sought.

Measured on handwritten digits, 900 in the target, as the source 800 others and 60 copies of each kind of `CHANGES`, 5
seeds, at an expected share of 1 % false: precision 0.993 to 0.998, recall 1.00 of every kind; none of the 800 others
named where they are alone. pHash at the distance that names 1 % of the others: moved 0, mirrored 0, brighter 0.48,
noisy 0.58, JPEG 0.74, rescaled 0.88, darker 0.97. A single copy among thousands of images has to look more alike than
any two scans may by chance in so many pairs: of single ones rescaled to three quarters 5 % are found among 5,952
images, of brightened ones 48 %, of the other kinds all.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pydt.errors import ConfigError, DataError
from pydt.nearest import (
    Rows,
    Single,
    dhash,
    grey,
    greys,
    hamming,
    match,
    nearest,
    phash,
    pictures,
    propose,
    resized,
    unit,
)

if TYPE_CHECKING:
    from pydt.data import Dataset
    from pydt.train import Trained

Array = npt.NDArray[np.float64]

CHANGES = ("moved", "brighter", "darker", "noisy", "JPEG", "mirrored", "rescaled")
"""What is done to the copies that measure what is found; see `changed`."""
CANDIDATES = 64
"""Candidates a source image where not all pairs are compared."""
PLANTED = 64
"""Target images that are copied to see what is found."""
_AT_ONCE = 4096  # source images
_EXHAUSTIVE = 4e12  # operations up to which all pairs are compared
_NULL = 2000  # target images whose best match tells how alike images are that are no copies
_FEWEST = 20  # target images


@dataclass(frozen=True)
class Null:
    """How alike images are that are no copies: Gumbel's law of x = -log(1 - correlation) of best matches."""

    place: float
    scale: float
    quantiles: tuple[float, float, float, float]

    @staticmethod
    def of(correlations: Single) -> Null:
        """From best matches among images of which few are copies of each other."""
        x = _stretched(correlations)
        middle, high = np.quantile(x, [0.5, 0.9])
        gumbel = -math.log(math.log(2)), -math.log(-math.log(0.9))
        scale = max(float(high - middle), 1e-6) / (gumbel[1] - gumbel[0])
        shown = np.quantile(correlations, [0.5, 0.9, 0.99, 1]).tolist()
        return Null(float(middle) - scale * gumbel[0], scale, tuple(shown))

    def p(self, correlations: npt.NDArray[Any]) -> Array:
        return -np.expm1(-np.exp(-(_stretched(correlations) - self.place) / self.scale))

    def correlation(self, p: float) -> float:
        """Where p is reached."""
        if not p > 0:
            return math.nan
        return 1 - math.exp(-(self.place - self.scale * math.log(-math.log1p(-min(p, 1 - 1e-12)))))


def _stretched(correlations: npt.NDArray[Any]) -> Array:
    return -np.log(np.clip(1 - np.asarray(correlations, np.float64), 1e-6, 2))


class Seeker:
    """Seeks copies of a target's images."""

    def __init__(self, target: Dataset, ids: Rows, side: int, embedding: Trained | None = None) -> None:
        self.target, self.ids, self.side, self.embedding = target, ids, side, embedding
        self.images = greys(target, ids, side)
        if len(ids) < _FEWEST:
            raise DataError(f"{len(ids)} judged images", target.name, f"give {_FEWEST} at least to compare with")
        sample = np.random.default_rng(0).permutation(len(ids))[:_NULL] if len(ids) > _NULL else np.arange(len(ids))
        self.null = Null.of(match(self.images[sample], self.images, skip=sample).correlation)
        self.features = None if embedding is None else unit(embedding.features(target, ids).numpy())
        self.cosine_cut = None
        if self.features is not None:
            best = nearest(self.features, self.features, 1, skip_self=True)[1][:, 0]
            self.cosine_cut = float(np.quantile(best, 0.99))

    def seek(self, source: Dataset, ids: Rows, false: float) -> tuple[list[tuple[Any, ...]], float, bool]:
        """Pairs named among these source examples: (example, target, correlation, mirrored, p, phash, dhash, cosine).

        Returns:
            the pairs, the p value up to which they were named, and whether all pairs were compared.
        """
        cost = 54.0 * 2 * (self.side // 2) ** 2 * len(ids) * len(self.ids)
        parts = []
        cosines = None if self.features is None else np.zeros(len(ids), np.float32)
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            images, both = greys(source, part, self.side), None
            if self.embedding is not None and self.features is not None:
                both = unit(self.embedding.features(source, part).numpy()), self.features
            candidates = None if cost <= _EXHAUSTIVE else propose(images, self.images, CANDIDATES, both)
            found = match(images, self.images, candidates)
            if both is not None and cosines is not None:
                cosines[start : start + len(part)] = np.einsum("nd,nd->n", both[0], both[1][found.index])
            parts.append(found)
        index, correlation, mirrored = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("index", "correlation", "mirrored")
        )
        p = self.null.p(correlation)
        ranked = np.sort(p)
        passed = np.flatnonzero(ranked <= false * np.arange(1, len(p) + 1) / len(p))
        limit = false * (passed[-1] + 1 if len(passed) else 1) / len(p)
        named = np.flatnonzero(p <= limit)
        ours = greys(source, ids[named], self.side)
        ours[mirrored[named]] = ours[mirrored[named], :, ::-1]
        theirs = self.images[index[named]]
        bits = hamming(phash(ours), phash(theirs)), hamming(dhash(ours), dhash(theirs))
        return (
            [
                (
                    int(ids[i]),
                    int(index[i]),
                    float(correlation[i]),
                    bool(mirrored[i]),
                    float(p[i]),
                    int(bits[0][n]),
                    int(bits[1][n]),
                    None if cosines is None else float(cosines[i]),
                )
                for n, i in enumerate(named)
            ],
            limit,
            cost <= _EXHAUSTIVE,
        )

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
            np.clip(np.rint(grey(picture[None])[0]), 0, 255).astype(np.uint8)
            for picture in pictures(self.target, self.ids[chosen])
        ]
        found = {}
        for change in CHANGES:
            copies = np.stack([resized(changed(image, change, random)[None], self.side, self.side)[0]
                               for image in originals])  # fmt: skip
            ways = {
                whole: match(copies, self.images, None if whole else propose(copies, self.images, CANDIDATES))
                for whole in set(exhaustive)
            }
            named = []
            for limit, whole in zip(limits, exhaustive, strict=True):
                right = (self.null.p(ways[whole].correlation) <= limit) & (ways[whole].index == chosen)
                named.append(float(right.mean()) if limit == limit else math.nan)
            found[change] = (named[0], named[1])
        return found


def changed(image: npt.NDArray[np.uint8], change: str, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A copy of a grey image (H, W), as copies are found in the wild.

    Args:
        change: "moved" by a pixel (of 32) in one of eight directions, "brighter" or "darker" by up to 30 %, "noisy"
            (Gaussian, sd 6 of 255), "JPEG" (quality 50 to 90), "mirrored", or "rescaled" (to three quarters and back).

    Raises:
        ConfigError: another change.
    """
    if change == "moved":
        step = max(1, round(max(image.shape) / 32))
        ways = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
        y, x = ways[int(random.integers(8))]
        return np.roll(image, (y * step, x * step), axis=(0, 1))
    if change == "mirrored":
        return image[:, ::-1]
    if change in ("JPEG", "rescaled"):
        from PIL import Image

        picture = Image.fromarray(image)
        if change == "JPEG":
            stream = io.BytesIO()
            picture.save(stream, "JPEG", quality=int(random.integers(50, 91)))
            return np.asarray(Image.open(stream))
        smaller = picture.resize([max(1, round(0.75 * side)) for side in picture.size], Image.Resampling.BILINEAR)
        return np.asarray(smaller.resize(picture.size, Image.Resampling.BICUBIC))
    how: dict[str, Callable[[], npt.NDArray[Any]]] = {
        "brighter": lambda: image * random.uniform(1, 1.3),
        "darker": lambda: image * random.uniform(0.7, 1),
        "noisy": lambda: image + random.normal(0, 6, image.shape),
    }
    if change not in how:
        raise ConfigError(f"no change {change!r}", "change", f"choose one of: {', '.join(CHANGES)}")
    return np.clip(np.rint(how[change]()), 0, 255).astype(np.uint8)
