"""An exported ensemble: everything a reader needs, read with numpy and the standard library alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_rows import GROUPS, StubRecipe, StubSource, StubTask
from stub_store import computed, contents

from pydt import design
from pydt.base import Folder, StoreError
from pydt.ensemble import Plan
from pydt.store import Store, compact, export
from pydt.store.outputs import OUTPUTS

READER = """
import csv, hashlib, json, sys
from pathlib import Path
import numpy as np

folder = Path(sys.argv[1])
manifest = json.loads((folder / "manifest.json").read_text())
assert {path.name for path in folder.iterdir()} == {*manifest["files"], "manifest.json"}
for name, about in manifest["files"].items():
    data = (folder / name).read_bytes()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (about["sha256"], about["bytes"]), name
    if "shape" in about:
        array = np.load(folder / name, allow_pickle=False)
        assert (list(array.shape), str(array.dtype)) == (about["shape"], about["dtype"])
masks = np.load(folder / "masks.npy", allow_pickle=False)
assert (masks.dtype, masks.shape) == (bool, (manifest["models"], manifest["units"]))
examples = list(csv.DictReader(open(folder / "task0.examples.csv")))
score = [i for i, example in enumerate(examples) if example["half"] == "score"]
margin = np.load(folder / "task0.margin.npy", allow_pickle=False)[:, score]
units = [row["name"] for row in csv.DictReader(open(folder / "units.csv"))]
assert not any(name.split(".")[0] == "pydt" for name in sys.modules)
print(json.dumps([masks.tolist(), margin.tolist(), units]))
"""


def plan() -> Plan:
    drawn = design.random(GROUPS, 8, seed=2)
    return Plan(StubSource(), design=drawn, recipe=StubRecipe(), tasks=(StubTask(), StubTask("letters")))


def test_export_is_read_without_this_package(tmp_path: Path) -> None:
    store = computed(tmp_path / "store", plan(), range(7), failures=(2,))
    manifest = export(tmp_path / "store", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == json.loads(json.dumps(manifest))
    command = [sys.executable, "-c", READER, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    masks, margin, units = json.loads(done.stdout)
    np.testing.assert_array_equal(masks, store.masks())
    np.testing.assert_array_equal(np.float32(margin), store.outputs("digits", "margin", "score"))
    assert tuple(units) == store.names()
    for column, task in enumerate(("digits", "letters")):
        for output in OUTPUTS:
            values = np.load(tmp_path / "out" / f"task{column}.{output.replace(' ', '-')}.npy", allow_pickle=False)
            np.testing.assert_array_equal(values, store.outputs(task, output, "all"))
    numbers = {name: manifest[name] for name in ("models", "planned", "failed", "missing", "units")}
    assert numbers == {"models": 6, "planned": 8, "failed": 1, "missing": 1, "units": GROUPS}
    assert manifest["computed_by"]["torch"] == ["2.9"]
    assert (tmp_path / "out" / "failed.csv").read_text().splitlines()[1].endswith("loss of 2")
    assert len((tmp_path / "out" / "rows.csv").read_text().splitlines()) == 1 + 6
    heads = (tmp_path / "out" / "task1.scalars.csv").read_text().splitlines()[0]
    assert heads == "model,report_accuracy,score_accuracy"


def read_as_told(folder: Path) -> dict[str, Any]:
    """What the Python of README.md leaves behind, run in the folder by somebody who has numpy."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    shown = "import json, sys; assert 'pydt' not in sys.modules\n"
    shown += "print(json.dumps([str(masks.dtype), masks.tolist(), units, margin.shape]))"
    done = subprocess.run([sys.executable, "-c", code + shown], cwd=folder, capture_output=True, text=True, check=True)
    return dict(zip(("dtype", "masks", "units", "shape"), json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("packed", [False, True])
def test_the_masks_are_read_as_the_folder_says(tmp_path: Path, packed: bool) -> None:
    """Of 16 units, where a wrong order of bits would show in nothing."""
    made = Plan(Wide(), design=design.random(16, 8, alpha=0.3, seed=2), recipe=StubRecipe(), tasks=(StubTask(),))
    store = computed(tmp_path / "store", made)
    export(tmp_path / "store", tmp_path / "out", plain=8 * 16 - packed)  # packed: 7 rows at a time
    found = read_as_told(tmp_path / "out")
    assert found["dtype"] == "bool"
    np.testing.assert_array_equal(found["masks"], store.masks())
    assert found["units"] == list(store.names())
    assert found["shape"] == [8, 40]
    files = {path.name for path in (tmp_path / "out").glob("masks*")}
    assert files == {"masks.packed.npy" if packed else "masks.npy"}
    assert ("bitorder='little'" in (tmp_path / "out" / "README.md").read_text()) == packed


class Wide(StubSource):
    """A stub of 16 units."""

    def units(self, by: str) -> tuple[np.ndarray, tuple[str, ...]]:
        return np.arange(len(self)) % 16, tuple(f"{by} {i}" for i in range(16))

    def __len__(self) -> int:
        return 32

    def pictured(self, by: str, each: int) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
        return {}, {}


def test_export_is_the_same_from_blocks_and_only_of_rows_that_count(tmp_path: Path) -> None:
    computed(tmp_path / "store", plan())
    export(tmp_path / "store", tmp_path / "a")
    compact(tmp_path / "store", fewest=2)
    export(tmp_path / "store", tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    Store(tmp_path / "store").note_stop(None, {"rows": 5, "rule": "sign 3"})
    manifest = export(tmp_path / "store", tmp_path / "c")
    assert (manifest["models"], manifest["stop"]["rule"]) == (5, "sign 3")


def test_export_writes_over_nothing_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    store = computed(tmp_path / "store", plan())
    (tmp_path / "out").mkdir()
    with pytest.raises(StoreError, match="is there already"):
        export(tmp_path / "store", tmp_path / "out")
    path = store.path(store.plan().keys[5][1])
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(StoreError, match="quarantine"):
        export(tmp_path / "store", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "store"]
    empty = computed(tmp_path / "empty", plan(), [])
    with pytest.raises(StoreError, match="no finished rows"):
        export(empty.folder, tmp_path / "new")


def test_a_name_that_is_taken_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed(tmp_path / "store", plan())
    commit = Folder.commit

    def slow(self: Folder, name: str) -> Path:
        (tmp_path / "out").mkdir()
        return commit(self, name)

    monkeypatch.setattr(Folder, "commit", slow)
    with pytest.raises(StoreError, match=r"out: was made by somebody else meanwhile; this export is .*out-1"):
        export(tmp_path / "store", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    assert (tmp_path / "out-1" / "manifest.json").exists()
