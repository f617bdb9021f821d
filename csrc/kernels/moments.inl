// Sums over models: subset sums, Gram matrix of the masks, column moments.
//
//   sums[k, j] = sum over rows i with group k of (outputs[row i, j] - shift[j])
//   counts[k, j] = rows that have both groups k and j: the same with outputs = the masks' bits
//
// Method of four Russians: the 64 possible sums of 6 rows are tabulated for one vector of outputs; each group adds the
// one that its 6 bits select. The order of additions is part of the contract, the same for every instruction set. In the
// precision of the outputs, at least float32: 3 rows from the first to the last, starting at 0; two of these make 6 rows;
// four of those, one after another, 24; two of those a block of 48; the blocks of a run of 8 one after another. Then, in
// float64, run after run. So a float32 sum sees at most 15 roundings, that of the difference included, and its error is
// at most 15 * 2^-24 * sum |outputs - shift|, however many rows there are.
//
// Layout. codes: one 64-bit word holds the eight codes of 48 rows for a group. Strip: outputs less their shifts, copied
// into whole vectors, (vectors, rows, lanes), so that pages of row-major outputs are visited once for many columns. For
// one vector and 48 rows there are 8 tables of 64 vectors (AVX2: 16 KB, half of L1); each group then costs 8 loads of an
// entry, 7 additions and one more to its sum of the run (L2). Sums: float -> double, int16 -> int32, bits: uint8 ->
// uint16.
//
// Cost for m rows, K groups, n outputs: m/6 * n/lanes * K loads of an entry, and 11 * m * n/lanes stores of tables, i.e.
// 10 % at K = 1000 and 50 % at K = 200. Zen 3, AVX2, one thread on a shared core, paired with numpy's float32 product
// (OpenBLAS; K = 1000, m = 7540): float 3.1 to 3.5 times faster (n = 10,000 to 200), float16 3.1, int16 3.8 to 4.6, Gram
// 7.9; K = 20,000, n = 64: 3.6 and 5.6. The largest error of a float32 sum is 4e-8 of the largest sum.
//
// What lost (cycles for 48 rows of 8 outputs in L1; this 6.0): two vectors of 4 tables 7.1, as the sums of a run move
// twice as often; two vectors of 8 tables 7.3 (32 KB: all of L1) or of 5 bits 8.0; codes loaded byte by byte 8.2; shift
// and mask for each code 7.1 to 7.9, bextr 6.8. For the Gram matrix: popcount of 64 rows at a time, 4 times slower than
// tables of bytes without a vector instruction for it. Reading outputs in place, 32 columns at a time: a page walk for
// each row and tile, 1.3 times slower at n = 10,000.

// One vector of Value, and as many halves of it as make a vector of the wider type.
template <class Value>
struct Vector;
template <>
struct Vector<float> {
    typedef float Lanes __attribute__((vector_size(PYDT_LANE_BYTES)));
    typedef float Half __attribute__((vector_size(PYDT_LANE_BYTES / 2)));
};
template <>
struct Vector<double> {
    typedef double Lanes __attribute__((vector_size(PYDT_LANE_BYTES)));
};
template <>
struct Vector<int16_t> {
    typedef int16_t Lanes __attribute__((vector_size(PYDT_LANE_BYTES)));
    typedef int16_t Half __attribute__((vector_size(PYDT_LANE_BYTES / 2)));
};
template <>
struct Vector<int32_t> {
    typedef int32_t Lanes __attribute__((vector_size(PYDT_LANE_BYTES)));
};
template <>
struct Vector<uint8_t> {
    typedef uint8_t Lanes __attribute__((vector_size(PYDT_LANE_BYTES)));
};
template <>
struct Vector<uint16_t> {
    typedef uint16_t Lanes __attribute__((vector_size(PYDT_LANE_BYTES)));
};
template <class Value>
constexpr int64_t lanes_of = PYDT_LANE_BYTES / static_cast<int64_t>(sizeof(Value));

