"""Images whose samples are known, in every depth and with every sort of transparency, written by the formats' rules."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from odd_images import encoded
from PIL import Image, ImageCms

Samples = NDArray[np.uint16]
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def png(
    samples: Samples,
    bits: int,
    clear: tuple[int, ...] = (),
    palette: bytes = b"",
    alphas: bytes = b"",
    more: dict[bytes, bytes] | None = None,
) -> bytes:
    """A PNG of (height, width, channels), written from its definition; `clear`: the colour called transparent;
    `palette`: the samples are its indexes; `alphas`: of its colours; `more`: further chunks.
    """
    height, width, channels = samples.shape
    if bits == 16:
        rows = samples.astype(">u2").tobytes()
        rows = b"".join(b"\0" + rows[y * 2 * width * channels : (y + 1) * 2 * width * channels] for y in range(height))
    elif bits == 8:
        rows = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in samples)
    else:
        places = (samples.reshape(height, -1, 1) >> np.arange(bits - 1, -1, -1)) & 1
        rows = b"".join(b"\0" + np.packbits(row.reshape(-1)).tobytes() for row in places)
    colour = 3 if palette else _COLOUR_TYPES[channels]
    parts = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))]
    parts += [_chunk(kind, data) for kind, data in (more or {}).items() if kind != b"bKGD"]
    parts += [_chunk(b"PLTE", palette)] if palette else []
    parts += [_chunk(b"bKGD", more[b"bKGD"])] if more and b"bKGD" in more else []
    parts += [_chunk(b"tRNS", alphas or struct.pack(f">{len(clear)}H", *clear))] if clear or alphas else []
    parts += [_chunk(b"tEXt", b"Comment\0of no importance"), _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def interlaced(samples: Samples) -> bytes:
    """A PNG of 8 bits in the seven passes of Adam7."""
    height, width, channels = samples.shape
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [samples[top::down, left::right].astype(np.uint8) for left, top, right, down in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts for row in part)
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def bmp(samples: Samples) -> bytes:
    """A bitmap with a header of version 4, whose masks say where red, green, blue and alpha are."""
    height, width, _ = samples.shape
    masks = struct.pack("<4I", 0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII", 108, width, -height, 1, 32, 3, 4 * height * width, 2835, 2835, 0, 0)
    head += masks + b"BGRs" + bytes(48)
    pixels = samples.astype(np.uint8).tobytes()
    return b"BM" + struct.pack("<IHHI", 14 + 108 + len(pixels), 0, 0, 14 + 108) + head + pixels


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def known(seed: int = 0, height: int = 40, width: int = 40) -> Iterator[tuple[str, bytes, Samples, int]]:
    """(file name, bytes, samples with alpha as their last channel if any pixel is transparent, bits of a sample)."""
    random = np.random.default_rng(seed)

    def drawn(channels: int, bits: int) -> Samples:
        coarse = random.integers(0, 1 << bits, (4, 4, channels))
        return coarse.repeat(height // 4, axis=0).repeat(width // 4, axis=1).astype(np.uint16)

    def with_alpha(samples: Samples, clear: NDArray[np.bool_], bits: int) -> Samples:
        alpha = np.where(clear, 0, (1 << bits) - 1).astype(np.uint16)
        return np.concatenate([samples, alpha[..., None]], axis=2)

    for channels, depths in {1: (1, 2, 4, 8, 16), 2: (8, 16), 3: (8, 16), 4: (8, 16)}.items():
        for bits in depths:
            samples = drawn(channels, bits)
            yield f"png {channels} of {bits}.png", png(samples, bits), samples, bits
            if channels in (1, 3):
                clear = tuple(int(v) for v in samples[0, 0])
                apart = with_alpha(samples, (samples == samples[0, 0]).all(axis=2), bits)
                yield f"png {channels} of {bits}, a colour is clear.png", png(samples, bits, clear), apart, bits
    for bits in (1, 2, 4, 8):
        index = drawn(1, bits)
        colours = random.integers(0, 256, (1 << bits, 3)).astype(np.uint16)
        data = png(index, bits, palette=colours.astype(np.uint8).tobytes())
        yield f"opaque palette of {bits}.png", data, colours[index[..., 0]], 8
    more = {
        b"gAMA": struct.pack(">I", 220000),
        b"cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000),
        b"sBIT": bytes([5, 6, 5]),
        b"bKGD": struct.pack(">3H", 9, 8, 7),
    }
    plain = drawn(3, 8)
    yield "colours of a monitor.png", png(plain, 8, more=more), plain, 8
    yield "interlaced.png", interlaced(plain), plain, 8
    rgba = drawn(4, 8)
    yield "interlaced, clear.png", interlaced(rgba), rgba, 8
    profile = b"P3\0\0" + zlib.compress(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes())
    yield "a profile.png", png(plain, 8, more={b"iCCP": profile}), plain, 8
    for bits in (2, 4, 8):
        index = drawn(1, bits)
        colours = random.integers(0, 256, (1 << bits, 4)).astype(np.uint16)
        palette, alphas = colours[:, :3].astype(np.uint8).tobytes(), colours[:-1, 3].astype(np.uint8).tobytes()
        colours[-1, 3] = 255  # not told of
        yield f"palette of {bits}.png", png(index, bits, palette=palette, alphas=alphas), colours[index[..., 0]], 8
    rgba, grey, deep = drawn(4, 8), drawn(1, 8), drawn(1, 16)
    full = Image.fromarray(rgba.astype(np.uint8))
    yield "rgba.webp", encoded(full, "WEBP", lossless=True, exact=True), rgba, 8
    yield "rgba.tif", encoded(full, "TIFF"), rgba, 8
    yield "rgba.bmp", bmp(rgba), rgba, 8
    yield "rgba.jp2", encoded(full, "JPEG2000"), rgba, 8
    yield "grey.tif", encoded(Image.fromarray(grey[..., 0].astype(np.uint8)), "TIFF"), grey, 8
    shades = Image.fromarray(deep[..., 0])
    yield "deep.tif", encoded(shades, "TIFF"), deep, 16
    yield "deep, 0 is white.tif", encoded(shades, "TIFF", tiffinfo={262: 0}), 65535 - deep, 16
    yield "deep.jp2", encoded(shades, "JPEG2000"), deep, 16
    yield "deep.pgm", b"P5 %d %d 65535\n" % (width, height) + deep.astype(">u2").tobytes(), deep, 16
    twelve = drawn(1, 10)
    yield "ten bits.pgm", b"P5 %d %d 1023\n" % (width, height) + twelve.astype(">u2").tobytes(), twelve, 10
    opaque = drawn(3, 8)
    still = [Image.fromarray(part.astype(np.uint8)) for part in (opaque, 255 - opaque)]
    yield "two frames.png", encoded(still[0], "PNG", save_all=True, append_images=still[1:]), opaque, 8
    yield "two pages.tif", encoded(still[0], "TIFF", save_all=True, append_images=still[1:]), opaque, 8
    yield "two frames.webp", encoded(still[0], "WEBP", save_all=True, append_images=still[1:], lossless=True), opaque, 8
    spots = drawn(1, 8)
    gif = Image.fromarray(spots[..., 0].astype(np.uint8)).quantize(200)
    colours = np.asarray(gif.convert("RGB")).astype(np.uint16)
    clear = np.asarray(gif) == np.asarray(gif)[0, 0]
    moving = [gif, Image.new("P", gif.size, 3)]
    data = encoded(gif, "GIF", transparency=int(np.asarray(gif)[0, 0]), save_all=True, append_images=moving[1:])
    yield "two frames.gif", data, with_alpha(colours, clear, 8), 8
