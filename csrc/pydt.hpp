// The core's whole interface. It knows neither Python nor torch: pointers, sizes, strides, and on the GPU a stream.
//
//   views.hpp      Matrix, Rows, Masks, Images, Augmentation, Batch
//   rng.hpp        Philox4x32-10, the same bits on CPU and GPU
//   rng.cpp        random bits of ids; the order of an epoch
//   bits.cpp       bit-packed masks
//   windows.hpp    where an example's image comes from in an epoch: random places and windows
//   augment.cpp    gather + crop or resize + flip + normalise
//   records.cpp    the index file of a data set: checks and views; CRC32C
//   moments.cpp    Gram matrix, subset sums, column sums and squares
//   epilogue.cpp   sums of a tile -> differences of means and standard errors
//   lasso.cpp      LASSO and elastic net on a Gram matrix (lasso_target.hpp: one target in float32)
//   dispatch.cpp   which instruction set runs (kernels/: the code that is compiled once for each)
//   cuda/          gather, Gram matrix and subset sums for data that lie on the GPU
//
// Promises: results do not depend on the number of threads nor on the instruction set, to the last bit. Sizes are
// checked before anything is allocated or read. A wrong argument is an `ArgumentError` whose text starts with the
// argument's name. Nothing is kept between calls, so every function may run in many threads at once.
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

// The product as a size in memory; `what` names the argument that is too large.
std::size_t checked_size(const std::string& what, std::initializer_list<std::int64_t> factors);

// ---- randomness (rng.cpp) ---------------------------------------------------------------------------------------
// out[i] = 64 bits that depend on nothing but (seed, stream, ids[i]).
void random_bits(std::uint64_t seed, std::uint64_t stream, const std::int64_t* ids, std::int64_t count,
                 std::uint64_t* out);

// out = the positions 0..count-1 sorted by (random bits of the id, id, position): dropping some ids leaves the others
// in order.
void epoch_order(std::uint64_t seed, std::uint64_t epoch, const std::int64_t* ids, std::int64_t count,
                 std::int64_t* out);

// ---- masks (bits.cpp) -------------------------------------------------------------------------------------------
std::int64_t packed_bytes(std::int64_t groups);
void pack(const std::uint8_t* masks, std::int64_t rows, std::int64_t groups, std::uint8_t* out);  // masks: 0 or 1
void unpack(const Masks& masks, std::uint8_t* out);
void check_padding(const Masks& masks);  // bits beyond the last group must be 0

// ---- images (augment.cpp) ---------------------------------------------------------------------------------------
void check_augmentation(const Images& images, const Batch& out, const Augmentation& how);
void check_windows(const Augmentation& how);  // what of it random places depend on
void check_index(const std::int64_t* index, std::int64_t count, std::int64_t images);
// What one pixel becomes: pixel * scale[c] + bias[c], rounded once to float; (2, channels): scales, then biases.
std::vector<float> normalisation(const Images& images, const Augmentation& how);
void gather(const Images& images, const std::int64_t* index, const std::int64_t* ids, const Batch& out,
            const Augmentation& how, int threads);

// ---- encoded images (encoded.cpp) -------------------------------------------------------------------------------
// Height and width of a JPEG of 8 bits in grey or three colours, or a PNG of up to 8 bits a channel without alpha,
// transparent colours or animation, that has an end and no more pixels than PIL reads: what every decoder reads alike.
// (0, 0) for anything else.
struct Sides {
    std::int32_t height, width;
};
Sides image_sides(const std::uint8_t* data, std::int64_t size);
// The random resized crop of each image, as `gather` crops raw ones: start (top, left) and extent (height, width), each
// (count, 2), and whether it is mirrored (count,). mean, std and crop_pad of `how` are not read.
void crop_windows(const Sides* sizes, const std::int64_t* ids, std::int64_t count, const Augmentation& how,
                  std::int32_t* start, std::int32_t* extent, std::int32_t* mirrored);

