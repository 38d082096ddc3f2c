// The scan for AVX2.
#if defined(__x86_64__)
#include <cstdint>

#include "scan.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif
#include <immintrin.h>
#define GEOSEG_ISA avx2
#define GEOSEG_VECTOR_BYTES 32
#include "scan_kernel.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
