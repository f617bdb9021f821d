"""Influence regression against what one would use without pydt: `python bench/influence.py [CASE ...] --json FILE`.

One thread each. Both sides of a case run in one process, in turns, and the median of the repeats counts; a case is
timed only after its result has agreed with a reference in float64 (or with exact integers). Memory and the two-thread
case run in processes of their own. How to read the table, and what the floor of each case is: README.md beside this
file.

Sizes: S = 200 groups, 1,500 models; L = 1,000 groups, 7,540 models; E (example level) = 20,000 groups, 30,000 models,
64 outputs. Masks are random halves; truths have 30 weights of exponentially falling size and random sign per output,
R2 = 0.5. The LASSO is timed on a dense truth, too (Gaussian weights of all groups, R2 = 0.5), and beside each of its
times stands what the fit is worth: the correlation of its coefficients with the truth, and the share of outputs for
which all of them are zero.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch start their pools
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
from core import Case, compare, fastest_blas

import pydt
from pydt import _core

SIZES = {"S": (200, 1500), "L": (1000, 7540), "E": (20_000, 30_000)}
PATH = np.geomspace(1, 0.01, 100)
PATIENCE = 3  # as pydt.influences


def problem(
    groups: int, models: int, outputs: int, dtype: type = np.float32, dense: bool = False
) -> tuple[Any, Any, npt.NDArray[np.float32]]:
    """Masks, bool (models, groups), outputs (models, outputs) and the truth (groups, outputs)."""
    rng = np.random.default_rng(0)
    masks = rng.random((models, groups), dtype=np.float32) < 0.5
    weights = np.zeros((groups, outputs), np.float32)
    size = 0.9 ** np.arange(30)
    if dense:
        weights[:] = rng.standard_normal(weights.shape)
    for j in range(outputs if not dense else 0):
        weights[rng.choice(groups, 30, replace=False), j] = size * rng.choice([-1, 1], 30)
    signal = np.sqrt((weights**2).sum(0) / 4)
    made = np.empty((models, outputs), dtype)
    for row in range(0, models, 1000):
        part = slice(row, row + 1000)
        noise = rng.standard_normal((len(masks[part]), outputs), dtype=np.float32)
        made[part] = masks[part].astype(np.float32) @ weights + signal * noise + 1
    return masks, made, weights


# ---- one pass: differences, subset sums, Gram matrix ---------------------------------------------------------------


def plain_difference(wide: npt.NDArray[Any], outputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Two means per group by one product: what a careful user writes in numpy. No standard errors."""
    count, sums = wide.sum(0)[:, None], wide.T @ outputs.astype(np.float32, copy=False)
    return sums / count - (outputs.sum(0, dtype=np.float32) - sums) / (len(wide) - count)


def torch_difference(wide: Any, outputs: Any) -> Any:
    count, sums = wide.sum(0)[:, None], wide.T @ outputs.float()
    return sums / count - (outputs.float().sum(0) - sums) / (len(wide) - count)


def check_difference(masks: npt.NDArray[Any], outputs: npt.NDArray[Any], fit: pydt.estimation.influence.Fit) -> None:
    """Values against float64 means; errors against the residual variance of least squares on all groups."""
    some = np.linspace(0, outputs.shape[1] - 1, 5).astype(int)
    y = outputs[:, some].astype(np.float64)
    x = masks.astype(np.float64)
    with_it = x.sum(0)[:, None]
    sums = x.T @ y
    values = sums / with_it - (y.sum(0) - sums) / (len(x) - with_it)
    np.testing.assert_allclose(fit.values[:, some], values, rtol=0, atol=1e-5)
    design = np.column_stack([np.ones(len(x)), x])
    left = y - design @ np.linalg.solve(design.T @ design, design.T @ y)
    noise = (left**2).sum(0) / (len(x) - design.shape[1])
    np.testing.assert_allclose(fit.noise[some], noise, rtol=1e-4)


def difference(repeats: int, outputs: int = 10_000) -> list[Case]:
    import torch

    groups, models = SIZES["L"]
    masks, y, _ = problem(groups, models, outputs)
    packed, wide = _core.pack(masks), masks.astype(np.float32)
    wide_t, size = torch.from_numpy(wide), f"{groups} x {models} x {outputs}"
    cases = []
    for name, values in (("f32", y), ("f16", y.astype(np.float16))):
        check_difference(masks, values, pydt.influences(packed, values, groups=groups))
        values_t = torch.from_numpy(values)
        for peer, call in (
            ("numpy, no errors", lambda values=values: plain_difference(wide, values)),
            ("torch, no errors", lambda values_t=values_t: torch_difference(wide_t, values_t)),
        ):
            cases.append(
                compare(
                    f"difference + errors, {name}, {size}",
                    peer,
                    lambda values=values: pydt.influences(packed, values, groups=groups),
                    call,
                    repeats,
                )
            )
    return cases


