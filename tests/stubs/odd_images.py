"""Image files of every sort that a photo collection holds."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image


def photograph(width: int, height: int, random: np.random.Generator) -> Image.Image:
    """Something with edges, gradients and texture."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    waves = [np.sin(x * a + y * b + c) for a, b, c in random.uniform(-0.2, 0.2, (6, 3)) * (1, 1, 30)]
    pixels = np.stack([waves[i] + 0.5 * waves[i + 3] for i in range(3)], axis=2) * 50 + random.uniform(60, 190, 3)
    for _ in range(4):
        top, left = random.integers(0, height), random.integers(0, width)
        pixels[top : top + height // 3, left : left + width // 3] = random.uniform(0, 255, 3)
    return Image.fromarray(np.clip(pixels + random.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, form: str = "JPEG", **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **how)
    return file.getvalue()


def varied(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(file name, bytes): sizes from 1 to 400 pixels, and twenty sorts in turn."""
    random = np.random.default_rng(seed)
    for number in range(count):
        width, height = (int(v) for v in np.exp(random.uniform(np.log(20), np.log(400), 2)))
        if number % 37 == 5:
            width, height = [(1, 1), (1, 60), (300, 1), (2, 3)][number // 37 % 4]
        image = photograph(width, height, random)
        orientation = Image.Exif()
        orientation[0x112] = int(random.integers(2, 9))
        transparent = image.copy()
        transparent.putalpha(Image.fromarray(random.integers(0, 256, (height, width), np.uint8)))
        adaptive = image.quantize(200)
        deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 3)
        sorts = [
            ("jpg", image, "JPEG", {"quality": 90}),
            ("jpg", image, "JPEG", {"quality": 95, "subsampling": 0}),
            ("jpg", image, "JPEG", {"quality": 85, "progressive": True}),
            ("jpg", image, "JPEG", {"quality": 50, "subsampling": 1}),
            ("jpg", image.convert("L"), "JPEG", {}),
            ("jpg", image.convert("CMYK"), "JPEG", {}),
            ("jpg", image, "JPEG", {"exif": orientation.tobytes(), "quality": 92}),
            ("jpg", image, "JPEG", {"keep_rgb": True}),
            ("png", image, "PNG", {}),
            ("png", image.convert("L"), "PNG", {}),
            ("png", image.convert("1"), "PNG", {}),
            ("png", image.convert("LA"), "PNG", {}),
            ("png", transparent, "PNG", {}),
            ("png", adaptive, "PNG", {}),
            ("png", adaptive, "PNG", {"transparency": 3}),
            ("png", deep, "PNG", {}),
            ("webp", transparent, "WEBP", {}),
            ("bmp", image, "BMP", {}),
            ("tif", image.convert("1"), "TIFF", {}),
            ("ppm", image, "PPM", {}),
        ]
        ending, made, form, how = sorts[number % len(sorts)]
        yield f"{number:04d}.{ending}", encoded(made, form, **how)
