"""What each training method is worth on the sample: `python bench/methods.py [--modes] --json FILE`.

For each method and seed, 400 steps on 3,000 of the printed characters (one thread, default settings); then a ridge
probe on 1, 5 and all labelled handwritten digits per class (16 draws; 400 digits in all), judged on the report half.
With --modes: every way to transfer from each of these models, at 1 and 5 shots (4 draws). A source is trained once and
transferred to all tasks. Nothing is chosen here.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import unicodedata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its pool

import numpy as np

from pydt.base import ConfigError
from pydt.data.samples import glyphs
from pydt.training import Recipe, Task, train, transfer
from pydt.training.transfer.modes import MODES
from pydt.training.transfer.zero_shot import ZeroShot

IMAGES, STEPS = 3000, 400
METHODS = ("supervised", "simclr", "clip", "none")


def tasks(modes: bool) -> list[Task]:
    target = glyphs.digits()
    if not modes:
        return [Task(target, shots=shots, draws=16) for shots in (1, 5, "full")]
    sentences = ZeroShot(names={digit: unicodedata.name(digit).lower() for digit in target.classes})
    return [
        Task(target, name, shots, 4, zero_shot=sentences)
        for name, mode in MODES.items()
        for shots in ((1, 5) if mode.labelled else (0,))
    ]


def one(method: str, seed: int, asked: list[Task]) -> list[dict[str, Any]]:
    """A line for each task that models of this method can be transferred to."""
    source = glyphs.source()
    recipe = Recipe(method=method, steps=STEPS)
    keep = np.sort(np.random.default_rng(seed).choice(len(source), IMAGES, replace=False))
    start = time.perf_counter()
    trained = train(source, keep, recipe, seed)
    seconds = time.perf_counter() - start
    lines = []
    for task in asked:
        try:
            task.check(recipe, source)
        except ConfigError:
            continue
        start = time.perf_counter()
        accuracy = transfer(trained, task, seed).scalars["report_accuracy"]
        line = {"method": method, "seed": seed, "mode": task.mode, "shots": task.shots, "accuracy": accuracy}
        lines.append({**line, "train_s": seconds, "transfer_s": time.perf_counter() - start, **trained.metrics})
    return lines


def table(lines: list[dict[str, Any]]) -> None:
    """Mean over seeds and its standard error, in percent."""
    kinds = dict.fromkeys((line["mode"], line["shots"]) for line in lines)
    for mode, shots in kinds:
        for method in METHODS:
            of = [x for x in lines if (x["method"], x["mode"], x["shots"]) == (method, mode, shots)]
            if of:
                right = 100 * np.array([line["accuracy"] for line in of])
                error = right.std(ddof=1) / len(of) ** 0.5 if len(of) > 1 else np.nan
                seconds = np.median([line["train_s"] for line in of]), np.median([line["transfer_s"] for line in of])
                told = f"{mode:15} {shots!s:>4} shots  {method:10} {right.mean():5.1f} +- {error:.1f} %"
                print(f"{told}  (n = {len(of)}; {seconds[0]:.0f} s of training, {seconds[1]:.1f} s of transfer)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--modes", action="store_true", help="every way to transfer, in place of the probe alone")
    args = parser.parse_args()
    asked, lines = tasks(args.modes), []
    for seed in args.seeds:
        for method in args.methods:
            lines += one(method, seed, asked)
            print(f"seed {seed}, {method}: done", flush=True)
            if args.json:
                args.json.write_text(json.dumps(lines, indent=1))
    table(lines)


if __name__ == "__main__":
    main()
