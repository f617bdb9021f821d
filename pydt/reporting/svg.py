"""Figures as inline SVG: intervals, curves, histograms; own code, so that they follow the page's colours and width.

Horizontal positions are percentages and vertical ones pixels, so a figure fills any width while its text keeps its
size. Colours are CSS classes of the page (`better`, `worse`, `plain`), for light and dark screens and for print.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from pydt.base import t975
from pydt.reporting.metric import ACCURACY, Metric
from pydt.reporting.text import number

_LONGEST = 18  # characters of a name beside a point, on a phone
PANEL_HEIGHT = 152
"""Of one of several small curves, in pixels."""
SCATTER_HEIGHT = 400
"""Of points in two dimensions, in pixels."""


@dataclass(frozen=True)
class Axis:
    """A linear scale from values to 0..100 %."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float | None], margin: float = 0.04) -> Axis:
        """The scale that holds all the values, with a margin on both sides; never empty."""
        known = [v for v in values if v is not None]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        pad = (high - low) * margin or max(abs(low) * 0.05, 1e-9)
        return cls(low - pad, high + pad)

    def at(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 3)

    def percent(self, value: float) -> str:
        return f"{min(100.0, max(0.0, self.at(value))):g}%"

    def ticks(self, about: int = 5) -> list[float]:
        """Round values inside the scale, a step of 1, 2 or 5 times a power of ten apart."""
        raw = (self.high - self.low) / max(about, 1)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * 0.999)
        return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]

    def tick_digits(self, about: int = 5) -> int:
        ticks = self.ticks(about)
        return max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) if len(ticks) > 1 else 2

    def texts(self, about: int = 5) -> list[str]:
        """The numbers of the ticks."""
        return [number(tick, self.tick_digits(about)) for tick in self.ticks(about)]


class LogAxis(Axis):
    """A logarithmic scale of values above 0; `low` and `high` are logarithms."""

    @classmethod
    def around(cls, values: Sequence[float | None], margin: float = 0.04) -> LogAxis:
        linear = Axis.around([None if v is None else math.log10(v) for v in values], margin)
        return cls(linear.low, linear.high)

    def at(self, value: float) -> float:
        return super().at(math.log10(value))

    def ticks(self, about: int = 5) -> list[float]:
        """Powers of ten inside the scale; with their 2 and 5 fold, or their 1 to 9 fold, where they are too few."""
        powers = range(math.floor(self.low), math.ceil(self.high))
        for parts in ((1,), (1, 2, 5), range(1, 10)):
            found = [part * 10.0**power for power in powers for part in parts]
            inside = [tick for tick in found if self.low <= math.log10(tick) <= self.high]
            if len(inside) >= 3:
                break
        return inside

    def texts(self, about: int = 5) -> list[str]:
        return [f"{tick:g}" for tick in self.ticks(about)]


def interval_row(axis: Axis, value: float | None, low: float | None, high: float | None, kind: str) -> str:
    """One row of the ranking: the 95 % bar and the dot. kind: a CSS class."""
    parts = ['<svg class="ci" aria-hidden="true">']
    if value is not None:
        if low is not None and high is not None:
            ends = f'x1="{axis.percent(low)}" x2="{axis.percent(high)}"'
            parts.append(f'<line class="bar {kind}" {ends} y1="50%" y2="50%"/>')
        parts.append(f'<circle class="dot {kind}" cx="{axis.percent(value)}" cy="50%" r="4"/>')
    return "".join(parts) + "</svg>"


def ground(axis: Axis, noise: float | None) -> str:
    """What lies behind all rows of `interval_row`, for the style of their table: zero, and the band of +- noise."""
    parts = [f"--zero:{axis.percent(0)}"] if axis.low < 0 < axis.high else []
    if noise is not None:
        parts += [f"--from:{axis.percent(-noise)}", f"--to:{axis.percent(noise)}"]
    return "".join(f";{part}" for part in parts)


