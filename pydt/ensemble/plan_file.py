"""Plans as TOML files, to be written by hand and kept under version control.

    by = "class"                    # the partition of the source into groups
    seed = 0                        # key of the rows' training seeds

    [run]                           # changes here retrain nothing
    dir = "my-study"                # of the store, beside the file; default: the file's name
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

    [rates]                         # optional: `pydt run` first chooses the learning rate of tasks that have one
    grid = [0.003, 0.01, 0.03, 0.1]

Paths are relative to the file. Each table takes the arguments of its function or class under the same names; an unknown
key is refused with the nearest known one. The keys come from the registries of designs and containers and from the
fields of the settings classes: a new kind, container or setting needs no line here. Not cattrs: its hooks for places,
nearest names and missing keys would be as long as `toml_table.py` and `_settings`.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import tomli_w

from pydt import design as designs
from pydt.base import ConfigError, DataError, StoreError, as_path, open_npy, read, suggest, write_atomic
from pydt.data import READERS, Dataset, Target, read_container, spool
from pydt.data.samples import glyphs
from pydt.ensemble.keeping import checked_keep
from pydt.ensemble.plan import Plan
from pydt.ensemble.rates import ROWS, check_rates, chosen_rates
from pydt.ensemble.toml_table import TYPES, Table, parsed, placed
from pydt.estimation import StoppingRule

if TYPE_CHECKING:
    from pydt.training import Recipe, Task


_T = TypeVar("_T")
_HEADER = "# A plan of pydt: `pydt plan FILE` says what it costs, `pydt run FILE` runs and continues it.\n\n"
_MOST_WORKERS = 1 << 16
_SOURCES = {kind: reader.options for kind, reader in READERS.items()} | {"saved": (), "sample": ("each", "seed")}
_DIGITS = "digits"  # the sample that is a target; the others are scripts of pydt.data.samples.glyphs


@dataclass(frozen=True)
class PlanFile:
    """The content of a plan file.

    Attributes:
        plan: what to compute.
        dir: folder of the store.
        workers, stop, limit, same_code, keep, keep_bytes: as `pydt.run` takes them; None (False, "none") if the file
            does not say.
        rates, rate_rows: as `pydt.choose_rates` takes them; no rates if none are to be chosen.
    """

    plan: Plan
    dir: Path
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
    """The plan that a TOML file describes; see `pydt.ensemble.plan_file` for the format.

    Raises:
        ConfigError: no such file, no TOML, an unknown or missing key, or a value of another type.
        PydtError: raised by `Plan`, `Dataset`, `Target`, `Recipe`, `Task` or a design, with file and table.
    """
    place = as_path(path, "read_plan", DataError)
    top = Table(parsed(place), str(place), "")
    run = top.table("run", required=False)
    source = _dataset(top.table("source"), place.parent)
    by = top.take("by", str, "class")
    design = _design(top.table("design"), source, by, place.parent)
    recipe = _recipe(top.table("recipe", required=False), place.parent)
    tasks = tuple(_task(table, place.parent) for table in top.tables("tasks"))
    seeds, seed = top.take("seeds", list, None), top.take("seed", int, 0)
    stop = run.take("stop", str, None)
    with placed(run.where("stop")):
        StoppingRule.parse(stop)
    folder = run.take("dir", str, place.stem)
    if "\0" in folder or not folder:
        raise ConfigError(f"is {folder!r}", run.where("dir"), 'name a folder; "." is that of this file')
    workers, limit = run.take("workers", int, None), run.take("limit", float, None)
    if workers is not None and not 1 <= workers <= _MOST_WORKERS:
        raise ConfigError(f"is {workers}", run.where("workers"), "give the number of processes, or leave it out")
    if limit is not None and not 0 < limit < math.inf:
        raise ConfigError(f"is {limit}", run.where("limit"), "give the seconds that a row may take, or leave it out")
    same_code = run.take("same_code", bool, False)
    keep, keep_bytes = run.take("keep", str, "none"), run.take("keep_bytes", int, None)
    with placed(run.where()):
        checked_keep(keep, keep_bytes)
    run.finish()
    rates = top.table("rates", required=False, of="grid")
    grid, rate_rows = rates.take("grid", list, MISSING if "rates" in top else []), rates.take("rows", int, ROWS)
    rates.finish()
    top.finish()
    with placed(top.where()):
        plan = Plan(source, by, design=design, recipe=recipe, tasks=tasks, seeds=seeds, seed=seed)
    if "rates" in top:
        with placed(rates.where()):
            grid = check_rates(plan, grid, rate_rows)
    return PlanFile(
        plan, place.parent / folder, workers, stop, limit, same_code, keep, keep_bytes, tuple(grid), rate_rows
    )


def write_plan(
    plan: Plan,
    path: str | os.PathLike[str],
    *,
    dir: str | None = None,
    workers: int | None = None,
    stop: str | None = None,
    limit: float | None = None,
    same_code: bool = False,
    keep: str = "none",
    keep_bytes: int | None = None,
    rates: Sequence[float] = (),
    rate_rows: int = ROWS,
) -> None:
    """Write a plan to a TOML file from which `read_plan` makes the same plan, with the same digest.

    Data sets that are saved already are named by their folder; others are saved below "NAME.data" beside the file, as
    are the masks of an explicit design.

    Args:
        plan: the plan.
        path: of the file.
        dir, workers, stop, limit, same_code, keep, keep_bytes: of its table [run].
        rates, rate_rows: of its table [rates]. A plan whose rates are chosen needs none: they stand in its tasks.

    Raises:
        ConfigError: the network is a function, which no file can hold, or rates make no sense.
        StoreError: the file or the data cannot be written.
    """
    place = as_path(path, "write_plan", DataError, made=True)
    folder = place.parent / f"{place.stem}.data"
    if not isinstance(plan.recipe.network, str):
        raise ConfigError("the network is a function", "Recipe.network", "name a network, or keep the plan in a script")
    run = {"dir": dir, "workers": workers, "stop": stop, "limit": limit, "same_code": same_code or None}
    run |= {"keep": None if keep == "none" else keep, "keep_bytes": keep_bytes}
    described: dict[str, Any] = {"by": plan.by, "seed": plan.seed}
    if plan.seeds is not None:
        described["seeds"] = list(plan.seeds)
    if run := _present(run):
        described["run"] = run
    described["source"] = _saved(plan.source, folder, place.parent)
    described["design"] = _drawn(plan.design, folder, place.parent)
    described["recipe"] = _changed(plan.recipe, place.parent)

    def saved(data: Dataset | None) -> dict[str, str] | None:
        return None if data is None else _saved(data, folder, place.parent)

    described["tasks"] = [
        _changed(
            task,
            place.parent,
            target=_changed(task.target, place.parent, train=saved(task.target.train), test=saved(task.target.test)),
        )
        for task in plan.tasks
    ]
    if len(rates):
        described["rates"] = {"grid": list(check_rates(plan, rates, rate_rows)), "rows": rate_rows}
    write_atomic(place, (_HEADER + tomli_w.dumps(described)).encode())


# ---- reading -------------------------------------------------------------------------------------------------------


def _dataset(table: Table, folder: Path) -> Dataset:
    kinds = [kind for kind in sorted(_SOURCES) if kind in table]
    if len(kinds) != 1:
        table.rest((*_SOURCES, "digest")) if not kinds else None
        found = " and ".join(kinds) or "none"
        raise ConfigError(f"{found} given", table.where(), f"give one of: {', '.join(sorted(_SOURCES))}")
    kind, expected = kinds[0], table.take("digest", str, None)
    value = table.take(kind, str)
    given = table.rest(_SOURCES[kind])
    with placed(table.where("" if kind == "images" else kind)):  # labels and columns are files, too
        if kind == "saved":
            made = Dataset.open(folder / value)
        elif kind == "sample":
            made = _sample(value, given)
        else:
            # TOML has no word for nothing
            given |= {name: None for name in ("label", "caption") if given.get(name) is False}
            if kind == "folder" and isinstance(given.get("captions"), str):
                with placed("captions"):
                    given["captions"] = _captions(folder / given["captions"])
            made = read_container(kind, folder / value, **(_columns(given, folder) if kind == "images" else given))
    if expected is not None and made.digest != expected:
        wrong = f"holds the data {made.digest}, the plan is about {expected}"
        raise DataError(wrong, table.where(kind), "restore the data, or remove the digest to plan anew")
    return made


def _sample(name: str, given: dict[str, Any]) -> Dataset:
    if name != _DIGITS:
        return glyphs.source(name, **given)
    if given:
        raise ConfigError(f"{next(iter(given))} does not apply to {_DIGITS!r}", None, "remove it")
    return glyphs.digits().train


def _columns(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Options for arrays; those that name files are read."""
    if given.get("labels") is None:
        raise ConfigError("is missing", "labels", 'name a file beside it: labels = "labels.npy"')
    columns = given.get("columns", {})
    if not isinstance(columns, dict):
        raise ConfigError(f"is {columns!r}, not a table", "columns", 'name files: columns.style = "styles.npy"')

    def entries(value: Any) -> Any:
        return _column(folder / value) if isinstance(value, str) else value

    files = {name: entries(given[name]) for name in ("labels", "captions") if name in given}
    return given | files | {"columns": {name: entries(value) for name, value in columns.items()}}


