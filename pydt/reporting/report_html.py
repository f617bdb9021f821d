"""The report: one self-contained HTML page of the `results` that `pydt.analyses.report` makes (results.json).

Nothing is computed here that could change a claim. What is None or missing is shown as a dash, or left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from pydt.base import ConfigError
from pydt.reporting.html_templates import template
from pydt.reporting.judgements import LEVEL, STABLE, decimals, judged_size, significant, stability_word
from pydt.reporting.metric import Metric
from pydt.reporting.next_steps import Place, next_steps
from pydt.reporting.ranking_table import ranking_table
from pydt.reporting.report_figures import class_table, removal_figure, spread_figures
from pydt.reporting.report_terms import linked, terms
from pydt.reporting.sentences import sentences
from pydt.reporting.sentences_in_detail import detailed, stopped
from pydt.reporting.text import count, digits_for, finite, legible, number, p_text, percent, tied

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


def _facts(results: Mapping) -> list[tuple[str, str]]:
    """The strip of key numbers under the answer."""
    verdict = results["verdict"]
    facts = [("models", f"{results['models']:,}"), ("groups", f"{len(results['groups']):,}")]
    if verdict.get("blocked"):
        return facts
    facts.append(("held-out correlation", number(verdict.get("correlation"), 2)))
    facts.append(("permutation p", p_text(verdict.get("p")).removeprefix("p ").removeprefix("= ")))
    contrasts, metric, digits = results.get("contrasts") or [], Metric.of(results["question"]), decimals(results, 1)
    size = judged_size(results)
    better = "" if metric.higher_is_better else " better"
    for kind, name in () if results.get("moved") else (("drop bottom", "lowest"), ("drop top", "highest")):
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


def render(
    results: Mapping,
    thumbnails: Mapping[str, np.ndarray] | None = None,
    design: str | None = None,
    place: Place | None = None,
    captions: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> str:
    """One self-contained HTML page that answers the question: no network, light and dark, phone to paper.

    Args:
        results: as `pydt.analyses.report` makes it; missing optional parts are left out or named as not run. Two
            further keys are used when given: "df", the residual degrees of freedom of the regression (without it,
            intervals are normal ones), and "command", how to make the report again.
        thumbnails: by group name, uint8 images (n, H, W) or (n, H, W, C), C = 1, 3 or 4; the first three are shown.
        design: how the masks were drawn, in words; the name of the kind by default.
        place: of the store, for the commands of "What to do next"; without it there are none.
        captions: by group name, where each of its thumbnails lies.

    Raises:
        ConfigError: a required part of `results` is missing.
    """
    results = finite(results)
    missing = [k for k in ("question", "models", "output", "unit", "estimand", "verdict", "groups") if k not in results]
    if missing:
        mend = "give the dict that pydt.analyses.report assembles"
        raise ConfigError(f"{', '.join(missing)} missing", "results", mend)
    others = [task for task in results.get("tasks") or [] if "results" in task]
    every = [results, *(of_task(results, task) for task in others)]
    tasks = [
        _task(one, (thumbnails or {}) if i == 0 else {}, captions, design, place, f"-{i + 1}" if i else "")
        for i, one in enumerate(every)
    ]
    common = _target([task["shown"] for task in tasks])
    images = [_images(one) for one in every]
    numbered = len(tasks) > 1 and None not in images and len({one["question"]["mode"] for one in every}) == 1
    for task, one in zip(tasks, every, strict=True):
        task["short"] = task["shown"][len(common) :] or task["shown"]
        if numbered:
            task["short"] = str(one["question"]["shots"]).replace("full", "all")
    provenance = [*(results.get("provenance") or {}).items(), *(results.get("versions") or {}).items()]
    return template("report.html.j2").render(
        title=legible(results.get("title") or "pydt report"),
        tasks=tasks,
        switch="Labelled images a class" if numbered else "Task",
        compared=_compared(results, every),
        terms=terms(results),
        level=LEVEL,
        seconds=results.get("seconds"),
        provenance=[(name, legible(str(value), 80)) for name, value in provenance if value is not None],
        command=None if results.get("command") is None else legible(str(results["command"]), 400),
    )


def _images(results: Mapping) -> str | None:
    """What the default name of a task says of its labelled images, in words; None of a name of the user's own."""
    question, name = results["question"], results.get("task") or ""
    shots, mode = question.get("shots"), question.get("mode")
    if not shots or not name.endswith(f", {shots}-shot {mode}"):
        return None
    return "all labelled images" if shots == "full" else f"{count(shots, 'labelled image')} a class"


