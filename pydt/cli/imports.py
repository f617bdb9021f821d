"""The command that brings an ensemble trained elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pydt.cli.arguments import command, follows

ENTRIES = "a .npy file, or text with one a line"


def import_(
    masks: Annotated[
        str,
        typer.Argument(
            metavar="MASKS",
            help="Which groups each model kept, 0 or 1 (models, groups): .npy, .npz, .csv or .safetensors; "
            "FILE::NAME names one array of several.",
        ),
    ],
    outputs: Annotated[
        str, typer.Argument(metavar="OUTPUTS", help="What each model gave on each target example (models, examples).")
    ],
    folder: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Folder of the store; default the name of OUTPUTS.")
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help=f"Names of the groups: {ENTRIES}; or how many there are, of packed masks.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help=f"Ids of the target examples where all differ, else their classes: {ENTRIES}.")
    ] = None,
    half: Annotated[
        Path | None, typer.Option(help=f'"score" or "report" of each target example: {ENTRIES}; default every other.')
    ] = None,
    weights: Annotated[Path | None, typer.Option(help=f"Weight of each target example: {ENTRIES}.")] = None,
    seeds: Annotated[Path | None, typer.Option(help=f"Seed of each model: {ENTRIES}; default 0, 1, ...")] = None,
    unit: Annotated[
        str | None, typer.Option(help='Of influences, in the plural: "nats", "points of accuracy".')
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Units in a difference of 1: 100 for points of a share.")] = None,
    lower: Annotated[bool, typer.Option("--lower-is-better", help="Outputs are losses or errors.")] = False,
    name: Annotated[str | None, typer.Option(help="What the outputs are called; default their file's name.")] = None,
    source: Annotated[str | None, typer.Option(help="What the source is called.")] = None,
    by: Annotated[str | None, typer.Option(help='What a group is, in a word: "class", "domain".')] = None,
    models: Annotated[int | None, typer.Option(min=1, help="Take so many first rows of both files.")] = None,
    bitorder: Annotated[
        str, typer.Option(help='Of packed masks: "little"; "big" as numpy.packbits has it.')
    ] = "little",
    layout: Annotated[
        str | None, typer.Option(help='Files as they were released: "datamodels" or "data-transfer".')
    ] = None,
) -> None:
    """Make a store of an ensemble that was trained elsewhere: masks and outputs, from files.

    Stopped at any moment, the same command completes it.
    """
    from pydt.base import one_of
    from pydt.estimation import uncompared
    from pydt.reporting import count
    from pydt.store import Store
    from pydt.store.ensemble_files import read_array, read_entries
    from pydt.store.layouts import LAYOUTS
    from pydt.store.layouts.common import chosen, completed

    given, values = read_array(masks), read_array(outputs)
    told: dict[str, Any] = {"name": values.key}
    left = 0
    if layout is not None:
        known = LAYOUTS[one_of(layout, list(LAYOUTS), "layout", "pydt import")]
        told |= known.described(given, values)
        if (flags := completed(values)) is not None and len(given.array) == len(flags):
            left = int((~flags).sum())
            given = given._replace(array=chosen(given.array, flags, masks))
            values = values._replace(array=chosen(values.array, flags, outputs))
    if models is not None and given.array.ndim and values.array.ndim:
        given, values = given._replace(array=given.array[:models]), values._replace(array=values.array[:models])
    called = given.names if groups is None else int(groups) if groups.isdecimal() else read_entries(groups)
    ids = values.names if examples is None else read_entries(examples)
    lists = {"half": half, "weights": weights, "seeds": seeds}
    told |= {key: _numbers(read_entries(path), key) for key, path in lists.items() if path is not None}
    options = {"unit": unit, "scale": scale, "name": name, "source": source, "by": by}
    told |= {key: value for key, value in options.items() if value is not None}
    if lower:
        told["higher_is_better"] = False
    folder = (
        Path(values.path.stem if values.key == values.path.stem else f"{values.path.stem}-{values.key}")
        if folder is None
        else folder
    )
    store = Store.from_arrays(folder, given.array, values.array, groups=called, examples=ids, bitorder=bitorder, **told)

    record = store.plan()
    task = record.tasks[0]
    target, measure = task["settings"]["target"], task["settings"]["measure"]
    columns = 1 if measure["shared"] else task["examples"]
    classes = f" of {count(len(target['classes']), 'class', 'classes')}" if target["classes"] else ""
    typer.echo(
        f"{count(len(record.rows), 'model')} on {count(len(record.names), 'group')} ({record.by}); {task['name']}: "
        f"{values.array.dtype}, {count(columns, 'target example')}{classes}"
        + (
            ", which serves both halves"
            if measure["shared"]
            else f", {target['score']:,} to estimate, {target['report']:,} to judge"
        )
    )
    if examples is not None:
        what = f"{len(target['classes']):,} classes" if target["classes"] else "ids, since no entry repeats"
        typer.echo(f"entries of {examples} were taken as {what}")
    if left:
        typer.echo(
            f"left out: {count(left, 'row')} that {values.path.with_name('_completed.npy')} says were never written"
        )
    reasons: dict[str, int] = {}
    for _, _, reason in store.failed():
        reasons[reason] = reasons.get(reason, 0) + 1
    for reason, many in reasons.items():
        typer.echo(f"failed: {count(many, 'row')}: {reason}")
    typer.echo(f"{count(len(store.finished()), 'row')} in {folder}")
    if (found := uncompared(store.design().take(store.finished()), store.names())) is not None:
        typer.echo(f"Note: {found[0]}: a report needs masks that differ in every group; {found[1]}")
    named = ("--plan", store.called(record)) if len(store.designs()) > 1 else ()
    follows(command("report", folder, *named), "what the rows show")


def _numbers(entries: Any, key: str) -> Any:
    """Entries of text as numbers, where numbers are meant."""
    from pydt.base import DataError

    if key == "half" or not isinstance(entries, list):
        return entries
    try:
        return [float(entry) if key == "weights" else int(entry) for entry in entries]
    except ValueError as error:
        raise DataError(f"are not all numbers ({error})", key, "write one number a line") from error
