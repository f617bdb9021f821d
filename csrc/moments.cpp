// Gram matrix, subset sums, column moments: the work is cut into tiles of the result. One thread computes a tile,
// always in the same order, so the bits do not depend on the number of threads. The inner loops: kernels/gram.inl,
// subset_sums.inl, column_moments.inl.
//
// Column moments add blocks of 256 rows in the tree of a binary counter: two sums of 1 block make one of 2 blocks, two
// of those one of 4, ...; at the end the partial sums are added from the smallest to the largest.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/kernels.hpp"
#include "pydt.hpp"
#include "threads.hpp"

namespace pydt {
namespace {

std::int64_t tiles(std::int64_t size, std::int64_t tile) { return size / tile + (size % tile != 0); }

// Adds vectors of one length in that tree. The caller writes the sum of a block to `next()`, then calls `push()`.
class Tree {
public:
    explicit Tree(std::int64_t length) : length_(length) {}

    void clear() { blocks_ = 0, used_ = 0; }

    double* next() {
        if (used_ == levels_.size()) levels_.emplace_back(static_cast<std::size_t>(length_));
        return levels_[used_].data();
    }

    void push() {
        ++used_;
        for (std::int64_t n = ++blocks_; n % 2 == 0; n /= 2) merge();
    }

    const double* total() {
        while (used_ > 1) merge();
        return levels_[0].data();
    }

private:
    void merge() {
        kernels().add(levels_[used_ - 2].data(), levels_[used_ - 1].data(), length_);
        --used_;
    }

