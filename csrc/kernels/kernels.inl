// The kernels of one instruction set. All is in an unnamed namespace: the table is the only symbol of the object file.
#include <string.h>  // NOLINT: memcpy and memset, without the inline code of a C++ header
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels.hpp"

// A vector of this instruction set.
#if defined(__AVX512F__)
#define PYDT_LANE_BYTES 64
#elif defined(__AVX2__)
#define PYDT_LANE_BYTES 32
#else
#define PYDT_LANE_BYTES 16
#endif

namespace pydt {
namespace {
namespace images {
#include "pixels.inl"

#include "augment.inl"
#include "resize.inl"
}  // namespace images
#include "crc.inl"
#include "lasso.inl"
#include "loading.inl"
#include "subset_sums.inl"

#include "gram.inl"

#include "column_moments.inl"
#include "triangle.inl"
}  // namespace

extern const Kernels PYDT_KERNELS;
const Kernels PYDT_KERNELS = {
    PYDT_ISA_NAME,
    images::shift_image,
    images::resize_image,
    images::stream,
    images::finish_stores,
    PYDT_LANE_BYTES,
    load_f32,
    load_f64,
    load_bits,
    largest,
    quantise,
    sum_f32,
    sum_f64,
    sum_i16,
    sum_bits,
    turn_bits,
    count_pairs,
    moment_block,
    unit_block,
    add,
    triangle_squares,
    crc32c,
    {penalised::subtract_rows, penalised::subtract_symmetric, penalised::pass, penalised::nonzeros,
     penalised::sweep, penalised::scan, penalised::dot, penalised::drift, penalised::sparse_tile}};

}  // namespace pydt
