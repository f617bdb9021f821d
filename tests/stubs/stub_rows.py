"""Rows that cost 50 ms of sleep and a little numpy: what the store and the ensemble are tested with.

Workers import this module by name. `python -c "import stub_rows; stub_rows.main()" FOLDER ROWS WORKERS SECONDS RULE` is
a driver that tests can kill.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pydt import design
from pydt.base import DataError, TrainError, digest
from pydt.design import Design
from pydt.ensemble import Part, Plan, RowInput, run
from pydt.ensemble.plan import Context
from pydt.store import Outcome, Row, Store

GROUPS, EXAMPLES, DRAWS, CLASSES = 6, 40, 3, 4
WEIGHTS = np.full(EXAMPLES, 2 / EXAMPLES)


@dataclass(frozen=True)
class StubTarget:
    digest: str = "target"

    def described(self) -> dict[str, np.ndarray]:
        ids = np.arange(EXAMPLES)
        return {"half": (ids % 2).astype(np.uint8), "labels": ids % CLASSES, "ids": ids + 100, "weights": WEIGHTS}


@dataclass(frozen=True)
class StubTask:
    name: str = "digits"
    target: StubTarget = field(default_factory=StubTarget)
    metric: str = "top-1"

    @property
    def digest(self) -> str:
        return digest("task", self.name)

    def described(self) -> dict[str, Any]:
        return {"shots": 5} | ({} if self.metric == "top-1" else {"target": {"metric": self.metric}})

    def drawn(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        positions = np.array([[1, 4], [0, 4]])
        return positions, positions % CLASSES, [f"image {i}" for i in (0, 1, 4)]

    def examples(self) -> dict[str, np.ndarray]:
        return self.target.described()


@dataclass(frozen=True)
class StubRecipe:
    """`what` the rows do besides giving numbers: see `stub_row`. `folder` is where they leave notes, for the tests."""

    what: str = "sleep"
    seconds: float = 0.0
    folder: str = ""
    late: int = 0
    threads: int = 1
    device: str = "cpu"

    def described(self) -> dict[str, Any]:
        return {"threads": self.threads}

    @property
    def digest(self) -> str:
        return digest("recipe")  # the same rows however long they sleep and whatever befalls them


@dataclass(frozen=True)
class StubSource:
    """Two examples in each of six groups or more, and two in none."""

    name: str = "stub"
    groups: int = GROUPS

    @property
    def digest(self) -> str:
        return digest("source", self.name)

    def __len__(self) -> int:
        return 2 * self.groups + 2

    def units(self, by: str) -> tuple[np.ndarray, tuple[str, ...]]:
        unit = np.append(np.repeat(np.arange(self.groups), 2), [-1, -1]).astype(np.int64)
        return unit, tuple(f"{by} {i}" for i in range(self.groups))

    def pictured(self, by: str, each: int) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
        names = [f"{by} {i}" for i in range(GROUPS - 1)]
        images = {name: np.full((min(each, 2), 3, 3, 1), i, np.uint8) for i, name in enumerate(names)}
        return images, {name: (f"{name}/a.png", f"{name}/b.png")[:each] for name in names}


def stub_design(models: int, groups: int = GROUPS, seed: int = 0) -> Design:
    """Masks of which each keeps half of the groups or so, and none keeps nothing."""
    random = np.random.default_rng(seed)
    masks = np.array([random.random(groups) < 0.5 for _ in range(models)], bool).reshape(models, groups)
    masks[:, 0] |= ~masks.any(1)
    return Design.explicit(masks)


def outcome(context: Context, row: Row, task: StubTask) -> Outcome:
    """Numbers that depend on exactly what a row's key says: the kept examples, the seed and the task."""
    kept = np.flatnonzero(context.keep_examples(row))
    random = np.random.default_rng([row.seed, *kept, *task.name.encode()])
    logits = random.normal(size=(4, DRAWS, EXAMPLES)).astype(np.float32)
    logits[3] = random.integers(0, CLASSES, (DRAWS, EXAMPLES))
    share = float(np.float32(random.random()))
    arrays = {"primitives": logits}
    if task.metric == "auroc":
        arrays["auroc"] = random.random((DRAWS, EXAMPLES)).astype(np.float32)
    return Outcome(arrays, {"score_accuracy": share, "report_accuracy": 1 - share})


