"""Models whose truth is known: what is right is a sum over the kept groups, and noise of runs and cells.

Eight groups of eight examples, a target of four classes. Workers import this module by name; `CALLS` counts the rows
that were trained in this process.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from pydt import design
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, RowInput, run
from pydt.ensemble.plan import Context
from pydt.store import Outcome, Row, Store
from pydt.training import Recipe, Task

GROUPS, EACH, CLASSES, DRAWS = 8, 8, 4, 2
EFFECTS = np.array([0.04, -0.08, 0.05, 0.0, 0.03, -0.06, 0.02, 0.0])  # on the share of images that are right
BAD = 5  # the group that the misled images owe their failure to
CALLS: list[tuple[int, int, bool]] = []  # seed, groups kept, whether at equal steps


def target(images: int = 640) -> Target:
    pixels = np.random.default_rng(0).integers(0, 256, (images, 2, 2), dtype=np.uint8)
    pixels[:, 0, 0], pixels[:, 0, 1] = np.arange(images) % 251, np.arange(images) // 251
    return Target(Dataset.from_arrays(pixels, np.arange(images) % CLASSES, name="small"))


def plan(rows: int = 60, sizes: tuple[int, ...] = (EACH,) * GROUPS) -> Plan:
    labels = np.repeat(np.arange(GROUPS), sizes)
    source = Dataset.from_arrays(np.zeros((len(labels), 2, 2), np.uint8), labels, [f"g{i}" for i in range(GROUPS)])
    made = design.bernoulli(GROUPS, rows, seed=3)
    return Plan(source, design=made, recipe=Recipe(batch_size=8), tasks=[Task(target(), draws=DRAWS)])


def outcome(task: Task, margin: np.ndarray, other: np.ndarray) -> Outcome:
    """Of margins (draws, images), and the class that is said where they are negative."""
    labels = task.target.described()["labels"]
    said = np.where(margin > 0, labels, other)
    primitives = np.stack([margin, 0 * margin, 0 * margin, np.broadcast_to(said, margin.shape)])
    return Outcome({"primitives": primitives.astype(np.float32)}, {"source_accuracy": 0.9})


def _note(context: Context, row: Row) -> np.random.Generator:
    steps = context.recipe.budget[0] != "epochs"
    CALLS.append((row.seed, int(row.mask.sum()), steps))
    return np.random.default_rng([row.seed, steps])


def additive(given: RowInput) -> dict[str, Outcome]:
    """0.6 of the images right, and more by EFFECTS of the kept groups; at equal epochs 0.02 less for each group that is
    left out. Runs differ by 0.01."""
    context, row, tasks = given.context, given.row, given.tasks
    random = _note(context, row)
    chance = 0.6 + float(EFFECTS @ row.mask) + 0.01 * random.normal()
    if context.recipe.budget[0] == "epochs":
        chance -= 0.02 * float((~row.mask).sum())
    found = {}
    for task in tasks:
        images = len(task.target.described()["labels"])
        hard = np.random.default_rng(9).random(images)
        margin = chance + 0.2 * (random.random((DRAWS, images)) - 0.5) - hard
        found[task.digest] = outcome(task, margin, (task.target.described()["labels"] + 1) % CLASSES)
    return found


def kinds_of_images(task: Task) -> np.ndarray:
    """0: easy, 1: misled by the group BAD, 2: hopeless. By position, so that both halves have all of them."""
    ids = task.target.described()["ids"]
    return np.where(ids % 11 == 0, 1, np.where(ids % 13 == 0, 2, 0))


def misled(given: RowInput) -> dict[str, Outcome]:
    """Easy images are right. Misled ones are wrong with the group BAD and right without it, hopeless ones are wrong.

    Misled ones are said to be two classes on, hopeless ones the next class.
    """
    context, row, tasks = given.context, given.row, given.tasks
    random = _note(context, row)
    found = {}
    for task in tasks:
        kind = kinds_of_images(task)
        truth = np.select([kind == 0, kind == 1], [2.0, np.where(row.mask[BAD], -1.2, 1.2)], -1.5)
        margin = truth + 0.3 * random.normal() + 0.7 * random.normal(size=(DRAWS, len(kind)))
        labels = task.target.described()["labels"]
        found[task.digest] = outcome(task, margin, (labels + np.where(kind == 1, 2, 1)) % CLASSES)
    return found


def failing(given: RowInput) -> dict[str, Outcome]:
    """As `additive`; a quarter of the rows that keep all groups or half of them fail."""
    row = given.row
    found = additive(given)
    bad = row.seed % 4 == 0 and int(row.mask.sum()) in (GROUPS, GROUPS // 2) and row.kind != "design"
    return {task: Outcome(status="failed", reason="bad luck") for task in found} if bad else found


def trained(job: Plan, folder: Any, runner: Any = additive) -> Store:
    with ThreadPoolExecutor(1) as executor:
        return run(job, folder, executor, runner=runner, progress=False)


def mean_per_class(job: Plan) -> Plan:
    of = replace(job.tasks[0].target, metric="mean per class")
    return replace(job, tasks=[replace(job.tasks[0], target=of)])