def sums(repeats: int) -> list[Case]:
    """The kernels alone: subset sums in float32 and int16, at size L and at the example level; the Gram matrix."""
    cases = []
    for name, outputs in (("L", 2048), ("E", 64)):
        groups, models = SIZES[name]
        masks, y, _ = problem(groups, models, outputs)
        packed, wide, shift = _core.pack(masks), masks.astype(np.float32), y[0].astype(np.float64)
        codes = _core.codes(packed, groups)
        some = np.linspace(0, groups - 1, 50).astype(int)
        exact = masks[:, some].astype(np.float64).T @ (y.astype(np.float64) - shift)
        scale = np.abs(exact).max()
        np.testing.assert_allclose(_core.subset_sums(codes, y, shift, 1)[some], exact, rtol=0, atol=1e-6 * scale)
        coarse, step = _core.subset_sums_int16(codes, y, shift, 1)
        bound = step * models / 2
        assert np.all(np.abs(coarse[some] - exact) <= bound), "int16 sums are off by more than their rounding"
        size = f"{groups} x {models} x {outputs}"
        for kind, call in (("f32", _core.subset_sums), ("int16", _core.subset_sums_int16)):
            cases.append(
                compare(
                    f"subset sums, {kind}, {size}",
                    "numpy matmul",
                    lambda call=call, codes=codes, y=y, shift=shift: call(codes, y, shift, 1),
                    lambda wide=wide, y=y: wide.T @ y,
                    repeats,
                )
            )
        if name == "L":
            np.testing.assert_array_equal(_core.gram(packed, groups, 1), wide.T @ wide)
            cases.append(
                compare(
                    f"Gram matrix, {groups} x {models}, packed",
                    "numpy matmul",
                    lambda packed=packed, groups=groups: _core.gram(packed, groups, 1),
                    lambda wide=wide: wide.T @ wide,
                    repeats,
                )
            )
            cases.append(
                compare(
                    f"pack + codes + Gram, {groups} x {models}, bytes",
                    "numpy matmul",
                    lambda masks=masks, groups=groups: (
                        _core.codes(_core.pack(masks), groups),
                        _core.gram(_core.pack(masks), groups, 1),
                    ),
                    lambda wide=wide: wide.T @ wide,
                    repeats,
                )
            )
    return cases


# ---- penalised paths -----------------------------------------------------------------------------------------------


class Split:
    """Centred statistics of four fifths of the models, and of the held-out fifth about their means."""

    def __init__(self, masks: npt.NDArray[Any], outputs: npt.NDArray[Any]) -> None:
        models = len(masks)
        cut = models - models // 5
        x, y = masks.astype(np.float64), outputs.astype(np.float64)
        # column-major, as scikit-learn and celer want them: they would copy anything else in every call
        self.x = np.asfortranarray(x[:cut] - x[:cut].mean(0))
        self.y = np.asfortranarray(y[:cut] - y[:cut].mean(0))
        self.held_x, self.held_y = x[cut:] - x[:cut].mean(0), y[cut:] - y[:cut].mean(0)
        self.rows = cut
        self.gram, self.cross = self.x.T @ self.x / cut, self.x.T @ self.y / cut
        self.energy = (self.y**2).sum(0) / cut
        self.whole_gram = np.ascontiguousarray(self.gram * cut)
        self.held_gram, self.held_cross = self.held_x.T @ self.held_x, self.held_x.T @ self.held_y
        self.held_energy = (self.held_y**2).sum(0)

    def path(self, outputs: slice, patience: int) -> Any:
        """Ours: (error, values, gap, nonzeros) of some outputs."""
        return _core.lasso_path(
            self.gram,
            np.ascontiguousarray(self.cross[:, outputs]),
            self.energy[outputs],
            self.held_gram,
            np.ascontiguousarray(self.held_cross[:, outputs]),
            self.held_energy[outputs],
            PATH,
            tolerance=1e-5,
            patience=patience,
            held_rows=len(self.held_x),
        )

    def penalty(self, j: int) -> npt.NDArray[np.float64]:
        return np.abs(self.cross[:, j]).max() * PATH

    def held_error(self, values: npt.NDArray[Any], j: int) -> npt.NDArray[Any]:
        """(steps,) of coefficients (groups, steps)."""
        return ((self.held_y[:, [j]] - self.held_x @ values) ** 2).sum(0)


