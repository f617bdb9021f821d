"""docs/running-at-scale.md, run as written: its commands, and its scripts on stand-ins for a cluster."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_images import blobs
from typer.testing import CliRunner

import pydt
from pydt import cluster
from pydt.cli import app as cli

PAGE = Path(__file__).parents[2] / "docs" / "running-at-scale.md"
PLAN = """
[source]
images = "images.npy"
labels = "labels.npy"
[design]
kind = "random"
models = 20
alpha = 0.5
[recipe]
network = "convnet-2"
epochs = 1
batch_size = 32
[[tasks]]
shots = 3
draws = 2
[tasks.target.train]
images = "target_images.npy"
labels = "target_labels.npy"
"""


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not here")
@pytest.mark.filterwarnings("ignore:Tip. In future versions of Ray:FutureWarning")
def test_the_page_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ray", "submitit"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    Path("study.toml").write_text(PLAN)
    for name, each, classes, seed in (("", 20, 8, 0), ("target_", 45, 4, 1)):
        images, labels = blobs(each, classes, seed)
        np.save(f"{name}images.npy", images)
        np.save(f"{name}labels.npy", labels)
    text = PAGE.read_text(encoding="utf-8")
    for command in re.findall(r"^ {4}(pydt [^\n]*)$", text, re.M):
        ran = CliRunner().invoke(cli.app, shlex.split(command)[1:])
        assert ran.exit_code == 0, f"{command}: {ran.output} {ran.exception}"
    Path("study").rename("here")

    real_slurm, real_ray, made = cluster.Slurm, cluster.Ray, []

    def slurm(folder: str, **parameters: Any) -> Any:
        """One job here, after a look whether submitit takes the parameters of the page."""
        real_slurm(folder, cluster="local", **parameters).shutdown()
        made.append("slurm")
        return real_slurm(folder, cluster="local", workers=1)

    def ray(address: str, *, cpus: float, gpus: float) -> Any:
        made.append(f"ray {address} {cpus} {gpus}")
        return real_ray(cpus=cpus, workers=1)

    monkeypatch.setattr(cluster, "Slurm", slurm)
    monkeypatch.setattr(cluster, "Ray", ray)
    for script in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(compile(script, PAGE.name, "exec"), {})
        here, there = pydt.Store("here"), pydt.Store("study")
        np.testing.assert_array_equal(*(store.outputs(store.plan().tasks[0]["name"]) for store in (here, there)))
        Path("study").rename(made[-1].split()[0])
    assert made == ["slurm", "ray auto 1 0.25"]
