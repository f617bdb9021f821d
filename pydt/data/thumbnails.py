"""Examples of a data set as pictures for pages."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pydt.base import DataError
from pydt.data.dataset import Dataset
from pydt.data.image_files import undecodable
from pydt.data.packing.array import decode


def pictures(
    dataset: Dataset, ids: npt.ArrayLike, side: int = 96, passed: set[str] | None = None
) -> list[npt.NDArray[np.uint8]]:
    """Examples as they are shown: uint8 (H, W, C) as stored; files decoded, their short side `side`, cut to a square.

    Args:
        passed: gets the places of files that cannot be decoded, for which a grey square is shown.

    Raises:
        DataError: a file that cannot be decoded, without `passed`.
    """
    ids = np.asarray(ids, np.int64)
    if dataset.images is not None:
        return [np.asarray(dataset.images[position]) for position in dataset.positions[ids]]
    return [
        _decoded(dataset, i, data, side, passed) for i, data in zip(ids.tolist(), dataset.bytes_of(ids), strict=True)
    ]


def _decoded(
    dataset: Dataset, i: int, data: npt.NDArray[np.uint8], side: int, passed: set[str] | None
) -> npt.NDArray[np.uint8]:
    try:
        return decode(data.tobytes(), side, False, dataset.background)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises anything on damaged files
        if passed is not None:
            passed.add(dataset.place_of(i))
            return np.full((side, side, 3), 128, np.uint8)
        raise DataError(undecodable(error), dataset.place_of(i), "restore or remove the file") from error
