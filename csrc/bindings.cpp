// pydt._core: this file, bindings_records.cpp and arguments.hpp alone know pybind11. It checks types, shapes and strides, names the argument that is wrong
// (TypeError: wrong kind of thing; ValueError: wrong value), lets go of the GIL and calls the core.
//
// Why the GIL may be released around every call: the core touches no Python object; the arrays that it reads and writes
// are held by the arguments of the call for as long as it runs, and numpy refuses to resize an array that somebody else
// refers to. Sizes and strides were copied before. Another thread that writes into them meanwhile can spoil values, not
// memory.
#include <pybind11/stl.h>

#include <cmath>
#include <optional>

#include "arguments.hpp"

namespace {

pydt::Masks masks_of(const py::array& packed, int64_t groups) {
    not_negative(groups, "groups");
    const int64_t bytes = pydt::packed_bytes(groups);
    if (packed.shape(1) != bytes)
        throw ArgumentError("packed", "has " + std::to_string(packed.shape(1)) + " bytes a row; " +
                                          std::to_string(groups) + " groups take " + std::to_string(bytes));
    return {data<std::uint8_t>(packed), packed.shape(0), groups, bytes};
}

// Floats of any strides, read in place.
pydt::Matrix matrix_of(const py::array& outputs) {
    pydt::Float type;
    if (is_type(outputs, 'f', 2))
        type = pydt::Float::f16;
    else if (is_type(outputs, 'f', 4))
        type = pydt::Float::f32;
    else if (is_type(outputs, 'f', 8))
        type = pydt::Float::f64;
    else
        wrong_type(outputs, "outputs", "float16, float32 or float64 in native byte order");
    return {data<std::uint8_t>(outputs), outputs.shape(0),   outputs.shape(1),
            outputs.strides(0),          outputs.strides(1), type};
}

// Whether walking the dimensions in this order, the last one fastest, visits the array's memory densely.
bool dense_as(const py::array& array, std::initializer_list<py::ssize_t> order) {
    if (array.size() == 0) return true;  // strides of an empty array, and of a dimension of one entry, mean nothing
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

using Range = std::optional<std::array<double, 2>>;

pydt::Augmentation augmentation_of(const py::array& mean, const py::array& std, int64_t crop_pad, bool flip,
                                   const py::object& seed, const py::object& epoch, int64_t view, const Range& scale,
                                   const Range& ratio) {
    if (scale.has_value() != ratio.has_value()) throw ArgumentError("ratio", "goes with scale: give both or neither");
    pydt::Augmentation how{data<float>(mean), data<float>(std), crop_pad, flip, unsigned64(seed, "seed"),
                           unsigned64(epoch, "epoch"), view, scale.has_value(), {1, 1}, {0, 0}};
    for (std::size_t i = 0; scale && i < 2; ++i) {
        how.scale[i] = (*scale)[i];
        how.log_ratio[i] = std::log((*ratio)[i]);
    }
    return how;
}

// ---- functions ----------------------------------------------------------------------------------------------------
py::array_t<std::uint64_t> random_bits(const py::object& seed, const py::object& stream, const py::object& ids) {
    const py::array numbers = dense<int64_t>(ids, "ids", 1);
    const std::uint64_t key = unsigned64(seed, "seed"), counter = unsigned64(stream, "stream");
    py::array_t<std::uint64_t> out(numbers.shape(0));
    std::uint64_t* to = out.mutable_data();
    const int64_t count = numbers.shape(0);
    const Unlocked unlocked;
    pydt::random_bits(key, counter, data<int64_t>(numbers), count, to);
    return out;
}

py::array_t<int64_t> epoch_order(const py::object& seed, const py::object& epoch, const py::object& ids) {
    const py::array numbers = dense<int64_t>(ids, "ids", 1);
    const std::uint64_t key = unsigned64(seed, "seed"), when = unsigned64(epoch, "epoch");
    py::array_t<int64_t> out(numbers.shape(0));
    int64_t* to = out.mutable_data();
    const int64_t count = numbers.shape(0);
    const Unlocked unlocked;
    pydt::epoch_order(key, when, data<int64_t>(numbers), count, to);
    return out;
}

py::array_t<std::uint8_t> pack(const py::object& masks) {
    const py::array array = array_of(masks, "masks", 2);
    if (!is_type(array, 'b', 1) && !is_type(array, 'u', 1)) wrong_type(array, "masks", "bool or uint8");
    if ((array.flags() & py::array::c_style) == 0) throw ArgumentError("masks", "must be C-contiguous");
    const int64_t rows = array.shape(0), groups = array.shape(1);
    auto out = make<std::uint8_t>("masks", rows, pydt::packed_bytes(groups));
    std::uint8_t* to = out.mutable_data();
    const Unlocked unlocked;
    pydt::pack(data<std::uint8_t>(array), rows, groups, to);
    return out;
}

py::array_t<bool> unpack(const py::object& packed, int64_t groups) {
    const py::array array = dense<std::uint8_t>(packed, "packed", 2);
    const pydt::Masks masks = masks_of(array, groups);
    auto out = make<bool>("packed", masks.rows, masks.groups);
    auto* to = reinterpret_cast<std::uint8_t*>(out.mutable_data());
    const Unlocked unlocked;
    pydt::check_padding(masks);
    pydt::unpack(masks, to);
    return out;
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

py::array_t<int64_t> gram(const py::object& packed, int64_t groups, int threads) {
    const py::array array = dense<std::uint8_t>(packed, "packed", 2);
    const pydt::Masks masks = masks_of(array, groups);
    auto out = make<int64_t>("groups", groups, groups);
    int64_t* to = out.mutable_data();
    thread_count(threads);
    const Unlocked unlocked;
    pydt::gram(masks, to, threads);
    return out;
}

// A copy: nobody can change it between the check and the use.
std::optional<std::vector<int64_t>> rows_of(const py::object& rows) {
    if (rows.is_none()) return std::nullopt;
    const py::array index = dense<int64_t>(rows, "rows", 1);
    return std::vector<int64_t>(data<int64_t>(index), data<int64_t>(index) + index.shape(0));
}

pydt::Rows view(const std::optional<std::vector<int64_t>>& rows, int64_t available) {
    if (!rows) return {nullptr, available};
    static const int64_t none = 0;  // the data of an empty vector may be null, which would mean all rows
    return {rows->empty() ? &none : rows->data(), static_cast<int64_t>(rows->size())};
}

py::array_t<std::uint64_t> codes(const py::object& packed, int64_t groups, const py::object& rows) {
    const py::array array = dense<std::uint8_t>(packed, "packed", 2);
    const pydt::Masks masks = masks_of(array, groups);
    const auto index = rows_of(rows);
    const pydt::Rows which = view(index, masks.rows);
    auto out = make<std::uint64_t>("packed", pydt::code_blocks(which.count), groups);
    std::uint64_t* to = out.mutable_data();
    const Unlocked unlocked;
    pydt::codes(masks, which, to);
    return out;
}

// What subset_sums and subset_sums_int16 share: the arguments, checked, and the result's memory.
struct SumArguments {
    SumArguments(const py::object& codes, const py::object& outputs, const py::object& shift, int thread_number,
                 const py::object& which)
        : words(dense<std::uint64_t>(codes, "codes", 2)),
          values(array_of(outputs, "outputs", 2)),
          matrix(matrix_of(values)),
          index(rows_of(which)),
          rows(view(index, matrix.rows)),
          origin(vector<double>(shift, "shift", matrix.cols)),
          groups(words.shape(1)),
          threads(thread_count(thread_number)) {
        const int64_t blocks = pydt::code_blocks(rows.count);
        if (words.shape(0) != blocks)
            throw ArgumentError("codes", "has " + std::to_string(words.shape(0)) + " rows; " +
                                             std::to_string(rows.count) + " rows of outputs take " +
                                             std::to_string(blocks));
        sums = make<double>("outputs", groups, matrix.cols);
    }

    py::array words, values;
    pydt::Matrix matrix;
    std::optional<std::vector<int64_t>> index;
    pydt::Rows rows;
    py::array origin;
    int64_t groups;
    int threads;
    py::array_t<double> sums;
};

py::array_t<double> subset_sums(const py::object& codes, const py::object& outputs, const py::object& shift,
                                int threads, const py::object& rows) {
    SumArguments a(codes, outputs, shift, threads, rows);
    double* to = a.sums.mutable_data();
    {
        const Unlocked unlocked;
        pydt::subset_sums(data<std::uint64_t>(a.words), a.groups, a.matrix, a.rows, data<double>(a.origin), to,
                          a.threads);
    }
    return a.sums;
}

std::pair<py::array_t<double>, py::array_t<double>> subset_sums_int16(const py::object& codes,
                                                                      const py::object& outputs,
                                                                      const py::object& shift, int threads,
                                                                      const py::object& rows) {
    SumArguments a(codes, outputs, shift, threads, rows);
    py::array_t<double> step(a.matrix.cols);
    double *to = a.sums.mutable_data(), *to_step = step.mutable_data();
    {
        const Unlocked unlocked;
        pydt::subset_sums_int16(data<std::uint64_t>(a.words), a.groups, a.matrix, a.rows, data<double>(a.origin), to,
                                to_step, a.threads);
    }
    return {a.sums, step};
}

std::pair<py::array_t<double>, py::array_t<double>> column_moments(const py::object& outputs, const py::object& shift,
                                                                   int threads, const py::object& rows) {
    const py::array values = array_of(outputs, "outputs", 2);
    const pydt::Matrix matrix = matrix_of(values);
    const auto index = rows_of(rows);
    const pydt::Rows which = view(index, matrix.rows);
    const py::array origin = vector<double>(shift, "shift", matrix.cols);
    py::array_t<double> sums(matrix.cols), squares(matrix.cols);
    double *to_sums = sums.mutable_data(), *to_squares = squares.mutable_data();
    thread_count(threads);
    {
        const Unlocked unlocked;
        pydt::column_moments(matrix, which, data<double>(origin), to_sums, to_squares, threads);
    }
    return {sums, squares};
}

py::array_t<double> unit_squares(const py::object& outputs, const py::object& shift, const py::object& starts,
                                 const py::object& sign, int threads, const py::object& rows) {
    const py::array values = array_of(outputs, "outputs", 2);
    const pydt::Matrix matrix = matrix_of(values);
    const auto index = rows_of(rows);
    const pydt::Rows which = view(index, matrix.rows);
    const py::array origin = vector<double>(shift, "shift", matrix.cols), signs = vector<double>(sign, "sign", which.count),
                    edges = dense<int64_t>(starts, "starts", 1);
    if (edges.shape(0) == 0) throw ArgumentError("starts", "is empty");
    const std::vector<int64_t> bounds(data<int64_t>(edges), data<int64_t>(edges) + edges.shape(0));
    py::array_t<double> out(matrix.cols);
    double* to = out.mutable_data();
    thread_count(threads);
    const Unlocked unlocked;
    pydt::unit_squares(matrix, which, bounds.data(), static_cast<int64_t>(bounds.size()) - 1, data<double>(signs),
                       data<double>(origin), to, threads);
    return out;
}

// ---- penalised regression -----------------------------------------------------------------------------------------
template <class T>
py::array matrix(const py::object& value, const char* name, int64_t rows, int64_t cols) {
    py::array array = dense<T>(value, name, 2);
    if (array.shape(0) != rows || array.shape(1) != cols)
        throw ArgumentError(name, "has the shape " + shape_of(array) + ", not (" + std::to_string(rows) + ", " +
                                      std::to_string(cols) + ")");
    return array;
}

// The arrays are held by the caller's frame.
pydt::Quadratic quadratic_of(const py::object& gram, const py::object& cross, const py::object& energy,
                             const std::string& prefix, int64_t groups, int64_t targets) {
    const py::array g = matrix<double>(gram, (prefix + "gram").c_str(), groups, groups);
    const py::array c = matrix<double>(cross, (prefix + "cross").c_str(), groups, targets);
    const py::array e = vector<double>(energy, (prefix + "energy").c_str(), targets);
    return {data<double>(g), data<double>(c), data<double>(e), groups, targets};
}

py::array centred(const py::object& cross, const py::object& share, const py::object& total, bool single) {
    const py::array sums = dense<double>(cross, "cross", 2);
    const int64_t groups = sums.shape(0), targets = sums.shape(1);
    const py::array rows = vector<double>(share, "share", groups), columns = vector<double>(total, "total", targets);
    const auto run = [&](auto out) {
        auto* to = out.mutable_data();
        const Unlocked unlocked;
        pydt::centred(data<double>(sums), groups, targets, data<double>(rows), data<double>(columns), to);
        return out;
    };
    if (single) return run(make<float>("cross", groups, targets));
    return run(make<double>("cross", groups, targets));
}

py::tuple pooled_errors(const py::object& centred, const py::object& scale, const py::object& weight,
                        const py::object& rho, const py::object& energy, const py::object& noise, double df) {
    const py::array cross = array_of(centred, "centred", 2);
    const bool single = is_type(cross, 'f', 4);
    if (!single && !is_type(cross, 'f', 8)) wrong_type(cross, "centred", "float32 or float64");
    if ((cross.flags() & py::array::c_style) == 0 || !aligned(cross))
        throw ArgumentError("centred", "must be C-contiguous and aligned");
    const int64_t groups = cross.shape(0), targets = cross.shape(1);
    const py::array scales = vector<double>(scale, "scale", groups), weights = vector<double>(weight, "weight", groups),
                    shares = vector<double>(rho, "rho", groups), energies = vector<double>(energy, "energy", targets),
                    noises = vector<double>(noise, "noise", targets);
    if (!(df > 0)) throw ArgumentError("df", "must be positive");
    auto values = make<float>("centred", groups, targets), errors = make<float>("centred", groups, targets);
    float *to_values = values.mutable_data(), *to_errors = errors.mutable_data();
    const pydt::Pooling how{data<double>(scales),   data<double>(weights), data<double>(shares),
                            data<double>(energies), data<double>(noises),  df};
    {
        const Unlocked unlocked;
        if (single)
            pydt::pooled_errors(data<float>(cross), groups, targets, how, to_values, to_errors);
        else
            pydt::pooled_errors(data<double>(cross), groups, targets, how, to_values, to_errors);
    }
    return py::make_tuple(values, errors);
}

pydt::LassoOptions lasso_options(double l1_ratio, double tolerance, int64_t limit, int threads) {
    if (!(l1_ratio > 0 && l1_ratio <= 1))
        throw ArgumentError("l1_ratio", std::to_string(l1_ratio) + " is not in (0, 1]");
    if (!(tolerance > 0 && tolerance <= 1))
        throw ArgumentError("tolerance", std::to_string(tolerance) + " is not in (0, 1]");
    return {l1_ratio, tolerance, not_negative(limit, "limit"), thread_count(threads)};
}

py::tuple lasso(const py::object& gram, const py::object& cross, const py::object& energy, const py::object& penalty,
                const py::object& start, double l1_ratio, double tolerance, int64_t limit, int threads) {
    const py::array c = dense<double>(cross, "cross", 2);
    const int64_t groups = c.shape(0), targets = c.shape(1);
    const pydt::Quadratic problem = quadratic_of(gram, cross, energy, "", groups, targets);
    const py::array penalties = vector<double>(penalty, "penalty", targets);
    for (int64_t j = 0; j < targets; ++j)
        if (data<double>(penalties)[j] < 0) throw ArgumentError("penalty", "has a negative entry");
    const float* from = start.is_none() ? nullptr : data<float>(matrix<float>(start, "start", groups, targets));
    const pydt::LassoOptions options = lasso_options(l1_ratio, tolerance, limit, threads);
    auto values = make<float>("cross", groups, targets);
    py::array_t<double> gap(targets);
    py::array_t<int64_t> iterations(targets);
    float* to_values = values.mutable_data();
    double* to_gap = gap.mutable_data();
    int64_t* to_iterations = iterations.mutable_data();
    {
        const Unlocked unlocked;
        pydt::lasso(problem, data<double>(penalties), from, options, to_values, to_gap, to_iterations);
    }
    return py::make_tuple(values, gap, iterations);
}

py::tuple lasso_path(const py::object& gram, const py::object& cross, const py::object& energy,
                     const py::object& held_gram, const py::object& held_cross, const py::object& held_energy,
                     const py::object& steps, double l1_ratio, double tolerance, int64_t limit, int64_t patience,
                     int64_t held_rows, int threads) {
    const py::array c = dense<double>(cross, "cross", 2), shares = dense<double>(steps, "steps", 1);
    const int64_t groups = c.shape(0), targets = c.shape(1), count = shares.shape(0);
    const pydt::Quadratic train = quadratic_of(gram, cross, energy, "", groups, targets);
    const pydt::Quadratic held = quadratic_of(held_gram, held_cross, held_energy, "held_", groups, targets);
    if (count == 0) throw ArgumentError("steps", "is empty");
    for (int64_t i = 0; i < count; ++i) {
        const double step = data<double>(shares)[i], before = i == 0 ? HUGE_VAL : data<double>(shares)[i - 1];
        if (!(step > 0 && step < before)) throw ArgumentError("steps", "must be positive, finite and falling");
    }
    const pydt::LassoOptions options = lasso_options(l1_ratio, tolerance, limit, threads);
    const pydt::Stopping stopping{not_negative(patience, "patience"), held_rows};
    if (held_rows < 1) throw ArgumentError("held_rows", "must be at least 1");
    auto error = make<double>("steps", count, targets);
    auto values = make<float>("cross", groups, targets);
    auto nonzeros = make<std::int32_t>("steps", count, targets);
    py::array_t<double> gap(targets);
    double *to_error = error.mutable_data(), *to_gap = gap.mutable_data();
    float* to_values = values.mutable_data();
    std::int32_t* to_nonzeros = nonzeros.mutable_data();
    {
        const Unlocked unlocked;
        pydt::lasso_path(train, held, data<double>(shares), count, stopping, options, to_error, to_values, to_gap,
                         to_nonzeros);
    }
    return py::make_tuple(error, values, gap, nonzeros);
}

py::array_t<double> sparse_product(const py::object& gram, const py::object& values, int threads) {
    const py::array left = dense<double>(gram, "gram", 2);
    const int64_t rows = left.shape(0), cols = left.shape(1);
    const py::array right = dense<float>(values, "values", 2);
    const int64_t targets = right.shape(1);
    matrix<float>(values, "values", cols, targets);
    auto out = make<double>("gram", rows, targets);
    double* to = out.mutable_data();
    thread_count(threads);
    const Unlocked unlocked;
    pydt::sparse_product(data<double>(left), rows, cols, data<float>(right), targets, to, threads);
    return out;
}

// ---- the same on the GPU: addresses are integers, as torch's `data_ptr()` gives them --------------------------------
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
    // the GPU reads whole elements: an address or stride between two of them would be a fault in the kernel
    if (outputs % static_cast<std::uintptr_t>(size) != 0) throw ArgumentError("outputs", "is not aligned");
    if (row_stride % size != 0) throw ArgumentError("row_stride", "must be in bytes, and whole elements");
    if (col_stride % size != 0) throw ArgumentError("col_stride", "must be in bytes, and whole elements");
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

PYBIND11_MODULE(_core, module) {
    using py::arg;
    module.doc() = "The compiled core of pydt. Arguments are checked, never converted; see _core.pyi.";

    module.def("isa", &pydt::isa,
               "The instruction set in use; the environment variable PYDT_ISA overrides the choice.");
    module.def("isas", &pydt::isas,
               "The instruction sets that this build has and this machine can run, slowest first.");
    module.def("cuda_built", &pydt::cuda_built, "Whether this build has GPU code.");
    module.def("cuda_usable", &pydt::cuda_usable,
               "Whether a driver and a device of compute capability 8.0 or newer are there.");

    module.def("random_bits", &random_bits, "64 bits for each id, a function of (seed, stream, id): Philox4x32-10.",
               arg("seed"), arg("stream"), arg("ids"));
    module.def("epoch_order", &epoch_order, "Positions sorted by (random bits of the id, id).", arg("seed"),
               arg("epoch"), arg("ids"));
    module.def("pack", &pack, "0/1 masks (models, groups) -> uint8 (models, ceil(groups / 8)), little bit first.",
               arg("masks"));
    module.def("unpack", &unpack, "The inverse of pack: bool (models, groups).", arg("packed"), arg("groups"));
    module.def("gather", &gather, "Gathers, crops or resizes, flips and normalises images into `out`.", arg("images"),
               arg("index"), arg("ids"), arg("out"), arg("mean"), arg("std"), arg("crop_pad"), arg("flip"), arg("seed"),
               arg("epoch"), arg("threads"), arg("view") = 0, arg("scale") = py::none(), arg("ratio") = py::none());
    module.def("crop_windows", &crop_windows, "Random resized crops: start, extent, mirrored.", arg("sizes"),
               arg("ids"), arg("scale"), arg("ratio"), arg("flip"), arg("seed"), arg("epoch"), arg("view") = 0);
    module.def("gram", &gram, "Exact counts of models that kept both groups: int64 (groups, groups).", arg("packed"),
               arg("groups"), arg("threads"));
    module.def("codes", &codes, "Masks regrouped for subset_sums: uint64 (ceil(rows / 48), groups).", arg("packed"),
               arg("groups"), arg("rows") = py::none());
    module.def("subset_sums", &subset_sums,
               "Sums of (output - shift) over the models that kept each group: (groups, outputs).", arg("codes"),
               arg("outputs"), arg("shift"), arg("threads"), arg("rows") = py::none());
    module.def("subset_sums_int16", &subset_sums_int16,
               "The same with every target rounded to 511 steps either way: (groups, outputs), steps (outputs,).",
               arg("codes"), arg("outputs"), arg("shift"), arg("threads"), arg("rows") = py::none());
    module.def("column_moments", &column_moments, "Sums and sums of squares of (output - shift) down the columns.",
               arg("outputs"), arg("shift"), arg("threads"), arg("rows") = py::none());
    module.def("unit_squares", &unit_squares, "Sum over units of rows of (signed sum of (output - shift))^2 / rows.",
               arg("outputs"), arg("shift"), arg("starts"), arg("sign"), arg("threads"), arg("rows") = py::none());

    module.def("centred", &centred, "cross - share x total, in float32 or float64.", arg("cross"), arg("share"),
               arg("total"), arg("single"));
    module.def("pooled_errors", &pooled_errors, "Differences of means and their standard errors: (values, errors).",
               arg("centred"), arg("scale"), arg("weight"), arg("rho"), arg("energy"), arg("noise"), arg("df"));
    module.def("lasso", &lasso, "LASSO or elastic net at one penalty a target: (values, gap, iterations).", arg("gram"),
               arg("cross"), arg("energy"), arg("penalty"), arg("start") = py::none(), py::kw_only(),
               arg("l1_ratio") = 1.0, arg("tolerance") = 1e-6, arg("limit") = 1000, arg("threads") = 1);
    module.def("lasso_path", &lasso_path,
               "The path of penalties, judged on held-out rows: (error, values, gap, nonzeros).", arg("gram"),
               arg("cross"), arg("energy"), arg("held_gram"), arg("held_cross"), arg("held_energy"), arg("steps"),
               py::kw_only(), arg("l1_ratio") = 1.0, arg("tolerance") = 1e-6, arg("limit") = 1000, arg("patience") = 0,
               arg("held_rows") = 1, arg("threads") = 1);
    module.def("sparse_product", &sparse_product, "gram @ values in float64, passing over the zeros of values.",
               arg("gram"), arg("values"), arg("threads") = 1);

    bind_records(module);

    module.def("cuda_gather", &cuda_gather, "gather for images that lie on the GPU; index and ids are host arrays.",
               arg("images"), arg("shape"), arg("index"), arg("ids"), arg("out"), arg("size"), arg("dtype"),
               arg("channels_last"), arg("mean"), arg("std"), arg("crop_pad"), arg("flip"), arg("seed"), arg("epoch"),
               arg("stream"), arg("view") = 0, arg("scale") = py::none(), arg("ratio") = py::none());
    module.def("cuda_gram", &cuda_gram, "gram on the GPU.", arg("packed"), arg("rows"), arg("groups"), arg("out"),
               arg("stream"));
    module.def("cuda_subset_sums", &cuda_subset_sums, "subset_sums on the GPU; strides in bytes.", arg("packed"),
               arg("rows"), arg("groups"), arg("outputs"), arg("cols"), arg("dtype"), arg("row_stride"),
               arg("col_stride"), arg("shift"), arg("out"), arg("stream"));
}
