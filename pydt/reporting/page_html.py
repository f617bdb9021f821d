"""The HTML of an analysis's `Page` and of the index of all pages, in the style of the report.

A page is one file that needs no network. What is long is cut, and says so; the CSV files beside it are complete.
"""

from __future__ import annotations

import html
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from pydt.base import ConfigError, as_path, write_atomic
from pydt.reporting.csv_files import csv_file
from pydt.reporting.html_templates import FILTERED, template
from pydt.reporting.page import (
    BARS,
    DOTS,
    LINES,
    MARKS,
    PANELS,
    PICTURES,
    POINTS,
    Block,
    Curve,
    Images,
    Intervals,
    Multiples,
    Page,
    Scatter,
    Table,
)
from pydt.reporting.page_links import ENTRY, INDEX, REPORT, link_pages, listed
from pydt.reporting.pictures import inlined
from pydt.reporting.svg import Axis, Dot, LogAxis, Series, axis_row, ground, interval_row, panel, plot, scatter, symbol
from pydt.reporting.text import DASH, MINUS, digits_for, ends, finite, legible, number, tied

ROWS = 40
"""Rows of a table, and of each end of an interval plot, that the page's script shows first."""
LISTED = 1000
"""Rows of a table or an interval plot that are in the page."""
SIDE = 96
"""Longest side of an embedded picture, in pixels."""
SMALL = 64
"""That of a picture in a line or a panel."""

_LONG = 20  # characters of a cell that may be broken into lines
_STYLES = (("better", "drop bottom"), ("worse", "drop top"), ("plain", "drop random"), ("ink", "full"))
_REACH = (2.0, 1.5)  # of the values and of the ends of their intervals, in small multiples
_HOLLOW = "plain second"
_FOUND = "ink"
_SPOKEN = 12  # points that the text for screen readers names
_MARKED = {"better": "finding, above 0", "worse": "finding, below 0", _HOLLOW: "no finding"}


def write_pages(
    pages: Sequence[Page],
    folder: str | os.PathLike[str],
    title: str,
    facts: Sequence[tuple[str, str]] = (),
    order: Sequence[str] = (),
    absent: Mapping[str, tuple[str, str]] = MappingProxyType({}),
) -> Path:
    """Write `folder`/NAME.html for each page, its CSV files as `folder`/NAME/FILE, and index.html that lists them.

    Pages that an earlier call wrote there stay listed.

    Args:
        pages: in the order of the index; pages of earlier calls follow.
        folder: made if it is missing.
        title: heading of every page.
        facts: (name, value): provenance, at the foot of every page.
        order: names of pages that come first in the index, in this order; each is followed by those whose names go on
            with a hyphen.
        absent: by name, (question, why): pages that could not be made; the index says why until they are.

    Returns:
        the path of index.html.

    Raises:
        StoreError: the folder cannot be written.
    """
    folder = as_path(folder, "pages", made=True)
    common = {"heading": legible(title), "facts": [(legible(k, 40), legible(str(v), 400)) for k, v in facts]}
    for page in pages:
        for file, (columns, rows) in page.csv.items():
            write_atomic(folder / page.name / file, csv_file(columns, rows))
        write_atomic(folder / f"{page.name}.html", template("page.html.j2").render(**_page(page), **common).encode())
    found = {page.name: dict(zip(ENTRY, (page.title, page.question, page.answer[0]), strict=True)) for page in pages}
    found |= {name: entry for name, entry in listed(folder).items() if name not in found}
    for name, (question, why) in absent.items():
        found[name] = {"question": question, **found.get(name, {}), "why": why}
    found = {name: found[name] for name in sorted(found, key=lambda name: _place(name, order))}
    write_atomic(folder / INDEX, json.dumps(list(found.items()), indent=1).encode())
    shown = [{"name": name, **{key: _said(text) for key, text in entry.items()}} for name, entry in found.items()]
    write_atomic(folder / "index.html", template("index.html.j2").render(pages=shown, **common).encode())
    link_pages(folder.parent / REPORT, folder)
    return folder / "index.html"


