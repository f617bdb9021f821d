"""Failure debugging: the group that misleads is found and its removal helps, on rows that chose nothing."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stub_truth
from stub_truth import BAD, CALLS, GROUPS, kinds_of_images

from pydt.analyses import failures
from pydt.analyses.failures import Failing, Failures, blamed_by_fellows, random_groups
from pydt.analyses.rates import Compared
from pydt.base import ConfigError, StoreError, seed31
from pydt.ensemble import Plan, RowInput
from pydt.estimation import influences
from pydt.reporting import Table, write_pages
from pydt.store import Outcome, Store


def debug(store: Store | Path, job: Plan, runner: Any = stub_truth.misled, **more: Any) -> Failures:
    with ThreadPoolExecutor(1) as executor:
        return failures(store, job, runner=runner, executor=executor, progress=False, **more)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    job = stub_truth.plan()
    return job, stub_truth.trained(job, tmp_path_factory.mktemp("failures"), stub_truth.misled)


@pytest.fixture(scope="module")
def found(study: tuple[Plan, Store]) -> Failures:
    return debug(study[1], study[0])


def kinds(found: Failures, job: Plan) -> np.ndarray:
    described = job.tasks[0].target.described()
    kind = dict(zip(described["ids"].tolist(), kinds_of_images(job.tasks[0]).tolist(), strict=True))
    return np.array([kind[image.position] for image in found.images])


def test_failing_images_are_found_and_the_group_that_misleads_is_blamed(
    study: tuple[Plan, Store], found: Failures
) -> None:
    job = study[0]
    kind = kinds(found, job)
    truth = kinds_of_images(job.tasks[0])
    # Wrong in most trainings of the whole source: misled with chance 0.95, hopeless with 0.98.
    assert set(kind) == {1, 2}
    assert (kind == 1).sum() >= 0.95 * (truth == 1).sum()
    blamed = np.array([image.group == f"g{BAD}" for image in found.images])
    assert blamed[kind == 1].mean() > 0.9
    assert blamed[kind == 2].mean() < 0.5, "what nothing misleads blames anything"
    classes = job.tasks[0].target.classes
    for image, own in zip(found.images, kind, strict=True):
        assert image.wrong >= 0.6
        away = (classes.index(image.predicted) - classes.index(image.label)) % len(classes)
        assert away == (2 if own == 1 else 1)
    assert found.judged == len(truth)
    assert found.groups[0][0] == f"g{BAD}"
    assert sum(count for _, count, _ in found.groups) == len(found.images)


def test_blame_is_the_lowest_influence_on_the_margin_from_the_plans_rows(
    study: tuple[Plan, Store], found: Failures
) -> None:
    job, store = study
    ids = store.examples(job.tasks[0], "all")["ids"].tolist()
    outputs = store.outputs(job.tasks[0], "margin", "all")
    for image in found.images[::7]:
        fit = influences(store.masks(), outputs[:, ids.index(image.position)].astype(float), "ols")
        assert image.group == f"g{fit.unbiased.argmin()}"
        assert image.influence == pytest.approx(fit.unbiased.min(), rel=1e-4)
        assert image.stderr == pytest.approx(fit.stderr[fit.unbiased.argmin()], rel=1e-4)


def test_rates_are_those_of_a_loop_over_fresh_rows(study: tuple[Plan, Store], found: Failures) -> None:
    """The rates again, from the store's plans alone."""
    job, store = study
    runs: dict[tuple[int, ...], list[np.ndarray]] = {}
    for record in store.plans().values():
        if record.kind == "rows" and record.tasks[0]["name"].endswith("other draws"):
            for row, said in zip(
                store.rows(record), store.outputs(record.tasks[0]["digest"], "prediction", "all", record), strict=True
            ):
                runs.setdefault(tuple(np.flatnonzero(~row.mask)), []).append(said)
    examples = store.task(job.tasks[0])
    ids, labels = examples["ids"].tolist(), examples["labels"]
    for arm in ("blamed", "full"):
        rates = []
        for image in found.images:
            j = ids.index(image.position)
            key = () if arm == "full" else (int(image.group[1:]),)
            if image.blamed is not None:
                rates.append(np.mean([said[j] == labels[j] for said in runs[key]]))
                assert getattr(image, arm) == pytest.approx(rates[-1])
        assert found.flips is not None
        assert getattr(found.flips, arm).rate == pytest.approx(np.mean(rates))


