// What a pass over one row of pixels finds; compiled for several instruction sets.
#pragma once

#include <cstdint>

namespace geoseg::vectorize {

struct ScanKernels {
  // Bit x of `vertical` says that pixel x differs from its left neighbour, bit x of
  // `horizontal` that it differs from the one above. Reads row[-1] and whole words of 64.
  void (*compare)(const uint8_t* above, const uint8_t* row, int64_t words, uint64_t* vertical,
                  uint64_t* horizontal);
  // Adds each pixel to its column.
  void (*accumulate)(const uint8_t* row, int64_t width, uint32_t* columns);
};

namespace portable {
ScanKernels scan_kernels();
}
namespace avx2 {
ScanKernels scan_kernels();
}
namespace avx512 {
ScanKernels scan_kernels();
}

// The best that the processor has; GEOSEG_CPU names another, for tests. nullptr: there
// is none of that name.
const ScanKernels* choose_scan_kernels();

}  // namespace geoseg::vectorize
