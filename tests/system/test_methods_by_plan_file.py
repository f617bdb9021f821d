"""Ensembles of every method by a plan file: killed and continued, on one worker or two, the store is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from stub_processes import wait_for
from stub_rows import contents
from stub_tars import examples, write

from pydt.data import Dataset
from pydt.ensemble import read_plan, run
from pydt.training import train

METHODS = {
    "simclr": 'method = "simclr"',
    "clip": 'method = "clip"\nclip.embed = 16\nclip.width = 16',
}
ROWS = 24
PLAN = """
by = "class"
seed = 3

[run]
dir = "store"

[source]
sample = "alphanumerics"
each = 6

[design]
kind = "random"
models = {rows}
alpha = 0.25

[recipe]
network = "convnet-4"
epochs = 2
batch_size = 32
{recipe}

[[tasks]]
shots = 2
draws = 2
target.train.sample = "digits"
"""


def command(folder: Path) -> list[str]:
    code = "from pydt.cli import main; main()"
    return [sys.executable, "-c", code, "run", str(folder / "plan.toml"), "--workers", "2", "--json"]


def stored(folder: Path) -> int:
    return len(list(folder.glob("store/rows/*/*.safetensors")))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills process groups")
@pytest.mark.parametrize("method", METHODS)
def test_killed_and_continued_on_one_worker_and_two_the_store_is_the_same(method: str, tmp_path: Path) -> None:
    folders = [tmp_path / "whole", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
        (folder / "plan.toml").write_text(PLAN.format(rows=ROWS, recipe=METHODS[method]))
    read = read_plan(folders[0] / "plan.toml")
    with ThreadPoolExecutor(1) as one:
        store = run(read.plan, read.dir, one, progress=False)
    killed = subprocess.Popen(command(folders[1]), start_new_session=True, stderr=subprocess.DEVNULL)
    assert wait_for(lambda: stored(folders[1]) >= 3 or killed.poll() is not None, 120)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert 3 <= stored(folders[1]) < ROWS, "it was killed in the middle"
    subprocess.run(command(folders[1]), check=True, capture_output=True)
    assert stored(folders[1]) == ROWS
    whole, continued = (
        {name: data for name, data in contents(folder / "store").items() if not name.startswith("data")}
        for folder in folders  # the copy of the source under data/ tells when its files were written
    )
    assert whole.keys() == continued.keys()
    assert [name for name in whole if whole[name] != continued[name]] == []
    outputs = store.outputs(read.plan.tasks[0], "margin", half="score")
    assert np.isfinite(outputs).all()
    assert (outputs.std(0) > 0).mean() > 0.9, "rows differ"


CAPTIONED = """
[source]
{source}

[design]
kind = "random"
models = 4

[recipe]
method = "clip"
network = "convnet-4"
epochs = 1
batch_size = 8
augment.size = 16

[[tasks]]
shots = 2
target.train.images = "images.npy"
target.train.labels = "labels.npy"
"""


def test_captions_of_arrays_folders_and_shards_train_clip(photos: Dataset, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", random.integers(0, 255, (60, 28, 28, 3), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.arange(60) % 3)
    (tmp_path / "captions.txt").write_text("\n".join(f"thing {'abc'[i % 3]}" for i in range(60)))
    shard = [part for k in range(3) for part in examples(range(k, 24, 3), cls=str(k), txt="picture {i}")]
    write(tmp_path / "shards" / "a.tar", shard)
    photos.save(tmp_path / "saved")  # of a folder
    sources = {
        'images = "images.npy"\nlabels = "labels.npy"\ncaptions = "captions.txt"': "thing b",
        'tar = "shards"': "picture 7",
        'saved = "saved"': "picture 7",
    }
    for source, caption in sources.items():
        (tmp_path / "plan.toml").write_text(CAPTIONED.format(source=source))
        plan = read_plan(tmp_path / "plan.toml").plan
        assert caption in (plan.source.captions or ())
        if plan.source.encoded:
            pytest.importorskip("nvidia.dali")
        trained = train(plan.source, plan.context.keep_examples(plan.rows()[0]), plan.recipe, 0)
        assert trained.text is not None
        assert trained.text.encode([caption]).shape == (1, 128)
