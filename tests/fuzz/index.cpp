// Fuzzes the readers of index files and of image headers (tests/fuzz/run builds and runs it).
//
// Built with FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION, which accepts any checksum. Must hold: no sanitizer finds a
// fault, nothing but an ArgumentError is thrown, and the sections of an accepted file cover it without overlap.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "../../csrc/pydt.hpp"

namespace {

void must(bool holds) {
    if (!holds) std::abort();
}

void check_section(const std::uint8_t* data, const pydt::Section& section) {
    must(section.offset % 64 == 0 && section.count >= 0);
    if (section.kind != pydt::Kind::texts) return;
    std::vector<std::int64_t> ends(static_cast<std::size_t>(section.count) + 1);
    const auto table = static_cast<std::int64_t>(8 * ends.size());
    must(table <= section.bytes);
    std::memcpy(ends.data(), data + section.offset, static_cast<std::size_t>(table));
    must(ends.front() == 0 && ends.back() == section.bytes - table && std::is_sorted(ends.begin(), ends.end()));
    const std::int64_t twice =
        pydt::repeated_text({ends.data(), section.count, data + section.offset + table, section.bytes - table});
    must(twice >= -1 && twice < section.count);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t length) {
    const auto size = static_cast<std::int64_t>(length);
    pydt::image_fault(data, size);
    const pydt::Sides sides = pydt::image_sides(data, size);
    must(sides.height >= 0 && sides.width >= 0 && (sides.height > 0) == (sides.width > 0));
    try {
        std::int64_t end = 0;
        for (const pydt::Section& section : pydt::read_index(data, size)) {
            must(section.offset >= end && section.bytes <= size - section.offset);
            end = section.offset + section.bytes;
            check_section(data, section);
        }
        must(end == size || end == 0);
    } catch (const pydt::ArgumentError&) {
        // most inputs are refused
    }
    return 0;
}

#ifdef PYDT_REPLAY
#include "replay.inl"
#endif
