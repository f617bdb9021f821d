"""The results of a finished study: every number of its page, from the rows of its store.

The score half of the targets ranks and selects; all numbers come from the report half.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from pydt import __version__
from pydt.base import as_path, write_atomic
from pydt.ensemble import RatesOfPart
from pydt.reporting import count, finite, listed, quoted, recommendation_sentences, study_csv, study_page
from pydt.store import Store, stored_remarks, weak
from pydt.studies.comparing import LEVEL, accuracies, equivalences, pairs, ranks, scratch_gains, spreads
from pydt.studies.conditions import equal, rate_notes, told_method, told_mode, told_source, unequal
from pydt.studies.grid import Grid
from pydt.studies.recommendation import chosen_arm, recommended
from pydt.studies.running import choice_of, study_parts
from pydt.studies.study import Study
from pydt.studies.values import Cell, halves_of

_NAMED = 6  # failed rows that are named


def study_report(
    study: Study, store: Store | str | os.PathLike[str], out: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Analyse a finished study and write its page: study.html, results.json and one CSV for each table.

    Args:
        study: as it was run.
        store: its store, or the folder of it.
        out: folder of the files; by default that of the store.

    Returns:
        the content of results.json: accuracies, spreads and differences as fractions, of the report half of targets.

    Raises:
        StoreError: rows are missing: run the study first; or a file is damaged or cannot be written.
    """
    store = store if isinstance(store, Store) else Store(store)
    folder = as_path(store.folder if out is None else out, "study_report", made=True)
    halves = halves_of(study, store)
    choices = {arm.name: choice for arm in study.arms if (choice := choice_of(study, store.folder, arm)) is not None}
    found = study_results(
        study, halves["report"], halves["score"], choices, (*_unlearnt(study, store), *_remarks(study, store))
    )
    write_atomic(folder / "results.json", (json.dumps(found, indent=1, allow_nan=False) + "\n").encode())
    study_csv(found, folder)
    study_page(found, folder)
    return found


