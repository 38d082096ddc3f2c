// The CPU kernels as the dispatcher sees them: one set for each instruction set.
#pragma once

#include <cstdint>

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
  const Real<T>* locations;
  const Real<T>* weights;
};

template <typename T>
struct Gradients {
  const T* output;
  T* value;
  Real<T>* locations;
  Real<T>* weights;
};

// Scratch memory begins on a cache line.
constexpr int64_t CACHE_LINE = 64;

template <typename T>
struct Kernels {
  // Rows [begin, end) of B * M * Q, head after head; writes theirs of the output.
  void (*forward)(const Inputs<T>&, T* output, int64_t begin, int64_t end, void* scratch);
  int64_t (*forward_bytes)(const Sizes&, int64_t begin, int64_t end);  // of scratch
  // Heads [begin, end) of B * M. A head's gradients are summed by one thread, in the order
  // of queries: the same bits for any number of threads, and no atomics.
  void (*backward)(const Inputs<T>&, const Gradients<T>&, int64_t begin, int64_t end, void* scratch);
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
