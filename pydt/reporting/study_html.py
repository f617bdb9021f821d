"""The page of a study: one self-contained HTML file of the results that `pydt.studies` makes (results.json).

Nothing is computed here that could change a claim. A section without numbers is left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pydt.base import ConfigError, as_path, write_atomic
from pydt.reporting.html_templates import FILTERED, template
from pydt.reporting.study_figures import curves, effects, gains, sizes, spread
from pydt.reporting.study_view import (
    NAME,
    Arm,
    Task,
    View,
    all_shots_text,
    combined_text,
    p_number,
    shots_text,
    table_of,
    task_text,
)
from pydt.reporting.text import DASH, count, finite, legible, number, tied

RANKS = 12
"""Comparisons of two orders that stand open; of more, those of the fewest with the most shots."""

_OVER = {"shots": "Across shots", "targets": "Across targets", "seeds": "Across seeds"}


def study_page(results: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write a study as one self-contained HTML page: no network, light and dark, phone to paper.

    Args:
        results: of a study, as results.json holds them: fractions, None where a number is missing. Empty lists leave
            their section out. Keys used when given: "chosen" (source, size and method of the recommended arm),
            "provenance" (by name) and "command", how to make the page again.
        path: the file, or a folder, in which it is called study.html; the folder is made if it is missing.

    Returns:
        the path of the file.

    Raises:
        ConfigError: a required part of `results` is missing.
        StoreError: the file cannot be written.
    """
    place = as_path(path, "study_page", made=False)
    place = place if place.suffix == ".html" else place / "study.html"
    as_path(place.parent, "study_page", made=True)
    write_atomic(place, study_html(results).encode())
    return place


def study_html(results: Mapping[str, Any]) -> str:
    """The text of `study_page`."""
    results = finite(results)
    if missing := [key for key in ("study", "recommendation", "accuracy") if not results.get(key)]:
        raise ConfigError(f"{', '.join(missing)} missing", "results", "give the dict that a study's analysis makes")
    view = View(results)
    study = view.study
    first = view.combinations[0] if view.combinations else None
    return template("study.html.j2").render(
        title=legible(study["name"]),
        asked=_asked(view),
        sentences=[tied(legible(sentence, 1200)) for sentence in results["recommendation"]],
        notes=[legible(note, 1200) for note in results.get("notes") or []],
        facts_shown=_facts(view),
        failed=study.get("failed") or 0,
        rows=study["rows"],
        of="" if first is None else combined_text(first),
        level=view.level,
        sources=len(view.names("sources")),
        drawn=len(view.drawn),
        curves=curves(view),
        spread=spread(view),
        sizes=sizes(view),
        effects=effects(view),
        gains=gains(view),
        arms=_arms(view),
        ranks=_ranks(view),
        checkpoints=any(arm[0] == "checkpoint" for arm in view.all_arms),
        equal=[legible(one, 1200) for one in study.get("equal") or []],
        unequal=[legible(one, 1200) for one in study.get("unequal") or []],
        scatter=_scatter(view),
        seeds=study["seeds"],
        draws=study["draws"],
        facts=_provenance(results),
        command=legible(str(results["command"]), 400) if results.get("command") else None,
    )


def _asked(view: View) -> dict[str, Any]:
    """The question and what it was asked with."""
    study, targets = view.study, []
    for one in study["targets"]:
        told = [count(one["classes"], "class", "classes")] if one.get("classes") else []
        told += [f"{one['images']:,} images to judge with"] if one.get("images") else []
        targets.append({"name": one["name"], "told": ", ".join(told)})
    sizes = f"{', '.join(f'{size:,}' for size in study['sizes'])} images of each source"
    pairs = [
        *(("Sources", _named(study["sources"])), ("Methods", _named(study["methods"]))),
        *(("Sizes", [("", sizes)] if study["sizes"] else []), ("Targets", _named(targets))),
        *(("Transfer", _named(study["modes"])), ("Shots", [("", all_shots_text(view.shots))])),
    ]
    names = [legible(name, NAME) for name in view.names("targets")]
    return {"targets": names, "pairs": [(name, parts) for name, parts in pairs if parts]}


