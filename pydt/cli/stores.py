"""Commands that look at stores and tend them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pydt.cli.arguments import DIGEST, STORE, metrics, store_and_plan, store_of

_MOST = 5  # plans that are named


def status(
    folder: Annotated[Path, STORE],
    plan: Annotated[str | None, DIGEST] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All of it as JSON.")] = False,
) -> None:
    """Say how far a plan is, whether it runs, and what failed; also while it runs."""
    import json

    from pydt.estimation import unmet
    from pydt.reporting import count
    from pydt.store import status as status_of

    folder, plan = store_and_plan(folder, plan)
    found = status_of(folder, plan)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    if found["plan"] is not None:
        typer.echo(f"{folder}: plan {found['name']}")
    elif found["plans"] > 1:
        typer.echo(
            f"{folder}: {found['plans']:,} plans without a design, as of a study: `pydt study FILE` tells the rest"
        )
    else:
        typer.echo(f"{folder}: no plan")
    for other in found["others"]:
        counts = ", ".join(f"{other[what]:,} {what}" for what in ("finished", "failed", "missing") if other[what])
        typer.echo(f"  also plan {other['name']}: {count(other['rows'], 'row')}{counts and ': '}{counts}")
    counts = ", ".join(f"{found[what]:,} {what}" for what in ("finished", "failed", "missing"))
    at_work = found["writer"] is not None
    pace = f"; {found['rows_per_hour']:,.0f} rows an hour" if at_work and found["rows_per_hour"] else ""
    typer.echo(f"{count(found['rows'], 'row')}: {counts}{pace}")
    for reason, times in list(found["reasons"].items())[:5]:
        typer.echo(f"  {times:,} failed: {reason}")
    if found["replaced"][0]:
        rows, images = found["replaced"]
        typer.echo(f"  {rows:,} finished with broken images replaced by others, {images:,} in all; see log.jsonl")
    if found["hardly_learnt"][0]:
        typer.echo("  {:,} of {:,} rows looked at hardly learnt their own source".format(*found["hardly_learnt"]))
    for line in metrics(found["tasks"]):
        typer.echo(f"  {line}")
    if found["stop"] is not None:
        typer.echo(f"stopped early by {found['stop']['rule']}: the first {found['stop']['rows']:,} rows count")
    if found["unmet"] is not None:
        typer.echo(unmet(found["unmet"]))
    if found["bank"]["entries"]:
        networks = count(found["bank"]["entries"], "source training")
        typer.echo(f"bank: {networks} kept, {found['bank']['bytes'] / 1e6:,.1f} MB")
    packed = f", {count(found['packed'], 'cell')} in blocks" if found["packed"] else ""
    typer.echo(
        f"{count(found['files'], 'file')}, {found['bytes'] / 1e6:,.1f} MB{packed}; {found['quarantined']} in quarantine"
    )
    for item in found["damaged"]:
        typer.echo(f"damaged: {item['file']}: {item['reason']}; `pydt verify` looks at everything")
    if at_work:
        typer.echo(f"a driver is at work: process {found['writer']['pid']} on {found['writer']['host']}")


def verify(
    folder: Annotated[Path, STORE],
    as_json: Annotated[bool, typer.Option("--json", help="All of it as JSON.")] = False,
) -> None:
    """Read every byte of a store and check it; damaged rows go to quarantine, and the next run trains them again.

    Exit code 0 only if nothing is damaged. Missing rows are told, but are no damage: a plan may be given up.
    """
    import json

    from pydt.reporting import count
    from pydt.store import Store, read_names
    from pydt.store import verify as verify_store

    found = verify_store(store_of(folder))
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        for item in found["damaged"]:
            moved = "; moved to quarantine" if item["moved"] else ""
            typer.echo(f"damaged: {item['file']}: {item['reason']}{moved}")
        names = read_names(Store(store_of(folder)))
        missing = {digest: rows for digest, rows in found["missing"].items() if rows}
        for digest, rows in list(missing.items())[:_MOST]:
            called = names[digest].name if digest in names else digest[:8]
            typer.echo(f"missing: {count(rows, 'row')} of plan {called}: the same plan, run again, trains them")
        if len(missing) > _MOST:
            typer.echo(f"missing: rows of {len(missing) - _MOST:,} more plans; --json names them")
        unclaimed = f", {found['unclaimed']:,} of them of no plan" if found["unclaimed"] else ""
        whole = f"{count(found['cells'], 'cell')} {'is' if found['cells'] == 1 else 'are'} whole{unclaimed}"
        damaged = len(found["damaged"])
        kept = f", {count(found['kept'], 'source training')} kept" if found["kept"] else ""
        typer.echo(f"{whole}{kept}, {count(damaged, 'file')} {'is' if damaged == 1 else 'are'} damaged")
    if found["damaged"]:
        raise typer.Exit(1)


def compact(
    folder: Annotated[Path, STORE],
    drop_bank: Annotated[
        bool, typer.Option("--drop-bank", help="Remove kept networks: a later task trains its sources again.")
    ] = False,
) -> None:
    """Turn thousands of row files into a few plain arrays; stopped at any moment, nothing is lost."""
    from pydt.reporting import count
    from pydt.store import FEWEST
    from pydt.store import compact as compact_store

    done = compact_store(store_of(folder), drop_bank=drop_bank)
    if drop_bank:
        typer.echo(f"{count(done['dropped'], 'kept source training')} removed, {done['freed'] / 1e6:,.1f} MB")
    why = f", since a block takes {FEWEST} cells or more of one task, shape and status" if done["left"] else ""
    typer.echo(
        f"{count(done['cells'], 'cell')} went into {count(done['blocks'], 'block')}; {done['left']:,} stay files{why}"
    )


def merge(
    into: Annotated[Path, typer.Argument(metavar="INTO", help="A store, or a folder that becomes one.")],
    others: Annotated[list[Path], typer.Argument(metavar="OTHER...", help="Stores of the same design.")],
) -> None:
    """Copy the rows of other stores of the same design into one; again is harmless."""
    from pydt.reporting import count
    from pydt.store import merge as merge_stores

    report = merge_stores(into, *others)
    for item in report["damaged"]:
        typer.echo(f"left out, since it is damaged: {item['file']}: {item['reason']}", err=True)
    kept = f"; {count(report['kept'], 'kept source training')} copied" if report["kept"] else ""
    typer.echo(f"{count(report['copied'], 'cell')} copied, {report['same']:,} were there already{kept}")
    if report["damaged"]:
        raise typer.Exit(1)


def export(
    folder: Annotated[Path, STORE],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that does not exist yet.")],
    plan: Annotated[str | None, DIGEST] = None,
) -> None:
    """Write masks, outputs and what they mean as .npy, CSV and JSON, to publish; no weights."""
    from pydt.store import export as export_store

    folder, plan = store_and_plan(folder, plan)
    manifest = export_store(folder, out, plan)
    typer.echo(f"{manifest['models']:,} models x {manifest['units']:,} groups: {out / 'manifest.json'}")
