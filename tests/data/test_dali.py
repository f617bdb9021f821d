"""Encoded images through DALI on the CPU; skipped where it is not installed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle_augment as oracle
import oracle_pixels
import pytest
import torch
from odd_images import varied
from PIL import Image

from pydt.base import ConfigError, DataError
from pydt.data import Dataset
from pydt.data.loading import Augment, Loader
from pydt.data.loading.augment import ENCODED_CROP
from pydt.data.loading.dali import central
from pydt.data.loading.drawn import RANDAUGMENT, drawn
from pydt.data.packing import pack_tar

pytest.importorskip("nvidia.dali")

WHITE = (255, 255, 255)
PLAIN = {"mean": (0.0,), "std": (1.0,)}


def by_id(loader: Loader) -> dict[int, torch.Tensor]:
    return by_id_of(loader, 0)


def by_id_of(loader: Loader, view: int) -> dict[int, torch.Tensor]:
    return {
        int(i): image
        for batch in loader
        for i, image in zip(batch.index, batch.images.chunk(loader.views)[view], strict=True)
    }


def as_read(dataset: Dataset, number: int) -> Image.Image:
    """As torchvision's default loader reads it, but for alpha, which shows white, and for 16 bits, which are scaled."""
    assert dataset.paths is not None
    with Image.open(dataset.paths[number]) as image:
        if image.mode == "I;16":
            return Image.fromarray(
                np.rint(oracle_pixels.shown(np.asarray(image)[..., None], 16, WHITE)).astype(np.uint8)
            )
        if image.mode == "RGBA" or "transparency" in image.info:
            samples = np.asarray(image.convert("RGBA"))
            return Image.fromarray(np.rint(oracle_pixels.shown(samples, 8, WHITE)).astype(np.uint8))
        return image.convert("RGB")


def pixels(image: torch.Tensor) -> np.ndarray:
    """A batch's image with mean 0 and deviation 1 as (height, width, channels) on the scale 0..255."""
    return image.numpy().transpose(1, 2, 0).astype(np.float64) * 255


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """200 images of every sort."""
    root = tmp_path_factory.mktemp("odd")
    for name, data in varied(200):
        place = root / f"class {int(name[:4]) % 4}"
        place.mkdir(exist_ok=True)
        (place / name).write_bytes(data)
    return Dataset.from_folder(root)


# ---- what the network sees -----------------------------------------------------------------------------------------
def test_evaluation_is_torchvisions(odd: Dataset) -> None:
    from torchvision.transforms import v2

    transform = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])
    off = []
    for number, image in by_id(Loader(odd, batch_size=20, train=False, augment=Augment(**PLAIN))).items():
        expected = np.asarray(transform(as_read(odd, number)), np.float64)
        difference = np.abs(pixels(image) - expected)
        off.append(difference.mean())
        assert difference.max() <= 1.5, odd.all_keys()[number]  # 8 bits are rounded twice here and there
    assert len(off) == 200
    assert max(off) < 0.5
    assert np.mean(off) < 0.2


def test_geometry_of_evaluation_is_torchvisions() -> None:
    from torchvision.transforms.functional import _compute_resized_output_size

    random = np.random.default_rng(0)
    sizes = np.exp(random.uniform(0, np.log(5000), (500, 2))).astype(np.int32)
    for side in (1, 28, 224, 299):
        found = central(sizes, side, round(side * 256 / 224), False)
        for (height, width), start, stop in zip(sizes.tolist(), found["start"], found["stop"], strict=True):
            tall, wide = _compute_resized_output_size((height, width), [round(side * 256 / 224)])
            top, left = round((tall - side) / 2.0), round((wide - side) / 2.0)
            scale = np.array([height / tall, width / wide])
            assert np.allclose(start, np.array([top, left]) * scale, rtol=1e-6)
            assert np.allclose(stop, np.array([top + side, left + side]) * scale, rtol=1e-6)


