"""Do the stopping rules keep their promise, and when do they stop: `python bench/stopping.py --json FILE`.

Simulated experiments: outputs = masks x effects + noise, with fresh masks and fresh noise in every experiment. Nothing
is timed. Noise has variance 1 and is Gaussian, or the accuracy of a model on 25 images of which it gets 93 % right
(skewed, 26 values), or uneven: Gaussian, but twice as wide in the models that keep group 0.

    sign        Errors: the share of experiments in which any group without effect was ever decided, or one with the
                wrong sign. Rows: at which "sign k" stopped, k the groups that have an effect; beside it what a single
                look at a number of models fixed in advance needs for an 80 % chance to find all of them at level
                0.05 / groups each.
    stderr      Coverage: the share of 95 % intervals (value +- t x stderr) that hold the truth where the rule stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy starts its pool

import numpy as np
from scipy import special

from pydt import Design, StoppingRule, design, influences
from pydt.estimation import best_method
from pydt.estimation.stopping import always_valid

KINDS = ("random", "bernoulli", "foldover")
EACH = 50  # experiments that share their masks


def draw(kind: str, groups: int, models: int, alpha: float, seed: int) -> Design:
    if kind == "foldover":
        return design.foldover(groups, models, seed)
    return getattr(design, kind)(groups, models, alpha, seed)


def noise(kind: str, rng: np.random.Generator, masks: np.ndarray) -> np.ndarray:
    shape = (len(masks), EACH)
    if kind == "accuracy":
        return (rng.binomial(25, 0.93, shape) / 25 - 0.93) / np.sqrt(0.93 * 0.07 / 25)
    drawn = rng.standard_normal(shape)
    if kind == "uneven":
        wide = np.where(masks[:, :1], 2.0, 1.0)
        drawn *= wide / np.sqrt((wide**2).mean())
    return drawn


def decided(kind: str, outputs: str, effects: np.ndarray, models: int, alpha: float, runs: int) -> np.ndarray:
    """Rows at which each group was decided, signed by the sign that it got; inf: never. (groups, runs)."""
    groups, found = len(effects), []
    for seed in range(-(-runs // EACH)):
        made = draw(kind, groups, models, alpha, seed)
        masks, rng = np.asarray(made), np.random.default_rng([seed, groups, len(outputs)])
        y = masks @ effects[:, None] + noise(outputs, rng, masks)
        rule, when = StoppingRule("sign", count=1), np.full((groups, EACH), np.inf)
        for rows in rule.prefixes(made):
            fit = always_valid(made, np.arange(rows), y[:rows], rule.level)
            if fit is not None:
                new = (np.abs(fit[0]) > fit[1]) & np.isinf(when)
                when[new] = (rows * np.sign(fit[0]))[new]
        found.append(when)
    return np.concatenate(found, axis=1)


def fixed(kind: str, effects: np.ndarray, alpha: float) -> int:
    """Models, decided on in advance, for an 80 % chance to find all effects at level 0.05 / groups each."""
    groups = len(effects)
    size, count, pair = np.abs(effects).max(), int((np.abs(effects) > 0.1).sum()), 1 + (kind == "foldover")
    for models in range(pair * (groups + 4), 100_000, 2):
        df = models / pair - groups - (pair == 1)
        information = alpha * (1 - alpha) * (models if pair == 2 else models - groups)
        bound = special.stdtrit(df, 1 - 0.025 / groups)
        if special.ndtr(size * np.sqrt(information) - bound) ** count >= 0.8:
            return models
    raise ValueError("an effect too small")


def sign_cases(runs: int) -> Iterator[dict[str, Any]]:
    for groups, alpha, models in ((20, 0.4, 400), (62, 0.25, 620)):
        for kind in KINDS:
            share = 0.5 if kind == "foldover" else alpha
            for outputs in ("gaussian", "accuracy", "uneven"):
                when = decided(kind, outputs, np.zeros(groups), models, alpha, runs)
                error = float(np.isfinite(when).any(0).mean())
                case = {"rule": "sign 1", "design": kind, "groups": groups, "models": models, "outputs": outputs}
                yield case | {"effect": 0.0, "runs": runs, "error": error, "alpha": share}
            for size in (0.5, 1.0, 2.0):
                effects = np.zeros(groups)
                effects[:4] = size, -size, size, -size  # sum to zero: what masks of one size can say
                when = decided(kind, "accuracy", effects, models, alpha, runs // 2)
                wrong = (np.isfinite(when) & (np.sign(when) != np.sign(effects)[:, None])).any(0)
                rows = np.abs(when[:4]).max(0)
                case = {"rule": "sign 4", "design": kind, "groups": groups, "models": models, "outputs": "accuracy"}
                case |= {"effect": size, "runs": runs // 2, "error": float(wrong.mean()), "alpha": share}
                case |= {"stopped": float(np.isfinite(rows).mean()), "fixed": fixed(kind, effects, share)}
                early, half, late = (
                    None if np.isinf(part) else float(part)  # more than the plan has
                    for part in np.quantile(rows, (0.1, 0.5, 0.9), method="higher")
                )
                yield case | {"rows_10": early, "rows_50": half, "rows_90": late}


def stderr_cases(runs: int) -> Iterator[dict[str, Any]]:
    for kind in KINDS:
        for outputs in ("gaussian", "accuracy"):
            held: list[float] = []
            rows_at: list[int] = []
            groups, alpha, models, least = 20, 0.4, 400, 20
            for seed in range(-(-runs // EACH)):
                made = draw(kind, groups, models, alpha, seed)
                masks, rng = np.asarray(made), np.random.default_rng([seed, 7, len(outputs)])
                effects = rng.standard_normal(groups)
                effects -= effects.mean()
                y = masks @ effects[:, None] + noise(outputs, rng, masks)
                rule, open_runs = StoppingRule("stderr", size=0.25), np.ones(EACH, bool)
                for rows in rule.prefixes(made):
                    part = made.take(np.arange(rows))
                    fit = influences(part, y[:rows][:, open_runs], best_method(part))
                    free = np.median(np.broadcast_to(fit.df, fit.stderr.shape), axis=0)
                    stop = (fit.stderr.max(0) < rule.size) & (free >= least)
                    quantile = special.stdtrit(fit.df, 0.975)
                    held += (np.abs(fit.unbiased - effects[:, None]) <= quantile * fit.stderr)[:, stop].mean(0).tolist()
                    rows_at += [rows] * int(stop.sum())
                    open_runs[np.flatnonzero(open_runs)[stop]] = False
                    if not open_runs.any():
                        break
            case = {"rule": "stderr < 0.25", "design": kind, "groups": groups, "models": models, "outputs": outputs}
            case |= {"runs": len(held), "coverage": float(np.mean(held)), "rows_50": float(np.median(rows_at))}
            yield case


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="where to write the cases")
    parser.add_argument(
        "--runs", type=int, default=2000, help="experiments a case (half of them with effects, a fifth for stderr)"
    )
    given = parser.parse_args()
    cases = []
    for case in itertools.chain(sign_cases(given.runs), stderr_cases(given.runs // 5)):
        shown = {name: f"{value:g}" if isinstance(value, float) else value for name, value in case.items()}
        print("  ".join(f"{name} {value}" for name, value in shown.items()), flush=True)
        cases.append(case)
    if given.json:
        given.json.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
