"""Small data that every test may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

# `python -m pytest` puts the checkout on the path: the installed package is tested, not the source folder beside it.
sys.path[:] = [path for path in sys.path if Path(path or os.curdir).resolve() != Path(__file__).resolve().parents[1]]

from stub_images import blobs  # noqa: E402
from stub_processes import marker  # noqa: E402, F401

from pydt.data import Dataset, Target  # noqa: E402

# Hundreds of tiny operations: more threads than one only wait for each other, and two test runs would fight.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Processes started by tests import the installed package, not the source folder that tests are run from.
os.environ["PYTHONSAFEPATH"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Rendered glyphs go to a folder of this test run, never to the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def source() -> Dataset:
    """Eight classes of 20 images each, 12 x 12 grey."""
    images, labels = blobs(20, 8, 0)
    return Dataset.from_arrays(images, labels, [f"c{i}" for i in range(8)], name="blobs")


@pytest.fixture(scope="session")
def target() -> Target:
    """Four classes of 45 images each: pool 40, validation 20, score 60, report 60."""
    images, labels = blobs(45, 4, 1)
    return Target(Dataset.from_arrays(images, labels, ["a", "b", "c", "d"], name="four blobs"))


@pytest.fixture
def folder_of_images(tmp_path: Path) -> Path:
    """Three classes of seven JPEG files of varied sizes, with smooth content."""
    from PIL import Image

    random = np.random.default_rng(0)
    for c in range(3):
        (tmp_path / f"class {c}").mkdir()
        for i in range(7):
            height, width = random.integers(40, 120, 2)
            y, x = np.mgrid[0:height, 0:width]
            image = np.stack([255 * y / height, 255 * x / width, np.full((height, width), 60.0 * c)], axis=2)
            Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"class {c}" / f"{i}.jpg", quality=95)
    return tmp_path


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Forty JPEGs of varied sizes in four classes; captions."""
    from odd_images import encoded, photograph

    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(4)
    for number in range(40):
        place = root / f"class {number % 4}"
        place.mkdir(exist_ok=True)
        width, height = (int(v) for v in random.integers(40, 160, 2))
        (place / f"{number:02d}.jpg").write_bytes(encoded(photograph(width, height, random), quality=90))
    return Dataset.from_folder(root, captions=[f"picture {i}" for i in range(40)])
