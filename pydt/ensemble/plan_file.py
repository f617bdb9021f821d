"""Plans as TOML files, to be written by hand and kept under version control.

    by = "class"                    # the partition of the source into groups
    seed = 0                        # key of the rows' training seeds

    [run]                           # changes here retrain nothing
    dir = "my-study"                # of the store, beside the file; default: the file's name
    name = "first try"              # what people call the plan; default: the file's name
    workers = 2
    stop = "sign 10"

    [source]                        # one of folder, tar, images, saved, sample
    folder = "photos"

    [design]
    kind = "random"
    models = 300
    alpha = 0.25

    [recipe]                        # defaults are those of pydt.Recipe
    epochs = 6
    augment.size = 64

    [[tasks]]
    shots = 5
    target.train.folder = "target photos"

    [runner]                        # in place of [recipe]: fields of pydt.Command; [source] may then name `groups`,
    command = [...]                 # and [[tasks]] have `measure` in place of a target

    [rates]                         # optional: `pydt run` first chooses the learning rate of tasks that have one
    grid = [0.003, 0.01, 0.03, 0.1]

Paths are relative to the file. Each table takes the arguments of its function or class under the same names; an unknown
key is refused with the nearest known one. The keys come from the registries of designs and containers and from the
fields of the settings classes: a new kind, container or setting needs no line here. Not cattrs: its hooks for places,
nearest names and missing keys would be as long as `toml_table.py` and `settings_of`.
"""

from __future__ import annotations

import inspect
import os
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydt import design as designs
from pydt.base import ConfigError, DataError, Short, StoreError, as_path, open_npy, suggest
from pydt.data import Dataset, Groups
from pydt.ensemble.file_tables import run_settings, settings_of, target_of
from pydt.ensemble.plan import Plan
from pydt.ensemble.plan_sources import entries, source_of
from pydt.ensemble.rates import ROWS, check_rates, chosen_rates
from pydt.ensemble.runners import Command
from pydt.ensemble.toml_table import Table, parsed, placed
from pydt.estimation import StoppingRule
from pydt.store import Measure, checked_name, usual_name

if TYPE_CHECKING:
    from pydt.training import Recipe, Task


_TABLES = ("run", "source", "by", "design", "recipe", "runner", "tasks", "seed", "seeds", "rates")
_OF_MEASURES = tuple(inspect.signature(Measure).parameters)[1:]  # without its name
_BY_EXAMPLE = {"examples", "half", "classes", "weights"}  # a list, or a file with an entry for each example


@dataclass(frozen=True, repr=False)
class PlanFile(Short):
    """The content of a plan file.

    Attributes:
        plan: what to compute.
        dir: folder of the store.
        name: what people call the plan. file: its path; None of a plan that was not read from one.
        workers, stop, limit, same_code, keep, keep_bytes: as `pydt.run` takes them; None (False, "none") if the file
            does not say.
        rates, rate_rows: as `pydt.choose_rates` takes them; no rates if none are to be chosen.
    """

    plan: Plan
    dir: Path
    name: str = ""
    file: Path | None = None
    workers: int | None = None
    stop: str | None = None
    limit: float | None = None
    same_code: bool = False
    keep: str = "none"
    keep_bytes: int | None = None
    rates: tuple[float, ...] = ()
    rate_rows: int = ROWS

    def chosen(self, dir: str | os.PathLike[str] | None = None) -> Plan:
        """The plan with the learning rates that were chosen, if the file asks for that; `dir` instead of its own.

        Raises:
            StoreError: they are not chosen yet.
        """
        if not self.rates:
            return self.plan
        folder = self.dir if dir is None else dir
        found = chosen_rates(self.plan, folder, self.rates, self.rate_rows)
        if found is None:
            wrong = "holds no choice of the plan's learning rates"
            raise StoreError(wrong, str(folder), "`pydt run FILE` chooses them, and trains the rows")
        return found.plan


