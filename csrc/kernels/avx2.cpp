// The kernels compiled for this instruction set (flags: CMakeLists.txt).
#define PYDT_KERNELS kernels_avx2
#define PYDT_ISA_NAME "avx2"
#include "kernels.inl"
