"""What follows the influences speaks of a user's measure in its own unit and direction: the same rows, told as accuracy
and as error, have the same verdict, ranking, p and effects."""

from __future__ import annotations

import csv
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stub_measures
from stub_measures import EFFECTS, EXAMPLES, GROUPS, WAYS

from pydt.analyses import counterfactual, removal_curve, report
from pydt.analyses.counterfactual import Counterfactual, contrast
from pydt.analyses.removal import Removal
from pydt.analyses.report import results
from pydt.analyses.retraining import Arm
from pydt.base import ConfigError
from pydt.ensemble import Function, Plan, RowInput
from pydt.estimation import StoppingRule, overall, plan_models
from pydt.reporting import Metric, sentences, write_pages
from pydt.reporting.sentences_in_detail import detailed
from pydt.store import Measure, Row, Store

Told = dict[str, tuple[Plan, Store, Counterfactual, Removal]]


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Told:
    found = {}
    for way in WAYS:
        job = stub_measures.told_as(way)
        store = stub_measures.filled(job, tmp_path_factory.mktemp(way))
        with ThreadPoolExecutor(1) as executor:
            more: dict[str, Any] = {"executor": executor, "progress": False}
            proof = counterfactual(store, job, repeats=6, other_repeats=3, **more)
            curve = removal_curve(store, job, sizes=[1, 2, 4], repeats=6, keep_lists={"mine": ["g0", "g2"]}, **more)
        found[way] = job, store, proof, curve
    return found


def same(one: Any, other: Any, but: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Trees of numbers that differ by rounding alone, beside some keys."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one.keys() - but:
            same(one[key], other[key], but)
    elif isinstance(one, (list, tuple)):
        for mine, its in zip(one, other, strict=True):
            same(mine, its, but)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5, nan_ok=True)
    else:
        assert one == other


def test_influences_are_those_of_the_truth_both_ways(ways: Told) -> None:
    fits = [overall(store, job) for job, store, _, _ in ways.values()]
    for fit in fits:
        assert np.corrcoef(fit.unbiased, EFFECTS)[0, 1] > 0.97
        assert np.allclose(fit.unbiased, 100 * EFFECTS, atol=4 * fit.stderr.max())
    assert np.allclose(fits[0].unbiased, fits[1].unbiased, atol=1e-4)
    assert np.allclose(fits[0].stderr, fits[1].stderr, rtol=1e-4)
    assert np.allclose(fits[0].q, fits[1].q, rtol=1e-3)


def test_results_differ_in_words_and_levels_alone(ways: Told) -> None:
    right, wrong = (results(store, job) for job, store, _, _ in ways.values())
    words = {
        "title",
        "task",
        "question",
        "output",
        "unit",
        "rows",
        "counterfactual",
        "arms",
        "provenance",
        "models_needed_for",
    }
    same(right, wrong, words)
    assert right["verdict"]["found"]
    for name, error in (("value", 1.0), ("output", 100.0)):
        assert np.allclose(np.add(right["rows"][name], wrong["rows"][name]), error, atol=1e-3)
    for one, other in zip(right["arms"], wrong["arms"], strict=True):
        assert one["mean"] + other["mean"] == pytest.approx(1)
        assert one["sd"] == pytest.approx(other["sd"])
    assert wrong["rows"]["value"][0] > 0, "levels as the user knows them"
    assert wrong["question"]["measure"] == {
        "name": "error", "unit": "points of error", "scale": 100.0, "higher_is_better": False, "shared": False
    }  # fmt: skip


def test_retraining_gains_the_truth_both_ways(ways: Told) -> None:
    proofs = [proof for _, _, proof, _ in ways.values()]
    for one, other in zip(proofs[0].contrasts, proofs[1].contrasts, strict=True):
        same(asdict(one), asdict(other))
    for proof in proofs:
        best = {(c.kind, c.dropped): c for c in proof.contrasts}
        assert best["drop bottom", 2].low > 0
        assert best["drop top", 2].high < 0
        for (kind, dropped), found in best.items():
            arms = proof.arm(kind, dropped), proof.arm("drop random", dropped)
            mine, random = (np.mean([EFFECTS @ row.mask for row in arm.rows]) for arm in arms)
            assert found.low - 0.02 <= mine - random <= found.high + 0.02


