"""From a ranking to a list: the report's ranking, an honest name, and files that other libraries read."""

from __future__ import annotations

import csv
import gc
import json
import os
import pathlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import stub_measures as measures
import torch
from stub_images import blobs
from stub_influence import Additive, filled, many_classes, plan_of

import pydt
from pydt import design
from pydt.base import ConfigError, DataError, StoreError
from pydt.data import Dataset, Groups, Target
from pydt.data.loading import Augment
from pydt.data.packing import pack_tar
from pydt.ensemble import Plan
from pydt.estimation import joint_influences, mean_output
from pydt.store import Store
from pydt.training import Recipe, Task

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
    told = "of all groups found surely below or surely above that of the average group, on average at most 1 in 20"
    assert told in found.sentences[1]
    assert found.above == 0
    most = pydt.keep(store, plan, top=1)
    assert most.kept == ("s5",)
    assert repr(most) == "Kept(1 of 20 groups by site, the 1 highest are kept)"
    assert pydt.keep(store, plan, drop=GROUPS - 1).kept == ("s5",)
    assert "surely above" not in " ".join(most.sentences)
    assert pydt.keep(store, plan, top=1, output="margin").name.endswith("dropped-19-for-margin")


@pytest.fixture(scope="module")
def by_shots(tmp_path_factory: pytest.TempPathFactory, target: Target) -> Study:
    """Two numbers of shots: c4 harms at one shot, c7 at five; c2 helps at both."""
    plan = plan_of(many_classes(), target, design.random(20, 60, alpha=0.5, seed=3))
    named = {1: "one shot", 5: "five shots"}
    plan = replace(plan, tasks=tuple(Task(target, shots=k, draws=2, name=name) for k, name in named.items()))

    def runner(given: Any) -> dict[str, Any]:
        found = {}
        for task in given.tasks:
            effects = np.zeros((20, 120))
            effects[[2, 4 if task.shots == 1 else 7]] = [[1.0], [-2.0]]
            found |= Additive(np.zeros(120), effects, seed=task.shots)(replace(given, tasks=(task,)))
        return found

    return filled(tmp_path_factory.mktemp("by shots"), plan, runner), plan


def test_the_common_order_of_all_shots_is_that_of_their_page(by_shots: Study, tmp_path: Path) -> None:
    store, plan = by_shots
    page = pydt.influence_by_shots(store, plan)
    t = page.values / page.stderr
    order = [page.groups[i] for i in np.argsort(t.mean(1), kind="stable")]
    found = pydt.keep(store, plan, drop=8, shots="common")
    assert list(found.dropped) == order[:8]
    assert list(found.dropped) != list(pydt.keep(store, plan, drop=8).dropped)
    assert {"c4", "c7"} == set(order[:2])
    np.testing.assert_allclose(found.values, t.mean(1), atol=1e-5)
    correlation = joint_influences(store.design(plan), page_outputs(store, plan)).correlation
    errors = [np.sqrt(np.ones(2) @ one @ np.ones(2)) / 2 for one in correlation]
    np.testing.assert_allclose(found.stderr, errors, rtol=1e-4)
    assert (found.shots, found.unit) == ((1, 5), "standard errors")
    assert found.name == "kept-12-of-20-dropped-8-lowest-for-1-5-shots"
    assert "(one order for 1 and 5 shots)" in found.sentences[0]
    assert "page by shots" in found.sentences[-1]
    sure = pydt.keep(store, plan, sure=True, shots="common")
    assert {"c4", "c7"} <= set(sure.dropped)
    assert "c2" not in sure.dropped
    assert found.p < 0.05
    assert json.loads(found.write(tmp_path)[".json"].read_text())["shots"] == [1, 5]


def page_outputs(store: Store, plan: Plan) -> np.ndarray:
    """Mean output of the models on the score half at each number of shots."""
    record = store.plan(plan)
    tasks = [task.digest for task in plan.tasks]
    means = [mean_output(store, record, task, store.metric_output(task, record, None), "score") for task in tasks]
    return np.stack(means, 1)


def test_one_order_for_all_shots_needs_several(study: Study) -> None:
    store, plan = study
    with pytest.raises(ConfigError, match="no target of the plan has two numbers of shots"):
        pydt.keep(store, plan, drop=3, shots="common")
    with pytest.raises(ConfigError, match="has one number of shots"):
        pydt.keep(store, plan, drop=3, shots="common", task=plan.tasks[0].name)
    with pytest.raises(ConfigError, match="common"):
        pydt.keep(store, plan, drop=3, shots="5")


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
    with pytest.raises(DataError, match=r"\.json says which groups stay\. give it as groups, not as drop"):
        plan.source.keep(drop=files[".json"], by="site")
    lines = found.lines(files)
    dataset = torch.arange(len(plan.source))
    subset = eval(lines["torch"], {"torch": torch, "numpy": np, "dataset": dataset})
    assert [int(subset[i]) for i in range(len(subset))] == np.load(files[".npy"]).tolist()
    assert eval(lines["pydt"], {"dataset": plan.source}).digest == expected.digest


