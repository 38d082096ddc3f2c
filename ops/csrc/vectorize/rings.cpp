#include "rings.h"

#include <algorithm>
#include <unordered_map>

namespace geoseg::vectorize {
namespace {

bool is_smaller(Vertex a, Vertex b) { return place_of(a) < place_of(b); }

// Cuts a boundary where it comes back to a corner.
void split(const Ring& boundary, std::vector<Ring>& rings) {
  if (std::count_if(boundary.begin(), boundary.end(), is_touch) < 2) {
    rings.push_back(boundary);
    return;
  }
  Ring open;
  std::unordered_map<int64_t, size_t> seen;  // where marked corners stand in `open`
  for (const Vertex vertex : boundary) {
    if (is_touch(vertex)) {
      const auto found = seen.find(place_of(vertex));
      if (found != seen.end()) {
        const size_t start = found->second;
        for (size_t i = start; i < open.size(); i++)
          if (is_touch(open[i])) seen.erase(place_of(open[i]));
        rings.emplace_back(open.begin() + int64_t(start), open.end());
        open.resize(start);
      }
      seen[place_of(vertex)] = open.size();
    }
    open.push_back(vertex);
  }
  rings.push_back(std::move(open));
}

}  // namespace

bool is_exterior(const Ring& ring) {
  int64_t area = 0;
  Vertex previous = ring.back();
  for (const Vertex vertex : ring) {
    area += int64_t(vertex.col) * (row_of(vertex) - row_of(previous));
    previous = vertex;
  }
  return area > 0;
}

std::vector<Ring> canonical_rings(std::vector<Ring> boundaries) {
  std::vector<Ring> rings;
  for (Ring& boundary : boundaries) {
    split(boundary, rings);
    Ring().swap(boundary);
  }
  for (Ring& ring : rings)
    std::rotate(ring.begin(), std::min_element(ring.begin(), ring.end(), is_smaller), ring.end());
  std::sort(rings.begin(), rings.end(),
            [](const Ring& a, const Ring& b) { return is_smaller(a[0], b[0]); });
  std::stable_partition(rings.begin(), rings.end(), is_exterior);
  return rings;
}

void write_polygon(BatchWriter& writer, const std::vector<Ring>& rings, uint8_t class_id,
                   uint64_t confidence) {
  int64_t vertices = 0;
  for (const Ring& ring : rings) vertices += int64_t(ring.size());
  writer.open_polygon(int64_t(rings.size()), vertices);
  for (const Ring& ring : rings) {
    writer.open_ring(int64_t(ring.size()));
    writer.put(ring.data(), int64_t(ring.size()));
    writer.close_ring();
  }
  const Ring& exterior = rings.front();
  Vertex first = exterior.front();
  Vertex last = *std::max_element(exterior.begin(), exterior.end(), is_smaller);
  first.row = row_of(first), last.row = row_of(last);
  writer.close_polygon(class_id, confidence, first, last);
}

}  // namespace geoseg::vectorize
