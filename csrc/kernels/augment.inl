// Gather + crop + flip + normalise, one image.
//
//   out[c, y, x] = in[y + dy, x' + dx, c] * scale[c] + bias[c],   x' = flip ? width - 1 - x : x
//   pixels outside of the image are 0 (black) before they are normalised
//
// Layout: in is (height, width, channels) bytes; out is (channels, height, width) or (height, width, channels) values
// of a type in pixels.inl. The table of a vector of values (which bytes of a row, which values are black) is the same
// for every row, so it stays in registers while the vector's column of rows is written: a byte permutation, a
// conversion, a multiplication, an addition and a store per row. With AVX-512, up to 6 tables stay there and columns go
// side by side: those of 32 RGB pixels are whole rows. A shifted row is read in place; beside it in memory lie the rows
// before and after, which the table makes black.
//
// Cost: 1.5 instructions a value with AVX2, half of that with AVX-512; bound by memory where the batch does not fit the
// cache. There a vector of AVX-512 is a whole line, stored past the cache from here: for 32 x 32 x 3, a Loader is 1.8
// times faster than by way of a copy (AMD EPYC with AVX-512, two virtual cores, 2026-11-30). Other instruction sets
// store half lines: augment.cpp streams whole images. Large images go in blocks of rows that fit L1.
//
// What lost: a row at a time, copied between black ends or blackened afterwards (3 times slower: short loops of unknown
// length); a table of 256 entries per channel in place of the arithmetic; prefetching the output; prefetching the next
// image all at once and not in parts between the rows or columns (1.35 times slower: the wait for memory then adds to
// the arithmetic); with AVX-512, ordinary stores of batches beyond the cache (1.2 times slower beside other jobs), and
// images of more than 1 KB prefetched to L1, which keeps half as many fetches in flight as L2 (1.6 times slower reads).

void fetch(Ahead& ahead, int64_t lines) {
    if (PYDT_LANE_BYTES < 64 || ahead.nearest)
        for (; lines > 0 && ahead.next < ahead.end; --lines, ahead.next += 64) __builtin_prefetch(ahead.next);
    else
        for (; lines > 0 && ahead.next < ahead.end; --lines, ahead.next += 64) __builtin_prefetch(ahead.next, 0, 2);
}

// Values from .. to - 1 of a part lie inside the image, the others are black.
struct Inside {
    int64_t from, to;
};

// Black rows.
template <class T>
void fill(const GatherPlan& plan, int64_t row, int64_t rows, T* out) {
    for (int64_t p = 0; p < plan.planes; ++p) {
        const float* bias = plan.bias + p * plan.part;
        for (int64_t y = row; y < row + rows; ++y) {
            T* to = out + p * plan.plane_stride + y * plan.row_stride;
            int64_t i = 0;
#if defined(PYDT_LANES)
            for (; i + lanes <= plan.part; i += lanes) put(to + i, floats(bias + i));
#endif
            for (; i < plan.part; ++i) put(to + i, bias[i]);
        }
    }
}

// `rows` rows of every plane. image, out: the first of them, in the shifted image and in the output.
template <class T>
void shift_any(const GatherPlan& plan, const uint8_t* image, int64_t rows, const int32_t* offsets, Inside inside,
               T* out) {
    for (int64_t p = 0; p < plan.planes; ++p) {
        const float *scale = plan.scale + p * plan.part, *bias = plan.bias + p * plan.part;
        for (int64_t y = 0; y < rows; ++y) {
            const uint8_t* row = image + y * plan.width * plan.channels + p;
            T* to = out + p * plan.plane_stride + y * plan.row_stride;
            for (int64_t i = 0; i < inside.from; ++i) put(to + i, bias[i]);
            for (int64_t i = inside.from; i < inside.to; ++i)
                put(to + i, static_cast<float>(row[offsets[i]]) * scale[i] + bias[i]);
            for (int64_t i = inside.to; i < plan.part; ++i) put(to + i, bias[i]);
        }
    }
}

#if defined(PYDT_LANES)
// `across` neighbouring vectors of every plane, the first at value `first` of a part; those that would end beyond the
// part are moved back.
template <size_t planes, size_t across, class T>
__attribute__((always_inline)) inline void shift_columns(const GatherPlan& plan, const uint8_t* image, int64_t rows,
                                                         const int32_t* offsets, Inside inside, int64_t first, T* out,
                                                         Ahead& ahead, int64_t lines) {
    const Ints from = ints(static_cast<int32_t>(inside.from)), last = ints(static_cast<int32_t>(inside.to - 1));
    // Copies, since the compiler must assume that a store changes the plan.
    const int64_t row_bytes = plan.width * plan.channels, row_stride = plan.row_stride,
                  plane_stride = plan.plane_stride;
    if (across == 1) fetch(ahead, lines);
    const int64_t row_lines = across == 1 ? 0 : (static_cast<int64_t>(across) * lines + rows - 1) / rows;
    int64_t at[across];
    Place place[across];
    Table byte[across][planes];
    Floats scale[across][planes], bias[across][planes];
    for (size_t v = 0; v < across; ++v) {
        const int64_t next = first + static_cast<int64_t>(v) * lanes;
        const int64_t i = at[v] = next + lanes <= plan.part ? next : plan.part - lanes;
        const Ints value = plus(count_up(), ints(static_cast<int32_t>(i))), offset = ints(offsets + i);
        const Ints black = either(greater(from, value), greater(value, last)), start = group_min(offset);
        place[v] = place_of(start);
        for (size_t p = 0; p < planes; ++p) {
            byte[v][p] = table(either(plus(minus(offset, start), ints(static_cast<int32_t>(p))), black));
            scale[v][p] = floats(plan.scale + static_cast<int64_t>(p) * plan.part + i);
            bias[v][p] = floats(plan.bias + static_cast<int64_t>(p) * plan.part + i);
        }
    }
#pragma GCC unroll 4
    for (int64_t y = 0; y < rows; ++y, image += row_bytes, out += row_stride) {
        if (across > 1) fetch(ahead, row_lines);
        for (size_t v = 0; v < across; ++v) {
            const auto bytes = bytes_at(image + place[v].first, place[v]);
            for (size_t p = 0; p < planes; ++p)
                put(out + at[v] + static_cast<int64_t>(p) * plane_stride,
                    plus(times(pick(bytes, byte[v][p]), scale[v][p]), bias[v][p]));
        }
    }
}

