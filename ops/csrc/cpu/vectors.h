// What the attention needs beyond ../lanes.h: its arithmetic on vectors, and bfloat16.
// For ms_deform_attn_kernel.h and in its namespace.

// Arithmetic of ../ms_deform_attn.h on whole vectors.
template <typename R>
struct VectorMath {
  using Real = Lanes<R>;
  using Index = Lanes<NaturalIndex<R>>;
  using Mask = Index;
  static GEOSEG_HOST_DEVICE Index truncate(Real numbers) { return __builtin_convertvector(numbers, Index); }
  static GEOSEG_HOST_DEVICE Real real(Index numbers) { return __builtin_convertvector(numbers, Real); }
};

inline Lanes<float> load(const BFloat16* from) {
  constexpr int lanes = Vector<float>::lanes;
  typedef uint16_t Halves __attribute__((vector_size(2 * lanes), aligned(2), may_alias));
  typedef uint32_t Words __attribute__((vector_size(4 * lanes)));
  const Words words = __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Words) << 16;
  return reinterpret_cast<const Lanes<float>&>(words);
}

template <typename R>
inline R load_one(const R* from) {
  return *from;
}

inline float load_one(const BFloat16* from) {
  const uint32_t word = uint32_t(from->bits) << 16;
  float number;
  std::memcpy(&number, &word, sizeof number);
  return number;
}

template <typename R>
inline void store_one(R* to, R number) {
  *to = number;
}

// Rounds to nearest, ties to even, as torch does; NaN stays NaN.
inline void store_one(BFloat16* to, float number) {
  uint32_t word;
  std::memcpy(&word, &number, sizeof word);
  const bool nan = number != number;
  to->bits = nan ? 0x7fc0 : uint16_t((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

inline void store(BFloat16* to, Lanes<float> numbers) {
  float lanes[Vector<float>::lanes];
  store(lanes, numbers);
  for (int lane = 0; lane < Vector<float>::lanes; lane++) store_one(to + lane, lanes[lane]);
}
