// An exponential, for kernel.h and in its namespace.

// The larger one of two numbers.
inline Reals larger(Reals a, Reals b) {
#if GEOSEG_VECTOR_BYTES == 64
  return Reals(_mm512_maskz_max_ps(0xffff, __m512(a), __m512(b)));
#elif GEOSEG_VECTOR_BYTES == 32
  return Reals(_mm256_max_ps(__m256(a), __m256(b)));
#else
  return a > b ? a : b;
#endif
}

// Differences times this are powers of e in the unit of `exponential`: 2^23 log2(e).
constexpr float UNIT = 0x1.715476p23f;

// 2^(x / 2^23) for x <= 0, 2^-125 below that, with a relative error of 3e-6 for degree 4 and of
// 2e-7 for 5. In that unit, the integral part of the power and the bits of its fraction lie
// where float32 has exponent and mantissa. What is computed, and in which order, is
// geoseg/blending/exponential.py, bit for bit.
template <int degree>
inline Reals exponential(Reals x) {
  static_assert(degree == 4 || degree == 5);
  const Integers power = __builtin_convertvector(larger(x, Reals{} - 0x1.f4p29f), Integers);
  const Integers fraction = (power & 0x007fffff) | 0x3f800000;
  const Reals g = reinterpret_cast<const Reals&>(fraction);  // 1 and the fraction
  // The minimax polynomial for 2^(g - 1) that is 1 at 1.
  Reals sum;
  if constexpr (degree == 4) {
    sum = g * 0x1.b7f6e0p-7f - 0x1.7fcae2p-10f;
    sum = sum * g + 0x1.52267ap-3f;
    sum = sum * g + 0x1.410796p-2f;
    sum = sum * g + 0x1.04d2a0p-1f;
  } else {
    sum = g * 0x1.e974dcp-10f - 0x1.4e1592p-12f;
    sum = sum * g + 0x1.3a990cp-5f;
    sum = sum * g + 0x1.bb2b5ap-4f;
    sum = sum * g + 0x1.69f930p-2f;
    sum = sum * g + 0x1.fe52e8p-2f;
  }
  const Integers bits = reinterpret_cast<const Integers&>(sum) + (power & ~0x007fffff);
  return reinterpret_cast<const Reals&>(bits);
}