def test_removal_and_the_best_number_are_the_same_both_ways(ways: Told, tmp_path: Path) -> None:
    right, wrong = (curve for _, _, _, curve in ways.values())
    assert right.ranked == wrong.ranked
    assert set(right.ranked[:2]) == {"g1", "g5"}
    assert right.keep() == wrong.keep()
    assert [best.length for best in right.best] == ["own"], "there is one length: the program's"
    for one, other in zip(right.best, wrong.best, strict=True):
        same(asdict(one), asdict(other))
    assert set(right.best[0].chosen) <= {2, 4}, "the third and fourth do nothing"
    assert 0 < right.best[0].low < 0.15 < right.best[0].high
    for one, other in zip(right.points, wrong.points, strict=True):
        for mine, its in ((one.gain, other.gain), (one.which, other.which)):
            assert (mine is None) == (its is None)
            if mine is not None and its is not None:
                same(asdict(mine), asdict(its))
    assert right.point("drop bottom", 2).arm.mean + wrong.point("drop bottom", 2).arm.mean == pytest.approx(1)
    page = wrong.page()
    assert page.answer[0].startswith(f"Leaving out the {wrong.best[0].chosen[0]} lowest groups improves error by +1")
    assert "points (+" in page.answer[0]
    assert "(lower is better; + is an improvement), a gain." in page.answer[0]
    write_pages([page], tmp_path, "title")
    text = re.sub(r"\s+", " ", (tmp_path / "removal.html").read_text())
    assert not re.search(r"image|epoch|few-shot|steps", text.split("</style>")[1])


def test_stopping_and_planning_are_the_same_both_ways(ways: Told, tmp_path: Path) -> None:
    plans = [plan_models(store, "effect 2", job) for job, store, _, _ in ways.values()]
    assert plans[0].models == plans[1].models
    assert plans[0].stderr == pytest.approx(plans[1].stderr, rel=1e-4)
    assert [found.unit for found in plans] == ["points of accuracy", "points of error"]
    ends = []
    for way in WAYS:
        job = stub_measures.told_as(way)
        store = stub_measures.filled(job, tmp_path / way, stop="sign 2")
        ends.append(store.stopped())
    assert ends[0] is not None
    assert ends[1] is not None
    assert {(one["name"], one["sign"]) for one in results(store)["stop"]["decided"]} >= {("g1", -1)}
    assert (ends[0]["rows"], ends[0]["decided"]) == (ends[1]["rows"], ends[1]["decided"])
    assert StoppingRule.parse("sign 2").kind == "sign"


def test_the_words_say_what_helps(ways: Told) -> None:
    both = [results(store, job) for job, store, _, _ in ways.values()]
    for found in both:
        assert re.search(r"“g1”.* clearly hurts?", sentences(found)[2])
    told = [detailed(found) for found in both]
    assert "points of accuracy for “" in told[0][1]
    assert re.search(r"error (lower|higher) by \d+\.\d+ ± \d\.\d+ points of error for “", told[1][1])
    assert re.search(r"gave \d\d\.\d % accuracy, \d+\.\d points more than leaving out", told[0][2])
    better = (
        r"gave \d\d\.\d % error, \d+\.\d points better \(lower\) than leaving out as many at random \(95 % interval"
    )
    assert re.search(better + r" \+\d+\.\d to \+\d+\.\d, \+ is better, p", told[1][2])
    assert re.search(r"gave \d\d\.\d %, \d+\.\d points worse \(higher\)", told[1][2])
    first = [sentences(found)[0] for found in both]
    assert re.fullmatch(
        r"Leave out the 2 lowest-ranked of the 8 groups: accuracy rises by \d+\.\d percentage points .*", first[0]
    )
    assert first[1] == first[0].replace("accuracy rises", "error falls")