// ---- records (records.cpp) --------------------------------------------------------------------------------------
std::uint32_t crc32c(const std::uint8_t* data, std::int64_t size);
// out[i] = CRC32C of the record at positions[i]; data: (stored, record) bytes.
void crc_records(const std::uint8_t* data, std::int64_t stored, std::int64_t record, const std::int64_t* positions,
                 std::int64_t count, std::uint32_t* out, int threads);

// What keeps the bytes from being a whole image file, as far as their ends tell: enough to find text, empty and cut
// files without decoding any.
enum class Fault : std::int32_t { none = 0, not_regular = -1, changed = -2, empty = -3, unknown = -4, cut = -5 };
Fault image_fault(const std::uint8_t* data, std::int64_t size);
// Texts of an index: text i is bytes[ends[i]:ends[i + 1]]; ends: (count + 1,), the first is 0.
struct Texts {
    const std::int64_t* ends;
    std::int64_t count;
    const std::uint8_t* bytes;
    std::int64_t size;
};
// Reads files of known lengths one after another into `out` (room bytes); status[i]: a Fault, or the system's error
// number; crc[i]: CRC32C of what was read, unless crc is null.
void read_files(const Texts& paths, const std::int64_t* lengths, std::uint8_t* out, std::int64_t room,
                std::int32_t* status, std::uint32_t* crc);

// One section of an index file: `count` entries in `bytes` bytes from `offset` on; texts: (count + 1) ends, then UTF-8.
enum class Kind : std::uint32_t { u8 = 1, u32 = 2, i64 = 3, texts = 4 };
struct Section {
    std::string name;
    Kind kind;
    std::int64_t count, offset, bytes;
};
// The first bytes of a file of `file_size` bytes: checks what can be said before the rest is read.
void check_index_head(const std::uint8_t* data, std::int64_t size, std::int64_t file_size);
std::vector<Section> read_index(const std::uint8_t* data, std::int64_t size);
std::int64_t repeated_text(const Texts& texts);  // the first that an earlier one equals, or -1

bool is_utf8(const std::uint8_t* text, std::int64_t size);

// ---- tar archives (tar.cpp) -------------------------------------------------------------------------------------
// The regular files of an archive, in its order: name i is names[ends[i]:ends[i + 1]], its header lies at headers[i] and
// its sizes[i] bytes at offsets[i].
struct TarMembers {
    std::vector<std::int64_t> ends, headers, offsets, sizes;
    std::string names;
};
TarMembers read_tar(const std::uint8_t* data, std::int64_t size);
// Fault and CRC32C of parts of `data`: lengths[i] bytes from offsets[i] on.
void check_parts(const std::uint8_t* data, std::int64_t size, const std::int64_t* offsets, const std::int64_t* lengths,
                 std::int64_t count, std::int32_t* status, std::uint32_t* crc, int threads);
// A regular file, mapped to be read; no descriptor stays open. Throws std::system_error. time: of change, in ns; device
// and inode tell whether a name still means this file.
struct Mapped {
    const std::uint8_t* data;
    std::int64_t size, time;
    std::uint64_t device, inode;
};
Mapped map_file(const char* path);
void unmap_file(const Mapped& mapped);

// ---- moments (moments.cpp) --------------------------------------------------------------------------------------
// counts[i, j] = models that kept both groups; (groups, groups), exact.
void gram(const Masks& masks, std::int64_t* counts, int threads);

// The masks regrouped for subset_sums: (ceil(rows / 48), groups) words of eight bytes. Byte t of word (b, k) holds in its
// bits 2..7 what group k is in the rows 48 b + 6 t .. 48 b + 6 t + 5; bits 0 and 1, and rows beyond the last, are 0.
std::int64_t code_blocks(std::int64_t rows);
void check_rows(const Rows& rows, std::int64_t available);
void codes(const Masks& masks, const Rows& rows, std::uint64_t* out);

// sums[k, j] = sum over the i with group k of coded row i of (outputs[row i, j] - shift[j]); (groups, cols).
void subset_sums(const std::uint64_t* codes, std::int64_t groups, const Matrix& outputs, const Rows& rows,
                 const double* shift, double* sums, int threads);
