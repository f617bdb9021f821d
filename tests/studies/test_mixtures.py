"""Sources as groups: plans of mixtures, what they and the study say of each source, and the page, on planted rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydt.errors import ConfigError, StoreError
from stub_cells import FAST, SCRATCH, images, small_study
from stub_store import contents
from stub_studies import events
from stub_studies import images as blobs
from stub_studies import small as trained_study

import pydt
from pydt.data import Target, pictures
from pydt.design import bernoulli
from pydt.estimation import holm, influences
from pydt.reporting import write_pages
from pydt.store import Outcome, Store
from pydt.studies import Mixture, Source, Study, cells_of, mixture_cost, mixtures_by_shots, run_study
from pydt.studies import mixture_plan as plan_of
from pydt.studies.mixtures import MixturesByShots
from pydt.studies.running import tasks_with_rates
from pydt.training import FineTune, Recipe

SOURCES = ("latin", "greek", "cyrillic", "signs")
FADE = {1: 1.0, 5: 0.5, "full": 0.0}
MIXED = {"latin": 0.08, "greek": 0.0, "cyrillic": 0.0, "signs": -0.08}
ALIKE = {"latin": 0.12, "greek": 0.0, "cyrillic": 0.0, "signs": -0.12}
TURNED = {"latin": -0.12, "greek": 0.0, "cyrillic": 0.0, "signs": 0.12}


class Planted:
    """Rows whose accuracy is planted: what their sources bring in mixtures or alone, less with more shots."""

    def __init__(self, alone: dict[str, float], failed: int | None = None) -> None:
        self.alone, self.failed = alone, failed

    def __call__(self, given: Any) -> dict[str, Outcome]:
        context, found = given.context, {}
        if context.by == "source":
            names = context.units[1]
            own = sum(MIXED[name] for name, kept in zip(names, given.row.mask, strict=True) if kept)
        else:
            own = next((value for name, value in self.alone.items() if name in context.source.name), -0.1)
        for t, task in enumerate(given.tasks):
            if context.by == "source" and given.row.seed == self.failed:
                found[task.digest] = Outcome(status="failed", reason="planted")
                continue
            labels = task.examples()["labels"]
            hard = np.random.default_rng([7, t]).random(len(labels))
            random = np.random.default_rng([given.row.seed, t, len(context.source.name)])
            level = 0.6 + FADE[task.shots] * own + 0.01 * random.normal()
            shape = (1 if task.shots == "full" else task.draws, len(labels))
            right = np.where(random.random(shape) < 0.5, hard, random.random(shape)) < level
            margin = np.where(right, 1.0, -1.0)
            guess = np.where(right, labels, 1 - labels)
            primitives = np.stack([margin, -margin, -margin, guess]).astype(np.float32)
            found[task.digest] = Outcome({"primitives": primitives}, {})
        return found


def study_of(**more: Any) -> Study:
    """Four sources, two sizes, one target of 540 judged images."""
    about: dict[str, Any] = {"targets": {"digits": Target(images("digits", 900))}, "scratch": SCRATCH}
    return small_study(**{**about, **more})


def ran(folder: Path, study: Study, runner: Any, models: int = 64) -> Store:
    """The study and its mixtures in one store."""
    with ThreadPoolExecutor(1) as thread:
        run_study(study, folder, thread, runner=runner, progress=False)
        return pydt.run(plan_of(study, folder, models=models), folder, thread, runner=runner, progress=False)


# ---- the plan -------------------------------------------------------------------------------------------------------


def test_a_plan_holds_the_studys_samples_and_asks_its_tasks() -> None:
    study = study_of(modes={"probe": {}, "finetune": {"finetune": FineTune(epochs=2)}})
    plan = plan_of(study, models=20)
    arm = next(arm for arm in study.arms if (arm.source, arm.size) == ("greek", 40))
    assert (plan.by, plan.design.kind, len(plan.design), plan.recipe) == ("source", "foldover", 20, FAST)
    assert plan.tasks == study.tasks(arm)
    group, names = plan.context.units
    assert names == SOURCES
    sample = study.part(arm, 0).context.source
    assert np.array_equal(np.stack(pictures(plan.source, np.flatnonzero(group == 1))), pictures(sample, range(40)))
    assert len(plan_of(study, size=20).source) == 80
    assert np.array_equal(np.asarray(plan_of(study).design)[:20], np.asarray(plan.design))  # more rows change none
    assert plan_of(study, seed=1).digest != plan_of(study).digest == plan_of(study, seed=0).digest


def test_what_has_no_mixtures_is_refused_with_a_mend() -> None:
    def refused(study: Study, text: str, **more: Any) -> None:
        with pytest.raises(ConfigError, match=text):
            plan_of(study, **more)

    own = {name: images(name) for name in SOURCES}
    refused(study_of(sources={name: own[name] for name in SOURCES[:2]}), "2 of at least 3 sources")
    refused(study_of(), "unknown method 'clip'", method="clip")
    refused(study_of(), "size 30.*20, 40", size=30)
    refused(study_of(), "15 is out of range", models=15)
    wrong = {**own, "noisy latin": Source(own["latin"], noise=0.2)}
    refused(study_of(sources=wrong), "'latin' and 'noisy latin' share 60 images")
    mixed = {**own, "both": Mixture({"a": own["latin"], "b": own["greek"]}, weights={"a": 0.5, "b": 0.5})}
    refused(study_of(sources=mixed), "'latin' and 'both: a' share 60 images")
    cells = [(name, 40, "supervised") for name in SOURCES[:3]] + [(name, 20, "supervised") for name in SOURCES]
    study = study_of(cells=cells)
    assert len(plan_of(study).source) == 80
    refused(study, "'signs' has no arm of 40 images", size=40)
    refused(study_of(modes={"finetune": {}}, rates=(0.1, 0.2)), "learning rates are in its store")


# ---- what is found --------------------------------------------------------------------------------------------------


def shown_in_python(found: MixturesByShots) -> None:
    """Its line, table, frame and plot hold its attributes."""
    from matplotlib import pyplot

    assert repr(found).startswith("MixturesByShots(supervised, ")
    assert len(repr(found)) < 200
    assert found._repr_html_().count("<tr>") == 1 + len(found.places)
    ax = found.plot()
    drawn = [bars[0].get_ydata() for bars in ax.containers]
    expected = [
        [100 * one.value for one in found.of(source=name, answer="added") if one.shots != "change"]
        for name in found.sources
    ]
    assert np.allclose(drawn, expected)
    pyplot.close(ax.figure)
    with pytest.raises(ConfigError, match="no target 'none' with mode None"):
        found.plot("none")
    pytest.importorskip("pandas")
    frame = found.to_frame()
    assert frame["value"].tolist() == [one.value for one in found.effects]
    assert frame["source"].tolist() == [one.source for one in found.effects]


def test_planted_effects_are_found_in_both_answers(tmp_path: Path) -> None:
    study = study_of()
    before = study.digest
    store = ran(tmp_path / "s", study, Planted(ALIKE))
    assert study.digest == before
    found = pydt.mixtures_by_shots(study, store)
    shown_in_python(found)
    assert (found.method, found.size, found.sources, found.rows, found.failed) == ("supervised", 40, SOURCES, 64, 0)
    for answer, truth in (("mixtures", MIXED), ("alone", ALIKE), ("added", MIXED)):
        for shots, left in FADE.items():
            for name in SOURCES:
                (one,) = found.of(answer=answer, shots=shots, source=name)
                assert abs(one.value - left * truth[name]) < 4 * one.stderr + 1e-3, one
                assert one.sure == (left > 0 and truth[name] != 0), one
    change = {(one.source, one.answer): one for one in found.of(shots="change")}
    assert change["latin", "mixtures"].sure
    assert change["signs", "alone"].sure
    assert not change["greek", "mixtures"].sure
    assert abs(change["latin", "mixtures"].value + 0.08) < 0.03
    assert [one.kendall > 0.6 for one in found.places[:2]] == [True, True]
    at = found.places[0]
    assert (at.first, at.alone) == ("latin", "latin")
    assert at.low < 0 < at.high, "what sources bring together is 0"
    assert at.reached[:3] == pytest.approx([0.6, 0.6, 0.6], abs=0.03)
    assert np.isnan(at.reached[3]), "no row has all"
    assert at.spread == pytest.approx(np.std(list(MIXED.values()), ddof=1), abs=0.025)
    assert at.spread_alone == pytest.approx(np.std(list(ALIKE.values()), ddof=1), abs=0.025)
    first = found.page().answer[0]
    assert first.startswith("In mixtures, as alone, “latin” helps most at 1 shot: +")
    assert "64 rows, 4 sources" in first


def test_answers_that_differ_are_told_apart(tmp_path: Path) -> None:
    study = study_of(seeds=4)
    found = mixtures_by_shots(study, ran(tmp_path / "s", study, Planted(TURNED)))
    latin = found.of(answer="difference", shots=1, source="latin")[0]
    assert latin.sure
    assert abs(latin.value - 0.2) < 0.05
    for shots in (1, "full", "change"):
        own = found.of(answer="difference", shots=shots, mode=latin.mode)
        assert [one.p_holm for one in own] == holm(np.array([one.p for one in own])).tolist(), "over the sources"
    assert not any(one.p < 0.001 for one in found.of(answer="difference", shots="full"))
    answer = " ".join(found.page().answer)
    assert "In mixtures, at 1 shot, “latin” helps most" in answer
    assert "alone “signs” helps most" in answer
    assert "The two answers differ in" in answer
    at = found.places[0]
    assert (at.first, at.alone, at.kendall < -0.3) == ("latin", "signs", True)


def test_values_are_those_of_ols_and_of_the_studys_means(tmp_path: Path) -> None:
    study = study_of()
    store = ran(tmp_path / "s", study, Planted(ALIKE), models=28)
    plan = plan_of(study, store, models=28)
    found = mixtures_by_shots(study, store, plan)
    task = plan.tasks[0]
    rows = store.outputs(task.digest, "correct", "report", plan.record()).mean(1, dtype=np.float64)
    fit = influences(np.asarray(plan.design), rows, "ols", clusters=np.arange(28))
    mine = fit.unbiased - fit.unbiased.mean()
    got = [found.of(answer="mixtures", shots=1, source=name)[0].value for name in SOURCES]
    assert got == pytest.approx(mine.tolist(), abs=1e-6)
    got = [found.of(answer="added", shots=1, source=name)[0].value for name in SOURCES]
    assert got == pytest.approx(fit.unbiased.tolist(), abs=1e-6)
    cells = cells_of(study, store)
    means = np.array([cells[f"{name}, 40 images, supervised", task.name].mean for name in SOURCES])
    got = [found.of(answer="alone", shots=1, source=name)[0].value for name in SOURCES]
    assert got == pytest.approx((means - means.mean()).tolist(), abs=1e-6)


def test_rows_that_failed_are_left_out_and_said(tmp_path: Path) -> None:
    study = study_of()
    lost = plan_of(study, models=32).rows()[3].seed
    found = mixtures_by_shots(study, ran(tmp_path / "s", study, Planted(ALIKE, failed=lost), models=32))
    assert (found.rows, found.failed) == (31, 1)
    assert "1 row of mixtures failed and is left out." in found.page().answer


def test_other_plans_and_stores_without_mixtures_are_refused(tmp_path: Path) -> None:
    study, folder = study_of(), tmp_path / "s"
    with ThreadPoolExecutor(1) as thread:
        store = run_study(study, folder, thread, runner=Planted(ALIKE), progress=False)
    with pytest.raises(StoreError, match="holds no rows of mixtures"):
        mixtures_by_shots(study, store)
    plan = plan_of(study, models=20)
    other = replace(plan, by="class", design=bernoulli(2, 20))
    with pytest.raises(ConfigError, match="is no plan of mixtures"):
        mixtures_by_shots(study, store, other)
    with pytest.raises(ConfigError, match=r"is a str.*make it with pydt\.mixture_plan"):
        mixtures_by_shots(study, store, "a digest")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"is a str.*pydt\.read_study\(FILE\)\.study reads one"):
        mixtures_by_shots("study.toml", store)  # type: ignore[arg-type]


def test_one_number_of_shots_has_no_change(tmp_path: Path) -> None:
    study = study_of(shots=(1,))
    found = mixtures_by_shots(study, ran(tmp_path / "s", study, Planted(ALIKE)))
    assert len(found.effects) == 4 * 4
    assert not any("changes with shots" in text for text in found.page().answer)


def test_the_page_is_written_and_mixtures_change_no_byte_of_the_study(tmp_path: Path) -> None:
    study, folder = study_of(), tmp_path / "s"
    with ThreadPoolExecutor(1) as thread:
        run_study(study, folder, thread, runner=Planted(ALIKE), progress=False)
    before = {name: data for name, data in contents(folder).items() if name.startswith(("rows/", "tasks/", "plans/"))}
    store = ran(folder, study, Planted(ALIKE), models=16)
    after = contents(folder)
    assert before.items() <= after.items()
    page = mixtures_by_shots(study, store).page()
    write_pages([page], folder / "analyses", "a study")
    html = (folder / "analyses" / "mixtures.html").read_text()
    assert all(f"latin, {how}" in html for how in ("in mixtures", "alone"))
    assert "digits, probe: what adding a source to others brings" in html
    lines = (folder / "analyses" / "mixtures" / "sources.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 4 * (3 + 1)


# ---- whole ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_networks_on_mixtures_take_the_rates_of_the_study_and_train_none_of_its_rows(tmp_path: Path) -> None:
    about: dict[str, Any] = {"sources": {name: blobs(name, 12, 4, seed) for seed, name in enumerate("abc")}}
    about |= {"methods": {"supervised": Recipe("convnet-4", steps=3, batch_size=8)}, "sizes": (16,)}
    study, folder = trained_study(**about), tmp_path / "s"
    assert mixture_cost(study, folder, models=12).rows == 12
    with pytest.raises(StoreError, match="no choice of the learning rates"):
        plan_of(study, folder, models=12)
    with ThreadPoolExecutor(1) as thread:
        store = run_study(study, folder, thread, progress=False)
        before, rows = contents(folder), len(events(folder))
        plan = plan_of(study, store, models=12)
        pydt.run(plan, folder, thread, progress=False)
    assert len(events(folder)) == rows + 12
    same = {name: data for name, data in before.items() if name.startswith(("rows/", "tasks/", "plans/", "choices/"))}
    assert same.items() <= contents(folder).items()
    for i, task in enumerate(plan.tasks):
        if task.rate is not None:
            own = [tasks_with_rates(study, folder, arm)[i].rate for arm in study.arms if arm.kind == "trained"]
            assert task.rate == sorted(own)[1]
    found = mixtures_by_shots(study, store)
    assert found.rows == 12
    assert len(found.effects) == 2 * 2 * 3 * 4 * (2 + 1)
    assert any("Learning rates of transfer are medians" in note for note in found.notes)