def study_results(
    study: Study,
    report: Mapping[tuple[str, str], Cell],
    score: Mapping[tuple[str, str], Cell],
    choices: Mapping[str, RatesOfPart] | None = None,
    remarks: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The content of results.json, from cells as `cells_of` gives them.

    Args:
        choices: of learning rates, by name of arm. remarks: on the data.
    """
    grid = Grid(study, report, score)
    tables: dict[str, Any] = {"accuracy": accuracies(grid), "spread": spreads(grid), "pairs": pairs(grid)}
    tables |= {"equivalence": equivalences(grid), "ranks": ranks(grid)}
    tables["scratch"] = scratch_gains(grid, tables["pairs"])
    facts = recommended(grid, tables)
    notes = [
        *_failures(grid, report),
        *_twins(grid),
        *_elsewhere(tables),
        *_unknown(study, tables),
        *rate_notes(study, choices or {}),
    ]
    found = {
        "study": _described(grid, report),
        "chosen": chosen_arm(facts),
        "recommendation": recommendation_sentences(facts),
        **tables,
        "notes": [*notes, *remarks],
        "provenance": {"study": study.digest, "seed": study.seed, "pydt": __version__},
    }
    result: dict[str, Any] = finite(found)
    return result


def _unlearnt(study: Study, store: Store) -> tuple[str, ...]:
    """A note of the arms whose networks hardly learnt their source: what they transfer says little of it."""
    told: dict[str, list[dict[str, Any]]] = {}
    for arm, part in zip(study.arms * study.seeds, study_parts(study, store.folder), strict=True):
        told.setdefault(arm.name, []).extend(store.glimpse(part.record) if arm.kind == "trained" else [])
    low = {arm.name: len(weak(told[arm.name], arm.recipe.described()).at) for arm in study.arms}
    found = [f"{name} ({many} of {len(told[name])} seeds)" for name, many in low.items() if many]
    if not found:
        return ()
    more = f" and {len(found) - _NAMED} arms more" if len(found) > _NAMED else ""
    return (f"Networks hardly learnt their own source, so they say little of it: {'; '.join(found[:_NAMED])}{more}.",)


def _described(grid: Grid, report: Mapping[tuple[str, str], Cell]) -> dict[str, Any]:
    """The study as its page tells it."""
    study = grid.study
    images = {cell.asked.target: len(cell.labels) for cell in report.values()}
    every = {k: None for mode in study.modes for k in grid.shots(mode)}
    targets = [
        {"name": name, "classes": len(one.classes), "metric": one.metric, "images": images[name]}
        for name, one in study.targets.items()
    ]
    return {
        "name": study.name,
        "digest": study.digest,
        "seeds": study.seeds,
        "draws": study.draws,
        "shots": [k for k in (0, *study.shots) if k in every],
        "sizes": list(study.sizes),
        "sources": [{"name": name, "told": told_source(one)} for name, one in study.sources.items()],
        "methods": [{"name": name, "told": told_method(name, one)} for name, one in study.methods.items()],
        "targets": targets,
        "modes": [{"name": name, "told": told_mode(study, name)} for name in study.modes],
        "rates": list(study.rates),
        "rows": len(study.arms) * study.seeds,
        "failed": len({(arm, seed) for arm, seed in _failed(study, report)}),
        "equal": equal(study),
        "unequal": unequal(study),
    }


def _failed(study: Study, report: Mapping[tuple[str, str], Cell]) -> dict[tuple[str, int], str]:
    """Rows (arm, seed) of which a task gave nothing, and the first reason."""
    found: dict[tuple[str, int], str] = {}
    for (arm, _), cell in report.items():
        lost = [seed for seed in range(study.seeds) if seed not in cell.seeds]
        for seed, reason in zip(lost, cell.failed, strict=True):
            found.setdefault((arm, seed), reason)
    return found


def _failures(grid: Grid, report: Mapping[tuple[str, str], Cell]) -> list[str]:
    failed = _failed(grid.study, report)
    if not failed:
        return []
    rows = len(grid.study.arms) * grid.study.seeds
    named = [f"{arm}, seed {seed}: {reason}" for (arm, seed), reason in list(failed.items())[:_NAMED]]
    more = f"; and {len(failed) - _NAMED:,} more" if len(failed) > _NAMED else ""
    return [
        f"{len(failed):,} of {rows:,} rows failed and are left out, of pairs on both sides: {'; '.join(named)}{more}."
    ]


def _twins(grid: Grid) -> list[str]:
    """Sources that are the same trainings by some method."""
    found: dict[tuple[str, str], list[str]] = {}
    for (source, _, method), other in grid.twins.items():
        found.setdefault((source, other), []).append(method)
    return [
        f"By {listed(list(dict.fromkeys(methods)))}, {quoted(source)} is the same training as {quoted(other)}, since "
        "what differs is not read: comparisons of sources leave it out."
        for (source, other), methods in found.items()
    ]


def _elsewhere(tables: Mapping[str, Any]) -> list[str]:
    """In how many places two sources differ: the recommendation speaks of one place alone."""
    families: dict[str, bool] = {}
    for row in tables["pairs"]:
        if row["axis"] == "source":
            families[row["family"]] = families.get(row["family"], False) or row["p_holm"] < LEVEL
    if len(families) < 2:
        return []
    found, chance = sum(families.values()), LEVEL * len(families)
    places = f"{len(families):,} combinations of target, transfer, shots, size and method"
    by_chance = f"up to {chance:.0f}" if chance >= 1 else "fewer than one"
    return [f"Two sources differ in {found:,} of {places} (Holm in each; noise alone would give {by_chance})."]


def _unknown(study: Study, tables: Mapping[str, Any]) -> list[str]:
    """What errors do not contain."""
    notes = []
    one = {row["shots"]: None for row in tables["accuracy"] if row["shots"] and "draws" in row["unknown"]}
    if one:
        where = " and ".join("with all labelled images" if k == "full" else f"at {count(k, 'shot')}" for k in one)
        notes.append(f"There is one draw {where}: errors do not contain which images were labelled.")
    if study.checkpoints:
        notes.append("A checkpoint is one network: its error does not contain what another training of it would give.")
    return notes


def _remarks(study: Study, store: Store) -> tuple[str, ...]:
    """What stood out in the data when the rows were run, once each."""
    found: dict[str, None] = {}
    for part in study_parts(study, store.folder):
        found |= dict.fromkeys(stored_remarks(store, part.record))
    return tuple(found)
