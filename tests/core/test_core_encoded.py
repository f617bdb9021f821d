"""Sizes and crops of encoded images, which are not decoded."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import oracle_augment as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_images import encoded, photograph, varied
from PIL import Image

from pydt import _core


def sides(data: bytes) -> tuple[int, int]:
    return tuple(_core.image_sides([np.frombuffer(data, np.uint8)])[0].tolist())


def test_sizes_are_those_of_pil_or_nothing() -> None:
    for name, data in varied(60):
        with Image.open(io.BytesIO(data)) as image:
            alike = (image.format == "JPEG" and image.mode != "CMYK") or (
                image.format == "PNG" and image.mode in ("1", "L", "P", "RGB") and "transparency" not in image.info
            )
            assert sides(data) == ((image.height, image.width) if alike else (0, 0)), name


def test_what_has_no_end_or_no_sense_has_no_size() -> None:
    image = photograph(50, 40, np.random.default_rng(0))
    jpeg, png = encoded(image), encoded(image, "PNG")
    assert sides(jpeg) == sides(png) == (40, 50)
    assert sides(jpeg + b"more") == (40, 50)
    for data in (b"", b"\xff", b"text", jpeg[:-2], jpeg[: len(jpeg) // 2], png[: len(png) // 2], png[:20], bytes(99)):
        assert sides(data) == (0, 0)
    # a thumbnail's end is not the image's
    thumbnail = b"\xff\xe1" + (len(jpeg) + 2).to_bytes(2, "big") + jpeg
    assert sides(jpeg[:2] + thumbnail + jpeg[2:]) == (40, 50)
    assert sides(jpeg[:2] + thumbnail + jpeg[2:-2]) == (0, 0)
    frame = jpeg.index(b"\xff\xc0")
    huge = jpeg[: frame + 5] + b"\x4e\x20\x4e\x20" + jpeg[frame + 9 :]  # 20,000 x 20,000
    assert sides(huge) == (0, 0)
    assert sides(jpeg[: frame + 5] + b"\x27\x10\x27\x10" + jpeg[frame + 9 :]) == (10000, 10000)
    assert sides(jpeg[: frame + 5] + b"\x00\x00" + jpeg[frame + 7 :]) == (0, 0)  # the height follows the image


CHUNKS = [b"tEXt", b"gAMA", b"PLTE", b"tRNS", b"acTL"]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(st.sampled_from([b"tEXt", b"gAMA", b"PLTE", b"tRNS", b"acTL"]), st.binary(max_size=30)), max_size=5
    ),
    st.sampled_from([0, 2, 3, 4, 6]),
    st.integers(0, 3),
)
def test_a_png_that_may_be_transparent_or_moves_has_none(chunks: list, colour: int, behind: int) -> None:
    """Chunks before the pixels decide; those after the pixels do not."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 8, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", b"")
    parts = [chunk(kind, data) for kind, data in chunks]
    place = max(len(parts) - behind, 0)
    data = b"\x89PNG\r\n\x1a\n" + head + b"".join([*parts[:place], pixels, *parts[place:], chunk(b"IEND", b"")])
    odd = colour in (4, 6) or any(kind in (b"tRNS", b"acTL") for kind, _ in chunks[:place])
    assert sides(data) == ((0, 0) if odd else (5, 7))
    for end in range(len(data)):
        assert sides(data[:end]) in ((0, 0), (5, 7))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_bytes_have_a_size_or_none(data: st.DataObject) -> None:
    image = photograph(33, 21, np.random.default_rng(1))
    base = bytearray(
        data.draw(st.sampled_from([encoded(image), encoded(image, "PNG"), encoded(image, progressive=True)]))
    )
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=5)):
        base[place % len(base)] = value
    height, width = sides(bytes(base[: data.draw(st.integers(0, len(base)))]))
    assert (height == width == 0) or (height > 0 and width > 0 and height * width <= 178_956_970)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900), st.integers(0, 2**63 - 1)), min_size=1, max_size=12),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**40),
    st.integers(0, 1),
    st.booleans(),
)
def test_crops_equal_the_oracle(
    images: list[tuple[int, int, int]], seed: int, epoch: int, view: int, flip: bool
) -> None:
    scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
    sizes = np.array([image[:2] for image in images], np.int32)
    ids = np.array([image[2] for image in images], np.int64)
    start, extent, mirrored = _core.crop_windows(sizes, ids, scale, ratio, flip, seed, epoch, view)
    for i, (height, width, number) in enumerate(images):
        expected = oracle.resized_window(seed, epoch, number, view, height, width, scale, ratio)
        assert (*start[i].tolist(), *extent[i].tolist()) == expected
        assert mirrored[i] == (flip and oracle.place(seed, epoch, number, 0, view)[2])


def test_arguments_are_checked() -> None:
    sizes, ids = np.ones((2, 2), np.int32), np.zeros(2, np.int64)
    good = {"scale": (0.1, 1.0), "ratio": (1.0, 1.0), "flip": True, "seed": 0, "epoch": 0}
    for bad, match in [
        ({"sizes": np.zeros((2, 2), np.int32)}, "sizes"),
        ({"sizes": np.ones((2, 3), np.int32)}, "sizes"),
        ({"ids": np.zeros(3, np.int64)}, "ids"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"ratio": (2.0, 1.0)}, "ratio"),
        ({"epoch": 2**56}, "epoch"),
        ({"view": 2}, "view"),
    ]:
        with pytest.raises(ValueError, match=match):
            _core.crop_windows(**({"sizes": sizes, "ids": ids} | good | bad))
    with pytest.raises(TypeError, match="records"):
        _core.image_sides([b"bytes"])
    with pytest.raises(TypeError, match="records"):
        _core.image_sides([np.zeros(3, np.int8)])
    assert _core.image_sides([]).shape == (0, 2)
