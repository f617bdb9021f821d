// Penalised regression on a Gram matrix: coordinate descent, one target after another.
//
//   minimise  b'Gb / 2 - b'c + penalty (l1_ratio |b|_1 + (1 - l1_ratio) |b|^2 / 2)
//
// The slope c - Gb is kept for all groups, so that a coordinate that does not move costs nothing but its look. The gap is
// that of the values as they are returned, in float32, with a slope of their own; the dual point is the residual (of the
// elastic net written as a LASSO with more rows) times the best feasible number s:
//
//   gap = (1 - s)^2 |r|^2 / 2 + sum_j |b_j| (edge - s sign(b_j) slope_j),   |s slope_j| <= edge = penalty * l1_ratio
#include <algorithm>
#include <cmath>
#include <limits>

#include "pydt.hpp"
#include "threads.hpp"

namespace pydt {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

void check_gram(const Quadratic& problem, const char* name) {
    const std::size_t count = checked_size(name, {problem.groups, problem.groups});
    for (std::size_t i = 0; i < count; ++i)
        if (!std::isfinite(problem.gram[i])) throw ArgumentError(name, "has a NaN or infinite entry");
}

class Solver {
public:
    Solver(const double* gram, std::int64_t groups, double l1_ratio)
        : gram_(gram),
          groups_(groups),
          l1_ratio_(l1_ratio),
          values(static_cast<std::size_t>(groups)),
          cross(static_cast<std::size_t>(groups)),
          slope(static_cast<std::size_t>(groups)) {}

private:
    const double* gram_;
    std::int64_t groups_;
    double l1_ratio_;

public:
    double energy = 0;
    std::vector<double> values, cross, slope;  // slope = cross - gram values

    bool load(const Quadratic& problem, std::int64_t target) {
        energy = problem.energy[target];
        bool finite = std::isfinite(energy), zero = true;
        for (std::int64_t k = 0; k < groups_; ++k) {
            at(cross, k) = problem.cross[k * problem.targets + target];
            finite = finite && std::isfinite(at(cross, k));
            zero = zero && at(cross, k) == 0;
        }
        if (zero) energy = 0;
        std::fill(values.begin(), values.end(), 0.0);
        return finite;
    }

    double top() const {
        double most = 0;
        for (const double value : cross) most = std::max(most, std::abs(value));
        return most;
    }

    void find_slope() {
        slope = cross;
        for (std::int64_t k = 0; k < groups_; ++k)
            if (at(values, k) != 0) move(k, at(values, k));
    }

    // The duality gap over half the energy.
    double gap(double penalty) const {
        const double edge = penalty * l1_ratio_, ridge = penalty * (1 - l1_ratio_);
        double most = 0, fit = energy, shared = 0;
        for (std::int64_t k = 0; k < groups_; ++k) {
            const double pull = at(slope, k) - ridge * at(values, k);
            most = std::max(most, std::abs(pull));
            fit -= at(values, k) * at(cross, k);
            shared += at(values, k) * pull;
        }
        const double square = std::max(fit - shared, 0.0);
        const double limit = most > 0 ? edge / most : infinity;
        const double scale = square > 0 ? std::clamp(fit / square, -limit, limit) : std::min(1.0, limit);
        double sum = (1 - scale) * (1 - scale) * square / 2;
        for (std::int64_t k = 0; k < groups_; ++k) {
            const double pull = at(slope, k) - ridge * at(values, k);
            sum += std::abs(at(values, k)) * edge - scale * at(values, k) * pull;
        }
        return std::max(sum, 0.0) / (energy / 2);
    }

    // Sweeps until the gap is there; how many.
    std::int64_t solve(double penalty, double tolerance, std::int64_t limit) {
        const double edge = penalty * l1_ratio_, ridge = penalty * (1 - l1_ratio_);
        std::int64_t sweep = 0;
        while (sweep < limit && !(gap(penalty) <= tolerance)) {
            ++sweep;
            for (std::int64_t k = 0; k < groups_; ++k) {
                const double own = gram_[k * groups_ + k], pull = at(slope, k) + own * at(values, k);
                const double wanted =
                    own > 0 ? (pull - std::clamp(pull, -edge, edge)) / (own + ridge) : 0.0;
                const double step = wanted - at(values, k);
                if (step == 0) continue;
                at(values, k) = wanted;
                move(k, step);
            }
        }
        return sweep;
    }

private:
    static double& at(std::vector<double>& of, std::int64_t k) { return of[static_cast<std::size_t>(k)]; }
    static double at(const std::vector<double>& of, std::int64_t k) { return of[static_cast<std::size_t>(k)]; }

