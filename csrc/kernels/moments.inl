// Sums over models: Gram matrix of the masks, subset sums, column moments.
//
//   gram[i, j] = popcount(column i & column j)
//   sums[k, j] = sum over rows r with bit r of column k of (outputs[r, j] - shift[j]), in float64
//
// Subset sums take 6 rows at a time ("four Russians"): the 64 possible sums of 6 rows are tabulated for one vector of
// outputs, and each group adds the one that its 6 bits select. The order of additions is part of the contract, the same
// for every instruction set. In the precision of the outputs, at least float32: 3 rows from the first to the last,
// starting at 0; two of these make 6 rows; pairs of sums make 12, 24, 48 rows (a block); the blocks of a run of 8 one
// after another. Then, in float64, run after run. So a float32 sum takes at most 14 roundings after that of the
// difference, and the error is at most 15 * 2^-24 * sum |outputs - shift|, however many rows there are.
//
// Layout: 8 tables of 64 vectors serve 48 rows; the eight codes of a group stand in one 64-bit word (moments.cpp).

#if defined(__AVX512F__)
#define PYDT_LANE_BYTES 64
#elif defined(__AVX2__)
#define PYDT_LANE_BYTES 32
#else
#define PYDT_LANE_BYTES 16
#endif
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

template <class Type, class To>
void load_rows(const Matrix& m, const Rows& rows, int64_t first, int64_t count, const double* shift, int64_t col0,
               int64_t cols, int64_t ld, To* out) {
    typedef typename Type::Raw Raw;
    for (int64_t r = 0; r < count; ++r, out += ld) {
        const uint8_t* in = row_at(m, rows, first + r) + col0 * m.col_stride;
        if (m.col_stride == static_cast<int64_t>(sizeof(Raw))) {
            for (int64_t j = 0; j < cols; ++j) {
                Raw raw;
                memcpy(&raw, in + j * static_cast<int64_t>(sizeof(Raw)), sizeof raw);  // elements need not be aligned
                out[j] = static_cast<To>(Type::value(raw) - shift[col0 + j]);
            }
        } else {
            for (int64_t j = 0; j < cols; ++j) {
                Raw raw;
                memcpy(&raw, in + j * m.col_stride, sizeof raw);
                out[j] = static_cast<To>(Type::value(raw) - shift[col0 + j]);
            }
        }
    }
}

// out[i * ld + j] = outputs[row first + i, col0 + j] - shift[col0 + j], rounded once to To
template <class To>
void load(const Matrix& m, const Rows& rows, int64_t first, int64_t count, const double* shift, int64_t col0,
          int64_t cols, int64_t ld, To* out) {
    if (m.type == Float::f16) load_rows<Half>(m, rows, first, count, shift, col0, cols, ld, out);
    if (m.type == Float::f32) load_rows<Single>(m, rows, first, count, shift, col0, cols, ld, out);
    if (m.type == Float::f64) load_rows<Double>(m, rows, first, count, shift, col0, cols, ld, out);
}

void add(double* into, const double* from, int64_t count) {
    for (int64_t i = 0; i < count; ++i) into[i] += from[i];
}

// One vector of the instruction set and what its sums are widened to.
template <class Value>
struct Vectors;
template <>
struct Vectors<float> {
    typedef float Lanes __attribute__((vector_size(PYDT_LANE_BYTES)));
};
template <>
struct Vectors<double> {
    typedef double Lanes __attribute__((vector_size(PYDT_LANE_BYTES)));
};

// Adds the block that `table` holds to every group. first, last: of the blocks of a run.
template <class Value, bool first, bool last>
void add_codes(const typename Vectors<Value>::Lanes* table, const uint64_t* codes, int64_t groups,
               typename Vectors<Value>::Lanes* part, double* total) {
    typedef typename Vectors<Value>::Lanes Lanes;
    constexpr int64_t lanes = PYDT_LANE_BYTES / sizeof(Value);
    const auto* bytes = reinterpret_cast<const char*>(table);
    for (int64_t k = 0; k < groups; ++k) {
        const uint64_t word = codes[k];
        Lanes at[8];
        for (uint64_t t = 0; t < 8; ++t)
            at[t] = *reinterpret_cast<const Lanes*>(bytes + t * 64 * PYDT_LANE_BYTES +
                                                    (word >> 8 * t & 0xFC) * (PYDT_LANE_BYTES / 4));
        Lanes sum = ((at[0] + at[1]) + (at[2] + at[3])) + ((at[4] + at[5]) + (at[6] + at[7]));
        if (!first) sum = part[k] + sum;
        if (!last) part[k] = sum;
        if (last)
            for (int64_t j = 0; j < lanes; ++j) total[k * lanes + j] += static_cast<double>(sum[j]);
    }
}

