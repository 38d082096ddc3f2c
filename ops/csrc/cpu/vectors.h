// Vectors of GEOSEG_VECTOR_BYTES, for ms_deform_attn_kernel.h and in its namespace.

// Unaligned vectors of GCC and Clang, whose operators work lane by lane.
template <typename R, int bytes = GEOSEG_VECTOR_BYTES>
struct Vector {
  static constexpr int lanes = bytes / int(sizeof(R));
  typedef R Type __attribute__((vector_size(bytes), aligned(sizeof(R)), may_alias));
};
template <typename R>
using Lanes = typename Vector<R>::Type;

template <typename R>
struct NaturalIndexOf;
template <>
struct NaturalIndexOf<float> {
  using Type = int32_t;
};
template <>
struct NaturalIndexOf<double> {
  using Type = int64_t;
};
// As wide as the numbers, or vectors could not hold both.
template <typename R>
using NaturalIndex = typename NaturalIndexOf<R>::Type;

// Arithmetic of ../ms_deform_attn.h on whole vectors.
template <typename R>
struct VectorMath {
  using Real = Lanes<R>;
  using Index = Lanes<NaturalIndex<R>>;
  using Mask = Index;
  static GEOSEG_HOST_DEVICE Index truncate(Real numbers) { return __builtin_convertvector(numbers, Index); }
  static GEOSEG_HOST_DEVICE Real real(Index numbers) { return __builtin_convertvector(numbers, Real); }
};

template <typename R>
inline Lanes<R> load(const R* from) {
  return *reinterpret_cast<const Lanes<R>*>(from);
}

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

template <typename R>
inline void store(R* to, Lanes<R> numbers) {
  *reinterpret_cast<Lanes<R>*>(to) = numbers;
}

inline void store(BFloat16* to, Lanes<float> numbers) {
  float lanes[Vector<float>::lanes];
  store(lanes, numbers);
  for (int lane = 0; lane < Vector<float>::lanes; lane++) store_one(to + lane, lanes[lane]);
}

// The sum of all lanes, by halves: one lane after the other would wait for each addition.
template <typename R, int bytes = GEOSEG_VECTOR_BYTES>
inline R sum_lanes(typename Vector<R, bytes>::Type numbers) {
  if constexpr (bytes == 2 * sizeof(R)) {
    return numbers[0] + numbers[1];
  } else {
    typename Vector<R, bytes / 2>::Type halves[2];
    std::memcpy(halves, &numbers, bytes);
    return sum_lanes<R, bytes / 2>(halves[0] + halves[1]);
  }
}
