"""Encoded images that are damaged or odd, and what pipelines leave behind; skipped where DALI is not installed."""

from __future__ import annotations

import gc
import io
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from odd_images import encoded, photograph
from PIL import Image
from test_dali import PLAIN, as_read, by_id, pixels

from pydt.base import DataError, StoreError
from pydt.data import Dataset
from pydt.data.loading import Augment, Loader
from pydt.data.loading.dali import engine, known

pytest.importorskip("nvidia.dali")


# ---- broken and odd files ------------------------------------------------------------------------------------------
@pytest.fixture
def broken(tmp_path: Path) -> tuple[Dataset, dict[int, str]]:
    """300 JPEGs, of which 3 were damaged after they were indexed; and what is said of those."""
    random = np.random.default_rng(6)
    for number in range(300):
        place = tmp_path / f"class {number % 3}"
        place.mkdir(exist_ok=True)
        (place / f"{number:03d}.jpg").write_bytes(encoded(photograph(40, 30, random)))
    dataset = Dataset.from_folder(tmp_path)
    keys = {key: i for i, key in enumerate(dataset.all_keys())}
    cut, text, gone = (tmp_path / "class 1" / f"{n:03d}.jpg" for n in (4, 100, 199))
    cut.write_bytes(cut.read_bytes()[:700])
    text.write_bytes(text.read_bytes()[:20] + bytes(text.stat().st_size - 22) + b"\xff\xd9")
    gone.unlink()
    said = {
        "class 1/004.jpg": "another length",
        "class 1/100.jpg": "cannot be decoded",
        "class 1/199.jpg": "No such file",
    }
    return dataset, {keys[key]: why for key, why in said.items()}


@pytest.mark.parametrize("train", [True, False])
def test_a_broken_file_is_named_and_the_rest_stays_usable(broken: tuple[Dataset, dict[int, str]], train: bool) -> None:
    dataset, bad = broken
    for number, why in bad.items():
        keep = [i for i in range(300) if i == number or i not in bad]
        loader = Loader(dataset, keep, batch_size=64, train=train, augment=Augment(size=16))
        with pytest.raises(DataError, match=rf"{dataset.all_keys()[number]}.*{why}.*on_error"):
            list(loader)
        good = [i for i in keep if i != number]
        assert sum(len(b.index) for b in Loader(dataset, good, batch_size=64, augment=Augment(size=16))) == 297


def test_one_percent_broken_is_skipped_and_named(broken: tuple[Dataset, dict[int, str]]) -> None:
    dataset, bad = broken
    how: dict[str, Any] = {"augment": Augment(size=16), "seed": 5, "on_error": "skip"}
    loader = Loader(dataset, batch_size=64, **how)
    seen: list[list[int]] = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert [len(b.index) for b in batches] == [64, 64, 64, 64, 44]
        assert sorted(loader.skipped) == sorted(bad)
        assert all(why in loader.skipped[number] for number, why in bad.items())
        for batch in batches:
            assert batch.labels.tolist() == dataset.labels[batch.index.numpy()].tolist()
            assert len(batch.images) == len(batch.index)
        seen.append([int(i) for b in batches for i in b.index])
        assert not set(seen[-1]) & set(bad)
        assert len(set(seen[-1])) == 297
    # the same whatever else is in the batch, and whatever is known already
    known(dataset).broken.clear()
    again = Loader(dataset, batch_size=17, **how)
    assert [int(i) for b in again for i in b.index] == seen[0]
    ranks = [list(Loader(dataset, batch_size=64, rank=r, world=2, **how)) for r in range(2)]
    for i, batch in enumerate(Loader(dataset, batch_size=64, **how)):
        for r in range(2):
            assert ranks[r][i].index.tolist() == batch.index[r::2].tolist()
            assert torch.equal(ranks[r][i].images, batch.images[r::2])
    whole = by_id(Loader(dataset, [i for i in range(300) if i not in bad], 64, augment=Augment(size=16), seed=5))
    assert all(torch.equal(image, whole[i]) for i, image in by_id(Loader(dataset, batch_size=64, **how)).items())


