// The table of kernels, which exist once per instruction set, and their arguments. No STL and no inline code, for the
// reason in views.hpp.
#pragma once
#include "../views.hpp"

namespace pydt {

constexpr std::int64_t block_rows = 256;   // rows of column moments summed one after another; the tree adds blocks
constexpr std::int64_t moment_cols = 256;  // outputs in a tile of column moments
constexpr std::int64_t code_rows = 48;     // rows in a word of codes
constexpr std::int64_t panel_rows = 12;    // rows of a triangle that lie together
constexpr std::int64_t gram_panels = 12;   // panels of 8 groups that count_pairs takes at once

// The layouts of all images of a call. An output row has `planes` parts of `part` values: (channels, width), or one
// part of width * channels. Value i of a part is channel i % step of pixel i / step; plane p adds p to the channel.
struct GatherPlan {
    std::int64_t height, width, channels;  // of the images
    std::int64_t rows, columns;            // of the batch
    std::int64_t planes, part, step;
    std::int64_t plane_stride, row_stride;  // in values, of the output
    Pixel type;
    // shift_image stores float32 past the cache: only if a vector of the instruction set is a line (lane_bytes =
    // stream_bytes), and rows of planes are whole lines.
    bool past_cache;
    const float* scale;  // (planes, part): factors of the values of a row,
    const float* bias;   // and what is added
    // (2, part): the byte of an image row that value i of the first plane comes from, plain and mirrored, without
    // resize.
    const std::int32_t* offsets;
};

// Memory to prefetch: a few cache lines at a time, between parts of other work. The processor keeps some twenty fetches
// in flight; a whole image at once makes it wait for the first of them.
struct Ahead {
    const std::uint8_t *next, *end;
    bool nearest;  // to L1, which has room for fewer fetches in flight than L2
};

// What the values of a resized image are interpolated from: for the first plane, bytes of an image row; and rows of the
// image. Each has a lower and a higher neighbour and the weight of the higher one.
struct Grid {
    const std::int32_t* low;  // (part,)
    const std::int32_t* high;
    const float* weight;
    const std::int32_t* row_low;  // (rows,)
    const std::int32_t* row_high;
    const float* row_weight;
};

// Bytes that kernels may read behind the last one that they need.
constexpr std::int64_t read_ahead = 64;
constexpr std::int64_t stream_bytes = 64;

// The candidates of one LASSO target, the coordinates that may move: `width` floats each, padded with 0 to a multiple
// of 16. slope = cross - gram values; own = diagonal + ridge; inverse = 1 / own, or 0 for a coordinate that never
// moves.
struct LassoSet {
    float* values;
    float* before;
    float* slope;
    const float* cross;
    const float* own;
    const float* inverse;
    std::int64_t width;
};

// Of the values b before a pass, with pull = slope - ridge b: most = max |pull|, excess = sum of (|b| edge - b pull),
// along = sum of b pull, fit = sum of b cross. moved: how many coordinates the pass moved.
struct LassoPass {
    float most, excess, along, fit;
    std::int64_t moved;
};

constexpr std::int64_t lasso_tile = 32;  // rows of the product that sparse_tile computes at once

struct LassoKernels {
    // to = from - sum over t of steps[t] * gram[rows[t], :width], in the order of t.
    void (*subtract_rows)(const float* gram, std::int64_t ld, const std::int32_t* rows, const float* steps,
                          std::int64_t count, const float* from, float* to, std::int64_t width);
    // slope -= gram * steps for a symmetric gram; reads the diagonal blocks and what is below them.
    void (*subtract_symmetric)(const float* gram, std::int64_t ld, const float* steps, float* slope,
                               std::int64_t width);
    // One step of proximal gradient with momentum: before = old values; rows, steps (room for width) list the
    // coordinates that moved and by how much. slope is not changed.
    LassoPass (*pass)(const LassoSet& set, float edge, float ridge, float momentum, std::int32_t* rows, float* steps);
    // rows, found (room for width): the places of values that are not 0, ascending, and those values. Returns how many.
    // found may be values.
    std::int64_t (*nonzeros)(const float* values, std::int64_t width, std::int32_t* rows, float* found);
    // One sweep of coordinate descent; slope is kept up to date.
    void (*sweep)(const LassoSet& set, const float* gram, std::int64_t ld, float edge, float ridge);
    // found: places where |now + (now - old) * along| >= threshold, ascending (room for width). Returns the largest
    // below.
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
    // Shifts one image into its place in the batch. Memory must be readable from |dx| pixels before the image to |dx|
    // pixels and read_ahead bytes behind it.
    void (*shift_image)(const GatherPlan& plan, const std::uint8_t* image, std::int64_t dy, std::int64_t dx, bool flip,
                        void* out, Ahead ahead);
    // Resizes one image into its place in the batch. scratch: 4 * (2 * planes + 3) * part bytes. Memory must be
    // readable to read_ahead bytes behind the image.
    void (*resize_image)(const GatherPlan& plan, const std::uint8_t* image, const Grid& grid, void* out, void* scratch);
    // Copies past the cache; size and both addresses are multiples of stream_bytes.
    void (*stream)(const std::uint8_t* from, std::int64_t bytes, std::uint8_t* to);
    void (*finish_stores)();  // after stores past the cache, before another thread may read them
    // A strip is a part of the outputs less their shifts, as vectors of lane_bytes: (vectors, padded, lanes), 0 beyond
    // the last column; load_f32 and load_f64 fill `count` rows of it. padded: its rows.
    std::int64_t lane_bytes;
    void (*load_f32)(const Matrix& outputs, const Rows& rows, const double* shift, std::int64_t first,
                     std::int64_t count, std::int64_t padded, std::int64_t col0, std::int64_t cols, void* strip);
    void (*load_f64)(const Matrix& outputs, const Rows& rows, const double* shift, std::int64_t first,
                     std::int64_t count, std::int64_t padded, std::int64_t col0, std::int64_t cols, void* strip);
    void (*load_bits)(const Masks& masks, std::int64_t first, std::int64_t count, std::int64_t padded,
                      std::int64_t group0, std::uint8_t* strip);
    // out[j] = max(out[j], |value|) over a strip of load_f32 of `rows` rows; NaN if a value is NaN. out: whole vectors.
    void (*largest)(const float* strip, std::int64_t rows, std::int64_t cols, float* out);
    // Rounds value * scale[j] of such a strip to whole numbers, into a strip of padded rows. scale: whole vectors.
    void (*quantise)(const float* strip, const float* scale, std::int64_t rows, std::int64_t cols, std::int64_t padded,
                     std::int16_t* out);
    // out[k * ld + l] += (= if `fresh`) the sum over the rows of group k of lane l < have, for one vector of a strip of
    // blocks of 48 rows. The codes of two blocks are stride words apart. scratch: 3 * lane_bytes per group, aligned to 64.
    void (*sum_f32)(const void* strip, std::int64_t blocks, const std::uint64_t* codes, std::int64_t stride,
                    std::int64_t groups, void* scratch, double* out, std::int64_t ld, std::int64_t have, bool fresh);
    void (*sum_f64)(const void* strip, std::int64_t blocks, const std::uint64_t* codes, std::int64_t stride,
                    std::int64_t groups, void* scratch, double* out, std::int64_t ld, std::int64_t have, bool fresh);
    void (*sum_i16)(const void* strip, std::int64_t blocks, const std::uint64_t* codes, std::int64_t stride,
                    std::int64_t groups, void* scratch, double* out, std::int64_t ld, std::int64_t have, bool fresh);
    void (*sum_bits)(const void* strip, std::int64_t blocks, const std::uint64_t* codes, std::int64_t stride,
                     std::int64_t groups, void* scratch, std::int64_t* out, std::int64_t ld, std::int64_t have, bool fresh);
    // Null where no instruction counts the bits of a vector. words: (panels of 8 groups, blocks of 64 rows, 8), a word of
    // 64 rows of a group. turn_bits fills those of one block; count_pairs counts the pairs of the groups of gram_panels
    // panels with those of the same and of all earlier panels, both ways round. counts: (groups, groups).
    void (*turn_bits)(const Masks& masks, std::int64_t block, std::int64_t blocks, std::uint64_t* words);
    void (*count_pairs)(const std::uint64_t* words, std::int64_t blocks, std::int64_t groups, std::int64_t panel,
                        std::int64_t* counts);
    // sums[j], squares[j] over rows first .. first + count - 1 (at most block_rows) of outputs col0 .. col0 + cols - 1
    // (at most moment_cols). Overwrites both.
    void (*moment_block)(const Matrix& outputs, const Rows& rows, std::int64_t first, std::int64_t count,
                         const double* shift, std::int64_t col0, std::int64_t cols, double* sums, double* squares);
    // squares[j] = sum over units first .. first + count - 1 of (sum of sign[i] (output i - shift))^2 / rows of the
    // unit, which are starts[unit] .. starts[unit + 1] - 1. Overwrites squares.
    void (*unit_block)(const Matrix& outputs, const Rows& rows, const std::int64_t* starts, const double* sign,
                       std::int64_t first, std::int64_t count, const double* shift, std::int64_t col0,
                       std::int64_t cols, double* squares);
    void (*add)(double* into, const double* from, std::int64_t count);
    // squares[j] = |L^-1 c_j|^2, j < lane_bytes / 2. panels: of L, as `triangle_panels` makes them; strip: c, (groups
    // and zeros up to whole panels, lane_bytes / 2) floats, aligned to 64; it is overwritten.
    void (*triangle_squares)(const float* panels, std::int64_t groups, void* strip, double* squares);
    // CRC32C of further bytes, from the `state` after the bytes before. The caller inverts the first and the last
    // state.
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
