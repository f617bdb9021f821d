"""Commands on data sets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def pydt(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pydt.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


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
