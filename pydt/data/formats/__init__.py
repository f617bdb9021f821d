"""Containers of images: one module each, which gives an `ExampleTable`.

READERS has those that lie at a path, under the names by which plan files call them. A new one is a module with `read`,
`is_here` and `look`, and a line here; `Dataset.from_NAME` documents its `read` for users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydt.data.formats import arrays, folder, tar
from pydt.data.pixels import BACKGROUND
from pydt.data.table import ExampleTable


@dataclass(frozen=True)
class Reader:
    """One container.

    Attributes:
        read: makes the table of a path and options by keyword.
        options: those that a plan file may give.
        is_here: whether a path holds such a container.
        look: makes the table of a path and a background alone; bad images are left out.
    """

    read: Callable[..., ExampleTable]
    options: tuple[str, ...]
    is_here: Callable[[Path], bool]
    look: Callable[[Path, str], ExampleTable]


_TAR = ("classes", "columns", "label", "caption", "bad", "background", "name")
_IMAGES = ("labels", "classes", "columns", "captions", "background", "name")
READERS = {
    "images": Reader(arrays.read, _IMAGES, arrays.is_here, arrays.look),
    "tar": Reader(tar.read, _TAR, tar.is_here, tar.look),
    "folder": Reader(folder.read, ("bad", "background", "captions", "columns"), folder.is_here, folder.look),
}


def look(place: Path, background: str = BACKGROUND) -> ExampleTable:
    """The images at a path, by the first reader that finds its container there; bad ones are left out.

    Raises:
        DataError: none does.
    """
    found = next((reader for reader in READERS.values() if reader.is_here(place)), READERS["folder"])
    return found.look(place, background)
