// Gather + crop + flip + normalise, one image.
//
//   out[c, y, x] = in[y + dy, x' + dx, c] * scale[c] + bias[c],   x' = flip ? width - 1 - x : x
//   pixels outside of the image are 0 (black) before they are normalised
//
// Layout: in is (height, width, channels) bytes; out is (channels, height, width) or (height, width, channels) floats.
// A shifted row is read from where it lies: what stands beside it in memory is the end of the row before or the start
// of the next one, and those pixels are blackened afterwards. Only where that would leave the image, a copy is made.
// scratch is four rows of bytes: black, that copy, black, work; the black rows are never written.
//
// Cost: 5 bytes of memory traffic a value. Bound by stores for grey images and for channels_last, by the split into
// planes else. What lost: one loop with the general index in it (not vectorised, 3 times slower), no better with a
// 256-entry table per channel in place of the arithmetic; copying each row between black ends (the loads that follow
// wait for the stores of the copy).

// __restrict: bytes may alias anything
void convert(const uint8_t* __restrict in, int64_t count, float scale, float bias, float* __restrict out) {
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(in[i]) * scale + bias;
}

void convert_reversed(const uint8_t* __restrict in, int64_t count, float scale, float bias, float* __restrict out) {
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(in[count - 1 - i]) * scale + bias;
}

void convert_row(const uint8_t* __restrict in, int64_t count, const float* __restrict scale,
                 const float* __restrict bias, float* __restrict out) {
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(in[i]) * scale[i] + bias[i];
}

// (width, channels) -> (channels, width)
void split(const uint8_t* __restrict in, int64_t width, int64_t channels, uint8_t* __restrict out) {
    if (channels == 3) {  // the constant lets the compiler permute whole vectors
        for (int64_t x = 0; x < width; ++x) {
            out[x] = in[3 * x];
            out[width + x] = in[3 * x + 1];
            out[2 * width + x] = in[3 * x + 2];
        }
        return;
    }
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t x = 0; x < width; ++x) out[c * width + x] = in[x * channels + c];
}

// The pixels from the last to the first.
void mirror(const uint8_t* __restrict in, int64_t width, int64_t channels, uint8_t* __restrict out) {
    if (channels == 3) {
        for (int64_t x = 0; x < width; ++x) {
            out[3 * x] = in[3 * (width - 1 - x)];
            out[3 * x + 1] = in[3 * (width - 1 - x) + 1];
            out[3 * x + 2] = in[3 * (width - 1 - x) + 2];
        }
        return;
    }
    for (int64_t x = 0; x < width; ++x)
        for (int64_t c = 0; c < channels; ++c) out[x * channels + c] = in[(width - 1 - x) * channels + c];
}

#if defined(__AVX2__)
// For 16 pixels of 3 bytes in three vectors: which byte of vector `part` becomes pixel i of channel c (0x80: none).
struct SplitTable {
    alignas(16) uint8_t at[2][3][3][16];  // flip, channel, part
};

constexpr SplitTable make_split_table() {
    SplitTable table{};
    for (int flip = 0; flip < 2; ++flip)
        for (int channel = 0; channel < 3; ++channel)
            for (int part = 0; part < 3; ++part)
                for (int i = 0; i < 16; ++i) {
                    const int byte = 3 * (flip ? 15 - i : i) + channel;
                    table.at[flip][channel][part][i] = byte / 16 == part ? static_cast<uint8_t>(byte % 16) : 0x80;
                }
    return table;
}

constexpr SplitTable split_table = make_split_table();

void convert8(__m128i bytes, __m256 scale, __m256 bias, float* out) {
    const __m256 values = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
    _mm256_storeu_ps(out, _mm256_add_ps(_mm256_mul_ps(values, scale), bias));
}