def read_plan(path: str | os.PathLike[str]) -> PlanFile:
    """The plan that a TOML file describes; see docs/plans.md for the format.

    Raises:
        ConfigError: no such file, no TOML, an unknown or missing key, or a value of another type.
        PydtError: raised by `Plan`, `Dataset`, `Target`, `Recipe`, `Task` or a design, with file and table.
    """
    place = as_path(path, "read_plan", DataError)
    top = Table(parsed(place), str(place), "")
    if "study" in top:
        raise ConfigError("is a study, not a plan", str(place), "`pydt study FILE` says what it costs, and runs it")
    top.rest(_TABLES)  # a misspelt table is told before what it lacks
    run = top.table("run", required=False)
    own = _kind(top)
    source = source_of(top.table("source"), place.parent)
    by = top.take("by", str, "")
    design = _design(top.table("design"), source, by or getattr(source, "by", "class"), place.parent)
    make = _runner if own else _recipe
    recipe = make(top.table("runner" if own else "recipe", required=False), place.parent)
    tables = top.tables("tasks")
    tasks = [task for one in tables for task in ([_measure(one, place.parent)] if own else _tasks(one, place.parent))]
    seeds, seed = top.take("seeds", list, None), top.take("seed", int, 0)
    stop = run.take("stop", str, None)
    with placed(run.where("stop")):
        StoppingRule.parse(stop)
    if own and (name := next((name for name in ("keep", "keep_bytes") if name in run), None)):
        raise ConfigError("is for networks that pydt trains", run.where(name), "leave it out of a plan with a [runner]")
    name = run.take("name", str, "")
    if "name" in run:
        checked_name(name, run.where("name"))
    how = {"name": name or usual_name(place.stem), "file": place, **run_settings(run, place)}
    if own and "rates" in top:
        mend = "leave it out; rates of your own go into the command"
        raise ConfigError("has no task with a learning rate that pydt knows", top.where("rates"), mend)
    rates = top.table("rates", required=False, of="grid")
    grid, rate_rows = rates.take("grid", list, MISSING if "rates" in top else []), rates.take("rows", int, ROWS)
    rates.finish()
    with placed(top.where()):
        plan = Plan(source, by, design=design, recipe=recipe, tasks=tuple(tasks), seeds=seeds, seed=seed)
    if "rates" in top:
        with placed(rates.where()):
            grid = check_rates(plan, grid, rate_rows)
    return PlanFile(plan, **how, stop=stop, rates=tuple(grid), rate_rows=rate_rows)


def _kind(top: Table) -> bool:
    """Whether the rows are a command's; refuses tables that do not go together, each by its place."""
    own = "runner" in top
    if own and "recipe" in top:
        raise ConfigError("there is a [recipe], too", top.where("runner"), "rows are computed by one of them")
    if not own and "groups" in top.table("source"):
        mend = 'name images, or the command that computes rows: [runner] command = ["python", "train.py", ...]'
        raise ConfigError("has no images that a [recipe] could train on", top.where("source.groups"), mend)
    for table in top.tables("tasks"):
        if own and "measure" not in table:
            mend = 'declare what the command gives: measure = "accuracy"'
            raise ConfigError("is no measure, which every task of a [runner] is", table.where(), mend)
        if not own and "measure" in table:
            mend = "name a target: target.train.folder = ...; numbers of your own are a [runner]'s"
            raise ConfigError("is what a [runner] gives, not a [recipe]", table.where("measure"), mend)
    return own


def _design(table: Table, source: Dataset | Groups, by: str, folder: Path) -> designs.Design:
    kind = table.take("kind", str)
    if kind not in designs.KINDS:
        raise ConfigError(f"no kind {kind!r}", table.where("kind"), suggest(kind, list(designs.KINDS)))
    arguments = designs.KINDS[kind].arguments
    with placed(table.where()):
        groups = len(source.units(by)[1])
    if "masks" in arguments:
        file = table.take("masks", str)
        table.finish()
        with placed(table.where("masks")):
            return designs.Design.explicit(open_npy(folder / file))
    models, chosen = table.take("models", int), table.take("rows", list, None)
    given = table.rest(arguments)
    if "strata" in arguments and "strata" not in given:
        raise ConfigError("is missing", table.where("strata"), "give the stratum of each group: strata = [0, 0, 1, 1]")
    with placed(table.where()):
        made = designs.draw(kind, groups, **{**given, "models": models})
        return made if chosen is None else made.take(chosen)


def _recipe(table: Table, folder: Path) -> Recipe:
    from pydt.training import Recipe

    return settings_of(table, Recipe, folder)


def _runner(table: Table, folder: Path) -> Command:
    """A command; its folder is by default that of the file."""
    place = (folder / table.take("folder", str, ".")).absolute()
    return settings_of(table, Command, folder, folder=str(place))


def _measure(table: Table, folder: Path) -> Measure:
    """A measure; what it says of each example may stand in a file."""
    name, given = table.take("measure", str), table.rest(_OF_MEASURES)
    for key in given.keys() & _BY_EXAMPLE:
        if key == "examples" and isinstance(given[key], int):
            continue
        with placed(table.where(key)):
            given[key] = entries(given[key], folder)
            if key == "weights" and isinstance(given[key], list):
                given[key] = _numbers(given[key])
    with placed(table.where()):
        return Measure(name, **given)


def _numbers(values: list[Any]) -> list[float]:
    """Weights of a text file."""
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"are no numbers ({error})", None, "give a number >= 0 for each example") from error


def _tasks(table: Table, folder: Path) -> list[Task]:
    """The task of a table; of a list of numbers of shots one for each."""
    from pydt.training import Task

    target = target_of(table.table("target"), folder)
    name = table.take("name", str, "")
    if not isinstance(table.values().get("shots"), list):
        return [settings_of(table, Task, folder, target=target)]
    shots = table.take("shots", list)
    if not shots or len(set(map(str, shots))) < len(shots):
        wrong = "names a number twice" if shots else "is empty"
        raise ConfigError(wrong, table.where("shots"), 'give numbers of labelled images a class: [1, 5, "full"]')
    names = [f"{name}, {k}-shot" if name else "" for k in shots]
    return [
        settings_of(table, Task, folder, target=target, shots=k, name=own) for k, own in zip(shots, names, strict=True)
    ]
