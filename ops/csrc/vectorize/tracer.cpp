#include "tracer.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace geoseg::vectorize {
namespace {

constexpr int64_t PADDING = 64;

// Which of the four pixel edges at a corner are boundaries.
constexpr unsigned N = 1, E = 2, S = 4, W = 8;

}  // namespace

Tracer::Tracer(const TracerOptions& options, const ScanKernels& kernels, std::string folder)
    : options_(options),
      kernels_(kernels),
      writer_(options.transform),
      spill_file_(std::move(folder)),
      most_blocks_(options.most_blocks),
      width_(options.extent.width) {
  const int64_t words = width_ / 64 + 1;
  for (std::vector<uint8_t>& row : pixels_)
    row.assign(size_t(PADDING + 64 * words), options.nodata);
  above_ = pixels_[0].data() + PADDING;
  here_ = pixels_[1].data() + PADDING;
  vertical_above_.assign(size_t(words), 0);
  vertical_.assign(size_t(words), 0);
  horizontal_.assign(size_t(words), 0);
  columns_.assign(size_t(width_), 0);
  crossing_.assign(size_t(width_ + 1), {nullptr, nullptr});
  // Two at each vertical edge of a row, two at the horizontal one, two that are new.
  ends_.resize(size_t(2 * (width_ + 1) + 4));
  for (End& end : ends_) free_end(&end);
}

int64_t Tracer::feed(const uint8_t* classes, const uint8_t* confidence, int64_t rows) {
  int64_t row = 0;
  while (row < rows && !writer_.has_finished()) {
    read_row(classes + row * width_);
    if (options_.has_confidence) {
      visit_corners<true>();
      kernels_.accumulate(confidence + row * width_, width_, columns_.data());
    } else {
      visit_corners<false>();
    }
    row++, row_++;
    if (blocks_.used() > most_blocks_) spill();
  }
  return row;
}

void Tracer::finish() {
  read_row(nullptr);
  if (options_.has_confidence) visit_corners<true>();
  else visit_corners<false>();
}

void Tracer::read_row(const uint8_t* classes) {
  std::swap(above_, here_);
  std::swap(vertical_above_, vertical_);
  if (classes == nullptr) {
    std::memset(here_, options_.nodata, size_t(width_));
  } else {
    std::memcpy(here_, classes, size_t(width_));
    for (int64_t x = 0; options_.has_excluded && x < width_; x++)
      here_[x] = options_.classes[here_[x]];
  }
  kernels_.compare(above_, here_, int64_t(vertical_.size()), vertical_.data(),
                   horizontal_.data());
}