def axis_row(axis: Axis, sign: bool = True) -> str:
    """The scale above the rows of `interval_row`; sign: whether its numbers carry a plus."""
    parts = ['<svg class="ci" width="100%" height="24" aria-hidden="true" focusable="false">']
    digits = axis.tick_digits(6)
    shown = [tick for tick in axis.ticks(6) if 8 < axis.at(tick) < 92]
    for i, tick in enumerate(shown):
        x = axis.percent(tick)
        zero = min(range(len(shown)), key=lambda j: abs(shown[j]))
        minor = ' class="minor"' if len(shown) > 3 and (i - zero) % 2 else ""  # every other number, on narrow screens
        parts.append(f'<line class="tick" x1="{x}" x2="{x}" y1="19" y2="24"/>')
        text = number(tick, digits, sign)
        parts.append(f'<text{minor} x="{x}" y="14" text-anchor="middle">{text}</text>')
    return "".join(parts) + "</svg>"


_SHAPES = {
    "full": "M0 -5.5L5.5 0L0 5.5L-5.5 0Z",
    "drop bottom": "M0 -5.5L5.4 4.2L-5.4 4.2Z",
    "drop random": "M-4.2 -4.2H4.2V4.2H-4.2Z",
    "drop top": "M0 5.5L5.4 -4.2L-5.4 -4.2Z",
    "circle": "M-4.6 0A4.6 4.6 0 1 0 4.6 0A4.6 4.6 0 1 0 -4.6 0Z",
    "cross": "M-5.5 -2H-2V-5.5H2V-2H5.5V2H2V5.5H-2V2H-5.5Z",
    "hourglass": "M-4.6 -5H4.6L1.2 0L4.6 5H-4.6L-1.2 0Z",
    "end": "M-3.5 0H3.5",
    "up": "M-3.5 4.5L0 0L3.5 4.5",
    "down": "M-3.5 -4.5L0 0L3.5 -4.5",
    "hexagon": "M-5 0L-2.5 -4.4H2.5L5 0L2.5 4.4H-2.5Z",
}
ARM_CLASSES = {"full": "ink", "drop bottom": "better", "drop random": "plain", "drop top": "worse"}


def _mark(x: str, y: float, style: str, shape: str) -> str:
    """A mark at a place of a figure, which keeps its size. x: in percent."""
    path = f'<path class="mark {style}" d="{_SHAPES[shape]}"/>'
    return f'<svg x="{x}" y="{y:g}" width="1" height="1" overflow="visible">{path}</svg>'


def symbol(style: str, shape: str) -> str:
    """A mark alone, for legends and tables. style: a CSS class; shape: the name of the mark."""
    path = f'<path class="mark {style}" transform="translate(8 8)" d="{_SHAPES[shape]}"/>'
    return f'<svg class="symbol" width="16" height="16" aria-hidden="true" focusable="false">{path}</svg>'


def line_symbol(style: str, shape: str) -> str:
    """A mark on a piece of its line, for legends of lines that differ in their dashes, too."""
    line = f'<line class="trend {style}" x1="0" x2="40" y1="8" y2="8"/>'
    path = f'<path class="mark {style}" transform="translate(20 8)" d="{_SHAPES[shape]}"/>'
    return f'<svg class="symbol" width="40" height="16" aria-hidden="true" focusable="false">{line}{path}</svg>'


def arm_symbol(kind: str) -> str:
    """The mark of one arm."""
    return symbol(ARM_CLASSES[kind], kind)


@dataclass(frozen=True)
class Series:
    """One line of `plot`: marks with bars, joined by a trend.

    Attributes:
        style, shape: a CSS class of the page; the name of its mark.
        points: (x, y, low, high), sorted by x; low and high None where there is no interval.
        start: further (x, y) where the trend begins, without a mark.
        dots: (x, y) of single runs.
        shift: pixels to the right, so that bars of several series do not overlap.
        marked: whether points have marks; else only the trend is drawn.
    """

    style: str
    shape: str
    points: Sequence[tuple[float, float, float | None, float | None]]
    start: Sequence[tuple[float, float]] = ()
    dots: Sequence[tuple[float, float]] = ()
    shift: float = 0
    marked: bool = True


