"""The command line: exit codes, messages, and the main job from the first row to the last file."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pydt import __version__, _core, design
from pydt.cli import app as cli
from pydt.cli import experiments
from pydt.data import Dataset, Target
from pydt.data.loading import Augment
from pydt.ensemble import MODELS, Plan, quickstart_plan
from pydt.training import Recipe, Task


def pydt(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pydt.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_version_tells_instruction_set_and_cuda() -> None:
    done = pydt("--version")
    assert done.returncode == 0
    assert f"pydt {__version__}" in done.stdout
    assert _core.isa() in done.stdout
    assert "CUDA:" in done.stdout


def test_exit_codes(tmp_path: Path) -> None:
    missing = pydt("report", str(tmp_path / "nothing"))
    assert missing.returncode == 1
    assert "holds no store" in missing.stderr
    assert "Traceback" not in missing.stderr
    (tmp_path / "study.toml").write_text("seed = 1")
    plan = pydt("report", str(tmp_path / "study.toml"))
    assert "study.toml: is a file, not the folder of a store. give the folder" in plan.stderr
    assert pydt("quikstart").returncode == 2
    assert pydt("quickstart", "--models", "3").returncode == 2


def test_the_help_says_what_the_number_of_models_changes() -> None:
    words = pydt("analyse", "--help").stdout.replace("\u2502", " ").split()
    assert "What the analyses retrain stays as many." in " ".join(words)


def test_a_bad_instruction_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYDT_ISA", "sse9")
    done = pydt("doctor", cwd=tmp_path)
    assert done.returncode == 1
    assert "FAIL" in done.stdout
    assert "sse9" in done.stdout


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


def small_plan(source: Dataset, target: Target) -> Plan:
    recipe = Recipe(network="convnet-2", epochs=1, batch_size=32, lr=0.3, augment=Augment(mean=(0.3,), std=(0.2,)))
    return Plan(source, design=design.random(8, 30, seed=2), recipe=recipe, tasks=(Task(target, draws=2),), seed=2)


def test_the_main_job(tmp_path: Path, source: Dataset, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "quickstart_plan", lambda models, seed: small_plan(source, target))
    out = tmp_path / "out"
    runs = []
    for _ in range(2):
        done = CliRunner().invoke(cli.app, ["quickstart", "--out", str(out), "--seed", "2", "--workers", "1"])
        assert done.exit_code == 0, done.output
        runs.append(json.loads((out / "results.json").read_text()))
    for found in runs:
        found.pop("seconds")
    assert runs[0] == runs[1], "the same command again changes nothing"
    found = runs[0]
    assert set(found) >= {"models", "verdict", "estimand", "groups", "counterfactual", "versions"}
    assert found["models"] == 30
    assert found["estimand"] == "swap"
    assert set(found["verdict"]) >= {"correlation", "p"}
    assert [set(group) for group in found["groups"]] == [{"name", "value", "stderr", "df", "q", "models"}] * 8
    assert abs(sum(group["value"] for group in found["groups"])) < 1e-3, "swap values sum to zero"
    kinds = [run["kind"] for run in found["counterfactual"]]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "full": 14,
        "drop top": 14 + 4 + 4,
        "drop bottom": 14 + 4 + 4,
        "drop random": 14 + 4 + 4,
    }
    for run in found["counterfactual"]:
        assert len(run["names"]) == run["dropped"]
        assert 0 <= run["accuracy"] <= 1
    page = (out / "report.html").read_text()
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_ctrl_c_says_what_is_stored_and_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from pydt.cli import main; main()", "quickstart", "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("300 rows"):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "of 300 rows are stored" in errors
    assert "the same command continues" in errors
    assert "Traceback" not in errors


def test_the_quickstarts_plan() -> None:
    plan = quickstart_plan(20, 5)
    assert len(plan.design) == 20
    assert np.asarray(plan.design).sum(1).tolist() == [16] * 20
    assert plan.tasks[0].seed == plan.seed == plan.design.seed == 5
    assert quickstart_plan(20, 5).digest == plan.digest != quickstart_plan(20, 6).digest
    assert MODELS == 300


@pytest.mark.parametrize("command", [["inspect"], ["pack", "--tar"], ["pack", "--size", "8"]])
def test_what_the_notes_tell_is_told_once_and_without_a_line_of_the_source(tmp_path: Path, command: list[str]) -> None:
    for name in ("a/1.png", "b/2.png", "stray.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), len(name) * 9 + ord(name[0]), np.uint8)).save(tmp_path / "photos" / name)
    out = [str(tmp_path / "out")] if command[0] == "pack" else []
    done = pydt(command[0], str(tmp_path / "photos"), *out, *command[1:])
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert said.count("beside the folders of the classes") == said.count("stray.png") == 1
    assert "Warning" not in said
    assert ".py:" not in said
