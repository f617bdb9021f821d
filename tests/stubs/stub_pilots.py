"""Designs, planted outputs and stores of quick rows, for tests of planning."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from stub_report import GROUPS, Stub

from pydt import Design, Store, design
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, run
from pydt.training import Recipe, Task


def drawn(kind: str, groups: int, models: int, alpha: float, seed: int) -> Design:
    if kind == "foldover":
        return design.foldover(groups, models, seed)
    return getattr(design, kind)(groups, models, alpha, seed)


def planted(made: Design, targets: int, r2: float, seed: int = 0) -> np.ndarray:
    """Outputs of noise variance 1 whose linear part explains r2 of the variance between rows."""
    rng = np.random.default_rng([seed, made.groups, made.seed])
    effects = rng.standard_normal((made.groups, targets))
    if made.estimand == "swap":
        effects -= effects.mean(0)
    effects *= np.sqrt(r2 / (1 - r2) / ((effects**2).sum(0) * made.alpha * (1 - made.alpha)))
    return np.asarray(made) @ effects + rng.standard_normal((len(made), targets))


def study(folder: Path, source: Dataset, target: Target, alphas: tuple[float, ...], models: int = 60) -> Store:
    with ThreadPoolExecutor(1) as executor:
        for i, alpha in enumerate(alphas):
            masks = design.bernoulli(GROUPS, models, alpha, seed=i)
            plan = Plan(source, design=masks, recipe=Recipe(), tasks=(Task(target, draws=4),), seed=i)
            store = run(plan, folder, executor, runner=Stub(0.6, 0.15, i, frozenset()), progress=False)
    return store


def timed(store: Store, seconds: dict[str, float]) -> None:
    """A log that gives every row of a plan the same time, with lines that are none among them."""
    lines = ["", "{", '{"event": "row"}', '{"event": "row", "keys": ["?"], "seconds": "x"}']
    for plan, time in seconds.items():
        lines += [json.dumps({"event": "row", "keys": keys, "seconds": time}) for keys in store.plan(plan).keys]
    (store.folder / "log.jsonl").write_text("\n".join(lines))
