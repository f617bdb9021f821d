"""The benchmarks of `gpu.py`, one stage of it at a time: `gpu_cases.py STAGE cuda|cpu OUT SECONDS`.

Every case becomes a line of JSON in OUT when it is there. A result is checked before it is timed; both sides run in
turns in one process, the GPU is waited for at the end of every call, and medians of 7 count (of fewer, which the case
then says, where SECONDS do not suffice). A case that fails, or that no time is left for, is a line with "failed".
On "cpu" sizes are small and only show that everything runs.

Over 500 lines: a stage is a list of cases, each with its peer and its check, and all share problems, timing and lines.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))  # before `core` asks for one
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ["OMP_NUM_THREADS"])

import core
import numpy as np
import torch
from core import Case
from influence import Split, check_difference, problem, sklearn_path
from torch.nn import functional as F

import pydt
from pydt import _core

CORES = len(os.sched_getaffinity(0))
REPEATS = 7
ROOT = Path(__file__).resolve().parents[1]
Tensor = torch.Tensor


class Bench:
    """Where cases go, on which device, and until when."""

    def __init__(self, device: str, out: Path, seconds: float) -> None:
        self.device, self.full = torch.device(device), device == "cuda"
        self._out, self._end = out, time.monotonic() + seconds

    def left(self) -> float:
        return self._end - time.monotonic()

    def write(self, line: Case) -> None:
        with self._out.open("a", encoding="utf-8") as out:
            print(json.dumps(line), file=out)

    def attempt(self, name: str, make: Callable[[], Iterator[Case]]) -> None:
        """Write the cases that it makes; an error ends them, and is a case, too."""
        try:
            if self.left() <= 0:
                raise TimeoutError("no time was left")
            for case in make():
                self.write(case)
        except Exception as error:
            traceback.print_exc()
            self.write({"case": name, "failed": f"{type(error).__name__}: {error}"[:500]})
        if self.full:
            torch.cuda.empty_cache()

    def wait(self) -> None:
        if self.full:
            torch.cuda.synchronize()

    def waiting(self, call: Callable[[], object]) -> Callable[[], None]:
        def timed() -> None:
            call()
            self.wait()

        return timed

    def compare(self, case: str, peer: str, ours: Callable[[], object], theirs: Callable[[], object]) -> Case:
        """`core.compare` of calls that end when the GPU has ended, as often as the time left allows."""
        sides = self.waiting(ours), self.waiting(theirs)
        start = time.monotonic()
        for side in sides:
            side()
        turn = time.monotonic() - start
        repeats = max(1, min(REPEATS, int(0.5 * self.left() / turn) - 1)) if self.full else 1
        found = core.compare(case, peer, *sides, repeats)
        return found if repeats == REPEATS else {**found, "repeats": repeats}


# ---- which machine ---------------------------------------------------------------------------------------------------
def head(bench: Bench) -> None:
    card: Case = {}
    if bench.full:
        card = {"GPU": torch.cuda.get_device_name(), "driver, memory": "no nvidia-smi"}
        if asks := shutil.which("nvidia-smi"):
            call = [asks, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
            said = subprocess.run(call, capture_output=True, text=True, check=False).stdout.strip()
            card["driver, memory"] = said.partition(", ")[2]
    bench.write(
        card
        | {"torch": torch.__version__, "CUDA": torch.version.cuda, "numpy": np.__version__}
        | {"Python": platform.python_version(), "cores": CORES, "core": _core.isa(), "pydt": pydt.__version__}
    )


# ---- regression ------------------------------------------------------------------------------------------------------
def torch_means(wide: Tensor, outputs: Tensor) -> Tensor:
    """Differences of means by one product in the type of `wide`; no errors."""
    count = wide.float().sum(0)[:, None]
    sums = (wide.T @ outputs.to(wide.dtype)).float()
    total = outputs.sum(0, dtype=torch.float32)
    return sums / count - (total - sums) / (len(wide) - count)


def torch_errors(wide: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of means, and standard errors for these masks, from the residual of least squares on all groups (ours
    also hold over fresh masks, and are larger)."""
    rows, groups = wide.shape
    outputs = outputs.to(wide.dtype)
    count = wide.sum(0)[:, None]
    sums, total = wide.T @ outputs, outputs.sum(0)
    cross = sums - count * (total / rows)
    gram = wide.T @ wide - count * count.T / rows
    half = torch.linalg.solve_triangular(torch.linalg.cholesky(gram), cross, upper=False)
    energy = (outputs * outputs).sum(0) - total * total / rows
    noise = (energy - (half * half).sum(0)) / (rows - groups - 1)
    return sums / count - (total - sums) / (rows - count), (noise * (1 / count + 1 / (rows - count))).sqrt()


