// pydt._core: the index file of a data set, image files, tar archives, CRC32C.
#include <cerrno>
#include <memory>
#include <system_error>

#include "arguments.hpp"

namespace {

std::uint32_t crc32c(const py::object& bytes) {
    const py::array array = dense<std::uint8_t>(bytes, "bytes", 1);
    const int64_t size = array.shape(0);
    const Unlocked unlocked;
    return pydt::crc32c(data<std::uint8_t>(array), size);
}

py::array_t<std::uint32_t> crc_records(const py::object& images, const py::object& positions, int threads) {
    const py::array from = dense<std::uint8_t>(images, "images", 4), index = dense<int64_t>(positions, "positions", 1);
    const auto record =
        static_cast<int64_t>(pydt::checked_size("images", {from.shape(1), from.shape(2), from.shape(3)}));
    py::array_t<std::uint32_t> out(index.shape(0));
    std::uint32_t* to = out.mutable_data();
    const int64_t stored = from.shape(0), count = index.shape(0);
    thread_count(threads);
    const Unlocked unlocked;
    pydt::crc_records(data<std::uint8_t>(from), stored, record, data<int64_t>(index), count, to, threads);
    return out;
}

void check_index_head(const py::object& bytes, int64_t file_size) {
    const py::array array = dense<std::uint8_t>(bytes, "bytes", 1);
    pydt::check_index_head(data<std::uint8_t>(array), array.shape(0), not_negative(file_size, "file_size"));
}

py::list read_index(const py::object& bytes) {
    const py::array array = dense<std::uint8_t>(bytes, "bytes", 1);
    std::vector<pydt::Section> sections;
    {
        const int64_t size = array.shape(0);
        const Unlocked unlocked;
        sections = pydt::read_index(data<std::uint8_t>(array), size);
    }
    py::list found;
    for (const auto& section : sections)
        found.append(
            py::make_tuple(section.name, static_cast<int>(section.kind), section.count, section.offset, section.bytes));
    return found;
}

pydt::Texts texts_of(const py::array& ends, const py::array& bytes) {
    if (ends.shape(0) < 1) throw ArgumentError("ends", "are empty: the first must be 0");
    return {data<int64_t>(ends), ends.shape(0) - 1, data<std::uint8_t>(bytes), bytes.shape(0)};
}

int64_t repeated_text(const py::object& ends, const py::object& bytes) {
    const py::array places = dense<int64_t>(ends, "ends", 1), text = dense<std::uint8_t>(bytes, "bytes", 1);
    const pydt::Texts texts = texts_of(places, text);
    const Unlocked unlocked;
    return pydt::repeated_text(texts);
}

std::pair<py::array_t<std::int32_t>, py::array_t<std::uint32_t>> read_files(const py::object& ends,
                                                                            const py::object& bytes,
                                                                            const py::object& lengths,
                                                                            const py::object& out, bool sums) {
    const py::array places = dense<int64_t>(ends, "ends", 1), text = dense<std::uint8_t>(bytes, "bytes", 1);
    const pydt::Texts paths = texts_of(places, text);
    const py::array sizes = vector<int64_t>(lengths, "lengths", paths.count);
    py::array room = dense<std::uint8_t>(out, "out", 1);
    if (!room.writeable()) throw ArgumentError("out", "is read-only");
    py::array_t<std::int32_t> status(paths.count);
    py::array_t<std::uint32_t> crc(sums ? paths.count : 0);
    auto* to = static_cast<std::uint8_t*>(room.mutable_data());
    std::int32_t* to_status = status.mutable_data();
    std::uint32_t* to_crc = sums ? crc.mutable_data() : nullptr;
    const int64_t size = room.shape(0);
    {
        const Unlocked unlocked;
        pydt::read_files(paths, data<int64_t>(sizes), to, size, to_status, to_crc);
    }
    return {status, crc};
}

template <class T>
py::array_t<T> array_from(const std::vector<T>& values) {
    return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::tuple read_tar(const py::object& bytes) {
    const py::array array = dense<std::uint8_t>(bytes, "bytes", 1);
    pydt::TarMembers found;
    {
        const int64_t size = array.shape(0);
        const Unlocked unlocked;
        found = pydt::read_tar(data<std::uint8_t>(array), size);
    }
    const auto* names = reinterpret_cast<const std::uint8_t*>(found.names.data());
    return py::make_tuple(array_from(found.ends),
                          py::array_t<std::uint8_t>(static_cast<py::ssize_t>(found.names.size()), names),
                          array_from(found.headers), array_from(found.offsets), array_from(found.sizes));
}

std::pair<py::array_t<std::int32_t>, py::array_t<std::uint32_t>> check_parts(const py::object& bytes,
                                                                             const py::object& offsets,
                                                                             const py::object& lengths, int threads) {
    const py::array array = dense<std::uint8_t>(bytes, "bytes", 1), from = dense<int64_t>(offsets, "offsets", 1);
    const py::array sizes = vector<int64_t>(lengths, "lengths", from.shape(0));
    thread_count(threads);
    py::array_t<std::int32_t> status(from.shape(0));
    py::array_t<std::uint32_t> crc(from.shape(0));
    std::int32_t* to_status = status.mutable_data();
    std::uint32_t* to_crc = crc.mutable_data();
    {
        const int64_t size = array.shape(0), count = from.shape(0);
        const Unlocked unlocked;
        pydt::check_parts(data<std::uint8_t>(array), size, data<int64_t>(from), data<int64_t>(sizes), count, to_status,
                          to_crc, threads);
    }
    return {status, crc};
}

py::tuple map_file(const py::bytes& path) {
    pydt::Mapped mapped{};
    try {
        mapped = pydt::map_file(std::string(path).c_str());
    } catch (const std::system_error& error) {
        errno = error.code().value();
        PyErr_SetFromErrno(PyExc_OSError);
        throw py::error_already_set();
    }
    const py::capsule owner(new pydt::Mapped(mapped), [](void* held) {
        const std::unique_ptr<pydt::Mapped> last(static_cast<pydt::Mapped*>(held));
        pydt::unmap_file(*last);
    });
    py::array_t<std::uint8_t> array(mapped.size, mapped.data, owner);
    array.attr("flags").attr("writeable") = false;
    return py::make_tuple(array, mapped.time, mapped.device, mapped.inode);
}

}  // namespace

void register_records(py::module_& module) {
    using py::arg;
    module.def("crc32c", &crc32c, arg("bytes"));
    module.def("crc_records", &crc_records, arg("images"), arg("positions"), arg("threads"));
    module.def("check_index_head", &check_index_head, arg("bytes"), arg("file_size"));
    module.def("read_index", &read_index, arg("bytes"));
    module.def("repeated_text", &repeated_text, arg("ends"), arg("bytes"));
    module.def("read_files", &read_files, arg("ends"), arg("bytes"), arg("lengths"), arg("out"), arg("sums") = true);
    module.def("read_tar", &read_tar, arg("bytes"));
    module.def("check_parts", &check_parts, arg("bytes"), arg("offsets"), arg("lengths"), arg("threads"));
    module.def("map_file", &map_file, arg("path"));
}
