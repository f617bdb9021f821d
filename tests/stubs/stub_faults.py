"""Jobs that write a store, and what makes the n-th of their system calls fail, or the process die at it.

`python -c "import stub_faults; stub_faults.main()" FOLDER JOB` kills a job at every call, one process each, and checks
what is left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from stub_rows import GROUPS, StubRecipe, StubSource, StubTask, stub_row
from stub_store import computed, contents

from pydt import design
from pydt.ensemble import Plan, run
from pydt.store import Store, compact, merge

CALLS = ("open", "write", "fsync", "replace", "mkdir", "unlink", "rmdir")
ROWS = 3


def plan(rows: int = ROWS) -> Plan:
    drawn = design.bernoulli(GROUPS, rows, seed=1)
    return Plan(StubSource(), design=drawn, recipe=StubRecipe(), tasks=(StubTask(),), seed=1)


def rows(folder: Path) -> None:
    """What a driver writes: the lock, the descriptions, the rows, the log."""
    with Store.create(folder / "store").writing() as store:
        computed(store.folder, plan(), [0, 1])
        store.log(event="row")


def train(folder: Path) -> None:
    """A whole run."""
    with ThreadPoolExecutor(1) as threads:
        run(plan(), folder / "store", threads, runner=stub_row, progress=False)


def stop(folder: Path) -> None:
    Store.create(folder / "store").note_stop(None, {"rows": 2, "rule": "sign 1"})


JOBS: dict[str, Callable[[Path], Any]] = {
    "rows": rows,
    "train": train,
    "compact": lambda folder: compact(folder / "store", fewest=2),
    "merge": lambda folder: merge(folder / "store", folder / "other", folder / "third"),
    "stop": stop,
}


def prepare(folder: Path, job: str) -> None:
    """What a job finds."""
    template = folder.parent / "template"
    if not template.exists():
        template.mkdir(parents=True)
        with calls(lambda number, name: None):
            _prepare(template, job)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)


def _prepare(folder: Path, job: str) -> None:
    if job in ("compact", "stop"):
        computed(folder / "store", plan())
    if job == "compact":  # a block with a damaged row, and rows that came later
        compact(folder / "store", fewest=2)
        (block,) = (folder / "store" / "packed").iterdir()
        with open(block / "primitives.npy", "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\xff")
        Store(folder / "store").check()
        computed(folder / "store", plan(ROWS + 2))
    if job == "merge":
        computed(folder / "store", plan(), [0])
        computed(folder / "other", plan(), [0, 1])
        computed(folder / "third", plan(), [2]).note_stop(None, {"rows": 3})


@contextlib.contextmanager
def calls(act: Callable[[int, str], Any]) -> Iterator[list[int]]:
    """Count the calls; before each one `act(number, name)` may raise, exit, or say that a write is to be a short one.

    Nothing is really synced: no test pulls the plug.
    """
    reals, count = {name: getattr(os, name) for name in CALLS}, [0]

    def make(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            count[0] += 1
            short = act(count[0], name)
            if name == "fsync":
                return None
            if name == "write" and short:
                arguments = (arguments[0], arguments[1][: len(arguments[1]) // 2 or 1])
            return reals[name](*arguments, **named)

        return call

    for name in CALLS:
        setattr(os, name, make(name))
    try:
        yield count
    finally:
        for name, real in reals.items():
            setattr(os, name, real)


def left(folder: Path) -> dict[str, bytes]:
    """What a job leaves, but for what was put aside (under the time of day) and the log."""
    return {name: data for name, data in contents(folder).items() if "quarantine/" not in name}


def readable(folder: Path, job: str, expected: dict[str, np.ndarray]) -> None:
    """After whatever happened: every row that is there is what it should be, and none that was there is gone."""
    if not (folder / "store" / "store.json").exists():
        assert job in ("rows", "train")
        return
    store = Store(folder / "store")
    assert not [path for path in (folder / "store").glob("quarantine/*") if path.suffix == ".safetensors"]
    for record in store.plans().values():
        for keys in record.keys:
            if store.done(keys[0]):
                np.testing.assert_array_equal(store.get(keys[0]).arrays["primitives"], expected[keys[0]])
            else:
                assert job in ("rows", "train", "merge")
        if job == "merge":
            assert store.done(record.keys[0][0])


def values(folder: Path) -> dict[str, np.ndarray]:
    store = Store(folder / "store")
    cells = [keys[0] for record in store.plans().values() for keys in record.keys]
    return {key: store.get(key).arrays["primitives"] for key in cells if store.done(key)}


def main() -> None:
    """Kill a job at each of its calls (a write half done, too), look, finish it, compare."""
    folder, job = Path(sys.argv[1]), sys.argv[2]
    prepare(folder / "whole", job)
    with calls(lambda number, name: None) as count:
        JOBS[job](folder / "whole")
    expected, whole = values(folder / "whole"), left(folder / "whole")
    for fatal in range(1, count[0] + 1):
        here = folder / "killed"
        prepare(here, job)

        def die(number: int, name: str, fatal: int = fatal) -> bool:
            if number > fatal or (number == fatal and name != "write"):
                os._exit(9)
            return number == fatal  # half of a write comes through

        child = os.fork()
        if child == 0:
            with calls(die):
                JOBS[job](here)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in ((9, 0) if fatal == count[0] else (9,))
        readable(here, job, expected)
        with calls(lambda number, name: None):
            JOBS[job](here)
        assert left(here) == whole, f"killed at call {fatal}"
    print(count[0])
