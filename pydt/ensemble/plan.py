"""What to train: a plan and its rows. Each row follows from the plan alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pydt.base import ConfigError, DataError, DesignError, PydtError, Short, place_by_name, whole
from pydt.data import Dataset, Groups
from pydt.design import Design
from pydt.ensemble.row import Context, is_own
from pydt.store import MOST_ROWS, Drawn, Measure, Record, Row

if TYPE_CHECKING:
    from pydt.training import Task


@dataclass(frozen=True, eq=False, repr=False)
class Plan(Short):
    """What to train: one row for each row of the design, transferred to every task.

    Args:
        source: the source data set; for rows of the user's own also a `pydt.Groups`.
        by: the column that partitions it into groups; "class" by default, of a `pydt.Groups` its only partition.
        design: which groups each row keeps (a `pydt.Design`).
        recipe: how a row is computed: a `pydt.Recipe` (pydt trains a source model), or the user's own `pydt.Function`
            or `pydt.Command`.
        tasks: with a `pydt.Recipe` the targets to which every row is transferred, each a `pydt.Task`; else the
            numbers that a row gives, each a `pydt.Measure`.
        seeds: one training seed a row; None: row i gets 31 random bits keyed by (`seed`, i).
        seed: key of the rows' seeds.

    Raises:
        ConfigError: no task, two tasks of one name, a trial among them, a wrong number of seeds, an argument of another
            type, a source on which the method cannot train, or masks for a method that trains nothing.
        DesignError: no design, one with other groups than the source, or a row that keeps nothing.
        DataError: a group without examples, or target images with other channels than the source's.
    """

    source: Any
    by: str = ""
    design: Design = field(kw_only=True)
    recipe: Any = field(kw_only=True)
    tasks: tuple[Any, ...] = field(kw_only=True)
    seeds: tuple[int, ...] | None = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        mend = "give a pydt.Dataset; where a runner of your own reads the data, a pydt.Groups(...)"
        _expect(self.source, "units", "Plan.source", mend)
        object.__setattr__(self, "by", self.by or getattr(self.source, "by", "class"))
        _expect(self.recipe, "described", "Plan.recipe", _recipe_meant(self.recipe))
        object.__setattr__(self, "tasks", _several(self.tasks, "Plan.tasks", "put it into a list: tasks=[task]"))
        _expect(self.design, "packed", "Plan.design", "make one: pydt.Design.explicit(masks)", DesignError)
        object.__setattr__(self, "seed", whole(self.seed, "seed", "Plan", error=ConfigError))
        if self.seeds is not None:
            seeds = _several(self.seeds, "Plan.seeds", "give a list of whole numbers")
            checked = tuple(whole(seed, f"seeds[{i}]", "Plan", error=ConfigError) for i, seed in enumerate(seeds))
            object.__setattr__(self, "seeds", checked)
            if len(self.seeds) != len(self.design):
                wrong = f"{len(self.seeds)} seeds for {len(self.design)} rows"
                raise ConfigError(wrong, "Plan.seeds", "give one seed a row")
        check(self.context, self.rows())
        for task in self.tasks:
            if getattr(task, "part", "judged") != "judged":
                mend = "pydt.choose_rates runs trials and chooses by them"
                raise ConfigError("is a trial, judged on validation images", f"task {task.name!r}", mend)
        if getattr(self.recipe, "method", None) == "checkpoint" and not all(row.mask.all() for row in self.rows()):
            wrong = 'method "checkpoint" trains nothing, so leaving groups out changes nothing'
            ones = f"np.ones((1, {len(self.context.units[1])}), bool)"
            mend = (
                f"choose a method that trains, or keep every group: design=pydt.Design.explicit({ones}); for a plan "
                f'file, np.save(\'ones.npy\', {ones}) and [design] kind = "explicit", masks = "ones.npy"'
            )
            raise ConfigError(wrong, "Plan.design", mend)

    @cached_property
    def context(self) -> Context:
        """What all rows share."""
        return Context(self.source, self.by, self.recipe, self.tasks)

    @cached_property
    def digest(self) -> str:
        """Digest of the plan: its name in stores."""
        return self.record().digest

    def task(self, wanted: Task | str | None = None) -> Task:
        """One of the tasks, by name, the beginning of a name, or digest; by default the first.

        A `Task` is returned as it is, also one of another plan: its rows may be in the same store.

        Raises:
            ConfigError: no task has this name or digest, or several names begin with it.
        """
        if wanted is None:
            return self.tasks[0]
        if not isinstance(wanted, str):
            return wanted
        names, digests = ([getattr(known, part) for known in self.tasks] for part in ("name", "digest"))
        return self.tasks[place_by_name(wanted, names, digests, "task", "Plan.tasks", ConfigError)]

    def rows(self) -> Sequence[Row]:
        """The rows in design order, drawn on access."""
        return Drawn(self.design.to_dict(), self.seeds, self.seed, design=self.design)

    def record(self) -> Record:
        """The plan as a store records it."""
        return self._record

    @cached_property
    def _record(self) -> Record:
        return make_record(self.context, self.rows(), self.design, self.seed)


def _expect(value: Any, method: str, where: str, mend: str, kind: type[PydtError] = ConfigError) -> None:
    """Refuse an argument without the method that its type has."""
    if isinstance(value, type) or not hasattr(value, method):
        raise kind(f"is {value!r}" if value is None else f"is of type {type(value).__name__}", where, mend)


def _recipe_meant(given: Any) -> str:
    """The recipe that something else was probably meant to be, as a mend."""
    if isinstance(given, str):
        return 'give the command as a list of its parts: recipe=pydt.Command(["python", "train.py", "{keep}", "{out}"])'
    if isinstance(given, (list, tuple)):
        return "if it is a command, say so: recipe=pydt.Command([...])"
    if callable(given) and not isinstance(given, type):
        return f"say that it computes the rows: recipe=pydt.Function({getattr(given, '__name__', 'f')})"
    return "give a pydt.Recipe: recipe=pydt.Recipe(); of your own a pydt.Function(f) or a pydt.Command([...])"


def _several(values: Any, where: str, mend: str) -> tuple[Any, ...]:
    try:
        if isinstance(values, str):
            raise TypeError
        return tuple(values)
    except TypeError:
        raise ConfigError(f"is one {type(values).__name__}, not a list", where, mend) from None


def _channels(data: Any, recipe: Any) -> int:
    """What a network sees."""
    if data.images is None:
        return 3  # files are decoded to RGB
    channels = int(data.images.shape[3])
    return 3 if channels == 1 and getattr(recipe, "rgb", False) else channels


def check(context: Context, rows: Sequence[Row]) -> None:
    """Refuse rows that cannot be trained; raises what `Plan` raises."""
    for i, task in enumerate(context.tasks):
        mend = "give pydt.Task objects: pydt.Task(target); with a runner of your own pydt.Measure objects"
        if hasattr(context.recipe, "compute"):
            mend = "give pydt.Measure objects: pydt.Measure(name, examples)"
        _expect(task, "examples", f"tasks[{i}]", mend)
    called = [task.name for task in context.tasks]
    if not called:
        raise ConfigError("is empty", "tasks", "give at least one pydt.Task, or pydt.Measure of a runner of your own")
    for name in called:
        if called.count(name) > 1:
            raise ConfigError(f"two tasks are called {name!r}", "tasks", "give each its own name")
    _kinds(context)
    group, names = context.units
    if group.shape != (len(context.source),):
        wrong = f"groups of shape {group.shape} for {len(context.source)} examples"
        raise DataError(wrong, f"by={context.by!r}", "give each example one group")
    sizes = np.bincount(group[group >= 0], minlength=len(names))
    if (sizes == 0).any():
        empty = ", ".join(names[i] for i in np.flatnonzero(sizes == 0)[:5])
        raise DataError(f"no examples in {empty}", f"by={context.by!r}", "drop groups without examples")
    for task in context.tasks:
        data = getattr(getattr(task, "target", None), "train", None)
        if not isinstance(data, Dataset) or not isinstance(context.source, Dataset):
            continue
        theirs, ours = _channels(data, context.recipe), _channels(context.source, context.recipe)
        if theirs != ours:
            wrong = f"{data.name} has images of {theirs} channels, the source {context.source.name} of {ours}"
            mend = "bring both to one number: grey[..., None].repeat(3, axis=3) makes RGB of grey"
            raise DataError(wrong, f"task {task.name!r}", mend)
    if isinstance(context.source, Dataset) and hasattr(context.recipe, "check"):
        context.recipe.check(context.source)
        for task in context.tasks:
            task.check(context.recipe, context.source)
    if isinstance(rows, Drawn):  # a design's masks are never empty
        if rows.groups != len(names):
            raise _other_groups(rows.groups, len(names), "Plan.design")
        if len(rows) * len(called) > MOST_ROWS:
            wrong = f"has {len(rows):,} rows" + f" of {len(called):,} tasks" * (len(called) > 1)
            mend = "split it: stores of one design can be merged"
            raise DesignError(f"{wrong}, more than {MOST_ROWS:,}", "Plan.design", mend)
        return
    always = bool((group < 0).any())
    for i, row in enumerate(rows):
        if row.groups != len(names):
            raise _other_groups(row.groups, len(names), f"row {i}")
        if not always and not any(row.keep):
            raise DesignError("keeps nothing to train on", f"row {i}", "keep at least one group in every row")


def _kinds(context: Context) -> None:
    """Refuse a source or tasks that the recipe's kind of rows cannot have."""
    own = is_own(context.recipe)
    if hasattr(context.recipe, "fits"):
        context.recipe.fits(context.source, context.by, context.tasks)
    if not own and isinstance(context.source, Groups):
        mend = "give a pydt.Dataset, or compute the rows yourself: recipe=pydt.Function(f) or pydt.Command([...])"
        raise ConfigError("has no images that a pydt.Recipe could train on", "Plan.source", mend)
    for task in context.tasks:
        if isinstance(task, Measure) != own and (own or hasattr(context.recipe, "method")):
            kind, mend = ("pydt.Task", "declare what your runner gives: pydt.Measure(name, examples)")
            if not own:
                kind, mend = "pydt.Measure", "a pydt.Recipe transfers to targets: pydt.Task(target)"
            raise ConfigError(f"is a {kind}", f"task {task.name!r}", mend)


def _other_groups(given: int, groups: int, where: str) -> DesignError:
    return DesignError(f"{given} groups, but the source has {groups}", where, f"draw the design with groups={groups}")


def make_record(context: Context, rows: Sequence[Row], design: Design | None = None, seed: int = 0) -> Record:
    """A list of rows, or a plan, as a store records it."""
    recipe = context.recipe
    tasks = tuple(
        {
            "digest": task.digest,
            "name": task.name,
            "target": getattr(task, "target", task).digest,
            "examples": len(task.examples()["labels"]),
            "settings": task.described(),
        }
        for task in context.tasks
    )
    return Record(
        kind="rows" if design is None else "design",
        source=context.source_digest,
        source_facts={"name": context.source.name, "examples": len(context.source)},
        units=context.units_digest,
        by=str(context.by),
        names=context.units[1],
        recipe=recipe.digest,
        settings=recipe.described(),
        tasks=tasks,
        design=None if design is None else design.to_dict(),
        seed=seed,
        rows=rows if isinstance(rows, Drawn) else tuple(rows),
    )
