"""Copies are found and named, look-alikes are not, and a group that moves all alike is not flagged."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pydt import design, glyphs
from pydt.cells import Outcome, Row
from pydt.data import Dataset
from pydt.duplicates import CHANGES, Null, Seeker, changed
from pydt.ensemble import run
from pydt.errors import ConfigError, DataError, StoreError
from pydt.leakage import Leaks, leaks
from pydt.nearest import greys, resized
from pydt.pages import Table, write_pages
from pydt.plan import Context, Plan
from pydt.store import Store
from pydt.target import Target
from pydt.train import Recipe
from pydt.transfer import Task
from pydt.uneven import Asked, holm, uneven

GROUPS, LEAKED = 6, 2


# ---- images ----------------------------------------------------------------------------------------------------------


def test_p_values_of_images_that_are_no_copies_are_those_of_chance() -> None:
    draws = np.random.default_rng(0).gumbel(4.0, 0.3, 4000)
    null = Null.of((1 - np.exp(-draws[:2000])).astype(np.float32))
    p = null.p(1 - np.exp(-draws[2000:]))
    for level in (0.5, 0.1, 0.01):
        assert abs((p < level).mean() - level) < 4 * (level / 2000) ** 0.5 + 0.1 * level
    assert np.allclose(null.p(np.array([null.correlation(0.003)])), 0.003)
    assert null.p(np.array([1.0]))[0] < 1e-10


@pytest.mark.parametrize("seed", range(2))
def test_changed_copies_of_digits_are_named_and_other_digits_are_not(seed: int) -> None:
    """The source: 60 copies of each kind, and 500 other scans of the same digits."""
    scans = glyphs.digits().train
    random = np.random.default_rng(seed)
    order = random.permutation(len(scans))
    target, others = scans._take(np.sort(order[:900])), order[900:1400]
    assert scans.images is not None
    images = [scans.images[i, ..., 0] for i in others]
    truth = {}
    for change in CHANGES:
        for i in random.choice(900, 60, replace=False):
            truth[len(images)] = int(i)
            images.append(changed(scans.images[target.positions[i], ..., 0], change, random))
    source = Dataset.from_arrays(np.stack(images), [0] * len(images))
    seeker = Seeker(target, np.arange(900), 28)
    found, limit, whole = seeker.seek(source, np.arange(len(source)), 0.01)
    assert whole
    right = sum(truth.get(pair[0]) == pair[1] for pair in found)
    assert right / len(found) >= 0.95
    assert right / len(truth) >= 0.95
    recall = seeker.recall([limit, 1e-300], seed)
    assert min(shares[0] for shares in recall.values()) > 0.85
    assert max(shares[1] for shares in recall.values()) == 0
    none, low, _ = seeker.seek(source, np.arange(500), 0.01)
    assert len(none) <= 1
    assert low <= 0.01 * 2 / 500


def test_hashes_alone_confuse_digits() -> None:
    """Why pairs are decided by `match`: at the threshold that names 1 % of look-alikes, pHash misses most copies."""
    from pydt.nearest import hamming, nearest_hashes, phash

    scans = glyphs.digits().train
    assert scans.images is not None
    random = np.random.default_rng(0)
    own = phash(scans.images[:600])
    alike = nearest_hashes(own, phash(scans.images[600:]), 1)[1][:, 0]
    cut = np.quantile(alike, 0.01)
    copies = phash(np.stack([changed(image[..., 0], "moved", random) for image in scans.images[:600]]))
    assert (hamming(copies, own) <= cut).mean() < 0.1


def test_changes_and_their_errors() -> None:
    image = np.add.outer(np.arange(28) ** 2 % 200, 3 * np.arange(28)).clip(0, 255).astype(np.uint8)
    for change in CHANGES:
        made = changed(image, change, np.random.default_rng(1))
        assert made.dtype == np.uint8
        assert made.shape == (28, 28)
        assert not np.array_equal(made, image)
    with pytest.raises(ConfigError, match="no change 'turned'"):
        changed(image, "turned", np.random.default_rng(1))
    few = Dataset.from_arrays(np.zeros((8, 9, 9), np.uint8), [0, 1] * 4)
    with pytest.raises(DataError, match="8 judged images"):
        Seeker(few, np.arange(8), 9)


# ---- influence -------------------------------------------------------------------------------------------------------


@dataclass
class _Plain:
    by: str = "class"


def asked(outputs: np.ndarray, labels: np.ndarray, masks: Any) -> Asked:
    """What `uneven` reads, without a store."""
    plain: Any = _Plain()
    none: Any = None
    ids = np.arange(len(labels))
    return Asked(none, plain, none, none, masks, outputs.astype(np.float32), labels, ids.astype(np.uint8), ids, "u")


def moved(seed: int, effect: float, models: int = 60, examples: int = 90) -> Asked:
    """Groups move whole classes, each example by its own slope; group 2 moves examples 0 to 4 by `effect` besides."""
    random = np.random.default_rng(seed)
    masks = design.bernoulli(GROUPS, models, seed=seed)
    labels = np.arange(examples) % 3
    on_class = random.normal(0, 1, (GROUPS, 3))
    common = np.asarray(masks) @ on_class + random.normal(0, 1, (models, 3))
    slopes = random.uniform(0.3, 1.7, examples)
    shared = random.normal(0, 0.3, (models, 1)) * random.normal(0, 1, (1, examples))
    y = common[:, labels] * slopes + shared + random.normal(0, 0.5, (models, examples))
    y[:, :5] += effect * np.asarray(masks)[:, LEAKED, None]
    return asked(y, labels, masks)


def test_groups_that_move_a_class_alike_are_flagged_at_the_stated_rate() -> None:
    """60 studies of six groups: at a level of 10 %, six of them may have a false flag; 14 are beyond chance."""
    false = sum(holm(uneven(moved(seed, 0.0), 0.01, seed).p, 0.1).any() for seed in range(60))
    assert false < 14


def test_a_group_that_moves_five_examples_is_flagged_with_them() -> None:
    for seed in range(5):
        found = uneven(moved(seed, 2.0), 0.01, 0)
        assert holm(found.p, 0.05).tolist() == [k == LEAKED for k in range(GROUPS)]
        assert len(set(found.examples[LEAKED]) & set(range(5))) >= 4
        assert 1 < found.effect[LEAKED] < 2 + 4 * found.stderr[LEAKED]
        assert 50 <= sum(found.models) <= 60


def test_the_halves_do_not_share_repeated_masks() -> None:
    case = moved(0, 1.0, 40)
    twice = np.repeat(np.asarray(case.design), 2, axis=0)
    first, second = replace(case, design=design.Design.explicit(twice)).split(0)
    assert len({*first, *second}) == len(first) + len(second) > 60
    assert not {row.tobytes() for row in twice[first]} & {row.tobytes() for row in twice[second]}


def test_holm_is_that_of_a_loop() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        p = random.random(7) ** 4
        rejected = np.zeros(7, bool)
        for step, k in enumerate(np.argsort(p)):
            if p[k] > 0.05 / (7 - step):
                break
            rejected[k] = True
        assert np.array_equal(holm(p, 0.05), rejected)


# ---- end to end ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leaky:
    """A runner without training: each group moves all examples alike, group 2 the originals of its copies besides."""

    originals: np.ndarray  # among the judged examples
    effect: float = 1.0

    def __call__(self, context: Context, row: Row, tasks: tuple[Task, ...]) -> dict[str, Outcome]:
        random = np.random.default_rng(row.seed)
        labels = tasks[0].target.described()["labels"]
        margin = random.normal(0, 0.4, (tasks[0].draws, len(labels))) + random.normal(0, 0.3)
        margin += 0.2 * np.asarray(row.mask).sum()
        margin[:, self.originals] += self.effect * float(row.mask[LEAKED])
        primitives = np.stack([margin, 0 * margin, 0 * margin, np.where(margin > 0, labels, (labels + 1) % 10)])
        return {task.digest: Outcome({"primitives": primitives.astype(np.float32)}, {}) for task in tasks}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Plan, dict[int, int]]:
    """Six groups of 20 other scans; in the third, 12 copies of target digits take their places."""
    random = np.random.default_rng(3)
    scans = glyphs.digits().train._take(np.arange(450))
    target = Target(scans)
    assert scans.images is not None
    others = glyphs.digits().train._take(np.arange(500, 500 + 20 * GROUPS))
    assert others.images is not None
    images = others.images[others.positions].copy()
    judged = target.described()["ids"]
    originals = random.choice(len(judged), 12, replace=False)
    copies = {}
    for n, i in enumerate(originals):
        place = 20 * LEAKED + n
        images[place, ..., 0] = changed(scans.images[scans.positions[judged[i]], ..., 0], "moved", random)
        copies[place] = int(judged[i])
    names = [f"group {k}" for k in range(GROUPS)]
    source = Dataset.from_arrays(images, np.repeat(np.arange(GROUPS), 20), names, name="leaky")
    plan = Plan(
        source, design=design.bernoulli(GROUPS, 60, seed=1), recipe=Recipe(), tasks=[Task(target, draws=2)], seed=1
    )
    with ThreadPoolExecutor(1) as executor:
        store = run(plan, tmp_path_factory.mktemp("leaky"), executor, runner=Leaky(originals), progress=False)
    return store, plan, copies


@pytest.fixture(scope="module")
def found(study: tuple[Store, Plan, dict[int, int]]) -> Leaks:
    return leaks(study[0], study[1], share=0.04)


def test_the_leaking_group_comes_first_with_its_pairs(
    study: tuple[Store, Plan, dict[int, int]], found: Leaks, tmp_path: Path
) -> None:
    _, plan, copies = study
    first = found.groups[0]
    assert first.name == plan.source.classes[LEAKED]
    assert first.leak
    assert first.uneven
    assert [group.name for group in found.flagged] == [first.name]
    assert {pair.source: pair.target for pair in found.pairs} == copies
    assert (first.copies, first.originals, first.size) == (12, 12, 20)
    assert abs(first.gain - 1) < 4 * first.gain_stderr
    assert abs(first.effect - 1) < 4 * first.stderr
    assert len(set(first.examples) & set(copies.values())) >= 10
    assert {pair.half for pair in found.pairs} == {"score", "report"}
    write_pages([found.page()], tmp_path, "Leaks")
    with (tmp_path / "leaks" / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {int(row["source"]): int(row["target"]) for row in rows} == copies
    page = (tmp_path / "leaks.html").read_text()
    assert "12 copies of target images" in page.replace("\u00a0", " ")
    assert page.count("data:image") >= 24


def test_a_leak_that_the_outputs_do_not_show_is_found_by_its_images(
    study: tuple[Store, Plan, dict[int, int]], tmp_path: Path
) -> None:
    _, plan, copies = study
    with ThreadPoolExecutor(1) as executor:
        quiet = run(plan, tmp_path, executor, runner=Leaky(np.arange(3), 0.0), progress=False)
    found = leaks(quiet, plan)
    assert {pair.source: pair.target for pair in found.pairs} == copies
    assert [group.leak for group in found.groups] == [True] + 5 * [False]
    assert not found.groups[0].uneven
    assert abs(found.groups[0].gain) < 4 * found.groups[0].gain_stderr


def test_a_single_copy_is_a_leak_whether_its_group_is_large_or_itself(
    study: tuple[Store, Plan, dict[int, int]], tmp_path: Path
) -> None:
    _, plan, copies = study
    assert plan.source.images is not None
    images = plan.source.images.copy()
    place, *others = copies
    images[others] = images[:1]
    source = Dataset.from_arrays(images, plan.source.labels, plan.source.classes)
    for by, groups in (("class", GROUPS), ("example", len(source))):
        masks = design.bernoulli(groups, 24, seed=1)
        one = Plan(source, by, design=masks, recipe=plan.recipe, tasks=plan.tasks)
        with ThreadPoolExecutor(1) as executor:
            store = run(one, tmp_path / by, executor, runner=Leaky(np.arange(3), 0.0), progress=False)
        found = leaks(store, one)
        assert [(pair.source, pair.target) for pair in found.pairs] == [(place, copies[place])]
        assert [group.name for group in found.groups if group.leak] == [
            str(place) if by == "example" else f"group {LEAKED}"
        ]


@dataclass(frozen=True)
class Means:
    """Stands for a trained network: its features are means of patches."""

    def features(self, dataset: Dataset, keep: Any) -> Any:
        import torch

        return torch.from_numpy(resized(greys(dataset, keep), 7, 7).reshape(-1, 49))


def test_a_large_source_is_sought_by_candidates_and_features(
    study: tuple[Store, Plan, dict[int, int]], found: Leaks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where comparing everything would take too long, pixels, hashes and features propose pairs: the same are named."""
    store, plan, copies = study
    network: Any = Means()
    whole = leaks(store, plan, share=0.04, embedding=network)
    monkeypatch.setattr("pydt.duplicates._EXHAUSTIVE", 0)
    monkeypatch.setattr("pydt.duplicates._AT_ONCE", 17)
    part = leaks(store, plan, share=0.04, embedding=network)
    assert (whole.exhaustive, part.exhaustive) == (True, False)
    assert "candidates among the 300" in " ".join(part.page().answer)
    for pair, other in zip(whole.pairs, found.pairs, strict=True):
        assert replace(pair, cosine=None) == other
        assert pair.cosine is not None
        assert pair.cosine > 0.9
    assert whole.cosine_cut is not None
    assert 0.9 < whole.cosine_cut <= 1
    assert {pair.source: pair.target for pair in part.pairs} == copies
    assert [pair.cosine for pair in part.pairs] == pytest.approx([pair.cosine for pair in whole.pairs], abs=1e-6)


