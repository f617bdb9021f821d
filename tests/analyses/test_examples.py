"""Single source images: the rule that is judged by other models and other images, and what is said where there is
nothing."""

from __future__ import annotations

import csv
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stub_examples import HELPFUL, Helps

from pydt import design
from pydt.analyses.examples import by_example, examples
from pydt.analyses.sample_splitting import halves
from pydt.base import ConfigError
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, run
from pydt.estimation import mean_output
from pydt.reporting import write_pages
from pydt.store import Store
from pydt.training import Recipe, Task


def made(folder: Path, source: Dataset, target: Target, effect: float, models: int = 60) -> tuple[Store, Plan]:
    by_class = Plan(source, design=design.random(8, 20), recipe=Recipe(), tasks=[Task(target, draws=2)])
    plan = by_example(by_class, models, seed=4)
    with ThreadPoolExecutor(1) as executor:
        return run(plan, folder, executor, runner=Helps(effect), progress=False), plan


def test_the_rule_is_valued_by_models_and_images_that_did_not_choose(
    tmp_path: Path, source: Dataset, target: Target
) -> None:
    """Against a loop over splits, ways, images and models."""
    store, plan = made(tmp_path, source, target, 0.4)
    found = examples(store, plan, size=3)
    kept = np.asarray(store.masks())
    score, report = (mean_output(store, store.plan(), None, "correct", half) for half in ("score", "report"))

    def difference(rows: np.ndarray, y: np.ndarray, k: int) -> float:
        return float(y[rows][kept[rows, k]].mean() - y[rows][~kept[rows, k]].mean())

    judged: list[list[float]] = [[], []]
    for pair in halves(store.design().take(store.finished()), 10, "examples", 0):
        for finding, judging in (pair, pair[::-1]):
            first = np.array([difference(finding, score, k) for k in range(160)])
            order = np.argsort(-first.astype(np.float32), kind="stable")
            for end, chosen in enumerate((order[:3], order[-3:])):
                judged[end].append(float(np.mean([difference(judging, report, k) for k in chosen])))
    np.testing.assert_allclose(found.judged, np.mean(judged, axis=1), rtol=1e-4)
    expected = [difference(np.arange(60), score, k) for k in range(160)]
    np.testing.assert_allclose(found.values, expected, atol=1e-4)
    assert int(np.argmax(found.values)) == HELPFUL
    assert found.claimed[0] == pytest.approx(np.sort(expected)[-3:].mean(), rel=1e-4)
    assert found.claimed[0] > found.judged[0] > 3 * found.judged_stderr[0], "one of the three is real"
    assert found.test.p < 0.05
    assert found.spread > 0


def test_the_error_of_the_rule_covers_where_there_is_nothing(tmp_path: Path, source: Dataset, target: Target) -> None:
    t = []
    for i in range(8):
        store, plan = made(tmp_path / str(i), source, target, 0.0, 40)
        store_found = examples(store, plan, seed=i)
        t += (store_found.judged / store_found.judged_stderr).tolist()
        t += (examples(store, replace(plan), seed=100 + i).judged / store_found.judged_stderr).tolist()
    assert math.sqrt(np.mean(np.square(t))) < 1.6
    assert abs(np.mean(t)) < 0.8


def test_the_page_shows_images_and_claims_none(tmp_path: Path, source: Dataset, target: Target) -> None:
    store, plan = made(tmp_path, source, target, 0.0)
    page = examples(store, plan).page()
    assert "Nothing can be told from noise" in page.answer[0]
    assert any("No significance is asked of any single image" in sentence for sentence in page.answer)
    write_pages([page], tmp_path / "pages", "t")
    text = (tmp_path / "pages" / "examples.html").read_text()
    assert text.count("data:image/png") >= 40
    with (tmp_path / "pages" / "examples" / "influences.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 160
    assert float(rows[0]["influence"]) == max(float(row["influence"]) for row in rows)
    assert {row["class"] for row in rows} == set(source.classes)


def test_other_groups_are_refused(tmp_path: Path, source: Dataset, target: Target) -> None:
    store, plan = made(tmp_path, source, target, 0.0, 20)
    with pytest.raises(ConfigError, match="by_example"):
        examples(store, Plan(source, design=design.random(8, 20), recipe=Recipe(), tasks=plan.tasks))
