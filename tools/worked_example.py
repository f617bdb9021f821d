"""The numbers of docs/how-pydt-estimates.md: `python tools/worked_example.py` writes them between its markers.

`--check` only compares, and ends with 1 where the page says something else.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import pydt

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-pydt-estimates.md"
BEGIN, END = "<!-- numbers: tools/worked_example.py -->\n", "<!-- end of the numbers -->\n"
TRUTH = np.array([3.0, 2.0, 1.0, -1.0, -2.0] + [0.0] * 15)
MODELS, NOISE = 160, 2.5


def outputs_of(masks: np.ndarray, seed: int) -> np.ndarray:
    """Accuracy in points of models on these masks: the sum of what their groups add, and the noise of training."""
    noise = np.random.default_rng(np.random.Philox(seed)).standard_normal(len(masks))
    return 70 + masks @ TRUTH + NOISE * noise


def one_group(masks: np.ndarray, outputs: np.ndarray, group: int) -> list[str]:
    """The difference of means of one group, step by step, and what `influences` says of it."""
    kept = masks[:, group]
    n1, n0 = int(kept.sum()), int((~kept).sum())
    with_it, without = outputs[kept].mean(), outputs[~kept].mean()
    design = np.column_stack([np.ones(len(masks)), masks])
    left = outputs - design @ np.linalg.lstsq(design, outputs, rcond=None)[0]
    free = len(masks) - design.shape[1]
    residual = (left**2).sum() / free
    within = (((outputs[kept] - with_it) ** 2).sum() + ((outputs[~kept] - without) ** 2).sum()) / (len(masks) - 2)
    fit = pydt.influences(masks, outputs, "difference")
    c = 1 / n1 + 1 / n0
    return [
        f"- Group {group} was kept in {n1} models, mean {with_it:.2f}, and left out of {n0}, mean {without:.2f}: "
        f"`values[{group}]` = {with_it - without:+.2f} "
        f"(`influences`: {fit.values[group]:+.2f}; truth {TRUTH[group]:+.1f}).",
        f"- The regression on all 20 groups leaves a variance of s^2 = {residual:.2f} with {free} degrees of freedom "
        f"(truth {NOISE**2:.2f}); within the two halves it is T = {within:.2f}: the other groups differ there, too.",
        f"- Conditional on the masks the error is sqrt(c s^2) = {np.sqrt(c * residual):.3f}; over fresh masks it is "
        f"`stderr[{group}]` = {fit.stderr[group]:.3f}, near sqrt(c T) = {np.sqrt(c * within):.3f}, with "
        f"c = 1/{n1} + 1/{n0}.",
    ]


def table(masks: np.ndarray, outputs: np.ndarray) -> list[str]:
    fits = {method: pydt.influences(masks, outputs, method) for method in ("difference", "ols", "lasso")}
    lines = [
        "| group | truth | difference | OLS | q (OLS) | LASSO `values` | LASSO `unbiased` |",
        "|---|---|---|---|---|---|---|",
    ]
    for k in range(8):
        cells = [f"{fits[m].values[k]:+.2f} +- {fits[m].stderr[k]:.2f}" for m in ("difference", "ols")]
        cells += [f"{fits['ols'].q[k]:.3f}", f"{fits['lasso'].values[k]:+.2f}"]
        cells += [f"{fits['lasso'].unbiased[k]:+.2f} +- {fits['lasso'].stderr[k]:.2f}"]
        lines.append(f"| {k} | {TRUTH[k]:+.1f} | " + " | ".join(cells) + " |")
    value, stderr = fits["ols"].contrast(np.r_[np.ones(3) / 3, -np.ones(2) / 2, np.zeros(15)])
    zeros = [int((fits["lasso"].values[5:] == 0).sum()), int((fits["ols"].q[5:] < 0.05).sum())]
    return [
        *lines,
        "",
        f"(Groups 5 to 19 add nothing. The LASSO leaves {zeros[0]} of these 15 at exactly 0; {zeros[1]} of them have "
        f"q < 0.05 by OLS.)",
        "",
        f"Groups 0-2 against groups 3-4, as one contrast with the covariance of the errors: {value:+.2f} +- "
        f"{stderr:.2f} (truth {TRUTH[:3].mean() - TRUTH[3:5].mean():+.2f}).",
    ]


def repeated() -> list[str]:
    """A fold-over design, and masks that repeat, on outputs with an interaction of two groups."""
    half = pydt.design.design.foldover(20, MODELS, seed=3)
    masks = np.asarray(half)
    both = 3.0 * np.where(masks[:, 5] == masks[:, 6], 1, -1)
    pairs = pydt.influences(half, outputs_of(masks, 4) + both, "ols")
    apart = pydt.influences(masks, outputs_of(masks, 4) + both, "ols", clusters=np.arange(MODELS))
    return [
        f"- The same number of models by a fold-over design, and an interaction of 3 points between groups 5 and 6: "
        f"standard error {pairs.stderr[0]:.2f} from half-differences, where the interaction cancels, and "
        f"{apart.stderr[0]:.2f} where every row counts as a single one.",
    ]


def text() -> str:
    masks = np.asarray(pydt.design.design.bernoulli(20, MODELS, 0.5, seed=1))
    outputs = outputs_of(masks, 2)
    lines = [*one_group(masks, outputs, 0), *repeated(), "", *table(masks, outputs)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    old, after = rest.split(END)
    if check:
        sys.exit(0 if old == text() else f"{PAGE}: its numbers are not those of this version; run {__file__}")
    PAGE.write_text(before + BEGIN + text() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
