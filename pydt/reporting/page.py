"""A page as an analysis hands it over: `Page`, and the blocks that it shows: `Images`, `Table`, `Intervals`, `Curve`,
`Multiples`, `Scatter`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pydt.base import ConfigError

PICTURES = 96
"""Pictures shown of a grid."""
LINES = 8
"""Series shown of a curve."""
PANELS = 24
"""Panels shown of small multiples."""
MARKS = 60
"""A curve of more points is drawn without marks."""
BARS = 200
"""Of more points of a scatter only findings have bars."""
DOTS = 2000
"""Points drawn of a scatter."""
POINTS = 300
"""Of a curve of more points, so many evenly spaced ones are drawn."""
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,60}")
"""Of a page and, before ".csv", of its files."""


@dataclass(frozen=True, eq=False)
class Images:
    """A grid of pictures.

    Attributes:
        images: uint8 (n, H, W), (n, H, W, C) with C = 1, 3 or 4, or a sequence of such pictures of different sizes.
        captions: one for each tile.
        title, note: what stands above the grid.
        together: consecutive pictures of one tile: 2 for pairs.
        places: where each picture lies, as in `pydt.data.places`; told when it is opened.
        beside: so many tiles stand apart, before the others: what these are to be compared with.
        heads: names of what stands apart and of the others.
    """

    images: np.ndarray | Sequence[np.ndarray]
    captions: Sequence[str]
    title: str
    note: str = ""
    together: int = 1
    places: Sequence[str] = ()
    beside: int = 0
    heads: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        if len(self.places) not in (0, len(self.images)):
            wrong = f"{len(self.places)} places of {len(self.images)} pictures"
            raise ConfigError(wrong, f"Images {self.title!r}", "give one place for each picture")
        if self.together < 1 or len(self.images) != self.together * len(self.captions):
            wrong = f"{len(self.images)} pictures, {len(self.captions)} captions, {self.together} together"
            raise ConfigError(wrong, f"Images {self.title!r}", "give one caption for each picture, or for each tile")


@dataclass(frozen=True)
class Column:
    """One column of a table and of the CSV file beside it.

    Attributes:
        name: its head in both.
        value: record -> the CSV file's value, or an attribute's name; by default the attribute called `name`.
        shown: record -> what the table shows, if that is another value.
        scale: the table shows the value times this: 100 for fractions in percent.
        digits: decimals of the table's floats, by default as the column needs.
        only: "table" or "csv" for a column that the other lacks.
    """

    name: str
    value: Callable[[Any], Any] | str | None = None
    shown: Callable[[Any], Any] | None = None
    digits: int | None = None
    only: str = ""
    scale: float = 1

    def of(self, record: Any) -> Any:
        """The value of a record."""
        if callable(self.value):
            return self.value(record)
        return getattr(record, self.value or self.name)

    def in_table(self, record: Any) -> Any:
        """What the table shows of a record."""
        if self.shown is not None:
            return self.shown(record)
        value = self.of(record)
        return value if value is None or self.scale == 1 else self.scale * value


def csv_of(records: Iterable[Any], columns: Sequence[Column]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Heads and rows of a CSV file, as `Page.csv` takes them: one row a record."""
    own = [column for column in columns if column.only != "table"]
    return [column.name for column in own], [tuple(column.of(record) for column in own) for record in records]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of texts, numbers and None. Floats are shown with `digits` decimals, by default as each column needs."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str
    note: str = ""
    digits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ConfigError("rows of another length", f"Table {self.title!r}", "give one value for each column")

    @staticmethod
    def of(records: Iterable[Any], columns: Sequence[Column], title: str, note: str = "") -> Table:
        """The table of `records`, one row each; `csv_of` makes the CSV file of the same columns."""
        own = [column for column in columns if column.only != "csv"]
        rows = [tuple(column.in_table(record) for column in own) for record in records]
        digits = {column.name: column.digits for column in own if column.digits is not None}
        return Table([column.name for column in own], rows, title, note, digits)


@dataclass(frozen=True, eq=False)
class Intervals:
    """Values with 95 % intervals, one below the other in the order given.

    Attributes:
        names, values, low, high: one for each line; NaN or None where a number is missing.
        unit: of the values.
        title, note: what stands above.
        marked: which lines are findings (q < 0.05, say): filled and coloured by their sign; the others are hollow.
        images: by name, uint8 (n, H, W[, C]) pictures of the line; the first three are shown.
        places: by name, where each of its pictures lies.
        noise: half the width of the band around zero in which 95 of 100 lines without any effect fall.
    """

    names: Sequence[str]
    values: Any
    low: Any
    high: Any
    unit: str
    title: str
    note: str = ""
    marked: Sequence[bool] | np.ndarray = ()
    images: Mapping[str, np.ndarray] | None = None
    noise: float | None = None
    places: Mapping[str, Sequence[str]] | None = None

    def __post_init__(self) -> None:
        columns = (self.names, self.values, self.low, self.high, *([self.marked] if len(self.marked) else []))
        if len({len(column) for column in columns}) > 1:
            raise ConfigError("lists of different lengths", f"Intervals {self.title!r}", "give one value for each name")


