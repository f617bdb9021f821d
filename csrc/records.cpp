// The index file of a data set (a header, a table of sections, the payloads of the sections; little-endian), image
// files and CRC32C.
//
//   0   8  magic "\x89PYDT\r\n\x1a"
//   8   4  version (3)                       12  4  number of sections, n
//   16  8  size of the file                  24  4  CRC32C of the table
//   28  4  CRC32C of the 28 bytes before     32  32 zeros
//   64  64 n  the table: name (40 bytes, zero-padded), kind (4), CRC32C of the payload (4), count (8), bytes (8)
//   then the payloads in the order of the table, each at the next multiple of 64, with zeros between
//
// Kinds: 1 uint8, 2 uint32, 3 int64, 4 texts: count + 1 ends (int64, the first is 0), then UTF-8 bytes.
//
// The place of a payload follows from the sizes before it, and the last payload ends with the file, so ranges cannot
// overlap or be missing. Every byte is either fixed or under a checksum. Sizes are checked in 64 bits against the size
// of the file before anything is read through them. Only the list of sections is allocated, no larger than the table in
// the file. Cost: one pass over the bytes at the speed of CRC32C (8 GB/s with SSE4.2). What lost: JSON in a safetensors
// header, which is limited to 100 MB (about a million file names) and decoded name by name.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "kernels/kernels.hpp"
#include "pydt.hpp"
#include "threads.hpp"

namespace pydt {
namespace {

static_assert(std::endian::native == std::endian::little, "the index is mapped without conversion");

constexpr std::uint8_t magic[8] = {0x89, 'P', 'Y', 'D', 'T', '\r', '\n', 0x1A};
constexpr std::int64_t head = 64, entry = 64, name_bytes = 40, most_sections = 1024;
constexpr std::uint32_t version = 3;

[[noreturn]] void refuse(const std::string& what) { throw ArgumentError("index", what); }

template <class T>
T load(const std::uint8_t* from) {
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
}

// A fuzzer cannot guess checksums, so its build (the macro is libFuzzer's convention) accepts all.
bool matches([[maybe_unused]] std::uint32_t said, [[maybe_unused]] const std::uint8_t* data,
             [[maybe_unused]] std::int64_t size) {
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    return true;
#else
    return said == crc32c(data, size);
#endif
}

bool all_zero(const std::uint8_t* data, std::int64_t size) {
    for (std::int64_t i = 0; i < size; ++i)
        if (data[i] != 0) return false;
    return true;
}

std::int64_t item_bytes(Kind kind) { return kind == Kind::u8 ? 1 : kind == Kind::u32 ? 4 : 8; }

void check_texts(const Section& section, const std::uint8_t* payload) {
    const std::string where = "the texts of section '" + section.name + "'";
    // read_index has checked that there is room for count + 1 ends.
    const std::int64_t table = 8 * (section.count + 1), size = section.bytes - table;
    std::int64_t begin = load<std::int64_t>(payload);
    if (begin != 0) refuse(where + " do not start at 0");
    for (std::int64_t i = 0; i < section.count; ++i) {
        const auto end = load<std::int64_t>(payload + 8 * (i + 1));
        if (end < begin || end > size)
            refuse(where + " are out of order or out of the section, at " + std::to_string(i));
        if (!is_utf8(payload + table + begin, end - begin)) refuse(where + " are not UTF-8, at " + std::to_string(i));
        begin = end;
    }
    if (begin != size) refuse(where + " do not fill the section");
}

}  // namespace

// Unicode 15, table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(const std::uint8_t* text, std::int64_t size) {
    std::int64_t i = 0;
    while (i < size) {
        const std::uint8_t first = text[i++];
        if (first < 0x80) continue;
        if (first < 0xC2 || first > 0xF4) return false;
        const int more = first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
        const std::uint8_t least = first == 0xE0   ? 0xA0
                                   : first == 0xF0 ? 0x90
                                                   : 0x80,
                           most = first == 0xED   ? 0x9F
                                  : first == 0xF4 ? 0x8F
                                                  : 0xBF;
        if (size - i < more || text[i] < least || text[i] > most) return false;
        for (int k = 1; k < more; ++k)
            if ((text[i + k] & 0xC0) != 0x80) return false;
        i += more;
    }
    return true;
}

std::uint32_t crc32c(const std::uint8_t* data, std::int64_t size) { return ~kernels().crc32c(0xFFFFFFFF, data, size); }

void crc_records(const std::uint8_t* data, std::int64_t stored, std::int64_t record, const std::int64_t* positions,
                 std::int64_t count, std::uint32_t* out, int threads) {
    check_index(positions, count, stored);
    constexpr std::int64_t batch = 256;
    parallel(count / batch + (count % batch != 0), threads, [&] {
        return [&](std::int64_t item) {
            for (std::int64_t i = item * batch; i < count && i < (item + 1) * batch; ++i)
                out[i] = crc32c(data + positions[i] * record, record);
        };
    });
}

