// The parts of influence regression on the GPU that are no matrix product.
//
//   expand_masks    out[i, k] = bit k of mask i, as 0 or 1                 (rows, groups) from bits
//   pooled_errors   the formula of epilogue.cpp and, with -fmad=false, its bits
//   proximal_step   one pass of the solver of pydt/estimation/tensor_lasso.py: its array_step has the formulas
//
// All arrays are row-major, (groups, targets) or (rows, groups): neighbouring threads have neighbouring entries of a
// row, so loads and stores coalesce. All three are bound by memory. Bytes for each entry, T of s bytes:
//
//   expand_masks    s written (masks are read as bits: 32 or 64 times less)
//   pooled_errors   s read, 8 written; array expressions took about 20 s
//   proximal_step   8 s read, 3 s written, for targets that are not done; array expressions take about 60 s
//
// Sums down the groups of a target are added in a fixed order, without atomics: the same bits in every run.
#include "device.cuh"

namespace pydt {
namespace {

unsigned blocks_for(std::int64_t size, std::int64_t tile, const char* argument) {
    const std::int64_t blocks = size / tile + (size % tile > 0 ? 1 : 0);
    if (blocks > 0x7FFFFFFF) throw ArgumentError(argument, "too many for one launch on the GPU");
    return static_cast<unsigned>(blocks);
}

// One block writes one row. A row number that is not there gives NaN, since the host does not see the list.
template <class T>
__global__ void expand_kernel(Masks masks, const std::int64_t* index, T* out, std::int64_t leading) {
    const std::int64_t row = index == nullptr ? std::int64_t{blockIdx.x} : index[blockIdx.x];
    const bool there = row >= 0 && row < masks.rows;
    const std::uint8_t* bits = masks.data + (there ? row : 0) * masks.row_bytes;
    T* to = out + blockIdx.x * leading;
    for (std::int64_t k = threadIdx.x; k < masks.groups; k += blockDim.x)
        to[k] = there ? static_cast<T>(bits[k / 8] >> k % 8 & 1) : static_cast<T>(NAN);
}

// ---- pooled errors ----------------------------------------------------------------------------------------------
constexpr int targets_of_block = 256;
constexpr std::int64_t groups_of_block = 64;

// One thread: up to 64 groups of one target. (groups,): scale, weight, rho; (targets,): level, noise.
template <class T>
__global__ void errors_kernel(const T* centred, std::int64_t groups, std::int64_t targets, const T* vectors,
                              float* values, float* errors) {
    const std::int64_t blocks = (targets + targets_of_block - 1) / targets_of_block;
    const std::int64_t j = blockIdx.x % blocks * targets_of_block + threadIdx.x;
    const std::int64_t start = blockIdx.x / blocks * groups_of_block;
    if (j >= targets) return;
    const T *scale = vectors, *weight = scale + groups, *rho = weight + groups, *level = rho + groups;
    const T noise = level[targets + j];
    for (std::int64_t k = start; k < groups && k < start + groups_of_block; ++k) {
        const std::int64_t at = k * targets + j;
        const T c = centred[at];
        const T spread = level[j] - weight[k] * c * c, t = spread < 0 ? 0 : spread;
        const T more = t - noise;
        values[at] = static_cast<float>(scale[k] * c);
        errors[at] = static_cast<float>(sqrt(scale[k] * (noise + rho[k] * (more < 0 ? 0 : more))));
    }
}

// ---- proximal step ----------------------------------------------------------------------------------------------
constexpr int columns = 32;  // targets of a block
constexpr int lanes = 16;    // threads of a target: each has every 16th group

// The sum of a target's threads, the same bits in each of them. All threads of the block must call it.
template <class T>
__device__ T sum_of_lanes(T (&tile)[lanes][columns], T mine) {
    tile[threadIdx.y][threadIdx.x] = mine;
    __syncthreads();
    T sum = 0;
    for (int y = 0; y < lanes; ++y) sum += tile[y][threadIdx.x];
    __syncthreads();  // before the next call writes
    return sum;
}

template <class T>
__device__ T largest_of_lanes(T (&tile)[lanes][columns], T mine) {
    tile[threadIdx.y][threadIdx.x] = mine;
    __syncthreads();
    T largest = 0;
    for (int y = 0; y < lanes; ++y) largest = tile[y][threadIdx.x] > largest ? tile[y][threadIdx.x] : largest;
    __syncthreads();
    return largest;
}

// One block: 32 targets, read twice: once for the certificate, once for the move. Every thread of a target computes its
// scalars. Threads of targets that are done, or beyond the last, only keep the barriers.
template <class T>
__global__ void step_kernel(ProximalStep<T> p) {
    using Tile = T[lanes][columns];
    PYDT_SHARED(Tile, tile);
    const std::int64_t n = p.targets, j = std::int64_t{blockIdx.x} * columns + threadIdx.x;
    const bool open = j < n && p.state[8 * n + j] > 0;
    const auto entry = [&](int row) { return open ? p.state[row * n + j] : T{0}; };
    const std::int64_t groups = open ? p.groups : 0;
    const T edge = entry(0), ridge = entry(1), energy = entry(2), share = entry(3), least = entry(4);
    T clock = entry(5);
    const T mark = entry(6), passes = entry(7);

    T most = 0, excess = 0, along = 0, fit = 0, active = 0;
    for (std::int64_t k = threadIdx.y; k < groups; k += lanes) {
        const std::int64_t at = k * n + j;
        const T value = p.values[at], pull = p.slope[at] - p.push[at] - ridge * value, shared = value * pull;
        most = fabs(pull) > most ? fabs(pull) : most;
        excess += fabs(value) * edge - shared;
        along += shared;
        fit += value * p.cross[at];
        active += value != 0 ? 1 : 0;
    }
    most = largest_of_lanes(tile, most);
    excess = sum_of_lanes(tile, excess);
    along = sum_of_lanes(tile, along);
    fit = sum_of_lanes(tile, fit);
    active = sum_of_lanes(tile, active);

    // Comparisons are such that NaN counts as neither done nor fast.
    const T unexplained = energy - fit - along, square = unexplained < 0 ? 0 : unexplained;
    const T rest = most > edge ? 1 - edge / most : 0;
    const T gap = (rest * rest * square / 2 + excess + rest * along) / (energy / 2), left = square / energy;
    const T part = share * (left > 1 ? 1 : left), wanted = part < least ? least : part;
    const bool nesterov = clock > 0, start = passes == 0;
    const auto count = static_cast<std::int64_t>(passes);
    const bool check = nesterov ? count % 32 == 31 : count % 4 == 3;
    const bool slow = check && !(gap < (nesterov ? static_cast<T>(0.9) * mark : mark / 2));
    const bool stuck = slow && gap <= 8 * wanted && sizeof(T) == 4;  // rounding is all that is left
    const bool done = gap <= wanted || passes >= p.limit || stuck;
    const bool undo = !done && !nesterov && !start && !(gap <= 4 * mark);  // the step was too long
    const bool change = undo || (!nesterov && slow);
    if (change) clock = 1;
    const bool safe = nesterov || change;
    const T after = (1 + sqrt(1 + 4 * clock * clock)) / 2, lean = safe ? (clock - 1) / after : 0;
    const T trust = active * p.spread / ((1 + ridge) * (1 + ridge)), limit = static_cast<T>(0.8);
    const T momentum = safe ? lean : trust > limit ? limit : trust, curve = safe ? p.steep : 1;

    T turn = 0, moves = 0;
    for (std::int64_t k = threadIdx.y; k < groups; k += lanes) {
        const std::int64_t at = k * n + j;
        const T before = p.slope[at];
        if (done) {
            p.slope[at] = before - p.push[at];
            p.moved[at] = 0;
            continue;
        }
        const T back = undo ? p.moved[at] : 0, move = p.moved[at] - back, push = undo ? 0 : p.push[at];
        const T value = p.values[at] - back, slope = before - push, diagonal = p.diagonal[k];
        const T own = curve * diagonal + ridge, centre = value + momentum * move;
        const T ahead = own * centre + slope - lean * push - ridge * (value + lean * move);
        const T clipped = ahead < -edge ? -edge : ahead > edge ? edge : ahead;
        const T next = diagonal > 0 ? (ahead - clipped) / own : value;
        turn += (centre - next) * own * (next - value);
        moves += next != value ? 1 : 0;
        p.values[at] = next;
        p.moved[at] = next - value;
        p.slope[at] = slope;
    }
    turn = sum_of_lanes(tile, turn);
    moves = sum_of_lanes(tile, moves);
    if (!open || threadIdx.y > 0) return;
    const auto put = [&](int row, T value) { p.state[row * n + j] = value; };
    put(9, gap);
    put(10, left);
    put(8, !done && moves > 0 ? 1 : 0);
    if (done) return;
    put(5, !safe ? clock : turn > 0 ? 1 : after);
    if (start || check || change) put(6, change ? static_cast<T>(INFINITY) : gap);
    put(7, passes + 1);
}

}  // namespace

template <class T>
void cuda_expand_masks(const Masks& masks, const Rows& rows, T* out, std::int64_t leading,
                       std::uintptr_t stream_address) {
    if (rows.count == 0 || masks.groups == 0) return;
    const cudaStream_t stream = stream_at(stream_address);
    PYDT_LAUNCH(expand_kernel<T>, blocks_for(rows.count, 1, "count"), 256, 0, stream, masks, rows.index, out, leading);
    check(cudaGetLastError(), "expanding masks on the GPU");
}

template <class T>
void cuda_pooled_errors(const T* centred, std::int64_t groups, std::int64_t targets, const Pooling& how, float* values,
                        float* errors, std::uintptr_t stream_address) {
    if (groups == 0 || targets == 0) return;
    const cudaStream_t stream = stream_at(stream_address);
    // One copy for all vectors, from pageable memory: it has been read when the call returns.
    const std::size_t count = checked_size("centred", {3 * groups + 2 * targets, 1});
    std::vector<T> vectors;
    vectors.reserve(count);
    const auto add = [&](const double* from, std::int64_t size, double divisor) {
        for (std::int64_t i = 0; i < size; ++i) vectors.push_back(static_cast<T>(from[i] / divisor));
    };
    add(how.scale, groups, 1);
    add(how.weight, groups, how.df);
    add(how.rho, groups, 1);
    add(how.energy, targets, how.df);
    add(how.noise, targets, 1);
    const Scratch<T> device(static_cast<std::int64_t>(count), stream);
    check(cudaMemcpyAsync(device.get(), vectors.data(), count * sizeof(T), cudaMemcpyHostToDevice, stream),
          "copying vectors to the GPU");
    const std::int64_t across = blocks_for(targets, targets_of_block, "targets"),
                       down = blocks_for(groups, groups_of_block, "groups");
    PYDT_LAUNCH(errors_kernel<T>, blocks_for(across * down, 1, "targets"), targets_of_block, 0, stream, centred, groups,
                targets, device.get(), values, errors);
    check(cudaGetLastError(), "errors on the GPU");
}

template <class T>
void cuda_proximal_step(const ProximalStep<T>& step, std::uintptr_t stream_address) {
    if (step.groups == 0 || step.targets == 0) return;
    const cudaStream_t stream = stream_at(stream_address);
    PYDT_LAUNCH(step_kernel<T>, blocks_for(step.targets, columns, "targets"), dim3(columns, lanes), 0, stream, step);
    check(cudaGetLastError(), "proximal step on the GPU");
}

template void cuda_expand_masks(const Masks&, const Rows&, float*, std::int64_t, std::uintptr_t);
template void cuda_expand_masks(const Masks&, const Rows&, double*, std::int64_t, std::uintptr_t);
template void cuda_pooled_errors(const float*, std::int64_t, std::int64_t, const Pooling&, float*, float*,
                                 std::uintptr_t);
template void cuda_pooled_errors(const double*, std::int64_t, std::int64_t, const Pooling&, float*, float*,
                                 std::uintptr_t);
template void cuda_proximal_step(const ProximalStep<float>&, std::uintptr_t);
template void cuda_proximal_step(const ProximalStep<double>&, std::uintptr_t);

}  // namespace pydt
