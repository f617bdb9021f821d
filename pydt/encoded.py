"""Batches of encoded images through DALI, fed by us.

Why DALI does not read by itself: its readers take no list of examples and shuffle within a window only. We hand it the
bytes of the examples of a batch and, in training, their crop windows, so both are functions of (seed, epoch, id).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pydt import _core
from pydt.augment import ENCODED_CROP, ENCODED_SIZE, Augment
from pydt.errors import DataError

if TYPE_CHECKING:
    from nvidia.dali.pipeline import Pipeline

# Lowest bytes of the streams of random numbers of either view: area, place, aspect (csrc/windows.hpp has the list).
_STREAMS = ((3, 4, 5), (42, 43, 44))


def _uniform(bits: np.ndarray, shift: int, width: int) -> np.ndarray:
    """`width` of the random bits, from `shift` on, as float64 in [0, 1)."""
    return ((bits >> np.uint64(shift)) & np.uint64((1 << width) - 1)).astype(np.float64) / (1 << width)


def windows(augment: Augment, seed: int, epoch: int, view: int, ids: np.ndarray) -> np.ndarray:
    """Random resized crops, keyed by example id: area share, aspect, x place, y place, mirrored: float32 (n, 5)."""
    area, place, aspect = (_core.random_bits(seed, epoch << 8 | stream, ids) for stream in _STREAMS[view])
    (least, most), ratio = augment.resized_crop or ENCODED_CROP
    narrow, wide = np.log(ratio)
    columns = [
        least + (most - least) * _uniform(area, 0, 53),
        np.exp((narrow + wide) / 2 + (wide - narrow) / 2 * (2 * _uniform(aspect, 0, 53) - 1)),
        _uniform(place, 0, 31),
        _uniform(place, 31, 31),
        (place >> np.uint64(63)).astype(np.float64) * augment.flip,
    ]
    return np.stack(columns, axis=1).astype(np.float32)


class Encoded:
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
        self._crops: list[np.ndarray] = []
        self._pipeline = self._build()

    def _build(self) -> Pipeline:
        from nvidia.dali import fn, math, pipeline_def, types

        gpu = self.device.type == "cuda"
        decoder = "mixed" if gpu else "cpu"
        size = self.augment.size or ENCODED_SIZE
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
                window = fn.external_source(lambda: self._crops, batch=True, dtype=types.FLOAT, ndim=1)
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

    def read(self, paths: list[str], crops: np.ndarray) -> torch.Tensor:
        """Decode, crop and normalise one batch: float32 (B, 3, size, size)."""
        self._files = [_read_file(path) for path in paths]
        self._crops = list(crops)
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