def _named(items: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Names, each with what is told of it."""
    return [(legible(one["name"], NAME), legible(one["told"], 400) if one.get("told") else "") for one in items]


def _facts(view: View) -> list[tuple[str, str]]:
    """The strip of key numbers under the recommendation."""
    study = view.study
    repeats = f"{study['seeds']:,} \u00d7 {study['draws']:,}"
    facts = [("rows trained", f"{study['rows']:,}"), ("seeds \u00d7 draws of labelled images", repeats)]
    if not view.combinations:
        return facts
    (target, mode), (method, size) = view.tasks[0], view.combinations[0]
    for shots in dict.fromkeys(view.ends):
        for row in view.results.get("spread") or []:
            place = (row["target"], row["mode"], row["shots"], row["method"], row["size"])
            if place == (target, mode, shots, method, size):
                known = (
                    "no interval"
                    if None in (row["low"], row["high"])
                    else f"95 % {view.interval(row['low'], row['high'])}"
                )
                where = f"{task_text((target, mode))}, {shots_text(shots)}"
                name = f"points, spread between sources ({known}): {where}"
                facts.append((name, view.points(row["tau"], False)))
    return facts


def _arms(view: View) -> list[dict[str, Any]]:
    """For each task, the table of all arms against shots."""
    return [_arms_of(view, task) for task in view.tasks]


def _arms_of(view: View, task: Task) -> dict[str, Any]:
    """The arms by method and size, then scratch and checkpoints; one cell for each number of shots."""
    rows = view.arms(task)
    columns = [shots for shots in view.shots if any(shots in own for own in rows.values())]
    chosen = view.results.get("chosen") or {}
    place: dict[str | None, int] = {source: i for i, source in enumerate(view.names("sources"))}
    kinds = {kind: [arm for arm in rows if arm[0] == kind] for kind in ("trained", "scratch", "checkpoint")}
    groups = []
    for combination in view.combinations:
        arms = [arm for arm in kinds["trained"] if (arm[3], arm[2]) == combination]
        arms.sort(key=lambda arm: place.get(arm[1], len(place)))
        groups.append((combined_text(combination), "", arms))
    groups.append(("No pre-training", "", kinds["scratch"]))
    groups.append(("Public checkpoints", "not comparable in size, architecture, epochs", kinds["checkpoint"]))

    def line(arm: Arm) -> dict[str, Any]:
        own = rows[arm]
        seeds = [row.get("networks", row["seeds"]) for row in own.values()]
        draws, rates = ([row[key] for row in own.values()] for key in ("draws", "rate"))
        failed = max((row["failed"] or 0 for row in own.values()), default=0)
        return {
            "name": "from random weights" if arm[1] is None else legible(arm[1], NAME),
            "more": _told(*arm[2:]) if arm[0] == "checkpoint" else "",
            "chosen": arm == ("trained", chosen.get("source"), chosen.get("size"), chosen.get("method")),
            "cells": [_cell(view, own.get(shots)) for shots in columns],
            "n": f"{_between(seeds)} \u00d7 {_between(draws)}",
            "failed": f"{failed} failed" if failed else "",
            "rate": _between(rates, "{:g}"),
        }

    images = [row["images"] for own in rows.values() for row in own.values()]
    return {
        "title": task_text(task),
        "shots": [shots_text(shots) for shots in columns],
        "groups": [{"title": t, "note": note, "rows": [line(arm) for arm in arms]} for t, note, arms in groups if arms],
        "filter": len(rows) > FILTERED,
        "images": _between(images),
        "metric": view.metric(task[0]),
    }


def _told(size: int | None, method: str | None) -> str:
    """Method and size of a public checkpoint, as far as they are known."""
    parts = [] if method in (None, "none") else [legible(str(method), NAME)]
    return ", ".join(parts + ([count(size, "image")] if size else []))


def _cell(view: View, row: Mapping[str, Any] | None) -> dict[str, str] | None:
    if row is None or row["mean"] is None:
        return None
    interval = view.interval(row["low"], row["high"])
    return {"mean": view.points(row["mean"], False), "stderr": view.points(row["stderr"], False), "interval": interval}


def _between(values: Sequence[Any], form: str = "{:,}") -> str:
    """One number, or the smallest and the largest of several."""
    known = sorted({value for value in values if value is not None})
    if not known:
        return DASH
    return "\u2013".join(form.format(value) for value in dict.fromkeys((known[0], known[-1])))


def _ranks(view: View) -> list[dict[str, Any]]:
    """How well orders of the sources agree, for the first combination: a table each across shots, targets and seeds.

    Of a long one, the fewest against the most shots stand open.
    """
    records = view.results.get("ranks") or []
    own = [r for r in records if not view.combinations or (r["method"], r["size"]) == view.combinations[0]] or records
    tables, ends = [], set(view.ends)
    for over in dict.fromkeys(r["over"] for r in own):
        of = [r for r in own if r["over"] == over]
        few = [r for r in of if {r["first"], r["second"]} == ends or r.get("shots") in ends] if len(of) > RANKS else of
        tables.append(
            {
                "title": _OVER.get(over, legible(over, NAME)),
                "tested": any(r.get("p") is not None for r in of),
                "open": _orders(few) if few else None,
                "all": _orders(of) if len(few) < len(of) else None,
            }
        )
    return tables


def _orders(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A table of comparisons of two orders."""
    seeds = records[0]["over"] == "seeds"
    tested = any(record.get("p") is not None for record in records)
    rows = []
    for record in records:
        where = [legible(str(record[key]), NAME) for key in ("target", "mode") if record.get(key) is not None]
        what = [shots_text(record["shots"])] if record.get("shots") is not None else []
        what += [] if seeds else [" and ".join(legible(str(record[key]), NAME) for key in ("first", "second"))]
        numbers = [number(record[key], 2) for key in ("kendall", "expected_by_noise")]
        p = DASH if record.get("p") is None or record.get("detectable") is False else p_number(record.get("p"))
        rows.append([", ".join(where) or DASH, ", ".join(what) or DASH, *numbers, *([p] if tested else [])])
    heads = ["where", "shots" if seeds else "compared", "agreement"]
    heads += ["if sources were equal" if seeds else "with noise alone", *(["p"] if tested else [])]
    return table_of(heads, rows, "llrr" + "r" * tested, "ranks.csv")


def _scatter(view: View) -> list[tuple[str, str]]:
    """Typical standard deviations between seeds and between draws, in points."""
    found = []
    for name, key in (("between seeds", "sd_seeds"), ("between draws", "sd_draws")):
        values = [row[key] for row in view.results["accuracy"] if row.get(key) is not None and row["kind"] == "trained"]
        if values:
            found.append((name, view.points(median(values), False)))
    return found


def _provenance(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    given = results.get("provenance") or {"study": results["study"].get("digest")}
    return [(legible(name, NAME), legible(str(value), 400)) for name, value in given.items() if value is not None]
