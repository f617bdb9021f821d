"""Random bits and the order of an epoch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import oracle_core as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydt import _core

U64 = st.integers(0, 2**64 - 1)
IDS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40)

# Published with the generator (Random123, kat_vectors): counter, key -> result.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(counter: list[int], key: list[int], result: list[int]) -> None:
    assert oracle.philox4x32_10(counter, key) == result
    ids = np.array([counter[0] | counter[1] << 32], dtype=np.uint64).view(np.int64)
    bits = _core.random_bits(key[0] | key[1] << 32, counter[2] | counter[3] << 32, ids)
    assert bits.dtype == np.uint64
    assert int(bits[0]) == result[0] | result[1] << 32


@given(seed=U64, stream=U64, ids=IDS)
@settings(max_examples=50, deadline=None)
def test_random_bits(seed: int, stream: int, ids: list[int]) -> None:
    array = np.array(ids, dtype=np.int64)
    np.testing.assert_array_equal(_core.random_bits(seed, stream, array), oracle.random_bits(seed, stream, array))


@given(seed=U64, epoch=st.integers(0, 2**56 - 1), ids=IDS)
@settings(max_examples=50, deadline=None)
def test_epoch_order(seed: int, epoch: int, ids: list[int]) -> None:
    array = np.array(ids + ids[:3], dtype=np.int64)  # the first ones twice: equal keys
    np.testing.assert_array_equal(_core.epoch_order(seed, epoch, array), oracle.epoch_order(seed, epoch, array))


@pytest.mark.parametrize("count", [1000, 1023, 1024, 5000, 300_000])
def test_order_of_many_ids(count: int) -> None:
    ids = np.random.default_rng(count).integers(-(2**62), 2**62, count)
    np.testing.assert_array_equal(_core.epoch_order(5, 6, ids), np.argsort(_core.random_bits(5, 6 << 8 | 1, ids)))


def test_order_of_one_id_many_times_is_that_of_positions() -> None:
    np.testing.assert_array_equal(_core.epoch_order(5, 6, np.full(200_000, 77)), np.arange(200_000))


def test_order_of_two_examples_does_not_depend_on_the_mask() -> None:
    ids = np.arange(5000, dtype=np.int64)
    kept = ids[np.random.default_rng(0).random(len(ids)) < 0.3]
    everything = ids[_core.epoch_order(1, 2, ids)]
    np.testing.assert_array_equal(kept[_core.epoch_order(1, 2, kept)], everything[np.isin(everything, kept)])
    assert not np.array_equal(_core.epoch_order(1, 3, ids), _core.epoch_order(1, 2, ids))
    np.testing.assert_array_equal(np.sort(_core.epoch_order(1, 2, ids)), ids)


def test_bits_are_balanced_and_independent() -> None:
    """Each bit is set in half of 20,000 draws, and draws of neighbouring ids, streams and seeds differ in half of their
    bits (both within 5 standard deviations)."""
    ids = np.arange(20000, dtype=np.int64)
    first = _core.random_bits(5, 6, ids)
    others = [_core.random_bits(5, 6, ids + 1), _core.random_bits(5, 7, ids), _core.random_bits(6, 6, ids)]
    for bits in [first, *(first ^ other for other in others)]:
        ones = np.unpackbits(bits.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=0, dtype=np.int64)
        assert np.abs(ones - 10000).max() < 5 * np.sqrt(20000) / 2


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda ids: _core.random_bits(-1, 0, ids), ValueError, r"^seed: must be in 0"),
        (lambda ids: _core.random_bits(2**64, 0, ids), ValueError, r"^seed: must be in 0"),
        (lambda ids: _core.random_bits(1.5, 0, ids), TypeError, r"^seed: must be an integer"),
        (lambda ids: _core.random_bits(0, -1, ids), ValueError, r"^stream: "),
        (lambda ids: _core.random_bits(0, 0, [1, 2]), TypeError, r"^ids: must be a numpy array"),
        (lambda ids: _core.random_bits(0, 0, ids.astype(np.int32)), TypeError, r"^ids: must be int64, not int32"),
        (lambda ids: _core.random_bits(0, 0, ids.astype(">i8")), TypeError, r"^ids: must be int64, not >i8"),
        (lambda ids: _core.random_bits(0, 0, ids[::2]), ValueError, r"^ids: must be C-contiguous"),
        (lambda ids: _core.random_bits(0, 0, ids[:, None]), ValueError, r"^ids: must have 1 dimensions.*\(10, 1\)"),
        (lambda ids: _core.epoch_order(0, 2**56, ids), ValueError, r"^epoch: must be below 2\*\*56"),
    ],
)
def test_errors(call: Callable[..., object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(np.arange(10, dtype=np.int64))
