"""Indexes, plan files, keep lists and resume files, damaged or made up: the same, or an error with a place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from odd_json import paths, replaced
from PIL import Image

import pydt
from pydt.base import PydtError, holder
from pydt.data import Dataset, read_list
from pydt.data.index_file import FILE, Texts, pack_index, read_index
from pydt.data.packing import pack
from pydt.reporting import page_html as pages
from pydt.store import status

SEEDS = np.random.default_rng(14)
N = 12


@pytest.fixture(scope="module", params=["arrays", "files"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set with an index: raw images, or a folder of files."""
    folder = tmp_path_factory.mktemp(request.param)
    images = SEEDS.integers(0, 255, (N, 6, 6, 3), np.uint8)
    if request.param == "arrays":
        made = Dataset.from_arrays(images, np.arange(N) % 3, ["a", "b", "c"], captions=[f"c {i}" for i in range(N)])
        made.save(folder / "data")
        return folder / "data"
    for i, image in enumerate(images):
        place = folder / "images" / f"class {i % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i}.png")
    Dataset.from_folder(folder / "images").save(folder / "data")
    return folder / "data"


def used(folder: Path) -> None:
    """Everything that is read of a data set: to the end, or to an error that names the place."""
    try:
        data = Dataset.open(folder)
        data.check()
        _ = data.units("class"), data.thumbnails("class", 2), len(data), data.classes, data.digest, data.name
        _ = list(data.all_keys()), data.captions, data.left_out, data.columns
    except PydtError as error:
        where = error.where
    else:
        where = "nothing was wrong"
    assert where


def test_an_index_that_lost_or_changed_a_section(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "data")
    sections = dict(read_index(saved / FILE))
    others: list[Any] = [
        np.zeros(0, np.int64), np.full(N, 1 << 62), np.full(N, -1), np.zeros(N, np.uint8), np.full(N, 9, np.uint32),
        np.arange(N - 1), Texts.of([]), Texts.of(["x"]), Texts.of(["x"] * N), Texts.of(["../" * 400 + "x"]),
        Texts.of(["\0"] * N), Texts.of(["/dev/zero"] * N), Texts.of(["/proc/self/mem"]), Texts.of([""] * N),
    ]  # fmt: skip
    for name in sections:
        without = {key: value for key, value in sections.items() if key != name}
        for changed in (without, *({**sections, name: other} for other in others)):
            (folder / FILE).write_bytes(pack_index(changed))
            used(folder)
    (folder / FILE).write_bytes(pack_index({}))
    with pytest.raises(PydtError, match=FILE):
        Dataset.open(folder)


def test_an_index_with_any_bit_or_end_lost(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "data")
    data = (saved / FILE).read_bytes()
    for place in SEEDS.choice(len(data), min(len(data), 80), replace=False).tolist():
        changed = bytearray(data)
        changed[place] ^= 1 << int(SEEDS.integers(8))
        for damaged in (bytes(changed), data[:place]):
            (folder / FILE).write_bytes(damaged)
            used(folder)


# ---- plan files

BAD: list[Any] = [
    -1,
    1 << 62,
    float("inf"),
    float("nan"),
    1.5,
    "",
    "x",
    "\0",
    [],
    {},
    True,
    [[1]],
    [{}],
    ["x"] * 3,
]
PLAN: dict[str, Any] = {
    "by": "class",
    "seed": 3,
    "source": {"saved": "data"},
    "design": {"kind": "bernoulli", "models": 5, "alpha": 0.5, "seed": 1, "placebos": 4},
    "recipe": {"network": "convnet-2", "epochs": 1, "batch_size": 4, "augment": {"flip": True}},
    "tasks": [{"name": "t", "shots": 1, "draws": 1, "target": {"train": {"saved": "data"}}, "finetune": {"epochs": 1}}],
    "run": {"dir": "out", "workers": 1, "stop": "sign 1", "limit": 9.0, "same_code": False},
}


def read(path: Path) -> pydt.ensemble.PlanFile | None:  # type: ignore[name-defined]
    try:
        return pydt.read_plan(path)
    except PydtError as error:
        told = str(error)
    assert str(path) in told
    return None


@pytest.mark.parametrize("saved", ["arrays"], indirect=True)
def test_a_plan_file_with_a_value_of_another_kind(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "data")
    path = tmp_path / "plan.toml"
    path.write_text(tomli_w.dumps(PLAN))
    whole = read(path)
    assert whole is not None
    for at in list(paths(PLAN))[1:]:
        for bad in BAD:
            path.write_text(tomli_w.dumps(replaced(PLAN, at, bad)))
            read(path)
    text = tomli_w.dumps(PLAN).encode()
    for place in SEEDS.choice(len(text), 40, replace=False).tolist():
        changed = bytearray(text)
        changed[place] ^= 1 << int(SEEDS.integers(8))
        for damaged in (bytes(changed), text[:place]):
            path.write_bytes(damaged)
            read(path)
    for bomb in ("x = " + "[" * 100_000, "x" + ".x" * 100_000 + " = 1", "x = " + "9" * 100_000, '"' * 100_000):
        path.write_text(bomb)
        assert read(path) is None


# ---- small ones


JUNK = [
    b"", b"\0", b"\xff\xfe", b"{", b"[]", b"{}", b"null", b"[" * 100_000, b'{"a":' * 100_000, b"1e400", b"9" * 100_000,
    b'[["x", {"title": 1}]]', b'[["x", "title"]]', b'[[["x"], {}]]', b'{"pid": 0, "host": "x"}',
    b'{"pid": 1e3, "host": []}', b'{"pid": 1, "pid": 1, "host": "x"}', b'{"at": -1, "run": "x", "crc": 1, "bad": {}}',
    b'{"at": 1e9, "of": 1, "sha": []}',
]  # fmt: skip


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk[:20]))
def test_small_files(junk: bytes, tmp_path: Path) -> None:
    def written(name: str) -> Path:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(junk)
        return tmp_path / name

    assert holder(written("lock")) is None
    told = "keep.txt"
    try:
        read_list(written("keep.txt"))
    except PydtError as error:
        told = str(error)
    assert "keep.txt" in told
    written("pages/index.json")
    pages.write_pages([], tmp_path / "pages", "title")
    written("store/store.json")
    with pytest.raises(PydtError, match=r"store\.json"):
        status(tmp_path / "store")


@pytest.mark.parametrize("saved", ["files"], indirect=True)
def test_what_a_pack_left_behind(saved: Path, tmp_path: Path) -> None:
    images = saved.parent / "images"
    expected = np.asarray(pack(images, tmp_path / "whole", 4).images)
    for junk in JUNK:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        (tmp_path / "out.packing").mkdir(exist_ok=True)
        (tmp_path / "out.packing" / "done.jsonl").write_bytes(junk + b"\n" + junk)
        np.testing.assert_array_equal(np.asarray(pack(images, tmp_path / "out", 4).images), expected)
        (tmp_path / "out" / "pack.json").write_bytes(junk)
        with pytest.raises(PydtError, match="out"):
            pack(images, tmp_path / "out", 4)
