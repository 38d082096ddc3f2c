// Blending for AVX2.
#if defined(__x86_64__)
#include "contraction.h"
#include "../for_avx2.h"

#include "blend.h"
#include "kernel.h"

#include "../end_of_instructions.h"
#endif
