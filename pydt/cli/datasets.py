"""Commands that pack data sets and look into them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pydt.base import ConfigError, DataWarning

_COLUMNS = typer.Option(help="A CSV file of group columns; its first column has the files, as paths below the folder.")


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
    columns: Annotated[Path | None, _COLUMNS] = None,
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
                packed = pack_tar(folder, out, limit=limit * 1_000_000, bad=bad, workers=workers, columns=columns)
            for warning in told:
                typer.echo(str(warning.message), err=True)
        else:
            packed = pack_folder(
                folder, out, size, exif=exif, background=background, bad=bad, workers=workers, columns=columns
            )
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


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A folder of images, a tar shard or a folder of them, a saved data set, or a .npy file.",
        ),
    ],
    columns: Annotated[Path | None, _COLUMNS] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet to this PNG file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was found as JSON.")] = False,
) -> None:
    """Show classes, sizes, units, exact duplicates and broken images of a data set; every image file is decoded."""
    import json

    from pydt.data import inspect as look
    from pydt.data.column_file import with_columns

    dataset = look.load(path)
    if columns is not None:
        dataset = with_columns(dataset, columns)
    found = look.inspect(dataset)
    for text in [json.dumps(found, indent=1)] if as_json else look.lines(found):
        typer.echo(text)
    if sheet is not None:
        look.contact_sheet(dataset, sheet)
        typer.echo(f"contact sheet: {sheet}", err=as_json)
