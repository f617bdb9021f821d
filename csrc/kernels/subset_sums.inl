// Subset sums: for every group, the sum of the outputs of the rows that keep it.
//
//   sums[k, j] = sum over rows i that keep group k of (outputs[i, j] - shift[j])
//
// Method of four Russians: the 64 possible sums of 6 rows are tabulated for one vector of outputs; each group adds the
// entry that its 6 bits select.
//
// Order of additions, part of the contract and the same for every instruction set. In the precision of the outputs, at
// least float32: 3 rows from the first to the last, starting at 0; two of these sums make 6 rows; four of those, one
// after another, 24; two of those a block of 48; the 8 blocks of a run, one after another. Then the runs, one after
// another, in float64. So a float32 sum has at most 15 roundings, that of the difference included, and an error of at
// most 15 * 2^-24 * sum |outputs - shift| for any number of rows.
//
// Layout. codes: one 64-bit word holds the eight codes of 48 rows for a group. Outputs: strips (loading.inl). One
// vector of 48 rows has 8 tables of 64 vectors (AVX2: 16 KB, half of L1); each group then costs 8 loads of an entry, 7
// additions and one addition to its sum of the run (in L2). The sums of runs add up in a wider type: double for float,
// int32 for int16. The Gram matrix runs the same loop on bytes (gram.inl).
//
// Cost for m rows, K groups, n outputs: m/6 * n/lanes * K loads of an entry, and 11 * m * n/lanes stores of tables (10
// % of the time at K = 1000, 50 % at K = 200). Against numpy's float32 product (OpenBLAS; Zen 3, AVX2, one thread on a
// shared core; K = 1000, m = 7540): float 3.1 to 3.5 times faster (n = 10,000 to 200), float16 3.1, int16 3.8 to 4.6;
// at K = 20,000, n = 64: 3.6. The largest error of a float32 sum is 4e-8 of the largest sum.
//
// What lost (cycles for 48 rows of 8 outputs in L1; this one takes 6.0): two vectors of 4 tables 7.1, as the sums of a
// run move twice as often; two vectors of 8 tables 7.3 (32 KB: all of L1) or of 5 bits 8.0; codes loaded byte by byte
// 8.2; shift and mask for each code 7.1 to 7.9, bextr 6.8.

// The lowest byte of a word, the next byte, and the word without both. As instructions, because GCC 12 otherwise uses a
// shift and a mask for each byte, and the number of instructions limits the loop over the groups.
#if defined(__x86_64__)
uint64_t low_byte(uint64_t word) {
    uint64_t byte;
    __asm__("movzbl %b1, %k0" : "=r"(byte) : "Q"(word));
    return byte;
}
uint64_t next_byte(uint64_t word) {
    uint64_t byte;
    __asm__("movzbl %h1, %k0" : "=Q"(byte) : "Q"(word));
    return byte;
}
uint64_t later_bytes(uint64_t word) {
    __asm__("shrq $16, %0" : "+Q"(word) : : "cc");
    return word;
}
#else
uint64_t low_byte(uint64_t word) { return word & 0xFF; }
uint64_t next_byte(uint64_t word) { return word >> 8 & 0xFF; }
uint64_t later_bytes(uint64_t word) { return word >> 16; }
#endif

// 8 tables of the sums of 6 rows: 8 * 64 vectors. A code is in bits 2..7 of its byte, so the byte times a quarter of a
// vector is the place of its entry. The extra vector keeps reads inside even if bits 0 and 1 are set.
template <class Value>
struct Tables {
    typedef typename Vector<Value>::Lanes Lanes;
    alignas(64) Lanes entry[8 * 64 + 1];

    void fill(const Lanes* rows) {  // 48 of them
        for (int64_t table = 0; table < 8; ++table) {
            Lanes half[2][8];
            for (int64_t h = 0; h < 2; ++h) {
                half[h][0] = Lanes{};
                for (int64_t i = 0; i < 3; ++i)
                    for (int64_t set = 0; set < 1 << i; ++set)
                        half[h][set | 1 << i] = half[h][set] + rows[6 * table + 3 * h + i];
            }
            for (int64_t high = 0; high < 8; ++high)
                for (int64_t low = 0; low < 8; ++low) entry[table * 64 + high * 8 + low] = half[0][low] + half[1][high];
        }
    }

