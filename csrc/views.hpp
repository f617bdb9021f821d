// Plain views of memory owned by the caller. No code and no STL in here: the kernels, compiled once per instruction
// set, include this file, and the linker could pick the AVX-512 version of an inline function for everybody.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pydt {

enum class Float : std::int32_t { f16, f32, f64 };

// (rows, cols) of floats anywhere in memory: strides in bytes, of any sign; elements need not be aligned.
struct Matrix {
    const std::uint8_t* data;
    std::int64_t rows, cols;
    std::int64_t row_stride, col_stride;
    Float type;
};

// Which rows are read, in which order: index[0 .. count - 1], or all of 0 .. count - 1 if index is null.
struct Rows {
    const std::int64_t* index;
    std::int64_t count;
};

// (rows, groups) bits, little bit first, every row starting at a byte: row_bytes = ceil(groups / 8).
struct Masks {
    const std::uint8_t* data;
    std::int64_t rows, groups;
    std::int64_t row_bytes;
};

// (count, height, width, channels) bytes, dense.
struct Images {
    const std::uint8_t* data;
    std::int64_t count, height, width, channels;
};

// What happens to an image on its way into a batch; mean and std are (channels,), on the scale 0..1. An image of the
// batch's size is shifted by up to crop_pad pixels. An image of another size, or any with `resized`, has a window
// resized.
struct Augmentation {
    const float* mean;
    const float* std;
    std::int64_t crop_pad;
    bool flip;
    std::uint64_t seed, epoch;
    std::int64_t view;    // 0 or 1
    bool resized;         // a random window; otherwise the central one
    double scale[2];      // bounds of its area, as shares of the image
    double log_ratio[2];  // bounds of log(width / height)
};

// A part of an image.
struct Window {
    std::int64_t top, left, height, width;
};

enum class Pixel : std::int32_t { f32, f16, bf16 };

// (count, channels, height, width) floats, dense as NCHW or as NHWC (channels_last).
struct Batch {
    void* data;
    std::int64_t count, height, width;
    bool channels_last;
    Pixel type;
};

}  // namespace pydt
