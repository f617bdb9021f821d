// gather + crop or resize + flip + normalise with the data set resident on the GPU.
//
//   Formulas, layouts and, with -fmad=false, bits are those of kernels/augment.inl and kernels/resize.inl: shifts and
//   windows come from windows.hpp, and every value goes through the same operations in the same order.
//
// One block writes one image. Its first thread draws the shift or the window; all threads then make the tables of a
// resized image in shared memory. Threads walk over the output in memory order, so stores coalesce for both layouts and
// loads are at most `channels` apart. Cost: per value 1 byte read (resized: 4, from the cache) and 2 or 4 written;
// bound by memory. What lost: drawing in a kernel of its own (one more launch, which takes longer than the draws).
#include <cuda_fp16.h>

#include <algorithm>
#include <vector>

#include "../windows.hpp"
#include "device.cuh"

namespace pydt {
namespace {

struct Shape {
    std::int64_t height, width, channels;  // of the images
    std::int64_t rows, columns;            // of the batch
    bool channels_last;
};

struct BFloat16 {
    std::uint16_t bits;
};

__device__ inline void put(float* to, float value) { *to = value; }
__device__ inline void put(__half* to, float value) { *to = __float2half_rn(value); }
__device__ inline void put(BFloat16* to, float value) {
    const std::uint32_t bits = __float_as_uint(value);
    to->bits = static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// Calls write(place, channel, row, column) for every value of an image that this thread computes.
template <class Write>
__device__ void each_value(const Shape& shape, Write write) {
    const std::int64_t area = shape.rows * shape.columns, values = area * shape.channels;
    for (std::int64_t v = threadIdx.x; v < values; v += blockDim.x) {
        const std::int64_t c = shape.channels_last ? v % shape.channels : v / area;
        const std::int64_t pixel = shape.channels_last ? v / shape.channels : v % area;
        write(v, c, pixel / shape.columns, pixel % shape.columns);
    }
}

template <class T>
__global__ void shift_kernel(const std::uint8_t* images, const std::int64_t* index, const std::int64_t* ids, T* out,
                             Shape shape, const float* scale, const float* bias, Augmentation how) {
    PYDT_SHARED(Placement, placement);
    const std::int64_t i = blockIdx.x;
    if (threadIdx.x == 0) placement = place(how, ids[i]);
    __syncthreads();
    const std::int64_t H = shape.height, W = shape.width, C = shape.channels;
    const std::uint8_t* image = images + index[i] * H * W * C;
    T* to = out + i * H * W * C;
    each_value(shape, [&](std::int64_t v, std::int64_t c, std::int64_t row, std::int64_t column) {
        const std::int64_t y = row + placement.dy, x = (placement.flip ? W - 1 - column : column) + placement.dx;
        const bool inside = y >= 0 && y < H && x >= 0 && x < W;
        put(to + v, (inside ? static_cast<float>(image[(y * W + x) * C + c]) : 0.0f) * scale[c] + bias[c]);
    });
}

template <class T>
__global__ void resize_kernel(const std::uint8_t* images, const std::int64_t* index, const std::int64_t* ids, T* out,
                              Shape shape, const float* scale, const float* bias, Augmentation how) {
    PYDT_DYNAMIC_SHARED(Between, between_rows);  // (rows,), and after them (columns,)
    PYDT_SHARED(Window, window);
    PYDT_SHARED(bool, flip);
    Between* between_columns = between_rows + shape.rows;
    const std::int64_t i = blockIdx.x;
    if (threadIdx.x == 0) {
        const double ratio = static_cast<double>(shape.columns) / static_cast<double>(shape.rows);
        window = how.resized ? resized_window(how, ids[i], shape.height, shape.width)
                             : central_window(shape.height, shape.width, ratio, ratio);
        flip = place(how, ids[i]).flip;
    }
    __syncthreads();
    const double step_y = static_cast<double>(window.height) / static_cast<double>(shape.rows),
                 step_x = static_cast<double>(window.width) / static_cast<double>(shape.columns);
    for (std::int64_t y = threadIdx.x; y < shape.rows; y += blockDim.x)
        between_rows[y] = between(y, step_y, window.height);
    for (std::int64_t x = threadIdx.x; x < shape.columns; x += blockDim.x)
        between_columns[x] = between(flip ? shape.columns - 1 - x : x, step_x, window.width);
    __syncthreads();
    const std::int64_t W = shape.width, C = shape.channels;
    const std::uint8_t* image = images + ((index[i] * shape.height + window.top) * W + window.left) * C;
    T* to = out + i * shape.rows * shape.columns * C;
    each_value(shape, [&](std::int64_t v, std::int64_t c, std::int64_t row, std::int64_t column) {
        const Between y = between_rows[row], x = between_columns[column];
        const auto across = [&](std::int64_t from) {
            const auto low = static_cast<float>(image[(from * W + x.low) * C + c]),
                       high = static_cast<float>(image[(from * W + x.high) * C + c]);
            return low + (high - low) * x.weight;
        };
        const float low = across(y.low), high = across(y.high);
        put(to + v, (low + (high - low) * y.weight) * scale[c] + bias[c]);
    });
}

}  // namespace

void cuda_gather(const Images& images, const std::int64_t* index, const std::int64_t* ids, const Batch& out,
                 const Augmentation& how, std::uintptr_t stream_address) {
    check_augmentation(images, out, how);
    check_index(index, out.count, images.count);
    if (out.count > 0x7FFFFFFF) throw ArgumentError("index", "has more than 2**31 - 1 entries");
    if (out.count == 0 || out.height * out.width * images.channels == 0) return;
    const bool resizes = how.resized || out.height != images.height || out.width != images.width;
    const std::size_t tables = resizes ? static_cast<std::size_t>(out.height + out.width) * sizeof(Between) : 0;
    if (tables > 48000) throw ArgumentError("out", "has a height and width of more than 2000 pixels together");
    const cudaStream_t stream = stream_at(stream_address);

    // One copy for all that is small: indices, ids, scales, biases. A copy from pageable memory has read it when the
    // call returns.
    const std::vector<float> normalise = normalisation(images, how);
    const std::size_t numbers = static_cast<std::size_t>(out.count) * sizeof(std::int64_t),
                      floats = normalise.size() * sizeof(float);
    std::vector<std::uint8_t> small(2 * numbers + floats);
    std::copy_n(reinterpret_cast<const std::uint8_t*>(index), numbers, small.data());
    std::copy_n(reinterpret_cast<const std::uint8_t*>(ids), numbers, small.data() + numbers);
    std::copy_n(reinterpret_cast<const std::uint8_t*>(normalise.data()), floats, small.data() + 2 * numbers);
    const Scratch<std::uint8_t> device(static_cast<std::int64_t>(small.size()), stream);
    check(cudaMemcpyAsync(device.get(), small.data(), small.size(), cudaMemcpyHostToDevice, stream),
          "copying the index to the GPU");

    const auto* device_index = reinterpret_cast<const std::int64_t*>(device.get());
    const auto* scale = reinterpret_cast<const float*>(device.get() + 2 * numbers);
    const Shape shape{images.height, images.width, images.channels, out.height, out.width, out.channels_last};
    const auto launch = [&](auto kernel, auto* to) {
        PYDT_LAUNCH(kernel, static_cast<unsigned>(out.count), 256, tables, stream, images.data, device_index,
                    device_index + out.count, to, shape, scale, scale + images.channels, how);
    };
    const auto run = [&](auto* to) {
        using T = std::remove_pointer_t<decltype(to)>;
        if (resizes)
            launch(resize_kernel<T>, to);
        else
            launch(shift_kernel<T>, to);
    };
    switch (out.type) {
        case Pixel::f32: run(static_cast<float*>(out.data)); break;
        case Pixel::f16: run(static_cast<__half*>(out.data)); break;
        case Pixel::bf16: run(static_cast<BFloat16*>(out.data)); break;
    }
    check(cudaGetLastError(), "gather on the GPU");
}

}  // namespace pydt
