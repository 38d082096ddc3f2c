#include "part.h"

#include <algorithm>

namespace geoseg::vectorize {
namespace {

// The seam that an edge runs along, -1 if none.
int32_t seam_of(Vertex from, Vertex to, const Extent& extent) {
  const int32_t row = row_of(from), col = from.col;
  if (row == row_of(to)) {
    if (extent.seams[TOP] && row == extent.row) return TOP;
    if (extent.seams[BOTTOM] && row == extent.row + extent.height) return BOTTOM;
    return -1;
  }
  if (extent.seams[LEFT] && col == extent.col) return LEFT;
  if (extent.seams[RIGHT] && col == extent.col + extent.width) return RIGHT;
  return -1;
}

int32_t direction_of(Vertex from, Vertex to) {
  if (row_of(from) == row_of(to)) return to.col > from.col ? EAST : WEST;
  return row_of(to) > row_of(from) ? SOUTH : NORTH;
}

Run run_along(int32_t side, Vertex from, Vertex to, int32_t piece) {
  const bool is_row = side == TOP || side == BOTTOM;
  const int32_t a = is_row ? from.col : row_of(from), b = is_row ? to.col : row_of(to);
  return {side, std::min(a, b), std::max(a, b), piece};
}

// Cuts an exterior into what runs along seams and what runs between them.
void cut(const Ring& ring, int32_t piece, const Extent& extent, OpenPieces& open) {
  const size_t size = ring.size();
  const auto at = [&](size_t i) { return ring[i % size]; };
  size_t first = 0;  // An edge on a seam: there is one, or the ring would not be here.
  while (seam_of(at(first), at(first + 1), extent) < 0) first++;
  for (size_t i = first; i < first + size;) {
    const int32_t side = seam_of(at(i), at(i + 1), extent);
    if (side >= 0) {
      open.runs.push_back(run_along(side, at(i), at(i + 1), piece));
      i++;
      continue;
    }
    Arm arm{};
    arm.piece = piece;
    arm.first = int64_t(open.vertices.size());
    arm.start = at(i);
    arm.start_direction = direction_of(at(i), at(i + 1));
    for (; seam_of(at(i), at(i + 1), extent) < 0; i++) {
      arm.area += int64_t(at(i).col) * (row_of(at(i + 1)) - row_of(at(i)));
      arm.end_direction = direction_of(at(i), at(i + 1));
      arm.end = at(i + 1);
      open.vertices.push_back(arm.end);
    }
    open.vertices.pop_back();
    arm.count = int64_t(open.vertices.size()) - arm.first;
    arm.start.row = row_of(arm.start);
    arm.end.row = row_of(arm.end);
    open.arms.push_back(arm);
  }
}

}  // namespace

void OpenPieces::add(const std::vector<Ring>& polygon, const Piece& piece, const Extent& extent) {
  const int32_t number = int32_t(pieces.size());
  pieces.push_back(piece);
  cut(polygon.front(), number, extent, *this);
  for (size_t i = 1; i < polygon.size(); i++) {
    rings.push_back({int64_t(vertices.size()), int64_t(polygon[i].size()), number});
    for (Vertex vertex : polygon[i]) vertices.push_back({vertex.col, row_of(vertex)});
  }
}

}  // namespace geoseg::vectorize
