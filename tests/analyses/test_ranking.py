"""Rankings: equal to brute force, selected on one half and judged on the other, and honest about noise."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle_rankings as oracle
import pytest
from scipy import special, stats
from stub_influence import Additive, filled, many_classes, plan_of

import pydt
from pydt import design
from pydt.analyses import ranking
from pydt.analyses.sample_splitting import halves
from pydt.base import ConfigError, EstimateError, StoreError
from pydt.data import Dataset, Target, read_list
from pydt.ensemble import Plan
from pydt.reporting import write_pages
from pydt.store import Store

GROUPS, MODELS = 20, 90


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, target: Target) -> tuple[Store, Plan, Additive]:
    """Group 2 helps every score and report image, group 5 harms class 1 only, group 6 harms report images alone."""
    described = target.described()
    effects = np.zeros((GROUPS, len(described["labels"])))
    effects[2] = 0.8
    effects[5, described["labels"] == 1] = -2.0
    effects[6, described["half"] == 1] = -1.5
    random = np.random.default_rng(0)
    runner = Additive(random.normal(0.3, 1, effects.shape[1]), effects, common=0.2)
    plan = plan_of(many_classes(), target, design.random(GROUPS, MODELS, alpha=0.5, seed=3))
    return filled(tmp_path_factory.mktemp("study"), plan, runner), plan, runner


def outputs_of(store: Store, half: str, output: str) -> np.ndarray:
    return 100 * np.asarray(store.outputs(store.plan().tasks[0]["digest"], output, half), np.float64)


@pytest.mark.parametrize("per", ["target", "class", "example"])
def test_values_errors_and_families_are_those_of_brute_force(study: tuple, per: str) -> None:
    store, plan, _ = study
    found = ranking(store, plan, per, output="correct")
    y = outputs_of(store, "score", "correct")
    labels = store.examples(store.plan().tasks[0]["digest"], "score")["labels"]
    columns = {
        "target": y.mean(1, keepdims=True),
        "class": np.stack([y[:, labels == c].mean(1) for c in range(4)], 1),
        "example": y,
    }[per]
    values, stderr, df = oracle.least_squares(store.masks().astype(float), columns)
    assert np.allclose(found.values, values, atol=1e-4)
    varies = stderr > 1e-9
    assert np.allclose(found.stderr[varies], stderr[varies], atol=1e-4)
    assert np.isnan(found.stderr[~varies]).all()
    with np.errstate(invalid="ignore"):
        p = np.where(stderr > 1e-9, 2 * special.stdtr(df, -np.abs(values / stderr)), 1.0)
    within = np.stack([oracle.step_up(one, False) for one in p.T], 1)
    assert np.allclose(found.q, within, atol=1e-3)
    assert np.allclose(found.family_q, oracle.step_up(p, True), atol=1e-3)
    assert (
        found.columns
        == {
            "target": ("four blobs",),
            "class": ("a", "b", "c", "d"),
            "example": tuple(map(str, store.examples(store.plan().tasks[0]["digest"], "score")["ids"])),
        }[per]
    )
    assert found.models == MODELS
    assert found.kept.tolist() == store.masks().sum(0).tolist()


def test_the_papers_estimator_is_the_loop(study: tuple) -> None:
    store, _, _ = study
    found = ranking(store, per="example", estimator="paper")
    expected = oracle.paper(store.masks(), outputs_of(store, "score", "probability"))
    assert np.abs(found.values - expected).max() < 1e-5
    assert (found.output, found.estimator, found.unit) == ("probability", "paper", "points of probability")
    whole = ranking(store, estimator="paper")
    assert np.allclose(whole.values[:, 0], expected.mean(1), atol=1e-5), "the target is the mean over its images"
    assert "paper's difference of means" in whole.page().method


def test_the_papers_estimator_refuses_what_it_is_not_made_for(study: tuple, tmp_path: Path, target: Target) -> None:
    with pytest.raises(ConfigError, match=r"not of 'margin'.*leave output out"):
        ranking(study[0], estimator="paper", output="margin")
    runner = study[2]
    for number, masks in enumerate((design.random(GROUPS, 20, alpha=0.25), design.bernoulli(GROUPS, 20))):
        store = filled(tmp_path / str(number), plan_of(many_classes(), target, masks), runner)
        with pytest.raises(EstimateError, match=r"keep a random half.*design\.random\(groups, models, alpha=0\.5\)"):
            ranking(store, estimator="paper")


def test_the_score_half_ranks_and_the_report_half_judges(study: tuple) -> None:
    store, plan, _ = study
    found = ranking(store, plan)
    assert found.groups[found.order()[0]] == "c2"
    six = found.groups.index("c6")
    assert abs(found.values[six, 0]) < 4 * found.stderr[six, 0], "what harms report images alone is not seen"
    swapped = found.keep_list(1, end="top")
    assert swapped == [name for name in found.groups if name != "c2"]
    report = outputs_of(store, "report", "correct").mean(1)
    score = outputs_of(store, "score", "correct").mean(1)
    again = pydt.prediction_test(store.masks(), score, report)
    assert found.tests[0].correlation == pytest.approx(again.correlation)
    assert found.tests[0].p == again.p
    mixed = pydt.prediction_test(store.masks(), score, score)
    assert found.tests[0].correlation != pytest.approx(mixed.correlation)


def test_classes_are_told_apart(study: tuple) -> None:
    store, plan, _ = study
    found = ranking(store, plan, "class")
    assert found.bottom(1, "b") == ["c5"]
    assert found.family_q[found.groups.index("c5"), found.column("b")] < 0.05
    assert (found.family_q[found.groups.index("c5")][[0, 2, 3]] > 0.05).all()
    assert found.top(1, "a") == ["c2"]
    assert len(found.tests) == 4
    assert np.allclose(found.tests_q, oracle.step_up(np.array([test.p for test in found.tests]), True))


def test_leaders_are_chosen_by_one_half_of_the_models_and_valued_by_the_other(study: tuple) -> None:
    store, plan, _ = study
    found = ranking(store, plan, leaders=2, seed=5)
    assert found.leaders is not None
    masks = store.masks().astype(float)
    score, report = (outputs_of(store, half, "correct").mean(1, keepdims=True) for half in ("score", "report"))
    worth = []
    for pair in halves(plan.design, found.leaders.splits, "leaders", 5):
        for one, other in (pair, pair[::-1]):
            first, _, _ = oracle.least_squares(masks[one], score[one])
            second, _, _ = oracle.least_squares(masks[other], report[other])
            order = np.argsort(-first[:, 0])
            worth.append((second[order[:2], 0].mean(), second[order[-2:], 0].mean()))
    assert np.allclose(found.leaders.judged[:, 0], np.mean(worth, axis=0), atol=1e-3)
    order = np.sort(found.values[:, 0])
    assert np.allclose(found.leaders.claimed[:, 0], [order[-2:].mean(), order[:2].mean()])


def test_noise_is_called_noise(tmp_path: Path, target: Target) -> None:
    """Leaders of pure noise look like something, and are judged to be nothing."""
    count = len(target.described()["labels"])
    runner = Additive(np.zeros(count), np.zeros((GROUPS, count)), common=1.0)
    plan = plan_of(many_classes(), target, design.random(GROUPS, MODELS, alpha=0.5, seed=1))
    store = filled(tmp_path, plan, runner)
    for per in ("target", "class", "example"):
        found = ranking(store, plan, per, leaders=1)
        assert found.leaders is not None
        assert (found.leaders.claimed[0] >= 0).all()
        high, low = found.leaders.judged.mean(1)
        assert abs(high - low) < 0.5 * (found.leaders.claimed[0] - found.leaders.claimed[1]).mean()
        assert (found.family_q < 0.05).mean() < 0.01
    assert "cannot be told from noise" in ranking(store, plan).page().answer[0]
    assert ranking(store, plan, "example").score.p > 0.05


def test_keep_lists(study: tuple, tmp_path: Path) -> None:
    found = ranking(study[0], study[1])
    found.write_keep_list(tmp_path / "keep.txt", 5, end="top")
    assert read_list(tmp_path / "keep.txt") == found.keep_list(5, end="top")
    with pytest.raises(ConfigError, match="is not one line"):
        replace(found, groups=("two\nlines", *found.groups[1:])).write_keep_list(tmp_path / "keep.txt", 0)
    order = [found.groups[i] for i in found.order()]
    assert set(found.keep_list(3)) == set(order[:-3])
    assert found.keep_list(3) == [name for name in found.groups if name in order[:-3]], "in mask order"
    assert found.keep_list(0) == list(found.groups)
    assert found.bottom(3) == order[::-1][:3]
    for drop, end in ((20, "bottom"), (-1, "bottom"), (2, "left")):
        with pytest.raises(ConfigError, match=r"keep_list.*bottom"):
            found.keep_list(drop, end=end)


def test_pages_hold_every_number_and_show_images(study: tuple, tmp_path: Path) -> None:
    store, plan, _ = study
    found = [ranking(store, plan, per) for per in ("target", "class", "example")]
    write_pages([one.page() for one in found], tmp_path, "blobs")
    text = (tmp_path / "ranking-example" / "influences.csv").read_text().splitlines()
    assert len(text) == 1 + GROUPS * 60
    extremes = list(found[2].page(most=4 * 60).csv["influences.csv"][1])
    assert [row[-1] for row in extremes[:4]] == [1, 2, GROUPS - 1, GROUPS], "of very many pairs, each image's extremes"
    assert len(extremes) == 4 * 60
    page = (tmp_path / "ranking-example.html").read_text()
    assert page.count("data:image/png") >= 24
    text = (tmp_path / "ranking-class" / "held-out.csv").read_text().splitlines()
    assert len(text) == 5
    assert "c2" in (tmp_path / "ranking-target.html").read_text()
    without = ranking(store, None, "example").page()
    assert [type(block).__name__ for block in without.blocks] == ["Intervals"], "no plan, no images"


def test_images_in_files_are_shown_too(tmp_path: Path) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    for name in "abcd":
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(45):
            pixels = random.integers(0, 256, (20 + i % 3, 24, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    files = Target(Dataset.from_folder(tmp_path / "images"))
    source = Dataset.from_arrays(np.zeros((60, 12, 12, 3), np.uint8), np.repeat(np.arange(20), 3))
    plan = plan_of(source, files, design.random(GROUPS, 60, alpha=0.5))
    shape = len(files.described()["labels"])
    store = filled(tmp_path / "store", plan, Additive(np.zeros(shape), np.zeros((GROUPS, shape))))
    blocks = ranking(store, plan, "example").page().blocks
    assert type(blocks[0]).__name__ == "Images"
    assert {np.asarray(image).ndim for image in blocks[0].images} == {3}


def test_failed_rows_are_left_out_and_told_first_where_they_are_many(
    tmp_path: Path, target: Target, study: tuple
) -> None:
    plan = plan_of(many_classes(), target, design.random(GROUPS, 60, alpha=0.5, seed=3))
    for failed in (1, 3):
        runner = replace(study[2], failing=frozenset(row.seed for row in plan.rows()[:failed]))
        found = ranking(filled(tmp_path / str(failed), plan, runner), plan)
        assert found.models == 60 - failed
        answer = found.page().answer
        if failed == 1:
            assert answer[-1].startswith("1 of 60 rows failed and are left out")
        else:
            assert answer[0].startswith("No verdict: 3 of 60 rows failed, more than 2%")


def test_bad_questions_are_refused(study: tuple, tmp_path: Path, target: Target) -> None:
    store, plan, runner = study
    with pytest.raises(ConfigError, match=r"per 'pixel'.*target, class, example"):
        ranking(store, plan, "pixel")
    with pytest.raises(ConfigError, match="ridge has no standard errors"):
        ranking(store, plan, estimator="ridge")
    with pytest.raises(ConfigError, match="no influences on output 'prediction'"):
        ranking(store, plan, output="prediction")
    with pytest.raises(ConfigError, match="21 leaders of 20 groups"):
        ranking(store, plan, leaders=21)
    with pytest.raises(StoreError, match="no task 'other'"):
        ranking(store, plan, task="other")
    with pytest.raises(ConfigError, match="no column 'z' among 4"):
        ranking(store, plan, "class").top(column="z")
    few = filled(tmp_path, plan_of(many_classes(), target, design.random(GROUPS, 9)), runner)
    with pytest.raises(StoreError, match="9 finished rows"):
        ranking(few)


def test_few_models_get_the_lasso_and_no_leaders(tmp_path: Path, target: Target, study: tuple) -> None:
    plan = plan_of(many_classes(), target, design.random(GROUPS, 20, alpha=0.5, seed=3))
    found = ranking(filled(tmp_path, plan, study[2]), plan, "class")
    assert found.estimator == "lasso"
    assert np.isfinite(found.values).all()
    found.page()


def test_no_group_is_named_from_both_ends(study: tuple) -> None:
    found = ranking(study[0], study[1])
    for size, named in {2: 1, 3: 1, 4: 2, 6: 3, 8: 3}.items():
        parts = {name: getattr(found, name)[:size] for name in ("groups", "values", "stderr", "q")}
        few = replace(found, **parts, tests=(replace(found.tests[0], p=0.01),))
        answer = few.page().answer[0]
        quoted = re.findall("\u201c(.*?)\u201d", answer)
        assert f"highest of {size} groups" in answer
        assert quoted == [few.groups[i] for i in [*few.order()[:named], *few.order()[::-1][:named]]]


def test_ranks_agree_with_scipy(study: tuple) -> None:
    found = ranking(study[0], study[1])
    ranks = np.empty(GROUPS)
    ranks[found.order()] = np.arange(1, GROUPS + 1)
    assert np.array_equal(ranks, stats.rankdata(-found.values[:, 0], "ordinal"))
    assert {row[1]: row[-1] for row in found.page().csv["influences.csv"][1]} == dict(
        zip(found.groups, ranks, strict=True)
    )
