// The kernels compiled for this instruction set (flags: CMakeLists.txt).
#define PYDT_KERNELS kernels_avx512
#define PYDT_ISA_NAME "avx512"
#include "kernels.inl"
