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
#define GEOSEG_HOST_DEVICE static inline __attribute__((always_inline))
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

// The two cells next to a coordinate along one axis. A cell outside the level counts as
// zero: its weight and slope are 0, and its index is that of the other one, so that it
// may be read.
template <typename Real>
struct Neighbours {
  int64_t low, high;
  Real low_weight, high_weight;
  // Derivatives of the weights by the coordinate.
  Real low_slope, high_slope;
};

// Finds them for a location in 0..1 on an axis of `length` cells. Returns false where
// nothing of the level is within reach, and for NaN and infinity, whose conversion to an
// integer would be undefined.
template <typename Real>
GEOSEG_HOST_DEVICE bool find_neighbours(Real location, int64_t length, Neighbours<Real>& found) {
  const Real place = location * Real(length) - Real(0.5);
  // At -1 exactly the weights are 0 and a slope is not, as in grid_sample.
  if (!(place >= Real(-1) && place < Real(length))) return false;
  const int64_t low = int64_t(place + Real(1)) - 1;  // place + 1 >= 0: floor by truncation
  const Real share = place - Real(low);
  const bool has_low = low >= 0, has_high = low + 1 < length;
  found.low = has_low ? low : 0;
  found.high = has_high ? low + 1 : length - 1;
  found.low_weight = has_low ? Real(1) - share : Real(0);
  found.high_weight = has_high ? share : Real(0);
  found.low_slope = has_low ? Real(-1) : Real(0);
  found.high_slope = has_high ? Real(1) : Real(0);
  return true;
}

}  // namespace geoseg
