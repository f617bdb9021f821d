"""Files that earlier versions wrote stay readable: tests/kept holds what version 0.1 wrote.

`python tests/system/test_kept.py` writes them anew. Do so only for a new format, and keep its files beside the old
ones, under another name.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from stub_rows import GROUPS, StubRecipe, StubSource, StubTask
from stub_store import computed

from pydt import design
from pydt.data import Dataset
from pydt.design import Design
from pydt.ensemble import Plan
from pydt.store import Store, compact, derive, verify

KEPT = Path(__file__).parents[1] / "kept"
SUMS = KEPT / "values.json"


def plan() -> Plan:
    drawn = design.foldover(GROUPS, 8, seed=4)
    return Plan(StubSource(), design=drawn, recipe=StubRecipe(), tasks=(StubTask(),), seed=2)


def values(folder: Path) -> dict[str, object]:
    """What a store says, in numbers that can be written down."""
    store = Store(folder)
    found: dict[str, object] = {"masks": store.masks().astype(int).tolist(), "finished": store.finished().tolist()}
    found["failed"] = [[i, row.seed, reason] for i, row, reason in store.failed()]
    found["margin"] = np.float64(store.outputs("digits", "margin", "score")).round(4).sum(1).round(4).tolist()
    found["correct"] = np.float64(store.outputs("digits", "correct", "report")).round(6).tolist()
    found["scalars"] = [round(scalars["report_accuracy"], 6) for scalars in store.scalars("digits")]
    found["names"] = list(store.names())
    found["stop"] = {name: value for name, value in (store.stopped() or {}).items() if name != "reason"}
    return found


@pytest.fixture(params=["store-1", "store-1-packed"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy, since a store that is read may be written to."""
    shutil.copytree(KEPT / request.param, tmp_path / "store")
    return tmp_path / "store"


def test_a_kept_store_gives_the_numbers_it_gave(kept: Path) -> None:
    assert values(kept) == json.loads(SUMS.read_text())["store"]
    assert verify(kept)["damaged"] == []


def test_a_kept_store_is_continued(kept: Path) -> None:
    before = values(kept)
    Store(kept).note_stop(None, None)
    computed(kept, plan(), failures=(3,))
    store = Store(kept)
    assert store.missing().tolist() == []
    assert store.finished().tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert store.masks()[:4].astype(int).tolist() == before["masks"]
    assert isinstance(store.design(), Design)


def test_a_kept_index_gives_the_data_set_it_gave() -> None:
    dataset, given = Dataset.open(KEPT / "index-3"), json.loads(SUMS.read_text())["index"]
    assert _described(dataset) == given


def _described(dataset: Dataset) -> dict[str, object]:
    keys, labels = list(dataset.all_keys()), dataset.labels.tolist()
    assert dataset.images is not None
    images = np.asarray(dataset.images[np.arange(len(dataset))])
    return {
        "digest": dataset.digest,
        "images": images.sum((1, 2, 3)).tolist(),
        "classes": list(dataset.classes),
        "keys": keys,
        "labels": labels,
    }


def test_what_is_derived_from_the_four_primitives_is_kept_too() -> None:
    kept = json.loads(SUMS.read_text())["derived"]
    primitives = np.float32([[[1, -2]], [[0.5, 3]], [[0.25, 2]], [[4, 1]]])
    for name, expected in kept.items():
        np.testing.assert_allclose(derive(primitives, np.array([4, 0]), name), expected, rtol=1e-6)


def main() -> None:
    for name in ("store-1", "store-1-packed"):
        shutil.rmtree(KEPT / name, ignore_errors=True)
        store = computed(KEPT / name, plan(), range(6), failures=(3,))
        store.note_stop(None, {"rows": 5, "rule": "sign 3", "looks": 2})
        if name.endswith("packed"):
            compact(KEPT / name, fewest=2)
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    data = Dataset.from_arrays(images, [0, 1, 2, 0, 1, 2], ["a", "b", "\u00e9"], name="kept")
    shutil.rmtree(KEPT / "index-3", ignore_errors=True)
    data.sample(5, seed=1).save(KEPT / "index-3")
    primitives = np.float32([[[1, -2]], [[0.5, 3]], [[0.25, 2]], [[4, 1]]])
    outputs = ("logit", "margin", "softmax margin", "probability", "correct", "prediction")
    derived = {name: derive(primitives, np.array([4, 0]), name).tolist() for name in outputs}
    index = _described(Dataset.open(KEPT / "index-3"))
    SUMS.write_text(
        json.dumps({"store": values(KEPT / "store-1"), "index": index, "derived": derived}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