def test_training_is_a_resized_window(odd: Dataset) -> None:
    """The oracle's window of what PIL reads, resized by PIL."""
    loader = Loader(odd, batch_size=30, augment=Augment(size=64, flip=True, **PLAIN), seed=7, epoch=3)
    mirrored = 0
    for number, image in by_id(loader).items():
        whole = as_read(odd, number)
        top, left, height, width = oracle.resized_window(7, 3, number, 0, whole.height, whole.width, *ENCODED_CROP)
        window = whole.crop((left, top, left + width, top + height)).resize((64, 64), Image.Resampling.BILINEAR)
        expected = np.asarray(window, np.float64)
        if oracle.place(7, 3, number, 0)[2]:
            expected, mirrored = expected[:, ::-1], mirrored + 1
        assert np.abs(pixels(image) - expected).mean() < 0.6, odd.all_keys()[number]
    assert 70 < mirrored < 130


def test_crops_have_torchvisions_distribution() -> None:
    """Area, aspect and place of 4,000 windows against as many of RandomResizedCrop: two-sample Kolmogorov-Smirnov."""
    from scipy.stats import ks_2samp
    from torchvision.transforms import RandomResizedCrop

    from pydt import _core

    count, height, width = 4000, 300, 500
    start, extent, mirrored = _core.crop_windows(
        np.tile(np.int32([height, width]), (count, 1)), np.arange(count), *ENCODED_CROP, True, 0, 0
    )
    torch.manual_seed(0)
    blank = torch.empty(1, height, width)
    theirs = np.array([RandomResizedCrop.get_params(blank, *map(list, ENCODED_CROP)) for _ in range(count)])
    ours = np.concatenate([start, extent], axis=1)
    for name, of in {
        "area": lambda w: w[:, 2] * w[:, 3],
        "aspect": lambda w: w[:, 3] / w[:, 2],
        "top": lambda w: w[:, 0] / (height - w[:, 2] + 1),
        "left": lambda w: w[:, 1] / (width - w[:, 3] + 1),
    }.items():
        assert ks_2samp(of(ours), of(theirs)).pvalue > 0.001, name
    assert abs(mirrored.mean() - 0.5) < 0.03


# ---- a function of (seed, epoch, id) -------------------------------------------------------------------------------
EVERYTHING = Augment(
    size=32,
    flip=True,
    jitter=(0.4, 0.4, 0.4, 0.1),
    jitter_chance=0.8,
    grey=0.2,
    blur=(0.1, 2.0),
    blur_chance=0.5,
    solarize=0.2,
    erase=0.5,
)


@pytest.mark.parametrize("augment", [Augment(size=32, flip=True), EVERYTHING])
def test_images_depend_on_the_id_alone(photos: Dataset, augment: Augment) -> None:
    first = by_id(Loader(photos, batch_size=7, augment=augment, seed=3))
    second = by_id(Loader(photos, range(5, 31), batch_size=11, augment=augment, seed=3))
    assert sorted(first) == list(range(40))
    assert sorted(second) == list(range(5, 31))
    assert all(torch.equal(first[i], second[i]) for i in second)
    assert first[0].shape == (3, 32, 32)
    for other in ({"epoch": 1, "seed": 3}, {"seed": 4}):
        changed = by_id(Loader(photos, batch_size=7, augment=augment, **other))
        assert not any(torch.equal(first[i], image) for i, image in changed.items())


def test_ranks_share_the_batches_of_one(photos: Dataset) -> None:
    how: dict[str, Any] = {"batch_size": 12, "augment": EVERYTHING, "seed": 9}
    whole = list(Loader(photos, **how))
    for world in (2, 5):
        ranks = [list(Loader(photos, rank=r, world=world, **how)) for r in range(world)]
        for i, batch in enumerate(whole):
            for r in range(world):
                assert ranks[r][i].index.tolist() == batch.index[r::world].tolist()
                assert torch.equal(ranks[r][i].images, batch.images[r::world])


