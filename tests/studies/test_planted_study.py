"""What a study must find, and what it must not: a source known to match better, and two samples of one source."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pydt.data.samples import glyphs
from pydt.estimation import all_pairs, holm
from pydt.studies import Source, Study, run_study, study_report
from pydt.training import Recipe

pytestmark = pytest.mark.slow


def test_printed_digits_win_for_handwritten_digits_at_one_shot(tmp_path: Path) -> None:
    """Beside signs and Greek letters, 400 images each; 4 seeds x 10 draws; five studies that share no random number."""
    sources = {
        "digits": Source(glyphs.source("alphanumerics"), where={"class": list("0123456789")}),
        "greek": Source(glyphs.source("greek")),
        "signs": Source(glyphs.source("signs")),
    }
    methods = {"supervised": Recipe("convnet-8", steps=60, batch_size=32)}
    won = 0
    for seed in range(5):
        study = Study(sources, methods, {"scans": glyphs.digits()}, (400,), (1,), draws=10, seeds=4, seed=seed)
        folder = tmp_path / str(seed)
        with ThreadPoolExecutor(1) as thread:
            found = study_report(study, run_study(study, folder, thread, progress=False, keep="none"))
        pairs = {(row["first"], row["second"]): row for row in found["pairs"] if row["axis"] == "source"}
        assert len(pairs) == 3
        own = [pairs["digits", other] for other in ("greek", "signs")]
        won += all(row["difference"] > 0 and row["p_holm"] < 0.01 for row in own)
        assert found["spread"][0]["best"] == "digits"
    assert won >= 4


ARMS, SEEDS, DRAWS, IMAGES, CLASSES = 3, 3, 5, 200, 10


def one_source(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong of arms on samples of one source: float64 (arms, seeds, draws, images) and labels.

    Standard deviations of the share of right predictions, as trained studies have them at one shot: of seeds 0.02 and
    of the joint effects of seed and draw 0.03, for each arm alone; of draws 0.05, of joint effects of draw and class
    0.1 and of images 0.25, the same for all arms.
    """
    labels = np.arange(IMAGES) % CLASSES
    share = 0.6 + 0.02 * random.normal(size=(ARMS, SEEDS, 1, 1)) + 0.03 * random.normal(size=(ARMS, SEEDS, DRAWS, 1))
    share = share + 0.05 * random.normal(size=(DRAWS, 1)) + 0.1 * random.normal(size=(DRAWS, CLASSES))[:, labels]
    share = share + 0.25 * random.normal(size=IMAGES)
    return (random.random(share.shape) < share).astype(np.float64), labels


def test_samples_of_one_source_seldom_differ() -> None:
    repeats, single, family = 1000, 0, 0
    random = np.random.default_rng(5)
    for _ in range(repeats):
        values, labels = one_source(random)
        p = np.array([one.p for _, _, one in all_pairs(values, None, labels)])
        family += bool((holm(p) <= 0.05).any())
        single += all_pairs(values[:2], None, labels)[0][2].p <= 0.05
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)
    assert single / repeats <= most
    assert family / repeats <= most
    assert single > 0