def level(row: RowInput) -> np.ndarray:
    """A loss of about 2, which the good groups lower."""
    random = np.random.default_rng(row.seed)
    each = np.random.default_rng(8).gamma(4, 0.5, EXAMPLES)
    return np.asarray(
        each * np.exp(-float(EFFECTS @ row.mask)) + 0.02 * random.normal() + 0.1 * random.normal(size=EXAMPLES)
    )


def loss(row: RowInput) -> dict[str, Any]:
    values = level(row)
    found = {}
    for task in row.tasks:
        factor = row.settings.get("factor", 1.0)
        found[task.name] = factor * (values.mean() if task.shared else values[: task.count])
    return found


def loss_store(folder: Path, measure: Measure, factor: float = 1.0, **more: Any) -> tuple[Plan, Store]:
    job = stub_measures.plan(measure)
    job = Plan(job.source, design=job.design, recipe=Function(loss, settings={"factor": factor}), tasks=[measure])
    store = stub_measures.filled(job, folder)
    with ThreadPoolExecutor(1) as executor:
        counterfactual(store, job, repeats=4, other_repeats=2, executor=executor, progress=False)
    return job, store


@pytest.mark.parametrize(
    ("factor", "shown"), [(1.0, r"[12]\.\d{2,4}"), (1e3, r"[12]\d\d\d(\.\d)?"), (1e-6, r"[12]\.\d+e−6")]
)
def test_a_loss_is_told_in_its_unit_with_digits_that_fit(tmp_path: Path, factor: float, shown: str) -> None:
    job, store = loss_store(tmp_path, Measure("loss", EXAMPLES, unit="nats", higher_is_better=False), factor)
    found = report(store, tmp_path, job)
    assert re.search(rf"a mean loss of {shown} nats, .* nats better \(lower\) than", detailed(found)[2])
    page = (tmp_path / "report.html").read_text()
    assert "Lower is better: the value is by how much the mean loss on the score half falls, in nats" in page
    assert "a better (that is, lower) <bdi>loss</bdi>" in page
    body = page.split("</style>")[1]
    assert not re.search(r"\bimages?\b|accuracy|few-shot|draws|transfer|measure, 0|network", body, re.IGNORECASE)
    assert "mean, nats" in body
    assert "against as many at random, nats, + is better" in body
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["row", "value", "output", "unit", "output_unit"]
    assert (rows[0]["unit"], rows[0]["output_unit"]) == ("nats", "nats")
    assert factor < float(rows[0]["value"]) < 3 * factor
    assert json.loads((tmp_path / "results.json").read_text())["output"] == "loss"


def test_negative_levels_are_told_as_they_are(tmp_path: Path) -> None:
    job, store = loss_store(tmp_path, Measure("log-likelihood", EXAMPLES, unit="nats"), -1.0)
    found = report(store, tmp_path, job)
    assert max(found["rows"]["value"]) < 0
    assert re.search(r"a mean log-likelihood of −\d\.\d+ nats, .* nats better \(higher\) than", detailed(found)[2])
    low = next(c for c in found["contrasts"] if c["kind"] == "drop bottom" and c["dropped"] == 4)
    assert low["difference"] > 0


def test_one_number_a_row_claims_no_variance_from_examples(tmp_path: Path) -> None:
    job, store = loss_store(tmp_path, Measure("perplexity", higher_is_better=False))
    found = report(store, tmp_path, job)
    assert all(c["stderr_images"] is None for c in found["contrasts"])
    assert all(c["stderr"] == pytest.approx(c["stderr_retraining"]) for c in found["contrasts"])
    assert '"perplexity" is one number a row' in found["notes"][0]
    assert " units" not in " ".join([*sentences(found), *detailed(found)])
    page = (tmp_path / "report.html").read_text()
    assert "hold retraining noise alone" in page
    assert "report half of the target" not in page
    with ThreadPoolExecutor(1) as executor:
        curve = removal_curve(store, job, sizes=[2], repeats=4, executor=executor, progress=False)
    assert not curve.best
    assert "The report half has one example" in curve.page().answer[-1]
    with pytest.raises(ConfigError, match="at least two examples"):
        curve.keep()


