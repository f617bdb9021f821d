"""What a run sends to its workers: runner and context of each part as bytes, with all data in files."""

from __future__ import annotations

import contextlib
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydt.base import ConfigError, PydtError
from pydt.data import Dataset, Target, spool
from pydt.ensemble.executors.pickling import pack
from pydt.ensemble.row import Context, Runner


class Sending:
    """Packs the contexts of a run. What is in memory is written to files and travels as a path; equal data sets,
    targets and tasks of many contexts are written once.

    Args:
        runner: of all rows.
        folder: for data in memory.
        here: rows are computed in threads of this process.
    """

    def __init__(self, runner: Runner, folder: Path, here: bool) -> None:
        self._runner, self._folder, self._here = runner, folder, here
        self._sources: dict[str, Dataset] = {}  # by full digest
        self._targets: dict[tuple[str, ...], Target] = {}
        self._tasks: dict[int, tuple[Any, Any]] = {}  # by id, of tasks that are held here

    def parcel(self, context: Context, name: str = "") -> bytes:
        """Runner and context as bytes.

        Raises:
            ConfigError: they cannot be pickled.
        """
        shared = self._runner, self.spooled(context)
        try:
            if self._here:  # what stays in this process keeps its functions, if modules have them by name
                with contextlib.suppress(Exception):
                    return pickle.dumps(shared)
            return pack(shared)
        except PydtError:
            raise
        except Exception as error:
            wrong = f"runner, source, recipe or task cannot be sent to a worker ({error})"
            mend = "use functions and classes that a module defines at its top"
            raise ConfigError(wrong, name or "run", mend) from error

    def spooled(self, context: Context) -> Context:
        """The same context with all data in files."""
        source = self._source(context.source) if isinstance(context.source, Dataset) else context.source
        return Context(source, context.by, context.recipe, tuple(map(self._task, context.tasks)))

    def _source(self, data: Dataset) -> Dataset:
        if data.saved is not None:
            return data
        if data.full_digest not in self._sources:
            self._sources[data.full_digest] = spool(data, self._folder)
        return self._sources[data.full_digest]

    def _task(self, task: Any) -> Any:
        if not isinstance(target := getattr(task, "target", None), Target):
            return task
        if id(task) not in self._tasks:
            key = (
                type(target).__name__,
                target.digest,
                *(d.full_digest for d in (target.train, target.test) if d is not None),
            )
            if key not in self._targets:
                self._targets[key] = target.spool(self._folder)
            self._tasks[id(task)] = task, replace(task, target=self._targets[key])
        return self._tasks[id(task)][1]
