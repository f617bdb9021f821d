"""Studies as TOML files, to be written by hand and kept under version control.

    [run]                           # changes here retrain nothing
    dir = "my-study"                # of the store, beside the file; default: the file's name
    workers = 2

    [study]                         # all optional
    sizes = [500, 1500]
    shots = [1, 5, "full"]
    rates = [0.03, 0.1, 0.3]
    cells = [["latin", 1500, "clip"]]

    [[sources]]                     # a data set as in plan files, and what pydt.Source makes of it
    name = "latin"
    sample = "alphanumerics"
    where.class = ["a", "b", "c"]
    captions = "template"
    noise = 0.2

    [[sources]]                     # other sources in fixed shares
    name = "mixed"
    mixture.latin = 0.7
    mixture.greek = 0.3

    [[methods]]                     # fields of pydt.Recipe
    name = "clip"
    method = "clip"
    steps = 400

    [[targets]]                     # fields of pydt.Target
    name = "digits"
    train.sample = "digits"

    [[modes]]                       # fields of pydt.Task; by default a probe alone
    name = "finetune"
    finetune.epochs = 15

    [scratch]                       # fields of pydt.Recipe

    [[checkpoints]]                 # pydt.studies.PublicModel; further keys are fields of pydt.Recipe
    name = "OpenAI"
    weights = "open_clip:ViT-B-32/openai"
    source = "WIT-400M"
    images = 400_000_000

Paths are relative to the file. The keys are the names of the arguments in Python, an unknown one is refused with the
nearest known. A data set that is named twice is opened once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydt.base import ConfigError, DataError, Short, as_path, one_of
from pydt.data import Dataset
from pydt.ensemble import Table, dataset_of, parsed, placed, run_settings, settings_of, target_of
from pydt.studies.sources import CAPTIONS, TEMPLATE, Mixture, Source
from pydt.studies.study import OF_MODES, PublicModel, Study
from pydt.training import Checkpoint, Recipe, Task

_TABLES = ("run", "study", "sources", "methods", "targets", "modes", "scratch", "checkpoints")
_OF_PLANS = ("source", "design", "recipe", "runner", "tasks")
_LISTS = ("sizes", "shots", "rates", "cells")
T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class StudyFile(Short):
    """The content of a study file.

    Attributes:
        study: what to compare.
        dir: folder of the store.
        workers, limit, same_code, keep, keep_bytes: as `run_study` takes them; None (False, "weights") if the file does
            not say.
    """

    study: Study
    dir: Path
    workers: int | None = None
    limit: float | None = None
    same_code: bool = False
    keep: str = "weights"
    keep_bytes: int | None = None


def read_study(path: str | os.PathLike[str]) -> StudyFile:
    """The study that a TOML file describes; see docs/studies.md for the format.

    Raises:
        ConfigError: no such file, no TOML, a plan, an unknown or missing key, or a value of another type.
        PydtError: raised by `Study`, `Source`, `Mixture`, `Target`, `Recipe`, ... with file and table.
    """
    place = as_path(path, "read_study", DataError)
    top = Table(parsed(place), str(place), "")
    if "study" not in top and any(name in top for name in _OF_PLANS):
        wrong = "is a plan, not a study: it has no table [study]"
        raise ConfigError(wrong, str(place), "`pydt plan FILE` says what it costs, `pydt run FILE` runs it")
    top.rest(_TABLES)  # a misspelt table is told before what it lacks
    how = run_settings(top.table("run", required=False), place, keep="weights")
    inner, folder, opened = top.table("study"), place.parent, Opened()
    given: dict[str, Any] = {name: inner.take(name, list) for name in _LISTS if name in inner}
    given |= {name: inner.take(name, int) for name in ("draws", "seeds", "seed") if name in inner}
    given["name"] = inner.take("name", str, place.stem)
    inner.rest(_LISTS)
    trains = "checkpoints" not in top or "sources" in top or "methods" in top
    given["sources"] = _sources(top.tables("sources"), folder, opened) if trains else {}
    given["methods"] = _named(top.tables("methods"), lambda table: settings_of(table, Recipe, folder)) if trains else {}
    given["targets"] = _named(top.tables("targets"), lambda table: target_of(table, folder, opened))
    if "modes" in top:
        given["modes"] = _named(top.tables("modes"), lambda table: _mode(table, folder))
    if "scratch" in top:
        given["scratch"] = settings_of(top.table("scratch"), Recipe, folder, method="none")
    if "checkpoints" in top:
        given["checkpoints"] = _named(top.tables("checkpoints"), lambda table: _public(table, folder))
    with placed(top.where()):
        return StudyFile(Study(**given), **how)


class Opened:
    """Opens data sets; one that equal tables name is opened once."""

    def __init__(self) -> None:
        self._known: dict[str, Dataset] = {}

    def __call__(self, table: Table, folder: Path, also: tuple[str, ...] = ()) -> Dataset:
        key = repr(sorted(table.values().items()))
        if key not in self._known:
            self._known[key] = dataset_of(table, folder, also)
        return self._known[key]


def _named(tables: list[Table], make: Callable[[Table], T]) -> dict[str, T]:
    """Values by the names of their tables."""
    found: dict[str, T] = {}
    for table in tables:
        name = table.take("name", str)
        _once(found, name, table)
        found[name] = make(table)
    return found


def _once(found: Mapping[str, Any], name: str, table: Table) -> None:
    if name in found:
        raise ConfigError(f"a second one is called {name!r}", table.where("name"), "give each its own name")


def _sources(tables: list[Table], folder: Path, opened: Opened) -> dict[str, Source | Mixture]:
    """Sources, then the mixtures of them, in the order of the file."""
    found: dict[str, Any] = {}
    mixtures = []
    for table in tables:
        if "mixture" in table:
            name = table.take("name", str)
            _once(found, name, table)
            found[name] = None  # keeps its place
            mixtures.append((name, table, table.take("mixture", dict)))
            table.finish()
            continue
        for name, source in _source(table, folder, opened):
            _once(found, name, table)
            found[name] = source
    plain = {name: source for name, source in found.items() if source is not None}
    for name, table, weights in mixtures:
        for part in weights:
            one_of(part, tuple(plain), "source", table.where("mixture"))
        with placed(table.where()):
            found[name] = Mixture({part: plain[part] for part in weights}, weights=weights)
    return found


def _source(table: Table, folder: Path, opened: Opened) -> Iterator[tuple[str, Source]]:
    """The source of a table; with `split` one for each group of this column, called as it."""
    column = table.take("split", str, None)
    name = table.take("name", str) if column is None else ""
    given = {"where": table.take("where", dict, {}), "noise": table.take("noise", float, 0.0)}
    given |= {"template": table.take("template", str, TEMPLATE), "classes": table.take("names", dict, {})}
    if table.values().get("captions") in CAPTIONS or not (
        "folder" in table or "images" in table
    ):  # there it may be a file
        given["captions"] = one_of(table.take("captions", str, "raw"), CAPTIONS, "captions", table.where())
    dataset = opened(table.left(), folder, ("mixture",))
    with placed(table.where()):
        if column is None:
            yield name, Source(dataset, **given)
            return
        for group in dataset.units(column)[1]:
            yield group, Source(dataset, **{**given, "where": {**given["where"], column: group}})


def _mode(table: Table, folder: Path) -> dict[str, Any]:
    """Settings of `Task` that the table gives."""
    given: dict[str, Any] = {}
    for field in fields(Task):
        if field.name in table and is_dataclass(field.default_factory):
            given[field.name] = settings_of(table.table(field.name), field.default_factory, folder)
    return table.rest(("mode", *OF_MODES)) | given


def _public(table: Table, folder: Path) -> PublicModel:
    """A public model; keys that `PublicModel` and `Recipe` both have are the former's."""
    weights, file = table.take("weights", str, ""), table.take("file", str, "")
    about = {"source": table.take("source", str), "images": table.take("images", int, None)}
    about |= {"method": table.take("method", str, "checkpoint"), "epochs": table.take("epochs", float, None)}
    with placed(table.where()):
        checkpoint = Checkpoint(weights, str(folder / file) if file else "")
    recipe = settings_of(table, Recipe, folder, method="checkpoint", checkpoint=checkpoint, epochs=None)
    with placed(table.where()):
        return PublicModel(recipe, **about)
