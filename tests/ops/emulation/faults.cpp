// Kernels that a GPU would not forgive, to see that the emulator does not either: faults CASE.
#include <cuda_runtime.h>

#include <string>

namespace {

struct Memory {
  float* numbers;  // 8, at an address that 16 bytes at once may be read from
  float* sums;     // 4, for atomics
};

__global__ void unaligned_vector_kernel(Memory memory) {
  const uint4 word = __ldg(reinterpret_cast<const uint4*>(memory.numbers + 1));
  if (word.x == 1) memory.numbers[0] = 1;
}

__global__ void beyond_the_end_kernel(Memory memory) { memory.numbers[8] = float(threadIdx.x); }

__global__ void unaligned_atomic_kernel(Memory memory) {
  atomicAdd(reinterpret_cast<float4*>(memory.sums + 1), make_float4(1, 1, 1, 1));
}

__global__ void atomic_beyond_the_end_kernel(Memory memory) { atomicAdd(memory.sums + 4, 1.0f); }

__global__ void lost_atomic_kernel(Memory memory) { memory.sums[0] += 1; }

__global__ void nan_to_integer_kernel(Memory memory) { memory.numbers[0] = float(int(memory.numbers[7])); }

__global__ void a_lane_leaves_kernel(Memory) {
  if (threadIdx.x % 32 == 31) return;
  __syncwarp();
}

__global__ void lanes_part_kernel(Memory) {
  if (threadIdx.x % 2) {
    __syncwarp();
  } else {
    __shfl_xor_sync(0xffffffffu, 1, 2);
  }
}

__global__ void narrow_mask_kernel(Memory) {
  if (threadIdx.x < 16) __syncwarp(0xffffu);
}

// An index that nobody has written.
__global__ void nothing_written_kernel(Memory memory) {
  __shared__ int places[32];
  memory.numbers[0] = memory.numbers[places[threadIdx.x]];
}

// No result is wrong if lanes run in ascending order, and on a GPU it may be.
__global__ void race_kernel(Memory memory) {
  __shared__ int most;
  if (threadIdx.x == 0) most = 5;
  __shfl_xor_sync(0xffffffffu, 1, 1);  // no barrier for memory
  if (most == 7) memory.numbers[0] = 1;
}

__global__ void no_race_kernel(Memory memory) {
  __shared__ float numbers[32];
  numbers[threadIdx.x] = 1;
  __syncwarp();
  if (numbers[31 - threadIdx.x] != 1) std::exit(65);
  __syncwarp();
  numbers[31 - threadIdx.x] = 2;
  atomicAdd(memory.sums, 1.0f);
}

}  // namespace

#define CASE(name) \
  if (asked == #name) kernel = name##_kernel

int main(int, char** arguments) {
  const std::string asked = arguments[1];
  emulation::read_shared_memory(arguments[0]);
  void (*kernel)(Memory) = nullptr;
  CASE(unaligned_vector);
  CASE(beyond_the_end);
  CASE(unaligned_atomic);
  CASE(atomic_beyond_the_end);
  CASE(lost_atomic);
  CASE(nan_to_integer);
  CASE(a_lane_leaves);
  CASE(lanes_part);
  CASE(narrow_mask);
  CASE(nothing_written);
  CASE(race);
  CASE(no_race);
  Memory memory;
  if (posix_memalign(reinterpret_cast<void**>(&memory.numbers), 16, 8 * sizeof(float))) return 64;
  if (posix_memalign(reinterpret_cast<void**>(&memory.sums), 16, 4 * sizeof(float))) return 64;
  for (int i = 0; i < 8; i++) memory.numbers[i] = i < 7 ? float(i) : NAN;
  for (int i = 0; i < 4; i++) memory.sums[i] = 0;
  emulation::reserve_for_atomics(memory.sums, 4 * sizeof(float));
  cudaLaunchConfig_t config = {};
  config.blockDim = dim3(32);
  for (int launch = 0; launch < 2; launch++)
    if (kernel == nullptr || cudaLaunchKernelEx(&config, kernel, memory) != cudaSuccess) return 64;
  emulation::release_from_atomics();
  const float sum = memory.sums[0];
  std::free(memory.numbers);
  std::free(memory.sums);
  return asked == "no_race" && sum != 64;
}
