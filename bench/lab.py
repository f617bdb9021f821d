"""Does pydt find what was planted? `python bench/lab.py --dir FOLDER --json FILE`.

For each seed a source and a target are planted (`pydt.analyses.laboratory`), the rows of the plan trained, and every
plant looked for with the ordinary analyses, among them retrainings without the group that failing images blame. Rows
are kept in FOLDER/SEED; stopped at any moment, the same command continues. A criterion that is missed is printed as
missed.

Over all seeds: the share of placebo columns with p < 0.05, and a Kolmogorov-Smirnov test of their p values, which are
uniform if standard errors are right.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy starts its pool

import numpy as np
from scipy import stats

from pydt import run
from pydt.analyses import laboratory as lab


def one(seed: int, models: int, retrain: int, folder: Path, workers: int | None) -> list[dict[str, Any]]:
    made = lab.planted(seed)
    plan = lab.plan(made, models, seed)
    start = time.monotonic()
    store = run(plan, folder, workers=workers)
    rows = []
    for finding in lab.findings(store, made, plan, retrain=retrain, workers=workers):
        numbers = {name: value if np.isfinite(value) else None for name, value in finding.numbers.items()}
        rows.append({"seed": seed, "models": models, "plant": finding.name, "found": finding.ok, **numbers})
        print(f"seed {seed}  {'found ' if finding.ok else 'MISSED'}  {finding.name}: {finding.detail}", flush=True)
    print(f"seed {seed}: {time.monotonic() - start:.0f} s, less for rows that were there", flush=True)
    return rows


def placebos(rows: list[dict[str, Any]]) -> dict[str, Any]:
    p = [value for row in rows if row["plant"] == "placebos" for name, value in row.items() if name[1:].isdigit()]
    below, uniform = float(np.mean(np.array(p) < 0.05)), float(stats.kstest(p, "uniform").pvalue)
    print(f"{len(p)} placebo columns: {below:.1%} with p < 0.05, Kolmogorov-Smirnov p = {uniform:.2f}")
    return {"plant": "placebos of all seeds", "columns": len(p), "below 0.05": below, "p": uniform}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--dir", type=Path, default=Path("lab"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--models", type=int, default=256)
    parser.add_argument("--retrain", type=int, default=10)
    parser.add_argument("--workers", type=int)
    args = parser.parse_args()
    rows = []
    for seed in args.seeds:
        rows += one(seed, args.models, args.retrain, args.dir / str(seed), args.workers)
    rows.append(placebos(rows))
    missed = [f"{row['plant']} (seed {row['seed']})" for row in rows if not row.get("found", True)]
    print(f"missed: {', '.join(missed) or 'nothing'}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