    std::int64_t length_, blocks_ = 0;
    std::size_t used_ = 0;
    std::vector<std::vector<double>> levels_;
};

constexpr std::int64_t strip_rows = 7680;      // rows of a strip: whole runs of 8 and of 5 blocks of 48 rows
static_assert(strip_rows % block_rows == 0);   // a block of column moments lies in one strip
constexpr std::int64_t strip_bytes = 2 << 20;  // most bytes of it: enough columns for one visit to each row's page
constexpr std::int64_t piece_rows = 96;        // rows converted to 16 bits at a time
constexpr std::int64_t group_tile = 4096;      // groups whose sums fit the L2 cache

// The rows first .. first + count - 1 and columns col .. col + cols - 1 of a strip.
struct Part {
    std::int64_t first, count, padded, col, cols;
};

// Cuts (rows, cols) into strips and strips into vectors. load(part, memory, once) fills a strip, and is copied for each
// thread; `once`: for one of those that fill it. sum(vector, blocks, first word of codes, groups, scratch, first group,
// column, columns, fresh) adds a vector of it to the sums of some groups; `fresh`: they are not yet set.
// from(column): the first group whose sum is wanted.
template <class Load, class Sum, class From>
void sum_strips(std::int64_t rows, std::int64_t cols, std::int64_t K, std::int64_t value_bytes,
                const std::uint64_t* codes, int threads, Load load, Sum sum, From from) {
    const std::int64_t lane_bytes = kernels().lane_bytes, lanes = lane_bytes / value_bytes,
                       vectors = tiles(cols, lanes), padded = std::min(tiles(rows, code_rows) * code_rows, strip_rows);
    if (padded == 0 || vectors == 0 || K == 0) return;
    const std::int64_t fit = std::max(strip_bytes / (padded * lane_bytes), std::int64_t{1}),
                       wide = std::min(fit, tiles(vectors, threads)), strips = tiles(vectors, wide);
    // fewer strips than threads: the groups of a strip are split, too
    const std::int64_t shares = std::min(strips < threads ? tiles(threads, strips) : 1, tiles(K, 64)),
                       share = tiles(tiles(K, shares), 64) * 64;
    parallel(strips * shares, threads, [&] {
        return [&, load, strip = scratch_of(wide * padded * lane_bytes),
                scratch = scratch_of(3 * lane_bytes * std::min(share, group_tile))](std::int64_t item) mutable {
            const std::int64_t begin = item % shares * share, end = std::min(begin + share, K);
            for (std::int64_t first = 0; first < rows; first += padded) {
                const std::int64_t col = item / shares * wide * lanes, count = std::min(padded, rows - first);
                const Part part{first, count, padded, col, std::min(wide * lanes, cols - col)};
                std::uint8_t* memory = strip.get()->bytes;
                load(part, memory, begin == 0);
                for (std::int64_t at = 0; at < part.cols; at += lanes)
                    for (std::int64_t k = std::max(begin, from(col + at)); k < end; k += group_tile)
                        sum(memory + at / lanes * padded * lane_bytes, tiles(count, code_rows),
                            codes + first / code_rows * K + k, std::min(group_tile, end - k), scratch.get(), k,
                            col + at, std::min(lanes, part.cols - at), first == 0);
            }
        };
    });
}

std::int64_t all(std::int64_t) { return 0; }

void gram_by_bits(const Masks& masks, std::int64_t* counts, int threads) {
    const Kernels& run = kernels();
    const std::int64_t blocks = tiles(masks.rows, 64), panels = tiles(masks.groups, 8);
    auto memory = scratch_of(static_cast<std::int64_t>(checked_size("packed", {panels, blocks, 64})));
    auto* words = reinterpret_cast<std::uint64_t*>(memory.get());
    parallel(blocks, threads, [&] { return [&](std::int64_t block) { run.turn_bits(masks, block, blocks, words); }; });
    const std::int64_t parts = tiles(panels, gram_panels);  // the last has most pairs and goes first
    parallel(parts, threads, [&] {
        return [&](std::int64_t item) {
            run.count_pairs(words, blocks, masks.groups, (parts - 1 - item) * gram_panels, counts);
        };
    });
}

}  // namespace

void gram(const Masks& masks, std::int64_t* counts, int threads) {
    const std::int64_t K = masks.groups;
    const std::size_t size = checked_size("groups", {K, K});
    if (kernels().count_pairs != nullptr && masks.rows > 0) {
        check_padding(masks);
        return gram_by_bits(masks, counts, threads);
    }
    std::fill_n(counts, size, std::int64_t{0});
    std::vector<std::uint64_t> words(checked_size("packed", {code_blocks(masks.rows), K}));
    codes(masks, {nullptr, masks.rows}, words.data());
    const Kernels& run = kernels();
    sum_strips(
        masks.rows, K, K, 1, words.data(), threads,
        [&](const Part& part, std::uint8_t* strip, bool) {
            for (std::int64_t at = 0; at < part.cols; at += run.lane_bytes)
                run.load_bits(masks, part.first, part.count, part.padded, part.col + at, strip + at * part.padded);
        },
        [&](const void* strip, std::int64_t blocks, const std::uint64_t* from, std::int64_t groups, void* scratch,
            std::int64_t k, std::int64_t col, std::int64_t have, bool fresh) {
            run.sum_bits(strip, blocks, from, K, groups, scratch, counts + k * K + col, K, have, fresh);
        },
        [](std::int64_t col) { return col; });  // the lower triangle, and of the upper what its vectors cover
    constexpr std::int64_t tile = 32;
    for (std::int64_t i = 0; i < K; i += tile)
        for (std::int64_t j = 0; j <= i; j += tile)
            for (std::int64_t a = i; a < std::min(i + tile, K); ++a)
                for (std::int64_t b = j; b < std::min(j + tile, a); ++b) counts[b * K + a] = counts[a * K + b];
}

void subset_sums(const std::uint64_t* codes, std::int64_t groups, const Matrix& outputs, const Rows& rows,
                 const double* shift, double* sums, const Moments& moments, int threads) {
    check_rows(rows, outputs.rows);
    const std::int64_t n = outputs.cols;
    const std::size_t size = checked_size("outputs", {groups, n});
    if (moments.sums != nullptr && (rows.count == 0 || groups == 0))
        column_moments(outputs, rows, shift, moments.sums, moments.squares, threads);
    if (rows.count == 0) std::fill_n(sums, size, 0.0);
    const Kernels& run = kernels();
    const bool wide = outputs.type == Float::f64;
    const auto fill = wide ? run.load_f64 : run.load_f32;
    const auto sum = wide ? run.sum_f64 : run.sum_f32;
    sum_strips(
        rows.count, n, groups, wide ? 8 : 4, codes, threads,
        [&, tree = Tree(0)](const Part& part, std::uint8_t* strip, bool once) mutable {
            const std::int64_t vector = part.padded * run.lane_bytes,
                               vectors = tiles(part.cols * (wide ? 8 : 4), run.lane_bytes);
            for (std::int64_t v = 0; v < vectors; ++v)
                std::fill(strip + v * vector + part.count * run.lane_bytes, strip + (v + 1) * vector, std::uint8_t{0});
            if (part.first == 0) tree = Tree(2 * part.cols);
            for (std::int64_t at = 0; at < part.count; at += block_rows) {
                const std::int64_t some = std::min(block_rows, part.count - at);
                fill(outputs, rows, shift, part.first + at, some, part.padded, part.col, part.cols,
                     strip + at * run.lane_bytes);
                if (moments.sums == nullptr || !once) continue;
                double* both = tree.next();
                for (std::int64_t c = 0; c < part.cols; c += moment_cols)
                    run.moment_block(outputs, rows, part.first + at, some, shift, part.col + c,
                                     std::min(moment_cols, part.cols - c), both + c, both + part.cols + c);
                tree.push();
            }
            if (moments.sums == nullptr || !once || part.first + part.count < rows.count) return;
            const double* total = tree.total();
            std::copy_n(total, part.cols, moments.sums + part.col);
            std::copy_n(total + part.cols, part.cols, moments.squares + part.col);
        },
        [&](const void* strip, std::int64_t blocks, const std::uint64_t* from, std::int64_t some, void* scratch,
            std::int64_t k, std::int64_t col, std::int64_t have, bool fresh) {
            sum(strip, blocks, from, groups, some, scratch, sums + k * n + col, n, have, fresh);
        },
        all);
}

void subset_sums_int16(const std::uint64_t* codes, std::int64_t groups, const Matrix& outputs, const Rows& rows,
                       const double* shift, double* sums, double* step, int threads) {
    check_rows(rows, outputs.rows);
    const std::int64_t n = outputs.cols;
    const std::size_t size = checked_size("outputs", {groups, n});
    if (rows.count == 0) std::fill_n(sums, size, 0.0);
    const Kernels& run = kernels();
    const std::int64_t narrow = run.lane_bytes / 4, m = rows.count;
    // floats in pieces that fit the L2 cache
    const auto pieces = [&](std::int64_t first, std::int64_t count, std::int64_t col, std::int64_t cols,
                            Scratch& memory, auto use) {
        auto* floats = reinterpret_cast<float*>(memory.get());
        for (std::int64_t at = 0; at < count; at += piece_rows) {
            const std::int64_t some = std::min(piece_rows, count - at);
            run.load_f32(outputs, rows, shift, first + at, some, some, col, cols, floats);
            use(at, some, floats);
        }
    };
    std::vector<float> scale(static_cast<std::size_t>(n + run.lane_bytes));  // 0 for the lanes beyond the last output
    parallel(tiles(n, moment_cols), threads, [&] {
        return [&, memory = scratch_of(piece_rows * moment_cols * 4)](std::int64_t item) mutable {
            const std::int64_t j = item * moment_cols, cols = std::min(moment_cols, n - j);
            float largest[moment_cols] = {};
            pieces(0, m, j, cols, memory, [&](std::int64_t, std::int64_t some, const float* floats) {
                run.largest(floats, some, cols, largest);
            });
            for (std::int64_t c = 0; c < cols; ++c) {
                // at least 2^-127, whose inverse is a float32; smaller steps would make the target 0
                const double unit = std::max(static_cast<double>(largest[c]) / 511, 0x1p-127);
                const bool none = largest[c] == 0, finite = std::isfinite(largest[c]);
                step[j + c] = none ? 0 : finite ? unit : std::numeric_limits<double>::quiet_NaN();
                scale[static_cast<std::size_t>(j + c)] = none || !finite ? 0 : static_cast<float>(1 / unit);
            }
        };
    });
    sum_strips(
        m, n, groups, 2, codes, threads,
        [&](const Part& part, std::uint8_t* strip, bool) {
            auto* to = reinterpret_cast<std::int16_t*>(strip);
            const std::int64_t lanes = 2 * narrow, wide = tiles(part.cols, lanes) * lanes;
            auto memory = scratch_of(piece_rows * wide * 4);
            pieces(part.first, part.count, part.col, part.cols, memory,
                   [&](std::int64_t at, std::int64_t some, const float* floats) {
                       run.quantise(floats, scale.data() + part.col, some, part.cols, part.padded, to + at * lanes);
                   });
            for (std::int64_t at = 0; at < wide; at += lanes)
                std::fill(to + (at * part.padded + part.count * lanes), to + (at + lanes) * part.padded,
                          std::int16_t{0});
        },
        [&](const void* strip, std::int64_t blocks, const std::uint64_t* from, std::int64_t some, void* scratch,
            std::int64_t k, std::int64_t col, std::int64_t have, bool fresh) {
            run.sum_i16(strip, blocks, from, groups, some, scratch, sums + k * n + col, n, have, fresh);
        },
        all);
    for (std::int64_t k = 0; k < groups; ++k)
        for (std::int64_t j = 0; j < n; ++j) sums[k * n + j] *= step[j];
}

void column_moments(const Matrix& outputs, const Rows& rows, const double* shift, double* sums, double* squares,
                    int threads) {
    check_rows(rows, outputs.rows);
    const std::int64_t n = outputs.cols, m = rows.count;
    std::fill_n(sums, n, 0.0);
    std::fill_n(squares, n, 0.0);
    if (m == 0) return;
    const Kernels& run = kernels();
    parallel(tiles(n, moment_cols), threads, [&] {
        return [&, tree = Tree(2 * moment_cols)](std::int64_t item) mutable {
            const std::int64_t j = item * moment_cols, cols = std::min(moment_cols, n - j);
            tree.clear();
            for (std::int64_t row = 0; row < m; row += block_rows) {
                double* both = tree.next();
                run.moment_block(outputs, rows, row, std::min(block_rows, m - row), shift, j, cols, both,
                                 both + moment_cols);
                tree.push();
            }
            const double* total = tree.total();
            std::copy_n(total, cols, sums + j);
            std::copy_n(total + moment_cols, cols, squares + j);
        };
    });
}

void unit_squares(const Matrix& outputs, const Rows& rows, const std::int64_t* starts, std::int64_t units,
                  const double* sign, const double* shift, double* squares, int threads) {
    check_rows(rows, outputs.rows);
    if (starts[0] != 0 || starts[units] != rows.count)
        throw ArgumentError("starts", "must go from 0 to " + std::to_string(rows.count) + ", the number of rows");
    for (std::int64_t u = 0; u < units; ++u)
        if (starts[u] >= starts[u + 1]) throw ArgumentError("starts", "must rise");
    const std::int64_t n = outputs.cols;
    std::fill_n(squares, n, 0.0);
    if (units == 0) return;
    const Kernels& run = kernels();
    parallel(tiles(n, moment_cols), threads, [&] {
        return [&, tree = Tree(moment_cols)](std::int64_t item) mutable {
            const std::int64_t j = item * moment_cols, cols = std::min(moment_cols, n - j);
            tree.clear();
            for (std::int64_t unit = 0; unit < units; unit += block_rows) {
                run.unit_block(outputs, rows, starts, sign, unit, std::min(block_rows, units - unit), shift, j, cols,
                               tree.next());
                tree.push();
            }
            std::copy_n(tree.total(), cols, squares + j);
        };
    });
}

}  // namespace pydt