def test_the_random_rate_is_that_of_one_run_without_another_group_a_repeat(
    study: tuple[Plan, Store], found: Failures
) -> None:
    """Rows by group and seed, from the store's plans alone."""
    job, store = study
    said: dict[tuple[int, int], np.ndarray] = {}
    for record in store.plans().values():
        if record.kind == "rows" and record.tasks[0]["name"].endswith("other draws"):
            outputs = store.outputs(record.tasks[0]["digest"], "prediction", "all", record)
            for row, one in zip(store.rows(record), outputs, strict=True):
                if not row.mask.all():
                    said[int((~row.mask).argmax()), row.seed] = one
    examples = store.task(job.tasks[0])
    column, labels = {i: j for j, i in enumerate(examples["ids"].tolist())}, examples["labels"]
    blamed = {int(image.group[1:]) for image in found.images}
    others = random_groups(np.full(GROUPS, stub_truth.EACH), blamed, 10, 0)
    rates = []
    for image in found.images:
        j, group = column[image.position], int(image.group[1:])
        keys = [(g, seed31("failures", 0, g, i)) for i, g in enumerate(others[group].tolist())]
        rates.append(np.mean([said[key][j] == labels[j] for key in keys]))
        assert image.random == pytest.approx(rates[-1])
    assert found.flips is not None
    assert found.flips.random.rate == pytest.approx(np.mean(rates))
    assert found.retrained == 20 + len(
        {(g, i) for g in blamed for i in range(10)} | {(int(o), i) for g in blamed for i, o in enumerate(others[g])}
    )


def test_the_most_blamed_groups_come_first_and_in_each_the_clearest_image(found: Failures) -> None:
    counts = Counter(image.group for image in found.images)
    assert [(name, count) for name, count, _ in found.groups] == sorted(
        counts.items(), key=lambda one: (-one[1], one[0])
    )
    assert list(found.images) == sorted(found.images, key=lambda i: (-counts[i.group], i.group, i.influence))
    assert len(counts) > 2


def test_without_the_blamed_group_images_flip_and_without_a_random_one_they_do_not(found: Failures) -> None:
    (name, count, flips), *others = found.groups
    assert name == f"g{BAD}"
    assert count > 40
    assert flips is not None
    assert flips.blamed.low > 0.75, "nearly all misled images, and few hopeless ones"
    assert flips.random.high < 0.2
    assert flips.full.high < 0.2
    assert flips.compared.ratio_low > 2
    assert flips.compared.low > 0.6
    for _, _, other in others:
        assert other is None or other.compared.low < 0.1, "hopeless images are not mended"
    assert found.unseen is not None
    # Fellows of misled images are misled: two classes on. Hopeless ones have fellows of their own.
    assert found.unseen.compared.ratio_low > 2
    assert found.unseen.blamed.images < found.flips.blamed.images  # type: ignore[union-attr]


def test_nothing_is_trained_twice_and_rows_are_shared(study: tuple[Plan, Store], found: Failures) -> None:
    job, store = study
    CALLS.clear()
    again = debug(store, job)
    assert not CALLS
    assert again.images == found.images
    assert again.flips == found.flips
    distinct = {image.group for image in found.images}
    # 10 to find, 10 with everything, 10 without each blamed group, at most 20 different controls for all of them
    assert found.retrained <= 20 + 10 * len(distinct) + 20
    assert found.retrained > 20 + 10 * len(distinct)


def test_the_cap_keeps_the_most_blamed_groups_and_says_what_is_left(
    study: tuple[Plan, Store], capsys: pytest.CaptureFixture[str]
) -> None:
    job, store = study
    found = debug(store, job, models=6, repeats=4, most=20)
    assert found.retrained <= 20
    assert [flips is not None for _, _, flips in found.groups] == [True] + [False] * (len(found.groups) - 1)
    left = sum(image.blamed is None for image in found.images)
    assert left > 0
    assert f"{left} of the images blame groups that were not retrained" in " ".join(found.page().answer)
    assert found.flips == found.groups[0][2]
    assert not capsys.readouterr().err
    with ThreadPoolExecutor(1) as executor:
        failures(store, job, models=6, repeats=5, most=21, runner=stub_truth.misled, executor=executor)
    assert "retrainings, " in capsys.readouterr().err


