"""Gather + crop or resize + flip + normalise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import oracle_augment as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pydt import _core

TYPES = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16}


def empty_batch(
    count: int, channels: int, height: int, width: int, channels_last: bool, kind: str = "f32"
) -> NDArray[Any]:
    """A batch full of NaN, which no pixel becomes."""
    shape = (count, height, width, channels) if channels_last else (count, channels, height, width)
    out = np.full(shape, 0x7FFF if kind == "bf16" else np.nan, TYPES[kind])
    return out.transpose(0, 3, 1, 2) if channels_last else out


def values(out: NDArray[Any]) -> NDArray[np.float32]:
    """A batch as float32; uint16 holds the bits of bfloat16."""
    if out.dtype == np.uint16:
        return (out.astype(np.uint32) << 16).view(np.float32)
    return out.astype(np.float32)


def case(
    shape: tuple[int, ...] = (6, 9, 7, 3),
    count: int = 5,
    source: int = 0,
    channels_last: bool = False,
    kind: str = "f32",
    size: tuple[int, int] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """The arguments of a correct call, with changes."""
    rng = np.random.default_rng(source)
    n, height, width, channels = shape
    arguments: dict[str, Any] = {
        "images": rng.integers(0, 256, shape, dtype=np.uint8),
        "index": rng.integers(0, n, count),
        "ids": rng.integers(-(2**40), 2**40, count),
        "out": empty_batch(count, channels, *(size or (height, width)), channels_last, kind),
        "mean": rng.random(channels, dtype=np.float32),
        "std": rng.random(channels, dtype=np.float32) + np.float32(0.3),
        "crop_pad": 2,
        "flip": True,
        "seed": 3,
        "epoch": 4,
        "threads": 1,
    }
    return arguments | changes


def expected(arguments: dict[str, Any]) -> NDArray[np.float64]:
    known = {k: v for k, v in arguments.items() if k not in ("out", "threads")}
    return oracle.gather(**known, size=arguments["out"].shape[2:])


def check(arguments: dict[str, Any]) -> None:
    """The batch against the oracle, to the rounding of float32 and of the batch's type."""
    _core.gather(**arguments)
    got, wanted = values(arguments["out"]), expected(arguments)
    step = {4: 0.0, 2: 2.0**-11}[arguments["out"].itemsize]
    if arguments["out"].dtype == np.uint16:
        step = 2.0**-8
    # float32: values are at most 3.4 / 0.3, each of up to eight operations rounds by 2^-24 of that at most
    error = abs(got - wanted) - (3e-6 + step * abs(wanted))
    assert error.size == 0 or error.max() <= 0


SIZES = st.one_of(st.integers(1, 6), st.sampled_from([15, 16, 17, 28, 32, 33, 67]))


