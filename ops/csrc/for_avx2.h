// What follows in this file is for AVX2, up to end_of_instructions.h; choose_instructions
// asks the processor for these. Above what the kernels inline, which must be compiled
// for them, too; kernels are included into a namespace, so what they need stands here.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#define GEOSEG_ISA avx2
#define GEOSEG_VECTOR_BYTES 32
