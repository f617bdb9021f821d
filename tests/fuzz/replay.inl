// In place of a fuzzer: each file named, and 20,000 copies of it with a few bytes changed or the end cut off.
#include <fstream>
#include <iterator>

int main(int count, char** names) {
    std::uint64_t state = 1;
    const auto random = [&state](std::size_t below) {
        state = state * 6364136223846793005 + 1442695040888963407;
        return static_cast<std::size_t>(state >> 33) % below;
    };
    for (int i = 1; i < count; ++i) {
        std::ifstream file(names[i], std::ios::binary);
        const std::vector<std::uint8_t> seed{std::istreambuf_iterator<char>(file), {}};
        LLVMFuzzerTestOneInput(seed.data(), seed.size());
        for (int round = 0; round < 20000 && !seed.empty(); ++round) {
            std::vector<std::uint8_t> changed(seed.begin(), seed.end());
            for (std::size_t k = random(4) + 1; k > 0; --k) {
                const std::uint8_t extremes[] = {0, 1, 0x7F, 0x80, 0xFF, static_cast<std::uint8_t>(random(256))};
                changed[random(changed.size())] = extremes[random(6)];
            }
            if (round % 4 == 0) changed.resize(random(changed.size()) + 1);
            changed.shrink_to_fit();
            LLVMFuzzerTestOneInput(changed.data(), changed.size());
        }
    }
}