def stub_row(given: RowInput) -> dict[str, Outcome]:
    """The runner. What it does beyond sleeping is `recipe.what`, on the rows whose seed is a multiple of ten."""
    context, row, tasks = given.context, given.row, given.tasks
    recipe = context.recipe
    time.sleep(recipe.seconds)
    if recipe.folder:
        with open(Path(recipe.folder) / "calls", "a") as file:
            file.write(f"{row.seed} {','.join(task.name for task in tasks)} {os.environ.get('OMP_NUM_THREADS')}\n")
    if row.seed % 10 == 0:
        first = bool(recipe.folder) and not (Path(recipe.folder) / f"tried {row.seed}").exists()
        if first:
            (Path(recipe.folder) / f"tried {row.seed}").touch()
        match recipe.what:
            case "diverge":
                raise TrainError("loss is not finite", "epoch 3")
            case "raise":
                raise KeyError("a bug in the runner")
            case "raise once" if first:
                raise OSError("bad luck")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "die once" if first:
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(300)
            case "hang once" if first:
                time.sleep(300)
            case "stop":
                raise KeyboardInterrupt
            case "nan":
                return {task.digest: Outcome({"primitives": np.full((4, 1, EXAMPLES), np.nan)}) for task in tasks}
            case "fail":
                return {task.digest: Outcome(status="failed", reason="diverged") for task in tasks}
            case "refuse":
                raise DataError("truncated", "images/7.png", "delete it")
            case "misshape":
                return {task.digest: Outcome({"primitives": np.zeros((4, EXAMPLES), np.float32)}) for task in tasks}
            case "forget":
                return {}
            case "unpicklable":
                return {task.digest: Outcome({"primitives": lambda: 0}) for task in tasks}  # type: ignore[dict-item]
            case "warn":
                warnings.warn("something odd", RuntimeWarning, stacklevel=1)
    return {task.digest: outcome(context, row, task) for task in tasks}


def held_row(given: RowInput) -> dict[str, Outcome]:
    """`stub_row` that says which process it is in, and waits until the test writes the file "go"."""
    context = given.context
    folder = Path(context.recipe.folder)
    (folder / f"held {os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.05)
    return stub_row(given)


def plan(rows: int, **recipe: Any) -> Plan:
    return Plan(
        StubSource(),
        design=stub_design(rows),
        recipe=StubRecipe(**recipe),
        tasks=[StubTask()],
        seeds=range(1, rows + 1),
    )


def parts(count: int, **recipe: Any) -> list[Part]:
    """Parts of one row each, whose seeds are 1, 2, ...; each has another source."""
    tasks = (StubTask(),)
    return [
        Part(Context(StubSource(f"source {seed}"), "class", StubRecipe(**recipe), tasks), (Row(np.ones(GROUPS), seed),))
        for seed in range(1, count + 1)
    ]


def effect_row(given: RowInput) -> dict[str, Outcome]:
    """A runner whose rows tell something: group 1 makes examples right more often, group 4 less often.

    Rows whose seed is a multiple of 17 fail; those from seed `recipe.late` + 1 on raise.
    """
    context, row, tasks = given.context, given.row, given.tasks
    recipe = context.recipe
    time.sleep(recipe.seconds)
    if recipe.folder:
        with open(Path(recipe.folder) / "calls", "a") as file:
            file.write(f"{row.seed}\n")
    if row.seed > recipe.late > 0:
        raise KeyError("too late")
    if row.seed % 17 == 0:
        return {task.digest: Outcome(status="failed", reason="bad luck") for task in tasks}
    chance = 0.5 + 0.1 * float(row.mask[1]) - 0.1 * float(row.mask[4])
    found = {}
    for task in tasks:
        random = np.random.default_rng([row.seed, *task.name.encode()])
        labels = task.target.described()["labels"]
        right = random.random((DRAWS, EXAMPLES)) < chance
        margin = np.where(right, 1.0, -1.0)
        primitives = np.stack([margin, 0 * margin, 0 * margin, np.where(right, labels, (labels + 1) % CLASSES)])
        share = float(right[:, 1::2].mean())
        found[task.digest] = Outcome({"primitives": primitives.astype(np.float32)}, {"report_accuracy": share})
    return found


def studied(folder: str = "", seconds: float = 0.0, late: int = 0) -> Plan:
    """200 rows for `effect_row`, of a design that a stopping rule can judge."""
    made = design.bernoulli(GROUPS, 200, seed=1)
    recipe = StubRecipe(folder=folder, seconds=seconds, late=late)
    return Plan(StubSource(), design=made, recipe=recipe, tasks=[StubTask()], seeds=range(1, 201))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a store that must be the same after equal runs."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "log.jsonl"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def go(job: Plan, folder: Path, executor: Executor | None = None, **more: Any) -> Store:
    """Run without a progress display; in a thread unless told otherwise, which is the quickest."""
    if executor is None and "workers" not in more:
        with ThreadPoolExecutor(1) as executor:
            return run(job, folder, executor, runner=stub_row, progress=False, **more)
    return run(job, folder, executor, runner=stub_row, progress=False, **more)


MARKER = "PYDT_TEST_MARKER"


def environment(marker: str = "") -> dict[str, str]:
    """For a process that can import this module, and can be found again by its marker."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent), MARKER: marker}


def main() -> None:
    folder, rows, workers, seconds, rule = Path(sys.argv[1]), *map(float, sys.argv[2:5]), sys.argv[5]
    if rule:
        job, runner = studied(seconds=seconds), effect_row
    else:
        job, runner = plan(int(rows), seconds=seconds), stub_row
    run(job, folder, workers=int(workers), runner=runner, progress=False, stop=rule or None)


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
