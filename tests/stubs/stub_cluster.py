"""What the tests of Ray and of Slurm share; needs neither."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stub_rows import contents

import pydt.design
from pydt.data import Dataset, Target
from pydt.data import replica as copies
from pydt.ensemble import Plan, run


def results(folder: Path) -> dict[str, bytes]:
    """All of a store but the copy of the data, which knows when it was written."""
    return {name: data for name, data in contents(folder).items() if not name.startswith("data/")}


def real(source: Dataset, target: Target) -> Plan:
    from pydt.training import Recipe, Task

    recipe = Recipe(network="convnet-2", epochs=1, batch_size=32)
    task = Task(target, shots=3, draws=2)
    return Plan(source, design=pydt.design.design.random(8, 4, seed=1), recipe=recipe, tasks=[task])


def equal_though_hidden(
    source: Dataset,
    target: Target,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: Callable[[Plan, Path], None],
) -> None:
    """Real rows from nodes that do not see the data are those of this machine, and each data set comes once.

    Args:
        there: runs a plan on such nodes into `folder` / "there"; the path is that of their copies.
    """
    sent: list[str] = []
    run(real(source, target), folder / "here", workers=1, progress=False)
    saved = source.save(folder / "source"), target.spool(folder / "target")
    job, cache = real(*saved), folder / "cache"
    for data in (saved[0], saved[1].train):
        object.__setattr__(data, "folder", f"/elsewhere{data.folder}")  # as only the driver sees it
    send, opened = copies.send, copies.open_folder

    def sending(place: str, stream: Any) -> None:
        sent.append(place.removeprefix("/elsewhere"))
        send(sent[-1], stream)

    monkeypatch.setattr(copies, "send", sending)
    monkeypatch.setattr(copies, "open_folder", lambda place, *more: opened(place.removeprefix("/elsewhere"), *more))
    there(job, cache)
    assert results(folder / "there") == results(folder / "here")
    assert sorted(sent) == [str(folder / "source"), str(next((folder / "target").iterdir()))]
    assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == sorted(
        data.full_digest for data in (saved[0], saved[1].train)
    )
