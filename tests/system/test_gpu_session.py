"""`bench/gpu.py`, for a machine with a GPU: its stages at small sizes here, and what it says of those that fail."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_gpu", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def session(gpu: ModuleType, tmp_path: Path) -> Any:
    (tmp_path / "log").touch()
    return gpu.Session("cpu", None, tmp_path, tmp_path / "log", time.monotonic() + 60)


def stages_of(gpu: ModuleType, session: Any, monkeypatch: pytest.MonkeyPatch, stages: dict[str, Any]) -> Any:
    monkeypatch.setattr(gpu, "STAGES", stages)
    seen: list[Any] = []
    lines = gpu.run(session, list(stages), lambda stages, cases: seen.append((len(stages), list(cases))))
    assert [done for done, _ in seen] == list(range(1, len(stages) + 1)), "not written after every stage"
    return lines, seen[-1][1]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_what_fails_or_takes_too_long_is_told_and_the_rest_goes_on(
    gpu: ModuleType, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cases(session: Any, limit: float, line: Any) -> None:
        line["cases"] = [{"case": "a"}]
        session.call(python("import time; print('begun', flush=True); time.sleep(60)"), 2)

    def ends(session: Any, limit: float, line: Any) -> None:
        line["said"] = session.call(python("print('well')"), limit)

    def breaks(session: Any, limit: float, line: Any) -> None:
        session.call(python("import sys; sys.exit('no such card')"), limit)

    monkeypatch.setattr(gpu, "LEAST", 0.5)
    stages = {"cut": (9, cases), "broken": (9, breaks), "bug": (9, lambda *_: 1 / 0), "late": (0.001, ends)}
    lines, found = stages_of(gpu, session, monkeypatch, {**stages, "last": (9, ends)})
    assert [line["status"] for line in lines] == ["cut off", "failed", "failed", "not reached", "done"]
    assert "no such card" in lines[1]["why"]
    assert "ZeroDivisionError" in lines[2]["why"]
    assert lines[4]["said"] == "well\n"
    assert found == [{"case": "a"}], "cases of a stage that was cut off are kept"
    assert "begun" in session.log.read_text()


def test_nothing_runs_on_a_build_that_failed(gpu: ModuleType, session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(session: Any, limit: float, line: Any) -> None:
        raise gpu.Failed("failed", "no compiler")

    lines, _ = stages_of(gpu, session, monkeypatch, {"build": (9, build), "tests": (9, lambda *_: None)})
    assert [line["status"] for line in lines] == ["failed", "not reached"]


def test_wheels_are_asked_for_what_pydt_needs_and_for_nothing_that_is_large(gpu: ModuleType) -> None:
    names = {text.split(">")[0].split(";")[0].strip() for text in gpu.requirements()}
    assert {"pybind11", "scikit-build-core", "ninja", "threadpoolctl", "safetensors", "pytest"} <= names
    assert not {"torch", "torchvision", "numpy", "scipy", "nvidia-dali-cuda130"} & names


@pytest.mark.slow
def test_tests_that_need_a_gpu_are_found(gpu: ModuleType) -> None:
    """All of them: pytest collects no others under the marker."""
    tests = SCRIPT.parents[1] / "tests"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--collect-only", "-q", "-p", "no:cacheprovider"]
    rooms = [str(tests / name) for name in ("core", "data", "estimation", "training", "ensemble")]
    done = subprocess.run([*command, *rooms], cwd=tests.parent, capture_output=True, text=True, check=False)
    collected = {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert "tests/core/test_core_cuda.py" in collected
    assert collected <= set(gpu.gpu_tests())


@pytest.mark.slow
def test_a_rehearsal_runs_every_stage(gpu: ModuleType, tmp_path: Path) -> None:
    """All but the build: with a GPU, it is the installation of this checkout."""
    stages = ",".join(name for name in gpu.STAGES if name != "build")
    command = [
        sys.executable,
        "-P",
        str(SCRIPT),
        "--device",
        "cpu",
        "--only",
        stages,
        "--json",
        str(tmp_path / "r.json"),
    ]
    done = subprocess.run([*command, "--minutes", "30"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "r.log").read_text()
    found = json.loads((tmp_path / "r.json").read_text())
    status = {stage["stage"]: stage["status"] for stage in found["stages"]}
    assert set(status) == set(gpu.STAGES) - {"build"}
    assert {name for name, how in status.items() if how != "done"} == {"memcheck", "racecheck"}, "left out on a CPU"
    assert all(case["checked"] and case["ratio"] > 0 for case in found["cases"])
    for word in ("difference", "ols", "LASSO", "loader", "rows"):
        assert any(case["case"].startswith(word) for case in found["cases"]), word
    assert "rehearsal" in (tmp_path / "r.md").read_text()