template <bool WEIGHTED>
void Tracer::visit_corners() {
  const uint8_t nodata = options_.nodata;
  const uint8_t *above = above_, *here = here_;
  const Extent& extent = options_.extent;
  const int32_t row = extent.row + row_;
  End *upper = nullptr, *lower = nullptr;
  uint64_t carry = 0;
  int64_t reached = 0;  // the corner before
  for (size_t word = 0; word < vertical_.size(); word++) {
    const uint64_t north = vertical_above_[word], south = vertical_[word];
    const uint64_t east = horizontal_[word], west = east << 1 | carry;
    carry = east >> 63;
    for (uint64_t corners = (north | south) & (east | west); corners; corners &= corners - 1) {
      const int bit = __builtin_ctzll(corners);
      const int64_t x = int64_t(word) * 64 + bit;
      const unsigned code = unsigned(north >> bit & 1) * N | unsigned(east >> bit & 1) * E |
                            unsigned(south >> bit & 1) * S | unsigned(west >> bit & 1) * W;
      // nw | ne
      // ---+---
      // sw | se
      const uint8_t nw = above[x - 1], ne = above[x], sw = here[x - 1], se = here[x];
      const Vertex vertex = {extent.col + int32_t(x), row};
      // The edge that ends here bounds the region above it from below, and the other one
      // from above: in each of its columns the one gains what the other has to lose.
      uint64_t weight = 0;
      if (WEIGHTED && (code & W)) weight = sum_columns(reached, x);
      reached = x;
      End *&left = crossing_[size_t(x)].left, *&right = crossing_[size_t(x)].right;
      // Each region keeps to its side: it turns right where it can, else goes straight,
      // else turns left.
      switch (code) {
        case S | E:
          if (ne != nodata) begin(vertex, region_left_of(x), upper, left);
          if (se != nodata) begin(vertex, regions_.make(), right, lower);
          break;
        case S | W:
          if (sw != nodata) append(left = lower, vertex, -weight);
          if (se != nodata) prepend(right = upper, vertex, weight);
          break;
        case N | E:
          if (nw != nodata) append(lower = left, vertex, 0);
          if (ne != nodata) prepend(upper = right, vertex, 0);
          break;
        case N | W:
          if (nw != nodata) join(left, upper, vertex, weight, nw, EXTERIOR);
          if (se != nodata) join(lower, right, vertex, -weight, se, HOLE);
          break;
        case N | S | E:
          if (ne != nodata) prepend(upper = right, vertex, 0);
          if (nw != nodata) append(left, vertex, 0);
          if (se != nodata) begin(vertex, regions_.make(), right, lower);
          break;
        case N | S | W:
          if (nw != nodata) join(left, upper, vertex, weight, nw, EXTERIOR);
          if (sw != nodata) append(left = lower, vertex, -weight);
          if (se != nodata) prepend(right, vertex, 0);
          break;
        case N | E | W:
          if (nw != nodata) join(left, upper, vertex, weight, nw, EXTERIOR);
          if (sw != nodata) append(lower, vertex, -weight);
          if (ne != nodata) prepend(upper = right, vertex, 0);
          break;
        case S | E | W:
          if (sw != nodata) append(left = lower, vertex, -weight);
          if (ne != nodata) prepend(upper, vertex, weight);
          if (se != nodata) begin(vertex, regions_.make(), right, lower);
          break;
        default: {  // all four
          const Vertex falling = {vertex.col, nw == se ? vertex.row | TOUCH : vertex.row};
          const Vertex rising = {vertex.col, ne == sw ? vertex.row | TOUCH : vertex.row};
          if (nw != nodata) join(left, upper, falling, weight, nw, EXTERIOR);
          if (sw != nodata) append(left = lower, rising, -weight);
          if (ne != nodata) prepend(upper = right, rising, 0);
          if (se != nodata) begin(falling, regions_.make(), right, lower);
        }
      }
    }
  }
}

// Confidence of the pixels above the row in the columns from `first` to `stop`.
inline uint64_t Tracer::sum_columns(int64_t first, int64_t stop) const {
  uint64_t sum = 0;
  for (int64_t x = first; x < stop; x++) sum += columns_[size_t(x)];
  return sum;
}

// The region of the run of pixels that ends at a corner, in the row below it. The corners
// before this one have been visited: their ends are those of that row.
int32_t Tracer::region_left_of(int64_t x) {
  int64_t word = (x - 1) >> 6;
  uint64_t edges = vertical_[size_t(word)] & (~uint64_t(0) >> (63 - ((x - 1) & 63)));
  while (edges == 0) edges = vertical_[size_t(--word)];
  return regions_.find(crossing_[size_t(word * 64 + 63 - __builtin_clzll(edges))].right->region);
}

inline Tracer::End* Tracer::new_end() {
  End* end = free_ends_;
  free_ends_ = end->partner;
  return end;
}

inline void Tracer::free_end(End* end) {
  end->partner = free_ends_;
  free_ends_ = end;
}

inline void Tracer::begin(Vertex vertex, int32_t region, End*& start, End*& end) {
  constexpr uint8_t MIDDLE = Block::CAPACITY / 2;
  Block* block = blocks_.take();
  block->begin = block->origin = MIDDLE;
  block->end = MIDDLE + 1;
  block->touches = is_touch(vertex);
  block->vertices[MIDDLE] = vertex;
  End *first = new_end(), *last = new_end();
  *first = {block, last, region};
  *last = {block, first, region};
  start = first;
  end = last;
}

