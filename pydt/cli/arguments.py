"""Arguments and options that several commands share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import typer

PLAN = typer.Argument(metavar="FILE", help="A plan: TOML, see docs/plans.md.")
STORE = typer.Argument(metavar="DIR", help="A store that pydt filled.")
DIGEST = typer.Option(help="Digest of the plan, or its first digits (4 or more), where the store holds several.")
WORKERS = typer.Option(min=1, help="Processes; default what FILE says, else one per core.")


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """On Ctrl-C, print what is stored and how to continue (typer would drop that text), and exit with 130."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        typer.echo(f"pydt: {stopped}", err=True)
        raise typer.Exit(130) from None
