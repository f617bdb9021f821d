"""Every example has a whole plan and a short script, and gives the same rows for the same seeds wherever it lies."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stub_rows import contents

from pydt.ensemble import read_plan
from pydt.store import Store

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEEDS = {"pytorch": "torch", "timm": "timm", "lightning": "lightning", "huggingface-text": "transformers"}
NAMES = [*NEEDS, "sklearn-table"]
PYDT = [sys.executable, "-P", "-c", "import pydt.cli; pydt.cli.main()"]

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are not here")


def environment() -> dict[str, str]:
    """Of a person who activated this environment and runs scripts in their folder."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return {**own, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"}


def test_every_example_is_tested() -> None:
    assert sorted(NAMES) == sorted(path.parent.name for path in EXAMPLES.glob("*/plan.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_is_whole_and_its_script_is_short(name: str) -> None:
    plan = read_plan(EXAMPLES / name / "plan.toml").plan
    assert plan.recipe.remarks() == []
    assert set(plan.recipe.depends) == {
        path.name
        for path in EXAMPLES.joinpath(name).iterdir()
        if path.is_file() and path.name not in ("plan.toml", "run.py")
    }
    assert len(plan.rows()) >= 3 * len(plan.context.units[1])
    for script in EXAMPLES.joinpath(name).glob("*.py"):
        assert len(script.read_text().splitlines()) < 60, script


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_rows_are_the_same_bytes_for_the_same_seed(name: str, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS.get(name, "sklearn"))
    stores = []
    for place in ("here", "there"):
        folder = tmp_path / place / name
        shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("plan", "__pycache__"))
        text = (folder / "plan.toml").read_text()
        (folder / "plan.toml").write_text(re.sub(r"(?m)^models = \d+", r"\g<0>\nrows = [0, 1]", text))
        command = [*PYDT, "run", str(folder / "plan.toml")]
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        stores.append(folder / "plan")
    assert contents(stores[0]) == contents(stores[1])
    for task in read_plan(folder / "plan.toml").plan.tasks:
        first, second = Store(stores[0]).outputs(task.name, "value")
        assert np.isfinite([first, second]).all()
        assert (first != second).any()  # the groups and the seed reached the script
