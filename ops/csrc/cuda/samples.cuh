// How a warp shares its work: groups of lanes, and the points that they have decoded.
//
// A group of lanes, a power of two, does one head of one query: each lane a few channels.
// Each lane decodes one point and leaves it in shared memory, where the group reads it:
// decoding a point in every lane would cost as much as the sums, and so would shuffles.
#pragma once

#include <type_traits>

#include "vectors.cuh"

namespace geoseg::cuda {

constexpr unsigned whole_warp = 0xffffffffu;
constexpr int warp_size = 32;
constexpr int block_size = 128;
constexpr int warps = block_size / warp_size;

// What a kernel knows when it is compiled; 0 is known at run time only.
template <int channels_, int levels_, int points_>
struct Fixed {
  static constexpr int channels = channels_, levels = levels_, points = points_;
};
using Any = Fixed<0, 0, 0>;

// Blocks that a multiprocessor must have room for: with 8 of 128 threads, a thread has 64
// registers. The general kernels, whose loops do not unroll, get 128 rather than spill.
template <typename Known>
constexpr int resident_blocks = Known::channels ? 8 : 4;

// Four numbers or indices that move in one instruction (float64 takes two).
template <typename E>
struct alignas(16) Four {
  E of[4];
};

// A point as a group reads it: cells of its batch, -1 for none, and their weights.
template <typename R>
struct Sample {
  Four<int> cells;
  Four<R> weights;
};

// The samples of a warp. A group has one slot more than lanes, an odd number: so groups
// that read their slots at once find them in different banks.
template <typename R>
struct Slots {
  static constexpr int most = 2 * warp_size;  // groups of one lane have two slots each
  Four<int> cells[most];
  Four<R> weights[most];

  __device__ __forceinline__ void put(int slot, const Sample<R>& sample) {
    cells[slot] = sample.cells;
    weights[slot] = sample.weights;
  }
  __device__ __forceinline__ Sample<R> get(int slot) const { return {cells[slot], weights[slot]}; }
};

// A lane's place among the groups of its warp.
template <int fixed_lanes>
struct Place {
  int log_lanes;
  int lane;   // in its group
  int group;  // in its warp

  __device__ __forceinline__ explicit Place(int log_lanes) : log_lanes(log_lanes) {
    const int in_warp = threadIdx.x % warp_size;
    lane = in_warp & (lanes() - 1);
    group = in_warp >> (fixed_lanes ? log_of(fixed_lanes) : log_lanes);
  }
  __device__ __forceinline__ int lanes() const { return fixed_lanes ? fixed_lanes : 1 << log_lanes; }
  __device__ __forceinline__ int groups() const {
    return fixed_lanes ? warp_size / fixed_lanes : warp_size >> log_lanes;
  }
  __device__ __forceinline__ int slot(int point) const { return group * (lanes() + 1) + point; }
  // Index of the group among those of the grid's row of blocks.
  __device__ __forceinline__ unsigned item() const {
    const unsigned warp = blockIdx.x * warps + threadIdx.x / warp_size;
    return warp * groups() + group;
  }

  static constexpr __host__ __device__ int log_of(int lanes) {
    return lanes <= 1 ? 0 : 1 + log_of(lanes / 2);
  }
};

// The head of a cell, `stride` bytes from that of the cell before: 32 bits by 32 bits and
// a 64-bit base are one instruction.
template <typename E>
__device__ __forceinline__ E* at_cell(E* first, int cell, int stride) {
  using Bytes = std::conditional_t<std::is_const_v<E>, const char, char>;
  return reinterpret_cast<E*>(reinterpret_cast<Bytes*>(first) + int64_t(cell) * stride);
}

template <typename R>
__device__ __forceinline__ Sample<R> no_sample() {
  return {{{-1, -1, -1, -1}}, {{R(0), R(0), R(0), R(0)}}};
}

// Loads `count` channels of each corner, zeros where there is none. All four are on their
// way before the first is needed.
template <int count, typename T>
__device__ __forceinline__ void load_corners(const T* value, int stride, const Sample<Real<T>>& sample,
                                             Stored<T, count>* corner) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    corner[i].clear();
    if (sample.cells.of[i] >= 0) corner[i].load(at_cell(value, sample.cells.of[i], stride));
  }
}

template <typename R>
__device__ __forceinline__ LevelPoint<R> find_on_level(const Levels& levels, int level, R x, R y) {
  using Math = ScalarMath<R, int>;
  return {find_neighbours<Math>(x, R(levels.width[level])), find_neighbours<Math>(y, R(levels.height[level]))};
}

template <typename R>
__device__ __forceinline__ Sample<R> sample_at(const Levels& levels, int level, const LevelPoint<R>& at,
                                               R attention) {
  Sample<R> sample;
#pragma unroll
  for (int corner = 0; corner < 4; corner++) {
    sample.cells.of[corner] = at.cell(levels, level, corner);
    sample.weights.of[corner] = at.weight(corner) * attention;
  }
  return sample;
}

// A point of GivenPoints: its place on its level, in cells from the first one's centre.
template <typename T>
struct Given {
  LevelPoint<Real<T>> at;
  Real<T> attention;

  __device__ __forceinline__ Given(const GivenPoints<T>& points, const Levels& levels, int level, int64_t index) {
    using R = Real<T>;
    Stored<R, 2> pair;
    pair.load(points.locations + 2 * index);
    R place[2];
    pair.widen_to(place);
    attention = __ldg(points.weights + index);
    at = find_on_level<R>(levels, level, place[0] * R(levels.width[level]) - R(0.5),
                          place[1] * R(levels.height[level]) - R(0.5));
  }
};

}  // namespace geoseg::cuda
