"""What harms is found with some models and judged with others; what harms nothing is not claimed."""

from __future__ import annotations

import csv
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pydt import design
from pydt.analyses import leaks, misleading
from pydt.analyses.misleading import asked_about
from pydt.analyses.sample_splitting import halves
from pydt.base import ConfigError
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, RowInput, run
from pydt.estimation import influences
from pydt.reporting import write_pages
from pydt.store import Outcome, Store
from pydt.training import Recipe, Task

GROUPS, HARMFUL, CLASS, EXAMPLE = 8, 3, 1, 7


@dataclass(frozen=True)
class Harm:
    """A runner without training: group 3 takes margin from class 1, group 5 from one example."""

    on_class: float
    on_example: float
    failing: int = 0
    on_report: float | None = None  # what group 3 takes in the report half, if not the same
    still: bool = False  # class 2 has the same margin in all models

    def __call__(self, given: RowInput) -> dict[str, Outcome]:
        row, tasks = given.row, given.tasks
        random = np.random.default_rng(row.seed)
        if np.random.default_rng([row.seed, 1]).random() < self.failing / 80:
            return {task.digest: Outcome(status="failed", reason="diverged") for task in tasks}
        described = tasks[0].target.described()
        labels, report = described["labels"], described["half"] == 1
        margin = 0.4 + random.normal(0, 0.3, (1, len(labels))) + random.normal(0, 0.1)
        taken = np.where(report & (self.on_report is not None), self.on_report or 0.0, self.on_class)
        margin -= np.where(labels == CLASS, taken, 0.0) * float(row.mask[HARMFUL])
        if self.still:
            margin[:, labels == 2] = 0.4
        margin[:, EXAMPLE] -= self.on_example * float(row.mask[5])
        primitives = np.stack([margin, 0 * margin, 0 * margin, np.where(margin > 0, labels, (labels + 1) % 4)])
        return {task.digest: Outcome({"primitives": primitives.astype(np.float32)}, {}) for task in tasks}


def study(
    folder: Path, source: Dataset, target: Target, harm: Harm, by: str = "class", alpha: float = 0.5, seed: int = 2
) -> tuple[Store, Plan]:
    groups = len(source.units(by)[1])
    masks = design.bernoulli(groups, 80, alpha, seed=seed)
    plan = Plan(source, by, design=masks, recipe=Recipe(), tasks=[Task(target, draws=1)], seed=2)
    with ThreadPoolExecutor(1) as executor:
        return run(plan, folder, executor, runner=harm, progress=False), plan


def test_what_harms_a_class_is_found_and_judged_on_other_models_and_images(
    tmp_path: Path, source: Dataset, target: Target
) -> None:
    store, plan = study(tmp_path / "store", source, target, Harm(0.5, 0.0))
    found = misleading(store, plan)
    first = found.claims[0]
    assert (first.of, first.group) == ("b", "c3")
    assert [claim.group for claim in found.sure if claim.of == "b"] == ["c3"]
    assert len(found.sure) <= 2
    assert found.claims[0].effect == pytest.approx(-0.5, abs=4 * first.stderr)
    # By hand: the same halves, the report half, OLS.
    others = next(iter(halves(store.design(), 1, "uneven", 0)))[1]
    outputs, examples = store.outputs(plan.tasks[0], "margin", "report"), store.examples(plan.tasks[0], "report")
    mean = outputs[:, examples["labels"] == CLASS].mean(1, dtype=np.float64)[others]
    fit = influences(store.design().take(others), mean, "ols")
    assert first.effect == pytest.approx(float(fit.unbiased[HARMFUL]), rel=1e-5)
    assert first.stderr == pytest.approx(float(fit.stderr[HARMFUL]), rel=1e-5)
    # The picture is of the image that the group harms most by the models that found it, and not just any of its class.
    finders = next(iter(halves(store.design(), 1, "uneven", 0)))[0]
    seen = store.examples(plan.tasks[0], "score")
    ids = seen["ids"][seen["labels"] == CLASS]
    outputs = store.outputs(plan.tasks[0], "margin", "score")[finders][:, seen["labels"] == CLASS].astype(np.float64)
    worst = influences(store.design().take(finders), outputs, "ols").unbiased[HARMFUL].argmin()
    assert first.target == ids[worst] != ids[0]
    assert {int(source.labels[i]) for i in first.members} == {HARMFUL}
    only = misleading(store, plan, of=["b"], top=1)
    assert [claim.group for claim in only.claims] == ["c3"]
    write_pages([found.page()], tmp_path / "pages", "Misleading")
    text = (tmp_path / "pages" / "misleading.html").read_text().replace("\u00a0", " ")
    assert "claims of harm hold with other models" in text
    with (tmp_path / "pages" / "misleading" / "claims.csv").open() as file:
        assert next(csv.DictReader(file))["group"] == "c3"


