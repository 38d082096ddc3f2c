// Kernels that sum samples: for locations and weights that are given, and for those that
// are worked out from offsets and logits (the fused operator).
#pragma once

#include "samples.cuh"

namespace geoseg::cuda {

// Channels of a lane: 16 bytes, or one where rows are not aligned to that.
template <typename T, bool aligned>
constexpr int forward_channels = aligned ? 16 / int(sizeof(T)) : 1;

template <typename T, typename Points>
struct ForwardArguments {
  Shape shape;
  Levels levels;
  const T* value;
  Points points;
  T* output;
  int log_lanes;
  int chunks;  // groups that share a head which has more channels than a group
};

// The head of a query that a group works at.
struct Row {
  int64_t index;  // of B * Q * M
  int head, chunk;
  int query_turn;
  bool exists;

  __device__ __forceinline__ Row(const Shape& shape, unsigned item, int chunks, int batch) {
    const unsigned row = item / unsigned(chunks);
    chunk = int(item - row * chunks);
    query_turn = int(row / unsigned(shape.heads));
    head = int(row - unsigned(query_turn) * shape.heads);
    exists = query_turn < shape.queries;
    index = (int64_t(batch) * shape.queries + query_turn) * shape.heads + head;
  }
};

// How the points of a row are decoded: as they are given.
template <typename T>
struct GivenRow {
  const GivenPoints<T>& points;

  template <int lanes>
  __device__ __forceinline__ GivenRow(const GivenPoints<T>& points, const Shape&, int, const Place<lanes>&,
                                      int, Row&)
      : points(points) {}

  __device__ __forceinline__ Sample<Real<T>> decode(const Levels& levels, int level, int64_t index) const {
    const Given<T> point(points, levels, level, index);
    return sample_at(levels, level, point.at, point.attention);
  }
};

// Raw points: the softmax needs all logits of the row before the first sample.
template <typename T>
struct RawRow {
  using R = Real<T>;
  const RawPoints<T>& points;
  R x, y;           // the query's place, 0..1
  R largest, rate;  // weight = exp(logit - largest) * rate

  template <int lanes>
  __device__ __forceinline__ RawRow(const RawPoints<T>& points, const Shape& shape, int64_t batch,
                                    const Place<lanes>& place, int total, Row& row)
      : points(points) {
    const GridCell cell = tiled_cell(points.grid, row.exists ? row.query_turn : 0);
    const int height = points.grid.height[cell.level], width = points.grid.width[cell.level];
    x = (R(cell.column) + R(0.5)) / R(width);
    y = (R(cell.row) + R(0.5)) / R(height);
    const int64_t query = points.grid.start[cell.level] + cell.row * int64_t(width) + cell.column;
    row.index = (int64_t(batch) * shape.queries + query) * shape.heads + row.head;
    normalise(place, total, row);
  }

  template <int lanes>
  __device__ __forceinline__ void normalise(const Place<lanes>& place, int total, const Row& row) {
    largest = -R(INFINITY);
    if (row.exists)
#pragma unroll 1
      for (int i = place.lane; i < total; i += place.lanes()) largest = fmax(largest, logit(row.index * total + i));
#pragma unroll
    for (int apart = 1; apart < place.lanes(); apart *= 2)
      largest = fmax(largest, __shfl_xor_sync(whole_warp, largest, apart));
    R sum = 0;
    if (row.exists)
#pragma unroll 1
      for (int i = place.lane; i < total; i += place.lanes()) sum += exp(logit(row.index * total + i) - largest);
#pragma unroll
    for (int apart = 1; apart < place.lanes(); apart *= 2) sum += __shfl_xor_sync(whole_warp, sum, apart);
    rate = R(1) / sum;
  }

  __device__ __forceinline__ R read(const void* from, int64_t index) const {
    if (points.narrow) return widen(static_cast<const T*>(from)[index]);
    return static_cast<const R*>(from)[index];
  }
  __device__ __forceinline__ R logit(int64_t index) const { return read(points.logits, index); }