def test_resume_is_bit_equal(photos: Dataset) -> None:
    how: dict[str, Any] = {"batch_size": 9, "augment": EVERYTHING}
    reference = list(Loader(photos, seed=4, epoch=2, **how))
    for done in (0, 2, 5):
        loader = Loader(photos, seed=4, epoch=2, **how)
        stream = iter(loader)
        for _ in range(done):
            next(stream)
        resumed = Loader(photos, **how)
        resumed.load_state_dict(loader.state_dict())
        for got, expected in zip(resumed, reference[done:], strict=True):
            assert torch.equal(got.images, expected.images)
            assert torch.equal(got.index, expected.index)


def test_threads_do_not_change_a_bit(photos: Dataset) -> None:
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            seen.append(torch.cat([b.images for b in Loader(photos, batch_size=40, augment=EVERYTHING)]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*seen)


def test_labels_and_captions_follow_their_images(folder_of_images: Path) -> None:
    # The blue channel of the test images is 60 times their class.
    dataset = Dataset.from_folder(folder_of_images, captions=[f"of class {i // 7}" for i in range(21)])
    for train in (True, False):
        for batch in Loader(dataset, batch_size=5, train=train, augment=Augment(size=16, **PLAIN)):
            blue = batch.images[:, 2].mean(dim=(1, 2)) * 255 / 60
            assert blue.round().long().tolist() == batch.labels.tolist()
            assert batch.captions == tuple(f"of class {label}" for label in batch.labels.tolist())


def test_tar_shards_show_what_the_folder_shows(photos: Dataset, tmp_path: Path) -> None:
    folder = Path(photos.place_of(0)).parent.parent
    pack_tar(folder, tmp_path / "shards")
    shards = Dataset.from_tar(tmp_path / "shards")
    numbers = {key: i for i, key in enumerate(photos.all_keys())}
    own = by_id(Loader(shards, batch_size=40, train=False, augment=Augment(size=16)))
    expected = by_id(Loader(photos, batch_size=9, train=False, augment=Augment(size=16)))
    assert all(torch.equal(own[i], expected[numbers[key]]) for i, key in enumerate(shards.all_keys()))
    shard = next((tmp_path / "shards").glob("*.tar"))
    data = bytearray(shard.read_bytes())
    frame = data.index(b"\xff\xc0")
    data[frame : frame + 19] = bytes(19)  # which indexing does not look at
    shard.write_bytes(data)
    shards = Dataset.from_tar(tmp_path / "shards")
    loader = Loader(shards, batch_size=40, augment=Augment(size=16), on_error="skip")
    assert [len(b.index) for b in loader] == [40]
    assert list(loader.skipped) == [0]
    with pytest.raises(DataError, match=r"shard-000000\.tar, .*jpg, byte \d+: cannot be decoded \(no .*on_error"):
        list(Loader(shards, [0], augment=Augment(size=16)))


def test_two_views_of_each_example(photos: Dataset) -> None:
    how: dict[str, Any] = {"batch_size": 15, "augment": EVERYTHING, "seed": 2}
    for pair, single in zip(Loader(photos, views=2, **how), Loader(photos, **how), strict=True):
        first, second = pair.images.chunk(2)
        assert torch.equal(first, single.images)
        assert torch.equal(pair.index, single.index)
        assert torch.equal(pair.labels, single.labels)
        assert pair.captions == single.captions
        assert (first != second).flatten(1).any(1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_types_and_layouts(photos: Dataset, dtype: torch.dtype, channels_last: bool) -> None:
    how: dict[str, Any] = {"batch_size": 16, "augment": Augment(size=24)}
    layout = torch.channels_last if channels_last else torch.contiguous_format
    loader = Loader(photos, channels_last=channels_last, dtype=dtype, **how)
    for short, long in zip(loader, Loader(photos, **how), strict=True):
        assert short.images.dtype == dtype
        assert short.images.is_contiguous(memory_format=layout)
        assert (short.images.float() - long.images).abs().max() <= long.images.abs().max() * 2.0**-7


def test_more_than_a_batch_at_once_and_none(photos: Dataset) -> None:
    loader = Loader(photos, batch_size=4, augment=Augment(size=16))
    expected = by_id(loader)
    assert all(torch.equal(image, expected[i]) for i, image in enumerate(loader.read(np.arange(40)).images))
    assert loader.read(np.empty(0, np.int64)).images.shape == (0, 3, 16, 16)
    assert [len(b.index) for b in Loader(photos, [3], batch_size=4, rank=1, world=2, augment=Augment(size=16))] == [0]


# ---- augmentations -------------------------------------------------------------------------------------------------
def test_the_resolution_ramp(photos: Dataset) -> None:
    augment = Augment(size=40, ramp=((0, 24), (2, 32)), **PLAIN)
    loader = Loader(photos, batch_size=40, augment=augment)
    for epoch, side in enumerate((24, 24, 32, 32)):
        loader.set_epoch(epoch)
        (batch,) = loader
        assert batch.images.shape == (40, 3, side, side)
        plain = Loader(photos, batch_size=40, augment=Augment(size=side, **PLAIN), epoch=epoch)
        assert torch.equal(batch.images, next(iter(plain)).images)
    assert next(iter(Loader(photos, augment=augment, train=False))).images.shape == (40, 3, 40, 40)


def test_what_is_drawn_has_its_documented_distribution() -> None:
    found = drawn(EVERYTHING, 100, 100, 0, 5, 0, np.arange(20000))
    jittered = found["brightness"] != 1
    assert abs(jittered.mean() - 0.8) < 0.01
    for name in ("brightness", "contrast"):
        part = found[name][jittered]
        assert part.min() >= 0.6
        assert part.max() <= 1.4
        assert abs(part.mean() - 1) < 0.01
        assert abs(part.std() - 0.8 / 12**0.5) < 0.01
    assert abs((found["saturation"] == 0).mean() - 0.2) < 0.01
    hue = found["hue"][jittered]
    assert np.abs(hue).max() <= 36
    assert abs(hue.std() - 72 / 12**0.5) < 0.5
    blurred = found["window"] > 1
    assert abs(blurred.mean() - 0.5) < 0.01
    assert found["sigma"][blurred].min() >= 0.1
    assert found["sigma"][blurred].max() <= 2
    assert (found["window"][blurred] == 2 * np.ceil(3 * found["sigma"][blurred]) + 1).all()
    assert abs((found["threshold"] == 128).mean() - 0.2) < 0.01
    shape, anchor = found["shape"], found["anchor"]
    erased = shape[:, 0] > 0
    assert abs(erased.mean() - 0.5) < 0.01
    share = shape[erased].prod(axis=1) / 1e4
    assert share.min() > 0.018
    assert share.max() < 0.34
    assert abs(share.mean() - 0.175) < 0.01
    assert (anchor >= 0).all()
    assert (anchor + shape <= 100).all()
    numbers = np.stack([*(v for v in found.values() if v.ndim == 1), *anchor.T, shape[:, 0]])
    free = np.abs(np.corrcoef(numbers) - np.eye(len(numbers)))
    names = [name for name, v in found.items() if v.ndim == 1]
    assert free[names.index("brightness"), names.index("contrast")] < 0.03
    assert free[names.index("sigma"), names.index("threshold")] < 0.03
    second = drawn(EVERYTHING, 100, 100, 0, 5, 1, np.arange(20000))
    assert abs(np.corrcoef(found["brightness"], second["brightness"])[0, 1]) < 0.03


def shown(photos: Dataset, **how: Any) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray], dict[str, np.ndarray]]:
    """Images without and with an augmentation (scale 0..255), and what was drawn for it."""
    plain, augment = Augment(size=32, **PLAIN), Augment(size=32, **PLAIN, **how)
    before, after = (
        {i: pixels(image) for i, image in by_id(Loader(photos, batch_size=40, augment=a, seed=1)).items()}
        for a in (plain, augment)
    )
    return before, after, drawn(augment, 32, 32, 1, 0, 0, np.arange(40))


