"""The backend of arrays that are tensors of one device: influence regression on a GPU.

The one module of this room that imports torch. It runs on CPU tensors, too, which is how it is tested.

Sums: M'Y by the vendor's matrix product, 512 rows at a time: their masks are expanded from bits, their outputs less the
shift are multiplied, and the blocks are added in float64. Algebra of groups x groups with groups x targets is in
float64 on any device; products along rows (2 m K n operations each) are in `dtype`:

    float64    where the device has it at rate, or the outputs are float64
    float32    elsewhere, of outputs less their shift: a sum of r rows has an error of at most (512 + 2) 2^-24 times the
               sum of |output - shift| over these rows, typically less than a twentieth of that; never in TF32

Results agree with the host's within rounding, not to the bit, and differ in the last bits between widths of a tile.

Memory: outputs on the device are read in place; others stream, in tiles of at most 256 MiB through pinned memory: tile
t + 1 is copied while the device works on tile t. With m rows, K columns, folds f, n targets in a tile, B = max(512,
rows of the largest unit or cluster), at most (C = 8 without folds, else 30 + 2 f: the LASSO's path is most of it)

    8 n (C K + 6 B) + 2 n m (bytes of an output) where they stream + 8 (8 K^2 + 4 B K) + m (K / 4 + 16)

Cost of a call at K = 1000, m = 7540, n = 10,000: difference 2 m K n + K^2 n = 0.16 TFLOP, robust errors of OLS three
times that; it reads the outputs (0.3 GB as float32) and writes 80 MB of results. Masks: 0.9 MB as bits. K x K algebra
and inference stay on the host. GPUs it ran on: none yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pydt import _core
from pydt.base import EstimateError
from pydt.estimation import tensor_lasso
from pydt.estimation.backend import WIDTH, Host
from pydt.estimation.inputs import Array, Masks, Rows, as_outputs, check_outputs

ROWS = 512  # of outputs and masks at a time
_PINNED = 1 << 28  # bytes of a tile that streams; the host pins two of them
_OLDEST = (8, 0)  # compute capability of the GPUs for which the core has code
_AT_RATE = {(8, 0), (9, 0), (10, 0)}  # compute capabilities whose float64 products run at half the rate of float32


class TorchBackend(Host):
    """Tensors of one device.

    Args:
        device: of all arrays.
        dtype: torch.float64 or torch.float32, of products along rows; None: float64 where the device has it at rate.
        memory: bytes that arrays may take; None: half of what is free.

    Attributes:
        kernels: the module with `cuda_expand_masks` and its like, for addresses of the device; None: array code.
    """

    exact = True
    keeps = False

    def __init__(self, device: torch.device, dtype: torch.dtype | None = None, memory: int | None = None):
        self.device, self._memory = device, memory
        capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
        at_rate = device.type == "cpu" or capability in _AT_RATE
        self.dtype = dtype or (torch.float64 if at_rate else torch.float32)
        self.kernels: Any = _core if capability >= _OLDEST and _core.cuda_usable() else None

    # ---- arrays ----------------------------------------------------------------------------------------------------

    def up(self, array: Any) -> torch.Tensor:
        if not isinstance(array, torch.Tensor):
            array = torch.tensor(np.ascontiguousarray(array), device=self.device)
        return array if array.dtype == torch.bool else array.to(torch.float64)

    def down(self, array: Any) -> npt.NDArray[Any]:
        return np.asarray(array.cpu() if isinstance(array, torch.Tensor) else array)

    def result(self, array: Any) -> npt.NDArray[Any]:
        return self.down(array.float() if isinstance(array, torch.Tensor) else array)

    def zeros(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=self.device)

    def outer(self, column: Array, row: Array) -> torch.Tensor:
        return torch.outer(self.up(column), self.up(row))

    def where(self, condition: Any, one: Any, other: Any) -> torch.Tensor:
        return torch.where(condition, one, other)

    def maximum(self, one: Any, other: Any) -> torch.Tensor:
        return torch.maximum(one, other)

    def largest(self, array: Any) -> Array:
        return self.down(array.abs().amax(0))

    def dots(self, one: Any, other: Any) -> Array:
        return self.down((one * other).sum(0))

    def product(self, one: Any, other: Any) -> torch.Tensor:
        one, other = self.up(one), self.up(other)
        if self.dtype == torch.float64:
            return one @ other
        most = other.abs().amax(0)  # powers of two, so that squares neither vanish nor overflow
        scale = torch.exp2(-torch.log2(torch.where(most > 0, most, 1.0)).floor())
        return (one.float() @ (other * scale).float()).double() / scale

    def sparse_product(self, matrix: Array, values: Any) -> torch.Tensor:
        return self.up(matrix) @ self.up(values)

    def weigh(self, weights: Array, values: Any) -> Array:
        return self.down(self.up(weights) @ self.up(values))

    # ---- outputs ---------------------------------------------------------------------------------------------------

    def take(self, outputs: Any) -> tuple[Any, bool]:
        if not isinstance(outputs, torch.Tensor) or outputs.device != self.device:
            return as_outputs(outputs)
        y = outputs.detach()
        check_outputs(y.dtype, not y.is_complex(), tuple(y.shape))
        if y.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            y = y.double()
        return (y[:, None], True) if y.ndim == 1 else (y, False)

    def tiles(
        self, outputs: Any, shift: Array, columns: int, folds: int, longest: int
    ) -> Iterator[tuple[slice, torch.Tensor, Array]]:
        there = isinstance(outputs, torch.Tensor)
        rows, targets = outputs.shape
        block = max(ROWS, longest)
        fixed = 8 * (8 * columns**2 + 4 * block * columns) + rows * (columns // 4 + 16)
        each = 8 * ((30 + 2 * folds if folds else 8) * columns + 6 * block)
        each += 0 if there else 2 * rows * outputs.itemsize
        memory = self._free() if self._memory is None else self._memory
        width = (memory - fixed) // each // WIDTH * WIDTH
        if not there:
            width = min(width, max(1, _PINNED // (rows * outputs.itemsize * WIDTH)) * WIDTH)
        if width < WIDTH:
            raise EstimateError(
                f"{memory / 1e9:.3g} GB are too few for {WIDTH} targets at a time, which take "
                f"{(fixed + WIDTH * each) / 1e9:.3g} GB",
                f"device {self.device}",
                'free memory of the device, or pass device="cpu"',
            )
        parts = [slice(start, min(start + width, targets)) for start in range(0, targets, width)]
        if there:
            for part in parts:
                yield part, outputs[:, part], shift[part]
            return
        stream = _Stream(outputs, min(width, targets), self.device)
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(stream.fetch, 0, parts[0])
            for i, part in enumerate(parts):
                y = ahead.result()()
                if i + 1 < len(parts):
                    ahead = pool.submit(stream.fetch, i + 1, parts[i + 1])
                yield part, y, shift[part]
                del y
                stream.done(i)

    def _free(self) -> int:
        if self.device.type == "cpu":
            return 1 << 30
        kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)  # by torch, for reuse
        return (torch.cuda.mem_get_info(self.device)[0] + kept) // 2

    def each(self, tiles: Iterable[Any], work: Callable[[Any], None]) -> None:
        try:
            with full_precision(), torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
                for tile in tiles:
                    work(tile)
                    del tile  # or it stays while the next one is made
        except torch.OutOfMemoryError as error:
            raise EstimateError(
                f"out of memory ({str(error).splitlines()[0]})",
                f"device {self.device}",
                'free memory of the device, pass outputs of fewer targets, or device="cpu"',
            ) from error

    def units_at_once(self, columns: int, longest: int) -> int:
        return max(1, ROWS // longest)

    def rows(self, outputs: torch.Tensor, rows: Rows, *, shift: Array, broken: npt.NDArray[np.bool_]) -> torch.Tensor:
        y = self._less_shift(outputs, self.up(shift), rows)
        return y.masked_fill_(self.up(broken), 0)

    def _less_shift(self, outputs: torch.Tensor, shift: torch.Tensor, rows: Rows | slice) -> torch.Tensor:
        """Some rows of the outputs less the shift, a new array in float64."""
        if not isinstance(rows, slice):
            return outputs.index_select(0, torch.tensor(rows, device=self.device)).double().sub_(shift)
        return outputs[rows].double() - shift

    def codes(self, packed: npt.NDArray[np.uint8], columns: int, rows: Rows | None = None) -> tuple[torch.Tensor, int]:
        return torch.tensor(packed if rows is None else packed[rows], device=self.device), columns

    def masks(self, masks: Masks, rows: Rows) -> torch.Tensor:
        return self._expand(torch.tensor(masks.packed[rows], device=self.device), masks.columns).double()

    def _expand(self, packed: torch.Tensor, columns: int) -> torch.Tensor:
        """0/1 masks (rows, columns) of `dtype` from their bits."""
        if self.kernels is not None:
            masks = torch.empty((len(packed), columns), dtype=self.dtype, device=self.device)
            which = packed.data_ptr(), len(packed), columns, 0, len(packed)
            self.kernels.cuda_expand_masks(*which, masks.data_ptr(), columns, str(self.dtype)[6:], self._stream())
            return masks
        bits = torch.arange(8, dtype=torch.uint8, device=self.device)
        return ((packed[:, :, None] >> bits) & 1).view(len(packed), -1)[:, :columns].to(self.dtype)

    def _stream(self) -> int:
        return torch.cuda.current_stream(self.device).cuda_stream if self.device.type == "cuda" else 0

    def sums(
        self, codes: Any, outputs: torch.Tensor, shift: Array, rows: Rows | None, coarse: bool
    ) -> tuple[Array, Array, torch.Tensor, None]:
        packed, columns = codes
        level = self.up(shift)
        cross = self.zeros(columns, len(level))
        total, squares = self.zeros(2, len(level))
        for block in _blocks(len(packed)):
            y = self._less_shift(outputs, level, block if rows is None else rows[block])
            masks = self._expand(packed[block], columns)
            if self.dtype == torch.float64:
                cross.addmm_(masks.T, y)
            else:
                cross += masks.T @ y.float()
            total += y.sum(0)
            squares += y.square_().sum(0)
        return self.down(total), self.down(squares), cross, None

    def squares_of_arm(self, codes: Any, squares: torch.Tensor, exact: bool) -> torch.Tensor:
        packed, columns = codes
        return self.product(self._expand(packed, columns).T, squares)

    def moments(self, outputs: torch.Tensor, shift: Array) -> tuple[Array, Array]:
        level = self.up(shift)
        total, squares = self.zeros(2, len(level))
        for block in _blocks(len(outputs)):
            y = self._less_shift(outputs, level, block)
            total += y.sum(0)
            squares += y.square_().sum(0)
        return self.down(total), self.down(squares)

    def unit_squares(self, outputs: torch.Tensor, shift: Array, starts: Rows, sign: Array, rows: Rows) -> Array:
        level, found = self.up(shift), self.zeros(len(shift))
        first = 0
        while first < len(starts) - 1:
            last = max(first + 1, int(np.searchsorted(starts, starts[first] + ROWS, "right")) - 1)
            block = slice(starts[first], starts[last])
            y = self._less_shift(outputs, level, rows[block]).mul_(self.up(sign[block])[:, None])
            size = np.diff(starts[first : last + 1])
            sums = self.unit_sums(y, starts[first:last] - starts[first])
            found += sums.square_().div_(self.up(size)[:, None]).sum(0)
            first = last
        return self.down(found)

    def unit_sums(self, values: torch.Tensor, starts: Rows) -> torch.Tensor:
        lengths = torch.tensor(np.diff(np.r_[starts, len(values)]), device=self.device)
        return torch.segment_reduce(values, "sum", lengths=lengths, axis=0)

    # ---- from sums to results --------------------------------------------------------------------------------------

    def centred(self, cross: torch.Tensor, share: Array, total: Array, single: bool) -> torch.Tensor:
        return torch.addr(cross, self.up(share), self.up(total), alpha=-1)

    def substitution(self, lower: Array) -> Callable[[Any], Array]:
        factor = self.up(lower)

        def explained(cross: torch.Tensor) -> Array:
            return self.down(torch.linalg.solve_triangular(factor, cross, upper=False).square_().sum(0))

        return explained

    def pooled_errors(
        self, centred: torch.Tensor, scale: Array, weight: Array, rho: Array, energy: Array, noise: Array, df: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.kernels is not None:
            centred = centred.contiguous()
            found = torch.empty((2, *centred.shape), dtype=torch.float32, device=self.device)
            vectors = (np.ascontiguousarray(one) for one in (scale, weight, rho, energy, noise))
            at = (one.data_ptr() for one in found)
            self.kernels.cuda_pooled_errors(centred.data_ptr(), *vectors, df, *at, "float64", self._stream())
            return found[0], found[1]
        scale_, rho_, noise_ = self.up(scale)[:, None], self.up(rho)[:, None], self.up(noise)
        spread = (self.up(energy / df) - self.up(weight / df)[:, None] * centred**2).clip_(0)
        more = spread.sub_(noise_).clip_(0)
        return scale_ * centred, more.mul_(rho_).add_(noise_).mul_(scale_).sqrt_()

    def lasso(
        self, gram: Array, cross: Any, energy: Array, penalty: Array, start: Any, *, l1_ratio: float, tolerance: float
    ) -> tuple[Any, Array, npt.NDArray[np.int64]]:
        first = None if start is None else start.to(self.dtype)
        values, gap, iterations = tensor_lasso.lasso(
            self.up(gram), cross.to(self.dtype), self.up(energy), self.up(penalty), first, l1_ratio=l1_ratio,
            tolerance=tolerance, step=self._step,
        )  # fmt: skip
        return values, self.down(gap), self.down(iterations)

    def lasso_path(
        self, gram: Array, cross: Any, energy: Array, held_gram: Array, held_cross: Any, held_energy: Array,
        steps: Array, *, l1_ratio: float, tolerance: float, patience: int, held_rows: int,
    ) -> tuple[Array, Any, Array]:  # fmt: skip
        error, values, gap = tensor_lasso.lasso_path(
            self.up(gram), cross.to(self.dtype), self.up(energy), self.up(held_gram), held_cross.to(self.dtype),
            self.up(held_energy), steps, l1_ratio=l1_ratio, tolerance=tolerance, patience=patience, held_rows=held_rows,
            step=self._step,
        )  # fmt: skip
        return self.down(error), values, self.down(gap)

    def _step(self, *arguments: Any) -> None:
        arrays, rates = arguments[:7], arguments[7:]
        if self.kernels is None or not all(one.is_contiguous() for one in arrays):
            return tensor_lasso.array_step(*arguments)
        at, dtype = (one.data_ptr() for one in arrays), str(arrays[0].dtype)[6:]
        self.kernels.cuda_proximal_step(*at, *arrays[0].shape, *rates, dtype, self._stream())


def find_gpu(index: int | None, there: str | None, exact: bool) -> TorchBackend:
    """The backend of a GPU, for outputs that are `there`; raises where there is no such GPU. exact: in float64."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    name = "cuda" if index is None else f"cuda:{index}"
    if not count:
        what = "torch is built without CUDA" if torch.version.cuda is None else "torch finds no GPU that CUDA can use"
        raise EstimateError(f"{name}: {what} on this machine", "device", 'leave it out, or use "cpu"')
    if index is not None and index >= count:
        raise EstimateError(f"{name} is not there, of {count} counted from 0", "device", "pass a smaller number")
    if there is not None and index is not None and name != there:
        raise EstimateError(f"{name}, but the outputs are on {there}", "device", "leave it out, or move the outputs")
    at = torch.device(there or f"cuda:{torch.cuda.current_device() if index is None else index}")
    return TorchBackend(at, torch.float64 if exact else None)


