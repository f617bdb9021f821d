// pydt._core: the same on the GPU. Addresses are integers, as torch's `data_ptr()` gives them.
#include "arguments.hpp"

namespace {

template <class T>
T* address(std::uintptr_t value, const char* name) {
    if (value == 0) throw ArgumentError(name, "is a null address");
    return reinterpret_cast<T*>(value);
}

void cuda_gather(std::uintptr_t images, const std::array<int64_t, 4>& shape, const py::object& index,
                 const py::object& ids, std::uintptr_t out, const std::array<int64_t, 2>& size,
                 const std::string& dtype, bool channels_last, const py::object& mean, const py::object& std,
                 int64_t crop_pad, bool flip, const py::object& seed, const py::object& epoch, std::uintptr_t stream,
                 int64_t view, const Range& scale, const Range& ratio) {
    for (const int64_t length : shape) not_negative(length, "shape");
    for (const int64_t length : size) not_negative(length, "size");
    pydt::Pixel type;
    if (dtype == "float32")
        type = pydt::Pixel::f32;
    else if (dtype == "float16")
        type = pydt::Pixel::f16;
    else if (dtype == "bfloat16")
        type = pydt::Pixel::bf16;
    else
        throw ArgumentError("dtype", "must be float32, float16 or bfloat16, not " + dtype);
    const pydt::Images all{address<const std::uint8_t>(images, "images"), shape[0], shape[1], shape[2], shape[3]};
    const py::array rows = dense<int64_t>(index, "index", 1), names = vector<int64_t>(ids, "ids", rows.shape(0));
    const py::array means = vector<float>(mean, "mean", all.channels), stds = vector<float>(std, "std", all.channels);
    const pydt::Augmentation how = augmentation_of(means, stds, crop_pad, flip, seed, epoch, view, scale, ratio);
    const pydt::Batch batch{address<void>(out, "out"), rows.shape(0), size[0], size[1], channels_last, type};
    const Unlocked unlocked;
    pydt::cuda_gather(all, data<int64_t>(rows), data<int64_t>(names), batch, how, stream);
}

}  // namespace

void register_cuda(py::module_& module) {
    using py::arg;
    module.def("cuda_built", &pydt::cuda_built);
    module.def("cuda_usable", &pydt::cuda_usable);
    module.def("cuda_gather", &cuda_gather, arg("images"), arg("shape"), arg("index"), arg("ids"), arg("out"),
               arg("size"), arg("dtype"), arg("channels_last"), arg("mean"), arg("std"), arg("crop_pad"), arg("flip"),
               arg("seed"), arg("epoch"), arg("stream"), arg("view") = 0, arg("scale") = py::none(),
               arg("ratio") = py::none());
}
