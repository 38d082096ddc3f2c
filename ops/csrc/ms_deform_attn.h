// Multi-scale deformable attention: what the kernels of all devices share.
//
//   out[b, q, m] = sum over levels l and points p of
//                  weight[b, q, m, l, p] * bilinear(value[b, level l, m], location[b, q, m, l, p])
//
// (Zhu et al., "Deformable DETR", ICLR 2021, equation 3). Letters are those of
// docs/glossary.md: B batch, S cells of all levels, M heads, D channels of a head,
// Q queries, L levels, P points.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define GEOSEG_HOST_DEVICE __host__ __device__ __forceinline__
#else
// Never a function of its own: files compiled for several instruction sets include this,
// and the linker would keep any one copy.
#define GEOSEG_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace geoseg {

struct Sizes {
  int64_t batch, cells, heads, channels, queries, levels, points;
};

// Places of the first element of a head in contiguous tensors. In 64 bits from the first
// factor on: batches of large images pass 2^31 elements.

// value (B, S, M, D)
GEOSEG_HOST_DEVICE int64_t value_index(const Sizes& n, int64_t b, int64_t s, int64_t m) {
  return ((b * n.cells + s) * n.heads + m) * n.channels;
}

// attention_weights (B, Q, M, L, P); sampling_locations have two elements for each.
GEOSEG_HOST_DEVICE int64_t point_index(const Sizes& n, int64_t b, int64_t q, int64_t m) {
  return ((b * n.queries + q) * n.heads + m) * n.levels * n.points;
}

// output (B, Q, M * D)
GEOSEG_HOST_DEVICE int64_t output_index(const Sizes& n, int64_t b, int64_t q, int64_t m) {
  return ((b * n.queries + q) * n.heads + m) * n.channels;
}

// Numbers one by one. Kernels that work on vectors of numbers bring a `Math` of their own.
template <typename R, typename I>
struct ScalarMath {
  using Real = R;
  using Index = I;
  using Mask = bool;
  static GEOSEG_HOST_DEVICE Index truncate(Real number) { return Index(number); }
  static GEOSEG_HOST_DEVICE Real real(Index number) { return Real(number); }
};

// The two cells next to a coordinate along one axis, `low` and `low + 1`. One outside the
// level counts as zero; without any, nothing of the level is within reach.
template <typename Math>
struct Neighbours {
  typename Math::Index low;
  typename Math::Real share;  // weight of the high cell, 1 - share that of the low one
  typename Math::Mask has_low, has_high;
};

// Finds them for a place on an axis of `length` cells, in cells from the centre of the first
// one. NaN and infinity reach nothing. No branches, so that vectors will do for `Math`.
template <typename Math>
GEOSEG_HOST_DEVICE Neighbours<Math> find_neighbours(typename Math::Real place, typename Math::Real length) {
  using Real = typename Math::Real;
  using Index = typename Math::Index;
  // At -1 exactly the weights are 0 and the slope is not, as in grid_sample.
  const typename Math::Mask near = (place >= -1.0f) & (place < length);
  // To convert any other number to an integer would be undefined.
  const Real safe = near ? place : Real{};
  const Index truncated = Math::truncate(safe);
  const Index low = Math::real(truncated) > safe ? truncated - 1 : truncated;
  const Real share = safe - Math::real(low);
  const typename Math::Mask has_low = near & (low >= 0), has_high = near & (Math::real(low) < length - 1.0f);
  return {low, share, has_low, has_high};
}

}  // namespace geoseg
