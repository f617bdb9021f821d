"""What estimators are given: rows that were never written, and masks packed in one order of bits or the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydt import Design, StoppingRule, design, influences, lds, prediction_test
from pydt.base import DesignError, EstimateError
from pydt.estimation import best_method

RANDOM = np.random.default_rng(5)
MASKS = np.asarray(design.random(16, 120, alpha=0.25, seed=3))
TRUTH = np.linspace(-1, 1, 16)
OUTPUTS = MASKS @ TRUTH[:, None] + RANDOM.normal(0, 0.05, (120, 12))


# ---- rows that were never written ---------------------------------------------------------------------------------


def allocated() -> tuple[np.ndarray, np.ndarray]:
    """Arrays of which the last 20 rows were never written."""
    masks, outputs = np.zeros((140, 16), np.uint8), np.zeros((140, 12), np.float32)
    masks[:120], outputs[:120] = MASKS, OUTPUTS
    return masks, outputs


ENTRIES: dict[str, Callable[[Any, Any], Any]] = {
    **{m: lambda x, y, m=m: influences(x, y, m) for m in ("difference", "ols", "ridge", "lasso")},  # type: ignore[misc]
    "of one target": lambda x, y: influences(x, y[:, 0], "ols"),
    "of packed masks": lambda x, y: influences(np.packbits(x, 1, "little"), y, "ols", groups=16),
    "of packed masks, big": lambda x, y: influences(np.packbits(x, 1), y, "ols", groups=16, bitorder="big"),
    "NaN flagged": lambda x, y: influences(x, y, "ols", nan="flag"),
    "with clusters": lambda x, y: influences(x, y, "ols", clusters=np.arange(len(x)) // 2),
    "prediction_test": lambda x, y: prediction_test(x, y[:, 0], y[:, 1]),
    "lds": lambda x, y: lds(x, y),
    "lds of a fit": lambda x, y: lds(x, y, np.tile(TRUTH[:, None], 12)),
    "stopping": lambda x, y: StoppingRule.parse("sign 2").look(x, y[:, 0]),
    "Design.explicit": lambda x, y: Design.explicit(x),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_masks_that_were_never_written_are_refused_everywhere(entry: str) -> None:
    masks, outputs = allocated()
    with pytest.raises((EstimateError, DesignError), match=r"row 120.* keeps no group"):
        ENTRIES[entry](masks, outputs)
    ENTRIES[entry](masks[:120], outputs[:120])  # and what was written is taken


def test_how_many_they_are_is_said() -> None:
    masks, outputs = allocated()
    with pytest.raises(
        EstimateError, match=r"row 120 keeps no group and has no output, nor do 19 others.*never written"
    ):
        influences(masks, outputs)
    outputs[120:] = np.nan
    with pytest.raises(EstimateError, match="row 120 keeps no group and has no output"):
        influences(masks, outputs, nan="flag")
    outputs[120:] = RANDOM.normal(size=(20, 12))  # models trained on none of the groups
    assert influences(masks, outputs).models == 140


@pytest.mark.parametrize("what", ["influences", "lds"])
def test_outputs_that_were_never_written_are_refused(what: str, tmp_path: Path) -> None:
    masks, outputs = MASKS, OUTPUTS.astype(np.float32)
    apply: Callable[[Any], Any] = (lambda y: influences(masks, y, "ols")) if what == "influences" else (
        lambda y: lds(masks, y)
    )  # fmt: skip
    missing = outputs.copy()
    missing[[7, 30]] = 0
    with pytest.raises(EstimateError, match=r"outputs of row 7 are exactly 0, and so are 1 others.*never written"):
        apply(missing)
    mapped = np.memmap(tmp_path / "y", np.float32, "w+", shape=outputs.shape)
    mapped[:100] = outputs[:100]
    with pytest.raises(EstimateError, match=r"row 100 .*and so are 19 others"):
        apply(mapped)
    for fine in (
        np.where(RANDOM.random(outputs.shape) < 0.3, 0, missing),  # zeros are among the values
        missing[:, :4],  # few targets: it may be so
        (missing > 0).astype(np.float32),
    ):
        apply(fine)


# ---- bits in either order -----------------------------------------------------------------------------------------


@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.sampled_from(["difference", "ridge"]))
@settings(max_examples=40, deadline=None)
def test_either_order_gives_what_the_masks_give(groups: int, seed: int, method: str) -> None:
    random = np.random.default_rng(seed)
    masks = random.random((60, groups)) < 0.5
    masks[0], masks[1], masks[2] = True, np.arange(groups) == 0, np.arange(groups) > 0
    masks[~masks.any(1), 0] = True
    outputs = random.normal(size=(60, 3))
    expected = influences(masks, outputs, method)
    for order in ("little", "big"):
        packed = np.packbits(masks, axis=1, bitorder=order)  # type: ignore[arg-type]
        found = influences(packed, outputs, method, groups=groups, bitorder=order)
        np.testing.assert_array_equal(found.values, expected.values)
        assert best_method(packed, groups=groups, bitorder=order) == best_method(masks)


def test_a_wrong_order_shows_in_the_padding() -> None:
    masks = MASKS[:, :13]
    masks = masks[masks.any(1)]
    outputs = RANDOM.normal(size=(len(masks), 2))
    with pytest.raises(EstimateError, match=r'bitorder="little".*they fit bitorder="big": pass it'):
        influences(np.packbits(masks, axis=1), outputs, groups=13)
    with pytest.raises(EstimateError, match=r'bitorder="big".*they fit bitorder="little": pass it'):
        influences(np.packbits(masks, axis=1, bitorder="little"), outputs, groups=13, bitorder="big")
    with pytest.raises(EstimateError, match="zero padding"):
        influences(np.full((len(masks), 2), 255, np.uint8), outputs, groups=13)


def test_a_wrong_order_shows_where_the_design_is_known() -> None:
    made = design.random(16, 120, alpha=0.25, seed=3)
    expected = influences(made, OUTPUTS, "ols")
    big, little = np.packbits(MASKS, axis=1), np.packbits(MASKS, axis=1, bitorder="little")
    silent = influences(big, OUTPUTS, "ols", groups=16)
    assert np.abs(silent.values - expected.values).max() > 0.5, "nothing in the masks shows it"
    assert np.array_equal(np.bitwise_count(big).sum(1), np.bitwise_count(little).sum(1)), "not even their size"
    with pytest.raises(EstimateError, match=r'not among the masks of the design.*bitorder="big": pass it'):
        influences(big, OUTPUTS, "ols", groups=made)
    with pytest.raises(EstimateError, match=r'not among the masks of the design.*bitorder="little": pass it'):
        best_method(little, groups=made, bitorder="big")
    for packed, order in ((big, "big"), (little, "little"), (MASKS, "little")):
        found = influences(packed, OUTPUTS, "ols", groups=made, bitorder=order)
        np.testing.assert_array_equal(found.values, expected.values)
        np.testing.assert_allclose(found.stderr, expected.stderr, rtol=1e-6)
    some = influences(big[20:100], OUTPUTS[20:100], "ols", groups=made, bitorder="big")
    np.testing.assert_array_equal(some.values, influences(MASKS[20:100], OUTPUTS[20:100], "ols").values)
    with pytest.raises(EstimateError, match="row 0 is not among the masks of the design"):
        influences(big, OUTPUTS, "ols", groups=design.random(16, 120, alpha=0.25, seed=4))
    with pytest.raises(EstimateError, match="not among the masks of the design"):
        influences(MASKS[:, ::-1], OUTPUTS, "ols", groups=made)


def test_a_wrong_order_shows_where_every_mask_is_in_the_design() -> None:
    made = design.random(8, 200, alpha=0.25, seed=1)
    masks = np.unpackbits(made.packed(), axis=1, count=8, bitorder="little")
    outputs = masks @ np.arange(8.0)
    big, little = np.packbits(masks, axis=1), made.packed()
    assert set(big[:, 0]) == set(little[:, 0])
    for packed, order, other in ((big, "little", "big"), (little, "big", "little")):
        with pytest.raises(EstimateError, match=f'but not as often.*bitorder="{other}": pass it'):
            influences(packed, outputs, "ols", groups=made, bitorder=order)
    expected = influences(masks, outputs, "ols").values
    for packed, order in ((big, "big"), (little, "little")):
        found = influences(np.tile(packed, (2, 1)), np.tile(outputs, 2), "ols", groups=made, bitorder=order)
        np.testing.assert_allclose(found.values, expected, atol=1e-9)


def test_a_known_design_brings_its_strata() -> None:
    made = design.random(16, 120, alpha=0.5, seed=3, strata=[0] * 8 + [1] * 8)
    outputs = RANDOM.normal(size=(120, 2))
    packed = np.packbits(np.asarray(made), axis=1)
    found = influences(packed, outputs, "ols", groups=made, bitorder="big")
    np.testing.assert_array_equal(found.values, influences(made, outputs, "ols").values)


def test_an_order_that_means_nothing_is_refused() -> None:
    with pytest.raises(EstimateError, match="no order of bits"):
        influences(np.packbits(MASKS, axis=1), OUTPUTS, groups=16, bitorder="middle")
    with pytest.raises(EstimateError, match="not packed"):
        influences(MASKS, OUTPUTS, bitorder="big")
