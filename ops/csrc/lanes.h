// Vectors of GEOSEG_VECTOR_BYTES, for kernels that are compiled for several instruction sets.
// Each includes this file into a namespace of its own: no include guard, for that reason,
// and nothing of the standard library.

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

template <typename R>
inline Lanes<R> load(const R* from) {
  return *reinterpret_cast<const Lanes<R>*>(from);
}

template <typename R>
inline void store(R* to, Lanes<R> numbers) {
  *reinterpret_cast<Lanes<R>*>(to) = numbers;
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
