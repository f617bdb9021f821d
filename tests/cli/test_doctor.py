"""The self-check of an installation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pydt import _core


def pydt(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pydt.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_doctor_is_content_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = pydt("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal to float64 numpy" in done.stdout
    assert not list(tmp_path.iterdir())


def test_doctor_finds_wrong_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydt.cli.doctor import checks

    right = _core.gram
    monkeypatch.setattr(_core, "gram", lambda *arguments: right(*arguments) + 1)
    failed = [check for check in checks() if not check.ok]
    assert [check.name for check in failed] == ["core, statistics"]
    assert "WRONG" in failed[0].detail


@pytest.mark.parametrize(
    ("kernels", "offered", "chosen", "told"),
    [
        ("SkylakeX", ("scalar", "avx2", "avx512"), None, None),
        ("Zen", ("scalar", "avx2"), "Zen", None),
        ("SapphireRapids", ("scalar", "avx2"), None, None),  # newer than pydt's own kernels know
        ("Haswell", ("scalar", "avx2", "avx512"), "Haswell", "OPENBLAS_CORETYPE=Haswell is set: unset it"),
        ("Zen", ("scalar", "avx2", "avx512"), None, "try OPENBLAS_CORETYPE=SkylakeX"),
        ("Katmai", ("scalar", "avx2"), None, "try OPENBLAS_CORETYPE=Haswell"),
        ("neoversen1", ("scalar",), None, None),
    ],
)
def test_doctor_knows_slow_kernels_of_blas(
    kernels: str, offered: tuple[str, ...], chosen: str | None, told: str | None
) -> None:
    from pydt.cli.doctor import slower_kernels

    said = slower_kernels(kernels, offered, chosen)
    assert (told in said and "SLOWER" in said) if told else said == ""


def test_doctor_names_the_kernels_that_numpy_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    import threadpoolctl

    numpys = [x for x in threadpoolctl.threadpool_info() if x["internal_api"] == "openblas"]
    if "avx2" not in _core.isas() or not numpys:
        pytest.skip("numpy multiplies by another library, or on another kind of processor")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    line = next(line for line in pydt("doctor").stdout.splitlines() if "BLAS" in line)
    assert "Nehalem kernels" in line
    assert "OPENBLAS_CORETYPE=Nehalem is set: unset it" in line
