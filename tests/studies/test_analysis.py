"""The results of a study, on cells whose truth is known: numbers, families, what selects and what judges."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydt.errors import StoreError
from stub_cells import FAST, FINETUNE, SCRATCH, World, images, small_study

import pydt
from pydt.data import Target
from pydt.ensemble import RowInput
from pydt.reporting import scratch_sentence, study_page
from pydt.store import Outcome
from pydt.studies import Mixture, PublicModel, Source, Study
from pydt.studies.analysis import study_results
from pydt.studies.conditions import equal, unequal
from pydt.studies.study import Arm
from pydt.training import Checkpoint, FineTune, Recipe

FAR: dict[Any, float] = {1: 1.0, 2: 0.8, 5: 0.4, "full": 0.0}
OFFSETS = {"latin": 0.08, "greek": 0.0, "cyrillic": -0.01, "signs": -0.03}
METHODS = {"short": FAST, "long": replace(FAST, steps=9), "wide": replace(FAST, network="convnet-16")}


def fading(arm: Arm, target: str, mode: str, shots: Any) -> float:
    """Sources differ at 1 shot and not with all labelled images; scratch catches up."""
    own = OFFSETS[arm.source] + 0.02 * (arm.size == 40) if arm.kind == "trained" else -0.12
    return 0.6 + 0.25 * (1 - FAR[shots]) + FAR[shots] * own


def level(arm: Arm, target: str, mode: str, shots: Any) -> float:
    """All arms are alike."""
    return 0.6


def results(study: Study, truth: Any = fading, seed: int = 0, **more: Any) -> dict[str, Any]:
    cells = World(truth, **more).cells(study, seed)
    found = study_results(study, cells["report"], cells["score"])
    json.dumps(found, allow_nan=False)
    return found


def rows(found: Any, **about: Any) -> list[dict[str, Any]]:
    return [row for row in found if all(row[name] == value for name, value in about.items())]


def only(found: Any, **about: Any) -> dict[str, Any]:
    (row,) = rows(found, **about)
    return row


def values_of(study: Study, half: str, arm: str, task: str, truth: Any = fading, **more: Any) -> np.ndarray:
    """float64 (seeds, draws, images) of an arm, seeds that failed left out."""
    return np.asarray(World(truth, **more).cells(study)[half][arm, task].values, np.float64)


AT = {"target": "digits", "mode": "probe", "shots": 1}


# ---- numbers --------------------------------------------------------------------------------------------------------


def test_accuracies_are_means_over_seeds_draws_and_images_of_the_report_half() -> None:
    study = small_study(scratch=SCRATCH)
    found = results(study)["accuracy"]
    assert len(found) == (8 + 1) * 2 * 3
    row = only(found, **AT, source="latin", size=40)
    mine = values_of(study, "report", "latin, 40 images, supervised", "digits, probe, 1 shot")
    assert row["mean"] == pytest.approx(mine.mean(), abs=1e-12)
    assert (row["seeds"], row["networks"], row["draws"], row["images"], row["kind"]) == (3, 3, 5, 300, "trained")
    assert row["low"] < row["mean"] < row["high"]
    scratch = only(found, **AT, kind="scratch")
    assert (scratch["source"], scratch["size"], scratch["method"]) == (None, None, "none")
    assert only(found, **{**AT, "shots": "full"}, source="latin", size=40)["unknown"] == ["draws"]


def test_differences_are_paired_and_turn_with_their_order() -> None:
    study = small_study(scratch=SCRATCH)
    found = results(study)["pairs"]
    task = "digits, probe, 1 shot"
    mine = {name: values_of(study, "report", f"{name}, 40 images, supervised", task) for name in ("latin", "signs")}
    row = only(found, axis="source", **AT, size=40, first="latin", second="signs")
    assert row["difference"] == pytest.approx((mine["latin"] - mine["signs"]).mean(), abs=1e-12)
    assert row["low"] < row["difference"] < row["high"]
    of_scratch = values_of(study, "report", "scratch", task)
    gain = only(found, axis="scratch", **AT, size=40, first="latin")
    assert gain["difference"] == pytest.approx((mine["latin"] - of_scratch).mean(), abs=1e-12)
    small = values_of(study, "report", "latin, 20 images, supervised", task)
    more = only(found, axis="size", **AT, at="latin, supervised")
    assert (more["first"], more["second"]) == (40, 20)
    assert more["difference"] == pytest.approx((mine["latin"] - small).mean(), abs=1e-12)
    # whichever source the score half puts first, its step is one of this family
    steps = [row for row in found if row["family"] == more["family"]]
    assert [row["at"] for row in steps] == [f"{name}, supervised" for name in study.sources]
    assert [row["p_holm"] for row in steps] == pytest.approx(adjusted([row["p"] for row in steps]))


def adjusted(p: list[float]) -> list[float]:
    """Holm's p values, one by one: of the k-th smallest the largest of (n - j) p_(j) up to it."""
    order = sorted(p)
    return [min(1.0, max((len(p) - j) * order[j] for j in range(order.index(one) + 1))) for one in p]