def test_a_mended_file_is_read_again(broken: tuple[Dataset, dict[int, str]]) -> None:
    dataset, bad = broken
    number = next(iter(bad))
    place = Path(dataset.place_of(number))
    loader = Loader(dataset, [number], augment=Augment(size=16))
    with pytest.raises(DataError, match="another length"):
        list(loader)
    whole = encoded(photograph(40, 30, np.random.default_rng(0)), quality=20)
    assert dataset.records is not None
    place.write_bytes(whole[:-2] + bytes(dataset.records.length[number] - len(whole)) + whole[-2:])
    assert len(list(loader)) == 1
    with pytest.raises(DataError, match="not those that were indexed"):
        list(Loader(dataset, [number], augment=Augment(size=16), check=True))


def test_nothing_but_broken_files(broken: tuple[Dataset, dict[int, str]]) -> None:
    dataset, bad = broken
    with pytest.raises(DataError, match="none of the images"):
        list(Loader(dataset, list(bad), augment=Augment(size=16), on_error="skip"))


def flipped(data: bytes, count: int, start: int, seed: int) -> bytes:
    random, changed = np.random.default_rng(seed), bytearray(data)
    for place in random.integers(start, len(changed) - 2, count):
        changed[place] = random.integers(256)
    return bytes(changed)


