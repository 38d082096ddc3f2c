// A GPU of one thread, for tests: CUDA sources that include <cuda_runtime.h> and find the
// header beside this one compile with a C++ compiler and run on the CPU.
//
// Each CUDA thread is a fiber that runs until it meets the other lanes of its warp, in a
// shuffle, a ballot or a barrier. Blocks run one after the other, each with shared memory
// full of nonsense. Between two meetings lanes run in ascending, descending or random
// order; compiled with -fsanitize=thread, the order does not matter: whatever two lanes do
// to the same memory without a barrier between is reported. A lane that leaves while others
// wait for it, lanes that wait in different places, plain access to memory that is declared
// to be for atomics, and atomics elsewhere, end the program.
#pragma once

#include <math.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "fibers.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
// One block runs at a time, and its threads share the statics of the kernel.
#define __shared__ static

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInsufficientDriver = 35,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorUnsupportedPtxVersion = 222,
};
inline const char* cudaGetErrorString(cudaError_t) { return "an error of CUDA's own"; }
using cudaStream_t = struct CUstream_st*;

extern "C" char __executable_start;

namespace emulation {

constexpr int warp_size = 32;

enum Kind { barrier, shuffle, ballot };

// What the lanes of a warp bring to a meeting. Two, used in turn: a lane may come to the
// next one before the last lane has left this one, but not to the one after that.
struct Meeting {
  uint64_t brought[warp_size];
  int kind[warp_size];
};

inline std::vector<Meeting> meetings;  // two for each warp
inline std::function<void()> kernel;
inline bool progress = false;
// Lanes run in ascending order, with 1 in descending, with any other number at random.
inline unsigned order = 0;
inline std::minstd_rand random;
// Where kernels must be started.
inline cudaStream_t stream = nullptr;
// What becomes of it.
inline cudaError_t launch_error = cudaSuccess;
// Where the variables are that threads of a block share.
inline std::vector<std::pair<char*, size_t>> shared_memory;
inline char *atomics_begin = nullptr, *atomics_end = nullptr;

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emulation: %s (block %u,%u,%u thread %d)\n", what, blockIdx.x, blockIdx.y, blockIdx.z,
               current);
  std::_Exit(70);
}

// PROGRAM.shared lists these variables: distance from the program's start, and size.
inline void read_shared_memory(const std::string& program) {
  std::ifstream text(program + ".shared");
  size_t distance, bytes;
  while (text >> distance >> bytes) shared_memory.emplace_back(&__executable_start + distance, bytes);
  if (shared_memory.empty()) fail("no list of shared memory");
}

// Sets memory apart, to be changed by atomics only; all atomics must go there.
inline void reserve_for_atomics(void* memory, size_t bytes) {
  atomics_begin = static_cast<char*>(memory);
  atomics_end = atomics_begin + bytes;
  forbid(memory, bytes);
}

inline void release_from_atomics() { allow(atomics_begin, size_t(atomics_end - atomics_begin)); }

inline void run_fiber() {
  arrived(true);
  kernel();
  {
    const Unwatched unwatched;
    fibers[current].done = progress = true;
  }
  leave(true);
}

inline void start_block() {
  // As an index it is out of any bounds, as a number beyond all tolerances.
  for (const auto& [place, bytes] : shared_memory) std::memset(place, 0x7f, bytes);
  for (Fiber& fiber : fibers) {
    fiber.done = false;
    fiber.meetings = 0;
    begin(fiber);
    getcontext(&fiber.context);
    fiber.context.uc_stack = {fiber.stack.get(), 0, Fiber::stack_size};
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, run_fiber, 0);
  }
}

inline void run_block() {
  start_block();
  std::vector<int> turns(fibers.size());
  std::iota(turns.begin(), turns.end(), 0);
  if (order == 1) std::reverse(turns.begin(), turns.end());
  for (bool any = true; any;) {
    any = progress = false;
    if (order > 1) std::shuffle(turns.begin(), turns.end(), random);
    for (const int thread : turns) {
      if (fibers[thread].done) continue;
      any = true;
      current = thread;
      threadIdx.x = unsigned(thread);
      enter(fibers[thread]);
    }
    if (any && !progress) fail("all threads wait");
  }
  for (Fiber& fiber : fibers) finish(fiber);
}

