// The interface of the core. It knows neither Python nor torch: only pointers, sizes, strides and, on the GPU, a
// stream.
//
//   views.hpp      views of memory: Matrix, Rows, Masks, Images, Augmentation, Batch
//   rng.hpp        Philox4x32-10, the same bits on CPU and GPU
//   rng.cpp        random bits of ids; the order of an epoch
//   bits.cpp       bit-packed masks, and their codes for subset sums
//   windows.hpp    random shifts and crop windows of images; the table of random streams
//   augment.cpp    batches of raw images: gather, crop or resize, flip, normalise
//   encoded.cpp    height and width of JPEG and PNG files; their crop windows
//   records.cpp    the index file of a data set; image files; CRC32C
//   tar.cpp        tar archives; mapped files
//   moments.cpp    Gram matrix, subset sums, column sums and squares
//   epilogue.cpp   from sums to differences of means and their standard errors; the noise of a regression
//   lasso.cpp      LASSO and elastic net on a Gram matrix (lasso_target.hpp: one target in float32)
//   threads.hpp    work split over threads
//   dispatch.cpp   which instruction set runs
//   kernels/       the inner loops, compiled once for each instruction set: augment, resize, subset_sums, gram,
//                  column_moments, triangle, lasso, crc
//   cuda/          on the GPU: gather, and what regression there needs beside products of matrices
//   bindings/      the Python module
//
// Promises. Results are the same to the last bit for any number of threads and any instruction set; of
// triangle_squares for any that fuses multiplication and addition: avx2 and avx512. Sizes are checked before anything
// is allocated or read. A wrong argument throws an `ArgumentError` whose text starts with the argument's name. No state
// is kept between calls, so every function may run in several threads at once.
//
// Words. A row is one trained model and its outputs; a mask says which groups it saw. A target is a column of outputs.
#pragma once
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "views.hpp"