inline void Tracer::append(End* end, Vertex vertex, uint64_t weight) {
  Block* block = end->block;
  if (block->end == Block::CAPACITY) {
    block = end->block = block->next = blocks_.take();
    block->begin = block->end = 0;
  }
  block->vertices[block->end++] = vertex;
  block->touches += is_touch(vertex);
  block->confidence += weight;
}

inline void Tracer::prepend(End* start, Vertex vertex, uint64_t weight) {
  Block* block = start->block;
  if (block->begin == 0) {
    Block* following = block;
    block = start->block = blocks_.take();
    block->next = following;
    block->begin = block->end = Block::CAPACITY;
  }
  block->vertices[--block->begin] = vertex;
  block->touches += is_touch(vertex);
  block->confidence += weight;
}

// Moves the vertices of a block behind those of the one before it, if they are few: rings
// of few blocks are written faster.
inline bool Tracer::merge(Block* block, Block* following) {
  constexpr int FEW = 4;  // so many are copied, for a constant size is copied at once
  const int count = following->count();
  if (count > FEW || block->end > Block::CAPACITY - FEW ||
      following->begin > Block::CAPACITY - FEW || following->origin == Block::SPILLED)
    return false;
  std::memcpy(block->vertices + block->end, following->vertices + following->begin,
              FEW * sizeof(Vertex));
  if (following->origin != Block::NO_ORIGIN) {
    const int moved = block->end + following->origin - following->begin;
    if (block->origin == Block::NO_ORIGIN ||
        place_of(block->vertices[moved]) < place_of(block->vertices[block->origin]))
      block->origin = uint8_t(moved);
  }
  block->end = uint8_t(block->end + count);
  block->touches = uint8_t(block->touches + following->touches);
  block->confidence += following->confidence;
  block->next = following->next;
  return true;
}

// Ties the end of a chain to the start of one; of itself, that closes a ring.
inline void Tracer::join(End* end, End* start, Vertex vertex, uint64_t weight, uint8_t class_id,
                         Closing closing) {
  append(end, vertex, weight);
  End *first = end->partner, *last = start->partner;
  if (first == start) {
    if (closing == HOLE) regions_.add_hole(start->region, start->block);
    else close_exterior(start->block, start->region, vertex, class_id);
  } else {
    const int32_t region = regions_.unite(first->region, last->region);
    Block *block = end->block, *following = start->block;
    if (merge(block, following)) {
      if (last->block == following) last->block = block;
      blocks_.give_back(following);
    } else {
      block->next = following;
    }
    *first = {first->block, last, region};
    *last = {last->block, first, region};
  }
  free_end(end);
  free_end(start);
}

namespace {

void write_ring(BatchWriter& writer, const Survey& survey) {
  const Block *first = survey.first, *start = survey.start;
  RingWriter to = writer.open_ring(survey.count);
  to.put(start->vertices + start->origin, start->end - start->origin);
  for (const Block* block = start->next; block; block = block->next)
    to.put(block->vertices + block->begin, block->count());
  for (const Block* block = first; block != start; block = block->next)
    to.put(block->vertices + block->begin, block->count());
  to.put(start->vertices + start->begin, start->origin - start->begin);
  writer.close_ring(to);
}

}  // namespace

void Tracer::close_exterior(Block* first, int32_t region, Vertex last, uint8_t class_id) {
  holes_.clear();
  regions_.close(region, holes_);
  boundaries_.clear();
  boundaries_.emplace_back(first);
  for (Block* hole : holes_) boundaries_.emplace_back(hole);
  last.row = row_of(last);
  if (!write(last, class_id)) write_gathered(last, class_id);
  for (const Survey& ring : boundaries_) blocks_.give_back(ring.first, ring.last, ring.blocks);
}

