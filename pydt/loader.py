"""Batches of a masked subset: raw images through the core, encoded images through DALI.

Order and augmentation are functions of (seed, epoch, example id) alone: they do not depend on the mask, the batch
size, the number of ranks or where a run was resumed. A mask selects ids; skipped records are never touched. A
loader's state is three integers. Why DALI is fed by us and not by its readers: a reader takes no list of examples and
shuffles within a window only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pydt import _core
from pydt.data import Dataset
from pydt.encode import whole
from pydt.errors import ConfigError, DataError

if TYPE_CHECKING:
    from nvidia.dali.pipeline import Pipeline

# Lowest bytes of the streams of random numbers, above the epoch shifted by 8; 1 and 2 are the core's order and
# augmentation.
_AREA_STREAM, _PLACE_STREAM, _ASPECT_STREAM = 3, 4, 5
_MOST_SEED, _MOST_EPOCH = 2**64 - 1, 2**55 - 1


@dataclass(frozen=True)
class Augment:
    """What happens to an image on its way into a batch.

    Attributes:
        crop_pad: raw images, training: pad by this many black pixels and crop back at a random place.
        flip: training: mirror left-right with probability 1/2.
        mean, std: per channel, of pixels scaled to 0..1; one value, or a number alone, serves all channels.
        size: encoded images: side in pixels of what the network sees; training takes a random resized crop (area 0.08
            to 1, aspect 3/4 to 4/3), evaluation resizes the short side to size * 256 / 224 and crops the centre.
    """

    crop_pad: int = 0
    flip: bool = False
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    size: int = 224

    def __post_init__(self) -> None:
        # Brought to one form, so that settings which mean the same are equal and have one digest.
        fixed = {
            "crop_pad": whole(self.crop_pad, "crop_pad", "Augment", 0, 1 << 16, ConfigError),
            "size": whole(self.size, "size", "Augment", 1, 1 << 16, ConfigError),
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

    def channels(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """mean and std as float32 (count,)."""
        if len(self.mean) not in (1, count) or len(self.std) not in (1, count):
            raise ConfigError(
                f"{len(self.mean)} means and {len(self.std)} deviations for {count} channels",
                "Augment",
                "give one, or one each",
            )
        return (
            np.broadcast_to(np.asarray(self.mean, np.float32), count).copy(),
            np.broadcast_to(np.asarray(self.std, np.float32), count).copy(),
        )


def _numbers(values: Any, name: str) -> tuple[float, ...]:
    try:
        given = np.asarray(values)
        if given.ndim < 2 and given.size and given.dtype.kind in "iuf":
            return tuple(given.astype(float).reshape(-1).tolist())
    except (TypeError, ValueError):
        pass
    raise ConfigError(f"{name} {values!r}", "Augment", f"give one number, or one a channel: {name}=(0.5, 0.5, 0.5)")


@dataclass(frozen=True)
class Batch:
    """images float32 (B, C, H, W) on the loader's device; labels int64 (B,) there; index int64 (B,) on the CPU:
    example ids.
    """

    images: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor


class Loader:
    """Iterates over one epoch of the kept examples; the last batch may be smaller.

    Args:
        dataset: what to read.
        keep: bool (examples,) mask, or distinct int64 ids; all examples by default.
        batch_size: over all ranks together; rank r takes every world-th example of each batch, from the r-th on.
        train: shuffle and augment; otherwise ids in ascending order (or as given), centre crop, no flip.
        augment: see `Augment`.
        seed, epoch: of order and augmentation.
        rank, world: this process among those that share the batches.
        device: where batches go; encoded images are then decoded there ("mixed" in DALI's terms).
        channels_last: the memory format of the images.

    Raises:
        DataError: nothing is kept, an id is out of range or given twice, or (while iterating) an image cannot be
            decoded: it is named.
        ConfigError: batch size, rank, world, seed, epoch or device cannot be meant.
    """

    def __init__(
        self,
        dataset: Dataset,
        keep: Any = None,
        batch_size: int = 128,
        train: bool = True,
        augment: Augment | None = None,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world: int = 1,
        device: str | torch.device = "cpu",
        channels_last: bool = False,
    ) -> None:
        if not isinstance(dataset, Dataset):
            raise DataError(f"a {type(dataset).__name__} is no data set", "Loader", "give a pydt.Dataset")
        if not isinstance(augment, (Augment, type(None))):
            raise ConfigError(f"augment is a {type(augment).__name__}", "Loader", "give augment=Augment(...)")
        self.dataset, self.train, self.channels_last = dataset, train, channels_last
        self.augment = augment or Augment()
        self.batch_size = whole(batch_size, "batch_size", "Loader", 1, None, ConfigError)
        self.seed = whole(seed, "seed", "Loader", 0, _MOST_SEED, ConfigError)
        self.world = whole(world, "world", "Loader", 1, None, ConfigError)
        self.rank = whole(rank, "rank", "Loader", 0, self.world - 1, ConfigError)
        self.device = _device(device)
        self.ids = kept_ids(dataset, keep)
        self._pipelines: dict[bool, _Encoded] = {}
        self.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return -(-len(self.ids) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Start the given epoch at its first batch.

        Raises:
            ConfigError: it is negative or no whole number.
        """
        self._epoch = whole(epoch, "epoch", "Loader", 0, _MOST_EPOCH, ConfigError)
        self._position = self._start = 0

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands: seed, epoch, and batches already delivered of that epoch."""
        return {"seed": self.seed, "epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a saved place: the next iteration delivers exactly the batches that were still to come.

        Raises:
            ConfigError: it is not what `state_dict` returns.
        """
        limits = {"seed": _MOST_SEED, "epoch": _MOST_EPOCH, "position": len(self)}
        if not isinstance(state, Mapping) or set(state) != set(limits):
            raise ConfigError(f"state {state!r}", "load_state_dict", "give what Loader.state_dict() returned")
        self.seed, self._epoch, self._start = (
            whole(state[name], name, "load_state_dict", 0, most, ConfigError) for name, most in limits.items()
        )
        self._position = self._start

    def __iter__(self) -> Iterator[Batch]:
        order = self.ids
        if self.train:
            order = order[_core.epoch_order(self.seed, self._epoch, order)]
        # A saved place serves one iteration: a loop that was broken off starts its epoch again.
        self._position, self._start = self._start, 0
        while self._position < len(self):
            start = self._position * self.batch_size
            ids = np.ascontiguousarray(order[start : start + self.batch_size][self.rank :: self.world])
            self._position += 1
            yield self.read(ids)

    def read(self, ids: np.ndarray) -> Batch:
        """One batch of the given examples (int64 ids), prepared for this epoch."""
        if self.dataset.images is None:
            images = self._read_encoded(ids)
        else:
            images = self._read_raw(self.dataset.images, ids).to(self.device, non_blocking=True)
        labels = torch.from_numpy(self.dataset.labels[ids])
        return Batch(images, labels.to(self.device, non_blocking=True), torch.from_numpy(ids))

    def _read_raw(self, stored: np.ndarray, ids: np.ndarray) -> torch.Tensor:
        height, width, channels = stored.shape[1:]
        mean, std = self.augment.channels(channels)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        out = torch.empty((len(ids), channels, height, width), memory_format=layout)
        pad, flip = (self.augment.crop_pad, self.augment.flip) if self.train else (0, False)
        _core.gather(
            stored,
            self.dataset.positions[ids],
            ids,
            out.numpy(),
            mean,
            std,
            pad,
            flip,
            self.seed,
            self._epoch,
            torch.get_num_threads(),
        )
        return out

    def _read_encoded(self, ids: np.ndarray) -> torch.Tensor:
        assert self.dataset.paths is not None
        paths = [self.dataset.paths[p] for p in self.dataset.positions[ids]]
        if self.train not in self._pipelines:
            self._pipelines[self.train] = _Encoded(self.augment, self.train, self.batch_size, self.device)
        try:
            images = self._pipelines[self.train].read(paths, _windows(self.seed, self._epoch, ids, self.augment.flip))
        except DataError:
            # A pipeline that has failed once runs no more.
            del self._pipelines[self.train]
            raise
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images


def kept_ids(dataset: Dataset, keep: Any) -> np.ndarray:
    """The example ids (int64) that a bool mask or a list of ids keeps; refuses what selects nothing or does not fit."""
    if keep is None:
        return np.arange(len(dataset))
    try:
        array = np.asarray(keep.detach().cpu() if hasattr(keep, "detach") else keep)
    except (TypeError, ValueError) as error:
        raise DataError(f"no array ({error})", "keep", "give a bool mask or a list of example ids") from error
    if array.dtype == bool:
        if array.shape != (len(dataset),):
            raise DataError(
                f"mask of shape {array.shape} over {len(dataset)} examples", "keep", "give one bool per example"
            )
        array = np.flatnonzero(array)
    elif array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"dtype {array.dtype}, shape {array.shape}", "keep", "give a bool mask or a list of example ids"
        )
    array = array.astype(np.int64)
    if not len(array):
        raise DataError("the mask keeps no example", dataset.name, "keep at least one group that has images")
    wrong = array[(array < 0) | (array >= len(dataset))]
    if len(wrong):
        raise DataError(f"example id {wrong[0]} of {len(dataset)} examples", "keep", f"use ids 0..{len(dataset) - 1}")
    times = np.bincount(array)
    if times.max() > 1:
        mask = len(array) == len(dataset) and len(times) <= 2
        raise DataError(
            f"example id {times.argmax()} is given {times.max()} times",
            "keep",
            "it looks like a 0/1 mask: pass bool, keep.astype(bool)" if mask else "give every id once",
        )
    return array


