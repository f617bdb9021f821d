// One target of the LASSO in float32: candidates, screening, iterations (derivations: docs/lasso-solver.md).
//
// Candidates, the coordinates that may move, stand in a compact set: values, slope = c - Gb, and their part of G, in
// the order in which they were added, padded to 16. For all others there is a reference: the slope at b1, the one
// before at b0, and the line through both. At b a slope differs from that line by at most the drift
//
//   sum_k reach_k |b - b1 - along (b1 - b0)|_k,   reach_k = largest entry of column k off the diagonal,
//
// so no candidate is missing while the largest slope outside plus the drift is below the edge. Iterations: proximal
// gradient with momentum, or coordinate descent where that does not contract.
//
// Over 500 lines, because all of it works on the state of one class.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "kernels/kernels.hpp"
#include "pydt.hpp"
#include "threads.hpp"

namespace pydt::penalised {

using std::int32_t;
using std::int64_t;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr int64_t symmetric_from = 256;  // candidates from which on their part of G is larger than the L2 cache
constexpr double look = 0.95;            // a slope above this share of the edge makes a candidate
constexpr double look_once = 0.9;        // the same from given values, where candidates are chosen only once a round

// A relative gap: `share` times (residual sum of squares / energy), but no less than `least`.
struct Tolerance {
    double share, least;
    Tolerance half() const { return {share / 2, least / 2}; }
    double of(double left) const { return std::max(share * std::min(left, 1.0), least); }
};

inline int64_t round_up(int64_t size, int64_t to) { return (size + to - 1) / to * to; }

// Zeros, aligned to whole vectors.
class Floats {
public:
    explicit Floats(int64_t count = 0)
        : data_(static_cast<float*>(::operator new(static_cast<std::size_t>(count) * 4 + 64, std::align_val_t{64}))) {
        std::fill_n(data_.get(), count, 0.0F);
    }
    float* get() const { return data_.get(); }
    float& operator[](int64_t i) const { return data_.get()[i]; }

private:
    struct Free {
        void operator()(float* data) const { ::operator delete(data, std::align_val_t{64}); }
    };
    std::unique_ptr<float, Free> data_;
};

// The power of two that brings value into [1, 2); 1 where there is none.
inline double scale_of(double value) {
    if (!(value > 0) || !std::isfinite(value)) return 1;
    return std::ldexp(1.0, -std::clamp(std::ilogb(value), -1000, 1000));
}

// A Gram matrix in float32, times a power of two that brings its diagonal to about 1.
struct Padded {
    Padded(const double* gram, int64_t count, const char* name, int threads)
        : groups(count), width(round_up(count, 16)),
          ld(width % 512 == 0 ? width + 16 : width),  // rows a multiple of 2 KB apart would map to few sets of a cache
          entries((checked_size(name, {count, ld, 4}), count * ld)), reach(static_cast<std::size_t>(count)) {
        double most = 0, trace = 0, squares = 0;
        for (int64_t k = 0; k < groups; ++k) most = std::max(most, gram[k * groups + k]);
        scale = scale_of(most);
        std::vector<float> square(reach.size());
        const LassoKernels& run = kernels().lasso;
        parallel(groups, threads, [&] {
            return [&, found = std::vector<int32_t>(static_cast<std::size_t>(width))](int64_t k) mutable {
                float* row = entries.get() + k * ld;
                int wrong = 0;
                for (int64_t i = 0; i < groups; ++i) {
                    const double value = gram[k * groups + i];
                    wrong |= !(std::abs(value) <= std::numeric_limits<double>::max());
                    row[i] = static_cast<float>(value * scale);
                }
                if (wrong) throw ArgumentError(name, "has a NaN or infinite entry");
                const float own = row[k];
                int64_t none = 0;
                row[k] = 0;
                reach[static_cast<std::size_t>(k)] =
                    run.scan(row, row, 0, std::numeric_limits<float>::max(), width, found.data(), &none);
                square[static_cast<std::size_t>(k)] = run.dot(row, row, width);
                row[k] = own;
            };
        });
        for (int64_t k = 0; k < groups; ++k) {
            trace += static_cast<double>(entries[k * ld + k]);
            squares += static_cast<double>(square[static_cast<std::size_t>(k)]);
        }
        const auto count_of = static_cast<double>(groups);
        spread = groups > 1 && trace > 0 ? squares / (trace * trace) * count_of / (count_of - 1) : 0;
    }

