"""The command line: its commands in order, and `pydt --version`. Exit code 0 only if what was asked was done."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

from pydt.base import DataWarning, PydtError, open_streams, tell
from pydt.cli import datasets, doctor, experiments, imports, init, plans, proofs, stores, studies
from pydt.cli.options import spoken

app = typer.Typer(
    help="Which parts of a source data set help a transfer task, which hurt, and how sure one can be.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; a `PydtError` is printed without a traceback, with exit code 1."""
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


for _command in (
    *(experiments.quickstart, plans.plan, plans.run, proofs.prove, experiments.analyse, proofs.report, proofs.keep),
    *(init.init, studies.study, stores.status, stores.verify, stores.compact, stores.merge, stores.export),
    *(datasets.pack, datasets.inspect, doctor.doctor),
):
    app.command(cls=experiments.NamesAnalyses if _command is experiments.analyse else None)(spoken(_command))
app.command("import")(spoken(imports.import_))  # the plain word is Python's own
