// CUDA on the CPU, for tests: with this folder first among the include folders, a .cu file compiles as C++20.
//
//   launch   One std::thread for each CUDA thread of two blocks at a time. Team t of the two does the blocks t, t + 2,
//            ..., one after another. The teams share global memory only and never wait for each other, so
//            ThreadSanitizer finds races between blocks as well as within one. A launch is done when the call returns.
//            The threads stay for the next launch: under the sanitizers a new one takes a millisecond.
//   barrier  Every thread of the block must arrive, all of them from the same line. If one ends instead, or waits at
//            another line, the launch fails with a message; it does not hang. (CUDA lets threads end early.)
//   memory   Each allocation and each shared variable of a block is a heap block of its exact size, so AddressSanitizer
//            finds what lies outside. It holds bytes of 0xFF at first: NaN, or -1. Pointers that a kernel is launched
//            with must point into memory of cudaMalloc.
//   limits   Sizes of grid, block and shared memory are those of compute capability 8.0.
//
// The barrier is a mutex and a condition variable, which ThreadSanitizer follows in all versions. Only what pydt's
// kernels use is here.
#pragma once
#include <math.h>

#include <bit>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <source_location>
#include <string>
#include <thread>
#include <utility>

#define __global__
#define __device__
#define __host__

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline thread_local uint3 threadIdx{}, blockIdx{};
inline thread_local dim3 blockDim, gridDim;

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorInvalidConfiguration, cudaErrorLaunchFailure };
enum cudaMemcpyKind { cudaMemcpyHostToDevice };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor };
struct EmulatedStream;
using cudaStream_t = EmulatedStream*;

namespace emulation {

// ---- device memory ----------------------------------------------------------------------------------------------
using Bytes = std::unique_ptr<std::uint8_t[]>;

inline Bytes garbage(std::size_t bytes) {
    Bytes memory(new std::uint8_t[bytes]);
    std::memset(memory.get(), 0xFF, bytes);
    return memory;
}

struct Device {
    std::mutex mutex;
    struct Allocation {
        Bytes memory;
        std::size_t bytes;
    };
    std::map<std::uintptr_t, Allocation> allocations;  // by address
    bool any_memory = false;                           // kernels may be given any address
    cudaError_t status = cudaSuccess;
    std::string message;
};
inline Device device;

inline cudaError_t fail(cudaError_t status, const std::string& message) {
    const std::lock_guard lock(device.mutex);
    device.message = message;
    return device.status = status;
}

inline bool on_device(const void* pointer) {
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    const std::lock_guard lock(device.mutex);
    const auto after = device.allocations.upper_bound(address);
    return device.any_memory || pointer == nullptr ||
           (after != device.allocations.begin() && address <= std::prev(after)->first + std::prev(after)->second.bytes);
}
template <class T>
bool acceptable(const T&) {
    return true;
}
template <class T>
bool acceptable(T* const& pointer) {
    return on_device(pointer);
}

// ---- blocks -----------------------------------------------------------------------------------------------------
struct Abandoned {};  // thrown through a kernel whose block has failed

// The threads that do one block together, and then the next.
class Team {
public:
    Team(unsigned threads, std::size_t dynamic_bytes) : threads_(threads), dynamic_bytes_(dynamic_bytes) {}

    void barrier(std::source_location from) {
        std::unique_lock lock(mutex_);
        if (waiting_ > 0 && from.line() != at_.line())
            failed("threads wait at the barriers of lines " + line() + " and " + std::to_string(from.line()));
        at_ = from;
        if (ended_ > 0) failed("a thread has ended, others wait at the barrier of line " + line());
        meet(lock, waiting_);
        if (!error_.empty()) throw Abandoned();
    }
    // At the end of a block. False if there is no next one, since the launch has failed.
    bool end() {
        std::unique_lock lock(mutex_);
        if (waiting_ > 0) failed("a thread has ended, others wait at the barrier of line " + line());
        meet(lock, ended_);
        return error_.empty();
    }
    // Its mutex is its own: through another one, a late thread would seem to be ordered after what others did.
    std::uint8_t* shared(const void* variable, std::size_t bytes) {
        const std::lock_guard lock(shared_mutex_);
        Bytes& memory = shared_[variable];
        if (memory == nullptr) memory = garbage(bytes);
        return memory.get();
    }
    std::uint8_t* dynamic() { return shared(nullptr, dynamic_bytes_); }
    const std::string& error() const { return error_; }

private:
    void meet(std::unique_lock<std::mutex>& lock, unsigned& arrived) {
        const std::uint64_t meeting = meeting_;
        if (++arrived == threads_) {
            if (&arrived == &ended_) {
                const std::lock_guard shared_lock(shared_mutex_);
                shared_.clear();  // the next block gets other memory
            }
            arrived = 0;
            ++meeting_;
            all_here_.notify_all();
        }
        all_here_.wait(lock, [&] { return meeting != meeting_ || !error_.empty(); });
    }
    std::string line() const { return std::to_string(at_.line()); }
    void failed(const std::string& why) {
        if (error_.empty()) error_ = std::string(at_.file_name()) + ": " + why;
        all_here_.notify_all();
    }