    int64_t groups, width, ld;
    Floats entries;
    std::vector<float> reach;
    double scale = 1, spread;  // spread: mean squared correlation of two groups
};

// One target in float32, with cross times `cross_scale` and values times `scale`.
class Target {
public:
    Target(const Padded& gram, const Padded* held)
        : gram_(gram), held_(held), full_(gram.width), now_(gram.width), old_(gram.width), values_(gram.width),
          before_(gram.width), slope_(gram.width), cross_(gram.width), own_(gram.width), inverse_(gram.width),
          reach_(gram.width), diagonal_(gram.width), held_diagonal_(gram.width), b1_(gram.width), b0_(gram.width),
          last_values_(gram.width), last_slope_(gram.width), first_values_(gram.width), first_slope_(gram.width),
          steps_(gram.width), product_(gram.width), index_(static_cast<std::size_t>(gram.width)),
          rows_(static_cast<std::size_t>(gram.width)), found_(static_cast<std::size_t>(gram.width)) {}

    // Values 0, no candidates.
    void load(const double* cross, double energy) {
        count_ = width_ = active_ = 0;
        last_ = 0;
        slow_ = false;
        double most = 0;
        for (int64_t k = 0; k < gram_.groups; ++k) most = std::max(most, std::abs(cross[k]));
        cross_scale_ = scale_of(most);
        scale_ = cross_scale_ / gram_.scale;
        energy_ = energy * cross_scale_ * (cross_scale_ / gram_.scale);
        top_ = most * cross_scale_;
        for (int64_t k = 0; k < gram_.groups; ++k)
            full_[k] = now_[k] = old_[k] = static_cast<float>(cross[k] * cross_scale_);
        edge1_ = edge0_ = top_;
    }

    void set_penalty(double edge, double ridge) {  // in the caller's units
        edge_ = edge * cross_scale_;
        const auto scaled = static_cast<float>(ridge * gram_.scale);
        if (scaled == ridge_) return;
        ridge_ = scaled;
        for (int64_t p = 0; p < count_; ++p) set_own(p);
    }

    // Candidates and slopes from the caller's values and slopes.
    void start(const float* values, const double* slope) {
        int64_t count = 0;
        for (int64_t k = 0; k < gram_.groups; ++k) {
            now_[k] = old_[k] = static_cast<float>(slope[k] * cross_scale_);
            found_[at(count)] = static_cast<int32_t>(k);
            count += values[k] != 0 || std::abs(static_cast<double>(now_[k])) >= look_once * edge_;
        }
        add_found(count, false);
        for (int64_t p = 0; p < count; ++p) {
            const auto k = at(index_[at(p)]);
            values_[p] = b1_[p] = b0_[p] = static_cast<float>(static_cast<double>(values[k]) * scale_);
            slope_[p] = static_cast<float>(slope[k] * cross_scale_);
        }
        edge1_ = edge0_ = edge_;
        count_active();
    }