def test_families_of_tests_are_whole_and_adjusted_by_holm() -> None:
    found = results(small_study(methods=METHODS, scratch=SCRATCH))["pairs"]
    families: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        families.setdefault(row["family"], []).append(row)
    for name, own in families.items():
        expected = adjusted([row["p"] for row in own])
        assert [row["p_holm"] for row in own] == pytest.approx(expected, abs=1e-12), name
        assert {row["tests"] for row in own} == {len(own)}, name
        assert len({row["axis"] for row in own}) == 1, name
    sources = [own for own in families.values() if own[0]["axis"] == "source"]
    assert {len(own) for own in sources} == {6}
    for own in sources:  # one place, size and method
        assert len({(row["target"], row["mode"], row["shots"], row["size"], row["at"]) for row in own}) == 1
    methods = [own for own in families.values() if own[0]["axis"] == "method"]
    assert {len(own) for own in methods} == {3}
    assert {row["at"] for own in methods for row in own} == {None, *OFFSETS}
    scratch = [own for own in families.values() if own[0]["axis"] == "scratch"]
    for own in scratch:  # the recommended source is picked among all of them
        cells = [(row["first"], row["shots"]) for row in own]
        assert sorted(cells, key=str) == sorted(((name, k) for name in OFFSETS for k in (1, 5, "full")), key=str)


def test_methods_are_averaged_over_the_sources_that_both_have() -> None:
    cells = [(name, 40, method) for name in ("latin", "greek", "signs") for method in ("short", "wide")]
    study = small_study(methods=METHODS, sizes=(40,), cells=[*cells[:-1], ("latin", 40, "long")])
    found = results(study)["pairs"]
    task = "digits, probe, 1 shot"
    both = [
        values_of(study, "report", f"{name}, 40 images, short", task)
        - values_of(study, "report", f"{name}, 40 images, wide", task)
        for name in ("latin", "greek")
    ]
    row = only(found, axis="method", **AT, at=None)
    assert {row["first"], row["second"]} == {"short", "wide"}
    sign = 1 if row["first"] == "short" else -1
    assert sign * row["difference"] == pytest.approx(np.mean(both), abs=1e-12)
    # length is a pair whose recipes differ in the budget alone
    assert {(row["first"], row["second"]) for row in rows(found, axis="length")} == {("short", "long")}


def test_failed_seeds_are_left_out_of_both_arms_and_named() -> None:
    study = small_study(sources={name: images(name) for name in ("latin", "greek")}, scratch=SCRATCH)
    failed = {"latin, 40 images, supervised": (1,), "scratch": (0, 1, 2)}
    found = results(study, failed=failed)
    task = "digits, probe, 1 shot"
    latin = values_of(study, "report", "latin, 40 images, supervised", task, failed=failed)
    greek = values_of(study, "report", "greek, 40 images, supervised", task)[[0, 2]]
    row = only(found["pairs"], axis="source", **AT, size=40)
    assert row["difference"] == pytest.approx((latin - greek).mean(), abs=1e-12)
    assert row["seeds"] == 2
    of_scratch = only(found["accuracy"], **AT, kind="scratch")
    assert (of_scratch["mean"], of_scratch["seeds"], of_scratch["failed"]) == (None, 0, 3)
    assert not found["scratch"]
    assert found["study"]["failed"] == 4
    note = next(note for note in found["notes"] if "failed" in note)
    assert "4 of 15 rows failed" in note
    assert "latin, 40 images, supervised, seed 1: diverged" in note


