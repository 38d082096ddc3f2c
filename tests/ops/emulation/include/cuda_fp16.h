#pragma once
#include "emulation.h"

struct __half {
  _Float16 number;
};
inline float __half2float(__half number) { return float(number.number); }
inline __half __float2half_rn(float number) { return {_Float16(number)}; }