    // Iterates over the candidates until their gap is within tolerance, or no longer falls. Returns the iterations.
    int64_t solve(Tolerance tolerance, int64_t limit) {
        const LassoKernels& run = kernels().lasso;
        if (slow_) {
            const int64_t sweeps = descend(tolerance, limit);
            count_active();
            return sweeps;
        }
        std::copy_n(values_.get(), width_, before_.get());
        std::copy_n(values_.get(), width_, first_values_.get());
        std::copy_n(slope_.get(), width_, first_slope_.get());
        const double bend = 1 / (1 + static_cast<double>(ridge_));
        const double momentum = std::min(0.8, static_cast<double>(active_) * gram_.spread * bend * bend);
        double first = 0, mark = infinity;
        int64_t iteration = 0;
        for (;; ++iteration) {
            const LassoPass seen = run.pass(set(), static_cast<float>(edge_), ridge_, static_cast<float>(momentum),
                                            rows_.data(), steps_.get());
            const auto [gap, left] = gap_of(seen);
            if (iteration == 0) first = gap;
            const bool done = gap <= tolerance.of(left) || iteration >= limit || seen.moved == 0;
            slow_ = !done && iteration % 4 == 3 && !(gap < 0.5 * mark);
            if (done || slow_) std::swap(values_, before_);  // back to the values that the slope belongs to
            if (slow_) {
                if (!(gap < first)) {
                    std::copy_n(first_values_.get(), width_, values_.get());
                    std::copy_n(first_slope_.get(), width_, slope_.get());
                }
                iteration += descend(tolerance, limit - iteration);
            }
            if (done || slow_) break;
            if (iteration % 4 == 3) mark = gap;
            if (width_ < symmetric_from || seen.moved * 9 < width_ * 5) {
                run.subtract_rows(sub_.get(), ld_, rows_.data(), steps_.get(), seen.moved, slope_.get(), slope_.get(),
                                  width_);
                continue;
            }
            for (int64_t p = 0; p < width_; ++p) product_[p] = values_[p] - before_[p];
            run.subtract_symmetric(sub_.get(), ld_, product_.get(), slope_.get(), width_);
            // rows of the padding hold values of the last target
            std::fill(slope_.get() + count_, slope_.get() + width_, 0.0F);
        }
        count_active();
        return iteration;
    }

    // The same, adding candidates until none is missing by the bound of the reference.
    int64_t solve_safely(Tolerance tolerance, int64_t limit) {
        double rest = add_candidates();
        int64_t iterations = solve(tolerance, limit);
        while (iterations < limit && count_ < gram_.groups) {
            const double along = line();
            const double drift = static_cast<double>(kernels().lasso.drift(
                reach_.get(), values_.get(), b1_.get(), b0_.get(), static_cast<float>(along), width_));
            if (rest + drift < edge_) break;
            move_reference(along);
            const int64_t known = count_;
            rest = add_candidates();
            bool missing = false;
            for (int64_t p = known; p < count_; ++p)
                missing = missing || std::abs(static_cast<double>(slope_[p])) > edge_;
            if (!missing) break;
            iterations += solve(tolerance, limit - iterations);
        }
        return iterations;
    }

    // Moves values and slopes on by `along` times their change since the last call.
    void extrapolate(float along) {
        if (slow_) along = 0;
        for (int64_t p = 0; p < width_; ++p) {
            const float value = values_[p], slope = slope_[p];
            values_[p] = value + (value - last_values_[p]) * along;
            slope_[p] = slope + (slope - last_slope_[p]) * along;
            last_values_[p] = value;
            last_slope_[p] = slope;
        }
    }

    struct Judged {
        double error, square;  // |y - Xb|^2 and |Xb|^2
    };
    // The error on the held-out rows.
    Judged held_error(const double* cross, double energy) {
        const double square = held_square(nullptr, 0);
        double shared = 0;
        for (int64_t p = 0; p < count_; ++p) shared += static_cast<double>(values_[p]) * cross[index_[at(p)]];
        return {energy - 2 * shared / scale_ + square, square};
    }

    // |X (b - best)|^2 of the held-out rows, for values from keep().
    double held_apart(const std::vector<float>& best) {
        return held_square(best.data(), static_cast<int64_t>(best.size()));
    }

    int64_t active() const { return active_; }
    double top() const { return top_ / cross_scale_; }

    void keep(std::vector<float>& best) const { best.assign(values_.get(), values_.get() + count_); }

    // Back to values from keep(), with exact slopes.
    void restore(const std::vector<float>& best) {
        std::fill_n(values_.get(), width_, 0.0F);
        std::copy(best.begin(), best.end(), values_.get());
        refresh();
        count_active();
    }