    const unsigned threads_;
    const std::size_t dynamic_bytes_;
    std::mutex mutex_, shared_mutex_;
    std::condition_variable all_here_;
    std::uint64_t meeting_ = 0;
    unsigned waiting_ = 0, ended_ = 0;
    std::source_location at_;  // of the last thread at a barrier
    std::string error_;
    std::map<const void*, Bytes> shared_;  // by the address of a marker of the variable
};
inline thread_local Team* team = nullptr;

// Threads that wait for launches.
class Crew {
public:
    // work(0) .. work(count - 1), each on a thread of its own; returns when all are done.
    void run(unsigned count, const std::function<void(unsigned)>& work) {
        const std::lock_guard one_launch(launching_);
        std::unique_lock lock(mutex_);
        for (; size_ < count; ++size_) std::thread(&Crew::serve, this, size_, turn_).detach();
        work_ = &work;
        count_ = count;
        begun_ = ended_ = 0;
        ++turn_;
        change_.notify_all();
        done_.wait(lock, [&] { return ended_ == count_; });
    }

private:
    void serve(unsigned i, std::uint64_t turn) {
        for (std::unique_lock lock(mutex_);;) {
            change_.wait(lock, [&] { return turn_ != turn; });
            turn = turn_;
            if (i >= count_) continue;
            // none begins before all are here: a thread that took this lock after another's work could not race with it
            if (++begun_ == count_) change_.notify_all();
            change_.wait(lock, [&] { return begun_ == count_; });
            lock.unlock();
            (*work_)(i);
            lock.lock();
            if (++ended_ == count_) done_.notify_one();
        }
    }

    std::mutex launching_, mutex_;
    std::condition_variable change_, done_;
    const std::function<void(unsigned)>* work_ = nullptr;
    unsigned size_ = 0, count_ = 0, begun_ = 0, ended_ = 0;
    std::uint64_t turn_ = 0;
};
inline Crew& crew = *new Crew;  // never deleted: its threads end with the process

template <class... Parameters, class... Arguments>
void launch(dim3 grid, dim3 block, std::size_t dynamic_bytes, cudaStream_t, void (*kernel)(Parameters...),
            Arguments... arguments) {
    const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z,
                        blocks = std::uint64_t{grid.x} * grid.y * grid.z;
    if (threads == 0 || threads > 1024 || block.z > 64 || blocks == 0 || grid.x > 0x7FFFFFFF || grid.y > 65535 ||
        grid.z > 65535 || dynamic_bytes > 48 * 1024) {
        fail(cudaErrorInvalidConfiguration, "invalid configuration argument");
        return;
    }
    if (!(acceptable(static_cast<Parameters>(arguments)) && ...)) {
        fail(cudaErrorInvalidValue, "a pointer that the kernel is given does not point into memory of the device");
        return;
    }
    const unsigned teams = blocks > 1 ? 2 : 1, size = static_cast<unsigned>(threads);
    Team all[2] = {{size, dynamic_bytes}, {size, dynamic_bytes}};
    crew.run(teams * size, [&](unsigned at) {
        const unsigned i = at % size;
        team = &all[at / size];
        blockDim = block;
        gridDim = grid;
        threadIdx = {i % block.x, i / block.x % block.y, i / block.x / block.y};
        for (std::uint64_t b = at / size; b < blocks; b += teams) {
            blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                        static_cast<unsigned>(b / grid.x / grid.y)};
            try {
                kernel(arguments...);
            } catch (const Abandoned&) {
                return;
            }
            if (!team->end()) return;
        }
    });
    for (const Team& one : all)
        if (!one.error().empty()) fail(cudaErrorLaunchFailure, one.error());
}

}  // namespace emulation

#define PYDT_EMULATED_SHARED(type, name) \
    static char name##_marker;           \
    type& name = *reinterpret_cast<type*>(emulation::team->shared(&name##_marker, sizeof(type)))
#define PYDT_EMULATED_DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulation::team->dynamic())

// ---- device functions -------------------------------------------------------------------------------------------
inline void __syncthreads(std::source_location from = std::source_location::current()) {
    emulation::team->barrier(from);
}
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }

struct __half {
    _Float16 value;
};
inline __half __float2half_rn(float value) { return {static_cast<_Float16>(value)}; }

// ---- host functions ---------------------------------------------------------------------------------------------
inline cudaError_t cudaGetLastError() {
    const std::lock_guard lock(emulation::device.mutex);
    return std::exchange(emulation::device.status, cudaSuccess);
}
inline const char* cudaGetErrorString(cudaError_t) { return emulation::device.message.c_str(); }
inline cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    *value = 8;
    return cudaSuccess;
}
inline cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t) {
    emulation::Bytes memory = emulation::garbage(bytes);
    *pointer = memory.get();
    const std::lock_guard lock(emulation::device.mutex);
    emulation::device.allocations[reinterpret_cast<std::uintptr_t>(*pointer)] = {std::move(memory), bytes};
    return cudaSuccess;
}
inline cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) {
    const std::lock_guard lock(emulation::device.mutex);
    const auto freed = emulation::device.allocations.erase(reinterpret_cast<std::uintptr_t>(pointer));
    return freed == 1 ? cudaSuccess : cudaErrorInvalidValue;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
    if (!emulation::on_device(to))
        return emulation::fail(cudaErrorInvalidValue, "a copy to memory that is not the device's");
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
