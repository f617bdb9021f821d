"""From a ranking to a list: the report's ranking, an honest name, and files that other libraries read."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stub_influence import Additive, filled, plan_of

import pydt
from pydt import design
from pydt.base import ConfigError, StoreError
from pydt.data import Dataset, Target
from pydt.ensemble import Plan
from pydt.store import Store

GROUPS, MODELS = 20, 90
Study = tuple[Store, Plan]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, target: Target) -> Study:
    """Groups 3 and 11 harm, group 5 helps; one example in seven is in no group."""
    codes = np.repeat(np.arange(GROUPS), 3)
    random = np.random.default_rng(5)
    order = random.permutation(len(codes))
    site = [None if i % 7 == 0 else f"s{code}" for i, code in enumerate(codes[order])]
    images = random.integers(0, 256, (len(codes), 12, 12), np.uint8)
    source = Dataset.from_arrays(images, codes[order], columns={"site": site}, name="sites")
    masks = design.random(GROUPS, MODELS, alpha=0.5, seed=3)
    plan = replace(plan_of(source, target, masks), by="site")
    names = source.units("site")[1]
    effects = np.zeros((GROUPS, len(target.described()["labels"])))
    for name, effect in (("s3", -1.2), ("s11", -1.0), ("s5", 0.9)):
        effects[names.index(name)] = effect
    runner = Additive(random.normal(0.3, 1, effects.shape[1]), effects, common=0.2)
    return filled(tmp_path_factory.mktemp("study"), plan, runner), plan


def test_the_list_is_that_of_the_report(study: Study, tmp_path: Path) -> None:
    store, plan = study
    report = {one["name"]: one["value"] for one in pydt.report(store, tmp_path, plan)["groups"]}
    lowest = sorted(report, key=lambda name: report[name])
    found = pydt.keep(store, plan, drop=6)
    assert list(found.dropped) == lowest[:6]
    assert sorted([*found.kept, *found.dropped]) == sorted(found.groups)
    assert list(found.kept) == pydt.ranking(store, plan).keep_list(6)
    assert pydt.keep(store, plan, top=GROUPS - 6).dropped == found.dropped
    np.testing.assert_allclose(found.values, [report[name] for name in found.groups])


def test_sure_leaves_out_only_what_is_surely_below(study: Study) -> None:
    store, plan = study
    found = pydt.keep(store, plan, sure=True)
    report = pydt.keep(store, plan, drop=12)
    assert report.q is not None
    signs = zip(report.groups, report.values, report.q, strict=True)
    below = {name for name, value, q in signs if value < 0 and q < 0.05}
    assert {"s3", "s11"} <= set(found.dropped) == below
    assert found.name == f"kept-{GROUPS - len(below)}-of-{GROUPS}-dropped-{len(below)}-surely-below-average"
    assert found.below == len(below)
    assert found.above == 0
    most = pydt.keep(store, plan, top=1)
    assert most.kept == ("s5",)
    assert pydt.keep(store, plan, drop=GROUPS - 1).kept == ("s5",)
    assert "surely above" not in " ".join(most.sentences)
    assert pydt.keep(store, plan, top=1, output="margin").name.endswith("dropped-19-for-margin")


def test_positions_are_of_kept_groups_and_of_examples_in_none(study: Study) -> None:
    store, plan = study
    found = pydt.keep(store, plan, drop=6)
    codes, names = plan.source.units("site")
    expected = [i for i, code in enumerate(codes) if code < 0 or names[code] in found.kept]
    assert found.positions is not None
    assert found.positions.tolist() == expected
    assert found.positions.dtype == np.int64
    assert (codes[found.positions] < 0).sum() == (codes < 0).sum() > 0
    kept = plan.source.keep(found.kept, by="site")
    assert kept.all_keys() == plan.source.take(found.positions).all_keys()
    # the store holds a source of arrays, so its folder alone is enough
    again = pydt.keep(store.folder, drop=6)
    assert again.positions is not None
    assert again.positions.tolist() == expected


def test_files_say_what_they_are_and_are_read_back(study: Study, tmp_path: Path) -> None:
    import torch

    store, plan = study
    found = pydt.keep(store, plan, drop=6)
    files = found.write(tmp_path / "lists")
    assert {path.name for path in (tmp_path / "lists").iterdir()} == {
        f"kept-14-of-20-dropped-6-lowest{end}" for end in (".txt", ".csv", ".npy", ".json")
    }
    about = json.loads(files[".json"].read_text())
    assert (about["kept"], about["dropped"], about["by"]) == (list(found.kept), list(found.dropped), "site")
    assert about["plan"] == plan.digest
    assert about["examples_kept"] == len(np.load(files[".npy"]))
    with files[".csv"].open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["group"] for row in rows if row["kept"] == "yes"] == list(found.kept)
    assert sum(int(row["examples"]) for row in rows) == (plan.source.units("site")[0] >= 0).sum()
    low, value, high = (float(rows[0][f"{name} (points of accuracy)"]) for name in ("low", "influence", "high"))
    assert low < value < high

    expected = plan.source.take(found.positions)
    for read in (plan.source.keep(files[".txt"], by="site"), plan.source.keep(str(files[".json"]), by="site")):
        assert read.digest == expected.digest
    lines = found.lines(files)
    dataset = torch.arange(len(plan.source))
    subset = eval(lines["torch"], {"torch": torch, "numpy": np, "dataset": dataset})
    assert [int(subset[i]) for i in range(len(subset))] == np.load(files[".npy"]).tolist()
    assert eval(lines["pydt"], {"dataset": plan.source}).digest == expected.digest


def test_hugging_face_reads_the_list(study: Study, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    store, plan = study
    found = pydt.keep(store, plan, top=5)
    line = found.lines(found.write(tmp_path))["Hugging Face"]
    dataset = datasets.Dataset.from_dict({"place": list(range(len(plan.source)))})
    assert found.positions is not None
    assert list(eval(line, {"numpy": np, "dataset": dataset})["place"]) == found.positions.tolist()


def test_what_cannot_be_a_list_is_refused(study: Study, tmp_path: Path) -> None:
    store, plan = study
    with pytest.raises(ConfigError, match=r"no rule\. give one of drop=N, top=N, sure=True"):
        pydt.keep(store, plan)
    with pytest.raises(ConfigError, match="drop and sure at once"):
        pydt.keep(store, plan, drop=3, sure=True)
    for asked, told in (
        ({"drop": 20}, "drop 20 of 20 groups: nothing is left"),
        ({"top": 20}, "top 20 of 20 groups: nothing is left out"),
        ({"top": 21}, "top 21 of 20 groups: there are not so many. use 1 to 19"),
        ({"drop": 0}, "drop 0 is out of range"),
    ):
        with pytest.raises(ConfigError, match=told):
            pydt.keep(store, plan, **asked)
    few = replace(plan, design=plan.design.take(np.arange(5)))
    done = filled(tmp_path / "few", few, Additive(np.zeros(120), np.zeros((GROUPS, 120))))
    with pytest.raises(StoreError, match="5 finished rows"):
        pydt.keep(done, few, drop=1)
