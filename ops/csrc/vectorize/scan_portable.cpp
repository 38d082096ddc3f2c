// The scan for any processor, and the choice among the compiled ones.
#include <cstdint>

#include "../instructions.h"
#include "scan.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "masks and WKB are little-endian");

#define GEOSEG_ISA portable
#define GEOSEG_VECTOR_BYTES 16
#include "scan_kernel.h"

namespace geoseg::vectorize {

const ScanKernels* choose_scan_kernels() {
  static const ScanKernels any = portable::scan_kernels();
  switch (choose_instructions()) {
    case Instructions::portable:
      return &any;
#if defined(__x86_64__)
    case Instructions::avx2: {
      static const ScanKernels with_avx2 = avx2::scan_kernels();
      return &with_avx2;
    }
    case Instructions::avx512: {
      static const ScanKernels with_avx512 = avx512::scan_kernels();
      return &with_avx512;
    }
#endif
    default:
      return nullptr;
  }
}

}  // namespace geoseg::vectorize
