"""Where packages are missing that only some parts need: loading raw images, influences and rows go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Rows are trained on images of one's own: the sample is drawn by matplotlib and read from scikit-learn.
CODE = """
import sys
import numpy as np
import pydt
from pydt.data.loading import Augment, Loader
from stub_images import blobs

random = np.random.default_rng(0)
masks = random.random((300, 20)) < 0.5
outputs = masks @ random.standard_normal((20, 3)) + random.standard_normal((300, 3))
for method in ("difference", "ols", "ridge", "lasso"):
    fit = pydt.influences(masks, outputs.astype(np.float32), method)
    assert np.isfinite(fit.values).all(), method

images, labels = blobs(20, 4, 0)
source = pydt.Dataset.from_arrays(images, labels, list("abcd"), name="source")
seen = sum(len(batch.labels) for batch in Loader(source, batch_size=16, augment=Augment(flip=True)))
assert seen == 80, seen

shown, names = blobs(45, 4, 1)
target = pydt.Target(pydt.Dataset.from_arrays(shown, names, list("abcd"), name="target"))
plan = pydt.Plan(
    source, design=pydt.Design.explicit(np.array([[1, 1, 0, 1], [0, 1, 1, 1]], bool)),
    recipe=pydt.Recipe(network="convnet-4", steps=2), tasks=[pydt.Task(target, shots=1, draws=2)],
)
pydt.run(plan, sys.argv[1], workers=1, progress=False)
assert len(pydt.Store(sys.argv[1]).rows()) == 2
"""


def without(packages: tuple[str, ...], folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python where importing these packages fails, in worker processes, too: they get the path of their driver."""
    missing = folder / "missing"
    missing.mkdir()
    for name in packages:
        (missing / f"{name}.py").write_text(f"raise ModuleNotFoundError('no module named {name}', name='{name}')\n")
    stubs = Path(__file__).parents[1] / "stubs"
    start = f"import sys; sys.path[:0] = [{str(missing)!r}, {str(stubs)!r}]\n"
    return subprocess.run(
        [sys.executable, "-c", start + command[0], *command[1:]], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "packages",
    [("nvidia",), ("sklearn", "scipy", "matplotlib", "typer", "rich", "jinja2", "tomli_w")],
    ids=["DALI", "others"],
)
def test_influences_raw_images_and_rows_go_on(packages: tuple[str, ...], tmp_path: Path) -> None:
    done = without(packages, tmp_path, CODE, str(tmp_path / "store"))
    assert done.returncode == 0, done.stderr


def test_doctor_says_what_is_missing(tmp_path: Path) -> None:
    done = without(("nvidia",), tmp_path, "import sys; sys.argv[1:] = ['doctor']; from pydt.cli import main; main()")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DALI: not installed" in done.stdout
