#include "join.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace geoseg::vectorize {

int64_t VertexStore::write(const Vertex* vertices, int64_t count) {
  if (held_ + count > MOST) return IN_FILE + file_.write(vertices, count);
  held_ += count;
  slabs_.push_back({std::vector<Vertex>(vertices, vertices + count), count});
  return int64_t(slabs_.size() - 1) << 32;
}

void VertexStore::read(int64_t place, int64_t count, Vertex* to) {
  if (place >= IN_FILE) {
    file_.read(place - IN_FILE, count, to);
    return;
  }
  Slab& slab = slabs_[size_t(place >> 32)];
  std::copy_n(slab.vertices.begin() + (place & UINT32_MAX), count, to);
  slab.unread -= count;
  if (slab.unread > 0) return;
  held_ -= int64_t(slab.vertices.size());
  std::vector<Vertex>().swap(slab.vertices);
}

Join::Join(const Extent& region, const Transform& transform, std::string folder)
    : region_(region), writer_(transform), store_(std::move(folder)), stop_(region.row) {
  next_corners_.resize(size_t(region.width) + 1);
}

void Join::begin_row(int32_t row, int32_t height) {
  if (!closed_.empty()) throw std::logic_error("polygons of the row before were not taken");
  row_ = row;
  stop_ = row + height;
  std::swap(above_, next_above_);
  std::swap(corners_, next_corners_);
  below_.clear();
  next_above_.clear();
  columns_.clear();
  next_corners_.assign(size_t(region_.width) + 1, Corner());
}

void Join::add(const Extent& part, const Piece* pieces, int64_t piece_count, const Run* runs,
               int64_t run_count, const Arm* arms, int64_t arm_count, const InnerRing* rings,
               int64_t ring_count, const Vertex* vertices, int64_t vertex_count) {
  const auto open_column = [&](int32_t col) {
    if (columns_.empty() || columns_.back().col != col)
      columns_.push_back({col, {}, {}, std::vector<Corner>(size_t(part.height) + 1)});
  };
  if (part.seams[LEFT]) open_column(part.col);
  const size_t left = columns_.size() - 1;
  if (part.seams[RIGHT]) open_column(part.col + part.width);

  std::vector<int32_t> numbers;
  for (int64_t i = 0; i < piece_count; i++) {
    const int32_t number = regions_.add({});
    Region& region = regions_[number];
    region.parent = region.last = number;
    region.class_id = uint8_t(pieces[i].class_id);
    region.confidence = pieces[i].confidence_sum;
    numbers.push_back(number);
  }
  for (int64_t i = 0; i < run_count; i++) {
    Run run = runs[i];
    run.piece = numbers.at(size_t(run.piece));
    if (run.side == TOP) below_.push_back(run);
    else if (run.side == BOTTOM) next_above_.push_back(run);
    else if (run.side == LEFT) columns_.at(left).right.push_back(run);
    else columns_.back().left.push_back(run);
  }
  const int64_t base = store_.write(vertices, vertex_count);
  for (int64_t i = 0; i < ring_count; i++) {
    const InnerRing& ring = rings[i];
    add_boundary(numbers.at(size_t(ring.piece)),
                 single({base + ring.first, {}, int32_t(ring.count), NONE}));
  }
  for (int64_t i = 0; i < arm_count; i++) {
    const Arm& arm = arms[i];
    int64_t last = std::max(place_of(arm.start), place_of(arm.end));
    for (int64_t k = arm.first; k < arm.first + arm.count; k++)
      last = std::max(last, place_of(vertices[k]));
    const List nodes =
        arm.count ? single({base + arm.first, {}, int32_t(arm.count), NONE}) : List();
    add_line({NONE, numbers.at(size_t(arm.piece)), NONE, arm.area, last}, nodes, arm.start,
             arm.start_direction, arm.end, arm.end_direction);
  }
}

void Join::end_row() {
  match(above_, below_, row_, true);
  for (ColumnSeam& seam : columns_) match(seam.left, seam.right, seam.col, false);
  for (int32_t x = 0; x <= region_.width; x++)
    tie_corner(corners_[size_t(x)], {region_.col + x, row_});
  for (ColumnSeam& seam : columns_)
    for (size_t y = 0; y < seam.corners.size(); y++)
      tie_corner(seam.corners[y], {seam.col, row_ + int32_t(y)});
  std::sort(closed_.begin(), closed_.end(),
            [](const Closed& a, const Closed& b) { return a.last < b.last; });
}