    void move(std::int64_t k, double step) {
        const double* row = gram_ + k * groups_;
        for (std::int64_t i = 0; i < groups_; ++i) at(slope, i) -= row[i] * step;
    }
};

// What the gap of the values is when they are rounded to what the caller gets.
double round_and_certify(Solver& solver, double penalty) {
    for (double& value : solver.values) value = static_cast<double>(static_cast<float>(value));
    solver.find_slope();
    return solver.gap(penalty);
}

}  // namespace

void lasso(const Quadratic& problem, const double* penalty, const float* start, const LassoOptions& options,
           float* values, double* gap, std::int64_t* iterations) {
    check_gram(problem, "gram");
    const std::int64_t K = problem.groups, n = problem.targets;
    parallel(n, options.threads, [&] {
        return [&, solver = Solver(problem.gram, K, options.l1_ratio)](std::int64_t j) mutable {
            gap[j] = 0, iterations[j] = 0;
            bool good = solver.load(problem, j) && std::isfinite(penalty[j]);
            for (std::int64_t k = 0; k < K && start != nullptr; ++k) {
                solver.values[static_cast<std::size_t>(k)] = static_cast<double>(start[k * n + j]);
                good = good && std::isfinite(start[k * n + j]);
            }
            if (!good) gap[j] = nan;
            if (good && solver.energy > 0) {
                solver.find_slope();
                iterations[j] = solver.solve(penalty[j], options.tolerance / 2, options.limit);
                gap[j] = round_and_certify(solver, penalty[j]);
            } else {
                std::fill(solver.values.begin(), solver.values.end(), gap[j]);
            }
            for (std::int64_t k = 0; k < K; ++k)
                values[k * n + j] = static_cast<float>(solver.values[static_cast<std::size_t>(k)]);
        };
    });
}

void lasso_path(const Quadratic& train, const Quadratic& held, const double* steps, std::int64_t count,
                std::int64_t patience, const LassoOptions& options, double* error, float* values, double* gap,
                std::int32_t* nonzeros) {
    check_gram(train, "gram");
    check_gram(held, "held_gram");
    const std::int64_t K = train.groups, n = train.targets;
    parallel(n, options.threads, [&] {
        return [&, solver = Solver(train.gram, K, options.l1_ratio), judge = Solver(held.gram, K, options.l1_ratio),
                best = std::vector<double>()](std::int64_t j) mutable {
            const bool good = solver.load(train, j) && judge.load(held, j);
            best.assign(static_cast<std::size_t>(K), good ? 0.0 : nan);
            gap[j] = good ? 0.0 : nan;
            const double top = solver.top() / options.l1_ratio;
            double least = infinity, penalty = 0;
            for (std::int64_t i = 0, place = 0; i < count; ++i) {
                error[i * n + j] = good ? infinity : nan;
                nonzeros[i * n + j] = 0;
                if (!good || (patience > 0 && i - place > patience)) continue;
                if (solver.energy > 0) {
                    solver.find_slope();
                    solver.solve(steps[i] * top, options.tolerance / 2, options.limit);
                }
                judge.values = solver.values;
                judge.find_slope();
                double sum = held.energy[j];
                for (std::size_t k = 0; k < best.size(); ++k) {
                    sum -= judge.values[k] * (judge.cross[k] + judge.slope[k]);
                    nonzeros[i * n + j] += judge.values[k] != 0;
                }
                error[i * n + j] = sum;
                if (sum < least) least = sum, place = i, penalty = steps[i] * top, best = solver.values;
            }
            solver.values = best;
            if (good && solver.energy > 0) gap[j] = round_and_certify(solver, penalty);
            for (std::int64_t k = 0; k < K; ++k)
                values[k * n + j] = static_cast<float>(solver.values[static_cast<std::size_t>(k)]);
        };
    });
}

void sparse_product(const double* gram, std::int64_t rows, std::int64_t cols, const float* values,
                    std::int64_t targets, double* out, int threads) {
    parallel(rows, threads, [&] {
        return [&](std::int64_t i) {
            double* sums = out + i * targets;
            std::fill_n(sums, targets, 0.0);
            for (std::int64_t k = 0; k < cols; ++k)
                for (std::int64_t j = 0; j < targets; ++j)
                    sums[j] += gram[i * cols + k] * static_cast<double>(values[k * targets + j]);
        };
    });
}

}  // namespace pydt
