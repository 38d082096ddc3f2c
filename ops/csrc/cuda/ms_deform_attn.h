// The CUDA kernels as the dispatcher sees them: raw pointers in, an error code out. No
// CUDA header is needed to call them.
#pragma once

#include <cstdint>

#include "../deform_point.h"

namespace geoseg::cuda {

// Storage of float16 and bfloat16.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// In what a dtype is computed: locations, weights, sums, and all gradients.
template <typename T>
struct Computed {
  using Real = float;
};
template <>
struct Computed<double> {
  using Real = double;
};
template <typename T>
using Real = typename Computed<T>::Real;

// Sizes of one call. `Levels` count cells in int; what is multiplied with the batch is
// counted in 64 bits.
struct Shape {
  int64_t batch, cells;
  int heads, channels;
  int64_t queries;
  int points;  // of one level
};

// Locations in 0..1 of each level, and the weight of each point.
template <typename T>
struct GivenPoints {
  const Real<T>* locations;  // (B, Q, M, L, P, 2)
  const Real<T>* weights;    // (B, Q, M, L, P)
};

// What the projections give: offsets in cells of the level sampled from the centre of the
// query's own cell, and logits of the weights. Both are of the value's dtype if `narrow`,
// else of its Real.
template <typename T>
struct RawPoints {
  const void* offsets;  // (B, Q, M, L, P, 2)
  const void* logits;   // (B, Q, M, L, P)
  bool narrow;
  Levels grid;  // whose cells are the queries
};

template <typename T>
struct Gradients {
  const T* output;     // (B, Q, M * D)
  Real<T>* value;      // (B, S, M, D); zeros before, unless it is deterministic
  Real<T>* locations;  // (B, Q, M, L, P, 2)
  Real<T>* weights;    // (B, Q, M, L, P)
  bool deterministic;
};

// Each starts kernels on a stream (a cudaStream_t) of the current device, waits for
// nothing, and returns a cudaError_t. Defined for float, double, Half and BFloat16.
template <typename T>
int forward(const Shape& shape, const Levels& levels, const T* value, const GivenPoints<T>& points,
            T* output, void* stream);
template <typename T>
int forward_fused(const Shape& shape, const Levels& levels, const T* value, const RawPoints<T>& points,
                  T* output, void* stream);
template <typename T>
int backward(const Shape& shape, const Levels& levels, const T* value, const GivenPoints<T>& points,
             const Gradients<T>& gradients, void* stream);

// What an error code means, and what to do about it; valid for ever.
const char* explain(int error);

}  // namespace geoseg::cuda