// One row of 16 pixels or more into three planes without a detour through memory; the last step overlaps the one
// before.
void row_to_planes(const uint8_t* row, int64_t width, bool flip, const float* scale, const float* bias, int64_t plane,
                   float* out) {
    for (int64_t x = 0;; x = x + 32 <= width ? x + 16 : width - 16) {
        const uint8_t* in = row + 3 * (flip ? width - 16 - x : x);
        __m128i parts[3];
        for (int part = 0; part < 3; ++part)
            parts[part] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 16 * part));
        for (int c = 0; c < 3; ++c) {
            __m128i bytes = _mm_setzero_si128();
            for (int part = 0; part < 3; ++part) {
                const auto* table = reinterpret_cast<const __m128i*>(split_table.at[flip][c][part]);
                bytes = _mm_or_si128(bytes, _mm_shuffle_epi8(parts[part], _mm_load_si128(table)));
            }
            const __m256 s = _mm256_set1_ps(scale[c]), b = _mm256_set1_ps(bias[c]);
            convert8(bytes, s, b, out + c * plane + x);
            convert8(_mm_srli_si128(bytes, 8), s, b, out + c * plane + x + 8);
        }
        if (x + 16 == width) return;
    }
}
#endif

// The ends of a shifted row, `left` and `right` pixels of it.
void blacken(const GatherPlan& plan, int64_t left, int64_t right, int64_t y, float* out) {
    const int64_t width = plan.width, channels = plan.channels;
    if (plan.channels_last) {
        float* row = out + y * width * channels;
        for (int64_t i = 0; i < left * channels; ++i) row[i] = plan.row_bias[i];
        for (int64_t i = (width - right) * channels; i < width * channels; ++i) row[i] = plan.row_bias[i];
        return;
    }
    for (int64_t c = 0; c < channels; ++c) {
        float* row = out + (c * plan.height + y) * width;
        for (int64_t x = 0; x < left; ++x) row[x] = plan.bias[c];
        for (int64_t x = width - right; x < width; ++x) row[x] = plan.bias[c];
    }
}

void write_row(const GatherPlan& plan, const uint8_t* row, bool flip, int64_t y, uint8_t* work, float* out) {
    const int64_t width = plan.width, channels = plan.channels, plane = plan.height * width;
    if (channels > 1 && plan.channels_last) {
        if (flip) {
            mirror(row, width, channels, work);
            row = work;
        }
        convert_row(row, width * channels, plan.row_scale, plan.row_bias, out + y * width * channels);
        return;
    }
#if defined(__AVX2__)
    if (channels == 3 && width >= 16) {
        row_to_planes(row, width, flip, plan.scale, plan.bias, plane, out + y * width);
        return;
    }
#endif
    if (channels > 1) {
        split(row, width, channels, work);
        row = work;
    }
    for (int64_t c = 0; c < channels; ++c) {
        float* to = out + c * plane + y * width;
        if (flip)
            convert_reversed(row + c * width, width, plan.scale[c], plan.bias[c], to);
        else
            convert(row + c * width, width, plan.scale[c], plan.bias[c], to);
    }
}

void gather_image(const GatherPlan& plan, const uint8_t* image, int64_t dy, int64_t dx, bool flip, float* out,
                  uint8_t* scratch) {
    const int64_t width = plan.width, row_bytes = width * plan.channels;
    dx = dx < -width ? -width : dx > width ? width : dx;
    const int64_t before = dx < 0 ? -dx : 0, behind = dx > 0 ? dx : 0;  // black pixels, as the image lies
    for (int64_t y = 0; y < plan.height; ++y) {
        const int64_t start = (y + dy) * row_bytes + dx * plan.channels;
        const bool black = y + dy < 0 || y + dy >= plan.height;
        const uint8_t* row = scratch;
        if (!black && start >= 0 && start + row_bytes <= plan.height * row_bytes) {
            row = image + start;
        } else if (!black) {  // the first or the last row: a copy with room at both ends
            memcpy(scratch + row_bytes, image + (y + dy) * row_bytes, static_cast<size_t>(row_bytes));
            row = scratch + row_bytes + dx * plan.channels;
        }
        write_row(plan, row, flip, y, scratch + 3 * row_bytes, out);
        if (dx != 0) blacken(plan, flip ? behind : before, flip ? before : behind, y, out);
    }
}