    typedef Value Anywhere __attribute__((vector_size(PYDT_LANE_BYTES), aligned(1)));

    Lanes at(int64_t table, uint64_t code) const {
        const auto* bytes = reinterpret_cast<const char*>(entry + table * 64);
        return *reinterpret_cast<const Anywhere*>(bytes + code * (PYDT_LANE_BYTES / 4));
    }

    Lanes sum(uint64_t word) const {
        Lanes first = at(0, low_byte(word));
        first += at(1, next_byte(word));
        word = later_bytes(word);
        first += at(2, low_byte(word));
        first += at(3, next_byte(word));
        word = later_bytes(word);
        Lanes second = at(4, low_byte(word));
        second += at(5, next_byte(word));
        word = later_bytes(word);
        second += at(6, low_byte(word));
        second += at(7, next_byte(word));
        return first + second;
    }
};

// The type that sums of a run are added in: `run` blocks in a run; totals of `Total`; place(lane): where a lane's total
// is.
template <class Value>
struct Wide;

template <>
struct Wide<float> {
    static constexpr int64_t run = 8;
    typedef double Total;
    static void add(Vector<double>::Lanes* total, Vector<float>::Lanes sum) {
        Vector<float>::Half half[2];
        memcpy(half, &sum, sizeof sum);
        total[0] += __builtin_convertvector(half[0], Vector<double>::Lanes);
        total[1] += __builtin_convertvector(half[1], Vector<double>::Lanes);
    }
    static int64_t place(int64_t lane) { return lane; }
};

template <>
struct Wide<double> {
    static constexpr int64_t run = 8;
    typedef double Total;
    static void add(Vector<double>::Lanes* total, Vector<double>::Lanes sum) { *total += sum; }
    static int64_t place(int64_t lane) { return lane; }
};

// Totals: even lanes, then odd ones. 48 rows of at most 511 fit 16 bits.
template <>
struct Wide<int16_t> {
    static constexpr int64_t run = 1;
    typedef int32_t Total;
    static void add(Vector<int32_t>::Lanes* total, Vector<int16_t>::Lanes sum) {
        typedef Vector<int32_t>::Lanes Pairs;
        const auto pairs = reinterpret_cast<Pairs>(sum);
        total[0] += (pairs << 16) >> 16;
        total[1] += pairs >> 16;
    }
    static int64_t place(int64_t lane) { return lane % 2 * lanes_of<int32_t> + lane / 2; }
};

// Adds the block of 48 rows in the tables to the sum of every group. first, last: the block's place in its run.
template <class Value, bool first, bool last>
void add_block(const Tables<Value>& tables, const uint64_t* codes, int64_t groups, typename Vector<Value>::Lanes* part,
               typename Wide<Value>::Total* totals) {
    typedef typename Wide<Value>::Total Total;
    auto* total = reinterpret_cast<typename Vector<Total>::Lanes*>(totals);
#pragma GCC unroll 4
    for (int64_t k = 0; k < groups; ++k) {
        typename Vector<Value>::Lanes sum = tables.sum(codes[k]);
        if (!first) sum = part[k] + sum;
        if (last)
            Wide<Value>::add(total + k * static_cast<int64_t>(sizeof(Total) / sizeof(Value)), sum);
        else
            part[k] = sum;
    }
}

