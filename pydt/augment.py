"""What happens to images on their way into a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pydt.encode import whole
from pydt.errors import ConfigError

ENCODED_SIZE = 224
ENCODED_CROP = ((0.08, 1.0), (3 / 4, 4 / 3))


@dataclass(frozen=True)
class Augment:
    """What happens to an image on its way into a batch.

    Attributes:
        crop_pad: raw images, training: pad by this many black pixels and crop back at a random place.
        flip: training: mirror left-right with probability 1/2.
        mean, std: per channel, of pixels scaled to 0..1; one value, or a number alone, serves all channels.
        size: side in pixels of what the network sees. Encoded images: 224 by default. Raw images keep their own size,
            unless `resized_crop` is given, and by default then, too.
        resized_crop: (scale, ratio) of a random resized crop in training, each (least, most): a window whose share of
            the image's area is uniform in `scale` and whose width / height is log-uniform in `ratio`, resized to
            `size`; the distribution is torchvision's. Raw images: bilinear; evaluation takes the largest window in the
            middle. Encoded images, always cropped so: ((0.08, 1), (3/4, 4/3)) by default; evaluation resizes the short
            side to size * 256 / 224 and crops the centre.
    """

    crop_pad: int = 0
    flip: bool = False
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    size: int | None = None
    resized_crop: tuple[tuple[float, float], tuple[float, float]] | None = None

    def __post_init__(self) -> None:
        # Brought to one form, so that settings which mean the same are equal and have one digest.
        fixed = {
            "crop_pad": whole(self.crop_pad, "crop_pad", "Augment", 0, 1 << 16, ConfigError),
            "size": None if self.size is None else whole(self.size, "size", "Augment", 1, 1 << 16, ConfigError),
            "resized_crop": _crop(self.resized_crop),
            "mean": _numbers(self.mean, "mean"),
            "std": _numbers(self.std, "std"),
            "flip": bool(self.flip),
        }
        if not isinstance(self.flip, (bool, np.bool_)):
            raise ConfigError(f"flip {self.flip!r}", "Augment", "use True or False")
        for name, value in fixed.items():
            object.__setattr__(self, name, value)
        if not all(np.isfinite(self.mean)) or not all(s > 0 and np.isfinite(s) for s in self.std):
            raise ConfigError(
                f"mean {self.mean}, std {self.std}", "Augment", "give finite means and positive deviations"
            )
        if self.crop_pad and self.resized_crop:
            raise ConfigError("crop_pad and resized_crop", "Augment", "choose one of the two crops")

    def channels(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """mean and std as float32 (count,)."""
        if len(self.mean) not in (1, count) or len(self.std) not in (1, count):
            raise ConfigError(
                f"{len(self.mean)} means and {len(self.std)} deviations for {count} channels",
                "Augment",
                "give one, or one each",
            )
        mean, std = np.empty((2, count), np.float32)
        mean[:], std[:] = self.mean, self.std
        return mean, std

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what the network sees of raw images of this height and width."""
        if self.resized_crop is None or self.size is None:
            return height, width
        return self.size, self.size

    def described(self) -> dict[str, Any]:
        """As JSON types, for digests. What is left at the default of a setting younger than stored results is not
        named, so that their recipes keep their digests.
        """
        old = {"crop_pad": self.crop_pad, "flip": self.flip, "mean": self.mean, "std": self.std}
        if self.resized_crop is None:
            return old | {"size": self.size or ENCODED_SIZE}
        return old | {"size": self.size, "resized_crop": self.resized_crop}


def _crop(given: Any) -> tuple[tuple[float, float], tuple[float, float]] | None:
    if given is None:
        return None
    try:
        scale, ratio = (tuple(np.asarray(pair, float).tolist()) for pair in given)
        good = 0 < scale[0] <= scale[1] <= 1 and 1e-4 <= ratio[0] <= ratio[1] <= 1e4
        if good and len(scale) == len(ratio) == 2:
            return scale, ratio
    except (TypeError, ValueError, IndexError):
        pass
    raise ConfigError(
        f"resized_crop {given!r}",
        "Augment",
        "give the least and the most share of the area, and of width / height: ((0.08, 1), (3 / 4, 4 / 3))",
    )


def _numbers(values: Any, name: str) -> tuple[float, ...]:
    try:
        given = np.asarray(values)
        if given.ndim < 2 and given.size and given.dtype.kind in "iuf":
            return tuple(given.astype(float).reshape(-1).tolist())
    except (TypeError, ValueError):
        pass
    raise ConfigError(f"{name} {values!r}", "Augment", f"give one number, or one a channel: {name}=(0.5, 0.5, 0.5)")
