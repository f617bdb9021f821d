// pydt._core: LASSO and elastic net.
#include "arguments.hpp"

namespace {

template <class T>
py::array matrix(const py::object& value, const char* name, int64_t rows, int64_t cols) {
    py::array array = dense<T>(value, name, 2);
    if (array.shape(0) != rows || array.shape(1) != cols)
        throw ArgumentError(name, "has the shape " + shape_of(array) + ", not (" + std::to_string(rows) + ", " +
                                      std::to_string(cols) + ")");
    return array;
}

// Pointers into arrays that the caller holds.
pydt::Quadratic quadratic_of(const py::object& gram, const py::object& cross, const py::object& energy,
                             const std::string& prefix, int64_t groups, int64_t targets) {
    const py::array g = matrix<double>(gram, (prefix + "gram").c_str(), groups, groups);
    const py::array c = matrix<double>(cross, (prefix + "cross").c_str(), groups, targets);
    const py::array e = vector<double>(energy, (prefix + "energy").c_str(), targets);
    return {data<double>(g), data<double>(c), data<double>(e), groups, targets};
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

}  // namespace

void register_lasso(py::module_& module) {
    using py::arg;
    module.def("lasso", &lasso, arg("gram"), arg("cross"), arg("energy"), arg("penalty"), arg("start") = py::none(),
               py::kw_only(), arg("l1_ratio") = 1.0, arg("tolerance") = 1e-6, arg("limit") = 1000, arg("threads") = 1);
    module.def("lasso_path", &lasso_path, arg("gram"), arg("cross"), arg("energy"), arg("held_gram"), arg("held_cross"),
               arg("held_energy"), arg("steps"), py::kw_only(), arg("l1_ratio") = 1.0, arg("tolerance") = 1e-6,
               arg("limit") = 1000, arg("patience") = 0, arg("held_rows") = 1, arg("threads") = 1);
    module.def("sparse_product", &sparse_product, arg("gram"), arg("values"), arg("threads") = 1);
}