def torch_ols(wide: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    rows, groups = wide.shape
    outputs = outputs.to(wide.dtype)
    count = wide.sum(0)[:, None]
    total = outputs.sum(0)
    cross = wide.T @ outputs - count * (total / rows)
    inverse = torch.linalg.inv(wide.T @ wide - count * count.T / rows)
    values = inverse @ cross
    noise = ((outputs * outputs).sum(0) - total * total / rows - (values * cross).sum(0)) / (rows - groups - 1)
    return values, (noise * inverse.diagonal()[:, None]).sqrt()


def set_tf32(on: bool) -> None:
    settings = torch.backends.cuda.matmul
    if hasattr(settings, "fp32_precision"):  # of newer versions, which refuse a mixture of both
        settings.fp32_precision = "tf32" if on else "ieee"
    else:
        settings.allow_tf32 = on


def on_host(*parts: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(part.float().cpu().numpy() for part in parts)


def off(found: np.ndarray, fit: Any) -> float:
    """The largest difference from our values, in our standard errors."""
    return float((np.abs(found - fit.values) / fit.stderr).max())


def regression(bench: Bench) -> None:
    sizes = {"L": (1000, 7540, 10_000), "S": (200, 1500, 10_000)} if bench.full else {"tiny": (40, 300, 64)}
    for size, (groups, models, outputs) in sizes.items():
        masks, host, _ = problem(groups, models, outputs)
        name = f"{groups} x {models} x {outputs}"
        bench.attempt(f"difference, {name}", lambda m=masks, y=host, n=name: differences(bench, m, y, n))
        if size != "S":
            bench.attempt(f"ols, {name}", lambda m=masks, y=host, n=name: least_squares(bench, m, y, n))


def differences(bench: Bench, masks: np.ndarray, host: np.ndarray, name: str) -> Iterator[Case]:
    packed, groups, device = _core.pack(masks), masks.shape[1], bench.device
    there, wide = torch.from_numpy(host).to(device), torch.from_numpy(masks).to(device)
    single, half, double = wide.float(), wide.bfloat16(), wide.double()

    def ours() -> Any:
        return pydt.influences(packed, there, groups=groups)

    def from_host() -> Any:
        return pydt.influences(packed, host, groups=groups, device=bench.device.type)

    fit = ours()
    check_difference(masks, host, fit)
    check_difference(masks, host, from_host())
    there64 = there.double()
    case = f"difference + errors, outputs on the GPU, {name}"
    peers: dict[str, Callable[[], tuple[np.ndarray, ...]]] = {
        "torch float64, values, errors given the masks": lambda: on_host(*torch_errors(double, there64)),
        "torch float32, values, errors given the masks": lambda: on_host(*torch_errors(single, there)),
        "torch float32, values": lambda: on_host(torch_means(single, there)),
        "torch TF32, values": lambda: on_host(torch_means(single, there)),
        "torch bfloat16, values": lambda: on_host(torch_means(half, there)),
    }
    for peer, call in peers.items():
        set_tf32("TF32" in peer)
        apart = off(call()[0], fit)
        yield {**bench.compare(case, peer, ours, call), "peer is off by standard errors": apart}
    set_tf32(False)
    floors: dict[str, Callable[[], object]] = {
        "floor: the product alone, float64": lambda: double.T @ there64,
        "floor: the product alone, float32": lambda: single.T @ there,
        "floor: values and errors to the host": lambda: on_host(*results),
        "pydt on the CPU, all cores": lambda: pydt.influences(packed, host, groups=groups, device="cpu"),
    }
    results = torch.zeros((2, *fit.values.shape), device=device)
    for peer, call in floors.items():
        yield bench.compare(case, peer, ours, call)

    def copied(masks: Tensor, how: Callable[[Tensor, Tensor], Any]) -> tuple[np.ndarray, ...]:
        found = how(masks, torch.from_numpy(host).to(device))
        return on_host(*found) if isinstance(found, tuple) else on_host(found)

    case = f"difference + errors, outputs on the host, {name}"
    yield bench.compare(
        case, "torch float64, values, errors given the masks", from_host, lambda: copied(double, torch_errors)
    )
    yield bench.compare(case, "torch float32, values", from_host, lambda: copied(single, torch_means))


def least_squares(bench: Bench, masks: np.ndarray, host: np.ndarray, name: str) -> Iterator[Case]:
    packed, groups = _core.pack(masks), masks.shape[1]
    there, double = (torch.from_numpy(part).to(bench.device) for part in (host, masks.astype(np.float64)))

    def ours() -> Any:
        return pydt.influences(packed, there, "ols", groups=groups, errors="classical")

    def peer() -> Any:
        return on_host(*torch_ols(double, there))

    fit, (values, errors) = ours(), peer()
    np.testing.assert_allclose(fit.values, values, rtol=0, atol=1e-4 * np.abs(values).max())
    np.testing.assert_allclose(fit.stderr, errors, rtol=1e-3)
    yield bench.compare(f"ols + errors, outputs on the GPU, {name}", "torch float64", ours, peer)


# ---- kernels of our own against the array code that they replace ---------------------------------------------------
def emulated() -> Any:
    """The GPU code compiled for this CPU."""
    sys.path.insert(0, str(ROOT / "tests" / "emulation"))
    import emulate

    with tempfile.TemporaryDirectory() as made:
        spec = importlib.util.spec_from_file_location("_emulated", emulate.build(Path(made), "plain"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    module.accept_any_memory(True)
    return module


def kernels(bench: Bench) -> None:
    gpu = _core if bench.full else emulated()
    groups, models, targets = (1000, 7540, 10_000) if bench.full else (31, 70, 33)
    for dtype in (torch.float64, torch.float32):
        name = f"{groups} groups, {str(dtype)[6:]}"
        bench.attempt(f"masks, {name}", lambda d=dtype, n=name: expansion(bench, gpu, groups, models, d, n))
        bench.attempt(f"errors, {name}", lambda d=dtype, n=name: errors(bench, gpu, groups, targets, d, n))
        bench.attempt(f"solver's pass, {name}", lambda d=dtype, n=name: one_pass(bench, gpu, groups, targets, d, n))

    sizes = {"difference": 10_000, "lasso": 1000} if bench.full else {"difference": 33}  # emulated passes take minutes
    for method, targets in sizes.items():
        name = f"{method} with kernels, {groups} x {models} x {targets}"
        bench.attempt(name, lambda m=method, t=targets, n=name: whole(bench, gpu, m, (groups, models, t), n))


def whole(bench: Bench, gpu: Any, method: str, size: tuple[int, int, int], name: str) -> Iterator[Case]:
    """A regression on the device with pydt's own kernels, and without."""
    from pydt.estimation import influence
    from pydt.estimation.torch_backend import TorchBackend

    masks, host, _ = problem(*size)
    packed, there = _core.pack(masks), torch.from_numpy(host).to(bench.device)
    sides = [TorchBackend(bench.device), TorchBackend(bench.device)]
    sides[0].kernels, sides[1].kernels = gpu, None
    as_asked = influence.place

    def fit(backend: TorchBackend) -> Any:
        influence.place = lambda device, outputs: backend
        try:
            return pydt.influences(packed, there, method, groups=size[0])
        finally:
            influence.place = as_asked

    one, other = map(fit, sides)
    apart = np.abs(one.values - other.values) / other.stderr
    assert np.quantile(apart, 0.99) < 1e-2, f"values differ by up to {apart.max()} standard errors"
    yield bench.compare(name, "without", lambda: fit(sides[0]), lambda: fit(sides[1]))


def stream(bench: Bench) -> int:
    return torch.cuda.current_stream().cuda_stream if bench.full else 0


def expansion(bench: Bench, gpu: Any, groups: int, models: int, dtype: torch.dtype, name: str) -> Iterator[Case]:
    masks = np.random.default_rng(0).random((models, groups)) < 0.5
    packed = torch.from_numpy(_core.pack(masks)).to(bench.device)
    out = torch.empty((models, groups), dtype=dtype, device=bench.device)
    bits = torch.arange(8, dtype=torch.uint8, device=bench.device)
    into = packed.data_ptr(), models, groups, 0, models, out.data_ptr(), groups, str(dtype)[6:], stream(bench)

    def ours() -> None:
        gpu.cuda_expand_masks(*into)

    def arrays() -> Tensor:
        return ((packed[:, :, None] >> bits) & 1).view(len(packed), -1)[:, :groups].to(dtype)

    ours()
    assert torch.equal(out, arrays())
    assert np.array_equal(out.cpu().numpy(), masks)
    yield bench.compare(f"masks from bits, {models} rows, {name}", "array code", ours, arrays)


def errors(bench: Bench, gpu: Any, groups: int, targets: int, dtype: torch.dtype, name: str) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    host = rng.normal(size=(groups, targets))
    centred = torch.from_numpy(host).to(bench.device, dtype)
    scale, weight, rho = rng.random((3, groups)) + 0.1
    energy, noise, df = 50 + rng.random(targets), rng.random(targets), 100.0
    values, stderr = torch.empty((2, groups, targets), device=bench.device)
    to, vectors = (values.data_ptr(), stderr.data_ptr()), (scale, weight, rho, energy, noise, df)

    def ours() -> None:
        gpu.cuda_pooled_errors(centred.data_ptr(), *vectors, *to, str(dtype)[6:], stream(bench))

    def arrays() -> tuple[Tensor, Tensor]:
        up = [torch.from_numpy(v).to(bench.device) for v in (scale, weight / df, rho, energy / df, noise)]
        by, lean, share, square, level = up[0][:, None], up[1][:, None], up[2][:, None], up[3], up[4]
        spread = (square - lean * centred**2).clip_(0)
        more = spread.sub_(level).clip_(0)
        return (by * centred).float(), more.mul_(share).add_(level).mul_(by).sqrt_().float()

    ours()
    for found, expected in zip((values, stderr), arrays(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    yield bench.compare(f"values and errors, {targets} targets, {name}", "array code", ours, arrays)


def one_pass(bench: Bench, gpu: Any, groups: int, targets: int, dtype: torch.dtype, name: str) -> Iterator[Case]:
    from pydt.estimation.tensor_lasso import array_step

    rng = np.random.default_rng(0)
    made = [torch.from_numpy(a).to(bench.device, dtype) for a in rng.normal(size=(5, groups, targets))]
    diagonal = torch.full((groups,), 0.25, dtype=dtype, device=bench.device)
    state = torch.zeros((11, targets), dtype=dtype, device=bench.device)
    state[0], state[2], state[3], state[8] = 0.5, 4.0 * groups, 1e-9, 1  # edge, energy, tolerance, open
    spread, steep, limit = 1e-4, 2.0, 1000

    def ours(arrays: list[Tensor], state: Tensor) -> None:
        at = [array.data_ptr() for array in (*arrays, diagonal, state)]
        gpu.cuda_proximal_step(*at, groups, targets, spread, steep, limit, str(dtype)[6:], stream(bench))

    def theirs(arrays: list[Tensor], state: Tensor) -> None:
        array_step(*arrays, diagonal, state, spread, steep, limit)

    sides = []
    for step in (ours, theirs):
        arrays, mine = [array.clone() for array in made], state.clone()
        step(arrays, mine)
        bench.wait()
        sides.append((*arrays, mine))
    for found, expected in zip(*sides, strict=True):
        rtol = 1e-9 if dtype == torch.float64 else 1e-3
        torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol, equal_nan=True)
    case = f"pass of the LASSO's solver, {targets} targets, {name}"

    def again(step: Callable[[list[Tensor], Tensor], None]) -> Callable[[], None]:
        def run() -> None:
            state[8] = 1  # targets that are done would take no time
            step(made, state)

        return run

    yield bench.compare(case, "array code", again(ours), again(theirs))


# ---- penalised paths -------------------------------------------------------------------------------------------------
class Saga:
    """Minibatch proximal SAGA on rows, as solvers of fast_l1's kind do it, all targets side by side, each at a penalty
    of its own: it minimises |y - Xb|^2 / (2m) + penalty |b|_1.

    The table holds one residual per row and target. Step 1 / (4 L), L the smoothness of a mean over a minibatch
    (Gazagnadou et al. 2019)."""

    def __init__(self, masks: Tensor, outputs: Tensor, batch: int = 512) -> None:
        self.level, self.intercept = masks.float().mean(0), outputs.mean(0)
        self.x, self.y = masks.float() - self.level, outputs - self.intercept
        self.batch = min(batch, len(masks))
        self.energy = (self.y**2).sum(0) / (2 * len(self.y))
        rows, batch = len(masks), self.batch
        gram = (self.x.T @ self.x).double() / rows
        steepest, longest = float(torch.linalg.eigvalsh(gram)[-1]), float((self.x**2).sum(1).max())
        smooth = (rows * (batch - 1) * steepest + (rows - batch) * longest) / (batch * max(1, rows - 1))
        self.step = 1 / (4 * smooth)

    def begin(self) -> None:
        self.values = torch.zeros((self.x.shape[1], self.y.shape[1]), device=self.x.device)
        self.table = -self.y.clone()  # residuals Xb - y
        self.mean = self.x.T @ self.table / len(self.x)

    def epochs(self, number: int, penalty: Tensor) -> None:
        rows = len(self.x)
        for _ in range(number):
            order = torch.randperm(rows, device=self.x.device)
            for at in range(0, rows - self.batch + 1, self.batch):
                some = order[at : at + self.batch]
                x = self.x[some]
                now = x @ self.values - self.y[some]
                change = x.T @ (now - self.table[some])
                moved = self.values - self.step * (change / self.batch + self.mean)
                self.values = moved.sign() * F.relu(moved.abs() - self.step * penalty)
                self.mean += change / rows
                self.table[some] = now

    def objective(self, values: Tensor, penalty: Tensor) -> Tensor:
        """As a share of that of zero without a penalty."""
        left = ((self.y - self.x @ values) ** 2).sum(0) / (2 * len(self.y))
        return (left + penalty * values.abs().sum(0)) / self.energy

    def solve(self, penalty: Tensor, goal: Tensor, most: int) -> tuple[int, float]:
        """To a given objective. Returns epochs, and by how much the worst target is above the goal."""
        self.begin()
        above, used = float("inf"), 0
        while above > 1e-5 and used < most:
            self.epochs(4, penalty)
            used += 4
            above = float((self.objective(self.values, penalty) - goal).max())
        return used, above

    def path(self, held_masks: Tensor, held_outputs: Tensor, steps: int) -> Tensor:
        """The penalty of least error on held-out rows, of `steps` down to a hundredth of the largest. Each is begun
        from the one before and solved until 4 epochs lower no objective by more than 1e-5."""
        self.begin()
        top = self.mean.abs().amax(0)
        x, y = held_masks.float() - self.level, held_outputs - self.intercept
        least, chosen = torch.full_like(top, float("inf")), top
        for share in np.geomspace(1, 0.01, steps):
            penalty = top * float(share)
            before = self.objective(self.values, penalty)
            for _ in range(10):
                self.epochs(4, penalty)
                now = self.objective(self.values, penalty)
                if float((before - now).max()) <= 1e-5:
                    break
                before = now
            error = ((y - x @ self.values) ** 2).sum(0)
            least, chosen = torch.minimum(least, error), torch.where(error < least, penalty, chosen)
        return chosen


def lasso(bench: Bench) -> None:
    sizes = {"S": (200, 1500, 2000), "L": (1000, 7540, 1000)} if bench.full else {"tiny": (30, 600, 8)}
    for groups, models, outputs in sizes.values():
        for dense in (False, True):
            masks, host, _ = problem(groups, models, outputs, dense=dense)
            name = f"{'dense' if dense else 'sparse'} truth, {groups} x {models} x {outputs}"
            bench.attempt(f"LASSO, {name}", lambda m=masks, y=host, n=name: paths(bench, m, y, n))


def paths(bench: Bench, masks: np.ndarray, host: np.ndarray, name: str) -> Iterator[Case]:
    packed, groups, outputs = _core.pack(masks), masks.shape[1], host.shape[1]
    there = torch.from_numpy(host).to(bench.device)

    def ours() -> Any:
        return pydt.influences(packed, there, "lasso", groups=groups)

    def on_cpu() -> Any:
        return pydt.influences(packed, host, "lasso", groups=groups, device="cpu")

    fit, other = ours(), on_cpu()
    same = np.isclose(fit.penalty, other.penalty, rtol=1e-3)  # the error along a path is flat about its least
    near = np.abs(np.log(fit.penalty / other.penalty)) < 0.25
    assert near.mean() > 0.95, f"only {100 * near.mean():.0f} % of the penalties are near those of the CPU"
    assert same.mean() > 0.5, f"only {100 * same.mean():.0f} % of the penalties are those of the CPU"
    apart = np.abs(fit.values - other.values)[:, same] / other.stderr[:, same]
    assert apart.max() < 0.1, f"values differ from those of the CPU by {apart.max()} standard errors"
    case = f"LASSO, penalty chosen, de-biased, {name}"
    facts = {"same penalty as on the CPU": float(same.mean()), "converged": float(np.mean(fit.converged))}
    yield {**bench.compare(case, "pydt on the CPU, all cores", ours, on_cpu), **facts}

    penalty = torch.from_numpy(np.asarray(fit.penalty, np.float32)).to(bench.device)
    masks_there = torch.from_numpy(masks).to(bench.device)
    saga, most = Saga(masks_there, there), 400
    goal = saga.objective(torch.from_numpy(fit.values).to(bench.device), penalty)
    used, above = saga.solve(penalty, goal, most)
    assert above > -1e-5, f"the peer's objective is below ours by {-above}"
    reached = {"peer's epochs": used, "peer above our objective by": above}
    one = "torch SAGA, one penalty, given"
    yield {**bench.compare(case, one, ours, lambda: saga.solve(penalty, goal, most)), **reached}

    held, steps = len(masks) // 5, 100 if bench.full else 5
    part, held_out = Saga(masks_there[held:], there[held:]), (masks_there[:held], there[:held])
    share = float((part.path(*held_out, steps) / penalty).median())
    many = bench.compare(case, f"torch SAGA, {steps} penalties, chosen", ours, lambda: part.path(*held_out, steps))
    yield {**many, "its penalty over ours, median": share}

    from joblib import Parallel, delayed

    few = min(outputs, 2 * CORES if bench.full else 2)
    split = Split(masks, host[:, :few])

    def sklearn() -> None:
        Parallel(CORES, prefer="threads")(delayed(sklearn_path)(split, range(j, j + 1), 100) for j in range(few))

    both = bench.compare(case + ", an output", f"scikit-learn, 100 penalties, {CORES} cores", ours, sklearn)
    ours_s, peer_s = both["ours_s"] / outputs, both["peer_s"] / few
    yield {**both, "ours_s": ours_s, "peer_s": peer_s, "ratio": peer_s / ours_s}


# ---- loader ----------------------------------------------------------------------------------------------------------
def loader(bench: Bench) -> None:
    import loader as raw

    count = raw.COUNT if bench.full else 2000
    images = raw.data()[:count]
    for dtype, last in ((torch.float32, False), (torch.float16, True)):
        bench.attempt(f"loader, {dtype}", lambda d=dtype, last=last: batches(bench, raw, images, d, last))


def batches(bench: Bench, raw: Any, images: np.ndarray, dtype: torch.dtype, last: bool) -> Iterator[Case]:
    """An epoch in batches of 512: crop with 4 pixels of padding, flip, normalise. Peers have the images on the device,
    too, padded (and normalised) beforehand, and draw all places of an epoch at once."""
    from pydt.data import Dataset
    from pydt.data.loading import Loader

    count, side, pad, size = len(images), raw.SIDE, raw.PAD, raw.BATCH
    layout = torch.channels_last if last else torch.contiguous_format
    dataset = Dataset.from_arrays(images, np.arange(count) % 100)
    mean, std = (torch.tensor(v, device=bench.device) for v in (raw.MEAN, raw.STD))
    ids = np.arange(count)

    def ours(_: Any = None) -> raw.Stream:
        how = {"device": bench.device.type, "dtype": dtype, "channels_last": last}
        for batch in Loader(dataset, ids, size, augment=raw.AUGMENT, **how):
            yield batch.images, batch.index.numpy()

    def drawn() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        order = torch.randperm(count, device=bench.device)
        top, left = torch.randint(0, 2 * pad + 1, (2, count), device=bench.device)
        flip = torch.rand(count, device=bench.device) < 0.5
        for at in range(0, count, size):
            part = slice(at, at + size)
            yield order[part], top[part], left[part], flip[part]

    padded = F.pad(torch.from_numpy(images), (0, 0, pad, pad, pad, pad)).to(bench.device)
    wide = side + 2 * pad
    pixels, at = padded.reshape(-1, 3), torch.arange(side, device=bench.device)
    scale, bias = 1 / (255 * std), -mean / std

    def indexed(_: Any = None) -> raw.Stream:
        for numbers, top, left, flip in drawn():
            n = len(numbers)
            column = torch.where(flip[:, None], side - 1 - at, at) + left[:, None]
            row = (numbers * wide + top)[:, None] + at
            flat = (row[:, :, None] * wide + column[:, None, :]).reshape(-1)
            batch = pixels.index_select(0, flat).reshape(n, side, side, 3).float().mul_(scale).add_(bias)
            yield batch.permute(0, 3, 1, 2).to(dtype, memory_format=layout), numbers

    normal = ((padded / 255 - mean) / std).permute(0, 3, 1, 2).to(dtype).contiguous()

    def grouped(_: Any = None) -> raw.Stream:
        for numbers, top, left, flip in drawn():
            batch, n = normal[numbers], len(numbers)
            rows = torch.empty((n, 3, side, wide), dtype=dtype, device=bench.device)
            out = torch.empty((n, 3, side, side), dtype=dtype, device=bench.device)
            for shift in range(2 * pad + 1):
                chosen = (top == shift)[:, None, None, None]
                rows = torch.where(chosen, batch[:, :, shift : shift + side], rows)
            for shift in range(2 * pad + 1):
                chosen = (left == shift)[:, None, None, None]
                out = torch.where(chosen, rows[:, :, :, shift : shift + side], out)
            out = torch.where(flip[:, None, None, None], out.flip(-1), out)
            yield out.contiguous(memory_format=layout), numbers

    def there(epoch: Callable[[Any], raw.Stream]) -> Callable[[Any], raw.Stream]:
        def first(ids: Any) -> raw.Stream:
            for batch, numbers in epoch(ids):
                yield batch.cpu(), torch.as_tensor(numbers).cpu().numpy()

        return first

    def whole(epoch: Callable[[Any], raw.Stream]) -> Callable[[], None]:
        def run() -> None:
            for _ in epoch(None):
                pass

        return run

    name = f"loader, {count} images of 32 x 32 on the GPU, {str(dtype)[6:]}{', channels last' if last else ''}"
    for peer, epoch in (("torch index_select", indexed), ("torch, shifts one by one", grouped)):
        for one in (ours, epoch):
            raw.check(there(one), images, ids)
        found = bench.compare(name, peer, whole(ours), whole(epoch))
        yield {**found, "M images/s": count / found["ours_s"] / 1e6}


# ---- rows ------------------------------------------------------------------------------------------------------------
def small_plan(bench: Bench, rows: int) -> pydt.Plan:
    """Rows of some seconds: 20,000 coloured images in 50 groups, a small network, 200 steps."""
    rng = np.random.default_rng(0)
    classes, each, side, steps = (50, 400, 32, 200) if bench.full else (6, 20, 12, 4)

    def pictures(count: int, kinds: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(kinds), count)
        kind = np.random.default_rng(1).integers(0, 256, (kinds, side, side, 3))
        return ((kind[labels] + rng.integers(0, 512, (len(labels), side, side, 3))) // 3).astype(np.uint8), labels

    source = pydt.Dataset.from_arrays(*pictures(each, classes), [f"c{i}" for i in range(classes)], name="source")
    target = pydt.Target(pydt.Dataset.from_arrays(*pictures(60, 5), list("abcde"), name="target"))
    recipe = pydt.Recipe(network="convnet-64" if bench.full else "convnet-4", steps=steps, device=bench.device.type)
    return pydt.Plan(
        source,
        design=pydt.design.random(classes, rows, alpha=0.5),
        recipe=recipe,
        tasks=[pydt.Task(target, shots=5, draws=4)],
    )


def rows(bench: Bench) -> None:
    many = {1: 5, 4: 16, 8: 32} if bench.full else {1: 3, 2: 4}
    found: dict[int, float] = {}
    accuracies: list[float] = []

    def measured(workers: int) -> Iterator[Case]:
        plan = small_plan(bench, many[workers])
        with tempfile.TemporaryDirectory() as folder:
            store = pydt.run(plan, folder, workers=workers, progress=False)
            events = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
            right = [row["report_accuracy"] for row in store.scalars(plan.tasks[0])]
        ends = sorted(event["time"] for event in events if event.get("event") == "row")
        assert len(ends) == many[workers], f"{len(ends)} of {many[workers]} rows"
        accuracies.append(float(np.mean(right)))
        assert abs(accuracies[-1] - accuracies[0]) < 0.1, f"accuracies {accuracies}"
        ends = ends[workers - 1 :]  # from when every worker has finished a row: importing torch is not in it
        found[workers] = (ends[-1] - ends[0]) / (len(ends) - 1)
        yield {
            "case": f"rows on one GPU, {workers} workers, a row",
            "ours_s": found[workers],
            "peer": "1 worker",
            "peer_s": found[1],
            "ratio": found[1] / found[workers],
            "checked": True,
            "rows an hour": round(3600 / found[workers]),
            "rows": len(ends) - 1,
            "repeats": 1,
        }

    for workers in many:
        bench.attempt(f"rows on one GPU, {workers} workers", lambda w=workers: measured(w))


STAGES = {"head": head, "regression": regression, "kernels": kernels, "lasso": lasso, "loader": loader, "rows": rows}


def main() -> None:
    stage, device, out, seconds = sys.argv[1:]
    STAGES[stage](Bench(device, Path(out), float(seconds)))


if __name__ == "__main__":
    main()
