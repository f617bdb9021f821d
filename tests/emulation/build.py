"""Compiles the GPU code for the CPU: build.py FOLDER [flag of the compiler ...] makes the Python module `_emulated`.

The flags, such as -fsanitize=thread, are for the .cu files alone; all else is compiled once for any number of calls. A
change of a header is not noticed: take a new folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11

HERE = Path(__file__).resolve().parent
CORE = HERE.parents[1] / "csrc"
COMPILER = [os.environ.get("CXX", "g++"), "-std=c++20", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-pthread"]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
# What the GPU code calls of the core, and the bindings.
HOST = [CORE / name for name in ("augment.cpp", "bits.cpp", "dispatch.cpp", "kernels/scalar.cpp", "bindings/cuda.cpp")]
HOST.append(HERE / "module.cpp")


def built(source: Path, folder: Path, flags: list[str]) -> Path:
    """The object file of a source, compiled unless it is there."""
    made = folder / f"{source.parent.name}-{source.name}.o"
    if not made.exists():
        include = [f"-I{HERE}", f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
        call = [*COMPILER, "-ffp-contract=off", *WARNINGS, *flags, *include, "-x", "c++", "-c", str(source), "-o"]
        subprocess.run([*call, str(made)], check=True)
    return made


def build(folder: Path, flags: list[str], cuda: Path = CORE / "cuda") -> Path:
    """The module from the .cu files in a folder, `cuda`, beside those of the core."""
    name = "-".join(flag.replace("=", "_").strip("-") for flag in flags) or "plain"
    host, here = folder / "host", folder / name
    host.mkdir(parents=True, exist_ok=True)
    here.mkdir(exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [pool.submit(built, source, host, []) for source in HOST]
        objects += [pool.submit(built, source, here, flags) for source in sorted(cuda.glob("*.cu"))]
        paths = [str(made.result()) for made in objects]
    module = here / f"_emulated{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run([*COMPILER, *flags, "-shared", *paths, "-o", str(module)], check=True)
    return module


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), sys.argv[2:]))
