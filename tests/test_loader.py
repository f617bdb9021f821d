"""Batches of masked subsets: order and augmentation by (seed, epoch, example id) alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import oracle_augment
import oracle_core as oracle
import pytest
import torch

from pydt.data import Dataset
from pydt.errors import DataError
from pydt.loader import Augment, Loader, _windows


@pytest.fixture(scope="module")
def colour() -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (53, 9, 7, 3), np.uint8)
    return Dataset.from_arrays(images, np.arange(53) % 5)


AUGMENT = Augment(crop_pad=2, flip=True, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))


def by_id(loader: Loader) -> dict[int, torch.Tensor]:
    return {int(i): image for batch in loader for i, image in zip(batch.index, batch.images, strict=True)}


@pytest.mark.parametrize("channels_last", [False, True])
def test_an_epoch_equals_the_oracle(colour: Dataset, channels_last: bool) -> None:
    keep = np.random.default_rng(1).random(53) < 0.6
    ids = np.flatnonzero(keep)
    loader = Loader(colour, keep, batch_size=10, augment=AUGMENT, seed=5, epoch=3, channels_last=channels_last)
    batches = list(loader)
    order = ids[oracle.epoch_order(5, 3, ids)]
    assert np.concatenate([b.index for b in batches]).tolist() == order.tolist()
    assert len(batches) == len(loader) == -(-len(ids) // 10)
    assert colour.images is not None
    expected = oracle_augment.gather(
        colour.images, order, order, np.array(AUGMENT.mean), np.array(AUGMENT.std), 2, True, 5, 3
    )
    assert np.abs(torch.cat([b.images for b in batches]).numpy() - expected).max() < 1e-5
    assert torch.cat([b.labels for b in batches]).tolist() == colour.labels[order].tolist()
    assert batches[0].images.is_contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


def test_a_mask_changes_neither_relative_order_nor_augmentation(colour: Dataset) -> None:
    keep = np.random.default_rng(2).random(53) < 0.4
    whole = Loader(colour, None, batch_size=8, augment=AUGMENT, seed=1, epoch=2)
    part = Loader(colour, keep, batch_size=5, augment=AUGMENT, seed=1, epoch=2)
    all_ids = np.concatenate([b.index for b in whole])
    assert np.concatenate([b.index for b in part]).tolist() == [i for i in all_ids if keep[i]]
    everything = by_id(whole)
    assert all(torch.equal(image, everything[i]) for i, image in by_id(part).items())


def test_ranks_share_the_batches_of_one(colour: Dataset) -> None:
    whole = list(Loader(colour, batch_size=12, augment=AUGMENT, seed=9))
    ranks = [list(Loader(colour, batch_size=12, augment=AUGMENT, seed=9, rank=r, world=3)) for r in range(3)]
    for i, batch in enumerate(whole):
        for r in range(3):
            assert ranks[r][i].index.tolist() == batch.index[r::3].tolist()
            assert torch.equal(ranks[r][i].images, batch.images[r::3])


@pytest.mark.parametrize("done", [0, 1, 3, 6])
def test_resume_is_bit_equal_at_any_batch(colour: Dataset, done: int) -> None:
    loader = Loader(colour, batch_size=8, augment=AUGMENT, seed=4)
    loader.set_epoch(2)
    stream = iter(loader)
    seen = [next(stream) for _ in range(done)]
    state = loader.state_dict()
    assert all(type(v) is int for v in state.values())
    assert len(state) == 3
    resumed = Loader(colour, batch_size=8, augment=AUGMENT)
    resumed.load_state_dict(state)
    rest = list(resumed)
    reference = Loader(colour, batch_size=8, augment=AUGMENT, seed=4, epoch=2)
    for got, expected in zip(seen + rest, reference, strict=True):
        assert torch.equal(got.images, expected.images)
        assert torch.equal(got.index, expected.index)


def test_a_broken_off_epoch_starts_again(colour: Dataset) -> None:
    loader = Loader(colour, batch_size=8)
    first = next(iter(loader)).index
    assert torch.equal(next(iter(loader)).index, first)
    assert len(list(loader)) == len(loader)


def test_evaluation_keeps_the_order_given_and_does_not_augment(colour: Dataset) -> None:
    loader = Loader(colour, [7, 3, 52], batch_size=2, train=False, augment=AUGMENT, seed=1)
    batches = list(loader)
    assert [b.index.tolist() for b in batches] == [[7, 3], [52]]
    assert colour.images is not None
    plain = (colour.images[7] / 255 - np.array(AUGMENT.mean)) / np.array(AUGMENT.std)
    assert np.abs(batches[0].images[0].numpy() - plain.transpose(2, 0, 1)).max() < 1e-5


def test_settings_that_mean_the_same_are_equal() -> None:
    for same in (Augment(mean=0.5, std=1), Augment(mean=np.array([0.5]), std=[1]), Augment(mean=(0.5,), std=(1.0,))):
        assert same == Augment(mean=[0.5], std=np.float64(1))
        assert repr(same) == repr(Augment(mean=0.5, std=1.0))
        assert hash(same) == hash(Augment(mean=0.5, std=1.0))


def test_a_kept_batch_is_never_overwritten(colour: Dataset) -> None:
    loader = Loader(colour, batch_size=4, augment=AUGMENT)
    batches = [(batch.images, batch.images.clone()) for batch in loader]
    assert all(torch.equal(kept, copy) for kept, copy in batches)


def test_epochs_and_seeds_differ(colour: Dataset) -> None:
    def order(**how: int) -> list[int]:
        return [int(i) for b in Loader(colour, batch_size=16, **how) for i in b.index]

    orders = [order(seed=0, epoch=0), order(seed=0, epoch=1), order(seed=1, epoch=0)]
    assert len({tuple(o) for o in orders}) == 3
    assert all(sorted(o) == list(range(53)) for o in orders)


class TestEncoded:
    """DALI on the CPU; skipped where it is not installed."""

    @pytest.fixture(autouse=True)
    def _dali(self) -> None:
        pytest.importorskip("nvidia.dali")

    def test_crops_depend_on_the_id_alone(self, folder_of_images: Path) -> None:
        dataset = Dataset.from_folder(folder_of_images)
        augment = Augment(size=32, flip=True)
        one, two = (
            Loader(dataset, batch_size=4, augment=augment),
            Loader(dataset, range(5, 21), batch_size=7, augment=augment),
        )
        first, second = by_id(one), by_id(two)
        assert sorted(first) == list(range(21))
        assert sorted(second) == list(range(5, 21))
        assert all(torch.equal(first[i], second[i]) for i in second)
        assert first[0].shape == (3, 32, 32)
        assert not any(
            torch.equal(first[i], image)
            for i, image in by_id(Loader(dataset, batch_size=4, augment=augment, epoch=1)).items()
        )

    def test_evaluation_is_torchvisions(self, folder_of_images: Path) -> None:
        from PIL import Image
        from torchvision.transforms import v2

        dataset = Dataset.from_folder(folder_of_images)
        loader = Loader(dataset, batch_size=6, train=False, augment=Augment(size=28, mean=(0.0,), std=(1.0,)))
        transform = v2.Compose([v2.Resize(32, antialias=True), v2.CenterCrop(28)])
        assert dataset.paths is not None
        for i, image in by_id(loader).items():
            with Image.open(dataset.paths[i]) as opened:
                expected = np.asarray(transform(opened.convert("RGB")), np.float32).transpose(2, 0, 1) / 255
            assert np.abs(image.numpy() - expected).mean() < 0.02, dataset.paths[i]

    def test_labels_follow_their_images(self, folder_of_images: Path) -> None:
        # The blue channel of the test images is 60 times their class.
        dataset = Dataset.from_folder(folder_of_images)
        for batch in Loader(dataset, batch_size=5, augment=Augment(size=16, mean=(0.0,), std=(1.0,))):
            blue = batch.images[:, 2].mean(dim=(1, 2)) * 255 / 60
            assert blue.round().long().tolist() == batch.labels.tolist()

    def test_a_truncated_file_is_named_and_the_rest_stays_usable(self, folder_of_images: Path) -> None:
        dataset = Dataset.from_folder(folder_of_images)
        assert dataset.paths is not None
        bad = Path(dataset.paths[9])
        bad.write_bytes(bad.read_bytes()[:200])
        loader = Loader(dataset, batch_size=8, train=False, augment=Augment(size=16))
        with pytest.raises(DataError, match=r"class 1/2\.jpg.*cannot be decoded"):
            list(loader)
        good = Loader(dataset, [i for i in range(21) if i != 9], batch_size=8, train=False, augment=Augment(size=16))
        assert sum(len(b.index) for b in good) == 20

    def test_windows_lie_in_their_documented_ranges(self) -> None:
        windows = _windows(0, 0, np.arange(20000), True)
        area, aspect, x, y, mirrored = windows.T
        assert area.min() >= 0.08
        assert area.max() <= 1
        assert abs(area.mean() - 0.54) < 0.01
        assert abs(np.log(aspect).mean()) < 0.01
        assert abs(np.log(aspect)).max() <= np.log(4 / 3) + 1e-6
        assert abs(x.mean() - 0.5) < 0.01
        assert abs(y.mean() - 0.5) < 0.01
        assert abs(np.corrcoef(windows.T) - np.eye(5)).max() < 0.04
        assert abs(mirrored.mean() - 0.5) < 0.02
