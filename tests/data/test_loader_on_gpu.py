"""The loader on GPUs that run on the CPU (`stub_cuda`): the bits of the CPU, and nothing read or freed too early.

With PYDT_EMULATED, a module that `build` of tests/emulation/emulate.py made, batches come from the kernel, on the CPU.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from stub_cuda import Cuda

from pydt.base import GPU_SHARE, ConfigError
from pydt.data import Dataset
from pydt.data.loading import Augment, Loader

BYTES = 53 * 9 * 7 * 3  # of the images
ROOM, TIGHT = 1 << 30, 2 * BYTES - 2  # memory of a GPU that holds the images, and of one that holds just too little
PLAIN = Augment(crop_pad=2, flip=True, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
CROPS = Augment(resized_crop=((0.2, 1), (0.5, 2)), size=11, flip=True)
BUSY = Augment(crop_pad=1, flip=True, jitter=(0.4, 0.4, 0.4, 0.1), blur=(0.1, 2.0), solarize=0.3, erase=0.5)
RESIZED = Augment(resize=12, size=10, flip=True)
RAMP = Augment(resized_crop=((0.2, 1), (0.5, 2)), size=11, ramp=((0, 6), (1, 13)))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (53, 9, 7, 3), np.uint8)


@pytest.fixture
def dataset(images: np.ndarray) -> Dataset:
    return Dataset.from_arrays(images, np.arange(53) % 5)


@pytest.fixture
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    machine = Cuda(memory=getattr(request, "param", ROOM))
    machine.installed(monkeypatch)
    with machine:
        yield machine
    assert machine.faults == []


both = pytest.mark.parametrize("cuda", [ROOM, TIGHT], indirect=True, ids=["resident", "pinned"])
pinned = pytest.mark.parametrize("cuda", [TIGHT], indirect=True, ids=["pinned"])


def equal(batches: list[Any], loader: Loader) -> bool:
    """Whether batches of a GPU, read only now, are those of a loader on the CPU."""
    pairs = list(zip(batches, loader, strict=True))
    assert all(a.images.stride() == b.images.stride() and a.images.dtype == b.images.dtype for a, b in pairs)
    return all(
        torch.equal(a.images.cpu(), b.images)
        and torch.equal(a.labels.cpu(), b.labels)
        and torch.equal(a.index, b.index)
        for a, b in pairs
    )


@both
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
@pytest.mark.parametrize("augment", [PLAIN, CROPS, BUSY, RESIZED])
@pytest.mark.parametrize("how", [{}, {"channels_last": True}, {"dtype": torch.bfloat16}, {"views": 2}])
def test_batches_are_those_of_the_cpu(
    cuda: Cuda, dataset: Dataset, device: str, augment: Augment, how: dict[str, Any]
) -> None:
    """All batches of an epoch are made before the first one is read: all memory is in use or on its way."""
    more: dict[str, Any] = {"batch_size": 8, "augment": augment, "seed": 3, "epoch": 2} | how
    there = Loader(dataset, device=device, **more)
    batches = list(there)
    on = 1 if device == "cuda:1" else 0
    assert {batch.images.device for batch in batches} == {torch.device("cuda", on)}
    assert equal(batches, Loader(dataset, **more))
    assert cuda.uploaded[1 - on] == 0
    assert cuda.taken(None) == 0 or cuda.memory == TIGHT


@both
def test_masks_ranks_evaluation_and_a_saved_state(cuda: Cuda, dataset: Dataset) -> None:
    keep = np.random.default_rng(1).random(53) < 0.5
    for how in (
        {"keep": keep},
        {"keep": [7, 3, 52], "train": False},
        *({"batch_size": 7, "rank": rank, "world": 5} for rank in range(5)),  # the last batch has 4: rank 4 gets none
    ):
        more: dict[str, Any] = {"batch_size": 6, "augment": PLAIN, "seed": 1, **how}
        assert equal(list(Loader(dataset, device="cuda:1", **more)), Loader(dataset, **more))
    loader = Loader(dataset, batch_size=6, augment=PLAIN, seed=4, device="cuda")
    stream = iter(loader)
    begun = [next(stream) for _ in range(3)]
    resumed = Loader(dataset, batch_size=6, augment=PLAIN, device="cuda")
    resumed.load_state_dict(loader.state_dict())
    assert equal([*begun, *resumed], Loader(dataset, batch_size=6, augment=PLAIN, seed=4))


@both
def test_batches_are_made_on_the_current_stream(cuda: Cuda, dataset: Dataset) -> None:
    """Nothing waits in any other stream: the work of this one alone suffices. Images that are resident for a loader of
    another stream are known to be used in this one, too.
    """
    next(iter(Loader(dataset, batch_size=8, augment=PLAIN, device="cuda:1")))
    with cuda.on(cuda.new_stream(1)):
        batches = list(Loader(dataset, batch_size=8, augment=PLAIN, device="cuda:1"))
        assert equal(batches, Loader(dataset, batch_size=8, augment=PLAIN))


@pinned
@pytest.mark.parametrize("seed", range(5))
def test_copies_may_arrive_at_any_time(cuda: Cuda, dataset: Dataset, seed: int) -> None:
    """Two streams take the batches in turns, and go on by themselves at random."""
    random, streams = np.random.default_rng(seed), [cuda.new_stream(0), cuda.new_stream(0)]
    kept, reference = [], Loader(dataset, batch_size=4, augment=RAMP)
    loader = iter(Loader(dataset, batch_size=4, augment=RAMP, device="cuda"))
    for expected in reference:
        with cuda.on(streams[random.integers(2)]) as _:
            kept.append((cuda.stream(0), next(loader), expected.images.clone()))
        stream = streams[random.integers(2)]
        stream.run(stream.done + int(random.integers(6)))
        assert cuda.taken(None) <= 3 * 2048  # a batch of 4 x 3 x 6 x 6 floats has 1,728 bytes
    for stream, batch, images in kept:
        with cuda.on(stream):
            assert torch.equal(batch.images.cpu(), images)


@pinned
def test_a_slow_gpu_is_waited_for_at_the_fourth_batch(cuda: Cuda, dataset: Dataset) -> None:
    stream = iter(Loader(dataset, batch_size=4, augment=PLAIN, device="cuda"))
    done = []
    for _ in range(5):
        next(stream)
        done.append(cuda.stream(0).done)
    assert done == [0, 0, 0, 1, 3]  # images of the first batch; its labels, and images of the second one
    cuda.stream(0).run()
    for _ in range(5):  # a GPU that keeps up needs one buffer
        next(stream)
        cuda.stream(0).run()
    assert cuda.taken(None) <= 3 * 4096


@pinned
def test_larger_batches_of_a_ramp_take_the_place_of_smaller_ones(cuda: Cuda, dataset: Dataset) -> None:
    loader = Loader(dataset, batch_size=8, augment=RAMP, device="cuda")
    for epoch in range(3):
        loader.set_epoch(epoch)
        reference = Loader(dataset, batch_size=8, augment=RAMP, epoch=epoch)
        assert equal(list(loader), reference)
    assert cuda.taken(None) <= 3 << 15  # 8 x 3 x 13 x 13 floats have 16,224 bytes


@both
def test_nothing_is_left_behind(cuda: Cuda, dataset: Dataset, images: np.ndarray) -> None:
    """A loader that is broken off while copies are under way, whose batches are read later."""
    loader: Loader | None = Loader(dataset, batch_size=8, augment=PLAIN, device="cuda")
    assert loader is not None
    batches = list(itertools.islice(loader, 3))
    loader = None
    gc.collect()
    assert cuda.taken(None) == 0
    assert equal(batches, list(itertools.islice(Loader(dataset, batch_size=8, augment=PLAIN), 3)))
    del batches, dataset, images
    gc.collect()
    cuda.finish()
    kept = [cuda.taken(0), cuda.taken(1)]
    assert kept == [BYTES, 0] if cuda.memory == ROOM else kept == [0, 0]  # the fixtures still hold the images


def test_a_copy_on_the_gpu_lives_as_long_as_the_images(cuda: Cuda) -> None:
    dataset = Dataset.from_arrays(np.zeros((53, 9, 7, 3), np.uint8), np.arange(53) % 5)
    next(iter(Loader(dataset, device="cuda")))
    cuda.finish()
    assert cuda.taken(0) == BYTES
    del dataset
    gc.collect()
    assert cuda.taken(0) == 0


def test_images_are_copied_once_to_each_device_by_whatever_name(cuda: Cuda, dataset: Dataset) -> None:
    for device in ("cuda", "cuda:0", torch.device("cuda"), torch.device("cuda:0")):
        list(Loader(dataset, batch_size=8, augment=PLAIN, device=device))
        cuda.finish()
        assert cuda.taken(0) == BYTES
    with torch.cuda.device(1):
        loader = Loader(dataset, batch_size=8, augment=PLAIN, device="cuda")
    assert loader.device == torch.device("cuda:1")
    assert equal(list(loader), Loader(dataset, batch_size=8, augment=PLAIN))
    cuda.finish()
    assert [cuda.taken(0), cuda.taken(1)] == [BYTES, BYTES]


def test_what_is_decided_at_the_first_batch_holds(cuda: Cuda, dataset: Dataset) -> None:
    cuda.memory = TIGHT
    stream = iter(Loader(dataset, batch_size=8, augment=PLAIN, device="cuda"))
    batches = [next(stream)]
    cuda.memory = ROOM
    batches += stream
    assert equal(batches, Loader(dataset, batch_size=8, augment=PLAIN))
    assert cuda.uploaded[0] == dataset.labels.nbytes


def goes_through_pinned_memory(cuda: Cuda, dataset: Dataset) -> bool:
    batches = list(Loader(dataset, batch_size=8, augment=PLAIN, device="cuda"))
    assert equal(batches, Loader(dataset, batch_size=8, augment=PLAIN))
    return cuda.uploaded[0] == dataset.labels.nbytes


def test_a_worker_that_shares_a_gpu_counts_with_its_share(
    cuda: Cuda, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda.memory = 4 * TIGHT
    monkeypatch.setenv(GPU_SHARE, "0.25")
    assert goes_through_pinned_memory(cuda, dataset)
    cuda.uploaded[0] = 0
    monkeypatch.setenv(GPU_SHARE, "0.5")
    assert not goes_through_pinned_memory(cuda, dataset)


def test_memory_that_another_process_took_meanwhile(
    cuda: Cuda, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (ROOM, ROOM))
    cuda.memory = BYTES - 1
    assert goes_through_pinned_memory(cuda, dataset)


def test_a_gpu_for_which_the_core_has_no_code(cuda: Cuda, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert goes_through_pinned_memory(cuda, dataset)


@pinned
def test_memory_that_cannot_be_pinned(cuda: Cuda, dataset: Dataset) -> None:
    cuda.pins = False
    loader = Loader(dataset, batch_size=8, augment=PLAIN, device="cuda")
    with pytest.warns(RuntimeWarning, match=r"no memory can be pinned \(CUDA error: out of memory\)") as told:
        batches = list(loader)
    assert len(told) == 1
    assert equal(batches, Loader(dataset, batch_size=8, augment=PLAIN))


@pytest.mark.parametrize(
    ("device", "what"),
    [("cuda:2", "there are 2 CUDA devices"), ("mps", "device 'mps'"), ("meta", "device 'meta'"), ("gpu", "'gpu'")],
)
def test_devices_that_are_refused(cuda: Cuda, dataset: Dataset, device: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        Loader(dataset, device=device)


def test_images_that_are_copied_in_several_pieces(cuda: Cuda) -> None:
    images = np.zeros((70, 1000, 1000), np.uint8)
    images[:, 0, 0] = np.arange(70)
    dataset = Dataset.from_arrays(images, np.arange(70) % 5)
    batches = list(Loader(dataset, [0, 69], batch_size=1, train=False, augment=Augment(mean=0, std=1), device="cuda"))
    assert [round(255 * float(batch.images.cpu().max())) for batch in batches] == [0, 69]
    assert cuda.uploaded[0] > images.nbytes
