"""What is drawn for an image in training beside its crop: RandAugment, colours, blur, inversion and erasing.

Every number is a function of (seed, epoch, view, id), whatever the batch; raw and encoded images share them.
"""

from __future__ import annotations

import numpy as np

from pydt import _core
from pydt.data.loading.augment import Augment

# Lowest byte of the first stream of random bits of either view (csrc/windows.hpp has the list).
_FIRST = (64, 96)
_BLUR_REACH = 3  # sigmas on either side

# The operations of RandAugment, by their names in DALI.
RANDAUGMENT = (
    *("translate_x", "translate_y", "shear_x", "shear_y", "rotate", "brightness", "contrast", "color"),
    *("sharpness", "posterize", "solarize", "equalize", "auto_contrast", "identity"),
)

Drawn = dict[str, np.ndarray]


def _halves(seed: int, epoch: int, stream: int, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers for each id, uniform in [0, 1): float64 (n,)."""
    bits = _core.random_bits(seed, epoch << 8 | stream, ids)
    return (bits & np.uint64(0xFFFFFFFF)) / 2.0**32, (bits >> np.uint64(32)) / 2.0**32


def drawn(augment: Augment, height: int, width: int, seed: int, epoch: int, view: int, ids: np.ndarray) -> Drawn:
    """Arguments of DALI's operators for these examples (ids int64 (n,)), of the operations that `augment` has, for
    images of this height and width in pixels after the crop.

    Returns:
        "operation", "negated": int32 (n, operations of `randaugment`), places in `RANDAUGMENT`, and 0 or 1;
        "brightness", "contrast", "saturation", "hue" (degrees): float32 (n,);
        "sigma": float32 (n,), "window": int32 (n,), 1 where nothing is blurred;
        "threshold": int32 (n,), from where on pixels are inverted, 256 where none is;
        "anchor", "shape": float32 (n, 2) of what is erased (y, x), the shape 0 where nothing is.
    """
    first = _FIRST[view]

    def draw(stream: int) -> tuple[np.ndarray, np.ndarray]:
        return _halves(seed, epoch, first + stream, ids)

    found: Drawn = {}
    if augment.randaugment:
        choices, signs = zip(*(draw(8 + turn) for turn in range(augment.randaugment[0])), strict=True)
        found["operation"] = np.floor(len(RANDAUGMENT) * np.stack(choices, axis=1)).astype(np.int32)
        found["negated"] = (np.stack(signs, axis=1) < 0.5).astype(np.int32)
    if augment.jitter or augment.grey:
        jittered, greyed = draw(0)
        chosen = jittered < augment.jitter_chance
        spreads = augment.jitter or (0.0, 0.0, 0.0, 0.0)
        places = (*draw(1), *draw(2))
        for name, spread, place in zip(("brightness", "contrast", "saturation"), spreads, places, strict=False):
            least = max(0.0, 1 - spread)
            found[name] = np.where(chosen, least + (1 + spread - least) * place, 1.0)
        found["saturation"] = np.where(greyed < augment.grey, 0.0, found["saturation"])
        found["hue"] = np.where(chosen, 360 * spreads[3] * (2 * places[3] - 1), 0.0)
    if augment.blur:
        blurred, place = draw(3)
        chosen = blurred < augment.blur_chance
        sigma = augment.blur[0] + (augment.blur[1] - augment.blur[0]) * place
        found["sigma"] = np.where(chosen, sigma, 1.0)
        found["window"] = np.where(chosen, 2 * np.ceil(_BLUR_REACH * sigma) + 1, 1).astype(np.int32)
    if augment.solarize or augment.erase:
        inverted, erased = draw(4)
    if augment.solarize:
        found["threshold"] = np.where(inverted < augment.solarize, 128, 256).astype(np.int32)
    if augment.erase:
        area, ratio = draw(5)
        y, x = draw(6)
        area = (0.02 + (0.33 - 0.02) * area) * height * width
        ratio = 0.3 * (3.3 / 0.3) ** ratio
        sides = np.array([height, width])
        shape = np.minimum(np.rint(np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], axis=1)), sides)
        found["anchor"] = np.floor(np.stack([y, x], axis=1) * (sides - shape + 1))
        found["shape"] = np.where((erased < augment.erase)[:, None], shape, 0.0)
    return {name: value if value.dtype == np.int32 else value.astype(np.float32) for name, value in found.items()}


def touched(found: Drawn) -> np.ndarray:
    """bool (n,): for which examples an operation was drawn."""
    still = {"brightness": 1, "contrast": 1, "saturation": 1, "hue": 0, "window": 1, "threshold": 256}
    changes = [found[name] != value for name, value in still.items() if name in found]
    if "shape" in found:
        changes.append((found["shape"] > 0).all(axis=1))
    return np.logical_or.reduce(changes)
