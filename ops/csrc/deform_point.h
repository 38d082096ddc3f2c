// Multi-scale deformable attention: arithmetic of one sampling point, for any device.
#pragma once

#include <cstdint>

#include "ms_deform_attn.h"

namespace geoseg {

// Levels of a pyramid, passed to kernels by value: a tensor would have to be read back.
struct Levels {
  static constexpr int most = 32;
  int count;
  int height[most], width[most];
  int start[most];  // cells of the levels before
};

// A point on a level and what it reads there. Corners are north-west, north-east,
// south-west and south-east.
template <typename Real>
struct LevelPoint {
  Neighbours<ScalarMath<Real, int>> x, y;

  // Index of a corner's cell in its batch, -1 where the level has none.
  GEOSEG_HOST_DEVICE int cell(const Levels& levels, int level, int corner) const {
    const bool east = corner & 1, south = corner & 2;
    if (!(east ? x.has_high : x.has_low) || !(south ? y.has_high : y.has_low)) return -1;
    return levels.start[level] + (y.low + south) * levels.width[level] + x.low + east;
  }

  GEOSEG_HOST_DEVICE Real weight(int corner) const {
    const bool east = corner & 1, south = corner & 2;
    return (east ? x.share : Real(1) - x.share) * (south ? y.share : Real(1) - y.share);
  }

  GEOSEG_HOST_DEVICE bool within_reach() const {
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
GEOSEG_HOST_DEVICE PointGradients<Real> point_gradients(const LevelPoint<Real>& at, Real attention,
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
GEOSEG_HOST_DEVICE GridCell tiled_cell(const Levels& grid, int turn) {
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
