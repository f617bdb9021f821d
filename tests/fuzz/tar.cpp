// Fuzzes the reader of tar archives (tests/fuzz/run builds and runs it).
//
// Built with FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION, which accepts any checksum. Must hold: no sanitizer finds a
// fault, nothing but an ArgumentError is thrown, members lie one behind another inside the archive, and no name leads
// out of a folder.
#include <cstdlib>
#include <string_view>

#include "../../csrc/pydt.hpp"

namespace {

void must(bool holds) {
    if (!holds) std::abort();
}

void check_name(std::string_view name) {
    must(!name.empty() && name.front() != '/' && name.back() != '/' && name.find('\0') == std::string_view::npos);
    must(pydt::is_utf8(reinterpret_cast<const std::uint8_t*>(name.data()), static_cast<std::int64_t>(name.size())));
    must(name != ".." && !name.starts_with("../") && !name.ends_with("/.."));
    must(name.find("/../") == std::string_view::npos);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t length) {
    const auto size = static_cast<std::int64_t>(length);
    try {
        const pydt::TarMembers found = pydt::read_tar(data, size);
        const std::size_t count = found.offsets.size();
        must(found.ends.size() == count + 1 && found.headers.size() == count && found.sizes.size() == count);
        must(found.ends.front() == 0 && found.ends.back() == static_cast<std::int64_t>(found.names.size()));
        std::int64_t end = 0;
        for (std::size_t i = 0; i < count; ++i) {
            must(found.headers[i] >= end && found.headers[i] % 512 == 0 && found.offsets[i] == found.headers[i] + 512);
            must(found.sizes[i] >= 0 && found.sizes[i] <= size - found.offsets[i]);
            end = found.offsets[i] + found.sizes[i];
            must(found.ends[i] < found.ends[i + 1]);
            check_name(std::string_view(found.names)
                           .substr(static_cast<std::size_t>(found.ends[i]),
                                   static_cast<std::size_t>(found.ends[i + 1] - found.ends[i])));
        }
        must(end + 1024 <= size);
    } catch (const pydt::ArgumentError&) {
        // most inputs are refused
    }
    return 0;
}

#ifdef PYDT_REPLAY
#include "replay.inl"
#endif
