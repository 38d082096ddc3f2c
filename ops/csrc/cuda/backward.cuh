// Gradients: those of locations and weights are sums over the channels of a head; that of
// the value is scattered, by atomic additions, unless owner.cuh does that part.
#pragma once

#include "samples.cuh"

namespace geoseg::cuda {

// Channels of a lane: four, so that the additions of a group lie side by side in memory.
template <typename T, bool aligned>
constexpr int backward_channels = !aligned ? 1 : sizeof(T) == 8 ? 2 : 4;

template <typename T>
struct BackwardArguments {
  Shape shape;
  Levels levels;
  const T* value;
  GivenPoints<T> points;
  Gradients<T> gradients;
  int log_lanes;
};

// Products of the value with the output's gradient for a lane's channels, by corner; adds
// the weighted gradient to that of the value.
template <int count, bool scatters, typename T>
__device__ __forceinline__ void visit_corners(const T* value, const Real<T>* gradient, int stride,
                                              const Sample<Real<T>>& sample, Real<T>* grad_value,
                                              Real<T>* products) {
  using R = Real<T>;
  Stored<T, count> corner[4];
  load_corners(value, stride, sample, corner);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (sample.cells.of[i] < 0) continue;
    R numbers[count], shares[count];
    corner[i].widen_to(numbers);
#pragma unroll
    for (int c = 0; c < count; c++) {
      products[i] += numbers[c] * gradient[c];
      shares[c] = gradient[c] * sample.weights.of[i];
    }
    if constexpr (scatters)
      add_to_shared<count>(at_cell(grad_value, sample.cells.of[i], stride / int(sizeof(T)) * int(sizeof(R))), shares);
  }
}

// Sums four products over the lanes of a group and leaves them in a slot. With four lanes
// or more each exchange halves what a lane still sums: 1 + log2(lanes) shuffles, not four
// times log2(lanes).
template <int lanes, typename R>
__device__ __forceinline__ void sum_products(const Place<lanes>& place, const R* products, Four<R>* slot) {
  if constexpr (lanes >= 4) {
    const bool odd = place.lane & 1, second = place.lane & 2;
    R kept[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const R given = odd ? products[2 * i] : products[2 * i + 1];
      kept[i] = (odd ? products[2 * i + 1] : products[2 * i]) + __shfl_xor_sync(whole_warp, given, 1);
    }
    R sum = (second ? kept[1] : kept[0]) + __shfl_xor_sync(whole_warp, second ? kept[0] : kept[1], 2);
#pragma unroll
    for (int apart = 4; apart < lanes; apart *= 2) sum += __shfl_xor_sync(whole_warp, sum, apart);
    if (place.lane < 4) slot->of[place.lane] = sum;
  } else {
    Four<R> sums;
    for (int i = 0; i < 4; i++) {
      sums.of[i] = products[i];
      for (int apart = 1; apart < place.lanes(); apart *= 2)
        sums.of[i] += __shfl_xor_sync(whole_warp, sums.of[i], apart);
    }
    if (place.lane == 0) *slot = sums;
  }
}

template <typename T, typename Known, bool aligned, bool scatters>
__global__ void __launch_bounds__(block_size, resident_blocks<Known>)
    backward_kernel(const __grid_constant__ BackwardArguments<T> arguments) {
  using R = Real<T>;
  constexpr int count = backward_channels<T, aligned>;
  const Shape& shape = arguments.shape;
  const Levels& levels = arguments.levels;
  const int channels = Known::channels ? Known::channels : shape.channels;
  const int points = Known::points ? Known::points : shape.points;
  const int total = points * (Known::levels ? Known::levels : levels.count);
  const Place<Known::channels / count> place(arguments.log_lanes);
  const int row_size = shape.heads * channels, stride = row_size * int(sizeof(T));

  __shared__ Slots<R> slots_of_warps[warps];
  Slots<R>& slots = slots_of_warps[threadIdx.x / warp_size];

  for (int64_t batch = blockIdx.y; batch < shape.batch; batch += gridDim.y) {
    const unsigned item = place.item();
    const bool exists = item < shape.queries * shape.heads;
    const int head = int(item % unsigned(shape.heads));
    const int64_t row = batch * shape.queries * shape.heads + item;
    const int64_t first = batch * shape.cells * row_size + int64_t(head) * channels;
    const T* grad_output = arguments.gradients.output + row * channels;
    R gradient[count] = {};
    const auto read_gradient = [&](int c) {
      Stored<T, count> stored;
      stored.clear();
      if (exists) stored.load(grad_output + c);
      stored.widen_to(gradient);
    };
    if constexpr (Known::channels != 0) read_gradient(place.lane * count);
    for (int base = 0; base < total; base += place.lanes()) {
      const int own = base + place.lane;
      const bool decodes = exists && own < total;
      const int level = decodes ? own / points : 0;
      LevelPoint<R> at = {};
      R attention = 0;
      Sample<R> sample = no_sample<R>();
      if (decodes) {
        const Given<T> point(arguments.points, levels, level, row * total + own);
        at = point.at;
        attention = point.attention;
        sample = sample_at(levels, level, at, attention);
      }
      __syncwarp();  // The slots may still be read.
      slots.put(place.slot(place.lane), sample);
      __syncwarp();
      const int here = total - base < place.lanes() ? total - base : place.lanes();
      for (int p = 0; p < here; p++) {
        const Sample<R> read = slots.get(place.slot(p));
        R products[4] = {};
        const int step = place.lanes() * count;
        for (int c = place.lane * count; c < channels; c += step) {
          if constexpr (Known::channels == 0) read_gradient(c);
          visit_corners<count, scatters>(arguments.value + first + c, gradient, stride, read,
                                         arguments.gradients.value + first + c, products);
        }
        __syncwarp();  // Every lane has read the weights, whose place the products take.
        sum_products(place, products, &slots.weights[place.slot(p)]);
      }
      __syncwarp();
      if (!decodes) continue;
      const Four<R> product = slots.weights[place.slot(place.lane)];
      const PointGradients<R> found =
          point_gradients(at, attention, levels.height[level], levels.width[level], product.of);
      const int64_t index = row * total + own;
      arguments.gradients.weights[index] = found.attention;
      arguments.gradients.locations[2 * index] = found.x;
      arguments.gradients.locations[2 * index + 1] = found.y;
    }
  }
}

}  // namespace geoseg::cuda
