"""Stores of made-up cells, without any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from stub_rows import GROUPS, StubRecipe, StubSource, StubTask, outcome

from pydt import design
from pydt.base import encode
from pydt.design import Design
from pydt.ensemble import Plan
from pydt.store import Drawn, Outcome, Record, Row, Store, encoded_draws

KEY = "ab" + 30 * "0"
OTHER = "cd" + 30 * "1"
GOOD = Outcome({"primitives": np.arange(24, dtype=np.float32).reshape(4, 2, 3)}, {"accuracy": 0.5, "epochs": 3})
METADATA = {"seed": 1, "code": "x"}


def logits(seed: int, draws: int = 3, examples: int = 10, classes: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (draws, examples, classes))


def primitives(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The four primitives of float (draws, examples, classes), the slow way."""
    out = np.empty((4, *values.shape[:2]), np.float32)
    for d, i in np.ndindex(values.shape[:2]):
        others = np.delete(values[d, i], labels[i])
        row = values[d, i, labels[i]], others.max(), np.log(np.exp(others).sum()), values[d, i].argmax()
        out[:, d, i] = row
    return out


def record(rows: list[Row], tasks: tuple[str, ...] = ("t",), design: bool = False) -> Record:
    """A plan of some rows: a list of them, or those of a design that has their masks."""
    plain = tuple({"digest": name, "name": f"task {name}", "target": "g", "settings": {}} for name in tasks)
    names = tuple(f"unit {i}" for i in range(rows[0].groups))
    drawn = Design.explicit([row.mask for row in rows]).to_dict() if design else None
    return Record(
        "design" if design else "rows",
        "source",
        {"name": "s", "examples": 9},
        "units",
        "class",
        names,
        "recipe",
        {"lr": 0.1},
        plain,
        drawn,
        0,
        tuple(rows) if drawn is None else Drawn(drawn, [row.seed for row in rows], 0),
    )


def filled(folder: Path, models: int, failures: tuple[int, ...] = (), tasks: tuple[str, ...] = ("t",)) -> Store:
    """A store with a plan of random rows; model i's logits come from seed i (task t) or 1000 + i (others)."""
    random = np.random.default_rng(5)
    plan = record([Row(random.random(11) < 0.5, i, "design") for i in range(models)], tasks, design=True)
    store = Store.create(folder)
    store.put_plan(plan)
    labels = np.arange(10) % 4
    half = np.array([0, 1, 1, 0, 0, 1, 0, 1, 1, 1], np.uint8)
    for column, task in enumerate(tasks):
        store.put_task(task, {"labels": labels, "half": half, "ids": np.arange(10) + 50})
        for i, keys in enumerate(plan.keys):
            if i in failures:
                outcome = Outcome(status="failed", reason=f"loss of {i}")
            else:
                outcome = Outcome({"primitives": primitives(logits(i + 1000 * column), labels)}, {"n": i})
            store.put(keys[column], outcome, METADATA)
    return store


def computed(folder: Path, plan: Plan, rows: Any = None, failures: tuple[int, ...] = ()) -> Store:
    """A store with some rows of a stub plan (None: all), as a driver would have written them."""
    store, asked = Store.create(folder), plan.record()
    for task in plan.tasks:
        store.put_task(task.digest, {**task.examples(), **encoded_draws(*task.drawn())})
    store.put_plan(asked)
    for i in range(len(asked.rows)) if rows is None else rows:
        row = asked.rows[i]
        for column, task in enumerate(plan.tasks):
            given = outcome(plan.context, row, task)  # type: ignore[arg-type]
            given = Outcome(status="failed", reason=f"loss of {i}") if i in failures else given
            about = {"source": asked.source, "units": asked.units, "recipe": asked.recipe, "training": asked.sources[i]}
            facts = {"code": "0.1.0+0123", "torch": "2.9"}
            about |= {**asked.named(i), "groups": row.groups, "seed": row.seed, "task": task.digest, **facts}
            store.put(asked.keys[i][column], given, about)
    return Store(folder, asked.digest)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for the log."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "log.jsonl"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def choice(**changes: Any) -> dict[str, Any]:
    """A choice of two learning rates, of the form that a store keeps."""
    digests = {name: f"{i:032x}" for i, name in enumerate(("question", "task", "target", "source", "units", "recipe"))}
    tried = {"failed": 0, "loss": 1.5, "stderr": 0.1, "accuracy": 0.5, "accuracy_stderr": 0.02}
    tried |= {"behind": 0.0, "behind_stderr": 0.0}
    failed = dict.fromkeys(tried, None) | {"failed": 1}
    grid = [{"rate": 0.01, "trial": "a" * 32, **tried}, {"rate": 0.1, "trial": "b" * 32, **failed}]
    counts = {"images": 20, "rows": 4, "draws": 3}
    return {**digests, **counts, "name": "tuned", "trainings": ["c" * 32], "chosen": 0.01, "grid": grid, **changes}


TASKS = (StubTask(), StubTask("letters"))


def two_tasks(rows: int = 12, seed: int = 0, tasks: Any = TASKS, **more: Any) -> Plan:
    """A plan of rows that are seen through two tasks."""
    drawn = more.pop("design", None) or design.bernoulli(GROUPS, rows, seed=seed)
    return Plan(StubSource(), design=drawn, recipe=StubRecipe(), tasks=tasks, **more)


def flip(path: Path, place: int) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 8
    path.write_bytes(data)


def store_wrong(store: Store, key: str, **changes: Any) -> None:
    """Store something under a key that no driver would, with a checksum that holds."""
    outcome, metadata = store.read(key)
    metadata |= {name: value for name, value in changes.items() if name != "arrays"}
    arrays = {**outcome.arrays, **changes.get("arrays", {})}
    store.path(key).write_bytes(encode(arrays, metadata))
