// Batches of raw images: checks, tables for the kernels, threads. Random shifts and windows: windows.hpp. The pixels:
// kernels/augment.inl and kernels/resize.inl.
#include <algorithm>
#include <cmath>

#include "kernels/kernels.hpp"
#include "pydt.hpp"
#include "threads.hpp"
#include "windows.hpp"

namespace pydt {

namespace {

// The images of a batch lie anywhere in memory, so the hardware prefetcher cannot find the next one. This many bytes of
// it are prefetched; from there on the hardware does it.
constexpr std::int64_t most_ahead = 4096, nearest_ahead = 1024;

// Larger batches are written past the cache: from the kernel where its vectors are whole lines (AVX-512, float32),
// otherwise each image is made in L1 and streamed to memory from there. Beside other jobs, such a batch leaves the cache
// before it is read, and an ordinary store that misses the cache first reads the line that it overwrites. Measured by
// way of L1: 6 MB, 1.25 times faster beside a job that copies memory, 1.2 times slower on an idle machine; 3 MB, no
// faster beside it, 1.25 times slower on an idle one. From the kernel, a Loader and a consumer that reads the batches,
// beside other jobs: 6 MB, 1.1 times faster than ordinary stores.
constexpr std::int64_t cached_batch = 4 << 20, nearest_cache = 16 << 10;

struct alignas(stream_bytes) Line {
    std::uint8_t bytes[stream_bytes];
};

std::int64_t bytes_of(Pixel type) { return type == Pixel::f32 ? 4 : 2; }

// A plan and the tables that it points to.
struct Tables {
    std::vector<float> factors;         // (2, planes, part)
    std::vector<std::int32_t> offsets;  // (2, part)
    GatherPlan plan{};

    Tables(const Images& images, const Batch& out, const Augmentation& how) {
        const std::int64_t channels = images.channels, area = out.height * out.width;
        const bool planes = !out.channels_last;
        plan.height = images.height, plan.width = images.width, plan.channels = channels;
        plan.rows = out.height, plan.columns = out.width;
        plan.planes = planes ? channels : 1, plan.part = planes ? out.width : out.width * channels;
        plan.step = planes ? 1 : channels;
        plan.plane_stride = planes ? area : 0, plan.row_stride = plan.part;
        plan.type = out.type;

        const std::vector<float> normalise = normalisation(images, how);
        const std::int64_t row = out.width * channels;
        factors.resize(static_cast<std::size_t>(2 * row));
        offsets.resize(static_cast<std::size_t>(2 * plan.part));
        for (std::int64_t i = 0; i < row; ++i) {
            const auto c = static_cast<std::size_t>(planes ? i / out.width : i % channels);
            factors[static_cast<std::size_t>(i)] = normalise[c];
            factors[static_cast<std::size_t>(row + i)] = normalise[static_cast<std::size_t>(channels) + c];
        }
        for (std::int64_t i = 0; i < plan.part; ++i) {
            const std::int64_t x = i / plan.step, c = i % plan.step;
            offsets[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(x * channels + c);
            offsets[static_cast<std::size_t>(plan.part + i)] =
                static_cast<std::int32_t>((out.width - 1 - x) * channels + c);
        }
        plan.scale = factors.data(), plan.bias = factors.data() + row, plan.offsets = offsets.data();
    }
};

// The tables of one resized image.
class Resized {
public:
    explicit Resized(const GatherPlan& plan)
        : plan_(plan), offsets_(static_cast<std::size_t>(2 * (plan.part + plan.rows))),
          weights_(static_cast<std::size_t>(plan.part + plan.rows)) {}