@dataclass(frozen=True, eq=False)
class Curve:
    """Lines with bars.

    Attributes:
        series: by name, (x, y, low, high), each (n,), low and high None where there is no interval; up to `LINES` are
            shown. The first has the colour of better, the second of worse, the third of a control, the fourth is black.
        control: name of the series drawn as a control, if it is not the third.
        x_label, y_label: of the scales, with the unit.
        title, note: what stands above.
        log, log_y: whether the scale of x, or of y, whose values are then above 0, is logarithmic.
        line: x of a vertical line, if there is one.
        bars: what low and high are.
    """

    series: Mapping[str, tuple[Any, Any, Any, Any]]
    x_label: str
    y_label: str
    title: str
    note: str = ""
    control: str | None = None
    log: bool = False
    log_y: bool = False
    line: float | None = None
    bars: str = "95 % bars"

    def __post_init__(self) -> None:
        for name, line in self.series.items():
            if len({len(part) for part in line if part is not None}) > 1 or len(line) != 4:
                wrong = f"series {name!r} has lists of different lengths"
                raise ConfigError(wrong, f"Curve {self.title!r}", "give one value for each x")


@dataclass(frozen=True, eq=False)
class Multiples:
    """Small multiples: one curve over a few ordered places in each panel, all on one scale that holds 0.

    The first `PANELS` are shown. Intervals and values that would make the others too small to read are cut at the edge
    of the scale, and the page says so.

    Attributes:
        names: one for each panel.
        x: texts of the places ("1", "2", "5", "all"), evenly spaced; at least one.
        values, low, high: (panels, places), with 95 % intervals; NaN or None where a number is missing.
        unit: of the values.
        x_label: what the places are.
        title, note: what stands above.
        marked: which panels are findings (q < 0.05, say): filled, coloured by the sign of the value that is farthest
            from 0 in units of its interval; the others are hollow. Or (panels, places), which points are findings,
            each coloured by its own sign.
        captions: a short text below each name.
        images: by name, uint8 (n, H, W[, C]) pictures of the panel; the first three are shown.
        places: by name, where each of its pictures lies.
    """

    names: Sequence[str]
    x: Sequence[str]
    values: Any
    low: Any
    high: Any
    unit: str
    x_label: str
    title: str
    note: str = ""
    marked: Sequence[bool] | np.ndarray = ()
    captions: Sequence[str] = ()
    images: Mapping[str, np.ndarray] | None = None
    places: Mapping[str, Sequence[str]] | None = None

    def __post_init__(self) -> None:
        where = f"Multiples {self.title!r}"
        if not len(self.x):
            raise ConfigError("x is empty", where, "give the text of at least one place")
        parts = {"values": self.values, "low": self.low, "high": self.high}
        parts |= {"marked": self.marked} if len(self.marked) else {}
        parts |= {"captions": self.captions} if len(self.captions) else {}
        for name, part in parts.items():
            if len(part) != len(self.names):
                wrong = f"{name} has length {len(part)} for {len(self.names)} panels"
                raise ConfigError(wrong, where, "give one for each panel")
            if name in ("values", "low", "high") and any(np.shape(row) != (len(self.x),) for row in part):
                raise ConfigError(f"a row of {name} does not have {len(self.x)} numbers", where, "give one for each x")
        if any(np.shape(one) not in ((), (len(self.x),)) for one in self.marked):
            raise ConfigError(f"a row of marked does not have {len(self.x)} entries", where, "give one for each x")


@dataclass(frozen=True, eq=False)
class Scatter:
    """Points with 95 % intervals along both axes, each named when the mouse rests on it.

    Attributes:
        names: one for each point.
        x, y: (values, low, high), each (points,); NaN or None where a number is missing.
        x_label, y_label: of the scales, with the unit.
        title, note: what stands above.
        marked: which points are findings: filled and named; the others are hollow.
        mark: what a finding is, for the legend.
        alike: whether both axes have one unit, so that a line shows where x and y are equal.
    """

    names: Sequence[str]
    x: tuple[Any, Any, Any]
    y: tuple[Any, Any, Any]
    x_label: str
    y_label: str
    title: str
    note: str = ""
    marked: Sequence[bool] | np.ndarray = ()
    mark: str = "finding"
    alike: bool = False

    def __post_init__(self) -> None:
        parts = (self.names, *self.x, *self.y, *([self.marked] if len(self.marked) else []))
        if len(self.x) != 3 or len(self.y) != 3 or len({len(part) for part in parts}) > 1:
            raise ConfigError("lists of different lengths", f"Scatter {self.title!r}", "give one value for each name")


Block = Images | Table | Intervals | Curve | Multiples | Scatter


@dataclass(frozen=True, eq=False)
class Page:
    """The result of an analysis for a reader.

    Attributes:
        name: stem of the file: small letters, digits, - and _.
        title: a few words.
        question: what the analysis answers, one sentence.
        answer: plain sentences with n, errors and control; the first is short and stands alone in the index.
        detail: further sentences, in a fold below them.
        blocks: figures, tables and pictures, in order.
        csv: by file name ("values.csv"), (columns, rows): every number of the page.
        method: formula and the paper's section; lines that begin with four spaces are shown as formulas.
    """

    name: str
    title: str
    question: str
    answer: Sequence[str]
    blocks: Sequence[Block]
    csv: Mapping[str, tuple[Sequence[str], Iterable[Sequence[Any]]]]
    method: str
    detail: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name) or self.name == "index":
            raise ConfigError(f"is {self.name!r}", "Page.name", "use small letters, digits, - and _")
        if not self.answer or isinstance(self.answer, str):
            raise ConfigError("is no list of sentences", f"Page {self.name!r}, answer", "give at least one sentence")
        for file in self.csv:
            if not file.endswith(".csv") or not NAME.fullmatch(file[:-4]):
                raise ConfigError(f"{file!r}", f"Page {self.name!r}, csv", "call the files like values.csv")
