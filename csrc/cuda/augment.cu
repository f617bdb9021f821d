// gather + crop + flip + normalise with the data set resident on the GPU.
//
//   The formula, the layouts and, with -fmad=false, the bits are those of kernels/augment.inl.
//
// One block writes one image; its first thread draws the place (rng.hpp). Threads walk over the output in memory order,
// so stores coalesce for both layouts and loads are at most `channels` apart. Cost: 1 byte read and 4 written a value,
// bound by memory. What lost: drawing places in a kernel of its own (one more launch, longer than the draws).
#include <algorithm>
#include <vector>

#include "../rng.hpp"
#include "device.cuh"

namespace pydt {
namespace {

struct Shape {
    std::int64_t height, width, channels;
    bool channels_last;
};

__global__ void gather_kernel(const std::uint8_t* images, const std::int64_t* index, const std::int64_t* ids,
                              float* out, Shape shape, const float* scale, const float* bias, std::int64_t crop_pad,
                              bool flip, std::uint64_t seed, std::uint64_t epoch) {
    __shared__ Placement placement;
    const std::int64_t i = blockIdx.x;
    if (threadIdx.x == 0) placement = place(seed, epoch, ids[i], crop_pad, flip);
    __syncthreads();
    const std::int64_t H = shape.height, W = shape.width, C = shape.channels, values = H * W * C;
    const std::uint8_t* image = images + index[i] * values;
    for (std::int64_t v = threadIdx.x; v < values; v += blockDim.x) {
        const std::int64_t c = shape.channels_last ? v % C : v / (H * W);
        const std::int64_t pixel = shape.channels_last ? v / C : v % (H * W);
        const std::int64_t x = pixel % W, y = pixel / W + placement.dy;
        const std::int64_t from = (placement.flip ? W - 1 - x : x) + placement.dx;
        const bool inside = y >= 0 && y < H && from >= 0 && from < W;
        const float value = inside ? static_cast<float>(image[(y * W + from) * C + c]) : 0.0f;
        out[i * values + v] = value * scale[c] + bias[c];
    }
}

}  // namespace

void cuda_gather(const Images& images, const std::int64_t* index, const std::int64_t* ids, const Batch& out,
                 const Augmentation& how, std::uintptr_t stream_address) {
    check_augmentation(images, how);
    check_index(index, out.count, images.count);
    if (out.count > 0x7FFFFFFF) throw ArgumentError("index", "has more than 2**31 - 1 entries");
    const std::int64_t values = images.height * images.width * images.channels;
    if (out.count == 0 || values == 0) return;
    const cudaStream_t stream = stream_at(stream_address);

    // One copy carries all that is small: indices, ids, scales and biases. Copies from pageable memory have left it
    // when the call returns.
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
    gather_kernel<<<static_cast<unsigned>(out.count), 256, 0, stream>>>(
        images.data, device_index, device_index + out.count, out.data,
        {images.height, images.width, images.channels, out.channels_last}, scale, scale + images.channels, how.crop_pad,
        how.flip, how.seed, how.epoch);
    check(cudaGetLastError(), "gather on the GPU");
}

}  // namespace pydt
