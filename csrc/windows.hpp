// The random shift or crop window of an example in an epoch: drawn from counter-based bits (rng.hpp), the same on CPU
// and GPU. An example has up to two views, augmented independently; each has its own streams.
#pragma once
#include <cmath>

#include "rng.hpp"
#include "views.hpp"

namespace pydt {

// Streams of the loader: the lowest byte says what the bits are for, the others are the epoch.
//
//   1                    order of the examples
//   2, 31                shift and mirroring, of view 0 and of view 1
//   6                    the example that replaces an unreadable one
//   16 .. 25, 32 .. 41   the ten tries at a resized crop, of view 0 and of view 1
//   64 .., 96 ..         colour, blur, inversion, erasing and RandAugment, of view 0 and of view 1
//
// Other streams, without an epoch: 7 the seeds of rows; 0x0D000000 .. masks of designs; 0x0F000000 folds.
PYDT_HOST_DEVICE inline std::uint64_t place_stream(std::int64_t view) { return view == 0 ? 2 : 31; }
PYDT_HOST_DEVICE inline std::uint64_t try_stream(std::int64_t view) { return view == 0 ? 16 : 32; }

// The offset of the crop window from the image, and whether it is mirrored.
struct Placement {
    std::int64_t dy, dx;  // -crop_pad .. crop_pad
    bool flip;
};

PYDT_HOST_DEVICE inline Placement place(const Augmentation& how, std::int64_t id) {
    const std::uint64_t bits = random_bits(how.seed, stream_of(place_stream(how.view), how.epoch), id);
    const std::uint64_t low = bits & 0xFFFFFFFF, high = bits >> 32;
    const auto places = static_cast<std::uint64_t>(2 * how.crop_pad + 1);
    // multiply-shift: uniform to within places / 2^31
    return {static_cast<std::int64_t>(low * places >> 32) - how.crop_pad,
            static_cast<std::int64_t>((high >> 1) * places >> 31) - how.crop_pad, how.flip && (high & 1) != 0};
}

// exp(x) for |x| < 700 to a relative 4e-16, from additions and multiplications alone: libraries differ in the last bit,
// and a crop window must not. 2^k times the Taylor series of the remainder.
PYDT_HOST_DEVICE inline double exp_of(double x) {
    const double k = floor(x * 1.4426950408889634 + 0.5);
    const double r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10;
    double sum = 1.0;
    for (int n = 14; n > 0; --n) sum = 1.0 + sum * r * (1.0 / n);
    const double step = k < 0 ? 0.5 : 2.0;
    for (int i = static_cast<int>(k < 0 ? -k : k); i > 0; --i) sum *= step;
    return sum;
}

// The largest central window whose ratio of width to height is between least and most.
PYDT_HOST_DEVICE inline Window central_window(std::int64_t height, std::int64_t width, double least, double most) {
    const auto wide = static_cast<double>(width), tall = static_cast<double>(height);
    std::int64_t w = width, h = height;
    if (wide < least * tall) h = static_cast<std::int64_t>(rint(wide / least));
    if (wide > most * tall) w = static_cast<std::int64_t>(rint(tall * most));
    h = h < 1 ? 1 : h > height ? height : h;
    w = w < 1 ? 1 : w > width ? width : w;
    return {(height - h) / 2, (width - w) / 2, h, w};
}

// Inception's crop, with the distribution of torchvision's RandomResizedCrop: area uniform in `scale` shares of the
// image, width / height log-uniform in `ratio`, ten tries, then the central window of the nearest ratio allowed.
PYDT_HOST_DEVICE inline Window resized_window(const Augmentation& how, std::int64_t id, std::int64_t height,
                                              std::int64_t width) {
    constexpr double unit = 1.0 / 4294967296.0;
    for (std::uint64_t turn = 0; turn < 10; ++turn) {
        const Words4 words = random_words(how.seed, stream_of(try_stream(how.view) + turn, how.epoch), id);
        const double share = how.scale[0] + (how.scale[1] - how.scale[0]) * (words.w0 * unit);
        const double ratio = exp_of(how.log_ratio[0] + (how.log_ratio[1] - how.log_ratio[0]) * (words.w1 * unit));
        const double area = share * (static_cast<double>(height) * static_cast<double>(width));
        const double w = rint(sqrt(area * ratio)), h = rint(sqrt(area / ratio));
        if (w < 1 || h < 1 || w > static_cast<double>(width) || h > static_cast<double>(height)) continue;
        const auto wide = static_cast<std::int64_t>(w), tall = static_cast<std::int64_t>(h);
        const auto rows = static_cast<std::uint64_t>(height - tall + 1),
                   columns = static_cast<std::uint64_t>(width - wide + 1);
        return {static_cast<std::int64_t>(words.w2 * rows >> 32), static_cast<std::int64_t>(words.w3 * columns >> 32),
                tall, wide};
    }
    return central_window(height, width, exp_of(how.log_ratio[0]), exp_of(how.log_ratio[1]));
}

// Output pixel `at` lies between pixels low and high of a window of `size` pixels, where one output pixel is `step`
// pixels wide. Bilinear with centres at half pixels, like torch's interpolate with align_corners=False.
struct Between {
    std::int64_t low, high;
    float weight;  // of the higher one
};

PYDT_HOST_DEVICE inline Between between(std::int64_t at, double step, std::int64_t size) {
    const double last = static_cast<double>(size - 1);
    double s = (static_cast<double>(at) + 0.5) * step - 0.5;
    s = s < 0 ? 0 : s > last ? last : s;
    const auto low = static_cast<std::int64_t>(s);
    return {low, low + 1 < size ? low + 1 : low, static_cast<float>(s - static_cast<double>(low))};
}

}  // namespace pydt
