"""The command that runs a study."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pydt import __version__
from pydt.base import StoreError
from pydt.cli.arguments import WORKERS, command, follows, interruptible

if TYPE_CHECKING:
    from pydt.studies import Study, StudyFile

FOLDER = "analyses"
_FEWEST_MIXED = 3  # sources
_MIXED = 64  # rows


def study(
    place: Annotated[
        Path,
        typer.Argument(metavar="FILE|DIR", help="A study (TOML, see docs/studies.md), or the store that it filled."),
    ],
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it does and costs; nothing is written.")] = False,
    workers: Annotated[int | None, WORKERS] = None,
    mixtures: Annotated[
        int | None,
        typer.Option(metavar="N", help="Then train N rows on mixtures of its sources (64, say): what each brings."),
    ] = None,
) -> None:
    """Which source should one pre-train on, how large, by which method? Say what that costs, train, write the page.

    Stopped at any moment, the same command continues; what was added to FILE is trained alone.
    """
    from pydt.reporting import count
    from pydt.store import Store, name_plan, usual_name
    from pydt.studies import mixture_cost, read_study, run_study, study_cost, study_report

    file = _file_of(place)
    read = read_study(file)
    workers = workers or read.workers
    for line in _told(read.study):
        typer.echo(line)
    if mixtures is not None:  # first, so that what cannot be asked is refused before the study's pilot rows are trained
        more = mixture_cost(read.study, read.dir, models=mixtures, workers=workers)
    cost = study_cost(read.study, read.dir, workers=workers, keep=read.keep)
    rows = count(cost.rows, "row")
    typer.echo(cost if cost.rows > cost.stored else f"{rows}, all of them stored in {read.dir}")
    if mixtures is not None:
        typer.echo(
            f"\nmixtures of {count(len(read.study.sources), 'source')}, {next(iter(read.study.methods))}:\n{more}"
        )
    if plan:
        return
    name_plan(Store.create(read.dir), read.study.digest, usual_name(read.study.name), file=file, study=True)
    with interruptible():
        store = run_study(
            read.study,
            read.dir,
            workers=workers,
            limit=read.limit,
            same_code=read.same_code,
            keep=read.keep,
            keep_bytes=read.keep_bytes,
        )
        found = study_report(read.study, store)
    typer.echo()
    for text in [*found["recommendation"], *(f"Note: {note}" for note in found["notes"])]:
        typer.echo(text)
    typer.echo(f"\nReport: {read.dir / 'study.html'}\nNumbers: {read.dir / 'results.json'} and the CSV files beside it")
    if mixtures is not None:
        with interruptible():
            _mixed(read, mixtures, workers)
    elif len(read.study.sources) >= _FEWEST_MIXED:
        mixed = command("study", file, "--mixtures", _MIXED, "--plan")
        follows(mixed, "says what it costs to train on the sources together: what does each add to the others?")


def _file_of(place: Path) -> Path:
    """The file of a study; of a store that which was run into it.

    Raises:
        StoreError: no study, several, or its file is not there.
    """
    from pydt.store import Store, read_names

    if not place.is_dir():
        return place
    store = Store(place)
    names = [one for one in read_names(store).values() if one.study and one.file is not None]
    files = sorted({os.path.normpath(store.folder / str(one.file)) for one in names})
    if len(files) != 1:
        found = f"{len(files)} studies" if files else "does not say from which file a study was run"
        known = f"; there are: {', '.join(files)}" if files else ""
        raise StoreError(found, str(place), f"give the study file in place of the folder{known}")
    if not os.path.isfile(files[0]):
        mend = "put the file back, or name it where it is now, in place of the folder"
        raise StoreError("is not there; the study of this store was run from it", files[0], mend)
    return Path(files[0])


def _mixed(read: StudyFile, models: int, workers: int | None) -> None:
    """Train rows on mixtures into the study's store, write their page, and say what it says first."""
    from pydt.ensemble import run
    from pydt.reporting import write_pages
    from pydt.studies import mixture_plan, mixtures_by_shots

    made = mixture_plan(read.study, read.dir, models=models)
    store = run(made, read.dir, workers=workers, limit=read.limit, same_code=read.same_code)
    page = mixtures_by_shots(read.study, store, made).page()
    facts = [("study", read.study.digest), ("plan", made.digest), ("pydt", __version__)]
    index = write_pages([page], read.dir / FOLDER, read.study.name, facts)
    typer.echo()
    for text in page.answer[:3]:
        typer.echo(text)
    typer.echo(f"\nMixtures: {index.parent / 'mixtures.html'}")


def _told(study: Study) -> list[str]:
    """What a study does, in lines."""
    from pydt.reporting import count

    kinds = [arm.kind for arm in study.arms]
    axes = [count(len(study.sources), "source"), count(len(study.sizes), "size"), count(len(study.methods), "method")]
    of = " x ".join(axes) if study.cells is None else "cells of the file"
    arms = [f"{count(kinds.count('trained'), 'arm')} to pre-train ({of})"] if "trained" in kinds else []
    arms += ["an untrained network"] if study.scratch is not None else []
    arms += [count(len(study.checkpoints), "public checkpoint")] if study.checkpoints else []
    shots = ", ".join(map(str, study.shots))
    tasks = f"{count(len(study.targets), 'target')} x {count(len(study.modes), 'mode')} x shots {shots}"
    return [
        f"study {study.name} ({study.digest[:8]}): {', '.join(arms)}; {count(study.seeds, 'seed')} each",
        f"each transferred to {tasks}, {count(study.draws, 'draw')} each",
    ]
