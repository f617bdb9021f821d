"""The table of hospitals, by command and by function: the planted hospital is found and proven, whoever is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stub_processes import MARKER, alive, marker, wait_for  # noqa: F401
from stub_rows import contents
from test_plans import EXAMPLES, PYDT, environment

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
slow = pytest.mark.slow


def stored(folder: Path) -> int:
    return len(list(folder.glob("rows/*/*.safetensors")))


def run_with_a_kill(command: list[str], store: Path, after: int, whole: int, marker: str) -> None:  # noqa: F811
    """Run a command, kill -9 it in the middle of its work, and let the same command end the work."""
    more: Any = {"env": {**environment(), MARKER: marker}, "cwd": store.parent, "stderr": subprocess.PIPE}
    driver = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, **more)
    assert wait_for(lambda: stored(store) >= after or driver.poll() is not None, 120)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    assert after <= stored(store) < whole
    assert wait_for(lambda: not alive(marker), 5)  # neither workers nor their programs are left
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, **more)
    assert done.returncode == 0, done.stderr.decode()


def rows(store: Path) -> dict[str, bytes]:
    """What must be the same after equal runs; the pages of the report tell times."""
    return {
        name: data
        for name, data in contents(store).items()
        if name.split("/")[0] in ("rows", "plans", "tasks", "counterfactual")
    }


@slow
@linux
def test_by_function_the_hospital_is_found_and_proven_and_a_kill_changes_nothing(tmp_path: Path, marker: str) -> None:  # noqa: F811
    script = str(EXAMPLES / "sklearn-table" / "run.py")
    run_with_a_kill([sys.executable, script, "killed"], tmp_path / "killed", 60, 200, marker)
    subprocess.run([sys.executable, script, "whole"], cwd=tmp_path, env=environment(), check=True, capture_output=True)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")

    results = json.loads((tmp_path / "killed" / "results.json").read_text())
    assert results["models"] == 200
    worst = min(results["groups"], key=lambda group: group["value"])
    assert worst["name"] == "hospital 7"
    assert worst["q"] < 0.05
    proof = {one["kind"]: one for one in results["contrasts"] if one["control"] == "drop random"}["drop bottom"]
    assert proof["p"] < 0.05
    without, random = (
        next(arm["mean"] for arm in results["arms"] if arm["kind"] == kind) for kind in ("drop bottom", "drop random")
    )
    assert without < random - 0.05  # nats of log loss
    assert proof["difference"] > 0  # better, though a loss is better where it is lower


@slow
@linux
def test_by_command_the_hospital_is_found_and_a_kill_changes_nothing(tmp_path: Path, marker: str) -> None:  # noqa: F811
    for name in ("killed", "whole"):
        shutil.copytree(
            EXAMPLES / "sklearn-table", tmp_path / name, ignore=shutil.ignore_patterns("plan", "__pycache__")
        )
    run_with_a_kill(
        [*PYDT, "run", str(tmp_path / "killed" / "plan.toml")], tmp_path / "killed" / "plan", 10, 40, marker
    )
    whole = [*PYDT, "run", str(tmp_path / "whole" / "plan.toml")]
    subprocess.run(whole, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    assert rows(tmp_path / "killed" / "plan") == rows(tmp_path / "whole" / "plan")

    report = [*PYDT, "report", str(tmp_path / "killed" / "plan")]
    subprocess.run(report, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    results = json.loads((tmp_path / "killed" / "plan" / "results.json").read_text())
    assert results["models"] == 40
    significant = [group for group in results["groups"] if group["q"] < 0.05 and group["value"] < 0]
    assert "hospital 7" in [group["name"] for group in significant]
    assert min(results["groups"], key=lambda group: group["value"])["name"] == "hospital 7"
