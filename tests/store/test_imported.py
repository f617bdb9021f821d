"""Ensembles that were trained elsewhere: what a store says of them is what the arrays say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pydt
from pydt.base import ConfigError, PydtError
from pydt.store import Store, compact, export, merge, status, verify

Arrays = tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]


def ensemble(models: int = 60, groups: int = 5, examples: int = 12, seed: int = 0) -> Arrays:
    """Masks without empty rows, and outputs that are linear in them with noise."""
    rng = np.random.default_rng(seed)
    masks = rng.random((models, groups)) < 0.5
    masks[~masks.any(1), 0] = True
    slopes = np.linspace(-2, 2, groups)[:, None] + rng.normal(size=(groups, examples)) / 4
    return masks, masks @ slopes + rng.normal(size=(models, examples))


def test_influences_and_report_are_those_of_the_arrays(tmp_path: Path) -> None:
    masks, outputs = ensemble(120)
    half = np.arange(12) % 2
    weights = np.linspace(1, 2, 12)
    store = Store.from_arrays(
        tmp_path, masks, outputs, groups=list("abcde"), half=half, weights=weights, unit="nats", scale=2.0,
        higher_is_better=False, name="loss", source="corpus", by="domain",
    )  # fmt: skip
    mean = -2.0 * (outputs[:, half == 0].astype(np.float32) @ (weights[half == 0] / weights[half == 0].sum()))
    plain = np.linalg.lstsq(np.column_stack([np.ones(120), masks]), mean, rcond=None)[0][1:]
    found = pydt.report(store, tmp_path / "page")
    values = [group["value"] for group in found["groups"]]
    np.testing.assert_allclose(values, plain, rtol=1e-6)
    np.testing.assert_allclose(values, pydt.influences(masks, mean, "ols").values, rtol=1e-6)
    assert [group["name"] for group in found["groups"]] == list("abcde")
    assert (found["unit"], found["question"]["by"], found["question"]["source_images"]) == ("nats", "domain", None)
    assert any("imported" in note and "pydt prove" in note for note in found["notes"])
    assert found["verdict"]["found"]
    page = (tmp_path / "page" / "report.html").read_text()
    assert "image" not in page.split("</style>")[-1].replace("data:image", "")
    assert "shot" not in page.split("</style>")[-1]

    assert pydt.ranking(store, None).unit == "nats"
    assert pydt.stability(store).models == 120
    told = str(pydt.plan_models(store, "stderr < 0.001"))
    assert "in a time that is not known" in told
    score = pydt.lds(store.design(), store.outputs("loss", "value", "report"), permutations=9)
    assert score.lds > 0.3
    with pytest.raises(ConfigError, match=r"trains nothing.*Function or pydt\.Command"):
        pydt.counterfactual(store, store.plan())  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:overflow")
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    dtype=st.sampled_from(["f2", "f4", "f8", ">f4", "i1", "i8", "u2", "b"]),
    layout=st.sampled_from(["bool", "float", "packed", "big", "fortran", "list"]),
    groups=st.integers(1, 20),
    examples=st.sampled_from([1, 2, 7, 16]),
    lost=st.sets(st.integers(0, 8), max_size=4),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_what_is_read_is_what_was_given(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    dtype: str,
    layout: str,
    groups: int,
    examples: int,
    lost: set[int],
    bad: float,
) -> None:
    masks, outputs = ensemble(9, groups, examples, seed)
    outputs = (outputs * 10).astype(dtype)
    if outputs.dtype.kind == "f":
        for row in lost:
            outputs[row, row % examples] = bad
    else:
        lost = set()
    order = "big" if layout == "big" else "little"
    shapes: dict[str, Callable[[], Any]] = {
        "bool": lambda: masks,
        "float": lambda: masks.astype(float),
        "packed": lambda: np.packbits(masks, axis=1, bitorder="little"),
        "big": lambda: np.packbits(masks, axis=1),
        "fortran": lambda: np.asfortranarray(masks.astype(np.uint8)),
        "list": lambda: masks.astype(int).tolist(),
    }
    if groups == 1 and layout in ("packed", "big"):
        layout, order = "bool", "little"  # a byte of one group is no packed mask
    where = tmp_path_factory.mktemp("store")
    half = None if examples == 1 else np.arange(examples) % 2
    arguments: dict[str, Any] = {"groups": groups, "half": half, "bitorder": order}
    given_outputs = np.asfortranarray(outputs) if layout == "fortran" else outputs
    store = Store.from_arrays(where, shapes[layout](), given_outputs, **arguments)
    kept = np.array([row for row in range(9) if row not in lost])
    assert store.finished().tolist() == kept.tolist()
    assert {row for row, _, _ in store.failed()} == lost
    assert all("not finite" in reason for _, _, reason in store.failed())
    np.testing.assert_array_equal(store.masks(), masks[kept])
    expected = outputs[kept].astype(np.float32)
    for name, number in (("score", 0), ("report", 1)):
        columns = [0] if half is None else np.flatnonzero(half == number)
        np.testing.assert_array_equal(store.outputs("outputs", "value", name), expected[:, columns])
    assert verify(where)["verified"]
    before = {path: path.stat().st_mtime_ns for path in where.rglob("*") if path.is_file()}
    again = Store.from_arrays(where, masks, outputs.astype("f8"), groups=groups, half=half)
    assert len(again.plans()) == 1
    after = {path: path.stat().st_mtime_ns for path in where.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} <= {where / ".lock"}


def test_other_arrays_are_another_plan_and_several_measures_one(tmp_path: Path) -> None:
    masks, outputs = ensemble()
    first = Store.from_arrays(tmp_path, masks, outputs)
    changed = outputs.copy()
    changed[3, 4] += 1
    second = Store.from_arrays(tmp_path, masks, changed)
    assert len(second.plans()) == 2
    assert second.outputs("outputs", "value", "all")[3, 4] == np.float32(changed[3, 4])
    assert first.outputs("outputs", "value", "all")[3, 4] == np.float32(outputs[3, 4])

    loss = pydt.Measure("loss", 12, higher_is_better=False)
    both = {"gain": outputs, loss: -outputs[:, ::-1]}
    both["gain"] = both["gain"].copy()
    both["gain"][7] = np.nan
    store = Store.from_arrays(tmp_path / "both", masks, both, unit="points")
    assert [task["name"] for task in store.plan().tasks] == ["gain", "loss"]
    assert (len(store.finished()), [row for row, _, _ in store.failed()]) == (59, [7])
    directions = [task["settings"]["measure"]["higher_is_better"] for task in store.plan().tasks]
    assert directions == [True, False]


def test_examples_are_ids_or_classes(tmp_path: Path) -> None:
    masks, outputs = ensemble()
    ids = Store.from_arrays(tmp_path / "ids", masks, outputs, examples=[f"x{i}" for i in range(12)])
    assert ids.plan().tasks[0]["settings"]["target"]["classes"] == []
    named = Store.from_arrays(tmp_path / "classes", masks, outputs, examples=["cat", "dog", "owl"] * 4)
    assert named.plan().tasks[0]["settings"]["target"]["classes"] == ["cat", "dog", "owl"]
    labels = named.task(named.plan().tasks[0]["digest"])["labels"]
    assert labels.tolist() == [0, 1, 2] * 4
    found = pydt.report(named, tmp_path / "page")
    assert found["target_classes"]["names"] == ["cat", "dog", "owl"]


def test_the_store_is_tended_as_any_other(tmp_path: Path) -> None:
    masks, outputs = ensemble()
    outputs[5] = np.inf
    Store.from_arrays(tmp_path / "a", masks, outputs, name="gain")
    found = status(tmp_path / "a")
    assert (found["rows"], found["finished"], found["failed"], found["packed"]) == (60, 59, 1, 60)
    assert found["rows_per_hour"] in (None, 0)
    assert compact(tmp_path / "a") == {"cells": 0, "blocks": 0, "left": 0}
    manifest = export(tmp_path / "a", tmp_path / "out")
    assert (manifest["models"], manifest["recipe"]["method"]) == (59, "imported")
    values = np.load(tmp_path / "out" / "task0.value.npy")
    np.testing.assert_array_equal(values, np.delete(outputs, 5, 0).astype(np.float32))
    assert merge(tmp_path / "b", tmp_path / "a")["copied"] == 60
    block = next((tmp_path / "a" / "packed").glob("*/value.npy"))
    raw = bytearray(block.read_bytes())
    raw[-1] ^= 1
    block.write_bytes(raw)
    assert not verify(tmp_path / "a")["verified"]
    mended = Store.from_arrays(tmp_path / "a", masks, outputs, name="gain")
    assert len(mended.finished()) == 59
    assert verify(tmp_path / "a")["missing"] == {mended.plan().digest: 0}


def test_rows_that_were_never_written_fail(tmp_path: Path) -> None:
    masks, outputs = ensemble()
    outputs[[3, 9]] = 0
    store = Store.from_arrays(tmp_path / "a", masks, outputs)
    assert [(row, "never written" in reason) for row, _, reason in store.failed()] == [(3, True), (9, True)]
    right = (outputs > 0).astype(np.float16)  # zeros are what was measured
    assert not Store.from_arrays(tmp_path / "b", masks, right).failed()


def test_two_models_on_one_mask_are_two_rows(tmp_path: Path) -> None:
    masks, outputs = ensemble(20)
    masks[1] = masks[0]
    assert len(Store.from_arrays(tmp_path, masks, outputs).finished()) == 20
    with pytest.raises(PydtError, match="rows 0 and 1 have one mask and one seed"):
        Store.from_arrays(tmp_path, masks, outputs, seeds=[4] * 20)
    assert Store.from_arrays(tmp_path / "b", masks, outputs, seeds=range(7, 27)).plan().seeds == list(range(7, 27))


MASKS, OUTPUTS = ensemble(30, 5, 12)
HALF_EMPTY = MASKS.copy()
HALF_EMPTY[25:] = False


@pytest.mark.parametrize(
    ("masks", "outputs", "more", "told"),
    [
        (MASKS.T, OUTPUTS, {}, "masks seem to be transposed: give masks.T"),
        (MASKS, OUTPUTS.T, {}, "seem to be transposed: give outputs.T"),
        (MASKS[:29], OUTPUTS, {}, "30 rows for masks of 29 models.*head of numbers"),
        (MASKS.astype(int) * 2, OUTPUTS, {}, "2 is neither 0 nor 1"),
        (np.where(MASKS, 1, np.nan), OUTPUTS, {}, "nan is neither 0 nor 1"),
        (np.packbits(MASKS, axis=1), OUTPUTS, {}, "packed bits need groups="),
        (np.packbits(MASKS, axis=1), OUTPUTS, {"groups": 5}, 'bits beyond the 5 groups.*bitorder="big"'),
        (MASKS, OUTPUTS, {"groups": 7}, "are not of 7 groups"),
        (MASKS, OUTPUTS, {"groups": list("abcda")}, "'a' is there twice"),
        (MASKS, OUTPUTS, {"groups": "abcde"}, "no list of names"),
        (HALF_EMPTY, OUTPUTS, {}, "row 25 and 4 more keep no group.*--models 25"),
        (MASKS, OUTPUTS[:, :, None].repeat(3, 2), {}, "not \\(models, examples\\).*margin"),
        (MASKS, OUTPUTS.astype(str), {}, "not numbers"),
        (MASKS, np.full_like(OUTPUTS, np.nan), {}, "every row failed"),
        (MASKS, OUTPUTS, {"examples": list(range(11))}, "11 entries for 12 columns"),
        (MASKS, OUTPUTS, {"examples": [*range(11), 3]}, "neither ids .'3' is there twice. nor classes"),
        (MASKS, OUTPUTS, {"half": ["score"] * 12}, "no example in the report half"),
        (MASKS, OUTPUTS, {"weights": [1]}, "weights"),
        (MASKS, OUTPUTS, {"seeds": [1, 2]}, "2 for 30 models"),
        (MASKS, {}, {}, "no outputs"),
        (MASKS, {pydt.Measure("loss", 9): OUTPUTS}, {}, "12 columns for 9 examples"),
        (MASKS, np.ma.masked_greater(OUTPUTS, 0), {}, "masked entries"),
        (np.broadcast_to(True, (2**13, 2**19)), np.zeros((2**13, 1)), {}, "more than 2,147,483,648 entries"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, masks: Any, outputs: Any, more: dict[str, Any], told: str
) -> None:
    with pytest.raises(PydtError, match=told):
        Store.from_arrays(tmp_path / "store", masks, outputs, **more)
    assert not (tmp_path / "store").exists()


KILLED = """
import os, sys, signal
import numpy as np, pydt
kind, number, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
real, calls = getattr(os, kind), [0]
def dying(*given, **named):
    calls[0] += 1
    if calls[0] > number:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **named)
masks, outputs = np.load(sys.argv[4]), np.load(sys.argv[5])
setattr(os, kind, dying)
pydt.Store.from_arrays(folder, masks, outputs)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["replace", "fsync"])
def test_killed_at_any_rename_or_sync_nothing_half_is_there(tmp_path: Path, kind: str) -> None:
    masks, outputs = ensemble(20)
    outputs[4] = np.nan
    np.save(tmp_path / "m.npy", masks)
    np.save(tmp_path / "o.npy", outputs)
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    deaths = 0
    for number in range(0, 60, 3 if kind == "fsync" else 1):
        folder = tmp_path / f"{kind}{number}"
        files = [str(folder), str(tmp_path / "m.npy"), str(tmp_path / "o.npy")]
        done = subprocess.run([sys.executable, str(script), kind, str(number), *files], env=dict(os.environ))
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        deaths += 1
        if (folder / "store.json").exists():
            found = verify(folder)
            assert not found["damaged"]
            assert not any(found["missing"].values()), "a plan that is there has all its rows"
        store = Store.from_arrays(folder, masks, outputs)
        assert len(store.finished()) == 19
        assert verify(folder)["verified"]
        assert not list(folder.rglob("*.tmp"))
    assert deaths >= 3
