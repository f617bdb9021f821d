// What all bindings share: Python's arguments as checked views, and arrays for results.
//
// Arguments are checked, never converted: TypeError for the wrong kind of thing, ValueError for a wrong value; both
// messages begin with the argument's name. Functions are documented in pydt/_core.pyi, and only there.
//
// Why every call may release the GIL: the core touches no Python object. The arrays that it reads and writes are held
// by the arguments of the call, and numpy refuses to resize an array that something else refers to. Sizes and strides
// are copied before. Another thread that writes into an array meanwhile can spoil values, not memory.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cmath>
#include <optional>

#include "../pydt.hpp"

namespace py = pybind11;
using pydt::ArgumentError;
using std::int64_t;
using Unlocked = py::gil_scoped_release;

inline std::uint64_t unsigned64(const py::object& value, const char* name) {
    const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
    if (!number) {
        PyErr_Clear();
        throw py::type_error(std::string(name) + ": must be an integer");
    }
    const std::uint64_t bits = PyLong_AsUnsignedLongLong(number.ptr());
    if (PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        throw ArgumentError(name, "must be in 0..2**64 - 1");
    }
    return bits;
}

inline int thread_count(int threads) {
    if (threads < 1) throw ArgumentError("threads", std::to_string(threads) + " is not 1 or more");
    return threads;
}

inline int64_t not_negative(int64_t value, const char* name) {
    if (value < 0) throw ArgumentError(name, std::to_string(value) + " is negative");
    return value;
}

inline std::string shape_of(const py::array& array) { return py::str(array.attr("shape")); }

inline py::array array_of(const py::object& value, const char* name, py::ssize_t dimensions) {
    if (!py::isinstance<py::array>(value)) throw py::type_error(std::string(name) + ": must be a numpy array");
    auto array = py::reinterpret_borrow<py::array>(value);
    if (array.ndim() != dimensions)
        throw ArgumentError(
            name, "must have " + std::to_string(dimensions) + " dimensions, not the shape " + shape_of(array));
    return array;
}

inline bool is_type(const py::array& array, char kind, py::ssize_t itemsize) {
    const py::dtype type = array.dtype();
    return type.kind() == kind && type.itemsize() == itemsize && (type.byteorder() == '=' || type.byteorder() == '|');
}

[[noreturn]] inline void wrong_type(const py::array& array, const char* name, const char* expected) {
    throw py::type_error(std::string(name) + ": must be " + expected + ", not " + std::string(py::str(array.dtype())));
}

inline bool aligned(const py::array& array) { return (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0; }

// A dense, aligned array of one type.
template <class T>
py::array dense(const py::object& value, const char* name, py::ssize_t dimensions) {
    py::array array = array_of(value, name, dimensions);
    const py::dtype type = py::dtype::of<T>();
    if (!is_type(array, type.kind(), type.itemsize())) wrong_type(array, name, std::string(py::str(type)).c_str());
    if ((array.flags() & py::array::c_style) == 0 || !aligned(array))
        throw ArgumentError(name, "must be C-contiguous and aligned");
    return array;
}

template <class T>
py::array vector(const py::object& value, const char* name, int64_t length) {
    py::array array = dense<T>(value, name, 1);
    if (array.shape(0) != length)
        throw ArgumentError(name, "has " + std::to_string(array.shape(0)) + " entries, not " + std::to_string(length));
    return array;
}

template <class T>
const T* data(const py::array& array) {
    return static_cast<const T*>(array.data());
}

template <class T>
py::array_t<T> make(const char* name, int64_t rows, int64_t cols) {
    pydt::checked_size(name, {rows, cols, static_cast<int64_t>(sizeof(T))});
    return py::array_t<T>({rows, cols});
}

// Bit-packed masks.
inline pydt::Masks masks_of(const py::array& packed, int64_t groups) {
    not_negative(groups, "groups");
    const int64_t bytes = pydt::packed_bytes(groups);
    if (packed.shape(1) != bytes)
        throw ArgumentError("packed", "has " + std::to_string(packed.shape(1)) + " bytes a row; " +
                                          std::to_string(groups) + " groups take " + std::to_string(bytes));
    return {data<std::uint8_t>(packed), packed.shape(0), groups, bytes};
}

// The least and the largest share of the area, or ratio of width to height, of a random crop.
using Range = std::optional<std::array<double, 2>>;

inline pydt::Augmentation augmentation_of(const py::array& mean, const py::array& std, int64_t crop_pad, bool flip,
                                          const py::object& seed, const py::object& epoch, int64_t view,
                                          const Range& scale, const Range& ratio) {
    if (scale.has_value() != ratio.has_value()) throw ArgumentError("ratio", "goes with scale: give both or neither");
    pydt::Augmentation how{
        data<float>(mean), data<float>(std), crop_pad, flip, unsigned64(seed, "seed"), unsigned64(epoch, "epoch"), view,
        scale.has_value(), {1, 1},           {0, 0}};
    for (std::size_t i = 0; scale && i < 2; ++i) {
        how.scale[i] = (*scale)[i];
        how.log_ratio[i] = std::log((*ratio)[i]);
    }
    return how;
}