template <class Value>
void sum_tile_of(const SumPlan& plan, int64_t col0, int64_t cols, int64_t group0, int64_t groups, void* scratch,
                 double* sums) {
    typedef typename Vectors<Value>::Lanes Lanes;
    constexpr int64_t lanes = PYDT_LANE_BYTES / sizeof(Value), width = sum_bytes / sizeof(Value),
                      vectors = width / lanes, run = 8;
    alignas(64) Value y[static_cast<size_t>(code_rows * width)];
    alignas(64) Lanes table[8 * 64];
    auto* total = static_cast<double*>(scratch);
    auto* part = reinterpret_cast<Lanes*>(total + groups * width);
    memset(total, 0, static_cast<size_t>(groups * width) * sizeof(double));
    memset(y, 0, sizeof y);
    const int64_t blocks = (plan.rows.count + code_rows - 1) / code_rows;
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t row = block * code_rows,
                      have = plan.rows.count - row < code_rows ? plan.rows.count - row : code_rows;
        if (have < code_rows) memset(y, 0, sizeof y);
        load(plan.outputs, plan.rows, row, have, plan.shift, col0, cols, width, y);
        const uint64_t* codes = plan.codes + block * plan.groups + group0;
        const bool first = block % run == 0, last = block % run == run - 1 || block == blocks - 1;
        for (int64_t v = 0; v < vectors; ++v) {
            for (int64_t t = 0; t < 8; ++t) {
                Lanes half[2][8];
                for (int64_t h = 0; h < 2; ++h) {
                    half[h][0] = Lanes{};
                    for (int64_t i = 0; i < 3; ++i) {
                        const Lanes one = *reinterpret_cast<const Lanes*>(y + (6 * t + 3 * h + i) * width + v * lanes);
                        for (int64_t set = 0; set < 1 << i; ++set) half[h][set | 1 << i] = half[h][set] + one;
                    }
                }
                for (int64_t high = 0; high < 8; ++high)
                    for (int64_t low = 0; low < 8; ++low) table[t * 64 + high * 8 + low] = half[0][low] + half[1][high];
            }
            const auto add_block = first  ? last ? add_codes<Value, true, true> : add_codes<Value, true, false>
                                    : last ? add_codes<Value, false, true>
                                          : add_codes<Value, false, false>;
            add_block(table, codes, groups, part + v * groups, total + v * groups * lanes);
        }
    }
    for (int64_t k = 0; k < groups; ++k)
        for (int64_t j = 0; j < cols; ++j)
            sums[k * plan.outputs.cols + j] = total[(j / lanes * groups + k) * lanes + j % lanes];
}

void sum_tile(const SumPlan& plan, int64_t col0, int64_t cols, int64_t group0, int64_t groups, void* scratch,
              double* sums) {
    const auto tile = plan.outputs.type == Float::f64 ? sum_tile_of<double> : sum_tile_of<float>;
    tile(plan, col0, cols, group0, groups, scratch, sums);
}

void moment_block(const Matrix& outputs, const Rows& rows, int64_t first, int64_t count, const double* shift,
                  int64_t col0, int64_t cols, double* sums, double* squares) {
    double y[moment_cols];
    memset(sums, 0, static_cast<size_t>(cols) * sizeof(double));
    memset(squares, 0, static_cast<size_t>(cols) * sizeof(double));
    for (int64_t r = 0; r < count; ++r) {
        load(outputs, rows, first + r, 1, shift, col0, cols, moment_cols, y);
        for (int64_t j = 0; j < cols; ++j) {
            sums[j] += y[j];
            squares[j] += y[j] * y[j];
        }
    }
}

void gram_tile(const uint64_t* a, int64_t rows_a, const uint64_t* b, int64_t rows_b, int64_t stride, int64_t words,
               int64_t* counts, int64_t ld) {
    for (int64_t i = 0; i < rows_a; ++i)
        for (int64_t j = 0; j < rows_b; ++j) {
            int64_t common = 0;
            for (int64_t w = 0; w < words; ++w) common += __builtin_popcountll(a[i * stride + w] & b[j * stride + w]);
            counts[i * ld + j] += common;
        }
}
