"""The studies in plans/: that of public checkpoints is parsed, costed and run on weights and targets made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pydt.base import DataError
from pydt.ensemble import cost_of
from pydt.studies import Study, cells_of, read_study, run_study
from pydt.training.networks import build

PLANS = Path(__file__).parents[2] / "plans"
TARGETS = ("cifar100", "dtd", "caltech101", "pets")


def folders(folder: Path, each: int = 24) -> None:
    """Small targets of three classes: bright, dark and half of each."""
    random = np.random.default_rng(0)
    for name in TARGETS:
        for part, images in (("train", each), ("test", 6)):
            for code in range(3):
                place = folder / name / part / f"class {code}"
                place.mkdir(parents=True)
                for i in range(images):
                    image = random.integers(60 * code, 60 * code + 80, (20, 20, 3), np.uint8)
                    Image.fromarray(image).save(place / f"{i}.png")


def stand_in(folder: Path) -> Path:
    """The study of public checkpoints, with small random networks in place of the weights."""
    text = (PLANS / "study-checkpoints.toml").read_text().splitlines()
    for i, line in enumerate(text):
        if line.startswith("weights = "):
            torch.manual_seed(i)
            save_file(build("convnet-4", 3).state_dict(), folder / f"{i}.safetensors")
            text[i] = f'file = "{i}.safetensors"\nnetwork = "convnet-4"\naugment.size = 16'
    (folder / "study.toml").write_text("\n".join(text))
    return folder / "study.toml"


@pytest.mark.slow  # renders 24,000 characters
def test_the_study_of_the_sample_is_what_its_page_says() -> None:
    study = read_study(PLANS / "study-sample.toml").study
    assert len(study.arms) == 4 * 3 * 3 + 1
    assert len(study.parts) == 3 * len(study.arms)
    assert {len(study.tasks(arm)) for arm in study.arms} == {2 * 2 * 6}
    assert min(source.largest for source in study.sources.values()) == 2 * max(study.sizes)
    budgets = {recipe.budget for recipe in study.methods.values()}
    assert budgets == {("steps", 400)}, "sizes and methods are compared at equal steps"
    assert len(study.rates) >= 3
    assert study.modes["finetune"]["finetune"].epochs == 15


def test_the_study_of_public_checkpoints_names_weights_that_exist(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    pytest.importorskip("timm")
    (tmp_path / "study.toml").write_text((PLANS / "study-checkpoints.toml").read_text())
    folders(tmp_path)
    study = read_study(tmp_path / "study.toml").study
    assert list(study.targets) == ["CIFAR-100", "DTD", "Caltech-101", "Pets"]
    assert {arm.kind for arm in study.arms} == {"checkpoint"}
    assert len(study.arms) == 8
    assert {len(study.tasks(arm)) for arm in study.arms} == {4 * 3 * 5}
    assert (study.shots, len(study.rates)) == ((1, 5, 10, 20, "full"), 3)


def test_a_class_with_fewer_images_than_shots_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    folders(tmp_path, each=20)  # of which a ninth is for validation
    with pytest.raises(DataError, match=r"20 shots, but class 'class \d' has 1\d examples in the pool"):
        read_study(stand_in(tmp_path))


@pytest.fixture
def small(tmp_path: Path) -> Study:
    folders(tmp_path)
    return read_study(stand_in(tmp_path)).study


@pytest.mark.slow  # pilot rows of eight networks
def test_the_study_of_public_checkpoints_is_costed(small: Study, tmp_path: Path) -> None:
    found = cost_of(small.parts, tmp_path / "store", workers=1)
    assert (found.rows, found.stored) == (24, 0)
    assert found.seconds > 0
    assert not (tmp_path / "store").exists()


@pytest.mark.slow  # 16 rows of 24 tasks, and trials of three rates
def test_the_study_of_public_checkpoints_runs_on_a_stand_in(tmp_path: Path) -> None:
    folders(tmp_path)
    file = stand_in(tmp_path)
    text = file.read_text().replace("epochs = 15", "epochs = 1").replace("draws = 5", "draws = 1")
    file.write_text(text.replace('[1, 5, 10, 20, "full"]', '[1, "full"]').replace("seeds = 3", "seeds = 2"))
    study = read_study(file).study
    store = run_study(study, tmp_path / "store", workers=1, progress=False)
    cells = cells_of(study, store)
    assert len(cells) == 8 * 4 * 3 * 2
    assert {cell.values.shape[0] for cell in cells.values()} == {2}
    assert cells["ImageNet RN50", "DTD, probe, full shots"].mean > 0.9, "three shades of grey"