# ---- selection ------------------------------------------------------------------------------------------------------


def poisoned(half: str, truth: Any = fading) -> dict[str, Any]:
    """Results where one half of the targets likes signs best."""
    shift = {half: lambda arm, *_: 0.2 * (arm.source == "signs")}
    return results(small_study(scratch=SCRATCH), truth, shift=shift)


NUMBERS = ("accuracy", "pairs", "scratch")
CHOSEN = ("best", "worst")


def test_the_score_half_selects_and_changes_no_number() -> None:
    clean, bad = results(small_study(scratch=SCRATCH)), poisoned("score")
    for table in NUMBERS:
        assert clean[table] == bad[table], table
    spreads = [[{k: v for k, v in row.items() if k not in CHOSEN} for row in found["spread"]] for found in (clean, bad)]
    assert spreads[0] == spreads[1]
    assert {row["best"] for row in rows(clean["spread"], shots=1)} == {"latin"}
    assert {row["best"] for row in bad["spread"]} == {"signs"}
    assert clean["chosen"] == {"source": "latin", "size": 40, "method": "supervised"}
    # the report half knows better: what the score half likes is not recommended
    assert bad["chosen"]["source"] is None
    assert "no source is recommended" in bad["recommendation"][0]
    assert "“signs”, first on the score half, is worse than “latin”" in bad["recommendation"][0]


def test_the_report_half_judges_and_selects_nothing() -> None:
    clean, bad = results(small_study(scratch=SCRATCH)), poisoned("report")
    picked = [[row[name] for row in found["spread"] for name in CHOSEN] for found in (clean, bad)]
    assert picked[0] == picked[1]
    assert [row["first"] for row in clean["equivalence"]] == [row["first"] for row in bad["equivalence"]]
    assert clean["accuracy"] != bad["accuracy"]


# ---- what is said, whichever way the figures fall -------------------------------------------------------------------


def test_a_clear_winner_is_recommended_with_its_lead() -> None:
    found = results(small_study(scratch=SCRATCH))
    which, more, until = found["recommendation"]
    assert which.startswith("Pre-train on “latin” (supervised, 40 images, probe): at 1 shot on “digits” ")
    assert "better than all 3 others beyond noise" in which
    mean = only(found["accuracy"], **AT, source="latin", size=40)["mean"]
    assert f"“digits” {100 * mean:.1f} % against" in which
    assert more.startswith("40 images of “latin” in place of 20 ")
    assert "“latin” pays over scratch up to" in until
    assert "beyond" in until


def test_without_differences_no_source_is_named() -> None:
    found = results(small_study(scratch=SCRATCH), level)
    which, _, until = found["recommendation"]
    assert which.startswith("No source is better than another beyond noise at 1 shot on ")
    assert "differences up to" in which
    assert not any(name in which for name in OFFSETS)
    assert found["chosen"]["source"] is None
    assert "pays over scratch" not in until


def test_winners_that_differ_by_target_are_named_for_each() -> None:
    best = {"digits": "latin", "textures": "signs"}
    found = results(small_study(), lambda arm, target, mode, shots: 0.6 + 0.1 * (arm.source == best[target]))
    which = found["recommendation"][0]
    assert "Pre-train on “latin” (supervised, 40 images, probe): at 1 shot on “digits”" in which
    assert "pre-train on “signs” (supervised, 40 images, probe): at 1 shot on “textures”" in which
    assert found["chosen"]["source"] is None
    assert "sources differ at all shots tried" in found["recommendation"][2]


def test_a_winner_at_one_shot_alone_stops_mattering_there() -> None:
    truth = lambda arm, target, mode, shots: 0.6 + 0.1 * (arm.source == "greek" and shots == 1)  # noqa: E731
    found = results(small_study(), truth, seed=1)
    assert found["chosen"]["source"] == "greek"
    assert "sources differ up to 1 shot" in found["recommendation"][2]


