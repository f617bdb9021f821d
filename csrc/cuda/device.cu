// Whether a GPU is usable, found out at run time: the CUDA runtime is linked statically and loads the driver itself, so
// the module can be imported on machines without one.
#include "device.cuh"

namespace pydt {

bool cuda_built() { return true; }

bool cuda_usable() {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess) {
        cudaGetLastError();  // clears the error, which the next call would report
        return false;
    }
    for (int device = 0; device < devices; ++device) {
        int major = 0;
        if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major >= 8)
            return true;
    }
    return false;
}

}  // namespace pydt