def _place(name: str, order: Sequence[str]) -> tuple[int, str]:
    """Where a page stands in the index; see `write_pages`."""
    found = [i for i, one in enumerate(order) if f"{name}-".startswith(f"{one}-")]
    return (max(found, key=lambda i: len(order[i])), name) if found else (len(order), "")


def _said(text: str, most: int = 1200) -> str:
    """A sentence as it is shown: legible, quantities not broken, true minus signs."""
    return tied(re.sub(r"(?<![\w.])-(?=\d)", MINUS, legible(text, most)))


def _page(page: Page) -> dict[str, Any]:
    """What the template needs of a page."""
    return {
        "title": legible(page.title),
        "question": _said(page.question),
        "sentences": [_said(sentence) for sentence in page.answer],
        "detail": [_said(sentence) for sentence in page.detail],
        "blocks": [_block(block) for block in page.blocks],
        "files": [(f"{page.name}/{file}", file) for file in page.csv],
        "method": list(_paragraphs(page.method)),
    }


def _paragraphs(text: str) -> Iterator[dict[str, Any]]:
    """Paragraphs of a method: consecutive lines joined; a line that begins with four spaces is a formula of its own."""

    def kind(line: str) -> str:
        return "" if not line.strip() else "formula" if line.startswith("    ") else "text"

    for what, lines in groupby(text.splitlines(), kind):
        parts = [line.strip() for line in lines]
        for part in {"formula": parts, "text": [" ".join(parts)]}.get(what, []):
            yield {"formula": what == "formula", "text": legible(part, 4000)}


def _block(block: Block) -> dict[str, Any]:
    shows = {Images: _images, Table: _table, Intervals: _intervals, Curve: _curve, Multiples: _multiples}
    shows |= {Scatter: _scatter}
    show = shows.get(type(block))
    if show is None:
        mend = "give Images, Table, Intervals, Curve, Multiples or Scatter"
        raise ConfigError(f"is of type {type(block).__name__}", "Page.blocks", mend)
    common = {"kind": type(block).__name__.lower(), "title": _said(block.title, 200)}
    return {**common, "note": _said(block.note) if block.note else "", **show(block)}  # type: ignore[operator]


