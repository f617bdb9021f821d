"""The accumulator: the same bits however rows came, and the sums that float64 numpy finds."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import oracle_sums
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydt import design
from pydt.accumulate import Accumulator
from pydt.blocks import frame_of
from pydt.errors import EstimateError

BLOCK = 256
DESIGNS = {
    "random": design.random(9, 700, seed=1, placebos=3),  # 126 masks: most of them repeat in several blocks
    "random, wide": design.random(40, 1100, seed=2),
    "bernoulli": design.bernoulli(23, 900, 0.4, seed=3),
    "bernoulli, repeats": design.bernoulli(10, 800, seed=4),
    "foldover": design.foldover(20, 901, seed=5),
    "foldover, full factorial": design.foldover(4, 600, seed=6, placebos=0),
    "explicit": design.Design.explicit(np.random.default_rng(7).random((600, 12)) < 0.5),
    "shorter than a block": design.random(30, 100, seed=8),
}


def outputs_of(plan: design.Design, targets: int = 3, dtype: str = "float32", offset: float = 50.0) -> np.ndarray:
    random = np.random.default_rng(0)
    effects = random.normal(size=(plan.groups, targets))
    return (offset + np.asarray(plan) @ effects + random.normal(size=(len(plan), targets))).astype(dtype)


def bits(accumulator: Accumulator, folder: Path) -> bytes:
    accumulator.save(folder / "file.safetensors")
    return (folder / "file.safetensors").read_bytes()


def filled(plan: design.Design, outputs: np.ndarray, rows: np.ndarray | None = None, skip: tuple = ()) -> Accumulator:
    accumulator = Accumulator(plan)
    if len(skip):
        accumulator.skip(np.asarray(skip))
    rows = np.setdiff1d(np.arange(len(plan)), skip) if rows is None else rows
    accumulator.add(rows, outputs[rows])
    return accumulator


@pytest.mark.parametrize("name", DESIGNS)
def test_sums_are_those_of_all_rows(name: str) -> None:
    plan = DESIGNS[name]
    outputs = outputs_of(plan, 5)
    skip = (3, 255, 256, 511) if len(plan) > 600 else (3,)
    view = filled(plan, outputs, skip=skip).statistics()
    frame, node = frame_of(plan), view.sums()
    masks, moved = np.concatenate([np.asarray(plan), plan.placebos], axis=1), outputs.astype(np.float64) - node.shift
    line = frame.line(view.rows)
    for i in range(frame.lines):
        rows = view.rows[line == i]
        expected = oracle_sums.sums(masks[rows], moved[rows])
        scale = np.abs(moved[rows]).sum(0).max(initial=1.0)
        assert node.tally.rows[i] == expected["rows"]
        np.testing.assert_array_equal(node.tally.count[i], expected["count"])
        np.testing.assert_allclose(node.total[i], expected["total"], rtol=0, atol=1e-12 * scale)
        np.testing.assert_allclose(node.squares[i], expected["squares"], rtol=1e-12)
        np.testing.assert_allclose(node.cross[i], expected["cross"], rtol=0, atol=1e-6 * scale)
        if i < frame.folds:
            real = np.asarray(plan)[rows]
            if frame.scatters:
                np.testing.assert_allclose(
                    node.scatter[0, i], oracle_sums.within(real, moved[rows])[0], rtol=1e-9, atol=1e-9
                )
            if frame.scatters == 2:
                np.testing.assert_allclose(node.scatter[1, i], oracle_sums.pairs(real, moved[rows]), rtol=1e-9)


def test_kinds_of_the_designs_above() -> None:
    kinds = {name: frame_of(plan).units.kind for name, plan in DESIGNS.items()}
    assert set(kinds.values()) == {"single", "repeat", "pair"}
    assert {frame_of(plan).block for plan in DESIGNS.values()} == {BLOCK, 512}
    assert frame_of(DESIGNS["random"]).open_masks > 50
    assert frame_of(DESIGNS["foldover"]).open_masks == 0


@pytest.mark.parametrize("name", ["random", "bernoulli", "foldover", "foldover, full factorial"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_same_bits_however_rows_came(name: str, data: st.DataObject, tmp_path: Path) -> None:
    plan = DESIGNS[name]
    outputs = outputs_of(plan, 2)
    random = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    share = data.draw(st.sampled_from([0.3, 0.9, 1.0]))  # of the rows that are known at all
    known = np.flatnonzero(random.random(len(plan)) < share)
    failed = known[random.random(len(known)) < 0.02]
    arrived = np.setdiff1d(known, failed)
    straight = Accumulator(plan)
    straight.add(arrived, outputs[arrived])
    if len(failed):
        straight.skip(failed)

    parts = [Accumulator(plan) for _ in range(data.draw(st.integers(1, 5)))]
    whose = random.integers(0, len(parts), len(plan))
    if data.draw(st.booleans()):  # each machine has a stretch of the plan
        whose = np.sort(whose)
    for i, part in enumerate(parts):
        mine = random.permutation(known[whose[known] == i])
        for rows in np.array_split(mine, data.draw(st.integers(1, 9))):
            for some, lost in ((rows[~np.isin(rows, failed)], False), (rows[np.isin(rows, failed)], True)):
                if len(some) and lost:
                    part.skip(some)
                elif len(some):
                    part.add(some, outputs[some])
    while len(parts) > 1:  # merge in any tree
        i, j = random.choice(len(parts), 2, replace=False)
        parts[i].merge(parts[j])
        del parts[j]
    assert bits(parts[0], tmp_path) == bits(straight, tmp_path)
    if len(arrived):
        for one, other in zip(*(a.statistics().sums().__dict__.items() for a in (parts[0], straight)), strict=True):
            if isinstance(one[1], np.ndarray):
                assert one[1].tobytes() == other[1].tobytes(), one[0]


def test_one_row_at_a_time_and_threads_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = DESIGNS["random, wide"]
    outputs = outputs_of(plan, 33)
    straight = bits(filled(plan, outputs), tmp_path)
    monkeypatch.setattr("pydt.blocks.threads", lambda: 5)
    single = Accumulator(plan)
    for row in np.random.default_rng(0).permutation(len(plan)):
        single.add(int(row), outputs[row])
    assert bits(single, tmp_path) == straight


def test_merging_leaves_the_other_as_it_was(tmp_path: Path) -> None:
    plan = DESIGNS["bernoulli"]
    outputs = outputs_of(plan)
    rows = np.arange(len(plan))
    one, other = filled(plan, outputs, rows[::2]), filled(plan, outputs, rows[1::2])
    before = bits(other, tmp_path)
    view = one.statistics()
    seen = view.sums().cross.tobytes()
    one.merge(other)
    assert len(one.rows) == 900
    assert bits(other, tmp_path) == before
    assert view.sums().cross.tobytes() == seen, "a view changed after rows came in"


def test_blocks_that_several_skipped(tmp_path: Path) -> None:
    plan = DESIGNS["bernoulli"]
    outputs = outputs_of(plan)
    lost = np.arange(BLOCK)
    one, other = Accumulator(plan), Accumulator(plan)
    one.skip(lost)
    other.skip(lost)
    rest = np.arange(BLOCK, len(plan))
    other.add(rest, outputs[rest])
    straight = bits(other, tmp_path)
    again = Accumulator.load(tmp_path / "file.safetensors")
    again.merge(one)
    one.merge(other)
    assert bits(one, tmp_path) == bits(again, tmp_path) == straight
    np.testing.assert_array_equal(one.skipped, lost)
    assert not len(one.missing)


@pytest.mark.parametrize("name", DESIGNS)
def test_a_file_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    plan = DESIGNS[name]
    outputs = outputs_of(plan, 4, "float16")
    accumulator = Accumulator(plan, slice(1, None, 2))
    rows = np.random.default_rng(0).permutation(len(plan))
    first, last = rows[: len(plan) // 2], rows[len(plan) // 2 : -2]
    accumulator.add(first, outputs[first])
    accumulator.skip(rows[-2:])
    path = tmp_path / "half.safetensors"
    accumulator.save(path)
    loaded = Accumulator.load(path)
    assert loaded.design == plan
    for each in (accumulator, loaded):
        each.add(last, outputs[last])
    assert bits(loaded, tmp_path) == bits(accumulator, tmp_path)
    loaded = Accumulator.load(tmp_path / "file.safetensors")
    assert loaded.statistics().sums().cross.tobytes() == accumulator.statistics().sums().cross.tobytes()
    assert loaded.targets == slice(1, None, 2)
    empty = Accumulator(plan)
    empty.save(path)
    assert not len(Accumulator.load(path).rows)


def test_a_design_with_strata_comes_back_from_its_file(tmp_path: Path) -> None:
    plan = design.random(12, 300, strata=np.repeat(["a", "b", "c"], 4))
    accumulator = filled(plan, outputs_of(plan), np.arange(280))
    first = bits(accumulator, tmp_path)
    loaded = Accumulator.load(tmp_path / "file.safetensors")
    assert loaded.design == plan
    assert bits(loaded, tmp_path) == first


def test_tiles_of_targets_are_columns_of_the_whole() -> None:
    plan = DESIGNS["foldover"]
    outputs = outputs_of(plan, 9)
    whole = filled(plan, outputs).statistics()
    tile = Accumulator(plan, slice(4, 7))
    tile.add(np.arange(len(plan)), outputs)
    for name in ("total", "squares", "cross", "scatter"):
        expected = getattr(whole.sums(), name)[..., 4:7]
        np.testing.assert_array_equal(getattr(tile.statistics().sums(), name), expected)
        np.testing.assert_array_equal(getattr(whole.sums(slice(4, 7)), name), expected)


@pytest.mark.parametrize("name", ["random", "bernoulli", "foldover", "foldover, full factorial"])
def test_a_view_without_some_rows(name: str) -> None:
    plan = DESIGNS[name]
    outputs = outputs_of(plan, 3)
    rows = np.arange(len(plan) - 5)  # the last block is not summed
    view = filled(plan, outputs, rows).statistics()
    gone = np.flatnonzero(np.isin(plan.clusters, plan.clusters[[7, 300, len(rows) - 1]]))
    gone = np.random.default_rng(0).permutation(gone[gone < len(rows)])
    less = view.remove(gone[:1], outputs[gone[:1]]) if len(np.unique(plan.clusters)) == len(plan) else view
    rest = gone[1:] if less is not view else gone
    less = less.remove(rest, outputs[rest])
    direct = filled(plan, outputs, np.setdiff1d(rows, gone)).statistics()
    np.testing.assert_array_equal(less.rows, direct.rows)
    a, b = less.sums(), direct.sums().moved(less.sums().shift)
    np.testing.assert_array_equal(a.tally.rows, b.tally.rows)
    for field in ("total", "squares", "cross", "scatter"):
        one, other = getattr(a, field), getattr(b, field)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.abs(other).max(initial=1))


def test_folds_keep_clusters_whole_and_those_of_a_shorter_plan() -> None:
    for name, plan in DESIGNS.items():
        frame = frame_of(plan)
        for cluster in np.unique(plan.clusters):
            folds = frame.fold[(plan.clusters == cluster) & (frame.fold >= 0)]
            assert len(np.unique(folds)) <= 1, name
        sizes = np.bincount(frame.fold[frame.fold >= 0])
        assert len(sizes) == 5
        assert sizes.max() - sizes.min() <= np.bincount(plan.clusters).max()


def test_memory_is_what_the_formula_says() -> None:
    plan = design.random(60, 512 * 9 + 17, seed=0)
    targets = 64
    outputs = outputs_of(plan, targets)
    accumulator = Accumulator(plan)
    k, b = 68, 9
    formula = 512 * 4 + 8 * (np.log2(b) + 2) * (5 * (k + 4) + 1)
    assert accumulator.bytes_per_target() <= formula
    limit = accumulator.bytes_per_target() * targets
    accumulator.add(np.arange(300), outputs[:300])  # whatever is made once has been made
    tracemalloc.start()
    try:
        most = 0
        for start in range(300, len(plan), 100):
            rows = np.arange(start, min(start + 100, len(plan)))
            accumulator.add(rows, outputs[rows])
            most = max(most, accumulator.nbytes)
        peak = tracemalloc.get_traced_memory()[1] + 512 * targets * 4
    finally:
        tracemalloc.stop()
    assert most <= limit
    assert peak <= 1.2 * limit + (2 << 20), (peak, limit)
    held = sum(a.nbytes for a in accumulator._buffers.values())
    held += sum(getattr(node, n).nbytes for node in accumulator._nodes.values() if node for n in node.ARRAYS)
    assert accumulator.nbytes == held


def test_memory_that_does_not_suffice_is_refused_before_it_is_taken() -> None:
    plan = design.random(60, 512 * 20, seed=0)
    each = Accumulator(plan).bytes_per_target()
    outputs = np.zeros((len(plan), 30), np.float32)
    with pytest.raises(EstimateError, match=r"30 targets take .* hold 12 targets.*slice\(0, 12\)"):
        Accumulator(plan, memory=12 * each).add(0, outputs[0])
    with pytest.raises(EstimateError, match=f"allow at least {each} bytes"):
        Accumulator(plan, memory=100).add(0, outputs[0])
    tiled = Accumulator(plan, slice(0, 12), memory=12 * each)
    tiled.add(np.arange(len(plan)), outputs)  # in plan order, all at once
    assert tiled.nbytes <= 12 * each
    scattered = Accumulator(plan, slice(0, 12), memory=12 * each)
    with pytest.raises(EstimateError, match=r"20 unfinished blocks .* in plan order"):
        scattered.add(np.arange(0, len(plan), 100), outputs[::100])
    assert not len(scattered.rows)
    assert not scattered.nbytes
    whole, half = Accumulator(plan, slice(0, 12), memory=12 * each), Accumulator(plan, slice(0, 12))
    half.add(np.arange(1, len(plan), 2), outputs[1::2])
    with pytest.raises(EstimateError, match="20 unfinished blocks"):
        whole.merge(half)


def test_one_target_numbers_and_tensors() -> None:
    torch = pytest.importorskip("torch")
    plan = DESIGNS["bernoulli"]
    outputs = outputs_of(plan, 1)[:, 0]
    flat, scalars = Accumulator(plan), Accumulator(plan)
    flat.add(np.arange(5), outputs[:5])
    for row in range(5):
        scalars.add(row, outputs[row])
    assert flat.statistics().sums().total.tobytes() == scalars.statistics().sums().total.tobytes()
    wide = Accumulator(plan)
    wide.add(4, torch.zeros(7, dtype=torch.bfloat16))
    wide.add([5, 6], torch.ones(2, 7))
    assert wide.statistics().targets == 7
    with pytest.raises(EstimateError, match=r"float32 of 1 targets, .* those before"):
        wide.add(7, np.float32(3))