@given(
    height=SIZES,
    width=SIZES,
    channels=st.sampled_from([1, 2, 3, 4, 5]),
    count=st.sampled_from([0, 1, 2, 3, 17, 33]),
    crop_pad=st.sampled_from([0, 1, 2, 4, 9]),
    flip=st.booleans(),
    channels_last=st.booleans(),
    kind=st.sampled_from(sorted(TYPES)),
    view=st.sampled_from([0, 1]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_shifted(
    height: int,
    width: int,
    channels: int,
    count: int,
    crop_pad: int,
    flip: bool,
    channels_last: bool,
    kind: str,
    view: int,
    seed: int,
) -> None:
    how = {"crop_pad": crop_pad, "flip": flip, "seed": seed, "epoch": seed % 1000, "view": view}
    check(case((4, height, width, channels), count, seed, channels_last, kind, **how))


@given(
    height=SIZES,
    width=SIZES,
    rows=SIZES,
    columns=SIZES,
    channels=st.sampled_from([1, 2, 3, 4, 5]),
    scale=st.sampled_from([None, (0.08, 1.0), (0.2, 0.2), (1.0, 1.0)]),
    ratio=st.sampled_from([(3 / 4, 4 / 3), (1.0, 1.0), (0.05, 20.0), (9.0, 10.0)]),
    flip=st.booleans(),
    channels_last=st.booleans(),
    kind=st.sampled_from(sorted(TYPES)),
    view=st.sampled_from([0, 1]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=200, deadline=None)
def test_resized(
    height: int,
    width: int,
    rows: int,
    columns: int,
    channels: int,
    scale: tuple[float, float] | None,
    ratio: tuple[float, float],
    flip: bool,
    channels_last: bool,
    kind: str,
    view: int,
    seed: int,
) -> None:
    window = {} if scale is None else {"scale": scale, "ratio": ratio}
    how = {"crop_pad": 0, "flip": flip, "seed": seed, "epoch": seed % 1000, "view": view}
    check(case((3, height, width, channels), 7, seed, channels_last, kind, (rows, columns), **how, **window))


def test_views_are_independent() -> None:
    def looks(view: int, **how: Any) -> NDArray[np.float32]:
        a = case((1, 12, 12, 1), 400, crop_pad=how.pop("crop_pad", 0), view=view, **how)
        _core.gather(**a)
        return a["out"].reshape(400, -1)

    for how in ({"crop_pad": 4}, {"scale": (0.08, 1.0), "ratio": (0.75, 4 / 3)}):
        first, second = looks(0, **how), looks(1, **how)
        same = (first == second).all(axis=1).mean()
        assert same < 0.03  # 1 / 162 by chance
        assert len(np.unique(second, axis=0)) > 100


@pytest.mark.parametrize("how", [{}, {"crop_pad": 0, "scale": (0.1, 1.0), "ratio": (0.5, 2.0)}])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(50, 28, 28, 1), (50, 32, 32, 3), (50, 5, 3, 3), (50, 1, 1, 1)])
def test_threads_do_not_change_a_bit(shape: tuple[int, ...], channels_last: bool, how: dict[str, Any]) -> None:
    results = []
    for threads in (1, 2, 5):
        a = case(shape, 77, channels_last=channels_last, threads=threads, **how)
        _core.gather(**a)
        results.append(a["out"].tobytes())
    assert results[0] == results[1] == results[2]


def test_an_example_looks_the_same_in_any_batch() -> None:
    a = case(count=40)
    _core.gather(**a)
    b = a | {"index": a["index"][30:], "ids": a["ids"][30:], "out": empty_batch(10, 3, 9, 7, True)}
    _core.gather(**b)
    np.testing.assert_array_equal(a["out"][30:], b["out"])


@pytest.mark.parametrize("kind", sorted(TYPES))
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("sides", "how"),
    [
        ((32, 32, 3), {}),
        ((32, 32, 3), {"crop_pad": 0, "scale": (0.1, 1.0), "ratio": (0.5, 2.0)}),
        ((32, 32, 1), {"crop_pad": 4}),
        ((16, 48, 3), {"crop_pad": 50}),  # rows of three vectors; some images all black
        ((24, 16, 5), {"crop_pad": 4}),  # more channels than vectors are made of
        ((64, 80, 1), {"crop_pad": 4, "flip": False}),  # five vectors
        ((32, 32, 4), {"crop_pad": 4}),
        ((28, 28, 3), {"crop_pad": 4}),  # planes of no whole lines
    ],
)
def test_a_batch_larger_than_the_cache_is_that_of_its_parts(
    sides: tuple[int, int, int], how: dict[str, Any], channels_last: bool, kind: str
) -> None:
    """Batches at a multiple of 64 bytes, as those of torch are, are written past the cache if they are large."""
    height, width, channels = sides
    each = height * width * channels * np.dtype(TYPES[kind]).itemsize
    count = (4 << 20) // each + 70
    a = case((6, *sides), count, **how)
    shape = (count, *sides) if channels_last else (count, channels, height, width)
    memory = np.empty(count * each + 64, np.uint8)
    start = -memory.ctypes.data % 64
    whole = memory[start : start + count * each].view(TYPES[kind]).reshape(shape)
    whole = whole.transpose(0, 3, 1, 2) if channels_last else whole
    _core.gather(**a | {"out": whole, "threads": 2})
    for start in range(0, count, 100):
        some = slice(start, min(start + 100, count))
        part = empty_batch(some.stop - start, channels, height, width, channels_last, kind)
        _core.gather(**a | {"index": a["index"][some], "ids": a["ids"][some], "out": part})
        np.testing.assert_array_equal(whole[some], part)