def _images(block: Images) -> dict[str, Any]:
    tiles = []
    for i, caption in enumerate(block.captions[: max(1, PICTURES // block.together)]):
        own = [np.asarray(block.images[i * block.together + j]) for j in range(block.together)]
        places = block.places[i * block.together : (i + 1) * block.together]
        tiles.append({"pictures": inlined(own, SIDE, places), "caption": _said(caption, 80)})
    parts = [(block.heads[0], tiles[: block.beside]), (block.heads[1], tiles[block.beside :])]
    parts = [(_said(head, 80), part) for head, part in parts if part]
    return {"parts": parts, "left_out": len(block.captions) - len(tiles), "together": block.together}


def _table(block: Table) -> dict[str, Any]:
    rows = [[finite(value) for value in row] for row in block.rows[:LISTED]]
    columns = [[row[i] for row in rows] for i in range(len(block.columns))]
    texts = [any(isinstance(value, str) for value in column) for column in columns]
    digits = [block.digits.get(name, _digits(column)) for name, column in zip(block.columns, columns, strict=True)]

    def cell(value: Any, digits: int) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, int):
            return f"{value:,}".replace("-", "\u2212")
        if isinstance(value, float):
            least = 10.0**-digits
            return f"< {number(least, digits)}" if 0 < value < least / 2 else number(value, digits)
        return DASH if value is None else legible(str(value), 80)

    counted = [all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in c) for c in columns]
    shown = [[cell(value, digits[i]) for i, value in enumerate(row)] for row in rows]
    exact = [[f"{v:.6g}" if isinstance(v, float) and counted[i] else None for i, v in enumerate(row)] for row in rows]
    long = [any(len(row[i]) > _LONG for row in shown) for i in range(len(block.columns))]
    kinds = ["" if not text else "left long" if wide else "left" for text, wide in zip(texts, long, strict=True)]
    heads = [
        (legible(name, 40), kind, "number" if number_like else "text")
        for name, kind, number_like in zip(block.columns, kinds, counted, strict=True)
    ]
    return {
        "columns": heads,
        "rows": [list(zip(*row, strict=True)) for row in zip(shown, exact, strict=True)],
        "filter": len(rows) > FILTERED,
        "first": ROWS if len(rows) > ROWS else None,
        "left_out": len(block.rows) - len(rows),
        "total": len(block.rows),
    }


def _digits(values: Sequence[Any]) -> int:
    """Decimals that show three significant digits of a column's median number; at most five."""
    sizes = [abs(v) for v in values if isinstance(v, float) and v]
    return min(5, max(0, 2 - math.floor(math.log10(float(np.median(sizes)))))) if sizes else 2


def _floats(values: Any, n: int) -> list[float | None]:
    """The numbers as floats; None where they are missing or not finite."""
    return [None] * n if values is None else [finite(None if v is None else float(v)) for v in values]


def _intervals(block: Intervals) -> dict[str, Any]:
    total = len(block.names)
    values, low, high = (_floats(part, total) for part in (block.values, block.low, block.high))
    shown, pictured = ends(range(total), LISTED // 2), set(ends(range(total), ROWS))
    known = [v for i in shown for v in (values[i], low[i], high[i]) if v is not None] or [0.0]
    near = min(known) < max(known) - min(known) and max(known) > min(known) - max(known)
    axis = Axis.around([*known, 0.0] if near else known)
    sign = min(known) < 0
    digits = _digits_of(low, high)
    rows = []
    for i in shown:
        value, sure = values[i], len(block.marked) > 0 and bool(block.marked[i])
        kind = "plain" if not sure or not value else "better" if value > 0 else "worse"
        rows.append(
            {
                "name": legible(block.names[i], 60),
                "svg": interval_row(axis, value, low[i], high[i], kind),
                "value": number(value, digits, sign),
                "interval": _range(low[i], high[i], digits, sign),
                "sort": "" if value is None else f"{value:.6g}",
                "images": _thumbnails(block, i) if i in pictured else [],
            }
        )
    return {
        "rows": rows,
        "axis": axis_row(axis, sign),
        "ground": ground(axis, block.noise),
        "filter": total > FILTERED,
        "first": ROWS if total > 2 * ROWS else None,
        "listed": LISTED // 2 if len(shown) < total else None,
        "total": total,
        "unit": block.unit,
        "pictures": any(row["images"] for row in rows),
        "name_width": min(24, max([8] + [len(row["name"]) for row in rows])),
    }


def _digits_of(low: Sequence[float | None], high: Sequence[float | None]) -> int:
    """Decimals that show two significant digits of the median standard error of 95 % intervals."""
    widths = [(h - b) / 4 for b, h in zip(low, high, strict=True) if b is not None and h is not None]
    return digits_for(float(np.median(widths)) if widths else None)


def _range(low: float | None, high: float | None, digits: int, sign: bool) -> str:
    """An interval as text; a dash where an end is missing."""
    return DASH if low is None or high is None else f"{number(low, digits, sign)} to {number(high, digits, sign)}"


def _thumbnails(block: Intervals | Multiples, i: int) -> list[dict[str, Any]]:
    """The first three pictures of a line or a panel."""
    name = block.names[i]
    pictures = (block.images or {}).get(name)
    return [] if pictures is None else inlined(pictures[:3], SMALL, (block.places or {}).get(name, ())[:3])


_Point = tuple[float | None, float | None, float | None]
_NOTHING: _Point = (None, None, None)


def _multiples(block: Multiples) -> dict[str, Any]:
    columns = [[_floats(row, len(block.x)) for row in part[:PANELS]] for part in (block.values, block.low, block.high)]
    curves = [
        [p if p[0] is not None else _NOTHING for p in zip(*rows, strict=True)] for rows in zip(*columns, strict=True)
    ]
    axis = _common_axis(curves)
    known = [v for curve in curves for point in curve for v in point if v is not None]
    sign = min(known, default=0.0) < 0
    digits = _digits_of(*([v for row in part for v in row] for part in columns[1:]))
    places = [legible(text, 20) for text in block.x]
    bars = any(None not in point for curve in curves for point in curve)
    what = f"{legible(block.unit, 40)} against {legible(block.x_label, 80)}{', with 95 % intervals' if bars else ''}"
    panels, styles = [], set()
    for i, curve in enumerate(curves):
        marked: Any = block.marked[i] if len(block.marked) else False
        name, style = legible(block.names[i], 60), _HOLLOW
        if np.ndim(marked):
            own = [_style([point]) if one else _HOLLOW for one, point in zip(marked, curve, strict=True)]
        else:
            style = _style(curve) if marked else _HOLLOW
            own = [style] * len(curve)
        styles.update(own)
        label = f"{name}, {what}. {_spoken(places, curve, digits, sign)}."
        panels.append(
            {
                "name": name,
                "caption": _said(block.captions[i], 80) if len(block.captions) and block.captions[i] else "",
                "svg": panel(curve, axis, places, style, own, label, sign),
                "images": _thumbnails(block, i),
            }
        )
    legend = [(symbol(style, "circle"), text) for style, text in _MARKED.items() if style in styles]
    return {
        "panels": panels,
        "legend": legend if len(block.marked) else [],
        "what": tied(what),
        "beyond": any(not axis.low <= v <= axis.high for v in known),
        "pictures": any(one["images"] for one in panels),
        "left_out": len(block.names) - len(panels),
    }


def _common_axis(curves: Sequence[Sequence[_Point]]) -> Axis:
    """The scale of all panels: 0, and what lies within `_REACH` times the median panel's number farthest from 0."""
    known = [[(v, i > 0) for point in curve for i, v in enumerate(point) if v is not None] for curve in curves]
    farthest = sorted(max(abs(v) for v, _ in own) for own in known if own)
    median = min(farthest[len(farthest) // 2] if farthest else 0.0, 1e299) or 1e299
    held = [min(max(v, -_REACH[end] * median), _REACH[end] * median) for own in known for v, end in own]
    return Axis.around([0.0, *held], 0.06)


def _style(curve: Sequence[_Point]) -> str:
    """Better or worse, by the value that is farthest from 0 in units of its interval."""

    def distance(point: _Point) -> tuple[bool, float]:
        value, low, high = point
        if value is None or low is None or high is None:
            return False, abs(value or 0.0)
        return True, abs(value) / (high - low) if high > low else math.inf if value else 0.0

    value = max(curve, key=distance)[0]
    return _HOLLOW if not value else "better" if value > 0 else "worse"


def _spoken(places: Sequence[str], curve: Sequence[_Point], digits: int, sign: bool) -> str:
    """The numbers of a panel in words."""
    parts = []
    for place, (value, low, high) in zip(places, curve, strict=True):
        interval = "" if None in (low, high) else f" ({_range(low, high, digits, sign)})"
        parts.append(f"{place}: no value" if value is None else f"{place}: {number(value, digits, sign)}{interval}")
    return "; ".join(parts)


def _scatter(block: Scatter) -> dict[str, Any]:
    total = len(block.names)
    marked = [bool(one) for one in block.marked] or [False] * total
    columns = [_floats(part, total) for part in (*block.x, *block.y)]
    known = [i for i in range(total) if columns[0][i] is not None and columns[3][i] is not None]
    shown = sorted(sorted(known, key=lambda i: not marked[i])[:DOTS], key=lambda i: marked[i])  # findings on top
    ends_of = [[v for i in shown for part in own if (v := part[i]) is not None] for own in (columns[:3], columns[3:])]
    x_axis, y_axis = (Axis.around([0.0, *values], 0.06) for values in ends_of)
    digits = [_digits_of(*([part[i] for i in shown] for part in own[1:])) for own in (columns[:3], columns[3:])]
    dots, many = [], len(shown) > BARS
    for i in shown:
        both = [(own[0][i], own[1][i], own[2][i]) for own in (columns[:3], columns[3:])]
        told = [
            f"{number(v, d, True)} ({_range(low, high, d, True)})"
            for (v, low, high), d in zip(both, digits, strict=True)
        ]
        x, y = (one if marked[i] or not many else (one[0], None, None) for one in both)
        name = legible(block.names[i], 60)
        dots.append(Dot(name, x, y, marked[i], f"{name}: {'; '.join(told)}"))
    findings = [f"{dot.words}." for dot in dots if dot.marked][:_SPOKEN]
    label = f"{block.title}: {block.y_label}, vertical, against {block.x_label}, horizontal. {' '.join(findings)}"
    legend = [(symbol(_FOUND, "full"), legible(block.mark, 60))] if any(marked) else []
    legend += [(symbol(_HOLLOW, "circle"), "the others" if legend else "groups")]
    return {
        "svg": scatter(dots, x_axis, y_axis, (legible(block.x_label, 80), label), block.alike),
        "legend": legend,
        "y_label": legible(block.y_label, 80),
        "x_label": legible(block.x_label, 80),
        "alike": block.alike,
        "bars": "findings alone have bars" if many else "",
        "left_out": total - len(shown),
    }


def _curve(block: Curve) -> dict[str, Any]:
    names = list(block.series)[:LINES]
    lines = [_points(block.series[name]) for name in names]
    xs = sorted({point[0] for line in lines for point in line})
    heights = [v for line in lines for point in line for v in point[1:]]
    series = []
    for i, (line, name) in enumerate(zip(lines, names, strict=True)):
        style, shape = _STYLES[2 if name == block.control else i % len(_STYLES)]
        apart = 5 * (i - (len(lines) - 1) / 2) if len(xs) <= 12 else 0.0
        series.append(
            Series(
                style + (" second" if i >= len(_STYLES) else ""), shape, line, shift=apart, marked=len(line) <= MARKS
            )
        )
    x_axis = (LogAxis if block.log else Axis).around(xs, 0.07)
    y_axis = (LogAxis if block.log_y else Axis).around(heights, 0.08)
    label = html.escape(legible(f"{block.title}: {block.y_label} against {block.x_label}", 300), quote=True)
    words = (html.escape(legible(block.x_label)), "", label)
    return {
        "svg": plot(series, x_axis, y_axis, xs if len(xs) <= 12 or block.log else x_axis.ticks(6), words, block.line),
        "legend": [(symbol(one.style, one.shape), legible(name, 60)) for one, name in zip(series, names, strict=True)],
        "y_label": legible(block.y_label),
        "bars": legible(block.bars)
        if any(None not in point for one in series if one.marked for point in one.points)
        else "",
        "left_out": len(block.series) - len(names),
    }


def _points(line: tuple[Any, Any, Any, Any]) -> list[tuple[float, float, float | None, float | None]]:
    """The points with both coordinates, sorted by x; evenly spaced ones if there are more than POINTS."""
    columns = [_floats(part, len(line[0])) for part in line]
    found = [(x, y, low, high) for x, y, low, high in zip(*columns, strict=True) if x is not None and y is not None]
    found.sort(key=lambda point: point[0])
    if len(found) <= POINTS:
        return found
    return [found[i] for i in np.linspace(0, len(found) - 1, POINTS).round().astype(int).tolist()]
