// LASSO and elastic net on a Gram matrix, one target after another.
//
//   minimise  b'Gb / 2 - b'c + edge |b|_1 + ridge |b|^2 / 2,   edge = penalty l1_ratio, ridge = penalty (1 - l1_ratio)
//
// lasso_target.hpp solves one target in float32 on a compact set of candidates. Here: slopes and duality gaps in
// float64, further float32 rounds from those slopes, float64 for what does not converge; paths of penalties and where
// they end; blocks of targets, which share the readings of the Gram matrix.
//
//   gap = (1 - s)^2 |r|^2 / 2 + sum_j (edge |b_j| - s b_j pull_j),   pull = c - Gb - ridge b,  |s pull_j| <= edge
//
// Cost for a nonzeros, on a path of nearly orthogonal masks: about 4 passes of a^2 a step, one reading of a row of G
// and of one of the held-out G per candidate. Derivations and what lost: docs/lasso-solver.md.
#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/kernels.hpp"
#include "lasso_target.hpp"
#include "pydt.hpp"
#include "threads.hpp"

namespace pydt {

using namespace penalised;

namespace {

// Passes in float32 before float64 takes over: what needs more converges faster by solve_signs.
constexpr int64_t most_passes = 100;
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// The nonzero values of some targets, target by target.
struct Sparse {
    std::vector<std::size_t> first;
    std::vector<int32_t> rows;
    std::vector<double> values;

    // of(j): the values (groups,) of target j
    template <class Of>
    Sparse(int64_t groups, std::size_t targets, Of of) : first(targets + 1) {
        for (std::size_t j = 0; j < targets; ++j) {
            int32_t count = 0;
            for (const float *value = of(j), *end = value + groups; value != end; ++value) count += *value != 0;
            first[j + 1] = first[j] + static_cast<std::size_t>(count);
        }
        rows.resize(first[targets] + 1);  // the loop below writes one entry too many
        values.resize(first[targets] + 1);
        for (std::size_t j = 0; j < targets; ++j) {
            const float* value = of(j);
            std::size_t next = first[j];
            for (int64_t k = 0; k < groups; ++k) {  // without a branch, which the processor could not predict
                rows[next] = static_cast<int32_t>(k);
                values[next] = static_cast<double>(value[k]);
                next += value[k] != 0;
            }
        }
    }
};

// gram times those values, lasso_tile rows at a time: emit(first row, rows, target, sums). A tile is transposed, so
// that the numbers of a column are contiguous, and serves all targets from the L2 cache. Of a symmetric matrix, rows
// are read in place of columns.
template <class Emit>
void multiply(const double* gram, int64_t rows, int64_t cols, bool symmetric, const Sparse& values,
              std::vector<double>& tile, Emit emit) {
    tile.resize(static_cast<std::size_t>(cols * lasso_tile));
    double sums[lasso_tile];
    for (int64_t i = 0; i < rows; i += lasso_tile) {
        const int64_t count = std::min(lasso_tile, rows - i);
        double* to = tile.data();
        for (int64_t k = 0; k < cols && symmetric; ++k, to += lasso_tile) {
            for (int64_t line = 0; line < count && k + 8 < cols; line += 8)
                __builtin_prefetch(gram + (k + 8) * cols + i + line);
            std::copy_n(gram + k * cols + i, count, to);
        }
        for (int64_t r = 0; r < count && !symmetric; ++r)
            for (int64_t k = 0; k < cols; ++k) to[k * lasso_tile + r] = gram[(i + r) * cols + k];
        for (std::size_t j = 0; j + 1 < values.first.size(); ++j) {
            const std::size_t at = values.first[j];
            kernels().lasso.sparse_tile(tile.data(), values.rows.data() + at, values.values.data() + at,
                                        static_cast<int64_t>(values.first[j + 1] - at), sums);
            emit(i, count, j, sums);
        }
    }
}

// Some neighbouring targets, and what is done for several at once: their statistics, transposed so that those of a
// target are contiguous; their slopes and gaps in float64; the improvement of values until their gap is small.
class Block {
public:
    Block(const Quadratic& problem, double l1_ratio, int64_t first, int64_t targets)
        : problem_(problem), K_(problem.groups), l1_ratio_(l1_ratio), first_(first), targets_(targets) {
        cross_.resize(at(targets * K_));
        for (int64_t k = 0; k < K_; ++k)
            for (int64_t j = 0; j < targets; ++j)
                cross_[at(j * K_ + k)] = problem.cross[k * problem.targets + first + j];
        values_.resize(at(targets * K_));
        slope_.resize(at(targets * K_));
        penalty.resize(at(targets));
        gap.resize(at(targets));
        left.resize(at(targets));
        iterations.resize(at(targets));
    }