std::unique_ptr<Batch> Join::take() {
  while (!writer_.has_finished() && written_ < closed_.size()) {
    const Closed& closed = closed_[written_++];
    write(closed.region, {int32_t(closed.last), int32_t(closed.last >> 32)});
  }
  std::unique_ptr<Batch> batch = writer_.take(true);
  if (!batch) {
    closed_.clear();
    written_ = 0;
  }
  return batch;
}

int32_t Join::find(int32_t region) {
  while (regions_[region].parent != region) {
    regions_[region].parent = regions_[regions_[region].parent].parent;
    region = regions_[region].parent;
  }
  return region;
}

void Join::unite(int32_t a, int32_t b) {
  a = find(a), b = find(b);
  if (a == b) return;
  Region &kept = regions_[a], &joined = regions_[b];
  joined.parent = a;
  regions_[kept.last].next = b;
  kept.last = joined.last;
  kept.confidence += joined.confidence;
  if (joined.first_boundary == NONE) return;
  if (kept.first_boundary == NONE) kept.first_boundary = joined.first_boundary;
  else boundaries_[kept.last_boundary].next = joined.first_boundary;
  kept.last_boundary = joined.last_boundary;
}

// The corner of a seam, of the one along a row where two cross.
Join::Corner& Join::corner_at(Vertex place) {
  const int32_t region_stop = region_.row + region_.height;
  const size_t col = size_t(place.col - region_.col);
  if (place.row == row_ && row_ != region_.row) return corners_.at(col);
  if (place.row == stop_ && stop_ != region_stop) return next_corners_.at(col);
  for (size_t i = columns_.size(); i-- > 0;)
    if (columns_[i].col == place.col) return columns_[i].corners.at(size_t(place.row - row_));
  throw std::runtime_error("a boundary ends where no seam is");
}

Join::List Join::chain(List first, List second) {
  if (first.first == NONE) return second;
  if (second.first == NONE) return first;
  nodes_[first.last].next = second.first;
  return {first.first, second.last};
}

void Join::add_boundary(int32_t region, List nodes) {
  Region& owner = regions_[find(region)];
  owner.first_boundary = boundaries_.add({nodes, owner.first_boundary});
  if (owner.last_boundary == NONE) owner.last_boundary = owner.first_boundary;
}

void Join::add_line(const End& line, List nodes, Vertex from, int32_t leaving, Vertex to,
                    int32_t arriving) {
  const int32_t start = ends_.add(line), end = ends_.add(line);
  ends_[start].partner = end;
  ends_[start].node = nodes.first;
  ends_[end].partner = start;
  ends_[end].node = nodes.last;
  corner_at(from).leaving[size_t(leaving)] = start;
  corner_at(to).arriving[size_t(arriving)] = end;
}

// A boundary along a seam.
void Join::add_edge(Vertex from, Vertex to, int32_t region) {
  const int32_t direction = from.row == to.row ? (to.col > from.col ? EAST : WEST)
                                               : (to.row > from.row ? SOUTH : NORTH);
  const int64_t area = int64_t(from.col) * (to.row - from.row);
  add_line({NONE, region, NONE, area, std::max(place_of(from), place_of(to))}, List(), from,
           direction, to, direction);
}