    void write(float* values) const {
        std::fill_n(values, gram_.groups, 0.0F);
        for (int64_t p = 0; p < count_; ++p)
            values[index_[at(p)]] = static_cast<float>(static_cast<double>(values_[p]) / scale_);
    }

private:
    static std::size_t at(int64_t i) { return static_cast<std::size_t>(i); }

    // |X (b - other)|^2 of the held-out rows; `other` ends with zeros.
    double held_square(const float* other, int64_t others) {
        std::copy_n(values_.get(), width_, steps_.get());
        for (int64_t p = 0; p < others; ++p) steps_[p] -= other[p];
        const int64_t count = kernels().lasso.nonzeros(steps_.get(), width_, rows_.data(), steps_.get());
        std::fill_n(product_.get(), width_, 0.0F);
        for (int64_t i = 0, first = 0; i < width_; i += 64) {
            while (first < count && rows_[at(first)] <= i) ++first;
            kernels().lasso.subtract_rows(held_sub_.get() + i, ld_, rows_.data() + first, steps_.get() + first,
                                          count - first, product_.get() + i, product_.get() + i,
                                          std::min<int64_t>(64, width_ - i));
        }
        double square = 0;
        for (int64_t t = 0; t < count; ++t) {
            const int64_t p = rows_[at(t)];
            const double value = static_cast<double>(steps_[t]);
            square += value * (value * static_cast<double>(held_diagonal_[p]) - 2 * static_cast<double>(product_[p]));
        }
        return square / held_->scale / scale_ / scale_;
    }

    LassoSet set() const {
        return {values_.get(), before_.get(), slope_.get(), cross_.get(), own_.get(), inverse_.get(), width_};
    }

    void count_active() {
        active_ = 0;
        for (int64_t p = 0; p < count_; ++p) active_ += values_[p] != 0;
    }

    void set_own(int64_t p) {
        own_[p] = diagonal_[p] + ridge_;
        inverse_[p] = diagonal_[p] > 0 ? 1 / own_[p] : 0;
    }

    // Relative duality gap, and residual sum of squares / energy.
    std::pair<double, double> gap_of(const LassoPass& seen) const {
        const double most = static_cast<double>(seen.most), along = static_cast<double>(seen.along);
        const double square = std::max(energy_ - static_cast<double>(seen.fit) - along, 0.0);
        const double rest = most > edge_ ? 1 - edge_ / most : 0;
        const double gap = rest * rest * square / 2 + static_cast<double>(seen.excess) + rest * along;
        return {gap / (energy_ / 2), square / energy_};
    }

    int64_t descend(Tolerance tolerance, int64_t limit) {
        const LassoKernels& run = kernels().lasso;
        double mark = infinity;
        for (int64_t sweep = 0;; ++sweep) {
            const auto edge = static_cast<float>(edge_);
            const auto [gap, left] = gap_of(run.pass(set(), edge, ridge_, 0, rows_.data(), steps_.get()));
            std::swap(values_, before_);  // undoes the step: the pass is for the gap only
            if (gap <= tolerance.of(left) || sweep >= limit) return sweep;
            if (sweep % 16 == 15) {
                if (!(gap < 0.97 * mark)) return sweep;  // the limit of float32
                mark = gap;
            }
            run.sweep(set(), sub_.get(), ld_, edge, ridge_);
        }
    }

    // The place of the present edge on the line of the references: 0 at edge1, -1 at edge0.
    double line() const { return edge0_ > edge1_ && edge0_ < infinity ? (edge1_ - edge_) / (edge0_ - edge1_) : 0; }

    // Adds candidates by the slopes on the line. Returns the largest slope of the others.
    double add_candidates() {
        int64_t hits = 0;
        // above 0 even without a penalty: a slope of 0 needs no candidate, and those of candidates are stored as 0
        const float least = std::max(static_cast<float>(look * edge_), std::numeric_limits<float>::min());
        const float rest = kernels().lasso.scan(now_.get(), old_.get(), static_cast<float>(line()), least, gram_.width,
                                                found_.data(), &hits);
        add_found(hits);
        return static_cast<double>(rest);
    }

