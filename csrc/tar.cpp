// Tar archives: the place of every regular file in a mapped archive, without copies. Mapped files.
//
// An archive is a sequence of 512-byte blocks: a header, the bytes of a file padded to whole blocks, the next header,
// ..., an end mark of two blocks of zeros, and only zeros after it. Read are ustar (POSIX.1-1988), GNU's long names
// (types L and K), base-256 numbers, and the names and sizes of pax headers (POSIX.1-2001, types x and g).
//
// Refused, with the byte it lies at, and not skipped, is what a data set cannot use: links, devices, sparse and split
// files, absolute names, names with "..", names that are not UTF-8, numbers that do not fit, damaged headers, bytes
// after the end mark, and an archive without its end mark, which was cut off. So the members of an accepted archive
// cover the whole file, and a cut at any byte before the end of the end mark is found.
//
// Cost: a header and a page fault per file. What lost: Python's tarfile, which builds an object of 20 fields per
// member, continues after damaged headers by default, and accepts a missing end mark (both rates: bench/records.py).
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>

#include "pydt.hpp"
#include "threads.hpp"

namespace pydt {
namespace {

constexpr std::int64_t block = 512, most_extension = 1 << 20;
// Archives are padded to whole records: 20 blocks by default, 2048 at most in practice. Longer padding is refused
// unread: a sparse file can hold terabytes of zeros.
constexpr std::int64_t most_padding = 1 << 21;

[[noreturn]] void refuse(std::int64_t at, const std::string& what) {
    throw ArgumentError("tar", what + ", at byte " + std::to_string(at));
}

bool all_zero(const std::uint8_t* data, std::int64_t size) {
    // The bytes equal themselves shifted by one.
    return size == 0 || (data[0] == 0 && std::memcmp(data, data + 1, static_cast<std::size_t>(size - 1)) == 0);
}

std::string_view text(const std::uint8_t* data, std::int64_t size) {
    const std::string_view all(reinterpret_cast<const char*>(data), static_cast<std::size_t>(size));
    return all.substr(0, all.find('\0'));
}

// Octal digits between spaces and NULs, or (GNU) a first byte of 0x80 and then a big-endian number.
std::int64_t number(const std::uint8_t* field, int width, std::int64_t at, const char* what) {
    const auto wrong = [&]() { refuse(at, std::string("a header whose ") + what + " is no number"); };
    std::int64_t value = 0;
    if ((field[0] & 0x80) != 0) {
        if (field[0] != 0x80) wrong();
        for (int i = 1; i < width; ++i) {
            if (value >= std::int64_t{1} << 54) wrong();
            value = value << 8 | field[i];
        }
        return value;
    }
    int i = 0;
    while (i < width && field[i] == ' ') ++i;
    const int first = i;
    for (; i < width && field[i] >= '0' && field[i] <= '7'; ++i) value = value << 3 | (field[i] - '0');
    if (i == first) wrong();
    for (; i < width; ++i)
        if (field[i] != ' ' && field[i] != 0) wrong();
    return value;
}

[[maybe_unused]] std::int64_t checksum(const std::uint8_t* header) {
    std::int64_t sum = 8 * ' ';
    for (int i = 0; i < block; ++i)
        if (i < 148 || i >= 156) sum += header[i];
    return sum;
}

// What extended headers say about the next member.
struct Extended {
    std::string name;
    std::int64_t size = -1;
    bool named = false, given = false;
};

// Records "LENGTH KEY=VALUE\n", LENGTH counting the whole record in decimal.
void read_pax(std::string_view records, std::int64_t at, bool global, Extended& into) {
    using namespace std::string_view_literals;
    const auto wrong = [&]() { refuse(at, "a damaged pax header"); };
    while (!records.empty()) {
        std::size_t length = 0, digits = 0;
        for (; digits < records.size() && digits < 8 && records[digits] >= '0' && records[digits] <= '9'; ++digits)
            length = 10 * length + static_cast<std::size_t>(records[digits] - '0');
        if (digits == 0 || digits >= records.size() || records[digits] != ' ' || length > records.size() ||
            length < digits + 4 || records[length - 1] != '\n')
            wrong();
        const std::string_view record = records.substr(digits + 1, length - digits - 2);
        records.remove_prefix(length);
        const std::size_t equals = record.find('=');
        if (equals == std::string_view::npos || equals == 0) wrong();
        const std::string_view key = record.substr(0, equals), value = record.substr(equals + 1);
        if (key.starts_with("GNU.sparse."sv)) refuse(at, "a sparse file");
        if (key == "hdrcharset"sv && value != "ISO-IR 10646 2000 UTF-8"sv) refuse(at, "names that are not UTF-8");
        if (key != "path"sv && key != "size"sv) continue;
        if (global) refuse(at, "a pax header that gives all files one " + std::string(key));
        if (key == "path"sv) {
            if (value.find('\0') != std::string_view::npos) wrong();
            into.name = value;
            into.named = true;
        } else {
            if (value.empty() || value.size() > 18) wrong();
            into.size = 0;
            for (const char digit : value) {
                if (digit < '0' || digit > '9') wrong();
                into.size = 10 * into.size + (digit - '0');
            }
        }
    }
}

std::string header_name(const std::uint8_t* header) {
    const std::string_view name = text(header, 100);
    // ustar keeps the first part of a long name here, GNU's own format times.
    const std::string_view front = header[262] == 0 ? text(header + 345, 155) : std::string_view();
    return front.empty() ? std::string(name) : std::string(front) + "/" + std::string(name);
}

// The name without leading "./".
std::string_view checked_name(std::string_view name, std::int64_t at) {
    using namespace std::string_view_literals;
    if (name.empty()) refuse(at, "a file without a name");
    if (!is_utf8(reinterpret_cast<const std::uint8_t*>(name.data()), static_cast<std::int64_t>(name.size())))
        refuse(at, "a name that is not UTF-8");
    if (name.front() == '/') refuse(at, "an absolute name");
    for (std::size_t from = 0; from <= name.size();) {
        const std::size_t end = std::min(name.find('/', from), name.size());
        if (name.substr(from, end - from) == ".."sv) refuse(at, "a name that holds \"..\"");
        from = end + 1;
    }
    while (name.starts_with("./"sv)) name.remove_prefix(std::min(name.find_first_not_of('/', 1), name.size()));
    return name;
}

const char* compression(const std::uint8_t* data, std::int64_t size) {
    using namespace std::string_view_literals;
    const std::string_view start(reinterpret_cast<const char*>(data), static_cast<std::size_t>(std::min(size, block)));
    if (start.starts_with("\x1F\x8B"sv)) return "gzip";
    if (start.starts_with("BZh"sv)) return "bzip2";
    if (start.starts_with("\3757zXZ"sv)) return "xz";  // in octal: \xFD7 would be one escape
    if (start.starts_with("\x28\xB5\x2F\xFD"sv)) return "zstd";
    return nullptr;
}

std::string kind(char type) {
    switch (type) {
        case '1':
        case '2': return "a link";
        case '3':
        case '4':
        case '6': return "a device or FIFO";
        case 'S': return "a sparse file";
        case 'M':
        case 'V':
        case 'D': return "a part of a split or incremental archive";
        default: return "a member of unknown type";
    }
}

}  // namespace

TarMembers read_tar(const std::uint8_t* data, std::int64_t size) {
    if (size == 0) refuse(0, "an empty file");
    if (const char* by = compression(data, size)) refuse(0, std::string("an archive compressed by ") + by);
    TarMembers found;
    found.ends.push_back(0);
    Extended extended;
    std::int64_t at = 0;
    for (;;) {
        if (size - at < block) refuse(at, "cut off: the archive ends before its end mark");
        const std::uint8_t* header = data + at;
        if (header[0] == 0 && all_zero(header, block)) break;
        if (std::memcmp(header + 257, "ustar", 5) != 0 || (header[262] != 0 && header[262] != ' '))
            refuse(at, "no header of a ustar, GNU or pax archive");
#ifndef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION  // a fuzzer cannot guess checksums
        if (number(header + 148, 8, at, "checksum") != checksum(header)) refuse(at, "a damaged header");
#endif
        const char type = static_cast<char>(header[156]);
        const bool extension = type == 'x' || type == 'g' || type == 'L' || type == 'K';
        const bool regular = type == '0' || type == '\0' || type == '7';
        if (!extension && !regular && type != '5') refuse(at, kind(type));
        std::int64_t length = number(header + 124, 12, at, "size");
        if (!extension && extended.size >= 0) length = extended.size;
        const std::int64_t payload = at + block, room = size - payload;
        if (length > room || (length % block != 0 && block - length % block > room - length))
            refuse(at, "cut off: a file of " + std::to_string(length) + " bytes that the archive does not hold");
        const std::int64_t next = payload + (length + block - 1) / block * block;
        if (extension) {
            if (length > most_extension) refuse(at, "an extended header of " + std::to_string(length) + " bytes");
            if (type == 'x' || type == 'g') {
                const std::string_view records(reinterpret_cast<const char*>(data + payload),
                                               static_cast<std::size_t>(length));
                read_pax(records, at, type == 'g', extended);
            } else if (type == 'L' && !extended.named) {
                extended.name = text(data + payload, length);
                extended.named = true;
            }
            extended.given |= type != 'g';
            at = next;
            continue;
        }
        const std::string whole = extended.named ? extended.name : header_name(header);
        const std::string_view name = checked_name(whole, at);
        if (regular) {
            if (name.ends_with('/') || name.empty()) refuse(at, "a file with the name of a folder");
            found.names += name;
            found.ends.push_back(static_cast<std::int64_t>(found.names.size()));
            found.headers.push_back(at);
            found.offsets.push_back(payload);
            found.sizes.push_back(length);
        } else if (length != 0) {
            refuse(at, "a folder that has bytes");
        }
        extended = {};
        at = next;
    }
    if (extended.given) refuse(at, "an extended header without its file");
    if (size - at < 2 * block) refuse(at, "cut off: half an end mark");
    if (size - at > most_padding) refuse(at, std::to_string(size - at) + " bytes from the end mark on");
    if (!all_zero(data + at, size - at)) refuse(at, "bytes behind the end mark");
    if (size % block != 0) refuse(size, "cut off: not a whole number of blocks");
    return found;
}

void check_parts(const std::uint8_t* data, std::int64_t size, const std::int64_t* offsets, const std::int64_t* lengths,
                 std::int64_t count, std::int32_t* status, std::uint32_t* crc, int threads) {
    for (std::int64_t i = 0; i < count; ++i)
        if (offsets[i] < 0 || lengths[i] < 0 || offsets[i] > size || lengths[i] > size - offsets[i])
            throw ArgumentError("offsets", "lie out of the bytes, at " + std::to_string(i));
    parallel(count, threads, [&] {
        return [&](std::int64_t i) {
            const std::uint8_t* part = data + offsets[i];
            status[i] = static_cast<std::int32_t>(image_fault(part, lengths[i]));
            crc[i] = crc32c(part, lengths[i]);
        };
    });
}

Mapped map_file(const char* path) {
    const auto fail = [] { throw std::system_error(errno, std::generic_category()); };
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0) fail();
    struct stat state{};
    void* at = nullptr;
    const bool known = fstat(file, &state) == 0;
    const bool regular = known && S_ISREG(state.st_mode);
    if (regular && state.st_size > 0)
        at = mmap(nullptr, static_cast<std::size_t>(state.st_size), PROT_READ, MAP_SHARED, file, 0);
    const int error = errno;
    close(file);
    errno = error;
    if (!known || at == MAP_FAILED) fail();
    if (!regular) throw ArgumentError("path", "is not a regular file");
    return {static_cast<const std::uint8_t*>(at), state.st_size,
            static_cast<std::int64_t>(state.st_mtim.tv_sec) * 1'000'000'000 + state.st_mtim.tv_nsec, state.st_dev,
            state.st_ino};
}

void unmap_file(const Mapped& mapped) {
    if (mapped.size > 0)
        munmap(const_cast<std::uint8_t*>(mapped.data), static_cast<std::size_t>(mapped.size));  // NOLINT
}

}  // namespace pydt
