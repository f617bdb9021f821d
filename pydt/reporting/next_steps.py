"""What to do next, as lines to copy: the command, and the same in Python, for the case of the headline."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from pydt.reporting.csv_files import ranked
from pydt.reporting.judgements import advice, contrast_of, judged_size
from pydt.reporting.text import count, finite, legible

_NAMED = 60


@dataclass(frozen=True)
class Place:
    """Where the results come from, in the words of the user.

    Attributes:
        folder: of the store.
        plan: its name or a prefix of its digest, where the store holds several.
        first: name of the plan's first task: others have to be named.
        trains: what commands that train are given: the folder, or the plan's file; None where neither is known.
    """

    folder: str
    plan: str | None = None
    first: str | None = None
    trains: str | None = None


@dataclass(frozen=True)
class Step:
    """One thing to do: why, a command, and lines of Python that do the same; either may be empty.

    `names` are the groups that it leaves out, lowest first, the first of them; `more` others are not named.
    """

    why: str
    command: str = ""
    python: str = ""
    names: tuple[str, ...] = ()
    more: int = 0


def next_steps(results: Mapping, place: Place) -> list[Step]:
    """What to do next by the case of the headline (`judgements.advice`); commands have what `place` says."""
    results = finite(results)
    case, size, groups = advice(results), judged_size(results), len(results["groups"])
    if case == "blocked":
        return [Step("See why rows failed", f"pydt status {shlex.quote(place.folder)}")]
    if groups < 2:
        return []
    trains = results["question"].get("method") != "imported"
    against = contrast_of(results.get("contrasts"), "drop bottom", size)
    better = case == "compared" and against is not None and against["low"] > 0
    if size is not None and (case in ("drop", "free") or better):
        return [_keep(place, results, size, "Write the list of what stays")]
    steps: list[Step] = []
    if case == "whole" and size is not None and size > 1:
        steps.append(_prove(place, results, "See whether leaving out fewer pays", drop=size // 2))
    elif case == "unclear":
        repeats = 3 * max(gain["n"] for gain in results["gains"])
        settings = {"drop": size, "repeats": repeats} if size not in (None, groups // 3) else {"repeats": repeats}
        steps.append(_prove(place, results, "Retrain more often, to know what it costs", **settings))
    elif case in ("unproven", "moved"):
        again = case == "moved"
        steps.append(_prove(place, results, f"Prove the ranking{' again' if again else ''} by retraining"))
        return [
            *(steps if trains else []),
            _keep(place, results, max(1, groups // 3), "List what would stay, unproven"),
        ]
    elif case in ("nothing", "disagree"):
        steps.append(_models(results, place))
    return steps if trains else []


def _keep(place: Place, results: Mapping, size: int, why: str) -> Step:
    by, (option, argument) = results["question"].get("by") or "class", _task(place, results)
    more = (f", {_said(place.plan)}" if place.plan else "") + argument
    column = "" if by == "class" else f", by={_said(by)}"
    lowest = [] if by == "example" else [legible(g["name"], 40) for _, g in ranked(results["groups"])[: -size - 1 : -1]]
    return Step(
        f"{why}, without the {'' if size == 1 else f'{size:,} '}lowest",
        f"pydt keep {shlex.quote(place.folder)} --drop {size}{_plan(place)}{option}",
        f"source = source.keep(pydt.keep({_said(place.folder)}{more}, drop={size}).kept{column})",
        tuple(lowest[:_NAMED]),
        max(0, len(lowest) - _NAMED),
    )


def _task(place: Place, results: Mapping) -> tuple[str, str]:
    """How a command and Python name the task, where it is not the plan's first."""
    task = results.get("task")
    if task is None or task == place.first:
        return "", ""
    return f" --task {shlex.quote(task)}", f", task={_said(task)}"


def _plan(place: Place) -> str:
    """How a command that is given the folder names the plan, where the store holds several."""
    return "" if place.plan is None else f" --plan {shlex.quote(place.plan)}"


def _said(text: str) -> str:
    """A text as Python has it."""
    return json.dumps(text, ensure_ascii=False)


def _prove(place: Place, results: Mapping, why: str, **settings: int) -> Step:
    option, argument = _task(place, results)
    options = "".join(f" --{name} {value}" for name, value in settings.items()) + option
    given = "".join(f", {name}={[value] if name == 'drop' else value}" for name, value in settings.items())
    python = f"pydt.counterfactual({_said(place.folder)}, plan{given}{argument})"
    if place.trains is None:
        return Step(f"{why}: `pydt prove` with the file of the plan{options and f' and{options}'}, or", "", python)
    more = _plan(place) if place.trains == place.folder else ""
    return Step(why, f"pydt prove {shlex.quote(place.trains)}{more}{options}", python)


def _models(results: Mapping, place: Place) -> Step:
    needed = results["verdict"].get("models_needed")
    many = f"about {count(needed, 'model')}" if needed and needed > results["models"] else "more models"
    why = f"Train {many}: write their number into the plan and run it again"
    more = _plan(place) if place.trains == place.folder else ""
    return Step(why, "" if place.trains is None else f"pydt run {shlex.quote(place.trains)}{more}")
