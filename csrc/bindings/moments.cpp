// pydt._core: Gram matrix, subset sums, column moments, and the standard errors that follow from them.
#include "arguments.hpp"

namespace {

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

// A copy, so that no other thread changes it between the check and the use.
std::optional<std::vector<int64_t>> rows_of(const py::object& rows) {
    if (rows.is_none()) return std::nullopt;
    const py::array index = dense<int64_t>(rows, "rows", 1);
    return std::vector<int64_t>(data<int64_t>(index), data<int64_t>(index) + index.shape(0));
}

pydt::Rows view(const std::optional<std::vector<int64_t>>& rows, int64_t available) {
    if (!rows) return {nullptr, available};
    static const int64_t none = 0;  // an empty vector's data may be null, which would mean all rows
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

// The checked arguments of subset_sums and subset_sums_int16, and the array of the result.
struct SumArguments {
    SumArguments(const py::object& codes, const py::object& outputs, const py::object& shift, int thread_number,
                 const py::object& which)
        : words(dense<std::uint64_t>(codes, "codes", 2)), values(array_of(outputs, "outputs", 2)),
          matrix(matrix_of(values)), index(rows_of(which)), rows(view(index, matrix.rows)),
          origin(vector<double>(shift, "shift", matrix.cols)), groups(words.shape(1)),
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
                          {nullptr, nullptr}, a.threads);
    }
    return a.sums;
}

py::tuple sums_and_moments(const py::object& codes, const py::object& outputs, const py::object& shift, int threads,
                           const py::object& rows) {
    SumArguments a(codes, outputs, shift, threads, rows);
    py::array_t<double> sums(a.matrix.cols), squares(a.matrix.cols);
    double* to = a.sums.mutable_data();
    const pydt::Moments moments{sums.mutable_data(), squares.mutable_data()};
    {
        const Unlocked unlocked;
        pydt::subset_sums(data<std::uint64_t>(a.words), a.groups, a.matrix, a.rows, data<double>(a.origin), to, moments,
                          a.threads);
    }
    return py::make_tuple(a.sums, sums, squares);
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
    const py::array origin = vector<double>(shift, "shift", matrix.cols),
                    signs = vector<double>(sign, "sign", which.count), edges = dense<int64_t>(starts, "starts", 1);
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

py::array_t<float> triangle_panels(const py::object& lower) {
    const py::array array = dense<double>(lower, "lower", 2);
    const int64_t groups = array.shape(0);
    if (array.shape(1) != groups) throw ArgumentError("lower", "is not square: its shape is " + shape_of(array));
    py::array_t<float> out(pydt::triangle_size(groups));
    float* to = out.mutable_data();
    const Unlocked unlocked;
    pydt::triangle_panels(data<double>(array), groups, to);
    return out;
}

py::array_t<double> triangle_squares(const py::object& panels, const py::object& cross, int threads) {
    const py::array sums = dense<float>(cross, "cross", 2);
    const int64_t groups = sums.shape(0), targets = sums.shape(1);
    const py::array triangle = vector<float>(panels, "panels", pydt::triangle_size(groups));
    py::array_t<double> out(targets);
    double* to = out.mutable_data();
    thread_count(threads);
    const Unlocked unlocked;
    pydt::triangle_squares(data<float>(triangle), groups, data<float>(sums), targets, to, threads);
    return out;
}

}  // namespace

void register_moments(py::module_& module) {
    using py::arg;
    module.def("gram", &gram, arg("packed"), arg("groups"), arg("threads"));
    module.def("codes", &codes, arg("packed"), arg("groups"), arg("rows") = py::none());
    module.def("subset_sums", &subset_sums, arg("codes"), arg("outputs"), arg("shift"), arg("threads"),
               arg("rows") = py::none());
    module.def("sums_and_moments", &sums_and_moments, arg("codes"), arg("outputs"), arg("shift"), arg("threads"),
               arg("rows") = py::none());
    module.def("subset_sums_int16", &subset_sums_int16, arg("codes"), arg("outputs"), arg("shift"), arg("threads"),
               arg("rows") = py::none());
    module.def("column_moments", &column_moments, arg("outputs"), arg("shift"), arg("threads"),
               arg("rows") = py::none());
    module.def("unit_squares", &unit_squares, arg("outputs"), arg("shift"), arg("starts"), arg("sign"), arg("threads"),
               arg("rows") = py::none());
    module.def("centred", &centred, arg("cross"), arg("share"), arg("total"), arg("single"));
    module.def("triangle_panels", &triangle_panels, arg("lower"));
    module.def("triangle_squares", &triangle_squares, arg("panels"), arg("cross"), arg("threads"));
    module.def("pooled_errors", &pooled_errors, arg("centred"), arg("scale"), arg("weight"), arg("rho"), arg("energy"),
               arg("noise"), arg("df"));
}
