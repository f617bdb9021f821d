"""Commands that say what a plan costs, and train its rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pydt.cli.arguments import DIGEST, PLAN, WORKERS, asked, command, follows, interruptible, metrics, note_plan

if TYPE_CHECKING:
    from pydt.ensemble import Cost, Plan, PlanFile


def plan(
    place: Annotated[Path, PLAN],
    plan: Annotated[str | None, DIGEST] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Of an hour of this machine, in any currency.")] = None,
    workers: Annotated[int | None, WORKERS] = None,
) -> None:
    """Say what a plan and its proof cost - rows, hours, disk, money - after timing a row; nothing is written."""
    from pydt.data import Dataset
    from pydt.ensemble import chosen_rates, cost, design_remark, remarks
    from pydt.estimation import few_masks
    from pydt.reporting import count

    found = asked(place, plan)
    read, trials = found.read, ""
    made = read.plan
    if read.rates:
        tried = chosen_rates(made, read.dir, read.rates, read.rate_rows)
        made = made if tried is None else tried.plan
        many = sum(task.rate is not None for task in made.tasks)
        rows = count(min(read.rate_rows, len(made.design)), "row")
        trials = f"{count(len(read.rates), 'learning rate')} of {count(many, 'task')} on {rows}, tried before the rest"
        trials = "learning rates: chosen already" if tried is not None else f"{trials}: this comes on top"
    groups = f"{count(len(made.context.units[1]), 'group')} (by {made.by})"
    source = f"{made.source.name}, {count(len(made.source), 'example')}"
    source = repr(made.source) if isinstance(made.source, Dataset) else source
    typer.echo(f"plan {read.name}: {source}, {groups}, {count(len(made.tasks), 'task')}, into {read.dir}")
    if (few := few_masks(made.design)) is not None:
        typer.echo(f"Note: {few}.")
    if (text := design_remark(made.design, made.context.units[1], made.recipe.method)) is not None:
        typer.echo(f"Note: {text}.")
    for text in remarks(made.context):
        typer.echo(f"Note: {text}")
    costs = cost(
        made,
        read.dir,
        workers=workers or read.workers,
        price=price,
        stop=read.stop,
        keep=read.keep,
        tell=lambda line: typer.echo(line, err=True),
    )
    typer.echo(costs)
    if trials:
        typer.echo(trials)
    for line in _proof(made, costs):
        typer.echo(line)
    if costs.rows > costs.stored:
        follows(command("run", *found.words))
    elif made.recipe.method != "checkpoint":
        follows(command("prove", *found.words))


def _proof(made: Plan, costs: Cost) -> list[str]:
    """What proving costs on top, in full and in short."""
    from pydt.analyses import QUICK, retrainings
    from pydt.ensemble import cost_of_retraining, in_size, in_time

    rows = retrainings(len(made.context.units[1]))
    if made.recipe.method == "checkpoint" or not rows:
        return []

    def told(rows: int) -> str:
        own = cost_of_retraining(made, rows, costs)
        money = "" if own.money is None else f", {own.money:,.2f} at {own.price:,.2f} an hour"
        return f"{rows:,} retrainings of up to {in_time(own.seconds)}: {in_time(3600 * own.hours)}, " + (
            f"{in_size(own.bytes)} of disk{money}"
        )

    return [f"the proof comes on top: {told(rows)}", f"or, coarser, with --quick: {told(3 * QUICK)}"]


def run(
    place: Annotated[Path, PLAN],
    plan: Annotated[str | None, DIGEST] = None,
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
    from pydt.ensemble import run as train
    from pydt.estimation import few_masks, uncompared, unmet
    from pydt.reporting import count
    from pydt.store import Store, weak_rows
    from pydt.store import status as status_of

    found = asked(place, plan)
    read = replace(found.read, workers=workers or found.read.workers)
    progress = "json" if as_json else True
    if not as_json and (few := few_masks(read.plan.design)) is not None:
        typer.echo(f"Note: {few}.", err=True)
    with interruptible():
        made = with_rates(read, read.dir, read.workers, progress)
        name = read.name if found.embedded is not None else note_plan(read, made)
        if not as_json:
            for line in _beside(Store(read.dir), made, name):
                typer.echo(line, err=True)
        store = train(
            made,
            read.dir,
            workers=read.workers,
            progress=progress,
            stop=read.stop,
            limit=read.limit,
            same_code=same_code or read.same_code,
            keep=keep or read.keep,
            keep_bytes=read.keep_bytes,
        )
    failed, note = len(store.failed()), store.stopped()
    finished = len(store.finished())
    others = len(store.designs()) - 1
    typer.echo(
        f"{count(finished, 'row')} {'is' if finished == 1 else 'are'} in {read.dir}"
        + (f", {failed:,} failed" if failed else "")
        + (f" (plan {name}; `{command('status', read.dir)}` shows all {others + 1:,} plans)" if others else "")
    )
    if note is not None:
        typer.echo(f"stopped early: {note['reason']}")
    elif (reached := store.rule()) is not None:
        typer.echo(unmet(reached))
    state = status_of(read.dir, store.plan().digest)
    for reason, times in list(state["reasons"].items())[:_MOST]:
        typer.echo(f"  {times:,} failed: {reason}")
    for line in metrics(state["tasks"]):
        typer.echo(line)
    if (alike := uncompared(store.design(), store.names())) is not None:
        typer.echo(f"{alike[0]}: there is nothing to prove or report")
        return
    low, scarce = weak_rows(store, store.plan()).many, finished < _LEAST
    if low or scarce:
        change = f"change the plan first: fewer than {_LEAST} finished rows are not reported"
        if low:
            change = "change the recipe first, such as a lower lr: models that hardly learn tell little of the data"
        follows(command("run", read.file if place.is_dir() and read.file is not None else place), change)
    if not scarce:
        follows(command("report", *found.words), "what the rows show")
    if made.recipe.method != "checkpoint" and not low and not scarce:
        follows(command("prove", *found.words), "retrains without the lowest, the highest and random groups")


def _beside(store: Any, made: Plan, name: str) -> list[str]:
    """What else the store holds, and what of it serves this plan."""
    from pydt.reporting import count
    from pydt.store import changes, shared

    record, lines = made.record(), []
    for other in store.designs():
        if other.digest != record.digest:
            finished = len(store.finished(other))
            same = shared(other, record)
            serves = f"{same:,} of them serve {name}" if same else f"none of them serves {name}"
            changed = "; ".join(changes(other, record))
            rows = f"{count(len(other.rows), 'row')}, {finished:,} finished"
            lines.append(f"also in {store.folder.name}: plan {store.called(other)} ({rows}): {serves} ({changed})")
    more = [f"and {len(lines) - _MOST:,} more plans"] if len(lines) > _MOST else []
    return [*lines[-_MOST:], *more]


_MOST = 5  # plans beside the one that runs, and reasons of failed rows
_LEAST = 10  # finished rows that a report takes


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
