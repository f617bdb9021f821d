"""Which images two data sets share: byte for byte, or pixel for pixel after decoding.

bytes    Of files: half of the SHA-256 of each, which the index has, so nothing is read. Of raw arrays of one shape:
         equal CRC32C, then equal digests of the pixels.
pixels   Of files: as a network is shown them, before resizing (`pydt.data.pixels`): transparent ones on the data set's
         background, 16 bits scaled to 8, EXIF orientation not applied; grey equals three equal channels. Only images
         whose height and width occur in both data sets are decoded.
blank    Images of one colour with equal pixels are no evidence of a copy: any two blank images have them. They count as
         shared only where their files have the same bytes; the others are counted apart (`Same.blank`).

Cost: docs/analyses.md, "Copies of target images".
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pydt import _core
from pydt.base import PydtError, progress
from pydt.data.image_files import batches, in_parallel, reading_threads
from pydt.data.pixels import flat, one_colour

if TYPE_CHECKING:
    from PIL.Image import Image

    from pydt.data.dataset import Dataset


Rows = npt.NDArray[np.int64]
Sums = list[bytes | None]

MOST_FILES, MOST_BYTES = 20_000, 64 << 20
"""Files, and bytes of them, up to which the start of a run compares their pixels."""
_SHA = b"file"  # starts the sum of a file: 20 bytes, where those of pixels have 16
_BLANK = b"blank"  # starts that of the pixels of an image of one colour: 21 bytes
_MARKED = len(_BLANK) + 16


@dataclass(frozen=True, eq=False)
class Same:
    """Which images two data sets, ours and theirs, share.

    Attributes:
        ours, theirs: int64, a number for each image: equal numbers, equal images; -1 for one that is not shared.
        by_bytes, theirs_by_bytes: bool, whether a file of the other data set has the same bytes.
        pixels: whether pixels were compared.
        blank, theirs_blank: bool, whether it is of one colour and has the pixels, but not the bytes, of an image of the
            other data set.
    """

    ours: Rows
    theirs: Rows
    by_bytes: npt.NDArray[np.bool_]
    theirs_by_bytes: npt.NDArray[np.bool_]
    pixels: bool
    blank: npt.NDArray[np.bool_]
    theirs_blank: npt.NDArray[np.bool_]


def same(ours: Dataset, theirs: Dataset, pixels: bool | None = True) -> Same:
    """Which images two data sets share. `pixels`: decode files and compare their pixels, too; None: where that is quick
    (`MOST_FILES` and `MOST_BYTES`, both data sets together).
    """
    if ours.images is not None and theirs.images is not None and ours.images.shape[1:] == theirs.images.shape[1:]:
        pixels = True
        mine, other = _raw(ours, theirs)
    else:
        files = [data.records.length for data in (ours, theirs) if data.records is not None]
        if pixels is None:
            pixels = sum(map(len, files)) <= MOST_FILES and sum(int(f.sum()) for f in files) <= MOST_BYTES
        mine, other = _shas(ours), _shas(theirs)
        if pixels:  # same bytes have same pixels, so that the sum of those decides wherever there is one
            decoded = _decoded(ours, theirs)
            mine, other = (
                [p or f for p, f in zip(*both, strict=True)] for both in zip(decoded, (mine, other), strict=True)
            )
    shas, marked = (_shas(ours), _shas(theirs)), (mine, other)
    blanks = {one for one in {*mine} & {*other} if one is not None and len(one) == _MARKED}
    mine, other = (
        [f if p is not None and len(p) == _MARKED else p for p, f in zip(part, files, strict=True)]
        for part, files in zip(marked, shas, strict=True)
    )
    numbers = {one: number for number, one in enumerate(({*mine} & {*other}) - {None})}
    coded = [
        np.array([-1 if one is None else numbers.get(one, -1) for one in part], np.int64) for part in (mine, other)
    ]
    common = ({*shas[0]} & {*shas[1]}) - {None}
    by_bytes = [np.array([sha in common for sha in part], bool) for part in shas]
    apart = [
        np.array([one in blanks for one in part], bool) & (code < 0) for part, code in zip(marked, coded, strict=True)
    ]
    return Same(coded[0], coded[1], by_bytes[0], by_bytes[1], bool(pixels), apart[0], apart[1])


def pixel_sum(image: npt.NDArray[np.uint8]) -> bytes:
    """Digest of the pixels of an image (H, W[, C]), 16 bytes."""
    pixels = image.reshape(*image.shape[:2], -1)
    if pixels.shape[2] == 3 and (pixels[..., :1] == pixels[..., 1:]).all():
        pixels = pixels[..., :1]
    told = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    told.update(np.ascontiguousarray(pixels).data)
    return told.digest()


def shared_images(count: int, of: str, by_bytes: int) -> str:
    """That `count` images of a target are in the source, `by_bytes` of them byte for byte."""
    how = "byte for byte" if by_bytes == count else "pixel for pixel"
    if 0 < by_bytes < count:
        how = f"byte for byte ({by_bytes:,}) or pixel for pixel ({count - by_bytes:,})"
    return f"{count:,} image{'s' if count != 1 else ''} of {of} {'are' if count != 1 else 'is'} in the source, {how}"


def not_compared(source: int, target: int, of: str) -> str:
    """That images of one colour were not compared; see `Same.blank`."""
    return (
        f"{source + target:,} images of one colour ({source:,} of the source, {target:,} of {of}) are not "
        "compared: equal pixels are no evidence of a copy there"
    )


def shared_units(units: Rows, names: Sequence[str], quote: Callable[[str], str] = repr, most: int = 3) -> str:
    """Images of the source by group, most first: "as 30 source images: in 'cats' (30)"."""
    counts = np.bincount(units[units >= 0], minlength=len(names))
    fullest = [k for k in np.argsort(-counts, kind="stable").tolist() if counts[k]]
    told = [f"{quote(names[k])} ({counts[k]:,})" for k in fullest[:most]]
    if len(fullest) > most:
        told.append(f"{len(fullest) - most} more group{'' if len(fullest) == most + 1 else 's'}")
    if (outside := int((units < 0).sum())) > 0:
        told.append(f"no group ({outside:,})")
    return f"as {len(units):,} source image{'s' if len(units) != 1 else ''}: in {', '.join(told)}"


def groups_of(sums: Iterable[bytes | None]) -> list[list[int]]:
    """Positions of equal sums, in lists of two or more, ordered by the first; None equals nothing."""
    places: dict[bytes, list[int]] = {}
    for i, one in enumerate(sums):
        if one is not None:
            places.setdefault(one, []).append(i)
    return [group for group in places.values() if len(group) > 1]


def _shas(dataset: Dataset) -> Sums:
    if dataset.records is None:
        return [None] * len(dataset)
    return [_SHA + sha.tobytes() for sha in dataset.records.sha]


def _raw(ours: Dataset, theirs: Dataset) -> tuple[Sums, Sums]:
    """Sums of the pixels of those raw images whose CRC32C the other data set has, too."""
    crcs, found = [], []
    for data in (ours, theirs):
        data.unchanged()
        crcs.append(_core.crc_records(data.images, np.ascontiguousarray(data.positions), reading_threads()))  # type: ignore[arg-type]
    for data, own, others in zip((ours, theirs), crcs, crcs[::-1], strict=True):
        sums: Sums = [None] * len(data)
        for i in np.flatnonzero(np.isin(own, others)).tolist():
            image = np.asarray(data.images[data.positions[i]])  # type: ignore[index]
            sums[i] = _marked(image, hashlib.blake2b(image.tobytes(), digest_size=16).digest())
        found.append(sums)
    return found[0], found[1]


def _decoded(*datasets: Dataset) -> tuple[Sums, Sums]:
    """Sums of the pixels of the images whose height and width the other data set has, too."""
    sizes = [_sizes(data) for data in datasets]
    found = []
    for data, own, others in zip(datasets, sizes, sizes[::-1], strict=True):
        wanted = set(others)
        chosen = [i for i, size in enumerate(own) if size is not None and size in wanted]
        sums: Sums = [None] * len(data)
        for i, one in zip(chosen, _sums(data, chosen), strict=True):
            sums[i] = one
        found.append(sums)
    return found[0], found[1]


def _sizes(data: Dataset) -> list[tuple[int, int] | None]:
    """Width and height of all images."""
    if data.images is not None:
        return [data.images.shape[2:0:-1]] * len(data)
    return _read(data, range(len(data)), lambda image: image.size, "looking at sizes")


def _sums(data: Dataset, ids: list[int]) -> Sums:
    if data.images is not None:
        return [_summed(np.asarray(data.images[position])) for position in data.positions[ids]]
    return _read(data, ids, lambda image: _summed(np.asarray(flat(image, data.background))), "comparing pixels")


def _summed(image: npt.NDArray[np.uint8]) -> bytes:
    return _marked(image, pixel_sum(image))


def _marked(image: npt.NDArray[np.uint8], told: bytes) -> bytes:
    """A sum of an image's pixels, which says whether they are of one colour."""
    return _BLANK + told if one_colour(image) else told


def _read(dataset: Dataset, ids: Iterable[int], look: Callable[[Image], Any], what: str) -> list[Any]:
    """What `look` says of some images, Pillow's and not yet decoded; None where a file cannot be read."""
    from PIL import Image as pillow

    chosen = list(ids)
    assert dataset.records is not None
    lengths = dataset.records.length.tolist()
    runs = batches(chosen, lengths)

    def one(data: npt.NDArray[np.uint8]) -> Any:
        try:
            with pillow.open(io.BytesIO(data.data)) as image:
                return look(image)
        except Exception:  # decoders raise anything on damaged bytes; what cannot be decoded equals nothing
            return None

    def run(part: list[int]) -> list[Any]:
        try:
            return [one(data) for data in dataset.bytes_of(part)]
        except PydtError:  # a file is gone or cut: whoever trains on it says so
            return [None] * len(part)

    found = []
    with progress(len(chosen), what, "images") as advance:
        for part in in_parallel(run, runs):
            found += part
            advance(len(part))
    return found
