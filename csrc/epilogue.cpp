// From the sums of a tile of targets to differences of means and their standard errors.
//
//   centred  c = cross - share total'                          (groups, targets) from (groups,) and (targets,)
//   values   scale c
//   errors   sqrt(scale (s^2 + rho max(t - s^2, 0))),  t = max(energy - weight c^2, 0) / df
//
// t is the variance of outputs among rows with the group and among rows without it; s^2 = noise is the variance that
// remains after all groups.
//
// triangle_squares: kernels/triangle.inl.
//
// One pass each over a tile that fits the cache; array expressions took eight. In float32 if c is float32, at an error
// of 1e-7 of t; the caller repeats targets that need more in float64.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/kernels.hpp"
#include "pydt.hpp"
#include "threads.hpp"

namespace pydt {

std::int64_t triangle_size(std::int64_t groups) {
    const std::int64_t panels = (groups + panel_rows - 1) / panel_rows;
    return panels * (panels + 1) / 2 * panel_rows * panel_rows;
}

void triangle_panels(const double* lower, std::int64_t groups, float* panels) {
    std::vector<double> inverse(panel_rows * panel_rows);
    for (std::int64_t first = 0; first < groups; first += panel_rows) {
        const std::int64_t have = std::min(panel_rows, groups - first);
        const auto at = [&](std::int64_t row, std::int64_t k) { return lower[(first + row) * groups + k]; };
        for (std::int64_t k = 0; k < first; ++k)
            for (std::int64_t r = 0; r < panel_rows; ++r) *panels++ = r < have ? static_cast<float>(-at(r, k)) : 0.0F;
        // column by column: row r of (block x inverse = 1)
        std::fill(inverse.begin(), inverse.end(), 0.0);
        for (std::int64_t k = 0; k < have; ++k)
            for (std::int64_t r = k; r < have; ++r) {
                double rest = r == k ? 1 : 0;
                for (std::int64_t i = k; i < r; ++i)
                    rest -= at(r, first + i) * inverse[static_cast<std::size_t>(k * panel_rows + i)];
                inverse[static_cast<std::size_t>(k * panel_rows + r)] = rest / at(r, first + r);
            }
        for (const double value : inverse) *panels++ = static_cast<float>(value);
    }
}

void triangle_squares(const float* panels, std::int64_t groups, const float* cross, std::int64_t targets,
                      double* squares, int threads) {
    const Kernels& run = kernels();
    const std::int64_t wide = run.lane_bytes / 2,  // two vectors of float32
        rows = (groups + panel_rows - 1) / panel_rows * panel_rows;
    parallel((targets + wide - 1) / wide, threads, [&] {
        return [&, strip = scratch_of(rows * wide * 4)](std::int64_t item) mutable {
            auto* to = reinterpret_cast<float*>(strip.get());
            const std::int64_t first = item * wide, have = std::min(wide, targets - first);
            std::fill_n(to + groups * wide, (rows - groups) * wide, 0.0F);  // z stands there
            if (have < wide) std::fill_n(to, groups * wide, 0.0F);
            for (std::int64_t k = 0; k < groups; ++k)
                std::copy_n(cross + k * targets + first, have, to + k * wide);
            double found[32];
            run.triangle_squares(panels, groups, to, found);
            std::copy_n(found, have, squares + first);
        };
    });
}

template <class T>
void centred(const double* cross, std::int64_t groups, std::int64_t targets, const double* share, const double* total,
             T* out) {
    for (std::int64_t k = 0; k < groups; ++k) {
        const double part = share[k];
        for (std::int64_t j = 0; j < targets; ++j)
            out[k * targets + j] = static_cast<T>(cross[k * targets + j] - part * total[j]);
    }
}

template <class T>
void pooled_errors(const T* centred, std::int64_t groups, std::int64_t targets, const Pooling& how, float* values,
                   float* errors) {
    const auto n = static_cast<std::size_t>(targets);
    std::vector<T> level(n), noise(n);
    for (std::size_t j = 0; j < n; ++j) {
        level[j] = static_cast<T>(how.energy[j] / how.df);
        noise[j] = static_cast<T>(how.noise[j]);
    }
    for (std::int64_t k = 0; k < groups; ++k) {
        const T scale = static_cast<T>(how.scale[k]), rho = static_cast<T>(how.rho[k]);
        const T weight = static_cast<T>(how.weight[k] / how.df);
        const T* c = centred + k * targets;
        float *v = values + k * targets, *e = errors + k * targets;
        for (std::size_t j = 0; j < n; ++j) {
            const T spread = std::max(level[j] - weight * c[j] * c[j], T{0});
            const T more = std::max(spread - noise[j], T{0});
            v[j] = static_cast<float>(scale * c[j]);
            e[j] = static_cast<float>(std::sqrt(scale * (noise[j] + rho * more)));
        }
    }
}

template void centred(const double*, std::int64_t, std::int64_t, const double*, const double*, float*);
template void centred(const double*, std::int64_t, std::int64_t, const double*, const double*, double*);
template void pooled_errors(const float*, std::int64_t, std::int64_t, const Pooling&, float*, float*);
template void pooled_errors(const double*, std::int64_t, std::int64_t, const Pooling&, float*, float*);

}  // namespace pydt
