"""The choice of the instruction set, equal bits from all of them, and calls from many threads."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from pydt import _core


def everything() -> str:
    """A digest of the bits of every operation on inputs that reach full vectors, remainders and single elements."""
    rng = np.random.default_rng(0)
    bits = hashlib.sha256()
    for rows, groups, cols in [(1, 1, 1), (37, 9, 5), (300, 70, 33), (1500, 600, 81)]:
        packed = _core.pack(rng.random((rows, groups)) < 0.4)
        codes, shift = _core.codes(packed, groups), rng.normal(size=cols)
        bits.update(_core.gram(packed, groups, 1))
        bits.update(_core.gram(packed, groups, 2))
        for dtype in (np.float16, np.float32, np.float64):
            outputs = rng.normal(3, 100, (rows, cols)).astype(dtype)
            for view in (outputs, np.asfortranarray(outputs), outputs[:, ::-1]):
                bits.update(_core.subset_sums(codes, view, shift, 1))
                for part in (*_core.column_moments(view, shift, 1), *_core.subset_sums_int16(codes, view, shift, 1)):
                    bits.update(part)
                starts = np.unique(np.r_[0, rng.integers(0, rows, rows // 2), rows])
                bits.update(_core.unit_squares(view, shift, starts, rng.choice([-1.0, 1.0], rows), 1))
    for groups, rows, targets in [(1, 3, 1), (17, 40, 5), (50, 30, 3), (300, 700, 2)]:  # the last: many candidates
        x, y = rng.random((rows, groups)) - 0.5, rng.normal(size=(rows, targets))
        moments = x.T @ x / rows, x.T @ y / rows, (y**2).sum(0) / rows
        moments = tuple(np.round(part, 6) for part in moments)  # the same for any implementation of the product
        values, gap, _ = _core.lasso(*moments, 0.02 * np.abs(moments[1]).max(0), l1_ratio=0.9)
        for part in (values, gap, *_core.lasso_path(*moments, *moments, np.geomspace(1, 0.02, 20))):
            bits.update(part)
        bits.update(_core.sparse_product(moments[0], values, 1))
    for height, width, channels in [(1, 1, 1), (5, 3, 2), (28, 28, 1), (32, 32, 3), (9, 67, 3), (17, 16, 4)]:
        images = rng.integers(0, 256, (20, height, width, channels), dtype=np.uint8)
        index, ids = rng.integers(0, 20, 50), rng.integers(0, 2**40, 50)
        mean, std = rng.random(channels, dtype=np.float32), rng.random(channels, dtype=np.float32) + np.float32(0.2)
        crop = {"scale": (0.1, 1.0), "ratio": (0.5, 2.0)}
        for dtype in (np.float32, np.float16, np.uint16):
            for rows, columns, pad, how in [(height, width, 4, {}), (height, width, 0, crop), (21, 11, 0, crop)]:
                dense = np.empty((50, channels, rows, columns), dtype)
                last = np.empty((50, rows, columns, channels), dtype)
                for out in (dense, last.transpose(0, 3, 1, 2)):
                    _core.gather(images, index, ids, out, mean, std, pad, True, 1, 2, 1, **how)
                bits.update(dense)
                bits.update(last)
    images = rng.integers(0, 256, (20, 7, 3, 3), dtype=np.uint8)
    bits.update(_core.crc_records(images, np.arange(20), 1))
    return bits.hexdigest()


def fused() -> str:
    """A digest of what fuses multiplications and additions: the same bits from all instruction sets that can."""
    rng = np.random.default_rng(0)
    bits = hashlib.sha256()
    for groups, targets in [(1, 1), (11, 5), (300, 33), (600, 81)]:
        lower = np.tril(rng.normal(size=(groups, groups))) + 4 * groups**0.5 * np.eye(groups)
        cross = rng.normal(size=(groups, targets)).astype(np.float32)
        bits.update(_core.triangle_squares(_core.triangle_panels(lower), cross, 1))
    return bits.hexdigest()


def run_with(isa: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYDT_ISA"} | ({} if isa is None else {"PYDT_ISA": isa})
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_all_instruction_sets_give_the_same_bits() -> None:
    assert "scalar" in _core.isas()
    digests, of_fused = {}, {}
    for isa in _core.isas():
        done = run_with(isa, __file__)
        assert done.returncode == 0, done.stderr
        name, digests[isa], of_fused[isa] = done.stdout.split()
        assert name == isa
    assert len(set(digests.values())) == 1, digests
    del of_fused["scalar"]
    assert len(set(of_fused.values())) <= 1, of_fused


def test_the_best_is_the_default() -> None:
    done = run_with(None, "-c", "from pydt import _core; print(_core.isa() == _core.isas()[-1])")
    assert done.stdout.strip() == "True", done.stderr


UNABLE = sorted({"avx2", "avx512"} - set(_core.isas()))


@pytest.mark.parametrize("isa", ["", "AVX2", "sse9", *UNABLE])
def test_an_unusable_choice_is_an_error_at_first_use(isa: str) -> None:
    code = """
import numpy as np
from pydt import _core
for call in (_core.isa, lambda: _core.gram(np.zeros((1, 1), np.uint8), 1, 1)):
    try:
        call()
    except RuntimeError as error:
        print(error)
print(_core.isas())
"""
    done = run_with(isa, "-c", code)
    first, second, isas = done.stdout.splitlines()
    assert first == second
    assert first.startswith(f"PYDT_ISA={isa}: ")
    assert isas == str(_core.isas())


def test_calls_from_many_threads_at_once() -> None:
    rng = np.random.default_rng(5)
    codes = _core.codes(_core.pack(rng.random((400, 200)) < 0.5), 200)
    outputs, shift = rng.normal(size=(400, 50)), np.zeros(50)
    expected = _core.subset_sums(codes, outputs, shift, 1).tobytes()
    results: list[bytes] = []

    def work() -> None:
        for _ in range(5):
            results.append(_core.subset_sums(codes, outputs, shift, 2).tobytes())

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [expected] * 30


def test_asking_for_a_gpu_never_raises() -> None:
    assert isinstance(_core.cuda_built(), bool)
    assert isinstance(_core.cuda_usable(), bool)
    assert _core.cuda_built() or not _core.cuda_usable()


if __name__ == "__main__":
    print(_core.isa(), everything(), fused())
