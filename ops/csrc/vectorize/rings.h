// The rings of a polygon whose boundaries pass corners twice, or were joined of pieces.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "batch.h"
#include "vertex.h"

namespace geoseg::vectorize {

// Takes the boundaries of one polygon, and cuts them where they come back to a corner: no
// ring passes a corner twice then. Its memory is used again for the next polygon.
class PolygonRings {
 public:
  void clear();
  // Room for the vertices of the next boundary, to be filled.
  Vertex* add(int64_t count);
  // To be called when all boundaries are there.
  void cut();

  // Writes the rings, but for `close_polygon`. Each begins at its smallest corner, and they
  // are in the order of these: so the exterior is the first.
  void write(BatchWriter& writer) const;
  // The smallest corner of the exterior.
  Vertex first() const { return vertex_at(rings_.front().place); }
  // Copies of the rings, with their marks.
  std::vector<Ring> copy() const;

 private:
  // Vertices that follow each other.
  struct Span {
    int64_t start, count;
  };
  struct Cut {
    int64_t place;  // the smallest corner
    int64_t vertices;
    size_t first_span, spans;
  };

  static Vertex vertex_at(int64_t place) { return {int32_t(place), int32_t(place >> 32)}; }
  void cut_boundary(int64_t start, int64_t stop);
  void add_ring();

  std::vector<Vertex> vertices_;
  std::vector<int64_t> starts_;  // of the boundaries
  std::vector<Cut> rings_;
  std::vector<Span> spans_;
  // While a boundary is cut: its marked corners, those passed twice with the other pass,
  // which of these are in a ring already, and the spans of the ring that is being found.
  std::vector<std::pair<int64_t, int64_t>> marked_, passes_;
  std::vector<bool> is_done_;
  std::vector<Span> ring_;
};

}  // namespace geoseg::vectorize