// The same of (outputs - shift) rounded to whole steps: step[j] = max |outputs[:, j] - shift[j]| / 511 (2^-127 where that
// is less; 0 where all are 0), NaN where that is not finite. The rounded values are summed exactly.
void subset_sums_int16(const std::uint64_t* codes, std::int64_t groups, const Matrix& outputs, const Rows& rows,
                       const double* shift, double* sums, double* step, int threads);
// Sums and sums of squares of (outputs - shift) down the columns; each (cols,).
void column_moments(const Matrix& outputs, const Rows& rows, const double* shift, double* sums, double* squares,
                    int threads);

// squares[j] = sum over units of (sum of sign x (output - shift))^2 / rows, unit u the rows starts[u] .. starts[u + 1];
// sign (rows.count,), starts (units + 1,) from 0 to rows.count, rising.
void unit_squares(const Matrix& outputs, const Rows& rows, const std::int64_t* starts, std::int64_t units,
                  const double* sign, const double* shift, double* squares, int threads);

// ---- epilogue (epilogue.cpp) ------------------------------------------------------------------------------------
// out = cross - share x total', in float or double; cross, out (groups, targets), share (groups,), total (targets,).
template <class T>
void centred(const double* cross, std::int64_t groups, std::int64_t targets, const double* share, const double* total,
             T* out);

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
// minimise b'Gb / 2 - b'c + penalty (l1_ratio |b|_1 + (1 - l1_ratio) |b|^2 / 2) for every target; (groups, groups) G,
// symmetric and positive semidefinite; (groups, targets) c; (targets,) energy = y'y, of which c and G are the others.
struct Quadratic {
    const double* gram;
    const double* cross;
    const double* energy;
    std::int64_t groups, targets;
};
struct LassoOptions {
    double l1_ratio, tolerance;  // a target is done at a gap of tolerance x half the residual sum of squares (or 2e-7 x
                                 // energy / 2, which is the accuracy of values in float32)
    std::int64_t limit;          // sweeps after which it is left as it is, at each penalty
    int threads;
};
// penalty: (targets,); start: (groups, targets) or null; gap = duality gap at the values / (energy / 2).
void lasso(const Quadratic& problem, const double* penalty, const float* start, const LassoOptions& options,
           float* values, double* gap, std::int64_t* iterations);
struct Stopping {
    std::int64_t patience;   // worse steps that end a path whose least error is clearly below that of b = 0 (0: no end)
    std::int64_t held_rows;  // independent rows behind the held-out statistics
};
// Penalties steps[i] * max |c| / l1_ratio, steps falling. error, nonzeros: (count, targets), inf and 0 behind the stop;
// values and gap are those of the least error.
void lasso_path(const Quadratic& train, const Quadratic& held, const double* steps, std::int64_t count,
                const Stopping& stopping, const LassoOptions& options, double* error, float* values, double* gap,
                std::int32_t* nonzeros);
// out = gram values: (rows, cols) times (cols, targets), passing over the zeros of values.
void sparse_product(const double* gram, std::int64_t rows, std::int64_t cols, const float* values, std::int64_t targets,
                    double* out, int threads);

// ---- instruction sets (dispatch.cpp) ----------------------------------------------------------------------------
std::string isa();                // the one in use; PYDT_ISA overrides the choice, an unusable value throws
std::vector<std::string> isas();  // those this build has and this machine can run, slowest first

// ---- GPU (cuda/; without CUDA in the build, no_cuda.cpp) --------------------------------------------------------
// Pointers in the arguments named *device* are addresses on the GPU; work is queued on `stream` (0: the default stream)
// of the current device, and nothing waits for it except where said.
bool cuda_built();
bool cuda_usable();  // a driver and a device of compute capability 8.0 or newer; never throws
// index and ids lie in host memory and may be reused as soon as the call returns. mean, std: host.
void cuda_gather(const Images& device_images, const std::int64_t* index, const std::int64_t* ids,
                 const Batch& device_out, const Augmentation& how, std::uintptr_t stream);
void cuda_gram(const Masks& device_masks, std::int64_t* device_counts, std::uintptr_t stream);
void cuda_subset_sums(const Masks& device_masks, const Matrix& device_outputs, const double* device_shift,
                      double* device_sums, std::uintptr_t stream);

}  // namespace pydt
