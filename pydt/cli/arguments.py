"""Arguments and options that several commands share."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pydt.base import ConfigError, PydtError, StoreError

if TYPE_CHECKING:
    from pydt.ensemble import Plan, PlanFile
    from pydt.store import PlanName, Record, Store

PLAN = typer.Argument(metavar="FILE|DIR", help="A plan (TOML, see docs/plans.md), or the store that it filled.")
STORE = typer.Argument(metavar="FILE|DIR", help="A store that pydt filled, or the plan or study file that filled it.")
DIGEST = typer.Option(
    metavar="NAME", help="Which plan, where the store holds several: its name (`pydt status DIR`) or how that begins."
)
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


def command(*words: object) -> str:
    """A command line, ready for a shell."""
    return shlex.join(["pydt", *map(str, words)])


def follows(line: str, why: str = "") -> None:
    """Say what may come next: a command that works as it stands, and why as a comment of the shell."""
    typer.echo(f"next: {line}" + (f"  # {why}" if why else ""))


@dataclass(frozen=True)
class Asked:
    """A plan that can train, as a command was asked for it.

    Attributes:
        read: the plan and how to run it; its `dir` is the store.
        words: how commands name it: its file, or the folder of its store and perhaps its name there.
        embedded: "sample" or "lab" of a plan that comes with pydt.
    """

    read: PlanFile
    words: tuple[str, ...]
    embedded: str | None = None

    def chosen(self) -> Plan:
        """The plan with its learning rates; refused where its store has no rows of it."""
        made = self.read.chosen()
        if not (self.read.dir / "plans" / f"{made.digest}.json").is_file():
            raise StoreError(
                "holds no rows of this plan", str(self.read.dir), f"run `{command('run', *self.words)}` first"
            )
        return made


def asked(place: Path, plan: str | None = None) -> Asked:
    """The plan of a file, or that of a store, by the file that it was run from.

    Args:
        place: a plan file, or a folder.
        plan: its name in the store, where that holds several.

    Raises:
        StoreError: the store does not say which file makes the plan, or that file makes another one by now.
        ConfigError: no plan.
    """
    from pydt.ensemble import read_plan
    from pydt.store import Store, read_name

    if not place.is_dir():
        found = Asked(read_plan(place), (str(place),))
        own = plan is None or Store(found.read.dir).plan(plan).digest == found.read.chosen().digest
        return found if own else asked(found.read.dir, plan)

    store = Store(place)
    record = store.plan(plan)
    words = (str(place), *(("--plan", store.called(record)) if len(store.designs()) > 1 else ()))
    note = read_name(store, record.digest)
    if note is not None and note.embedded is not None:
        return Asked(_embedded(store, record, note.embedded, place), words, note.embedded["kind"])
    return Asked(_of_store(store, record, note, words), words)


def _of_store(store: Store, record: Record, note: PlanName | None, words: tuple[str, ...]) -> PlanFile:
    """The plan file from which a plan of a store was run, if it still makes this plan."""
    from pydt.ensemble import Command, read_plan
    from pydt.store import IMPORTED, changes

    name, given = store.called(record), " ".join(words)
    if record.settings.get("method") == IMPORTED:
        mend = "write a plan file whose command trains on the same groups, and give that (docs/own-ensemble.md)"
        raise ConfigError("is an imported ensemble, which has no plan that could train", given, mend)
    if note is None or note.file is None:
        mend = (
            "give the plan file in place of the folder: `pydt run FILE` notes it for the next time. A plan made in "
            "Python goes on there: pydt.run, pydt.counterfactual"
        )
        raise StoreError(f"does not say from which file plan {name} was run", str(store.folder), mend)
    file = Path(os.path.normpath(store.folder / note.file))
    if not os.path.isfile(file):  # a text of a store, which may be no path: `Path.is_file` raises then
        mend = "put the file back, or name it where it is now, in place of the folder"
        raise StoreError(f"plan {name} was run from this file, which is not there", str(file), mend)
    read = read_plan(file)
    read = replace(read, dir=Path(words[0]))
    if isinstance(read.plan.recipe, Command):  # a store may come from others: it does not choose what is run
        mend = f"name the file in place of the folder, if you trust its command: {file}"
        raise ConfigError("has rows that a command computes, which a folder alone does not start", given, mend)
    made = read.chosen()
    if made.digest != record.digest:
        what = "; ".join(changes(record, made.record()))
        mend = f"undo that to go on with plan {name}, or `{command('run', file)}` trains the changed plan beside it"
        raise StoreError(f"is not plan {name} any more: {what}", str(file), mend)
    return read


def _embedded(store: Store, record: Record, made: Mapping[str, Any], folder: Path) -> PlanFile:
    """A plan that comes with pydt, made again."""
    read = embedded(made["kind"], made["models"], made["seed"], folder)
    if read.plan.digest != record.digest:
        wrong = f"plan {store.called(record)} came with another version of pydt, which made another plan of it"
        raise StoreError(wrong, str(store.folder), "use that version, or `pydt quickstart` with another --out")
    return read


def embedded(kind: str, models: int, seed: int, folder: Path) -> PlanFile:
    """A plan that comes with pydt: "sample", that of the quickstart, or "lab"."""
    from pydt.ensemble import PlanFile, quickstart_plan

    if kind == "sample":
        return PlanFile(quickstart_plan(models, seed), folder, "quickstart")
    from pydt.analyses import laboratory as lab

    return PlanFile(lab.plan(lab.planted(seed), models, seed), folder, "lab")


@dataclass(frozen=True)
class Sought:
    """A plan as a command was asked for it that reads its rows, and perhaps its source.

    Attributes:
        folder: of the store. plan: itself, where it can be made again, else its name, or None.
        words: how commands that train name it; None where they cannot.
        why: why it could not be made again; may be empty.
    """

    folder: Path
    plan: Plan | str | None
    words: tuple[str, ...] | None = None
    why: str = ""


def sought(place: Path, plan: str | None) -> Sought:
    """The plan of a file or of a store; made again from its file, if there is one that still makes it."""
    from pydt.ensemble import read_plan
    from pydt.store import Store

    folder = place
    if is_file(place):
        if is_study(place):
            return Sought(*store_and_plan(place, plan))
        read = read_plan(place)
        if plan is None or Store(read.dir).plan(plan).digest == read.chosen().digest:
            found = Asked(read, (str(place),))
            return Sought(read.dir, found.chosen(), found.words)
        folder = read.dir
    if not (place == folder and trainable(folder, plan) is None):
        try:
            found = asked(folder, plan)
            return Sought(folder, found.chosen(), found.words)
        except PydtError as error:
            return Sought(folder, plan, None, ": ".join(filter(None, (error.where, error.what))))
    return Sought(folder, plan)


def trainable(folder: Path, plan: str | None) -> tuple[str, ...] | None:
    """How commands that train name a plan of a store, where that knows a file of it; whether the file still makes this
    plan is not looked at, since that may take long."""
    from pydt.ensemble import Command
    from pydt.store import Store, read_names

    store = Store(folder)
    record = store.plan(plan)
    note = read_names(store).get(record.digest)
    if note is None or record.settings.get("method") == Command.method:
        return None
    if note.embedded is None and (note.file is None or not os.path.isfile(store.folder / note.file)):
        return None
    return (str(folder), *(("--plan", store.called(record)) if len(store.designs()) > 1 else ()))


def is_file(place: Path) -> bool:
    """Whether it is a plan or study file and not a store."""
    return place.suffix == ".toml" and place.is_file()


def is_study(place: Path) -> bool:
    """Whether a file is a study."""
    from pydt.ensemble import parsed

    return "study" in parsed(place)


def note_plan(read: PlanFile, made: Plan, embedded: str | None = None, seed: int = 0) -> str:
    """Note in the store, which is made if needed, what a plan is called and how to make it again; returns the name."""
    from pydt.store import Store, name_plan

    store = Store.create(read.dir)
    about = None if embedded is None else {"kind": embedded, "models": len(made.design), "seed": seed}
    return name_plan(store, made.digest, read.name, file=read.file, embedded=about)


def store_of(place: Path) -> Path:
    """The folder of a store that was named by itself, or by its plan or study file."""
    return store_and_plan(place, "")[0]


def store_and_plan(place: Path, plan: str | None) -> tuple[Path, str | None]:
    """The same with the plan that was asked for, or that of the file; a study has no such plan."""
    if not is_file(place):
        return place, plan
    if is_study(place):
        from pydt.studies import read_study

        return read_study(place).dir, plan
    if plan is None:
        found = asked(place)
        return found.read.dir, found.chosen().digest
    from pydt.ensemble import read_plan

    return read_plan(place).dir, plan


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
