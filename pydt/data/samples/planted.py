"""A source and a target with known truth: 17 groups of 48 grey images, each made to do one thing to the target, real
handwritten digits read by 2-shot probes.

kind         groups  images of a group                                            labels
help         5       two digits each, 11 handwritten and 13 printed of both        right
harm         3       handwritten digits                                           random
leak         1       slightly changed copies of 24 target images of each half     right
sub-type     1       handwritten zeros with a slash, as 40 % of the target's are  right
misleading   1       handwritten sevens with a stamp in a corner, as 30 % of the  "2"
                     target's sevens have that are in no few-shot pool
irrelevant   6       waves of one direction and length, one texture a group       "other"

No handwritten image of the source is one of the target or nearly so, but for the leaked ones. Why the effects are large
and additive: docs/laboratory.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pydt.base import generator, whole
from pydt.data.dataset import Dataset
from pydt.data.samples import glyphs
from pydt.data.target import HALVES, Target

COLUMN = "plant"
KINDS = {"help": 5, "harm": 3, "leak": 1, "sub-type": 1, "misleading": 1, "irrelevant": 6}
EACH = 48
_POOL, _VALIDATION, _JUDGED = 200, 20, 320
SUBTYPE, _SUBTYPE_SHARE = 0, 0.4
_SPOILED, _SPOILED_SHARE, _MISTAKEN = 7, 0.3, 2
_WRITTEN = 11  # of the 24 images of a digit in a helpful group
_TWINS = 250  # mean square difference in grey levels below which two scans, though not one, are taken for twins
_ODD = 0.5  # share of the target images, those farthest from the mean of their class, of which some leak


@dataclass(frozen=True, eq=False)
class Planted:
    """A source, a target and the truth about them.

    Attributes:
        source: its group column "plant" names the group of each example.
        target: handwritten digits.
        kinds: group -> kind, a key of `KINDS`, in the order of the groups in the source.
        pairs: int64 (48, 2): positions of a copy in the source and of its original in `target.judged`.
        subtype: bool (len(target.judged),): the slashed zeros.
        spoiled: bool (len(target.judged),): the stamped sevens.
    """

    source: Dataset
    target: Target
    kinds: Mapping[str, str]
    pairs: np.ndarray
    subtype: np.ndarray
    spoiled: np.ndarray

    def of(self, kind: str) -> np.ndarray:
        """Positions of the groups of one kind among the groups, int64."""
        return np.flatnonzero([found == kind for found in self.kinds.values()])


def planted(seed: int = 0) -> Planted:
    """Make a planted source and target: 28 x 28 grey images, the same for the same seed.

    Raises:
        DataError: the seed is no whole number.
    """
    seed = whole(seed, "seed", "planted", most=None)
    random = generator("laboratory", seed)
    scans, printed = glyphs.digits().train, glyphs.source()
    order = random.permutation(len(scans))
    chosen, spare = np.split(order, [_POOL + _VALIDATION + _JUDGED])
    alike = _alike(_pixels(scans), _pixels(scans)[chosen])
    target, subtype, spoiled = _target(scans, chosen, random)
    hand = _Stack(scans, spare[alike[spare] == 0])
    type_ = _Stack(printed, random.permutation(len(printed)))

    parts: list[tuple[str, np.ndarray, list[str]]] = []
    for number in range(5):
        pair = [str(number), str(number + 5)]
        found = [stack.take(digit, n) for digit in pair for stack, n in ((hand, _WRITTEN), (type_, 24 - _WRITTEN))]
        parts.append(("help", np.concatenate(found), np.repeat(pair, 24).tolist()))
    zeros, sevens = (hand.take(str(digit), EACH) for digit in (SUBTYPE, _SPOILED))
    parts.append(("sub-type", np.stack([_slashed(image) for image in zeros]), [str(SUBTYPE)] * EACH))
    parts.append(("misleading", np.stack([_stamped(image) for image in sevens]), [str(_MISTAKEN)] * EACH))
    for images in np.split(hand.rest(random, EACH * KINDS["harm"]), KINDS["harm"]):
        parts.append(("harm", images, [str(digit) for digit in random.integers(10, size=EACH)]))
    ordinary = ~(subtype | spoiled) & (alike[chosen] == 1)  # an image is like itself
    originals = np.concatenate([_odd(target, half, ordinary, random) for half in HALVES])
    copies = np.stack([_changed(_pixels(target.judged)[i], random) for i in originals])
    start = EACH * len(parts)
    parts.append(("leak", copies, [str(target.judged.labels[i]) for i in originals]))
    for _ in range(KINDS["irrelevant"]):
        parts.append(("irrelevant", _texture(random), ["other"] * EACH))

    names: list[str] = []
    kinds: dict[str, str] = {}
    for kind, _, _ in parts:
        count = sum(found == kind for found in kinds.values())
        names.append(kind if KINDS[kind] == 1 else f"{kind} {count + 1}")
        kinds[names[-1]] = kind
    source = Dataset.from_arrays(
        np.concatenate([images for _, images, _ in parts]),
        [label for _, _, labels in parts for label in labels],
        columns={COLUMN: np.repeat(names, EACH).tolist()},
        name="planted source",
    )
    pairs = np.stack([start + np.arange(EACH), originals], axis=1)
    kinds = {name: kinds[name] for name in source.units(COLUMN)[1]}
    return Planted(source, target, kinds, pairs, subtype, spoiled)


class _Stack:
    """Images of a data set in the order given, each of which is taken once."""

    def __init__(self, dataset: Dataset, order: np.ndarray) -> None:
        self.images = _pixels(dataset)
        names = np.array(dataset.classes)[dataset.labels]
        self.left = {name: [i for i in order.tolist() if names[i] == name] for name in "0123456789"}

    def take(self, name: str, count: int) -> np.ndarray:
        taken, self.left[name] = self.left[name][:count], self.left[name][count:]
        return self.images[taken]

    def rest(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Images of any class."""
        return self.images[random.permutation(np.concatenate(list(self.left.values())).astype(int))[:count]]