    std::vector<double> penalty, gap;  // gap: NaN where the target is not finite
    std::vector<double> left;          // residual sum of squares / energy
    std::vector<int64_t> iterations;

    const double* cross(int64_t j) const { return cross_.data() + j * K_; }
    float* values(int64_t j) { return values_.data() + j * K_; }
    double energy(int64_t j) const { return problem_.energy[first_ + j]; }
    double edge(int64_t j) const { return penalty[at(j)] * l1_ratio_; }
    double ridge(int64_t j) const { return penalty[at(j)] * (1 - l1_ratio_); }

    bool finite(int64_t j) const {
        bool good = std::isfinite(energy(j));
        for (int64_t k = 0; k < K_; ++k) good &= std::isfinite(cross(j)[k]);
        return good;
    }

    // Nothing to explain: all values are 0.
    bool constant(int64_t j) const {
        return !(energy(j) > 0) || std::all_of(cross(j), cross(j) + K_, [](double c) { return c == 0; });
    }

    // Rounds in float32 as long as each makes the gap four times smaller; the rest is finished in float64.
    void finish(Target& target, Tolerance tolerance, int64_t limit) {
        std::vector<int64_t> open;
        for (int64_t j = 0; j < targets_; ++j)
            if (!std::isfinite(gap[at(j)]) || constant(j))
                std::fill_n(values(j), K_, static_cast<float>(gap[at(j)]));
            else
                open.push_back(j);
        certify(open);
        std::vector<bool> exact(at(targets_));
        while (true) {
            std::erase_if(
                open, [&](int64_t j) { return gap[at(j)] <= tolerance.of(left[at(j)]) || iterations[at(j)] >= limit; });
            if (open.empty()) return;
            std::vector<float> kept;
            std::vector<double> before;
            for (const int64_t j : open) {
                const int64_t rest = limit - iterations[at(j)];
                kept.insert(kept.end(), values(j), values(j) + K_);
                before.push_back(gap[at(j)]);
                iterations[at(j)] +=
                    exact[at(j)] ? polish(j, tolerance.half(), rest) : improve(target, j, tolerance.half(), rest);
            }
            certify(open);
            std::vector<int64_t> worse, rest;
            for (std::size_t i = 0; i < open.size(); ++i) {
                const int64_t j = open[i];
                if (!(gap[at(j)] < before[i])) {
                    std::copy_n(kept.data() + i * at(K_), K_, values(j));
                    worse.push_back(j);
                }
                if (!exact[at(j)]) rest.push_back(j);  // float64 is the last stage
                if (!(gap[at(j)] < before[i] / 4)) exact[at(j)] = true;
            }
            if (!worse.empty()) certify(worse);
            open = rest;
        }
    }

private:
    static std::size_t at(int64_t i) { return static_cast<std::size_t>(i); }
    double* slope(int64_t j) { return slope_.data() + j * K_; }

    int64_t improve(Target& target, int64_t j, Tolerance tolerance, int64_t limit) {
        target.load(cross(j), energy(j));
        target.set_penalty(edge(j), ridge(j));
        target.start(values(j), slope(j));
        const int64_t done = target.solve(tolerance, std::min(limit, most_passes));
        target.write(values(j));
        return done;
    }

    // Coordinate descent in float64 over all groups. After 10, 20, 40, ... sweeps, solve_signs is tried: it finds the
    // minimum if the signs are right.
    int64_t polish(int64_t j, Tolerance tolerance, int64_t limit) {
        const double edge = this->edge(j), ridge = this->ridge(j);
        std::vector<double> b(values(j), values(j) + K_), pull(slope(j), slope(j) + K_);
        for (int64_t k = 0; k < K_; ++k) pull[at(k)] -= ridge * b[at(k)];
        int64_t sweep = 0;
        for (int64_t next = 10; sweep < limit; ++sweep) {
            const auto [now, share] = gap_of(b.data(), pull.data(), j);
            if (now <= tolerance.of(share)) break;
            if (sweep == next) {
                next *= 2;
                std::vector<double> exact = solve_signs(b, j), after = pull_of(exact, j);
                if (gap_of(exact.data(), after.data(), j).first < now) b = exact, pull = after;
            }
            for (int64_t k = 0; k < K_; ++k) {
                const double own = problem_.gram[k * K_ + k], ahead = pull[at(k)] + (own + ridge) * b[at(k)];
                const double wanted = own > 0 ? (ahead - std::clamp(ahead, -edge, edge)) / (own + ridge) : 0;
                const double step = wanted - b[at(k)];
                if (step == 0) continue;
                b[at(k)] = wanted;
                move(pull, k, step, ridge);
            }
        }
        std::transform(b.begin(), b.end(), values(j), [](double value) { return static_cast<float>(value); });
        return sweep;
    }