    Grid place(const Window& window, bool flip) {
        std::int32_t *low = offsets_.data(), *high = low + plan_.part, *row_low = high + plan_.part,
                     *row_high = row_low + plan_.rows;
        float *weight = weights_.data(), *row_weight = weight + plan_.part;
        const double step_x = static_cast<double>(window.width) / static_cast<double>(plan_.columns),
                     step_y = static_cast<double>(window.height) / static_cast<double>(plan_.rows);
        for (std::int64_t x = 0; x < plan_.columns; ++x) {
            const Between at = between(flip ? plan_.columns - 1 - x : x, step_x, window.width);
            for (std::int64_t c = 0; c < plan_.step; ++c) {
                low[x * plan_.step + c] = static_cast<std::int32_t>((window.left + at.low) * plan_.channels + c);
                high[x * plan_.step + c] = static_cast<std::int32_t>((window.left + at.high) * plan_.channels + c);
                weight[x * plan_.step + c] = at.weight;
            }
        }
        for (std::int64_t y = 0; y < plan_.rows; ++y) {
            const Between at = between(y, step_y, window.height);
            row_low[y] = static_cast<std::int32_t>(window.top + at.low);
            row_high[y] = static_cast<std::int32_t>(window.top + at.high);
            row_weight[y] = at.weight;
        }
        return {low, high, weight, row_low, row_high, row_weight};
    }

private:
    const GatherPlan& plan_;
    std::vector<std::int32_t> offsets_;
    std::vector<float> weights_;
};

}  // namespace

void check_windows(const Augmentation& how) {
    if (how.epoch >= epoch_limit) throw ArgumentError("epoch", "must be below 2**56");
    if (how.view != 0 && how.view != 1) throw ArgumentError("view", std::to_string(how.view) + " is not 0 or 1");
    if (!how.resized) return;
    if (!(how.scale[0] > 0 && how.scale[0] <= how.scale[1] && how.scale[1] <= 1))
        throw ArgumentError("scale", "must be two rising numbers in 0..1, the first above 0");
    if (!(how.log_ratio[0] >= -10 && how.log_ratio[0] <= how.log_ratio[1] && how.log_ratio[1] <= 10))
        throw ArgumentError("ratio", "must be two rising numbers in 1/20000..20000");
}

void check_augmentation(const Images& images, const Batch& out, const Augmentation& how) {
    if (how.crop_pad < 0 || how.crop_pad > 65535)
        throw ArgumentError("crop_pad", std::to_string(how.crop_pad) + " is not in 0..65535");
    check_windows(how);
    const bool resizes = how.resized || out.height != images.height || out.width != images.width;
    if (resizes && how.crop_pad > 0) throw ArgumentError("crop_pad", "must be 0 where images are resized");
    if (resizes && out.height * out.width > 0 && images.height * images.width == 0)
        throw ArgumentError("images", "of no pixels cannot be resized");
    constexpr std::int64_t most = 1 << 30;  // bytes of a row: kernels number them in 32 bits
    checked_size("images", {images.height, images.width, images.channels});
    if (images.width * images.channels >= most || images.height >= most)
        throw ArgumentError("images", "have rows or columns of 2**30 bytes or more");
    if (out.width >= most || out.height >= most || out.width * images.channels >= most)
        throw ArgumentError("out", "has rows or columns of 2**30 values or more");
    for (std::int64_t c = 0; c < images.channels; ++c) {
        if (!std::isfinite(how.mean[c])) throw ArgumentError("mean", "channel " + std::to_string(c) + " is not finite");
        if (!std::isfinite(how.std[c]) || how.std[c] <= 0)
            throw ArgumentError("std", "channel " + std::to_string(c) + " must be finite and above 0");
        const double most_value = (std::abs(double{how.mean[c]}) + 1) / double{how.std[c]};
        if (most_value > 1e38)
            throw ArgumentError("std", "channel " + std::to_string(c) + " is so small that pixels overflow");
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
    check_augmentation(images, out, how);
    check_index(index, out.count, images.count);
    const std::int64_t image_bytes = images.height * images.width * images.channels,
                       out_values = out.height * out.width * images.channels;
    if (out.count == 0 || out_values == 0) return;

    const bool resizes = how.resized || out.height != images.height || out.width != images.width;
    Tables tables(images, out, how);
    GatherPlan& plan = tables.plan;
    const Kernels& run = kernels();
    const std::uint8_t* end = images.data + images.count * image_bytes;
    const double ratio = static_cast<double>(out.width) / static_cast<double>(out.height);
    const std::int64_t out_bytes = out_values * bytes_of(out.type);
    const bool large = out.count * out_bytes > cached_batch && out_bytes % stream_bytes == 0 &&
                       reinterpret_cast<std::uintptr_t>(out.data) % stream_bytes == 0;
    plan.past_cache = large && !resizes && out.type == Pixel::f32 && run.lane_bytes == stream_bytes &&
                      plan.part * bytes_of(out.type) % stream_bytes == 0;
    const bool copied = large && !plan.past_cache && out_bytes <= nearest_cache;
    constexpr std::int64_t share = 16;  // images handed to a thread at a time
    parallel((out.count + share - 1) / share, threads, [&] {
        return [&, resized = Resized(plan), copy = std::vector<std::uint8_t>(),
                scratch = std::vector<float>(static_cast<std::size_t>(resizes ? (2 * plan.planes + 3) * plan.part : 0)),
                near = std::vector<Line>(static_cast<std::size_t>(copied ? out_bytes / stream_bytes : 0))](
                   std::int64_t item) mutable {
            for (std::int64_t i = item * share; i < std::min(out.count, (item + 1) * share); ++i) {
                const std::uint8_t* next = images.data + index[std::min(i + 2, out.count - 1)] * image_bytes;
                Ahead ahead{next, next + std::min(image_bytes, most_ahead), image_bytes <= nearest_ahead};
                Placement p = place(how, ids[i]);
                p.dx = std::clamp(p.dx, -images.width, images.width);
                const std::uint8_t* image = images.data + index[i] * image_bytes;
                // Kernels read a little beyond an image. At the ends of the memory they get a copy with room around it.
                const std::int64_t before = p.dx < 0 ? -p.dx * images.channels : 0,
                                   behind = (p.dx > 0 ? p.dx * images.channels : 0) + read_ahead;
                if (image - images.data < before || end - image < image_bytes + behind) {
                    copy.resize(static_cast<std::size_t>(before + image_bytes + behind));
                    std::copy_n(image, image_bytes, copy.data() + before);
                    image = copy.data() + before;
                }
                std::uint8_t* destination = static_cast<std::uint8_t*>(out.data) + i * out_bytes;
                std::uint8_t* to = copied ? near.data()->bytes : destination;
                if (resizes) {
                    for (; ahead.next < ahead.end; ahead.next += 64) __builtin_prefetch(ahead.next);
                    const Window window = how.resized ? resized_window(how, ids[i], images.height, images.width)
                                                      : central_window(images.height, images.width, ratio, ratio);
                    run.resize_image(plan, image, resized.place(window, p.flip), to, scratch.data());
                } else {
                    run.shift_image(plan, image, p.dy, p.dx, p.flip, to, ahead);
                }
                if (copied) run.stream(to, out_bytes, destination);
            }
            if (large) run.finish_stores();
        };
    });
}

}  // namespace pydt
