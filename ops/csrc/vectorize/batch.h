// Finished polygons: WKB and its columns, in pages that are used again.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "vertex.h"

#if !defined(__x86_64__)
// a * col + b * row is rounded twice, as NumPy does it; this processor could fuse it.
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif
#endif

namespace geoseg::vectorize {

constexpr int32_t BATCH_POLYGONS = 1 << 14;
constexpr int64_t BATCH_BYTES = 4 << 20;  // of WKB; a polygon that is larger is alone

// Laid out for `geoseg/vectorize/native.py`, which reads it by ctypes.
struct Batch {
  int64_t count = 0;
  int64_t size = 0;  // bytes of WKB
  int64_t capacity = 0;
  uint8_t* wkb = nullptr;
  int32_t offsets[BATCH_POLYGONS + 1] = {};
  int32_t bounds[BATCH_POLYGONS][4];
  int32_t first_col[BATCH_POLYGONS];
  int32_t last_col[BATCH_POLYGONS];
  int64_t pixels[BATCH_POLYGONS];
  int64_t confidence_sum[BATCH_POLYGONS];
  double col_sum[BATCH_POLYGONS];
  double row_sum[BATCH_POLYGONS];
  uint8_t class_id[BATCH_POLYGONS];

  Batch() = default;
  Batch(const Batch&) = delete;
  ~Batch();
};

// What a walk along rings sums up.
struct Sums {
  int64_t area = 0;       // pixels inside, by Green's theorem
  int64_t col_twice = 0;  // twice the sum of col + 0.5 over them
  int64_t row_twice = 0;  // twice the sum of row + 0.5
  int32_t col_min = INT32_MAX, col_max = INT32_MIN;

  void step(Vertex from, Vertex to) {
    const int64_t rise = int64_t(to.row) - from.row, strip = to.col * rise;
    area += strip;
    col_twice += strip * to.col;
    row_twice += strip * (int64_t(to.row) + from.row);
    col_min = to.col < col_min ? to.col : col_min;
    col_max = to.col > col_max ? to.col : col_max;
  }
};

// Writes the vertices of one ring. A value of its own, so that it stays in registers.
class RingWriter {
 public:
  RingWriter(const Transform& t, const Sums& sums, uint8_t* to)
      : straight_{t.a, t.e},
        crossed_{t.b, t.d},
        origin_{t.c, t.f},
        sums_(sums),
        start_(to),
        end_(to) {}

  void put(const Vertex* vertices, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
      const Vertex vertex = {vertices[i].col, row_of(vertices[i])};
      if (end_ == start_) first_ = previous_ = vertex;
      const Pair whole = {double(vertex.col), double(vertex.row)};
      const Pair swapped = {double(vertex.row), double(vertex.col)};
      const Pair place = whole * straight_ + swapped * crossed_ + origin_;
      std::memcpy(end_, &place, sizeof place);
      end_ += sizeof place;
      sums_.step(previous_, vertex);
      previous_ = vertex;
    }
  }
  // Repeats the first vertex.
  void close() {
    sums_.step(previous_, first_);
    std::memcpy(end_, start_, sizeof(Pair));
    end_ += sizeof(Pair);
  }

  const Sums& sums() const { return sums_; }
  uint8_t* end() const { return end_; }

 private:
  typedef double Pair __attribute__((vector_size(16)));

  Pair straight_, crossed_, origin_;
  Sums sums_;
  uint8_t *start_, *end_;
  Vertex first_{}, previous_{};
};

// Writes polygons into batches.
class BatchWriter {
 public:
  explicit BatchWriter(const Transform& transform) : transform_(transform) {}

  // Makes room for a polygon; then, for each ring, `open_ring` and `close_ring`. The
  // exterior comes first.
  void open_polygon(int64_t rings, int64_t vertices);
  RingWriter open_ring(int64_t vertices);
  void close_ring(RingWriter& ring) {
    ring.close();
    sums_ = ring.sums();
    end_ = ring.end();
  }
  // `first` and `last`: the smallest and largest corner of the exterior.
  void close_polygon(uint8_t class_id, uint64_t confidence, Vertex first, Vertex last);
  // Instead of `close_polygon`: nothing was written.
  void discard_polygon() { end_ = batch_->wkb + batch_->size; }

  const Sums& sums() const { return sums_; }
  bool has_finished() const { return !finished_.empty(); }
  // The next full batch, or, in the end, the last one; nullptr if there is none.
  std::unique_ptr<Batch> take(bool also_unfinished);

 private:
  Transform transform_;
  std::unique_ptr<Batch> batch_;
  std::deque<std::unique_ptr<Batch>> finished_;
  uint8_t* end_ = nullptr;  // of what is written of the polygon
  Sums sums_;
};

// Batches that a reader has let go, for the next one: fresh pages cost as much as the
// trace itself.
std::unique_ptr<Batch> new_batch();
void recycle(std::unique_ptr<Batch> batch);

}  // namespace geoseg::vectorize
