"""Commands that plan, train, prove and report."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pydt.base import ConfigError
from pydt.cli.arguments import DIGEST, PLAN, STORE, WORKERS, interruptible, metrics, ran, store_and_plan
from pydt.ensemble import MODELS, SAMPLE_SETTINGS, quickstart_plan

if TYPE_CHECKING:
    from pydt.analyses import Kept
    from pydt.ensemble import Plan, PlanFile


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
    from pydt.ensemble import run
    from pydt.reporting import sentences
    from pydt.store import Store

    folder = Path(f"pydt-quickstart-seed{seed}") if out is None else out
    start = time.monotonic()
    Store.create(folder)
    plan = quickstart_plan(models, seed)
    typer.echo(
        f"1/3  {models} models on random quarters of 62 printed characters, transferred to handwritten digits", err=True
    )
    with interruptible():
        store = run(plan, folder, workers=workers)
        typer.echo("2/3  the proof: retraining without the lowest, the highest and random characters", err=True)
        counterfactual(store, plan, seed=seed, workers=workers)
    typer.echo("3/3  estimating and writing the report", err=True)
    command = f"pydt quickstart --models {models} --seed {seed}"
    found = write_report(store, folder, plan, seconds=time.monotonic() - start, command=command)
    typer.echo()
    for text in [*sentences(found), *(f"Note: {note}" for note in found["notes"])]:
        typer.echo(text)
    typer.echo(f"\nReport: {folder / 'report.html'}\nNumbers: {folder / 'results.json'} and the CSV files beside it")


def plan(
    file: Annotated[Path, PLAN],
    price: Annotated[float | None, typer.Option(min=0, help="Of an hour of this machine, in any currency.")] = None,
    workers: Annotated[int | None, WORKERS] = None,
) -> None:
    """Say what a plan costs - rows, hours, disk, money - after timing a row; nothing is written."""
    from pydt.analyses import retrainings
    from pydt.data import Dataset
    from pydt.ensemble import chosen_rates, cost, design_remark, read_plan, remarks
    from pydt.estimation import few_masks
    from pydt.reporting import count

    read = read_plan(file)
    made, trials = read.plan, ""
    if read.rates:
        found = chosen_rates(made, read.dir, read.rates, read.rate_rows)
        made = made if found is None else found.plan
        many = sum(task.rate is not None for task in made.tasks)
        rows = count(min(read.rate_rows, len(made.design)), "row")
        trials = f"{count(len(read.rates), 'learning rate')} of {count(many, 'task')} on {rows}, tried before the rest"
        trials = "learning rates: chosen already" if found is not None else f"{trials}: this comes on top"
    groups = f"{count(len(made.context.units[1]), 'group')} (by {made.by})"
    source = f"{made.source.name}, {count(len(made.source), 'example')}"
    source = repr(made.source) if isinstance(made.source, Dataset) else source
    typer.echo(f"plan {made.digest}: {source}, {groups}, {count(len(made.tasks), 'task')}, into {read.dir}")
    if (few := few_masks(made.design)) is not None:
        typer.echo(f"Note: {few}.")
    if (text := design_remark(made.design, made.context.units[1], made.recipe.method)) is not None:
        typer.echo(f"Note: {text}.")
    for text in remarks(made.context):
        typer.echo(f"Note: {text}")
    typer.echo(cost(made, read.dir, workers=workers or read.workers, price=price, stop=read.stop, keep=read.keep))
    if trials:
        typer.echo(trials)
    if made.recipe.method != "checkpoint" and (more := retrainings(len(made.context.units[1]))):
        typer.echo(f"the proof comes on top: `pydt prove {file}` computes {more} rows more (--drop, --repeats: fewer)")


def run(
    file: Annotated[Path, PLAN],
    workers: Annotated[int | None, WORKERS] = None,
    same_code: Annotated[
        bool, typer.Option("--same-code", help="Refuse stored rows of other versions of pydt, torch or torchvision.")
    ] = False,
    keep: Annotated[
        str | None,
        typer.Option(help='What to keep of networks for later tasks: "none", "features", "weights".'),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Progress as JSON lines on stderr.")] = False,
) -> None:
    """Train the rows of a plan that its store still lacks; first choose learning rates, where FILE has a table `rates`.

    Stopped at any moment, the same command continues.
    """
    from pydt.ensemble import read_plan
    from pydt.ensemble import run as train
    from pydt.estimation import few_masks, uncompared, unmet
    from pydt.reporting import count
    from pydt.store import status as status_of

    read = read_plan(file)
    progress = "json" if as_json else True
    if not as_json and (few := few_masks(read.plan.design)) is not None:
        typer.echo(f"Note: {few}.", err=True)
    with interruptible():
        store = train(
            _with_rates(read, read.dir, workers or read.workers, progress),
            read.dir,
            workers=workers or read.workers,
            progress=progress,
            stop=read.stop,
            limit=read.limit,
            same_code=same_code or read.same_code,
            keep=keep or read.keep,
            keep_bytes=read.keep_bytes,
        )
    failed, note = len(store.failed()), store.stopped()
    finished = len(store.finished())
    typer.echo(
        f"{count(finished, 'row')} {'is' if finished == 1 else 'are'} in {read.dir}"
        + (f", {failed:,} failed" if failed else "")
    )
    if note is not None:
        typer.echo(f"stopped early: {note['reason']}")
    elif (reached := store.rule()) is not None:
        typer.echo(unmet(reached))
    for line in metrics(status_of(read.dir, store.plan().digest)["tasks"]):
        typer.echo(line)
    if (found := uncompared(store.design(), store.names())) is not None:
        typer.echo(f"{found[0]}: there is nothing to prove or report")
        return
    named = f" --plan {store.plan().digest[:8]}" if len(store.designs()) > 1 else ""
    typer.echo(f"next: pydt prove {file}, pydt report {read.dir}{named}")


def _with_rates(read: PlanFile, folder: Path, workers: int | None, progress: bool | str = True) -> Plan:
    """The plan of a file with its learning rates, chosen now if they are not yet."""
    from pydt.ensemble import choose_rates

    if not read.rates:
        return read.plan
    more: dict[str, Any] = {"workers": workers, "progress": progress, "limit": read.limit}
    more["keep_bytes"] = read.keep_bytes
    found = choose_rates(read.plan, folder, read.rates, read.rate_rows, **more)
    if progress is True:
        for one in found.table:
            if one.chosen:
                loss = f"{one.loss:.3g}" if one.stderr is None else f"{one.loss:.3g} +- {one.stderr:.2g}"
                typer.echo(f"learning rate of {one.task}: {one.rate:g} (loss {loss} on validation images)", err=True)
        for note in found.notes:
            typer.echo(f"Note: {note}.", err=True)
    return found.plan


def prove(
    file: Annotated[Path, PLAN],
    workers: Annotated[int | None, WORKERS] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of trainings, few-shot draws and random controls.")] = 0,
    drop: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Groups to leave out; may be repeated. Default a half, a quarter, three quarters."),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=2, help="Retrainings of the full source, and of each arm of the first number.")
    ] = 14,
) -> None:
    """Retrain without the lowest, the highest and random groups, as the rows of a plan rank them; then report.

    Stopped at any moment, the same command continues.
    """
    from pydt.analyses import counterfactual
    from pydt.ensemble import read_plan
    from pydt.store import Store

    if file.is_dir():
        mend = "give the plan file; an imported store has none: write one whose command trains on the same groups"
        raise ConfigError("is a folder, not a plan that can train", str(file), mend)
    read = read_plan(file)
    chosen = ran(file, read)
    with interruptible():
        store, workers = Store(read.dir, chosen), workers or read.workers
        counterfactual(store, chosen, drop=drop, repeats=repeats, seed=seed, workers=workers, limit=read.limit)
    report(read.dir, chosen.digest)


def analyse(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help='A plan; or "sample", that of the quickstart; or "lab", where the truth is planted.'
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the store; default what FILE says, pydt-quickstart-seed0, pydt-lab-seed0."),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Name of an analysis; may be repeated. Default all.")] = None,
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
) -> None:
    """Make a page for each analysis: rankings, removal, failures, leaks and more; see docs/analyses.md.

    Stopped at any moment, the same command continues.
    """
    from pydt.analyses import analyse as make_pages
    from pydt.analyses import chosen
    from pydt.data import read_list
    from pydt.ensemble import PlanFile, read_plan, run
    from pydt.reporting import count
    from pydt.store import Store

    embedded = file in ("sample", "lab")
    if models is not None and not embedded:
        raise typer.BadParameter("a plan file says itself how many", param_hint="--models")
    chosen(only, True)  # refuses a misspelt name before anything is trained
    lists = {path.stem: read_list(path) for path in keep or []}
    if len(lists) < len(keep or []):
        raise typer.BadParameter("lists are called by the names of their files, and two are alike", param_hint="--keep")
    settings: dict[str, dict[str, Any]] = dict(SAMPLE_SETTINGS) if file == "sample" else {}
    train = embedded if train is None else train
    if lists and "removal" not in [analysis.name for analysis in chosen(only, train)[0]]:
        raise typer.BadParameter("lists belong to removal, which trains models: add --train", param_hint="--keep")
    if lists:
        settings["removal"] = {**settings.get("removal", {}), "keep_lists": lists}
    if file == "sample":
        read = PlanFile(quickstart_plan(models or MODELS, seed), Path(f"pydt-quickstart-seed{seed}"))
    elif file == "lab":
        from pydt.analyses import laboratory as lab

        read = PlanFile(lab.plan(lab.planted(seed), models or 256, seed), Path(f"pydt-lab-seed{seed}"))
    else:
        read = read_plan(file)
    folder, workers = read.dir if out is None else out, workers or read.workers
    if train:
        with interruptible():
            Store.create(folder)
            kept: dict[str, Any] = {"keep": read.keep, "keep_bytes": read.keep_bytes}
            made = _with_rates(read, folder, workers)
            run(made, folder, workers=workers, stop=read.stop, limit=read.limit, **kept)
    else:
        made = ran(Path(file), replace(read, dir=folder)) if not embedded else read.chosen(folder)
    with interruptible():
        done = make_pages(
            made,
            folder,
            only=only,
            train=train,
            workers=workers,
            seed=seed,
            settings=settings,
            tell=lambda text: typer.echo(text, err=True),
        )
    if done.failed:
        typer.echo(f"could not be made, the list of pages says why: {', '.join(done.failed)}")
    if done.unsuited:
        typer.echo(f"not for this plan, the list of pages says why: {', '.join(done.unsuited)}")
    if done.skipped:
        typer.echo(f"these train models, with --train: {', '.join(done.skipped)}")
    if done.index is not None:
        made_alone = done.index.with_name(f"{done.pages[0]}.html") if len(done.pages) == 1 else done.index
        typer.echo(f"{count(len(done.pages), 'page')}: {made_alone}")
    if done.failed or not done.pages:
        raise typer.Exit(1)


def report(
    folder: Annotated[Path, STORE],
    plan: Annotated[str | None, DIGEST] = None,
    task: Annotated[str | None, typer.Option(help="Name or digest of a task; default the plan's first.")] = None,
    allow_failed: Annotated[
        bool, typer.Option(help="Give a verdict although more than 2 % of the rows failed.")
    ] = False,
) -> None:
    """Write DIR/report.html, DIR/results.json and the CSV files again from what the store holds."""
    from pydt.analyses import report as write_report
    from pydt.reporting import sentences, stopped

    folder, plan = store_and_plan(folder, plan)
    found = write_report(folder, folder, plan, task=task, allow_failed=allow_failed)
    for text in [*sentences(found), *filter(None, [stopped(found)]), *(f"Note: {note}" for note in found["notes"])]:
        typer.echo(text)
    typer.echo(f"\nReport: {folder / 'report.html'}")


def keep(
    place: Annotated[Path, STORE],
    drop: Annotated[int | None, typer.Option(help="Leave out so many of the lowest groups.")] = None,
    top: Annotated[int | None, typer.Option(help="Keep so many of the highest groups.")] = None,
    sure: Annotated[
        bool,
        typer.Option("--sure", help="Leave out what is surely below 0, or below the average group (q < 0.05)."),
    ] = False,
    task: Annotated[str | None, typer.Option(help="Name or digest of a task; default the plan's first.")] = None,
    output: Annotated[str | None, typer.Option(help="Of which the influences are; default the task's metric.")] = None,
    plan: Annotated[str | None, DIGEST] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the list; default DIR/kept.")] = None,
) -> None:
    """Write which groups to keep, as the finished rows rank them: names, positions, keys, and lines that use them.

    Positions and keys of examples need the source: a plan file names it, a store may hold it.
    """
    from pydt.analyses import keep as kept_list
    from pydt.ensemble import parsed, read_plan

    chosen: Plan | str | None
    file = place if place.suffix == ".toml" and place.is_file() and "study" not in parsed(place) else None
    if file is None:
        folder, chosen = store_and_plan(place, plan)
    else:
        folder, chosen = (read := read_plan(file)).dir, ran(file, read)
        chosen = chosen if plan is None or chosen.digest.startswith(plan) else plan
    found = kept_list(folder, chosen, drop=drop, top=top, sure=sure, task=task, output=output)
    files = found.write(folder / "kept" if out is None else out)
    for text in found.sentences:
        typer.echo(text)
    typer.echo()
    for path in files.values():
        typer.echo(str(path))
    if found.positions is None:
        typer.echo(f"no positions of examples: {folder} does not hold the source; a plan file in its place tells them")
    typer.echo()
    for library, line in found.lines(files).items():
        typer.echo(f"{library + ':':<14} {line}")
    own = None if isinstance(chosen, str) else file  # the file does not retrain another plan
    if found.retrained is None and (line := _proof_of(found, own, task, output, files)):
        typer.echo(f"{'to test it:':<14} {line}")


def _proof_of(found: Kept, file: Path | None, task: str | None, output: str | None, files: dict[str, Path]) -> str:
    """The command that retrains without the groups that a list leaves out; empty where there is none."""
    if file is None or not found.dropped or task is not None or output is not None:
        return ""
    if found.sure:
        words = ["analyse", file, "--only", "removal", "--train", "--keep", files.get(".txt", "")]
    else:
        words = ["prove", file, "--drop", len(found.dropped)]
    return shlex.join(["pydt", *map(str, words)]) if all(words) else ""
