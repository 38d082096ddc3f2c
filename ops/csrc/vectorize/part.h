// What one part of a raster leaves to the join: the pieces of regions that touch a seam.
#pragma once

#include <cstdint>
#include <vector>

#include "batch.h"
#include "vertex.h"

namespace geoseg::vectorize {

enum Side : int32_t { TOP, BOTTOM, LEFT, RIGHT };
enum Direction : int32_t { EAST, SOUTH, WEST, NORTH };

// Rectangle in pixels of the scene, and behind which of its sides the scene goes on.
struct Extent {
  int32_t row, col, height, width;
  bool seams[4];

  // Whether a polygon does, by its sums and its first and last row of corners.
  bool touches_seam(const Sums& sums, int32_t row_min, int32_t row_max) const {
    return (seams[TOP] && row_min == row) || (seams[BOTTOM] && row_max == row + height) ||
           (seams[LEFT] && sums.col_min == col) || (seams[RIGHT] && sums.col_max == col + width);
  }
};

// Flat tables, laid out for `geoseg/vectorize/native.py`.
struct Piece {
  int64_t pixels, confidence_sum, col_twice, row_twice;
  int64_t class_id;
};
// Pixels [start, stop) of a side, as columns or rows of the scene, that are of a piece.
struct Run {
  int32_t side, start, stop, piece;
};
// A boundary from seam to seam; both its ends lie on one, and are not among its vertices.
struct Arm {
  int64_t area;  // sum of col * rise over its edges
  int64_t first, count;  // vertices
  int32_t piece;
  Vertex start, end;
  int32_t start_direction, end_direction;
  int32_t unused;
};
// A hole that touches no seam.
struct InnerRing {
  int64_t first, count;
  int64_t piece;
};

struct OpenPieces {
  std::vector<Piece> pieces;
  std::vector<Run> runs;
  std::vector<Arm> arms;
  std::vector<InnerRing> rings;
  std::vector<Vertex> vertices;

  // Takes a polygon apart that touches a seam of the part.
  void add(const std::vector<Ring>& rings, const Piece& piece, const Extent& extent);
};

}  // namespace geoseg::vectorize
