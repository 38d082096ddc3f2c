// The scan for any processor, and the choice among the compiled ones.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "scan.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "masks and WKB are little-endian");

#define GEOSEG_ISA portable
#define GEOSEG_VECTOR_BYTES 16
#include "scan_kernel.h"

namespace geoseg::vectorize {

const ScanKernels* choose_scan_kernels() {
  const char* asked = std::getenv("GEOSEG_CPU");
  const std::string name = asked ? asked : "";
  static const ScanKernels any = portable::scan_kernels();
#if defined(__x86_64__)
  static const ScanKernels with_avx2 = avx2::scan_kernels(), with_avx512 = avx512::scan_kernels();
  const bool has_avx2 = __builtin_cpu_supports("avx2");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512dq");
  if (has_avx512 && (name.empty() || name == "avx512")) return &with_avx512;
  if (has_avx2 && (name.empty() || name == "avx2")) return &with_avx2;
#endif
  return name.empty() || name == "portable" ? &any : nullptr;
}

}  // namespace geoseg::vectorize
