// Blending for any processor: 16-byte vectors, which every compiler can lower.
#include "contraction.h"

#include <cstdint>
#include <cstring>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "blend.h"

#define GEOSEG_ISA portable
#define GEOSEG_VECTOR_BYTES 16
#include "kernel.h"
