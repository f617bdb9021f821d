"""The compiled core.

Arguments are checked, never converted: TypeError for a wrong type, ValueError for a wrong value, both beginning with
the argument's name. Arrays are C-contiguous and in native byte order unless said otherwise. Results are the same to the
last bit for any number of threads and any instruction set. A row is one trained model and its outputs."""

import numpy as np
from numpy.typing import NDArray

def isa() -> str:
    """The instruction set in use: "scalar", "avx2" or "avx512" (F, BW, DQ, VL, VBMI, VPOPCNTDQ). The environment
    variable PYDT_ISA overrides the choice; RuntimeError at first use if its value is unknown or unsupported."""

def isas() -> list[str]:
    """The instruction sets that this build has and this machine supports, slowest first."""

def cuda_built() -> bool:
    """Whether this build has GPU code."""

def cuda_usable() -> bool:
    """Whether this machine has a driver and a device of compute capability 8.0 or newer. Never raises."""

def random_bits(seed: int, stream: int, ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 bits for each id (n,), a function of (seed, stream, id) alone: the first two words of Philox4x32-10 with key =
    seed and counter = (id, stream). seed and stream are in 0..2**64 - 1. csrc/windows.hpp lists the streams in use."""

def epoch_order(seed: int, epoch: int, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions 0..n-1 sorted by (random_bits(seed, epoch << 8 | 1, id), id, position). So removing ids keeps the order
    of the others. epoch is below 2**56."""

def pack(masks: NDArray[np.bool_] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """0/1 masks (rows, groups) -> uint8 (rows, ceil(groups / 8)): group k is bit k % 8 of byte k // 8, other bits 0."""

def unpack(packed: NDArray[np.uint8], groups: int) -> NDArray[np.bool_]:
    """The inverse of pack: bool (rows, groups)."""

def gather(
    images: NDArray[np.uint8],
    index: NDArray[np.int64],
    ids: NDArray[np.int64],
    out: NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint16],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    crop_pad: int,
    flip: bool,
    seed: int,
    epoch: int,
    threads: int,
    view: int = 0,
    scale: tuple[float, float] | None = None,
    ratio: tuple[float, float] | None = None,
) -> None:
    """out[b] = (images[index[b]] / 255 - mean) / std as (channels, height, width), cropped or resized, and mirrored.

    images (N, H, W, C), may be a read-only memory map; index, ids (B,); out (B, C, h, w), dense as NCHW or as
    channels_last, of float32, float16 or uint16 (the bits of bfloat16), rounded to nearest even; mean, std (C,), on the
    scale 0..1. Shifts, windows and mirroring are functions of (seed, epoch, view, id); view is 0 or 1.

    Without `scale`, images of the batch's size are padded by crop_pad black pixels on every side, and a window of their
    own size is cut at offsets uniform over 0..2 * crop_pad: from bits = random_bits(seed, epoch << 8 | 2, id) (view 1:
    | 31), with low and high its 32-bit halves and n = 2 * crop_pad + 1: top = low * n >> 32, left = (high >> 1) * n >>
    31. Images of another size are resized: the largest central window of the batch's shape.

    With `scale` and `ratio`, a random resized crop with the distribution of torchvision's: area uniform in `scale`
    shares of the image, width / height log-uniform in `ratio`, ten tries, then the central window.

    Resizing is bilinear within the window, with pixels centred at halves, without antialiasing. With `flip` the image
    is mirrored left-right where high & 1."""

def crop_windows(
    sizes: NDArray[np.int32],
    ids: NDArray[np.int64],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: bool,
    seed: int,
    epoch: int,
    view: int = 0,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """The random resized crops that `gather` makes of images of these sizes (n, 2): height, width, positive. Returns
    int32 start (n, 2): top, left; extent (n, 2): height, width; mirrored (n,): 0 or 1."""

def gram(packed: NDArray[np.uint8], groups: int, threads: int) -> NDArray[np.int64]:
    """M'M of the masks M: int64 (groups, groups), exact. The diagonal counts the rows that keep each group."""

def codes(packed: NDArray[np.uint8], groups: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.uint64]:
    """The masks regrouped for subset_sums: uint64 (ceil(r / 48), groups).

    rows int64 (r,): which rows of packed, in which order, repeats allowed; default: all. Bits 2..7 of byte t of word
    (b, k) say whether rows 48 b + 6 t .. 48 b + 6 t + 5 of that order keep group k."""

def subset_sums(
    codes: NDArray[np.uint64],
    outputs: NDArray[np.floating],
    shift: NDArray[np.float64],
    threads: int,
    rows: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """M'(Y - shift): float64 (groups, n) from `codes(packed, groups, rows)` of the masks M.

    outputs Y (all rows, n), float16, float32 or float64, of any strides, read in place; shift (n,). rows int64 (r,):
    the row of outputs that belongs to the i-th coded row; default: all. NaN in a row reaches only the groups that the
    row keeps. float64 outputs are summed in float64. For float16 and float32, outputs - shift is rounded to float32, as
    are sums of up to 384 rows, which are then added in float64: the error is at most 15 * 2**-24 times the sum of
    |output - shift| over the rows summed, for any number of rows; a sum of 384 rows beyond 3e38 is infinite."""

def sums_and_moments(
    codes: NDArray[np.uint64],
    outputs: NDArray[np.floating],
    shift: NDArray[np.float64],
    threads: int,
    rows: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """subset_sums, and the two of column_moments, from one reading of the outputs; the same bits."""

def subset_sums_int16(
    codes: NDArray[np.uint64],
    outputs: NDArray[np.floating],
    shift: NDArray[np.float64],
    threads: int,
    rows: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """subset_sums in 16-bit integers: (sums (groups, n), step (n,)), both float64.

    output - shift is rounded to whole steps, step = max |output - shift| / 511 of each target (computed in float32),
    and the steps are summed exactly. So a sum of r rows has an error of at most r * step / 2, typically of sqrt(r / 12)
    steps. A target with a NaN or infinite output has NaN sums and a NaN step; one whose outputs all equal its shift has
    step 0."""

def column_moments(
    outputs: NDArray[np.floating],
    shift: NDArray[np.float64],
    threads: int,
    rows: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums and sums of squares of (outputs - shift) over the rows, each float64 (n,), summed in float64. outputs, shift
    and rows as in subset_sums."""

def unit_squares(
    outputs: NDArray[np.floating],
    shift: NDArray[np.float64],
    starts: NDArray[np.int64],
    sign: NDArray[np.float64],
    threads: int,
    rows: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Sum over units of (sum over the unit's rows of sign * (output - shift))^2 / rows of the unit: float64 (n,), in
    float64. Unit u is rows starts[u] .. starts[u + 1] - 1 of the order that `rows` gives; starts (units + 1,) rises
    from 0 to r; sign (r,). outputs, shift and rows as in subset_sums."""

def centred(
    cross: NDArray[np.float64], share: NDArray[np.float64], total: NDArray[np.float64], single: bool
) -> NDArray[np.floating]:
    """cross - share total': (groups, n) less the outer product of (groups,) and (n,), computed in float64, returned as
    float32 if `single`, else float64."""

def triangle_panels(lower: NDArray[np.float64]) -> NDArray[np.float32]:
    """The lower triangle L (groups, groups) in float32, in the order in which `triangle_squares` reads it; what is
    above its diagonal is not read."""

def triangle_squares(panels: NDArray[np.float32], cross: NDArray[np.float32], threads: int) -> NDArray[np.float64]:
    """Sums of squares down the columns of L^-1 cross, float64 (n,); panels = triangle_panels(L), cross (groups, n). By
    forward substitution in float32; squares are summed in float64. "avx2" and "avx512" fuse multiplications and
    additions and give the same bits; "scalar" does not."""

def pooled_errors(
    centred: NDArray[np.floating],
    scale: NDArray[np.float64],
    weight: NDArray[np.float64],
    rho: NDArray[np.float64],
    energy: NDArray[np.float64],
    noise: NDArray[np.float64],
    df: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Differences of means scale c, and their standard errors sqrt(scale (noise + rho max(t - noise, 0))) with t =
    max(energy - weight c^2, 0) / df; c = centred (groups, n), float32 or float64, which is the precision of the
    computation; scale, weight, rho (groups,); energy, noise (n,). In float32, c^2 must not overflow."""

def lasso(
    gram: NDArray[np.float64],
    cross: NDArray[np.float64],
    energy: NDArray[np.float64],
    penalty: NDArray[np.float64],
    start: NDArray[np.float32] | None = None,
    *,
    l1_ratio: float = 1.0,
    tolerance: float = 1e-6,
    limit: int = 1000,
    threads: int = 1,
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
    """Minimise b'Gb / 2 - b'c + penalty (l1_ratio |b|_1 + (1 - l1_ratio) |b|^2 / 2) for every target.

    gram G (K, K), symmetric, positive semidefinite; cross c (K, n); energy (n,) = y'y; penalty (n,), not negative;
    start (K, n): values to start from. With G = X'X / m, c = X'y / m, energy = y'y / m these are scikit-learn's Lasso
    and ElasticNet. Returns values (K, n), gap (n,) and iterations (n,), passes over the coordinates that may move. gap
    = duality gap / (energy / 2), in float64 at the returned values; a target is done at gap <= tolerance * (residual
    sum of squares / energy), or 2e-7 if that is more (float32 values), or after `limit` passes. Groups whose column of
    G is 0, and targets of energy 0, get values 0. NaN or infinity in a target's cross, energy, penalty or start makes
    its values and gap NaN and leaves other targets alone."""

def lasso_path(
    gram: NDArray[np.float64],
    cross: NDArray[np.float64],
    energy: NDArray[np.float64],
    held_gram: NDArray[np.float64],
    held_cross: NDArray[np.float64],
    held_energy: NDArray[np.float64],
    steps: NDArray[np.float64],
    *,
    l1_ratio: float = 1.0,
    tolerance: float = 1e-6,
    limit: int = 1000,
    patience: int = 0,
    held_rows: int = 1,
    threads: int = 1,
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float64], NDArray[np.int32]]:
    """`lasso` at falling penalties, with the error on held-out rows: penalty i of target j = steps[i] max_k |cross_kj|
    / l1_ratio.

    held_*: the same statistics of the held-out rows; held_rows: the independent rows among them; steps (s,), positive
    and falling. A target stops where its error is above the least one by three standard errors, or `patience` (0: off)
    worse steps after the least one, if that is below the error of b = 0 by four standard errors.

    Returns error (s, n) = held_energy - 2 b'held_cross + b'held_gram b, inf after the stop; values (K, n) at the least
    error and their gap (n,), as in `lasso`; nonzeros (s, n), 0 after the stop. NaN or infinity in a target's statistics
    makes all of its results NaN (nonzeros 0)."""

def sparse_product(gram: NDArray[np.float64], values: NDArray[np.float32], threads: int = 1) -> NDArray[np.float64]:
    """gram (R, K) @ values (K, n) -> float64 (R, n), summed over k in ascending order in float64. Zeros of values are
    skipped, so NaN or infinity in gram times zero counts as zero."""

def crc32c(bytes: NDArray[np.uint8]) -> int:
    """CRC32C (Castagnoli, RFC 3720) of bytes (n,)."""

def crc_records(images: NDArray[np.uint8], positions: NDArray[np.int64], threads: int) -> NDArray[np.uint32]:
    """CRC32C of the bytes of images[p] for every position p: uint32 (positions,); images (N, H, W, C)."""

def check_index_head(bytes: NDArray[np.uint8], file_size: int) -> None:
    """ValueError unless these are the first bytes (64 or more) of an index file of `file_size` bytes."""

def read_index(bytes: NDArray[np.uint8]) -> list[tuple[str, int, int, int, int]]:
    """The sections of an index file (layout: csrc/records.cpp): (name, kind, count, offset, bytes). The payload is
    bytes[offset : offset + bytes]. Kind 1 uint8, 2 uint32, 3 int64, 4 texts: int64 (count + 1,) ends, the first 0,
    then UTF-8. ValueError if the file is damaged."""

def image_sides(records: list[NDArray[np.uint8]]) -> NDArray[np.int32]:
    """int32 (n, 2): height and width of each encoded image (uint8, any bytes) that all decoders read alike: a JPEG of 8
    bits in grey or three colours, or an opaque PNG of up to 8 bits a channel, complete, of at most 178,956,970 pixels
    (PIL's limit). Zeros for all others."""

def read_files(
    ends: NDArray[np.int64],
    bytes: NDArray[np.uint8],
    lengths: NDArray[np.int64],
    out: NDArray[np.uint8],
    sums: bool = True,
) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
    """Reads the files with the paths bytes[ends[i] : ends[i + 1]] (n,) and known lengths (n,) one behind another into
    out. Returns status and CRC32C, each (n,); without `sums`, the second is (0,). Status: 0; the system's error number;
    -1 not a regular file; -2 another length; -3 empty; -4 not an image, by its first bytes; -5 an image cut off."""

def read_tar(
    bytes: NDArray[np.uint8],
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The regular files of a tar archive (what is read and refused: csrc/tar.cpp), in its order: ends (n + 1,) and
    bytes of their names; the places of their headers and of their bytes, and sizes, each (n,). ValueError that ends
    with the place ("..., at byte 512") if the archive is damaged, cut off, or holds what a data set cannot use."""

def check_parts(
    bytes: NDArray[np.uint8], offsets: NDArray[np.int64], lengths: NDArray[np.int64], threads: int
) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
    """Status, as in read_files, and CRC32C, each (n,), of the parts bytes[offset : offset + length]."""

def map_file(path: bytes) -> tuple[NDArray[np.uint8], int, int, int]:
    """A regular file as read-only uint8 (size,), mapped as long as the array or a view of it lives; the time of its
    last change in ns, device and inode. No descriptor stays open. OSError if the file cannot be opened, ValueError if
    it is not a regular file."""

def repeated_text(ends: NDArray[np.int64], bytes: NDArray[np.uint8]) -> int:
    """The first i whose text bytes[ends[i] : ends[i + 1]] equals an earlier one; -1 if all differ. ends (n + 1,)."""

def cuda_gather(
    images: int,
    shape: tuple[int, int, int, int],
    index: NDArray[np.int64],
    ids: NDArray[np.int64],
    out: int,
    size: tuple[int, int],
    dtype: str,
    channels_last: bool,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    crop_pad: int,
    flip: bool,
    seed: int,
    epoch: int,
    stream: int,
    view: int = 0,
    scale: tuple[float, float] | None = None,
    ratio: tuple[float, float] | None = None,
) -> None:
    """`gather` to the same bits, with images and out at GPU addresses (torch's `data_ptr()`): images uint8 (N, H, W, C)
    = shape; out (B, C, *size) of dtype "float32", "float16" or "bfloat16", dense as NCHW or NHWC. index, ids, mean and
    std are host arrays and may be reused at once. The work is queued on `stream` (torch's `cuda_stream`; 0 is the
    default) of the current device. RuntimeError if the GPU reports an error or the build has no CUDA code."""

def cuda_expand_masks(
    packed: int, rows: int, groups: int, index: int, count: int, out: int, leading: int, dtype: str, stream: int
) -> None:
    """0/1 masks of some rows at GPU addresses: packed uint8 (rows, ceil(groups / 8)) -> out (count, groups) of dtype
    "float32" or "float64", `leading` entries from row to row (at least groups). index: address of int64 (count,) row
    numbers, or 0 for the first `count` rows; a number outside 0..rows - 1 makes a row of NaN. Queued on `stream`, as by
    `cuda_gather`."""

def cuda_pooled_errors(
    centred: int,
    scale: NDArray[np.float64],
    weight: NDArray[np.float64],
    rho: NDArray[np.float64],
    energy: NDArray[np.float64],
    noise: NDArray[np.float64],
    df: float,
    values: int,
    errors: int,
    dtype: str,
    stream: int,
) -> None:
    """`pooled_errors` to the same bits at GPU addresses: centred (groups, targets) of dtype "float32" or "float64" ->
    values and errors float32 (groups, targets). scale, weight, rho (groups,), energy and noise (targets,) are host
    arrays and may be reused at once. Queued on `stream`, as by `cuda_gather`."""

def cuda_proximal_step(
    values: int,
    moved: int,
    slope: int,
    push: int,
    cross: int,
    diagonal: int,
    state: int,
    groups: int,
    targets: int,
    spread: float,
    steep: float,
    limit: int,
    dtype: str,
    stream: int,
) -> None:
    """One pass of the penalised solver in place, as `pydt.estimation.tensor_lasso.array_step` makes it, at GPU
    addresses of arrays of dtype "float32" or "float64": values, moved, slope, push and cross (groups, targets),
    diagonal (groups,), state (11, targets). A target whose `open` (row 8 of state) is 0 is neither read nor written.
    The same bits in every run. Queued on `stream`, as by `cuda_gather`."""
