"""Folders of images as newcomers have them: letters of several fonts, transparent, of unequal sizes, a grey JPEG among
them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "DejaVuSerif-Bold", "STIXGeneral")


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that matplotlib brings."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def glyphs(folder: Path, letters: Sequence[str], each: int, seed: int, fonts: Sequence[str] = FONTS) -> Path:
    """PNGs of 24 to 36 pixels a side, transparent but for one letter in a colour; one sub-folder a letter, of which the
    first image is a grey JPEG."""
    random = np.random.default_rng(seed)
    for letter in letters:
        (folder / letter).mkdir(parents=True)
        for i in range(each):
            width, height = (int(n) for n in random.integers(24, 37, 2))
            image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
            colour = (*(int(n) for n in random.integers(0, 140, 3)), 255)
            chosen = font(fonts[i % len(fonts)], int(min(width, height) * random.uniform(0.65, 0.85)))
            at = (width / 2 + random.uniform(-2, 2), height / 2 + random.uniform(-2, 2))
            ImageDraw.Draw(image).text(at, letter, fill=colour, font=chosen, anchor="mm")
            if i == 0:
                ground = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
                ground.convert("L").save(folder / letter / f"{i}.jpg", quality=90)
            else:
                image.save(folder / letter / f"{i}.png")
    return folder