def sklearn_path(split: Split, outputs: range, steps: int) -> list[Any]:
    from sklearn.linear_model import lasso_path

    found = []
    for j in outputs:
        alphas = split.penalty(j)[:steps]
        values = lasso_path(
            split.x,
            split.y[:, j],
            alphas=alphas,
            precompute=split.whole_gram,
            Xy=np.ascontiguousarray(split.cross[:, j]) * split.rows,
            check_input=False,  # its fastest form: nothing is checked or copied
            copy_X=False,
        )[1]
        found.append(split.held_error(values, j))
    return found


def adelie_path(split: Split, outputs: range, steps: list[int]) -> list[Any]:
    import adelie

    return [
        adelie.gaussian_cov(
            np.asfortranarray(split.gram),
            split.cross[:, j].copy(),
            lmda_path=split.penalty(j)[:stop],
            early_exit=False,
            progress_bar=False,
        ).betas
        for j, stop in zip(outputs, steps, strict=True)
    ]


def celer_path(split: Split, outputs: range, steps: list[int]) -> list[Any]:
    import celer

    return [
        celer.celer_path(split.x, split.y[:, j].copy(), "lasso", alphas=split.penalty(j)[:stop], tol=1e-4)[1]
        for j, stop in zip(outputs, steps, strict=True)
    ]


def check_path(split: Split, few: range) -> list[int]:
    """Our errors along the full path against scikit-learn's, and the optimality of our choice; the steps chosen."""
    error, values, gap, _ = split.path(slice(0, len(few)), 0)
    assert gap.max() <= 1e-5, f"relative duality gap {gap.max()}"
    for j, theirs in zip(few, sklearn_path(split, few, len(PATH)), strict=True):
        np.testing.assert_allclose(error[:, j], theirs, rtol=2e-3)
        penalty = split.penalty(j)[error[:, j].argmin()]
        slope = split.cross[:, j] - split.gram @ values[:, j].astype(np.float64)
        assert np.abs(slope).max() <= penalty * 1.02, "an inactive group correlates more with the residual than allowed"
        active = values[:, j] != 0
        np.testing.assert_allclose(slope[active], penalty * np.sign(values[active, j]), atol=0.02 * penalty)
    early = split.path(slice(0, len(few)), PATIENCE)[0]
    return [int(column.argmin()) + 1 for column in early.T]


def per_output(case: Case, ours: int, peer: int) -> Case:
    """The same case per output: the two sides solve different numbers of them."""
    ours_s, peer_s = case["ours_s"] / ours, case["peer_s"] / peer
    print(f"{'':<46} {1e3 * ours_s:9.4f} ms an output{'':<12} {1e3 * peer_s:9.4f} ms   {peer_s / ours_s:6.1f}x")
    return {**case, "ours_s": ours_s, "peer_s": peer_s, "ratio": peer_s / ours_s}


def worth(found: Any, truth: npt.NDArray[Any]) -> dict[str, float]:
    """Of a path: mean correlation with the truth (0 where all coefficients are), and the share that is all zero."""
    a, b = (part - part.mean(0) for part in (found[1].astype(np.float64), truth.astype(np.float64)))
    size = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    close = np.divide((a * b).sum(0), size, out=np.zeros_like(size), where=size > 0)
    return {"correlation": float(close.mean()), "all_zero": float((found[1] == 0).all(0).mean())}


def lasso(repeats: int) -> list[Case]:
    cases = []
    for name, many, few, dense in (
        ("S", 96, range(4), False),
        ("L", 48, range(2), False),
        ("S", 96, range(4), True),
        ("L", 24, range(2), True),
    ):
        groups, models = SIZES[name]
        masks, outputs, truth = problem(groups, models, many, dense=dense)
        split = Split(masks, outputs)
        chosen = check_path(split, few)
        ours: dict[str, Callable[[], object]] = {
            "early stop": lambda split=split: split.path(slice(None), PATIENCE),
            "100 penalties": lambda split=split: split.path(slice(None), 0),
        }
        peers: list[tuple[str, str, Callable[[], object]]] = [
            (how, "scikit-learn, Gram, 100", lambda split=split, few=few: sklearn_path(split, few, 100)) for how in ours
        ]
        others = {"adelie, Gram, to the same penalty": adelie_path, "celer, to the same penalty": celer_path}
        for peer, path in others.items():
            try:
                path(split, few, [1] * len(few))
            except ImportError as error:
                print(f"{peer}: left out, {error}: see README.md")
                continue
            peers.append(("early stop", peer, lambda path=path, split=split, few=few, c=chosen: path(split, few, c)))
        for how, peer, call in peers:
            kind = "dense" if dense else "sparse"
            case = compare(f"LASSO, {how}, {kind}, {groups} x {models}", peer, ours[how], call, repeats)
            value = worth(ours[how](), truth)
            cases.append({**per_output(case, many, len(few)), **value})
            print(f"{'':<46} correlation {value['correlation']:.3f}, {100 * value['all_zero']:.1f} % all zero")
    return cases


