"""The report: one self-contained HTML page of the `results` that `pydt.analyses.report` makes (results.json).

Nothing is computed here that could change a claim. What is None or missing is shown as a dash, or left out.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pydt.base import ConfigError
from pydt.reporting.csv_files import ranked
from pydt.reporting.html_templates import template
from pydt.reporting.metric import Metric
from pydt.reporting.ranking_table import SHOWN, ranking_table
from pydt.reporting.sentences import (
    LEVEL,
    decimals,
    headline_size,
    proven,
    sentences,
    stopped,
)
from pydt.reporting.svg import arm_symbol, histogram, removal
from pydt.reporting.text import DASH, count, digits_for, ends, finite, legible, number, p_text, percent, tied

CLASSES_SHOWN = 12
"""Target classes in the table of influence by class; the others are in target_classes.csv."""

_MODES = {
    "zero-shot": "the class names alone (zero-shot)",
    "probe": "a linear probe on the frozen network",
    "finetune": "full fine-tuning",
    "lp-ft": "a linear probe, then full fine-tuning from it",
    "last-n": "fine-tuning of the last layers",
    "drifting-probe": "a linear head on frozen weights, with drifting batch-norm statistics",
    "wise-ft": "weights between those before and after fine-tuning (WiSE-FT)",
}
_METHODS = {"function": "a function of one's own", "command": "a command"}
_KINDS = {
    "full": "nothing left out",
    "drop bottom": "without the lowest-ranked",
    "drop random": "without random ones",
    "drop top": "without the highest-ranked",
}


def _removal(results: Mapping) -> dict[str, Any] | None:
    """The removal curve and its table; None when nothing was retrained."""
    arms, runs = results.get("arms") or [], results.get("counterfactual") or []
    if not arms:
        return None
    order = list(_KINDS)
    arms = sorted((a for a in arms if a["kind"] in _KINDS), key=lambda a: (a["dropped"], order.index(a["kind"])))
    contrasts = {(c["kind"], c["dropped"]): c for c in results.get("contrasts") or []}
    metric, digits = Metric.of(results["question"]), decimals(results, 2)

    def shown(value: float | None, digits: int = digits, sign: bool = False) -> str:
        return number(None if value is None else metric.scale * value, digits, sign)

    rows = []
    for arm in arms:
        contrast = contrasts.get((arm["kind"], arm["dropped"]))
        row = {
            "what": _KINDS[arm["kind"]],
            "symbol": arm_symbol(arm["kind"]),
            "dropped": arm["dropped"],
            "n": arm["n"],
            "mean": shown(arm["mean"]),
            "sd": shown(arm["sd"]),
        }
        if contrast is not None:
            row["difference"], low, high = (shown(contrast[k], sign=True) for k in ("difference", "low", "high"))
            row["interval"] = DASH if DASH in (low, high) else f"{low} to {high}"
            row["p"] = p_text(contrast["p"]).removeprefix("p ").removeprefix("= ")
        rows.append(row)
    present = [k for k in order if any(a["kind"] == k for a in arms)]
    least = decimals(results, 1)
    means = [
        f"{_KINDS[a['kind']]} ({a['dropped']}): {shown(a['mean'], least)}{metric.suffix}"
        for a in arms
        if a["mean"] is not None
    ]
    label = html.escape(f"{_title(metric)} after retraining. {'; '.join(means)}", quote=True)
    judged = [c["stderr_images"] for c in contrasts.values()]
    unit = ", ".join(part for part in ("" if metric.share else metric.suffix.strip(), metric.direction) if part)
    return {
        "svg": removal(arms, runs, label, metric),
        "title": _title(metric) + (f" ({unit})" if unit else ""),
        "level": f"mean{metric.suffix if metric.share else metric.suffix and ',' + metric.suffix}",
        "change": ", ".join(part for part in (metric.unit, "+ is better" if metric.direction else "") if part),
        "both": not judged or any(one is not None for one in judged),
        "legend": [(arm_symbol(k), _KINDS[k]) for k in present],
        "rows": rows,
        "runs": len(runs),
    }


def _title(metric: Metric) -> str:
    """Its name at the beginning of a line."""
    return legible(f"{metric.name[0].upper()}{metric.name[1:]}")


def _spread(results: Mapping) -> dict[str, Any] | None:
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


def _heat(results: Mapping) -> dict[str, Any] | None:
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


def _facts(results: Mapping) -> list[tuple[str, str]]:
    """The strip of key numbers under the answer."""
    verdict = results["verdict"]
    facts = [("models", f"{results['models']:,}"), ("groups", f"{len(results['groups']):,}")]
    if verdict.get("blocked"):
        return facts
    facts.append(("held-out correlation", number(verdict.get("correlation"), 2)))
    facts.append(("permutation p", p_text(verdict.get("p")).removeprefix("p ").removeprefix("= ")))
    contrasts, metric, digits = results.get("contrasts") or [], Metric.of(results["question"]), decimals(results, 1)
    size = headline_size(contrasts)
    better = "" if metric.higher_is_better else " better"
    for kind, name in (("drop bottom", "lowest"), ("drop top", "highest")):
        contrast = next((c for c in contrasts if c["kind"] == kind and c["dropped"] == size), None)
        if contrast is not None and contrast["difference"] is not None:
            text = number(metric.scale * contrast["difference"], digits, True)
            if contrast["stderr"] is not None:
                text += f" \u00b1 {number(metric.scale * contrast['stderr'], digits)}"
            facts.append((f"{metric.unit}{better}".strip() + f" without the {size:,} {name}, against random", text))
    return facts


def _question(results: Mapping, phrase: str | None) -> dict[str, Any]:
    asked = results["question"]
    metric = Metric.of(asked)
    mode = asked.get("mode") or ""
    method = asked.get("method") or ""
    transfer, how = _MODES.get(mode, mode), asked.get("transfer") or {}
    trained = how.get("finetune") or {}
    for name, value in (("last", how.get("last")), ("alpha", how.get("alpha")), ("learning rate", trained.get("lr"))):
        if isinstance(value, int | float):
            transfer += f", {name} {value:g}"
    shots, draws = asked.get("shots"), asked.get("draws")
    if isinstance(shots, int) and shots:
        transfer += f", {count(shots, 'labelled image')} per class"
    elif shots:
        transfer += ", all labelled images" if shots == "full" else f", {shots}"
    if asked.get("validation_used"):
        transfer += f"; {count(asked['validation_images'], 'more labelled image')} to choose settings"
    if draws and draws > 1:
        transfer += f", mean over {draws} draws"
    alpha = asked.get("alpha")
    kept = phrase or asked.get("design") or ""
    if alpha is not None:
        kept += f", {percent(alpha, 1).removesuffix('.0')} % of the groups kept"
    groups = count(asked["groups"], "group") + (f" (by {legible(asked['by'], 40)})" if asked.get("by") else "")
    images = asked.get("source_images")
    one = metric.examples.removesuffix("s")
    halves = [("score_images", one, one + "s"), ("report_images", "other", "others")]
    classes = asked.get("target_classes")
    target = [count(classes, "class", "classes")] if classes or (classes is not None and not metric.measured) else []
    if metric.measured:
        unit = "in %" if metric.share else f"in {metric.unit}" if metric.unit else ""
        target = [part for part in (unit, metric.direction or "higher is better") if part] + target
    if metric.shared:
        target.append("one number a row, to estimate and to judge with")
    else:
        uses = ("to estimate with", "to judge with")
        for (key, name, names), use in zip(halves, uses, strict=True):
            if asked.get(key) is not None:
                target.append(f"{asked[key]:,} {name if metric.measured and asked[key] == 1 else names} {use}")
    source = [count(images, one), groups] if images is not None else [groups]
    if metric.measured:
        transfer = ""
    facts = [
        ("Source", legible(asked["source"]), ", ".join(source)),
        ("Target", legible(asked["target"]), ", ".join(target)),
        ("Training", "", ", on ".join(t for t in (_METHODS.get(method, method), kept) if t)),
        ("Transfer", "", transfer),
    ]
    planned = asked.get("planned_models")
    counting = planned if results.get("stop") is None else results["stop"]["rows"]
    interim = planned is not None and results["models"] + (results.get("failed") or 0) < counting
    return {
        "source": legible(asked["source"]),
        "target": legible(asked["target"]),
        "metric": legible(metric.name) if metric.measured else None,
        "facts": [f for f in facts if f[1] or f[2]],
        "interim": f"Interim: {results['models']:,} of {planned:,} planned models have finished." if interim else "",
        "stopped": tied(stopped(results)),
    }


def render(results: Mapping, thumbnails: Mapping[str, np.ndarray] | None = None, design: str | None = None) -> str:
    """One self-contained HTML page that answers the question: no network, light and dark, phone to paper.

    Args:
        results: as `pydt.analyses.report` makes it; missing optional parts are left out or named as not run. Two
            further keys are used when given: "df", the residual degrees of freedom of the regression (without it,
            intervals are normal ones), and "command", how to make the report again.
        thumbnails: by group name, uint8 images (n, H, W) or (n, H, W, C), C = 1, 3 or 4; the first three are shown.
        design: how the masks were drawn, in words; the name of the kind by default.

    Raises:
        ConfigError: a required part of `results` is missing.
    """
    results = finite(results)
    missing = [k for k in ("question", "models", "output", "unit", "estimand", "verdict", "groups") if k not in results]
    if missing:
        mend = "give the dict that pydt.analyses.report assembles"
        raise ConfigError(f"{', '.join(missing)} missing", "results", mend)
    metric = Metric.of(results["question"])
    verdict, stderr = results["verdict"], results["verdict"].get("median_stderr")
    tone = "blocked" if verdict.get("blocked") else "found" if verdict.get("found") else "nothing"
    explained, failure, spread = results.get("explained"), results.get("failure_p"), verdict.get("spread")
    provenance = [*(results.get("provenance") or {}).items(), *(results.get("versions") or {}).items()]
    return template("report.html.j2").render(
        {key: results.get(key) for key in ("output", "unit", "models", "failed", "seconds", "errors")},
        title=legible(results.get("title") or "pydt report"),
        question=_question(results, design),
        sentences=[tied(s) for s in sentences(results)],
        disagree=tone == "nothing" and proven(results),
        notes=[legible(note, 400) for note in results.get("notes") or []],
        tone=tone,
        facts=_facts(results),
        metric=metric,
        swap=results["estimand"] == "swap",
        estimator=results.get("estimator") or DASH,
        failure=None if failure is None else p_text(failure),
        permutations=verdict.get("permutations"),
        explained=None if explained is None else number(explained, 2),
        median_stderr=number(stderr, digits_for(stderr)),
        between=None if spread is None else number(spread, digits_for(stderr)),
        level=LEVEL,
        total=len(results["groups"]),
        ranking=ranking_table(results, thumbnails or {}),
        removal=_removal(results),
        spread=_spread(results),
        heat=_heat(results),
        provenance=[(name, legible(str(value), 80)) for name, value in provenance if value is not None],
        command=None if results.get("command") is None else legible(str(results["command"]), 400),
    )
