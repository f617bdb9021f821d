"""A target far from characters: textures in grey, cut from photographs and a map of heights that scikit-learn and
matplotlib ship.

Ten regions are ten classes; a patch is 14 x 14 pixels, enlarged to 28 x 28 as the embedded digits are. Patches do not
overlap. Along its longer side a region is cut into stripes: two lines of patches for the few-shot pool and validation,
one left out, three that are judged, one left out; so no judged patch touches one that few-shot draws learn from. Judged
patches touch each other, also across the halves, and neighbours are alike: standard errors over images are too small
by that. The ten classes were chosen partly by how hard one supervised network found their judged images: how hard this
target is tells nothing of textures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pydt.data.dataset import Dataset
from pydt.data.target import Target

SIZE = 28
_PATCH = 14
_STRIPES = ("train", "train", "", "judged", "judged", "judged", "")  # of the lines of patches, again and again
# class -> image; left, top, right, bottom
REGIONS = {
    "sky": ("china", 330, 0, 640, 190),
    "willow": ("china", 340, 310, 620, 427),
    "shrubs": ("china", 0, 343, 294, 427),
    "leaf": ("flower", 0, 40, 154, 340),
    "petals": ("flower", 199, 110, 423, 330),
    "stars": ("grace_hopper", 0, 14, 126, 280),
    "cloth": ("grace_hopper", 30, 530, 498, 600),
    "backdrop": ("grace_hopper", 372, 0, 512, 330),
    "slopes": ("slopes", 0, 110, 224, 344),
    "heights": ("heights", 230, 0, 403, 344),
}


def textures(metric: str = "top-1") -> Target:
    """Patches of ten textures, such as sky, leaves, cloth and hills, as grey images of 28 x 28.

    Returns:
        a Target with 400 examples in the few-shot pool, 200 for validation, 434 in the score and 434 in the report
        half. The group columns "row" and "column" tell where in its region a patch lies.
    """
    images = _images()
    parts: dict[str, list[tuple[np.ndarray, int, int, int]]] = {"train": [], "judged": []}
    for label, (image, *box) in enumerate(REGIONS.values()):
        for part, patch, row, column in _patches(images[image], *box):
            parts[part].append((patch, label, row, column))
    made = {}
    for part, found in parts.items():
        patches, labels, rows, columns = zip(*found, strict=True)
        where = {"row": rows, "column": columns}
        made[part] = Dataset.from_arrays(np.stack(patches), labels, list(REGIONS), columns=where, name="textures")
    return Target(made["train"], test=made["judged"], metric=metric, pool=400, validation=200)


def _images() -> dict[str, np.ndarray]:
    """Grey images by name, float64 (height, width): photographs, and a map of heights as it is and lit from a side."""
    import matplotlib
    import sklearn.datasets
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    photos, data = Path(sklearn.datasets.__file__).parent / "images", Path(matplotlib.get_data_path()) / "sample_data"
    files = [photos / "china.jpg", photos / "flower.jpg", data / "grace_hopper.jpg"]
    found = {file.stem: np.asarray(Image.open(file).convert("L"), float) for file in files}
    terrain: Any = get_sample_data("jacksboro_fault_dem.npz")
    heights = terrain["elevation"].astype(float)
    down, right = np.gradient(heights)
    lit = 128 + 48 * (right - down) / (right - down).std()
    return found | {"heights": 255 * (heights - heights.min()) / np.ptp(heights), "slopes": lit}


def _patches(
    image: np.ndarray, left: int, top: int, right: int, bottom: int
) -> Iterator[tuple[str, np.ndarray, int, int]]:
    """The patches of a region: the part of the target that each belongs to, uint8 (28, 28), row and column."""
    from PIL import Image

    rows, columns = (bottom - top) // _PATCH, (right - left) // _PATCH
    for row, column in np.ndindex(rows, columns):
        part = _STRIPES[(row if rows > columns else column) % len(_STRIPES)]
        if part:
            y, x = top + row * _PATCH, left + column * _PATCH
            patch = np.clip(np.rint(image[y : y + _PATCH, x : x + _PATCH]), 0, 255).astype(np.uint8)
            large = Image.fromarray(patch).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            yield part, np.asarray(large), row, column
