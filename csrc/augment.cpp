// Batches of raw images: checks, places (rng.hpp) and threads; the pixels themselves are in kernels/augment.inl.
#include <algorithm>
#include <cmath>

#include "kernels/kernels.hpp"
#include "pydt.hpp"
#include "rng.hpp"
#include "threads.hpp"

namespace pydt {

namespace {

// The images of a batch lie anywhere in memory, so the processor cannot guess the next one.
void prefetch(const std::uint8_t* image, std::int64_t bytes) {
    for (std::int64_t at = 0; at < std::min<std::int64_t>(bytes, 4096); at += 64) __builtin_prefetch(image + at);
}

}  // namespace

void check_augmentation(const Images& images, const Augmentation& how) {
    if (how.crop_pad < 0 || how.crop_pad > 65535)
        throw ArgumentError("crop_pad", std::to_string(how.crop_pad) + " is not in 0..65535");
    if (how.epoch >= epoch_limit) throw ArgumentError("epoch", "must be below 2**56");
    for (std::int64_t c = 0; c < images.channels; ++c) {
        if (!std::isfinite(how.mean[c])) throw ArgumentError("mean", "channel " + std::to_string(c) + " is not finite");
        if (!std::isfinite(how.std[c]) || how.std[c] <= 0)
            throw ArgumentError("std", "channel " + std::to_string(c) + " must be finite and above 0");
    }
}

void check_index(const std::int64_t* index, std::int64_t count, std::int64_t images) {
    for (std::int64_t i = 0; i < count; ++i)
        if (index[i] < 0 || index[i] >= images)
            throw ArgumentError("index", "position " + std::to_string(i) + " is " + std::to_string(index[i]) +
                                             ", but there are " + std::to_string(images) + " images");
}

std::vector<float> normalisation(const Images& images, const Augmentation& how) {
    const auto channels = static_cast<std::size_t>(images.channels);
    std::vector<float> values(2 * channels);
    for (std::size_t c = 0; c < channels; ++c) {
        const double mean = how.mean[c], std = how.std[c];
        values[c] = static_cast<float>(1.0 / (255.0 * std));
        values[channels + c] = static_cast<float>(0.0 - mean / std);
    }
    return values;
}

void gather(const Images& images, const std::int64_t* index, const std::int64_t* ids, const Batch& out,
            const Augmentation& how, int threads) {
    check_augmentation(images, how);
    check_index(index, out.count, images.count);
    const std::int64_t row_values = images.width * images.channels, image_values = images.height * row_values;
    if (out.count == 0 || image_values == 0) return;

    const std::vector<float> normalise = normalisation(images, how);
    const auto channels = static_cast<std::size_t>(images.channels), row = static_cast<std::size_t>(row_values);
    std::vector<float> rows(2 * row);
    for (std::size_t i = 0; i < row; ++i) {
        rows[i] = normalise[i % channels];
        rows[row + i] = normalise[channels + i % channels];
    }
    const GatherPlan plan{images.height,     images.width,     images.channels,
                          out.channels_last, normalise.data(), normalise.data() + channels,
                          rows.data(),       rows.data() + row};
    const Kernels& run = kernels();
    constexpr std::int64_t share = 16;  // images handed to a thread at a time
    parallel((out.count + share - 1) / share, threads, [&] {
        return [&, scratch = std::vector<std::uint8_t>(4 * row)](std::int64_t item) mutable {
            for (std::int64_t i = item * share; i < std::min(out.count, (item + 1) * share); ++i) {
                if (i + 2 < out.count) prefetch(images.data + index[i + 2] * image_values, image_values);
                const Placement p = place(how.seed, how.epoch, ids[i], how.crop_pad, how.flip);
                run.gather_image(plan, images.data + index[i] * image_values, p.dy, p.dx, p.flip,
                                 out.data + i * image_values, scratch.data());
            }
        };
    });
}

}  // namespace pydt