class _Stream:
    """Tiles of outputs in host memory on their way to the device: two pinned buffers, two on the device."""

    def __init__(self, outputs: npt.NDArray[Any], width: int, device: torch.device):
        self._outputs, self._cuda = outputs, device.type == "cuda"
        dtype, size = torch.from_numpy(np.empty(0, outputs.dtype)).dtype, len(outputs) * width
        self._host = [torch.empty(size, dtype=dtype, pin_memory=self._cuda) for _ in range(2)]
        self._there = self._host
        if self._cuda:
            self._there = [torch.empty(size, dtype=dtype, device=device) for _ in range(2)]
            self._device, self._copies = device, torch.cuda.Stream(device)
            self._copied, self._used = ([torch.cuda.Event() for _ in range(2)] for _ in range(2))
            # Memory on the device is torch's: work that is queued already may still use it, and it may be given to
            # other work while a copy is under way, if an error ends the tiles early.
            self._copies.wait_stream(torch.cuda.current_stream(device))
            for memory in self._there:
                memory.record_stream(self._copies)

    def fetch(self, i: int, part: slice) -> Callable[[], torch.Tensor]:
        """Start the copy of tile i; what returns its outputs, in the thread that works on them."""
        slot, shape = i % 2, (len(self._outputs), part.stop - part.start)
        # without gaps, also where the last tile is narrower: torch copies other layouts through more memory
        host, there = (memory[slot][: shape[0] * shape[1]].view(shape) for memory in (self._host, self._there))
        if self._cuda:
            self._copied[slot].synchronize()  # tile i - 2 has left the pinned buffer
        host.numpy()[...] = self._outputs[:, part]
        if not self._cuda:
            return lambda: there
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(self._used[slot])  # tile i - 2 is worked off
            there.copy_(host, non_blocking=True)
            self._copied[slot].record(self._copies)

        def ready() -> torch.Tensor:
            torch.cuda.current_stream(self._device).wait_event(self._copied[slot])
            return there

        return ready

    def done(self, i: int) -> None:
        """All work on tile i is queued."""
        if self._cuda:
            self._used[i % 2].record(torch.cuda.current_stream(self._device))


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + ROWS, rows)) for start in range(0, rows, ROWS))


@contextmanager
def full_precision() -> Iterator[None]:
    """Products in float32 are computed in float32, and not in TF32, whatever the process has set."""
    settings = torch.backends.cuda.matmul
    name, full = ("fp32_precision", "ieee") if hasattr(settings, "fp32_precision") else ("allow_tf32", False)
    before = getattr(settings, name)
    setattr(settings, name, full)
    try:
        yield
    finally:
        setattr(settings, name, before)
