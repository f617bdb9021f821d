"""Batches of encoded images through DALI.

DALI's own readers take no list of examples and shuffle within a window only. So it gets the bytes of the examples of a
batch and, in training, what was drawn for them: everything is a function of (seed, epoch, view, id), and DALI's random
numbers, which go by the place in the batch, are not used. It decodes JPEG and PNG files to the pixels that PIL gives;
PIL decodes all others (those that may be transparent among them, since DALI drops alpha), and what DALI refuses.

On a GPU ("mixed") files and drawn numbers stay on the CPU, and pixels are on the GPU. A batch is ordered in the stream
that is current when it is asked for, and its memory comes back in that order.

A pipeline knows nothing of masks and data sets: loaders of equal settings share one as long as any of them lives, so a
new mask builds nothing. Batches are not copied: each is DALI's memory, which lives as long as the tensor over it.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pydt import _core
from pydt.base import DataError
from pydt.data.dataset import Dataset
from pydt.data.image_files import undecodable
from pydt.data.loading.augment import ENCODED_CROP, Augment
from pydt.data.loading.drawn import RANDAUGMENT, Drawn, drawn
from pydt.data.pixels import rgb

if TYPE_CHECKING:
    from nvidia.dali.pipeline import Pipeline

# Pipelines of the parent of a fork, where their threads are: ending them here would wait for ever.
_orphans: list[Any] = []

# What DALI says where a GPU has no memory left: in that case no image is to blame.
_NO_MEMORY = ("CUDA allocation failed", "Can't allocate")


class Refused(Exception):
    """DALI cannot decode an image of the batch; it does not say reliably which."""


@dataclass(frozen=True)
class Settings:
    """What a pipeline is built for."""

    augment: Augment
    train: bool
    most: int  # images at a time
    device: torch.device
    dtype: torch.dtype
    channels_last: bool
    threads: int


@dataclass
class Batch:
    """What a pipeline reads next. It holds this and not its engine, so that it ends with the engine's last user."""

    records: list[np.ndarray] = field(default_factory=list)
    feeds: Drawn = field(default_factory=dict)


