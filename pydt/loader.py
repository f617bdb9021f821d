"""Batches of a masked subset: raw images through the core, encoded images through DALI.

Order and augmentation are functions of (seed, epoch, example id) alone: they do not depend on the mask, the batch
size, the number of ranks or where a run was resumed. A mask selects ids; skipped records are never touched. A
loader's state is three integers. For raw images it owns no thread: the core starts helpers for the length of a batch
where torch is set to more than one thread. (Encoded ones are decoded by DALI's threads.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from pydt import _core
from pydt.augment import ENCODED_SIZE, Augment
from pydt.buffers import HOST, Staging, resident
from pydt.data import Dataset
from pydt.encode import whole
from pydt.encoded import Encoded, windows
from pydt.errors import ConfigError, DataError

__all__ = ["Augment", "Batch", "Loader", "kept_ids"]

_MOST_SEED, _MOST_EPOCH = 2**64 - 1, 2**55 - 1
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
        """One text per example, or None where the data set has none. Made when asked for: it takes longer than the
        images of a small batch.
        """
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

    Memory of raw images: up to three batches of this process wait for their next use. On a GPU the data set is copied
    there, once for all loaders, and batches are made there, unless it takes more than half of the free memory.

    Raises:
        DataError: nothing is kept, an id is out of range or given twice, or (while iterating) an image cannot be
            decoded: it is named.
        ConfigError: batch size, rank, world, seed, epoch, device, dtype or views cannot be meant.
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
        self.dtype = dtype
        self.device = _device(device)
        self.ids = kept_ids(dataset, keep)
        self._memory = Staging(self.device) if self.device.type == "cuda" else HOST
        self._encoded: Encoded | None = None
        self._turn = 0  # which iteration is the present one
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
        self._turn += 1

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
        self._turn += 1

    def __iter__(self) -> Iterator[Batch]:
        order = self.ids
        if self.train:
            order = order[_core.epoch_order(self.seed, self._epoch, order)]
        # A saved place serves one iteration: a loop that was broken off starts its epoch again.
        self._position, self._start = self._start, 0
        self._turn += 1
        turn = self._turn
        while self._position < len(self):
            start = self._position * self.batch_size
            ids = np.ascontiguousarray(order[start : start + self.batch_size][self.rank :: self.world])
            self._position += 1
            self.dataset.check()
            yield self.read(ids)
            if turn != self._turn:
                raise ConfigError(
                    "an iteration goes on after another was begun, or an epoch or a state was set",
                    "Loader",
                    "break it off first, or make a loader for each: they share what is large",
                )

    def read(self, ids: np.ndarray) -> Batch:
        """One batch of the given examples (int64 ids), prepared for this epoch."""
        read = self._read_encoded if self.dataset.images is None else self._read_raw
        labels = torch.from_numpy(self.dataset.labels[ids]).to(self.device, non_blocking=True)
        return Batch(read(ids), labels, torch.from_numpy(ids), self.dataset.captions)

    def _read_raw(self, ids: np.ndarray) -> torch.Tensor:
        stored = self.dataset.images
        assert stored is not None
        index, channels = self.dataset.positions[ids], stored.shape[3]
        height, width = self.augment.sides(*stored.shape[1:3])
        how: dict[str, Any] = {"crop_pad": 0, "flip": False, "seed": self.seed, "epoch": self._epoch}
        how["mean"], how["std"] = self.augment.channels(channels)
        if self.train:
            how |= {"crop_pad": self.augment.crop_pad, "flip": self.augment.flip}
            if self.augment.resized_crop is not None:
                how["scale"], how["ratio"] = self.augment.resized_crop
        shape = (self.views * len(ids), channels, height, width)
        there = resident(stored, self.device) if self.device.type == "cuda" else None
        if there is not None:
            layout = torch.channels_last if self.channels_last else torch.contiguous_format
            out = torch.empty(shape, dtype=self.dtype, device=self.device, memory_format=layout)
            with torch.cuda.device(self.device):
                stream = torch.cuda.current_stream(self.device).cuda_stream
                for view, part in enumerate(out.split(len(ids))):
                    _core.cuda_gather(
                        images=there.data_ptr(),
                        shape=stored.shape,
                        index=index,
                        ids=ids,
                        out=part.data_ptr(),
                        size=(height, width),
                        dtype=str(self.dtype).removeprefix("torch."),
                        channels_last=self.channels_last,
                        stream=stream,
                        view=view,
                        **how,
                    )
            return out
        out = self._memory.take(*shape, self.dtype, self.channels_last)
        # numpy has no bfloat16: its bits
        bits = (out.view(torch.uint16) if self.dtype == torch.bfloat16 else out).numpy()
        threads = torch.get_num_threads()
        for view in range(self.views):
            part = bits[view * len(ids) : (view + 1) * len(ids)]
            _core.gather(images=stored, index=index, ids=ids, out=part, threads=threads, view=view, **how)
        return self._memory.send(out) if isinstance(self._memory, Staging) else out

    def _read_encoded(self, ids: np.ndarray) -> torch.Tensor:
        assert self.dataset.paths is not None
        if not len(ids):  # a rank that has no share of the last batch
            size = self.augment.size or ENCODED_SIZE
            return torch.empty((0, 3, size, size), dtype=self.dtype, device=self.device)
        paths = [self.dataset.paths[p] for p in self.dataset.positions[ids]]
        if self._encoded is None:
            self._encoded = Encoded(self.augment, self.train, self.batch_size, self.device)
        crops = [windows(self.augment, self.seed, self._epoch, view, ids) for view in range(self.views)]
        try:
            images = torch.cat([self._encoded.read(paths, part) for part in crops])
        except DataError:
            self._encoded = None  # a pipeline that has failed once runs no more
            raise
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return images.to(self.dtype).contiguous(memory_format=layout)


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
        kept = np.flatnonzero(array)
        if not len(kept):
            raise _nothing(dataset)
        return kept
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(
            f"dtype {array.dtype}, shape {array.shape}", "keep", "give a bool mask or a list of example ids"
        )
    array = array.astype(np.int64)
    if not len(array):
        raise _nothing(dataset)
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


def _nothing(dataset: Dataset) -> DataError:
    return DataError("the mask keeps no example", dataset.name, "keep at least one group that has images")


def _device(device: str | torch.device) -> torch.device:
    mend = 'use "cpu", "cuda" or "cuda:1"'
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device {device!r}", "Loader", mend) from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device is usable here", f"Loader, device {device!r}", 'use device="cpu"')
    return found