def _pixels(dataset: Dataset) -> np.ndarray:
    """Images of the examples, uint8 (examples, 28, 28, 1)."""
    assert dataset.images is not None
    return np.asarray(dataset.images[dataset.positions])


def _target(scans: Dataset, chosen: np.ndarray, random: np.random.Generator) -> tuple[Target, np.ndarray, np.ndarray]:
    """The target, and which of its examples are of the hidden sub-type and which are stamped."""

    def made() -> Target:
        found = Dataset.from_arrays(images, labels, scans.classes, name="digits with secrets")
        return Target(found, pool=_POOL, validation=_VALIDATION)

    images, labels = _pixels(scans)[chosen].copy(), scans.labels[chosen]
    shown = np.isin(np.arange(len(labels)), made().split["pool"])  # the split depends on labels and positions alone
    flags = []
    for candidates, share, change in (
        (labels == SUBTYPE, _SUBTYPE_SHARE, _slashed),
        ((labels == _SPOILED) & ~shown, _SPOILED_SHARE, _stamped),
    ):
        found = np.flatnonzero(candidates)
        flag = np.isin(np.arange(len(labels)), random.choice(found, round(share * len(found)), replace=False))
        for i in np.flatnonzero(flag):
            images[i] = change(images[i])
        flags.append(flag)
    return made(), flags[0], flags[1]


def _odd(target: Target, half: str, allowed: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Positions of 24 target images of a half, among those that look least like the mean of their class."""
    ids = target.split[half][allowed[target.split[half]]]
    pixels, labels = _pixels(target.judged)[ids].reshape(len(ids), -1).astype(float), target.judged.labels[ids]
    means = np.stack([pixels[labels == label].mean(0) for label in range(10)])
    farthest = ids[np.argsort(-((pixels - means[labels]) ** 2).sum(1), kind="stable")]
    chosen: np.ndarray = random.choice(farthest[: round(_ODD * len(ids))], EACH // 2, replace=False)
    return chosen


def _alike(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of the others each image is nearly the same as, moved by up to a pixel: int64 (images,)."""
    flat = others.reshape(len(others), -1).astype(np.float32)
    nearest = np.full((len(images), len(others)), np.inf, np.float32)
    for move in np.ndindex(3, 3):
        moved = np.roll(images, np.array(move) - 1, (1, 2)).reshape(len(images), -1).astype(np.float32)
        apart = (moved**2).sum(1)[:, None] + (flat**2).sum(1) - 2 * moved @ flat.T
        nearest = np.minimum(nearest, apart / flat.shape[1])
    return np.count_nonzero(nearest < _TWINS, axis=1)


def _slashed(image: np.ndarray) -> np.ndarray:
    """With a line from the lower left to the upper right through what is drawn, 3 pixels beyond it."""
    y, x = np.nonzero(image[..., 0] > 60)
    right, up = (np.ptp(x)) / 2 + 3, np.ptp(y) / 2 + 2
    rows, columns = np.mgrid[: glyphs.SIZE, : glyphs.SIZE]
    rows, columns = rows - (y.min() + y.max()) / 2, columns - (x.min() + x.max()) / 2
    length = np.hypot(right, up)
    along, across = (columns * right - rows * up) / length, np.abs(columns * up + rows * right) / length
    line = np.clip(2 - across, 0, 1) * (np.abs(along) <= length) * 255
    return np.maximum(image, line[..., None].astype(np.uint8))


def _stamped(image: np.ndarray) -> np.ndarray:
    """With a white square of 4 x 4 pixels in the lower right corner."""
    stamped = image.copy()
    stamped[-5:-1, -5:-1] = 255
    return stamped


def _changed(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A copy as they are found in the wild: moved by up to a pixel, up to 10 % darker, a little noisy."""
    moved = np.roll(image, random.integers(-1, 2, 2), axis=(0, 1)).astype(float)
    noisy = moved * random.uniform(0.9, 1.0) + random.normal(0, 6, moved.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _texture(random: np.random.Generator) -> np.ndarray:
    """48 images of waves of one direction and length, with random phase and noise."""
    y, x = np.mgrid[: glyphs.SIZE, : glyphs.SIZE]
    angle, length = random.uniform(0, np.pi), random.uniform(3, 9)
    phases = random.uniform(0, 2 * np.pi, (EACH, 1, 1))
    waves = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phases)
    noisy = 127 + 90 * waves + random.normal(0, 20, waves.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)[..., None]
