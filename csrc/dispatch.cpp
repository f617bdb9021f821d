// Picks the instruction set, once, at first use.
//
// The kernels (kernels/*.inl) are compiled three times, each time with flags of its own and never with -march=native,
// so one build runs everywhere. "avx512" means F, BW, DQ, VL, VBMI and VPOPCNTDQ; a CPU with less runs "avx2". The
// environment variable PYDT_ISA names another one; a name that is unknown, or that this machine cannot run, is an
// error.
#include <cstdlib>

#include "kernels/kernels.hpp"
#include "pydt.hpp"

namespace pydt {
namespace {

struct Choice {
    const Kernels* kernels;
    bool runs_here;
};

std::vector<Choice> choices() {
    std::vector<Choice> all{{&kernels_scalar, true}};
#ifdef PYDT_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    all.push_back({&kernels_avx2, avx2});
    all.push_back({&kernels_avx512, avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                                        __builtin_cpu_supports("avx512vbmi") &&
                                        __builtin_cpu_supports("avx512vpopcntdq")});
#endif
    return all;
}

const Kernels& choose() {
    const char* wanted = std::getenv("PYDT_ISA");
    const Kernels* best = nullptr;
    std::string names;
    for (const auto& [kernels, runs_here] : choices()) {
        names += (names.empty() ? "" : ", ") + std::string(kernels->name);
        if (wanted != nullptr && kernels->name == std::string(wanted)) {
            if (!runs_here)
                throw std::runtime_error("PYDT_ISA=" + std::string(wanted) + ": this machine cannot run it");
            return *kernels;
        }
        if (runs_here) best = kernels;
    }
    if (wanted != nullptr)
        throw std::runtime_error("PYDT_ISA=" + std::string(wanted) + ": unknown; this build has " + names);
    return *best;
}

}  // namespace

const Kernels& kernels() {
    static const Kernels& chosen = choose();  // after a throw, the next use tries again
    return chosen;
}

std::string isa() { return kernels().name; }

std::vector<std::string> isas() {
    std::vector<std::string> names;
    for (const auto& [kernels, runs_here] : choices())
        if (runs_here) names.emplace_back(kernels->name);
    return names;
}

}  // namespace pydt
