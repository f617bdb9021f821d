// pydt._core: the same on the GPU. Addresses are integers, as torch's `data_ptr()` gives them.
#include "arguments.hpp"

namespace {

template <class T>
T* address(std::uintptr_t value, const char* name) {
    if (value == 0) throw ArgumentError(name, "is a null address");
    return reinterpret_cast<T*>(value);
}

// A misaligned address would be a fault in the kernel.
template <class T>
T* numbers(std::uintptr_t value, const char* name) {
    if (value % sizeof(T) != 0)
        throw ArgumentError(name, "is not aligned to its numbers of " + std::to_string(sizeof(T)) + " bytes");
    return address<T>(value, name);
}

// Calls with a float or a double.
template <class Call>
void of_type(const std::string& dtype, Call call) {
    if (dtype == "float32")
        call(float{});
    else if (dtype == "float64")
        call(double{});
    else
        throw ArgumentError("dtype", "must be float32 or float64, not " + dtype);
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

void cuda_expand_masks(std::uintptr_t packed, int64_t rows, int64_t groups, std::uintptr_t index, int64_t count,
                       std::uintptr_t out, int64_t leading, const std::string& dtype, std::uintptr_t stream) {
    not_negative(rows, "rows");
    not_negative(groups, "groups");
    not_negative(count, "count");
    if (leading < groups)
        throw ArgumentError("leading", std::to_string(leading) + " is below the " + std::to_string(groups) + " groups");
    of_type(dtype, [&](auto type) {
        using T = decltype(type);
        pydt::checked_size("count", {count, leading, static_cast<int64_t>(sizeof(T))});
        if (index == 0 && count > rows)
            throw ArgumentError("count", std::to_string(count) + " is above the " + std::to_string(rows) + " rows");
        if (count == 0 || groups == 0) return;
        const pydt::Masks masks{rows > 0 ? address<const std::uint8_t>(packed, "packed") : nullptr, rows, groups,
                                pydt::packed_bytes(groups)};
        const pydt::Rows which{index == 0 ? nullptr : numbers<const int64_t>(index, "index"), count};
        T* to = numbers<T>(out, "out");
        const Unlocked unlocked;
        pydt::cuda_expand_masks(masks, which, to, leading, stream);
    });
}

void cuda_pooled_errors(std::uintptr_t centred, const py::object& scale, const py::object& weight,
                        const py::object& rho, const py::object& energy, const py::object& noise, double df,
                        std::uintptr_t values, std::uintptr_t errors, const std::string& dtype,
                        std::uintptr_t stream) {
    const py::array scales = dense<double>(scale, "scale", 1), energies = dense<double>(energy, "energy", 1);
    const int64_t groups = scales.shape(0), targets = energies.shape(0);
    const py::array weights = vector<double>(weight, "weight", groups), rhos = vector<double>(rho, "rho", groups),
                    noises = vector<double>(noise, "noise", targets);
    if (!(df > 0)) throw ArgumentError("df", "must be positive");
    const pydt::Pooling how{data<double>(scales),   data<double>(weights), data<double>(rhos),
                            data<double>(energies), data<double>(noises),  df};
    of_type(dtype, [&](auto type) {
        using T = decltype(type);
        pydt::checked_size("centred", {groups, targets, static_cast<int64_t>(sizeof(T))});
        if (groups == 0 || targets == 0) return;
        const T* from = numbers<const T>(centred, "centred");
        auto *to = numbers<float>(values, "values"), *beside = numbers<float>(errors, "errors");
        const Unlocked unlocked;
        pydt::cuda_pooled_errors(from, groups, targets, how, to, beside, stream);
    });
}

void cuda_proximal_step(std::uintptr_t values, std::uintptr_t moved, std::uintptr_t slope, std::uintptr_t push,
                        std::uintptr_t cross, std::uintptr_t diagonal, std::uintptr_t state, int64_t groups,
                        int64_t targets, double spread, double steep, int64_t limit, const std::string& dtype,
                        std::uintptr_t stream) {
    not_negative(groups, "groups");
    not_negative(targets, "targets");
    of_type(dtype, [&](auto type) {
        using T = decltype(type);
        pydt::checked_size("values", {groups, targets, static_cast<int64_t>(sizeof(T))});
        if (groups == 0 || targets == 0) return;
        const pydt::ProximalStep<T> step{numbers<T>(values, "values"),
                                         numbers<T>(moved, "moved"),
                                         numbers<T>(slope, "slope"),
                                         numbers<const T>(push, "push"),
                                         numbers<const T>(cross, "cross"),
                                         numbers<const T>(diagonal, "diagonal"),
                                         numbers<T>(state, "state"),
                                         groups,
                                         targets,
                                         static_cast<T>(spread),
                                         static_cast<T>(steep),
                                         static_cast<T>(limit)};
        const Unlocked unlocked;
        pydt::cuda_proximal_step(step, stream);
    });
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
    module.def("cuda_expand_masks", &cuda_expand_masks, arg("packed"), arg("rows"), arg("groups"), arg("index"),
               arg("count"), arg("out"), arg("leading"), arg("dtype"), arg("stream"));
    module.def("cuda_pooled_errors", &cuda_pooled_errors, arg("centred"), arg("scale"), arg("weight"), arg("rho"),
               arg("energy"), arg("noise"), arg("df"), arg("values"), arg("errors"), arg("dtype"), arg("stream"));
    module.def("cuda_proximal_step", &cuda_proximal_step, arg("values"), arg("moved"), arg("slope"), arg("push"),
               arg("cross"), arg("diagonal"), arg("state"), arg("groups"), arg("targets"), arg("spread"), arg("steep"),
               arg("limit"), arg("dtype"), arg("stream"));
}
