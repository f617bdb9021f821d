// Replaces the .cu files in a build without CUDA.
#include "../pydt.hpp"

namespace pydt {
namespace {
[[noreturn]] void refuse() {
    throw std::runtime_error("this build of pydt has no CUDA code: build it where nvcc is found");
}
}  // namespace

bool cuda_built() { return false; }
bool cuda_usable() { return false; }
void cuda_gather(const Images&, const std::int64_t*, const std::int64_t*, const Batch&, const Augmentation&,
                 std::uintptr_t) {
    refuse();
}

}  // namespace pydt
