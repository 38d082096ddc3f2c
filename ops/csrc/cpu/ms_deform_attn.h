// The CPU kernels as the dispatcher sees them: one set for each instruction set.
#pragma once

#include <cstdint>

#include "../cache_line.h"
#include "../ms_deform_attn.h"

namespace geoseg::cpu {

// Storage of bfloat16: the upper half of a float32.
struct BFloat16 {
  uint16_t bits;
};

// In what a dtype is computed: locations, weights, sums, and all gradients but that of
// the value, which is summed so and stored as the value.
template <typename T>
struct Computed {
  using Real = T;
};
template <>
struct Computed<BFloat16> {
  using Real = float;
};
template <typename T>
using Real = typename Computed<T>::Real;

template <typename T>
struct Inputs {
  Sizes sizes;
  const int64_t* shapes;  // (L, 2): height, width
  const T* value;
};

// Points as they are given.
template <typename T>
struct GivenPoints {
  const Real<T>* locations;  // (B, Q, M, L, P, 2)
  const Real<T>* weights;    // (B, Q, M, L, P)
};

// Points from raw projections (the fused operator): offsets in cells of the level sampled,
// from the place of the query's own cell, and weights before the softmax. `Stored` is T, or
// what is computed in.
template <typename Stored>
struct RawPoints {
  const int64_t* grid;  // (levels of queries, 2): height, width
  const Stored* offsets;
  const Stored* logits;
};

template <typename T>
struct Gradients {
  const T* output;
  T* value;
  Real<T>* locations;
  Real<T>* weights;
};

// Rows [begin, end) of B * M * Q, head after head; writes theirs of the output.
template <typename T, typename Points>
using Forward = void (*)(const Inputs<T>&, const Points&, T* output, int64_t begin, int64_t end, void* scratch);

template <typename T>
struct Kernels {
  Forward<T, GivenPoints<T>> forward;
  Forward<T, RawPoints<Real<T>>> fused;
  Forward<T, RawPoints<T>> fused_narrow;  // projections in the value's dtype
  int64_t (*forward_bytes)(const Sizes&, int64_t begin, int64_t end);  // of scratch
  // Heads [begin, end) of B * M. A head's gradients are summed by one thread, in the order
  // of queries: the same bits for any number of threads, and no atomics.
  void (*backward)(const Inputs<T>&, const GivenPoints<T>&, const Gradients<T>&, int64_t begin, int64_t end, void* scratch);
  int64_t (*backward_bytes)(const Sizes&);
};

namespace portable {
template <typename T>
Kernels<T> kernels();
}
namespace avx2 {
template <typename T>
Kernels<T> kernels();
}
namespace avx512 {
template <typename T>
Kernels<T> kernels();
}

}  // namespace geoseg::cpu
