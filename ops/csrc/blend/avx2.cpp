// Blending for AVX2.
#if defined(__x86_64__)
#include "contraction.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
// Below the instructions: what is inlined must be compiled for them, too.
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "blend.h"

#define GEOSEG_ISA avx2
#define GEOSEG_VECTOR_BYTES 32
#include "kernel.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
