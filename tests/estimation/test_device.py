"""Regression on tensors: the code of a GPU, run on CPU tensors, against the oracles and against the host."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import oracle_estimate as oracle
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pydt import Design, design, influences
from pydt.base import EstimateError
from pydt.estimation import influence as estimate
from pydt.estimation import torch_backend
from pydt.estimation.backend import HOST, Host
from pydt.estimation.device import place
from pydt.estimation.inputs import read, read_masks
from pydt.estimation.sufficient_statistics import Statistics
from pydt.estimation.torch_backend import ROWS, TorchBackend

OnTensors = Callable[..., TorchBackend]
DTYPES = (torch.float64, torch.float32)
NAMES = (
    *("values", "unbiased", "stderr", "df", "noise", "explained", "penalty", "training_noise", "mask_noise"),
    *("placebo_values", "placebo_stderr", "placebo_df"),
)
HALF, THIRD = design.bernoulli(12, 90, 0.5, seed=1), design.bernoulli(12, 150, 0.3, seed=1)
TRIPLES = {"clusters": np.arange(150) // 3}


@pytest.fixture
def on_tensors(monkeypatch: pytest.MonkeyPatch) -> OnTensors:
    """From the call on, `influences` computes on CPU tensors as on those of a GPU."""

    def turn(dtype: torch.dtype = torch.float64, memory: int | None = None) -> TorchBackend:
        backend = TorchBackend(torch.device("cpu"), dtype, memory)
        monkeypatch.setattr(estimate, "place", lambda device, outputs: HOST if device == "cpu" else backend)
        return backend

    return turn


def outputs_of(masks: Any, targets: int, r2: float = 0.5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.asarray(masks).astype(float)
    truth = rng.standard_normal((x.shape[1], targets)) * (rng.random((x.shape[1], targets)) < 0.2)
    truth[0] += 1
    truth *= np.sqrt(r2) / (x @ truth).std(0)
    return x @ truth + np.sqrt(1 - r2) * rng.standard_normal((len(x), targets)) + 3


def alike(found: Any, expected: Any, near: float, share: float = 0.9) -> None:
    """Two fits, to `near` of the largest number of each kind; NaN at the same places. Of penalties that judge nearly
    alike, rounding may choose another one for all but `share` of the targets."""
    same: Any = ...
    if expected.penalty is not None and np.ndim(expected.penalty):
        same = ~(np.abs(found.penalty / expected.penalty - 1) > 1e-3)
        assert same.mean() >= share
    for name in NAMES:
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None), name
        if other is None or np.isnan(other).all():
            continue
        assert (one.dtype, one.shape) == (other.dtype, other.shape), name
        one, other = (np.asarray(array)[..., same] if same is not ... else array for array in (one, other))
        scale = np.abs(other[np.isfinite(other)]).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=near * scale, err_msg=name)
    assert found.errors == expected.errors


def test_nothing_of_the_host_is_left_over() -> None:
    assert not [name for name, what in vars(Host).items() if callable(what) and name not in vars(TorchBackend)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_errors_are_those_of_the_oracles(on_tensors: OnTensors, dtype: torch.dtype) -> None:
    """To the bounds that the host is held to."""
    on_tensors(dtype)
    masks, y = np.asarray(HALF), outputs_of(HALF, 70)

    def close(found: Any, expected: Any) -> None:
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)

    fit = influences(HALF, y)
    close(fit.values, oracle.difference(masks, y))
    close(fit.stderr, oracle.difference_errors(masks, y))
    fit = influences(HALF, y, "ols")
    values, errors, df = oracle.ols(masks, y)
    close(fit.values, values)
    close(fit.stderr, errors)
    assert np.all(fit.df == df)
    fit = influences(HALF, y, "ridge")
    close(fit.values, oracle.ridge(masks, y, fit.penalty))
    close(fit.stderr, oracle.ridge_errors(masks, y, fit.penalty)[0])

    masks, y = np.asarray(THIRD), outputs_of(THIRD, 7)
    x, z, _, _ = oracle.as_units(masks, y)
    fit = influences(THIRD, y, "ols", errors="robust")
    errors, degrees = oracle.hc2(x, z, 1)
    close(fit.stderr, errors)
    close(fit.df[:, 0], degrees)
    close(influences(masks, y, "ols", **TRIPLES).stderr, oracle.sandwich(
        np.linalg.pinv(masks - masks.mean(0)), y - y.mean(0) - (masks - masks.mean(0)) @ oracle.ols(masks, y)[0],
        TRIPLES["clusters"], 13,
    ))  # fmt: skip
    pairs = design.foldover(24, 80, seed=1)
    close(influences(pairs, y[:80], "ols").stderr, oracle.half_differences(np.asarray(pairs), y[:80])[1])


@pytest.mark.parametrize(
    ("made", "l1_ratio", "dtype"),
    [
        (design.bernoulli(20, 80, 0.5, seed=2), 1.0, torch.float64),
        (design.bernoulli(20, 80, 0.5, seed=2), 0.5, torch.float32),
        pytest.param(design.random(60, 40, 0.3, seed=2), 1.0, torch.float32, marks=pytest.mark.slow),
        pytest.param(design.random(60, 40, 0.3, seed=2), 0.5, torch.float64, marks=pytest.mark.slow),
    ],
    ids=["lasso", "net", "lasso, m < K", "net, m < K"],
)
def test_the_penalised_fits_are_optimal_and_unbiased_as_defined(
    on_tensors: OnTensors, made: Design, l1_ratio: float, dtype: torch.dtype
) -> None:
    on_tensors(dtype)
    masks, y = np.asarray(made), outputs_of(made, 4, 0.7)
    fit = influences(made, y, "lasso", l1_ratio=l1_ratio, errors="classical")
    assert fit.converged.all()
    miss = oracle.elastic_net_violation(masks, y, fit.penalty, l1_ratio, fit.values.astype(np.float64))
    assert miss.max() < 0.02
    values, errors = oracle.debiased_lasso(masks, y, fit.penalty, read_masks(masks).folds(5), l1_ratio)
    np.testing.assert_allclose(fit.unbiased, values, atol=0.02 * errors.max())
    np.testing.assert_allclose(fit.stderr, errors, rtol=5e-3)


SPECIAL: dict[str, tuple[Any, dict[str, Any]]] = {
    "robust": (THIRD, {}),
    "clusters": (np.asarray(THIRD), TRIPLES),
    "half a pair": (design.foldover(12, 91, seed=1), {}),
    "repeated pairs": (np.repeat(np.asarray(design.foldover(6, 60, seed=2)), 2, axis=0), {}),
    "repeats": (np.repeat(np.asarray(design.random(12, 40, 0.25, seed=2)), 1 + np.arange(40) % 3, axis=0), {}),
    "few models": (design.random(60, 40, 0.3, seed=2), {}),
    "strata": (design.random(20, 120, 0.4, seed=4, strata=np.arange(20) % 4), {}),
    "many rows": (design.bernoulli(9, 2 * ROWS + 77, 0.3, seed=1), {}),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", SPECIAL)
def test_every_kind_of_masks_is_as_on_the_host(on_tensors: OnTensors, kind: str, dtype: torch.dtype) -> None:
    """Broken and constant targets among them, in tiles of 64 of 150 targets, from the host's memory."""
    made, more = SPECIAL[kind]
    y = outputs_of(made, 150)
    y[3, 5], y[0, 70], y[:, 7] = np.nan, np.inf, 2.5
    on_tensors(dtype, 6_000_000)
    for method in ("difference", "ols", "ridge"):
        # Ridge that fits nearly everything leaves the rounding of float32, on the host, too.
        if kind == "few models" and (method == "ols" or (method == "ridge" and dtype == torch.float32)):
            continue
        for how in ({}, {"cv": 3}) if method == "ridge" else ({},):
            expected = influences(made, y, method, nan="flag", device="cpu", **more, **how)
            found = influences(made, y, method, nan="flag", **more, **how)
            alike(found, expected, 1e-6 if dtype == torch.float64 else 5e-5)
            assert np.isnan(found.values[:, [5, 70]]).all()
            assert np.isnan(found.stderr[:, 7]).all()


