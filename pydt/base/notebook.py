"""How results look in Python: small tables for notebooks, and frames of pandas, which is imported only here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from pydt.base.errors import ConfigError

SHOWN = 20
"""Lines of a table, and groups of a plot, that are shown."""
_LONGEST = 120  # characters of a cell of a table


def extremes(values: npt.ArrayLike, most: int = SHOWN) -> npt.NDArray[np.intp]:
    """Positions of the highest and of the lowest values, `most` in all, the highest first; NaN is left out."""
    found = np.asarray(values, np.float64)
    order = np.argsort(-found, kind="stable")
    order = order[: len(found) - int(np.isnan(found).sum())]
    return order if len(order) <= most else np.r_[order[: most - most // 2], order[len(order) - most // 2 :]]


def html_table(
    line: str, heads: Sequence[str] = (), rows: Iterable[Sequence[Any]] = (), total: int = 0, what: str = "rows"
) -> str:
    """A line of text and under it a table of at most `SHOWN` rows, as HTML without styles or scripts.

    Args:
        line: what `repr` says; its line breaks are kept.
        rows: texts and numbers; numbers are written with four significant digits.
        total: rows that there are; how many more is said below the table. what: the name of several.
    """
    shown = list(islice(rows, SHOWN))
    parts = [f"<div><p>{'<br>'.join(map(_escaped, line.splitlines()))}</p>"]
    if shown:
        parts.append(f"<table><thead>{_cells(heads, 'th')}</thead><tbody>")
        parts += [_cells([_text(one) for one in row], "td") for row in shown]
        parts.append("</tbody></table>")
    if total > len(shown):
        parts.append(f"<p>{total - len(shown):,} more {escape(what)}</p>")
    return "".join(parts) + "</div>"


def influence_table(line: str, names: Sequence[str], values: Any, reach: Any, q: Any) -> str:
    """`html_table` of the highest and the lowest influences with their 95 % intervals; `reach` are half-widths."""
    shown = extremes(values)
    rows = (
        (names[i], float(values[i]), f"{values[i] - reach[i]:.4g} to {values[i] + reach[i]:.4g}", float(q[i]))
        for i in shown
    )
    unknown = " or without a number" if np.isnan(np.asarray(values)).any() else ""
    return html_table(line, ("group", "influence", "95 %", "q"), rows, len(values), f"groups between them{unknown}")


def _cells(texts: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{_escaped(text)}</{tag}>" for text in texts) + "</tr>"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        value = ", ".join(map(_text, value[:_LONGEST]))
    text = f"{value:.4g}" if isinstance(value, float | np.floating) else "" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _escaped(text: str) -> str:
    """Text for HTML that is UTF-8: names of files may have bytes that are not."""
    return escape(text.encode("utf-8", "replace").decode())


def to_frame(
    columns: Any, what: str, *, unit: str = "", names: Sequence[str] | None = None, index: tuple[str, Any] | None = None
) -> Any:
    """A `pandas.DataFrame`.

    Args:
        columns: by name, or an array (rows, columns) with `names`.
        what: whose method this is. unit: of the values, for `attrs` of the frame. index: its name and labels.

    Raises:
        ConfigError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ConfigError(f"pandas is not installed ({error})", f"{what}.to_frame", "pip install pandas") from error
    frame = pandas.DataFrame(columns, None if index is None else pandas.Index(index[1], name=index[0]), names)
    if unit:
        frame.attrs["unit"] = unit
    return frame


def notebook_display() -> Callable[..., Any] | None:
    """IPython's `display` in a notebook; None elsewhere, also in IPython on a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display

    return display
