// The kernels for AVX2.
#if defined(__x86_64__)
#include "../for_avx2.h"

#include "ms_deform_attn.h"
#include "ms_deform_attn_kernel.h"

#include "../end_of_instructions.h"
#endif
