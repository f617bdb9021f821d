"""The ranking of the groups as a table: influence, interval, q and pictures of each group, and the placebos below.

`templates/ranking_table.html.j2` shows it. All groups are in the page, up to `LISTED`: its script shows the `SHOWN` of
each end first and the others on request. A page of 5,000 groups has 2 MB of rows and up to 2 MB of pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from pydt.base import t975
from pydt.reporting.csv_files import ranked
from pydt.reporting.html_templates import FILTERED
from pydt.reporting.judgements import LEVEL, errors_known, left_out, significant
from pydt.reporting.pictures import inlined
from pydt.reporting.svg import Axis, axis_row, ground, interval_row
from pydt.reporting.text import DASH, digits_for, ends, legible, number

LISTED = 5000
"""Groups in the table; of more, so many of both ends together. All are in groups.csv."""
OTHERS = 500
"""The same in the tables of the other tasks of a report, so that the page stays small."""
SHOWN = 40
"""Groups of each end that the page's script shows first."""
PICTURED = 100
"""Groups of each end that have pictures."""

_SIDES = (96, 64, 48, 32)  # of pictures, in pixels: the largest whose addresses have at most _PICTURES characters
_PICTURES = 2_000_000


def ranking_table(
    results: Mapping,
    thumbnails: Mapping[str, np.ndarray],
    end: str = "",
    captions: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[str, Any]:
    """What `ranking_table.html.j2` needs: rows, placebos, axis and counts. Ids on the page end with `end`, which is
    empty for the first of several tasks; `captions` say where each thumbnail lies.
    """
    groups, placebos, verdict = results["groups"], results.get("placebos") or [], results["verdict"]
    order = [(rank, position, group) for rank, (position, group) in enumerate(ranked(groups), 1)]
    shown = ends(order, (OTHERS if end else LISTED) // 2)

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
    pictures = _pictures([group["name"] for _, _, group in ends(order, PICTURED)], thumbnails, captions)

    def line(item: Mapping, kind: str) -> dict[str, Any]:
        low, high = bounds(item)
        marked = item["q"] is not None and item["q"] < LEVEL and item["value"]
        return {
            "name": legible(item["name"], 60),
            "sort": ["" if v is None else f"{v:.6g}" for v in (item["value"], item["q"])],
            "svg": interval_row(axis, item["value"], low, high, kind),
            "value": number(item["value"], digits, True),
            "stderr": number(item["stderr"], digits),
            "q": DASH if item["q"] is None else "<.001" if item["q"] < 0.001 else f"{item['q']:.3f}",
            "mark": "" if not marked else "\u25b2" if item["value"] > 0 else "\u25bc",
            "kind": kind,
        }

    rows, cut = [], len(groups) - len(left_out(results))
    for rank, position, group in shown:
        sure = claims and group["q"] is not None and group["q"] < LEVEL and group["value"]
        kind = "plain" if not sure else "better" if group["value"] > 0 else "worse"
        extra = {"id": f"group-{position}{end}", "rank": rank, "models": group.get("models")}
        extra["cut"] = len(groups) - cut if rank == cut + 1 else None
        extra["images"] = pictures.get(group["name"], [])
        rows.append({**line(group, kind), **extra})

    def beyond(items: Sequence[Mapping]) -> int:
        return sum(low is not None and high is not None and (low > 0 or high < 0) for low, high in map(bounds, items))

    return {
        "end": end,
        "rows": rows,
        "first": SHOWN if len(groups) > 2 * SHOWN else None,
        "filter": len(groups) > FILTERED,
        "listed": len(shown) // 2 if len(groups) > len(shown) else None,
        "pictured": PICTURED if pictures and len(groups) > 2 * PICTURED else None,
        "placebos": [line(p, "plain") for p in placebos],
        "axis": axis_row(axis),
        "ground": ground(axis, noise),
        "beyond": beyond(groups),
        "chance": f"{LEVEL * len(groups):.{0 if len(groups) >= 20 else 1}f}",
        "placebos_beyond": beyond(placebos) or "none",
        "significant": sum(len(s) for s in significant(results)),
        "claims": claims,
        "level": LEVEL,
        "errors": errors_known(results),
        "pictures": bool(pictures),
        "name_width": min(16, max([8] + [len(row["name"]) for row in rows])),
    }


def _pictures(
    names: Sequence[str], thumbnails: Mapping[str, np.ndarray], captions: Mapping[str, Sequence[str]]
) -> dict[str, list[dict[str, Any]]]:
    """The first three pictures of each group that has any, for `pictures.html.j2`."""
    own = {name: list(thumbnails[name][:3]) for name in names if len(thumbnails.get(name, ()))}
    for side in _SIDES:
        found = {name: inlined(images, side, captions.get(name, ())) for name, images in own.items()}
        if sum(len(image["uri"]) for images in found.values() for image in images) <= _PICTURES:
            break
    return found


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
