"""The page for people who have a training script: its files and commands work as they stand."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from test_plans import PYDT, environment

PAGE = Path(__file__).resolve().parents[2] / "docs" / "any-trainer.md"


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.is_file(), reason="the page is not here")
def test_the_files_and_commands_of_the_page_find_the_site(tmp_path: Path) -> None:
    blocks = dict(re.findall(r"```\w+ (\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S))
    assert list(blocks) == ["data.py", "train.py", "study.toml", "study.sh", "run.py"]
    for name, text in blocks.items():
        (tmp_path / name).write_text(text)
    commands = [["python", "data.py"], *map(shlex.split, blocks["study.sh"].splitlines()), ["python", "run.py"]]
    for command in commands:
        argv = [*(PYDT if command[0] == "pydt" else [sys.executable]), *command[1:]]
        done = subprocess.run(argv, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    for folder in ("study", "by-function"):
        results = json.loads((tmp_path / folder / "results.json").read_text())
        worst = min(results["groups"], key=lambda group: group["value"])
        assert worst["name"] == "site 4", folder
        assert worst["q"] < 0.05
        assert any(one["kind"] == "drop bottom" and one["p"] < 0.05 for one in results["contrasts"])
