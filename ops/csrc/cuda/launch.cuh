// Which kernel does a call, and how many blocks of it. Included by one file for each
// dtype, which instantiates the three functions for it.
#pragma once

#include <algorithm>

#include "backward.cuh"
#include "forward.cuh"
#include "owner.cuh"

namespace geoseg::cuda {
namespace {

constexpr int64_t most_blocks_across = 65535;  // of gridDim.y and gridDim.z

template <typename Arguments>
cudaError_t start(void (*kernel)(const Arguments), dim3 grid, int threads, const Arguments& arguments, void* stream) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.stream = static_cast<cudaStream_t>(stream);
  return cudaLaunchKernelEx(&config, kernel, arguments);
}

// Lanes of a group, as a power of two: enough for the channels, at most a warp.
int log_lanes_for(int64_t channels, int per_lane) {
  int log_lanes = 0;
  while (log_lanes < 5 && (int64_t(per_lane) << log_lanes) < channels) log_lanes++;
  return log_lanes;
}

// Blocks for so many groups of each batch item; a block strides over batch items beyond
// the grid's limit.
dim3 grid_for(const Shape& shape, int64_t groups, int log_lanes) {
  const int64_t per_block = int64_t(block_size) >> log_lanes;
  return dim3(unsigned((groups + per_block - 1) / per_block), unsigned(std::min(shape.batch, most_blocks_across)));
}

// Calls `run` with the shape that is known to the compiler, or Any.
template <typename T, typename Run>
cudaError_t with_known(const Shape& shape, const Levels& levels, const Run& run) {
  if constexpr (sizeof(T) < 8) {
    const bool pyramid = levels.count == 3;
    if (shape.points == 4 && (pyramid || levels.count == 1)) {
      if (shape.channels == 32) return pyramid ? run(Fixed<32, 3, 4>()) : run(Fixed<32, 1, 4>());
      if (shape.channels == 64) return pyramid ? run(Fixed<64, 3, 4>()) : run(Fixed<64, 1, 4>());
      if (shape.channels == 128) return pyramid ? run(Fixed<128, 3, 4>()) : run(Fixed<128, 1, 4>());
    }
  }
  return run(Any());
}

template <bool aligned, typename T, typename Points, typename Known>
cudaError_t start_forward(const ForwardArguments<T, Points>& given, Known, void* stream) {
  constexpr int count = forward_channels<T, aligned>;
  ForwardArguments<T, Points> arguments = given;
  const Shape& shape = arguments.shape;
  arguments.log_lanes = log_lanes_for(shape.channels, count);
  const int64_t of_group = int64_t(count) << arguments.log_lanes;
  arguments.chunks = int((shape.channels + of_group - 1) / of_group);
  const int64_t groups = shape.queries * shape.heads * arguments.chunks;
  if (groups >= int64_t(1) << 31) return cudaErrorInvalidValue;
  return start(&forward_kernel<T, Points, Known, aligned>, grid_for(shape, groups, arguments.log_lanes), block_size,
               arguments, stream);
}

template <typename T, typename Points>
int run_forward(const Shape& shape, const Levels& levels, const T* value, const Points& points, T* output,
                void* stream) {
  if (shape.batch * shape.queries * shape.heads * shape.channels == 0) return cudaSuccess;
  const ForwardArguments<T, Points> arguments{shape, levels, value, points, output, 0, 0};
  if (shape.channels % forward_channels<T, true> != 0) return start_forward<false>(arguments, Any(), stream);
  return with_known<T>(shape, levels, [&](auto known) { return start_forward<true>(arguments, known, stream); });
}

template <bool aligned, typename T, typename Known>
cudaError_t start_backward(const BackwardArguments<T>& given, Known, void* stream) {
  BackwardArguments<T> arguments = given;
  const Shape& shape = arguments.shape;
  arguments.log_lanes = log_lanes_for(shape.channels, backward_channels<T, aligned>);
  const int64_t groups = shape.queries * shape.heads;
  if (groups >= int64_t(1) << 31) return cudaErrorInvalidValue;
  const auto kernel = arguments.gradients.deterministic ? &backward_kernel<T, Known, aligned, false>
                                                        : &backward_kernel<T, Known, aligned, true>;
  return start(kernel, grid_for(shape, groups, arguments.log_lanes), block_size, arguments, stream);
}

template <typename T>
cudaError_t start_owner(const BackwardArguments<T>& backward, void* stream) {
  OwnerArguments<T> arguments{backward.shape, backward.levels, backward.points, backward.gradients, {}};
  const Shape& shape = arguments.shape;
  const Levels& levels = arguments.levels;
  const auto across = [](int length) { return (length + square_side - 1) / square_side; };
  for (int level = 0; level < levels.count; level++)
    arguments.squares[level + 1] = arguments.squares[level] + across(levels.height[level]) * across(levels.width[level]);
  const dim3 grid(unsigned(arguments.squares[levels.count]), unsigned((shape.channels + warp_size - 1) / warp_size),
                  unsigned(std::min(shape.batch * shape.heads, most_blocks_across)));
  return start(&owner_kernel<T>, grid, warp_size, arguments, stream);
}

}  // namespace

template <typename T>
int forward(const Shape& shape, const Levels& levels, const T* value, const GivenPoints<T>& points, T* output,
            void* stream) {
  return run_forward(shape, levels, value, points, output, stream);
}

template <typename T>
int forward_fused(const Shape& shape, const Levels& levels, const T* value, const RawPoints<T>& points, T* output,
                  void* stream) {
  return run_forward(shape, levels, value, points, output, stream);
}

template <typename T>
int backward(const Shape& shape, const Levels& levels, const T* value, const GivenPoints<T>& points,
             const Gradients<T>& gradients, void* stream) {
  if (shape.batch * shape.heads == 0) return cudaSuccess;
  const BackwardArguments<T> arguments{shape, levels, value, points, gradients, 0};
  if (shape.queries > 0) {  // Heads without channels have gradients of points: zeros.
    const cudaError_t error =
        shape.channels % backward_channels<T, true> != 0
            ? start_backward<false>(arguments, Any(), stream)
            : with_known<T>(shape, levels, [&](auto known) { return start_backward<true>(arguments, known, stream); });
    if (error != cudaSuccess) return error;
  }
  return gradients.deterministic && shape.channels > 0 ? start_owner(arguments, stream) : cudaSuccess;
}

// Instantiates the functions of ms_deform_attn.h for a dtype.
#define GEOSEG_INSTANTIATE(T)                                                                                   \
  template int forward<T>(const Shape&, const Levels&, const T*, const GivenPoints<T>&, T*, void*);             \
  template int forward_fused<T>(const Shape&, const Levels&, const T*, const RawPoints<T>&, T*, void*);         \
  template int backward<T>(const Shape&, const Levels&, const T*, const GivenPoints<T>&, const Gradients<T>&, void*)

}  // namespace geoseg::cuda