def test_more_data_that_hurts_is_said_to_hurt() -> None:
    for sign, word in ((-1, " hurt on "), (1, " help on ")):
        found = results(small_study(), lambda arm, *_, s=sign: 0.6 + s * 0.08 * (arm.size == 40))
        assert word in found["recommendation"][1]
        assert (" hurt " in found["recommendation"][1]) == (sign < 0)
        difference = only(found["pairs"], axis="size", **AT, at="latin, supervised")["difference"]
        assert np.sign(difference) == sign


def test_where_scratch_is_better_nothing_pays() -> None:
    found = results(small_study(scratch=SCRATCH), lambda arm, *_: 0.6 + 0.08 * (arm.kind == "scratch"))
    assert "scratch is better" in found["recommendation"][2]
    assert {row["stops_paying_at"] for row in found["scratch"]} == {1}
    assert not any(gain["detected"] for row in found["scratch"] for gain in row["gains"])


def test_gains_over_scratch_end_at_the_first_shots_without_one() -> None:
    study = small_study(scratch=SCRATCH, targets={"digits": Target(images("digits", 180))}, sizes=(40,))
    few = lambda arm, target, mode, shots: 0.6 + 0.15 * (arm.kind == "trained" and shots != "full")  # noqa: E731
    found = results(study, few, images=1000)
    for row in found["scratch"]:
        assert row["stops_paying_at"] == "full"
        assert row["hidden"] == row["gains"][-1]["high"]
        assert "pays over scratch up to 5 shots" in row["told"]
    always = results(study, lambda arm, *_: 0.6 + 0.15 * (arm.kind == "trained"), images=1000)
    assert {(row["stops_paying_at"], row["hidden"]) for row in always["scratch"]} == {(None, None)}
    assert "pays over scratch at all shots tried" in always["recommendation"][2]


def test_one_source_or_size_is_not_compared() -> None:
    found = results(small_study(sources={"latin": images("latin")}, sizes=(40,)))
    assert "Only “latin” was tried" in found["recommendation"][0]
    assert "one size" in found["recommendation"][1]
    assert "not known" in found["recommendation"][2]
    assert (found["spread"], found["ranks"], found["equivalence"]) == ([], [], [])


def test_method_and_mode_are_those_of_the_highest_mean_on_the_score_half() -> None:
    truth = lambda arm, t, mode, k: 0.5 + 0.1 * (arm.method == "wide") + 0.1 * (mode == "finetune")  # noqa: E731
    found = results(small_study(methods=METHODS, modes=FINETUNE, sizes=(40,)), truth)
    assert "(wide, 40 images, finetune" in found["recommendation"][0]
    assert "as a method, wide is better than “short” and “long”" in found["recommendation"][0]


# ---- axes -----------------------------------------------------------------------------------------------------------


def test_captions_noise_and_mixtures_have_families_of_their_own() -> None:
    texts = [f"a small {i % 2}" for i in range(60)]
    latin = replace(images("latin"), captions=tuple(texts))
    sources = {
        "raw": Source(latin),
        "template": Source(latin, captions="template"),
        "wrong": Source(latin, noise=0.25),
        "both": Source(latin, captions="template", noise=0.25),
        "greek": Source(images("greek")),
        "mixed": Mixture({"latin": latin, "greek": images("greek")}, weights={"latin": 0.5, "greek": 0.5}),
    }
    study = small_study(sources=sources, methods={"clip": replace(FAST, method="clip")}, sizes=(40,), cells=[
        (name, 40, "clip") for name in sources if name not in ("greek", "mixed")
    ])  # fmt: skip
    pairs = results(study, level)["pairs"]
    found = {axis: {(row["first"], row["second"]) for row in rows(pairs, axis=axis)} for axis in ("captions", "noise")}
    assert found["captions"] == {("raw", "template"), ("wrong", "both")}
    assert found["noise"] == {("raw", "wrong"), ("template", "both")}
    assert {row["tests"] for row in rows(pairs, axis="captions")} == {2}
    assert {row["tests"] for row in rows(pairs, axis="source")} == {6}
    supervised = small_study(sources=sources, sizes=(40,))
    mixed = {(row["first"], row["second"]) for row in rows(results(supervised, level)["pairs"], axis="mixture")}
    assert mixed == {("raw", "mixed"), ("greek", "mixed")}


