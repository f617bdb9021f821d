"""What a layout of released files says: both known ones write one .npy a kind of output, beside a flag for each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pydt.base import DataError
from pydt.store.ensemble_files import Read, read_array

COMPLETED = "_completed.npy"
_LARGEST = 1 << 32  # bytes of the chosen rows of a file


class Kind(NamedTuple):
    """Unit, scale and direction of a kind of output, as of `pydt.Measure`."""

    unit: str
    scale: float = 1.0
    higher_is_better: bool = True


@dataclass(frozen=True)
class Layout:
    """How released files are read.

    Attributes:
        kinds: of outputs, by the word that names their file or member.
        refused: kinds that are no measure, and what to give instead.
        by: what a group is, from their number.
        named: what an output is called, from its file.
    """

    kinds: Mapping[str, Kind]
    refused: Mapping[str, str]
    by: Callable[[int], str]
    named: Callable[[Read], str]

    def described(self, masks: Read, outputs: Read) -> dict[str, Any]:
        """What `pydt.Store.from_arrays` is told of the outputs; raises DataError where they are no measure."""
        for key, mend in self.refused.items():
            if key in outputs.key:
                raise DataError(f"{outputs.key!r} is no number for each example", str(outputs.path), mend)
        kind = next((kind for key, kind in self.kinds.items() if key in outputs.key), None)
        if kind is None:
            mend = f"give outputs that are called one of: {', '.join(self.kinds)}; or leave the layout out"
            raise DataError(f"{outputs.key!r} is no output of this layout", str(outputs.path), mend)
        columns = masks.array.shape[-1] if masks.array.ndim else 0
        return {**kind._asdict(), "by": self.by(columns), "name": self.named(outputs)}


def completed(outputs: Read) -> npt.NDArray[np.bool_] | None:
    """Which rows were written, by the flags beside the outputs, bool (models,); None where there are none."""
    flags = outputs.path.with_name(COMPLETED)
    if outputs.path.suffix != ".npy" or not flags.is_file():
        return None
    found = read_array(str(flags)).array
    if found.shape != outputs.array.shape[:1] or found.dtype.kind not in "biu":
        wrong = f"of shape {found.shape} for outputs of shape {outputs.array.shape}"
        raise DataError(wrong, str(flags), "it holds a flag for each row")
    return np.asarray(found) != 0


def chosen(array: npt.NDArray[Any], rows: npt.NDArray[np.bool_], where: str) -> npt.NDArray[Any]:
    """Some rows: a view where they are the first ones, else a copy of limited size."""
    many = int(rows.sum())
    if rows[:many].all():
        return array[:many]
    if many * array[:1].nbytes > _LARGEST:
        mend = "numpy.save the completed rows of masks and outputs in parts, and import these"
        raise DataError(f"{many:,} completed rows among {len(rows):,} are too large to be copied", where, mend)
    return np.asarray(array[rows])
