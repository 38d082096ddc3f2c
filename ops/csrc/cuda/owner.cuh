// The value's gradient without atomics: a warp owns a square of cells of one head, looks
// at all points of their level in the order of queries, and adds up what falls on its
// cells. The order of additions is always the same, and so are the bits. It reads every
// point once for each square of the level, which is cheaper than it sounds: the scan is a
// tenth of the work at the models' shapes (docs/ops.md).
#pragma once

#include "samples.cuh"

namespace geoseg::cuda {

constexpr int square_side = 8;

template <typename T>
struct OwnerArguments {
  Shape shape;
  Levels levels;
  GivenPoints<T> points;
  Gradients<T> gradients;
  int squares[Levels::most + 1];  // squares of the levels before
};

// A square of a level.
struct Square {
  int level, top, left, bottom, right;

  __device__ __forceinline__ Square(const Levels& levels, const int* squares, int index) {
    level = 0;
    while (level + 1 < levels.count && index >= squares[level + 1]) level++;
    const int across = (levels.width[level] + square_side - 1) / square_side;
    const int place = index - squares[level];
    top = place / across * square_side;
    left = place % across * square_side;
    bottom = min(top + square_side, levels.height[level]);
    right = min(left + square_side, levels.width[level]);
  }

  template <typename R>
  __device__ __forceinline__ bool touches(const LevelPoint<R>& at) const {
    return at.within_reach() && at.x.low < right && at.x.low + 1 >= left && at.y.low < bottom &&
           at.y.low + 1 >= top;
  }
};

template <typename T>
__global__ void __launch_bounds__(warp_size) owner_kernel(const __grid_constant__ OwnerArguments<T> arguments) {
  using R = Real<T>;
  const Shape& shape = arguments.shape;
  const Levels& levels = arguments.levels;
  const Square square(levels, arguments.squares, int(blockIdx.x));
  const int lane = threadIdx.x, channel = blockIdx.y * warp_size + lane;
  const int64_t total = int64_t(levels.count) * shape.points;
  const int64_t count = shape.queries * shape.points;  // points on the square's level
  __shared__ R sums[square_side * square_side][warp_size];

  for (int64_t unit = blockIdx.z; unit < shape.batch * shape.heads; unit += gridDim.z) {
    const int64_t batch = unit / shape.heads, head = unit % shape.heads;
    // Each lane keeps to its own column of `sums`: no barrier is needed.
    for (int cell = 0; cell < square_side * square_side; cell++) sums[cell][lane] = R(0);
    for (int64_t base = 0; base < count; base += warp_size) {
      const int64_t own = base + lane;
      const int64_t query = own / shape.points;
      LevelPoint<R> at = {};
      R attention = 0;
      if (own < count) {
        const int64_t row = (batch * shape.queries + query) * shape.heads + head;
        const int64_t index = row * total + square.level * shape.points + own % shape.points;
        const Given<T> point(arguments.points, levels, square.level, index);
        at = point.at;
        attention = point.attention;
      }
      for (unsigned left = __ballot_sync(whole_warp, own < count && square.touches(at)); left; left &= left - 1) {
        const int from = __ffs(int(left)) - 1;
        const int x = __shfl_sync(whole_warp, at.x.low, from), y = __shfl_sync(whole_warp, at.y.low, from);
        const R east = __shfl_sync(whole_warp, at.x.share, from), south = __shfl_sync(whole_warp, at.y.share, from);
        const R share = __shfl_sync(whole_warp, attention, from);
        if (channel >= shape.channels) continue;
        const int64_t row = (batch * shape.queries + (base + from) / shape.points) * shape.heads + head;
        const R gradient = widen(arguments.gradients.output[row * shape.channels + channel]);
        for (int corner = 0; corner < 4; corner++) {
          const int column = x + (corner & 1), line = y + (corner >> 1);
          if (column < square.left || column >= square.right || line < square.top || line >= square.bottom) continue;
          const R weight = (corner & 1 ? east : R(1) - east) * (corner & 2 ? south : R(1) - south);
          sums[(line - square.top) * square_side + column - square.left][lane] += gradient * (weight * share);
        }
      }
    }
    if (channel >= shape.channels) continue;
    for (int line = square.top; line < square.bottom; line++)
      for (int column = square.left; column < square.right; column++) {
        const int64_t cell = levels.start[square.level] + int64_t(line) * levels.width[square.level] + column;
        const int64_t place = ((batch * shape.cells + cell) * shape.heads + head) * shape.channels + channel;
        arguments.gradients.value[place] =
            sums[(line - square.top) * square_side + column - square.left][lane];
      }
  }
}

}  // namespace geoseg::cuda
