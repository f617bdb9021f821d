// Gram matrix of the masks and subset sums of the outputs, for data on the GPU.
//
//   Formulas: kernels/gram.inl and kernels/subset_sums.inl. Counts are exact. Sums are in float64 for any type of
//   outputs and in an order of their own (4 rows, blocks of 256 rows, a binary tree of blocks): they agree with the
//   CPU's within rounding, not to the bit.
//
// Both first transpose the masks into columns of 64-bit words: a warp then reads one word of a column and every lane
// holds the same bits, so the branch on a bit never diverges. Cost: Gram, groups^2 / 2 * rows / 64 popcounts; sums,
// rows * groups * outputs additions in float64 (half of them masked out). Not done: tables of 4 rows, tensor cores.
#include "../kernels/kernels.hpp"
#include "device.cuh"

#include <cuda_fp16.h>

namespace pydt {
namespace {

constexpr int tile_groups = 8;    // groups of a block of threads, one warp each
constexpr int tile_outputs = 32;  // outputs of it, one lane each
constexpr int max_levels = 48;    // of the tree: 2^48 blocks

unsigned blocks_for(std::int64_t size, std::int64_t tile, const char* argument) {
    const std::int64_t blocks = (size + tile - 1) / tile;
    if (blocks > 0x7FFFFFFF) throw ArgumentError(argument, "too large for one launch on the GPU");
    return static_cast<unsigned>(blocks);
}

// One thread: 64 rows of one group.
__global__ void columns_kernel(const std::uint8_t* masks, std::int64_t rows, std::int64_t groups,
                               std::int64_t row_bytes, std::int64_t words, std::uint64_t* columns) {
    const std::int64_t at = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    const std::int64_t k = at % groups, word = at / groups;
    if (word >= words) return;
    std::uint64_t bits = 0;
    for (std::int64_t r = word * 64; r < rows && r < word * 64 + 64; ++r)
        bits |= std::uint64_t(masks[r * row_bytes + k / 8] >> k % 8 & 1) << r % 64;
    columns[k * words + word] = bits;
}

void make_columns(const Masks& masks, std::int64_t words, std::uint64_t* columns, cudaStream_t stream) {
    const std::int64_t threads = static_cast<std::int64_t>(checked_size("packed", {masks.groups, words}));
    columns_kernel<<<blocks_for(threads, 256, "packed"), 256, 0, stream>>>(masks.data, masks.rows, masks.groups,
                                                                           masks.row_bytes, words, columns);
    check(cudaGetLastError(), "transposing masks on the GPU");
}

// One block of 16 x 16 threads: a tile of the matrix, 16 words of the two sets of columns at a time.
__global__ void gram_kernel(const std::uint64_t* columns, std::int64_t groups, std::int64_t words,
                            std::int64_t* counts) {
    __shared__ std::uint64_t a[16][17], b[16][17];
    const std::int64_t i = std::int64_t{blockIdx.y} * 16 + threadIdx.y, j = std::int64_t{blockIdx.x} * 16 + threadIdx.x;
    const std::int64_t row_of_b = std::int64_t{blockIdx.x} * 16 + threadIdx.y;
    std::int64_t common = 0;
    for (std::int64_t start = 0; start < words; start += 16) {
        const std::int64_t word = start + threadIdx.x;
        a[threadIdx.y][threadIdx.x] = i < groups && word < words ? columns[i * words + word] : 0;
        b[threadIdx.y][threadIdx.x] = row_of_b < groups && word < words ? columns[row_of_b * words + word] : 0;
        __syncthreads();
        for (int w = 0; w < 16; ++w) common += __popcll(a[threadIdx.y][w] & b[threadIdx.x][w]);
        __syncthreads();
    }
    if (i < groups && j < groups) counts[i * groups + j] = common;
}

__device__ double value_at(const Matrix& m, std::int64_t row, std::int64_t col) {
    const std::uint8_t* at = m.data + row * m.row_stride + col * m.col_stride;
    if (m.type == Float::f16) return static_cast<double>(__half2float(*reinterpret_cast<const __half*>(at)));
    if (m.type == Float::f32) return static_cast<double>(*reinterpret_cast<const float*>(at));
    return *reinterpret_cast<const double*>(at);
}

// One block of tile_groups warps: each thread one sum. 64 rows of the outputs at a time stand in shared memory.
__global__ void subset_kernel(Matrix outputs, const double* shift, const std::uint64_t* columns, std::int64_t words,
                              std::int64_t groups, double* sums) {
    __shared__ double y[64][tile_outputs];
    const std::int64_t k = std::int64_t{blockIdx.y} * tile_groups + threadIdx.y;
    const std::int64_t j = std::int64_t{blockIdx.x} * tile_outputs + threadIdx.x;
    double levels[max_levels], block = 0;
    int used = 0;
    for (std::int64_t word = 0; word < words; ++word) {
        for (int r = threadIdx.y; r < 64; r += tile_groups) {
            const std::int64_t row = word * 64 + r;
            y[r][threadIdx.x] = row < outputs.rows && j < outputs.cols ? value_at(outputs, row, j) - shift[j] : 0;
        }
        __syncthreads();
        const std::uint64_t bits = k < groups ? columns[k * words + word] : 0;
        for (int quad = 0; quad < 16; ++quad) {
            double four = 0;
            for (int r = quad * 4; r < quad * 4 + 4; ++r)
                if (bits >> r & 1) four += y[r][threadIdx.x];
            block += four;
        }
        __syncthreads();
        if (word % (block_rows / 64) == block_rows / 64 - 1 || word == words - 1) {
            levels[used++] = block;
            block = 0;
            for (std::int64_t n = word / (block_rows / 64) + 1; n % 2 == 0; n /= 2, --used)
                levels[used - 2] += levels[used - 1];
        }
    }
    for (; used > 1; --used) levels[used - 2] += levels[used - 1];
    if (k < groups && j < outputs.cols) sums[k * outputs.cols + j] = used == 1 ? levels[0] : 0;
}

}  // namespace

void cuda_gram(const Masks& masks, std::int64_t* counts, std::uintptr_t stream_address) {
    if (masks.groups == 0) return;
    const cudaStream_t stream = stream_at(stream_address);
    const std::int64_t words = (masks.rows + 63) / 64;
    const Scratch<std::uint64_t> columns(static_cast<std::int64_t>(checked_size("packed", {masks.groups, words})),
                                         stream);
    if (words > 0) make_columns(masks, words, columns.get(), stream);
    const unsigned side = blocks_for(masks.groups, 16, "groups");
    if (side > 65535) throw ArgumentError("groups", "too many for one launch on the GPU");
    gram_kernel<<<dim3(side, side), dim3(16, 16), 0, stream>>>(columns.get(), masks.groups, words, counts);
    check(cudaGetLastError(), "Gram matrix on the GPU");
}

void cuda_subset_sums(const Masks& masks, const Matrix& outputs, const double* shift, double* sums,
                      std::uintptr_t stream_address) {
    if (masks.groups == 0 || outputs.cols == 0) return;
    const cudaStream_t stream = stream_at(stream_address);
    const std::int64_t words = (masks.rows + 63) / 64;
    const Scratch<std::uint64_t> columns(static_cast<std::int64_t>(checked_size("packed", {masks.groups, words})),
                                         stream);
    if (words > 0) make_columns(masks, words, columns.get(), stream);
    const unsigned down = blocks_for(masks.groups, tile_groups, "groups");
    if (down > 65535) throw ArgumentError("groups", "too many for one launch on the GPU");
    subset_kernel<<<dim3(blocks_for(outputs.cols, tile_outputs, "outputs"), down), dim3(tile_outputs, tile_groups), 0,
                    stream>>>(outputs, shift, columns.get(), words, masks.groups, sums);
    check(cudaGetLastError(), "subset sums on the GPU");
}

}  // namespace pydt
