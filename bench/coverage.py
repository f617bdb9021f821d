"""Coverage of 95 % intervals over fresh designs: what they hold where the usual assumptions do not.

    python bench/coverage.py --designs 2000 --table bench/RESULTS.md

Every design is drawn anew, with one group that is special:

    equal          Gaussian noise of one variance
    variance       the group doubles the standard deviation of the noise
    interaction    (mask of the group - alpha) x sum of c_j (mask_j - alpha) over all others, c Gaussian, as large as
                   the noise; it leaves what adding a group does on average as it is
    rare events    outputs 0 or 1, 1 with probability 0.02 on average, twice as often with the group as without

All groups have Gaussian effects (R2 0.3; none but the special group's in "rare events"). Masks are independent coins
(Bernoulli), which say what adding a group does, or foldover pairs. A target of which no model differs has no interval:
it is left out and counted.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy starts its pool
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from designs import write
from scipy import special

from pydt import Design, design, influences
from pydt.estimation import Fit

KINDS = ("equal", "variance", "interaction", "rare events")
SIZES = ((60, 240, 0.25), (60, 240, 0.1), (62, 85, 0.25), (60, 240, 0.5), (60, 240, None))  # None: foldover
METHODS = ("difference", "ols", "lasso")
R2, RATE = 0.3, 0.02


def draw(groups: int, models: int, alpha: float | None, seed: int) -> Design:
    if alpha is None:
        return design.foldover(groups, models, seed, placebos=0)
    return design.bernoulli(groups, models, alpha, seed, placebos=0)


def simulate(made: Design, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (models, kinds) and true influences (groups, kinds); group 0 is the special one."""
    kept, alpha = np.asarray(made).astype(float), made.alpha
    models, groups = kept.shape
    truth = rng.standard_normal((groups, len(KINDS)))
    truth *= np.sqrt(R2 / (1 - R2) / ((truth**2).sum(0) * alpha * (1 - alpha)))
    noise = rng.standard_normal((models, len(KINDS)))
    noise[:, 1] *= 1 + kept[:, 0]
    size = rng.standard_normal(groups - 1)
    size /= np.sqrt((size**2).sum()) * alpha * (1 - alpha)
    noise[:, 2] += (kept[:, 0] - alpha) * ((kept[:, 1:] - alpha) @ size)
    outputs = kept @ truth + noise
    base = RATE / (1 + alpha)
    truth[:, 3] = np.where(np.arange(groups) == 0, base, 0)
    outputs[:, 3] = rng.random(models) < base * (1 + kept[:, 0])
    return outputs, truth


def check(made: Design, outputs: np.ndarray, fit: Fit, errors: str) -> None:
    """OLS errors against the formula, on dense matrices, before any figure is printed."""
    x = np.asarray(made).astype(float)
    x -= x.mean(0)
    inverse = np.linalg.pinv(x)
    hat = x @ inverse + 1 / len(x)
    left = outputs - hat @ outputs
    if errors == "robust":
        expected = np.sqrt((inverse**2 / (1 - np.diag(hat))) @ left**2)
    elif made.pairs:
        return
    else:
        noise = (left**2).sum(0) / (len(x) - 1 - np.linalg.matrix_rank(x))
        expected = np.sqrt(np.outer((inverse**2).sum(1), noise))
    np.testing.assert_allclose(fit.stderr[:, :3], expected[:, :3], rtol=1e-4)


def measure(
    designs: int, sizes: Any = SIZES, methods: Any = METHODS, errors: Any = ("auto", "classical")
) -> list[dict]:
    rows = []
    for groups, models, alpha in sizes:
        found: dict[tuple[str, str], list[np.ndarray]] = {}
        start = time.process_time()
        for seed in range(designs):
            made = draw(groups, models, alpha, seed)
            outputs, truth = simulate(made, np.random.default_rng([seed, groups, models, 1]))
            for method in methods:
                for word in errors:
                    if word == "classical" and made.alpha == 0.5:
                        continue
                    fit = influences(made, outputs, method, errors=word)
                    if seed == 0 and method == "ols":
                        check(made, outputs, fit, fit.errors)
                    reach = special.stdtrit(fit.df, 0.975) * fit.stderr
                    inside = np.where(np.isnan(reach), np.nan, np.abs(fit.unbiased - truth) <= reach)
                    many = np.stack([inside[0], inside[1:].mean(0), reach[0], reach[1:].mean(0)])
                    found.setdefault((method, word), []).append(many)
        for (method, word), parts in found.items():
            mean = np.nanmean(parts, axis=0)
            lost = np.isnan(np.stack(parts)[:, 0]).sum(0)
            for j, kind in enumerate(KINDS):
                row = {"case": f"K {groups}, m {models}, alpha {alpha}", "alpha": alpha, "groups": groups}
                row |= {"models": models, "kind": kind, "method": method, "errors": word, "designs": designs}
                row |= {"special": mean[0, j], "others": mean[1, j], "reach": mean[2, j], "reach of others": mean[3, j]}
                rows.append({**row, "without interval": int(lost[j])})
        print(f"{groups} {models} {alpha}: {time.process_time() - start:.0f} s of processor time", flush=True)
    return rows


def table(rows: list[dict]) -> list[str]:
    """A line for each size, method and kind of noise: coverage of the special group and of the others, in per cent."""
    heads = ["masks", "method", "errors"] + [f"{kind}: the group, others" for kind in KINDS]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    keys = dict.fromkeys((r["groups"], r["models"], r["alpha"], r["method"], r["errors"]) for r in rows)
    for key in keys:
        same = {r["kind"]: r for r in rows if (r["groups"], r["models"], r["alpha"], r["method"], r["errors"]) == key}
        groups, models, alpha, method, word = key
        masks = f"K {groups}, m {models}, " + ("foldover" if alpha is None else f"alpha {alpha:g}")
        cells = [f"{100 * same[kind]['special']:.1f}, {100 * same[kind]['others']:.1f}" for kind in KINDS]
        lines.append("| " + " | ".join([masks, method, word, *cells]) + " |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--designs", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="write every number here")
    parser.add_argument("--table", type=Path, help="a markdown file whose table is written again")
    given = parser.parse_args()
    rows = measure(given.designs)
    lines = table(rows)
    print("\n".join(lines))
    if given.table:
        write(given.table, "coverage", lines, "bench/coverage.py")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
