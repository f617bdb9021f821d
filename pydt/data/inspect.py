"""What is in a data set: classes, sizes, groups, exact duplicates, broken images, a contact sheet. Every image file is
decoded once, so that one which only a decoder refuses is found here and not during a run.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt import _core
from pydt.base import DataError, as_path, progress, write_atomic
from pydt.data.dataset import Dataset
from pydt.data.formats import look
from pydt.data.identical import groups_of, pixel_sum
from pydt.data.image_files import in_parallel, reading_threads, undecodable
from pydt.data.index_file import FILE, Noted, note, read_index
from pydt.data.persistence import has_index
from pydt.data.pixels import BACKGROUND, decode, flat, one_colour

if TYPE_CHECKING:
    from PIL import Image


_RUN = 32
ONE_COLOUR = "images of one colour, compared by bytes only"
# The contact sheet: side of an image (pixels), images in a row, rows at most, width of the names' column (pixels).
_SIDE, _PER_ROW, _ROWS, _NAMES = 64, 10, 80, 180
_ROWS_BELOW = 20  # then a further column of rows begins


def load(path: str | os.PathLike[str]) -> Dataset:
    """The data set at a path: a `.npy` of images (all of one class), a folder written by `Dataset.save` or `pack`, a
    folder of images, a tar shard or a folder of them; bad images are left out.

    Raises:
        DataError: there is none.
    """
    place = as_path(path, "inspect", DataError)
    if place.is_file() and place.suffix not in (".npy", ".tar"):
        with contextlib.suppress(OSError), open(place, "rb") as file:
            if file.read(2) == b"\x1f\x8b":
                raise DataError("is compressed by gzip", str(place), "unpack it: gunzip leaves the .tar file")
        mend = "give a folder, a tar shard (.tar), or an array of images (.npy)"
        raise DataError("is a file that is no data set", str(place), mend)
    if has_index(place) and {"images", "paths"} & read_index(place / FILE).keys():
        return Dataset.open(place)
    return Dataset.of(look(place))


def inspect(dataset: Dataset) -> dict[str, Any]:
    """What is in a data set, as plain values.

    Returns:
        "name", "kind" ("files" or "array"), "images" (how many), "bytes" (of the files, or of the pixels), "digest";
        "height", "width": [least, median, most] in pixels; "modes": Pillow's name of each pixel layout -> images;
        "classes": name -> images; "units": column -> the same for its groups; "in no unit": column -> images;
        "duplicates": lists of keys whose images are the same, in bytes or pixels (those of one colour: in the bytes of
        their files alone, since any two blank images have equal pixels); "duplicates across classes": how many of
        these lists hold more than one class; "broken": key -> reason; "noted": what else was left out or is not shown
        as it is stored, in words -> [how many, the first of them].
    """
    broken = dict(dataset.left_out)
    seen: Noted = {}
    if dataset.images is None:
        sizes, modes, same = _decoded(dataset, broken, seen)
        total = 0 if dataset.records is None else int(dataset.records.length.sum())
    else:
        height, width, channels = dataset.images.shape[1:]
        sizes = np.array([[height, width]])
        modes = {{1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]: len(dataset)}
        same = _equal_pixels(dataset, seen)
        total = len(dataset) * height * width * channels
    keys = dataset.all_keys()
    spread = [[int(np.min(s)), float(np.median(s)), int(np.max(s))] for s in sizes.T] if len(sizes) else [None, None]
    return {
        "name": dataset.name,
        "kind": "files" if dataset.encoded else "array",
        "images": len(dataset),
        "bytes": total,
        "digest": dataset.digest,
        "height": spread[0],
        "width": spread[1],
        "modes": modes,
        "classes": _counted(dataset.labels, dataset.classes),
        "units": {name: _counted(codes, names) for name, (codes, names) in dataset.columns.items()},
        "in no unit": {name: int((codes < 0).sum()) for name, (codes, _) in dataset.columns.items()},
        "duplicates": [[keys[i] for i in group] for group in same],
        "duplicates across classes": sum(len(set(dataset.labels[group].tolist())) > 1 for group in same),
        "broken": dict(sorted(broken.items())),
        "noted": {what: [count, first] for what, (count, first) in (dataset.odd() | seen).items()},
    }


def lines(found: Mapping[str, Any], most: int = 10) -> list[str]:
    """What `inspect` found, for people: at most so many names of a kind."""
    what = "image files" if found["kind"] == "files" else "images in an array"
    text = [
        f"{found['name']}: {found['images']:,} {what}, {found['bytes'] / 1e6:,.1f} MB, digest {found['digest'][:12]}"
    ]
    if found["height"] is not None:
        (low, middle, high), (left, centre, right) = found["height"], found["width"]
        modes = ", ".join(f"{mode} ({count:,})" for mode, count in found["modes"].items())
        span = f"{low} x {left}" if (low, left) == (high, right) else f"{low} x {left} to {high} x {right}"
        text.append(f"height x width: {span} pixels, median {middle:g} x {centre:g}; {modes}")
    text.append(_ranked("classes", found["classes"], most))
    for column, counts in found["units"].items():
        outside = found["in no unit"][column]
        text.append(_ranked(f"groups of {column}", counts, most) + (f"; in none: {outside:,}" if outside else ""))
    groups = found["duplicates"]
    extra = sum(len(group) - 1 for group in groups)
    across = found["duplicates across classes"]
    text.append(
        f"exact duplicates, of bytes or decoded pixels: {extra:,} images too many; groups of equals: {len(groups):,}, "
        f"across classes: {across:,}"
        if groups
        else "exact duplicates, of bytes or decoded pixels: none"
    )
    text += [f"  {' = '.join(group[:4])}{' = ...' if len(group) > 4 else ''}" for group in groups[:most]]
    text.append(f"broken images: {len(found['broken']):,}" if found["broken"] else "broken images: none")
    text += [f"  {key}: {reason}" for key, reason in list(found["broken"].items())[:most]]
    text += [f"{what}: {n:,} ({first}{', ...' if n > 1 else ''})" for what, (n, first) in found["noted"].items()]
    if len(groups) > most or len(found["broken"]) > most:
        text.append("  ... (all of them: --json)")
    return text


def _ranked(title: str, counts: Mapping[str, int], most: int) -> str:
    ranked = [f"{name} ({count:,})" for name, count in sorted(counts.items(), key=lambda item: item[1])]
    if len(ranked) > most:
        ranked[most // 2 : -(most // 2)] = ["..."]
    return f"{len(counts):,} {title}, from the smallest to the largest: {', '.join(ranked)}"


def contact_sheet(dataset: Dataset, path: str | os.PathLike[str]) -> None:
    """A PNG with a row of images for each class, spread over its examples; at most 80 classes, spread over all.

    Raises:
        StoreError: it cannot be written.
    """
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    classes = _spread(len(dataset.classes), _ROWS)
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    order = np.argsort(dataset.labels, kind="stable")
    starts = np.cumsum(counts) - counts
    step, gap = _SIDE + 4, 8
    block = _NAMES + _PER_ROW * step + gap
    blocks, high = -(-len(classes) // _ROWS_BELOW), min(len(classes), _ROWS_BELOW)
    left_out = len(dataset.classes) - len(classes)
    page = Image.new("RGB", (blocks * block, high * step + 2 * gap + 16 * bool(left_out)), "white")
    draw = ImageDraw.Draw(page)
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), 12)  # Pillow's own lacks all but ASCII
    for row, label in enumerate(classes):
        left, top = row // _ROWS_BELOW * block, gap + row % _ROWS_BELOW * step
        name = dataset.classes[label]
        while draw.textlength(name, font) > _NAMES - 2 * gap and len(name) > 1:
            name = name[: len(name) - 2].rstrip() + "…"
        draw.text((left + gap, top + 14), name, "black", font)
        draw.text((left + gap, top + 32), f"{counts[label]:,} images", "gray", font)
        for column, i in enumerate(_spread(int(counts[label]), _PER_ROW)):
            place = (left + _NAMES + column * step, top)
            image = _thumbnail(dataset, int(order[starts[label] + i]))
            if image is None:
                draw.rectangle((*place, place[0] + _SIDE - 1, place[1] + _SIDE - 1), "mistyrose", "firebrick")
                draw.text((place[0] + 10, place[1] + 24), "broken", "firebrick", font)
            else:
                page.paste(image, place)
    if left_out:
        draw.text((gap, page.height - 22), f"and {left_out:,} more classes", "gray", font)
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    write_atomic(as_path(path, "sheet", made=True), buffer.getbuffer())


def brightness(dataset: Dataset, most: int = 500) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels of each channel, from 0 to 1, to two digits: of at most so many images
    that can be decoded, spread over all of them, each at 64 pixels.
    """
    sums, squares, count = 0.0, 0.0, 0
    for i in _spread(len(dataset), most):
        image = _pixels(dataset, i)
        if image is not None:
            values = image.reshape(-1, image.shape[-1]).astype(np.float64) / 255
            sums, squares, count = sums + values.sum(0), squares + (values**2).sum(0), count + len(values)
    if not count:
        raise DataError("has no image that can be decoded", dataset.name, "give other images")
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return tuple(np.round(mean, 2).tolist()), tuple(np.maximum(np.round(std, 2), 0.01).tolist())


