// Blending for AVX-512.
#if defined(__x86_64__)
#include "contraction.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif
// Below the instructions: what is inlined must be compiled for them, too.
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "blend.h"

#define GEOSEG_ISA avx512
#define GEOSEG_VECTOR_BYTES 64
#include "kernel.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
