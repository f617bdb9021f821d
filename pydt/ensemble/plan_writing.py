"""Plans written to TOML files from which `read_plan` makes the same plan; data are saved beside the file."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from pydt import design as designs
from pydt.base import ConfigError, DataError, as_path, write_atomic
from pydt.data import Dataset, Groups, spool
from pydt.ensemble.plan import Plan
from pydt.ensemble.rates import ROWS, check_rates
from pydt.ensemble.runners import Command, Function
from pydt.store import HALVES, Measure

_HEADER = "# A plan of pydt: `pydt plan FILE` says what it costs, `pydt run FILE` runs and continues it.\n\n"


def write_plan(
    plan: Plan,
    path: str | os.PathLike[str],
    *,
    dir: str | None = None,
    name: str | None = None,
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
    are the masks of an explicit design, groups, ids, and what measures say of their examples.

    Args:
        plan: the plan.
        path: of the file.
        dir, name, workers, stop, limit, same_code, keep, keep_bytes: of its table [run].
        rates, rate_rows: of its table [rates]. A plan whose rates are chosen needs none: they stand in its tasks.

    Raises:
        ConfigError: the network or the recipe is a function, which no file can hold, or rates make no sense.
        StoreError: the file or the data cannot be written.
    """
    place = as_path(path, "write_plan", DataError, made=True)
    folder = place.parent / f"{place.stem}.data"
    own = isinstance(plan.recipe, Command)
    if isinstance(plan.recipe, Function):
        mend = "keep the plan in a script, or make the rows' code a program: recipe=pydt.Command([...])"
        raise ConfigError("is a function, which no file can hold", "Plan.recipe", mend)
    if not own and not isinstance(plan.recipe.network, str):
        raise ConfigError("the network is a function", "Recipe.network", "name a network, or keep the plan in a script")
    run = {"dir": dir, "name": name, "workers": workers, "stop": stop, "limit": limit, "same_code": same_code or None}
    run |= {"keep": None if keep == "none" else keep, "keep_bytes": keep_bytes}
    described: dict[str, Any] = {"by": plan.by, "seed": plan.seed}
    if isinstance(plan.source, Groups):
        del described["by"]  # it stands in the table of the source
    if plan.seeds is not None:
        described["seeds"] = list(plan.seeds)
    if run := _present(run):
        described["run"] = run
    save = _grouped if isinstance(plan.source, Groups) else _saved
    described["source"] = save(plan.source, folder, place.parent)
    described["design"] = _drawn(plan.design, folder, place.parent)
    described["runner" if own else "recipe"] = _changed(plan.recipe, place.parent)
    if own and described["runner"]["folder"] == ".":
        del described["runner"]["folder"]  # the default: that of the file

    def saved(data: Dataset | None) -> dict[str, str] | None:
        return None if data is None else _saved(data, folder, place.parent)

    described["tasks"] = [
        _measured(task, folder, place.parent)
        if isinstance(task, Measure)
        else _changed(
            task,
            place.parent,
            target=_changed(task.target, place.parent, train=saved(task.target.train), test=saved(task.target.test)),
        )
        for task in plan.tasks
    ]
    if len(rates):
        described["rates"] = {"grid": list(check_rates(plan, rates, rate_rows)), "rows": rate_rows}
    write_atomic(place, (_HEADER + tomli_w.dumps(described)).encode())


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != {}}


def _changed(made: Any, base: Path, **instead: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their default, as TOML types; paths relative to `base`."""
    found: dict[str, Any] = {}
    for field in fields(made):
        value = getattr(made, field.name)
        if field.name not in instead and value != field.default:
            table = dict(value) if isinstance(value, Mapping) or "table" in field.metadata else _listed(value)
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


def _grouped(source: Groups, folder: Path, base: Path) -> dict[str, Any]:
    """Groups by the name of each example's, or as the mapping that they were made of."""
    about: dict[str, Any] = {"name": source.name, "by": source.by, "digest": source.digest}
    names = [source.names[group] if group >= 0 else None for group in source.group.tolist()]
    try:
        alike = Groups(names, ids=source.ids).digest == source.digest
    except DataError:  # a mapping's names may differ by white space alone
        alike = False
    if alike:
        ids = None if source.ids is None else _entries("ids", source.ids, folder, base)
        return _present({"groups": _entries("groups", names, folder, base), "ids": ids} | about)
    members: dict[str, list[str]] = {name: [] for name in source.names}
    for one, name in zip(source.all_keys(), names, strict=True):
        members[str(name)].append(one)
    return {"groups": _json("groups", members, folder, base)} | about


def _measured(measure: Measure, folder: Path, base: Path) -> dict[str, Any]:
    """A measure; what it says of each example is in files, unless it is what `Measure` would say itself."""
    about = {"unit": measure.unit, "scale": measure.scale, "higher_is_better": measure.higher_is_better}
    defaults = Measure(measure.name)
    found: dict[str, Any] = {"measure": measure.name}
    found |= {name: value for name, value in about.items() if value != getattr(defaults, name)}
    how: dict[str, Any] = {"examples": measure.count if measure.ids is None else measure.ids}
    own = measure.examples()
    if measure.classes:
        how["classes"] = _classes(measure)
    if (own["half"] != Measure(measure.name, **how).examples()["half"]).any():
        how["half"] = [list(HALVES)[number] for number in own["half"].tolist()]
    if (own["weights"] != Measure(measure.name, **how).examples()["weights"]).any():
        how["weights"] = own["weights"]
    for name, value in how.items():
        found[name] = value if isinstance(value, int) else _entries(name, value, folder, base)
    return found


def _classes(measure: Measure) -> Any:
    """The class of each example, as texts or whole numbers: in both cases `Measure` sorts them as they are."""
    labels = measure.examples()["labels"][: measure.count]
    names = [measure.classes[label] for label in labels.tolist()]
    return names if list(measure.classes) == sorted(measure.classes) else np.array(list(map(int, names)))


def _entries(kind: str, values: Any, folder: Path, base: Path) -> str:
    """The name of a file with an entry for each example: .npy for an array, text, or JSON where lines cannot tell."""
    if isinstance(values, np.ndarray):
        return _file(kind, ".npy", _npy(values), folder, base)
    lines = ["" if value is None else value for value in values]
    broken = any("\n" in line or "\r" in line or line.startswith("\ufeff") for line in lines)
    if broken or (kind != "groups" and "" in lines):
        return _json(kind, list(values), folder, base)
    return _file(kind, ".txt", "".join(f"{line}\n" for line in lines).encode(), folder, base)


def _json(kind: str, values: Any, folder: Path, base: Path) -> str:
    return _file(kind, ".json", json.dumps(values, ensure_ascii=False).encode(), folder, base)


def _file(kind: str, ending: str, content: bytes, folder: Path, base: Path) -> str:
    """Write a file below the folder under a name that tells its content; returns its path from `base`."""
    path = folder / f"{kind}-{hashlib.sha256(content).hexdigest()[:32]}{ending}"
    write_atomic(path, content)
    return _relative(path, base)


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


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
    path = folder / f"masks-{design.digest}.npy"
    write_atomic(path, _npy(np.asarray(design)))
    return {"kind": design.kind, "masks": _relative(path, base)}
