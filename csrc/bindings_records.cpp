// pydt._core, continued: the index file of a data set, and CRC32C. Why the GIL may be released: see bindings.cpp.
#include <pybind11/stl.h>

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
    module.def("repeated_text", &repeated_text,
               "The first of the texts bytes[ends[i]:ends[i + 1]] that an earlier one equals, or -1.", arg("ends"),
               arg("bytes"));
}
