"""Designs: what every mask keeps, that rows never change, that foldover is orthogonal, and what is refused."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydt import Design, _core, design
from pydt.design import find_clusters
from pydt.errors import DesignError

seeds = st.integers(0, 2**62)
KINDS = ("random", "bernoulli", "foldover")


def draw(kind: str, groups: int, models: int, seed: int = 0, **more: int) -> Design:
    alpha = {} if kind == "foldover" else {"alpha": 0.5}
    return getattr(design, kind)(groups, models, seed=seed, **alpha, **more)


@given(groups=st.integers(2, 70), models=st.integers(1, 60), alpha=st.floats(0.05, 0.95), seed=seeds)
@settings(max_examples=30, deadline=None)
def test_random_keeps_exactly_its_share(groups: int, models: int, alpha: float, seed: int) -> None:
    size = round(alpha * groups)
    if size in (0, groups):
        with pytest.raises(DesignError, match="alpha"):
            design.random(groups, models, alpha, seed)
        return
    masks = np.asarray(design.random(groups, models, alpha, seed))
    assert masks.shape == (models, groups)
    assert masks.dtype == bool
    assert np.all(masks.sum(1) == size)


@given(
    kind=st.sampled_from(KINDS),
    groups=st.integers(3, 40),
    models=st.integers(1, 150),
    more=st.integers(0, 150),
    seed=seeds,
)
@settings(max_examples=30, deadline=None)
def test_rows_never_change_and_are_never_empty(kind: str, groups: int, models: int, more: int, seed: int) -> None:
    small = draw(kind, groups, models, seed)
    large = small.extend(models + more)
    assert len(large) == models + more
    np.testing.assert_array_equal(np.asarray(large)[:models], np.asarray(small))
    np.testing.assert_array_equal(large.placebos[:models], small.placebos)
    np.testing.assert_array_equal(np.asarray(draw(kind, groups, models, seed, placebos=3)), np.asarray(small))
    assert np.asarray(large).any(1).all()
    again = Design.from_dict(json.loads(json.dumps(large.to_dict())))
    assert again == large
    assert again.digest == large.digest
    np.testing.assert_array_equal(np.asarray(again), np.asarray(large))
    np.testing.assert_array_equal(again.packed(), _core.pack(np.asarray(large)))


@given(groups=st.integers(3, 40), seed=seeds)
@settings(max_examples=40, deadline=None)
def test_whole_foldover_blocks_are_balanced_and_orthogonal(groups: int, seed: int) -> None:
    pairs = 2 ** (groups - 1) - 1 if groups <= 5 else 2 ** groups.bit_length()
    masks = np.asarray(design.foldover(groups, 4 * pairs, seed))
    np.testing.assert_array_equal(masks[0::2], ~masks[1::2])
    for block in (masks[: 2 * pairs], masks[2 * pairs :]):
        assert np.all(block.sum(0) == pairs)
        signs = 2.0 * block - 1
        gram = signs.T @ signs / 2
        # without the empty and the full mask every pair of groups agrees once less than it differs
        off = -1 if groups <= 5 else 0
        np.testing.assert_array_equal(gram, np.where(np.eye(groups, dtype=bool), pairs, off))
    if groups <= 5:
        assert len(np.unique(masks[: 2 * pairs], axis=0)) == 2**groups - 2


def test_foldover_blocks_differ_and_odd_lengths_end_with_half_a_pair() -> None:
    masks = np.asarray(design.foldover(20, 129, seed=1))
    first, second = masks[:64], masks[64:128]
    assert not np.array_equal(first, second)
    assert len(np.unique(masks[:, :].sum(1))) > 3, "signs and columns are random, so sizes vary"
    assert np.bincount(design.foldover(20, 129, seed=1).clusters).min() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_group_is_kept_as_often_as_it_should(kind: str) -> None:
    groups, models = 24, 4096
    made = design.foldover(groups, models, 3) if kind == "foldover" else getattr(design, kind)(groups, models, 0.25, 3)
    alpha = 0.5 if kind == "foldover" else 0.25
    sd = np.sqrt(alpha * (1 - alpha) / models)
    assert np.abs(np.asarray(made).mean(0) - alpha).max() < 4.5 * sd
    assert np.abs(made.placebos.mean(0) - alpha).max() < 4.5 * sd
    together = np.asarray(made).astype(float)
    correlation = np.corrcoef(np.concatenate([together, made.placebos], axis=1).T) - np.eye(groups + 8)
    expected = np.zeros_like(correlation)
    if kind == "random":
        expected[:groups, :groups] = expected[groups:, groups:] = -1 / (groups - 1)
        np.fill_diagonal(expected, 0)
    assert np.abs(correlation - expected).max() < 5 / np.sqrt(models / (2 if kind == "foldover" else 1))


def test_seeds_and_kinds_differ() -> None:
    made = [draw(kind, 30, 20, seed) for kind in KINDS for seed in (0, 1)]
    assert len({d.digest for d in made}) == len(made)
    assert len({np.asarray(d).tobytes() for d in made}) == len(made)
    assert not np.array_equal(np.asarray(draw("random", 30, 20))[:, :8], draw("random", 30, 20).placebos)


def test_masks_of_one_design_stay_what_they_are() -> None:
    """Rows are named by their masks in stores: another mask for the same seed would orphan them."""
    assert np.packbits(np.asarray(design.random(16, 2, 0.25, seed=7))).tolist() == [3, 10, 82, 32]
    assert np.packbits(np.asarray(design.bernoulli(16, 2, 0.25, seed=7))).tolist() == [3, 8, 83, 37]
    assert np.packbits(np.asarray(design.foldover(16, 2, seed=7))).tolist() == [0, 246, 255, 9]


@pytest.mark.parametrize(
    ("made", "masks", "placebos"),
    [
        (design.random(37, 300, 0.25, 7), "27af7ed3f22b8649", "4b7fefbbfad7a52d"),
        (design.random(1000, 64, 0.5, 3), "12d9341048dd2697", "6f4767deaddfd287"),
        (design.bernoulli(37, 300, 0.25, 7), "a7dfc3fecaa7ed8b", "710d0a3b2cbc768d"),
        (design.bernoulli(1000, 64, 0.5, 3), "54c924d6ea8bae7b", "f922c95dabafdcb2"),
        (design.foldover(37, 300, 7), "92da3f2d45f1742e", "c0e20e8e6e021733"),
        (design.foldover(5, 64, 3), "3eaf4afbe80e513d", "b41565c0bc8bb14e"),
    ],
    ids=lambda value: f"{value.kind} {value.groups}" if isinstance(value, Design) else "",
)
def test_a_description_means_the_same_bits_for_ever(made: Design, masks: str, placebos: str) -> None:
    """Golden: stores keep designs as arguments. If this fails the drawing changed: undo it, or add another kind."""
    again = Design.from_dict(json.loads(json.dumps(made.to_dict())))
    found = (hashlib.sha256(bits.tobytes()).hexdigest()[:16] for bits in (again.packed(), again.placebos))
    assert tuple(found) == (masks, placebos)


@given(
    kind=st.sampled_from((*KINDS, "explicit")),
    groups=st.integers(3, 20),
    models=st.integers(2, 90),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_some_rows_of_a_design(kind: str, groups: int, models: int, data: st.DataObject) -> None:
    whole = draw("bernoulli" if kind == "explicit" else kind, groups, models, 5)
    whole = Design.explicit(np.asarray(whole)) if kind == "explicit" else whole
    rows = np.array(data.draw(st.lists(st.integers(0, models - 1), min_size=1, unique=True)))
    part = whole.take(rows)
    assert (part.kind, part.groups, len(part), part.seed) == (whole.kind, groups, len(rows), whole.seed)
    assert kind == "explicit" or (part.alpha, part.estimand) == (whole.alpha, whole.estimand)
    np.testing.assert_array_equal(np.asarray(part), np.asarray(whole)[rows])
    np.testing.assert_array_equal(part.placebos, whole.placebos[rows])
    together = whole.clusters[rows]
    np.testing.assert_array_equal(part.clusters[:, None] == part.clusters, together[:, None] == together)
    again = Design.from_dict(json.loads(json.dumps(part.to_dict())))
    assert again == part
    np.testing.assert_array_equal(np.asarray(again), np.asarray(part))
    np.testing.assert_array_equal(again.placebos, part.placebos)
    np.testing.assert_array_equal(np.asarray(part.take([len(rows) - 1])), np.asarray(whole)[rows[-1:]])
    assert whole.take(np.arange(models)) == whole
    if kind != "explicit":
        assert whole.take(np.arange(len(rows))) == draw(kind, groups, len(rows), 5)
        assert (part == draw(kind, groups, len(rows), 5)) == np.array_equal(rows, np.arange(len(rows)))


def test_indexing_and_attributes() -> None:
    made = design.random(10, 6, 0.3, seed=4)
    masks = np.asarray(made)
    assert (made.kind, made.groups, made.models, made.alpha, made.seed, len(made)) == ("random", 10, 6, 0.3, 4, 6)
    assert (made.estimand, design.bernoulli(10, 6).estimand, design.foldover(10, 6).estimand) == ("swap", "add", "add")
    np.testing.assert_array_equal(made[2], masks[2])
    np.testing.assert_array_equal(made[-1], masks[-1])
    np.testing.assert_array_equal(made[1:4], masks[1:4])
    np.testing.assert_array_equal(np.stack(list(made)), masks)
    np.testing.assert_array_equal(np.asarray(made, dtype=np.float32), masks.astype(np.float32))
    assert made.placebos.shape == (6, 8)
    assert design.random(10, 6, 0.3, placebos=0).placebos.shape == (6, 0)
    with pytest.raises(IndexError):
        made[6]
    with pytest.raises(ValueError, match="read-only"):
        made.packed()[0] = 0
    with pytest.raises(AttributeError):
        made.alpha = 0.5  # type: ignore[misc]


@given(groups=st.integers(1, 20), models=st.integers(1, 40), seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_clusters_are_equal_or_complementary_masks(groups: int, models: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    few = rng.random((4, groups)) < 0.5
    masks = few[rng.integers(0, 4, models)] ^ (rng.random((models, 1)) < 0.5)
    found = find_clusters(_core.pack(np.ascontiguousarray(masks)), groups)
    same = (masks[:, None] == masks[None]).all(2) | (masks[:, None] != masks[None]).all(2)
    np.testing.assert_array_equal(found[:, None] == found[None], same)
    assert list(dict.fromkeys(found.tolist())) == list(range(found.max() + 1))


def test_explicit_masks() -> None:
    masks = [[1, 0, 1], [0, 1, 0], [1, 1, 0]]
    made = Design.explicit(masks)
    np.testing.assert_array_equal(np.asarray(made), np.array(masks, bool))
    assert (made.kind, made.estimand, made.clusters.tolist()) == ("explicit", "add", [0, 0, 1])
    assert Design.explicit([[1, 0], [0, 1]]).estimand == "swap"
    assert Design.from_dict(made.to_dict()) == made != Design.explicit(masks[:2])
    assert made.placebos.shape == (3, 0)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: design.random(10, 5, 0.01), "alpha.*no group"),
        (lambda: design.random(10, 5, 0.99), "alpha.*all groups"),
        (lambda: design.random(1, 5, 0.5), "alpha"),
        (lambda: design.random(10, 5, 1.5), "alpha.*1.5"),
        (lambda: design.random(10, 5, float("nan")), "alpha"),
        (lambda: design.random(10, 5, "half"), "alpha.*half"),  # type: ignore[arg-type]
        (lambda: design.random(0, 5), "groups.*0"),
        (lambda: design.random(10, 0), "models.*0"),
        (lambda: design.random(10, 2.5), "models.*2.5"),  # type: ignore[arg-type]
        (lambda: design.random(10, 5, seed=-1), "seed.*-1"),
        (lambda: design.random(10, 5, placebos=-1), "placebos"),
        (lambda: design.bernoulli(10, 5, 0.01), "alpha.*empty"),
        (lambda: design.foldover(10, 5, alpha=0.25), "alpha.*0.25"),
        (lambda: design.foldover(2, 5), "groups.*2"),
        (lambda: design.random(10, 5).extend(4), "models.*4"),
        (lambda: Design.explicit([[1, 0]]).extend(4), "extend"),
        (lambda: Design.explicit([[1, 0], [0, 0]]), "row 1 keeps no group"),
        (lambda: Design.explicit([[1, 2]]), "row 0, group 1"),
        (lambda: Design.explicit([1, 0]), "shape"),
        (lambda: Design.explicit([[1, 0], [0]]), "masks.*one length"),
        (lambda: design.random(10, 5, seed=True), "seed.*True"),
        (lambda: design.random(10, 5).take([5]), "rows.*row 5 of 5"),
        (lambda: design.random(10, 5).take([-1]), "rows.*row -1 of 5"),
        (lambda: design.random(10, 5).take([1, 3, 1]), "row 1 is there twice"),
        (lambda: design.random(10, 5).take([]), "rows.*shape"),
        (lambda: design.random(10, 5).take([[1]]), "rows.*shape"),
        (lambda: design.random(10, 5).take([[1], [1, 2]]), "rows.*one length"),
        (lambda: design.random(10, 5).take(np.ones(5, bool)), "rows.*bool.*flatnonzero"),
        (lambda: design.random(10, 5).take([0, 2]).extend(9), "extend.*take"),
        (lambda: Design.from_dict({**design.random(10, 5).to_dict(), "rows": []}), "from_dict"),
        (lambda: Design.from_dict({"kind": "random"}), "from_dict"),
        (
            lambda: Design.from_dict({"kind": "odd", "groups": 4, "models": 4, "alpha": 0.5, "seed": 0, "placebos": 8}),
            "odd",
        ),
    ],
)
def test_what_cannot_be_drawn_is_named(make: object, names: str) -> None:
    with pytest.raises(DesignError, match=names):
        make()  # type: ignore[operator]