def plot(
    series: Sequence[Series],
    x_axis: Axis,
    y_axis: Axis,
    xs: Sequence[float],
    words: tuple[str, str, str],
    line: float | None = None,
    named: Mapping[float, str] = MappingProxyType({}),
    height: int = 310,
    level: float | None = None,
) -> str:
    """Lines over a scale: means with their bars, trends between them, and single runs as dots.

    Args:
        series: in the order of drawing.
        x_axis, y_axis: the scales.
        xs: positions of numbers below; numbers without room are left out.
        words: label of the horizontal scale, suffix of the numbers of the vertical scale, and the text for screen
            readers, escaped.
        line: x of a vertical line, if there is one. level: y of a horizontal one.
        named: what stands below a position in place of its number.
        height: of the figure, in pixels.
    """
    top, bottom = 8, height - 42
    x_label, suffix, label = words

    def y(value: float) -> float:
        return round(bottom - (bottom - top) * y_axis.at(value) / 100, 1)

    texts = [f"{text}{suffix}" for text in y_axis.texts(5)]
    wide = max(46, 12 + 7 * max(map(len, texts), default=0))
    scale = [f'<svg class="scale" width="{wide}" height="{height}" aria-hidden="true" focusable="false">']
    drawn = [f'<svg class="plot" width="100%" height="{height}" role="img" aria-label="{label}">']
    for tick, text in zip(y_axis.ticks(5), texts, strict=True):
        scale.append(f'<text x="{wide - 6}" y="{y(tick) + 4:g}" text-anchor="end">{text}</text>')
        style = "zero" if tick == 0 and y_axis.low < 0 < y_axis.high else "grid"
        drawn.append(f'<line class="{style}" x1="0" x2="100%" y1="{y(tick):g}" y2="{y(tick):g}"/>')
    shown = -math.inf
    for size in xs:
        if x_axis.at(size) - shown < 6:
            continue
        shown = x_axis.at(size)
        x = x_axis.percent(size)
        drawn.append(f'<line class="tick" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}"/>')
        drawn.append(f'<text x="{x}" y="{bottom + 19}" text-anchor="middle">{named.get(size, f"{size:g}")}</text>')
    drawn.append(f'<line class="base" x1="0" x2="100%" y1="{bottom}" y2="{bottom}"/>')
    drawn.append(f'<text x="50%" y="{bottom + 37}" text-anchor="middle">{x_label}</text>')
    if line is not None:
        x = x_axis.percent(line)
        drawn.append(f'<line class="tick" stroke-dasharray="2 4" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>')
    if level is not None:
        drawn.append(f'<line class="level" x1="0" x2="100%" y1="{y(level):g}" y2="{y(level):g}"/>')
    for one in series:
        drawn.append(f'<g transform="translate({one.shift:g} 0)">')
        for (x1, y1), (x2, y2) in pairwise([*one.start, *((px, py) for px, py, _, _ in one.points)]):
            ends = f'x1="{x_axis.percent(x1)}" y1="{y(y1):g}" x2="{x_axis.percent(x2)}" y2="{y(y2):g}"'
            drawn.append(f'<line class="trend {one.style}" {ends}/>')
        for i, (px, py) in enumerate(one.dots):
            jitter, place = (i * 7 % 5 - 2) * 1.6, f'cx="{x_axis.percent(px)}" cy="{y(py):g}"'
            drawn.append(f'<circle class="run {one.style}" transform="translate({jitter:g} 0)" {place} r="2.2"/>')
        for px, py, low, high in one.points if one.marked else ():
            x = x_axis.percent(px)
            if low is not None and high is not None:
                drawn.append(f'<line class="bar {one.style}" x1="{x}" x2="{x}" y1="{y(low):g}" y2="{y(high):g}"/>')
            drawn.append(_mark(x, y(py), one.style, one.shape))
        drawn.append("</g>")
    return "".join(scale) + "</svg>" + "".join(drawn) + "</svg>"


