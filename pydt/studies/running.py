"""Running a study: learning rates first, then every row that its store lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from pydt.base import StoreError, one_of
from pydt.ensemble import (
    Part,
    PartsCost,
    RatesOfPart,
    Runner,
    check_code,
    choose_rates_of,
    chosen_rates_of,
    cost_of,
    run_parts,
    run_row,
)
from pydt.store import KEEP, Store
from pydt.studies.study import Arm, Study
from pydt.training import Task


def run_study(
    study: Study,
    dir: str | os.PathLike[str],
    executor: Executor | None = None,
    *,
    workers: int | None = None,
    runner: Runner = run_row,
    progress: bool | str = True,
    limit: float | None = None,
    same_code: bool = False,
    keep: str = "weights",
    keep_bytes: int | None = None,
) -> Store:
    """Run the rows of a study that a store lacks; where it has a grid of learning rates, choose them first.

    Args:
        study: what to run.
        dir: folder of the store, made if needed.
        executor, workers, runner, progress, limit, same_code, keep_bytes: as in `pydt.run`.
        keep: as in `pydt.run`, but "weights" by default: a target, shots or a rate added later train no source.

    Raises:
        PydtError: as `pydt.run` and `pydt.choose_rates`.
    """
    one_of(keep, KEEP, "keep", "run_study")
    more: dict[str, Any] = {"workers": workers, "runner": runner, "progress": progress, "limit": limit}
    more |= {"keep_bytes": keep_bytes, "same_code": same_code}
    if same_code:  # of rows, too, before rates of new arms are tried
        check_code(_parts_so_far(study, dir), dir)
    if study.rates:
        _choose_rates(study, dir, executor, **more)
    return run_parts(tuple(_rated(study, dir)), dir, executor, keep=keep if runner is run_row else "none", **more)


def study_cost(
    study: Study,
    dir: str | os.PathLike[str],
    *,
    workers: int | None = None,
    price: float | None = None,
    keep: str = "weights",
) -> PartsCost:
    """Estimate what `run_study` will cost for the rows and trials that a store lacks.

    Args:
        study, dir, workers, keep: as in `run_study`; nothing is written to `dir`.
        price: of an hour of the whole machine, in any currency.

    Raises:
        PydtError: what a pilot row raises, and as `pydt.ensemble.cost_of`.
    """
    parts = _parts_so_far(study, dir)
    tried = [study.part(arm, 0) for arm in _with_a_rate(study)] if study.rates else []
    return cost_of(parts, dir, workers=workers, price=price, keep=keep, tried=tried, rates=study.rates)


def study_parts(study: Study, dir: str | os.PathLike[str]) -> tuple[Part, ...]:
    """The parts of a study with the learning rates that its store has chosen.

    Raises:
        StoreError: they are not chosen yet.
    """
    return tuple(_rated(study, dir))


def tasks_with_rates(study: Study, dir: str | os.PathLike[str], arm: Arm) -> tuple[Task, ...]:
    """The tasks of an arm with their chosen rates; raises as `study_parts`."""
    choice = choice_of(study, dir, arm)
    return study.tasks(arm) if choice is None else choice.tasks


def choice_of(study: Study, dir: str | os.PathLike[str], arm: Arm, seeds: int | None = None) -> RatesOfPart | None:
    """How the rates of an arm were chosen; None where there is nothing to choose. Raises as `study_parts`.

    Args:
        seeds: by so many first seeds at most; None: all. A later one counts where no rate worked with those before.
    """
    if not study.rates or all(task.rate is None for task in study.tasks(arm)):
        return None
    choice = None
    for seed in range(study.seeds if seeds is None else seeds):
        found = chosen_rates_of([study.part(arm, seed)], dir, study.rates)[0]
        if found is None:
            wrong = f"holds no choice of the learning rates of {arm.name}"
            raise StoreError(wrong, str(Path(dir)), "`pydt study FILE` chooses them, and runs the rows")
        choice = found if choice is None else _completed(choice, found)
        if not choice.undecided:
            break
    return choice


def _with_a_rate(study: Study) -> list[Arm]:
    """The arms of which something is to be chosen."""
    return [arm for arm in study.arms if any(task.rate is not None for task in study.tasks(arm))]


def _choose_rates(study: Study, dir: str | os.PathLike[str], executor: Executor | None, **more: Any) -> None:
    """Choose the rates of every arm on its first seed; where no rate works there, on the next."""
    arms = _with_a_rate(study)
    for seed in range(study.seeds):
        choose_rates_of([study.part(arm, seed) for arm in arms], dir, study.rates, executor, **more)
        choices = [choice_of(study, dir, arm, seed + 1) for arm in arms]
        arms = [arm for arm, one in zip(arms, choices, strict=True) if one is not None and one.undecided]
        if not arms:
            break


def _completed(first: RatesOfPart, second: RatesOfPart) -> RatesOfPart:
    """A choice with what it left undecided from another seed of the arm, whose notes follow."""
    taken = set(first.undecided) - set(second.undecided)
    if not taken:
        return first
    tasks = tuple(b if b.name in taken else a for a, b in zip(first.tasks, second.tasks, strict=True))
    table = tuple(b if b.task in taken else a for a, b in zip(first.table, second.table, strict=True))
    return RatesOfPart(tasks, table, first.notes + second.notes)


def _parts_so_far(study: Study, dir: str | os.PathLike[str]) -> list[Part]:
    """The parts with the rates that are chosen; those of other arms with the rates of the modes' settings."""
    tasks = {}
    for arm in study.arms:
        try:
            tasks[arm.name] = tasks_with_rates(study, dir, arm)
        except StoreError:  # not chosen yet
            tasks[arm.name] = study.tasks(arm)
    return [study.part(arm, seed, tasks[arm.name]) for seed in range(study.seeds) for arm in study.arms]


def _rated(study: Study, dir: str | os.PathLike[str]) -> Iterator[Part]:
    tasks = {arm.name: tasks_with_rates(study, dir, arm) for arm in study.arms}
    for seed in range(study.seeds):
        for arm in study.arms:
            yield study.part(arm, seed, tasks[arm.name])