def _device(device: str | torch.device) -> torch.device:
    mend = 'use "cpu", "cuda" or "cuda:1"'
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device {device!r}", "Loader", mend) from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device is usable here", f"Loader, device {device!r}", 'use device="cpu"')
    return found


def _uniform(bits: np.ndarray, shift: int, width: int) -> np.ndarray:
    """`width` of the random bits, from `shift` on, as float64 in [0, 1)."""
    return ((bits >> np.uint64(shift)) & np.uint64((1 << width) - 1)).astype(np.float64) / (1 << width)


def _windows(seed: int, epoch: int, ids: np.ndarray, flip: bool) -> np.ndarray:
    """Random resized crops, keyed by example id: area share, aspect, x place, y place, mirrored: float32 (n, 5)."""
    area, place, aspect = (
        _core.random_bits(seed, epoch << 8 | stream, ids) for stream in (_AREA_STREAM, _PLACE_STREAM, _ASPECT_STREAM)
    )
    columns = [
        0.08 + 0.92 * _uniform(area, 0, 53),
        np.exp(np.log(4 / 3) * (2 * _uniform(aspect, 0, 53) - 1)),
        _uniform(place, 0, 31),
        _uniform(place, 31, 31),
        (place >> np.uint64(63)).astype(np.float64) * flip,
    ]
    return np.stack(columns, axis=1).astype(np.float32)