def test_sources_that_are_the_same_training_are_compared_once() -> None:
    latin = replace(images("latin"), captions=tuple(f"a small {i % 2}" for i in range(60)))
    sources = {"raw": Source(latin), "template": Source(latin, captions="template"), "greek": images("greek")}
    found = results(small_study(sources=sources), level)
    assert {(row["first"], row["second"]) for row in rows(found["pairs"], axis="source")} == {("raw", "greek")}
    assert {row["sources"] for row in found["spread"]} == {2}
    assert any("“template” is the same training as “raw”" in note for note in found["notes"])
    assert len(rows(found["accuracy"], **AT)) == 6  # all of them are shown


def test_size_equivalence_asks_of_the_source_that_is_ahead(tmp_path: Path) -> None:
    every = results(small_study(methods=METHODS))
    found = every["equivalence"]
    assert {row["size"] for row in found} == {20}
    ahead = rows(found, **AT, axis="source", method="short", first="latin")
    assert {row["second"] for row in ahead} == {"greek", "cyrillic", "signs"}
    for name, other in combinations(OFFSETS, 2):
        both = [
            r for r in rows(found, **AT, axis="source", method="short") if {r["first"], r["second"]} == {name, other}
        ]
        assert len(both) == 1
    own = rows(found, **AT, axis="method", at="latin")
    assert len(own) == 3
    assert all(row["method"] is None and row["source"] == "latin" and row["told"] for row in own)
    study_page(every, tmp_path)


def test_orders_are_compared_over_shots_targets_and_seeds() -> None:
    found = results(small_study(shots=(1, 2, 5, "full")))["ranks"]
    steps = [(row["first"], row["second"]) for row in rows(found, over="shots", target="digits", size=40)]
    assert steps == [(1, 2), (2, 5), (5, "full"), (1, "full")]
    assert len(rows(found, over="targets", size=40)) == 4
    seeds = only(found, over="seeds", target="digits", shots=1, size=40)
    assert len(seeds["orders"]) == 3
    assert all(sorted(order) == sorted(OFFSETS) for order in seeds["orders"])
    means = results(small_study(shots=(1, 2, 5, "full")), lambda arm, *_: 0.6 + 2 * OFFSETS[arm.source], images=3000)
    assert only(means["ranks"], over="seeds", target="digits", shots=1, size=40)["kendall"] > 0.9


# ---- what was held equal --------------------------------------------------------------------------------------------


def held(**more: Any) -> tuple[str, str]:
    study = small_study(**more)
    return " ".join(equal(study)), " ".join(unequal(study))


def test_budgets_networks_and_rates_are_read_off_the_recipes() -> None:
    same, differs = held()
    assert "takes 3 optimiser steps, whatever the size" in same
    assert "network convnet-8" in same
    assert not differs
    _, differs = held(methods=METHODS)
    assert "“short” 3 steps, “long” 9 steps" in differs
    assert "Methods differ in the network: “short” convnet-8, “long” convnet-8, “wide” convnet-16." in differs
    _, differs = held(methods={"s": replace(FAST, steps=None, epochs=2)})
    assert "larger sizes are trained for more steps" in differs
    _, differs = held(sizes=(30, 60))
    assert "taken whole" in differs
    _, differs = held(sources={"a": images("a"), "b": images("b", 60, 3)})
    assert "number of their classes (“a” 2, “b” 3)" in differs
    same, _ = held(modes={"long": {"mode": "finetune", "finetune": FineTune(epochs=40)}})
    assert "“long” (finetune): 40 epochs" in same
    assert "none was chosen from a grid" in same