def _pixels(dataset: Dataset, i: int) -> np.ndarray | None:
    """One example as networks see it, uint8 (height, width, channels); None where it cannot be decoded."""
    if dataset.images is not None:
        return np.asarray(dataset.images[dataset.positions[i]])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return decode(dataset.bytes_of([i])[0].data, _SIDE, False, dataset.background)
    except Exception:  # see _look
        return None


def _spread(count: int, most: int) -> list[int]:
    """At most so many of 0..count-1, evenly spread."""
    return list(range(count)) if count <= most else [i * count // most for i in range(most)]


def _thumbnail(dataset: Dataset, i: int) -> Image.Image | None:
    """One example, its short side cut to a square of the sheet; None where it cannot be decoded."""
    from PIL import Image

    pixels = _pixels(dataset, i)
    if pixels is None or dataset.images is None:
        return None if pixels is None else Image.fromarray(pixels)
    image = flat(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), BACKGROUND).convert("RGB")
    scale = _SIDE / min(image.size)
    # Enlarged pixels stay pixels: what the network sees.
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    image = image.resize((max(_SIDE, round(image.width * scale)), max(_SIDE, round(image.height * scale))), how)
    left, top = (image.width - _SIDE) // 2, (image.height - _SIDE) // 2
    return image.crop((left, top, left + _SIDE, top + _SIDE))


