// Random bits of ids, and the order of an epoch.
//
// epoch_order sorts by 64 random bits. They are uniform, so the leading bits spread the ids evenly. A first counting
// pass makes buckets of about 1,000 ids, which fit the L1 cache; a second pass splits each bucket into places of about
// one; insertion sort does the rest. What lost: one counting pass into as many buckets as ids (every write misses the
// cache: 4 times slower for a million ids), std::sort of all.
#include "rng.hpp"

#include <algorithm>
#include <bit>

#include "pydt.hpp"

namespace pydt {

void random_bits(std::uint64_t seed, std::uint64_t stream, const std::int64_t* ids, std::int64_t count,
                 std::uint64_t* out) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = random_bits(seed, stream, ids[i]);
}

void epoch_order(std::uint64_t seed, std::uint64_t epoch, const std::int64_t* ids, std::int64_t count,
                 std::int64_t* out) {
    if (count == 0) return;
    if (epoch >= epoch_limit) throw ArgumentError("epoch", "must be below 2**56");
    struct Entry {
        std::uint64_t key;
        std::int64_t position;
    };
    const auto n = static_cast<std::size_t>(count);
    const auto bits_for = [](std::size_t buckets) { return static_cast<int>(std::bit_width(buckets)); };
    const int bits = std::min(bits_for(n / 1024), 12);
    const auto bucket = [&](std::uint64_t key) { return bits == 0 ? 0 : static_cast<std::size_t>(key >> (64 - bits)); };
    auto* keys = reinterpret_cast<std::uint64_t*>(out);  // holds the keys until the order overwrites them
    random_bits(seed, stream_of(order_stream, epoch), ids, count, keys);
    std::vector<std::size_t> ends((std::size_t{1} << bits) + 1);  // the start of bucket b; grows to its end
    for (std::size_t i = 0; i < n; ++i) ++ends[bucket(keys[i]) + 1];
    std::size_t largest = 0;
    for (std::size_t b = 1; b < ends.size(); ++b) {
        largest = std::max(largest, ends[b]);
        ends[b] += ends[b - 1];
    }
    std::vector<Entry> entries(n), sorted(largest);
    for (std::size_t i = 0; i < n; ++i) entries[ends[bucket(keys[i])]++] = {keys[i], static_cast<std::int64_t>(i)};

    const auto before = [&](const Entry& a, const Entry& b) {
        if (a.key != b.key) return a.key < b.key;
        return ids[a.position] < ids[b.position];  // both passes are stable: equal ids stay in order of position
    };
    std::vector<std::uint32_t> starts;
    std::size_t from = 0;
    for (std::size_t b = 0; b + 1 < ends.size(); ++b) {
        const std::size_t to = ends[b];
        const int more = std::min(bits_for(to - from), 24);
        const auto place = [&](const Entry& entry) {
            return more == 0 ? 0 : static_cast<std::size_t>(entry.key << bits >> (64 - more));
        };
        starts.assign((std::size_t{1} << more) + 1, 0);
        for (std::size_t i = from; i < to; ++i) ++starts[place(entries[i]) + 1];
        for (std::size_t p = 1; p < starts.size(); ++p) starts[p] += starts[p - 1];
        for (std::size_t i = from; i < to; ++i) sorted[starts[place(entries[i])]++] = entries[i];
        for (std::size_t i = 1; i < to - from; ++i) {
            const Entry entry = sorted[i];
            std::size_t hole = i;
            for (; hole > 0 && before(entry, sorted[hole - 1]); --hole) sorted[hole] = sorted[hole - 1];
            sorted[hole] = entry;
        }
        for (std::size_t i = from; i < to; ++i) out[i] = sorted[i - from].position;
        from = to;
    }
}

}  // namespace pydt