def test_a_list_is_shown_with_the_numbers_behind_it(study: Study) -> None:
    from matplotlib import pyplot

    pytest.importorskip("pandas")
    found = pydt.keep(*study, drop=6)
    frame = found.to_frame()
    assert frame["group"][frame["kept"]].tolist() == list(found.kept)
    assert frame["group"][~frame["kept"]].tolist() == [name for name in found.groups if name in found.dropped]
    for column in ("low", "high", "q"):
        np.testing.assert_array_equal(frame[column], getattr(found, column))
    assert frame.attrs["unit"] == found.unit
    ax = found.plot()
    assert [text.get_text() for text in ax.get_yticklabels()][-6:] == list(found.dropped)[::-1]
    pyplot.close(ax.figure)
    shown = found._repr_html_()
    assert shown.count("<tr>") == 1 + GROUPS
    assert "Left out: the 6 lowest" in shown


def test_no_file_of_an_earlier_list_stays_beside_a_later_one(study: Study, tmp_path: Path) -> None:
    found = pydt.keep(*study, drop=6)
    earlier = found.write(tmp_path)
    later = replace(found, positions=None, kept=("no UTF-8 \udcff",)).write(tmp_path)
    assert set(earlier) - set(later) == {".npy", ".txt"}
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in later.values()}
    assert "-keys.txt" not in replace(found, keys=("no UTF-8 \udcff",)).write(tmp_path)


