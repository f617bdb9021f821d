// pydt._core, continued: the index file of a data set, and CRC32C. Why the GIL may be released: see bindings.cpp.
#include <pybind11/stl.h>

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
    const auto record = static_cast<int64_t>(
        pydt::checked_size("images", {from.shape(1), from.shape(2), from.shape(3)}));
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
        found.append(py::make_tuple(section.name, static_cast<int>(section.kind), section.count, section.offset,
                                    section.bytes));
    return found;
}

pydt::Texts texts_of(const py::array& ends, const py::array& bytes, const char* name) {
    if (ends.shape(0) < 1) throw ArgumentError(name, "have no ends");
    return {data<int64_t>(ends), ends.shape(0) - 1, data<std::uint8_t>(bytes), bytes.shape(0)};
}

int64_t repeated_text(const py::object& ends, const py::object& bytes) {
    const py::array places = dense<int64_t>(ends, "ends", 1), text = dense<std::uint8_t>(bytes, "bytes", 1);
    const pydt::Texts texts = texts_of(places, text, "ends");
    const Unlocked unlocked;
    return pydt::repeated_text(texts);
}

std::pair<py::array_t<std::int32_t>, py::array_t<std::uint32_t>> read_files(const py::object& ends,
                                                                            const py::object& bytes,
                                                                            const py::object& lengths,
                                                                            const py::object& out, bool sums) {
    const py::array places = dense<int64_t>(ends, "ends", 1), text = dense<std::uint8_t>(bytes, "bytes", 1);
    const pydt::Texts paths = texts_of(places, text, "ends");
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

void bind_records(py::module_& module) {
    using py::arg;
    module.def("crc32c", &crc32c, "CRC32C of uint8 (n,).", arg("bytes"));
    module.def("crc_records", &crc_records, "CRC32C of the image at each position: uint32 (positions,).", arg("images"),
               arg("positions"), arg("threads"));
    module.def("check_index_head", &check_index_head,
               "Refuses the first bytes of a file of `file_size` bytes that is no index.", arg("bytes"),
               arg("file_size"));
    module.def("read_index", &read_index,
               "Checks an index file (uint8) and lists its sections: (name, kind, count, offset, bytes).",
               arg("bytes"));
    module.def("read_files", &read_files,
               "Reads files of known lengths one after another into `out`: (status, CRC32C if `sums`) of each.",
               arg("ends"), arg("bytes"), arg("lengths"), arg("out"), arg("sums") = true);
    module.def("image_sides", &image_sides,
               "Height and width of each encoded image that all decoders read alike, else 0: int32 (n, 2).",
               arg("records"));
    module.def("read_tar", &read_tar,
               "The regular files of a tar archive (uint8): ends and bytes of their names, headers, offsets, sizes.",
               arg("bytes"));
    module.def("check_parts", &check_parts, "(status, CRC32C) of bytes[offset : offset + length].", arg("bytes"),
               arg("offsets"), arg("lengths"), arg("threads"));
    module.def("map_file", &map_file,
               "A regular file as read-only uint8, mapped; its time of change in ns, device and inode.", arg("path"));
    module.def("repeated_text", &repeated_text,
               "The first of the texts bytes[ends[i]:ends[i + 1]] that an earlier one equals, or -1.", arg("ends"),
               arg("bytes"));
}
