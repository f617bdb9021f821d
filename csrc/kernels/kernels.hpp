// The table of kernels that exist once per instruction set, and their arguments. Like views.hpp: no STL, no inline
// code.
#pragma once
#include "../views.hpp"

namespace pydt {

constexpr std::int64_t block_rows = 256;  // rows that are summed one after another; blocks are then summed in a tree
constexpr std::int64_t sum_cols = 16;     // outputs in a tile of subset sums
constexpr std::int64_t moment_cols = 64;  // outputs in a tile of column moments

// How all images of a call are written. scale, bias: (channels,); row_scale, row_bias: the same, repeated along a row
// of width * channels values.
struct GatherPlan {
    std::int64_t height, width, channels;
    bool channels_last;
    const float* scale;
    const float* bias;
    const float* row_scale;
    const float* row_bias;
};

struct Kernels {
    const char* name;
    // One image into one place of the batch. scratch: 4 * width * channels bytes, of
    // which the first and the third quarter are 0 and stay so.
    void (*gather_image)(const GatherPlan& plan, const std::uint8_t* image, std::int64_t dy, std::int64_t dx, bool flip,
                         float* out, std::uint8_t* scratch);
    // counts[i * ld + j] += number of common bits of columns a + i * stride and b + j * stride, over `words` words.
    void (*gram_tile)(const std::uint64_t* a, std::int64_t rows_a, const std::uint64_t* b, std::int64_t rows_b,
                      std::int64_t stride, std::int64_t words, std::int64_t* counts, std::int64_t ld);
    // sums[k * sum_cols + j] = sum of the rows row0 .. row0 + rows (at most block_rows) of output col0 + j that group k
    // keeps: row r if bit r % 64 of columns[r / 64 * stride + k] is set, r counted from row0. Overwrites sums.
    void (*subset_block)(const Matrix& outputs, const double* shift, std::int64_t row0, std::int64_t rows,
                         std::int64_t col0, std::int64_t cols, const std::uint64_t* columns, std::int64_t stride,
                         std::int64_t groups, double* sums);
    // sums[j], squares[j] of the same rows of outputs col0 .. col0 + cols (at most moment_cols). Overwrites both.
    void (*moment_block)(const Matrix& outputs, const double* shift, std::int64_t row0, std::int64_t rows,
                         std::int64_t col0, std::int64_t cols, double* sums, double* squares);
    void (*add)(double* into, const double* from, std::int64_t count);
};

extern const Kernels kernels_scalar;
#ifdef PYDT_X86
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

const Kernels& kernels();  // dispatch.cpp: the table in use

}  // namespace pydt