def test_what_is_sought_by_candidates_says_what_candidates_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that are never proposed are not found, however alike they are."""
    scans = glyphs.digits().train._take(np.arange(100))
    seeker = Seeker(scans, np.arange(100), 28)
    both = seeker.recall([1e-3, 1e-3], 0, [True, False])["JPEG"]
    assert both[0] == both[1] > 0.9
    monkeypatch.setattr("pydt.duplicates.propose", lambda copies, *_: np.full((len(copies), 1), 99))
    part = seeker.recall([1e-3, 1e-3], 0, [True, False])["JPEG"]
    assert part[0] == both[0]
    assert part[1] <= 1 / 64


def test_groups_with_evidence_are_those_that_have_it(found: Leaks) -> None:
    """A group with a named pair that is neither a leak nor uneven stands behind others without any evidence."""
    suspects = [replace(g, uneven=False, leak=False, copies=int(i == 3)) for i, g in enumerate(found.groups)]
    table = next(b for b in replace(found, groups=tuple(suspects)).page().blocks if isinstance(b, Table))
    assert [row[0] for row in table.rows] == [suspects[3].name]


def test_what_cannot_be_asked(study: tuple[Store, Plan, dict[int, int]], tmp_path: Path) -> None:
    store, plan, _ = study
    name: Any = plan.digest
    with pytest.raises(ConfigError, match="images of its source"):
        leaks(store, name)
    with pytest.raises(StoreError, match="no task 'other'"):
        leaks(store, plan, task="other")
    with pytest.raises(ConfigError, match="no influences on output"):
        leaks(store, plan, output="prediction")
    with pytest.raises(ConfigError, match="share"):
        leaks(store, plan, share=2)
    few = Plan(plan.source, design=design.bernoulli(GROUPS, 15), recipe=plan.recipe, tasks=plan.tasks)
    with ThreadPoolExecutor(1) as executor:
        short = run(few, tmp_path, executor, runner=Leaky(np.arange(3)), progress=False)
    with pytest.raises(StoreError, match="train at least 20"):
        leaks(short, few)