def test_crops_and_flips_are_uniform_and_independent() -> None:
    """The window's offset and the flip are read off an image whose pixels are numbered."""
    count, pad = 81 * 400, 4
    images = np.arange(81, dtype=np.uint8).reshape(1, 9, 9, 1)
    zero, one = np.zeros(1, np.float32), np.full(1, 1 / 255, np.float32)
    seen = []
    for epoch in (0, 1):
        out = empty_batch(count, 1, 9, 9, False)
        ids = np.arange(count, dtype=np.int64)
        _core.gather(images, np.zeros(count, np.int64), ids, out, zero, one, pad, True, 11, epoch, 2)
        pixels = np.rint(out[:, 0]).astype(int)
        flipped = pixels[:, 4, 3] > pixels[:, 4, 5]
        offset = pixels[:, 4, 4]  # of the middle pixel, which a flip leaves where it is
        # right of the last pixel there is black, which is not above its left neighbour
        edge = offset % 9 == 8
        flipped[edge] = pixels[edge, 4, 3] == 0
        edge = offset % 9 == 0
        flipped[edge] = pixels[edge, 4, 5] == 0
        seen.append((offset, flipped))
    for offset, flipped in seen:
        table = np.histogram2d(offset, flipped, bins=[np.arange(82), [0, 0.5, 1]])[0]
        chi2 = ((table - 200) ** 2 / 200).sum()  # 161 degrees of freedom
        assert abs(chi2 - 161) < 5 * np.sqrt(2 * 161)
    joint = np.histogram2d(seen[0][0], seen[1][0], bins=[np.arange(82)] * 2)[0]
    chi2 = ((joint - 400 / 81) ** 2 / (400 / 81)).sum()
    assert abs(chi2 - 6560) < 5 * np.sqrt(2 * 6560)
    assert abs((seen[0][1] == seen[1][1]).mean() - 0.5) < 5 * 0.5 / np.sqrt(count)


def test_no_augmentation_is_plain_normalisation() -> None:
    a = case(crop_pad=0, flip=False)
    _core.gather(**a)
    plain = (a["images"][a["index"]] / 255 - a["mean"]) / a["std"]
    np.testing.assert_allclose(a["out"], plain.transpose(0, 3, 1, 2), atol=2e-6)


def test_reads_a_read_only_memory_map_in_place(tmp_path: Path) -> None:
    """A sparse file of four gigabytes: a copy of the whole would show."""
    count = 2**32 // (32 * 32)
    path = tmp_path / "images.npy"
    written = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, 32, 32, 1))
    written[-1] = 255
    del written
    images = np.load(path, mmap_mode="r")
    out = empty_batch(2, 1, 32, 32, False)
    index = np.array([count - 1, 0])
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    _core.gather(images, index, index, out, zero, one, 0, False, 0, 0, 1)
    assert (out[0] == 1).all()
    assert (out[1] == 0).all()


@pytest.mark.parametrize("how", [{}, {"crop_pad": 0, "scale": (0.1, 1.0), "ratio": (0.5, 2.0)}])
def test_reads_and_writes_nothing_else(how: dict[str, Any]) -> None:
    """Images and batch lie between guards, which stay unchanged."""
    a = case(count=3, **how)
    room = np.full(3 * 9 * 7 * 3 + 64, 7, np.float32)
    a["out"] = room[32:-32].reshape(3, 3, 9, 7)
    before = a["images"].copy()
    _core.gather(**a)
    assert (room[:32] == 7).all()
    assert (room[-32:] == 7).all()
    np.testing.assert_array_equal(a["images"], before)
    np.testing.assert_allclose(a["out"], expected(a), atol=3e-6)


