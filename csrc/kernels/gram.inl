// The Gram matrix of the masks.
//
//   counts[k, j] = rows that keep both groups k and j
//
// These are subset sums with the masks as outputs: bytes of 0 or 1, and the tables, codes and loop of subset_sums.inl.
// Sums are exact: uint8 over a run of 5 blocks of 48 rows, uint16 over a strip, then int64.
//
// Cost for m rows and K groups: m/6 * K/lanes * K/2 loads of an entry, as only the lower triangle is summed
// (moments.cpp). Against numpy's float32 product (OpenBLAS; Zen 3, AVX2, one thread on a shared core): 7.9 times faster
// at K = 1000, m = 7540; 5.6 at K = 20,000. What lost: popcount of 64 rows at a time, 4 times slower where no vector
// instruction counts bits.

// A strip of one vector: the masks of `lanes` groups from group0 on, as bytes of 0 or 1.
void load_bits(const Masks& masks, int64_t first, int64_t count, int64_t padded, int64_t group0, uint8_t* out) {
    constexpr int64_t bytes = PYDT_LANE_BYTES / 8;
    memset(out + count * PYDT_LANE_BYTES, 0, static_cast<size_t>((padded - count) * PYDT_LANE_BYTES));
    const int64_t have = masks.row_bytes - group0 / 8 < bytes ? masks.row_bytes - group0 / 8 : bytes;
    for (int64_t i = 0; i < count; ++i) {
        const uint8_t* in = masks.data + (first + i) * masks.row_bytes + group0 / 8;
        for (int64_t b = 0; b < bytes; ++b) {
            const uint64_t spread =
                (b < have ? in[b] : 0) * 0x0101010101010101u & 0x8040201008040201u;  // bit b in byte b
            const uint64_t ones = (spread + 0x7F7F7F7F7F7F7F7Fu) >> 7 & 0x0101010101010101u;
            memcpy(out + i * PYDT_LANE_BYTES + 8 * b, &ones, 8);
        }
    }
}

// Totals: even lanes, then odd ones. 5 blocks of 48 rows fit 8 bits, 1365 blocks 16.
template <>
struct Wide<uint8_t> {
    static constexpr int64_t run = 5;
    typedef uint16_t Total;
    static void add(Vector<uint16_t>::Lanes* total, Vector<uint8_t>::Lanes sum) {
        typedef Vector<uint16_t>::Lanes Pairs;
        const auto pairs = reinterpret_cast<Pairs>(sum);
        total[0] += pairs & 0xFF;
        total[1] += pairs >> 8;
    }
    static int64_t place(int64_t lane) { return lane % 2 * lanes_of<uint16_t> + lane / 2; }
};

constexpr auto sum_bits = &sum_vector<uint8_t, int64_t>;
