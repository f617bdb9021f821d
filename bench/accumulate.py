"""Statistics that stream: `python bench/accumulate.py --json FILE`.

"5 folds": the statistics of all rows with five held-out folds, as `pydt.influences` gathers them, against the same pass
without folds; target: at most 1.1 times as long (ratio 0.91). "accumulate": rows added in plan order, in batches of 64,
to a `pydt.Accumulator`, until all blocks are summed and merged, against numpy: per block and fold, the float32 product
of the masks (unpacked outside of the time) and the outputs, added up in float64.

One thread each. Both sides of a case run in this process, in turns, and the median of the repeats counts; a case is
timed only after its result has agreed with float64 numpy.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy starts its pool
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from core import Case, compare

import pydt
from pydt.blocks import frame_of
from pydt.inputs import read
from pydt.moments import Arrays

BATCH = 64


def folds(groups: int, models: int, targets: int, dtype: str, repeats: int) -> Case:
    plan = pydt.design.random(groups, models, seed=0)
    outputs = np.random.default_rng(0).normal(size=(models, targets)).astype(dtype)
    statistics = Arrays(read(plan, outputs))
    masks = np.concatenate([np.asarray(plan), plan.placebos], axis=1)
    statistics.geometry.folds(5)

    def with_folds() -> None:
        for _ in statistics.tiles(5):
            pass

    def without() -> None:
        for _ in statistics.tiles():
            pass

    y = outputs.astype(np.float64) - outputs[0]
    for tile in statistics.tiles(5):
        some = slice(tile.part.start, tile.part.stop, 50)
        for rows, sums in zip(statistics.geometry.folds(5).rows, tile.folds[5], strict=True):
            expected = masks[rows].T.astype(np.float64) @ y[rows][:, some]
            np.testing.assert_allclose(sums.cross[:, ::50], expected, rtol=0, atol=1e-5 * np.sqrt(models))
    size = f"K={groups} m={models} n={targets} {dtype}"
    return compare(f"5 folds {size}", "one pass", with_folds, without, repeats)


def accumulate(groups: int, models: int, targets: int, repeats: int) -> Case:
    plan = pydt.design.random(groups, models, seed=0)
    frame = frame_of(plan)
    outputs = np.random.default_rng(0).normal(size=(models, targets)).astype(np.float32)
    wide = np.concatenate([np.asarray(plan), plan.placebos], axis=1).astype(np.float32)
    batches = [np.arange(start, start + BATCH) for start in range(0, models, BATCH)]

    def ours() -> pydt.Accumulator:
        accumulator = pydt.Accumulator(plan)
        for rows in batches:
            accumulator.add(rows, outputs[rows[0] : rows[-1] + 1])
        return accumulator

    def peer() -> np.ndarray:
        sums = np.zeros((5, frame.columns, targets))
        for start in range(0, models, frame.block):
            fold = frame.fold[start : start + frame.block]
            for i in range(5):
                rows = start + np.flatnonzero(fold == i)
                y = outputs[rows]
                sums[i] += wide[rows].T @ y
                y.sum(0, dtype=np.float64), (y * y).sum(0, dtype=np.float64)
        return sums

    node = ours().statistics().sums()
    found = node.moved(np.zeros(targets)).cross[:, :, ::20]
    expected = [wide[frame.fold == i].T.astype(np.float64) @ outputs[frame.fold == i][:, ::20] for i in range(5)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.sqrt(models))
    np.testing.assert_allclose(peer()[:, :, ::20], expected, rtol=0, atol=1e-2)
    frame_of(plan)  # the masks are drawn and looked at once
    case = compare(f"accumulate K={groups} m={models} n={targets} float32", "numpy by folds", ours, peer, repeats)
    print(f"{'':<46} {models / case['ours_s']:9.0f} rows/s, {models * targets / case['ours_s'] / 1e6:.0f} M outputs/s")
    return case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the list of cases")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of the targets: to see that it runs")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])  # pydt uses the cores that the process may use
    less = 10 if options.quick else 1
    cases = [
        folds(200, 1500, 10_000 // less, "float32", options.repeats),
        folds(1000, 7540, 2000 // less, "float32", options.repeats),
        folds(1000, 7540, 2000 // less, "float16", options.repeats),
        accumulate(200, 8192, 2000 // less, options.repeats),
        accumulate(1000, 16_384, 1000 // less, options.repeats),
    ]
    if options.json:
        options.json.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
