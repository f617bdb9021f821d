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

pydt::Masks device_masks(std::uintptr_t packed, int64_t rows, int64_t groups) {
    return {address<const std::uint8_t>(packed, "packed"), not_negative(rows, "rows"), not_negative(groups, "groups"),
            pydt::packed_bytes(groups)};
}

void cuda_gram(std::uintptr_t packed, int64_t rows, int64_t groups, std::uintptr_t out, std::uintptr_t stream) {
    const Unlocked unlocked;
    pydt::cuda_gram(device_masks(packed, rows, groups), address<int64_t>(out, "out"), stream);
}

void cuda_subset_sums(std::uintptr_t packed, int64_t rows, int64_t groups, std::uintptr_t outputs, int64_t cols,
                      const std::string& dtype, int64_t row_stride, int64_t col_stride, std::uintptr_t shift,
                      std::uintptr_t out, std::uintptr_t stream) {
    pydt::Float type;
    if (dtype == "float16")
        type = pydt::Float::f16;
    else if (dtype == "float32")
        type = pydt::Float::f32;
    else if (dtype == "float64")
        type = pydt::Float::f64;
    else
        throw ArgumentError("dtype", "must be float16, float32 or float64, not " + dtype);
    const int64_t size = type == pydt::Float::f16 ? 2 : type == pydt::Float::f32 ? 4 : 8;
    // a misaligned address would be a fault in the kernel
    if (outputs % static_cast<std::uintptr_t>(size) != 0) throw ArgumentError("outputs", "is not aligned");
    if (row_stride % size != 0) throw ArgumentError("row_stride", "must be a multiple of the element size, in bytes");
    if (col_stride % size != 0) throw ArgumentError("col_stride", "must be a multiple of the element size, in bytes");
    const pydt::Matrix matrix{address<const std::uint8_t>(outputs, "outputs"),
                              rows,
                              not_negative(cols, "cols"),
                              row_stride,
                              col_stride,
                              type};
    const Unlocked unlocked;
    pydt::cuda_subset_sums(device_masks(packed, rows, groups), matrix, address<const double>(shift, "shift"),
                           address<double>(out, "out"), stream);
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
    module.def("cuda_gram", &cuda_gram, arg("packed"), arg("rows"), arg("groups"), arg("out"), arg("stream"));
    module.def("cuda_subset_sums", &cuda_subset_sums, arg("packed"), arg("rows"), arg("groups"), arg("outputs"),
               arg("cols"), arg("dtype"), arg("row_stride"), arg("col_stride"), arg("shift"), arg("out"),
               arg("stream"));
}
