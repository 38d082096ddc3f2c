// The kernels for any processor: 16-byte vectors, which every compiler can lower.
#include <cstdint>
#include <cstring>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "ms_deform_attn.h"

#define GEOSEG_ISA portable
#define GEOSEG_VECTOR_BYTES 16
#include "ms_deform_attn_kernel.h"