// ---- outputs, read in place ---------------------------------------------------------------------------------------
// Half to float, exact, by moving bits; subnormal halves by arithmetic on values that are not subnormal as floats, so
// that a thread that flushes those to zero gets the same.
float half_to_float(uint16_t half) {
    const uint32_t magnitude = static_cast<uint32_t>(half & 0x7FFF) << 13;
    const uint32_t exponent = magnitude & 0x0F800000;
    const float subnormal = static_cast<float>(static_cast<int32_t>(half & 0x7FFF)) * 0x1p-24f;
    uint32_t small;
    memcpy(&small, &subnormal, 4);
    const uint32_t special = magnitude | 0x7F800000;  // infinity; NaN keeps its payload
    const uint32_t normal = magnitude + 0x38000000;   // the bias of the exponent: 127 - 15
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    const uint32_t bits = (exponent == 0 ? small : exponent == 0x0F800000 ? special : normal) | sign;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

struct Half {
    typedef uint16_t Raw;
    static double value(Raw raw) { return static_cast<double>(half_to_float(raw)); }
};
struct Single {
    typedef float Raw;
    static double value(Raw raw) { return static_cast<double>(raw); }
};
struct Double {
    typedef double Raw;
    static double value(Raw raw) { return raw; }
};

const uint8_t* row_at(const Matrix& m, const Rows& rows, int64_t i) {
    return m.data + (rows.index == nullptr ? i : rows.index[i]) * m.row_stride;
}

// Elements need not be aligned.
template <class Type>
double element(const uint8_t* at) {
    typename Type::Raw raw;
    memcpy(&raw, at, sizeof raw);
    return Type::value(raw);
}

// out[j] = value j - origin[j], rounded once to To; the values stand side by side.
template <class Type, class Origin, class To>
void load_dense(const uint8_t* in, const Origin* origin, int64_t count, To* out) {
    for (int64_t j = 0; j < count; ++j) {
        const double value = element<Type>(in + j * static_cast<int64_t>(sizeof(typename Type::Raw)));
        out[j] = static_cast<To>(static_cast<Origin>(value) - origin[j]);
    }
}

// A whole vector of values that stand side by side, written out because GCC 12 would take them one by one.
template <class Type, class To>
typename Vector<To>::Lanes read_vector(const uint8_t* in) {
    typedef typename Vector<To>::Lanes Lanes;
    constexpr bool half = sizeof(typename Type::Raw) == 2;
    Lanes values;
    if constexpr (sizeof(typename Type::Raw) == sizeof(To)) {
        memcpy(&values, in, sizeof values);
    } else if constexpr (!half) {
        Vector<float>::Half narrow;
        memcpy(&narrow, in, sizeof narrow);
        values = __builtin_convertvector(narrow, Lanes);
    } else {
        float wide[static_cast<size_t>(lanes_of<To>)];
#if defined(__F16C__)
        if constexpr (lanes_of<To> == 4)
            _mm_storeu_ps(wide, _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(in))));
        else
            for (int64_t j = 0; j < lanes_of<To>; j += 8)
                _mm256_storeu_ps(wide + j,
                                 _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 2 * j))));
#else
        for (int64_t j = 0; j < lanes_of<To>; ++j) wide[j] = static_cast<float>(element<Type>(in + 2 * j));
#endif
        values = read_vector<Single, To>(reinterpret_cast<const uint8_t*>(wide));
    }
    return values;
}

// One vector of them, or less.
template <class Type, class Origin, class To>
void load_vector(const uint8_t* in, const Origin* origin, int64_t count, To* out) {
    if constexpr (sizeof(Origin) == sizeof(To)) {
        if (count == lanes_of<To>) {
            typename Vector<To>::Lanes shift;
            memcpy(&shift, origin, sizeof shift);
            const typename Vector<To>::Lanes values = read_vector<Type, To>(in) - shift;
            memcpy(out, &values, sizeof values);
            return;
        }
    }
    load_dense<Type>(in, origin, count, out);
}

// A later row of a tile whose columns stand side by side. Rows lie in pages of their own: no hardware looks there.
void look_ahead(const Matrix& m, const Rows& rows, int64_t row, int64_t end, int64_t col0, int64_t cols) {
    if (row + 6 >= end) return;
    const uint8_t* in = row_at(m, rows, row + 6) + col0 * m.col_stride;
    for (int64_t byte = 0; byte < cols * m.col_stride; byte += 64) __builtin_prefetch(in + byte);
}

// A strip of outputs as it is summed: out[(v * padded + i) * lanes + l] = outputs[row first + i, col0 + v * lanes + l] -
// shift; 0 beyond the last row and column.
template <class Type, class Origin, class To>
void fill_strip(const Matrix& m, const Rows& rows, const Origin* origin, int64_t first, int64_t count, int64_t padded,
                int64_t col0, int64_t cols, To* out) {
    constexpr int64_t lanes = lanes_of<To>;
    const int64_t vectors = (cols + lanes - 1) / lanes;
    for (int64_t v = 0; v < vectors; ++v) {
        To* to = out + v * padded * lanes;
        if (cols - v * lanes < lanes) memset(to, 0, static_cast<size_t>(padded * lanes) * sizeof(To));
        memset(to + count * lanes, 0, static_cast<size_t>((padded - count) * lanes) * sizeof(To));
    }
    const int64_t down = m.row_stride < 0 ? -m.row_stride : m.row_stride,
                  across = m.col_stride < 0 ? -m.col_stride : m.col_stride;
    if (m.col_stride == static_cast<int64_t>(sizeof(typename Type::Raw)) && down >= across) {
        for (int64_t i = 0; i < count; ++i) {
            const uint8_t* in = row_at(m, rows, first + i) + col0 * m.col_stride;
            look_ahead(m, rows, first + i, first + count, col0, cols);
            for (int64_t v = 0; v < vectors; ++v)
                load_vector<Type>(in + v * lanes * m.col_stride, origin + v * lanes,
                                  cols - v * lanes < lanes ? cols - v * lanes : lanes, out + (v * padded + i) * lanes);
        }
        return;
    }
    const auto one = [&](int64_t i, int64_t j) {
        const double value = element<Type>(row_at(m, rows, first + i) + (col0 + j) * m.col_stride);
        out[(j / lanes * padded + i) * lanes + j % lanes] = static_cast<To>(static_cast<Origin>(value) - origin[j]);
    };
    if (down >= across)
        for (int64_t i = 0; i < count; ++i)
            for (int64_t j = 0; j < cols; ++j) one(i, j);
    else  // along what stands together
        for (int64_t j = 0; j < cols; ++j)
            for (int64_t i = 0; i < count; ++i) one(i, j);
}