def test_checkpoints_are_one_network_and_confounded(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from pydt.training.networks import build

    save_file(build("convnet-8", 1).state_dict(), str(tmp_path / "w.safetensors"))
    recipe = Recipe("convnet-8", "checkpoint", checkpoint=Checkpoint(file=str(tmp_path / "w.safetensors")))
    public = {"public": PublicModel(recipe, "LAION", 2_000_000, "clip")}
    found = results(small_study(checkpoints=public, scratch=SCRATCH), level)
    row = only(found["accuracy"], **AT, kind="checkpoint")
    assert (row["source"], row["size"], row["method"], row["networks"]) == ("public", 2_000_000, "clip", 1)
    assert row["unknown"] == ["training"]
    assert any("A checkpoint is one network" in note for note in found["notes"])
    assert any(
        "“public” is a public checkpoint" in told and "more than one" in told for told in found["study"]["unequal"]
    )
    assert only(found["scratch"], target="digits", source="public")["method"] == "clip"
    both = {**public, "other": PublicModel(replace(recipe, threads=2), "CC", None, "simclr")}
    alone = results(small_study(sources={}, methods={}, sizes=(), checkpoints=both, scratch=SCRATCH), level)
    assert {(row["first"], row["second"]) for row in rows(alone["pairs"], axis="checkpoint")} == {("public", "other")}
    assert alone["recommendation"][0].startswith("No source was trained here")
    assert alone["chosen"] is None
    study_page(alone, tmp_path)


# ---- from a store ---------------------------------------------------------------------------------------------------


class Known:
    """Rows whose accuracy is that of their source and the number of labelled images."""

    def __call__(self, given: RowInput) -> dict[str, Outcome]:
        found = {}
        name = given.context.source.name
        for task in given.tasks:
            labels = task.examples()["labels"]
            random = np.random.default_rng([len(name), given.row.seed, task.draws])
            right = random.random((task.draws, len(labels))) < (0.8 if "latin" in name else 0.6)
            guess = np.where(right, labels, 1 - labels)
            margin = np.where(right, 1.0, -1.0)
            primitives = np.stack([margin, -margin, -margin, guess]).astype(np.float32)
            found[task.digest] = Outcome({"primitives": primitives}, {})
        return found


def test_a_study_is_run_reported_and_reported_again_with_equal_bytes(tmp_path: Path) -> None:
    study = small_study(
        scratch=SCRATCH, modes=FINETUNE, rates=(0.05, 0.1), targets={"digits": Target(images("digits", 900))}
    )
    with pytest.raises(StoreError):
        pydt.study_report(study, tmp_path / "none")
    with ThreadPoolExecutor(1) as threads:
        store = pydt.run_study(study, tmp_path / "store", threads, runner=Known(), progress=False)
    found = pydt.study_report(study, store)
    folder = tmp_path / "store"
    assert found["chosen"]["source"] == "latin"
    assert json.loads((folder / "results.json").read_text()) == found
    assert (folder / "study.html").read_text().count("latin") > 5
    assert (folder / "pairs.csv").exists()
    assert any(note.startswith("Learning rates were chosen from 0.05, 0.1") for note in found["notes"])
    again = pydt.study_report(study, folder, tmp_path / "again")
    assert again == found
    assert (tmp_path / "again" / "results.json").read_bytes() == (folder / "results.json").read_bytes()
    one = only(found["accuracy"], target="digits", mode="probe", shots=1, source="latin", size=40)
    assert one["mean"] == pytest.approx(0.8, abs=0.05)


def test_shots_between_which_nothing_was_found_are_not_counted_in() -> None:
    gains = [{"shots": k, "difference": 0.1, "p_holm": 0.01, "detected": k != 1} for k in (1, 5, "full")]
    row = {"target": "digits", "mode": "probe", "source": "latin", "size": 40, "method": "clip", "hidden": None}
    told = scratch_sentence({**row, "gains": gains, "stops_paying_at": None})
    assert "“latin” pays over scratch at 5 shots and with all labelled images." in told
    gains[0]["detected"], gains[2]["detected"] = True, False
    told = scratch_sentence({**row, "hidden": 0.02, "gains": gains, "stops_paying_at": "full"})
    assert "“latin” pays over scratch up to 5 shots (beyond, a gain above 2.0 points could not be hidden)" in told


def test_sources_that_vary_less_than_noise_have_no_interval(tmp_path: Path) -> None:
    found = results(small_study(), level, seed=2)
    own = rows(found["spread"], target="textures", size=40)
    row = next(one for one in own if one["low"] is None)
    assert (row["tau"], row["low"], row["high"]) == (0.0, None, None)
    others = [one["high"] for one in own if one is not row]
    most = f"“textures” (standard deviation at most {100 * max(others):.1f} points)"
    assert most in found["recommendation"][2]
    study_page(found, tmp_path)