    // Moves the reference along its line to the present edge, and from there to the values in the coordinates that
    // matter. Those left out cause a drift of at most a quarter of the margin of `look`.
    void move_reference(double line) {
        const auto along = static_cast<float>(line);
        const double room = (1 - look) / 4 * edge_ / static_cast<double>(std::max<int64_t>(active_, 1));
        for (int64_t p = 0; p < width_; ++p) {
            const float last = b1_[p], expected = last + (last - b0_[p]) * along, apart = values_[p] - expected;
            const bool far = static_cast<double>(std::abs(apart) * reach_[p]) > room;
            steps_[p] = far ? apart : 0;
            product_[p] = far ? values_[p] : expected;
        }
        const int64_t count = kernels().lasso.nonzeros(steps_.get(), width_, rows_.data(), steps_.get());
        for (int64_t t = 0; t < count; ++t) rows_[at(t)] = index_[at(rows_[at(t)])];
        const bool ahead = edge_ < edge1_;
        for (int64_t i = 0; i < gram_.width; ++i) {
            const float last = now_[i];
            now_[i] = last + (last - old_[i]) * along;
            old_[i] = ahead ? last : old_[i];
        }
        for (int64_t p = 0; p < width_ && ahead; ++p) b0_[p] = b1_[p];
        if (ahead) edge0_ = edge1_, edge1_ = edge_;
        std::copy_n(product_.get(), width_, b1_.get());
        kernels().lasso.subtract_rows(gram_.entries.get(), gram_.ld, rows_.data(), steps_.get(), count, now_.get(),
                                      now_.get(), gram_.width);
        for (int64_t p = 0; p < count_; ++p) now_[index_[at(p)]] = 0;
    }

    // Computes all slopes at the values.
    void refresh() {
        edge1_ = edge0_ = edge_;
        int64_t count = 0;
        for (int64_t p = 0; p < count_; ++p)
            if (values_[p] != 0) {
                rows_[at(count)] = index_[at(p)];
                steps_[count++] = values_[p];
            }
        kernels().lasso.subtract_rows(gram_.entries.get(), gram_.ld, rows_.data(), steps_.get(), count, full_.get(),
                                      now_.get(), gram_.width);
        for (int64_t p = 0; p < count_; ++p) {
            slope_[p] = now_[index_[at(p)]];
            now_[index_[at(p)]] = 0;
        }
        std::copy_n(values_.get(), width_, b1_.get());
    }

    // Adds the candidates of found_. moved: some values are not 0.
    void add_found(int64_t count, bool moved = true) {
        constexpr int64_t ahead = 3;
        // rows of G in no regular order, which no hardware prefetcher finds: they are prefetched three ahead
        const int64_t known = count_;
        for (int64_t t = 0; t < std::min(ahead, count); ++t) fetch(found_[at(t)]);
        for (int64_t t = 0; t < count; ++t) {
            if (t + ahead < count) fetch(found_[at(t + ahead)]);
            add(found_[at(t)], moved);
        }
        mirror(known);
    }

    // Up to the largest index among the candidates: only those columns are read.
    void fetch(int32_t k) const {
        for (int64_t i = 0; i <= std::max(last_, k); i += 16) {
            __builtin_prefetch(gram_.entries.get() + k * gram_.ld + i);
            if (held_ != nullptr) __builtin_prefetch(held_->entries.get() + k * held_->ld + i);
        }
    }

