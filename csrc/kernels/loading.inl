// Reading outputs: any float type and strides, less a shift, into whole vectors.
//
// Layout. A strip is a part of the outputs less their shifts, as (vectors, rows, lanes), 0 beyond the last row and
// column. So each page of row-major outputs is visited once for many columns. What lost: reading outputs in place, 32
// columns at a time: a page walk for each row and tile, 1.3 times slower at n = 10,000 outputs.

// A vector of Value, and the half of it that converts to a vector of the type twice as wide.
template <class Value>
struct Vector {
    typedef Value Lanes __attribute__((vector_size(PYDT_LANE_BYTES)));
    typedef Value Half __attribute__((vector_size(PYDT_LANE_BYTES / 2)));
};
template <class Value>
constexpr int64_t lanes_of = PYDT_LANE_BYTES / static_cast<int64_t>(sizeof(Value));

// ---- outputs, read in place ---------------------------------------------------------------------------------------
// Half to float, exact, by moving bits. Subnormal halves by arithmetic on normal floats: the same in a thread that
// flushes subnormal floats to zero.
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

// out[j] = value j - origin[j], rounded once to To; the values are contiguous.
template <class Type, class Origin, class To>
void load_dense(const uint8_t* in, const Origin* origin, int64_t count, To* out) {
    for (int64_t j = 0; j < count; ++j) {
        const double value = element<Type>(in + j * static_cast<int64_t>(sizeof(typename Type::Raw)));
        out[j] = static_cast<To>(static_cast<Origin>(value) - origin[j]);
    }
}

// A vector of contiguous values, written out because GCC 12 would load them one by one.
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

// load_dense of at most one vector.
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

// Prefetches a row of contiguous outputs, `far` rows later. Rows lie in different pages, where no hardware prefetcher
// looks.
void look_ahead(const Matrix& m, const Rows& rows, int64_t row, int64_t end, int64_t far, int64_t col0, int64_t cols) {
    if (row + far >= end) return;
    const uint8_t* in = row_at(m, rows, row + far) + col0 * m.col_stride;
    for (int64_t byte = 0; byte < cols * m.col_stride; byte += 64) __builtin_prefetch(in + byte);
}

// out[(v * padded + i) * lanes + l] = outputs[row first + i, col0 + v * lanes + l] - its origin for i < count; 0 beyond
// the last column.
template <class Type, class Origin, class To>
void fill_strip(const Matrix& m, const Rows& rows, const Origin* origin, int64_t first, int64_t count, int64_t padded,
                int64_t col0, int64_t cols, To* out) {
    constexpr int64_t lanes = lanes_of<To>;
    const int64_t vectors = (cols + lanes - 1) / lanes;
    for (int64_t v = 0; v < vectors; ++v) {
        To* to = out + v * padded * lanes;
        if (cols - v * lanes < lanes) memset(to, 0, static_cast<size_t>(count * lanes) * sizeof(To));
    }
    const int64_t down = m.row_stride < 0 ? -m.row_stride : m.row_stride,
                  across = m.col_stride < 0 ? -m.col_stride : m.col_stride;
    if (m.col_stride == static_cast<int64_t>(sizeof(typename Type::Raw)) && down >= across) {
        for (int64_t i = 0; i < count; ++i) {
            const uint8_t* in = row_at(m, rows, first + i) + col0 * m.col_stride;
            look_ahead(m, rows, first + i, rows.count, 6, col0, cols);
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
    else  // columns are closer together in memory
        for (int64_t j = 0; j < cols; ++j)
            for (int64_t i = 0; i < count; ++i) one(i, j);
}

// Shifts that are exact as floats are subtracted in float. The bits are the same: rounding the exact difference to
// double and then to float is innocuous (Figueroa, "When is double rounding innocuous?", 1995).
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
