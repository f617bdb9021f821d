"""The report: what a store knows about a plan as one dict of numbers, one HTML page and CSV files.

Influences come from the score half of the target; the verdict (do influences of some rows predict other rows?) and the
counterfactual are judged on the report half. The page only shows `results`. More than 500 lines: one place says where
every number of results.json comes from.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt import __version__, _core
from pydt.analyses.agreement import between_halves
from pydt.analyses.counterfactual import Counterfactual, stored
from pydt.analyses.ensemble_view import LEVEL, MOST_FAILED
from pydt.analyses.learning_rates import choices_of
from pydt.analyses.retraining import CONTROL
from pydt.base import PydtError, StoreError, as_path, write_atomic
from pydt.design import KINDS, Design
from pydt.ensemble import Plan
from pydt.estimation import (
    Fit,
    failure_test,
    few_masks,
    global_test,
    influences,
    mean_output,
    models_for_effect,
    overall,
)
from pydt.reporting import FEW_DF, PAGES, Metric, Place, called, called_output, count, link_pages, render, write_csv
from pydt.store import IMPORTED, VALUE, Record, Store, Weak, at_chance, read_names, stored_remarks, unit_of, weak_rows

if TYPE_CHECKING:
    from pydt.training import Task


_ROUNDING = 1e-9  # a spread below it, relative to the outputs, is that of their float32
_ASKED = ("name", "target", "mode", "shots", "draws", "seed", "part")
"""What a task says of itself beside the settings of its mode."""
_OF_THE_PLAN = (
    *("title", "task", "models", "failed", "failure_p", "hardly_learnt", "stop", "unmet", "seconds", "command"),
    *("target_classes", "provenance", "versions"),
)
"""What results.json has once, however many tasks there are."""


def report(
    store: Store | str | os.PathLike[str],
    path: str | os.PathLike[str],
    plan: Plan | str | None = None,
    *,
    task: Task | str | None = None,
    output: str | None = None,
    seconds: float | None = None,
    command: str | None = None,
    allow_failed: bool = False,
) -> dict[str, Any]:
    """Write the report of a plan: `path` (HTML), and beside it results.json and CSV files.

    It tells of all tasks of the plan: of one in full, at the top level of results.json and in the CSV files; of the
    others under "tasks", and in a line of tasks.csv.

    Args:
        store: a store, or its folder.
        path: of the HTML file; without the suffix .html, a folder in which it is called report.html.
        plan: a plan of the store, or its digest; by default the store's own.
        task: which of its tasks comes first, or its name or digest; by default the plan's first.
        output: of which the influences are; see `pydt.store.derive`. By default a task's metric: "correct", "auroc",
            or the value of a `pydt.Measure`.
        seconds: duration of the whole experiment, if known.
        command: the command that makes the report again.
        allow_failed: give a verdict although more than 2 % of the rows failed.

    Returns:
        the content of results.json.

    Raises:
        StoreError: no such task, there are too few finished rows, or the files cannot be written.
    """
    folder = _folder(store)
    store = store if isinstance(store, Store) else Store(store)
    page = as_path(path, "report", made=True)
    page = page if page.suffix == ".html" else page / "report.html"
    record = store.plan(plan)
    told, weak = store.described(task, record), weak_rows(store, record)
    found = _of_task(store, record, told, output, weak, allow_failed)
    found |= {"seconds": seconds, "command": command}
    if len(record.tasks) > 1:
        found["tasks"] = _of_other_tasks(store, record, found, output, weak, allow_failed)
    write_atomic(page.parent / "results.json", (json.dumps(found, indent=1, allow_nan=False) + "\n").encode())
    write_csv(found, page.parent)
    place = Place(
        folder=folder,
        plan=store.called(record) if len(store.designs()) > 1 else None,
        first=record.tasks[0]["name"],
        trains=_trains(store, record, folder),
    )
    phrase = KINDS[found["question"]["design"]].phrase
    pictures, captions = store.thumbnails(record), store.captions(record)
    write_atomic(page, render(found, pictures, phrase, place, captions).encode())
    link_pages(page, page.parent / PAGES)
    return found


def _folder(store: Store | str | os.PathLike[str]) -> str:
    """The folder of a store as it was typed; of an opened one below the working directory, relative to it."""
    if not isinstance(store, Store):
        return os.fspath(store)
    here = Path.cwd()
    return str(store.folder.relative_to(here) if store.folder.is_relative_to(here) else store.folder)


def _trains(store: Store, record: Record, folder: str) -> str | None:
    """What commands that train this plan are given: the folder if the store knows how, a plan of a command its file."""
    note = read_names(store).get(record.digest)
    if note is None or note.embedded is not None:
        return None if note is None else folder
    if note.file is None or not os.path.isfile(store.folder / note.file):
        return None
    command = record.settings["method"] == "command"  # is run from its file alone
    return os.path.normpath(os.path.join(folder, note.file)) if command else folder


def _of_other_tasks(
    store: Store, record: Record, first: dict[str, Any], output: str | None, weak: Weak, allow_failed: bool
) -> list[dict[str, Any]]:
    """The other tasks of a plan, each with "name", "digest" and "results", or with "error", why it has none.

    Their results lack what they have in common with the first, and influences by target class. Retrainings belong to
    the task that ranked their groups: "proof_of" of the others is its name.
    """
    others: list[dict[str, Any]] = []
    for told in record.tasks:
        if told["name"] == first["task"]:
            continue
        others.append({"name": told["name"], "digest": told["digest"]})
        try:
            found = _of_task(store, record, told, output, weak, allow_failed, whole=False)
        except PydtError as error:
            others[-1]["error"] = str(error)
        else:
            others[-1]["results"] = {key: value for key, value in found.items() if key not in _OF_THE_PLAN}
    every = [(first["task"], first), *((one["name"], one["results"]) for one in others if "results" in one)]
    proof = next((name for name, found in every if found["arms"]), None)
    for _, found in every:
        if proof is not None and not found["arms"]:
            found["proof_of"] = proof
    return others


def results(
    store: Store,
    plan: Plan | Record | str | None = None,
    *,
    task: Task | str | None = None,
    output: str | None = None,
    seconds: float | None = None,
    command: str | None = None,
    allow_failed: bool = False,
) -> dict[str, Any]:
    """Every number of the report on one task as JSON types, None where it could not be computed; arguments as of
    `report`."""
    record = store.plan(plan)
    told, weak = store.described(task, record), weak_rows(store, record)
    found = _of_task(store, record, told, output, weak, allow_failed)
    return {**found, "seconds": seconds, "command": command}


def _of_task(
    store: Store,
    record: Record,
    told: dict[str, Any],
    output: str | None,
    weak: Weak,
    allow_failed: bool,
    whole: bool = True,
) -> dict[str, Any]:
    """Every number on one task. `weak` are the plan's rows that hardly learnt their source; influences by target class
    come only with `whole`."""
    digest = told["digest"]
    design, finished = store.design(record), store.finished(record)
    metric = store.metric_output(digest, record)
    output = metric if output is None else output
    means = Metric.of_task(told)
    fit = overall(store, record, digest, output)
    masks = design.take(finished)
    score = mean_output(store, record, digest, output, "score")
    judged = mean_output(store, record, digest, output, "report")
    levels = judged if output == metric else mean_output(store, record, digest, metric, "report")
    levels = levels / unit_of(told, metric).factor
    unit = unit_of(told, output).name
    failed, total, failure_p = failure_test(store, record)
    judgement = stored(store, record, digest)

    values, stderr = np.asarray(fit.unbiased, np.float64), np.asarray(fit.stderr, np.float64)
    method, test = global_test(masks, score, judged, fit.method)
    learnt = score if weak.many else np.delete(score, weak.at)
    effect = float(learnt.std(ddof=1)) / 4 if np.ptp(learnt) > _ROUNDING * np.abs(learnt).max() else 0.0
    df = float(np.median(fit.df))  # of a typical group; each has its own where errors are robust
    plannable = effect > 0 and df >= FEW_DF and not weak.many
    advised = overall(store, record, digest, output, weak.at) if weak.at and plannable else fit
    blocked = None
    lost = 0 if judgement is None else sum(arm.failed for arm in judgement.arms)
    retrained = 0 if judgement is None else lost + sum(len(arm.rows) for arm in judgement.arms)
    if not allow_failed:
        for bad, of, what in ((failed, total, "rows"), (lost, retrained, "retrainings")):
            if bad > MOST_FAILED * of:
                blocked = f"{bad} of {of} {what} failed, more than {MOST_FAILED:.0%}; see `pydt report --allow-failed`"
    # Thousands of single images on some hundred models: the ranking is tested as a whole, no image on its own.
    q = None if record.by == "example" else np.asarray(fit.q, np.float64)
    about, target = told["settings"], told["settings"]["target"]
    names = called(record.source_facts["name"], "source"), called(target["name"], "target")
    return _plain(
        {
            "title": " \u2192 ".join(names),
            "task": told["name"],
            "question": {
                "source": names[0],
                "source_images": record.source_facts.get("examples"),
                "groups": len(record.names),
                "by": record.by,
                "target": names[1],
                "target_classes": len(target["classes"]),
                "score_images": target["score"],
                "report_images": target["report"],
                "metric": target["metric"],
                **({"measure": {"name": told["name"], **about["measure"]}} if means.measured else {}),
                "mode": about["mode"],
                "shots": about["shots"],
                "validation_images": target["validation"],
                "validation_used": any(one["task"] == digest for one in choices_of(store, record)),
                "draws": about["draws"],
                "transfer": {} if means.measured else {name: how for name, how in about.items() if name not in _ASKED},
                "design": design.kind,
                "alpha": design.alpha,
                "planned_models": len(record.rows),
                "method": record.settings["method"],
            },
            "models": len(finished),
            "failed": failed,
            "failure_p": failure_p if failed else None,
            "hardly_learnt": _weak(weak, finished),
            "stop": _stop(store, record),
            "unmet": _unmet(store, record),
            "seconds": None,
            "output": means.name if output == VALUE else called_output(output),
            "unit": unit,
            "estimand": fit.estimand,
            "estimator": fit.method,
            "errors": fit.errors,
            "df": df,
            "explained": float(fit.explained),
            "verdict": {
                "correlation": test.correlation,
                "estimator": method,
                "p": test.p,
                "permutations": test.permutations,
                "found": bool(test.p < LEVEL and blocked is None),
                "blocked": blocked,
                "significant_groups": 0 if q is None else int((q < LEVEL).sum()),
                "median_stderr": float(np.median(stderr)),
                "spread": float(values.std(ddof=1)) if len(values) > 1 else None,
                "models_needed": models_for_effect(advised, effect, level=LEVEL / len(values)) if plannable else None,
                "models_needed_for": None
                if not plannable
                else f"an 80 % chance to see a group that moves the {means.name if means.measured else 'target'} by "
                f"{effect:.2g} {unit}, a quarter of the spread between rows",
            },
            "groups": _groups(record.names, values, stderr, fit.df, q, models=np.asarray(masks).sum(0)),
            "placebos": _placebos(fit),
            "agreement": _agreement(masks, score, record.by),
            "target_classes": (
                _by_class(store, record, digest, output, masks, fit.method, target["classes"]) if whole else None
            ),
            "rows": {means.key: levels, "output": means.sign * score},
            **_counterfactual(judgement, means.key),
            "moved": _moved(judgement, record.names, values),
            "notes": [
                *_imported(record),
                *stored_remarks(store, record),
                *_halves(means, target),
                *_notes(store, record, told, judgement, weak, len(finished), effect, float(np.median(stderr)), unit),
                *too_few_masks(design, masks, fit.errors, df),
            ],
            "command": None,
            "provenance": {
                "plan": record.digest,
                "design": design.digest,
                "source": record.source,
                "recipe": record.recipe,
                "task": digest,
                "target": target["digest"],
                "seed": record.seed,
                "design seed": design.seed,
            },
            "versions": _versions(),
        }
    )


def _agreement(masks: Design, score: np.ndarray, by: str) -> dict[str, Any] | None:
    """How far the rankings by two halves of the models agree, as `pydt keep` tells it."""
    found = None if by == "example" else between_halves(masks, score, "keep", 0)
    return None if found is None else dict(zip(("correlation", "low", "high"), found, strict=True))


def _stop(store: Store, record: Record) -> dict[str, Any] | None:
    """When and why the plan stopped before its end."""
    note = store.stopped(record)
    return None if note is None else _rule(note, note["rows"], planned=len(record.rows))


def _unmet(store: Store, record: Record) -> dict[str, Any] | None:
    """The stopping rule that did not end the plan, and what it had reached."""
    note = store.rule(record)
    return None if note is None or note["met"] else _rule(note, note["looked"])


def _rule(note: Mapping[str, Any], rows: int, **more: int) -> dict[str, Any]:
    decided = [{"name": name, "sign": sign} for name, sign in note.get("decided", [])]
    found = {"rule": note["rule"], "rows": rows, "looks": note["looks"], "reason": note["reason"]}
    return {**found, **more, "decided": decided}


def _weak(weak: Weak, finished: np.ndarray) -> dict[str, Any] | None:
    """The rows of the plan that hardly learnt their source; None if none did."""
    if not weak.at:
        return None
    facts = {"judged": weak.judged, "accuracy": weak.accuracy, "trivial_accuracy": weak.trivial}
    return {"rows": finished[list(weak.at)], **facts, "many": weak.many}


def _halves(metric: Metric, target: Mapping[str, Any]) -> list[str]:
    """That a half is too small for what its examples add to the errors to be known."""
    if metric.shared:
        return [
            f'"{metric.name}" is one number a row, so score half and report half are the same number: the verdict '
            "rests on other rows alone. No interval holds how the number would differ on other examples."
        ]
    if metric.measured and target["report"] == 1:
        return [
            "The report half has one example: intervals of retrainings hold the noise of training alone, not how other "
            "examples would differ."
        ]
    return []


def _imported(record: Record) -> list[str]:
    """What cannot be asked of models that pydt did not train."""
    if record.settings["method"] != IMPORTED:
        return []
    return [
        "Masks and outputs were imported: pydt cannot retrain these models, and does not know how long one takes. To "
        "prove the ranking, write a plan with a command or a function that trains on the same groups, run it, and then "
        "`pydt prove` (docs/own-ensemble.md)."
    ]


def _notes(
    store: Store,
    record: Record,
    told: Mapping[str, Any],
    judgement: Counterfactual | None,
    weak: Weak,
    models: int,
    effect: float,
    stderr: float,
    unit: str,
) -> list[str]:
    """What a reader must know before believing the numbers."""
    notes = []
    metric, learnt = Metric.of_task(told), [(record, told["digest"])]
    if judgement is not None:
        learnt += [(one, judgement.task) for one in judgement.records]
    for of, seen in learnt:
        what = "models" if of is record else "retrained models"
        rows, images = store.replaced(of)
        if rows:
            notes.append(
                f"{rows:,} of {len(store.finished(of)):,} {what} met broken images, {images:,} in all (each counted in "
                "every model that met it), replaced by others; see log.jsonl."
            )
        harm = ". Their effect on the target may be the training's, not the data's: "
        own = weak if of is record else weak_rows(store, of, seen)
        notes += [f"{note}." for note in own.notes(what, store.finished(of).tolist(), harm)]
        if chance := at_chance(store.scalars(seen, of), what):
            notes.append(chance)
    if effect == 0:
        same = f"{metric.name} in every row" if metric.measured else "output on the target, which is saturated"
        notes.append(f"All models give the same {same}: no influence can be measured.")
    elif record.by == "example":
        notes.append(
            f"The groups are {len(record.names):,} single {metric.examples}. Their influences are differences of means "
            f"over {models} models, with a standard error of {stderr:.2g} {unit} (median); no significance is asked of "
            "any one of them."
        )
    elif models < 2 * len(record.names):
        notes.append(
            f"{models} models for {len(record.names)} groups are few: errors are wide; 3 to 5 a group are usual."
        )
    return notes


def too_few_masks(design: Design, masks: Design, errors: str, df: float) -> list[str]:
    """What to do where the models compare too few masks for their errors to be known; nothing where they do not."""
    if not df < FEW_DF and errors != "none":
        return []
    distinct = len(np.unique(masks.packed(), axis=0))
    every = 2**masks.groups - 2  # masks that keep some groups and leave some out
    if not design.drawn:
        mend = 'train more models on other masks, of the design "bernoulli" or "foldover"'
    elif (few := few_masks(design)) is not None:
        mend = few
    else:
        mend = "train more models" if distinct < every else "use more groups: there are no other masks"
    if errors == "none":
        return [
            f"{count(len(masks), 'model')} on {count(distinct, 'distinct mask')} are as many masks as {masks.groups} "
            "groups need: nothing shows what a mask does by itself, so there are no standard errors, intervals and q. "
            f"{mend[0].upper()}{mend[1:]}."
        ]
    return [
        f"{count(len(masks), 'model')} on {count(distinct, 'distinct mask')} leave {count(round(df), 'degree')} of "
        f"freedom: the standard errors are hardly known themselves, intervals are wide. {mend[0].upper()}{mend[1:]}."
    ]


def _groups(names: Iterable[str], values: Any, stderr: Any, df: Any, q: Any, **more: Any) -> list[dict[str, Any]]:
    """One dict for each group or placebo."""
    q = [None] * len(values) if q is None else q
    columns = {"value": values, "stderr": stderr, "df": np.broadcast_to(df, np.shape(values)), "q": q, **more}
    return [{"name": name, **{key: column[i] for key, column in columns.items()}} for i, name in enumerate(names)]


def _placebos(fit: Fit) -> list[dict[str, Any]]:
    if fit.placebo_values is None:
        return []
    names = [f"placebo {i + 1}" for i in range(len(fit.placebo_values))]
    return _groups(names, fit.placebo_values, fit.placebo_stderr, fit.placebo_df, fit.placebo_q)


def _by_class(
    store: Store, record: Record, task: str, output: str, masks: Design, method: str, classes: list[str]
) -> dict[str, Any] | None:
    """The influence of each group on each target class, from the score half, with errors and q (over the groups of one
    class); None where a class has no example there, and for the AUROC of two classes, which is one number.
    """
    if not classes or (output == "auroc" and len(classes) == 2):
        return None
    labels = store.examples(task, "score", record)["labels"]
    if len(np.unique(labels)) < len(classes):
        return None
    outputs = store.outputs(task, output, "score", record) * unit_of(store.described(task, record), output).factor
    weights = store.examples(task, "score", record)["weights"]
    if not all(weights[labels == c].any() for c in range(len(classes))):
        return None
    parts = [np.average(outputs[:, labels == c], 1, weights[labels == c]) for c in range(len(classes))]
    means = np.stack(parts, axis=1)
    if not (means.std(0) > 0).all():
        return None
    fit = influences(masks, means, method)
    q = None if record.by == "example" else fit.q
    return {"names": classes, "influence": fit.unbiased, "stderr": fit.stderr, "q": q}


def _counterfactual(judgement: Counterfactual | None, key: str) -> dict[str, Any]:
    """The retrained rows, of which `key` names the level, their arms and contrasts."""
    if judgement is None:
        return {"counterfactual": [], "arms": [], "contrasts": [], "gains": [], "length": None, "main": None}
    runs = [
        {"kind": arm.kind, "dropped": arm.dropped, "names": list(names), "seed": row.seed, key: level}
        for arm in judgement.arms
        for row, names, level in zip(arm.rows, arm.names, arm.accuracy, strict=True)
    ]
    arms = [
        {
            "kind": arm.kind,
            "dropped": arm.dropped,
            "n": len(arm.rows),
            "mean": arm.mean,
            "sd": arm.sd,
            "stderr": None if arm.sd is None else arm.sd / len(arm.rows) ** 0.5,
            "failed": arm.failed,
        }
        for arm in judgement.arms
    ]
    contrasts = [{"control": CONTROL, **vars(contrast)} for contrast in judgement.contrasts]
    gains = [{"control": "full", **vars(gain)} for gain in judgement.gains]
    about = {"gains": gains, "length": judgement.length, "main": judgement.main}
    return {"counterfactual": runs, "arms": arms, "contrasts": contrasts, **about}


def _moved(judgement: Counterfactual | None, names: tuple[str, ...], values: np.ndarray) -> int:
    """How many of the groups that are lowest now the retrainings without the lowest did not leave out: the ranking was
    one of fewer models, or by another output."""
    main = ("drop bottom", None if judgement is None else judgement.main)
    lowest = [arm for arm in ([] if judgement is None else judgement.arms) if (arm.kind, arm.dropped) == main]
    now = [names[i] for i in np.argsort(values, kind="stable")]
    return max((len({*now[: arm.dropped]} - {*left}) for arm in lowest for left in arm.names[:1]), default=0)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        "pydt": __version__,
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": np.__version__,
        "core": _core.isa(),
    }


def _plain(value: Any) -> Any:
    """The same tree in JSON types; a number that is not finite becomes None."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise StoreError(
        f"a {type(value).__name__} among the results", "report", "this is a defect of pydt: please report it"
    )
