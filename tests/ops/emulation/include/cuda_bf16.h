#pragma once
#include "emulation.h"

struct __nv_bfloat16 {
  uint16_t bits;
};
// To nearest, ties to even; NaN stays NaN.
inline __nv_bfloat16 __float2bfloat16_rn(float number) {
  const uint32_t word = uint32_t(emulation::to_bits(number));
  if (number != number) return {0x7fff};
  return {uint16_t((word + 0x7fff + ((word >> 16) & 1)) >> 16)};
}