def panel(
    points: Sequence[tuple[float | None, float | None, float | None]],
    axis: Axis,
    places: Sequence[str],
    style: str,
    styles: Sequence[str],
    label: str,
    sign: bool,
) -> str:
    """One of several small curves on a common scale; what lies beyond the scale is an arrow at its edge.

    Args:
        points: (value, low, high) at each place; None where a number is missing.
        axis: the vertical scale, which holds 0.
        places: texts below the points; those without room are left out.
        style, styles: CSS classes of the curve, and of bar and mark at each place.
        label: the text for screen readers.
        sign: whether the numbers of the scale carry a plus.
    """
    top, bottom = 8, PANEL_HEIGHT - 24
    across = Axis(-0.5, len(places) - 0.5)

    def y(value: float) -> float:
        share = (min(max(value, axis.low), axis.high) - axis.low) / (axis.high - axis.low)
        return round(bottom - (bottom - top) * share, 1)

    ticks = axis.ticks(6)
    texts = [number(tick, axis.tick_digits(6), sign) for tick in ticks]
    texts = [text if len(text) <= 7 else f"{tick:.2g}" for text, tick in zip(texts, ticks, strict=True)]
    told = {tick: text for tick, text in zip(ticks, texts, strict=True) if tick in (ticks[0], 0, ticks[-1])}
    wide = 8 + 7 * max(map(len, told.values()))
    scale = [f'<svg class="scale" width="{wide}" height="{PANEL_HEIGHT}" aria-hidden="true" focusable="false">']
    drawn = [f'<svg class="plot" width="100%" height="{PANEL_HEIGHT}" role="img" aria-label="{html.escape(label)}">']
    for tick, text in told.items():
        scale.append(f'<text x="{wide - 6}" y="{y(tick) + 4:g}" text-anchor="end">{text}</text>')
        drawn.append(f'<line class="{"grid" if tick else "zero"}" x1="0" x2="100%" y1="{y(tick):g}" y2="{y(tick):g}"/>')
    for i in _with_room(places):
        place = f'x="{across.percent(i)}" y="{PANEL_HEIGHT - 5}" text-anchor="middle"'
        drawn.append(f"<text {place}>{html.escape(places[i])}</text>")
    for i, ((before, *_), (after, *_)) in enumerate(pairwise(points)):
        if before is not None and after is not None:
            ends = f'x1="{across.percent(i)}" y1="{y(before):g}" x2="{across.percent(i + 1)}" y2="{y(after):g}"'
            drawn.append(f'<line class="trend {style}" {ends}/>')
    for i, (value, low, high) in enumerate(points):
        x, style = across.percent(i), styles[i]
        if value is None:
            continue
        if low is not None and high is not None:
            drawn.append(f'<line class="bar {style}" x1="{x}" x2="{x}" y1="{y(low):g}" y2="{y(high):g}"/>')
            shapes = ("down" if low < axis.low else "end", "up" if high > axis.high else "end")
            drawn += [_mark(x, y(end), f"end {style}", shape) for end, shape in zip((low, high), shapes, strict=True)]
        shape = "drop bottom" if value > axis.high else "drop top" if value < axis.low else "circle"
        drawn.append(_mark(x, y(value), style, shape))
    return "".join(scale) + "</svg>" + "".join(drawn) + "</svg>"


@dataclass(frozen=True)
class Dot:
    """A point of `scatter`: (value, low, high) along both axes, low and high None without a bar.

    Attributes:
        name: stands beside it where it is marked. words: what the mouse shows.
    """

    name: str
    x: tuple[Any, Any, Any]
    y: tuple[Any, Any, Any]
    marked: bool
    words: str


