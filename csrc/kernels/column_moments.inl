// Sums and sums of squares down the columns of the outputs, in float64.
//
//   moment_block  sums[j] = sum over rows i of (outputs[i, j] - shift[j]);  squares[j] = sum of the same squared
//   unit_block    squares[j] = sum over units of (sum over its rows of sign[i] (outputs[i, j] - shift[j]))^2 / its rows
//
// Order of additions: row after row in a block; moments.cpp adds the blocks.
//
// Cost: one pass, 16 rows of 4 vectors at a time, whose sums stay in registers; of subset sums, where the strips are
// filled, while the outputs are in the cache. What lost: row after row over all columns, 1.4 times slower.

void add(double* into, const double* from, int64_t count) {
    for (int64_t i = 0; i < count; ++i) into[i] += from[i];
}

// y[j] = output j of row i less its shift.
template <class Type>
void load_row(const Matrix& m, const Rows& rows, int64_t i, const double* shift, int64_t col0, int64_t cols,
              double* y) {
    constexpr int64_t lanes = lanes_of<double>, size = sizeof(typename Type::Raw);
    const uint8_t* in = row_at(m, rows, i) + col0 * m.col_stride;
    const int64_t whole = m.col_stride == size ? cols / lanes * lanes : 0;
    if (whole != 0) look_ahead(m, rows, i, rows.count, 6, col0, cols);
    for (int64_t j = 0; j < whole; j += lanes) load_vector<Type>(in + j * size, shift + col0 + j, lanes, y + j);
    for (int64_t j = whole; j < cols; ++j) y[j] = element<Type>(in + j * m.col_stride) - shift[col0 + j];
}

// Adds rows first .. first + count - 1 of 4 vectors of contiguous outputs, with the sums in registers.
template <class Type>
void add_rows(const Matrix& m, const Rows& rows, int64_t first, int64_t count, const double* shift, int64_t col0,
              Vector<double>::Lanes* sums, Vector<double>::Lanes* squares) {
    typedef Vector<double>::Lanes Lanes;
    constexpr int64_t lanes = lanes_of<double>, size = sizeof(typename Type::Raw);
    Lanes sum[4], square[4], origin[4];
    memcpy(sum, sums, sizeof sum);
    memcpy(square, squares, sizeof square);
    memcpy(origin, shift + col0, sizeof origin);
    for (int64_t i = first; i < first + count; ++i) {
        const uint8_t* in = row_at(m, rows, i) + col0 * size;
#pragma GCC unroll 4
        for (int64_t v = 0; v < 4; ++v) {
            const Lanes value = read_vector<Type, double>(in + v * lanes * size) - origin[v];
            sum[v] += value;
            square[v] += value * value;
        }
    }
    memcpy(sums, sum, sizeof sum);
    memcpy(squares, square, sizeof square);
}

template <class Type>
void moments_of(const Matrix& m, const Rows& rows, int64_t first, int64_t count, const double* shift, int64_t col0,
                int64_t cols, double* sums, double* squares) {
    typedef Vector<double>::Lanes Lanes;
    constexpr int64_t lanes = lanes_of<double>, size = sizeof(typename Type::Raw), some = 16;
    constexpr size_t vectors = static_cast<size_t>(moment_cols / lanes);
    alignas(64) double y[static_cast<size_t>(moment_cols)] = {};
    Lanes sum[vectors] = {}, square[vectors] = {};
    const int64_t whole = m.col_stride == size ? cols / (4 * lanes) * 4 : 0;  // vectors
    for (int64_t i = 0; whole != 0 && i < count; i += some) {
        const int64_t have = count - i < some ? count - i : some;
        for (int64_t row = first + i; row < first + i + have; ++row)
            look_ahead(m, rows, row, rows.count, some, col0, whole * lanes);
        for (int64_t v = 0; v < whole; v += 4)
            add_rows<Type>(m, rows, first + i, have, shift, col0 + v * lanes, sum + v, square + v);
    }
    for (int64_t i = 0; whole * lanes < cols && i < count; ++i) {
        load_row<Type>(m, rows, first + i, shift, col0 + whole * lanes, cols - whole * lanes, y);
        for (int64_t v = whole; v * lanes < cols; ++v) {
            const Lanes value = *reinterpret_cast<const Lanes*>(y + (v - whole) * lanes);
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
