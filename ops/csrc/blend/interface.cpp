// Blending for `geoseg/blending/native.py`: plain C, called by ctypes, which releases Python's
// lock.
#include "../instructions.h"
#include "../plain_c.h"
#include "../scratch.h"
#include "blend.h"

using namespace geoseg;
using namespace geoseg::blend;

namespace {

Kernels choose_kernels() {
  switch (choose_instructions()) {
    case Instructions::portable:
      return portable::kernels();
#if defined(__x86_64__)
    case Instructions::avx2:
      return avx2::kernels();
    case Instructions::avx512:
      return avx512::kernels();
#endif
    default:
      refuse_instructions();
  }
}

const Kernels& kernels() {
  static const Kernels chosen = choose_kernels();
  return chosen;
}

}  // namespace

// `covered`: whether each pixel wanted lies in a tile.
GEOSEG_API int geoseg_blend(const Problem* problem, bool* covered) {
  return guarded([&] {
    const Scratch scratch(kernels().scratch_bytes(*problem));
    *covered = kernels().run(*problem, scratch.begin());
  });
}

GEOSEG_API int geoseg_all_finite(const void* numbers, int64_t count, bool half, bool* finite) {
  return guarded([&] { *finite = kernels().all_finite(numbers, count, half); });
}
