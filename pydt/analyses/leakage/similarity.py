"""Copies and look-alikes among images: perceptual hashes, nearest pairs in an embedding, matches that tolerate changes.

    dHash    64 bits: in a grey 8 x 9 image, whether a pixel is brighter than its left neighbour (Krawetz 2013)
    pHash    64 bits: of the 8 x 8 lowest frequencies of the DCT-II of a grey 32 x 32 image, whether each is above their
             median, the constant one left out of it (Zauner 2010)
    match    the largest correlation of a view of one image with the other. Views: mirrored or not, zoomed by 1 / ZOOM,
             1 and ZOOM, moved by -1, 0 or 1 pixel in each direction: 54. Before it is correlated an image is grey, of
             at most 32 x 32 pixels, blurred (Gaussian, 1 pixel) and halved in size, which takes noise and JPEG's traces
             away. Correlation does not see brightness and contrast.

On large sources hashes and embeddings propose pairs, and `match` decides: small grey images on one ground defeat the
hashes (docs/analyses.md, "Copies of target images").

A view is linear and separable, V = A image B' with A, B (side / 2, side), so all views of a tile of images are products
with small matrices, and all pairs of two tiles one matrix product a view: 54 x 2 x 256 operations a pair at most.
Memory: the grey images, a quarter of that again for the references, and 80 MB for a tile of queries with its views.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.data import Dataset, pictures

Single = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]

SIDE = 32
"""Longest side on which images are compared."""
ZOOM = 1.075
KEPT = 9
"""Matches of an image that are kept."""
TILES = 512, 1024
"""Queries and references that are compared at once; no result depends on it."""
_VIEWS = [(m, z, y, x) for m, z in itertools.product((False, True), range(3)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
_BLUR = 1.0
_FACTORS = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue in grey (ITU-R BT.601)


def greys(
    dataset: Dataset, ids: npt.ArrayLike | None = None, side: int | None = None, passed: set[str] | None = None
) -> Single:
    """Examples in grey, float32 (n, side, side), resized to the mean of the area under each pixel.

    Args:
        ids: int64 positions in the data set; all by default.
        side: by default the smaller of `SIDE` and the images' shorter side.
        passed: as in `pictures`; an image that cannot be decoded becomes one shade, which matches nothing.
    """
    ids = np.arange(len(dataset)) if ids is None else np.asarray(ids, np.int64)
    side = common_side(dataset) if side is None else side
    found = np.empty((len(ids), side, side), np.float32)
    for start in range(0, len(ids), TILES[0]):
        part = ids[start : start + TILES[0]]
        if dataset.images is not None:
            images = np.asarray(dataset.images[dataset.positions[part]])
        else:
            images = (
                np.stack(pictures(dataset, part, 2 * SIDE, passed, exact=True)) if len(part) else np.empty((0, 8, 8))
            )
        found[start : start + len(part)] = resized(grey(images), side, side)
    return found


def common_side(*datasets: Dataset) -> int:
    """The side on which images of these data sets are compared."""
    return min([SIDE, *(side for data in datasets if data.images is not None for side in data.images.shape[1:3])])


def grey(images: npt.NDArray[Any]) -> Single:
    """float32 (n, H, W) of (n, H, W) or (n, H, W, C); with C = 2 or 4 the last channel is alpha, on white."""
    images = np.asarray(images)
    if images.ndim == 3:
        return images.astype(np.float32)
    colours = images.shape[3] - (images.shape[3] in (2, 4))
    found = images[..., 0].astype(np.float32) if colours == 1 else images[..., :3].astype(np.float32) @ _FACTORS
    if colours < images.shape[3]:
        share = images[..., -1].astype(np.float32) / 255
        found = share * found + 255 * (1 - share)
    return found


def resized(images: npt.NDArray[Any], height: int, width: int) -> Single:
    """(n, H, W) -> float32 (n, height, width): each pixel the mean of the area it covers, enlarged or reduced."""
    rows, columns = _area(images.shape[1], height), _area(images.shape[2], width)
    return (rows @ np.asarray(images, np.float32)) @ columns.T


@cache
def _area(size: int, wanted: int) -> Single:
    """(wanted, size): means over intervals of equal length."""
    edges = np.arange(wanted + 1) * (size / wanted)
    inside = np.minimum(edges[1:, None], np.arange(1, size + 1)) - np.maximum(edges[:-1, None], np.arange(size))
    return (np.maximum(inside, 0) * (wanted / size)).astype(np.float32)


def dhash(images: npt.NDArray[Any]) -> Hashes:
    """dHash of grey or colour images (n, H, W[, C]), uint64 (n,)."""
    small = resized(grey(images), 8, 9)
    return _bits(small[:, :, 1:] > small[:, :, :-1])


def phash(images: npt.NDArray[Any]) -> Hashes:
    """pHash of grey or colour images (n, H, W[, C]), uint64 (n,)."""
    cosines = np.cos(np.pi / 64 * np.outer(np.arange(8), 2 * np.arange(32) + 1)).astype(np.float32)
    low = ((cosines @ resized(grey(images), 32, 32)) @ cosines.T).reshape(-1, 64)
    return _bits(low > np.median(low[:, 1:], axis=1, keepdims=True))


def _bits(bits: npt.NDArray[np.bool_]) -> Hashes:
    return np.packbits(bits.reshape(len(bits), 64), axis=1, bitorder="little").view("<u8")[:, 0].astype(np.uint64)


def hamming(one: Hashes, other: Hashes) -> npt.NDArray[np.uint8]:
    """How many bits differ, element by element (with broadcasting)."""
    return np.bitwise_count(one ^ other)


def nearest_hashes(
    queries: Hashes, references: Hashes, k: int, *, tiles: tuple[int, int] = TILES
) -> tuple[Rows, npt.NDArray[np.uint8]]:
    """For each query the `k` references with the fewest different bits, and how many: (n, k), nearest first."""

    def distance(q: slice, r: slice) -> npt.NDArray[np.uint8]:
        return hamming(queries[q, None], references[None, r])

    return _nearest(len(queries), len(references), k, distance, tiles)


def unit(vectors: npt.ArrayLike) -> Single:
    """Rows less their mean, of length 1, so that their products are correlations; rows that are constant but for
    rounding become zeros.
    """
    rows = np.array(vectors, np.float32)
    rows = rows.reshape(len(rows), int(np.prod(rows.shape[1:])))
    least = np.maximum(1e-4, 4e-6 * np.sqrt(np.einsum("nd,nd->n", rows, rows)))[:, None]
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > least)


def nearest(
    queries: Single, references: Single, k: int, *, skip_self: bool = False, tiles: tuple[int, int] = TILES
) -> tuple[Rows, Single]:
    """For each query the `k` references of largest scalar product, and the products, (n, k), largest first.

    Rows of length 1 (`unit`) make them correlations.

    Args:
        skip_self: queries are the references, and none is its own neighbour.
    """

    def distance(q: slice, r: slice) -> Single:
        found: Single = -(queries[q] @ references[r].T)
        if skip_self and q.start < r.stop and r.start < q.stop:
            same = np.arange(max(q.start, r.start), min(q.stop, r.stop, len(queries)))
            found[same - q.start, same - r.start] = np.inf
        return found

    index, found = _nearest(len(queries), len(references), min(k, len(references) - skip_self), distance, tiles)
    return index, -found


def _nearest(
    queries: int, references: int, k: int, distance: Any, tiles: tuple[int, int]
) -> tuple[Rows, npt.NDArray[Any]]:
    """The `k` smallest distances a query, ties by position; one tile of each side at a time.

    Distance and position are one number, so that the smallest are found without sorting all: bits of a float32 in an
    order that integers share, or a count of bits, above 32 bits of position.
    """
    k = max(0, min(k, references))
    kind = distance(slice(0, 0), slice(0, 0)).dtype
    kept = np.empty((queries, k), np.uint64)
    for q in _tiles(queries, tiles[0]):
        best = np.empty((q.stop - q.start, 0), np.uint64)
        for r in _tiles(references, 8 * tiles[1]):
            keys = _ordered(distance(q, r)).astype(np.uint64) << np.uint64(32) | np.arange(
                r.start, r.stop, dtype=np.uint64
            )
            best = np.concatenate([best, keys], axis=1)
            if best.shape[1] > k:
                best = np.partition(best, k - 1, axis=1)[:, :k] if k else best[:, :0]
        kept[q] = np.sort(best, axis=1)
    found = _ordered((kept >> np.uint64(32)).astype(np.uint32), kind)
    return (kept & np.uint64(0xFFFFFFFF)).astype(np.int64), found


def _ordered(values: npt.NDArray[Any], back_to: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
    """float32 -> uint32 in the same order, and back; counts of bits stay as they are."""
    if np.dtype(back_to or values.dtype) != np.float32:
        return values if back_to is None else values.astype(back_to)
    sign = np.uint32(0x80000000)
    if back_to is None:
        bits = np.ascontiguousarray(values).view(np.uint32)
        return np.where(bits & sign, ~bits, bits | sign)
    return np.where(values & sign, values ^ sign, ~values).view(np.float32)


def _tiles(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


@dataclass(frozen=True, eq=False)
class Matches:
    """The references that each query looks most like, the best first.

    Attributes:
        ranked: int64 (n, KEPT) positions among the references; -1 where there is none.
        alike: float32 (n, KEPT) correlations with them, each of its best view; -1 where there is none.
        mirrored: bool (n,), whether the best view of the first is mirrored.
    """

    ranked: Rows
    alike: Single
    mirrored: npt.NDArray[np.bool_]

    @property
    def index(self) -> Rows:
        """The best of each query, (n,)."""
        return self.ranked[:, 0]

    @property
    def correlation(self) -> Single:
        """That of the best, (n,)."""
        return self.alike[:, 0]


def coarse(images: Single) -> Single:
    """The embedding that proposes pairs by their pixels: 8 x 8 means of grey images (n, S, S), see `unit`."""
    return unit(resized(images, 8, 8))


def propose(
    queries: Single, references: Single, k: int, features: tuple[Single, Single] | None = None
) -> npt.NDArray[np.int64]:
    """References that may be the query, or its mirror image: int64 (n, candidates), some of them twice.

    Args:
        queries, references: grey images (n, S, S).
        k: candidates by pixels, half as many by pHash, and half as many by `features` (rows of length 1 of queries and
            references) where given.
    """
    known, hashes = coarse(references), phash(references)
    found = []
    for images in (queries, queries[:, :, ::-1]):
        found += [nearest(coarse(images), known, k // 2)[0], nearest_hashes(phash(images), hashes, k // 4)[0]]
    if features is not None:
        found.append(nearest(*features, k // 2)[0])
    return np.concatenate(found, axis=1)


def match(
    queries: Single,
    references: Single,
    candidates: Rows | None = None,
    *,
    skip: Sequence[int] | Rows | None = None,
    tiles: tuple[int, int] = TILES,
) -> Matches:
    """The references that each query looks most like, each in the best of 54 views; ties by position.

    Args:
        queries, references: grey images float32 (n, S, S) of one side.
        candidates: int64 (n, c): the references to compare each query with; by default all.
        skip: a reference for each query that is not compared (itself).
    """
    plain = _describe(references, [_VIEWS.index((False, 1, 0, 0))])[:, 0]
    ranked, alike = np.full((len(queries), KEPT), -1, np.int64), np.full((len(queries), KEPT), -1, np.float32)
    mirrored = np.zeros(len(queries), bool)
    skipped = np.full(len(queries), -1) if skip is None else np.asarray(skip, np.int64)
    for q in _tiles(len(queries), tiles[0]) if len(references) else ():
        views = _describe(queries[q])
        if candidates is None:
            for r in _tiles(len(references), tiles[1]):
                known = plain[r].T
                best = views[:, 0] @ known
                for number in range(1, len(_VIEWS)):
                    np.maximum(best, views[:, number] @ known, out=best)
                inside = np.flatnonzero((skipped[q] >= r.start) & (skipped[q] < r.stop))
                places = np.broadcast_to(np.arange(r.start, r.stop), best.shape).copy()
                best[inside, skipped[q][inside] - r.start] = -1
                places[inside, skipped[q][inside] - r.start] = -1
                ranked[q], alike[q] = _first(
                    np.concatenate([ranked[q], places], axis=1), np.concatenate([alike[q], best], axis=1)
                )
        else:
            for row, given in enumerate(candidates[q]):
                wanted = np.unique(given[given != skipped[q.start + row]])
                best = (plain[wanted] @ views[row].T).max(axis=1, initial=-1)
                one = slice(q.start + row, q.start + row + 1)
                ranked[one], alike[one] = _first(
                    np.concatenate([ranked[one], wanted[None]], axis=1),
                    np.concatenate([alike[one], best[None]], axis=1),
                )
        by_view = np.einsum("nvd,nd->nv", views, plain[ranked[q, 0]])
        mirrored[q] = (by_view.argmax(axis=1) >= len(_VIEWS) // 2) & (ranked[q, 0] >= 0)
    return Matches(ranked, alike, mirrored)


def _first(places: Rows, correlations: Single) -> tuple[Rows, Single]:
    """The `KEPT` columns of largest correlation in each row; of equal ones the first, and no place (-1) last."""
    order = np.argsort(np.where(places < 0, 2, -correlations), axis=1, kind="stable")[:, :KEPT]
    return np.take_along_axis(places, order, 1), np.take_along_axis(correlations, order, 1)


def _describe(images: Single, views: Sequence[int] = range(len(_VIEWS))) -> Single:
    """Views of grey images (n, S, S), as rows of length 1: (n, views, (S / 2)^2)."""
    side = images.shape[1]
    half = max(side // 2, 1)
    found = np.empty((len(images), len(views), half * half), np.float32)
    left: dict[tuple[int, int], Single] = {}
    for i, number in enumerate(views):
        mirror, zoom, y, x = _VIEWS[number]
        if (zoom, y) not in left:
            left[zoom, y] = _axis(side, zoom, y, False) @ images
        found[:, i] = (left[zoom, y] @ _axis(side, zoom, x, mirror).T).reshape(len(images), half * half)
    return unit(found.reshape(-1, half * half)).reshape(found.shape)


@cache
def _axis(side: int, zoom: int, shift: int, mirror: bool) -> Single:
    """(side / 2, side): one axis mirrored, zoomed about its middle, moved, blurred and halved; edges are repeated."""
    place = np.arange(side)
    moved = np.clip(place - shift, 0, side - 1)
    at = np.clip((moved - (side - 1) / 2) / ZOOM ** (zoom - 1) + (side - 1) / 2, 0, side - 1)
    low = np.minimum(at.astype(np.int64), side - 1)
    high = np.minimum(low + 1, side - 1)
    taken = np.zeros((side, side))
    taken[place, low] += 1 - (at - low)
    taken[place, high] += at - low
    blur = np.exp(-0.5 * ((place[:, None] - place) / _BLUR) ** 2)
    blur /= blur.sum(axis=1, keepdims=True)
    whole = _area(side, max(side // 2, 1)) @ blur @ taken
    return np.ascontiguousarray(whole[:, ::-1] if mirror else whole, dtype=np.float32)