// Shifts of which a float is the exact value are taken off in float: rounding the exact difference to double and then to
// float gives the same bits (Figueroa, "When is double rounding innocuous?", 1995).
template <class Type>
void load_narrow(const Matrix& m, const Rows& rows, const double* shift, int64_t first, int64_t count, int64_t padded,
                 int64_t col0, int64_t cols, float* out) {
    constexpr int64_t piece = 16 * lanes_of<float>;
    float origin[static_cast<size_t>(piece)];
    for (int64_t j = 0; j < cols; j += piece) {
        const int64_t some = cols - j < piece ? cols - j : piece;
        bool exact = true;
        for (int64_t c = 0; c < some; ++c) {
            origin[c] = static_cast<float>(shift[col0 + j + c]);
            exact = exact && static_cast<double>(origin[c]) == shift[col0 + j + c];
        }
        if (exact)
            fill_strip<Type>(m, rows, origin, first, count, padded, col0 + j, some, out + j * padded);
        else
            fill_strip<Type>(m, rows, shift + col0 + j, first, count, padded, col0 + j, some, out + j * padded);
    }
}

void load_f32(const Matrix& m, const Rows& rows, const double* shift, int64_t first, int64_t count, int64_t padded,
              int64_t col0, int64_t cols, void* out) {
    auto* to = static_cast<float*>(out);
    if (m.type == Float::f16) load_narrow<Half>(m, rows, shift, first, count, padded, col0, cols, to);
    if (m.type == Float::f32) load_narrow<Single>(m, rows, shift, first, count, padded, col0, cols, to);
    if (m.type == Float::f64) fill_strip<Double>(m, rows, shift + col0, first, count, padded, col0, cols, to);
}

// Of float64 outputs.
void load_f64(const Matrix& m, const Rows& rows, const double* shift, int64_t first, int64_t count, int64_t padded,
              int64_t col0, int64_t cols, void* out) {
    fill_strip<Double>(m, rows, shift + col0, first, count, padded, col0, cols, static_cast<double*>(out));
}

// The strip of load_f32, rounded to whole steps: scale[j] steps to a unit, at most 511 in all. rows: of that strip; out:
// where it goes in a strip of padded rows.
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
            // adding 1.5 * 2^23 rounds to the nearest integer, and leaves it in the lowest bits
            const auto bits = reinterpret_cast<Bits>(value * factor + 12582912.0f);
            const auto steps = __builtin_convertvector(bits, Vector<int16_t>::Half);
            memcpy(to, &steps, sizeof steps);
        }
    }
}

// largest[j] = max(largest[j], |value|) over a strip of load_f32; NaN once one is NaN. largest: whole vectors.
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

// The masks of a vector of groups as bytes 0 and 1, in the same layout.
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

// ---- tables -------------------------------------------------------------------------------------------------------
// The lowest byte of a word and the next. As instructions, because GCC 12 otherwise takes each byte with a shift and a
// mask of its own, and the loop over the groups is as fast as it has few instructions.
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

// 8 tables of the sums of 6 rows: 8 * 64 vectors, half of the first-level cache. A code in bits 2..7 of its byte, times a
// quarter of a vector, is where its entry stands. With whatever is in bits 0 and 1, the read ends within one more vector.
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

// What the sums of a run are added to, two vectors of it for a vector of sums.
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

// Even lanes, then odd ones. 48 rows of at most 511 fit 16 bits.
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

// The same; 5 blocks of 48 rows fit 8 bits, 1365 blocks 16.
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

// Adds the block of 48 rows that stands in the tables to every group. first, last: of a run.
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

