"""Arguments and options that several commands share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pydt.base import StoreError

if TYPE_CHECKING:
    from pydt.ensemble import Plan, PlanFile

PLAN = typer.Argument(metavar="FILE", help="A plan: TOML, see docs/plans.md.")
STORE = typer.Argument(metavar="DIR", help="A store that pydt filled, or the plan or study file that filled it.")
DIGEST = typer.Option(help="Digest of the plan, or its first digits (4 or more), where the store holds several.")
TASK = typer.Option(help="A task of the plan: its name or the beginning of it, or its digest; default the first.")
OUTPUT = typer.Option(help="Of which the influences are, such as margin; default the task's metric.")
WORKERS = typer.Option(min=1, help="Processes; default what FILE says, else one per core.")


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """On Ctrl-C, print what is stored and how to continue (typer would drop that text), and exit with 130."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        typer.echo(f"pydt: {stopped}", err=True)
        raise typer.Exit(130) from None


def ran(file: Path, read: PlanFile) -> Plan:
    """The plan of a file with its learning rates; refused where its store has no rows of it."""
    made = read.chosen()
    if not (read.dir / "plans" / f"{made.digest}.json").is_file():
        raise StoreError("holds no rows of this plan", str(read.dir), f"run `pydt run {file}` first")
    return made


def store_of(place: Path) -> Path:
    """The folder of a store that was named by itself, or by its plan or study file."""
    return store_and_plan(place, "")[0]


def store_and_plan(place: Path, plan: str | None) -> tuple[Path, str | None]:
    """The same with the plan that was asked for, or that of the file; a study has no such plan."""
    if place.suffix != ".toml" or not place.is_file():
        return place, plan
    from pydt.ensemble import parsed, read_plan

    if "study" in parsed(place):
        from pydt.studies import read_study

        return read_study(place).dir, plan
    read = read_plan(place)
    return read.dir, ran(place, read).digest if plan is None else plan


def metrics(tasks: list[dict[str, Any]]) -> list[str]:
    """A line for each task: what the rows reach on its report half, by which nothing was chosen."""
    from pydt.reporting import Metric, count, number

    lines = []
    for one in tasks:
        metric = Metric.of(one)
        digits = metric.decimals(1, one["sd"])
        named = "" if metric.measured else f" {one['metric']}"
        mean = f"{number(metric.scale * one['mean'], digits)}{metric.suffix}"
        spread = number(None if one["sd"] is None else metric.scale * one["sd"], digits)
        over = "" if one["sd"] is None else f" on average, SD {spread} over {count(one['rows'], 'row')}"
        lines.append(f"{one['name']}:{named} {mean}{over}" + (f" ({metric.direction})" if metric.direction else ""))
    return lines
