// Sums over models: Gram matrix of the masks, subset sums, column moments.
//
//   gram[i, j] = popcount(column i & column j)
//   sums[k, j] = sum over rows r with bit r of column k of (outputs[r, j] - shift[j]), in float64
//
// Subset sums take 4 rows at a time ("four Russians"): the 16 possible sums of 4 rows are tabulated for a tile of 16
// outputs, and each group adds the one that its 4 bits select. The order of additions is part of the contract, the same
// for every instruction set and on the GPU: within 4 rows from the first to the last, starting at 0; then the sums of 4
// rows one after another within a block of 256 rows; then blocks in a binary tree (moments.cpp).
//
// Layout: 8 tables of 16 x 16 doubles (16 KB, L1) serve 32 rows; sums are (groups, 16), 64 KB for 512 groups (L2).
// Cost for m models, K groups, n outputs: m/4 * K * n additions, whatever alpha is, against alpha * m * K * n directly.
// What lost: adding each kept row (20 times slower: a branch on a random bit); tables of 256 sums of 8 rows (32 KB: only
// one fits, so the sums are loaded and stored four times as often); matrix multiplication in float32 (rounding grows with
// the outputs' offset).

#if defined(__AVX512F__)
#define PYDT_LANE_BYTES 64
#elif defined(__AVX2__)
#define PYDT_LANE_BYTES 32
#else
#define PYDT_LANE_BYTES 16
#endif
typedef double Lanes __attribute__((vector_size(PYDT_LANE_BYTES)));
// The same at any multiple of 8 bytes. Loads go through it: a memcpy of several vectors at once is split into halves by
// GCC 12, and the loads that follow wait for them (2.5 times slower). Always named in full: `auto` drops the alignment.
typedef double LooseLanes __attribute__((vector_size(PYDT_LANE_BYTES), aligned(8)));
constexpr int64_t lanes = sizeof(Lanes) / sizeof(double);
constexpr int64_t tile_lanes = sum_cols / lanes;
constexpr int64_t step_rows = 32;  // rows whose tables stand in L1 at once
constexpr uint64_t entry = sum_cols * sizeof(double);

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

template <class Type>
void load_rows(const Matrix& m, const double* shift, int64_t row0, int64_t rows, int64_t col0, int64_t cols, int64_t ld,
               double* out) {
    typedef typename Type::Raw Raw;
    for (int64_t r = 0; r < rows; ++r, out += ld) {
        const uint8_t* in = m.data + (row0 + r) * m.row_stride + col0 * m.col_stride;
        if (m.col_stride == static_cast<int64_t>(sizeof(Raw))) {
            for (int64_t j = 0; j < cols; ++j) {
                Raw raw;
                memcpy(&raw, in + j * static_cast<int64_t>(sizeof(Raw)), sizeof raw);  // elements need not be aligned
                out[j] = Type::value(raw) - shift[col0 + j];
            }
        } else {
            for (int64_t j = 0; j < cols; ++j) {
                Raw raw;
                memcpy(&raw, in + j * m.col_stride, sizeof raw);
                out[j] = Type::value(raw) - shift[col0 + j];
            }
        }
    }
}

// out[r * ld + j] = outputs[row0 + r, col0 + j] - shift[col0 + j]
void load(const Matrix& m, const double* shift, int64_t row0, int64_t rows, int64_t col0, int64_t cols, int64_t ld,
          double* out) {
    if (m.type == Float::f16) load_rows<Half>(m, shift, row0, rows, col0, cols, ld, out);
    if (m.type == Float::f32) load_rows<Single>(m, shift, row0, rows, col0, cols, ld, out);
    if (m.type == Float::f64) load_rows<Double>(m, shift, row0, rows, col0, cols, ld, out);
}

void add(double* into, const double* from, int64_t count) {
    for (int64_t i = 0; i < count; ++i) into[i] += from[i];
}

void subset_block(const Matrix& outputs, const double* shift, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                  const uint64_t* columns, int64_t stride, int64_t groups, double* sums) {
    alignas(64) double y[step_rows * sum_cols];
    alignas(64) Lanes table[step_rows / 4][16][tile_lanes];
    memset(sums, 0, static_cast<size_t>(groups * sum_cols) * sizeof(double));
    for (int64_t start = 0; start < rows; start += step_rows) {
        const int64_t have = rows - start < step_rows ? rows - start : step_rows;
        if (have < step_rows || cols < sum_cols) memset(y, 0, sizeof y);  // what is not loaded adds 0
        load(outputs, shift, row0 + start, have, col0, cols, sum_cols, y);
        for (int64_t quad = 0; quad < step_rows / 4; ++quad) {
            memset(table[quad][0], 0, sizeof table[quad][0]);
            for (int bit = 0; bit < 4; ++bit) {
                const auto* row = reinterpret_cast<const Lanes*>(y + (quad * 4 + bit) * sum_cols);
                for (int set = 0; set < 1 << bit; ++set)
                    for (int64_t v = 0; v < tile_lanes; ++v)
                        table[quad][set | 1 << bit][v] = table[quad][set][v] + row[v];
            }
        }
        const uint64_t* words = columns + start / 64 * stride;
        const int64_t down = start % 64;
        for (int64_t k = 0; k < groups; ++k) {
            // the table of a quad is 16 entries of `entry` bytes: its 4 bits times that is where the sum stands
            const uint64_t bits = (words[k] >> down & 0xFFFFFFFF) * entry;
            LooseLanes* total = reinterpret_cast<LooseLanes*>(sums + k * sum_cols);
            Lanes sum[tile_lanes];
            for (int64_t v = 0; v < tile_lanes; ++v) sum[v] = total[v];
            for (int64_t quad = 0; quad < step_rows / 4; ++quad) {
                const auto* tables = reinterpret_cast<const char*>(table[quad]);
                const auto* part = reinterpret_cast<const Lanes*>(tables + (bits >> 4 * quad & 15 * entry));
                for (int64_t v = 0; v < tile_lanes; ++v) sum[v] += part[v];
            }
            for (int64_t v = 0; v < tile_lanes; ++v) total[v] = sum[v];
        }
    }
}

void moment_block(const Matrix& outputs, const double* shift, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
                  double* sums, double* squares) {
    double y[moment_cols];
    memset(sums, 0, static_cast<size_t>(cols) * sizeof(double));
    memset(squares, 0, static_cast<size_t>(cols) * sizeof(double));
    for (int64_t r = 0; r < rows; ++r) {
        load(outputs, shift, row0 + r, 1, col0, cols, moment_cols, y);
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
