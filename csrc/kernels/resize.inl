// Gather + bilinear resize of a window + flip + normalise, one image.
//
//   across(r)[v] = in[r, low[v]] + (in[r, high[v]] - in[r, low[v]]) * weight[v]          for the rows r in use
//   out[y, v]    = (across(l)[v] + (across(h)[v] - across(l)[v]) * row_weight[y]) * scale[v] + bias[v],
//                  l = row_low[y], h = row_high[y]
//
// Every operation is rounded once, to float32, in this order. Layout: as in augment.inl; the tables low and high (Grid)
// hold the window and its mirror image. Rows are resized across first, into `scratch`. The last two are kept, so a row
// that several output rows use is resized once.
//
// Cost, enlarging 32 x 32 x 3: 3 instructions a value with AVX2, 2 us an image. Where the bytes of a group do not fit
// the window of one permutation (shrinking by more than a third), bytes are loaded one by one. What lost: down the
// columns first (the permutations are then gathers of floats, four times the bytes); fixed point of 7 and 14 bits (no
// faster for float outputs, and up to one grey level off).

// Tables for the vector path, in scratch: the place of each vector's bytes, and the neighbours of its values in them.
struct Neighbours {
    uint8_t* places;      // a Place a vector
    int32_t *low, *high;  // (part,)
};

template <class T>
void blend_any(const GatherPlan& plan, const float* low, const float* high, float weight, T* out) {
    for (int64_t p = 0; p < plan.planes; ++p)
        for (int64_t i = p * plan.part; i < (p + 1) * plan.part; ++i)
            put(out + p * plan.plane_stride + i - p * plan.part,
                (low[i] + (high[i] - low[i]) * weight) * plan.scale[i] + plan.bias[i]);
}

void across_any(const GatherPlan& plan, const uint8_t* row, const Grid& grid, float* out) {
    for (int64_t p = 0; p < plan.planes; ++p)
        for (int64_t i = 0; i < plan.part; ++i) {
            const auto low = static_cast<float>(row[grid.low[i] + p]), high = static_cast<float>(row[grid.high[i] + p]);
            out[p * plan.part + i] = low + (high - low) * grid.weight[i];
        }
}

#if defined(PYDT_LANES)
// Calls call(first value, number) for every vector of a part, the last one last. It may overlap the one before, which
// may then compute wrong values where they overlap: the last one writes over them.
template <class Call>
inline void each_vector(int64_t part, Call call) {
    int64_t i = 0, number = 0;
    for (; i + lanes <= part; i += lanes, ++number) call(i, number);
    if (i < part) call(part - lanes, number);
}

// False if a group needs more bytes than the window of one permutation.
bool find_neighbours(const GatherPlan& plan, const Grid& grid, Neighbours to) {
    const Ints limit = ints(static_cast<int32_t>(window - plan.planes));
    bool fits = true;
    each_vector(plan.part, [&](int64_t i, int64_t number) {
        const Ints low = ints(grid.low + i), high = ints(grid.high + i), base = group_min(low);
        fits = fits && !any(greater(minus(high, base), limit));
        const Place place = place_of(base);
        memcpy(to.places + number * static_cast<int64_t>(sizeof place), &place, sizeof place);
        put(to.low + i, kept(minus(low, base)));
        put(to.high + i, kept(minus(high, base)));
    });
    return fits;
}

template <size_t planes>
void across_vectors(const GatherPlan& plan, const uint8_t* row, const Grid& grid, Neighbours at, float* out) {
    const int64_t part = plan.part;
    const float* weights = grid.weight;
    each_vector(part, [&](int64_t i, int64_t number) {
        Place place;
        memcpy(&place, at.places + number * static_cast<int64_t>(sizeof place), sizeof place);
        const auto bytes = bytes_at(row + place.first, place);
        const Floats weight = floats(weights + i);
        const Ints low_at = ints(at.low + i), high_at = ints(at.high + i);
        for (size_t p = 0; p < planes; ++p) {
            const Ints plane = ints(static_cast<int32_t>(p));
            const Floats low = pick_kept(bytes, plus(low_at, plane)), high = pick_kept(bytes, plus(high_at, plane));
            put(out + static_cast<int64_t>(p) * part + i, plus(low, times(minus(high, low), weight)));
        }
    });
}

template <class T>
void blend_vectors(const GatherPlan& plan, const float* low, const float* high, float weight, T* out) {
    const Floats share = floats(weight);
    const int64_t part = plan.part, planes = plan.planes, plane_stride = plan.plane_stride;
    for (int64_t p = 0; p < planes; ++p, out += plane_stride) {
        const float *a = low + p * part, *b = high + p * part, *scale = plan.scale + p * part,
                    *bias = plan.bias + p * part;
        each_vector(part, [&](int64_t i, int64_t) {
            const Floats value = plus(floats(a + i), times(minus(floats(b + i), floats(a + i)), share));
            put(out + i, plus(times(value, floats(scale + i)), floats(bias + i)));
        });
    }
}
#endif

template <class T>
void resize_to(const GatherPlan& plan, const uint8_t* image, const Grid& grid, T* out, void* scratch) {
    const int64_t row_bytes = plan.width * plan.channels;
    auto* rows = static_cast<float*>(scratch);
    float* kept[2] = {rows, rows + plan.planes * plan.part};
    int64_t held[2] = {-1, -1};
#if defined(PYDT_LANES)
    auto* numbers = reinterpret_cast<int32_t*>(rows + 2 * plan.planes * plan.part);
    const Neighbours near{reinterpret_cast<uint8_t*>(numbers + 2 * plan.part), numbers, numbers + plan.part};
    const bool vectors = plan.part >= lanes && plan.channels <= 4 && find_neighbours(plan, grid, near);
#endif
    const auto across = [&](int64_t row, int slot) {
        if (held[slot] == row) return;
        held[slot] = row;
        const uint8_t* from = image + row * row_bytes;
#if defined(PYDT_LANES)
        if (vectors) {
            switch (plan.planes) {
                case 1: return across_vectors<1>(plan, from, grid, near, kept[slot]);
                case 2: return across_vectors<2>(plan, from, grid, near, kept[slot]);
                case 3: return across_vectors<3>(plan, from, grid, near, kept[slot]);
                default: return across_vectors<4>(plan, from, grid, near, kept[slot]);
            }
        }
#endif
        across_any(plan, from, grid, kept[slot]);
    };
    for (int64_t y = 0; y < plan.rows; ++y) {
        const int64_t low = grid.row_low[y], high = grid.row_high[y];
        const int slot = held[0] != low && (held[1] == low || held[0] == high) ? 1 : 0;
        across(low, slot);
        if (high != low) across(high, 1 - slot);
        const float *above = kept[slot], *below = high == low ? above : kept[1 - slot];
        T* to = out + y * plan.row_stride;
#if defined(PYDT_LANES)
        if (plan.part >= lanes) {
            blend_vectors(plan, above, below, grid.row_weight[y], to);
            continue;
        }
#endif
        blend_any(plan, above, below, grid.row_weight[y], to);
    }
}

void resize_image(const GatherPlan& plan, const uint8_t* image, const Grid& grid, void* out, void* scratch) {
    switch (plan.type) {
        case Pixel::f32: return resize_to(plan, image, grid, static_cast<float*>(out), scratch);
        case Pixel::f16: return resize_to(plan, image, grid, static_cast<F16*>(out), scratch);
        case Pixel::bf16: return resize_to(plan, image, grid, static_cast<BF16*>(out), scratch);
    }
}
