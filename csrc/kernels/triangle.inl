// What a regression explains: sums of squares of L^-1 c, by forward substitution in registers.
//
//   squares[j] = sum over r of z[r]^2;  z = D t,  t[r] = c[r, j] - sum over k of L[r, k] z[k]
//
// in panels of 12 rows r: k are all rows before the panel, D is the inverse of L's 12 x 12 block on the diagonal. z in
// float32, by fused multiply-adds in the order of k; squares in float64, in the order of r. So the bits are the same
// for AVX2 and AVX-512; "scalar" rounds each product as well.
//
// Layout. L: panel after panel, of each first -L[r, k] and then D, as (k, 12) floats. c: strips of two vectors of
// outputs, (K, 2 lanes) floats, which z overwrites, in L2 up to K of some thousands. 24 sums in registers (AVX2: 12,
// twice).
//
// Cost: K^2 n / 2 multiply-adds, and 14 loads for 24 of them (AVX2: 8 for 12). What lost: a product with the whole
// inverse, as fast, but the inverse costs K^3 / 3; bfloat16, whose error is 1e-4 with one product and whose time is 1.5
// times with three.

// a + w x, rounded once where the instruction set can
Vector<float>::Lanes multiply_add(float w, Vector<float>::Lanes x, Vector<float>::Lanes a) {
#if defined(__FP_FAST_FMAF)
    for (int64_t i = 0; i < lanes_of<float>; ++i) a[i] = __builtin_fmaf(w, x[i], a[i]);  // GCC makes a vector of it
    return a;
#else
    return a + w * x;
#endif
}

// out[r] = sum over k of panel[k, r] from[k]; panel (count, 12) floats, from (count, 2) and out (rows, 2) vectors.
template <int64_t rows>
void panel_product(const float* panel, int64_t count, const Vector<float>::Lanes (*from)[2],
                   Vector<float>::Lanes (*out)[2]) {
    Vector<float>::Lanes sum[static_cast<size_t>(rows)][2] = {};
    for (int64_t k = 0; k < count; ++k, panel += panel_rows) {
        const Vector<float>::Lanes x = from[k][0], y = from[k][1];
#pragma GCC unroll 12
        for (int64_t r = 0; r < rows; ++r) {
            sum[r][0] = multiply_add(panel[r], x, sum[r][0]);
            sum[r][1] = multiply_add(panel[r], y, sum[r][1]);
        }
    }
    memcpy(out, sum, sizeof sum);
}

// squares[0 .. 2 lanes - 1] of one strip, (whole panels of rows, 2) vectors, 0 beyond the last group.
void triangle_squares(const float* panels, int64_t groups, void* strip, double* squares) {
    typedef Vector<float>::Lanes Pair[2];
    typedef Vector<double>::Lanes Doubles;
    constexpr int64_t rows = PYDT_LANE_BYTES == 64 ? 12 : 6;
    auto* z = static_cast<Pair*>(strip);
    Doubles sum[4] = {};
    for (int64_t first = 0; first < groups; first += panel_rows, z += panel_rows) {
        Pair rest[static_cast<size_t>(panel_rows)];
        for (int64_t r = 0; r < panel_rows; r += rows) panel_product<rows>(panels + r, first, z - first, rest + r);
        panels += first * panel_rows;
        for (int64_t r = 0; r < panel_rows; ++r)
            for (int64_t v = 0; v < 2; ++v) rest[r][v] += z[r][v];
        for (int64_t r = 0; r < panel_rows; r += rows) panel_product<rows>(panels + r, panel_rows, rest, z + r);
        panels += panel_rows * panel_rows;
        for (int64_t r = 0; r < panel_rows; ++r)
            for (int64_t v = 0; v < 2; ++v) {
                Vector<float>::Half half[2];
                memcpy(half, &z[r][v], sizeof half);
                for (int64_t h = 0; h < 2; ++h) {
                    const Doubles wide = __builtin_convertvector(half[h], Doubles);
                    sum[2 * v + h] += wide * wide;
                }
            }
    }
    memcpy(squares, sum, sizeof sum);
}