def test_what_harms_an_example_is_found_and_its_neighbours_are_the_nearest(
    tmp_path: Path, source: Dataset, target: Target
) -> None:
    store, plan = study(tmp_path, source, target, Harm(0.0, 0.8))
    position = int(target.described()["ids"][EXAMPLE])
    found = misleading(store, plan, "example", of=[position], top=3)
    first = found.claims[0]
    assert (first.group, first.target, first.q < 0.05) == ("c5", position, True)
    assert first.effect == pytest.approx(-0.8, abs=4 * first.stderr)
    assert source.images is not None
    assert target.judged.images is not None
    from pydt.analyses.leakage.similarity import coarse, greys

    wanted = coarse(greys(target.judged, [position], 12))[0]
    alike = coarse(greys(source, None, 12)) @ wanted
    assert first.neighbour == int(np.argmax(alike))
    own = np.flatnonzero(source.labels == 5)
    assert list(first.members) == own[np.argsort(-alike[own], kind="stable")[:2]].tolist()
    # Most often wrong of all, so looked at unasked.
    assert position in {claim.target for claim in misleading(store, plan, "example").claims}


def test_chance_is_not_claimed(tmp_path: Path, source: Dataset, target: Target) -> None:
    store, plan = study(tmp_path, source, target, Harm(0.0, 0.0))
    found = misleading(store, plan)
    assert not found.sure
    assert found.page().answer[0].startswith("None of")
    errors = np.median([claim.stderr for claim in found.claims])
    said = re.search(r"chance of 80 % from ([0-9.]+) ", found.page().answer[1])
    assert said is not None
    # A normal approximation: the quantile of level / claims, and that of 80 %.
    ends = [stats.norm.ppf(1 - 0.05 / len(found.claims)), stats.norm.ppf(0.8)]
    assert float(said[1]) == pytest.approx(errors * sum(ends), rel=0.2)
    nobody = replace(found, claims=()).page().answer[0]
    assert "would have been missed" in nobody
    assert all(claim.found < 0 for claim in found.claims)


def test_what_helps_where_it_is_judged_is_no_harm(tmp_path: Path, source: Dataset, target: Target) -> None:
    """Harmful on the half that finds and as helpful on the half that judges: a sure effect, and no harm."""
    store, plan = study(tmp_path, source, target, Harm(0.5, 0.0, on_report=-0.5))
    found = misleading(store, plan)
    claim = next(claim for claim in found.claims if (claim.of, claim.group) == ("b", "c3"))
    assert claim.found < -4 * claim.found_stderr
    assert claim.effect > 4 * claim.stderr
    assert claim.p > 0.999
    assert claim not in found.sure
    for one in found.claims:
        assert one.p == pytest.approx(float(stats.t.cdf(one.effect / one.stderr, one.df)), rel=1e-6)


