// Blending, written once for any width of vectors; compiled as ms_deform_attn_kernel.h is.
//
// The output is cut into strips of columns, narrow enough for the second cache, and each
// strip is done row by row. A tile's columns are enlarged first, and weighted: that is needed
// once for each row of the source only, of which two are kept. Each row of the output then
// is a weighted sum of two or a few more such rows, which never leaves the registers: from
// it come class and confidence.
//
// Float32 operations and their order are those of geoseg/blending/reference.py, so that the
// results are the same bits, whatever the instructions, strips and bands.

namespace geoseg::blend::GEOSEG_ISA {
namespace {

#include "../arena.h"

#include "../lanes.h"

using Reals = Lanes<float>;
using Integers = Lanes<int32_t>;
constexpr int64_t LANES = Vector<float>::lanes;
static_assert(LANES <= PADDING);

#include "exponential.h"

#include "expand.h"

#include "classify.h"

// Calls `run` with the number of classes as a constant, or 0: with few of them, all values
// of a pixel stay in registers.
template <typename Run>
inline bool with_known_classes(int64_t classes, const Run& run) {
  switch (classes) {
    case 1:
      return run.template operator()<1>();
    case 2:
      return run.template operator()<2>();
    case 3:
      return run.template operator()<3>();
    case 4:
      return run.template operator()<4>();
    case 5:
      return run.template operator()<5>();
    case 6:
      return run.template operator()<6>();
    case 7:
      return run.template operator()<7>();
    case 8:
      return run.template operator()<8>();
    default:
      return run.template operator()<0>();
  }
}

bool run(const Problem& problem, void* memory) {
  return with_known_classes(problem.classes, [&]<int known>() {
    if (problem.probabilities) return Blending<known, true>(problem, memory).run();
    return Blending<known, false>(problem, memory).run();
  });
}

bool all_finite(const void* numbers, int64_t count, bool half) {
  // An exponent of ones only; the loops are simple enough for the compiler's vectors.
  uint32_t found = 0;
  if (half) {
    const uint16_t* bits = static_cast<const uint16_t*>(numbers);
    for (int64_t i = 0; i < count; i++) found |= (bits[i] & 0x7c00) == 0x7c00;
  } else {
    const uint32_t* bits = static_cast<const uint32_t*>(numbers);
    for (int64_t i = 0; i < count; i++) found |= (bits[i] & 0x7f800000) == 0x7f800000;
  }
  return found == 0;
}

}  // namespace

Kernels kernels() { return {&Layout::bytes, &run, &all_finite}; }

}  // namespace geoseg::blend::GEOSEG_ISA