def _decoded(
    dataset: Dataset, broken: dict[str, str], noted: Noted
) -> tuple[np.ndarray, dict[str, int], list[list[int]]]:
    """Height and width of every image that can be decoded (n, 2), images by mode, and groups of equal ones. `noted`
    gets those with an EXIF orientation and those of one colour.
    """
    keys = dataset.all_keys()
    runs = [list(range(i, min(i + _RUN, len(dataset)))) for i in range(0, len(dataset), _RUN)]
    sizes: list[tuple[int, int]] = []
    modes: dict[str, int] = {}
    sums = [] if dataset.records is None else [sha.tobytes() for sha in dataset.records.sha]
    with progress(len(dataset), "decoding", "images") as advance:
        for run in in_parallel(lambda run: [(i, _look(dataset, i)) for i in run], runs):
            for i, one in run:
                if isinstance(one, str):
                    broken[keys[i]] = one
                    continue
                height, width, mode, told, turned = one
                sizes.append((height, width))
                modes[mode] = modes.get(mode, 0) + 1
                if told is None:
                    note(noted, ONE_COLOUR, keys[i])
                else:
                    sums[i] = told  # same bytes have same pixels
                if turned:
                    note(noted, "images with an EXIF orientation, shown as stored", keys[i])
            advance(len(run))
    return np.array(sizes).reshape(-1, 2), dict(sorted(modes.items())), groups_of(sums)


def _look(dataset: Dataset, i: int) -> tuple[int, int, str, bytes | None, bool] | str:
    """Height, width, mode and sum of the pixels (None: all of one colour) of an encoded example, and whether it has an
    EXIF orientation; or why it cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(dataset.bytes_of([i])[0].data)) as image:
            shown = np.asarray(flat(image, dataset.background))
            turned = image.getexif().get(0x0112, 1) in range(2, 9)
            return image.height, image.width, image.mode, None if one_colour(shown) else pixel_sum(shown), turned
    except Exception as error:  # decoders raise anything on damaged bytes
        return undecodable(error)


def _equal_pixels(dataset: Dataset, noted: Noted) -> list[list[int]]:
    """Groups of equal pixels: of equal CRC32C, then of equal digests. Images of one colour are `noted` instead."""
    assert dataset.images is not None
    crc = _core.crc_records(dataset.images, np.ascontiguousarray(dataset.positions), reading_threads())
    groups, keys = [], dataset.all_keys()
    for group in groups_of([one.tobytes() for one in crc]):
        images = [np.asarray(dataset.images[p]) for p in dataset.positions[group]]
        for part in groups_of([pixel_sum(image) for image in images]):
            if not one_colour(images[part[0]]):
                groups.append([group[i] for i in part])
                continue
            for i in part:
                note(noted, "images of one colour that equal others, no duplicates", keys[group[i]])
    return sorted(groups)


def _counted(codes: np.ndarray, names: tuple[str, ...]) -> dict[str, int]:
    return dict(zip(names, np.bincount(codes[codes >= 0], minlength=len(names)).tolist(), strict=True))
