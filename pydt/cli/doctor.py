"""Self-checks of an installation: the core's numbers, and which parts are there."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pydt.base import available
from pydt.cli.arguments import interruptible


@dataclass(frozen=True)
class Check:
    """One line of `pydt doctor`; `ok` is False only for what pydt needs."""

    name: str
    ok: bool
    detail: str


def checks() -> Iterator[Check]:
    """Run every check; an exception is a failure."""
    for name, check in _CHECKS.items():
        try:
            ok, detail = check()
        except Exception as error:
            ok, detail = False, f"{type(error).__name__}: {error}"
        yield Check(name, ok, detail)


def deep_checks(models: int = 192, retrain: int = 5, seed: int = 0, workers: int | None = None) -> Iterator[Check]:
    """Run a small laboratory (`pydt.analyses.laboratory`) in a temporary folder: one check for each plant.

    Args:
        models, seed: of the plan; with seed 0, 192 models find all plants, with others they may miss one.
        retrain: trainings of each arm of failure debugging; 0 leaves it out.
        workers: processes; None: one per core.
    """
    from pydt.analyses import laboratory as lab
    from pydt.ensemble import run

    made = lab.planted(seed)
    plan = lab.plan(made, models, seed)
    groups = ", ".join(f"{number} {kind}" for kind, number in lab.KINDS.items())
    yield Check("planted", True, f"{len(made.kinds)} groups of {lab.EACH} images: {groups}")
    with tempfile.TemporaryDirectory() as folder:
        store = run(plan, folder, workers=workers)
        for found in lab.findings(store, made, plan, retrain=retrain, workers=workers):
            yield Check(found.name, found.ok, found.detail)


def _instruction_set() -> tuple[bool, str]:
    from pydt import _core

    return True, f"{_core.isa()} (this machine and build offer: {', '.join(_core.isas())})"


def _threads() -> tuple[bool, str]:
    return True, f"{available()} cores to use"


def _statistics() -> tuple[bool, str]:
    """Gram matrix and subset sums against float64 numpy, for one thread and several."""
    from pydt import _core

    random = np.random.default_rng(0)
    masks, outputs = random.random((301, 67)) < 0.5, random.standard_normal((301, 29)).astype(np.float32)
    packed, shift = _core.pack(masks), outputs[0].astype(np.float64)
    exact, wide = masks.astype(np.float64), outputs.astype(np.float64) - shift
    sums = [_core.subset_sums(_core.codes(packed, 67), outputs, shift, threads) for threads in (1, 3)]
    good = (
        np.array_equal(_core.gram(packed, 67, 2), exact.T @ exact)
        and bool(np.all(np.abs(sums[0] - exact.T @ wide) <= 2**-20 * np.abs(wide).sum(0)))  # sums in float32
        and np.array_equal(sums[0], sums[1])
    )
    return (
        good,
        "equal to float64 numpy, same bits for 1 and 3 threads" if good else "WRONG numbers: do not use this build",
    )


def _blas() -> tuple[bool, str]:
    """Which kernels OpenBLAS multiplies by: numpy's and scipy's products, and parts of pydt's regressions."""
    from threadpoolctl import threadpool_info

    from pydt import _core

    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    if not libraries:
        return True, "none that threadpoolctl knows"
    told = []
    for library in libraries:
        name, kernels = f"{library['internal_api']} {library['version']}", library.get("architecture")
        told.append(name + (f", {kernels} kernels" if kernels else "") + f", {library['num_threads']} threads")
        if library["internal_api"] == "openblas" and kernels:
            told[-1] += slower_kernels(kernels, _core.isas(), os.environ.get("OPENBLAS_CORETYPE"))
    return True, "; ".join(dict.fromkeys(told))


def slower_kernels(kernels: str, offered: Sequence[str], chosen: str | None) -> str:
    """What to tell of OpenBLAS's kernels on a machine that offers these instruction sets; "" where all is well."""
    best = next((name for name in ("avx512", "avx2") if name in offered), None)
    if best is None or kernels in _KERNELS["avx512"] | _KERNELS[best]:
        return ""
    by_itself = "try OPENBLAS_CORETYPE=" + ("SkylakeX" if best == "avx512" else "Haswell")
    mend = f"OPENBLAS_CORETYPE={chosen} is set: unset it" if chosen else by_itself
    return f": SLOWER than this machine's {best} allows ({mend})"


def _images() -> tuple[bool, str]:
    """Gather and normalise against numpy; the tests cover crops and flips."""
    from pydt import _core

    random = np.random.default_rng(1)
    images, index = random.integers(0, 256, (9, 13, 11, 3), np.uint8), np.array([8, 0, 3, 3], np.int64)
    mean, std = np.array([0.4, 0.5, 0.6], np.float32), np.array([0.2, 0.3, 0.4], np.float32)
    out = np.empty((4, 3, 13, 11), np.float32)
    _core.gather(images, index, index, out, mean, std, 0, False, 0, 0, 2)
    expected = ((images[index] / 255.0 - mean) / std).transpose(0, 3, 1, 2)
    good = bool(np.allclose(out, expected, atol=1e-5))
    return good, "equal to numpy" if good else "WRONG pixels: do not use this build"


def _cuda() -> tuple[bool, str]:
    from pydt import _core

    built = "core built with CUDA" if _core.cuda_built() else "core built without CUDA"
    return (
        True,
        f"{built}, {'a device is usable' if _core.cuda_usable() else 'no device that its kernels can use'}",
    )


def _torch() -> tuple[bool, str]:
    import torch
    import torchvision

    return True, f"torch {torch.__version__}, torchvision {torchvision.__version__}"


def _dali() -> tuple[bool, str]:
    try:
        import nvidia.dali as dali
    except ImportError as error:
        return True, f"not installed ({error}): raw images work, folders of encoded images do not"
    return True, f"{dali.__version__}"


def _disk() -> tuple[bool, str]:
    """Whether an atomic write works here, and how long it takes."""
    from pydt.base import write_atomic

    with tempfile.TemporaryDirectory(dir=".") as folder:
        path, start = Path(folder) / "probe", time.perf_counter()
        for _ in range(5):
            write_atomic(path, b"x" * 4096)
        each = (time.perf_counter() - start) / 5
        return path.read_bytes() == b"x" * 4096, f"a synced row takes {1000 * each:.1f} ms in this folder"


# Of OpenBLAS, by the instructions of their products. All others of x86 are older than AVX2.
_KERNELS = {"avx512": {"SkylakeX", "Cooperlake", "SapphireRapids"}, "avx2": {"Haswell", "Zen"}}

_CHECKS: dict[str, Callable[[], tuple[bool, str]]] = {
    "instruction set": _instruction_set,
    "cores": _threads,
    "BLAS": _blas,
    "core, statistics": _statistics,
    "core, images": _images,
    "CUDA": _cuda,
    "torch": _torch,
    "DALI": _dali,
    "disk": _disk,
}


def doctor(
    deep: Annotated[
        bool, typer.Option("--deep", help="Also plant groups of known effect and look for them: some minutes.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of what is planted, with --deep; all is found with seed 0.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default one per core.")] = None,
) -> None:
    """Check this installation: the core against an oracle, instruction set, threads, CUDA, DALI and the disk's sync.

    With --deep a laboratory is run, too: what help, harm, leaks and the like were planted, and were they found?
    """
    failed = 0
    with interruptible():
        laboratory = deep_checks(seed=seed, workers=workers) if deep else ()
        for check in itertools.chain(checks(), laboratory):
            failed += not check.ok
            typer.echo(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}")
    if failed:
        raise typer.Exit(1)
