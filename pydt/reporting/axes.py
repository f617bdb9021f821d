"""Plots of plain values into axes of matplotlib, for Python and notebooks; pages are drawn by `svg.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pydt.reporting.text import legible


def interval_plot(
    names: Sequence[str], values: Any, reach: Any, label: str, *, ax: Any = None, of: int = 0, zero: bool = True
) -> Any:
    """One line for each name, the first on top: its value, and an interval unless `reach` (names,) is NaN.

    Args:
        label: of the axis of values, with its unit. zero: whether a line marks 0.
        of: groups that there are, where those shown are the highest and the lowest: the title says so.
    """
    ax = ax if ax is not None else _axes(1.2 + 0.25 * max(4, len(names)))
    places, low = np.arange(len(names)), len(names) // 2
    ax.errorbar(values, places, xerr=reach, fmt="o", markersize=4, capsize=2)
    if zero:
        ax.axvline(0, color="grey", linewidth=0.8, zorder=0)
    if of > len(names):
        ax.set_title(f"the {len(names) - low} highest and the {low} lowest of {of:,} groups")
    ax.set(yticks=places, yticklabels=[_plain(name) for name in names], xlabel=label)
    ax.set_ylim(max(len(names), 1) - 0.5, -0.5)
    return ax


def curve_plot(
    names: Sequence[str], x: Sequence[str], values: Any, reach: Any, labels: tuple[str, str], title: str, ax: Any = None
) -> Any:
    """One curve for each name over evenly spaced places: values (names, places), reach (names, 2, places)."""
    ax = ax if ax is not None else _axes(4.8)
    places = np.arange(len(x))
    for i, name in enumerate(names):
        shift = 0.3 * ((i + 0.5) / len(names) - 0.5)  # so that intervals do not lie on each other
        ax.errorbar(places + shift, values[i], yerr=reach[i], fmt="o-", markersize=4, capsize=2, label=_plain(name))
    ax.axhline(0, color="grey", linewidth=0.8, zorder=0)
    ax.set(xticks=places, xticklabels=x, xlabel=labels[0], ylabel=labels[1], title=title)
    if len(names):
        ax.legend()
    return ax


def scatter_plot(
    names: Sequence[str], x: Any, y: Any, reach: Any, labels: tuple[str, str], marked: Any, ax: Any = None
) -> Any:
    """Points with intervals along both axes and zero lines, the marked ones filled and named: x, y, marked (names,),
    reach (names, 2)."""
    ax = ax if ax is not None else _axes(5.2)
    for chosen, look in ((~marked, {"color": "grey", "markerfacecolor": "none"}), (marked, {"color": "black"})):
        bars = {"xerr": reach[chosen, 0], "yerr": reach[chosen, 1], "elinewidth": 0.8}
        ax.errorbar(x[chosen], y[chosen], fmt="o", markersize=4, **bars, **look)
    for i in np.flatnonzero(marked).tolist():
        ax.annotate(_plain(names[i]), (x[i], y[i]), xytext=(4, 4), textcoords="offset points")
    ax.axhline(0, color="grey", linewidth=0.8, zorder=0)
    ax.axvline(0, color="grey", linewidth=0.8, zorder=0)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    return ax


def _axes(height: float) -> Any:
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(6.4, height), layout="constrained")[1]


def _plain(text: Any) -> str:
    """A name as it is: matplotlib reads formulas between dollars, and leaves out of a legend what starts with `_`."""
    shown = legible(str(text), 60).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