namespace pydt {

// ---- errors and sizes -------------------------------------------------------------------------------------------
struct ArgumentError : std::invalid_argument {
    ArgumentError(const std::string& argument, const std::string& what)
        : std::invalid_argument(argument + ": " + what) {}
};

// The product of the factors; throws if it overflows. `what` names the argument that is too large.
std::size_t checked_size(const std::string& what, std::initializer_list<std::int64_t> factors);

// ---- randomness (rng.cpp) ---------------------------------------------------------------------------------------
// out[i] = 64 bits, a function of (seed, stream, ids[i]) alone.
void random_bits(std::uint64_t seed, std::uint64_t stream, const std::int64_t* ids, std::int64_t count,
                 std::uint64_t* out);

// out = the positions 0..count-1 sorted by (random bits of the id, id, position). Removing some ids keeps the order of
// the others.
void epoch_order(std::uint64_t seed, std::uint64_t epoch, const std::int64_t* ids, std::int64_t count,
                 std::int64_t* out);

// ---- masks (bits.cpp) -------------------------------------------------------------------------------------------
std::int64_t packed_bytes(std::int64_t groups);
void pack(const std::uint8_t* masks, std::int64_t rows, std::int64_t groups, std::uint8_t* out);  // masks: 0 or 1
void unpack(const Masks& masks, std::uint8_t* out);
void check_padding(const Masks& masks);  // bits beyond the last group must be 0

// ---- images (augment.cpp) ---------------------------------------------------------------------------------------
void check_augmentation(const Images& images, const Batch& out, const Augmentation& how);
void check_windows(const Augmentation& how);  // only what random windows depend on
void check_index(const std::int64_t* index, std::int64_t count, std::int64_t images);
// (2, channels): scales, then biases. A pixel becomes pixel * scale[c] + bias[c], rounded once to float.
std::vector<float> normalisation(const Images& images, const Augmentation& how);
void gather(const Images& images, const std::int64_t* index, const std::int64_t* ids, const Batch& out,
            const Augmentation& how, int threads);

// ---- encoded images (encoded.cpp) -------------------------------------------------------------------------------
// Height and width of an image that all decoders read alike: a JPEG of 8 bits in grey or three colours, or a PNG of up
// to 8 bits a channel without alpha, transparent colours or animation; complete, and with no more pixels than PIL
// reads. (0, 0) for anything else.
struct Sides {
    std::int32_t height, width;
};
Sides image_sides(const std::uint8_t* data, std::int64_t size);
// The random resized crop of each image, the same as `gather` makes of raw ones: start (top, left) and extent (height,
// width), each (count, 2), and whether the crop is mirrored (count,). mean, std and crop_pad of `how` are not read.
void crop_windows(const Sides* sizes, const std::int64_t* ids, std::int64_t count, const Augmentation& how,
                  std::int32_t* start, std::int32_t* extent, std::int32_t* mirrored);

// ---- records (records.cpp) --------------------------------------------------------------------------------------
std::uint32_t crc32c(const std::uint8_t* data, std::int64_t size);
// out[i] = CRC32C of the record at positions[i]; data: (stored, record) bytes.
void crc_records(const std::uint8_t* data, std::int64_t stored, std::int64_t record, const std::int64_t* positions,
                 std::int64_t count, std::uint32_t* out, int threads);

// Why the bytes are not a complete image file. Looks at the beginning and the end only: finds empty files, cut files
// and files of another kind without decoding.
enum class Fault : std::int32_t { none = 0, not_regular = -1, changed = -2, empty = -3, unknown = -4, cut = -5 };
Fault image_fault(const std::uint8_t* data, std::int64_t size);
// Texts one behind another: text i is bytes[ends[i]:ends[i + 1]]; ends: (count + 1,), the first is 0.
struct Texts {
    const std::int64_t* ends;
    std::int64_t count;
    const std::uint8_t* bytes;
    std::int64_t size;
};
// Reads files of known lengths one behind another into `out` (room bytes). status[i]: 0, a Fault, or the system's error
// number. crc[i]: CRC32C of the file; crc may be null.
void read_files(const Texts& paths, const std::int64_t* lengths, std::uint8_t* out, std::int64_t room,
                std::int32_t* status, std::uint32_t* crc);

// One section of an index file: `count` entries in `bytes` bytes at `offset`. Texts are (count + 1) ends, then UTF-8.
enum class Kind : std::uint32_t { u8 = 1, u32 = 2, i64 = 3, texts = 4 };
struct Section {
    std::string name;
    Kind kind;
    std::int64_t count, offset, bytes;
};
// Checks the first bytes of an index file of `file_size` bytes, before the rest is read.
void check_index_head(const std::uint8_t* data, std::int64_t size, std::int64_t file_size);
std::vector<Section> read_index(const std::uint8_t* data, std::int64_t size);
std::int64_t repeated_text(const Texts& texts);  // the first text that equals an earlier one, or -1

bool is_utf8(const std::uint8_t* text, std::int64_t size);

// ---- tar archives (tar.cpp) -------------------------------------------------------------------------------------
// The regular files of an archive, in its order: name i is names[ends[i]:ends[i + 1]], its header is at headers[i], its
// sizes[i] bytes are at offsets[i].
struct TarMembers {
    std::vector<std::int64_t> ends, headers, offsets, sizes;
    std::string names;
};
TarMembers read_tar(const std::uint8_t* data, std::int64_t size);
// Fault and CRC32C of parts of `data`: lengths[i] bytes at offsets[i].
void check_parts(const std::uint8_t* data, std::int64_t size, const std::int64_t* offsets, const std::int64_t* lengths,
                 std::int64_t count, std::int32_t* status, std::uint32_t* crc, int threads);
// A regular file, mapped for reading; no descriptor stays open. Throws std::system_error. time: last change, in ns.
// device and inode show whether a path still leads to this file.
struct Mapped {
    const std::uint8_t* data;
    std::int64_t size, time;
    std::uint64_t device, inode;
};
Mapped map_file(const char* path);
void unmap_file(const Mapped& mapped);

// ---- moments (moments.cpp) --------------------------------------------------------------------------------------
// counts[k, j] = rows that keep both groups k and j; (groups, groups), exact.
void gram(const Masks& masks, std::int64_t* counts, int threads);

// The masks regrouped for subset_sums: (ceil(rows / 48), groups) words of eight bytes. Bits 2..7 of byte t of word (b,
// k) say whether rows 48 b + 6 t .. 48 b + 6 t + 5 keep group k. Bits 0 and 1 are 0, and so are rows beyond the last.
std::int64_t code_blocks(std::int64_t rows);
void check_rows(const Rows& rows, std::int64_t available);
void codes(const Masks& masks, const Rows& rows, std::uint64_t* out);

// sums[k, j] = sum of (outputs[row i, j] - shift[j]) over the coded rows i that keep group k; (groups, cols). moments:
// column_moments of the same, from the same reading of the outputs; null: not wanted.
struct Moments {
    double *sums, *squares;  // (cols,)
};
void subset_sums(const std::uint64_t* codes, std::int64_t groups, const Matrix& outputs, const Rows& rows,
                 const double* shift, double* sums, const Moments& moments, int threads);
// The same after rounding (outputs - shift) to whole steps, which are summed exactly. step[j] = max |outputs[:, j] -
// shift[j]| / 511, at least 2^-127; 0 where all outputs equal their shift; NaN where one is not finite.
void subset_sums_int16(const std::uint64_t* codes, std::int64_t groups, const Matrix& outputs, const Rows& rows,
                       const double* shift, double* sums, double* step, int threads);
// Sums and sums of squares of (outputs - shift) down the columns; each (cols,).
void column_moments(const Matrix& outputs, const Rows& rows, const double* shift, double* sums, double* squares,
                    int threads);

// squares[j] = sum over units of (sum of sign * (output - shift) over the unit's rows)^2 / rows of the unit. Unit u is
// rows starts[u] .. starts[u + 1] - 1; sign (rows.count,); starts (units + 1,) rises from 0 to rows.count.
void unit_squares(const Matrix& outputs, const Rows& rows, const std::int64_t* starts, std::int64_t units,
                  const double* sign, const double* shift, double* squares, int threads);

// ---- epilogue (epilogue.cpp) ------------------------------------------------------------------------------------
// out = cross - share total', rounded to T; cross, out (groups, targets), share (groups,), total (targets,).
template <class T>
void centred(const double* cross, std::int64_t groups, std::int64_t targets, const double* share, const double* total,
             T* out);

// The lower triangle L (groups, groups) in the order in which triangle_squares reads it: panels of 12 rows, as
// (columns, 12) float32: -L up to the block on the diagonal, then the inverse of that block.
std::int64_t triangle_size(std::int64_t groups);
void triangle_panels(const double* lower, std::int64_t groups, float* panels);
// squares[j] = |L^-1 c_j|^2 (targets,), c = cross (groups, targets). L^-1 c in float32, squares in float64. The bits
// are the same with avx2 and avx512, not with scalar.
void triangle_squares(const float* panels, std::int64_t groups, const float* cross, std::int64_t targets,
                      double* squares, int threads);

struct Pooling {
    const double *scale, *weight, *rho;  // (groups,)
    const double *energy, *noise;        // (targets,)
    double df;
};
// values = scale c, errors = sqrt(scale (noise + rho max(t - noise, 0))) with t = max(energy - weight c^2, 0) / df.
template <class T>
void pooled_errors(const T* centred, std::int64_t groups, std::int64_t targets, const Pooling& how, float* values,
                   float* errors);

// ---- penalised regression (lasso.cpp) ---------------------------------------------------------------------------
// For every target: minimise b'Gb / 2 - b'c + penalty (l1_ratio |b|_1 + (1 - l1_ratio) |b|^2 / 2). gram G = X'X
// (groups, groups), positive semidefinite; cross c = X'y (groups, targets); energy = y'y (targets,).
struct Quadratic {
    const double* gram;
    const double* cross;
    const double* energy;
    std::int64_t groups, targets;
};
struct LassoOptions {
    double l1_ratio;
    double tolerance;    // a target is done at a duality gap of tolerance * (residual sum of squares) / 2, or of 2e-7 *
                         // energy / 2 if that is more: the accuracy of float32 values
    std::int64_t limit;  // most passes over the coordinates at one penalty
    int threads;
};
// penalty: (targets,); start: (groups, targets) or null; gap = duality gap at the values / (energy / 2).
void lasso(const Quadratic& problem, const double* penalty, const float* start, const LassoOptions& options,
           float* values, double* gap, std::int64_t* iterations);
struct Stopping {
    std::int64_t patience;   // worse steps that end a path once its least error is clearly below that of b = 0 (0: off)
    std::int64_t held_rows;  // independent rows behind the held-out statistics
};
// Penalties steps[i] * max |c| / l1_ratio, steps falling. error, nonzeros (count, targets): inf and 0 after the stop.
// values and gap: at the step of the least error.
void lasso_path(const Quadratic& train, const Quadratic& held, const double* steps, std::int64_t count,
                const Stopping& stopping, const LassoOptions& options, double* error, float* values, double* gap,
                std::int32_t* nonzeros);
// out = gram values, (rows, cols) times (cols, targets); zeros of values are skipped.
void sparse_product(const double* gram, std::int64_t rows, std::int64_t cols, const float* values, std::int64_t targets,
                    double* out, int threads);

// ---- instruction sets (dispatch.cpp) ----------------------------------------------------------------------------
std::string isa();                // the one in use; PYDT_ISA in the environment overrides it, a wrong value throws
std::vector<std::string> isas();  // those that this build has and this machine can run, slowest first

// ---- GPU (cuda/; without CUDA in the build, no_cuda.cpp) --------------------------------------------------------
// Pointers in arguments named device_* are addresses on the GPU. Work is queued on `stream` (0: the default stream) of
// the current device; calls return before it is done.
bool cuda_built();
bool cuda_usable();  // a driver and a device of compute capability 8.0 or newer; never throws
// index, ids, mean and std lie in host memory and may be reused as soon as the call returns.
void cuda_gather(const Images& device_images, const std::int64_t* index, const std::int64_t* ids,
                 const Batch& device_out, const Augmentation& how, std::uintptr_t stream);

// out[i * leading + k] = whether row i of `device_rows` keeps group k, as 1 or 0. A row that is not there becomes NaN.
template <class T>
void cuda_expand_masks(const Masks& device_masks, const Rows& device_rows, T* device_out, std::int64_t leading,
                       std::uintptr_t stream);

// `pooled_errors` to the same bits; the vectors of `how` lie in host memory and may be reused as soon as the call
// returns.
template <class T>
void cuda_pooled_errors(const T* device_centred, std::int64_t groups, std::int64_t targets, const Pooling& how,
                        float* device_values, float* device_errors, std::uintptr_t stream);

// One pass of the penalised solver, in place, over the targets that are not done: array_step of
// pydt/estimation/tensor_lasso.py. Everything is on the device.
template <class T>
struct ProximalStep {
    T *values, *moved, *slope;        // (groups, targets)
    const T *push, *cross, *diagonal; // (groups, targets) twice, and (groups,)
    T* state;                         // (11, targets): edge, ridge, energy, share, least, clock, mark, passes, open,
                                      // gap, left
    std::int64_t groups, targets;
    T spread, steep, limit;
};
template <class T>
void cuda_proximal_step(const ProximalStep<T>& step, std::uintptr_t stream);

}  // namespace pydt
