// For all .cu files: launches and shared memory, errors as exceptions, scratch memory that is freed in stream order.
#pragma once
#include <cuda_runtime.h>

#include "../pydt.hpp"

// The three things that are spelled differently where tests compile the kernels for the CPU (tests/emulation). The name
// of a type has no comma: an array has an alias.
#ifdef __CUDACC__
#define PYDT_LAUNCH(kernel, grid, block, dynamic_bytes, stream, ...) \
    kernel<<<grid, block, dynamic_bytes, stream>>>(__VA_ARGS__)
#define PYDT_SHARED(type, name) __shared__ type name
#define PYDT_DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#else
#define PYDT_LAUNCH(kernel, grid, block, dynamic_bytes, stream, ...) \
    emulation::launch(grid, block, dynamic_bytes, stream, kernel, __VA_ARGS__)
#define PYDT_SHARED(type, name) PYDT_EMULATED_SHARED(type, name)
#define PYDT_DYNAMIC_SHARED(type, name) PYDT_EMULATED_DYNAMIC_SHARED(type, name)
#endif

namespace pydt {

inline void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) {
        cudaGetLastError();  // clears the error, which the next call would report
        throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
    }
}

inline cudaStream_t stream_at(std::uintptr_t address) { return reinterpret_cast<cudaStream_t>(address); }

// Scratch memory on the device, freed after the work that is queued on the stream.
template <class T>
class Scratch {
public:
    Scratch(std::int64_t count, cudaStream_t stream) : stream_(stream) {
        const std::size_t bytes = checked_size("scratch", {count, static_cast<std::int64_t>(sizeof(T))});
        if (bytes > 0) check(cudaMallocAsync(reinterpret_cast<void**>(&data_), bytes, stream), "memory on the GPU");
    }
    ~Scratch() {
        if (data_ != nullptr) cudaFreeAsync(data_, stream_);
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    T* get() const { return data_; }

private:
    T* data_ = nullptr;
    cudaStream_t stream_;
};

}  // namespace pydt
