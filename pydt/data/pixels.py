"""From the bytes of an image file to pixels, for networks, packed arrays, pages and comparisons alike.

frames   the first one; EXIF orientation is ignored unless asked for
colours  Pillow's conversion to RGB: grey becomes three equal channels, palettes and CMYK become colours
depth    grey of `bits` > 8 bits: round(255 value / (2^bits - 1)). Numbers of unknown range are refused: floats,
         integers of 32 bits, signed ones. (Pillow itself cuts at 255, which makes nearly all of them white.)
alpha    round(alpha colour + (1 - alpha) background), the "over" of Porter and Duff (1984) on the values as stored
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.base import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


BACKGROUND = "white"
"""The default of what shows through transparent pixels."""
CLEAR, DEEP, FRAMES, DIM = 1, 2, 4, 8
"""Traits of an image: transparent pixels; more than 8 bits; several frames or pages; more than 8 bits, of whose range
it uses less than a sixteenth (as 12 bits in a file of 16 do).
"""
BLANK = {"#ffffff": 16, "#000000": 32, "#808080": 64}
"""Background -> trait: with its transparent pixels on this background, the image is of one colour, as a white drawing
on white. Indexes keep all three; an image that has all three is taken to be of one colour on any background.
"""
TRAITS = {
    CLEAR: "images with transparent pixels, shown on {background}",
    DEEP: "images of more than 8 bits a pixel, scaled to 8",
    DIM: "images of more than 8 bits that use less than a sixteenth of their range, and so are nearly of one shade",
    FRAMES: "images of several frames or pages, of which the first is taken",
}
MOST_PIXELS = 1 << 27
"""A resized image may have so many pixels before it is cropped; 300 times as long as high at 512."""
_COLOURS = {"white": "#ffffff", "black": "#000000", "grey": "#808080", "gray": "#808080"}


class Unscaled(ValueError):
    """Pixels whose range is unknown."""

    MEND = "scale them to 0..255 and save them as PNG"


def colour(given: Any) -> str:
    """A background as "#rrggbb"."""
    found = _COLOURS.get(given, given) if isinstance(given, str) else ""
    if re.fullmatch("#[0-9a-fA-F]{6}", found) is None:
        raise DataError(f"background={given!r}", "data set", 'choose "white", "black", "grey" or a colour "#rrggbb"')
    return found.lower()


def called(background: str) -> str:
    """The name of a background "#rrggbb", or itself where it has none."""
    return next((name for name, known in _COLOURS.items() if known == background), background)


def rgb(data: bytes | memoryview, background: str, exif: bool = False, least: int | None = None) -> Image:
    """One encoded image, mode "RGB", on a `colour`, turned by its EXIF orientation if asked. With `least`, a JPEG may
    come at a half, a quarter or an eighth of its size with sides of so many pixels or more. Raises what Pillow raises,
    and `Unscaled`.
    """
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        if least is not None:
            image.draft(None, (least, least))
        return flat(image, background, exif).convert("RGB")


def decode(
    data: bytes | memoryview, size: int, exif: bool, background: str = BACKGROUND, quick: bool = False
) -> npt.NDArray[np.uint8]:
    """One encoded image as uint8 (size, size, 3): the shorter side resized to `size`, the centre cut out. With `quick`,
    for the eye alone, a large JPEG is decoded at a smaller scale first. Raises what Pillow raises.
    """
    return np.asarray(square(rgb(data, background, exif, 2 * size if quick else None), size))


def square(image: Image, size: int) -> Image:
    """An image with its shorter side resized to `size` (bilinear, antialiased), and the centre cut out."""
    from PIL import Image

    width, height = image.size
    # torchvision's Resize and CenterCrop, to the last rounding.
    if width <= height:
        resized = size, int(size * height / width)
    else:
        resized = int(size * width / height), size
    if resized[0] * resized[1] > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels is too long and narrow")
    if resized != image.size:
        image = image.resize(resized, Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2.0) for side in resized)
    return image.crop((left, top, left + size, top + size))


def flat(image: Image, background: str, exif: bool = False) -> Image:
    """An image of Pillow's in 8 bits and without alpha: mode "L" if it is grey without alpha, else "RGB"."""
    from PIL import Image, ImageOps

    shades = _shades(image)
    image = _spread(image)
    image = ImageOps.exif_transpose(image) if exif else image
    clear = _clear(image)
    image = _eight(image, shades)
    if clear is not None:
        return Image.fromarray(over(np.asarray(image.convert("RGBA"))[..., :3], clear, background))
    if image.mode == "L":
        return image
    # Pillow warns of palettes with alpha that do not become RGBA.
    return image.convert("RGBA").convert("RGB") if "transparency" in image.info else image.convert("RGB")