def test_reads_no_byte_beyond_the_data_set() -> None:
    """The images fill their pages; the pages before and after must not be touched."""
    code = """
import ctypes, mmap
import numpy as np
from pydt import _core
page = mmap.PAGESIZE
memory = mmap.mmap(-1, 5 * page)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
libc = ctypes.CDLL(None, use_errno=True)
for guard in (0, 4):
    assert libc.mprotect(ctypes.c_void_p(start + guard * page), ctypes.c_size_t(page), 0) == 0
for height, width, channels in [(32, 32, 3), (8, 8, 1), (1, 1, 1), (4, 1, 3), (16, 16, 4), (2, 64, 3)]:
    each = height * width * channels
    for offset in (page, 4 * page - 3 * page // each * each):
        images = np.frombuffer(memory, np.uint8, 3 * page // each * each, offset).reshape(-1, height, width, channels)
        index = np.array([0, len(images) - 1] * 40)
        for how in ({"crop_pad": 4}, {"crop_pad": 0, "scale": (0.08, 1.0), "ratio": (0.75, 4 / 3)}):
            for shape in ((80, channels, height, width), (80, height, width, channels)):
                out = np.empty(shape, np.float32)
                out = out if shape[1] == channels and shape[3] == width else out.transpose(0, 3, 1, 2)
                one = np.ones(channels, np.float32)
                _core.gather(images, index, np.arange(80), out, one, one, flip=True, seed=1, epoch=2, threads=1, **how)
print("whole")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "whole\n", (done.returncode, done.stderr)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


F32 = np.float32
WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"images": [[0]]}, TypeError, r"^images: must be a numpy array"),
    ({"images": np.zeros((6, 9, 7, 3), F32)}, TypeError, r"^images: must be uint8, not float32"),
    ({"images": np.zeros((6, 9, 7), np.uint8)}, ValueError, r"^images: must have 4 dimensions"),
    ({"images": np.zeros((6, 9, 14, 3), np.uint8)[:, :, ::2]}, ValueError, r"^images: must be C-contiguous"),
    ({"index": np.array([0, 1, 2, 6, 0])}, ValueError, r"^index: position 3 is 6, but there are 6 images"),
    ({"index": np.array([0, 1, -1, 6, 0])}, ValueError, r"^index: position 2 is -1"),
    ({"index": np.zeros(4, np.int64)}, ValueError, r"^index: has 4 entries, not 5"),
    ({"index": np.zeros(5, np.int32)}, TypeError, r"^index: must be int64"),
    ({"ids": np.zeros(6, np.int64)}, ValueError, r"^ids: has 6 entries, not 5"),
    ({"out": np.zeros((5, 9, 7, 3), F32)}, ValueError, r"^out: has the shape \(5, 9, 7, 3\)"),
    ({"out": np.zeros((5, 3, 9, 7))}, TypeError, r"^out: must be float32, float16, or uint16"),
    ({"out": np.zeros((5, 3, 9, 14), F32)[..., ::2]}, ValueError, r"^out: must be dense"),
    ({"out": np.zeros((5, 3, 9, 7), F32)[::-1]}, ValueError, r"^out: must be dense"),
    ({"out": read_only(np.zeros((5, 3, 9, 7), F32))}, ValueError, r"^out: is read-only"),
    ({"mean": np.zeros(1, F32)}, ValueError, r"^mean: has 1 entries, not 3"),
    ({"mean": np.array([0, np.nan, 0], F32)}, ValueError, r"^mean: channel 1 is not finite"),
    ({"std": np.ones(3)}, TypeError, r"^std: must be float32"),
    ({"std": np.array([1, 1, 0], F32)}, ValueError, r"^std: channel 2 must be finite and above 0"),
    ({"crop_pad": -1}, ValueError, r"^crop_pad: -1 is not in"),
    ({"crop_pad": 2**40}, ValueError, r"^crop_pad: "),
    ({"out": np.zeros((5, 3, 8, 7), F32)}, ValueError, r"^crop_pad: must be 0 where images are resized"),
    ({"std": np.full(3, 1e-38, F32)}, ValueError, r"^std: channel 0 is so small"),
    ({"view": 2}, ValueError, r"^view: 2 is not 0 or 1"),
    ({"scale": (0.1, 1.0)}, ValueError, r"^ratio: goes with scale"),
    ({"scale": (0.0, 1.0), "ratio": (1, 1), "crop_pad": 0}, ValueError, r"^scale: "),
    ({"scale": (0.1, 1.1), "ratio": (1, 1), "crop_pad": 0}, ValueError, r"^scale: "),
    ({"scale": (0.1, 1.0), "ratio": (2, 1), "crop_pad": 0}, ValueError, r"^ratio: "),
    ({"scale": (0.1, 1.0), "ratio": (-1, 1), "crop_pad": 0}, ValueError, r"^ratio: "),
    ({"scale": (0.1, np.nan), "ratio": (1, 1), "crop_pad": 0}, ValueError, r"^scale: "),
    ({"seed": -1}, ValueError, r"^seed: "),
    ({"epoch": 2**56}, ValueError, r"^epoch: "),
    ({"threads": 0}, ValueError, r"^threads: 0 is not 1 or more"),
]


@pytest.mark.parametrize(("change", "error", "text"), WRONG)
def test_errors_name_the_argument(change: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        _core.gather(**case(**change))


def test_no_image_to_take_from() -> None:
    empty = case((1, 4, 4, 1), 0, images=np.zeros((0, 4, 4, 1), np.uint8))
    _core.gather(**empty)
    with pytest.raises(ValueError, match=r"^index: position 0 is 0, but there are 0 images"):
        _core.gather(**case((1, 4, 4, 1), 1, images=np.zeros((0, 4, 4, 1), np.uint8)))
