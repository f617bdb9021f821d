"""What happens to images on their way into a batch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pydt import _core
from pydt.base import ConfigError, one_of, real, whole

ENCODED_SIZE = 224
ENCODED_CROP = ((0.08, 1.0), (3 / 4, 4 / 3))
# Settings that are younger than stored results: at their defaults they are not named in a digest, which so stays equal.
_YOUNGER = (
    *("ramp", "jitter", "jitter_chance", "grey", "blur", "blur_chance", "solarize", "erase"),
    *("resize", "interpolation", "rgb", "squash", "randaugment"),
)


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
        ramp: ((epoch, size), ...): training images have this size from that epoch (counted from 0) on; evaluation goes
            by `size`. Jain et al. (2023) train 16 epochs with ((0, 160), (12, 192)) and evaluate at 224. Raw images:
            with `resized_crop` only.
        resize: evaluation: the short side is resized to so many pixels, as PIL resizes, and the centre of `size` pixels
            (224 by default) cropped; at least `size`. Raw images then are so resized too, in training as well unless
            `resized_crop` is given. None: raw images are not resized, encoded ones to size * 256 / 224.
        interpolation: "bilinear" or "bicubic": of `resize`, and of all resizing of encoded images.
        squash: both sides are resized to `resize`, whatever the image's shape.
        rgb: grey images are repeated to three channels before mean and std, for networks that take three.

    In training, in this order, after crop and flip; pixels are rounded to whole numbers 0..255 after each:
        jitter: (brightness, contrast, saturation, hue), each 0 or more, hue at most 1/2: factors uniform in 1 +- the
            first three (but not below 0), hue turned by up to +- the last, in turns. As DALI's `color_twist` does it:
            contrast is about mid-grey, and the order is fixed. Saturation, hue and `grey` change nothing in images of
            one channel, and are refused for two or four.
        jitter_chance: that an image is jittered.
        grey: chance that it loses its colours.
        blur: (least, most) sigma of a Gaussian blur in pixels, uniform.
        blur_chance: that an image is blurred.
        solarize: chance that pixels of 128 and above are inverted.
        erase: chance that a rectangle becomes the mean colour: its share of the area is uniform in 0.02..0.33, its
            height / width log-uniform in 0.3..3.3, cut to the image.

    For encoded images in training only, before `jitter`:
        randaugment: (operations, magnitude): so many operations (to 8), one after the other, each drawn from the 14 of
            Cubuk et al. (2020) as DALI has them, of this magnitude, a whole number 0..30, with a random sign; what
            comes in from beyond the border is grey.
    """

    crop_pad: int = 0
    flip: bool = False
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    size: int | None = None
    resized_crop: tuple[tuple[float, float], tuple[float, float]] | None = None
    ramp: tuple[tuple[int, int], ...] = ()
    jitter: tuple[float, ...] | None = None
    jitter_chance: float = 1.0
    grey: float = 0.0
    blur: tuple[float, ...] | None = None
    blur_chance: float = 1.0
    solarize: float = 0.0
    erase: float = 0.0
    resize: int | None = None
    interpolation: str = "bilinear"
    rgb: bool = False
    squash: bool = False
    randaugment: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        # Brought to one form, so that settings which mean the same are equal and have one digest.
        fixed: dict[str, Any] = {
            "crop_pad": whole(self.crop_pad, "crop_pad", "Augment", 0, 1 << 16, ConfigError),
            "size": None if self.size is None else whole(self.size, "size", "Augment", 1, 1 << 16, ConfigError),
            "resized_crop": _crop(self.resized_crop),
            "mean": _numbers(self.mean, "mean"),
            "std": _numbers(self.std, "std"),
            "flip": bool(self.flip),
            "ramp": _ramp(self.ramp),
            "jitter": _jitter(self.jitter),
            "blur": _blur(self.blur),
            "randaugment": _randaugment(self.randaugment),
        }
        for name in ("jitter_chance", "grey", "blur_chance", "solarize", "erase"):
            fixed[name] = real(getattr(self, name), name, "Augment", least=0, most=1)
        for name in ("jitter", "blur"):
            if fixed[name] is None:
                fixed[f"{name}_chance"] = 1.0
        if not isinstance(self.flip, (bool, np.bool_)):
            raise ConfigError(f"flip {self.flip!r}", "Augment", "use True or False")
        for name, value in fixed.items():
            object.__setattr__(self, name, value)
        one_of(self.interpolation, ("bilinear", "bicubic"), "interpolation", "Augment")
        if self.resize is not None:
            least = self.size or ENCODED_SIZE
            short = whole(self.resize, "resize", "Augment", least, 1 << 16, ConfigError)
            object.__setattr__(self, "resize", short)
        for name in ("rgb", "squash"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} {getattr(self, name)!r}", "Augment", "use True or False")
        if self.squash and self.resize is None:
            raise ConfigError("squash without resize", "Augment", "give resize=, the side of the squashed image")
        if not all(np.isfinite(self.mean)) or not all(s > 0 and np.isfinite(s) for s in self.std):
            what = f"mean {self.mean}, std {self.std}"
            raise ConfigError(what, "Augment", "give finite means and positive deviations")
        if self.crop_pad and self.resized_crop:
            raise ConfigError("crop_pad and resized_crop", "Augment", "choose one of the two crops")

    def channels(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """mean and std as float32 (count,)."""
        if len(self.mean) not in (1, count) or len(self.std) not in (1, count):
            what = f"{len(self.mean)} means and {len(self.std)} deviations for {count} channels"
            raise ConfigError(what, "Augment", "give one, or one each")
        mean, std = np.empty((2, count), np.float32)
        mean[:], std[:] = self.mean, self.std
        return mean, std

    def sides(self, height: int, width: int, epoch: int | None = None) -> tuple[int, int]:
        """(height, width) of what the network sees of raw images of this height and width, in training in `epoch`."""
        if self.resize is not None:
            return self.side(epoch), self.side(epoch)
        size = self.size if epoch is None else self._ramped(epoch, self.size)
        if self.resized_crop is None or size is None:
            return height, width
        return size, size

    def seen(self, channels: int) -> int:
        """Channels of what the network sees of images of so many channels."""
        return 3 if self.rgb and channels == 1 else channels

    @property
    def short(self) -> int:
        """What the short side is resized to in evaluation."""
        return round(self.side() * 256 / 224) if self.resize is None else self.resize

    def side(self, epoch: int | None = None) -> int:
        """Height and width of what the network sees of encoded images, in training in `epoch`."""
        size = self.size or ENCODED_SIZE
        return size if epoch is None else self._ramped(epoch, size) or size

    def random(self, shape: tuple[int, int, int] | None) -> bool:
        """Whether two views of an image can differ in training. A crop or an erased part of a single pixel does not
        count: it leaves the pixel or nothing.

        Args:
            shape: (height, width, channels) of raw images; None for encoded files, as ordinary photographs.
        """
        if shape is None:
            crops = self.randaugment is not None or self._crops(240, 320, self.resized_crop or ENCODED_CROP)
            height, width, colours = self.side(), self.side(), True
        else:
            crops = (shape[0] * shape[1] > 1) and (
                self.crop_pad > 0 or self._crops(shape[0], shape[1], self.resized_crop)
            )
            (height, width), colours = self.sides(shape[0], shape[1]), shape[2] == 3
        brightness, contrast, saturation, hue = self.jitter or (0.0, 0.0, 0.0, 0.0)
        turned = brightness > 0 or contrast > 0 or (colours and self.grey < 1 and (saturation > 0 or hue > 0))
        blurred = self.blur is not None and self.blur_chance > 0 and (self.blur_chance < 1 or len(set(self.blur)) > 1)
        return bool(
            crops
            or (self.flip and width > 1)
            or (turned and self.jitter_chance > 0)
            or (colours and 0 < self.grey < 1)
            or (blurred and height * width > 1)
            or 0 < self.solarize < 1
            or (self.erase > 0 and height * width > 1)
        )

    @staticmethod
    def _crops(height: int, width: int, crop: tuple[tuple[float, float], tuple[float, float]] | None) -> bool:
        """Whether random resized crops of such images show different windows: 1,000 of them are drawn."""
        if crop is None:
            return False
        sizes = np.tile(np.array([height, width], np.int32), (1000, 1))
        start, extent, _ = _core.crop_windows(sizes, np.arange(1000), *crop, False, 0, 0)
        return bool((start != start[0]).any() or (extent != extent[0]).any())

    def _ramped(self, epoch: int, size: int | None) -> int | None:
        return next((to for start, to in reversed(self.ramp) if epoch >= start), size)

    def operations(self, channels: int) -> bool:
        """Whether anything is done in training to raw images of so many channels beside crop and flip.

        Raises:
            ConfigError: a setting cannot be had for such images.
        """
        _, _, saturation, hue = self.jitter or (0.0, 0.0, 0.0, 0.0)
        colours = {"the saturation of jitter": saturation, "the hue of jitter": hue, "grey": self.grey}
        if channels not in (1, 3) and any(colours.values()):
            what = ", ".join(name for name, value in colours.items() if value)
            raise ConfigError(f"{what} for images of {channels} channels", "Augment", "leave it out (0)")
        if self.randaugment:
            mend = "leave it out, or give the images as files: from_folder, from_tar"
            raise ConfigError("randaugment for raw images", "Augment", mend)
        if self.ramp and self.resized_crop is None:
            raise ConfigError("a ramp for raw images that keep their size", "Augment", "add resized_crop=")
        return bool(self.jitter or self.grey or self.blur or self.solarize or self.erase)

    def described(self) -> dict[str, Any]:
        """As JSON types, for digests; see `_YOUNGER`."""
        old = {"crop_pad": self.crop_pad, "flip": self.flip, "mean": self.mean, "std": self.std}
        young = (field for field in fields(self) if field.name in _YOUNGER)
        new = {f.name: value for f in young if (value := getattr(self, f.name)) != f.default}
        if self.resized_crop is None:
            return old | {"size": self.size or ENCODED_SIZE} | new
        return old | {"size": self.size, "resized_crop": self.resized_crop} | new


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
    mend = "give the least and the most share of the area, and of width / height: ((0.08, 1), (3 / 4, 4 / 3))"
    raise ConfigError(f"resized_crop {given!r}", "Augment", mend)


def _ramp(given: Any) -> tuple[tuple[int, int], ...]:
    mend = "give (epoch, size) pairs, epochs rising from 0: ((0, 160), (12, 192))"
    try:
        pairs = [(epoch, size) for epoch, size in given]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"ramp {given!r}", "Augment", mend) from error
    epochs = [whole(epoch, "ramp's epoch", "Augment", 0, None, ConfigError) for epoch, _ in pairs]
    sizes = [whole(size, "ramp's size", "Augment", 1, 1 << 16, ConfigError) for _, size in pairs]
    if epochs and (epochs[0] != 0 or sorted(set(epochs)) != epochs):
        raise ConfigError(f"ramp {given!r}", "Augment", mend)
    return tuple(zip(epochs, sizes, strict=True))