def test_the_claims_are_the_most_negative_t_of_the_models_that_find(
    tmp_path: Path, source: Dataset, target: Target
) -> None:
    """By OLS; the most negative values would be others. A class that never varies has none."""
    store, plan = study(tmp_path, source, target, Harm(0.3, 0.0, still=True), alpha=0.15, seed=1)
    finders, judges = next(iter(halves(store.design(), 1, "uneven", 0)))
    outputs, examples = store.outputs(plan.tasks[0]), store.examples(plan.tasks[0])
    expected, by_value = [], []
    for label in (0, 1, 3):
        mean = outputs[finders][:, examples["labels"] == label].mean(1, dtype=np.float64)
        fit = influences(store.design().take(finders), mean, "ols")
        t = fit.unbiased / fit.stderr
        assert (t < 0).sum() >= 2
        expected += [(t[k], "abcd"[label], f"c{k}") for k in np.argsort(t)[:2]]
        by_value += [("abcd"[label], f"c{k}") for k in np.argsort(fit.unbiased)[:2]]
    found = misleading(store, plan)
    assert {(claim.of, claim.group) for claim in found.claims} == {one[1:] for one in expected} != set(by_value)
    assert found.models == (len(finders), len(judges))
    # Those that hold first, and then the clearest to those that found them.
    rest = [claim for claim in found.claims if claim not in found.sure]
    assert found.claims[: len(found.sure)] == found.sure
    assert [(claim.of, claim.group) for claim in rest] == [
        one[1:] for one in sorted(expected) if one[1:] in {(claim.of, claim.group) for claim in rest}
    ]
    # Sure is what lies below 0.05.
    known = tuple(replace(found.claims[0], q=q) for q in (0.049, 0.05, 0.06, np.nan))
    assert [claim.q for claim in replace(found, claims=known).sure] == [0.049]


def test_rows_that_failed_are_told_first_where_they_are_many(tmp_path: Path, source: Dataset, target: Target) -> None:
    store, plan = study(tmp_path, source, target, Harm(0.5, 0.0, 16))
    assert len(store.failed()) > 2
    for page in (misleading(store, plan).page(), leaks(store, plan).page()):
        assert page.answer[0].startswith("No verdict: ")
        assert len(page.answer) > 2


def test_no_significance_is_asked_of_single_images(tmp_path: Path, source: Dataset, target: Target) -> None:
    few = source.sample(40)
    store, plan = study(tmp_path, few, target, Harm(0.0, 0.0), "example")
    found = misleading(store, plan)
    assert not found.sure
    assert all(np.isnan(claim.q) for claim in found.claims)
    assert all(len(claim.members) == 1 for claim in found.claims)
    page = found.page()
    assert "No significance is asked" in page.answer[1]
    write_pages([page], tmp_path / "pages", "Misleading")


def test_what_is_asked_about_where_nothing_is_named() -> None:
    """Classes that have images in both halves; the twelve examples that are wrong most often, in their order."""
    labels, half = np.array([0, 0, 1, 1, 2, 2] * 5), np.array([0, 1, 0, 0, 1, 0] * 5)
    right = np.full((4, 30), 0.5)
    right[:2, 10:13], right[:2, 20:29] = 0.1, 0.0  # these by the models that find
    right[2:, 3] = 0.0
    target: Any = SimpleNamespace(classes=("a", "b", "c"))
    examples = {"labels": labels, "half": half, "ids": np.arange(100, 130)}
    view: Any = SimpleNamespace(target=target, examples=examples, outputs=lambda output, half: 100 * right)
    classes, finds, judges = asked_about(view, "class", None, np.arange(4))
    assert classes == [0, 2]  # the second has none in the report half
    for label, find, judge in zip(classes, finds, judges, strict=True):
        assert find.tolist() == [i for i in range(30) if labels[i] == label and half[i] == 0]
        assert judge.tolist() == [i for i in range(30) if labels[i] == label and half[i] == 1]
    with pytest.raises(ConfigError, match="no class with images in both halves among b"):
        asked_about(view, "class", ["b"], np.arange(4))
    found, finds, judges = asked_about(view, "example", None, np.arange(2))  # of the models that find
    assert found == [110, 111, 112, *range(120, 129)]
    assert [one.tolist() for one in finds] == [[i - 100] for i in found]
    assert finds == judges
    assert asked_about(view, "example", [125, 103], np.arange(2))[0] == [125, 103]


def test_what_cannot_be_asked(tmp_path: Path, source: Dataset, target: Target) -> None:
    store, plan = study(tmp_path, source, target, Harm(0.0, 0.0))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"per": "target"}, "per 'target'.*class, example"),
        ({"of": ["ostrich"]}, "no class 'ostrich'"),
        ({"of": []}, "no class with images in both halves"),
        ({"per": "example", "of": [10**6]}, "no judged example 1000000"),
        ({"per": "example", "of": []}, "names no example"),
        ({"top": 0}, "whole number >= 1"),
    ]
    for arguments, message in cases:
        with pytest.raises(ConfigError, match=message):
            misleading(store, plan, **arguments)
