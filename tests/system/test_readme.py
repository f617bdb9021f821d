"""The README's script, run as written, on arrays that are not the sample."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stub_images import blobs

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.slow
@pytest.mark.skipif(not README.is_file(), reason="the README is not here")
def test_the_script_runs_as_written(tmp_path: Path) -> None:
    script, snippet = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    for name, each, classes, seed in (("source", 30, 12, 0), ("target", 60, 4, 1)):
        images, labels = blobs(each, classes, seed)
        np.save(tmp_path / f"{name}_images.npy", images)
        np.save(tmp_path / f"{name}_labels.npy", labels)
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "my-study" / "results.json").read_text())
    assert results["models"] == 200
    assert len(results["groups"]) == 12
    assert results["question"]["source"] == "my source"
    assert (tmp_path / "my-study" / "report.html").is_file()

    random = np.random.default_rng(0)
    names = {"masks": random.random((50, 6)) < 0.5, "outputs": random.normal(size=(50, 3))}
    import pydt

    exec(compile(snippet, "README.md", "exec"), {"pydt": pydt, **names})
