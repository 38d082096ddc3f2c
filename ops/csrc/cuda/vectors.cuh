// Loads, stores and atomic additions of several channels at once.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "ms_deform_attn.h"

namespace geoseg::cuda {

template <typename To, typename From>
__device__ __forceinline__ To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

__device__ __forceinline__ float widen(float number) { return number; }
__device__ __forceinline__ double widen(double number) { return number; }
__device__ __forceinline__ float widen(Half number) { return __half2float(bits_as<__half>(number)); }
__device__ __forceinline__ float widen(BFloat16 number) {
  return __uint_as_float(uint32_t(number.bits) << 16);
}

// Round to nearest, ties to even.
template <typename T>
__device__ __forceinline__ T narrow(Real<T> number) {
  return number;
}
template <>
__device__ __forceinline__ Half narrow<Half>(float number) {
  return bits_as<Half>(__float2half_rn(number));
}
template <>
__device__ __forceinline__ BFloat16 narrow<BFloat16>(float number) {
  return bits_as<BFloat16>(__float2bfloat16_rn(number));
}

// The word that moves so many bytes in one instruction.
template <int bytes>
struct Word;
template <>
struct Word<2> {
  using Type = uint16_t;
};
template <>
struct Word<4> {
  using Type = uint32_t;
};
template <>
struct Word<8> {
  using Type = uint2;
};
template <>
struct Word<16> {
  using Type = uint4;
};

// Channels of one lane, as they are stored.
template <typename T, int count>
struct Stored {
  using Type = typename Word<sizeof(T) * count>::Type;
  Type words;

  __device__ __forceinline__ void clear() { words = Type{}; }

  // Through the cache of read-only data; the address must be a multiple of its size.
  __device__ __forceinline__ void load(const T* from) {
    words = __ldg(reinterpret_cast<const Type*>(from));
  }

  __device__ __forceinline__ void store(T* to) const { *reinterpret_cast<Type*>(to) = words; }

  __device__ __forceinline__ void widen_to(Real<T>* numbers) const {
    T parts[count];
    memcpy(parts, &words, sizeof words);
#pragma unroll
    for (int i = 0; i < count; i++) numbers[i] = widen(parts[i]);
  }

  __device__ __forceinline__ void narrow_from(const Real<T>* numbers) {
    T parts[count];
#pragma unroll
    for (int i = 0; i < count; i++) parts[i] = narrow<T>(numbers[i]);
    memcpy(&words, parts, sizeof words);
  }
};

// Adds to memory that other blocks add to: four numbers in one instruction where the
// processor can.
template <int count, typename R>
__device__ __forceinline__ void add_to_shared(R* to, const R* numbers) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr bool together = count == 4 && sizeof(R) == 4;
#else
  constexpr bool together = false;
#endif
  if constexpr (together) {
    atomicAdd(reinterpret_cast<float4*>(to), make_float4(numbers[0], numbers[1], numbers[2], numbers[3]));
  } else {
#pragma unroll
    for (int i = 0; i < count; i++) atomicAdd(to + i, numbers[i]);
  }
}

}  // namespace geoseg::cuda
