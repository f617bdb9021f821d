"""A report and what belongs to it as one zip file, to send to somebody: the page, its numbers, the pages of analyses
and the kept lists, and nothing of the rows. Equal reports give equal bytes.
"""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

from pydt.base import StoreError, as_path, write_atomic
from pydt.reporting import COLUMNS, PAGES, REPORT, listed_pages
from pydt.store import Store

_KEPT = "kept"  # the folder of kept lists, and what their files end with
_ENDS = (".txt", ".csv", ".npy", ".json")
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip file can say


def share(store: Store | str | os.PathLike[str], file: str | os.PathLike[str] | None = None) -> Path:
    """Write the report in a store's folder, its CSV files and results.json, the pages of analyses and the kept lists
    into one zip file, in a folder of the store's name; links between them work where it is unpacked.

    Args:
        store: a store, or its folder.
        file: of the zip; by default NAME-report.zip in the store's folder, NAME being that of the folder.

    Returns:
        the path of the zip file.

    Raises:
        StoreError: there is no report yet, or the file cannot be written.
    """
    folder = (store if isinstance(store, Store) else Store(store)).folder
    if not (folder / REPORT).is_file():
        raise StoreError("has no report", str(folder), f"write it first: pydt report {folder}")
    name = folder.resolve().name or "pydt"
    place = folder / f"{name}-report.zip" if file is None else as_path(file, "share", made=True)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in _files(folder):
            entry = zipfile.ZipInfo(f"{name}/{path.as_posix()}", _DATE)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            packed.writestr(entry, (folder / path).read_bytes())
    write_atomic(place, data.getbuffer())
    return place


def _files(folder: Path) -> list[Path]:
    """The files of a report, relative to its folder: the page, its numbers, then pages of analyses and kept lists."""
    found = [folder / name for name in (REPORT, "results.json", *COLUMNS)]
    pages = [name for name, entry in listed_pages(folder / PAGES).items() if "title" in entry]
    found += [folder / PAGES / "index.html"] * bool(pages)
    for name in pages:
        found += [folder / PAGES / f"{name}.html", *sorted((folder / PAGES / name).glob("*.csv"))]
    found += sorted(path for path in (folder / _KEPT).glob("*") if path.name.endswith(_ENDS))
    root = folder.resolve()  # a store that came from others may have links to files that are not to be sent
    return [path.relative_to(folder) for path in found if path.is_file() and root in path.resolve().parents]