// out[k * ld + l] += the sum of group k over the blocks of one vector of a strip, lanes l < have, or = if `fresh`; the
// codes of two blocks are stride words apart. scratch: 3 vectors per group. Float totals start at out, so the bits do
// not depend on how rows are cut into strips of whole runs.
template <class Value, class Out>
void sum_vector(const void* strip, int64_t blocks, const uint64_t* codes, int64_t stride, int64_t groups, void* scratch,
                Out* out, int64_t ld, int64_t have, bool fresh) {
    typedef typename Vector<Value>::Lanes Lanes;
    typedef typename Wide<Value>::Total Total;
    constexpr int64_t run = Wide<Value>::run, lanes = lanes_of<Value>;
    constexpr bool floats = sizeof(Total) == sizeof(double);
    Tables<Value> tables;
    auto* part = static_cast<Lanes*>(scratch);
    auto* total = reinterpret_cast<Total*>(part + groups);
    memset(total, 0, static_cast<size_t>(groups * lanes) * sizeof(Total));
    if (floats && !fresh)
        for (int64_t k = 0; k < groups; ++k)
            for (int64_t l = 0; l < have; ++l) total[k * lanes + l] = static_cast<Total>(out[k * ld + l]);
    for (int64_t block = 0; block < blocks; ++block) {
        const bool first = block % run == 0, last = block % run == run - 1 || block == blocks - 1;
        const auto add = first  ? last ? add_block<Value, true, true> : add_block<Value, true, false>
                          : last ? add_block<Value, false, true>
                                : add_block<Value, false, false>;
        tables.fill(static_cast<const Lanes*>(strip) + block * code_rows);
        add(tables, codes + block * stride, groups, part, total);
    }
    if (floats && fresh && have == lanes) {
        for (int64_t k = 0; k < groups; ++k) memcpy(out + k * ld, total + k * lanes, lanes * sizeof(Total));
        return;
    }
    for (int64_t k = 0; k < groups; ++k)
        for (int64_t l = 0; l < have; ++l) {
            const Out sum = static_cast<Out>(total[k * lanes + Wide<Value>::place(l)]);
            out[k * ld + l] = floats || fresh ? sum : out[k * ld + l] + sum;
        }
}

constexpr auto sum_f32 = &sum_vector<float, double>;
constexpr auto sum_f64 = &sum_vector<double, double>;
constexpr auto sum_i16 = &sum_vector<int16_t, double>;

// ---- 16-bit sums ----------------------------------------------------------------------------------------------------
// Rounds a strip of load_f32 to whole steps, value * scale[j], at most 511 either way. rows: of that strip; out: its
// place in a strip of padded rows.
void quantise(const float* strip, const float* scale, int64_t rows, int64_t cols, int64_t padded, int16_t* out) {
    constexpr int64_t narrow = lanes_of<float>, lanes = lanes_of<int16_t>;
    typedef Vector<float>::Lanes Floats;
    typedef int32_t Bits __attribute__((vector_size(PYDT_LANE_BYTES)));
    for (int64_t v = 0; v * narrow < cols; ++v) {
        Floats factor;
        memcpy(&factor, scale + v * narrow, sizeof factor);
        int16_t* to = out + v / 2 * padded * lanes + v % 2 * narrow;
        if (v % 2 == 0 && (v + 1) * narrow >= cols)  // no upper half
            for (int64_t i = 0; i < rows; ++i) memset(to + i * lanes + narrow, 0, PYDT_LANE_BYTES / 2);
        for (int64_t i = 0; i < rows; ++i, to += lanes) {
            Floats value;
            memcpy(&value, strip + (v * rows + i) * narrow, sizeof value);
            // adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the lowest bits
            const auto bits = reinterpret_cast<Bits>(value * factor + 12582912.0f);
            const auto steps = __builtin_convertvector(bits, Vector<int16_t>::Half);
            memcpy(to, &steps, sizeof steps);
        }
    }
}

// out[j] = max(out[j], |value|) over a strip of load_f32; NaN if a value is NaN. out: whole vectors.
void largest(const float* strip, int64_t rows, int64_t cols, float* out) {
    constexpr int64_t lanes = lanes_of<float>;
    typedef Vector<float>::Lanes Floats;
    typedef Vector<int32_t>::Lanes Bits;
    for (int64_t v = 0; v * lanes < cols; ++v) {
        Floats most;
        memcpy(&most, out + v * lanes, sizeof most);
        for (int64_t i = 0; i < rows; ++i) {
            Bits bits;
            memcpy(&bits, strip + (v * rows + i) * lanes, sizeof bits);
            const auto size = reinterpret_cast<Floats>(bits & 0x7FFFFFFF);
            most = (size > most) | (size != size) ? size : most;
        }
        memcpy(out + v * lanes, &most, sizeof most);
    }
}
