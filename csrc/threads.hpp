// Splits work that is numbered 0..items-1 over threads that live for one call.
//
// Every item writes its own part of the result and is computed the same way whoever takes it, so the bits do not depend
// on the number of threads. Threads are started per call (about 30 us each) and not kept in a pool: a pool does not
// survive fork(), needs tearing down at exit, and the default is one thread, which starts none.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace pydt {

// make() -> work(item): made once in each thread, so that it can own scratch memory. The first exception is rethrown
// here.
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
            next = items;  // the others stop after the item they are at
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
        // no more threads to be had: those that run do all the work
    }
    body();
    for (auto& helper : helpers) helper.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace pydt
