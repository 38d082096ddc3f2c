// Rings as lists of vertices: what is done to those that are not written as they were
// traced.
#pragma once

#include <cstdint>
#include <vector>

#include "batch.h"
#include "vertex.h"

namespace geoseg::vectorize {

// Turns the boundaries of one polygon into its rings: no ring passes a corner twice, each
// begins at its smallest corner, the exterior comes first, holes follow by their first
// corner. Marks stay.
std::vector<Ring> canonical_rings(std::vector<Ring> boundaries);

// Whether the region lies inside: it is on the right of every edge.
bool is_exterior(const Ring& ring);

// Writes a polygon of canonical rings.
void write_polygon(BatchWriter& writer, const std::vector<Ring>& rings, uint8_t class_id,
                   uint64_t confidence);

}  // namespace geoseg::vectorize