// Compares the pixels above and below a seam, or left and right of one.
void Join::match(std::vector<Run>& first, std::vector<Run>& second, int32_t place,
                 bool is_row) {
  const auto by_start = [](const Run& a, const Run& b) { return a.start < b.start; };
  std::sort(first.begin(), first.end(), by_start);
  std::sort(second.begin(), second.end(), by_start);
  std::vector<int32_t> cuts;
  for (const std::vector<Run>* side : {&first, &second})
    for (const Run& run : *side) cuts.insert(cuts.end(), {run.start, run.stop});
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());

  size_t i = 0, k = 0;
  for (size_t cut = 0; cut + 1 < cuts.size(); cut++) {
    const int32_t start = cuts[cut], stop = cuts[cut + 1];
    while (i < first.size() && first[i].stop <= start) i++;
    while (k < second.size() && second[k].stop <= start) k++;
    const bool has_first = i < first.size() && first[i].start <= start;
    const bool has_second = k < second.size() && second[k].start <= start;
    const Vertex from = is_row ? Vertex{start, place} : Vertex{place, start};
    const Vertex to = is_row ? Vertex{stop, place} : Vertex{place, stop};
    if (has_first && has_second &&
        regions_[first[i].piece].class_id == regions_[second[k].piece].class_id) {
      unite(first[i].piece, second[k].piece);
      continue;
    }
    // Eastward, the region on the right is below; southward, it is on the left.
    const int32_t ahead = is_row ? (has_second ? second[k].piece : NONE)
                                 : (has_first ? first[i].piece : NONE);
    const int32_t back = is_row ? (has_first ? first[i].piece : NONE)
                                : (has_second ? second[k].piece : NONE);
    if (ahead != NONE) add_edge(from, to, ahead);
    if (back != NONE) add_edge(to, from, back);
  }
}

// Ties the lines at a corner as the tracer does: to the right, else straight on, else left.
void Join::tie_corner(Corner& corner, Vertex place) {
  unsigned code = 0;
  for (unsigned d = 0; d < 4; d++)
    if (corner.leaving[d] != NONE || corner.arriving[(d + 2) % 4] != NONE) code |= 1u << d;
  if (code == 0) return;
  const bool is_vertex = code != 0b0101 && code != 0b1010;
  for (unsigned d = 0; d < 4; d++) {
    if (corner.arriving[d] == NONE) continue;
    const unsigned right = (d + 1) % 4, left = (d + 3) % 4;
    const unsigned onward = code >> right & 1 ? right : code >> d & 1 ? d : left;
    if (corner.leaving[onward] == NONE)
      throw std::runtime_error("the parts do not meet at their seams; pass parts that fill the "
                               "region without overlap");
    tie(corner.arriving[d], corner.leaving[onward], place, is_vertex, code == 0b1111);
  }
}

void Join::tie(int32_t end, int32_t start, Vertex place, bool is_vertex, bool is_touch) {
  const int32_t first = ends_[end].partner, last = ends_[start].partner;
  List nodes = {ends_[first].node, ends_[end].node};
  if (is_vertex) {
    const Vertex vertex = {place.col, is_touch ? place.row | TOUCH : place.row};
    nodes = chain(nodes, single({0, vertex, 0, NONE}));
  }
  if (first == start) {
    add_boundary(ends_[start].region, nodes);
    if (ends_[start].area > 0) closed_.push_back({ends_[start].last, ends_[start].region});
  } else {
    nodes = chain(nodes, {ends_[start].node, ends_[last].node});
    End& line = ends_[first];
    line.partner = last;
    line.node = nodes.first;
    line.area += ends_[start].area;
    line.last = std::max(line.last, ends_[start].last);
    ends_[last].partner = first;
    ends_[last].node = nodes.last;
  }
  ends_.remove(end);
  ends_.remove(start);
}

void Join::write(int32_t region, Vertex last) {
  region = find(region);
  const Region& closed = regions_[region];
  rings_.clear();
  for (int32_t boundary = closed.first_boundary; boundary != NONE;) {
    gather(boundaries_[boundary].nodes);
    boundaries_.remove(boundary);
    boundary = boundaries_[boundary].next;
  }
  rings_.cut();
  rings_.write(writer_);
  writer_.close_polygon(closed.class_id, uint64_t(closed.confidence), rings_.first(), last);
  for (int32_t piece = region; piece != NONE;) {
    const int32_t next = regions_[piece].next;
    regions_.remove(piece);
    piece = next;
  }
}

// Takes the vertices of a boundary, and lets its nodes go.
void Join::gather(List nodes) {
  int64_t count = 0;
  for (int32_t node = nodes.first; node != NONE; node = nodes_[node].next)
    count += std::max(nodes_[node].count, 1);
  Vertex* to = rings_.add(count);
  for (int32_t node = nodes.first; node != NONE;) {
    const Node& from = nodes_[node];
    if (from.count == 0) *to++ = from.vertex;
    else store_.read(from.place, from.count, std::exchange(to, to + from.count));
    const int32_t next = from.next;
    nodes_.remove(node);
    node = next;
  }
}

}  // namespace geoseg::vectorize
