"""The compiled core. Arguments are checked, never converted: TypeError for the wrong kind of thing, ValueError for a
wrong value, both beginning with the argument's name. Arrays are C-contiguous and in native byte order unless said
otherwise. Results are the same to the last bit for any number of threads and any instruction set."""

import numpy as np
from numpy.typing import NDArray

def isa() -> str:
    """The instruction set in use: "scalar", "avx2" or "avx512" (F, BW, DQ, VL, VBMI, VPOPCNTDQ). The environment
    variable PYDT_ISA overrides the choice; an unknown or unsupported value raises RuntimeError at first use."""

def isas() -> list[str]:
    """The instruction sets that this build has and this machine can run, slowest first."""

def cuda_built() -> bool:
    """Whether this build has GPU code."""

def cuda_usable() -> bool:
    """Whether there are a driver and a device of compute capability 8.0 or newer. Never raises."""

def random_bits(seed: int, stream: int, ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 bits for each id (n,) that depend on (seed, stream, id) alone: Philox4x32-10 with key = seed and counter =
    (id, stream), its first two words. seed and stream are in 0..2**64 - 1. The lowest byte of a stream says what the
    bits are for (1 is the order of epoch `stream >> 8`); csrc/windows.hpp lists those in use."""

def epoch_order(seed: int, epoch: int, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions 0..n-1 sorted by (random_bits(seed, epoch << 8 | 1, id), id, position): the order of two examples
    relative to each other does not depend on which others are there. epoch is below 2**56."""

def pack(masks: NDArray[np.bool_] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """0/1 masks (models, groups) -> uint8 (models, ceil(groups / 8)), little bit first, unused bits 0."""

def unpack(packed: NDArray[np.uint8], groups: int) -> NDArray[np.bool_]:
    """The inverse of pack: bool (models, groups)."""

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
    scale 0..1. All places are functions of (seed, epoch, view, id); view is 0 or 1 and has random bits of its own.

    Without `scale`, images of the batch's size are padded by crop_pad black pixels on every side and a window of their
    own size is cut at offsets uniform over 0..2 * crop_pad: from bits = random_bits(seed, epoch << 8 | 2, id) (view 1:
    | 31), with low and high its 32-bit halves and n = 2 * crop_pad + 1: top = low * n >> 32, left = (high >> 1) * n >>
    31. Images of another size are resized: the largest central window of the batch's shape.

    With `scale` and `ratio`, a random resized crop with the distribution of torchvision's: a window of area uniform in
    `scale` shares of the image, width / height log-uniform in `ratio`, ten tries, then the central window.

    Resizing is bilinear with pixels centred at halves, inside of the window, not antialiased. With `flip` the image is
    mirrored left-right where high & 1."""

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
    """The random resized crop of images of any sizes (n, 2): height, width, positive. int32 start (n, 2): top, left;
    extent (n, 2): height, width; mirrored (n,): 0 or 1. They are those of `gather` for raw images of that size."""

def gram(packed: NDArray[np.uint8], groups: int, threads: int) -> NDArray[np.int64]:
    """M'M of the masks M: int64 (groups, groups), exact; the diagonal counts the models that kept each group."""

def codes(packed: NDArray[np.uint8], groups: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.uint64]:
    """The masks regrouped for subset_sums: uint64 (ceil(r / 48), groups).

    rows int64 (r,) says which rows of packed, in which order (repeats allowed); default all. Byte t of word (b, k)
    holds, in its bits 2..7, whether group k is kept by the rows 48 b + 6 t .. 48 b + 6 t + 5 of that order."""

def subset_sums(
    codes: NDArray[np.uint64],
    outputs: NDArray[np.floating],
    shift: NDArray[np.float64],
    threads: int,
    rows: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """M'(Y - shift): float64 (groups, n) from `codes(packed, groups, rows)` of the masks M.

    outputs Y (models, n), float16, float32 or float64, may have any strides and is read in place; shift (n,). rows
    int64 (r,): the row of outputs that belongs to the i-th coded row; default: all, r = models. NaN in a row reaches
    only the groups that the row kept. float64 outputs are summed in float64. float16 and float32: outputs - shift is
    rounded to float32, as are sums of up to 384 rows, which are then added in float64: the error is at most 15 * 2**-24
    times the sum of |output - shift| over the kept rows, however many; a sum of 384 rows beyond 3e38 is infinite."""

def subset_sums_int16(
    codes: NDArray[np.uint64],
    outputs: NDArray[np.floating],
    shift: NDArray[np.float64],
    threads: int,
    rows: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """subset_sums in 16-bit integers: (sums (groups, n), step (n,)), both float64.

    Each target is rounded to whole steps, step = max |output - shift| / 511 over the rows summed (computed in float32),
    and those are summed exactly: a sum of r rows is off by at most r * step / 2, and as a rule by sqrt(r / 12) steps. A
    target with a NaN or infinite output has NaN sums and a NaN step; one whose outputs all equal its shift has step
    0."""

def column_moments(
    outputs: NDArray[np.floating],
    shift: NDArray[np.float64],
    threads: int,
    rows: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums and sums of squares of (outputs - shift) down the columns, each float64 (n,), summed in float64. outputs,
    shift and rows as in subset_sums."""

def unit_squares(
    outputs: NDArray[np.floating],
    shift: NDArray[np.float64],
    starts: NDArray[np.int64],
    sign: NDArray[np.float64],
    threads: int,
    rows: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Sum over units of (sum over its rows of sign x (output - shift))^2 / its rows, float64 (n,), in float64. Unit u
    is the rows starts[u] .. starts[u + 1] of the order that `rows` gives; starts (units + 1,) rises from 0 to r; sign
    (r,). outputs, shift and rows as in subset_sums."""

def centred(
    cross: NDArray[np.float64], share: NDArray[np.float64], total: NDArray[np.float64], single: bool
) -> NDArray[np.floating]:
    """cross - share x total: (groups, n) less the product of (groups,) and (n,), computed in float64; float32 if
    `single`, else float64."""

def pooled_errors(
    centred: NDArray[np.floating],
    scale: NDArray[np.float64],
    weight: NDArray[np.float64],
    rho: NDArray[np.float64],
    energy: NDArray[np.float64],
    noise: NDArray[np.float64],
    df: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Differences of means scale c, and their errors sqrt(scale (noise + rho max(t - noise, 0))) with t = max(energy -
    weight c^2, 0) / df; c (groups, n), computed in its precision (float32 or float64); scale, weight, rho (groups,);
    energy, noise (n,). Float32 needs c^2 within its range."""

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
    start (K, n): values to set out from. With G = X'X / m, c = X'y / m, energy = y'y / m these are scikit-learn's
    Lasso and ElasticNet. Returns values (K, n), gap (n,) and iterations (n,), passes over the coordinates that may
    move. gap = duality gap / (energy / 2), in float64 at the values that are returned; a target is done at gap <=
    tolerance x (residual sum of squares / energy), or 2e-7 if that is more (float32 values), or after `limit` passes.
    Columns of G that are 0, and targets of energy 0, get 0; NaN or infinity in a target's cross, energy, penalty or
    start makes its values and gap NaN and touches no other target."""

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
    """`lasso` at falling penalties, judged on other rows: penalty i of target j = steps[i] max_k |cross_kj| /
    l1_ratio.

    held_*: the same statistics of the held-out rows; steps (s,), positive and falling. Returns error (s, n) =
    held_energy - 2 b'held_cross + b'held_gram b, inf behind the place where a target stopped: where the error is above
    the least by three standard errors, or `patience` worse steps after it, once the least is below the error of b = 0
    by four (0: never); held_rows: independent rows behind held_*, which these standard errors are for; values (K, n)
    at the least error and their gap (n,), as in `lasso`; nonzeros (s, n), 0 behind the stop. NaN or infinity in a
    target's statistics makes all of its results NaN (nonzeros 0)."""

def sparse_product(gram: NDArray[np.float64], values: NDArray[np.float32], threads: int = 1) -> NDArray[np.float64]:
    """gram (R, K) @ values (K, n) -> float64 (R, n), summed over k in ascending order in float64, passing over the
    zeros of values (a NaN or infinity in gram beside a zero does not show)."""

def crc32c(bytes: NDArray[np.uint8]) -> int:
    """CRC32C (Castagnoli, RFC 3720) of bytes (n,)."""

def crc_records(images: NDArray[np.uint8], positions: NDArray[np.int64], threads: int) -> NDArray[np.uint32]:
    """CRC32C of the bytes of images[p] for every position p: uint32 (positions,); images (N, H, W, C)."""

def check_index_head(bytes: NDArray[np.uint8], file_size: int) -> None:
    """ValueError unless these are the first bytes (64 or more) of an index file of `file_size` bytes."""

def read_index(bytes: NDArray[np.uint8]) -> list[tuple[str, int, int, int, int]]:
    """The sections of an index file (layout: csrc/records.cpp): (name, kind, count, offset, bytes), the payload being
    bytes[offset : offset + bytes]. Kind 1 uint8, 2 uint32, 3 int64, 4 texts: int64 (count + 1,) ends that start at 0,
    rise and end with the payload, then UTF-8. ValueError if any byte is not what was written."""

def image_sides(records: list[NDArray[np.uint8]]) -> NDArray[np.int32]:
    """int32 (n, 2): height and width of each encoded image (uint8, any bytes) that all decoders read alike: a JPEG of 8
    bits in grey or three colours, or a PNG of up to 8 bits a channel, with its end, of at most 178,956,970 pixels
    (beyond which PIL refuses). Zeros for all else."""

def read_files(
    ends: NDArray[np.int64],
    bytes: NDArray[np.uint8],
    lengths: NDArray[np.int64],
    out: NDArray[np.uint8],
    sums: bool = True,
) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
    """Reads the files bytes[ends[i] : ends[i + 1]] (n,) of known lengths (n,) one after another into out: (status,
    CRC32C), each (n,); without `sums` the second is (0,). Status: 0, the system's error number, -1 no regular file, -2
    of another length than given, -3 empty, -4 no image by its first bytes, -5 an image without its end."""

def read_tar(
    bytes: NDArray[np.uint8],
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The regular files of a tar archive (what is read and what is refused: csrc/tar.cpp), in its order: ends (n + 1,)
    and bytes of their names, places of their headers, of their bytes, and sizes, each (n,). ValueError that ends with
    the place ("..., at byte 512") if any of it is damaged, cut off, or nothing that belongs into a data set."""

def check_parts(
    bytes: NDArray[np.uint8], offsets: NDArray[np.int64], lengths: NDArray[np.int64], threads: int
) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
    """(status, CRC32C), each (n,), of the parts bytes[offset : offset + length]; status as in read_files."""

def map_file(path: bytes) -> tuple[NDArray[np.uint8], int, int, int]:
    """A regular file as read-only uint8 (size,), mapped as long as the array or a view of it lives; its time of change
    in ns, device and inode. No descriptor stays open. OSError if it cannot be opened, ValueError if it is no regular
    file."""

def repeated_text(ends: NDArray[np.int64], bytes: NDArray[np.uint8]) -> int:
    """The first i for which bytes[ends[i] : ends[i + 1]] equals an earlier text; -1 if all differ. ends (n + 1,)."""

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
    """`gather`, the same bits, with images and out at GPU addresses (torch's `data_ptr()`): uint8 (N, H, W, C) = shape,
    and "float32", "float16" or "bfloat16" (B, C, *size), dense as NCHW or NHWC. index, ids, mean and std are host
    arrays and may be reused at once. The work is queued on `stream` (torch's `cuda_stream`; 0 is the default) of the
    current device. RuntimeError if the GPU refuses or the build has no CUDA."""

def cuda_gram(packed: int, rows: int, groups: int, out: int, stream: int) -> None:
    """`gram` at GPU addresses: packed uint8 (rows, ceil(groups / 8)) -> out int64 (groups, groups), queued on
    `stream`."""

def cuda_subset_sums(
    packed: int,
    rows: int,
    groups: int,
    outputs: int,
    cols: int,
    dtype: str,
    row_stride: int,
    col_stride: int,
    shift: int,
    out: int,
    stream: int,
) -> None:
    """`subset_sums` of packed masks at GPU addresses, in float64: outputs (rows, cols) of dtype "float16",
    "float32" or "float64" with strides in bytes; shift float64 (cols,); out float64 (groups, cols). Queued on
    `stream`."""
