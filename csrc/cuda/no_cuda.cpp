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
template <class T>
void cuda_expand_masks(const Masks&, const Rows&, T*, std::int64_t, std::uintptr_t) {
    refuse();
}
template <class T>
void cuda_pooled_errors(const T*, std::int64_t, std::int64_t, const Pooling&, float*, float*, std::uintptr_t) {
    refuse();
}
template <class T>
void cuda_proximal_step(const ProximalStep<T>&, std::uintptr_t) {
    refuse();
}
template void cuda_expand_masks(const Masks&, const Rows&, float*, std::int64_t, std::uintptr_t);
template void cuda_expand_masks(const Masks&, const Rows&, double*, std::int64_t, std::uintptr_t);
template void cuda_pooled_errors(const float*, std::int64_t, std::int64_t, const Pooling&, float*, float*,
                                 std::uintptr_t);
template void cuda_pooled_errors(const double*, std::int64_t, std::int64_t, const Pooling&, float*, float*,
                                 std::uintptr_t);
template void cuda_proximal_step(const ProximalStep<float>&, std::uintptr_t);
template void cuda_proximal_step(const ProximalStep<double>&, std::uintptr_t);

}  // namespace pydt
