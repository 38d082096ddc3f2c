// Exponentials of whole vectors, on lanes.h and in its namespace.

// e^x for x <= 0, with an error of some units in the last place; 0 where the result would
// not be a normal number. NaN stays NaN; of positive numbers anything may come.
template <typename R>
inline Lanes<R> exp_of_negative(Lanes<R> x) {
  using Index = Lanes<NaturalIndex<R>>;
  constexpr bool wide = sizeof(R) == 8;
  constexpr R lowest = wide ? R(-708) : R(-87);
  // Others would leave the range of integers below.
  const auto normal = (x >= lowest) & (x <= R(0));
  const Lanes<R> safe = normal ? x : Lanes<R>{};
  // x = n ln 2 + r with |r| <= ln 2 / 2. The high part of ln 2 has so few digits that n
  // times it is exact.
  constexpr R log2_e = R(1.4426950408889634), half = R(0.5);
  constexpr R high = wide ? R(0x1.62e42fee00000p-1) : R(0x1.62e4p-1);
  constexpr R low = wide ? R(0x1.a39ef35793c76p-33) : R(0x1.7f7d1cp-20);
  const Index n = __builtin_convertvector(safe * log2_e - half, Index);
  const Lanes<R> whole = __builtin_convertvector(n, Lanes<R>);
  const Lanes<R> r = safe - whole * high - whole * low;
  // Taylor's series: what follows is less than rounding.
  constexpr int terms = wide ? 13 : 7;
  Lanes<R> sum = Lanes<R>{} + R(1);
  for (int k = terms; k > 0; k--) sum = sum * r * (R(1) / R(k)) + R(1);
  // 2^n, from its bits.
  constexpr int bias = wide ? 1023 : 127, mantissa = wide ? 52 : 23;
  const Index bits = (n + bias) << mantissa;
  const Lanes<R> result = sum * reinterpret_cast<const Lanes<R>&>(bits);
  return normal ? result : x < lowest ? Lanes<R>{} : x;
}

// 2^x for x <= 0 with a relative error of 2e-7, 2^-125 below that. What is computed, and in
// which order, is geoseg/blending/exponential.py, bit for bit: no contraction to fused
// multiply-adds where this is used so.
inline Lanes<float> exp2_of_negative(Lanes<float> x) {
  using Index = Lanes<int32_t>;
  constexpr float lowest = -125;
  // Added to a small number, it leaves the nearest integer in the lower bits.
  constexpr float rounding = 0x1.8p23f;
  x = x > lowest ? x : Lanes<float>{} + lowest;
  const Lanes<float> shifted = x + rounding;
  const Lanes<float> f = x - (shifted - rounding);
  // The minimax polynomial of degree 5 for |f| <= 1/2 that is 1 at 0.
  Lanes<float> sum = f * 0x1.5bb9fep-10f + 0x1.3cea88p-7f;
  sum = sum * f + 0x1.c6b754p-5f;
  sum = sum * f + 0x1.ebf9bcp-3f;
  sum = sum * f + 0x1.62e42ap-1f;
  sum = sum * f + 1.0f;
  // Times 2^n, by its exponent.
  const Index bits = reinterpret_cast<const Index&>(sum) + (reinterpret_cast<const Index&>(shifted) << 23);
  return reinterpret_cast<const Lanes<float>&>(bits);
}