def _called(results: Mapping) -> str:
    """A task's name as the page shows it: labelled images in place of shots, where the name is the default one."""
    name, images, mode = results.get("task") or "", _images(results), results["question"].get("mode")
    if images is not None:
        name = f"{name.rpartition(', ')[0]}, {images}" + ("" if mode == "probe" else f" ({mode})")
    return legible(name)


def _target(names: Sequence[str]) -> str:
    """What several names of tasks begin with: that of their one target, and a comma."""
    parts = [name.split(", ") for name in names]
    if len(parts) < 2 or not all(len(one) > 1 and one[0] == parts[0][0] for one in parts):
        return ""
    return f"{parts[0][0]}, "


def of_task(results: Mapping, task: Mapping) -> dict[str, Any]:
    """The results of another task (an entry of "tasks"), with what it has in common with the first."""
    alone: dict[str, Any] = {"target_classes": None, "notes": []}
    return {**results, **alone, "tasks": [], "task": task["name"], **task["results"]}


def _task(
    results: Mapping,
    thumbnails: Mapping[str, np.ndarray],
    captions: Mapping[str, Sequence[str]],
    design: str | None,
    place: Place | None,
    end: str,
) -> dict[str, Any]:
    """What `report_task.html.j2` needs; the ids of its parts end with `end`."""
    verdict, stderr = results["verdict"], results["verdict"].get("median_stderr")
    explained, failure, spread = results.get("explained"), results.get("failure_p"), verdict.get("spread")
    return {
        **{key: results.get(key) for key in ("output", "unit", "models", "failed", "proof_of", "moved")},
        "end": end,
        "name": legible(results.get("task") or ""),
        "shown": _called(results),
        "question": _question(results, design),
        "sentences": linked(tied(text) for text in sentences(results)),
        "detailed": [tied(text) for text in detailed(results)],
        "steps": [] if place is None else next_steps(results, place),
        "agreement": _agreement(results),
        "notes": [legible(note, 400) for note in results.get("notes") or []],
        "tone": "blocked" if verdict.get("blocked") else "found" if verdict.get("found") else "nothing",
        "facts": _facts(results),
        "metric": Metric.of(results["question"]),
        "swap": results["estimand"] == "swap",
        "failure": None if failure is None else p_text(failure),
        "explained": None if explained is None else number(explained, 2),
        "median_stderr": number(stderr, digits_for(stderr)),
        "between": None if spread is None else number(spread, digits_for(stderr)),
        "total": len(results["groups"]),
        "ranking": ranking_table(results, thumbnails, end, captions),
        "removal": removal_figure(results),
        "spread": spread_figures(results),
        "heat": class_table(results),
    }


def _agreement(results: Mapping) -> dict[str, Any] | None:
    """How far two halves of the models agree, and the words for it."""
    found = results.get("agreement")
    if not found or found["correlation"] is None:
        return None
    word, names = stability_word(found["correlation"]), [stability_word(-1), *(word for _, word in reversed(STABLE))]
    return {
        "word": word,
        **{name: number(found[key], 2) for name, key in (("value", "correlation"), ("low", "low"), ("high", "high"))},
        "bands": [(name.removesuffix(" stable"), name == word) for name in names],
        "at": round(100 * min(max(found["correlation"], 0.0), 1.0), 1),
    }


def _compared(results: Mapping, every: Sequence[Mapping]) -> list[dict[str, Any]]:
    """A line for each of several tasks."""
    if not results.get("tasks"):
        return []
    lines = [
        {
            "name": _called(one),
            "error": None,
            "models": f"{one['models']:,}",
            "agreement": number((one.get("agreement") or {}).get("correlation"), 2),
            "correlation": number(one["verdict"].get("correlation"), 2),
            "sure": f"{sum(len(side) for side in significant(one))} of {len(one['groups']):,}",
            "proof": "retrained" if one.get("arms") else "not run",
        }
        for one in every
    ]
    failed = [task for task in results["tasks"] if "error" in task]
    return lines + [{"name": legible(task["name"]), "error": legible(task["error"], 300)} for task in failed]
