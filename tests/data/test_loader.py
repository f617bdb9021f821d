"""Batches of masked subsets: order and augmentation by (seed, epoch, example id) alone."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import oracle_augment
import oracle_core as oracle
import pytest
import torch

from pydt.base import ConfigError
from pydt.data import Dataset
from pydt.data.loading import Augment, Loader
from pydt.data.loading.buffers import HOST


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
    for world in (2, 3, 4):
        ranks = [
            list(Loader(colour, batch_size=12, augment=AUGMENT, seed=9, rank=r, world=world)) for r in range(world)
        ]
        for i, batch in enumerate(whole):
            for r in range(world):
                assert ranks[r][i].index.tolist() == batch.index[r::world].tolist()
                assert torch.equal(ranks[r][i].images, batch.images[r::world])


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


def test_an_iteration_does_not_go_on_after_another_was_begun(colour: Dataset) -> None:
    loader = Loader(colour, batch_size=8)
    saved, batches = loader.state_dict(), iter(loader)
    first = next(batches).index
    for change in (lambda: next(iter(loader)), lambda: loader.set_epoch(1), lambda: loader.load_state_dict(saved)):
        loader.set_epoch(0)
        batches = iter(loader)
        assert torch.equal(next(batches).index, first)
        change()
        with pytest.raises(ConfigError, match="goes on after another was begun"):
            next(batches)
    with pytest.raises(ConfigError, match="make a loader for each"):
        list(zip(loader, loader, strict=True))


def test_evaluation_keeps_the_order_given_and_does_not_augment(colour: Dataset) -> None:
    loader = Loader(colour, [7, 3, 52], batch_size=2, train=False, augment=AUGMENT, seed=1)
    batches = list(loader)
    assert [b.index.tolist() for b in batches] == [[7, 3], [52]]
    assert colour.images is not None
    plain = (colour.images[7] / 255 - np.array(AUGMENT.mean)) / np.array(AUGMENT.std)
    assert np.abs(batches[0].images[0].numpy() - plain.transpose(2, 0, 1)).max() < 1e-5


def test_what_raw_images_cannot_have_is_in_no_evaluations_way(colour: Dataset) -> None:
    for augment in (Augment(grey=0.5, erase=0.1), Augment(ramp=((0, 4),))):
        (batch,) = Loader(colour, batch_size=53, train=False, augment=augment)
        (plain,) = Loader(colour, batch_size=53, train=False)
        assert torch.equal(batch.images, plain.images)


def test_settings_that_mean_the_same_are_equal() -> None:
    for same in (Augment(mean=0.5, std=1), Augment(mean=np.array([0.5]), std=[1]), Augment(mean=(0.5,), std=(1.0,))):
        assert same == Augment(mean=[0.5], std=np.float64(1))
        assert repr(same) == repr(Augment(mean=0.5, std=1.0))
        assert hash(same) == hash(Augment(mean=0.5, std=1.0))


def looks_at_all(images: torch.Tensor) -> Any:
    return images


def looks_at_a_slice(images: torch.Tensor) -> Any:
    return images[1:2, :, ::2]


def looks_through_numpy(images: torch.Tensor) -> Any:
    return images.numpy()[2:, 1]


def looks_at_the_bits(images: torch.Tensor) -> Any:
    return images.detach().permute(2, 0, 3, 1).view(torch.int32)


@pytest.mark.parametrize("look", [looks_at_all, looks_at_a_slice, looks_through_numpy, looks_at_the_bits])
@pytest.mark.parametrize("channels_last", [False, True])
def test_what_is_kept_is_never_overwritten(colour: Dataset, look: Any, channels_last: bool) -> None:
    """However little of a batch somebody still holds, across batches, epochs and the end of the loader."""
    loader = Loader(colour, batch_size=4, augment=AUGMENT, channels_last=channels_last)
    kept = []
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        for i, batch in enumerate(loader):
            if i % 3:  # the others come back and are used again
                kept.append((look(batch.images), look(batch.images.clone(memory_format=torch.preserve_format))))
            del batch
    del loader
    assert all(np.array_equal(view, copy) for view, copy in kept)


def test_what_autograd_saved_is_never_overwritten(colour: Dataset) -> None:
    weight = torch.ones(3, 9, 7, requires_grad=True)
    stream = iter(Loader(colour, batch_size=4, augment=AUGMENT))
    images = next(stream).images
    wanted = images.sum(0)
    loss = (images * weight).sum()
    del images
    for _ in stream:
        pass
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert torch.equal(weight.grad, wanted)


def test_memory_that_nobody_looks_at_is_used_again(colour: Dataset) -> None:
    loader = Loader(colour, batch_size=4, augment=AUGMENT)
    first = {batch.images.data_ptr() for batch in loader}
    assert len(first) <= 2  # the batch that is made while the one before is still in the loop's hands
    held = list(loader)
    assert len({batch.images.data_ptr() for batch in held}) == len(held) == 14
    del held
    gc.collect()
    assert len(HOST._free) == 3
    assert {batch.images.data_ptr() % 64 for batch in loader} == {0}


@pytest.mark.parametrize("augment", [AUGMENT, Augment(resized_crop=((0.2, 1), (0.5, 2)), size=11, flip=True)])
def test_threads_do_not_change_a_bit(colour: Dataset, augment: Augment) -> None:
    before = torch.get_num_threads()
    try:
        seen = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            seen.append(torch.cat([b.images.clone() for b in Loader(colour, batch_size=40, augment=augment)]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_resized_crops_and_their_evaluation_equal_the_oracle(colour: Dataset) -> None:
    augment = Augment(resized_crop=((0.2, 0.9), (0.5, 2)), size=11, flip=True)
    assert colour.images is not None
    for train, how in [(True, {"scale": (0.2, 0.9), "ratio": (0.5, 2.0)}), (False, {})]:
        for batch in Loader(colour, batch_size=30, train=train, augment=augment, seed=3, epoch=2):
            expected = oracle_augment.gather(
                colour.images,
                batch.index.numpy(),
                batch.index.numpy(),
                np.full(3, 0.5),
                np.full(3, 0.25),
                0,
                train,
                3,
                2,
                size=(11, 11),
                **how,
            )
            assert np.abs(batch.images.numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_short_types_are_rounded_float32(colour: Dataset, dtype: torch.dtype, channels_last: bool) -> None:
    how: dict[str, Any] = {"batch_size": 20, "augment": AUGMENT, "channels_last": channels_last}
    for short, long in zip(Loader(colour, dtype=dtype, **how), Loader(colour, **how), strict=True):
        assert short.images.dtype == dtype
        assert short.images.stride() == long.images.stride()
        assert torch.equal(short.images, long.images.to(dtype))


@pytest.mark.parametrize("augment", [AUGMENT, Augment(resized_crop=((0.2, 1), (0.5, 2)), flip=True)])
def test_two_views_of_each_example(colour: Dataset, augment: Augment) -> None:
    both = list(Loader(colour, batch_size=15, augment=augment, views=2, seed=2))
    one = list(Loader(colour, batch_size=15, augment=augment, seed=2))
    for pair, single in zip(both, one, strict=True):
        first, second = pair.images.chunk(2)
        assert torch.equal(first, single.images)
        assert torch.equal(pair.index, single.index)
        assert torch.equal(pair.labels, single.labels)
        assert first.shape == second.shape
        differ = (first != second).flatten(1).any(1)
        assert differ.float().mean() > 0.7
    ids = by_id(Loader(colour, range(20, 30), batch_size=3, augment=augment, views=1, seed=2))
    second_views = {
        int(i): image for batch in both for i, image in zip(batch.index, batch.images.chunk(2)[1], strict=True)
    }
    part = Loader(colour, range(20, 30), batch_size=4, augment=augment, views=2, seed=2)
    for batch in part:
        for i, image in zip(batch.index.tolist(), batch.images.chunk(2)[1], strict=True):
            assert torch.equal(image, second_views[i])
            assert i in ids


@pytest.mark.parametrize(
    ("how", "shape", "differ"),
    [
        ({}, (9, 7, 3), False),
        ({"crop_pad": 1}, (9, 7, 3), True),
        ({"crop_pad": 1}, (1, 1, 3), False),
        ({"crop_pad": 1}, (1, 2, 1), True),
        ({"flip": True}, (9, 1, 3), False),
        ({"flip": True}, (1, 2, 3), True),
        ({"resized_crop": ((0.2, 1), (0.5, 2))}, (9, 7, 3), True),
        ({"resized_crop": ((0.2, 1), (0.5, 2))}, (1, 1, 3), False),
        ({"resized_crop": ((0.2, 1), (0.5, 2)), "size": 8}, (1, 1, 3), False),
        ({"resized_crop": ((1, 1), (1, 1))}, (8, 8, 3), False),
        ({"resized_crop": ((1, 1), (1, 1))}, (9, 7, 3), False),
        ({"jitter": (0.1, 0, 0, 0)}, (1, 1, 1), True),
        ({"jitter": (0.1, 0, 0, 0), "jitter_chance": 0}, (9, 7, 3), False),
        ({"jitter": (0, 0, 0.1, 0)}, (9, 7, 3), True),
        ({"jitter": (0, 0, 0.1, 0)}, (9, 7, 4), False),
        ({"jitter": (0, 0, 0.1, 0.1), "grey": 1}, (9, 7, 3), False),
        ({"grey": 0.5}, (9, 7, 3), True),
        ({"grey": 1}, (9, 7, 3), False),
        ({"blur": (1, 1)}, (9, 7, 3), False),
        ({"blur": (1, 2)}, (9, 7, 3), True),
        ({"blur": (1, 1), "blur_chance": 0.5}, (9, 7, 3), True),
        ({"blur": (1, 2), "blur_chance": 0}, (9, 7, 3), False),
        ({"blur": (1, 2)}, (1, 1, 3), False),
        ({"solarize": 1}, (9, 7, 3), False),
        ({"solarize": 0.5}, (1, 1, 1), True),
        ({"erase": 1}, (9, 7, 3), True),
        ({"erase": 1}, (1, 1, 3), False),
        ({}, None, True),
        ({"resized_crop": ((1, 1), (1, 1))}, None, False),
        ({"resized_crop": ((1, 1), (1, 1)), "flip": True}, None, True),
        ({"resized_crop": ((1, 1), (1, 1)), "flip": True, "size": 1}, None, False),
        ({"resized_crop": ((1, 1), (1, 1)), "grey": 0.1}, None, True),
        ({"resized_crop": ((1, 1), (1, 1)), "randaugment": (1, 0)}, None, True),
    ],
)
def test_whether_two_views_can_differ(how: dict[str, Any], shape: tuple[int, int, int] | None, differ: bool) -> None:
    assert Augment(**how).random(shape) is differ


def test_captions_follow_their_images() -> None:
    images = np.arange(20, dtype=np.uint8).repeat(4).reshape(20, 2, 2)
    dataset = Dataset.from_arrays(images, np.zeros(20, int), captions=[f"number {i}" for i in range(20)])
    loader = Loader(dataset, range(3, 17), batch_size=4, augment=Augment(mean=0, std=1))
    for batch in loader:
        assert batch.captions == tuple(f"number {round(255 * float(v))}" for v in batch.images[:, 0, 0, 0])
    assert next(iter(Loader(Dataset.from_arrays(images, np.zeros(20, int))))).captions is None


def test_odd_ends(colour: Dataset) -> None:
    """A batch larger than the subset, a last batch of one, a class without any image, single pixels, grey."""
    assert [len(b.index) for b in Loader(colour, [4, 9], batch_size=50)] == [2]
    assert [len(b.index) for b in Loader(colour, range(9), batch_size=4)] == [4, 4, 1]
    kept = colour.labels != 3
    assert not any((b.labels == 3).any() for b in Loader(colour, kept, batch_size=7))
    pixels = Dataset.from_arrays(np.arange(6, dtype=np.uint8).reshape(6, 1, 1), np.zeros(6, int))
    for batch in Loader(pixels, batch_size=4, augment=Augment(mean=0, std=1), channels_last=True):
        assert batch.images.shape[1:] == (1, 1, 1)
        assert (batch.images.flatten() * 255).round().long().tolist() == batch.index.tolist()


def test_a_thousand_loaders_leave_nothing_behind(colour: Dataset) -> None:
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    images = np.zeros((600, 32, 32, 3), np.uint8)
    dataset = Dataset.from_arrays(images, np.zeros(600, int))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for turn in range(1000):
            if turn == 50:
                start, threads = resident_bytes(), len(list(Path("/proc/self/task").iterdir()))
            stream = iter(Loader(dataset, np.arange(turn % 7, 600), batch_size=256, augment=Augment(crop_pad=4)))
            kept = next(stream).images[:1]  # broken off with part of a batch still held
        del stream, kept
    finally:
        torch.set_num_threads(before)
    assert resident_bytes() - start < 20e6
    assert len(list(Path("/proc/self/task").iterdir())) <= threads


def test_epochs_and_seeds_differ(colour: Dataset) -> None:
    def order(**how: int) -> list[int]:
        return [int(i) for b in Loader(colour, batch_size=16, **how) for i in b.index]

    orders = [order(seed=0, epoch=0), order(seed=0, epoch=1), order(seed=1, epoch=0)]
    assert len({tuple(o) for o in orders}) == 3
    assert all(sorted(o) == list(range(53)) for o in orders)
