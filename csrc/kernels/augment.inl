// Gather + crop + flip + normalise, one image.
//
//   out[c, y, x] = in[y + dy, x' + dx, c] * scale[c] + bias[c],   x' = flip ? width - 1 - x : x
//   pixels outside of the image are 0 (black) before they are normalised
//
// Layout: in is (height, width, channels) bytes; out is (channels, height, width) or (height, width, channels) floats.
// Cost: per row one copy of width * channels bytes into scratch (only if it is shifted), one split into planes (only
// for NCHW with several channels), one pass byte -> float. What lost: one loop with the general index in it (the
// compiler cannot vectorise it, 6 times slower); a 256-entry table per channel in place of the multiplication (gathers,
// 3 times slower).

// Copies `width` pixels starting `dx` pixels into the row, black where there are none.
void shift_row(const uint8_t* row, int64_t width, int64_t channels, int64_t dx, uint8_t* out) {
    const int64_t left = dx < 0 ? (-dx < width ? -dx : width) : 0;
    const int64_t right = dx > 0 ? (dx < width ? dx : width) : 0;
    memset(out, 0, static_cast<size_t>(left * channels));
    memcpy(out + left * channels, row + right * channels, static_cast<size_t>((width - left - right) * channels));
    memset(out + (width - right) * channels, 0, static_cast<size_t>(right * channels));
}

// __restrict: bytes may alias anything, and the check for it costs more than a row of 32 pixels
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

void gather_image(const GatherPlan& plan, const uint8_t* image, int64_t dy, int64_t dx, bool flip, float* out,
                  uint8_t* scratch) {
    const int64_t width = plan.width, channels = plan.channels, row_bytes = width * channels,
                  plane = plan.height * width;
    uint8_t* shifted = scratch;
    uint8_t* split_or_mirrored = scratch + row_bytes;
    for (int64_t y = 0; y < plan.height; ++y) {
        const int64_t from = y + dy;
        const uint8_t* row = image + from * row_bytes;
        if (from < 0 || from >= plan.height) {
            memset(shifted, 0, static_cast<size_t>(row_bytes));
            row = shifted;
        } else if (dx != 0) {
            shift_row(row, width, channels, dx, shifted);
            row = shifted;
        }
        if (channels > 1 && plan.channels_last) {
            if (flip) {
                mirror(row, width, channels, split_or_mirrored);
                row = split_or_mirrored;
            }
            convert_row(row, row_bytes, plan.row_scale, plan.row_bias, out + y * row_bytes);
            continue;
        }
        if (channels > 1) {
            split(row, width, channels, split_or_mirrored);
            row = split_or_mirrored;
        }
        for (int64_t c = 0; c < channels; ++c) {
            float* to = out + c * plane + y * width;
            if (flip)
                convert_reversed(row + c * width, width, plan.scale[c], plan.bias[c], to);
            else
                convert(row + c * width, width, plan.scale[c], plan.bias[c], to);
        }
    }
}
