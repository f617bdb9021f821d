// pydt._core: random bits, the order of an epoch, bit-packed masks.
#include "arguments.hpp"

namespace {

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

}  // namespace

void register_design(py::module_& module) {
    using py::arg;
    module.def("random_bits", &random_bits, arg("seed"), arg("stream"), arg("ids"));
    module.def("epoch_order", &epoch_order, arg("seed"), arg("epoch"), arg("ids"));
    module.def("pack", &pack, arg("masks"));
    module.def("unpack", &unpack, arg("packed"), arg("groups"));
}
