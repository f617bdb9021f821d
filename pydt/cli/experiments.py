"""Commands that ask everything at once: the quickstart, and all analyses of a plan."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from pydt.cli.arguments import (
    DIGEST,
    OUTPUT,
    TASK,
    WORKERS,
    Asked,
    asked,
    command,
    embedded,
    follows,
    interruptible,
    note_plan,
)
from pydt.cli.plans import with_rates
from pydt.ensemble import MODELS, REPEATS, SAMPLE_SETTINGS, quickstart_plan


def quickstart(
    out: Annotated[Path | None, typer.Option(help="Folder for everything; default pydt-quickstart-seed<SEED>.")] = None,
    models: Annotated[int, typer.Option(min=20, help="Models trained on masked subsets.")] = MODELS,
    seed: Annotated[int, typer.Option(min=0, help="Of masks, trainings, few-shot draws and controls.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default one per core.")] = None,
) -> None:
    """Which printed characters teach a network to read handwritten digits? Train, estimate, prove, report.

    Stopped at any moment, the same command continues.
    """
    from pydt.analyses import counterfactual
    from pydt.analyses import report as write_report
    from pydt.ensemble import PlanFile, run
    from pydt.reporting import sentences

    folder = Path(f"pydt-quickstart-seed{seed}") if out is None else out
    start = time.monotonic()
    plan = quickstart_plan(models, seed)
    note_plan(PlanFile(plan, folder, "quickstart"), plan, "sample", seed)
    typer.echo(
        f"1/3  {models} models on random quarters of 62 printed characters, transferred to handwritten digits", err=True
    )
    with interruptible():
        store = run(plan, folder, workers=workers)
        typer.echo("2/3  the proof: retraining without the lowest, the highest and random characters", err=True)
        counterfactual(store, plan, seed=seed, workers=workers, repeats=REPEATS)
    typer.echo("3/3  estimating and writing the report", err=True)
    command = f"pydt quickstart --models {models} --seed {seed}"
    found = write_report(store, folder, plan, seconds=time.monotonic() - start, command=command)
    typer.echo()
    for text in [*sentences(found), *(f"Note: {note}" for note in found["notes"])]:
        typer.echo(text)
    typer.echo(f"\nReport: {folder / 'report.html'}\nNumbers: {folder / 'results.json'} and the CSV files beside it")


class NamesAnalyses(TyperCommand):
    """A command whose help ends with the analyses that there are; the catalogue is loaded for the help alone."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from pydt.analyses import ANALYSES

        self.epilog = "\n\n".join(
            ["Names for --only:", *(f"{one.name}: {one.asks}{' (trains)' * one.trains}" for one in ANALYSES)]
        )
        super().format_help(ctx, formatter)


def analyse(
    place: Annotated[
        str,
        typer.Argument(
            metavar="FILE|DIR",
            help='A plan, or the store that it filled; "sample", the plan of the quickstart; "lab", where the truth is '
            "planted.",
        ),
    ],
    plan: Annotated[str | None, DIGEST] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the store; default what FILE says, pydt-quickstart-seed0, pydt-lab-seed0."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Name of an analysis (below); may be repeated. Default all.")
    ] = None,
    train: Annotated[
        bool | None,
        typer.Option("--train/--no-train", help="Train what is missing; default for sample and lab."),
    ] = None,
    keep: Annotated[
        list[Path] | None, typer.Option(help="Groups picked by hand, a name a line, for the removal curve.")
    ] = None,
    models: Annotated[
        int | None,
        typer.Option(
            min=20, help=f"Rows of sample or lab; default {MODELS}, 256. What the analyses retrain stays as many."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of sample or lab, retrainings and random splits.")] = 0,
    workers: Annotated[int | None, WORKERS] = None,
    task: Annotated[str | None, TASK] = None,
    output: Annotated[str | None, OUTPUT] = None,
) -> None:
    """Make a page for each analysis: rankings, removal, failures, leaks and more; see docs/analyses.md.

    Stopped at any moment, the same command continues.
    """
    from pydt.analyses import analyse as make_pages
    from pydt.analyses import chosen, trainings
    from pydt.data import read_list
    from pydt.ensemble import PlanFile, run
    from pydt.reporting import count

    by_word = place in ("sample", "lab")
    if models is not None and not by_word:
        raise typer.BadParameter("a plan file says itself how many", param_hint="--models")
    chosen(only, True)  # refuses a misspelt name before anything is trained
    lists = {path.stem: read_list(path) for path in keep or []}
    if len(lists) < len(keep or []):
        raise typer.BadParameter("lists are called by the names of their files, and two are alike", param_hint="--keep")
    train = by_word if train is None else train
    if lists and "removal" not in [analysis.name for analysis in chosen(only, train)[0]]:
        raise typer.BadParameter("lists belong to removal, which trains models: add --train", param_hint="--keep")
    if place == "sample":
        folder = Path(f"pydt-quickstart-seed{seed}") if out is None else out
        made_by = PlanFile(quickstart_plan(models or MODELS, seed), folder, "quickstart")
        found = Asked(made_by, (str(folder),), "sample")
    elif place == "lab":
        folder = Path(f"pydt-lab-seed{seed}") if out is None else out
        found = Asked(embedded("lab", models or 256, seed, folder), (str(folder),), "lab")
    else:
        found = asked(Path(place), plan)
        found = found if out is None else replace(found, read=replace(found.read, dir=out))
    settings: dict[str, dict[str, Any]] = dict(SAMPLE_SETTINGS) if found.embedded == "sample" else {}
    if lists:
        settings["removal"] = {**settings.get("removal", {}), "keep_lists": lists}
    read, folder, workers = found.read, found.read.dir, workers or found.read.workers
    if train:
        if not read.rates:  # which a task's digest would depend on
            read.plan.task(task)  # refuses an unknown name before anything is trained
        with interruptible():
            kept: dict[str, Any] = {"keep": read.keep, "keep_bytes": read.keep_bytes}
            made = with_rates(read, folder, workers)
            if by_word or found.embedded is None:
                note_plan(read, made, found.embedded, seed)
            run(made, folder, workers=workers, stop=read.stop, limit=read.limit, **kept)
    else:
        made = found.chosen()
    needs = trainings(made, folder, chosen(only, train, made.by)[1], workers=workers, settings=settings)
    for name, told in needs.items():
        typer.echo(f"{name} trains models: {told}")
    with interruptible():
        done = make_pages(
            made,
            folder,
            only=only,
            train=train,
            workers=workers,
            seed=seed,
            settings=settings,
            task=task,
            output=output,
            tell=lambda text: typer.echo(text, err=True),
        )
    if done.failed:
        typer.echo(f"could not be made, the list of pages says why: {', '.join(done.failed)}")
    if done.unsuited:
        typer.echo(f"not for this plan, the list of pages says why: {', '.join(done.unsuited)}")
    for name, text in done.answers.items():
        typer.echo(f"{name}: {text}")
    if done.index is not None and done.pages:
        made_alone = done.index.with_name(f"{done.pages[0]}.html") if len(done.pages) == 1 else done.index
        typer.echo(f"{count(len(done.pages), 'page')}: {made_alone}")
    for name in done.skipped:
        options = [*(("--task", task) if task else ()), *(("--output", output) if output else ())]
        follows(command("analyse", *found.words, "--only", name, "--train", *options), needs.get(name, ""))
    if done.failed or not done.pages:
        raise typer.Exit(1)
