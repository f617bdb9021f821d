// Sufficient statistics: how the work is cut into tiles of the result, each computed by one thread in one order (so the
// bits do not depend on the number of threads). The kernels are in kernels/moments.inl.
//
// Column moments: blocks of 256 rows are added in the tree of a binary counter: two sums of 1 block make one of 2, two of
// those one of 4, ...; what is left at the end is added from the smallest to the largest.
#include <algorithm>

#include "kernels/kernels.hpp"
#include "pydt.hpp"
#include "threads.hpp"

namespace pydt {
namespace {

std::int64_t tiles(std::int64_t size, std::int64_t tile) { return size / tile + (size % tile != 0); }

// Adds equally long vectors in that tree. `next()` is where the sum of the next block goes, `push()` says that it is
// there.
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

struct alignas(64) Line {
    unsigned char bytes[64];
};

constexpr std::int64_t group_tile = 1024;  // groups whose sums stand in the second-level cache at once
constexpr std::int64_t gram_side = 64;     // columns in a tile of the Gram matrix
constexpr std::int64_t gram_words = 512;   // words of a column taken at a time: a tile reads 2 x 64 x 4 KB

}  // namespace

void gram(const Masks& masks, std::int64_t* counts, int threads) {
    check_padding(masks);
    const std::int64_t K = masks.groups, words = tiles(masks.rows, 64), side = tiles(K, gram_side);
    const std::vector<std::uint64_t> columns = columns_of(masks, Layout::by_group);
    std::fill_n(counts, checked_size("groups", {K, K}), std::int64_t{0});
    const Kernels& run = kernels();
    parallel(side * side, threads, [&] {
        return [&](std::int64_t item) {
            const std::int64_t i = item / side * gram_side, j = item % side * gram_side;
            if (i > j) return;
            for (std::int64_t w = 0; w < words; w += gram_words)
                run.gram_tile(columns.data() + i * words + w, std::min(gram_side, K - i),
                              columns.data() + j * words + w, std::min(gram_side, K - j), words,
                              std::min(gram_words, words - w), counts + i * K + j, K);
        };
    });
    for (std::int64_t i = 0; i < K; ++i)
        for (std::int64_t j = 0; j < i; ++j) counts[i * K + j] = counts[j * K + i];
}

void subset_sums(const std::uint64_t* codes, std::int64_t groups, const Matrix& outputs, const Rows& rows,
                 const double* shift, double* sums, int threads) {
    check_rows(rows, outputs.rows);
    const std::int64_t K = groups, n = outputs.cols, width = sum_bytes / (outputs.type == Float::f64 ? 8 : 4);
    checked_size("outputs", {K, n});
    const Kernels& run = kernels();
    const SumPlan plan{outputs, rows, shift, codes, groups};
    const std::int64_t group_tiles = tiles(K, group_tile),
                       scratch_bytes = std::min(K, group_tile) * (sum_bytes + 8 * width);
    parallel(tiles(n, width) * group_tiles, threads, [&] {
        return [&, scratch = std::vector<Line>(static_cast<std::size_t>(tiles(scratch_bytes, sizeof(Line))))](
                   std::int64_t item) mutable {
            const std::int64_t j = item / group_tiles * width, k = item % group_tiles * group_tile;
            run.sum_tile(plan, j, std::min(width, n - j), k, std::min(group_tile, K - k), scratch.data(),
                         sums + k * n + j);
        };
    });
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

}  // namespace pydt
