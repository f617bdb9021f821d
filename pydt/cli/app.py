"""The command line: `pydt quickstart`, `pydt report`, `pydt doctor`. Exit code 0 only if what was asked was done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pydt.base import ConfigError, DataWarning, PydtError
from pydt.ensemble import MODELS, SAMPLE_SETTINGS, quickstart_plan

_PLAN = typer.Argument(metavar="FILE", help="A plan: TOML, see docs/plans.md.")
_STORE = typer.Argument(metavar="DIR", help="A store that pydt filled.")
_DIGEST = typer.Option(help="Digest of the plan, or its first digits (4 or more), where the store holds several.")
_WORKERS = typer.Option(min=1, help="Processes; default what FILE says, else one per core.")
app = typer.Typer(
    help="Which parts of a source data set help a transfer task, which hurt, and how sure one can be.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; a `PydtError` is printed without a traceback, with exit code 1."""
    import sys
    import warnings

    from pydt.base import open_streams, tell

    open_streams()
    warnings.simplefilter("ignore", DataWarning)  # the notes tell it, without a line of the source
    try:
        app()
    except PydtError as error:
        tell(f"pydt: {error}")
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        from pydt import __version__, _core

        cuda = "not built" if not _core.cuda_built() else "usable" if _core.cuda_usable() else "built, no usable device"
        typer.echo(f"pydt {__version__} (core: {_core.isa()}, CUDA: {cuda})")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print version, instruction set and CUDA state."
        ),
    ] = False,
) -> None:
    pass


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """The command line would swallow the text of Ctrl-C, which says what is stored and how to go on."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        typer.echo(f"pydt: {stopped}", err=True)
        raise typer.Exit(130) from None


@app.command()
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
    with _interruptible():
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


@app.command()
def plan(
    file: Annotated[Path, _PLAN],
    price: Annotated[float | None, typer.Option(min=0, help="Of an hour of this machine, in any currency.")] = None,
    workers: Annotated[int | None, _WORKERS] = None,
) -> None:
    """Say what a plan costs - rows, hours, disk, money - after timing a row; nothing is written."""
    from pydt.ensemble import cost, read_plan, remarks
    from pydt.estimation import few_masks
    from pydt.reporting import count

    read = read_plan(file)
    made = read.plan
    groups = f"{count(len(made.context.units[1]), 'group')} (by {made.by})"
    typer.echo(f"plan {made.digest}: {made.source!r}, {groups}, {count(len(made.tasks), 'task')}, into {read.dir}")
    if (few := few_masks(made.design)) is not None:
        typer.echo(f"Note: {few}.")
    for text in remarks(made.context):
        typer.echo(f"Note: {text}")
    typer.echo(cost(made, read.dir, workers=workers or read.workers, price=price, stop=read.stop))


@app.command("run")
def run_plan(
    file: Annotated[Path, _PLAN],
    workers: Annotated[int | None, _WORKERS] = None,
    same_code: Annotated[
        bool, typer.Option("--same-code", help="Refuse stored rows of other versions of pydt, torch or torchvision.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Progress as JSON lines on stderr.")] = False,
) -> None:
    """Train the rows of a plan that its store still lacks.

    Stopped at any moment, the same command continues.
    """
    from pydt.ensemble import read_plan, run
    from pydt.estimation import few_masks, unmet
    from pydt.reporting import count

    read = read_plan(file)
    progress = "json" if as_json else True
    if not as_json and (few := few_masks(read.plan.design)) is not None:
        typer.echo(f"Note: {few}.", err=True)
    with _interruptible():
        store = run(
            read.plan,
            read.dir,
            workers=workers or read.workers,
            progress=progress,
            stop=read.stop,
            limit=read.limit,
            same_code=same_code or read.same_code,
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
    named = f" --plan {store.plan().digest[:8]}" if len(store.designs()) > 1 else ""
    typer.echo(f"next: pydt prove {file}, pydt report {read.dir}{named}")


@app.command()
def prove(
    file: Annotated[Path, _PLAN],
    workers: Annotated[int | None, _WORKERS] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of trainings, few-shot draws and random controls.")] = 0,
) -> None:
    """Retrain without the lowest, the highest and random groups, as the rows of a plan rank them; then report.

    Stopped at any moment, the same command continues.
    """
    from pydt.analyses import counterfactual
    from pydt.ensemble import read_plan
    from pydt.store import Store

    read = read_plan(file)
    with _interruptible():
        counterfactual(Store(read.dir, read.plan), read.plan, seed=seed, workers=workers or read.workers)
    report(read.dir, read.plan.digest)


@app.command()
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
    workers: Annotated[int | None, _WORKERS] = None,
) -> None:
    """Make a page for each analysis: rankings, removal, failures, leaks and more; see docs/analyses.md.

    Stopped at any moment, the same command continues.
    """
    from pydt.analyses import analyse as make_pages
    from pydt.analyses import chosen, read_list
    from pydt.ensemble import PlanFile, read_plan, run
    from pydt.reporting import count
    from pydt.store import Store

    embedded = file in ("sample", "lab")
    if models is not None and not embedded:
        raise typer.BadParameter("a plan file says itself how many", param_hint="--models")
    chosen(only, True)  # a misspelt name is told before anything is trained
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
        with _interruptible():
            Store.create(folder)
            run(read.plan, folder, workers=workers, stop=read.stop, limit=read.limit)
    with _interruptible():
        done = make_pages(
            read.plan,
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
    if done.skipped:
        typer.echo(f"these train models, with --train: {', '.join(done.skipped)}")
    if done.index is not None:
        typer.echo(f"{count(len(done.pages), 'page')}: {done.index}")
    if done.failed or not done.pages:
        raise typer.Exit(1)


@app.command()
def report(
    folder: Annotated[Path, _STORE],
    plan: Annotated[str | None, _DIGEST] = None,
    allow_failed: Annotated[
        bool, typer.Option(help="Give a verdict although more than 2 % of the rows failed.")
    ] = False,
) -> None:
    """Write DIR/report.html, DIR/results.json and the CSV files again from what the store holds."""
    from pydt.analyses import report as write_report
    from pydt.reporting import sentences, stopped

    found = write_report(folder, folder, plan, allow_failed=allow_failed)
    for text in [*sentences(found), *filter(None, [stopped(found)]), *(f"Note: {note}" for note in found["notes"])]:
        typer.echo(text)
    typer.echo(f"\nReport: {folder / 'report.html'}")


@app.command()
def status(
    folder: Annotated[Path, _STORE],
    plan: Annotated[str | None, _DIGEST] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All of it as JSON.")] = False,
) -> None:
    """Say how far a plan is, whether it runs, and what failed; also while it runs."""
    import json

    from pydt.estimation import unmet
    from pydt.reporting import count
    from pydt.store import status as status_of

    found = status_of(folder, plan)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    name = "no plan" if found["plan"] is None else f"plan {found['plan']}"
    typer.echo(f"{folder}: {name}" + (f" ({found['plans']} plans here)" if found["plans"] > 1 else ""))
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
    if found["stop"] is not None:
        typer.echo(f"stopped early by {found['stop']['rule']}: the first {found['stop']['rows']:,} rows count")
    if found["unmet"] is not None:
        typer.echo(unmet(found["unmet"]))
    packed = f", {count(found['packed'], 'cell')} in blocks" if found["packed"] else ""
    typer.echo(
        f"{count(found['files'], 'file')}, {found['bytes'] / 1e6:,.1f} MB{packed}; {found['quarantined']} in quarantine"
    )
    for item in found["damaged"]:
        typer.echo(f"damaged: {item['file']}: {item['reason']}; `pydt verify` looks at everything")
    if at_work:
        typer.echo(f"a driver is at work: process {found['writer']['pid']} on {found['writer']['host']}")


@app.command()
def verify(
    folder: Annotated[Path, _STORE],
    as_json: Annotated[bool, typer.Option("--json", help="All of it as JSON.")] = False,
) -> None:
    """Read every byte of a store and check it; damaged rows go to quarantine, and the next run trains them again.

    Exit code 0 only if nothing is damaged. Missing rows are told, but are no damage: a plan may be given up.
    """
    import json

    from pydt.reporting import count
    from pydt.store import verify as verify_store

    found = verify_store(folder)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        for item in found["damaged"]:
            moved = "; moved to quarantine" if item["moved"] else ""
            typer.echo(f"damaged: {item['file']}: {item['reason']}{moved}")
        for digest, rows in found["missing"].items():
            if rows:
                typer.echo(f"missing: {count(rows, 'row')} of plan {digest}: the same plan, run again, trains them")
        unclaimed = f", {found['unclaimed']:,} of them of no plan" if found["unclaimed"] else ""
        whole = f"{count(found['cells'], 'cell')} {'is' if found['cells'] == 1 else 'are'} whole{unclaimed}"
        damaged = len(found["damaged"])
        typer.echo(f"{whole}, {count(damaged, 'file')} {'is' if damaged == 1 else 'are'} damaged")
    if found["damaged"]:
        raise typer.Exit(1)


@app.command()
def compact(folder: Annotated[Path, _STORE]) -> None:
    """Turn thousands of row files into a few plain arrays; stopped at any moment, nothing is lost."""
    from pydt.reporting import count
    from pydt.store import compact as compact_store

    done = compact_store(folder)
    typer.echo(
        f"{count(done['cells'], 'cell')} went into {count(done['blocks'], 'block')}; {done['left']:,} stay files"
    )


@app.command()
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
    typer.echo(f"{count(report['copied'], 'cell')} copied, {report['same']:,} were there already")
    if report["damaged"]:
        raise typer.Exit(1)


@app.command()
def export(
    folder: Annotated[Path, _STORE],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that does not exist yet.")],
    plan: Annotated[str | None, _DIGEST] = None,
) -> None:
    """Write masks, outputs and what they mean as .npy, CSV and JSON, to publish; no weights."""
    from pydt.store import export as export_store

    manifest = export_store(folder, out, plan)
    typer.echo(f"{manifest['models']:,} models x {manifest['units']:,} units: {out / 'manifest.json'}")


@app.command()
def pack(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="One sub-folder of image files per class; or tar shards.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that does not exist yet.")],
    size: Annotated[int | None, typer.Option(min=1, help="Decode to one array; side of the images in pixels.")] = None,
    tar: Annotated[bool, typer.Option("--tar", help="Write tar shards of the files as they are.")] = False,
    limit: Annotated[int, typer.Option(min=2, help="With --tar: megabytes of a shard.")] = 500,
    exif: Annotated[bool, typer.Option(help="Turn images as their EXIF orientation says.")] = False,
    background: Annotated[
        str, typer.Option(help="What shows through transparent pixels: a name or #rrggbb.")
    ] = "white",
    bad: Annotated[str, typer.Option(help="Files that are no image: raise, or skip and list them.")] = "raise",
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; default one per core.")] = None,
) -> None:
    """Decode a folder of images once, into one array of one size that `Dataset.open(OUT)` opens (--size); or put its
    files into tar shards that `Dataset.from_tar(OUT)` opens (--tar).

    Stopped at any moment, the same command continues.
    """
    import warnings

    from pydt.data.packing import pack as pack_folder
    from pydt.data.packing import pack_tar
    from pydt.reporting import count

    if tar == (size is not None):
        raise ConfigError("choose one of --size and --tar", "pack", "--size 64 decodes to one array, --tar does not")
    try:
        if size is None:
            with warnings.catch_warnings(record=True) as told:  # shards have no notes of the folder
                warnings.simplefilter("always", DataWarning)
                packed = pack_tar(folder, out, limit=limit * 1_000_000, bad=bad, workers=workers)
            for warning in told:
                typer.echo(str(warning.message), err=True)
        else:
            packed = pack_folder(folder, out, size, exif=exif, background=background, bad=bad, workers=workers)
    except KeyboardInterrupt:
        typer.echo("pydt: stopped; what is packed stays, and the same command continues", err=True)
        raise typer.Exit(130) from None
    for key, reason in packed.left_out.items():
        typer.echo(f"left out {key}: {reason}", err=True)
    for what, (many, first) in packed.odd().items():
        typer.echo(f"{what}: {many:,} ({first}{', ...' if many > 1 else ''})", err=True)
    megabytes = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    what = f"in {count(len(packed.paths or ()), 'shard')}" if size is None else f"at {size} x {size}"
    made = f"{count(len(packed), 'image')} of {count(len(packed.classes), 'class', 'classes')}"
    typer.echo(f"{made} {what}: {out}, {megabytes:.1f} MB")


@app.command()
def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A folder of images, a tar shard or a folder of them, a saved data set, or a .npy file.",
        ),
    ],
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet to this PNG file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was found as JSON.")] = False,
) -> None:
    """Show classes, sizes, units, exact duplicates and broken images of a data set; every image file is decoded."""
    import json

    from pydt.data import inspect as look

    dataset = look.load(path)
    found = look.inspect(dataset)
    for text in [json.dumps(found, indent=1)] if as_json else look.lines(found):
        typer.echo(text)
    if sheet is not None:
        look.contact_sheet(dataset, sheet)
        typer.echo(f"contact sheet: {sheet}", err=as_json)


@app.command()
def doctor(
    deep: Annotated[
        bool, typer.Option("--deep", help="Also plant groups of known effect and look for them: some minutes.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of what is planted, with --deep; all is found with seed 0.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default one per core.")] = None,
) -> None:
    """Check this installation: the core against an oracle, instruction set, threads, CUDA, DALI and the disk's sync.

    With --deep a laboratory is run, too: what help, harm, leaks and the like were planted, and were they found?
    """
    import itertools

    from pydt.cli import doctor as checks

    failed = 0
    with _interruptible():
        laboratory = checks.deep(seed=seed, workers=workers) if deep else ()
        for check in itertools.chain(checks.checks(), laboratory):
            failed += not check.ok
            typer.echo(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}")
    if failed:
        raise typer.Exit(1)
