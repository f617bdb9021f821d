// What the bindings share: arguments of Python as checked views. TypeError for the wrong kind of thing, ValueError for a
// wrong value, both beginning with the argument's name.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "pydt.hpp"

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

void bind_records(py::module_& module);  // bindings_records.cpp