// Brings a value to the warp's next meeting, waits for all lanes, and returns what they
// brought. All 32 lanes must take part: the kernels never narrow a mask.
inline const uint64_t* meet(unsigned mask, int kind, uint64_t value) {
  const Unwatched unwatched;
  if (mask != 0xffffffffu) fail("a mask names less than the whole warp");
  const int first = current / warp_size * warp_size, lane = current - first;
  const unsigned turn = ++fibers[current].meetings;
  Meeting& meeting = meetings[current / warp_size * 2 + turn % 2];
  meeting.brought[lane] = value;
  meeting.kind[lane] = kind;
  if (kind == barrier) hand_on(&meeting);  // Shuffles and ballots order no memory.
  progress = true;
  for (int other = 0; other < warp_size;) {
    const Fiber& fiber = fibers[first + other];
    if (fiber.meetings >= turn) {
      other++;
    } else if (fiber.done) {
      fail("a lane has left that others wait for");
    } else {
      leave(false);
    }
  }
  for (int other = 0; other < warp_size; other++)
    if (meeting.kind[other] != kind) fail("lanes of a warp wait in different places");
  if (kind == barrier) take_over(&meeting);
  return meeting.brought;
}

template <typename E>
uint64_t to_bits(E value) {
  static_assert(sizeof(E) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <typename E>
E from_bits(uint64_t bits) {
  E value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Not instrumented: memory for atomics is forbidden to everything else.
template <typename E>
__attribute__((no_sanitize("address", "thread"), noinline)) void add(E* to, E value) {
  const char* place = reinterpret_cast<const char*>(to);
  if (place < atomics_begin || place + sizeof(E) > atomics_end) fail("an atomic outside the memory for atomics");
  *to = *to + value;
}

}  // namespace emulation

inline void __syncwarp(unsigned mask = 0xffffffffu) { emulation::meet(mask, emulation::barrier, 0); }

template <typename E>
E __shfl_sync(unsigned mask, E value, int lane) {
  return emulation::from_bits<E>(
      emulation::meet(mask, emulation::shuffle, emulation::to_bits(value))[lane % emulation::warp_size]);
}

template <typename E>
E __shfl_xor_sync(unsigned mask, E value, int apart) {
  const int lane = emulation::current % emulation::warp_size;
  return emulation::from_bits<E>(
      emulation::meet(mask, emulation::shuffle, emulation::to_bits(value))[lane ^ apart]);
}

inline unsigned __ballot_sync(unsigned mask, bool vote) {
  const uint64_t* votes = emulation::meet(mask, emulation::ballot, vote);
  unsigned found = 0;
  for (int lane = 0; lane < emulation::warp_size; lane++) found |= unsigned(votes[lane]) << lane;
  return found;
}

inline int __ffs(int word) { return __builtin_ffs(word); }
template <typename E>
E __ldg(const E* from) {
  return *from;
}
inline float __uint_as_float(uint32_t word) { return emulation::from_bits<float>(word); }
inline void atomicAdd(float* to, float value) { emulation::add(to, value); }
inline void atomicAdd(double* to, double value) { emulation::add(to, value); }
#if __CUDA_ARCH__ >= 900
inline void atomicAdd(float4* to, float4 value) {
  if (reinterpret_cast<uintptr_t>(to) % 16) emulation::fail("a vector of atomics is not aligned");
  float* numbers = reinterpret_cast<float*>(to);
  emulation::add(numbers, value.x);
  emulation::add(numbers + 1, value.y);
  emulation::add(numbers + 2, value.z);
  emulation::add(numbers + 3, value.w);
}
#endif
inline int min(int one, int other) { return one < other ? one : other; }

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

template <typename... Parameters, typename... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Given&&... given) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  if (emulation::launch_error != cudaSuccess) return emulation::launch_error;
  if (!grid.x || grid.y - 1 >= 65535 || grid.z - 1 >= 65535) return cudaErrorInvalidValue;
  if (block.x % emulation::warp_size || block.y != 1 || block.z != 1) emulation::fail("blocks must be whole warps");
  // Of a grid that is as long as may be, the two ends: all would take minutes.
  const auto runs = [](unsigned index, unsigned count) {
    return count < 65535 || index < 2 || index + 1 == count;
  };
  if (config->stream != emulation::stream) emulation::fail("not the current stream");
  const emulation::Unwatched unwatched;
  emulation::kernel = [&] { kernel(given...); };
  emulation::fibers.resize(block.x);
  emulation::meetings.resize(block.x / emulation::warp_size * 2);
  gridDim = grid;
  blockDim = block;
  for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
    for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
      for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++)
        if (runs(blockIdx.y, grid.y) && runs(blockIdx.z, grid.z)) emulation::run_block();
  return cudaSuccess;
}
