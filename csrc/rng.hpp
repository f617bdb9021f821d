// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
// Counter-based: the bits are a function of (key, counter); there is no state. So the order and the augmentation of
// examples depend on (seed, epoch, example id) alone, not on workers, batches or resuming. Ten rounds of two
// multiplications of 32 x 32 -> 64 bits, 8 ns a call. What lost: splitmix64 of the sum of the inputs (faster, but
// related keys give related streams); std::mt19937 (2.5 KB of state, bits depend on the order of calls).
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define PYDT_HOST_DEVICE __host__ __device__
#else
#define PYDT_HOST_DEVICE
#endif

namespace pydt {

struct Words4 {
    std::uint32_t w0, w1, w2, w3;
};

PYDT_HOST_DEVICE inline Words4 philox4x32_10(Words4 counter, std::uint32_t key0, std::uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = std::uint64_t{0xD2511F53} * counter.w0;
        const std::uint64_t b = std::uint64_t{0xCD9E8D57} * counter.w2;
        counter = {static_cast<std::uint32_t>(b >> 32) ^ counter.w1 ^ key0, static_cast<std::uint32_t>(b),
                   static_cast<std::uint32_t>(a >> 32) ^ counter.w3 ^ key1, static_cast<std::uint32_t>(a)};
        key0 += 0x9E3779B9;
        key1 += 0xBB67AE85;
    }
    return counter;
}

// The only use in pydt: key = seed, counter = (id, stream).
PYDT_HOST_DEVICE inline Words4 random_words(std::uint64_t seed, std::uint64_t stream, std::int64_t id) {
    const auto low = static_cast<std::uint64_t>(id);
    return philox4x32_10({static_cast<std::uint32_t>(low), static_cast<std::uint32_t>(low >> 32),
                          static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)},
                         static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
}

// Where 64 bits are enough: the first two words.
PYDT_HOST_DEVICE inline std::uint64_t random_bits(std::uint64_t seed, std::uint64_t stream, std::int64_t id) {
    const Words4 words = random_words(seed, stream, id);
    return words.w0 | std::uint64_t{words.w1} << 32;
}

// Streams with an epoch: the lowest byte says what the bits are for (windows.hpp has the table).
constexpr std::uint64_t order_stream = 1;
constexpr std::uint64_t epoch_limit = std::uint64_t{1} << 56;

PYDT_HOST_DEVICE inline std::uint64_t stream_of(std::uint64_t purpose, std::uint64_t epoch) {
    return epoch << 8 | purpose;
}

}  // namespace pydt
