"""Errors planted into the kernels are caught: by their tests on the emulated device, or by a sanitizer."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

CSRC = Path(__file__).resolve().parents[2] / "csrc"


@dataclass(frozen=True)
class Planted:
    """A change of one place of a .cu file; the kind of build that must catch it, in which test, and what it says."""

    name: str
    file: str
    right: str
    wrong: str
    kind: str
    test: str
    words: str


PLANTED = [
    Planted(
        "missing barrier",
        "augment.cu",
        "placement = place(how, ids[i]);\n    __syncthreads();",
        "placement = place(how, ids[i]);",
        "thread",
        "test_gather and shift",
        "data race",
    ),
    Planted(
        "off by one",
        "augment.cu",
        "y >= 0 && y < H",
        "y >= 0 && y <= H",
        "address",
        "test_gather and shift",
        "heap-buffer-overflow",
    ),
    Planted(
        "wrong stride",
        "regression.cu",
        "const std::int64_t at = k * targets + j;",
        "const std::int64_t at = k * groups + j;",
        "plain",
        "test_errors_have_the_bits",
        "Arrays are not equal",
    ),
    Planted(
        "unmasked tail",
        "regression.cu",
        "    if (j >= targets) return;\n",
        "",
        "address",
        "test_errors_have_the_bits",
        "heap-buffer-overflow",
    ),
    Planted(
        "race within a block",
        "regression.cu",
        "    __syncthreads();  // before the next call writes\n",
        "",
        "thread",
        "test_a_pass_of_the_solver",
        "data race",
    ),
    Planted(
        "race between blocks",
        "regression.cu",
        "return open ? p.state[row * n + j] : T{0};",
        "return p.state[row * n + (j < n ? j : 0)];",
        "thread",
        "test_a_pass_of_the_solver",
        "data race",
    ),
    Planted(
        "barrier in a branch",
        "augment.cu",
        "placement = place(how, ids[i]);\n    __syncthreads();",
        "{\n        placement = place(how, ids[i]);\n        __syncthreads();\n    }",
        "plain",
        "test_gather and shift",
        "a thread has ended, others wait at the barrier of line",
    ),
    Planted(
        "barriers of two branches",
        "augment.cu",
        "if (threadIdx.x == 0) placement = place(how, ids[i]);\n    __syncthreads();",
        "if (threadIdx.x == 0) {\n        placement = place(how, ids[i]);\n        __syncthreads();\n    } else {\n"
        "        __syncthreads();\n    }",
        "plain",
        "test_gather and shift",
        "threads wait at the barriers of lines",
    ),
    Planted(
        "threads that end early",
        "regression.cu",
        "    T most = 0, excess = 0",
        "    if (!open) return;\n    T most = 0, excess = 0",
        "plain",
        "test_a_pass_of_the_solver",
        "a thread has ended, others wait at the barrier of line",
    ),
    Planted(
        "shared memory that nothing set",
        "augment.cu",
        "        flip = place(how, ids[i]).flip;\n",
        "",
        "address",
        "test_gather and resized",
        "which is not a valid value for type 'bool'",
    ),
    Planted(
        "address of the host",
        "augment.cu",
        "const auto* scale = reinterpret_cast<const float*>(device.get() + 2 * numbers);",
        "const auto* scale = normalise.data();",
        "plain",
        "test_gather and shift",
        "does not point into memory of the device",
    ),
    Planted(
        "blocks along an axis that ends at 65535",
        "regression.cu",
        'PYDT_LAUNCH(expand_kernel<T>, blocks_for(rows.count, 1, "count"), 256',
        "PYDT_LAUNCH(expand_kernel<T>, dim3(1, 65536), 256",
        "plain",
        "test_masks_are_expanded",
        "invalid configuration argument",
    ),
]


@pytest.fixture(scope="module")
def emulate() -> Any:
    found = importlib.util.spec_from_file_location("emulate", Path(__file__).with_name("emulate.py"))
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def right(emulate: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of builds without a planted error; their tests pass."""
    folder: Path = tmp_path_factory.mktemp("right")
    for kind in emulate.KINDS:
        emulate.build(folder, kind)
    return folder


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_it_is_caught(planted: Planted, emulate: Any, right: Path, tmp_path: Path) -> None:
    source = (CSRC / "cuda" / planted.file).read_text(encoding="utf-8")
    assert source.count(planted.right) == 1, "the kernel has changed: plant the error elsewhere"
    shutil.copytree(CSRC, tmp_path / "csrc")
    (tmp_path / "csrc" / "cuda" / planted.file).write_text(source.replace(planted.right, planted.wrong))
    for part in ("host", planted.kind):
        shutil.copytree(right / part, tmp_path / "built" / part)
    (tmp_path / "built" / planted.kind / f"cuda-{planted.file}.o").unlink()
    module = emulate.build(tmp_path / "built", planted.kind, tmp_path / "csrc" / "cuda")
    status, output = emulate.run_tests(module, planted.kind, ["-x", "-k", planted.test], subprocess.PIPE)
    assert status != 0
    assert planted.words in output
