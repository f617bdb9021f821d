// pydt._core: the Python module. Only csrc/bindings knows pybind11.
#include "arguments.hpp"

void register_design(py::module_& module);
void register_images(py::module_& module);
void register_records(py::module_& module);
void register_moments(py::module_& module);
void register_lasso(py::module_& module);
void register_cuda(py::module_& module);

PYBIND11_MODULE(_core, module) {
    module.doc() = "The compiled core of pydt; _core.pyi documents it.";
    module.def("isa", &pydt::isa);
    module.def("isas", &pydt::isas);
    register_design(module);
    register_images(module);
    register_records(module);
    register_moments(module);
    register_lasso(module);
    register_cuda(module);
}
