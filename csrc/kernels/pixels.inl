// The parts of the image kernels: vectors of values picked from bytes, and stores to three types of output.
//
// A vector of `lanes` values is one group (AVX-512) or two (AVX2). The bytes of a group lie in a window of `window`
// bytes, and one byte permutation picks its values from it, widened to 32 bits: value i is the byte at index[i] in its
// group's window, or 0 if index[i] is negative. So any layout, mirrored or not, is a table of small numbers.

#if defined(__AVX512VBMI__)
#define PYDT_LANES 16
constexpr int64_t lanes = 16, window = 64;
using Ints = __m512i;
using Floats = __m512;
struct Table {
    __m512i byte;
    __mmask64 keep;
};

inline Ints ints(const int32_t* from) { return _mm512_loadu_si512(from); }
inline Ints ints(int32_t value) { return _mm512_set1_epi32(value); }
inline void put(int32_t* to, Ints values) { _mm512_storeu_si512(to, values); }
inline Ints count_up() { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
inline Ints plus(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Ints minus(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
inline Ints either(Ints a, Ints b) { return _mm512_or_si512(a, b); }
inline Ints greater(Ints a, Ints b) { return _mm512_movm_epi32(_mm512_cmpgt_epi32_mask(a, b)); }
inline bool any(Ints a) { return _mm512_test_epi32_mask(a, a) != 0; }
inline Ints group_min(Ints a) { return _mm512_set1_epi32(_mm512_reduce_min_epi32(a)); }
inline Table table(Ints index) {
    return {index, static_cast<__mmask64>(0x1111111111111111) & ~_mm512_movepi8_mask(index)};
}
struct Place {  // the place of a vector's bytes in a row
    int64_t first;
};
inline Place place_of(Ints base) { return {_mm512_cvtsi512_si32(base)}; }
// An index for values none of which is black. Adding a plane's number gives the index of that plane.
inline Ints kept(Ints index) { return index; }
inline Floats pick_kept(__m512i bytes, Ints index) {
    return _mm512_cvtepi32_ps(_mm512_maskz_permutexvar_epi8(0x1111111111111111, index, bytes));
}
inline __m512i bytes_at(const uint8_t* first, Place) { return _mm512_loadu_si512(first); }
inline Floats pick(__m512i bytes, const Table& from) {
    return _mm512_cvtepi32_ps(_mm512_maskz_permutexvar_epi8(from.keep, from.byte, bytes));
}
inline Floats floats(const float* from) { return _mm512_loadu_ps(from); }
inline Floats floats(float value) { return _mm512_set1_ps(value); }
inline Floats plus(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats minus(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
#elif defined(__AVX2__)
#define PYDT_LANES 8
constexpr int64_t lanes = 8, window = 16;
using Ints = __m256i;
using Floats = __m256;
using Table = __m256i;

inline Ints ints(const int32_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
inline Ints ints(int32_t value) { return _mm256_set1_epi32(value); }
inline void put(int32_t* to, Ints values) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), values); }
inline Ints count_up() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
inline Ints plus(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
inline Ints minus(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
inline Ints either(Ints a, Ints b) { return _mm256_or_si256(a, b); }
inline Ints greater(Ints a, Ints b) { return _mm256_cmpgt_epi32(a, b); }
inline bool any(Ints a) { return _mm256_testz_si256(a, a) == 0; }
inline Ints group_min(Ints a) {
    const Ints pairs = _mm256_min_epi32(a, _mm256_shuffle_epi32(a, 0xB1));
    return _mm256_min_epi32(pairs, _mm256_shuffle_epi32(pairs, 0x4E));
}
inline Table table(Ints index) { return either(index, ints(static_cast<int32_t>(0x80808000))); }
struct Place {  // the place of a vector's bytes in a row: of the first group, and the distance to the second
    int64_t first, further;
};
inline Place place_of(Ints base) {
    const int64_t first = _mm_cvtsi128_si32(_mm256_castsi256_si128(base)),
                  second = _mm_cvtsi128_si32(_mm256_extracti128_si256(base, 1));
    return {first, second - first};
}
inline Ints kept(Ints index) { return either(index, ints(static_cast<int32_t>(0x80808000))); }
inline Floats pick_kept(__m256i bytes, Ints index) { return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, index)); }
inline __m256i bytes_at(const uint8_t* first, Place place) {
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(first));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                   _mm_loadu_si128(reinterpret_cast<const __m128i*>(first + place.further)), 1);
}
inline Floats pick(__m256i bytes, const Table& from) { return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, from)); }
inline Floats floats(const float* from) { return _mm256_loadu_ps(from); }
inline Floats floats(float value) { return _mm256_set1_ps(value); }
inline Floats plus(Floats a, Floats b) { return _mm256_add_ps(a, b); }
inline Floats minus(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
inline Floats times(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
#endif

// ---- the types of the output: rounded to nearest, ties to even ------------------------------------------------------
struct F16 {
    uint16_t bits;
};
struct BF16 {
    uint16_t bits;
};

inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// A float32 that is stored past the cache, where a vector is a whole line and lies in one.
struct Past {
    float value;
};

inline void put(float* to, float value) { *to = value; }
inline void put(Past* to, float value) { to->value = value; }

inline void put(BF16* to, float value) {
    const uint32_t bits = bits_of(value);
    to->bits = static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

inline void put(F16* to, float value) {
    const uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, size = bits & 0x7FFFFFFF;
    uint32_t half;
    if (size >= 0x47800000) {  // 65536 or more
        half = 0x7C00;
    } else if (size < 0x38800000) {  // below 2^-14 halves are multiples of 2^-24, and adding 1/2 rounds to those
        float value_there;
        memcpy(&value_there, &size, sizeof size);
        half = bits_of(value_there + 0.5f) - 0x3F000000;
    } else {  // the exponent's bias is smaller by 112
        half = (size - 0x38000000 + 0xFFF + (size >> 13 & 1)) >> 13;
    }
    to->bits = static_cast<uint16_t>(sign | half);
}

#if defined(PYDT_LANES)
inline void put(float* to, Floats values) {
#if PYDT_LANES == 16
    _mm512_storeu_ps(to, values);
#else
    _mm256_storeu_ps(to, values);
#endif
}

#if PYDT_LANES == 16
inline void put(Past* to, Floats values) { _mm512_stream_ps(&to->value, values); }
#endif

inline void put(F16* to, Floats values) {
#if PYDT_LANES == 16
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
#else
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
#endif
}

inline void put(BF16* to, Floats values) {
#if PYDT_LANES == 16
    const __m512i bits = _mm512_castps_si512(values);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), ints(1));
    const __m512i high = _mm512_srli_epi32(plus(plus(bits, ints(0x7FFF)), odd), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(high));
#else
    const __m256i bits = _mm256_castps_si256(values);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), ints(1));
    const __m256i high = _mm256_srli_epi32(plus(plus(bits, ints(0x7FFF)), odd), 16);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)));
#endif
}
#endif

// Copies past the cache, for data larger than it that is read much later. Size and addresses: multiples of 64 bytes.
void stream(const uint8_t* from, int64_t bytes, uint8_t* to) {
#if defined(PYDT_LANES)
    for (int64_t i = 0; i < bytes; i += 4 * lanes) {
#if PYDT_LANES == 16
        _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_load_si512(from + i));
#else
        _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i),
                            _mm256_load_si256(reinterpret_cast<const __m256i*>(from + i)));
#endif
    }
#else
    memcpy(to, from, static_cast<size_t>(bytes));
#endif
}

// Stores past the cache are not ordered with a later store that tells another thread they are done: this comes between.
void finish_stores() {
#if defined(PYDT_LANES)
    _mm_sfence();
#endif
}
