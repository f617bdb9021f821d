"""The report in a folder and the pages of its analyses link to each other, whichever was written first.

A finished file has a pair of comments, `<!-- NAME -->` and `<!-- /NAME -->`, between which its links are put in anew:
nothing has to be computed or shown again.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydt.base import StoreError, read_json, write_atomic
from pydt.reporting.html_templates import template
from pydt.reporting.page import NAME
from pydt.reporting.text import legible

PAGES = "analyses"
"""Folder of the pages, beside the report."""
REPORT = "report.html"
INDEX = "index.json"
"""The entries of the index of pages: a list of (name, {"title", "question", "answer", "why"})."""
ENTRY = ("title", "question", "answer")
"""What an entry says of a page that was made."""
_LARGEST_INDEX = 1 << 22  # bytes; a thousand pages have a tenth of that


def listed(folder: Path) -> dict[str, dict[str, str]]:
    """The entries of index.json in a folder of pages whose pages still exist, or were absent; none if it is damaged."""
    entries: dict[str, dict[str, str]] = {}
    try:
        found = read_json(folder / INDEX, [(str, {str: str})], _LARGEST_INDEX)
        for name, entry in found:
            made = (folder / f"{name}.html").is_file() if NAME.fullmatch(name) else None
            keys = ENTRY if made and "title" in entry else ("question",)
            if made or (made is False and "why" in entry):
                entries[name] = {key: entry[key] for key in (*keys, "why") if key in entry}
    except (FileNotFoundError, StoreError):
        return {}
    return entries


def link_pages(report: Path, folder: Path) -> None:
    """Put links to the pages of a folder into a report, and a link to the report beside the folder into their index.
    What is not there, or has no place for links, is left as it is.

    Raises:
        StoreError: a file cannot be written.
    """
    shown = [
        {"name": name, "title": legible(entry["title"]), "question": legible(entry["question"])}
        for name, entry in listed(folder).items()
        if "title" in entry
    ]
    shown = shown if (folder / "index.html").is_file() else []
    at = Path(os.path.relpath(folder, report.parent)).as_posix()
    _put(report, "analyses", template("page_links.html.j2").render(pages=shown, folder=at) if shown else "")
    there = (folder.parent / REPORT).is_file()
    _put(folder / "index.html", "report", f'The first answer is <a href="../{REPORT}">the report</a>.' * there)


def _put(path: Path, name: str, links: str) -> None:
    """Replace what stands between a file's comments of a name."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return
    before, opening, rest = text.partition(f"<!-- {name} -->")
    old, closing, after = rest.partition(f"<!-- /{name} -->")
    if closing and old != links:
        write_atomic(path, (before + opening + links + closing + after).encode())
