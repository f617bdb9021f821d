// Penalised regression: the inner loops of lasso.cpp.
//
// Everything is elementwise in an order that does not depend on the width of a vector, or a sum in 16 lanes that are
// added in a fixed tree, so the bits are the same for every instruction set. Arrays are padded with zeros to 16 floats.
// The product with the columns that moved is the form with the running sums in registers: rows of the (symmetric) matrix
// times one number each.

namespace penalised {

typedef float Wide __attribute__((vector_size(PYDT_LANE_BYTES)));
typedef float LooseWide __attribute__((vector_size(PYDT_LANE_BYTES), aligned(4)));
typedef int32_t Bits __attribute__((vector_size(PYDT_LANE_BYTES)));
typedef double Long __attribute__((vector_size(PYDT_LANE_BYTES)));
typedef double LooseLong __attribute__((vector_size(PYDT_LANE_BYTES), aligned(8)));
constexpr int64_t wide = PYDT_LANE_BYTES / 4;
constexpr int64_t parts = 16 / wide;  // vectors in 16 lanes

Wide load(const float* from) { return *reinterpret_cast<const LooseWide*>(from); }
void store(float* to, Wide value) { *reinterpret_cast<LooseWide*>(to) = value; }
Wide absolute(Wide value) { return reinterpret_cast<Wide>(reinterpret_cast<Bits>(value) & 0x7FFFFFFF); }
Wide larger(Wide a, Wide b) { return a > b ? a : b; }
Wide smaller(Wide a, Wide b) { return a < b ? a : b; }

float sum_of(const Wide* lanes) {
    float at[16];
    memcpy(at, lanes, sizeof at);
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) at[i] += at[i + half];
    return at[0];
}

float most_of(const Wide* lanes) {
    float at[16];
    memcpy(at, lanes, sizeof at);
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) at[i] = at[i] > at[i + half] ? at[i] : at[i + half];
    return at[0];
}

template <int64_t vectors>
void subtract_block(const float* gram, int64_t ld, const int32_t* rows, const float* steps, int64_t count,
                    const float* from, float* to) {
    Wide sum[static_cast<size_t>(vectors)];
    for (int64_t v = 0; v < vectors; ++v) sum[v] = load(from + v * wide);
    for (int64_t t = 0; t < count; ++t) {
        const float* row = gram + rows[t] * ld;
        const float step = steps[t];
        for (int64_t v = 0; v < vectors; ++v) sum[v] -= load(row + v * wide) * step;
    }
    for (int64_t v = 0; v < vectors; ++v) store(to + v * wide, sum[v]);
}

void subtract_rows(const float* gram, int64_t ld, const int32_t* rows, const float* steps, int64_t count,
                   const float* from, float* to, int64_t width) {
    int64_t i = 0;
    for (; i + 8 * wide <= width; i += 8 * wide) subtract_block<8>(gram + i, ld, rows, steps, count, from + i, to + i);
    for (; i + 4 * wide <= width; i += 4 * wide) subtract_block<4>(gram + i, ld, rows, steps, count, from + i, to + i);
    for (; i + 2 * wide <= width; i += 2 * wide) subtract_block<2>(gram + i, ld, rows, steps, count, from + i, to + i);
    for (; i < width; i += wide) subtract_block<1>(gram + i, ld, rows, steps, count, from + i, to + i);
}

LassoPass pass(const LassoSet& set, float edge, float ridge, float momentum, int32_t* rows, float* steps) {
    Wide most[parts] = {}, excess[parts] = {}, along[parts] = {}, fit[parts] = {};
    for (int64_t i = 0; i < set.width; i += 16)
        for (int64_t p = 0; p < parts; ++p) {
            const int64_t at = i + p * wide;
            const Wide value = load(set.values + at), own = load(set.own + at);
            const Wide pull = load(set.slope + at) - value * ridge;
            const Wide shared = value * pull;
            most[p] = larger(most[p], absolute(pull));
            along[p] += shared;
            excess[p] += absolute(value) * edge - shared;
            fit[p] += value * load(set.cross + at);
            const Wide ahead = own * (value + (value - load(set.before + at)) * momentum) + pull;
            const Wide inside = larger(smaller(ahead, Wide{} + edge), Wide{} - edge);
            const Wide next = (ahead - inside) * load(set.inverse + at);
            store(set.before + at, value);
            store(set.values + at, next);
            store(steps + at, next - value);
        }
    int64_t moved = 0;
    for (int64_t i = 0; i < set.width; ++i) {
        const float step = steps[i];
        rows[moved] = static_cast<int32_t>(i);
        steps[moved] = step;
        moved += step != 0;
    }
    return {most_of(most), sum_of(excess), sum_of(along), sum_of(fit), moved};
}