def test_two_named_scalars_have_one_example_a_half(tmp_path: Path) -> None:
    measure = Measure("score", ["arc", "piqa"], half=["score", "report"], higher_is_better=False)
    job, store = loss_store(tmp_path, measure)
    found = report(store, tmp_path, job)
    assert "The report half has one example" in found["notes"][0]
    assert all(c["stderr_images"] is None for c in found["contrasts"])
    assert "1 example to estimate with, 1 other to judge with" in (tmp_path / "report.html").read_text()


def arm(values: np.ndarray, higher: bool = True) -> Arm:
    row = Row(np.ones(3, bool), 0, "full")
    metric = Metric("m", "nats", 1.0, higher, measured=True)
    return Arm("drop top", 1, (row,) * len(values), ((),) * len(values), values.mean(1), values, 0, metric)


def test_where_nothing_varies_only_shares_have_an_interval() -> None:
    weights, labels = np.full(40, 1 / 40), np.zeros(40, int)
    flat = [arm(np.full((3, 40), level)) for level in (0.4, 0.7)]
    found = contrast(*flat, weights, labels)
    assert found.difference == pytest.approx(-0.3)
    assert found.stderr == pytest.approx(0, abs=1e-9)
    assert np.isnan([found.low, found.high, found.p]).all()
    right = np.ones((3, 40)), np.zeros((3, 40))
    shares = contrast(*map(arm, right), weights, labels)
    errors = contrast(*(arm(1 - values, False) for values in right), weights, labels)
    assert 0.8 < shares.low < shares.high <= 1
    assert (shares.low, shares.high, shares.p) == pytest.approx((errors.low, errors.high, errors.p))
    small = contrast(*(arm(1e-9 * np.random.default_rng(i).random((5, 40))) for i in (0, 1)), weights, labels)
    assert np.isfinite(small.p), "a small unit is no rounding"


def never(row: RowInput) -> dict[str, Any]:
    return {"loss": np.full(EXAMPLES, 2.5)}


def test_rows_that_never_vary_are_told(tmp_path: Path) -> None:
    job = stub_measures.plan(Measure("loss", EXAMPLES, unit="nats", higher_is_better=False), never)
    found = results(stub_measures.filled(job, tmp_path), job)
    assert "All models give the same loss in every row: no influence can be measured." in found["notes"]
    assert not found["verdict"]["found"]


def test_a_program_has_no_steps_to_be_equal(tmp_path: Path) -> None:
    job = stub_measures.told_as("accuracy")
    store = stub_measures.filled(job, tmp_path)
    with pytest.raises(ConfigError, match='"same" of a Function, which has no steps'):
        removal_curve(store, job, steps="same", progress=False)
    assert len(store.names()) == GROUPS


def test_classes_weigh_their_examples(tmp_path: Path) -> None:
    weights = np.random.default_rng(4).random(EXAMPLES)
    job = stub_measures.told_as("error", weights=weights)
    store = stub_measures.filled(job, tmp_path)
    found = results(store, job)["target_classes"]
    masks, outputs = store.masks(), store.outputs(job.tasks[0].digest, "value", "score")
    own = store.examples(job.tasks[0].digest, "score")
    for c, name in enumerate(found["names"]):
        of = own["labels"] == c
        level = -100 * (outputs[:, of] @ own["weights"][of]) / own["weights"][of].sum()
        design = np.column_stack([np.ones(len(masks)), masks])
        expected = np.linalg.lstsq(design, level, rcond=None)[0][1:]
        assert name == f"class {c}"
        assert np.allclose([line[c] for line in found["influence"]], expected, atol=1e-3)
