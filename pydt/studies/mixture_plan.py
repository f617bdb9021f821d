"""Groups that are whole sources: an ensemble on mixtures of a study's sources, in the study's store.

A row trains on the images of some of the sources together, each source its sample of the study's first seed. Masks are
a foldover design: up to five sources every mixture but the empty and the full one, equally often in each block. A row's
recipe and tasks are those of the study, so the two answers differ in nothing but what else was trained on.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from pydt.base import ConfigError, StoreError, one_of, whole
from pydt.data import Dataset
from pydt.design import foldover
from pydt.ensemble import Cost, Plan, cost
from pydt.store import Store
from pydt.studies.running import tasks_with_rates
from pydt.studies.sources import Source, as_source, refuse_shared
from pydt.studies.study import Study
from pydt.training import Task

MODELS = 64
"""Rows of an ensemble on mixtures that names no number."""
_FEWEST = 3  # sources: of two, one row in three would hold both and the others are the study's own
_PER_SOURCE = 4  # rows, at least


def mixture_plan(
    study: Study,
    store: Store | str | os.PathLike[str] | None = None,
    *,
    method: str | None = None,
    size: int | None = None,
    models: int = MODELS,
    seed: int | None = None,
) -> Plan:
    """The plan of an ensemble on mixtures of a study's sources: `pydt.run(plan, store)` trains it.

    Args:
        study: with three sources or more that share no image.
        store: of the study; needed where the study chooses learning rates.
        method: of the study; by default its first.
        size: images of each source, one of the study's sizes; by default the largest that all sources have by this
            method. A mixture of two sources has twice as many.
        models: rows, four a source at least.
        seed: of masks and trainings; by default the study's.

    Returns:
        a plan whose source is the sources' samples of the study's first seed, by="source". Its tasks are those of the
        study for this method; each learning rate is the median of those chosen for the sources, of two the lower.

    Raises:
        ConfigError: fewer than three sources, sources that share images, no or an unknown method, an unknown size or
            one that not all sources have, too few models.
        DataError: the sources are not of one kind or shape.
        StoreError: the store holds no choice of learning rates yet.
    """
    own = arms_of(study, method, size)
    if own.rates and store is None:
        mend = "give the store of the study: mixture_plan(study, store)"
        raise ConfigError("the study's learning rates are in its store", "mixture_plan", mend)
    tasks = own.tasks(own.arms[0]) if store is None else _rated(own, store)
    return _made(own, tasks, models, seed)


def mixture_cost(
    study: Study,
    dir: str | os.PathLike[str],
    *,
    method: str | None = None,
    size: int | None = None,
    models: int = MODELS,
    workers: int | None = None,
    price: float | None = None,
) -> Cost:
    """What `mixture_plan` will cost, as `pydt.cost` says it; nothing is written to `dir`. Arguments and errors are
    those of both. Where learning rates are not chosen yet, those of the modes' settings cost as much.
    """
    own = arms_of(study, method, size)
    try:
        tasks = _rated(own, dir)
    except StoreError:
        tasks = own.tasks(own.arms[0])
    return cost(_made(own, tasks, models, None), dir, workers=workers, price=price)


def arms_of(study: Study, method: str | None = None, size: int | None = None) -> Study:
    """The study of one method and one size alone, an arm for each source: its rows are rows of the study.

    Raises:
        ConfigError: see `mixture_plan`.
    """
    where = "mixture_plan"
    if not isinstance(study, Study):
        raise ConfigError(f"is a {type(study).__name__}", f"{where}, study", "pydt.read_study(FILE).study reads one")
    if len(study.sources) < _FEWEST:
        mend = "add sources to the study; of two, `pydt study` itself compares one with the other"
        raise ConfigError(f"{len(study.sources)} of at least {_FEWEST} sources", where, mend)
    if not study.methods:
        raise ConfigError("the study trains nothing", where, "give it methods")
    method = one_of(method or next(iter(study.methods)), tuple(study.methods), "method", where)
    have = {(arm.size, arm.source) for arm in study.arms if arm.kind == "trained" and arm.method == method}
    full = [n for n in study.sizes if all((n, name) in have for name in study.sources)]
    if size is not None and size not in study.sizes:
        raise ConfigError(f"size {size!r}", where, f"choose one of the study's: {', '.join(map(str, study.sizes))}")
    if not full or (size is not None and size not in full):
        n = study.sizes[-1] if size is None else size
        lacks = next(name for name in study.sources if (n, name) not in have)
        mend = "choose another size or method, or add the arm to the study's cells"
        raise ConfigError(f"source {lacks!r} has no arm of {n:,} images by {method!r}", where, mend)
    parts: dict[str, Any] = {}
    for name, source in study.sources.items():
        if isinstance(source, Source):
            parts[name] = source
        else:
            parts |= {f"{name}: {part}": as_source(of) for part, of in source.sources.items()}
    refuse_shared(parts, where)
    size = full[-1] if size is None else size
    cells = [(name, size, method) for name in study.sources]
    return replace(
        study, methods={method: study.methods[method]}, sizes=(size,), cells=cells, scratch=None, checkpoints={}
    )


def _rated(own: Study, store: Store | str | os.PathLike[str]) -> tuple[Task, ...]:
    """The tasks at the median of the rates that were chosen for the sources, of two the lower."""
    folder = store.folder if isinstance(store, Store) else store
    each = [tasks_with_rates(own, folder, arm) for arm in own.arms]
    found = []
    for alike in zip(*each, strict=True):
        rates = sorted(task.rate for task in alike if task.rate is not None)
        found.append(alike[0].at(rates[(len(rates) - 1) // 2]) if rates else alike[0])
    return tuple(found)


def _made(own: Study, tasks: tuple[Task, ...], models: int, seed: int | None) -> Plan:
    names = tuple(own.sources)
    models = whole(models, "models", "mixture_plan", _PER_SOURCE * len(names), error=ConfigError)
    seed = own.seed if seed is None else whole(seed, "seed", "mixture_plan", error=ConfigError)
    source = Dataset.concat([own.part(arm, 0).context.source for arm in own.arms], names)
    design = foldover(len(names), models, seed)
    return Plan(source, "source", design=design, recipe=own.arms[0].recipe, tasks=tasks, seed=seed)
