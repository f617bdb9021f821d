"""What the tests of Ray and of Slurm share; needs neither."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from stub_rows import StubRecipe, StubTask, contents, log, parts, stub_row

import pydt.design
from pydt.data import Dataset, Groups, Target, send
from pydt.ensemble import Command, Context, Function, Part, Plan, RowInput, run, run_parts
from pydt.store import Measure, Row, Store


def results(folder: Path) -> dict[str, bytes]:
    """All of a store but the copy of the data, which knows when it was written."""
    return {name: data for name, data in contents(folder).items() if not name.startswith("data/")}


def real(source: Dataset, target: Target) -> Plan:
    from pydt.training import Recipe, Task

    recipe = Recipe(network="convnet-2", epochs=1, batch_size=32)
    task = Task(target, shots=3, draws=2)
    return Plan(source, design=pydt.design.design.random(8, 4, seed=1), recipe=recipe, tasks=[task])


def hide(data: Dataset) -> str:
    """Give a data set a path that only this process can follow, and return it."""
    opened = os.open(str(data.folder), os.O_RDONLY)
    place = f"/proc/self/fd/{fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 500)}"
    os.close(opened)
    object.__setattr__(data, "folder", place)
    return place


def equal_though_hidden(
    source: Dataset,
    target: Target,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    executor: ModuleType,
    there: Callable[[Plan, Path], None],
) -> None:
    """Real rows from nodes that do not see the data are those of this machine, and each data set comes once.

    Args:
        executor: the module that sends data sets.
        there: runs a plan on such nodes into `folder` / "there"; the path is that of their copies.
    """
    sent: list[str] = []
    run(real(source, target), folder / "here", workers=1, progress=False)
    saved = source.save(folder / "source"), target.spool(folder / "target")
    job, cache = real(*saved), folder / "cache"
    hidden = [hide(data) for data in (saved[0], saved[1].train)]

    def sending(place: str, stream: Any) -> None:
        sent.append(place)
        send(place, stream)

    monkeypatch.setattr(executor, "send", sending)
    there(job, cache)
    assert results(folder / "there") == results(folder / "here")
    assert sorted(sent) == sorted(hidden)
    assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == sorted(
        data.full_digest for data in (saved[0], saved[1].train)
    )


def own_row(row: RowInput) -> dict[str, float]:
    return {"loss": float(row.examples.sum()) + row.seed % 1000}


_SCRIPT = "def own(row):\n    return {'loss': step * float(row.examples.sum()) + row.seed % 1000}\n"
_PROGRAM = (
    "import sys; keep, seed, out = sys.argv[1:]\n"
    "print('{{\"loss\":', len(open(keep).read().split()) + int(seed) % 1000, '}}', file=open(out, 'w'))"
)


def equal_rows_of_ones_own(folder: Path, pool: Any) -> None:
    """Rows of a module's function, of one that no module has, and of a program are equal bytes here and on a pool."""
    space: dict[str, Any] = {"step": 2.0}
    exec(_SCRIPT, space)
    program = Command([sys.executable, "-c", _PROGRAM, "{keep}", "{seed}", "{out}"], out="json")
    for name, recipe in {"module": Function(own_row), "script": Function(space["own"]), "program": program}.items():
        source = Groups([f"g{i % 4}" for i in range(12)])
        design = pydt.design.design.bernoulli(4, 5, seed=1)
        job = Plan(source, design=design, recipe=recipe, tasks=[Measure("loss")])
        run(job, folder / f"{name} here", workers=1, progress=False)
        run(job, folder / f"{name} there", pool, progress=False)
        assert len(Store(folder / f"{name} there").finished()) == 5
        assert results(folder / f"{name} there") == results(folder / f"{name} here")


def hidden_parts(folder: Path, count: int) -> list[Part]:
    """Parts of one row each, whose sources other processes do not see."""
    found = []
    for seed in range(1, count + 1):
        images = np.full((8, 4, 4, 1), seed, np.uint8)
        data = Dataset.from_arrays(images, np.arange(8) % 4, name=f"source {seed}").save(folder / f"source {seed}")
        hide(data)
        found.append(Part(Context(data, "class", StubRecipe(), (StubTask(),)), (Row(np.ones(4), seed),)))
    return found


def processes(folder: Path) -> set[int]:
    """The processes that computed the rows of a store."""
    return {entry["pid"] for entry in log(folder) if entry["event"] == "row"}


def equal_real_parts(source: Dataset, target: Target, folder: Path, pool: Any) -> None:
    """Parts of other sources, recipes and tasks are the bytes of this machine, from workers that serve all of them."""
    from pydt.training import Recipe, Task

    recipe = Recipe(network="convnet-2", epochs=1, batch_size=32)
    few, many = Task(target, shots=1, draws=2, name="few"), Task(target, shots=3, draws=2, name="many")
    own = (
        Context(source, "class", recipe, (few, many)),
        Context(source.sample(100), "class", Recipe(network="convnet-2", epochs=2, batch_size=32), (few, many)),
        Context(source.sample(60, seed=1), "class", recipe, (many,)),
    )
    asked = [Part(context, tuple(Row(np.ones(8), seed) for seed in (1, 2))) for context in own]
    run_parts(asked, folder / "here", workers=1, progress=False)
    run_parts(asked, folder / "there", pool, progress=False)
    assert results(folder / "there") == results(folder / "here")
    assert len(processes(folder / "there")) <= pool._max_workers


def workers_of_parts(folder: Path, pool: Any, count: int) -> tuple[int, int]:
    """How many processes computed so many equal parts, without a death and with one in the middle."""
    run_parts(parts(count), folder / "here", workers=1, runner=stub_row, progress=False)
    run_parts(parts(count), folder / "there", pool, runner=stub_row, progress=False)
    dying = parts(count, what="die once", folder=str(folder))
    run_parts(dying, folder / "dying", pool, runner=stub_row, progress=False)
    assert contents(folder / "there") == contents(folder / "here") == contents(folder / "dying")
    died = [(entry["part"], entry["reason"]) for entry in log(folder / "dying") if entry["event"] == "worker died"]
    assert died == [("part 9", "exit status -9")]
    before, after = processes(folder / "there"), processes(folder / "dying")
    return len(before), len(after - before)