void sweep(const LassoSet& set, const float* gram, int64_t ld, float edge, float ridge) {
    for (int64_t k = 0; k < set.width; ++k) {
        const float value = set.values[k];
        const float ahead = (set.own[k] - ridge) * value + set.slope[k];
        const float inside = ahead > edge ? edge : ahead < -edge ? -edge : ahead;
        const float next = (ahead - inside) * set.inverse[k], step = next - value;
        if (step == 0) continue;
        set.values[k] = next;
        const float* row = gram + k * ld;
        for (int64_t i = 0; i < set.width; i += wide) store(set.slope + i, load(set.slope + i) - load(row + i) * step);
    }
}

// Numbers of 64 floats at a time: only where one of them is large, they are looked at one by one.
float scan(const float* now, const float* old, float along, float threshold, int64_t width, int32_t* found,
           int64_t* count) {
    float below = 0;
    int64_t hits = 0;
    for (int64_t block = 0; block < width; block += 64) {
        const int64_t end = block + 64 < width ? block + 64 : width;
        Wide most[parts] = {};
        for (int64_t i = block; i < end; i += 16)
            for (int64_t p = 0; p < parts; ++p) {
                const Wide last = load(now + i + p * wide);
                most[p] = larger(most[p], absolute(last + (last - load(old + i + p * wide)) * along));
            }
        const float highest = most_of(most);
        if (highest < threshold) {
            below = highest > below ? highest : below;
            continue;
        }
        for (int64_t i = block; i < end; ++i) {  // without branches: which one is large cannot be guessed
            const float value = now[i] + (now[i] - old[i]) * along, size = value < 0 ? -value : value;
            const bool hit = size >= threshold;
            found[hits] = static_cast<int32_t>(i);
            hits += hit;
            below = hit || size < below ? below : size;
        }
    }
    *count = hits;
    return below;
}

float dot(const float* a, const float* b, int64_t width) {
    Wide sum[parts] = {};
    for (int64_t i = 0; i < width; i += 16)
        for (int64_t p = 0; p < parts; ++p) sum[p] += load(a + i + p * wide) * load(b + i + p * wide);
    return sum_of(sum);
}

float drift(const float* reach, const float* values, const float* now, const float* old, float along, int64_t width) {
    Wide sum[parts] = {};
    for (int64_t i = 0; i < width; i += 16)
        for (int64_t p = 0; p < parts; ++p) {
            const int64_t at = i + p * wide;
            const Wide last = load(now + at), expected = last + (last - load(old + at)) * along;
            sum[p] += load(reach + at) * absolute(load(values + at) - expected);
        }
    return sum_of(sum);
}

void sparse_tile(const double* tile, const int32_t* rows, const double* values, int64_t count, double* out) {
    constexpr int64_t lanes_of = PYDT_LANE_BYTES / 8, all = lasso_tile / lanes_of, vectors = all < 8 ? all : 8;
    for (int64_t part = 0; part < all; part += vectors) {
        Long sum[static_cast<size_t>(vectors)] = {};
        for (int64_t t = 0; t < count; ++t) {
            const double* row = tile + rows[t] * lasso_tile + part * lanes_of;
            const double value = values[t];
            for (int64_t v = 0; v < vectors; ++v)
                sum[v] += *reinterpret_cast<const LooseLong*>(row + v * lanes_of) * value;
        }
        memcpy(out + part * lanes_of, sum, sizeof sum);
    }
}

}  // namespace penalised
