// The kernels compiled for this instruction set (flags: CMakeLists.txt).
#define PYDT_KERNELS kernels_scalar
#define PYDT_ISA_NAME "scalar"
#include "kernels.inl"
