"""Removal curves: the truth of known models comes back, the best number pays for having been chosen, rows are kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stub_truth
from stub_truth import CALLS, EFFECTS, GROUPS

from pydt.analyses import counterfactual, removal_curve
from pydt.analyses.removal import Removal, left_out, list_rows
from pydt.base import ConfigError
from pydt.ensemble import Plan, RowInput
from pydt.reporting import write_pages
from pydt.store import Outcome, Store


def curve(store: Store | Path, job: Plan, runner: Any = stub_truth.additive, **more: Any) -> Removal:
    with ThreadPoolExecutor(1) as executor:
        return removal_curve(store, job, runner=runner, executor=executor, progress=False, **more)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    job = stub_truth.plan()
    return job, stub_truth.trained(job, tmp_path_factory.mktemp("removal"))


@pytest.fixture(scope="module")
def found(study: tuple[Plan, Store]) -> Removal:
    job, store = study
    lists = {"by hand": ["g0", "g2", "g4"]}
    return curve(store, job, sizes=[1, 2, 4, 6], repeats=6, keep_lists=lists)


def truth(mask: np.ndarray, steps: bool) -> float:
    lost = 0 if steps else 0.02 * float((~mask).sum())
    return 0.6 + float(EFFECTS @ mask) - lost


def test_every_arm_has_the_accuracy_that_is_true_of_it(found: Removal) -> None:
    kinds = {"full": 1, "drop bottom": 4, "drop top": 4, "drop random": 4, "keep by hand": 1, "random as by hand": 1}
    for length in ("epochs", "steps"):
        own = [p for p in found.points if p.length == length]
        assert {kind: sum(p.arm.kind == kind for p in own) for kind in kinds} == kinds
        for point in own:
            expected = np.mean([truth(row.mask, length == "steps") for row in point.arm.rows])
            assert len(point.arm.rows) == 6
            # chances are shares of images whose hardness is uniform: 285 report images, and a spread of runs of 0.01
            assert point.arm.mean == pytest.approx(expected, abs=0.06)
            assert point.images == stub_truth.EACH * point.arm.dropped


def test_it_shows_itself_in_python_and_notebooks(found: Removal) -> None:
    from matplotlib import pyplot

    best = found.best[0]
    assert repr(found).startswith(f"Removal({len(found.points)} points: 8 groups, {found.retrained} rows retrained, ")
    assert f"without the {best.size} lowest, at equal epochs: +{100 * best.gain:.1f} (" in repr(found)
    assert found._repr_html_().count("<tr>") == 21, "a head and the most lines"
    for length in ("epochs", "steps"):
        ax = found.plot(length)
        drawn = {bars.get_label(): bars[0].get_ydata() for bars in ax.containers}
        assert set(drawn) == {p.arm.kind for p in found.points} - {"full"}
        for point in found.points:
            if point.gain is not None and point.length == length:
                at = [text.get_text() for text in ax.get_xticklabels()].index(str(point.arm.dropped))
                assert drawn[point.arm.kind][at] == pytest.approx(100 * point.gain.difference)
        pyplot.close(ax.figure)
    with pytest.raises(ConfigError, match="length"):
        found.plot("years")
    pytest.importorskip("pandas")
    frame = found.to_frame()
    assert len(frame) == len(found.points)
    for line, point in zip(frame.to_dict("records"), found.points, strict=True):
        assert (line["length"], line["kind"], line["dropped"]) == (point.length, point.arm.kind, point.arm.dropped)
        assert line["mean"] == pytest.approx(point.arm.mean)
        for name, one in (("gain", point.gain), ("which", point.which)):
            expected = [np.nan] * 5 if one is None else [one.difference, one.stderr, one.low, one.high, one.p]
            held = [line[f"{name}{part}"] for part in ("", "_stderr", "_low", "_high", "_p")]
            assert held == pytest.approx(expected, nan_ok=True)


def test_the_lowest_groups_are_the_harmful_ones_and_the_gain_is_theirs(found: Removal) -> None:
    assert set(found.ranked[:2]) == {"g1", "g5"}
    for length, gain in (("epochs", 0.14 - 0.04), ("steps", 0.14)):
        point = found.point("drop bottom", 2, length)
        assert point.gain is not None
        assert point.gain.low <= gain <= point.gain.high
        assert point.gain.low > 0.03
        assert point.which is not None
        assert point.which.low > 0, "better than two random groups"
    worse = found.point("drop top", 2).which
    assert worse is not None
    assert worse.high < 0
    kept = found.point("keep by hand", 5, "steps")
    assert kept.gain is not None
    assert kept.gain.low <= 0.12 <= kept.gain.high
    assert kept.arm.names[0] == ("g1", "g3", "g5", "g6", "g7")


def test_the_best_number_and_its_gain(found: Removal) -> None:
    assert [best.length for best in found.best] == ["epochs", "steps"]
    for best, gain in zip(found.best, (0.10, 0.14), strict=True):
        assert best.size == 2
        assert best.chosen == (2, 2)
        assert best.low <= gain <= best.high
        assert best.runs == 3
        assert set(found.keep(best.length)) == {f"g{i}" for i in range(GROUPS)} - {"g1", "g5"}


def test_the_full_source_is_trained_once_and_nothing_twice(study: tuple[Plan, Store], found: Removal) -> None:
    job, store = study
    settings = [record.settings for record in store.plans().values() if record.kind == "rows"]
    assert {of["steps"] for of in settings if "steps" in of} == {6 * 64 // 8}, "those of the full source"
    full = [found.point("full", 0, length).arm for length in ("epochs", "steps")]
    assert np.array_equal(full[0].accuracy, full[1].accuracy)
    CALLS.clear()
    again = curve(store, job, sizes=[1, 2, 4, 6], repeats=6, keep_lists={"another name": ["g4", "g0", "g2"]})
    assert not CALLS
    assert again.best == found.best
    for one, other in zip(again.points, found.points, strict=True):
        assert np.array_equal(one.arm.accuracy, other.arm.accuracy)
        assert one.gain is None or other.gain is None or one.gain.low == other.gain.low
    # More sizes and repeats train only what they add; the fixed-steps arms have a recipe of their own.
    curve(store, job, sizes=[2, 3], repeats=7, steps="same", kinds=("bottom", "random"))
    assert len(CALLS) == 1 + 2 * (1 + 7)
    assert {steps for _, kept, steps in CALLS if kept < GROUPS} == {True}


def test_rows_of_the_counterfactual_are_shared(study: tuple[Plan, Store]) -> None:
    job, store = study
    curve(store, job, sizes=[4], repeats=3, steps="epochs")
    CALLS.clear()
    with ThreadPoolExecutor(1) as executor:
        judged = counterfactual(
            store, job, drop=[4], repeats=3, runner=stub_truth.additive, executor=executor, progress=False
        )
    assert not CALLS
    assert len(judged.arms) == 4


def none_of_the_full_source(given: RowInput) -> dict[str, Outcome]:
    row = given.row
    found = stub_truth.additive(given)
    bad = row.kind == "full"
    return {task: Outcome(status="failed", reason="bad luck") for task in found} if bad else found


def test_there_is_a_best_number_only_where_something_can_be_compared(tmp_path: Path) -> None:
    job = stub_truth.plan(40)
    store = stub_truth.trained(job, tmp_path)
    more: dict[str, Any] = {"sizes": [2], "repeats": 4, "steps": "same"}
    found = curve(store, job, none_of_the_full_source, **more)
    assert [point.arm.kind for point in found.points] == ["drop bottom", "drop random", "drop top"]
    assert not found.best
    assert all(point.gain is None for point in found.points)
    assert [point.which is None for point in found.points] == [False, True, False]
    store = stub_truth.trained(job, tmp_path / "again")
    found = curve(store, job, kinds=("top",), **more)
    assert [point.arm.kind for point in found.points] == ["full", "drop top"]
    assert not found.best
    assert [point.gain is None for point in found.points] == [True, False]
    assert all(point.which is None for point in found.points)


def test_failed_runs_are_counted_and_left_out(tmp_path: Path) -> None:
    job = stub_truth.plan(40)
    store = stub_truth.trained(job, tmp_path)
    found = curve(store, job, stub_truth.failing, sizes=[4], repeats=8, steps="epochs")
    arms = [point.arm for point in found.points]
    assert found.failed == sum(arm.failed for arm in arms) > 0
    assert all(len(arm.rows) + arm.failed == 8 for arm in arms)
    assert found.page().answer[0].startswith(f"No verdict: {found.failed} of 32 retrainings failed, more than 2%")


def test_groups_of_different_sizes_are_matched_in_images(tmp_path: Path) -> None:
    job = stub_truth.plan(40, (40, 40, 40, 8, 8, 8, 8, 8))
    store = stub_truth.trained(job, tmp_path)
    found = curve(
        store, job, sizes=[2], repeats=6, steps="epochs", keep_lists={"small": ["g3", "g4", "g5", "g6", "g7"]}
    )
    alike, kept = found.point("random as small", 3), found.point("keep small", 3)
    assert kept.images == 120
    assert alike.images == 120, "the only three groups with so many images"
    bottom, random, top = (found.point(f"drop {kind}", 2).images for kind in ("bottom", "random", "top"))
    assert abs(random - (bottom + top) / 2) <= 16


def test_mean_per_class_is_judged_as_the_store_does(tmp_path: Path) -> None:
    job = stub_truth.mean_per_class(stub_truth.plan(40))
    store = stub_truth.trained(job, tmp_path)
    found = curve(store, job, sizes=[2], repeats=4, steps="same")
    assert found.best[0].size == 2
    assert "per class" in found.page().blocks[0].y_label


# ---- arguments -----------------------------------------------------------------------------------------------------


def test_a_keep_list_keeps_what_it_says() -> None:
    names = tuple(f"g{i}" for i in range(6))
    lists = left_out(names, {"two": ["g1", "g4"]})
    rows = list_rows(lists, np.full(6, 10), 3, 0)
    kept = [row for row in rows if row.kind == "keep two"]
    assert {tuple(np.flatnonzero(row.mask)) for row in kept} == {(1, 4)}
    assert len({row.seed for row in rows}) == len(rows) == 6
    assert all(row.mask.sum() == 2 for row in rows)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"sizes": [8]}, "from 1 to 7"),
        ({"sizes": []}, "from 1 to 7"),
        ({"kinds": ["lowest"]}, "unknown kind"),
        ({"steps": "equal"}, "epochs, same, both"),
        ({"repeats": 1}, "at least 2"),
        ({"keep_lists": {"a": ["g0", "gO"]}}, "no group 'gO'"),
        ({"keep_lists": {"a": "g0"}}, "is one text"),
        ({"keep_lists": {"a": []}}, "keeps 0 of 8"),
        ({"keep_lists": {"a": [f"g{i}" for i in range(8)]}}, "keeps 8 of 8"),
    ],
)
def test_what_cannot_be_meant_is_refused(study: tuple[Plan, Store], how: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        curve(study[1], study[0], **how)
    assert error.value.where
    assert error.value.mend


@pytest.mark.parametrize("budget", ["steps", "samples"])
def test_a_recipe_of_steps_knows_no_epochs(tmp_path: Path, budget: str) -> None:
    job = stub_truth.plan(40)
    job = replace(job, recipe=replace(job.recipe, epochs=None, **{budget: 30}))
    store = stub_truth.trained(job, tmp_path)
    with pytest.raises(ConfigError, match=f"{budget}, not epochs"):
        curve(store, job, steps="epochs")
    found = curve(store, job, sizes=[2], repeats=2)
    assert {point.length for point in found.points} == {"steps"}
    assert not found.best
    with pytest.raises(ConfigError, match="at least 4 repeats"):
        found.keep("steps")
    with pytest.raises(ConfigError, match="there are: full 0 at equal steps"):
        found.point("full", 0)


def test_the_page_says_what_was_found(found: Removal, tmp_path: Path) -> None:
    page = found.page()
    text = " ".join(page.answer)
    which = [p.which for p in found.points if p.arm.kind == "drop bottom" and p.which is not None]
    reach = 100 * float(np.median([(c.high - c.low) / 2 for c in which]))
    assert f"{len(which)} comparisons (95 % intervals, each by itself; they reach {reach:.2f} points to either" in text
    best = {b.length: b for b in found.best}
    assert best["epochs"].chosen == (2, 2)
    assert "At equal epochs, leaving out the 2 lowest groups changes accuracy by +" in text
    most = max(max(b.size, *b.chosen) for b in found.best)
    named = ", ".join(f"“{name}”" for name in found.ranked[: most - 1])
    assert f"The {most} lowest groups, the lowest first, are {named} and “{found.ranked[most - 1]}”." in text
    mixed = replace(found, best=tuple(replace(b, chosen=(0, 1)) for b in found.best))
    assert (
        "leaving out none or the lowest group (each chosen by one half) changes accuracy by" in mixed.page().answer[0]
    )
    assert "), a gain." in text
    assert "To keep only by hand (5 groups left out, equal steps, n = 6)" in text
    assert text.count("To keep only ") == 2  # at equal epochs and at equal steps
    assert set(page.csv) == {"arms.csv", "best.csv", "keep-epochs.csv", "keep-steps.csv"}
    header, lines = page.csv["arms.csv"]
    assert len(list(lines)) == len(found.points)
    at = header.index("against random, p")
    assert [line[at] for line in lines] == [None if point.which is None else point.which.p for point in found.points]
    write_pages([page], tmp_path, "a study")
    assert "keep by hand" in (tmp_path / "removal.html").read_text()
    assert (tmp_path / "removal" / "keep-epochs.csv").read_text().split() == ["group", *found.keep("epochs")]


def test_how_many_retrainings_is_said_before(
    study: tuple[Plan, Store], found: Removal, capsys: pytest.CaptureFixture[str]
) -> None:
    job, store = study
    with ThreadPoolExecutor(1) as executor:
        removal_curve(store, job, sizes=[5], repeats=2, steps="epochs", runner=stub_truth.additive, executor=executor)
    assert "8 retrainings, 2 of them stored; the others take about" in capsys.readouterr().err
