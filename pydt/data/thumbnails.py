"""Examples of a data set as pictures for pages: as networks see them (on the background, not turned by EXIF), cut to a
square.

Cost of `pictured`, which a run calls once: 1,000 groups of photographs of 12 megapixels take half a minute on two cores
with one picture each. So it stops before a further picture of each group where `_MOST_READ` would be passed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pydt.base import DataError, progress
from pydt.data.image_files import in_parallel, undecodable
from pydt.data.pixels import BACKGROUND, decode, flat, square
from pydt.data.table import ExampleTable

THUMBNAIL = 64
"""Side of a thumbnail in pixels; smaller images stay as they are."""
_MOST_READ = 4 << 30  # bytes of image files; JPEG and PNG alike, a core decodes some 70 MB a second
_MOST_KEPT = 64 << 20  # bytes of thumbnails
_SPARE = 3  # further examples of a group that are tried in place of some that cannot be decoded
_RUN = 8  # files decoded by a thread at a time

Thumbnails = dict[str, npt.NDArray[np.uint8]]


def pictures(
    table: ExampleTable, ids: npt.ArrayLike, side: int = 96, passed: set[str] | None = None, exact: bool = False
) -> list[npt.NDArray[np.uint8]]:
    """Examples as they are shown: uint8 (H, W, C) as stored; files decoded, their short side `side`, cut to a square.

    Args:
        passed: gets what pages call files that cannot be decoded, for which a grey square is shown.
        exact: decode files in full, to compare pixels; without it large JPEGs are decoded at a smaller scale.

    Raises:
        DataError: a file that cannot be decoded, without `passed`.
    """
    ids = np.asarray(ids, np.int64)
    if table.images is not None:
        return [np.asarray(table.images[position]) for position in table.positions[ids]]
    found = []
    for i, data in zip(ids.tolist(), table.bytes_of(ids), strict=True):
        try:
            found.append(decode(data.data, side, False, table.background, not exact))
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises anything on damaged files
            if passed is None:
                raise DataError(undecodable(error), table.place_of(i), "restore or remove the file") from error
            passed.add(f"{table.name}, {places(table, [i])[0]}")
            found.append(np.full((side, side, 3), 128, np.uint8))
    return found


def places(table: ExampleTable, ids: npt.ArrayLike) -> tuple[str, ...]:
    """Where pages say that examples lie: the path below the source's folder, the key in a shard, else the position."""
    named = table.keys
    return tuple(
        f"image {table.positions[i]}" if named is None else named[i] for i in np.asarray(ids, np.int64).tolist()
    )


def pictured(table: ExampleTable, by: str, each: int) -> tuple[Thumbnails, Mapping[str, tuple[str, ...]]]:
    """The first examples of each group, in the order of the data set, at most `THUMBNAIL` pixels high and wide: uint8
    (n, height, width, 1 or 3) by name of the group, and the place of each.

    What cannot be decoded or read is passed over. A group has fewer than `each` where it has fewer examples, or where
    more would take too long to decode or too much room; then only the first groups may have any.
    """
    codes, names = table.units(by)
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.searchsorted(codes[order], np.arange(len(names) + 1)))[1:-1]
    waiting = [part[: each + _SPARE].tolist() for part in parts]
    found: list[list[tuple[int, npt.NDArray[np.uint8]]]] = [[] for _ in parts]
    height, width = (THUMBNAIL, THUMBNAIL) if table.images is None else table.images.shape[1:3]
    most = min(each, _MOST_KEPT // (3 * min(height, THUMBNAIL) * min(width, THUMBNAIL) * max(len(names), 1)))
    room = _MOST_READ
    for count in range(1, most + 1):
        while todo := [k for k, own in enumerate(found) if len(own) < count and waiting[k]]:
            ids = [waiting[k].pop(0) for k in todo]
            if table.records is not None:
                fits = np.cumsum(table.records.length[ids]) <= room
                ids = ids if fits.all() else ids[: int(fits.sum())] if count == 1 else []
                room = room - int(table.records.length[ids].sum()) if fits.all() else 0
            for k, i, image in zip(todo, ids, _small(table, ids), strict=False):
                if image is not None:
                    found[k].append((i, image))
    made = {name: own for name, own in zip(names, found, strict=True) if own}
    images = {name: np.stack([image for _, image in own]) for name, own in made.items()}
    return images, {name: places(table, [i for i, _ in own]) for name, own in made.items()}


def _small(table: ExampleTable, ids: list[int]) -> list[npt.NDArray[np.uint8] | None]:
    """Examples as thumbnails, None where one cannot be read or decoded."""
    runs, found = [ids[i : i + _RUN] for i in range(0, len(ids), _RUN)], list[npt.NDArray[np.uint8] | None]()
    with progress(len(ids), "drawing", "pictures") as advance:
        for run in in_parallel(lambda run: [_thumbnail(table, i) for i in run], runs):
            found += run
            advance(len(run))
    return found


def _thumbnail(table: ExampleTable, i: int) -> npt.NDArray[np.uint8] | None:
    from PIL import Image

    if table.images is not None:
        pixels = np.asarray(table.images[table.positions[i]])
        if max(pixels.shape[:2]) <= THUMBNAIL and pixels.shape[2] in (1, 3):
            return pixels
        # Of more channels than people see, the picture is that on the usual background.
        image = flat(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), BACKGROUND)
        image = image if max(image.size) <= THUMBNAIL else square(image, THUMBNAIL)
        return np.asarray(image).reshape(image.height, image.width, -1)
    try:
        return decode(table.bytes_of([i])[0].data, THUMBNAIL, False, table.background, True)
    except MemoryError:
        raise
    except Exception:  # Pillow raises anything on damaged files; that of a training is told there
        return None