    void move(std::vector<double>& pull, int64_t k, double step, double ridge) const {
        for (int64_t i = 0; i < K_; ++i) pull[at(i)] -= problem_.gram[k * K_ + i] * step;
        pull[at(k)] -= ridge * step;
    }

    std::vector<double> pull_of(const std::vector<double>& b, int64_t j) const {
        std::vector<double> pull(cross(j), cross(j) + K_);
        for (int64_t k = 0; k < K_; ++k)
            if (b[at(k)] != 0) move(pull, k, b[at(k)], ridge(j));
        return pull;
    }

    // The minimum, if its signs are those of b, by Cholesky's method. If not, the gap of the result is large.
    std::vector<double> solve_signs(const std::vector<double>& b, int64_t j) const {
        std::vector<int64_t> index;
        for (int64_t k = 0; k < K_; ++k)
            if (b[at(k)] != 0) index.push_back(k);
        const std::size_t count = index.size();
        std::vector<double> lower(count * count), x(count), all(at(K_));
        for (std::size_t p = 0; p < count; ++p) {
            const double own = problem_.gram[index[p] * K_ + index[p]];
            x[p] = cross(j)[index[p]] - std::copysign(edge(j), b[at(index[p])]);
            for (std::size_t q = 0; q <= p; ++q) {
                double sum = problem_.gram[index[p] * K_ + index[q]] + (p == q ? ridge(j) + 1e-12 * own : 0);
                for (std::size_t t = 0; t < q; ++t) sum -= lower[p * count + t] * lower[q * count + t];
                // a pivot that rounding made 0 or negative belongs to a group that is a combination of others
                lower[p * count + q] = p == q ? std::sqrt(std::max(sum, 1e-12 * own)) : sum / lower[q * count + q];
            }
            for (std::size_t t = 0; t < p; ++t) x[p] -= lower[p * count + t] * x[t];
            x[p] /= lower[p * count + p];
        }
        for (std::size_t p = count; p-- > 0;) {
            for (std::size_t t = p + 1; t < count; ++t) x[p] -= lower[t * count + p] * x[t];
            x[p] /= lower[p * count + p];
            all[at(index[p])] = x[p];
        }
        return all;
    }

    // Relative duality gap, and residual sum of squares / energy.
    std::pair<double, double> gap_of(const double* b, const double* pull, int64_t j) const {
        double most = 0, fit = energy(j), shared = 0;
        for (int64_t k = 0; k < K_; ++k) {
            most = std::max(most, std::abs(pull[k]));
            fit -= b[k] * cross(j)[k];
            shared += b[k] * pull[k];
        }
        const double square = std::max(fit - shared, 0.0), edge = this->edge(j);
        const double limit = most > 0 ? edge / most : infinity;
        const double scale = square > 0 ? std::clamp(fit / square, -limit, limit) : std::min(1.0, limit);
        double sum = (1 - scale) * (1 - scale) * square / 2;
        for (int64_t k = 0; k < K_; ++k) sum += std::abs(b[k]) * edge - scale * b[k] * pull[k];
        return {std::max(sum, 0.0) / (energy(j) / 2), square / energy(j)};
    }

    // Slopes and gaps of these targets at their values, in float64.
    void certify(const std::vector<int64_t>& which) {
        const Sparse sparse(K_, which.size(), [&](std::size_t j) { return values(which[j]); });
        multiply(problem_.gram, K_, K_, true, sparse, tile_, [&](int64_t i, int64_t rows, std::size_t j, double* sums) {
            for (int64_t r = i; r < i + rows; ++r) slope(which[j])[r] = cross(which[j])[r] - sums[r - i];
        });
        std::vector<double> b(at(K_)), pull(at(K_));
        for (const int64_t j : which) {
            for (int64_t k = 0; k < K_; ++k) {
                b[at(k)] = static_cast<double>(values(j)[k]);
                pull[at(k)] = slope(j)[k] - ridge(j) * b[at(k)];
            }
            std::tie(gap[at(j)], left[at(j)]) = gap_of(b.data(), pull.data(), j);
        }
    }