def scatter(dots: Sequence[Dot], x_axis: Axis, y_axis: Axis, words: tuple[str, str], diagonal: bool) -> str:
    """Points with bars along both axes, zero lines, and names beside those that are marked.

    Args:
        dots: in the order of drawing.
        words: label of the horizontal scale; the text for screen readers.
        diagonal: whether a line shows where both values are equal.
    """
    top, bottom = 8, SCATTER_HEIGHT - 46

    def y(value: float) -> float:
        return round(bottom - (bottom - top) * y_axis.at(value) / 100, 1)

    digits = y_axis.tick_digits(5)
    texts = [number(tick, digits, True) for tick in y_axis.ticks(5)]
    wide = max(40, 10 + 7 * max(map(len, texts), default=0))
    scale = [f'<svg class="scale" width="{wide}" height="{SCATTER_HEIGHT}" aria-hidden="true" focusable="false">']
    label = html.escape(words[1], quote=True)
    drawn = [f'<svg class="plot" width="100%" height="{SCATTER_HEIGHT}" role="img" aria-label="{label}">']
    for tick, text in zip(y_axis.ticks(5), texts, strict=True):
        scale.append(f'<text x="{wide - 6}" y="{y(tick) + 4:g}" text-anchor="end">{text}</text>')
        style = "grid" if tick else "zero"
        drawn.append(f'<line class="{style}" x1="0" x2="100%" y1="{y(tick):g}" y2="{y(tick):g}"/>')
    digits = x_axis.tick_digits(5)
    for tick in x_axis.ticks(5):
        at = x_axis.percent(tick)
        style = "grid" if tick else "zero"
        drawn.append(f'<line class="{style}" x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/>')
        if 4 < x_axis.at(tick) < 96:
            text = number(tick, digits, True)
            drawn.append(f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{text}</text>')
    drawn.append(f'<text x="50%" y="{bottom + 38}" text-anchor="middle">{html.escape(words[0])}</text>')
    low, high = max(x_axis.low, y_axis.low), min(x_axis.high, y_axis.high)
    if diagonal and low < high:
        ends = f'x1="{x_axis.percent(low)}" y1="{y(low):g}" x2="{x_axis.percent(high)}" y2="{y(high):g}"'
        drawn.append(f'<line class="tick" stroke-dasharray="2 4" {ends}/>')
    for dot in dots:
        style = "ink" if dot.marked else "plain second"
        parts, (at, across) = [f"<title>{html.escape(dot.words)}</title>"], (x_axis.percent(dot.x[0]), y(dot.y[0]))
        if None not in dot.x:
            ends = f'x1="{x_axis.percent(dot.x[1])}" x2="{x_axis.percent(dot.x[2])}"'
            parts.append(f'<line class="bar {style}" {ends} y1="{across:g}" y2="{across:g}"/>')
        if None not in dot.y:
            parts.append(f'<line class="bar {style}" x1="{at}" x2="{at}" y1="{y(dot.y[1]):g}" y2="{y(dot.y[2]):g}"/>')
        parts.append(_mark(at, across, style, "full" if dot.marked else "circle"))
        drawn.append(f"<g>{''.join(parts)}</g>")
    placed: list[tuple[float, float]] = []
    for dot in dots:
        x, across = x_axis.at(dot.x[0]), y(dot.y[0])
        if not dot.marked or any(abs(x - a) < 22 and abs(across - b) < 15 for a, b in placed):
            continue  # the mouse shows its name
        placed.append((x, across))
        side = 'x="-8" text-anchor="end"' if x > 60 else 'x="8"'
        name = dot.name if len(dot.name) <= _LONGEST else f"{dot.name[: _LONGEST - 1]}\u2026"
        text = f'<text class="named" {side} y="-6">{html.escape(name)}</text>'
        drawn.append(f'<svg x="{x:g}%" y="{across:g}" width="1" height="1" overflow="visible">{text}</svg>')
    return "".join(scale) + "</svg>" + "".join(drawn) + "</svg>"


def _with_room(places: Sequence[str]) -> list[int]:
    """Which texts below a narrow panel fit beside each other: the last, the first, and the others from the left."""

    def apart(i: int, j: int) -> bool:
        return abs(i - j) * 140 / len(places) > 3.5 * (len(places[i]) + len(places[j])) + 4  # pixels, on a phone

    kept = [len(places) - 1]
    for i in range(len(places)):
        if all(apart(i, j) for j in kept):
            kept.append(i)
    return sorted(kept)


def removal(arms: Sequence[dict], runs: Sequence[dict], label: str, metric: Metric = ACCURACY) -> str:
    """The metric against groups left out: means, 95 % bars of retraining alone (t), every run as a dot, and the mean of
    the whole source as a line.

    Args:
        arms: dicts with kind, dropped, n, mean, stderr (fractions, or as rows store a measure).
        runs: dicts with kind, dropped, and accuracy or value, by the metric's key.
        label: text for screen readers, escaped.
    """
    series, scale = [], metric.scale
    full = next((a["mean"] for a in arms if a["kind"] == "full"), None)
    for kind, shift in (("full", 0), ("drop random", 0), ("drop bottom", -9), ("drop top", 9)):
        points = []
        for arm in sorted((a for a in arms if a["kind"] == kind), key=lambda a: a["dropped"]):
            if arm["mean"] is not None:
                known = arm.get("stderr") is not None and arm["n"] > 1
                half = t975(arm["n"] - 1) * arm["stderr"] if known else None
                low, high = (
                    (None, None) if half is None else (scale * (arm["mean"] - half), scale * (arm["mean"] + half))
                )
                points.append((arm["dropped"], scale * arm["mean"], low, high))
        start = [(0, scale * full)] if full is not None and kind != "full" else []
        own = [r for r in runs if r["kind"] == kind and r[metric.key] is not None]
        dots = [(r["dropped"], scale * r[metric.key]) for r in own]
        series.append(Series(ARM_CLASSES[kind], kind, points, start, dots, shift))
    heights = [v for one in series for p in one.points for v in p[1:]] + [d[1] for one in series for d in one.dots]
    widest = max([a["dropped"] for a in arms] + [1])
    words = ("groups left out of the source", " %" if metric.share else "", label)
    xs = sorted({a["dropped"] for a in arms} | {0})
    level = None if full is None else scale * full
    return plot(series, Axis(-0.07 * widest, 1.08 * widest), Axis.around(heights, 0.08), xs, words, level=level)


def histogram(values: Sequence[float], label: str, unit: str = "") -> str:
    """Counts of the values in equal bins, and their mean as a line. unit: suffix of the numbers of the scale."""
    data = np.asarray(values, np.float64)
    axis = Axis.around(data.tolist(), 0.03)
    counts, edges = np.histogram(data, bins=int(np.clip(2 * math.sqrt(len(data)), 5, 30)), range=(axis.low, axis.high))
    top, base = 22, 132
    parts = [f'<svg class="plot" width="100%" height="160" role="img" aria-label="{label}">']
    digits = axis.tick_digits(4)
    for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            tall = (base - top) * count / counts.max()
            place = f'x="{axis.at(left):g}%" width="{axis.at(right) - axis.at(left):.3f}%"'
            place += f' y="{base - tall:.1f}" height="{tall:.1f}"'
            title = f"{count} from {number(left, digits + 1)} to {number(right, digits + 1)}{unit}"
            parts.append(f'<rect class="column" {place}><title>{title}</title></rect>')
    mean, text = axis.percent(float(data.mean())), number(float(data.mean()), digits + 1)
    parts.append(f'<line class="mean" x1="{mean}" x2="{mean}" y1="{top - 4}" y2="{base}"/>')
    parts.append(f'<text x="{mean}" y="{top - 9}" text-anchor="middle">mean {text}{unit}</text>')
    parts.append(f'<line class="base" x1="0" x2="100%" y1="{base}" y2="{base}"/>')
    for tick in axis.ticks(4):
        if 4 < axis.at(tick) < 96:
            x = axis.percent(tick)
            parts.append(f'<line class="tick" x1="{x}" x2="{x}" y1="{base}" y2="{base + 5}"/>')
            parts.append(f'<text x="{x}" y="{base + 20}" text-anchor="middle">{number(tick, digits)}{unit}</text>')
    return "".join(parts) + "</svg>"
