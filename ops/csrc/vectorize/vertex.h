// Corners of the pixel grid, and how they lie in the world.
#pragma once

#include <cstdint>
#include <vector>

namespace geoseg::vectorize {

// A corner that is a vertex. The top bit of `row` marks checkerboards, corners where a
// ring may pass twice; `row_of` and `place_of` leave it out.
struct Vertex {
  int32_t col, row;
};

constexpr int32_t TOUCH = INT32_MIN;

inline int32_t row_of(Vertex v) { return v.row & ~TOUCH; }
inline bool is_touch(Vertex v) { return v.row < 0; }
// Orders corners by row, then column.
inline int64_t place_of(Vertex v) { return int64_t(row_of(v)) << 32 | v.col; }

using Ring = std::vector<Vertex>;

// x = a * col + b * row + c, y = d * col + e * row + f
struct Transform {
  double a, b, c, d, e, f;
};

}  // namespace geoseg::vectorize
