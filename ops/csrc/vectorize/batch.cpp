#include "batch.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include <sys/mman.h>

namespace geoseg::vectorize {
namespace {

constexpr size_t KEPT_BATCHES = 4;

std::mutex pool_lock;
std::vector<std::unique_ptr<Batch>>& pool() {
  static std::vector<std::unique_ptr<Batch>> kept;
  return kept;
}

void reserve(Batch& batch, int64_t capacity) {
  if (capacity <= batch.capacity) return;
  if (capacity > INT32_MAX - (2 << 20))
    throw std::length_error(
        "a polygon has more vertices than 2 GB of WKB hold; trace the raster in pieces");
  // Large pages: to take small ones one by one costs as much as to trace.
  constexpr int64_t PAGE = 2 << 20;
  capacity = (capacity + PAGE - 1) / PAGE * PAGE;
  void* bytes = std::aligned_alloc(PAGE, size_t(capacity));
  if (bytes == nullptr) throw std::bad_alloc();
  madvise(bytes, size_t(capacity), MADV_HUGEPAGE);
  if (batch.size > 0) std::memcpy(bytes, batch.wkb, size_t(batch.size));
  std::free(batch.wkb);
  batch.wkb = static_cast<uint8_t*>(bytes);
  batch.capacity = capacity;
}

template <typename T>
uint8_t* store(uint8_t* to, T value) {
  std::memcpy(to, &value, sizeof value);
  return to + sizeof value;
}

}  // namespace

Batch::~Batch() { std::free(wkb); }

std::unique_ptr<Batch> new_batch() {
  {
    const std::lock_guard<std::mutex> guard(pool_lock);
    if (!pool().empty()) {
      std::unique_ptr<Batch> batch = std::move(pool().back());
      pool().pop_back();
      batch->count = batch->size = 0;
      return batch;
    }
  }
  std::unique_ptr<Batch> batch(new Batch);  // its columns are not zeroed
  reserve(*batch, BATCH_BYTES);
  return batch;
}

void recycle(std::unique_ptr<Batch> batch) {
  const std::lock_guard<std::mutex> guard(pool_lock);
  // Those that a huge polygon has swollen are let go.
  if (pool().size() < KEPT_BATCHES && batch->capacity <= 2 * BATCH_BYTES)
    pool().push_back(std::move(batch));
}

void BatchWriter::open_polygon(int64_t rings, int64_t vertices) {
  const int64_t size = 9 + 4 * rings + 16 * (vertices + rings);
  if (batch_ && batch_->count > 0 && batch_->size + size > batch_->capacity) {
    finished_.push_back(std::move(batch_));
  }
  if (!batch_) batch_ = new_batch();
  reserve(*batch_, batch_->size + size);
  end_ = batch_->wkb + batch_->size;
  *end_++ = 1;  // little-endian
  end_ = store(end_, uint32_t(3));  // a polygon
  end_ = store(end_, uint32_t(rings));
  sums_ = Sums();
}

RingWriter BatchWriter::open_ring(int64_t vertices) {
  return {transform_, sums_, store(end_, uint32_t(vertices + 1))};
}

void BatchWriter::close_polygon(uint8_t class_id, uint64_t confidence, Vertex first, Vertex last) {
  Batch& batch = *batch_;
  const int64_t i = batch.count++;
  batch.size = end_ - batch.wkb;
  batch.offsets[i + 1] = int32_t(batch.size);
  batch.class_id[i] = class_id;
  batch.pixels[i] = sums_.area;
  batch.confidence_sum[i] = int64_t(confidence);
  batch.col_sum[i] = double(sums_.col_twice) / 2;
  batch.row_sum[i] = double(sums_.row_twice) / 2;
  const int32_t bounds[4] = {sums_.col_min, first.row, sums_.col_max, last.row};
  std::memcpy(batch.bounds[i], bounds, sizeof bounds);
  batch.first_col[i] = first.col;
  batch.last_col[i] = last.col - 1;
  if (batch.count == BATCH_POLYGONS || batch.size >= BATCH_BYTES - BATCH_BYTES / 64)
    finished_.push_back(std::move(batch_));
}

std::unique_ptr<Batch> BatchWriter::take(bool also_unfinished) {
  if (finished_.empty()) {
    const bool has_some = also_unfinished && batch_ && batch_->count > 0;
    return has_some ? std::move(batch_) : nullptr;
  }
  std::unique_ptr<Batch> batch = std::move(finished_.front());
  finished_.pop_front();
  return batch;
}

}  // namespace geoseg::vectorize
