// Bit-packed masks, (rows, ceil(groups / 8)) bytes: group k of a row is bit k % 8 of byte k / 8. And their codes for
// subset sums: the same bits regrouped by 6 rows of a group.
//
// The codes are made by transpositions that swap fields between 8 words, so that one step moves 64 blocks of 8 x 8 bits
// or bytes (Warren, "Hacker's Delight", 7-3, side by side). What lost: one block at a time in one word, 3 times slower;
// single bits, 12 times.
#include <algorithm>
#include <cstring>

#include "pydt.hpp"

namespace pydt {

std::size_t checked_size(const std::string& what, std::initializer_list<std::int64_t> factors) {
    std::int64_t size = 1;
    for (const std::int64_t factor : factors)
        if (factor < 0 || __builtin_mul_overflow(size, factor, &size))
            throw ArgumentError(what, "too large for this machine's memory");
    return static_cast<std::size_t>(size);
}

std::int64_t packed_bytes(std::int64_t groups) { return groups / 8 + (groups % 8 != 0); }

void pack(const std::uint8_t* masks, std::int64_t rows, std::int64_t groups, std::uint8_t* out) {
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::uint8_t* in = masks + row * groups;
        std::uint8_t* packed = out + row * packed_bytes(groups);
        std::memset(packed, 0, static_cast<std::size_t>(packed_bytes(groups)));
        std::int64_t k = 0;
        for (; k + 8 <= groups; k += 8) {
            std::uint64_t eight;
            std::memcpy(&eight, in + k, 8);
            if ((eight & 0xFEFEFEFEFEFEFEFE) != 0) break;  // not 0 or 1: the loop below names the entry
            packed[k / 8] = static_cast<std::uint8_t>(eight * 0x0102040810204080 >> 56);
        }
        for (; k < groups; ++k) {
            if (in[k] > 1)
                throw ArgumentError("masks", "row " + std::to_string(row) + ", group " + std::to_string(k) + " is " +
                                                 std::to_string(in[k]) + ", not 0 or 1");
            packed[k / 8] = static_cast<std::uint8_t>(packed[k / 8] | in[k] << k % 8);
        }
    }
}

void unpack(const Masks& masks, std::uint8_t* out) {
    for (std::int64_t row = 0; row < masks.rows; ++row) {
        const std::uint8_t* packed = masks.data + row * masks.row_bytes;
        std::int64_t k = 0;
        for (; k + 8 <= masks.groups; k += 8) {
            const std::uint64_t bits = packed[k / 8] * 0x0101010101010101u & 0x8040201008040201u;  // bit b in byte b
            const std::uint64_t ones = (bits + 0x7F7F7F7F7F7F7F7Fu) >> 7 & 0x0101010101010101u;
            std::memcpy(out + k, &ones, 8);
        }
        for (; k < masks.groups; ++k) out[k] = packed[k / 8] >> k % 8 & 1;
        out += masks.groups;
    }
}

void check_padding(const Masks& masks) {
    if (masks.groups % 8 == 0) return;
    for (std::int64_t row = 0; row < masks.rows; ++row)
        if (masks.data[(row + 1) * masks.row_bytes - 1] >> masks.groups % 8 != 0)
            throw ArgumentError("packed", "row " + std::to_string(row) + " has bits set beyond group " +
                                              std::to_string(masks.groups - 1) + " (the little bit comes first)");
}

namespace {

// Swaps the fields under `mask`, shifted up by `shift`, of words a with those under it of words b.
template <int shift, std::uint64_t mask>
void swap(std::uint64_t& a, std::uint64_t& b) {
    const std::uint64_t t = (a >> shift ^ b) & mask;
    a ^= t << shift;
    b ^= t;
}

// Bit i of every byte of word j becomes bit j of that byte of word i: 64 blocks of 8 x 8 bits at once.
void transpose_bits(std::uint64_t* word) {
    for (int i = 0; i < 4; ++i) swap<4, 0x0F0F0F0F0F0F0F0F>(word[i], word[i + 4]);
    for (int i = 0; i < 8; i += i % 2 == 0 ? 1 : 3) swap<2, 0x3333333333333333>(word[i], word[i + 2]);
    for (int i = 0; i < 8; i += 2) swap<1, 0x5555555555555555>(word[i], word[i + 1]);
}

// Byte i of word j becomes byte j of word i.
void transpose_bytes(std::uint64_t* word) {
    for (int i = 0; i < 4; ++i) swap<32, 0x00000000FFFFFFFF>(word[i], word[i + 4]);
    for (int i = 0; i < 8; i += i % 2 == 0 ? 1 : 3) swap<16, 0x0000FFFF0000FFFF>(word[i], word[i + 2]);
    for (int i = 0; i < 8; i += 2) swap<8, 0x00FF00FF00FF00FF>(word[i], word[i + 1]);
}

}  // namespace

std::int64_t code_blocks(std::int64_t rows) { return rows / 48 + (rows % 48 != 0); }

void check_rows(const Rows& rows, std::int64_t available) {
    if (rows.index == nullptr) return;
    for (std::int64_t i = 0; i < rows.count; ++i)
        if (rows.index[i] < 0 || rows.index[i] >= available)
            throw ArgumentError("rows", "entry " + std::to_string(i) + " is " + std::to_string(rows.index[i]) +
                                            ", not one of 0.." + std::to_string(available - 1));
}

void codes(const Masks& masks, const Rows& rows, std::uint64_t* out) {
    check_rows(rows, masks.rows);
    check_padding(masks);
    const std::vector<std::uint8_t> none(static_cast<std::size_t>(masks.row_bytes));
    const std::uint8_t* row[48];
    for (std::int64_t first = 0; first < rows.count; first += 48, out += masks.groups) {
        for (std::int64_t i = 0; i < 48; ++i)
            row[i] = first + i >= rows.count
                         ? none.data()
                         : masks.data + (rows.index == nullptr ? first + i : rows.index[first + i]) * masks.row_bytes;
        for (std::int64_t byte = 0; byte < masks.row_bytes; byte += 8) {  // 64 groups
            const auto have = static_cast<std::size_t>(std::min<std::int64_t>(8, masks.row_bytes - byte));
            std::uint64_t word[8][8] = {};  // [table][row], after transpose_bits [table][group % 8]: byte b, group / 8
            for (int t = 0; t < 8; ++t) {
                for (int i = 0; i < 6; ++i) std::memcpy(&word[t][i + 2], row[6 * t + i] + byte, have);
                transpose_bits(word[t]);
            }
            for (int g = 0; g < 8; ++g) {
                std::uint64_t code[8];
                for (int t = 0; t < 8; ++t) code[t] = word[t][g];
                transpose_bytes(code);
                for (std::int64_t b = 0, k = byte * 8 + g; b < 8 && k < masks.groups; ++b, k += 8) out[k] = code[b];
            }
        }
    }
}

}  // namespace pydt
