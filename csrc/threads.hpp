// Splits items 0 .. items - 1 of work over threads that live for one call.
//
// Every item writes its own part of the result and is computed the same way by any thread, so the bits do not depend on
// the number of threads. Threads are started for each call (about 30 us each) and not kept in a pool: a pool does not
// survive fork() and must be torn down at exit, and the default is one thread, which starts none.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace pydt {

// Memory for vectors, not set to anything.
struct alignas(64) CacheLine {
    std::uint8_t bytes[64];
};
using Scratch = std::unique_ptr<CacheLine[]>;
inline Scratch scratch_of(std::int64_t bytes) {
    return std::make_unique_for_overwrite<CacheLine[]>(static_cast<std::size_t>(bytes / 64 + (bytes % 64 != 0)));
}

// make() returns work(item). It is called once in each thread, so that `work` can own scratch memory. The first
// exception of any thread is rethrown.
template <class Make>
void parallel(std::int64_t items, int threads, Make make) {
    std::atomic<std::int64_t> next{0};
    std::exception_ptr failure;
    std::mutex guard;
    auto body = [&] {
        try {
            auto work = make();
            for (std::int64_t item = next++; item < items; item = next++) work(item);
        } catch (...) {
            next = items;  // the other threads stop after their present item
            const std::lock_guard<std::mutex> lock(guard);
            if (!failure) failure = std::current_exception();
        }
    };
    std::vector<std::thread> helpers;
    const std::int64_t wanted = items < threads ? items : threads;
    helpers.reserve(wanted > 1 ? static_cast<std::size_t>(wanted - 1) : 0);
    try {
        while (static_cast<std::int64_t>(helpers.size()) + 1 < wanted) helpers.emplace_back(body);
    } catch (const std::system_error&) {
        // the system starts no more threads: the others do all the work
    }
    body();
    for (auto& helper : helpers) helper.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace pydt