    const Quadratic& problem_;
    int64_t K_;
    double l1_ratio_;
    int64_t first_, targets_;
    std::vector<double> cross_, slope_, tile_;  // cross, slope, values: (targets, groups)
    std::vector<float> values_;
};

// Rounding values to float32 costs a relative gap of about 1e-7.
Tolerance tolerance_of(const LassoOptions& options) { return {options.tolerance, std::min(options.tolerance, 2e-7)}; }

// Whether a path may end; docs/lasso-solver.md has the rule.
class Watch {
public:
    // null: the error of values 0
    Watch(const Stopping& stopping, double null) : stopping_(stopping), null_(null) {}

    bool better(const Target::Judged& now) {
        moved_ = now.error != last_;
        last_ = now.error;
        if (!(now.error < least_.error)) return false;
        least_ = now;
        worse_ = 0;
        return true;
    }

    double least() const { return std::min(least_.error, null_); }

    // Called where the error is not the least. apart(): |X (b - best)|^2 on the held-out rows.
    template <class Apart>
    bool enough(Apart apart) {
        if (stopping_.patience == 0) return false;
        worse_ += moved_;
        const double row = std::max(least_.error, 0.0) / static_cast<double>(stopping_.held_rows);
        const auto error_of = [&](double square) { return 2 * std::sqrt(row * std::max(square, 0.0)); };
        const bool left = null_ - least_.error > departed * error_of(least_.square);
        if (left && worse_ >= stopping_.patience) return true;
        const double rise = last_ - least_.error;
        return worse_ > 1 && rise > 1e-6 * null_ && rise > risen * error_of(apart());
    }

private:
    static constexpr double departed = 4, risen = 3;  // standard errors
    const Stopping& stopping_;
    double null_, last_ = infinity;
    Target::Judged least_{infinity, 0};
    int64_t worse_ = 0;
    bool moved_ = false;
};

constexpr int64_t most_targets = 256;  // targets that share one reading of the Gram matrix

template <class Work>
void by_blocks(int64_t targets, int threads, Work work) {
    const int64_t most = threads == 1 ? targets : targets / (int64_t{4} * threads);
    const int64_t size = std::clamp<int64_t>(most, 1, most_targets);
    parallel(round_up(targets, size) / size, threads, [&] { return work(size); });
}

void write_out(Block& block, const Quadratic& problem, int64_t first, int64_t targets, float* values, double* gap) {
    for (int64_t k = 0; k < problem.groups; ++k)
        for (int64_t j = 0; j < targets; ++j) values[k * problem.targets + first + j] = block.values(j)[k];
    std::copy_n(block.gap.data(), targets, gap + first);
}

}  // namespace

void lasso(const Quadratic& problem, const double* penalty, const float* start, const LassoOptions& options,
           float* values, double* gap, int64_t* iterations) {
    const int64_t K = problem.groups, n = problem.targets;
    const Padded gram(problem.gram, K, "gram", options.threads);
    const Tolerance tolerance = tolerance_of(options);
    by_blocks(n, options.threads, [&](int64_t size) {
        return [&, size, target = Target(gram, nullptr)](int64_t item) mutable {
            const int64_t first = item * size, count = std::min(size, n - first);
            Block block(problem, options.l1_ratio, first, count);
            for (int64_t j = 0; j < count; ++j) {
                const auto i = static_cast<std::size_t>(j);
                block.penalty[i] = penalty[first + j];
                bool good = block.finite(j) && std::isfinite(penalty[first + j]), warm = false;
                for (int64_t k = 0; k < K && start != nullptr; ++k) {
                    block.values(j)[k] = start[k * n + first + j];
                    good &= std::isfinite(start[k * n + first + j]);
                    if (!(problem.gram[k * K + k] > 0)) block.values(j)[k] = 0;
                    warm |= block.values(j)[k] != 0;
                }
                block.gap[i] = good ? 0 : nan;
                if (!good || warm || block.constant(j) || options.limit == 0) continue;
                target.load(block.cross(j), block.energy(j));
                target.set_penalty(block.edge(j), block.ridge(j));
                block.iterations[i] = target.solve_safely(tolerance.half(), std::min(options.limit, most_passes));
                target.write(block.values(j));
            }
            block.finish(target, tolerance, options.limit);
            write_out(block, problem, first, count, values, gap);
            std::copy_n(block.iterations.data(), count, iterations + first);
        };
    });
}

void lasso_path(const Quadratic& train, const Quadratic& held, const double* steps, int64_t count,
                const Stopping& stopping, const LassoOptions& options, double* error, float* values, double* gap,
                int32_t* nonzeros) {
    const int64_t K = train.groups, n = train.targets;
    const Padded gram(train.gram, K, "gram", options.threads), judge(held.gram, K, "held_gram", options.threads);
    const double ratio = (1 - options.l1_ratio) / options.l1_ratio;
    const Tolerance last = tolerance_of(options), rough{10 * options.tolerance, 1e-3 * options.tolerance};
    by_blocks(n, options.threads, [&](int64_t size) {
        return [&, size, target = Target(gram, &judge), best = std::vector<float>()](int64_t item) mutable {
            const int64_t first = item * size, targets = std::min(size, n - first);
            Block block(train, options.l1_ratio, first, targets), other(held, options.l1_ratio, first, targets);
            std::vector<int64_t> place(static_cast<std::size_t>(targets));
            for (int64_t j = 0; j < targets; ++j) {
                const auto index = static_cast<std::size_t>(j);
                const bool good = block.finite(j) && other.finite(j), constant = !good || block.constant(j);
                for (int64_t i = 0; i < count; ++i) {
                    error[i * n + first + j] = good ? infinity : nan;
                    nonzeros[i * n + first + j] = 0;
                }
                block.gap[index] = good ? 0 : nan;
                if (!good) continue;
                if (!constant) target.load(block.cross(j), block.energy(j));
                int64_t& least_at = place[index];
                Watch watch(stopping, other.energy(j));
                best.clear();
                for (int64_t i = 0; i < count; ++i) {
                    Target::Judged now{other.energy(j), 0};
                    if (!constant) {
                        const double edge = steps[i] * target.top();
                        target.set_penalty(edge, edge * ratio);
                        const double ahead = i > 1 ? (steps[i - 1] - steps[i]) / (steps[i - 2] - steps[i - 1]) : 0;
                        if (i > 0) target.extrapolate(static_cast<float>(std::min(2.0, ahead)));
                        // No more accuracy than the held-out rows can show: with fewer training rows than groups,
                        // their own residual, which the tolerance goes by, comes near 0.
                        const double told = rough.share * watch.least() / other.energy(j);
                        target.solve_safely({rough.share, std::max(rough.least, told)}, options.limit);
                        now = target.held_error(other.cross(j), now.error);
                        nonzeros[i * n + first + j] = static_cast<int32_t>(target.active());
                    }
                    error[i * n + first + j] = now.error;
                    if (watch.better(now)) {
                        least_at = i;
                        if (!constant) target.keep(best);
                        continue;
                    }
                    const auto apart = [&] { return target.held_apart(best); };
                    if (!constant && watch.enough(apart)) break;
                }
                if (constant) continue;
                const double edge = steps[least_at] * target.top();
                target.set_penalty(edge, edge * ratio);
                block.penalty[index] = edge / options.l1_ratio;
                target.restore(best);
                target.solve_safely(last.half(), options.limit);
                target.write(block.values(j));
            }
            block.finish(target, last, options.limit);
            write_out(block, train, first, targets, values, gap);
            for (int64_t j = 0; j < targets; ++j) {
                int32_t& active = nonzeros[place[static_cast<std::size_t>(j)] * n + first + j];
                active = 0;
                for (int64_t k = 0; k < K; ++k) active += block.values(j)[k] != 0;
            }
        };
    });
}

void sparse_product(const double* gram, int64_t rows, int64_t cols, const float* values, int64_t targets, double* out,
                    int threads) {
    by_blocks(targets, threads, [&](int64_t size) {
        return [&, size, tile = std::vector<double>(), turned = std::vector<float>()](int64_t item) mutable {
            const int64_t first = item * size, count = std::min(size, targets - first);
            turned.resize(static_cast<std::size_t>(count * cols));
            for (int64_t k = 0; k < cols; k += 16)
                for (int64_t j = 0; j < count; ++j)
                    for (int64_t i = k; i < std::min(k + 16, cols); ++i)
                        turned[static_cast<std::size_t>(j * cols + i)] = values[i * targets + first + j];
            const Sparse sparse(cols, static_cast<std::size_t>(count),
                                [&](std::size_t j) { return turned.data() + j * static_cast<std::size_t>(cols); });
            multiply(gram, rows, cols, false, sparse, tile, [&](int64_t i, int64_t wide, std::size_t j, double* sums) {
                double* to = out + i * targets + first + static_cast<int64_t>(j);
                for (int64_t r = 0; r < wide; ++r) to[r * targets] = sums[r];
            });
        };
    });
}

}  // namespace pydt
