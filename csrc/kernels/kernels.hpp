// The table of kernels that exist once per instruction set, and their arguments. Like views.hpp: no STL, no inline
// code.
#pragma once
#include "../views.hpp"

namespace pydt {

constexpr std::int64_t block_rows = 256;   // rows of column moments summed one after another; then blocks in a tree
constexpr std::int64_t moment_cols = 256;  // outputs in a tile of column moments
constexpr std::int64_t code_rows = 48;     // rows in a word of codes

// How all images of a call are written. An output row has `planes` parts of `part` values: (channels, width), or one part
// of width * channels. Value i of a part is channel i % step of pixel i / step; plane p adds p to the channel.
struct GatherPlan {
    std::int64_t height, width, channels;  // of the images
    std::int64_t rows, columns;            // of the batch
    std::int64_t planes, part, step;
    std::int64_t plane_stride, row_stride;  // in values, of the output
    Pixel type;
    const float* scale;  // (planes, part): what the values of a row are multiplied with,
    const float* bias;   // and what is added
    // (2, part): which byte of an image row value i of the first plane is, plain and mirrored; of images that keep their
    // size.
    const std::int32_t* offsets;
};

// Memory that is wanted soon: fetched a few lines at a time between parts of other work. The processor keeps some twenty
// lines under way; asked for a whole image at once, it waits for the first ones before it goes on.
struct Ahead {
    const std::uint8_t *next, *end;
};

// Where the values of a resized image lie: bytes of an image row, for the first plane, and rows of the image; the lower
// and the higher neighbour, and the higher one's weight.
struct Grid {
    const std::int32_t* low;  // (part,)
    const std::int32_t* high;
    const float* weight;
    const std::int32_t* row_low;  // (rows,)
    const std::int32_t* row_high;
    const float* row_weight;
};

// Bytes that may be read behind the last one that is needed.
constexpr std::int64_t read_ahead = 64;
constexpr std::int64_t stream_bytes = 64;

// The coordinates of one LASSO that may move, compact: `width` floats each (a multiple of 16, the rest 0).
// slope = cross - gram values; own = diagonal + ridge, inverse = 1 / own (0: never moves).
struct LassoSet {
    float* values;
    float* before;
    float* slope;
    const float* cross;
    const float* own;
    const float* inverse;
    std::int64_t width;
};

// What a pass saw of the values that it found: largest |pull|, sum of |b| edge - b pull, of b pull, of b cross, where
// pull = slope - ridge b; and how many coordinates it moved.
struct LassoPass {
    float most, excess, along, fit;
    std::int64_t moved;
};

constexpr std::int64_t lasso_tile = 32;  // rows of the product that sparse_tile makes at once

struct LassoKernels {
    // to = from - sum over t of steps[t] * gram[rows[t], :width], in the order of t.
    void (*subtract_rows)(const float* gram, std::int64_t ld, const std::int32_t* rows, const float* steps,
                          std::int64_t count, const float* from, float* to, std::int64_t width);
    // slope -= gram * steps for a symmetric gram, of which rows and columns are used in equal parts.
    void (*subtract_symmetric)(const float* gram, std::int64_t ld, const float* steps, float* slope,
                               std::int64_t width);
    // One step of proximal gradient with momentum: values move to before; which moved, and how far, goes to rows, steps
    // (room for width). slope is not changed.
    LassoPass (*pass)(const LassoSet& set, float edge, float ridge, float momentum, std::int32_t* rows, float* steps);
    // One sweep of coordinate descent; slope follows.
    void (*sweep)(const LassoSet& set, const float* gram, std::int64_t ld, float edge, float ridge);
    // Places where |now + (now - old) * along| >= threshold, in order (room for width); returns the largest one below.
    float (*scan)(const float* now, const float* old, float along, float threshold, std::int64_t width,
                  std::int32_t* found, std::int64_t* count);
    float (*dot)(const float* a, const float* b, std::int64_t width);
    // Sum of reach * |values - (now + (now - old) * along)|.
    float (*drift)(const float* reach, const float* values, const float* now, const float* old, float along,
                   std::int64_t width);
    // out[i] = sum over t of values[t] * tile[rows[t] * lasso_tile + i], in the order of t.
    void (*sparse_tile)(const double* tile, const std::int32_t* rows, const double* values, std::int64_t count,
                        double* out);
};

struct Kernels {
    const char* name;
    // One image, shifted, into one place of the batch. Bytes of memory from |dx| pixels before the image to as many and
    // read_ahead behind it must be there to be read.
    void (*shift_image)(const GatherPlan& plan, const std::uint8_t* image, std::int64_t dy, std::int64_t dx, bool flip,
                        void* out, Ahead ahead);
    // One image, resized, into one place of the batch. scratch: 4 * (2 * planes + 3) * part bytes. read_ahead bytes of memory
    // behind the image must be there to be read.
    void (*resize_image)(const GatherPlan& plan, const std::uint8_t* image, const Grid& grid, void* out, void* scratch);
    // Copies multiples of stream_bytes past the cache; both ends lie at such multiples.
    void (*stream)(const std::uint8_t* from, std::int64_t bytes, std::uint8_t* to);
    // A strip is outputs less their shifts as vectors of lane_bytes: (vectors, padded rows, lanes), 0 beyond the last row
    // and column. padded: a multiple of code_rows.
    std::int64_t lane_bytes;
    void (*load_f32)(const Matrix& outputs, const Rows& rows, const double* shift, std::int64_t first,
                     std::int64_t count, std::int64_t padded, std::int64_t col0, std::int64_t cols, void* strip);
    void (*load_f64)(const Matrix& outputs, const Rows& rows, const double* shift, std::int64_t first,
                     std::int64_t count, std::int64_t padded, std::int64_t col0, std::int64_t cols, void* strip);
    void (*load_bits)(const Masks& masks, std::int64_t first, std::int64_t count, std::int64_t padded,
                      std::int64_t group0, std::uint8_t* strip);
    // out[j] = max(out[j], |value|) over a strip of load_f32 of `rows` rows; NaN once one is NaN.
    void (*largest)(const float* strip, std::int64_t rows, std::int64_t cols, float* out);
    // The same strip rounded to whole steps, scale[j] of them to a unit, into a strip of padded rows. out and scale of both:
    // whole vectors.
    void (*quantise)(const float* strip, const float* scale, std::int64_t rows, std::int64_t cols, std::int64_t padded,
                     std::int16_t* out);
    // out[k * ld + l] += the sum of lane l < have over the rows of group k, for one vector of a strip of blocks of 48 rows
    // and their codes, stride apart. scratch: 3 * lane_bytes for each group, aligned to 64.
    void (*sum_f32)(const void* strip, std::int64_t blocks, const std::uint64_t* codes, std::int64_t stride,
                    std::int64_t groups, void* scratch, double* out, std::int64_t ld, std::int64_t have);
    void (*sum_f64)(const void* strip, std::int64_t blocks, const std::uint64_t* codes, std::int64_t stride,
                    std::int64_t groups, void* scratch, double* out, std::int64_t ld, std::int64_t have);
    void (*sum_i16)(const void* strip, std::int64_t blocks, const std::uint64_t* codes, std::int64_t stride,
                    std::int64_t groups, void* scratch, double* out, std::int64_t ld, std::int64_t have);
    void (*sum_bits)(const void* strip, std::int64_t blocks, const std::uint64_t* codes, std::int64_t stride,
                     std::int64_t groups, void* scratch, std::int64_t* out, std::int64_t ld, std::int64_t have);
    // sums[j], squares[j] of rows first .. first + count (at most block_rows) of outputs col0 .. col0 + cols (at most
    // moment_cols). Overwrites both.
    void (*moment_block)(const Matrix& outputs, const Rows& rows, std::int64_t first, std::int64_t count,
                         const double* shift, std::int64_t col0, std::int64_t cols, double* sums, double* squares);
    // squares[j] = sum over units first .. first + count of (sum of sign[i] (output i less shift))^2 / rows of the unit,
    // whose rows are starts[unit] .. starts[unit + 1]. Overwrites squares.
    void (*unit_block)(const Matrix& outputs, const Rows& rows, const std::int64_t* starts, const double* sign,
                       std::int64_t first, std::int64_t count, const double* shift, std::int64_t col0,
                       std::int64_t cols, double* squares);
    void (*add)(double* into, const double* from, std::int64_t count);
    // CRC32C of the bytes after those that led to `state`, which starts as, and ends before, an inversion.
    std::uint32_t (*crc32c)(std::uint32_t state, const std::uint8_t* data, std::int64_t size);

    LassoKernels lasso;
};

extern const Kernels kernels_scalar;
#ifdef PYDT_X86
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

const Kernels& kernels();  // dispatch.cpp: the table in use

}  // namespace pydt
