"""The core against what one would write without it: `python bench/core.py --json FILE`.

One thread each. Both sides of a case run in this process, in turns, and the median of the repeats counts; a case is
timed only after its result has agreed with the peer's, or with a float64 reference where the peer is float32. Prints
the spread, too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch start their pools
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch

from pydt import _core

Case = dict[str, Any]


def in_turns(ours: Callable[[], object], peer: Callable[[], object], repeats: int) -> tuple[list[float], list[float]]:
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for side, call in zip(times, (ours, peer), strict=True):
            start = time.perf_counter()
            call()
            if turn:  # the first turn warms caches
                side.append(time.perf_counter() - start)
    return times


def compare(
    case: str, peer: str, ours_call: Callable[[], object], peer_call: Callable[[], object], repeats: int
) -> Case:
    ours, theirs = in_turns(ours_call, peer_call, repeats)
    a, b = statistics.median(ours), statistics.median(theirs)
    spread = [f"({min(times):.5f}-{max(times):.5f})" for times in (ours, theirs)]
    print(f"{case:<46} {a:9.5f} s {spread[0]}   {peer} {b:9.5f} s {spread[1]}   {b / a:6.1f}x")
    return {"case": case, "ours_s": a, "peer": peer, "peer_s": b, "ratio": b / a, "checked": True}


def fastest_blas() -> None:
    """Start again under the OpenBLAS core type that multiplies fastest here, so that peers get the best that there is:
    neither its own choice nor one that the environment sets is always that."""
    if "PYDT_BENCH_BLAS" in os.environ:  # chosen before
        return
    code = (
        "import numpy as np, time; a = np.ones((1000, 3000), 'f'); b = np.ones((3000, 1000), 'f'); a @ b; t = []\n"
        "for _ in range(5):\n s = time.perf_counter(); a @ b; t.append(time.perf_counter() - s)\n"
        "print(min(t))"
    )
    times: dict[str, float] = {}
    for kind in ("", "Haswell", "Zen", "SkylakeX") * 3:  # in turns: other jobs slow down some of them
        env = os.environ | {"OPENBLAS_CORETYPE": kind}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        if done.returncode == 0:  # a core type that this processor cannot run is killed
            times[kind] = min(times.get(kind, np.inf), float(done.stdout))
    best = min(times, key=lambda kind: times[kind])
    print("OpenBLAS core types, s:", {kind or "its own choice": round(t, 4) for kind, t in times.items()})
    os.environ |= {"OPENBLAS_CORETYPE": best, "PYDT_BENCH_BLAS": best or "its own choice"}
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.argv])


def gather(name: str, shape: tuple[int, int, int, int], pad: int, channels_last: bool, repeats: int) -> Case:
    """Ours in batches of 512. The peer: one index_select over the pixels of images padded beforehand, the fastest torch
    formulation we know; its places are drawn by our generator, outside of its time."""
    rng = np.random.default_rng(0)
    count, height, width, channels = shape
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    batches = [rng.integers(0, count, 512) for _ in range(10)]
    mean, std = np.full(channels, 0.45, np.float32), np.full(channels, 0.25, np.float32)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty((512, channels, height, width)).contiguous(memory_format=layout)

    padded = torch.nn.functional.pad(torch.from_numpy(images), (0, 0, pad, pad, pad, pad))
    tall, wide = height + 2 * pad, width + 2 * pad
    pixels = padded.reshape(-1, channels)
    scale, bias = torch.from_numpy(1 / (255 * std)), torch.from_numpy(-mean / std)
    y, x = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
    placed = []
    for index in batches:
        bits = _core.random_bits(1, 2 << 8 | 2, index)
        low, high = bits & 0xFFFFFFFF, bits >> 32
        n = 2 * pad + 1
        top, left = (low * n >> 32).astype(np.int64), ((high >> 1) * n >> 31).astype(np.int64)
        placed.append([torch.from_numpy(v) for v in (index, top, left, (high & 1).astype(bool))])

    def ours() -> None:
        for index in batches:
            _core.gather(images, index, index, out.numpy(), mean, std, pad, True, 1, 2, 1)

    def torch_batch(index: torch.Tensor, top: torch.Tensor, left: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
        column = torch.where(flip[:, None, None], width - 1 - x, x) + left[:, None, None]
        row = index[:, None, None] * tall + y + top[:, None, None]
        batch = pixels.index_select(0, (row * wide + column).reshape(-1)).reshape(-1, height, width, channels)
        return batch.float().mul_(scale).add_(bias).permute(0, 3, 1, 2).contiguous(memory_format=layout)

    def peer() -> None:
        for places in placed:
            torch_batch(*places)

    for index, places in zip(batches, placed, strict=True):
        _core.gather(images, index, index, out.numpy(), mean, std, pad, True, 1, 2, 1)
        torch.testing.assert_close(out, torch_batch(*places), rtol=0, atol=2e-6)
    result = compare(f"gather {name}", "torch index_select", ours, peer, repeats)
    print(f"{'':<46} {5120 / result['ours_s'] / 1e6:9.3f} M images/s")
    return result


def moments(models: int, groups: int, outputs: int, repeats: int) -> list[Case]:
    """Subset sums against numpy's float32 product of the unpacked masks; the Gram matrix, from packed masks, against
    the same product of the masks. Outside of the time: unpacking the masks and regrouping them for subset sums, which
    is done once for all outputs."""
    rng = np.random.default_rng(0)
    masks = rng.random((models, groups)) < 0.5
    packed, wide = _core.pack(masks), masks.astype(np.float32)
    values = rng.normal(size=(models, outputs)).astype(np.float32)
    halves, shift, codes = values.astype(np.float16), np.zeros(outputs), _core.codes(packed, groups)
    some = slice(0, outputs, max(1, outputs // 20))
    for y in (values, halves):
        reference = masks.T.astype(np.float64) @ y[:, some].astype(np.float64)
        np.testing.assert_allclose(_core.subset_sums(codes, y, shift, 1)[:, some], reference, rtol=0, atol=1e-3)
        sums, step = _core.subset_sums_int16(codes, y, shift, 1)
        error = (sums[:, some] - reference) / step[some]
        assert np.abs(error).max() < 6 * np.sqrt(models / 24), "half of the models, each off by 1/sqrt(12) of a step"
    np.testing.assert_allclose(
        (wide.T @ values)[:, some], masks.T @ values[:, some].astype(np.float64), rtol=0, atol=1e-2
    )
    np.testing.assert_array_equal(_core.gram(packed, groups, 1), wide.T @ wide)

    size = f"K={groups} m={models}"
    return [
        compare(
            f"subset sums {size} n={outputs} f32",
            "numpy matmul",
            lambda: _core.subset_sums(codes, values, shift, 1),
            lambda: wide.T @ values,
            repeats,
        ),
        compare(
            f"subset sums {size} n={outputs} f16",
            "numpy matmul",
            lambda: _core.subset_sums(codes, halves, shift, 1),
            lambda: wide.T @ halves.astype(np.float32),
            repeats,
        ),
        compare(
            f"16-bit subset sums {size} n={outputs} f32",
            "numpy matmul",
            lambda: _core.subset_sums_int16(codes, values, shift, 1),
            lambda: wide.T @ values,
            repeats,
        ),
        compare(
            f"Gram matrix {size}", "numpy matmul", lambda: _core.gram(packed, groups, 1), lambda: wide.T @ wide, repeats
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the list of cases")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of the outputs: to see that it runs")
    options = parser.parse_args()
    fastest_blas()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {_core.isa()}, numpy {np.__version__}, torch {torch.__version__}")
    cases = [
        gather("32x32x3 NCHW", (50_000, 32, 32, 3), 4, False, options.repeats),
        gather("32x32x3 channels_last", (50_000, 32, 32, 3), 4, True, options.repeats),
        gather("28x28 grey", (6_000, 28, 28, 1), 2, False, options.repeats),
        *moments(7540, 1000, 1000 if options.quick else 10_000, options.repeats),
    ]
    if options.json:
        options.json.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