void check_index_head(const std::uint8_t* data, std::int64_t size, std::int64_t file_size) {
    if (size < head) refuse("of " + std::to_string(file_size) + " bytes is too short");
    if (std::memcmp(data, magic, sizeof magic) != 0) refuse("does not start as one");
    const auto said = load<std::uint32_t>(data + 8);
    if (said != version) refuse("of version " + std::to_string(said) + "; this pydt reads 3");
    if (!matches(load<std::uint32_t>(data + 28), data, 28)) refuse("has a damaged header");
    if (!all_zero(data + 32, head - 32)) refuse("has a damaged header");
    if (load<std::uint64_t>(data + 16) != static_cast<std::uint64_t>(file_size))
        refuse("of " + std::to_string(file_size) + " bytes says that it has " +
               std::to_string(load<std::uint64_t>(data + 16)));
    const std::int64_t sections = load<std::uint32_t>(data + 12);
    if (sections > most_sections || head + sections * entry > file_size)
        refuse("says that it has " + std::to_string(sections) + " sections");
}

std::vector<Section> read_index(const std::uint8_t* data, std::int64_t size) {
    check_index_head(data, size, size);
    const std::int64_t count = load<std::uint32_t>(data + 12);
    if (!matches(load<std::uint32_t>(data + 24), data + head, count * entry)) refuse("has a damaged table");
    std::vector<Section> sections;
    sections.reserve(static_cast<std::size_t>(count));
    std::int64_t end = head + count * entry;  // never above size
    for (std::int64_t i = 0; i < count; ++i) {
        const std::uint8_t* row = data + head + i * entry;
        const auto length = static_cast<std::int64_t>(
            std::string_view(reinterpret_cast<const char*>(row), static_cast<std::size_t>(name_bytes)).find('\0'));
        if (length < 1 || !all_zero(row + length, name_bytes - length) || !is_utf8(row, length))
            refuse("has a section without a proper name, number " + std::to_string(i));
        Section section{std::string(reinterpret_cast<const char*>(row), static_cast<std::size_t>(length)),
                        static_cast<Kind>(load<std::uint32_t>(row + 40)), load<std::int64_t>(row + 48), 0,
                        load<std::int64_t>(row + 56)};
        for (const Section& other : sections)
            if (other.name == section.name) refuse("has section '" + section.name + "' twice");
        if (section.kind < Kind::u8 || section.kind > Kind::texts)
            refuse("has section '" + section.name + "' of an unknown kind");
        const std::int64_t padded = end % 64 == 0 ? end : end + (64 - end % 64);
        std::int64_t least = 0;
        const bool texts = section.kind == Kind::texts;
        if (section.count < 0 || section.bytes < 0 || padded > size || section.bytes > size - padded ||
            __builtin_mul_overflow(section.count, item_bytes(section.kind), &least) ||
            (texts && __builtin_add_overflow(least, 8, &least)) ||
            (texts ? section.bytes < least : section.bytes != least))
            refuse("has section '" + section.name + "' of " + std::to_string(section.count) + " entries in " +
                   std::to_string(section.bytes) + " bytes, which does not fit");
        if (!all_zero(data + end, padded - end)) refuse("has bytes between its sections");
        section.offset = padded;
        end = padded + section.bytes;
        if (!matches(load<std::uint32_t>(row + 44), data + padded, section.bytes))
            refuse("has damaged bytes in section '" + section.name + "'");
        if (texts) check_texts(section, data + padded);
        sections.push_back(std::move(section));
    }
    if (end != size) refuse("has " + std::to_string(size - end) + " bytes after its last section");
    return sections;
}

namespace {

void check_ends(const Texts& texts) {
    if (texts.count < 0 || texts.ends[0] != 0 || texts.ends[texts.count] != texts.size)
        throw ArgumentError("ends", "do not match the bytes");
    for (std::int64_t i = 0; i < texts.count; ++i)
        if (texts.ends[i + 1] < texts.ends[i]) throw ArgumentError("ends", "are out of order");
}

bool starts_with(const std::uint8_t* data, std::int64_t size, std::string_view start) {
    return size >= static_cast<std::int64_t>(start.size()) && std::memcmp(data, start.data(), start.size()) == 0;
}

bool holds(const std::uint8_t* data, std::int64_t size, std::string_view part) {
    const std::string_view all(reinterpret_cast<const char*>(data), static_cast<std::size_t>(size));
    return all.rfind(part) != std::string_view::npos;  // the end mark is at the end
}

struct Descriptor {
    int number;
    ~Descriptor() {
        if (number >= 0) close(number);
    }
};

// Refuses a FIFO or a device without waiting for it.
std::int32_t read_file(const char* path, std::uint8_t* out, std::int64_t length) {
    const Descriptor file{open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)};
    if (file.number < 0) return errno;
    struct stat state{};
    if (fstat(file.number, &state) != 0) return errno;
    if (!S_ISREG(state.st_mode)) return static_cast<std::int32_t>(Fault::not_regular);
    if (state.st_size != length) return static_cast<std::int32_t>(Fault::changed);
    for (std::int64_t have = 0; have < length;) {
        const ssize_t got = read(file.number, out + have, static_cast<std::size_t>(length - have));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno;
        if (got == 0) return static_cast<std::int32_t>(Fault::changed);
        have += got;
    }
    return static_cast<std::int32_t>(image_fault(out, length));
}

}  // namespace

