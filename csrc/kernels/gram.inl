// The Gram matrix of the masks.
//
//   counts[k, j] = rows that keep both groups k and j
//
// Where an instruction counts the bits of a vector (AVX-512): turn_bits and count_pairs, below. Elsewhere these are
// subset sums with the masks as outputs: bytes of 0 or 1, and the tables, codes and loop of subset_sums.inl. Sums are
// exact: uint8 over a run of 5 blocks of 48 rows, uint16 over a strip, then int64. Only the lower triangle is summed.
//
// Cost of the tables for m rows and K groups: m/6 * K/lanes * K/2 loads of an entry. Against numpy's float32 product
// (OpenBLAS; Zen 3, AVX2, one thread on a shared core): 7.9 times faster at K = 1000, m = 7540; 5.6 at K = 20,000. What
// lost: popcount of 64 rows at a time, 4 times slower where no vector instruction counts bits.

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

#if defined(__AVX512VPOPCNTDQ__)
// By counting bits. A panel is 8 groups, one byte of each row; its words are (blocks of 64 rows, 8 groups), bit i of a
// word for row i of the block. A tile of counts is 8 groups, each word broadcast, by 3 panels, a vector of words each:
// lanes are groups, so nothing is added across a vector. A tile below the diagonal is stored a second time, transposed.
//
// Cost: an and, a count and an addition for 512 pairs of bits. Against numpy's float32 product (OpenBLAS at its fastest
// kernel; AMD EPYC with AVX-512, two virtual cores, one thread, 2026-11-30): 16 times faster at K = 1000, m = 7540
// (4.6 ms; the tables: 9.0), 18 at 2000 x 30,000, 15 at 200 x 1500. What lost: one part of the columns against all
// later rows, 1.5 times slower at K = 20,000, as each tile then touches new pages.
typedef int64_t Words __attribute__((vector_size(64)));
typedef int64_t LooseWords __attribute__((vector_size(64), aligned(8)));

// Lane i of vector j becomes lane j of vector i.
void transpose(Words* v) {
    for (int i = 0; i < 4; ++i) {
        const Words a = v[i], b = v[i + 4];
        v[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
        v[i + 4] = __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
    }
    for (int i = 0; i < 8; i += i % 2 == 0 ? 1 : 3) {
        const Words a = v[i], b = v[i + 2];
        v[i] = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
        v[i + 2] = __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int i = 0; i < 8; i += 2) {
        const Words a = v[i], b = v[i + 1];
        v[i] = __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14);
        v[i + 1] = __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
    }
}

void turn_bits(const Masks& masks, int64_t block, int64_t blocks, uint64_t* words) {
    alignas(64) uint8_t by_column[64];
    for (int i = 0; i < 64; ++i) by_column[i] = static_cast<uint8_t>(i % 8 * 8 + i / 8);
    const __m512i order = _mm512_load_si512(by_column);
    const int64_t first = 64 * block, rows = masks.rows - first < 64 ? masks.rows - first : 64;
    for (int64_t byte = 0; byte < masks.row_bytes; byte += 8) {
        const int64_t have = masks.row_bytes - byte < 8 ? masks.row_bytes - byte : 8;
        const uint8_t* from = masks.data + first * masks.row_bytes + byte;
        alignas(64) uint64_t row[64] = {};
        for (int64_t i = 0; i < rows; ++i, from += masks.row_bytes)
            if (have == 8)
                memcpy(row + i, from, 8);
            else
                memcpy(row + i, from, static_cast<size_t>(have));
        Words panel[8];  // of 64 rows: their bytes `byte` .. `byte` + 7
        for (int64_t i = 0; i < 8; ++i)
            panel[i] = reinterpret_cast<Words>(_mm512_permutexvar_epi8(order, _mm512_load_si512(row + 8 * i)));
        transpose(panel);
        for (int64_t p = 0; p < have; ++p) {
            uint64_t* to = words + ((byte + p) * blocks + block) * 8;
            for (int bit = 0; bit < 8; ++bit)
                to[bit] = _mm512_test_epi8_mask(reinterpret_cast<__m512i>(panel[p]),
                                                _mm512_set1_epi8(static_cast<char>(1 << bit)));
        }
    }
}

