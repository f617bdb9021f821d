"""A source and a target in which it is known at how many shots each group matters: grey images made of numbers alone.

A target image has three strokes, each of which leans to the left or to the right: eight classes. Over all of it run two
waves of random phase, which say nothing of the class, and noise.

kind         groups  images of a group                                   label
all          3       as the target's                                     which way one of the strokes leans
few          2       all eight classes alike, with paler strokes         sixth of a period, of the phase of one wave
irrelevant   5       plain grey; faint noise in a margin that is         "other"
                     plain in all other images

Without its group of kind "all" nothing tells a network of a stroke, and no number of shots brings that back. A group of
kind "few" makes features follow a wave: a probe of one image a class takes the wave for the class, one of the whole
pool has seen that it is not. What was tried: docs/laboratory.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from pydt.base import generator, whole
from pydt.data.dataset import Dataset
from pydt.data.samples.glyphs import SIZE
from pydt.data.samples.planted import COLUMN, EACH
from pydt.data.target import Target

KINDS_BY_SHOTS = {"all": 3, "few": 2, "irrelevant": 5}
GREY = 100  # of what has nothing on it
_CLASSES = tuple(product((0, 1), repeat=3))  # of each stroke 0 where it leans to the left, 1 to the right
_POOL, _VALIDATION, _JUDGED = 1200, 16, 784
_MARGIN = 4
_PLACES = ((9, 9), (9, 18), (18, 9))  # row and column of the middle of each stroke
_STROKE, _PALE, _WAVE, _NOISE, _FAINT = 60, 42, 30, 40, 10  # heights and standard deviations in grey levels
_LENGTH = 10  # of a wave, in pixels
_SIXTHS = 6


@dataclass(frozen=True, eq=False)
class PlantedByShots:
    """A source, a target and at how many shots each group matters.

    Attributes:
        source: its group column "plant" names the group of each example.
        target: eight classes, named after the way that each stroke leans, such as "left right left".
        kinds: group -> kind, a key of `KINDS_BY_SHOTS`, in the order of the groups in the source.
    """

    source: Dataset
    target: Target
    kinds: Mapping[str, str]

    def of(self, kind: str) -> list[str]:
        """Names of the groups of one kind."""
        return [name for name, found in self.kinds.items() if found == kind]


def planted_by_shots(seed: int = 0) -> PlantedByShots:
    """Make a source and a target: 28 x 28 grey images, the same for the same seed.

    Raises:
        DataError: the seed is no whole number.
    """
    random = generator("laboratory by shots", whole(seed, "seed", "planted_by_shots", most=None))
    angles = (0, np.pi / 2)  # across and down: as far from one stroke as from another

    def made(strokes: np.ndarray, height: float, phases: np.ndarray) -> np.ndarray:
        """Images uint8 (n, 28, 28, 1) of strokes 0 or 1 (n, 3) and phases (n, 2) of the two waves."""
        heights = height * random.uniform(0.7, 1.3, (len(strokes), 3, 1, 1))
        drawn = (heights * _STROKES[np.arange(3), strokes]).sum(1)
        waves = sum(_WAVE * _wave(way, phases[:, i, None, None]) for i, way in enumerate(angles))
        return _inside(GREY + drawn + waves + random.normal(0, _NOISE, drawn.shape))

    def phases(count: int) -> np.ndarray:
        return random.uniform(0, 2 * np.pi, (count, 2))

    count = _POOL + _VALIDATION + _JUDGED
    labels = np.arange(count) % len(_CLASSES)
    images = made(np.array(_CLASSES)[labels], _STROKE, phases(count))
    classes = [" ".join(("left", "right")[leans] for leans in one) for one in _CLASSES]
    dataset = Dataset.from_arrays(images, labels, classes, name="strokes below waves")
    target = Target(dataset, pool=_POOL, validation=_VALIDATION)

    every = np.array(_CLASSES)[np.arange(EACH) % len(_CLASSES)]  # each class as often as any other
    parts: list[tuple[str, np.ndarray, list[str]]] = []
    for stroke in range(KINDS_BY_SHOTS["all"]):
        names = [f"stroke {stroke + 1} {('left', 'right')[leans]}" for leans in every[:, stroke]]
        parts.append(("all", made(every, _STROKE, phases(EACH)), names))
    for wave in range(KINDS_BY_SHOTS["few"]):
        sixth = np.arange(EACH) * _SIXTHS // EACH  # blocks of all eight classes, so that no stroke tells the label
        phase = phases(EACH)
        phase[:, wave] = 2 * np.pi * (sixth + random.uniform(0.1, 0.9, EACH)) / _SIXTHS
        parts.append(("few", made(every, _PALE, phase), [f"wave {wave + 1} sixth {n + 1}" for n in sixth]))
    for _ in range(KINDS_BY_SHOTS["irrelevant"]):
        faint = GREY + random.normal(0, _FAINT, (EACH, SIZE, SIZE))
        parts.append(("irrelevant", _grey(np.where(_INNER, GREY, faint)), ["other"] * EACH))

    kinds = {f"{kind} {n + 1}": kind for kind, groups in KINDS_BY_SHOTS.items() for n in range(groups)}
    source = Dataset.from_arrays(
        np.concatenate([images for _, images, _ in parts]),
        [label for _, _, labels in parts for label in labels],
        columns={COLUMN: np.repeat(list(kinds), EACH).tolist()},
        name="source planted by shots",
    )
    return PlantedByShots(source, target, {name: kinds[name] for name in source.units(COLUMN)[1]})


def _wave(angle: float, phase: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    waves: np.ndarray = np.sin(2 * np.pi * (columns * np.cos(angle) + rows * np.sin(angle)) / _LENGTH + phase)
    return waves


def _strokes() -> np.ndarray:
    """Each of the three strokes, leaning to the left and to the right, from 0 to 1: float64 (3, 2, 28, 28)."""
    made = np.zeros((len(_PLACES), 2, SIZE, SIZE))
    for i, (y, x) in enumerate(_PLACES):
        rows, columns = np.mgrid[:SIZE, :SIZE]
        down, right = rows - y, columns - x
        for leans, along in enumerate((down + right, down - right)):  # "\" leans to the left, "/" to the right
            across = np.abs(down - right if leans == 0 else down + right) / np.sqrt(2)
            made[i, leans] = np.clip(2.5 - across, 0, 1) * (np.abs(along) / np.sqrt(2) <= 5)
    return made


def _inner() -> np.ndarray:
    """True within the margin: bool (28, 28)."""
    inside = np.zeros((SIZE, SIZE), bool)
    inside[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = True
    return inside


_INNER, _STROKES = _inner(), _strokes()


def _inside(images: np.ndarray) -> np.ndarray:
    """With a plain margin."""
    return _grey(np.where(_INNER, images, GREY))


def _grey(images: np.ndarray) -> np.ndarray:
    return np.clip(images, 0, 255).astype(np.uint8)[..., None]
