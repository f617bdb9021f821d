"""Commands that prove a ranking by retraining, report it, and turn it into a list."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pydt.base import ConfigError
from pydt.cli.arguments import DIGEST, OUTPUT, PLAN, STORE, TASK, WORKERS, interruptible, ran, store_and_plan

if TYPE_CHECKING:
    from pydt.analyses import Kept
    from pydt.ensemble import Plan


def prove(
    file: Annotated[Path, PLAN],
    workers: Annotated[int | None, WORKERS] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of trainings, few-shot draws and random controls.")] = 0,
    drop: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Groups to leave out; may be repeated, the main number first. Default a third, a sixth, a half."
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=2, help="Retrainings of the full source, and of each arm of the first number.")
    ] = 14,
    task: Annotated[str | None, TASK] = None,
    output: Annotated[str | None, OUTPUT] = None,
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
        more: dict[str, Any] = {"task": task, "output": output, "seed": seed, "workers": workers, "limit": read.limit}
        counterfactual(store, chosen, drop=drop, repeats=repeats, **more)
    report(read.dir, chosen.digest, task, output)


def report(
    folder: Annotated[Path, STORE],
    plan: Annotated[str | None, DIGEST] = None,
    task: Annotated[str | None, TASK] = None,
    output: Annotated[str | None, OUTPUT] = None,
    allow_failed: Annotated[
        bool, typer.Option(help="Give a verdict although more than 2 % of the rows failed.")
    ] = False,
    zip: Annotated[
        bool, typer.Option("--zip", help="Also pack it, the pages of analyses and kept lists into one file to share.")
    ] = False,
) -> None:
    """Write DIR/report.html, DIR/results.json and the CSV files again from what the store holds."""
    from pydt.analyses import report as write_report
    from pydt.analyses import share
    from pydt.reporting import sentences, stopped

    folder, plan = store_and_plan(folder, plan)
    found = write_report(folder, folder, plan, task=task, output=output, allow_failed=allow_failed)
    for text in [*sentences(found), *filter(None, [stopped(found)]), *(f"Note: {note}" for note in found["notes"])]:
        typer.echo(text)
    typer.echo(f"\nReport: {folder / 'report.html'}")
    if zip:
        packed = share(folder)
        typer.echo(f"To share: {packed} ({packed.stat().st_size / 1e6:.1f} MB)")


def keep(
    place: Annotated[Path, STORE],
    drop: Annotated[int | None, typer.Option(help="Leave out so many of the lowest groups.")] = None,
    top: Annotated[int | None, typer.Option(help="Keep so many of the highest groups.")] = None,
    sure: Annotated[
        bool,
        typer.Option("--sure", help="Leave out what is surely below 0, or below the average group (q < 0.05)."),
    ] = False,
    task: Annotated[str | None, TASK] = None,
    output: Annotated[str | None, OUTPUT] = None,
    shots: Annotated[
        str | None,
        typer.Option(help='"common": one order for all numbers of shots, as the page by shots has it.'),
    ] = None,
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
    found = kept_list(folder, chosen, drop=drop, top=top, sure=sure, task=task, output=output, shots=shots)
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
    if file is None or not found.dropped:
        return ""
    if found.sure or found.shots:
        words = ["analyse", file, "--only", "removal", "--train", "--keep", files.get(".txt", "")]
    else:
        words = ["prove", file, "--drop", len(found.dropped)]
    words += [*(["--task", task] if task is not None else []), *(["--output", output] if output is not None else [])]
    return shlex.join(["pydt", *map(str, words)]) if all(words) else ""