// Writes a polygon straight from its blocks, if it can be written so.
bool Tracer::write(Vertex last, uint8_t class_id) {
  int64_t vertices = 0;
  uint64_t confidence = 0;
  for (const Survey& ring : boundaries_) {
    if (ring.touches > 1 || ring.is_spilled) return false;
    vertices += ring.count;
    confidence += ring.confidence;
  }
  if (boundaries_.size() > 2)
    std::sort(boundaries_.begin() + 1, boundaries_.end(), [](const Survey& a, const Survey& b) {
      return place_of(a.smallest()) < place_of(b.smallest());
    });
  writer_.open_polygon(int64_t(boundaries_.size()), vertices);
  for (const Survey& ring : boundaries_) write_ring(writer_, ring);
  Vertex smallest = boundaries_.front().smallest();
  smallest.row = row_of(smallest);
  if (options_.extent.touches_seam(writer_.sums(), smallest.row, last.row)) {
    writer_.discard_polygon();
    return false;
  }
  writer_.close_polygon(class_id, confidence, smallest, last);
  return true;
}

// Writes one that must be cut at corners or seams first.
void Tracer::write_gathered(Vertex last, uint8_t class_id) {
  rings_.clear();
  uint64_t confidence = 0;
  for (const Survey& ring : boundaries_) {
    gather(ring, rings_.add(ring.count));
    confidence += ring.confidence;
  }
  rings_.cut();
  rings_.write(writer_);
  const Vertex first = rings_.first();
  const Sums sums = writer_.sums();
  if (!options_.extent.touches_seam(sums, first.row, last.row))
    return writer_.close_polygon(class_id, confidence, first, last);
  writer_.discard_polygon();
  open_.add(rings_.copy(),
            {sums.area, int64_t(confidence), sums.col_twice, sums.row_twice, class_id},
            options_.extent);
}

void Tracer::gather(const Survey& ring, Vertex* to) const {
  for (const Block* block = ring.first; block; block = block->next) {
    if (block->origin == Block::SPILLED) {
      spill_file_.read(block->spilled.place, block->spilled.count, to);
      to += block->spilled.count;
    } else {
      to = std::copy(block->vertices + block->begin, block->vertices + block->end, to);
    }
  }
}

// Writes what no end can reach any more to the folder.
void Tracer::spill() {
  for (size_t word = 0; word < vertical_.size(); word++) {
    for (uint64_t edges = vertical_[word]; edges; edges &= edges - 1) {
      const int64_t x = int64_t(word) * 64 + __builtin_ctzll(edges);
      if (here_[x - 1] == options_.nodata) continue;
      const End* end = crossing_[size_t(x)].left;
      Block* first = end->partner->block;
      if (first != end->block) spill_blocks(first->next, end->block);
    }
  }
  regions_.visit_holes([this](Block* first) { spill_blocks(first, nullptr); });
  // Not again before there is something to gain.
  most_blocks_ = std::max(options_.most_blocks, 2 * blocks_.used());
}

// Spills the blocks from `block` to `stop`; the first of each group stands for it.
void Tracer::spill_blocks(Block* block, const Block* stop) {
  constexpr int64_t WORTH = 4;  // blocks
  Ring vertices;
  while (block != stop) {
    if (block->origin == Block::SPILLED) {
      block = block->next;
      continue;
    }
    Block *first = block, *last = block;
    uint64_t confidence = 0;
    int64_t count = 0;
    vertices.clear();
    for (; block != stop && block->origin != Block::SPILLED; block = block->next) {
      vertices.insert(vertices.end(), block->vertices + block->begin,
                      block->vertices + block->end);
      confidence += block->confidence;
      last = block;
      count++;
    }
    if (count < WORTH) continue;
    const int64_t place = spill_file_.write(vertices.data(), int64_t(vertices.size()));
    blocks_.give_back(first->next, last, count - 1);
    first->next = block;
    first->confidence = confidence;
    first->origin = Block::SPILLED;
    first->spilled = {place, int64_t(vertices.size())};
  }
}

}  // namespace geoseg::vectorize