@pytest.mark.parametrize("kind", ["robust", "clusters", "half a pair", "repeats"])
def test_the_lasso_of_every_kind_of_masks_is_as_on_the_host(on_tensors: OnTensors, kind: str) -> None:
    made, more = SPECIAL[kind]
    y = outputs_of(made, 6, 0.8)
    on_tensors()
    fit = influences(made, y, "lasso", **more)
    assert fit.converged.all()
    alike(fit, influences(made, y, "lasso", device="cpu", **more), 0.02, 0.5)


def test_outputs_of_every_form_are_read_where_they_are(on_tensors: OnTensors, tmp_path: Path) -> None:
    backend = on_tensors()
    y = outputs_of(HALF, 30).astype(np.float32)
    expected = influences(HALF, y, "ols", device="cpu")
    mapped = np.lib.format.open_memmap(tmp_path / "y.npy", "w+", np.float32, y.shape)
    mapped[:] = y
    there = torch.from_numpy(y)
    wide = torch.zeros(90, 61)
    wide[:, 1::2] = there
    for form in (y, np.asfortranarray(y), y[:, ::-1][:, ::-1], mapped, there, there.T.contiguous().T, wide[:, 1::2]):
        alike(influences(HALF, form, "ols"), expected, 2e-6)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        alike(influences(HALF, there.to(dtype), "ols"), influences(HALF, there.to(dtype).double(), "ols"), 1e-6)
    alike(influences(HALF, there[:, 3], "ols"), influences(HALF, y[:, 3], "ols", device="cpu"), 2e-6)
    assert influences(HALF, there[:, 3:4].requires_grad_(), "ols").values.shape == (12, 1)
    ((_, read, _),) = backend.tiles(wide[:, 1::2], np.zeros(30), 12, 0, 1)
    assert read.data_ptr() == wide[:, 1::2].data_ptr()
    for wrong, what in ((there[:, :0], "shape"), (there.to(torch.complex64), "dtype"), (there[None], "shape")):
        with pytest.raises(EstimateError, match=f"outputs: {what}"):
            influences(HALF, wrong)


