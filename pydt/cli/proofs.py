"""Commands that prove a ranking by retraining, report it, and turn it into a list."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pydt.cli.arguments import (
    DIGEST,
    OUTPUT,
    PLAN,
    STORE,
    TASK,
    WORKERS,
    asked,
    command,
    follows,
    interruptible,
    sought,
    store_and_plan,
    trainable,
)

if TYPE_CHECKING:
    from pydt.analyses import Counterfactual, Kept


def prove(
    place: Annotated[Path, PLAN],
    plan: Annotated[str | None, DIGEST] = None,
    workers: Annotated[int | None, WORKERS] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of trainings, few-shot draws and random controls.")] = 0,
    drop: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Groups to leave out; may be repeated, the main number first. Default a third, a sixth, a half."
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(min=2, help="Retrainings of the full source, and of each arm of the first number; default 14."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Few retrainings: 5 of the full source, 5 without the lowest groups, 5 without random ones, at one "
            "number (a third of the groups, or --drop). Says how large a difference must be to be seen.",
        ),
    ] = False,
    task: Annotated[str | None, TASK] = None,
    output: Annotated[str | None, OUTPUT] = None,
) -> None:
    """Retrain without the lowest, the highest and random groups, as the rows of a plan rank them; then report.

    Stopped at any moment, the same command continues.
    """
    from pydt.analyses import QUICK, counterfactual, numbers_to_drop
    from pydt.store import Store

    if quick and (repeats is not None or len(drop or []) > 1):
        raise typer.BadParameter("it has one number of groups, and repeats of its own", param_hint="--quick")
    found = asked(place, plan)
    read, chosen = found.read, found.chosen()
    with interruptible():
        more: dict[str, Any] = {"task": task, "output": output, "seed": seed, "workers": workers or read.workers}
        if quick:
            more |= {"drop": numbers_to_drop(len(chosen.context.units[1]), drop)[:1], "repeats": QUICK}
            more["kinds"] = ("bottom", "random")
        else:
            more |= {"drop": drop, "repeats": 14 if repeats is None else repeats}
        proof = counterfactual(Store(read.dir, chosen), chosen, limit=read.limit, **more)
    _report(read.dir, chosen.digest, task, output)
    if quick:
        typer.echo(_seen(proof, command("prove", *found.words)))
    if any((one.kind, one.dropped) == ("drop bottom", proof.main) for one in (*proof.gains, *proof.contrasts)):
        keep = command("keep", *found.words, "--drop", proof.main, *_options(task, output))
        follows(keep, "writes the list of groups that stay; --top N, --sure: by another rule")


def _seen(proof: Counterfactual, whole: str) -> str:
    """What a proof of few retrainings could have found."""
    from pydt.analyses import detectable
    from pydt.reporting import number

    told = []
    for of, others in ((proof.gains, "the whole source"), (proof.contrasts, "random groups")):
        one = next((one for one in of if one.kind == "drop bottom" and one.high > one.low), None)
        if one is not None:
            metric, least = proof.arms[0].metric, detectable(one)
            digits = metric.decimals(1, one.stderr)
            told.append(f"{number(metric.scale * least, digits)} {metric.unit}".rstrip() + f" against {others}")
    if not told:
        return f"Quick proof: too few retrainings finished to say what it could have seen; `{whole}` trains more."
    return (
        f"Quick proof: it would have seen a difference of {' and of '.join(told)} in 4 of 5 cases; smaller ones are "
        f"easily missed, and the highest groups were not left out. `{whole}` adds the rest."
    )


def report(
    place: Annotated[Path, STORE],
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
    from pydt.analyses import share

    folder, chosen = store_and_plan(place, plan)
    found = _report(folder, chosen, task, output, allow_failed)
    if zip:
        packed = share(folder)
        typer.echo(f"To share: {packed} ({packed.stat().st_size / 1e6:.1f} MB)")
    words = (str(place),) if folder != place and plan is None else trainable(folder, plan)
    options = _options(task, output)
    sizes = [(one["n"], one["dropped"]) for one in found["contrasts"] or [] if one["kind"] == "drop bottom"]
    if not found["counterfactual"] and words is not None and found["groups"] and len(found["groups"]) > 2:
        follows(command("prove", *words, *options), "retrains without the lowest, the highest and random groups")
    elif len(found["groups"]) > 1:
        size = max(sizes)[1] if sizes else len(found["groups"]) // 2
        words = words or (str(place), *(("--plan", plan) if plan is not None else ()))
        follows(command("keep", *words, "--drop", size, *options), "writes the list of groups that stay")


def _report(
    folder: Path, plan: str | None, task: str | None, output: str | None, allow_failed: bool = False
) -> dict[str, Any]:
    """Write the report, and say what it says first."""
    from pydt.analyses import report as write_report
    from pydt.reporting import sentences, stopped

    found = write_report(folder, folder, plan, task=task, output=output, allow_failed=allow_failed)
    if others := len(found.get("tasks", [])):
        typer.echo(f"Task: {found['task']} ({others:,} more in the report)")
    for text in [*sentences(found), *filter(None, [stopped(found)]), *(f"Note: {note}" for note in found["notes"])]:
        typer.echo(text)
    typer.echo(f"\nReport: {folder / 'report.html'}")
    return found


def _options(task: str | None, output: str | None) -> list[str]:
    return [*(["--task", task] if task is not None else []), *(["--output", output] if output is not None else [])]


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

    Positions and keys of examples need the source: a plan file names it, a store may hold it or know its plan file.
    """
    from pydt.analyses import keep as kept_list

    asked_for = sought(place, plan)
    folder, words, chosen = asked_for.folder, asked_for.words, asked_for.plan
    found = kept_list(folder, chosen, drop=drop, top=top, sure=sure, task=task, output=output, shots=shots)
    files = found.write(folder / "kept" if out is None else out)
    for text in found.sentences:
        typer.echo(text)
    typer.echo()
    for path in files.values():
        typer.echo(str(path))
    if found.positions is None:
        told = asked_for.why or f"{folder} does not hold the source; a plan file in its place tells them"
        typer.echo(f"no positions of examples: {told}")
    typer.echo()
    for library, line in found.lines(files).items():
        typer.echo(f"{library + ':':<14} {line}")
    if words is not None and found.retrained is None and found.dropped:
        follows(*_proof_of(found, words, _options(task, output), files))


def _proof_of(found: Kept, words: tuple[str, ...], options: list[str], files: dict[str, Path]) -> tuple[str, str]:
    """The command that retrains without the groups that a list leaves out, and what for."""
    if not found.sure and not found.shots:
        return command("prove", *words, "--drop", len(found.dropped), *options), "retrains without these groups"
    if ".txt" not in files:
        return command("report", *words, *options), "shows the ranking"
    listed = command("analyse", *words, "--only", "removal", "--train", "--keep", files[".txt"], *options)
    return listed, "retrains on this list"
