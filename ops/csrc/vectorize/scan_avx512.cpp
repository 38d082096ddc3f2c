// The scan for AVX-512.
#if defined(__x86_64__)
#include <cstdint>

#include "scan.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2")
#endif
#include <immintrin.h>
#define GEOSEG_ISA avx512
#define GEOSEG_VECTOR_BYTES 64
#include "scan_kernel.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