Fault image_fault(const std::uint8_t* data, std::int64_t size) {
    using namespace std::string_view_literals;
    if (size < 1) return Fault::empty;
    if (starts_with(data, size, "\xFF\xD8\xFF"sv)) return holds(data, size, "\xFF\xD9"sv) ? Fault::none : Fault::cut;
    if (starts_with(data, size, "\x89PNG\r\n\x1A\n"sv)) return holds(data, size, "IEND"sv) ? Fault::none : Fault::cut;
    if (starts_with(data, size, "RIFF"sv) && size >= 12 && starts_with(data + 8, size - 8, "WEBP"sv))
        return Fault::none;
    if (size >= 12 && starts_with(data + 4, size - 4, "ftyp"sv)) {  // the first box lists the formats of the file
        const std::int64_t head = std::min<std::int64_t>(size, 64);
        return holds(data, head, "avif"sv) || holds(data, head, "avis"sv) ? Fault::none : Fault::unknown;
    }
    for (const std::string_view start : {"GIF87a"sv, "GIF89a"sv, "BM"sv, "II*\0"sv, "MM\0*"sv, "II+\0"sv, "MM\0+"sv,
                                         "\0\0\0\x0CjP  \r\n\x87\n"sv, "\xFF\x4F\xFF\x51"sv})  // the last: JPEG 2000
        if (starts_with(data, size, start)) return Fault::none;
    const bool pnm = size >= 3 && data[0] == 'P' && data[1] >= '1' && data[1] <= '6' &&
                     (data[2] == ' ' || (data[2] >= '\t' && data[2] <= '\r'));
    return pnm ? Fault::none : Fault::unknown;
}

void read_files(const Texts& paths, const std::int64_t* lengths, std::uint8_t* out, std::int64_t room,
                std::int32_t* status, std::uint32_t* crc) {
    check_ends(paths);
    std::int64_t total = 0;
    for (std::int64_t i = 0; i < paths.count; ++i)
        if (lengths[i] < 0 || __builtin_add_overflow(total, lengths[i], &total) || total > room)
            throw ArgumentError("lengths", "are negative, or more than the room of " + std::to_string(room) + " bytes");
    std::string path;
    for (std::int64_t i = 0; i < paths.count; out += lengths[i++]) {
        path.assign(reinterpret_cast<const char*>(paths.bytes) + paths.ends[i],
                    static_cast<std::size_t>(paths.ends[i + 1] - paths.ends[i]));
        status[i] = path.find('\0') == std::string::npos ? read_file(path.c_str(), out, lengths[i]) : ENOENT;
        if (crc != nullptr) crc[i] = status[i] == 0 ? crc32c(out, lengths[i]) : 0;
    }
}

std::int64_t repeated_text(const Texts& texts) {
    check_ends(texts);
    // Open addressing, at most half full; a slot holds 1 + the number of a text.
    const auto slots = std::bit_ceil(checked_size("ends", {texts.count, 2}) | 1);
    std::vector<std::int64_t> table(slots);
    const auto text = [&](std::int64_t i) {
        return std::string_view(reinterpret_cast<const char*>(texts.bytes) + texts.ends[i],
                                static_cast<std::size_t>(texts.ends[i + 1] - texts.ends[i]));
    };
    for (std::int64_t i = 0; i < texts.count; ++i) {
        std::uint64_t hash = 0xCBF29CE484222325;  // FNV-1a
        for (const char letter : text(i)) hash = (hash ^ static_cast<std::uint8_t>(letter)) * 0x100000001B3;
        auto slot = static_cast<std::size_t>(hash ^ hash >> 32) & (slots - 1);
        for (; table[slot] != 0; slot = (slot + 1) & (slots - 1))
            if (text(table[slot] - 1) == text(i)) return i;
        table[slot] = i + 1;
    }
    return -1;
}

}  // namespace pydt
