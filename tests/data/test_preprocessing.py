"""Evaluation as public networks want it: images resized as PIL does, grey ones repeated to RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pydt.base import ConfigError
from pydt.data import Dataset
from pydt.data.loading import Augment, Loader

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIL = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def smooth(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Noise with large and small features and hard edges, where a cubic filter overshoots."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 4 + 1, width // 4 + 1, channels), np.uint8).repeat(4, 0).repeat(4, 1)
    return np.clip(coarse[:height, :width] + random.normal(0, 12, (height, width, channels)), 0, 255).astype(np.uint8)


def expected(pixels: np.ndarray, short: int, side: int, interpolation: str, squash: bool = False) -> np.ndarray:
    """PIL's pixels 0..255, (3, side, side), by the definition of torchvision's Resize and CenterCrop."""
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels.squeeze()).convert("RGB")
    size = int(short * width / min(height, width)), int(short * height / min(height, width))
    size = (short, short) if squash else size
    image = image.resize(size, PIL[interpolation])
    left, top = (round((length - side) / 2) for length in size)
    return np.asarray(image.crop((left, top, left + side, top + side)), float).transpose(2, 0, 1)


def seen(batch: torch.Tensor) -> np.ndarray:
    """The pixels 0..255 that a batch shows."""
    return ((batch * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255).double().numpy()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("height", "width", "squash"), [(28, 28, False), (61, 90, False), (97, 80, False), (61, 90, True)]
)
def test_raw_images_are_resized_as_pil_does(
    interpolation: str, channels: int, height: int, width: int, squash: bool
) -> None:
    images = np.stack([smooth(height, width, channels, seed) for seed in range(5)])
    how = Augment(size=64, resize=73, interpolation=interpolation, mean=MEAN, std=STD, rgb=True, squash=squash)
    for train in (False, True):
        batch = next(iter(Loader(Dataset.from_arrays(images, np.arange(5)), None, 5, train, how, channels_last=True)))
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        for number, found in zip(batch.index.tolist(), seen(batch.images), strict=True):
            off = np.abs(found - expected(images[number], 73, 64, interpolation, squash))
            assert off.max() < 1.5
            assert off.mean() < 0.3


def test_images_of_the_right_size_keep_their_pixels() -> None:
    images = np.stack([smooth(32, 32, 1, seed) for seed in range(3)])
    how = Augment(size=32, resize=32, interpolation="bicubic", mean=MEAN, std=STD, rgb=True)
    batch = next(iter(Loader(Dataset.from_arrays(images, np.arange(3)), None, 3, False, how)))
    assert np.abs(seen(batch.images) - images.transpose(0, 3, 1, 2)).max() < 1e-3
    larger = Augment(size=32, resize=40, mean=MEAN, std=STD, rgb=True)
    batch = next(iter(Loader(Dataset.from_arrays(images, np.arange(3)), None, 3, False, larger)))
    for found, image in zip(seen(batch.images), images, strict=True):
        assert np.abs(found - expected(image, 40, 32, "bilinear")).max() < 1.5, "resized and cropped all the same"


def test_training_crops_at_random_where_asked() -> None:
    images = np.stack([smooth(60, 60, 1, seed) for seed in range(4)])
    data = Dataset.from_arrays(images, np.arange(4))
    how = {"size": 32, "resize": 36, "mean": MEAN, "std": STD, "rgb": True}
    crop = ((0.2, 0.5), (1.0, 1.0))
    plain = Augment(size=32, resized_crop=crop, mean=(0.0,), std=(1.0,))
    batch = next(iter(Loader(data, None, 4, True, Augment(**how, resized_crop=crop), seed=3)))
    grey = next(iter(Loader(data, None, 4, True, plain, seed=3)))
    assert np.abs(seen(batch.images) - 255 * grey.images.double().numpy()).max() < 1e-3, "the same windows, as RGB"
    still = next(iter(Loader(data, None, 4, False, Augment(**how, resized_crop=crop))))
    assert np.abs(seen(still.images)[0] - expected(images[0], 36, 32, "bilinear")).max() < 1.5
    padded = next(iter(Loader(data, None, 4, True, Augment(**how, crop_pad=20), seed=3)))
    assert padded.images.shape == (4, 3, 32, 32)
    assert (seen(padded.images).reshape(4, -1).min(1) < 1).any(), "black borders were moved in"


def test_a_share_of_nothing_has_the_right_shape() -> None:
    data = Dataset.from_arrays(np.zeros((3, 8, 8, 1), np.uint8), np.arange(3))
    how = Augment(size=16, resize=16, mean=MEAN, std=STD, rgb=True)
    assert Loader(data, None, 3, False, how).read(np.array([], np.int64)).images.shape == (0, 3, 16, 16)


@pytest.mark.parametrize(("interpolation", "squash"), [("bilinear", False), ("bicubic", False), ("bicubic", True)])
def test_files_are_resized_as_pil_does(tmp_path: Path, interpolation: str, squash: bool) -> None:
    """DALI does not clip between its two passes as PIL does: at hard edges of black and white, the cubic filter, which
    overshoots there, differs by up to 10 of 255. These images have no black and no white.
    """
    pytest.importorskip("nvidia.dali")
    kept = []
    (tmp_path / "a").mkdir()
    for number, (height, width) in enumerate([(64, 64), (150, 90), (80, 200), (40, 41)]):
        kept.append(smooth(height, width, 3, number) // 2 + 64)
        Image.fromarray(kept[-1]).save(tmp_path / "a" / f"{number}.png")
    how = Augment(size=64, resize=72, interpolation=interpolation, mean=MEAN, std=STD, squash=squash)
    batch = next(iter(Loader(Dataset.from_folder(tmp_path), None, 4, False, how)))
    for found, image in zip(seen(batch.images), kept, strict=True):
        off = np.abs(found - expected(image, 72, 64, interpolation, squash))
        assert off.max() < 3.5
        assert np.mean(off > 1.5) < 0.01, "elsewhere within 1"
        assert off.mean() < 0.3


def test_settings() -> None:
    assert Augment().described() == Augment(resize=None, interpolation="bilinear", rgb=False).described()
    assert not {"resize", "interpolation", "rgb"} & set(Augment().described())
    assert Augment(resize=256).described()["resize"] == 256
    for wrong in (
        {"resize": 200},
        {"size": 64, "resize": 63},
        {"interpolation": "nearest"},
        {"rgb": 1},
        {"squash": True},
    ):
        with pytest.raises(ConfigError):
            Augment(**wrong)  # type: ignore[arg-type]
