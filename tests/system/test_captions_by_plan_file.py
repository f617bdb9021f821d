"""Captions of arrays, tar shards and saved data sets reach CLIP training by a plan file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stub_tars import examples, write

from pydt.data import Dataset
from pydt.ensemble import read_plan
from pydt.training import train

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