def test_brightness_and_contrast(photos: Dataset) -> None:
    before, after, found = shown(photos, jitter=(0.4, 0.3, 0, 0))
    for i, image in before.items():
        turned = 128 + found["contrast"][i] * (image - 128)
        assert np.abs(after[i] - np.clip(found["brightness"][i] * turned, 0, 255)).max() < 1.01


def test_grey(photos: Dataset) -> None:
    before, after, found = shown(photos, grey=0.5)
    grey = found["saturation"] == 0
    assert 10 < grey.sum() < 30
    for i, image in before.items():
        luma = (image @ [0.299, 0.587, 0.114])[..., None]
        assert np.abs(after[i] - (luma if grey[i] else image)).max() < (2 if grey[i] else 0.01)


def test_blur(photos: Dataset) -> None:
    from scipy.ndimage import gaussian_filter1d

    before, after, found = shown(photos, blur=(0.5, 2), blur_chance=0.6)
    for i, image in before.items():
        radius, sigma = int(found["window"][i]) // 2, float(found["sigma"][i])
        for axis in (0, 1) if radius else ():
            image = gaussian_filter1d(image, sigma, axis=axis, radius=radius, mode="mirror")
        assert np.abs(after[i] - image).max() < 1.01


def test_solarize(photos: Dataset) -> None:
    before, after, found = shown(photos, solarize=0.5)
    assert set(found["threshold"].tolist()) == {128, 256}
    for i, image in before.items():
        assert np.abs(after[i] - np.where(image.round() >= found["threshold"][i], 255 - image, image)).max() < 0.01


