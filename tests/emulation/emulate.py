"""Compiles the GPU code for this CPU and runs its tests: as it is, and under sanitizers.

`python emulate.py [arguments of pytest]` does so with each of `KINDS`; any finding fails. Needs g++, pybind11 and an
installed pydt.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
CORE = TESTS.parent / "csrc"
COMPILER = [os.environ.get("CXX", "g++"), "-std=c++20", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-pthread"]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
# What the GPU code calls of the core, and the bindings: compiled once, for all kinds.
HOST = [CORE / name for name in ("augment.cpp", "bits.cpp", "dispatch.cpp", "kernels/scalar.cpp", "bindings/cuda.cpp")]
HOST.append(HERE / "module.cpp")
# Flags for the .cu files, and the runtimes that they need, which the interpreter lacks.
KINDS = {
    "plain": ([], []),
    "address": (
        ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
        ["libasan.so", "libubsan.so", "libstdc++.so"],  # the last for exceptions
    ),
    "thread": (["-fsanitize=thread", "-fno-omit-frame-pointer"], ["libtsan.so", "libstdc++.so"]),
}
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",  # the interpreter keeps memory until it ends
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def compiled(source: Path, folder: Path, flags: list[str]) -> str:
    """The object file of a source, made unless it is there."""
    made = folder / f"{source.parent.name}-{source.name}.o"
    if not made.exists():
        include = [f"-I{HERE}", f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
        call = [*COMPILER, "-ffp-contract=off", *WARNINGS, *flags, *include, "-x", "c++", "-c", str(source), "-o"]
        subprocess.run([*call, str(made)], check=True)
    return str(made)


def build(folder: Path, kind: str, cuda: Path = CORE / "cuda") -> Path:
    """The Python module `_emulated` with the .cu files of a folder `cuda`."""
    host, here, flags = folder / "host", folder / kind, KINDS[kind][0]
    host.mkdir(parents=True, exist_ok=True)
    here.mkdir(exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [pool.submit(compiled, source, host, []) for source in HOST]
        objects += [pool.submit(compiled, source, here, flags) for source in sorted(cuda.glob("*.cu"))]
        paths = [made.result() for made in objects]
    module = here / f"_emulated{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run([*COMPILER, *flags, "-shared", *paths, "-o", str(module)], check=True)
    return module


def run_tests(module: Path, kind: str, arguments: list[str], output: int | None = None) -> tuple[int, str]:
    """Run the tests of the GPU code with a module -> exit status, and what they wrote if `output` is a pipe.

    Without tests/conftest.py, which imports torch: only the plain kind has tests with torch, since it is slow under
    sanitizers.
    """
    folder = module.parent / "tests"
    folder.mkdir(exist_ok=True)
    sources = [*TESTS.glob("core/test_core_cuda*.py"), TESTS / "stubs" / "stub_device.py"]
    if kind == "plain":
        sources.append(TESTS / "estimation" / "test_device_kernels.py")
    for source in sources:
        shutil.copy(source, folder)
    find = [[COMPILER[0], f"-print-file-name={name}"] for name in KINDS[kind][1]]
    runtimes = [subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip() for call in find]
    environment = os.environ | OPTIONS | {"PYDT_EMULATED": str(module), "LD_PRELOAD": " ".join(runtimes)}
    # A sanitizer that ends the process writes to the file that pytest would capture by default.
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--capture=sys", "--rootdir", "."]
    call += ["-c", str(TESTS.parent / "pyproject.toml"), "-m", "not slow and not gpu", *arguments, "."]
    done = subprocess.run(
        call, cwd=folder, env=environment, check=False, text=True, stdout=output, stderr=output and subprocess.STDOUT
    )
    return done.returncode, done.stdout


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            start = time.monotonic()
            print(f"== {kind}", flush=True)
            module = build(Path(folder), kind)
            built = time.monotonic()
            if status := run_tests(module, kind, sys.argv[1:])[0]:
                return status
            print(f"{built - start:.0f} s to build, {time.monotonic() - built:.0f} s to run", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
