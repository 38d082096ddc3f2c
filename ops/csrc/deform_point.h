// Multi-scale deformable attention: arithmetic of one sampling point, for any device.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define GEOSEG_POINT __host__ __device__ __forceinline__
#else
// Never a function of its own: files compiled for several instruction sets may include
// this, and the linker would keep any one copy.
#define GEOSEG_POINT inline __attribute__((always_inline))
#endif

namespace geoseg {

// Levels of a pyramid, passed to kernels by value: a tensor would have to be read back.
struct Levels {
  static constexpr int most = 32;
  int count;
  int height[most], width[most];
  int start[most];  // cells of the levels before
};

// Where a point lies on one axis: between the centres of cells `low` and `low + 1`.
template <typename Real>
struct AxisPoint {
  int low;
  Real share;  // distance from the centre of `low`, in cells, 0..1
  bool has_low, has_high;  // whether the two are cells of the level
};

// Finds them for a place in cells, measured from the centre of the first one. No cell is
// within reach of a place that is NaN or infinite; converting it would be undefined.
template <typename Real>
GEOSEG_POINT AxisPoint<Real> find_on_axis(Real place, int length) {
  // At -1 exactly the share is 0 and the slope is not, as in grid_sample.
  const bool within = place >= Real(-1) && place < Real(length);
  const Real known = within ? place : Real(-2);
  const int low = int(std::floor(known));
  const bool has_low = unsigned(low) < unsigned(length);
  const bool has_high = unsigned(low + 1) < unsigned(length);
  return {low, known - Real(low), has_low, has_high};
}

// A point on a level and what it reads there. Corners are north-west, north-east,
// south-west and south-east.
template <typename Real>
struct LevelPoint {
  AxisPoint<Real> x, y;

  // Index of a corner's cell in its batch, -1 where the level has none.
  GEOSEG_POINT int cell(const Levels& levels, int level, int corner) const {
    const bool east = corner & 1, south = corner & 2;
    if (!(east ? x.has_high : x.has_low) || !(south ? y.has_high : y.has_low)) return -1;
    return levels.start[level] + (y.low + south) * levels.width[level] + x.low + east;
  }

  GEOSEG_POINT Real weight(int corner) const {
    const bool east = corner & 1, south = corner & 2;
    return (east ? x.share : Real(1) - x.share) * (south ? y.share : Real(1) - y.share);
  }

  GEOSEG_POINT bool within_reach() const {
    return (x.has_low || x.has_high) && (y.has_low || y.has_high);
  }
};

// Gradients of one point from `product`: the value of each corner times the gradient of
// the output, summed over channels; 0 for corners that are no cells.
template <typename Real>
struct PointGradients {
  Real attention, x, y;
};

template <typename Real>
GEOSEG_POINT PointGradients<Real> point_gradients(const LevelPoint<Real>& at, Real attention,
                                                  int height, int width, const Real* product) {
  if (!at.within_reach()) return {Real(0), Real(0), Real(0)};
  const Real east = at.x.share, south = at.y.share;
  const Real west = Real(1) - east, north = Real(1) - south;
  const Real by_x = north * (product[1] - product[0]) + south * (product[3] - product[2]);
  const Real by_y = west * (product[2] - product[0]) + east * (product[3] - product[1]);
  const Real upper = west * product[0] + east * product[1];
  const Real lower = west * product[2] + east * product[3];
  return {north * upper + south * lower, attention * Real(width) * by_x,
          attention * Real(height) * by_y};
}

// The cell of a query on its level.
struct GridCell {
  int level, row, column;
};

// Finds the cell that comes at `turn` if levels are walked in tiles of 8 x 8 cells, tile
// after tile: neighbouring queries read neighbouring values, which then are in the cache.
GEOSEG_POINT GridCell tiled_cell(const Levels& grid, int turn) {
  constexpr int side = 8;
  int level = 0;
  while (level + 1 < grid.count && turn >= grid.start[level + 1]) level++;
  const int height = grid.height[level], width = grid.width[level];
  const int place = turn - grid.start[level];
  const int top = place / (side * width) * side;  // A row of tiles has `side` rows,
  const int rows = height - top < side ? height - top : side;  // the last one fewer.
  const int in_row = place - top * width;
  const int left = in_row / (side * rows) * side;
  const int columns = width - left < side ? width - left : side;
  const int in_tile = in_row - left * rows;
  return {level, top + in_tile / columns, left + in_tile % columns};
}

}  // namespace geoseg