def test_every_sort_of_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D1: what PIL reads, with whatever damage, is read as PIL reads it; all else is named; the process lives on."""
    random = np.random.default_rng(8)
    jpeg = encoded(photograph(90, 70, random), quality=90)
    png = encoded(photograph(60, 50, random), "PNG")
    frame = jpeg.index(b"\xff\xc0")
    animated = io.BytesIO()
    photograph(30, 30, random).save(animated, "WEBP", save_all=True, append_images=[photograph(30, 30, random)])
    files = {
        "empty": b"",
        "text": b"certainly no image",
        "zeros": bytes(4000),
        "start": b"\xff\xd8\xff",
        "half": jpeg[: len(jpeg) // 2],
        "no end": jpeg[:-2],
        "half with an end": jpeg[: len(jpeg) // 2] + b"\xff\xd9",
        "trailing": jpeg + b"garbage" * 20,
        "20,000 x 20,000": jpeg[: frame + 5] + b"\x4e\x20\x4e\x20" + jpeg[frame + 9 :],
        "no height": jpeg[: frame + 5] + b"\x00\x00" + jpeg[frame + 7 :],
        "twelve bits": jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :],
        "half png": png[: len(png) // 2],
        "png check sums": flipped(png, 3, 60, 0),
        "animated": animated.getvalue(),
        **{f"huffman {i}": flipped(jpeg, 1 + i, 650, i) for i in range(20)},
        **{f"tables {i}": flipped(jpeg, 2, 30, i) for i in range(20)},
    }
    place = tmp_path / "class"
    place.mkdir()
    for name in files:
        (place / f"{name}.jpg").write_bytes(jpeg)
    dataset = Dataset.from_folder(tmp_path)
    keys = [Path(key).stem for key in dataset.all_keys()]
    for name, data in files.items():
        (place / f"{name}.jpg").write_bytes(data)
    # as if they had been indexed like this
    monkeypatch.setattr(
        Dataset,
        "bytes_of",
        lambda self, ids, check: [np.fromfile(self.place_of(i), np.uint8) for i in np.asarray(ids).tolist()],
    )
    good = tmp_path / "class" / "good.jpg"
    good.write_bytes(jpeg)
    whole = Dataset.from_folder(tmp_path, bad="skip")
    for train in (False, True):
        loader = Loader(dataset, batch_size=16, train=train, augment=Augment(size=40, **PLAIN), on_error="skip")
        images = by_id(loader)
        for number, name in enumerate(keys):
            try:
                expected: Image.Image | None = as_read(dataset, number)
            except Exception:
                expected = None
            if expected is None:
                # what libjpeg only warns of is read here, and may be too much for PIL
                assert number in loader.skipped or name.startswith(("huffman", "tables")), name
            elif name.startswith("tables"):
                assert (number in images) != (number in loader.skipped)
            else:
                assert number in images, (name, loader.skipped.get(number))
                if not train and name in ("half with an end", "trailing", "animated"):
                    shown = expected.resize(images[number].shape[1:], Image.Resampling.BILINEAR)
                    assert abs(pixels(images[number]).mean() - np.asarray(shown).mean()) < 12
        assert "pixels" in loader.skipped[keys.index("20,000 x 20,000")]
    assert len(whole) < len(dataset)
    sound = whole.all_keys().index("class/good.jpg")
    assert len(next(iter(Loader(whole, [sound], augment=Augment(size=8)))).index) == 1


# ---- life ----------------------------------------------------------------------------------------------------------
def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_a_new_mask_builds_nothing(photos: Dataset) -> None:
    loader = Loader(photos, range(10), batch_size=5, augment=Augment(size=16))
    list(loader)
    built = loader.engine.pipeline
    other = Loader(photos, range(10, 40), batch_size=5, augment=Augment(size=16), seed=3)
    # in turns: each gets its own
    for one, two in zip(loader, other, strict=False):
        assert set(one.index.tolist()) <= set(range(10))
        assert set(two.index.tolist()) <= set(range(10, 40))
    assert other.engine is loader.engine
    assert other.engine.pipeline is built
    assert Loader(photos, batch_size=6, augment=Augment(size=16)).engine is not loader.engine
    settings = loader.engine.settings
    del loader, other, built
    gc.collect()
    assert engine(settings).pipeline is None


def test_what_is_kept_is_never_overwritten(photos: Dataset) -> None:
    kept = []
    loader = Loader(photos, batch_size=4, augment=Augment(size=16))
    for batch in loader:
        part = batch.images[1:2, :, ::2]
        kept.append((part, part.clone()))
        del batch
    del loader, part
    gc.collect()
    assert all(torch.equal(view, copy) for view, copy in kept)


def test_a_hundred_pipelines_leave_nothing_behind(photos: Dataset) -> None:
    """`python bench/encoded.py memory` makes a thousand."""

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for turn in range(100):
            if turn == 20:
                gc.collect()
                start = resident_bytes()
            # another deviation, another pipeline; broken off while part of a batch is held
            loader = Loader(photos, np.arange(turn % 7, 40), 16, augment=Augment(size=48, std=(0.2 + turn / 1000,)))
            stream = iter(loader)
            kept = next(stream).images[:1]
            if turn % 2:
                next(stream)
        del loader, stream, kept
        gc.collect()
    finally:
        torch.set_num_threads(before)
    assert resident_bytes() - start < 20e6


def test_threads_end_with_the_last_loader(photos: Dataset) -> None:
    """At once, and not when the garbage collector comes by."""
    gc.collect()
    gc.disable()
    try:
        alone = []
        for turn in range(4):
            loader = Loader(photos, batch_size=16, augment=Augment(size=48, std=(0.3 + turn / 1000,)))
            next(iter(loader))
            alive = threads()
            del loader
            alone.append(threads())
        assert alive > alone[-1]
        assert alone[-1] == alone[0]  # what libraries start once is there from the first on
    finally:
        gc.enable()


def test_damage_leaves_nothing_behind(broken: tuple[Dataset, dict[int, str]]) -> None:
    dataset, _ = broken
    for turn in range(40):
        if turn == 10:
            gc.collect()
            start, alive = int(Path("/proc/self/statm").read_text().split()[1]) * 4096, threads()
        known(dataset).broken.clear()
        list(Loader(dataset, range(90, 140), 50, augment=Augment(size=16), on_error="skip"))
    gc.collect()
    assert int(Path("/proc/self/statm").read_text().split()[1]) * 4096 - start < 20e6
    assert threads() <= alive


def test_a_child_of_a_fork_builds_its_own(photos: Dataset) -> None:
    loader = Loader(photos, batch_size=20, augment=Augment(size=16))
    expected = torch.stack([by_id(loader)[i] for i in range(3)]).numpy().tobytes()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            found = by_id(loader)
            os.write(writer, torch.stack([found[i] for i in range(3)]).numpy().tobytes())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        assert stream.read() == expected
    os.waitpid(child, 0)


def test_an_interrupted_batch_is_not_the_next_one(photos: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from nvidia.dali.pipeline import Pipeline

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    loader = Loader(photos, batch_size=4, augment=Augment(size=16), train=False)
    expected = loader.read(np.arange(4)).images
    for place in ("outputs", "_run_once"):
        with monkeypatch.context() as patched:
            patched.setattr(Pipeline, place, interrupted)
            with pytest.raises(KeyboardInterrupt):
                loader.read(np.arange(4, 8))
        assert torch.equal(loader.read(np.arange(4)).images, expected)


def test_too_many_open_files_skip_nothing(photos: Dataset) -> None:
    loader = Loader(photos, batch_size=4, augment=Augment(size=16), on_error="skip")
    loader.read(np.arange(4))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, most[1]))
        with pytest.raises(StoreError, match="Too many open files"):
            loader.read(np.arange(4))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
    assert loader.read(np.arange(4)).index.tolist() == [0, 1, 2, 3]
    assert not loader.skipped
