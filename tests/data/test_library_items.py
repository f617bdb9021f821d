"""Images as items of another library's data set: what comes back, and what is no image of eight bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stub_items import Pairs
from torch.utils.data import TensorDataset
from torchvision import datasets as vision
from torchvision.transforms import PILToTensor, ToTensor

from pydt.base import DataError
from pydt.data import Dataset
from pydt.data.formats.library_items import pixels


def test_tensors_of_eight_bits_are_images() -> None:
    # Random images of torchvision, made of 8 bits each time.
    plain, floats, bytes_ = (
        Dataset.from_torchvision(vision.FakeData(5, (3, 7, 6), 2, transform))
        for transform in (None, ToTensor(), PILToTensor())
    )
    assert plain.images is not None
    assert plain.images.shape == (5, 7, 6, 3)
    assert plain.digest == floats.digest == bytes_.digest


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_every_value_of_a_float_image_comes_back(dtype: torch.dtype) -> None:
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    assert pixels(values.float().div(255).to(dtype), "x", "white")[0].ravel().tolist() == list(range(256))


@pytest.mark.parametrize(
    ("image", "shape"),
    [
        (torch.zeros(3, 5, 4, dtype=torch.uint8), (5, 4, 3)),
        (torch.zeros(6, 5, 3, dtype=torch.uint8), (6, 5, 3)),
        (torch.zeros(1, 4, 4, dtype=torch.uint8), (4, 4, 1)),
        (torch.zeros(5, 6, dtype=torch.uint8), (5, 6)),
        (np.zeros((5, 6, 3), np.uint8), (5, 6, 3)),
        (np.zeros((3, 5, 6), np.uint8), (5, 6, 3)),
        (np.zeros((3, 4, 3), np.uint8), (3, 4, 3)),
    ],
)
def test_where_the_channels_are(image: Any, shape: tuple[int, ...]) -> None:
    assert pixels(image, "x", "white")[0].shape == shape


def test_tensors_that_are_no_images_of_eight_bits_are_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    for image, what in [
        (torch.rand(3, 5, 6, generator=generator), r"dtype float32 from 0\.\d+ to 0\.\d+, not of 8 bits"),
        (torch.randn(3, 5, 6, generator=generator), "dtype float32 from -"),
        (torch.full((3, 5, 6), 100.01 / 255), "dtype float32"),
        (torch.full((3, 5, 6), 255.0), "dtype float32 from 255 to 255"),
        (torch.full((3, 5, 6), float("nan")), "dtype float32"),
        (torch.zeros(3, 5, 6, dtype=torch.int64), "dtype int64"),
        (torch.zeros(3, 5, 6, dtype=torch.bool), "dtype bool"),
        (torch.zeros(7, 5, 6, dtype=torch.uint8), r"shape \(7, 5, 6\)"),
        (torch.zeros(2, 3, 5, 6, dtype=torch.uint8), r"a Tensor of shape \(2, 3, 5, 6\) is no image"),
        ("cat.jpg", "a str is no image"),
        ({"bytes": b""}, "a dict is no image"),
    ]:
        with pytest.raises(DataError, match=rf"x: (image of )?{what}") as caught:
            pixels(image, "x", "white")[0]
        assert caught.value.mend


def test_a_data_set_of_tensors() -> None:
    images = torch.arange(4 * 3 * 5 * 6).reshape(4, 3, 5, 6).to(torch.uint8)
    for given in (images, images / 255):
        data = Dataset.from_torchvision(TensorDataset(given, torch.tensor([1, 0, 1, 0])))
        assert data.images is not None
        assert np.array_equal(data.images, images.permute(0, 2, 3, 1))
        assert data.labels.tolist() == [1, 0, 1, 0]
    with pytest.raises(DataError, match=r"TensorDataset\[0\]: item is not an \(image, label\) pair but a tuple of 1"):
        Dataset.from_torchvision(TensorDataset(images))


@pytest.mark.parametrize(
    "error", [KeyError("no such\nrow"), OSError(5, "broken disk"), ZeroDivisionError("x"), TypeError("y")]
)
def test_an_error_of_an_item_keeps_type_text_and_position(error: Exception) -> None:
    class Broken(Pairs):
        def __getitem__(self, i: int) -> tuple[Any, Any]:
            if i == 2:
                raise error
            return super().__getitem__(i)

    text = " ".join(str(error).split())
    with pytest.raises(DataError) as caught:
        Dataset.from_torchvision(Broken([0, 1, 0, 1]))
    assert caught.value.where == "Broken[2]"
    assert f"raised {type(error).__name__}: {text}" in caught.value.what
    assert caught.value.__cause__ is error
    with pytest.raises(DataError, match=r"item is not an \(image, label\) pair but a dict of 2"):
        Dataset.from_torchvision([{"image": 1, "label": 2}])
    with pytest.raises(DataError, match="a FakeData is the class and no data set"):
        Dataset.from_torchvision(vision.FakeData)
