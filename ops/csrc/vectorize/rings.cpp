#include "rings.h"

#include <algorithm>

namespace geoseg::vectorize {

void PolygonRings::clear() {
  vertices_.clear();
  starts_.clear();
  rings_.clear();
  spans_.clear();
}

Vertex* PolygonRings::add(int64_t count) {
  starts_.push_back(int64_t(vertices_.size()));
  vertices_.resize(vertices_.size() + size_t(count));
  return vertices_.data() + starts_.back();
}

void PolygonRings::cut() {
  for (size_t i = 0; i < starts_.size(); i++)
    cut_boundary(starts_[i], i + 1 < starts_.size() ? starts_[i + 1] : int64_t(vertices_.size()));
  std::sort(rings_.begin(), rings_.end(),
            [](const Cut& a, const Cut& b) { return a.place < b.place; });
}

void PolygonRings::cut_boundary(int64_t start, int64_t stop) {
  marked_.clear();
  for (int64_t i = start; i < stop; i++)
    if (is_touch(vertices_[size_t(i)])) marked_.emplace_back(place_of(vertices_[size_t(i)]), i);
  std::sort(marked_.begin(), marked_.end());
  passes_.clear();
  for (size_t i = 0; i + 1 < marked_.size(); i++) {
    if (marked_[i].first != marked_[i + 1].first) continue;
    passes_.emplace_back(marked_[i].second, marked_[i + 1].second);
    passes_.emplace_back(marked_[i + 1].second, marked_[i].second);
  }
  if (passes_.empty()) {
    ring_.assign(1, {start, stop - start});
    return add_ring();
  }
  // Between two passes the boundary stays as it is; at one, it goes on as after the other.
  std::sort(passes_.begin(), passes_.end());
  is_done_.assign(passes_.size(), false);
  for (size_t first = 0; first < passes_.size(); first++) {
    ring_.clear();
    for (size_t i = first; !is_done_[i];) {
      is_done_[i] = true;
      const int64_t from = passes_[i].first;
      const bool wraps = i + 1 == passes_.size();
      const auto& next = passes_[wraps ? 0 : i + 1];
      ring_.push_back({from, (wraps ? stop : next.first) - from});
      if (wraps && next.first > start) ring_.push_back({start, next.first - start});
      const std::pair<int64_t, int64_t> other(next.second, 0);
      i = size_t(std::lower_bound(passes_.begin(), passes_.end(), other) - passes_.begin());
    }
    if (!ring_.empty()) add_ring();
  }
}

// Adds the ring of the spans found, turned to its smallest corner.
void PolygonRings::add_ring() {
  Cut ring{INT64_MAX, 0, spans_.size(), 0};
  size_t turn = 0;
  int64_t at = 0;
  for (size_t span = 0; span < ring_.size(); span++) {
    ring.vertices += ring_[span].count;
    for (int64_t i = ring_[span].start; i < ring_[span].start + ring_[span].count; i++) {
      const int64_t place = place_of(vertices_[size_t(i)]);
      if (place < ring.place) ring.place = place, turn = span, at = i;
    }
  }
  const Span turned = ring_[turn];
  const int64_t skipped = at - turned.start;
  spans_.push_back({at, turned.count - skipped});
  for (size_t i = 1; i < ring_.size(); i++) spans_.push_back(ring_[(turn + i) % ring_.size()]);
  if (skipped > 0) spans_.push_back({turned.start, skipped});
  ring.spans = spans_.size() - ring.first_span;
  rings_.push_back(ring);
}

void PolygonRings::write(BatchWriter& writer) const {
  writer.open_polygon(int64_t(rings_.size()), int64_t(vertices_.size()));
  for (const Cut& ring : rings_) {
    RingWriter to = writer.open_ring(ring.vertices);
    for (size_t i = ring.first_span; i < ring.first_span + ring.spans; i++)
      to.put(vertices_.data() + spans_[i].start, spans_[i].count);
    writer.close_ring(to);
  }
}

std::vector<Ring> PolygonRings::copy() const {
  std::vector<Ring> rings;
  for (const Cut& ring : rings_) {
    rings.emplace_back();
    for (size_t i = ring.first_span; i < ring.first_span + ring.spans; i++) {
      const auto from = vertices_.begin() + spans_[i].start;
      rings.back().insert(rings.back().end(), from, from + spans_[i].count);
    }
  }
  return rings;
}

}  // namespace geoseg::vectorize