def over(colours: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8], background: str) -> npt.NDArray[np.uint8]:
    """uint8 (..., 3) of colours uint8 (..., 3) or grey (..., 1), with alpha uint8 (...), on a background."""
    ground = np.frombuffer(bytes.fromhex(colour(background)[1:]), np.uint8).astype(np.uint16)
    share = alpha[..., np.newaxis].astype(np.uint16)
    mixed = colours * share + ground * (255 - share)  # 255 * 255 at most
    return ((mixed.astype(np.uint32) + 127) // 255).astype(np.uint8)


def on_background(
    images: npt.NDArray[np.uint8], background: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images uint8 (n, height, width, 2 or 4), the last channel being alpha, on a background, uint8 (n, height, width,
    3); and their traits, uint8 (n,).
    """
    if images.shape[3] not in (2, 4):
        what = f"background={background!r} for images of {images.shape[3]} channels, none of which is alpha"
        raise DataError(what, "images", "leave it out, or give 2 or 4 channels")
    made, found = np.empty((*images.shape[:3], 3), np.uint8), np.zeros(len(images), np.uint8)
    for i, image in enumerate(images):  # one by one: a map of any size passes through little memory
        made[i] = over(image[..., :-1], image[..., -1], background)
        if image[..., -1].min() < 255:
            found[i] = CLEAR | _blank(image[..., :-1], image[..., -1])
    return made, found


def traits(data: bytes | memoryview) -> int:
    """Traits of an encoded image. Only one that may be transparent, or has more than 8 bits, is decoded.

    Raises what Pillow raises, and `Unscaled`.
    """
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return traits_in(image)


def traits_in(image: Image) -> int:
    """`traits` of an image of Pillow's."""
    found, shades = 0, _shades(image)
    if shades is not None:
        found = DEEP | (DIM if 0 < 16 * int(np.asarray(image).max()) < shades[0] else 0)
    if getattr(image, "fp", None) is not None:  # else its file is closed, and the frames are unknown
        found |= FRAMES if getattr(image, "is_animated", False) else 0
    image = _spread(image)
    if (clear := _clear(image)) is None:
        return found
    return found | CLEAR | _blank(np.asarray(_eight(image, shades).convert("RGBA"))[..., :3], clear)


def one_colour(image: npt.NDArray[np.uint8]) -> bool:
    """Whether all pixels of an image (H, W[, C]) are the same."""
    return bool((image == image[:1, :1]).all())


def _blank(colours: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8]) -> int:
    """The traits `BLANK` of colours uint8 (H, W, C), C = 1 or 3, with alpha uint8 (H, W)."""
    opaque = colours[alpha == 255]
    if not (opaque == opaque[:1]).all():  # nearly every drawing ends here
        return 0
    return sum(trait for ground, trait in BLANK.items() if one_colour(over(colours, alpha, ground)))


def counted(traits: npt.NDArray[np.uint8], background: str, keys: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Images by trait, in words -> (how many, key of the first)."""
    found = {}
    blank = "images of one colour (all the same shade) on {background}; another background= may show them"
    for trait, words in (TRAITS | {BLANK.get(background, sum(BLANK.values())): blank}).items():
        if len(ids := np.flatnonzero((traits & trait) == trait)):
            found[words.format(background=called(background))] = len(ids), keys[int(ids[0])]
    return found


def traits_of(files: Sequence[npt.NDArray[np.uint8]]) -> tuple[npt.NDArray[np.uint8], dict[int, str]]:
    """`traits` of encoded images, uint8 (n,), 0 where one cannot be decoded; and which are `Unscaled`, and why."""
    found, refused = np.zeros(len(files), np.uint8), {}
    for i in np.flatnonzero(_core.image_sides(list(files))[:, 0] == 0).tolist():  # the others have none
        try:
            found[i] = traits(files[i].data)
        except Unscaled as error:
            refused[i] = f"{error}: {Unscaled.MEND}"
        except MemoryError:
            raise
        except Exception:  # reported when it is decoded
            continue
    return found, refused


def _shades(image: Image) -> tuple[int, bool] | None:
    """The largest value of grey of more than 8 bits, and whether 0 is white; None for 8 bits."""
    mode, form = image.mode, image.format
    if not (mode in ("I", "F") or mode.startswith("I;16")):
        return None
    if mode == "F":
        raise Unscaled("its pixels are floats, whose range is not known")
    tags = getattr(image, "tag_v2", {}) if form == "TIFF" else {}
    if (mode == "I" and form not in ("PNG", "PPM")) or tags.get(339, (1,))[0] != 1:
        raise Unscaled("its pixels are integers of 32 bits or signed, whose range is not known")
    bits = tags.get(258, (16,))[0]
    return (1 << min(bits, 16)) - 1, tags.get(262) == 0


def _eight(image: Image, shades: tuple[int, bool] | None) -> Image:
    """The image in 8 bits; `shades` as `_shades` says."""
    from PIL import Image

    if shades is None:
        return image
    values = np.asarray(image).astype(np.uint32)
    values = (np.minimum(values, shades[0]) * 255 + shades[0] // 2) // shades[0]
    return Image.fromarray((255 - values if shades[1] else values).astype(np.uint8))


def _spread(image: Image) -> Image:
    """The image, with its transparent colour scaled as its pixels are: Pillow spreads grey of less than 8 bits over
    0..255 and cuts colours of 16 bits to 8, but not the transparent colour of a PNG.
    """
    tile = getattr(image, "tile", None)
    raw, clear = (tile[0][3] if tile else None), image.info.get("transparency")
    if image.mode == "1" and isinstance(clear, int):  # versions of Pillow differ in what they compare here
        grey = image.copy()
        del grey.info["transparency"]
        grey = grey.convert("L")
        grey.info["transparency"] = 255 if clear else 0
        return grey
    if raw in ("L;2", "L;4") and isinstance(clear, int):
        image.info["transparency"] = clear * {"L;2": 85, "L;4": 17}[raw]
    elif raw == "RGB;16B" and isinstance(clear, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    return image


def _clear(image: Image) -> npt.NDArray[np.uint8] | None:
    """Alpha, uint8 (height, width); None where every pixel is opaque."""
    if image.mode not in ("LA", "PA", "RGBA", "RGBa") and "transparency" not in image.info:
        return None
    if image.mode.startswith("I"):
        alpha = np.where(np.asarray(image) == image.info["transparency"], 0, 255).astype(np.uint8)
    else:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    return None if alpha.min(initial=255) == 255 else alpha
