"""Every command and every snippet of docs/your-data.md, run as written, one after the other in one folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pydt.cli import app as cli
from pydt.data import Dataset

PAGE = Path(__file__).parents[2] / "docs" / "your-data.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not here")
def test_the_page_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    np.save("images.npy", random.integers(0, 256, (120, 12, 10, 3), np.uint8))
    np.save("labels.npy", np.arange(120) % 4)
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(5):
            pixels = random.integers(0, 256, (70 + i, 90, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.jpg")
    (tmp_path / "photos" / "dogs" / "notes.jpg").write_text("no image")
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```|^ {4}(pydt [^\n]*)$", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    done = []
    for snippet, commands in blocks:
        if snippet:
            exec(compile(snippet, PAGE.name, "exec"), names)
        for command in filter(None, commands.splitlines()):
            ran = CliRunner().invoke(cli.app, shlex.split(command)[1:])
            assert ran.exit_code == 0, f"{command}: {ran.output} {ran.exception}"
            done.append(command.split()[1])
    assert done == ["inspect", "inspect", "pack", "pack", "pack"]
    assert len(blocks) - len(done) >= 6
    assert (tmp_path / "photos.png").is_file()
    said = capsys.readouterr().out
    assert "10 ('cats', 'dogs') {'dogs/notes.jpg': 'is no JPEG" in said
    assert "(10, 64, 64, 3) cats/0.jpg" in said
    assert "Dataset('photo-shards', 10 examples of encoded files, 2 classes) (" in said
    assert "('plain', 'sites') 100" in said
    assert "a picture of" in said
    assert "a photo of one of the cats a photo of one of the cats" in said
    shards = Dataset.from_tar(tmp_path / "captioned-shards")
    assert set(shards.captions or ()) == {"a photo of one of the cats", "a photo of one of the dogs"}