class Engine:
    """A DALI pipeline, built when first used: encoded bytes and drawn numbers in, normalised images out."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self.pipeline: Pipeline | None = None
        self._owner = os.getpid()
        self._next = Batch()

    def run(self, records: list[np.ndarray], feeds: Drawn) -> torch.Tensor:
        """Decode, crop, augment and normalise: (n, 3, size, size), n <= `most`."""
        with self._lock:
            if self._owner != os.getpid():
                _orphans.append(self.pipeline)
                self.pipeline, self._owner = None, os.getpid()
            self._next.records, self._next.feeds = records, feeds
            if self.pipeline is None:
                self.pipeline = self._build()
            try:
                (out,) = self.pipeline.run(self._stream())
            except BaseException as error:
                # A pipeline that failed runs no more; one that was interrupted would give this batch next time.
                self.pipeline = None
                if isinstance(error, RuntimeError):
                    if any(text in str(error) for text in _NO_MEMORY):
                        raise torch.OutOfMemoryError(str(error)) from error
                    raise Refused(str(error)) from error
                raise
            finally:
                self._next.records, self._next.feeds = [], {}
        images = torch.from_dlpack(out.as_tensor())
        images = images.permute(0, 3, 1, 2) if self.settings.channels_last else images
        return images if images.dtype == self.settings.dtype else images.to(self.settings.dtype)

    def _stream(self) -> Any:
        """The stream that images are used on; None on the CPU."""
        gpu = self.settings.device.type == "cuda"
        return torch.cuda.current_stream(self.settings.device) if gpu else None

    def _build(self) -> Pipeline:
        from nvidia.dali.pipeline import pipeline_def

        gpu = self.settings.device.type == "cuda"
        # RandAugment splits a batch among its operations: DALI translates `graph` to do so, which takes 0.4 seconds.
        splits = self.settings.train and self.settings.augment.randaugment is not None
        made: Pipeline = pipeline_def(graph, enable_conditionals=splits)(
            self.settings,
            self._next,
            batch_size=self.settings.most,
            num_threads=self.settings.threads,
            device_id=(self.settings.device.index or 0) if gpu else None,
            prefetch_queue_depth=1,
            exec_dynamic=True,
        )
        made.build()
        return made


def graph(how: Settings, batch: Batch) -> Any:
    """The operators from what `batch` holds to images; on a GPU from the decoder on."""
    from nvidia.dali import fn, types
    from nvidia.dali.tensors import TensorCPU

    augment, gpu = how.augment, how.device.type == "cuda"
    files = fn.external_source(
        lambda: [TensorCPU(record) for record in batch.records],  # cheaper than arrays
        batch=True,
        no_copy=True,
        dtype=types.UINT8,
        ndim=1,
    )
    names = list(batch.feeds)
    kinds = {np.dtype(np.float32): types.FLOAT, np.dtype(np.int32): types.INT32}
    fed = fn.external_source(
        lambda: tuple(batch.feeds[name] for name in names),
        num_outputs=len(names),
        batch=True,
        no_copy=True,
        dtype=[kinds[batch.feeds[name].dtype] for name in names],
        ndim=[batch.feeds[name].ndim - 1 for name in names],
    )
    given = {name: fed[place] for place, name in enumerate(names)}
    decode = {"device": "mixed" if gpu else "cpu", "output_type": types.RGB, "adjust_orientation": False}
    if gpu:
        # The chip's own decoder gives other pixels than the CUDA one, and which of the two decodes an image depends on
        # the rest of the batch. Threads tied to cores would be tied to the same ones in all workers of a machine.
        decode |= {"jpeg_fancy_upsampling": True, "hw_decoder_load": 0.0, "affine": False}  # upsampling as on the CPU
    # PIL's filters, as wide as an output pixel (or four, the cubic one) where the image becomes smaller.
    kind = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}[augment.interpolation]
    resize = {"interp_type": kind, "antialias": True}
    if how.train:
        images = fn.decoders.image_slice(files, start=given["start"], shape=given["extent"], axis_names="HW", **decode)
        images = fn.resize(images, size=given["size"] if augment.ramp else [augment.side()] * 2, **resize)
    else:
        images = fn.decoders.image(files, **decode)
        images = fn.resize(images, size=[augment.side()] * 2, roi_start=given["start"], roi_end=given["stop"], **resize)
    mean, std = (255 * values.astype(float) for values in augment.channels(3))
    if "operation" in given:
        images = _randaugmented(images, augment, given)
    if "hue" in given:
        twist = {name: given[name] for name in ("brightness", "contrast", "saturation", "hue")}
        images = fn.color_twist(images, **twist)
    if "sigma" in given:
        images = fn.gaussian_blur(images, sigma=given["sigma"], window_size=given["window"])
    if "threshold" in given:
        threshold = given["threshold"].gpu() if gpu else given["threshold"]
        bright = fn.cast(fn.cast(images, dtype=types.INT32) >= threshold, dtype=types.UINT8)
        images = images ^ bright * np.uint8(255)
    if "anchor" in given:
        images = fn.erase(
            images, anchor=given["anchor"], shape=given["shape"], axis_names="HW", fill_value=mean.tolist()
        )
    return fn.crop_mirror_normalize(
        images,
        mirror=given["mirrored"] if how.train else 0,
        dtype=types.FLOAT16 if how.dtype == torch.float16 else types.FLOAT,
        output_layout="HWC" if how.channels_last else "CHW",
        mean=mean.tolist(),
        std=std.tolist(),
    )


def _randaugmented(images: Any, augment: Augment, given: dict[str, Any]) -> Any:
    """DALI's RandAugment with operations and signs from outside."""
    from nvidia.dali.auto_aug.core import select, signed_bin
    from nvidia.dali.auto_aug.rand_augment import get_rand_augment_suite

    suite = {operation.name: operation for operation in get_rand_augment_suite(use_shape=True)}
    assert augment.randaugment is not None
    turns, magnitude = augment.randaugment
    with warnings.catch_warnings(record=True):  # that DALI's own suite calls its operators by old names
        for turn in range(turns):
            images = select(
                [suite[name] for name in RANDAUGMENT],
                given["operation"][turn],
                data=images,
                magnitude_bin=signed_bin(magnitude, given["negated"][turn]),
                num_magnitude_bins=31,
                shape=given["size"] if augment.ramp else (augment.side(), augment.side()),
            )
    return images


_engines: weakref.WeakValueDictionary[Settings, Engine] = weakref.WeakValueDictionary()


def engine(settings: Settings) -> Engine:
    """The engine of these settings that some loader holds, or a new one."""
    found = _engines.get(settings)
    if found is None:
        try:
            import nvidia.dali  # noqa: F401
        except ImportError as error:
            mend = "pip install nvidia-dali-cuda130, or store the images as a uint8 .npy array: pydt pack"
            raise DataError("encoded images need DALI, which is not installed", "Loader", mend) from error
        found = _engines[settings] = Engine(settings)
    return found