def test_broken_targets_are_zeros_in_rows_and_sums(on_tensors: OnTensors) -> None:
    y = outputs_of(HALF, 3)
    y[3, 1] = np.nan
    backend = on_tensors()
    (tile,) = Statistics(read(HALF, y, nan="flag"), backend=backend).tiles(4)
    rows = tile.outputs(np.array([5, 3])).numpy()
    np.testing.assert_allclose(rows, np.where([False, True, False], 0, y[[5, 3]] - y[0]))
    for sums in (tile.plain, tile.units, *tile.folds[4]):
        assert not sums.cross[:, 1].any()


def test_broken_outputs_are_named_as_on_the_host(on_tensors: OnTensors) -> None:
    y = outputs_of(HALF, 300)
    y[5, 3], y[0, 170], y[-1, 299] = np.nan, np.inf, np.nan
    on_tensors(memory=3_500_000)
    for outputs in (y, torch.from_numpy(y)):
        with pytest.raises(EstimateError, match=r"row 5, target 3: the output is nan \(3 such targets\)"):
            influences(HALF, outputs)
    written = np.ones_like(y)
    written[:, :] = outputs_of(HALF, 300)
    written[4] = 0
    with pytest.raises(EstimateError, match="all outputs of row 4 are exactly 0"):
        influences(HALF, torch.from_numpy(written))


