// Which compiled set of kernels this processor is to run.
#pragma once

#include <cstdlib>
#include <string>

namespace geoseg {

enum class Instructions { portable, avx2, avx512, unknown };

// The best that the processor has; GEOSEG_CPU names another, for tests. Unknown: it has none
// of that name.
inline Instructions choose_instructions() {
  const char* asked = std::getenv("GEOSEG_CPU");
  const std::string name = asked ? asked : "";
#if defined(__x86_64__)
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("f16c");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vl");
  if (has_avx512 && (name.empty() || name == "avx512")) return Instructions::avx512;
  if (has_avx2 && (name.empty() || name == "avx2")) return Instructions::avx2;
#endif
  return name.empty() || name == "portable" ? Instructions::portable : Instructions::unknown;
}

}  // namespace geoseg