// out[k * ld + l] += sums of the groups over the blocks of one vector of a strip, l < have; codes of consecutive blocks
// are stride apart. scratch: 3 vectors for each group. Floats go on adding where they were, so that it does not matter
// how rows are cut into strips of whole runs.
template <class Value, class Out>
void sum_vector(const void* strip, int64_t blocks, const uint64_t* codes, int64_t stride, int64_t groups, void* scratch,
                Out* out, int64_t ld, int64_t have) {
    typedef typename Vector<Value>::Lanes Lanes;
    typedef typename Wide<Value>::Total Total;
    constexpr int64_t run = Wide<Value>::run, lanes = lanes_of<Value>;
    constexpr bool floats = sizeof(Total) == sizeof(double);
    Tables<Value> tables;
    auto* part = static_cast<Lanes*>(scratch);
    auto* total = reinterpret_cast<Total*>(part + groups);
    memset(total, 0, static_cast<size_t>(groups * lanes) * sizeof(Total));
    if (floats)
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
    for (int64_t k = 0; k < groups; ++k)
        for (int64_t l = 0; l < have; ++l) {
            const Out sum = static_cast<Out>(total[k * lanes + Wide<Value>::place(l)]);
            out[k * ld + l] = floats ? sum : out[k * ld + l] + sum;
        }
}

// ---- column moments -----------------------------------------------------------------------------------------------
void add(double* into, const double* from, int64_t count) {
    for (int64_t i = 0; i < count; ++i) into[i] += from[i];
}

// y[j] = output j of the i-th row less its shift
template <class Type>
void load_row(const Matrix& m, const Rows& rows, int64_t i, const double* shift, int64_t col0, int64_t cols,
              double* y) {
    constexpr int64_t lanes = lanes_of<double>, size = sizeof(typename Type::Raw);
    const uint8_t* in = row_at(m, rows, i) + col0 * m.col_stride;
    const int64_t whole = m.col_stride == size ? cols / lanes * lanes : 0;
    if (whole != 0) look_ahead(m, rows, i, rows.count, col0, cols);
    for (int64_t j = 0; j < whole; j += lanes) load_vector<Type>(in + j * size, shift + col0 + j, lanes, y + j);
    for (int64_t j = whole; j < cols; ++j) y[j] = element<Type>(in + j * m.col_stride) - shift[col0 + j];
}

template <class Type>
void moments_of(const Matrix& m, const Rows& rows, int64_t first, int64_t count, const double* shift, int64_t col0,
                int64_t cols, double* sums, double* squares) {
    typedef Vector<double>::Lanes Lanes;
    constexpr int64_t lanes = lanes_of<double>;
    constexpr size_t vectors = static_cast<size_t>(moment_cols / lanes);
    alignas(64) double y[static_cast<size_t>(moment_cols)] = {};
    Lanes sum[vectors] = {}, square[vectors] = {};
    for (int64_t i = 0; i < count; ++i) {
        load_row<Type>(m, rows, first + i, shift, col0, cols, y);
        for (int64_t v = 0; v * lanes < cols; ++v) {
            const Lanes value = *reinterpret_cast<const Lanes*>(y + v * lanes);
            sum[v] += value;
            square[v] += value * value;
        }
    }
    memcpy(sums, sum, static_cast<size_t>(cols) * sizeof(double));
    memcpy(squares, square, static_cast<size_t>(cols) * sizeof(double));
}

void moment_block(const Matrix& outputs, const Rows& rows, int64_t first, int64_t count, const double* shift,
                  int64_t col0, int64_t cols, double* sums, double* squares) {
    const auto moments = outputs.type == Float::f16   ? moments_of<Half>
                         : outputs.type == Float::f32 ? moments_of<Single>
                                                      : moments_of<Double>;
    moments(outputs, rows, first, count, shift, col0, cols, sums, squares);
}

void unit_block(const Matrix& outputs, const Rows& rows, const int64_t* starts, const double* sign, int64_t first,
                int64_t count, const double* shift, int64_t col0, int64_t cols, double* squares) {
    const auto load = outputs.type == Float::f16   ? load_row<Half>
                      : outputs.type == Float::f32 ? load_row<Single>
                                                   : load_row<Double>;
    double y[moment_cols], sum[moment_cols];
    memset(squares, 0, static_cast<size_t>(cols) * sizeof(double));
    for (int64_t unit = first; unit < first + count; ++unit) {
        memset(sum, 0, static_cast<size_t>(cols) * sizeof(double));
        for (int64_t i = starts[unit]; i < starts[unit + 1]; ++i) {
            load(outputs, rows, i, shift, col0, cols, y);
            for (int64_t j = 0; j < cols; ++j) sum[j] += sign[i] * y[j];
        }
        const double share = 1 / static_cast<double>(starts[unit + 1] - starts[unit]);
        for (int64_t j = 0; j < cols; ++j) squares[j] += share * sum[j] * sum[j];
    }
}