def _column(path: Path) -> Any:
    """A file with an entry for each example: .npy, or text with one a line."""
    if path.suffix == ".npy":
        return open_npy(path)
    try:
        text = read(path).decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n")
        return text.split("\n") if text else []  # splitlines would also split at characters that a caption may have
    except (OSError, StoreError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read ({error})", str(path), "name a .npy file, or a UTF-8 text file") from error


def _captions(path: Path) -> dict[str, str]:
    """Captions by file: of a CSV file whose head has `file` and `caption`, or of lines "file<tab>caption"."""
    try:
        text = io.StringIO(read(path).decode("utf-8-sig"), newline="")
        if path.suffix.lower() == ".csv":
            head, *rows = [row for row in csv.reader(text, strict=True) if row] or [[]]
        else:
            head, rows = ["file", "caption"], [line.rstrip("\r\n").split("\t", 1) for line in text if line.strip()]
    except (OSError, StoreError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read ({error})", str(path), "name a UTF-8 file") from error
    if not {"file", "caption"} <= set(head):
        raise DataError(f"has the head {','.join(head)[:80]!r}", str(path), "begin it with a line: file,caption")
    file, caption, found = head.index("file"), head.index("caption"), {}
    for number, row in enumerate(rows, 1):
        if len(row) != len(head) or row[file] in found:
            wrong = f"names {row[file]!r} again" if len(row) == len(head) else f"has {len(row)} fields, not {len(head)}"
            mend = (
                "give each file once" if len(row) == len(head) else "quote captions with commas; no line without both"
            )
            raise DataError(f"entry {number} {wrong}", str(path), mend)
        found[row[file]] = row[caption]
    return found


def _design(table: Table, source: Dataset, by: str, folder: Path) -> designs.Design:
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

    return _settings(table, Recipe, folder)


def _task(table: Table, folder: Path) -> Task:
    from pydt.training import Task

    inner = table.table("target")
    table.take("name", str, "")
    train = _dataset(inner.table("train"), folder)
    test = _dataset(inner.table("test"), folder) if "test" in inner else None
    return _settings(table, Task, folder, target=_settings(inner, Target, folder, train=train, test=test))


def _settings(table: Table, make: Callable[..., _T], folder: Path, **given: Any) -> _T:
    """A dataclass from a table: its fields are the keys, fields that are dataclasses are tables in it, those with
    `metadata={"path": True}` are relative to the folder.
    """
    for field in fields(make):  # type: ignore[arg-type]
        if is_dataclass(field.default_factory):
            inner = table.table(field.name, required=False)
            for one in fields(field.default_factory):
                if type(one.default) in TYPES:
                    inner.take(one.name, type(one.default), None)
            given[field.name] = _settings(inner, field.default_factory, folder)
    names = tuple(field.name for field in fields(make) if field.name not in given)  # type: ignore[arg-type]
    given |= table.rest(names)
    for field in fields(make):  # type: ignore[arg-type]
        if "path" in field.metadata and given.get(field.name):
            given[field.name] = str(folder / given[field.name])
    with placed(table.where()):
        return make(**given)


# ---- writing -------------------------------------------------------------------------------------------------------


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != {}}


def _changed(made: Any, base: Path, **instead: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their default, as TOML types; paths relative to `base`."""
    found: dict[str, Any] = {}
    for field in fields(made):
        value = getattr(made, field.name)
        if field.name not in instead and value != field.default:
            table = dict(value) if "table" in field.metadata else _listed(value)
            found[field.name] = _changed(value, base) if is_dataclass(value) else table
            if "path" in field.metadata:
                found[field.name] = _relative(Path(value), base)
    return _present(found | instead)


def _listed(value: Any) -> Any:
    """Tuples as lists, all the way down; 1 stays 1 beside 0.5."""
    return [_listed(item) for item in value] if isinstance(value, (tuple, list)) else value


def _saved(dataset: Dataset, folder: Path, base: Path) -> dict[str, str]:
    stored = spool(dataset, folder)
    assert stored.folder is not None
    return {"saved": _relative(Path(stored.folder), base), "digest": dataset.digest}


def _relative(path: Path, base: Path) -> str:
    """Relative below the file's folder, so that both can be moved together; otherwise absolute."""
    path, base = path.resolve(), base.resolve()
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)


def _drawn(design: Any, folder: Path, base: Path) -> dict[str, Any]:
    described = {key: value for key, value in design.to_dict().items() if key != "groups"}
    arguments = designs.KINDS[design.kind].arguments
    if "alpha" not in arguments:
        described.pop("alpha", None)
    if "rows" in described:
        described["models"] = max(described["rows"]) + 1  # of the design from which the rows are taken
    if "masks" not in arguments:
        return described
    path, buffer = folder / f"masks-{design.digest}.npy", io.BytesIO()
    np.save(buffer, np.asarray(design), allow_pickle=False)
    write_atomic(path, buffer.getbuffer())
    return {"kind": design.kind, "masks": _relative(path, base)}