@dataclass
class Known:
    """What decoding has shown of a data set's examples, in this process."""

    broken: dict[int, str] = field(default_factory=dict)  # id -> why
    odd: set[int] = field(default_factory=set)  # what only PIL decodes


_known: weakref.WeakKeyDictionary[Dataset, Known] = weakref.WeakKeyDictionary()


def known(dataset: Dataset) -> Known:
    """What is known of this data set; every loader adds to it."""
    return _known.setdefault(dataset, Known())


def read(
    dataset: Dataset, ids: np.ndarray, runner: Engine, seed: int, epoch: int, views: int, check: bool
) -> torch.Tensor | None:
    """The examples, prepared for this epoch: (views * n, 3, size, size); None when some turned out to be broken, which
    are then in `known(dataset)`.
    """
    found = known(dataset)
    before = len(found.broken)
    try:
        files = dataset.bytes_of(ids, check)
    except DataError:
        for number in ids.tolist():
            _guarded(found, number, dataset.bytes_of, np.array([number]), check)
        if len(found.broken) > before:
            return None
        raise
    sizes = _core.image_sides(files)
    ready = list(files)
    for place, number in enumerate(ids.tolist()):
        if number in found.odd or not sizes[place, 0]:
            made = _guarded(found, number, bitmap, files[place], dataset.background)
            if made is not None:
                ready[place], sizes[place] = made
    if len(found.broken) > before:
        return None
    settings = runner.settings
    parts = [feeds(settings.augment, settings.train, seed, epoch, view, ids, sizes) for view in range(views)]
    fed = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if views > 1 else parts[0]
    try:
        return runner.run(ready * views, fed)
    except Refused as error:
        message = str(error)
    # Find it: what PIL does not read either is broken; else each is tried alone.
    for place, number in enumerate(ids.tolist()):
        if ready[place] is files[place]:
            _guarded(found, number, bitmap, files[place], dataset.background)
    if len(found.broken) > before:
        return None
    odd = len(found.odd)
    for place, number in enumerate(ids.tolist()):
        try:
            runner.run([ready[place]], {name: values[place : place + 1] for name, values in fed.items()})
        except Refused:
            if ready[place] is files[place]:
                found.odd.add(number)
    if len(found.odd) == odd:
        raise DataError(f"DALI failed: {message}", "a batch of images", "see the message above")
    return read(dataset, ids, runner, seed, epoch, views, check)


def _guarded(found: Known, number: int, call: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call; where it fails None, and the example is noted as broken."""
    try:
        return call(*arguments)
    except MemoryError:
        raise
    except DataError as error:
        found.broken[number] = error.what
    except Exception as error:  # damaged files make decoders raise anything
        found.broken[number] = undecodable(error)
    return None


def bitmap(record: np.ndarray, background: str) -> tuple[np.ndarray, tuple[int, int]]:
    """An image as `pydt.data.pixels.rgb` reads it, as the bytes of a binary PPM; and its height and width."""
    pixels = rgb(record.data, background)
    header = f"P6 {pixels.width} {pixels.height} 255\n".encode()
    return np.frombuffer(header + pixels.tobytes(), np.uint8), (pixels.height, pixels.width)


def feeds(augment: Augment, train: bool, seed: int, epoch: int, view: int, ids: np.ndarray, sizes: np.ndarray) -> Drawn:
    """What a pipeline gets beside the bytes, for images of these sizes: int32 (n, 2), height and width."""
    if not train:
        return central(sizes, augment.side(), augment.short, augment.squash)
    scale, ratio = augment.resized_crop or ENCODED_CROP
    start, extent, mirrored = _core.crop_windows(sizes, ids, scale, ratio, augment.flip, seed, epoch, view)
    side = augment.side(epoch)
    found = {"start": start, "extent": extent, "mirrored": mirrored}
    if augment.ramp:
        found["size"] = np.full((len(ids), 2), side, np.float32)
    return found | drawn(augment, side, side, seed, epoch, view, ids)


def central(sizes: np.ndarray, side: int, short: int, squash: bool) -> Drawn:
    """The part of each image that torchvision's Resize(short) (if squashed, Resize((short, short))) and
    CenterCrop(side) show, in its own pixels: "start" and "stop", float32 (n, 2) (y, x), rounded as torchvision rounds.
    """
    own = sizes.astype(np.float64)
    resized = np.full_like(own, short) if squash else np.floor(short * own / own.min(axis=1, keepdims=True))
    start = np.rint((resized - side) / 2)
    scale = own / resized
    return {"start": (start * scale).astype(np.float32), "stop": ((start + side) * scale).astype(np.float32)}
