"""Copies are found and named, look-alikes are not, and a group that moves all alike is not flagged."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_images import encoded, photograph
from PIL import Image

from pydt import design
from pydt.analyses import leaks, misleading, ranking
from pydt.analyses.leakage.copies import Seeker, changed
from pydt.analyses.leakage.leaks_page import Leaks
from pydt.analyses.leakage.similarity import greys, resized
from pydt.analyses.report import results
from pydt.base import ConfigError, StoreError
from pydt.data import Dataset, Target, pictures
from pydt.data.loading import Augment
from pydt.data.packing import pack_tar
from pydt.data.samples import glyphs
from pydt.ensemble import Plan, RowInput, run
from pydt.reporting import Table, write_pages
from pydt.store import Outcome, Store
from pydt.training import Recipe, Task

GROUPS, LEAKED = 6, 2


@dataclass(frozen=True)
class Leaky:
    """A runner without training: each group moves all examples alike, group 2 the originals of its copies besides."""

    originals: np.ndarray  # among the judged examples
    effect: float = 1.0

    def __call__(self, given: RowInput) -> dict[str, Outcome]:
        row, tasks = given.row, given.tasks
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
    scans = glyphs.digits().train.take(np.arange(450))
    target = Target(scans)
    assert scans.images is not None
    others = glyphs.digits().train.take(np.arange(500, 500 + 20 * GROUPS))
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
    study: tuple[Store, Plan, dict[int, int]], found: Leaks
) -> None:
    """Where comparing everything would take too long, pixels, hashes and features propose pairs: the same are named."""
    store, plan, copies = study
    network: Any = Means()
    whole = leaks(store, plan, share=0.04, embedding=network)
    assert whole.exhaustive
    assert "candidates among the 300" in " ".join(replace(whole, exhaustive=False).page().answer)
    target = plan.tasks[0].target
    ids = target.described()["ids"]
    seeker = Seeker(target.judged, ids, 28, network, exhaustive=0, at_once=17)
    part, _, exhaustive = seeker.seek(plan.source, 20 * LEAKED + np.arange(20), 0.01)
    assert not exhaustive
    for pair, other in zip(whole.pairs, found.pairs, strict=True):
        assert replace(pair, cosine=None) == other
        assert pair.cosine is not None
        assert pair.cosine > 0.9
    assert whole.cosine_cut is not None
    assert 0.9 < whole.cosine_cut <= 1
    assert {one: int(ids[other]) for one, other, *_ in part} == copies
    cosines = {pair.source: pair.cosine for pair in whole.pairs}
    assert {one: cosine for one, *_, cosine in part} == pytest.approx(cosines, abs=1e-6)


def near(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    noisy = image * random.uniform(0.97, 1.03) + random.normal(0, 2, image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def files_of(root: Path, images: list[np.ndarray], names: list[str]) -> Dataset:
    for image, name in zip(images, names, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(Image.fromarray(image), quality=92))
    return Dataset.from_folder(root)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Plan, dict[str, str]]:
    """Image files; 30 of a target of 240, a quarter of it near-duplicates of each other, lie in a source class."""
    random, root = np.random.default_rng(0), tmp_path_factory.mktemp("folders")
    every = [np.asarray(photograph(40, 36, random)) for _ in range(210 + 20 * GROUPS)]
    images = [*every[:210], *(near(image, random) for image in every[:30])]
    target = files_of(root / "target", images, [f"{'ab'[i % 2]}/{i:03d}.jpg" for i in range(240)])
    source_names = [f"group {k}/{i:02d}.jpg" for k in range(GROUPS) for i in range(20)]
    files_of(root / "source", every[210:], source_names)
    keys = target.all_keys()
    copied = {}
    for n, i in enumerate(random.choice(240, 30, replace=False)):
        copied[f"group {LEAKED}/copy {n:02d}.jpg"] = keys[i]
        (root / "source" / f"group {LEAKED}" / f"copy {n:02d}.jpg").write_bytes(target.bytes_of([i])[0].tobytes())
    (root / "source" / "group 0" / "notes.txt").write_text("left out, and told")
    source = Dataset.from_folder(root / "source")
    masks = design.bernoulli(GROUPS, 40, seed=1)
    plan = Plan(source, design=masks, recipe=Recipe(augment=Augment(size=32)), tasks=[Task(Target(target), draws=2)])
    with ThreadPoolExecutor(1) as executor:
        store = run(plan, root / "store", executor, runner=Leaky(np.arange(3), 0.0), progress=False)
    return store, plan, copied


def test_target_images_copied_byte_for_byte_are_the_headline(
    folders: tuple[Store, Plan, dict[str, str]], tmp_path: Path
) -> None:
    store, plan, copied = folders
    found = leaks(store, plan)
    page = found.page()
    assert page.answer[0].startswith(
        "30 images of the target are in the source, byte for byte, as 30 source images: in \u201cgroup 2\u201d (30)."
    )
    split = plan.tasks[0].target.split
    assert sum(found.same.values()) == 30
    assert found.same == {
        part: len({plan.tasks[0].target.train.all_keys()[i] for i in split[part]} & set(copied.values()))
        for part in ("pool", "validation", "score", "report")
    }
    keys = plan.source.all_keys()
    same = [pair for pair in found.pairs if pair.how == "same bytes"]
    target_keys = plan.tasks[0].target.train.all_keys()
    assert {keys[pair.source]: target_keys[pair.target] for pair in same} == copied
    assert found.pairs[:30] == tuple(same)
    assert len(found.pairs) <= 31
    assert [group.name for group in found.groups if group.leak] == ["group 2"]
    assert (found.groups[0].copies, found.groups[0].same) == (len(found.pairs), 30)
    assert found.groups[0].originals == found.same["score"] + found.same["report"]
    assert found.compared == 20 * GROUPS
    write_pages([page], tmp_path, "Leaks")
    html = (tmp_path / "leaks.html").read_text()
    assert "No copy" not in html
    log = (store.folder / "log.jsonl").read_text()
    told = "30 images of the target 'target' are in the source, byte for byte, as 30 source images: in 'group 2' (30)"
    assert told in log
    first, second = results(store, plan)["notes"][:2]
    assert first.startswith(told)
    assert "notes.txt" in second
    assert log.index(told) < log.index("notes.txt")


def test_images_that_cannot_be_decoded_are_passed_over_and_counted(tmp_path: Path) -> None:
    """A source image and a target image have a good head and a bad rest: pages compare and show the others."""
    random = np.random.default_rng(0)
    every = [np.asarray(photograph(40, 36, random)) for _ in range(90 + 10 * GROUPS)]
    files_of(tmp_path / "target", every[:90], [f"{'ab'[i % 2]}/{i:03d}.jpg" for i in range(90)])
    names = [f"group {k}/{i:02d}.jpg" for k in range(GROUPS) for i in range(10)]
    files_of(tmp_path / "source", every[90:], names)
    copy = (tmp_path / "target" / "a" / "000.jpg").read_bytes()
    (tmp_path / "source" / "group 1" / "copy.jpg").write_bytes(copy)
    target = Target(Dataset.from_folder(tmp_path / "target"))
    judged = target.train.all_keys()[int(target.described()["ids"][1])]
    for place in (tmp_path / "target" / judged, tmp_path / "source" / "group 0" / "03.jpg"):
        data = place.read_bytes()
        place.write_bytes(data[:4] + bytes(len(data) - 8) + data[-4:])
    source, target = Dataset.from_folder(tmp_path / "source"), Target(Dataset.from_folder(tmp_path / "target"))
    recipe = Recipe(augment=Augment(size=32), on_error="skip")
    plan = Plan(source, design=design.bernoulli(GROUPS, 40, seed=1), recipe=recipe, tasks=[Task(target, draws=2)])
    with ThreadPoolExecutor(1) as executor:
        store = run(plan, tmp_path / "store", executor, runner=Leaky(np.arange(3)), progress=False)
    found = leaks(store, plan)
    assert [pair.how for pair in found.pairs] == ["same bytes"]
    pages = [found.page(), misleading(store, plan).page(), misleading(store, plan, "example").page()]
    for page in pages:
        (said,) = [text for text in page.answer if "cannot be decoded" in text]
        assert "cannot be decoded" in said
        assert "passed over, and grey where shown (" in said
    assert any(text.startswith("2 images that cannot be decoded are passed over") for text in pages[0].answer)
    write_pages([*pages, ranking(store, plan).page()], tmp_path / "pages", "Passed over")
    for page in (tmp_path / "pages").glob("*.html"):
        assert str(tmp_path) not in page.read_text(), "whose folders these are is nobody's business"
    assert 'title="group 0: group 0/00.jpg, group 0/01.jpg, group 0/02.jpg"' in (
        (tmp_path / "pages" / "ranking-target.html").read_text()
    )
    assert 'data-caption="group 1/copy.jpg"' in (tmp_path / "pages" / "leaks.html").read_text()


@pytest.mark.parametrize("kinds", [("folder", "array"), ("array", "folder"), ("shards", "folder")])
def test_copies_are_found_across_kinds_and_in_every_part(kinds: tuple[str, str], tmp_path: Path) -> None:
    """A target with a test set of its own; 3 images of its training set and 4 of the test set are in the source."""
    random = np.random.default_rng(1)
    every = [np.asarray(photograph(32, 32, random)) for _ in range(130)]
    train, test, own = every[:40], every[40:100], every[100:]
    mixed = [*own, *train[:3], *test[-4:]]

    def made(kind: str, name: str, images: list[np.ndarray], labels: list[str], level: int) -> Dataset:
        if kind == "array":
            return Dataset.from_arrays(np.stack(images), labels, name=name)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            (tmp_path / name / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / name / label / f"{i:03d}.png", compress_level=level)
        if kind == "shards":
            return pack_tar(tmp_path / name, tmp_path / f"{name} shards")
        return Dataset.from_folder(tmp_path / name)

    source = made(kinds[0], "source", mixed, [*"pqrstu"] * 5 + ["p"] * 3 + ["q"] * 4, 1)
    target = Target(
        made(kinds[1], "train", train, ["a", "b"] * 20, 9), made(kinds[1], "test", test, ["a", "b"] * 30, 9)
    )
    recipe = Recipe(augment=Augment(size=32)) if kinds[0] != "array" else Recipe()
    plan = Plan(source, design=design.bernoulli(6, 60, seed=1), recipe=recipe, tasks=[Task(target, draws=2)])
    with ThreadPoolExecutor(1) as executor:
        store = run(plan, tmp_path / "store", executor, runner=Leaky(np.arange(3), 0.0), progress=False)
    found = leaks(store, plan)
    assert (
        found.page()
        .answer[0]
        .startswith(
            "7 images of the target are in the source, pixel for pixel, as 7 source images: "
            "in \u201cq\u201d (4), \u201cp\u201d (3)."
        )
    )
    assert (found.same["pool"] + found.same["validation"], found.same["score"] + found.same["report"]) == (3, 4)
    assert {group.name: (group.same, group.originals) for group in found.groups if group.leak} == {
        "p": (3, 0),
        "q": (4, 4),
    }
    data = {"pool": target.train, "validation": target.train, "score": target.judged, "report": target.judged}
    for pair in found.pairs[:7]:
        shown = [pictures(of, [i], 32)[0] for of, i in ((source, pair.source), (data[pair.half], pair.target))]
        assert np.array_equal(*shown)
    assert "pixel for pixel, as 7 source images: in 'q' (4), 'p' (3)" in (store.folder / "log.jsonl").read_text()


def test_near_duplicates_in_the_target_take_no_power_away(folders: tuple[Store, Plan, dict[str, str]]) -> None:
    """The largest correlations among target images are those of near-duplicates; copies are found all the same."""
    found = leaks(*folders[:2])
    assert found.alike[2] > 0.999
    for change, shares in found.found.items():
        assert shares[1] > (0.5 if change == "cropped" else 0.9), change


def test_what_could_not_have_been_found_is_not_denied(
    study: tuple[Store, Plan, dict[int, int]], tmp_path: Path
) -> None:
    """A target of which each image has a near-duplicate, and no other: nothing but the same pixels can be found."""
    random = np.random.default_rng(0)
    half = [np.asarray(photograph(28, 28, random).convert("L")) for _ in range(90 + 20 * GROUPS)]
    twins = [near(image, random) for image in half[:90]]
    target = Target(Dataset.from_arrays(np.stack([*half[:90], *twins]), np.arange(180) % 2))
    source = Dataset.from_arrays(np.stack(half[90:]), np.repeat(np.arange(GROUPS), 20))
    plan = Plan(source, design=design.bernoulli(GROUPS, 24, seed=1), recipe=Recipe(), tasks=[Task(target, draws=2)])
    with ThreadPoolExecutor(1) as executor:
        store = run(plan, tmp_path, executor, runner=Leaky(np.arange(3), 0.0), progress=False)
    page = leaks(store, plan).page()
    assert page.answer[0].startswith("Changed copies could not have been detected, and no image of the target is in ")
    table = next(b for b in page.blocks if isinstance(b, Table) and b.columns[0] == "change")
    assert {row[-1] for row in table.rows} == {"could not have been detected"}
    assert "No copy" not in " ".join(page.answer)


def test_the_headline_follows_from_what_planted_copies_tell(found: Leaks) -> None:
    """Without a pair: all kinds would be found, one could not, none could; and one that may be missed."""
    suspects = tuple(replace(group, leak=False, copies=0) for group in found.groups)
    empty = replace(found, pairs=(), groups=suspects)

    def answer(shares: dict[str, float]) -> str:
        return " ".join(replace(empty, found={k: (share, share) for k, share in shares.items()}).page().answer)

    every = answer({"moved": 1.0, "JPEG": 0.8})
    assert "No copy of a target image was found in the 6 groups" in every
    assert "none that is moved, JPEG." in every
    assert "could not" not in every
    assert "may be something else" in every
    some = answer({"moved": 1.0, "noisy": 0.5, "JPEG": 0.19})
    assert "none that is moved; one that is JPEG could not have been detected." in some
    assert "moved: 100 %; noisy: 50 %; JPEG: 19 % (could not have been detected)" in some
    assert "look at their images" in some
    for none in (answer({"moved": 0.7, "JPEG": 0.0}), answer({"moved": 0.0})):
        assert none.startswith("Changed copies could not have been detected")
        assert "No copy of a target image was found" not in none


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