class _Encoded:
    """A DALI pipeline fed by us: encoded bytes and crop windows in, normalised images out."""

    def __init__(self, augment: Augment, train: bool, batch_size: int, device: torch.device) -> None:
        try:
            import nvidia.dali  # noqa: F401
        except ImportError as error:
            raise DataError(
                "encoded images need DALI, which is not installed",
                "Loader",
                "pip install nvidia-dali-cuda130, or store the images as a uint8 .npy array",
            ) from error
        self.train, self.batch_size, self.device, self.augment = train, batch_size, device, augment
        self._files: list[np.ndarray] = []
        self._windows: list[np.ndarray] = []
        self._pipeline = self._build()

    def _build(self) -> Pipeline:
        from nvidia.dali import fn, math, pipeline_def, types

        gpu = self.device.type == "cuda"
        decoder = "mixed" if gpu else "cpu"
        size = self.augment.size
        mean, std = self.augment.channels(3)

        @pipeline_def(
            batch_size=self.batch_size,
            num_threads=max(1, torch.get_num_threads()),
            device_id=(self.device.index or 0) if gpu else None,
            prefetch_queue_depth=1,
            exec_async=False,
            exec_pipelined=False,
        )
        def pipeline() -> Any:
            files = fn.external_source(lambda: self._files, batch=True, no_copy=True, dtype=types.UINT8, ndim=1)
            if self.train:
                window = fn.external_source(lambda: self._windows, batch=True, dtype=types.FLOAT, ndim=1)
                shape = fn.cast(fn.peek_image_shape(files), dtype=types.FLOAT)
                height, width = shape[0], shape[1]
                # A random resized crop in relative coordinates: width sqrt(area * aspect) and height sqrt(area /
                # aspect) of the image's own sides, cut to the image where the aspect does not fit.
                ratio = window[1]
                crop_w = math.min(math.sqrt(window[0] * ratio * height / width), 1.0)
                crop_h = math.min(math.sqrt(window[0] / ratio * width / height), 1.0)
                extent = fn.stack(crop_w, crop_h)
                anchor = fn.stack(window[2] * (1.0 - crop_w), window[3] * (1.0 - crop_h))
                images = fn.decoders.image_slice(
                    files, anchor, extent, device=decoder, output_type=types.RGB, axis_names="WH"
                )
                images = fn.resize(images, resize_x=size, resize_y=size, antialias=True)
                mirror = fn.cast(window[4], dtype=types.INT32)
            else:
                images = fn.decoders.image(files, device=decoder, output_type=types.RGB)
                images = fn.resize(images, resize_shorter=round(size * 256 / 224), antialias=True)
                mirror = 0
            return fn.crop_mirror_normalize(
                images,
                crop=(size, size),
                mirror=mirror,
                dtype=types.FLOAT,
                output_layout="CHW",
                mean=[float(m) * 255 for m in mean],
                std=[float(s) * 255 for s in std],
            )

        built = pipeline()
        built.build()
        return built

    def read(self, paths: list[str], windows: np.ndarray) -> torch.Tensor:
        """Decode, crop and normalise one batch: float32 (B, 3, size, size)."""
        self._files = [_read_file(path) for path in paths]
        self._windows = list(windows)
        try:
            (out,) = self._pipeline.run()
        except RuntimeError as error:
            bad = _broken(paths)
            raise DataError(
                "cannot be decoded" if bad else f"DALI failed: {error}",
                bad or "a batch of images",
                "replace or delete the file and index the folder again" if bad else "see the message above",
            ) from error
        images = torch.from_dlpack(out.as_tensor())
        # The pipeline writes its next batch into the same memory.
        return images.clone()


def _read_file(path: str) -> np.ndarray:
    try:
        return np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror})", path, "restore the file, or index the folder again"
        ) from error


def _broken(paths: list[str]) -> str | None:
    """The first file that a second, independent decoder cannot read either."""
    from PIL import Image

    for path in paths:
        try:
            with Image.open(path) as image:
                image.load()
        except (OSError, SyntaxError, ValueError):
            return path
    return None
