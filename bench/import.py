"""An ensemble that was trained elsewhere: how long `pydt import` and `pydt report` take, and their peak memory.

`python bench/import.py [small] [large] --json FILE`. Parts: `small`, 2,000 models x 100 groups x 10,000 examples, and
`large`, 10,000 x 1,000 x 10,000, float16 outputs in a memory map, classes for the examples. Each command in a process
of its own, as users start it; elapsed and processor seconds, and peak resident memory, which counts pages of the map.
The influences of the report are checked against least squares in float64 before they are told.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

SIZES = {"small": (2_000, 100, 10_000), "large": (10_000, 1_000, 10_000)}
_STEP = 500  # rows of outputs that are made at once


def make(folder: Path, models: int, groups: int, examples: int) -> np.ndarray:
    """Write masks.npy, outputs.npy and labels.npy; the mean output of each model over the score half, float64."""
    rng = np.random.default_rng(0)
    masks = rng.random((models, groups), dtype=np.float32) < 0.5
    slopes = (rng.normal(size=(groups, 1)) + rng.normal(size=(groups, examples))).astype(np.float32) / 8
    outputs = np.lib.format.open_memmap(folder / "outputs.npy", "w+", np.float16, (models, examples))
    means = []
    for start in range(0, models, _STEP):
        part = masks[start : start + _STEP].astype(np.float32) @ slopes
        outputs[start : start + _STEP] = part + rng.normal(size=part.shape).astype(np.float32)
        means.append(outputs[start : start + _STEP, ::2].mean(1, dtype=np.float64))
    outputs.flush()
    np.save(folder / "masks.npy", masks)
    np.save(folder / "half.npy", np.arange(examples) % 2)
    np.save(folder / "labels.npy", np.arange(examples) // 2 % 10)
    return np.linalg.lstsq(np.column_stack([np.ones(models), masks]), np.concatenate(means), rcond=None)[0][1:]


def timed(*arguments: object) -> tuple[float, float, float]:
    """Elapsed and processor seconds, and peak memory in MB, of a command."""
    start = time.perf_counter()
    command = [str(Path(sys.executable).with_name("pydt")), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"pydt {arguments[0]} failed")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def measured(size: str, folder: Path) -> list[dict[str, Any]]:
    expected = make(folder, *SIZES[size])
    options = ["--examples", folder / "labels.npy", "--half", folder / "half.npy", "--dir", folder / "store"]
    jobs = {
        "import": ["import", folder / "masks.npy", folder / "outputs.npy", *options],
        "report": ["report", folder / "store"],
    }
    cases = []
    for name, arguments in jobs.items():
        elapsed, processor, memory = timed(*arguments)
        case = "{}, {:,} models x {:,} groups x {:,} examples".format(name, *SIZES[size])
        cases.append({"case": case, "seconds": elapsed, "processor_s": processor, "peak_mb": memory})
    found = json.loads((folder / "store" / "results.json").read_text())
    values = np.array([group["value"] for group in found["groups"]])
    error = float(np.abs(values - expected).max() / np.abs(expected).max())
    if not error < 1e-5:
        raise SystemExit(f"influences differ by {error:.2g}")
    return [{**case, "checked": True} for case in cases]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("sizes", nargs="*", choices=[*SIZES, []], default=[])
    parser.add_argument("--json", type=Path, help="where to write the list of cases")
    options = parser.parse_args()
    cases = []
    for size in options.sizes or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            cases += measured(size, Path(folder))
            shutil.rmtree(Path(folder) / "store")
    for case in cases:
        print(
            ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{value}" for name, value in case.items())
        )
    if options.json:
        options.json.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