// The part of a tile that lies inside the matrix, and where it is.
struct PairTile {
    int64_t* counts;
    int64_t ld, rows, cols;
    bool first, last;  // of its blocks
    int64_t* mirror;   // null on the diagonal
};

// The first `count` of 8 lanes.
__mmask8 lanes_below(int64_t count) { return static_cast<__mmask8>(count < 8 ? (1 << count) - 1 : 0xFF); }

// row, col: words of the panels of a tile, those of further columns `panel` words apart.
template <size_t vectors>
void count_tile(const uint64_t* row, const uint64_t* col, int64_t panel, int64_t blocks, const PairTile& tile) {
    Words sum[vectors][8] = {};
    __mmask8 inside[vectors];
    for (size_t v = 0; v < vectors; ++v)
        inside[v] = lanes_below(tile.cols - 8 * static_cast<int64_t>(v));
    for (int64_t b = 0; b < blocks; ++b, row += 8, col += 8)
#pragma GCC unroll 8
        for (int r = 0; r < 8; ++r) {
            const Words bits = Words{} + static_cast<int64_t>(row[r]);
            for (size_t v = 0; v < vectors; ++v) {
                const Words pairs = *reinterpret_cast<const LooseWords*>(col + static_cast<int64_t>(v) * panel) & bits;
                sum[v][r] += reinterpret_cast<Words>(_mm512_popcnt_epi64(reinterpret_cast<__m512i>(pairs)));
            }
        }
    for (size_t v = 0; v < vectors; ++v) {
        const auto at = 8 * static_cast<int64_t>(v);
        for (int64_t r = 0; r < tile.rows; ++r) {
            int64_t* to = tile.counts + r * tile.ld + at;
            if (!tile.first) sum[v][r] += reinterpret_cast<Words>(_mm512_maskz_loadu_epi64(inside[v], to));
            _mm512_mask_storeu_epi64(to, inside[v], reinterpret_cast<__m512i>(sum[v][r]));
        }
        if (!tile.last || tile.mirror == nullptr) continue;
        transpose(sum[v]);
        for (int64_t l = 0; l < 8; ++l)
            _mm512_mask_storeu_epi64(tile.mirror + (at + l) * tile.ld,
                                     lanes_below(tile.rows),
                                     reinterpret_cast<__m512i>(sum[v][l]));
    }
}

void count_pairs(const uint64_t* words, int64_t blocks, int64_t groups, int64_t panel, int64_t* counts) {
    constexpr int64_t most = 512, across = 3;  // blocks at a time: the words of all rows of a call stay in L2
    static_assert(gram_panels % across == 0);
    const int64_t panels = (groups + 7) / 8, end = panel + gram_panels < panels ? panel + gram_panels : panels;
    for (int64_t b = 0; b < blocks; b += most)
        for (int64_t j = 0; j < end; j += across)
            for (int64_t i = j < panel ? panel : j; i < end; ++i) {
                const uint64_t *row = words + (i * blocks + b) * 8, *col = words + (j * blocks + b) * 8;
                const int64_t some = blocks - b < most ? blocks - b : most;
                const PairTile tile{counts + 8 * (i * groups + j),
                                    groups,
                                    groups - 8 * i < 8 ? groups - 8 * i : 8,
                                    groups - 8 * j,
                                    b == 0,
                                    b + some == blocks,
                                    i < j + across ? nullptr : counts + 8 * (j * groups + i)};
                switch (panels - j) {
                    case 1: count_tile<1>(row, col, 8 * blocks, some, tile); break;
                    case 2: count_tile<2>(row, col, 8 * blocks, some, tile); break;
                    default: count_tile<across>(row, col, 8 * blocks, some, tile);
                }
            }
}
#else
constexpr decltype(Kernels::turn_bits) turn_bits = nullptr;
constexpr decltype(Kernels::count_pairs) count_pairs = nullptr;
#endif