def test_erase(photos: Dataset) -> None:
    before, after, found = shown(photos, erase=0.7)
    for i, image in before.items():
        (top, left), (height, width) = found["anchor"][i].astype(int), found["shape"][i].astype(int)
        expected = image.copy()
        expected[top : top + height, left : left + width] = 0  # the mean
        assert np.abs(after[i] - expected).max() < 0.01


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_randaugment_does_what_was_drawn(photos: Dataset, magnitude: int) -> None:
    """The operations that are a line each; the others are DALI's."""
    before, after, found = shown(photos, randaugment=(1, magnitude))
    seen = set()
    for i, image in before.items():
        name, sign = RANDAUGMENT[found["operation"][i, 0]], 1 - 2 * int(found["negated"][i, 0])
        low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
        shift = sign * magnitude / 30 * 100 / 224 * 32
        moved = np.full_like(image, 128.0)
        whole = round(shift)
        moved[:, max(whole, 0) : 32 + min(whole, 0)] = image[:, max(-whole, 0) : 32 - max(whole, 0)]
        expected = {
            "identity": image,
            "brightness": np.clip((1 + sign * 0.9 * magnitude / 30) * image, 0, 255),
            "color": None,
            "posterize": image.round().astype(int) & ~(2 ** round(4 * magnitude / 30) - 1),
            "solarize": np.where(image.round() >= 256 - 256 * magnitude / 30, 255 - image, image),
            "auto_contrast": (image - low) * 255 / (high - low),
            "translate_x": moved if abs(shift - whole) < 1e-3 else None,
        }.get(name)
        if expected is not None:
            assert np.abs(after[i] - expected).max() < 1.01, (name, sign)
        seen.add((name, sign))
    assert len(seen) > 10


def test_randaugment_depends_on_seed_epoch_view_and_id_alone(photos: Dataset) -> None:
    augment = Augment(size=32, randaugment=(2, 9), ramp=((0, 24),))
    how: dict[str, Any] = {"augment": augment, "seed": 3, "views": 2}
    (whole,) = Loader(photos, batch_size=40, **how)
    views = [dict(zip(whole.index.tolist(), part, strict=True)) for part in whole.images.chunk(2)]
    for ids, size in (([7], 1), ([30, 2, 7, 11, 12], 2), (list(range(40)), 9)):
        for batch in Loader(photos, ids, batch_size=size, **how):
            for view, part in enumerate(batch.images.chunk(2)):
                assert all(torch.equal(image, views[view][int(i)]) for i, image in zip(batch.index, part, strict=True))
    plain = Augment(size=32, randaugment=(2, 9), resized_crop=((1, 1), (3 / 4, 4 / 3)))
    loader = Loader(photos, batch_size=40, augment=plain, seed=3, views=2)
    first, second = (by_id_of(loader, view) for view in (0, 1))
    others = [second] + [
        by_id(Loader(photos, batch_size=40, augment=plain, **change))
        for change in ({"seed": 4}, {"seed": 3, "epoch": 1})
    ]
    for other in others:
        assert sum(not torch.equal(first[i], other[i]) for i in first) > 30