def test_the_random_group_of_a_repeat_is_shared_matched_and_never_the_blamed_one() -> None:
    def drawn(sizes: np.ndarray, repeats: int, seed: int) -> np.ndarray:
        found = random_groups(sizes, range(len(sizes)), repeats, seed)
        return np.stack([found[g] for g in range(len(sizes))], axis=1)

    equal = drawn(np.full(12, 30), 200, 0)
    assert (equal != np.arange(12)).all()
    for row in equal:
        assert len(np.unique(row)) == 2, "one for all, and another one for itself"
    counts = np.bincount(equal[:, 0], minlength=12)
    assert counts[0] == 0
    assert counts[1:].min() > 4, "every group may be drawn"
    sizes = np.array([10] * 10 + [100] * 10)
    assert (sizes[drawn(sizes, 50, 1)] == sizes).all()
    assert (drawn(np.array([5, 50]), 3, 0) == [[1, 0]] * 3).all()


def test_fellows_are_score_half_images_of_the_same_confusion() -> None:
    values = np.array([[0.0, -2.0, 5.0, -9.0, 1.0], [-1.0, 0.5, -8.0, 0.0, -5.0]])
    half, labels, said = (np.array(v) for v in ([0, 0, 1, 1, 0], [3, 3, 3, 2, 2], [1, 1, 1, 1, 0]))
    failing = Failing(np.arange(5), np.arange(5), half, labels, said, np.ones(5), 100)
    # image 2 has fellows 0 and 1, means -1.0 and -0.25; image 3 has none of its confusion; the others pick
    assert blamed_by_fellows(values, failing).tolist() == [-1, -1, 0, -1, -1]


def perfect(given: RowInput) -> dict[str, Outcome]:
    row, tasks = given.row, given.tasks
    found = {}
    for task in tasks:
        labels = task.target.described()["labels"]
        random = np.random.default_rng(row.seed)
        margin = 2 + random.random((stub_truth.DRAWS, len(labels)))
        found[task.digest] = stub_truth.outcome(task, margin, labels)
    return found


def unlucky(given: RowInput) -> dict[str, Outcome]:
    """As `misled`, but most rows without the misleading group, and every third that finds, fail."""
    row, tasks = given.row, given.tasks
    bad = row.seed % 8 and not row.mask[BAD] if row.kind == "without" else row.seed % 3 == 0
    if bad and row.kind in ("without", "find"):
        return {task.digest: Outcome(status="failed", reason="bad luck") for task in tasks}
    return stub_truth.misled(given)


def lost(given: RowInput) -> dict[str, Outcome]:
    tasks = given.tasks
    return {task.digest: Outcome(status="failed", reason="diverged") for task in tasks}


def test_models_that_fail_nowhere_need_no_debugging(tmp_path: Path) -> None:
    job = stub_truth.plan(40)
    store = stub_truth.trained(job, tmp_path, perfect)
    found = debug(store, job, perfect)
    assert (found.images, found.flips, found.unseen, found.groups) == ((), None, None, ())
    assert found.retrained == 10
    assert {record.kind: record.tasks[0]["name"] for record in store.plans().values()} == dict.fromkeys(
        ("design", "rows"), job.tasks[0].name
    )  # and nothing with other draws
    page = found.page()
    assert "there is nothing to debug" in page.answer[0]
    write_pages([page], tmp_path / "pages", "a study")


def test_models_that_all_fail_find_nothing(tmp_path: Path) -> None:
    job = stub_truth.plan(40)
    with pytest.raises(StoreError, match=r"all 3 models failed.*learning rate"):
        debug(stub_truth.trained(job, tmp_path), job, lost, models=3)


def test_any_share_may_be_asked_for(study: tuple[Plan, Store], found: Failures) -> None:
    job, store = study
    once = debug(store, job, share=1e-9, most=40)
    assert len(once.images) > len(found.images)
    assert min(image.wrong for image in once.images) == pytest.approx(0.1)
    always = debug(store, job, share=1.0, most=40)
    assert {image.wrong for image in always.images} == {1.0}
    assert len(always.images) < len(found.images)


