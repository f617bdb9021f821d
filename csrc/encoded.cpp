// Height, width and crop windows of encoded images, without decoding them.
//
// Reads the segments of a JPEG before its first scan and the chunks of a PNG before its pixels: some ten loads an
// image. The bytes may be anything; nothing is read beyond them.
#include <cstring>
#include <string_view>

#include "pydt.hpp"
#include "windows.hpp"

namespace pydt {
namespace {

using namespace std::string_view_literals;

// Twice PIL's MAX_IMAGE_PIXELS: above that, PIL refuses an image as a decompression bomb.
constexpr std::int64_t most_pixels = 178'956'970;

std::int32_t big16(const std::uint8_t* at) { return at[0] << 8 | at[1]; }

std::int64_t big32(const std::uint8_t* at) {
    return static_cast<std::int64_t>(at[0]) << 24 | at[1] << 16 | at[2] << 8 | at[3];
}

Sides allowed(std::int64_t height, std::int64_t width) {
    // Neither side is above 2^31, so the product fits.
    if (height < 1 || width < 1 || height * width > most_pixels) return {0, 0};
    return {static_cast<std::int32_t>(height), static_cast<std::int32_t>(width)};
}

bool holds(const std::uint8_t* from, const std::uint8_t* to, std::string_view part) {
    const std::string_view all(reinterpret_cast<const char*>(from), static_cast<std::size_t>(to - from));
    return all.rfind(part) != std::string_view::npos;  // the end mark is at the end
}

// SOI, then segments: FF, a marker, two bytes of length that count themselves, the rest.
Sides jpeg_sides(const std::uint8_t* at, const std::uint8_t* end) {
    Sides sides{0, 0};
    at += 2;
    while (end - at >= 4) {
        if (at[0] != 0xFF) return {0, 0};
        const std::uint8_t marker = at[1];
        if (marker == 0xFF) {  // padding
            ++at;
            continue;
        }
        const std::int32_t length = big16(at + 2);
        if (marker < 0xC0 || (marker >= 0xD0 && marker <= 0xD9) || length < 2 || end - at < 2 + length) return {0, 0};
        if (marker == 0xDA)  // the first scan; an image that was cut off has no end mark after it
            return holds(at, end, "\xFF\xD9"sv) ? sides : Sides{0, 0};
        const bool frame = marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
        if (frame) {
            // 8 bits, grey or three colours. Decoders disagree on images of two frames (hierarchical).
            if (length < 8 || at[4] != 8 || (at[9] != 1 && at[9] != 3) || sides.height != 0) return {0, 0};
            sides = allowed(big16(at + 5), big16(at + 7));
            if (sides.height == 0) return sides;
        }
        at += 2 + length;
    }
    return {0, 0};
}

Sides png_sides(const std::uint8_t* data, const std::uint8_t* end) {
    const bool header = end - data >= 33 && std::memcmp(data + 12, "IHDR", 4) == 0;
    if (!header || data[24] > 8 || !holds(data + 33, end, "IEND"sv)) return {0, 0};
    if (data[16] >= 0x80 || data[20] >= 0x80) return {0, 0};
    if ((data[25] & 4) != 0) return {0, 0};  // an alpha channel
    // Chunks: four bytes of length, a type, the payload, a checksum. Transparent colours (tRNS) and animations (acTL)
    // are declared before the pixels.
    for (const std::uint8_t* at = data + 8; end - at >= 12;) {
        const std::string_view type(reinterpret_cast<const char*>(at + 4), 4);
        if (type == "IDAT"sv) return allowed(big32(data + 20), big32(data + 16));
        if (type == "tRNS"sv || type == "acTL"sv || big32(at) > end - at - 12) return {0, 0};
        at += 12 + big32(at);
    }
    return {0, 0};
}

}  // namespace

Sides image_sides(const std::uint8_t* data, std::int64_t size) {
    const auto starts = [&](std::string_view start) {
        return size >= static_cast<std::int64_t>(start.size()) && std::memcmp(data, start.data(), start.size()) == 0;
    };
    if (starts("\xFF\xD8\xFF"sv)) return jpeg_sides(data, data + size);
    if (starts("\x89PNG\r\n\x1A\n"sv)) return png_sides(data, data + size);
    return {0, 0};
}

void crop_windows(const Sides* sizes, const std::int64_t* ids, std::int64_t count, const Augmentation& how,
                  std::int32_t* start, std::int32_t* extent, std::int32_t* mirrored) {
    check_windows(how);
    for (std::int64_t i = 0; i < count; ++i)
        if (sizes[i].height < 1 || sizes[i].width < 1) throw ArgumentError("sizes", "must be positive");
    for (std::int64_t i = 0; i < count; ++i) {
        const Window window = resized_window(how, ids[i], sizes[i].height, sizes[i].width);
        start[2 * i] = static_cast<std::int32_t>(window.top);
        start[2 * i + 1] = static_cast<std::int32_t>(window.left);
        extent[2 * i] = static_cast<std::int32_t>(window.height);
        extent[2 * i + 1] = static_cast<std::int32_t>(window.width);
        mirrored[i] = place(how, ids[i]).flip ? 1 : 0;
    }
}

}  // namespace pydt
