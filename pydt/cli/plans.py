"""Commands that say what a plan costs, and train its rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pydt.cli.arguments import PLAN, WORKERS, interruptible, metrics

if TYPE_CHECKING:
    from pydt.ensemble import Plan, PlanFile


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
            with_rates(read, read.dir, workers or read.workers, progress),
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


def with_rates(read: PlanFile, folder: Path, workers: int | None, progress: bool | str = True) -> Plan:
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