# ---- whole: from a memory map to de-biased weights, in a process of its own ------------------------------------------


def anonymous_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


def whole(folder: str, method: str, threads: int) -> dict[str, float]:
    """Seconds and peak anonymous memory of one `influences` on the stored problem. Pages of the memory map are not
    counted: the system drops them when it wants to."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    packed = np.load(Path(folder) / "packed.npy")
    y = np.load(Path(folder) / "outputs.npy", mmap_mode="r")
    groups = SIZES["L"][0]
    pydt.influences(packed[:2000], y[:2000, :8], method, groups=groups)  # imports and warm-up
    before, peak, over = anonymous_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            peak[0] = max(peak[0], anonymous_mb())

    thread = threading.Thread(target=watch)
    thread.start()
    start = time.perf_counter()
    fit = pydt.influences(packed, y, method, groups=groups)
    seconds = time.perf_counter() - start
    over.set()
    thread.join()
    result = sum(v.nbytes for v in (fit.values, fit.stderr) + ((fit.unbiased,) if method == "lasso" else ())) / 2**20
    gap = float(np.max(fit.gap)) if fit.gap is not None else 0.0
    return {"seconds": seconds, "peak_mb": peak[0] - before, "result_mb": result, "gap": gap}


def memory(repeats: int, outputs: int = 10_000) -> list[Case]:
    groups, models = SIZES["L"]
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        masks, y, _ = problem(groups, models, outputs, np.float16)
        np.save(Path(folder) / "packed.npy", _core.pack(masks))
        np.save(Path(folder) / "outputs.npy", y)
        check_difference(masks, y[:, :5], pydt.influences(masks, y[:, :5]))
        del masks, y
        threads = min(2, len(os.sched_getaffinity(0)))
        for method in ("difference", "ols", "lasso"):
            runs: dict[int, list[dict[str, float]]] = {1: [], threads: []}
            for _ in range(max(1, repeats // 2)):
                for count, found in runs.items():
                    call = [sys.executable, __file__, "--whole", folder, method, str(count)]
                    env = {**os.environ, **{p: str(count) for p in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}}
                    done = subprocess.run(call, env=env, check=True, capture_output=True, text=True)
                    found.append(json.loads(done.stdout.splitlines()[-1]))
            one, two = (sorted(runs[c], key=lambda r: r["seconds"])[len(runs[c]) // 2] for c in (1, threads))
            size = f"{groups} x {models} x {outputs}"
            ratio = one["seconds"] / two["seconds"]
            print(
                f"whole {method}, f16 map, {size:<22} {one['seconds']:9.2f} s   {threads} threads {ratio:.2f}x faster"
            )
            print(f"{'':<46} result {one['result_mb']:.0f} MB, peak {one['peak_mb']:.0f} MB, gap {one['gap']:.1e}")
            cases.append(
                {
                    "case": f"whole {method}, f16 map, {size}",
                    "ours_s": two["seconds"],
                    "peer": f"one thread against {threads}",
                    "peer_s": one["seconds"],
                    "ratio": ratio,
                    "checked": True,
                    "result_mb": one["result_mb"],
                    "peak_mb": one["peak_mb"],
                    "gap": one["gap"],
                }
            )
    return cases


CASES: dict[str, Callable[[int], list[Case]]] = {
    "sums": sums,
    "difference": difference,
    "lasso": lasso,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"some of {', '.join(CASES)}")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--whole", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.whole:
        folder, method, threads = arguments.whole
        print(json.dumps(whole(folder, method, int(threads))))
        return
    unknown = [name for name in arguments.cases if name not in CASES]
    if unknown:
        parser.error(f"unknown case {', '.join(unknown)}; there are {', '.join(CASES)}")
    fastest_blas()
    print(f"core {_core.isa()}, numpy {np.__version__}, one thread, medians of {arguments.repeats}")
    cases = [case for name in arguments.cases for case in CASES[name](arguments.repeats)]
    if arguments.json:
        arguments.json.write_text(json.dumps(cases, indent=1))


if __name__ == "__main__":
    main()
