"""Pictures in pages: PNG read back by another reader, shrunk by means."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from stub_results import Page, results

from pydt.reporting import render
from pydt.reporting.pictures import data_uri, png, shrink


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4)])
def test_png_is_read_back_by_another_reader(shape: tuple[int, ...]) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    read = np.asarray(image.open(io.BytesIO(png(pixels))))
    np.testing.assert_array_equal(read, pixels[..., 0] if shape[-1:] == (1,) else pixels)


def test_example_images_are_the_first_three_shrunken() -> None:
    image = pytest.importorskip("PIL.Image")
    ramp = np.arange(4 * 192 * 192, dtype=np.int64).reshape(4, 192, 192) % 251
    text = render(results(["a", "b"]), {"a": ramp.astype(np.uint8)})
    found = [base64.b64decode(e["attrs"]["src"].split(",")[1]) for e in Page(text).find("img")]
    assert len(found) == 3
    for i, data in enumerate(found):
        mean = ramp[i].reshape(96, 2, 96, 2).mean(axis=(1, 3))
        assert np.abs(np.asarray(image.open(io.BytesIO(data))) - mean).max() <= 0.5
    assert shrink(np.zeros((1, 1000), np.uint8), 32).shape == (1, 31)


@pytest.mark.parametrize(("channels", "kind"), [((), "jpeg"), ((1,), "jpeg"), ((3,), "jpeg"), ((4,), "png")])
def test_large_photographs_are_jpeg_unless_they_have_alpha(channels: tuple[int, ...], kind: str) -> None:
    pixels = np.random.default_rng(0).normal(128, 9, (96, 96, *channels)).astype(np.uint8)
    assert data_uri(pixels, 96).startswith(f"data:image/{kind};base64,")
    assert data_uri(np.zeros((96, 96, *channels), np.uint8), 96).startswith("data:image/png;base64,")
