"""Batches of a masked subset: raw images through the core, encoded images through DALI.

Order and augmentation are functions of (seed, epoch, example id) alone, whatever the mask, the batch size, the number
of ranks, or where a run was resumed. A mask selects ids; other records are never touched. A loader's state is three
integers. For raw images it owns no thread: the core starts helpers for a batch where torch has several threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from pydt import _core
from pydt.base import ConfigError, DataError, one_of, whole
from pydt.data.dataset import Dataset
from pydt.data.loading.augment import ENCODED_CROP, Augment
from pydt.data.loading.buffers import HOST, SCRATCH, Ring, Staging, resident, small
from pydt.data.loading.dali import Settings, engine, known, read
from pydt.data.loading.drawn import drawn, touched
from pydt.data.loading.raw_operations import operate

_MOST_SEED, _MOST_EPOCH = 2**64 - 1, 2**55 - 1
_STAND_IN = 6  # lowest byte of the stream of random bits (csrc/windows.hpp has the list)
_TYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Batch:
    """Some examples.

    Attributes:
        images: (views * B, C, H, W) of the loader's dtype, on its device: the first view of every example, then the
            second one. Valid as long as it or anything made of it is referenced.
        labels: int64 (B,), on the device.
        index: int64 (B,) on the CPU: example ids.
    """

    images: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor
    _texts: Sequence[str] | None = field(default=None, repr=False)

    @cached_property
    def captions(self) -> tuple[str, ...] | None:
        """One text per example, or None where the data set has none. Made when asked for: slower than a small batch."""
        return None if self._texts is None else tuple(self._texts[i] for i in self.index.tolist())


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
        dtype: of the images: torch.float32, float16 or bfloat16, rounded to nearest even.
        views: 2 for two independently augmented views of every example.
        on_error: what to do about an encoded image that cannot be read or decoded: "raise" an error that names it, or
            "skip": another kept example takes its place in the batch, with its own label and id, chosen by (seed,
            epoch, id); batches keep their sizes.
        check: compare the bytes of every encoded image with the CRC32C in the index: what differs is broken.

    Attributes:
        skipped: with on_error="skip", id -> why, of the examples replaced in this epoch so far.

    Loaders of encoded images that differ in nothing but mask, seed and epoch share one pipeline as long as one of them
    lives. Memory of raw images: up to three batches of this process wait for their next use; on a GPU the data set is
    copied there, once for all loaders, unless it takes more than half of the free memory.

    Raises:
        DataError: nothing is kept, an id is out of range or given twice, or (while iterating) an image cannot be
            decoded: it is named.
        ConfigError: batch size, rank, world, seed, epoch, device, dtype, views or on_error cannot be meant, or raw
            images cannot be augmented so.
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
        dtype: torch.dtype = torch.float32,
        views: int = 1,
        on_error: str = "raise",
        check: bool = False,
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
        self.views = whole(views, "views", "Loader", 1, 2, ConfigError)
        if self.views == 2 and not train:
            raise ConfigError("two views without augmentation", "Loader", "use views=1 or train=True")
        if dtype not in _TYPES:
            raise ConfigError(f"dtype {dtype}", "Loader", "use torch.float32, torch.float16 or torch.bfloat16")
        one_of(on_error, ("raise", "skip"), "on_error", "Loader")
        self.dtype, self.on_error, self.check = dtype, on_error, bool(check)
        self.device = _device(device)
        self.ids = kept_ids(dataset, keep)
        self.skipped: dict[int, str] = {}
        if dataset.encoded:
            share, threads = -(-self.batch_size // self.world), max(1, torch.get_num_threads())
            self.engine = engine(
                Settings(self.augment, train, share * self.views, self.device, dtype, channels_last, threads)
            )
        else:
            gpu = self.device.type == "cuda"
            self._memory = Staging(self.device) if gpu else HOST
            self._scratch = self._memory if gpu else SCRATCH
            assert dataset.images is not None
            self._operates = train and self.augment.operations(self.augment.seen(dataset.images.shape[3]))
        self._turn = 0  # which iteration is the present one
        self.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return -(-len(self.ids) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Start the given epoch, a whole number from 0, at its first batch."""
        self._epoch = whole(epoch, "epoch", "Loader", 0, _MOST_EPOCH, ConfigError)
        self._position = self._start = 0
        self._turn += 1

    def state_dict(self) -> dict[str, int]:
        """Seed, epoch, and batches already delivered of that epoch."""
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
        self._turn += 1

    def __iter__(self) -> Iterator[Batch]:
        order = self.ids
        if self.train:
            order = order[_core.epoch_order(self.seed, self._epoch, order)]
        # A saved position serves one iteration: a loop that was broken off starts its epoch again.
        self._position, self._start = self._start, 0
        self.skipped = {}
        self._turn += 1
        turn = self._turn
        while self._position < len(self):
            start = self._position * self.batch_size
            ids = np.ascontiguousarray(order[start : start + self.batch_size][self.rank :: self.world])
            self._position += 1
            self.dataset.unchanged()
            yield self.read(ids)
            if turn != self._turn:
                what = "an iteration goes on after another was begun, or an epoch or a state was set"
                mend = "break it off first, or make a loader for each: they share what is large"
                raise ConfigError(what, "Loader", mend)

    def read(self, ids: np.ndarray) -> Batch:
        """One batch of the given examples (int64 ids), prepared for this epoch."""
        if self.dataset.encoded:
            images, ids = self._read_encoded(ids)
        else:
            images = self._read_raw(ids)
        labels = small(self.dataset.labels[ids], self.device)
        return Batch(images, labels, torch.from_numpy(ids), self.dataset.captions)

    def _read_raw(self, ids: np.ndarray) -> torch.Tensor:
        assert self.dataset.images is not None
        _, height, width, channels = self.dataset.images.shape
        augment, seen = self.augment, self.augment.seen(channels)
        mean, std = augment.channels(seen)
        sides = augment.sides(height, width, self._epoch if self.train else None)
        if not len(ids):  # this rank has no share of the last batch
            return torch.empty((0, seen, *sides), dtype=self.dtype, device=self.device)
        if augment.resize is None and seen == channels:
            how = sides, mean, std, self.dtype, self.channels_last
            images = self._gather(self._memory, ids, range(self.views), *how)
        else:
            centre, scale = (small(values, self.device).view(-1, 1, 1) for values in (mean, std))
            layout = torch.channels_last if self.channels_last else torch.contiguous_format
            images = self._scaled(self._memory, ids, range(self.views))
            images = ((images - centre) / scale).to(self.dtype, memory_format=layout)
        for view in range(self.views) if self._operates else ():
            self._operate(images[view * len(ids) : (view + 1) * len(ids)], ids, view, mean, std)
        return images

    def _operate(self, images: torch.Tensor, ids: np.ndarray, view: int, mean: np.ndarray, std: np.ndarray) -> None:
        """Replace those of the images (n, C, H, W), one view of `ids`, for which an operation was drawn."""
        height, width = images.shape[2:]
        found = drawn(self.augment, height, width, self.seed, self._epoch, view, ids)
        some = np.flatnonzero(touched(found))
        if not len(some):
            return
        found = {name: values[some] for name, values in found.items()}
        if "anchor" in found and self.augment.flip:  # encoded images are mirrored last, and their rectangles with them
            sides = np.tile(np.array([height, width], np.int32), (len(some), 1))
            flipped = _core.crop_windows(sides, ids[some], *ENCODED_CROP, True, self.seed, self._epoch, view)[2] == 1
            anchor, shape = found["anchor"], found["shape"]
            anchor[flipped, 1] = width - shape[flipped, 1] - anchor[flipped, 1]
        pixels = (255 * self._scaled(self._scratch, ids[some], [view])).expand(-1, len(mean), -1, -1).contiguous()
        images[small(some, self.device)] = operate(pixels, found, mean, std).to(self.dtype)

    def _scaled(self, memory: Ring | Staging, ids: np.ndarray, views: Sequence[int]) -> torch.Tensor:
        """The examples, cropped, flipped and resized: float32 (views * n, C, H, W), on the scale 0..1."""
        assert self.dataset.images is not None
        _, height, width, channels = self.dataset.images.shape
        augment, sides = self.augment, self.augment.sides(height, width, self._epoch if self.train else None)
        done = augment.resize is None or (self.train and augment.resized_crop is not None)
        plain = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        images = self._gather(memory, ids, views, sides if done else (height, width), *plain, torch.float32, False)
        return images if done else resized(images, augment, sides[0])

    def _gather(
        self,
        memory: Ring | Staging,
        ids: np.ndarray,
        views: Sequence[int],
        sides: tuple[int, int],
        mean: np.ndarray,
        std: np.ndarray,
        dtype: torch.dtype,
        channels_last: bool,
    ) -> torch.Tensor:
        """The examples, cropped, flipped and normalised by the core: (views * n, C, *sides)."""
        stored = self.dataset.images
        assert stored is not None
        index, channels = self.dataset.positions[ids], stored.shape[3]
        height, width = sides
        how: dict[str, Any] = {"crop_pad": 0, "flip": False, "seed": self.seed, "epoch": self._epoch}
        how["mean"], how["std"] = mean, std
        if self.train:
            how |= {"crop_pad": self.augment.crop_pad, "flip": self.augment.flip}
            if self.augment.resized_crop is not None:
                how["scale"], how["ratio"] = self.augment.resized_crop
        shape = (len(views) * len(ids), channels, height, width)
        if self._there is not None:
            layout = torch.channels_last if channels_last else torch.contiguous_format
            out = torch.empty(shape, dtype=dtype, device=self.device, memory_format=layout)
            with torch.cuda.device(self.device):
                stream = torch.cuda.current_stream(self.device)
                self._there.record_stream(stream)  # it may be another one than that in which the images were copied
                for place, view in enumerate(views):
                    lot = out[place * len(ids) : (place + 1) * len(ids)]
                    _core.cuda_gather(
                        images=self._there.data_ptr(),
                        shape=stored.shape,
                        index=index,
                        ids=ids,
                        out=lot.data_ptr(),
                        size=(height, width),
                        dtype=str(dtype).removeprefix("torch."),
                        channels_last=channels_last,
                        stream=stream.cuda_stream,
                        view=view,
                        **how,
                    )
            return out
        out = memory.take(*shape, dtype, channels_last)
        # numpy has no bfloat16: its bits
        bits = (out.view(torch.uint16) if dtype == torch.bfloat16 else out).numpy()
        threads = torch.get_num_threads()
        for place, view in enumerate(views):
            part = bits[place * len(ids) : (place + 1) * len(ids)]
            _core.gather(images=stored, index=index, ids=ids, out=part, threads=threads, view=view, **how)
        return memory.send(out) if isinstance(memory, Staging) else out

    @cached_property
    def _there(self) -> torch.Tensor | None:
        """The data set on the GPU, if it is there: decided at the first batch, since asking takes time."""
        stored = self.dataset.images
        return resident(stored, self.device) if stored is not None and self.device.type == "cuda" else None

    def _read_encoded(self, ids: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """The images, and the examples that they are of."""
        if not len(ids):  # this rank has no share of the last batch
            side = self.augment.side(self._epoch if self.train else None)
            return torch.empty((0, 3, side, side), dtype=self.dtype, device=self.device), ids
        runner = self.engine
        if len(ids) * self.views > runner.settings.most:
            runner = engine(replace(runner.settings, most=len(ids) * self.views))
        while True:
            sound = self._sound(ids)
            images = read(self.dataset, sound, runner, self.seed, self._epoch, self.views, self.check)
            if images is not None:
                return images, sound

    def _sound(self, ids: np.ndarray) -> np.ndarray:
        """The examples; those known to be broken are replaced or refused."""
        broken = known(self.dataset).broken
        bad = [i for i in ids.tolist() if i in broken] if broken else []
        if not bad:
            return ids
        if self.on_error == "raise":
            why = broken.pop(bad[0])  # the file may be mended, and read again
            mend = 'replace or delete it and index the source again, or leave such images out with on_error="skip"'
            raise DataError(why, self.dataset.place_of(bad[0]), mend)
        self.skipped |= {i: broken[i] for i in bad}
        return np.array([self._stand_in(i, broken) if i in broken else i for i in ids.tolist()], np.int64)

    def _stand_in(self, number: int, broken: Mapping[int, str]) -> int:
        """The first kept example that is not broken, from a random place on: independent of the order of failures."""
        bits = _core.random_bits(self.seed, self._epoch << 8 | _STAND_IN, np.array([number]))
        place, count = int(bits[0] % np.uint64(len(self.ids))), len(self.ids)
        for step in range(count):
            other = int(self.ids[(place + step) % count])
            if other not in broken:
                return other
        raise DataError("none of the images can be read", self.dataset.name, "restore them, or index the source again")


def kept_ids(dataset: Dataset, keep: Any) -> np.ndarray:
    """The example ids (int64) that a bool mask or a list of ids keeps; refuses what selects nothing or does not fit."""
    count, mend = len(dataset), "give a bool mask or a list of example ids"
    if keep is None:
        return np.arange(count)
    try:
        array = np.asarray(keep.detach().cpu() if hasattr(keep, "detach") else keep)
    except (TypeError, ValueError) as error:
        raise DataError(f"no array ({error})", "keep", mend) from error
    if array.dtype == bool:
        if array.shape != (count,):
            raise DataError(f"mask of shape {array.shape} over {count} examples", "keep", "give one bool per example")
        array = np.flatnonzero(array)
    elif array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"dtype {array.dtype}, shape {array.shape}", "keep", mend)
    ids = array.astype(np.int64)
    if not len(ids):
        raise DataError("the mask keeps no example", dataset.name, "keep at least one group that has images")
    wrong = ids[(ids < 0) | (ids >= count)]
    if len(wrong):
        raise DataError(f"example id {wrong[0]} of {count} examples", "keep", f"use ids 0..{count - 1}")
    times = np.bincount(ids)
    if times.max() > 1:
        mask = len(ids) == count and len(times) <= 2
        mend = "it looks like a 0/1 mask: pass bool, keep.astype(bool)" if mask else "give every id once"
        raise DataError(f"example id {times.argmax()} is given {times.max()} times", "keep", mend)
    return ids


