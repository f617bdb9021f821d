"""A study: which source to pre-train on, how large, by which method, judged by k-shot transfer to targets.

    arm   = (source, size, method): what is pre-trained. Scratch and public checkpoints are arms without a source.
    part  = an arm with one seed: one row of the store. Seed s of every arm trains on the s-th sample of its source,
            with the same random numbers; sample and seed are one random factor.
    tasks = targets x modes x shots; all arms have the same few-shot draws and target images, so they are paired.

A part's row follows from its own sample, recipe and seed alone: another source, size, method or seed changes none of
the others, another target or number of shots none of the trainings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from pydt.base import ConfigError, digest, html_table, one_of, real, seed31, whole
from pydt.data import Dataset, Target
from pydt.ensemble import Context, Part, check_rates_of, placed
from pydt.reporting import count
from pydt.store import Row
from pydt.studies.sources import Mixture, Source, as_source
from pydt.training import MODES, Recipe, Task

FULL = "full"
_SIDE = 224  # of the image that stands for no source, where targets are files and no size is given
SCRATCH = "scratch"
"""What the arm without pre-training is called."""
_OF_STUDY = {"target", "shots", "draws", "seed", "name", "part"}
OF_MODES = tuple(field.name for field in fields(Task) if field.name not in {*_OF_STUDY, "mode"})
"""Settings of a task that a mode of a study may have."""


@dataclass(frozen=True)
class PublicModel:
    """A public checkpoint beside a study's own trainings: marked as confounded in size, architecture and length.

    Attributes:
        recipe: of method "checkpoint".
        source: what it was trained on, as reports call it. images: how many images that is; None: not known.
        method: how, as reports call it. epochs: passes over its source; None: not known.

    Raises:
        ConfigError: the recipe is none of a checkpoint, or images are no number above 0.
    """

    recipe: Recipe
    source: str
    images: int | None = None
    method: str = "checkpoint"
    epochs: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.recipe, Recipe) or self.recipe.method != "checkpoint":
            mend = 'give pydt.Recipe(method="checkpoint", checkpoint=pydt.train.Checkpoint("open_clip:..."))'
            raise ConfigError("is no recipe of a checkpoint", "PublicModel.recipe", mend)
        if self.images is not None:
            object.__setattr__(self, "images", whole(self.images, "images", "PublicModel", 1, error=ConfigError))
        if self.epochs is not None:
            object.__setattr__(self, "epochs", real(self.epochs, "epochs", "PublicModel", above=0))


@dataclass(frozen=True)
class Arm:
    """What is pre-trained.

    Attributes:
        source, size, method: names and images; of scratch the source is empty and the size 0; of a checkpoint they are
            what its maker says, 0 where that is not known.
        kind: "trained", "scratch" or "checkpoint".
        recipe: of its rows.
        name: in messages.
    """

    source: str
    size: int
    method: str
    kind: str
    recipe: Recipe
    name: str


@dataclass(frozen=True)
class StudyTask:
    """A task of a study: which target, mode and shots (0: no labelled images) it is."""

    target: str
    mode: str
    shots: int | str
    task: Task


@dataclass(frozen=True, eq=False)
class Study:
    """Sources x sizes x methods, pre-trained and transferred to targets x modes x shots.

    Args:
        sources: by name, a `pydt.Dataset`, a `pydt.Source` (a part of one, other captions, label noise) or a
            `pydt.Mixture`; none where only checkpoints are compared.
        methods: by name, the `pydt.Recipe` of its trainings. Give each the same budget: equal steps, so that sizes are
            compared at equal cost; a longer one under a name of its own asks what length brings.
        targets: by name.
        sizes: images of each source; default one size, that of the smallest source.
        shots: labelled images per class, or "full".
        modes: ways to transfer: names of modes, or a dict: by a name of your own the further settings of `pydt.Task`:
            {"probe": {}, "finetune": {"finetune": FineTune(epochs=15)}}; "mode" in them where the name is another.
        draws: few-shot draws; seeds: trainings of every arm, each on its own nested sample of its source.
        rates: learning rates to choose from, the same for all arms and chosen for each arm, target, mode and number of
            shots on validation images; empty: those of the modes' settings.
        scratch: the recipe (method "none") of the untrained network to compare with, or None.
        checkpoints: by name, public models to show beside.
        cells: (source, size, method) of the arms, if not all of the grid.
        seed: of samples, trainings and draws.
        name: how the report calls it.

    Raises:
        ConfigError: an unknown name, a size above a source, a repeated value, a recipe or mode that does not fit.
        DataError: a class of a target has fewer images than shots, a method finds no captions, channels differ.
    """

    sources: Mapping[str, Any]
    methods: Mapping[str, Recipe]
    targets: Mapping[str, Target]
    sizes: Sequence[int] = ()
    shots: Sequence[int | str] = (1, 5, FULL)
    modes: Any = ("probe",)
    draws: int = field(default=5, kw_only=True)
    seeds: int = field(default=3, kw_only=True)
    rates: Sequence[float] = field(default=(), kw_only=True)
    scratch: Recipe | None = field(default=None, kw_only=True)
    checkpoints: Mapping[str, PublicModel] = field(default_factory=dict, kw_only=True)
    cells: Sequence[tuple[str, int, str]] | None = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    name: str = field(default="study", kw_only=True)

    def __post_init__(self) -> None:
        put = object.__setattr__
        for axis, kind, mend in (
            ("sources", (Dataset, Source, Mixture), "give pydt.Dataset, pydt.Source or pydt.Mixture objects"),
            ("methods", Recipe, "give pydt.Recipe objects"),
            ("targets", Target, "give pydt.Target objects"),
            ("checkpoints", PublicModel, "give pydt.studies.PublicModel objects"),
        ):
            empty = axis == "checkpoints" or (axis != "targets" and bool(self.checkpoints))
            put(self, axis, _named(getattr(self, axis), axis, kind, mend, empty))
        put(self, "sources", {name: as_source(one) for name, one in self.sources.items()})
        for name, recipe in self.methods.items():
            if recipe.method in ("checkpoint", "none"):
                field_of = "checkpoints" if recipe.method == "checkpoint" else "scratch"
                raise ConfigError(f"trains nothing (method {recipe.method!r})", f"Study.methods[{name!r}]",
                                  f"give it as {field_of}=")  # fmt: skip
        if self.scratch is not None and getattr(self.scratch, "method", None) != "none":
            mend = 'give pydt.Recipe(method="none", network=...), or None'
            raise ConfigError("is no recipe of an untrained network", "Study.scratch", mend)
        for name, least in (("draws", 1), ("seeds", 2), ("seed", 0)):
            put(self, name, whole(getattr(self, name), name, "Study", least, error=ConfigError))
        put(self, "modes", self._modes())
        put(self, "shots", self._shots())
        sizes = _listed(self.sizes, "sizes") or sorted(source.largest for source in self.sources.values())[:1]
        checked = [whole(size, f"sizes[{i}]", "Study", 1, error=ConfigError) for i, size in enumerate(sizes)]
        put(self, "sizes", tuple(sorted(_once(checked, "sizes"))))
        put(self, "cells", None if self.cells is None else self._cells(self.cells))
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"is {self.name!r}", "Study.name", "give a text")
        _once([arm.name for arm in self.arms], "arms", "give each checkpoint a name that no other arm has")
        for arm in self.arms:
            if arm.kind == "trained" and arm.size > self.sources[arm.source].largest:
                source = self.sources[arm.source]
                wrong = f"{arm.size:,} images, but source {arm.source!r} has {source.largest:,} ({source.told})"
                mend = f"ask for at most {source.largest:,}, or list the arms that are possible: cells=[...]"
                raise ConfigError(wrong, "Study.sizes", mend)
            if arm.kind == "trained":
                self.sources[arm.source].check(arm.recipe)
        for part in self.parts:  # what any of them refuses is refused before anything is trained
            part.record  # noqa: B018
        rates = _listed(self.rates, "rates")
        if rates and all(task.rate is None for arm in self.arms for task in self.tasks(arm)):
            raise ConfigError("no mode has a learning rate", "Study.rates", "leave the rates out")
        if rates:
            with placed("Study"):
                rates = check_rates_of(self.parts[: len(self.arms)], rates)
        put(self, "rates", rates)

    def __repr__(self) -> str:
        asked = (("source", self.sources), ("size", self.sizes), ("method", self.methods), ("target", self.targets))
        grid = " x ".join(count(len(values), what) for what, values in asked)
        return f"Study({self.name!r}: {grid}; {count(len(self.arms), 'arm')}, {count(self.seeds, 'seed')} each)"

    def _repr_html_(self) -> str:
        rows = ((arm.name, arm.recipe.network, f"{len(self.asked(arm)):,}", f"{self.seeds:,}") for arm in self.arms)
        return html_table(repr(self), ("arm", "network", "tasks", "seeds"), rows, len(self.arms), "arms")

    # ---- what is asked ---------------------------------------------------------------------------------------------

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """The arms: of sources, sizes and methods in their order, then scratch and checkpoints."""
        grid = [(s, n, m) for s in self.sources for n in self.sizes for m in self.methods]
        chosen = grid if self.cells is None else [cell for cell in grid if cell in set(self.cells)]
        found = [Arm(s, n, m, "trained", self.methods[m], f"{s}, {n:,} images, {m}") for s, n, m in chosen]
        if self.scratch is not None:
            found.append(Arm("", 0, SCRATCH, SCRATCH, self.scratch, SCRATCH))
        for name, model in self.checkpoints.items():
            found.append(Arm(model.source, model.images or 0, name, "checkpoint", model.recipe, name))
        return tuple(found)

    def tasks(self, arm: Arm) -> tuple[Task, ...]:
        """Targets x modes x shots of an arm, in this order; rates as the modes' settings say. Zero-shot modes have one
        task a target, and only arms that read captions have them.
        """
        return tuple(asked.task for asked in self.asked(arm))

    def asked(self, arm: Arm) -> tuple[StudyTask, ...]:
        """The tasks of an arm, each with what it is in the study."""
        known, captions = self.__dict__.setdefault("_asked", {}), reads_captions(arm.recipe)
        if captions not in known:  # one object for all arms: it is sent to workers and written once
            known[captions] = tuple(self._asked_of(captions))
        return known[captions]

    def _asked_of(self, captions: bool) -> Iterator[StudyTask]:
        for target, data in self.targets.items():
            for mode, settings in self.modes.items():
                labelled = MODES[settings["mode"]].labelled
                for shots in self.shots if labelled else (0,) if captions else ():
                    name = task_name(target, mode, shots)
                    more = {"draws": self.draws, "seed": self.seed, "name": name, **settings}
                    yield StudyTask(target, mode, shots, Task(data, shots=shots, **more))

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """One for each seed and arm, seeds outermost: the first seed of all arms comes first."""
        return tuple(self.part(arm, seed) for seed in range(self.seeds) for arm in self.arms)

    def part(self, arm: Arm, seed: int, tasks: Sequence[Task] | None = None) -> Part:
        """The row of an arm and a seed (its number), by default with the tasks of `tasks`."""
        source = self._source(arm, seed)
        mask: Any = np.ones(len(source.classes), bool)
        row = Row(mask, seed31("study training", self.seed, seed), "study")
        made = self.tasks(arm) if tasks is None else tuple(tasks)
        return Part(Context(source, "class", arm.recipe, made), (row,), f"{arm.name}, seed {seed}")

    @cached_property
    def digest(self) -> str:
        """Digest of everything that the study asks."""
        return digest("study", self.described())

    def described(self) -> dict[str, Any]:
        """The study as JSON types."""
        return {
            "sources": {name: one.digest for name, one in self.sources.items()},
            "methods": {name: recipe.digest for name, recipe in self.methods.items()},
            "targets": {name: target.digest for name, target in self.targets.items()},
            "arms": [[arm.source, arm.size, arm.method, arm.kind, arm.recipe.digest] for arm in self.arms],
            "tasks": [[task.name, task.digest] for arm in self.arms for task in self.tasks(arm)],
            "rates": list(self.rates),
            "seeds": self.seeds,
            "seed": self.seed,
            "name": self.name,
        }

    # ---- checks ----------------------------------------------------------------------------------------------------

    def _modes(self) -> dict[str, dict[str, Any]]:
        given = self.modes
        if not isinstance(given, Mapping):
            names = _once(_listed(given, "modes"), "modes")
            given = {one_of(name, tuple(MODES), "mode", "Study.modes"): {} for name in names}
        if not given:
            raise ConfigError("is empty", "Study.modes", 'give at least one: modes=("probe",)')
        found = {}
        for name, settings in given.items():
            where = f"Study.modes[{name!r}]"
            if not isinstance(name, str) or not name:
                raise ConfigError(f"{name!r} is no name", where, "give texts as keys")
            if not isinstance(settings, Mapping):
                raise ConfigError(
                    f"is {settings!r}, not a dict", where, f"give settings of pydt.Task: {{{name!r}: {{}}}}"
                )
            for key in settings:
                one_of(key, ("mode", *OF_MODES), "setting", where)
            mode = settings.get("mode", name)
            one_of(mode, tuple(MODES), "mode", where)
            found[name] = {**settings, "mode": mode}
        return found

    def _shots(self) -> tuple[int | str, ...]:
        given = _once(_listed(self.shots, "shots"), "shots")
        if not given:
            raise ConfigError("is empty", "Study.shots", 'give at least one: shots=(1, 5, "full")')
        numbers = [
            whole(k, "shots", "Study", 1, error=ConfigError) for k in given if not isinstance(k, str) or k != FULL
        ]
        full = len(numbers) < len(given)
        return (*sorted(_once(numbers, "shots")), *((FULL,) if full else ()))

    def _cells(self, given: Any) -> tuple[tuple[str, int, str], ...]:
        found = []
        for i, cell in enumerate(_listed(given, "cells")):
            where = f"Study.cells[{i}]"
            if not isinstance(cell, (list, tuple)) or len(cell) != 3:
                raise ConfigError(f"is {cell!r}", where, "give (source, size, method)")
            source, size, method = cell
            one_of(source, tuple(self.sources), "source", where)
            size = whole(size, "size", where, 1, error=ConfigError)
            if size not in self.sizes:
                raise ConfigError(f"unknown size {size!r}", where, f"choose one of: {', '.join(map(str, self.sizes))}")
            one_of(method, tuple(self.methods), "method", where)
            found.append((source, size, method))
        if not found:
            raise ConfigError("is empty", "Study.cells", "leave it out for all of the grid")
        return tuple(_once(found, "cells"))

    def _source(self, arm: Arm, seed: int) -> Dataset:
        if arm.kind != "trained":
            return _blank(next(iter(self.targets.values())).train, arm.recipe.augment.size or _SIDE)
        known, key = self.__dict__.setdefault("_samples", {}), (arm.source, arm.size, seed)
        if key not in known:
            known[key] = self.sources[arm.source].take(arm.size, seed31("study sample", self.seed, seed))
        return known[key]


def task_name(target: str, mode: str, shots: int | str) -> str:
    """What a task of a study is called."""
    return f"{target}, {mode}" if shots == 0 else f"{target}, {mode}, {shots} shot{'' if shots == 1 else 's'}"


def reads_captions(recipe: Recipe) -> bool:
    """Whether models of a recipe can name classes without labelled images."""
    return recipe.method == "clip" or recipe.checkpoint.name.startswith("open_clip:")


def _blank(target: Dataset, size: int) -> Dataset:
    """The source of rows that train nothing: one black image, as the network sees those of a target."""
    shape = (size, size, 3) if target.images is None else target.images.shape[1:]
    made = Dataset.from_arrays(np.zeros((1, *shape), np.uint8), [0], ["none"], name="no source")
    vars(made)["digest"] = digest("no source", shape[-1])  # not of its size: another first target renames no row
    return made


def _named(given: Any, axis: str, kind: Any, mend: str, empty: bool) -> dict[str, Any]:
    """A mapping from names to values of a kind."""
    where = f"Study.{axis}"
    if not isinstance(given, Mapping):
        raise ConfigError(f"is a {type(given).__name__}", where, f"give a dict: {axis}={{name: ...}}")
    if not given and not empty:
        raise ConfigError("is empty", where, mend)
    for name, value in given.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{name!r} is no name", where, "give texts as keys")
        if not isinstance(value, kind):
            raise ConfigError(f"is a {type(value).__name__}", f"{where}[{name!r}]", mend)
    return dict(given)


def _listed(given: Any, axis: str) -> tuple[Any, ...]:
    if isinstance(given, (str, bytes)) or not hasattr(given, "__iter__"):
        raise ConfigError(f"is {given!r}, not a list", f"Study.{axis}", "give a list")
    return tuple(given)


def _once(given: Sequence[Any], axis: str, mend: str = "give each once") -> tuple[Any, ...]:
    for i, value in enumerate(given):
        if any(type(value) is type(other) and value == other for other in given[:i]):
            raise ConfigError(f"{value!r} is there twice", f"Study.{axis}", mend)
    return tuple(given)