def test_failed_rows_are_counted_and_left_out(tmp_path: Path) -> None:
    job = stub_truth.plan(40)
    store = stub_truth.trained(job, tmp_path, stub_truth.misled)
    found = debug(store, job, unlucky)
    assert found.failed > 5
    assert {name: flips for name, _, flips in found.groups}[f"g{BAD}"] is None, "one run has no spread"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"share": 0}, "share 0"),
        ({"share": 1.2}, "share 1.2"),
        ({"repeats": 1}, "1 repeats"),
        ({"models": 0, "repeats": 2}, "0 models"),
        ({"most": 39}, "one group takes 40"),
        ({"output": "correctness"}, "unknown output"),
    ],
)
def test_what_cannot_be_meant_is_refused(study: tuple[Plan, Store], how: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        debug(study[1], study[0], **how)
    assert error.value.where
    assert error.value.mend


def test_a_plan_without_rows_cannot_blame(tmp_path: Path) -> None:
    job = stub_truth.plan(40)
    store = stub_truth.trained(replace(job, design=job.design.take(range(5))), tmp_path, stub_truth.misled)
    with pytest.raises(StoreError, match="5 finished rows"):
        debug(store, replace(job, design=job.design.take(range(5))))


def test_the_page_says_what_was_found(found: Failures, tmp_path: Path) -> None:
    page = found.page()
    assert page.answer[0].startswith(f"{len(found.images)} of {found.judged} images are wrong in most models")
    assert page.answer[1] == "Wrong: in at least 60 % of 10 models."
    text = " ".join(page.answer)
    assert "Without the group they blame, " in text
    assert "times as often as without a random one" in text
    assert set(page.csv) == {"images.csv", "groups.csv", "rates.csv"}
    assert len(page.csv["images.csv"][1]) == len(found.images)
    assert len(page.csv["rates.csv"][1]) == 6
    write_pages([page], tmp_path, "a study")
    assert f"by g{BAD}" in (tmp_path / "failures.html").read_text()
    assert (tmp_path / "failures" / "images.csv").read_text().count("\n") == len(found.images) + 1


@pytest.mark.parametrize(
    ("low", "high", "ratio", "often", "ends"),
    [
        (0.2, 0.4, 3.0, "3.0 times as often as", "+30.0 points (+20.0 to +40.0)."),
        (0.2, 0.4, np.inf, "more often than", "+30.0 points (+20.0 to +40.0)."),
        (0.0, 0.0, np.inf, "as often as", "+0.0 points (+0.0 to +0.0), which may be nothing."),
        (-0.1, 0.4, 3.0, "3.0 times as often as", "+15.0 points (-10.0 to +40.0), which may be nothing."),
        (-0.4, -0.1, 0.2, "0.2 times as often as", "-25.0 points (-40.0 to -10.0)."),
    ],
)
def test_what_an_interval_does_not_exclude_may_be_nothing(
    found: Failures, low: float, high: float, ratio: float, often: str, ends: str
) -> None:
    assert found.flips is not None
    above = ("4.1", 4.1) if np.isfinite(ratio) else ("no bound above", np.inf)
    compared = Compared((low + high) / 2, 0.1, low, high, ratio, 0.1, above[1])
    page = replace(found, flips=replace(found.flips, compared=compared), unseen=None).page()
    (said,) = [sentence for sentence in page.answer if sentence.startswith("That is ")]
    assert said == f"That is {often} without a random one (95 %: 0.1 to {above[0]}), {ends}"


@pytest.mark.parametrize(
    ("over_random", "over_full", "cure"), [(0.1, 0.1, True), (0.1, -0.1, False), (-0.1, 0.1, False)]
)
def test_the_headline_suggests_a_cure_only_where_it_beats_both(
    found: Failures, over_random: float, over_full: float, cure: bool
) -> None:
    assert found.flips is not None
    two = [replace(found.flips.compared, low=low, high=0.3) for low in (over_random, over_full)]
    answer = replace(found, flips=replace(found.flips, compared=two[0], kept=two[1])).page().answer
    full = f"{100 * found.flips.full.rate:.0f} % with nothing left out"
    assert answer[0].endswith(f"{full}." if cure else f"{full}, so leaving it out is no proven cure.")


def test_the_comparison_with_the_whole_source_is_that_of_its_own_rates(found: Failures) -> None:
    assert found.flips is not None
    kept = found.flips.kept
    assert kept.difference == pytest.approx(found.flips.blamed.rate - found.flips.full.rate)
    assert 0.3 < kept.low < kept.difference


def test_a_dash_is_explained_where_there_is_one_and_as_what_it_is(found: Failures) -> None:
    def note(groups: tuple[tuple[str, int, Any], ...]) -> str:
        (table,) = (b for b in replace(found, groups=groups).page().blocks if isinstance(b, Table))
        return table.note

    assert found.flips is not None
    single = replace(found.flips, blamed=replace(found.flips.blamed, images=1))
    assert note((("a", 9, found.flips),)) == ""
    assert note((("a", 9, found.flips), ("b", 1, single))).startswith("A dash after a difference: fewer than three")
    assert (
        note((("a", 9, found.flips), ("b", 1, None))) == "A row of dashes: not retrained, since fewer images blame it."
    )


def test_groups_are_as_many_as_the_stub_has(found: Failures) -> None:
    assert {name for name, _, _ in found.groups} <= {f"g{i}" for i in range(GROUPS)}