def resized(images: torch.Tensor, augment: Augment, side: int) -> torch.Tensor:
    """Images (B, C, H, W) of pixels 0..1 as PIL and torchvision show them: resized, and cropped to the `side` x `side`
    pixels in the centre.
    """
    height, width = images.shape[2:]
    least, short = min(height, width), augment.short
    size = [short, short] if augment.squash else [short * height // least, short * width // least]
    pixels = images * 255
    for shape in ([height, size[1]], size):  # PIL rounds and clips after either direction
        pixels = F.interpolate(pixels, shape, mode=augment.interpolation, antialias=True).round_().clamp_(0, 255)
    top, left = (round((length - side) / 2) for length in size)
    return pixels[:, :, top : top + side, left : left + side] / 255


def _device(device: str | torch.device) -> torch.device:
    """The device with its number, so that one device has one name."""
    mend = 'use "cpu", "cuda" or "cuda:1"'
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device {device!r}", "Loader", mend) from error
    if found.type == "cpu":
        return found
    if found.type != "cuda":
        raise ConfigError(f"device {device!r}", "Loader", mend)
    if not torch.cuda.is_available():
        raise ConfigError("no CUDA device is usable here", f"Loader, device {device!r}", 'use device="cpu"')
    count, index = torch.cuda.device_count(), torch.cuda.current_device() if found.index is None else found.index
    if index >= count:
        raise ConfigError(f"there are {count} CUDA devices", f"Loader, device {device!r}", "count them from 0")
    return torch.device("cuda", index)