def test_contrasts_follow_a_fit_on_the_device(on_tensors: OnTensors) -> None:
    y = outputs_of(THIRD, 9)
    weights = np.zeros((2, 12))
    weights[0, :2], weights[1, 3:6] = (1, -1), 1 / 3
    on_tensors()
    for outputs in (y, torch.from_numpy(y)):
        for method in ("difference", "ols"):
            expected = influences(THIRD, y, method, device="cpu").contrast(weights)
            for one, other in zip(influences(THIRD, outputs, method).contrast(weights), expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_verdicts_are_those_of_the_host(on_tensors: OnTensors) -> None:
    made = design.random(62, 600, 0.5, seed=3)
    y = outputs_of(made, 200, 0.3).astype(np.float32)
    for dtype in DTYPES:
        on_tensors(dtype)
        for method in ("difference", "ols"):
            one, other = influences(made, y, method), influences(made, y, method, device="cpu")
            np.testing.assert_array_equal(one.q < 0.05, other.q < 0.05)
            assert 100 < (one.q < 0.05).sum() < one.q.size / 2
            sure = np.abs(other.values) > 1e-4 * other.stderr
            np.testing.assert_array_equal(np.sign(one.values)[sure], np.sign(other.values)[sure])
            assert (np.abs(one.values - other.values) <= 1e-4 * other.stderr).all()


# ---- precision -----------------------------------------------------------------------------------------------------


def test_sums_in_float32_keep_their_bound_far_from_zero(on_tensors: OnTensors) -> None:
    """Of outputs at 1e4: their shift is taken off before they are rounded."""
    made = design.bernoulli(20, 1500, 0.5, seed=1, placebos=0)
    masks = np.asarray(made)
    y = (outputs_of(made, 50) + 1e4).astype(np.float32)
    shift = y[0].astype(np.float64)
    backend = on_tensors(torch.float32)
    codes = backend.codes(made.packed(), 20)
    total, squares, cross, _ = backend.sums(codes, torch.from_numpy(y), shift, None, False)
    less = y - shift
    bound = (ROWS + 2) * 2.0**-24 * (masks.T @ np.abs(less))
    off = np.abs(cross.numpy() - masks.T @ less)
    assert np.all(off <= bound)
    assert off.mean() < bound.mean() / 20
    np.testing.assert_allclose(total, less.sum(0), rtol=1e-12)
    np.testing.assert_allclose(squares, (less**2).sum(0), rtol=1e-12)
    alike(influences(made, y, "ols"), influences(made, y.astype(np.float64), "ols", device="cpu"), 1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_of_any_scale(on_tensors: OnTensors, dtype: torch.dtype) -> None:
    y = outputs_of(THIRD, 3)
    on_tensors(dtype)
    for method in ("difference", "ols"):
        base = influences(THIRD, y, method, device="cpu")
        for scale in (1e-30, 1e-10, 1e10, 1e30):
            fit = influences(THIRD, (y * scale).astype(np.float32), method)
            for name in ("values", "stderr"):
                np.testing.assert_allclose(getattr(fit, name) / scale, getattr(base, name), rtol=2e-4, atol=1e-5)


class Products(TorchDispatchMode):
    """What the products of matrices were set to."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm_):
            self.seen.add(torch.backends.cuda.matmul.fp32_precision)
        return func(*args, **(kwargs or {}))


def test_products_are_never_in_tf32(on_tensors: OnTensors) -> None:
    on_tensors(torch.float32)
    settings, y = torch.backends.cuda.matmul, outputs_of(THIRD, 3)
    before = settings.fp32_precision
    try:
        settings.fp32_precision = "tf32"
        with Products() as products:
            influences(THIRD, y, "ols").contrast(np.r_[1, -1, np.zeros(10)])
        assert products.seen == {"ieee"}
        y[0] = np.nan
        with pytest.raises(EstimateError, match="the output is nan"):
            influences(THIRD, y, "ols")
        assert settings.fp32_precision == "tf32"
    finally:
        settings.fp32_precision = before


# ---- memory --------------------------------------------------------------------------------------------------------


class Live(TorchDispatchMode):
    """Bytes of all tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, torch.Tensor) and (key := one.untyped_storage()._cdata) not in self.held:
                self.held[key] = one.untyped_storage().nbytes()
                weakref.finalize(one.untyped_storage(), self.held.pop, key, None)
                self.peak = max(self.peak, sum(self.held.values()))
        return made


def test_live_tensors_are_counted() -> None:
    with Live() as live:
        one = torch.zeros(1000, dtype=torch.float64)
        other = one[5:] + 1
        del one
        torch.zeros(100, dtype=torch.float64)
        assert live.peak == 8 * (1000 + 995)
        del other
        assert sum(live.held.values()) == 0


@pytest.mark.parametrize(
    ("method", "how", "alpha"),
    [
        ("difference", {}, 0.5),
        ("difference", {}, 0.3),
        ("ols", {}, 0.3),
        ("ridge", {"cv": 3}, 0.5),
        ("lasso", {}, 0.3),
        ("ols", {"clusters": np.arange(5000) // 250}, 0.5),
    ],
)
def test_memory_is_held(on_tensors: OnTensors, method: str, how: dict[str, Any], alpha: float) -> None:
    """Outputs of several times the memory that tensors may take, much of which is used."""
    made: Any = design.bernoulli(40, 5000, alpha, seed=1, placebos=0)
    made = np.asarray(made) if "clusters" in how else made
    y = np.tile(outputs_of(made, 100).astype(np.float32), 2 if method == "lasso" else 25)
    for dtype in DTYPES:
        memory = 10_000_000
        on_tensors(dtype, memory)
        with Live() as live:
            fit = influences(made, y, method, **how)
        assert 0.25 * memory < live.peak <= memory, live.peak
        if method != "lasso":  # whose solver takes its time
            assert y.nbytes > 4 * memory
            alike(fit, influences(made, y, method, device="cpu", **how), 1e-4)


@pytest.mark.slow
def test_memory_of_a_path_is_held(on_tensors: OnTensors, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more groups than rows are read at once: then arrays (groups, targets) are most of it."""
    monkeypatch.setattr(torch_backend, "ROWS", 64)
    made, memory = design.bernoulli(60, 150, 0.5, seed=1, placebos=0), 4_700_000
    y = outputs_of(made, 400).astype(np.float32)
    on_tensors(memory=memory)
    with Live() as live:
        influences(made, torch.from_numpy(y), "lasso")
    assert 0.5 * memory < live.peak <= memory, live.peak


def test_too_little_memory_says_what_it_takes(on_tensors: OnTensors) -> None:
    on_tensors(memory=1_000_000)
    with pytest.raises(EstimateError, match=r"device cpu: 0.001 GB are too few for 64 targets at a time, which take 0"):
        influences(HALF, outputs_of(HALF, 100))


def test_a_full_device_says_what_to_do(on_tensors: OnTensors) -> None:
    def fail(tile: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    with pytest.raises(EstimateError, match=r"out of memory.*2 GiB.*pass outputs of fewer targets") as caught:
        on_tensors().each([1], fail)
    assert "more" not in str(caught.value)


# ---- which device --------------------------------------------------------------------------------------------------


class There:
    """Outputs that say where they are."""

    def __init__(self, device: str, dtype: str = "torch.float32") -> None:
        self.device, self.dtype = device, dtype


def test_devices_that_are_not_there_are_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("mps", "cuda:x", "gpu", 0):
        with pytest.raises(EstimateError, match=r'device: .* is not one of influences\. use "cuda"'):
            influences("no masks", "no outputs", device=device)
    assert place("cpu", There("cuda:1")) is place(None, np.zeros(3)) is place(None, There("mps")) is HOST
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:1", torch.device("cuda")):
        with pytest.raises(EstimateError, match=r"device: cuda.* on this machine"):
            influences("no masks", "no outputs", device=name)


def test_the_gpu_of_the_outputs_or_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("is_available", True), ("device_count", 2), ("current_device", 1)):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda at: (9, 0) if at.index == 0 else (8, 6))
    for device, outputs, index, dtype in (
        (None, There("cuda:0"), 0, torch.float64),
        (None, There("cuda:1", "torch.bfloat16"), 1, torch.float32),
        ("cuda", There("cuda:1", "torch.float64"), 1, torch.float64),
        ("cuda", np.zeros(3, np.float32), 1, torch.float32),
        (torch.device("cuda", 0), [1.0], 0, torch.float64),
        ("cuda:1", There("cpu"), 1, torch.float32),
    ):
        backend: Any = place(device, outputs)
        assert (backend.device, backend.dtype) == (torch.device("cuda", index), dtype)
    for device, outputs, what in (("cuda:2", There("cpu"), "of 2"), ("cuda:0", There("cuda:1"), "are on cuda:1")):
        with pytest.raises(EstimateError, match=f"device: {device}.*{what}"):
            place(device, outputs)


def test_int16_is_of_the_cpu(on_tensors: OnTensors) -> None:
    on_tensors()
    with pytest.raises(EstimateError, match=r"precision: .*CPU alone"):
        influences(HALF, outputs_of(HALF, 3), precision="int16")
