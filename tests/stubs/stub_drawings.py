"""Folders as people have them: drawings on transparent ground, of unequal sizes, in few images a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("disc", "ring", "square", "stripes", "cross", "corner")


def drawings(
    folder: Path, classes: Sequence[str] = SHAPES, each: int = 20, seed: int = 0, grey: bool = True, side: int = 72
) -> Path:
    """PNGs of 40 to 72 pixels (by default), transparent but for a coloured shape, one sub-folder a class; with `grey`
    the first of each class is a grey JPEG.
    """
    random = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(each):
            width, height = (int(n) for n in random.integers(side * 5 // 9, side + 1, 2))
            image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
            colour = (*(int(n) for n in random.integers(0, 160, 3)), 255)
            half = int(min(width, height) * random.uniform(0.28, 0.42))
            x, y = (int(random.integers(half, n - half + 1)) for n in (width, height))
            _shape(ImageDraw.Draw(image), name, x, y, half, colour)
            if grey and i == 0:
                ground = Image.new("RGBA", image.size, "white")
                Image.alpha_composite(ground, image).convert("L").save(folder / name / f"{i}.jpg", quality=90)
            else:
                image.save(folder / name / f"{i}.png")
    return folder


def _shape(draw: ImageDraw.ImageDraw, name: str, x: int, y: int, half: int, colour: tuple[int, ...]) -> None:
    box, thin = (x - half, y - half, x + half, y + half), max(2, half // 3)
    if name == "disc":
        draw.ellipse(box, colour)
    elif name == "ring":
        draw.ellipse(box, None, colour, thin)
    elif name == "square":
        draw.rectangle(box, colour)
    elif name == "stripes":
        for top in range(y - half, y + half, 2 * thin):
            draw.rectangle((x - half, top, x + half, top + thin), colour)
    elif name == "cross":
        draw.rectangle((x - thin // 2, y - half, x + thin // 2, y + half), colour)
        draw.rectangle((x - half, y - thin // 2, x + half, y + thin // 2), colour)
    else:
        draw.rectangle((x - half, y - half, x - half + thin, y + half), colour)
        draw.rectangle((x - half, y + half - thin, x + half, y + half), colour)
