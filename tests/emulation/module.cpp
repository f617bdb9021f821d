// The Python module of the emulated kernels: the core's bindings for the GPU, and the memory of the emulated device.
#include "../../csrc/bindings/arguments.hpp"
#include "cuda_runtime.h"

void register_cuda(py::module_& module);

PYBIND11_MODULE(_emulated, module) {
    register_cuda(module);
    module.def("allocate", [](std::size_t bytes) {
        void* pointer = nullptr;
        cudaMallocAsync(&pointer, bytes, nullptr);
        return reinterpret_cast<std::uintptr_t>(pointer);
    });
    module.def("release", [](std::uintptr_t address) { cudaFreeAsync(reinterpret_cast<void*>(address), nullptr); });
    // Kernels may be given any address: for callers whose device memory is a CPU tensor's.
    module.def("accept_any_memory", [](bool accept) { emulation::device.any_memory = accept; });
}