def test_randaugment_draws_every_operation_as_often() -> None:
    found = drawn(Augment(randaugment=(3, 9)), 32, 32, 5, 1, 1, np.arange(14000))
    assert found["operation"].shape == found["negated"].shape == (14000, 3)
    for turn in range(3):
        counts = np.bincount(found["operation"][:, turn], minlength=14)
        assert len(counts) == len(RANDAUGMENT) == 14
        assert np.abs(counts - 1000).max() < 160
        assert abs(found["negated"][:, turn].mean() - 0.5) < 0.02
    numbers = np.concatenate([found["operation"], found["negated"]], axis=1)
    assert np.abs(np.corrcoef(numbers.T) - np.eye(6)).max() < 0.04
    plain = drawn(EVERYTHING, 32, 32, 0, 0, 0, np.arange(50))
    both = drawn(replace(EVERYTHING, randaugment=(1, 9)), 32, 32, 0, 0, 0, np.arange(50))
    assert all((both[name] == values).all() for name, values in plain.items())


def test_randaugment_is_for_files() -> None:
    raw = Dataset.from_arrays(np.zeros((6, 8, 8, 3), np.uint8), np.arange(6) % 2)
    with pytest.raises(ConfigError, match=r"randaugment for raw images.*from_folder"):
        Loader(raw, augment=Augment(randaugment=(2, 9)))
    assert len(Loader(raw, train=False, augment=Augment(randaugment=(2, 9)))) == 1
    for bad in (9, (2,), (0, 9), (9, 9), (2, 31), (2, 0.5), "29"):
        with pytest.raises(ConfigError, match="randaugment"):
            Augment(randaugment=bad)  # type: ignore[arg-type]


def test_evaluation_is_not_augmented(photos: Dataset) -> None:
    plain = by_id(Loader(photos, train=False, augment=Augment(size=32)))
    for augment in (EVERYTHING, Augment(size=32, ramp=((0, 8),)), Augment(size=32, randaugment=(2, 9))):
        assert all(
            torch.equal(plain[i], image) for i, image in by_id(Loader(photos, train=False, augment=augment)).items()
        )


def test_the_ramp_of_raw_images() -> None:
    raw = Dataset.from_arrays(np.zeros((6, 8, 8, 3), np.uint8), np.arange(6) % 2)
    with pytest.raises(ConfigError, match=r"ramp for raw images.*resized_crop"):
        Loader(raw, augment=Augment(ramp=((0, 4),)))
    ramped = Augment(resized_crop=((0.5, 1), (1, 1)), size=7, ramp=((0, 4), (3, 6)))
    assert [next(iter(Loader(raw, augment=ramped, epoch=e))).images.shape[2] for e in (0, 2, 3)] == [4, 4, 6]
    assert next(iter(Loader(raw, train=False, augment=ramped))).images.shape[2] == 7


def test_recipes_without_the_new_settings_keep_their_digests() -> None:
    assert Augment(flip=True).described() == {
        "crop_pad": 0,
        "flip": True,
        "mean": (0.5,),
        "std": (0.25,),
        "size": 224,
    }
    assert Augment(grey=0.2, ramp=[[0, 8]], jitter=(0, 0, 0, 0)).described() == Augment().described() | {
        "grey": 0.2,
        "ramp": ((0, 8),),
    }
    assert Augment(jitter_chance=0.5, blur_chance=0.2) == Augment(), "chances of nothing tell no recipes apart"