template <size_t planes, class T>
void shift_vectors(const GatherPlan& plan, const uint8_t* image, int64_t rows, const int32_t* offsets, Inside inside,
                   T* out, Ahead& ahead, int64_t lines) {
    constexpr size_t tables = PYDT_LANES == 16 ? 6 : 1;  // that stay in registers with their scales and biases
    constexpr size_t few = planes > 1 && 2 * planes <= tables ? 2 : 1, many = planes == 1 ? tables : few;
    for (int64_t i = 0; i < plan.part;) {
        const int64_t left = (plan.part - i + lanes - 1) / lanes;
        if (left > 4) {
            shift_columns<planes, many>(plan, image, rows, offsets, inside, i, out, ahead, lines);
            i += static_cast<int64_t>(many) * lanes;
        } else if (left > 1) {
            shift_columns<planes, few>(plan, image, rows, offsets, inside, i, out, ahead, lines);
            i += static_cast<int64_t>(few) * lanes;
        } else {
            shift_columns<planes, 1>(plan, image, rows, offsets, inside, i, out, ahead, lines);
            i += lanes;
        }
    }
}
#endif

template <class T>
void shift_to(const GatherPlan& plan, const uint8_t* image, int64_t dy, int64_t dx, bool flip, T* out, Ahead ahead) {
    const int64_t height = plan.height, width = plan.width, row_bytes = width * plan.channels;
    const int64_t left = dx < 0 ? -dx : 0, right = dx > 0 ? dx : 0;  // black pixels, before mirroring
    const int64_t first = dy < 0 ? -dy : 0, end = dy > 0 ? height - dy : height;
    if (first >= end || left >= width || right >= width) {
        fetch(ahead, height);
        fill(plan, 0, height, out);
        return;
    }
    fill(plan, 0, first, out);
    fill(plan, end, height - end, out);
    const Inside inside{(flip ? right : left) * plan.step, (width - (flip ? left : right)) * plan.step};
    const int32_t* offsets = plan.offsets + (flip ? plan.part : 0);
    const int64_t row_values = plan.planes * plan.part, block = row_values < 4096 ? 4096 / row_values : 1;
#if defined(PYDT_LANES)
    const int64_t passes = (end - first + block - 1) / block * ((plan.part + lanes - 1) / lanes);
    const int64_t lines = (ahead.end - ahead.next + 64 * passes - 1) / (64 * passes);
#endif
    for (int64_t y = first; y < end; y += block) {
        const int64_t rows = y + block < end ? block : end - y;
        const uint8_t* from = image + (y + dy) * row_bytes + dx * plan.channels;
        T* to = out + y * plan.row_stride;
#if defined(PYDT_LANES)
        if (plan.part >= lanes && plan.channels <= 4) {
            switch (plan.planes) {
                case 1: shift_vectors<1>(plan, from, rows, offsets, inside, to, ahead, lines); continue;
                case 2: shift_vectors<2>(plan, from, rows, offsets, inside, to, ahead, lines); continue;
                case 3: shift_vectors<3>(plan, from, rows, offsets, inside, to, ahead, lines); continue;
                default: shift_vectors<4>(plan, from, rows, offsets, inside, to, ahead, lines); continue;
            }
        }
#endif
        fetch(ahead, rows);
        shift_any(plan, from, rows, offsets, inside, to);
    }
}

void shift_image(const GatherPlan& plan, const uint8_t* image, int64_t dy, int64_t dx, bool flip, void* out,
                 Ahead ahead) {
    switch (plan.type) {
        case Pixel::f32:
#if PYDT_LANES == 16
            if (plan.past_cache) return shift_to(plan, image, dy, dx, flip, static_cast<Past*>(out), ahead);
#endif
            return shift_to(plan, image, dy, dx, flip, static_cast<float*>(out), ahead);
        case Pixel::f16: return shift_to(plan, image, dy, dx, flip, static_cast<F16*>(out), ahead);
        case Pixel::bf16: return shift_to(plan, image, dy, dx, flip, static_cast<BF16*>(out), ahead);
    }
}
