"""How many models does a design need? `python bench/designs.py --json FILE [--table FILE.md] [--store DIR ...]`.

Simulated: outputs = main effects of 200 groups + products of pairs of groups + noise, variances that add up to 1. Every
design is drawn once a repeat, for the most models of the grid; its first m rows are what m models would have been. The
correlation of the estimated with the true main effects over the groups (which takes both less their means, so that
masks of one size are not asked for what they cannot say) is averaged over 20 targets; the number of models at which it
reaches 0.90 and 0.95 is read off by interpolation (its inverse hyperbolic tangent against log m), once a repeat: the
geometric mean counts, the spread is the standard error of log m over the repeats. Masks keep half of the groups.

Stored rows (`--store`, folders that `pydt quickstart` filled, of one plan but for the seeds): the influences from n
rows against those from n other rows, over random splits; no truth is known there.

Scale: 70,000 models on the 1,281,167 images of ImageNet-1k as groups, rows drawn on demand.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy starts its pool
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

from pydt import Design, Store, design, influences
from pydt.base import EstimateError

Array = npt.NDArray[np.float64]
GROUPS, TARGETS, REPEATS, PAIRS, SPARSE = 200, 20, 4, 1000, 20
# finer where estimators come to life (m = groups, 2 x groups); even: pairs stay whole
GRID = [64, 90, 128, 182, 256, 362, 512, 724, 1024, 2048, 4096, 8192, 16384]
DESIGNS = ("random", "bernoulli", "foldover")
METHODS = ("difference", "ols", "ridge", "lasso")
REACHED = (0.90, 0.95)
STORED = (25, 50, 75, 100, 150, 200, 300, 400, 450)
SPLITS = 20


@dataclass(frozen=True)
class Truth:
    """Shares of the variance of an output; the rest is noise."""

    name: str
    shape: str
    main: float
    pairs: float = 0.0


SHAPES = {"sparse": "20 of 200 groups, Gaussian", "decay": "all groups, i^-0.7, random signs", "dense": "all, Gaussian"}
MIXED = ((0.3, 0.0), (0.3, 0.3), (0.3, 0.6), (0.6, 0.3), (0.1, 0.8))
TRUTHS = [Truth(f"{text}; R2 {r2}", shape, r2) for shape, text in SHAPES.items() for r2 in (0.2, 0.5, 0.9)]
TRUTHS += [Truth(f"sparse; main {m}, pairs {p}, noise {1 - m - p:.1f}", "sparse", m, p) for m, p in MIXED]


def effects(shape: str, targets: int, rng: np.random.Generator) -> Array:
    """Main effects (groups, targets) of one kind, in any scale."""
    if shape == "dense":
        return rng.standard_normal((GROUPS, targets))
    if shape == "sparse":
        size = np.r_[np.ones(SPARSE), np.zeros(GROUPS - SPARSE)][:, None] * rng.standard_normal((GROUPS, targets))
    else:
        size = np.arange(1, GROUPS + 1)[:, None] ** -0.7 * rng.choice([-1.0, 1.0], (GROUPS, targets))
    return rng.permuted(size, axis=0)


def simulate(masks: npt.NDArray[np.bool_], targets: int, rng: np.random.Generator) -> tuple[Array, npt.NDArray[Any]]:
    """True main effects (groups, truths x targets) and float32 outputs (models, truths x targets)."""
    signs = masks.astype(np.float32) * 2 - 1
    ends = np.array([rng.choice(GROUPS, 2, replace=False) for _ in range(PAIRS)])
    products = signs[:, ends[:, 0]] * signs[:, ends[:, 1]]
    weights, outputs = [], []
    for truth in TRUTHS:
        weight = effects(truth.shape, targets, rng)
        weight *= np.sqrt(truth.main / (weight**2).sum(0))
        output = signs @ weight.astype(np.float32)
        if truth.pairs:
            mixed = rng.standard_normal((PAIRS, targets))
            output += products @ (mixed * np.sqrt(truth.pairs / (mixed**2).sum(0))).astype(np.float32)
        noise = rng.standard_normal(output.shape, np.float32)
        outputs.append(output + np.float32(np.sqrt(1 - truth.main - truth.pairs)) * noise)
        weights.append(weight)
    return np.concatenate(weights, axis=1), np.concatenate(outputs, axis=1)


def correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Array:
    """Of the columns of two matrices; 0 where one does not vary (a LASSO that found nothing)."""
    a, b = (np.asarray(one, np.float64) - np.mean(one, axis=0, dtype=np.float64) for one in (a, b))
    norm = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.divide((a * b).sum(0), norm, out=np.zeros_like(norm), where=norm > 0)


def needed(grid: list[int], found: Array, reached: float) -> tuple[float, bool]:
    """Models at which the correlations `found` (grid,) reach a value, NaN if they do not; whether fewer might do."""
    above = np.flatnonzero(found >= reached)
    if not above.size:
        return np.nan, False
    i = int(above[0])
    if i == 0 or not np.isfinite(found[i - 1]):
        return float(grid[i]), True
    below, here, wish = np.arctanh([found[i - 1], found[i], reached])
    part = (wish - below) / (here - below)
    return float(grid[i - 1] * (grid[i] / grid[i - 1]) ** part), False


def simulated(grid: list[int], targets: int, repeats: int) -> dict[tuple[str, str], Array]:
    """Mean correlation over targets, (repeats, grid, truths), of each design and method.

    NaN where a method needs more models, and after the largest correlation of interest is reached.
    """
    found = {
        (kind, method): np.full((repeats, len(grid), len(TRUTHS)), np.nan) for kind in DESIGNS for method in METHODS
    }
    for repeat in range(repeats):
        for kind in DESIGNS:
            start = time.perf_counter()
            drawn = getattr(design, kind)(GROUPS, grid[-1], seed=repeat, placebos=0)
            rng = np.random.default_rng([repeat, DESIGNS.index(kind)])
            weights, outputs = simulate(np.asarray(drawn), targets, rng)
            going = {method: np.ones(len(TRUTHS), bool) for method in METHODS}
            for i, models in enumerate(grid):
                part = drawn.take(np.arange(models))
                for method, truths in going.items():
                    chosen = np.flatnonzero(np.repeat(truths, targets))
                    if not chosen.size:
                        continue
                    try:
                        values = influences(part, outputs[:models, chosen], method).values
                    except EstimateError:  # OLS without models enough
                        continue
                    each = correlation(values, weights[:, chosen]).reshape(-1, targets).mean(1)
                    found[kind, method][repeat, i, truths] = each
                    truths[truths] = each < REACHED[-1]
            print(f"repeat {repeat}, {kind}: {time.perf_counter() - start:.0f} s", flush=True)
    return found


def numbers(grid: list[int], found: dict[tuple[str, str], Array]) -> list[dict[str, Any]]:
    """One entry for each truth, design and method: models needed, with their spread, and the correlations."""
    rows = []
    for t, truth in enumerate(TRUTHS):
        for (kind, method), each in found.items():
            row: dict[str, Any] = {"case": truth.name, "design": kind, "method": method}
            for reached in REACHED:
                read = [needed(grid, one, reached) for one in each[:, :, t]]
                logs, name = np.log([models for models, _ in read]), f"{reached:.2f}"
                complete = bool(np.isfinite(logs).all())
                row[f"models for {name}"] = float(np.exp(logs.mean())) if complete else None
                spread = float(logs.std(ddof=1) / np.sqrt(len(logs))) if complete and len(logs) > 1 else None
                row[f"standard error of log models for {name}"] = spread
                row[f"at most, for {name}"] = any(first for _, first in read)
            mean = each[:, :, t].mean(0)  # of all repeats, or none
            row["correlation"] = {m: round(float(v), 4) for m, v in zip(grid, mean, strict=True) if np.isfinite(v)}
            rows.append(row)
    return rows


def simulated_table(grid: list[int], rows: list[dict[str, Any]], reached: float) -> list[str]:
    name = f"{reached:.2f}"
    columns = [(kind, method) for kind in DESIGNS for method in METHODS]
    lines = [f"Models for correlation {name}, and the standard error of their logarithm (in %):", ""]
    lines += ["| truth | " + " | ".join(f"{kind} {method}" for kind, method in columns) + " |", "|---" * 13 + "|"]
    by = {(row["case"], row["design"], row["method"]): row for row in rows}
    for truth in TRUTHS:
        cells = []
        for kind, method in columns:
            row = by[truth.name, kind, method]
            models, spread = row[f"models for {name}"], row[f"standard error of log models for {name}"]
            if models is None:
                cells.append(f"> {grid[-1]}")
            else:
                cells.append(
                    f"\u2264 {models:.0f}" if row[f"at most, for {name}"] else f"{models:.0f} \u00b1{100 * spread:.0f}"
                )
        lines.append(f"| {truth.name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def stored(folders: list[Path]) -> list[dict[str, Any]]:
    """Agreement of the influences from n rows with those from n others; overall accuracy, and that of each class."""
    masks, outputs = [], []
    for folder in folders:
        store = Store(folder)
        task = store.plan().tasks[0]["digest"]
        right = store.outputs(task, "correct")
        labels = store.examples(task)["labels"]
        means = [right.mean(1), *(right[:, labels == label].mean(1) for label in np.unique(labels))]
        masks.append(store.masks())
        outputs.append(np.stack(means, axis=1).astype(np.float64) - np.mean(means, axis=1))
    kept, values = np.concatenate(masks), np.concatenate(outputs)
    rows = []
    for n in (n for n in STORED if 2 * n <= len(kept)):
        found: dict[str, list[Array]] = {method: [] for method in METHODS}
        for split in range(SPLITS):
            order = np.random.default_rng([split, 1]).permutation(len(kept))
            halves = (order[:n], order[n : 2 * n])
            for method in METHODS:
                try:
                    a, b = (influences(Design.explicit(kept[half]), values[half], method).values for half in halves)
                except EstimateError:
                    continue
                found[method].append(correlation(a, b))
        for method, each in found.items():
            if each:
                overall, classes = np.array(each)[:, 0], np.array(each)[:, 1:].mean(1)
                error = [float(one.std(ddof=1)) for one in (overall, classes)]
                mean = [float(one.mean()) for one in (overall, classes)]
                row = {"case": "stored rows", "method": method, "rows": n, "overall": mean[0], "overall sd": error[0]}
                rows.append({**row, "per class": mean[1], "per class sd": error[1]})
    return rows


def stored_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| rows in each half | " + " | ".join(f"{m}: overall, per class" for m in METHODS) + " |",
        "|---" * 5 + "|",
    ]
    for n in sorted({row["rows"] for row in rows}):
        by = {row["method"]: row for row in rows if row["rows"] == n}
        cells = [
            f"{by[m]['overall']:.2f} \u00b1{by[m]['overall sd']:.2f}, {by[m]['per class']:.2f}" if m in by else ""
            for m in METHODS
        ]
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    last = max(row["rows"] for row in rows)
    cells = []
    for method in METHODS:
        agreement = next(row["overall"] for row in rows if row["rows"] == last and row["method"] == method)
        each = last * (1 - agreement) / agreement
        cells.append(", ".join(f"{each * r**2 / (1 - r**2):.0f}" for r in REACHED))
    return [*lines, "| for 0.90, 0.95 with the limit | " + " | ".join(cells) + " |", ""]


def scale(groups: int, models: int) -> list[dict[str, Any]]:
    """Processor time of a row, drawn five at a time, in turns; and the peak of what numpy holds while a design is
    planned: made, extended, its clusters and digest found, some rows taken, and 20 rows drawn."""
    label = np.random.default_rng(0).integers(0, 1000, groups)
    kinds = {
        "random": lambda: design.random(groups, models, 0.25),
        "random, 1000 strata": lambda: design.random(groups, models, 0.25, strata=label),
        "bernoulli": lambda: design.bernoulli(groups, models, 0.25),
        "foldover": lambda: design.foldover(groups, models),
    }
    made: dict[str, Design] = {}
    peak: dict[str, float] = {}
    for name, make in kinds.items():
        tracemalloc.start()
        one = made[name] = make()
        taken = one.take(np.arange(models - 1, 0, -3))
        for each in (one, taken, one.extend(models + models // 2)):
            assert each.digest
            assert len(each.clusters) == len(each)
        assert taken[:20].any(1).all()
        peak[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(9):
        for name, one in made.items():
            start = time.process_time()
            one.packed(np.arange(100 * turn, 100 * turn + 5))
            times[name].append((time.process_time() - start) / 5)
    return [
        {
            "case": f"{models} rows on {groups} groups",
            "design": name,
            "row_s": float(np.median(t)),
            "peak_bytes": peak[name],
        }
        for name, t in times.items()
    ]


def scale_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [f"{rows[0]['case']}:", "", "| design | rows per second | peak memory |", "|---" * 3 + "|"]
    return [
        *lines,
        *(f"| {row['design']} | {1 / row['row_s']:.0f} | {row['peak_bytes'] / 1e6:.0f} MB |" for row in rows),
        "",
    ]


def write(path: Path, name: str, lines: list[str], by: str = "bench/designs.py") -> None:
    """Put the lines between the two markers of that name."""
    begin, end = f"<!-- {name}: written by {by} -->", f"<!-- end of {name} -->"
    head, rest = path.read_text(encoding="utf-8").split(begin)
    tail = rest.split(end)[1]
    path.write_text("\n".join([head + begin, "", *lines, end]) + tail, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="write every number here")
    parser.add_argument("--table", type=Path, help="a markdown file whose tables are written again")
    parser.add_argument("--store", type=Path, nargs="+", default=[], help="folders with stored rows of one plan")
    parser.add_argument("--quick", action="store_true", help="a small grid: a test of this script, not a measurement")
    given = parser.parse_args()
    grid, targets, repeats = (GRID[:8:3], 5, 2) if given.quick else (GRID, TARGETS, REPEATS)
    rows = numbers(grid, simulated(grid, targets, repeats))
    tables = {"simulated": [line for reached in REACHED for line in simulated_table(grid, rows, reached)]}
    large = scale(*((20_000, 7_000) if given.quick else (1_281_167, 70_000)))
    tables["scale"] = scale_table(large)
    rows += large
    if given.store:
        halves = stored(given.store)
        tables["stored"] = stored_table(halves)
        rows += halves
    for name, lines in tables.items():
        print("\n".join(lines))
        if given.table:
            write(given.table, name, lines)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
