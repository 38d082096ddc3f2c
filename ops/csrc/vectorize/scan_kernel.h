// The kernels of scan.h. A file that includes this names an instruction set, GEOSEG_ISA,
// and the bytes of its vectors, GEOSEG_VECTOR_BYTES. Nothing of the standard library may
// be used: a template compiled here could be linked into code that runs anywhere.

namespace geoseg::vectorize::GEOSEG_ISA {
namespace {

void accumulate(const uint8_t* row, int64_t width, uint32_t* columns) {
  for (int64_t x = 0; x < width; x++) columns[x] += row[x];
}

#if GEOSEG_VECTOR_BYTES == 64
inline uint64_t unequal(const uint8_t* a, const uint8_t* b) {
  return _mm512_cmpneq_epu8_mask(_mm512_loadu_si512(a), _mm512_loadu_si512(b));
}
#elif GEOSEG_VECTOR_BYTES == 32
inline uint64_t unequal_half(const uint8_t* a, const uint8_t* b) {
  const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a));
  const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
  return uint32_t(~_mm256_movemask_epi8(_mm256_cmpeq_epi8(first, second)));
}
inline uint64_t unequal(const uint8_t* a, const uint8_t* b) {
  return unequal_half(a, b) | unequal_half(a + 32, b + 32) << 32;
}
#else
inline uint64_t unequal(const uint8_t* a, const uint8_t* b) {
  constexpr uint64_t LOW = 0x7f7f7f7f7f7f7f7f;
  uint64_t bits = 0;
  for (int64_t i = 0; i < 64; i += 8) {
    uint64_t first, second;
    __builtin_memcpy(&first, a + i, 8);
    __builtin_memcpy(&second, b + i, 8);
    const uint64_t difference = first ^ second;
    // The top bit of each byte that differs, then these eight bits side by side.
    const uint64_t top = (((difference & LOW) + LOW) | difference) & ~LOW;
    bits |= ((top >> 7) * 0x0102040810204080 >> 56) << i;
  }
  return bits;
}
#endif

void compare(const uint8_t* above, const uint8_t* row, int64_t words, uint64_t* vertical,
             uint64_t* horizontal) {
  for (int64_t word = 0; word < words; word++) {
    const uint8_t* pixels = row + 64 * word;
    vertical[word] = unequal(pixels, pixels - 1);
    horizontal[word] = unequal(pixels, above + 64 * word);
  }
}

}  // namespace

ScanKernels scan_kernels() { return {compare, accumulate}; }

}  // namespace geoseg::vectorize::GEOSEG_ISA
