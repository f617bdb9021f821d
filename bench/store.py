"""A big store: how fast it opens, is checked and read, before and after compaction, and what planning a huge ensemble
takes: `python bench/store.py [PART ...] --json FILE`.

Seconds of processor time from a warm cache, which other jobs of the machine disturb least. Parts `small` and `large`:
10,000 made-up rows of 2 KB and of 150 KB (the quickstart's), each call in a store that was just opened; medians of the
repeats; outputs after compaction are checked to be those before, bit by bit. Part `plan`: a process of its own that
plans 70,000 rows over 1.28 million groups, peak memory. Part `driver`: resuming a store of 1,000 and of 10,000 rows
that lack one, each in a process of its own: seconds until that row is handed out, and peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from pydt import design
from pydt.base import digest
from pydt.ensemble import Plan, RowInput, run
from pydt.store import Outcome, Store, compact, status, verify

ROWS, GROUPS = 10_000, 62
SIZES = {"small": (3, 40), "large": (8, 1197)}  # draws, examples
Case = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """Examples in groups of equal size; nothing else of them matters here."""

    groups: int
    name: str = "made up"

    @property
    def digest(self) -> str:
        return digest("source", self.name, self.groups)

    def __len__(self) -> int:
        return self.groups

    def units(self, by: str) -> tuple[np.ndarray, tuple[str, ...]]:
        return np.arange(self.groups), tuple(f"n{i:08d}" for i in range(self.groups))

    def thumbnails(self, by: str, each: int) -> dict[str, np.ndarray]:
        return {}


@dataclass(frozen=True)
class Target:
    examples: int

    @property
    def digest(self) -> str:
        return digest("target", self.examples)

    def described(self) -> dict[str, np.ndarray]:
        ids = np.arange(self.examples)
        weights = np.full(self.examples, 2 / self.examples)
        return {"half": (ids % 2).astype(np.uint8), "labels": ids % 10, "ids": ids, "weights": weights}


@dataclass(frozen=True)
class Task:
    target: Target
    name: str = "digits"

    @property
    def digest(self) -> str:
        return digest("task", self.target.digest)

    def described(self) -> dict[str, Any]:
        return {"shots": 5}


@dataclass(frozen=True)
class Recipe:
    threads: int = 1
    device: str = "cpu"
    digest: str = field(default=digest("recipe"))

    def described(self) -> dict[str, Any]:
        return {"threads": 1}


def plan(rows: int, size: str, groups: int = GROUPS) -> Plan:
    task = Task(Target(SIZES[size][1]))
    drawn = design.random(groups, rows, alpha=0.25)
    return Plan(Source(groups), by="class", design=drawn, recipe=Recipe(), tasks=(task,))  # type: ignore[arg-type]


def fill(folder: Path, rows: int, size: str, without: int = 0) -> None:
    """A store as a driver leaves it; nothing is synced, to save the bench an hour."""
    asked, store = plan(rows, size), Store.create(folder)
    record, (draws, examples) = asked.record(), SIZES[size]
    for task in asked.tasks:
        store.put_task(task.digest, task.target.described())
    store.put_plan(record)
    sync, os.fsync = os.fsync, lambda descriptor: None
    rng = np.random.default_rng(0)
    for i, row in enumerate(record.rows):
        if i < rows - without:
            about = {"source": record.source, "units": record.units, "recipe": record.recipe, "seed": row.seed}
            about |= {"task": record.tasks[0]["digest"], "training": record.sources[i], **record.named(i)}
            values = rng.random((4, draws, examples), np.float32)
            scalars = {"score_accuracy": 0.5, "report_accuracy": float(values[0, 0, 0])}
            outcome = Outcome({"primitives": values}, scalars)
            store.put(record.keys[i][0], outcome, {**about, "groups": row.groups, "code": "0.1.0+0123", "torch": "2"})
            store.log(event="row", row=i, seconds=1.0, source=record.sources[i], keys=list(record.keys[i]), failed=[])
    os.fsync = sync


def seconds(call: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def big(size: str, folder: Path, repeats: int) -> list[Case]:
    """The store before and after compaction."""
    fill(folder, ROWS, size)
    jobs: dict[str, Callable[[], Any]] = {
        "open, what is missing": lambda: Store(folder).missing(),
        "pydt status": lambda: status(folder),
        "outputs, every bit checked": lambda: Store(folder).outputs("digits"),
        "verify": lambda: verify(folder),
    }
    before, reference = {name: seconds(job, repeats) for name, job in jobs.items()}, Store(folder).outputs("digits")
    files = status(folder)["files"]
    start = time.process_time()
    compact(folder)
    took = time.process_time() - start
    if Store(folder).outputs("digits").tobytes() != reference.tobytes() or not verify(folder)["verified"]:
        raise SystemExit("compaction changed the outputs")
    after = {name: seconds(job, repeats) for name, job in jobs.items()}
    cases = [
        {"case": f"{ROWS} {size} rows: {name}", "files_s": before[name], "blocks_s": after[name], "n": repeats}
        for name in jobs
    ]
    counts = {"files": files, "files_compacted": status(folder)["files"]}
    return [*cases, {"case": f"{ROWS} {size} rows: compaction", "seconds": took, **counts, "n": 1}]


class Handed(Exception):
    """The driver has handed out a row."""


class First(Executor):
    """Takes no row: the moment of the first one is what counts."""

    _max_workers = 1

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        raise Handed


def never(given: RowInput) -> Any:
    raise AssertionError


def _planned() -> None:
    asked = plan(70_000, "small", groups=1_280_000)
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(folder)
        store.put_plan(asked.record())
        lacks = Store(folder, asked.digest).lacking()
        assert lacks.shape == (70_000, 1)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, size / 2**20]))


def _resumed(folder: str, rows: str) -> None:
    asked, start = plan(int(rows), "small"), time.process_time()
    try:
        run(asked, folder, First(), runner=never, progress=False)
    except Handed:
        took = time.process_time() - start
        print(json.dumps([took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def apart(call: str) -> list[float]:
    """What a function of this file prints in a process of its own."""
    code = f"import sys; sys.path.insert(0, {os.fspath(Path(__file__).parent)!r}); import store; store.{call}"
    found: list[float] = json.loads(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*SIZES, "plan", "driver", []], default=[])
    parser.add_argument("--json", type=Path, help="where to write the list of cases")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to make the stores (2 GB); default: a temporary folder")
    options = parser.parse_args()
    parts, cases = options.parts or [*SIZES, "plan", "driver"], []
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        for size in SIZES:
            if size in parts:
                cases += big(size, Path(scratch) / size, options.repeats)
                shutil.rmtree(Path(scratch) / size)
        if "plan" in parts:
            memory, written = apart("_planned()")
            text = "70,000 rows over 1,280,000 groups planned: peak memory and plan file, MB"
            cases.append({"case": text, "peak_mb": memory, "plan_mb": written, "n": 1})
        for rows in (1_000, 10_000) if "driver" in parts else ():
            folder = Path(scratch) / f"{rows}"
            fill(folder, rows, "small", without=1)
            found = [apart(f"_resumed({os.fspath(folder)!r}, '{rows}')") for _ in range(options.repeats)]
            took, memory = (statistics.median(values) for values in zip(*found, strict=True))
            cases.append({"case": f"resume of {rows} rows", "seconds": took, "peak_mb": memory, "n": options.repeats})
    for case in cases:
        print(
            ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{value}" for name, value in case.items())
        )
    if options.json:
        options.json.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
