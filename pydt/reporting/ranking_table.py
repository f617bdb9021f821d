"""The ranking of the groups as a table: influence, interval, q and pictures of each group, and the placebos below.

`templates/ranking_table.html.j2` shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pydt.base import t975
from pydt.reporting.csv_files import ranked
from pydt.reporting.pictures import data_uri
from pydt.reporting.sentences import LEVEL, errors_known, significant
from pydt.reporting.svg import Axis, axis_row, interval_row
from pydt.reporting.text import DASH, digits_for, ends, legible, number

SHOWN = 40
"""Groups shown from each end of the ranking; the others are in groups.csv."""


def ranking_table(results: Mapping, thumbnails: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What `ranking_table.html.j2` needs: rows of both ends, placebos, axis and counts."""
    groups, placebos, verdict = results["groups"], results.get("placebos") or [], results["verdict"]
    order = [(rank, position, group) for rank, (position, group) in enumerate(ranked(groups), 1)]
    shown = ends(order, SHOWN)

    def reach(item: Mapping) -> float | None:
        """Half the width of the 95 % interval."""
        return None if item["stderr"] is None else t975(item.get("df") or results.get("df")) * item["stderr"]

    def bounds(item: Mapping) -> tuple[float | None, float | None]:
        value, half = item["value"], reach(item)
        return (None, None) if value is None or half is None else (value - half, value + half)

    everything = [group for _, _, group in shown] + list(placebos)
    axis = Axis.around([0.0] + [b for item in everything for b in (*bounds(item), item["value"])])
    noise = _median(reach(placebo) for placebo in placebos)
    digits = digits_for(_median(group["stderr"] for group in groups))
    claims = bool(verdict.get("found")) and not verdict.get("blocked")
    side = 48 if len(shown) <= 24 else 32

    def line(item: Mapping, kind: str) -> dict[str, Any]:
        low, high = bounds(item)
        marked = item["q"] is not None and item["q"] < LEVEL and item["value"]
        return {
            "name": legible(item["name"], 60),
            "svg": interval_row(axis, item["value"], low, high, kind, noise),
            "value": number(item["value"], digits, True),
            "stderr": number(item["stderr"], digits),
            "q": DASH if item["q"] is None else "<.001" if item["q"] < 0.001 else f"{item['q']:.3f}",
            "mark": "" if not marked else "\u25b2" if item["value"] > 0 else "\u25bc",
            "kind": kind,
        }

    rows = []
    for rank, position, group in shown:
        sure = claims and group["q"] is not None and group["q"] < LEVEL and group["value"]
        kind = "plain" if not sure else "better" if group["value"] > 0 else "worse"
        images = thumbnails.get(group["name"], ())
        extra = {"id": f"group-{position}", "rank": rank, "models": group.get("models")}
        extra["images"] = [data_uri(np.asarray(image), side) for image in images[:3]]
        rows.append({**line(group, kind), **extra})

    def beyond(items: Sequence[Mapping]) -> int:
        return sum(low is not None and high is not None and (low > 0 or high < 0) for low, high in map(bounds, items))

    return {
        "rows": rows,
        "cut": SHOWN if len(groups) > len(shown) else None,
        "left_out": len(groups) - len(shown),
        "placebos": [line(p, "plain") for p in placebos],
        "axis": axis_row(axis),
        "beyond": beyond(groups),
        "chance": f"{LEVEL * len(groups):.{0 if len(groups) >= 20 else 1}f}",
        "placebos_beyond": beyond(placebos) or "none",
        "significant": sum(len(s) for s in significant(results)),
        "claims": claims,
        "errors": errors_known(results),
        "pictures": any(row["images"] for row in rows),
        "name_width": min(16, max([8] + [len(row["name"]) for row in rows])),
    }


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