    void add(int32_t k, bool moved) {
        const int64_t p = count_++;
        if (p % 16 == 0) open();
        const float* from = gram_.entries.get() + k * gram_.ld;
        float* row = sub_.get() + p * ld_;
        const int32_t* index = index_.data();
        for (int64_t q = 0; q < p; ++q) row[q] = from[index[q]];
        row[p] = diagonal_[p] = from[k];
        std::fill(row + p + 1, row + width_, 0.0F);
        if (held_ != nullptr) {
            const float* other = held_->entries.get() + k * held_->ld;
            float* below = held_sub_.get() + p * ld_;
            for (int64_t q = 0; q < p; ++q) below[q] = other[index[q]];
            std::fill(below + p, below + round_up(p + 1, 64), 0.0F);
            held_diagonal_[p] = other[k];
        }
        index_[at(p)] = k;
        last_ = std::max(last_, k);
        cross_[p] = full_[k];
        reach_[p] = gram_.reach[at(k)];
        slope_[p] = last_slope_[p] = cross_[p];
        if (moved) {
            slope_[p] -= kernels().lasso.dot(row, values_.get(), width_);
            last_slope_[p] -= kernels().lasso.dot(row, last_values_.get(), width_);
        }
        now_[k] = old_[k] = 0;
        set_own(p);
    }

    // Copies the rows of the candidates from `known` on to their columns: few one by one, many in blocks of 16 x 16.
    void mirror(int64_t known) {
        if (count_ - known < 8) {
            for (int64_t p = known; p < count_; ++p) {
                const float* row = sub_.get() + p * ld_;
                float* column = sub_.get() + p;
                for (int64_t q = 0, to = 0; q < p; ++q, to += ld_) column[to] = row[q];
            }
            return;
        }
        for (int64_t right = known / 16 * 16; right < count_; right += 16)
            for (int64_t top = 0; top <= right; top += 16)
                for (int64_t q = top; q < top + 16; ++q)
                    for (int64_t p = std::max({right, known, q + 1}); p < std::min(right + 16, count_); ++p)
                        sub_[q * ld_ + p] = sub_[p * ld_ + q];
    }

    // Makes room for 16 more candidates.
    void open() {
        const int64_t first = width_;
        width_ += 16;
        if (width_ > ld_ || sub_rows_ < width_) grow();
        for (float* part : {values_.get(), before_.get(), slope_.get(), cross_.get(), own_.get(), inverse_.get(),
                            reach_.get(), b1_.get(), b0_.get(), last_values_.get(), last_slope_.get()})
            std::fill_n(part + first, 16, 0.0F);
        for (int64_t q = 0; q < first; ++q) std::fill_n(sub_.get() + q * ld_ + first, 16, 0.0F);
    }

    void grow() {
        const int64_t rows = std::max<int64_t>(256, 2 * sub_rows_), ld = rows + 64, old = width_ - 16;
        Floats wider(rows * ld), held(held_ != nullptr ? rows * ld : 0);
        for (int64_t q = 0; q < old; ++q) {
            std::copy_n(sub_.get() + q * ld_, old, wider.get() + q * ld);
            if (held_ != nullptr) std::copy_n(held_sub_.get() + q * ld_, round_up(q + 1, 64), held.get() + q * ld);
        }
        sub_ = std::move(wider), held_sub_ = std::move(held);
        sub_rows_ = rows, ld_ = ld;
    }

    const Padded& gram_;
    const Padded* held_;
    double cross_scale_ = 1, scale_ = 1, energy_ = 0, top_ = 0, edge_ = 0, edge1_ = 0, edge0_ = 0;
    float ridge_ = 0;
    int32_t last_ = 0;   // the largest index of a candidate
    bool slow_ = false;  // proximal gradient does not contract here
    int64_t count_ = 0, width_ = 0, active_ = 0, ld_ = 0, sub_rows_ = 0;
    Floats full_, now_, old_;  // all groups: cross, slope at b1, slope at b0; 0 in the last two for candidates
    // candidates only:
    Floats values_, before_, slope_, cross_, own_, inverse_, reach_, diagonal_, held_diagonal_, b1_, b0_;
    Floats last_values_, last_slope_, first_values_, first_slope_;
    Floats steps_, product_;
    Floats sub_, held_sub_;  // G of the candidates; H of the candidates, below the diagonal only
    std::vector<int32_t> index_, rows_, found_;
};

}  // namespace pydt::penalised
