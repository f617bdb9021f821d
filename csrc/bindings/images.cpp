// pydt._core: batches of raw images, windows and sizes of encoded ones.
#include "arguments.hpp"

namespace {

// Whether the array is dense in this order of dimensions, the last one fastest.
bool dense_as(const py::array& array, std::initializer_list<py::ssize_t> order) {
    if (array.size() == 0) return true;  // strides of an empty array and of dimensions of one entry do not matter
    py::ssize_t stride = array.itemsize();
    for (auto dimension = std::rbegin(order); dimension != std::rend(order); ++dimension) {
        if (array.shape(*dimension) > 1 && array.strides(*dimension) != stride) return false;
        stride *= array.shape(*dimension);
    }
    return true;
}

pydt::Batch batch_of(py::array& out) {
    pydt::Pixel type;
    if (is_type(out, 'f', 4))
        type = pydt::Pixel::f32;
    else if (is_type(out, 'f', 2))
        type = pydt::Pixel::f16;
    else if (is_type(out, 'u', 2))
        type = pydt::Pixel::bf16;
    else
        wrong_type(out, "out", "float32, float16, or uint16 for the bits of bfloat16");
    if (!out.writeable()) throw ArgumentError("out", "is read-only");
    if (!aligned(out)) throw ArgumentError("out", "is not aligned");
    const bool planes = dense_as(out, {0, 1, 2, 3});
    if (!planes && !dense_as(out, {0, 2, 3, 1}))
        throw ArgumentError("out", "must be dense, as NCHW or as channels_last");
    return {out.mutable_data(), out.shape(0), out.shape(2), out.shape(3), !planes, type};
}

void gather(const py::object& images, const py::object& index, const py::object& ids, const py::object& out,
            const py::object& mean, const py::object& std, int64_t crop_pad, bool flip, const py::object& seed,
            const py::object& epoch, int threads, int64_t view, const Range& scale, const Range& ratio) {
    const py::array from = dense<std::uint8_t>(images, "images", 4);
    py::array to = array_of(out, "out", 4);
    const pydt::Batch batch = batch_of(to);
    const pydt::Images all{data<std::uint8_t>(from), from.shape(0), from.shape(1), from.shape(2), from.shape(3)};
    if (to.shape(1) != all.channels)
        throw ArgumentError("out", "has the shape " + shape_of(to) + " for images of the shape " + shape_of(from) +
                                       "; it must be (batch, channels, height, width)");
    const py::array rows = vector<int64_t>(index, "index", batch.count),
                    names = vector<int64_t>(ids, "ids", batch.count);
    const py::array means = vector<float>(mean, "mean", all.channels), stds = vector<float>(std, "std", all.channels);
    const pydt::Augmentation how = augmentation_of(means, stds, crop_pad, flip, seed, epoch, view, scale, ratio);
    thread_count(threads);
    const Unlocked unlocked;
    pydt::gather(all, data<int64_t>(rows), data<int64_t>(names), batch, how, threads);
}

py::tuple crop_windows(const py::object& sizes, const py::object& ids, const std::array<double, 2>& scale,
                       const std::array<double, 2>& ratio, bool flip, const py::object& seed, const py::object& epoch,
                       int64_t view) {
    const py::array sides = dense<std::int32_t>(sizes, "sizes", 2);
    if (sides.shape(1) != 2) throw ArgumentError("sizes", "has the shape " + shape_of(sides) + ", not (n, 2)");
    const int64_t count = sides.shape(0);
    const py::array names = vector<int64_t>(ids, "ids", count);
    const py::array_t<float> none(0);
    const pydt::Augmentation how = augmentation_of(none, none, 0, flip, seed, epoch, view, scale, ratio);
    auto start = make<std::int32_t>("sizes", count, 2), extent = make<std::int32_t>("sizes", count, 2);
    py::array_t<std::int32_t> mirrored(count);
    std::int32_t *tops = start.mutable_data(), *extents = extent.mutable_data(), *mirrors = mirrored.mutable_data();
    static_assert(sizeof(pydt::Sides) == 2 * sizeof(std::int32_t));
    {
        const Unlocked unlocked;
        pydt::crop_windows(static_cast<const pydt::Sides*>(sides.data()), data<int64_t>(names), count, how, tops,
                           extents, mirrors);
    }
    return py::make_tuple(start, extent, mirrored);
}

py::array_t<std::int32_t> image_sides(const py::list& records) {
    auto out = make<std::int32_t>("records", static_cast<int64_t>(records.size()), 2);
    std::int32_t* to = out.mutable_data();
    for (const py::handle record : records) {
        const py::array bytes = dense<std::uint8_t>(py::reinterpret_borrow<py::object>(record), "records", 1);
        const pydt::Sides sides = pydt::image_sides(data<std::uint8_t>(bytes), bytes.shape(0));
        *to++ = sides.height;
        *to++ = sides.width;
    }
    return out;
}

}  // namespace

void register_images(py::module_& module) {
    using py::arg;
    module.def("gather", &gather, arg("images"), arg("index"), arg("ids"), arg("out"), arg("mean"), arg("std"),
               arg("crop_pad"), arg("flip"), arg("seed"), arg("epoch"), arg("threads"), arg("view") = 0,
               arg("scale") = py::none(), arg("ratio") = py::none());
    module.def("crop_windows", &crop_windows, arg("sizes"), arg("ids"), arg("scale"), arg("ratio"), arg("flip"),
               arg("seed"), arg("epoch"), arg("view") = 0);
    module.def("image_sides", &image_sides, arg("records"));
}
