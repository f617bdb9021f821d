"""The embedded sample: printed characters as the source, real handwritten digits as the target, without a download.

The characters are rendered from fonts that matplotlib ships; the digits are scikit-learn's 1,797 scans (UCI optical
recognition of handwritten digits).
"""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pydt.base import DataError, PydtError, digest, one_of, whole
from pydt.data.dataset import Dataset
from pydt.data.target import Target

SIZE = 28
SCRIPTS: dict[str, str] = {
    "alphanumerics": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    "greek": "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩαβγδεζηθικλμνξοπρστυφχψω",
    "cyrillic": "БГДЖЗИЙЛПУФЦЧШЩЪЫЬЭЮЯбвгджзийклмнптфцчшщъыьэюя",
    "signs": "!#$%&()*+/<=>?@[]{}~£€¥§¶±×÷≠≤≥√∞∫∂∑",
}
_FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-BoldOblique", "DejaVuSans-Oblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique", "DejaVuSansMono-Oblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic", "DejaVuSerif-Italic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta", "STIXGeneralItalic", "DejaVuSerifDisplay"),
)
_VERSION = 1


def source(script: str = "alphanumerics", each: int = 96, seed: int = 0) -> Dataset:
    """Printed characters: one class per character, with its Unicode name as the caption of each image.

    Every image is one character in one of 17 faces, rotated by up to 15 degrees, scaled by 0.8 to 1.15, sheared by up
    to 0.2 and shifted by up to 2 pixels.

    Args:
        script: "alphanumerics" (62 characters), "greek", "cyrillic" or "signs".
        each: images per character.
        seed: of the random deformations.

    Returns:
        a Dataset of uint8 images (characters x each, 28, 28, 1), white on black; kept in the user's cache folder.

    Raises:
        DataError: no such script, or each or seed is no whole number.
    """
    one_of(script, list(SCRIPTS), "script", "glyphs.source", DataError)
    each = whole(each, "each", "glyphs.source", 1)
    seed = whole(seed, "seed", "glyphs.source", 0, 2**64 - 1)
    import matplotlib

    key = digest("glyphs", _VERSION, matplotlib.__version__, SCRIPTS[script], each, seed, list(_FACES))
    place = _cache_folder() / f"glyphs-{key}"
    try:
        return Dataset.open(place)
    except DataError:
        # Absent or damaged: rendered again below.
        dataset = _render(script, each, seed)
    try:
        return dataset.save(place)
    except PydtError:
        # A cache that cannot be written costs time at the next start, nothing else.
        return dataset


def digits(metric: str = "top-1") -> Target:
    """Handwritten digits: 1,797 real 8 x 8 scans of ten classes, enlarged to 20 x 20 inside 28 x 28.

    Returns:
        a Target with 400 examples in the few-shot pool, 200 for validation, 598 in the score and 599 in the report
        half.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    scans = load_digits()
    images = np.zeros((len(scans.images), SIZE, SIZE), np.uint8)
    for image, scan in zip(images, scans.images, strict=True):
        small = Image.fromarray(np.clip(scan * (255 / 16), 0, 255).astype(np.uint8))
        image[4:24, 4:24] = np.asarray(small.resize((20, 20), Image.Resampling.BICUBIC))
    dataset = Dataset.from_arrays(images, scans.target, [str(d) for d in range(10)], name="handwritten digits")
    return Target(dataset, metric=metric, pool=400, validation=200)


def _render(script: str, each: int, seed: int) -> Dataset:
    characters = SCRIPTS[script]
    outlines = [_outlines(character) for character in characters]
    images = np.empty((len(characters) * each, SIZE, SIZE), np.uint8)
    for code, character in enumerate(characters):
        # Keyed by the character itself, so that its images do not depend on which others are drawn.
        random = np.random.Generator(np.random.Philox(key=[seed, ord(character)]))
        for i in range(each):
            face = outlines[code][int(random.integers(len(outlines[code])))]
            images[code * each + i] = _draw(face, random)
    labels = np.repeat(np.arange(len(characters)), each)
    captions = [unicodedata.name(characters[label]).lower() for label in labels]
    return Dataset.from_arrays(images, labels, list(characters), captions=captions, name=f"printed {script}")


def _outlines(character: str) -> list[Any]:
    """The character's outline in each face that has it, centred, scaled so that the taller side is 1."""
    from matplotlib import get_data_path
    from matplotlib.font_manager import FontProperties, get_font
    from matplotlib.textpath import TextPath

    found = []
    for face in _FACES:
        file = os.path.join(get_data_path(), "fonts", "ttf", f"{face}.ttf")
        if ord(character) not in get_font(file).get_charmap():
            continue
        path = TextPath((0, 0), character, size=100, prop=FontProperties(fname=file))
        box = path.get_extents()
        # Scaled by the height of a capital, not by the character's own: an x stays smaller than an X.
        found.append((path, (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, max(box.width, box.height, 60.0)))
    if not found:
        raise DataError(f"no face has the character {character!r}", "glyphs.source", "install a complete matplotlib")
    return found


def _draw(outline: Sequence[Any], random: np.random.Generator) -> np.ndarray:
    """One deformed character as uint8 (28, 28): filled with anti-aliasing by matplotlib."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.transforms import Affine2D

    path, x, y, extent = outline
    scale = 20.0 / extent * random.uniform(0.8, 1.15)
    transform = (
        Affine2D()
        .translate(-x, -y)
        .scale(scale)
        .skew(random.uniform(-0.2, 0.2), 0)
        .rotate(math.radians(random.uniform(-15, 15)))
        .translate(SIZE / 2 + random.uniform(-2, 2), SIZE / 2 + random.uniform(-2, 2))
    )
    renderer = RendererAgg(SIZE, SIZE, 72)
    context = renderer.new_gc()
    context.set_linewidth(0)
    renderer.draw_path(context, path, transform, (1.0, 1.0, 1.0, 1.0))
    return np.asarray(renderer.buffer_rgba())[..., 3].copy()


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pydt"
