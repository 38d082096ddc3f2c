// The scan for AVX2.
#if defined(__x86_64__)
#include "scan.h"

#include "../for_avx2.h"
#include "scan_kernel.h"

#include "../end_of_instructions.h"
#endif