def _jitter(given: Any) -> tuple[float, ...] | None:
    if given is None:
        return None
    values = _numbers(given, "jitter")
    if len(values) != 4 or not all(0 <= v < 100 for v in values) or values[3] > 0.5:
        mend = "give (brightness, contrast, saturation, hue), none negative, hue at most 0.5: (0.4, 0.4, 0.4, 0.1)"
        raise ConfigError(f"jitter {given!r}", "Augment", mend)
    return values if any(values) else None


def _blur(given: Any) -> tuple[float, ...] | None:
    if given is None:
        return None
    values = _numbers(given, "blur")
    if len(values) != 2 or not 0 < values[0] <= values[1] <= 20:
        raise ConfigError(f"blur {given!r}", "Augment", "give the least and the most sigma in pixels, to 20: (0.1, 2)")
    return values


def _randaugment(given: Any) -> tuple[int, int] | None:
    if given is None:
        return None
    try:
        operations, magnitude = given
    except (TypeError, ValueError) as error:
        raise ConfigError(f"randaugment {given!r}", "Augment", "give (operations, magnitude): (2, 9)") from error
    return (
        whole(operations, "randaugment's operations", "Augment", 1, 8, ConfigError),
        whole(magnitude, "randaugment's magnitude", "Augment", 0, 30, ConfigError),
    )


def _numbers(values: Any, name: str) -> tuple[float, ...]:
    try:
        given = np.asarray(values)
        if given.ndim < 2 and given.size and given.dtype.kind in "iuf":
            return tuple(given.astype(float).reshape(-1).tolist())
    except (TypeError, ValueError):
        pass
    raise ConfigError(f"{name} {values!r}", "Augment", f"give one number, or one a channel: {name}=(0.5, 0.5, 0.5)")
