// From the sums of a tile of targets to differences of means and their standard errors.
//
//   centred  c = cross - share total'                          (groups, targets) from (groups,) and (targets,)
//   values   scale c
//   errors   sqrt(scale (s^2 + rho max(t - s^2, 0))),  t = max(energy - weight c^2, 0) / df
//
// t is the variance of outputs among rows with the group and among rows without it; s^2 = noise is the variance that
// remains after all groups.
//
// One pass each over a tile that fits the cache; array expressions took eight. In float32 if c is float32, at an error
// of 1e-7 of t; the caller repeats targets that need more in float64.
#include <algorithm>
#include <cmath>
#include <vector>

#include "pydt.hpp"

namespace pydt {

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