def test_hugging_face_reads_the_list(study: Study, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    store, plan = study
    found = pydt.keep(store, plan, top=5)
    line = found.lines(found.write(tmp_path))["Hugging Face"]
    dataset = datasets.Dataset.from_dict({"place": list(range(len(plan.source)))})
    assert found.positions is not None
    assert list(eval(line, {"numpy": np, "dataset": dataset})["place"]) == found.positions.tolist()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset closes no shard
def test_webdataset_reads_the_list(photos: Dataset, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    pack_tar(Path(photos.paths[0]).parents[1], tmp_path / "shards")  # type: ignore[index]
    shards = Dataset.from_tar(tmp_path / "shards")
    plan = in_colour(shards)
    found = pydt.keep(filled(tmp_path / "store", plan, Additive(np.zeros(120), np.zeros((4, 120)))), plan, drop=2)
    files = [str(path) for path in sorted((tmp_path / "shards").glob("*.tar"))]
    names = {"pathlib": pathlib, "dataset": webdataset.WebDataset(files, shardshuffle=False)}
    exec(found.lines(found.write(tmp_path / "lists"))["webdataset"], names)
    read = [one["__key__"] for one in names["dataset"]]  # type: ignore[attr-defined]
    assert found.positions is not None
    assert read == [shards.all_keys()[i].removesuffix(".jpg") for i in found.positions]
    del names
    gc.collect()


def test_groups_of_anything_where_lower_is_better(tmp_path: Path) -> None:
    lists = []
    for way in measures.WAYS:
        plan = measures.told_as(way)
        named = replace(
            plan, source=Groups([f"g{i % 8}" for i in range(80)], ids=[f"id {i}" for i in range(80)], by="site")
        )
        found = pydt.keep(measures.filled(named, tmp_path / way), named, sure=True)
        assert found.name == f"kept-{len(found.kept)}-of-8-dropped-{8 - len(found.kept)}-surely-below-0"
        assert "surely below 0" in found.sentences[0]
        assert found.keys == tuple(f"id {i}" for i in range(80) if f"g{i % 8}" in found.kept)
        assert "pydt" not in found.lines(found.write(tmp_path / "lists"))
        lists.append(found)
    assert lists[0].dropped == lists[1].dropped
    assert {"g1", "g5"} <= set(lists[0].dropped)
    np.testing.assert_allclose(lists[0].values, lists[1].values, atol=1e-4)


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


def test_a_retraining_of_just_this_list_is_told(study: Study, tmp_path: Path) -> None:
    plan = study[1]
    random = np.random.default_rng(5)
    effects = np.zeros((GROUPS, 120))
    effects[plan.source.units("site")[1].index("s3")] = -1.2
    small = replace(plan, design=design.random(GROUPS, 60, alpha=0.5, seed=8))
    runner = Additive(random.normal(0.3, 1, 120), effects)
    own = filled(tmp_path / "proved", small, runner)
    assert pydt.keep(own, small, drop=5).sentences[-1] == "No retraining has tested this list."
    with ThreadPoolExecutor(1) as executor:
        done = pydt.counterfactual(own, small, drop=[5], repeats=4, runner=runner, executor=executor, progress=False)
    gain = 100 * (done.arm("drop bottom", 5).mean - done.arm("full", 0).mean)
    found = pydt.keep(own, small, drop=5)
    assert found.retrained is not None
    assert found.retrained.gain == pytest.approx(gain)
    assert found.retrained.low < gain < found.retrained.high
    assert found.retrained.rows == (4, 4)
    assert f"{gain:+.1f} points against the whole source" in found.sentences[-1].replace("\u2212", "-")
    assert pydt.keep(own, small, drop=6).retrained is None, "these are other groups"


def test_order_that_is_noise_is_said(noisy: Store) -> None:
    found = pydt.keep(noisy, drop=10)
    assert "the order as a whole cannot be told from noise (p = " in " ".join(found.sentences)
    nothing = pydt.keep(noisy, sure=True)
    assert nothing.dropped == ()
    assert nothing.name == "kept-20-of-20-dropped-0-surely-below-average"
    assert "Nothing is left out: no group has an influence" in nothing.sentences[0]


def plan_by(source: Dataset, target: Target, by: str, masks: design.Design, recipe: Recipe = Recipe()) -> Plan:  # noqa: B008
    return Plan(source, by=by, design=masks, recipe=recipe, tasks=(Task(target, draws=2),))


def in_colour(source: Dataset) -> Plan:
    """A plan by four classes of encoded files."""
    images, labels = blobs(45, 4, 1)
    target = Target(Dataset.from_arrays(np.repeat(images[..., None], 3, 3), labels, name="in colour"))
    return plan_by(
        source, target, "class", design.bernoulli(4, 40, alpha=0.5, seed=6), Recipe(augment=Augment(size=32))
    )


def test_single_examples_are_positions(study: Study, target: Target, tmp_path: Path) -> None:
    source = study[1].source
    plan = plan_by(source, target, "example", design.random(len(source), 40, alpha=0.5, seed=6))
    store = filled(tmp_path / "singles", plan, Additive(np.zeros(120), np.zeros((len(source), 120))))
    found = pydt.keep(store, plan, drop=10)
    gone = sorted(set(range(len(source))) - set(found.positions.tolist()))  # type: ignore[union-attr]
    assert gone == sorted(found.groups.index(name) for name in found.dropped)
    alone = pydt.keep(store.folder, drop=10)
    assert alone.positions is not None
    assert alone.positions.tolist() == found.positions.tolist()  # type: ignore[union-attr]
    files = found.write(tmp_path / "lists")
    assert set(files) == {".csv", ".npy", ".json"}
    line = found.lines(files)["pydt"]
    assert eval(line, {"dataset": source, "numpy": np}).digest == source.take(found.positions).digest
    with pytest.raises(ConfigError, match="single examples are tested as a whole, none on its own"):
        pydt.keep(store, plan, sure=True)


def test_keys_of_files_and_of_shards(photos: Dataset, tmp_path: Path) -> None:
    plan = in_colour(photos)
    store = filled(tmp_path / "store", plan, Additive(np.zeros(120), np.zeros((4, 120))))
    found = pydt.keep(store, plan, top=3)
    files = found.write(tmp_path / "lists")
    keys = files["-keys.txt"].read_text().splitlines()
    assert keys == [key for key in photos.all_keys() if key.split("/")[0] != found.dropped[0]]
    root = Path(photos.paths[0]).parents[1]  # type: ignore[index]

    # as torchvision's ImageFolder, in another order
    dataset = SimpleNamespace(root=root, samples=[(path, 0) for path in sorted(root.rglob("*.jpg"), reverse=True)])
    names: dict[str, Any] = {"torch": torch, "os": os, "pathlib": pathlib, "dataset": dataset}
    assert set(found.lines(files)) == {"torch", "pydt"}, "others sort files otherwise: positions are not theirs"
    code, _, value = found.lines(files)["torch"].partition("; ")
    exec(code, names)
    chosen = {os.path.relpath(dataset.samples[i][0], root) for i in eval(value, names).indices}
    assert chosen == set(keys)
    assert pydt.keep(store.folder, top=3).keys == found.keys, "the store holds an index of the source"
    shutil.rmtree(store.folder / "data")
    alone = pydt.keep(store.folder, top=3)
    assert "names[one['label']] in kept" in alone.lines(alone.write(tmp_path / "names"))["Hugging Face"]
    assert (alone.kept, alone.positions, alone.keys) == (found.kept, None, None)
    assert set(alone.write(tmp_path / "names")) == {".txt", ".csv", ".json"}

    pack_tar(root, tmp_path / "shards")
    shards = Dataset.from_tar(tmp_path / "shards", name=photos.name)
    again = pydt.keep(store, replace(plan, source=shards), top=3)
    assert again.keys is not None
    assert list(again.keys) == [key.removesuffix(".jpg") for key in keys], "as WebDataset's __key__"
    assert "one['__key__'] in keys" in again.lines(again.write(tmp_path / "of shards"))["webdataset"]
