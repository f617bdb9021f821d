"""Jitter, grey, blur, inversion and erasing of raw images: against the definitions, and against DALI's operators."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle_augment as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pydt.base import ConfigError
from pydt.data import Dataset
from pydt.data.loading import Augment, Loader
from pydt.data.loading.drawn import drawn, touched

CHANCE = st.sampled_from([0.0, 0.3, 0.7, 1.0])
PLAIN = Augment(crop_pad=2, flip=True, mean=0.3, std=0.2)
GREY = replace(
    PLAIN, jitter=(0.4, 0.4, 0, 0), jitter_chance=0.5, blur=(0.1, 2.0), blur_chance=0.5, solarize=0.3, erase=0.3
)
COLOUR = replace(GREY, jitter=(0.4, 0.4, 0.4, 0.1), grey=0.2)


def noise(count: int, height: int, width: int, channels: int, seed: int = 0) -> Dataset:
    images = np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), np.uint8)
    return Dataset.from_arrays(images, np.arange(count) % 2)


def by_id(loader: Loader, view: int = 0) -> dict[int, torch.Tensor]:
    return {
        int(i): image.clone()
        for batch in loader
        for i, image in zip(batch.index, batch.images.chunk(loader.views)[view], strict=True)
    }


@st.composite
def augments(draw: st.DrawFn, channels: int) -> Augment:
    colours = channels == 3
    width = st.sampled_from([0.0, 0.2, 0.8])
    window = {"resized_crop": ((0.3, 1), (0.5, 2))}
    crop: dict[str, Any] = draw(st.sampled_from([{}, {"crop_pad": 3}, window, window | {"size": 9}]))
    least = draw(st.sampled_from([0.1, 0.5, 3.0]))
    return Augment(
        **crop,
        flip=draw(st.booleans()),
        mean=tuple(np.linspace(0.3, 0.6, channels)),
        std=tuple(np.linspace(0.2, 0.4, channels)),
        jitter=(
            draw(width),
            draw(width),
            draw(width) if colours else 0,
            draw(st.sampled_from([0, 0.1, 0.5])) * colours,
        ),
        jitter_chance=draw(CHANCE),
        grey=draw(CHANCE) if colours else 0,
        blur=draw(st.sampled_from([None, (least, least), (least, 2 * least)])),
        blur_chance=draw(CHANCE),
        solarize=draw(CHANCE),
        erase=draw(CHANCE),
    )


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_batches_equal_the_oracle(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    channels, view = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 1))
    augment = data.draw(augments(channels))
    seed, epoch = data.draw(st.integers(0, 2**64 - 1)), data.draw(st.integers(0, 5))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    channels_last = data.draw(st.booleans())
    dataset = noise(6, height, width, channels, seed % 1000)
    how: dict[str, Any] = {"batch_size": 6, "seed": seed, "epoch": epoch, "views": 2}
    loader = Loader(dataset, augment=augment, dtype=dtype, channels_last=channels_last, **how)
    images = by_id(loader, view)
    mean, std = (values.astype(float) for values in augment.channels(channels))
    none = {"jitter": None, "grey": 0, "blur": None, "solarize": 0, "erase": 0}
    cropped = by_id(Loader(dataset, augment=replace(augment, mean=0, std=1, **none), **how), view)
    untouched = by_id(Loader(dataset, augment=replace(augment, **none), dtype=dtype, **how), view)
    found = drawn(augment, *augment.sides(height, width), seed, epoch, view, np.arange(6))
    some = touched(found) if found else np.zeros(6, bool)
    finest = {torch.float32: 1e-5, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}[dtype]
    for i in range(6):
        assert some[i] or torch.equal(images[i], untouched[i])
        if some[i]:
            one = {name: values[i].astype(float) for name, values in found.items()}
            if "anchor" in one and augment.flip and oracle.place(seed, epoch, i, 0, view)[2]:
                one["anchor"][1] = cropped[i].shape[2] - one["anchor"][1] - one["shape"][1]
            changed, either = oracle.operated((255 * cropped[i]).numpy().transpose(1, 2, 0), one, 255 * mean)
            off = np.abs(images[i].float().numpy().transpose(1, 2, 0) - (changed / 255 - mean) / std)
            close = finest * (1 + np.abs((changed / 255 - mean) / std))
            assert (off <= close + either / (255 * std)).all()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_an_image_is_the_same_in_any_batch(data: st.DataObject) -> None:
    channels, view = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 1))
    augment = data.draw(augments(channels))
    dataset = noise(20, data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40)), channels)
    one = by_id(Loader(dataset, augment=augment, seed=3, epoch=1, views=2), view)
    ids = data.draw(st.lists(st.integers(0, 19), min_size=1, max_size=20, unique=True))
    how: dict[str, Any] = {"batch_size": data.draw(st.integers(1, 20)), "seed": 3, "epoch": 1, "views": view + 1}
    other = by_id(Loader(dataset, ids, augment=augment, channels_last=data.draw(st.booleans()), **how), view)
    assert sorted(other) == sorted(ids)
    assert all(torch.equal(one[i], other[i]) for i in ids)


def test_large_batches_are_made_in_parts_of_equal_bits() -> None:
    dataset = noise(60, 100, 90, 3)
    loader = Loader(dataset, batch_size=60, augment=COLOUR)
    whole = by_id(loader)
    assert all(torch.equal(loader.read(np.array([i])).images[0], whole[i]) for i in range(60))


def test_how_others_of_the_batch_change_does_not_matter() -> None:
    """Every number 0..255 in 1,000 images, some of which lose their colours: what is rounded is the same to a bit."""
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1) * np.ones((1000, 1, 1, 3), np.uint8)
    augment = Augment(jitter=(0.4, 0.4, 0, 0), grey=0.3)
    loader = Loader(Dataset.from_arrays(images, np.arange(1000) % 2), batch_size=1000, augment=augment)
    whole = by_id(loader)
    assert all(torch.equal(loader.read(np.array([i])).images[0], whole[i]) for i in range(1000))


@pytest.mark.parametrize("channels", [1, 3])
def test_epochs_seeds_and_views_differ(channels: int) -> None:
    dataset, augment = noise(40, 12, 10, channels), COLOUR if channels == 3 else GREY
    augment = replace(augment, crop_pad=0, flip=False)
    loader = Loader(dataset, batch_size=40, augment=augment, seed=1, epoch=2, views=2)
    first = by_id(loader)
    others = [
        by_id(loader, 1),
        by_id(Loader(dataset, augment=augment, seed=2, epoch=2)),
        by_id(Loader(dataset, augment=augment, seed=1, epoch=3)),
    ]
    for other in others:
        assert sum(not torch.equal(first[i], other[i]) for i in first) > 30


def test_ranks_and_resumes_see_the_images_of_one() -> None:
    dataset = noise(50, 9, 7, 3)
    how: dict[str, Any] = {"batch_size": 12, "augment": COLOUR, "seed": 9, "views": 2}
    whole = list(Loader(dataset, **how))
    for rank in range(5):
        for part, batch in zip(Loader(dataset, rank=rank, world=5, **how), whole, strict=True):
            for own, all_ranks in zip(part.images.chunk(2), batch.images.chunk(2), strict=True):
                assert torch.equal(own, all_ranks[rank::5])
    resumed = Loader(dataset, **how)
    resumed.load_state_dict({"seed": 9, "epoch": 0, "position": 3})
    assert all(torch.equal(a.images, b.images) for a, b in zip(resumed, whole[3:], strict=True))
    assert Loader(dataset, [4], rank=1, world=2, **how | {"batch_size": 2}).read(
        np.empty(0, np.int64)
    ).images.shape == ((0, 3, 9, 7))


def test_threads_and_precisions_do_not_change_a_bit() -> None:
    dataset, threads, seen = noise(40, 33, 31, 3), torch.get_num_threads(), []
    precision = torch.get_float32_matmul_precision()
    try:
        for count, kind in ((1, "highest"), (3, "medium")):
            torch.set_num_threads(count)
            torch.set_float32_matmul_precision(kind)
            with torch.autocast("cpu", torch.bfloat16, enabled=count == 3):
                seen.append(by_id(Loader(dataset, batch_size=40, augment=COLOUR)))
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
    assert all(torch.equal(seen[0][i], seen[1][i]) for i in range(40))


def test_one_colour_stays_that_colour_when_blurred() -> None:
    for size in ((1, 1), (1, 40), (2, 3), (28, 28)):
        images = np.arange(0, 255, 5, np.uint8)[:, None, None, None] * np.ones((1, *size, 1), np.uint8)
        dataset = Dataset.from_arrays(images, np.arange(51) % 2)
        plain, blurred = Augment(), Augment(blur=(0.1, 20))
        assert torch.allclose(
            next(iter(Loader(dataset, augment=plain))).images,
            next(iter(Loader(dataset, augment=blurred))).images,
            atol=1e-6,
        )


def test_grey_images_have_no_colours_to_lose() -> None:
    dataset = noise(40, 5, 5, 1)
    plain, coloured = Augment(jitter=(0.4, 0.4, 0, 0)), Augment(jitter=(0.4, 0.4, 0.4, 0.1), grey=0.5)
    found = [next(iter(Loader(dataset, augment=augment))).images for augment in (plain, coloured)]
    assert torch.equal(*found)


@pytest.mark.parametrize("channels", [2, 4])
def test_colours_need_three_channels(channels: int) -> None:
    dataset = noise(6, 5, 5, channels)
    augment = Augment(jitter=(0.4, 0.4, 0.4, 0.1), grey=0.1)
    match = f"the saturation of jitter, the hue of jitter, grey for images of {channels} channel.*leave it out"
    with pytest.raises(ConfigError, match=match):
        Loader(dataset, augment=augment)
    assert len(Loader(dataset, train=False, augment=augment)) == 1
    assert len(list(Loader(dataset, augment=Augment(jitter=(0.4, 0.4, 0, 0))))) == 1


def test_raw_images_look_like_lossless_files_of_their_pixels(tmp_path: Path) -> None:
    """At the size of the image, whose crop shows all of it. DALI rounds after every operation, and so do these."""
    pytest.importorskip("nvidia.dali")
    random = np.random.default_rng(4)
    images = []
    for number in range(60):
        y, x = np.mgrid[0:32, 0:32] / 32
        wave = np.sin(random.uniform(1, 9, 3) * x[..., None] + random.uniform(1, 9, 3) * y[..., None] + number)
        images.append((128 + 110 * wave + random.normal(0, 8, (32, 32, 3))).clip(0, 255).astype(np.uint8))
        (tmp_path / f"{number % 2}").mkdir(exist_ok=True)
        Image.fromarray(images[-1]).save(tmp_path / f"{number % 2}" / f"{number:02}.png")
    files = Dataset.from_folder(tmp_path)
    order = [int(Path(key).stem) for key in files.all_keys()]  # ids of files go by class
    raw = Dataset.from_arrays(np.stack(images)[order], files.labels)
    crop: dict[str, Any] = {"size": 32, "resized_crop": ((1, 1), (1, 1)), "crop_pad": 0}
    settings: list[dict[str, Any]] = [
        {"jitter": (0.4, 0.4, 0.4, 0.2)},
        {"jitter": (0.4, 0.4, 0, 0)},
        {"grey": 0.5},
        {"blur": (0.1, 4)},
        {"solarize": 0.5},
        {"erase": 0.5},
    ]
    for how in settings:
        augment = Augment(flip=True, mean=(0.2, 0.4, 0.6), std=1 / 255, **crop, **how)
        own, theirs = (by_id(Loader(d, batch_size=20, augment=augment, seed=5, views=2), 1) for d in (raw, files))
        off = torch.stack([own[i] - theirs[i] for i in range(60)]).abs()
        assert off.max() < 1.6, how  # DALI rounds the mean colour, and halves in its own way
        assert off.mean() < 0.05, how
    augment = replace(COLOUR, **crop, mean=(0.2,), std=(1 / 255,), flip=False)
    own, theirs = (by_id(Loader(d, batch_size=20, augment=augment, seed=5)) for d in (raw, files))
    off = torch.stack([own[i] - theirs[i] for i in range(60)]).abs()
    assert (off < 2.6).float().mean() > 0.999