  __device__ __forceinline__ Sample<R> decode(const Levels& levels, int level, int64_t index) const {
    const R attention = exp(logit(index) - largest) * rate;
    // (x + offset / width) * width - 0.5, less one rounding.
    const R at_x = x * R(levels.width[level]) + read(points.offsets, 2 * index) - R(0.5);
    const R at_y = y * R(levels.height[level]) + read(points.offsets, 2 * index + 1) - R(0.5);
    return sample_at(levels, level, find_on_level<R>(levels, level, at_x, at_y), attention);
  }
};

template <typename T, typename Points>
struct RowOf;
template <typename T>
struct RowOf<T, GivenPoints<T>> {
  using Type = GivenRow<T>;
};
template <typename T>
struct RowOf<T, RawPoints<T>> {
  using Type = RawRow<T>;
};

// Adds one sample to the sums of a lane's channels.
template <int count, typename T>
__device__ __forceinline__ void add_sample(const T* value, int stride, const Sample<Real<T>>& sample,
                                           Real<T>* sums) {
  Stored<T, count> corner[4];
  load_corners(value, stride, sample, corner);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    Real<T> numbers[count];
    corner[i].widen_to(numbers);
#pragma unroll
    for (int c = 0; c < count; c++) sums[c] += numbers[c] * sample.weights.of[i];
  }
}

template <typename T, typename Points, typename Known, bool aligned>
__global__ void __launch_bounds__(block_size, resident_blocks<Known>)
    forward_kernel(const __grid_constant__ ForwardArguments<T, Points> arguments) {
  using R = Real<T>;
  constexpr int count = forward_channels<T, aligned>;
  const Shape& shape = arguments.shape;
  const Levels& levels = arguments.levels;
  const int channels = Known::channels ? Known::channels : shape.channels;
  const int points = Known::points ? Known::points : shape.points;
  const int total = points * (Known::levels ? Known::levels : levels.count);
  // Points of one level, whose loads are all on their way at once; a group has as many
  // lanes, or a multiple.
  constexpr int together = Known::points ? Known::points : 1;
  static_assert(Known::channels / count % together == 0);
  const Place<Known::channels / count> place(arguments.log_lanes);
  const int row_size = shape.heads * channels, stride = row_size * int(sizeof(T));

  __shared__ Slots<R> slots_of_warps[warps];
  Slots<R>& slots = slots_of_warps[threadIdx.x / warp_size];

  for (int batch = blockIdx.y; batch < shape.batch; batch += gridDim.y) {
    Row row(shape, place.item(), Known::channels ? 1 : arguments.chunks, batch);
    const typename RowOf<T, Points>::Type source(arguments.points, shape, batch, place, total, row);
    const int first = (row.chunk * place.lanes() + place.lane) * count;
    const bool has_channels = row.exists && (Known::channels || first < channels);
    const T* value = arguments.value + int64_t(batch) * shape.cells * row_size + row.head * channels + first;
    R sums[count] = {};
#pragma unroll 1
    for (int base = 0; base < total; base += place.lanes()) {
      const int own = base + place.lane;
      Sample<R> sample = no_sample<R>();
      if (row.exists && own < total) sample = source.decode(levels, own / points, row.index * total + own);
      __syncwarp();  // The slots may still be read.
      slots.put(place.slot(place.lane), sample);
      __syncwarp();
      const int here = total - base < place.lanes() ? total - base : place.lanes();
#pragma unroll 1
      for (int p = 0; p < here; p += together) {
        if (!Known::channels && !has_channels) continue;  // A known head has work for all lanes.
#pragma unroll
        for (int k = 0; k < together; k++) add_sample<count>(value, stride, slots.get(place.slot(p + k)), sums);
      }
    }
    if (has_channels) {
      Stored<T, count> stored;
      stored.narrow_from(sums);
      stored.store(arguments.output + row.index * channels + first);
    }
  }
}

}  // namespace geoseg::cuda
