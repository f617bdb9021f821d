"""The figures of the report: removal and retraining, the spread of the models, influence by class of the target."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pydt.reporting.csv_files import ranked
from pydt.reporting.judgements import decimals, judged_size
from pydt.reporting.metric import Metric
from pydt.reporting.ranking_table import SHOWN
from pydt.reporting.svg import arm_symbol, histogram, removal
from pydt.reporting.text import DASH, count, digits_for, ends, legible, number

CLASSES_SHOWN = 12
"""Target classes in the table of influence by class; the others are in target_classes.csv."""

_KINDS = {
    "full": "the whole source",
    "drop bottom": "without the lowest-ranked",
    "drop random": "without random ones",
    "drop top": "without the highest-ranked",
}


def removal_figure(results: Mapping) -> dict[str, Any] | None:
    """The removal curve and its table; None when nothing was retrained."""
    arms, runs = results.get("arms") or [], results.get("counterfactual") or []
    if not arms:
        return None
    order = list(_KINDS)
    arms = sorted((a for a in arms if a["kind"] in _KINDS), key=lambda a: (a["dropped"], order.index(a["kind"])))
    contrasts, gains = (
        {(c["kind"], c["dropped"]): c for c in results.get(key) or []} for key in ("contrasts", "gains")
    )
    metric, digits, least = Metric.of(results["question"]), decimals(results, 2), decimals(results, 1)

    def shown(value: float | None, digits: int = digits, sign: bool = False) -> str:
        return number(None if value is None else metric.scale * value, digits, sign)

    def against(contrast: Mapping | None) -> str:
        if contrast is None:
            return ""
        value, low, high = (shown(contrast[k], sign=True) for k in ("difference", "low", "high"))
        return value if DASH in (low, high) else f"{value} ({low} to {high})"

    size = judged_size(results)
    few = {a["n"] for a in arms if a["kind"] != "full" and a["dropped"] != size}
    most = max((a["n"] for a in arms if a["dropped"] == size), default=0)
    looks = bool(few) and max(few) < most
    rows = [
        {
            "weight": "" if not looks else "main" if arm["dropped"] == size else "" if not arm["dropped"] else "minor",
            "what": _KINDS[arm["kind"]],
            "symbol": arm_symbol(arm["kind"]),
            "dropped": arm["dropped"],
            "n": arm["n"],
            "mean": shown(arm["mean"]),
            "gain": against(gains.get((arm["kind"], arm["dropped"]))),
            "difference": against(contrasts.get((arm["kind"], arm["dropped"]))),
        }
        for arm in arms
    ]
    present = [k for k in order if any(a["kind"] == k for a in arms)]
    means = [
        f"{_KINDS[a['kind']]} ({a['dropped']}): {shown(a['mean'], least)}{metric.suffix}"
        for a in arms
        if a["mean"] is not None
    ]
    label = html.escape(f"{_title(metric)} after retraining. {'; '.join(means)}", quote=True)
    judged = [c["stderr_images"] for c in (*contrasts.values(), *gains.values())]
    unit = ", ".join(part for part in ("" if metric.share else metric.suffix.strip(), metric.direction) if part)
    return {
        "svg": removal(arms, runs, label, metric),
        "title": _title(metric) + (f" ({unit})" if unit else ""),
        "level": f"mean{metric.suffix if metric.share else metric.suffix and ',' + metric.suffix}",
        "change": ", ".join(part for part in (metric.unit, "+ is better" if metric.direction else "") if part),
        "gains": bool(gains),
        "both": not judged or any(one is not None for one in judged),
        "legend": [(arm_symbol(k), _KINDS[k]) for k in present],
        "few": "" if not looks else f"{count(max(few), 'model')} each" if len(few) == 1 else "few models each",
        "rows": rows,
        "runs": len(runs),
        "highest": "drop top" in present,
    }


def _title(metric: Metric) -> str:
    """Its name at the beginning of a line."""
    return legible(f"{metric.name[0].upper()}{metric.name[1:]}")


def spread_figures(results: Mapping) -> dict[str, Any] | None:
    rows, metric = results.get("rows") or {}, Metric.of(results["question"])
    unit = " %" if metric.share else ""
    names = {metric.key: (metric.name, metric.scale, unit), "output": (_output(results), 1.0, "")}
    if metric.measured:
        told = metric.name + (f" ({metric.unit})" if metric.unit and not metric.share else "")
        names = {
            metric.key: (told + ("" if metric.shared else ", report half"), metric.scale, unit),
            "output": (f"{told}, score half", 1.0, unit),
        }
    charts = []
    for key, (name, scale, unit) in names.items():
        if key == "output" and metric.shared:
            continue  # the same number
        values = [scale * v for v in rows.get(key) or [] if v is not None]
        if values:
            mean = float(np.mean(values))
            sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
            digits = digits_for(sd)
            text = f"mean {number(mean, digits)}{unit}, standard deviation {number(sd, digits)}"
            text += " points" if unit else ""
            label = html.escape(f"Histogram of {name} over {len(values)} models: {text}", quote=True)
            charts.append({"svg": histogram(values, label, unit), "name": name, "text": text})
    return {"charts": charts} if charts else None


def _output(results: Mapping) -> str:
    return f"{results['output']} ({results['unit']})"


def class_table(results: Mapping) -> dict[str, Any] | None:
    """Influence by target class for the groups shown in the ranking, for the classes with the largest influences."""
    classes = results.get("target_classes")
    if not classes or not classes["names"]:
        return None
    table = np.array([[np.nan if v is None else v for v in line] for line in classes["influence"]], np.float64)
    size = np.where(np.isfinite(table), np.abs(table), 0.0)
    keep = np.sort(np.argsort(-size.max(axis=0), kind="stable")[:CLASSES_SHOWN])
    scale = float(np.quantile(size, 0.98)) or float(size.max()) or 1.0
    digits = digits_for(scale / 4)
    rows = []
    for position, group in ends(ranked(results["groups"]), SHOWN):
        cells = []
        for value in table[position, keep].tolist():
            known = math.isfinite(value)
            tint = round(min(1.0, abs(value) / scale) * 42) if known else 0
            text = number(value if known else None, digits, True)
            cells.append((text, "better" if known and value > 0 else "worse", tint))
        rows.append((legible(group["name"], 40), cells))
    names = [legible(classes["names"][i], 24) for i in keep.tolist()]
    return {"names": names, "rows": rows, "left_out": len(classes["names"]) - len(keep)}
