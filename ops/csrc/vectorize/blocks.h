// Vertices of boundaries while they are traced: lists of small blocks.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include <sys/mman.h>

#include "vertex.h"

namespace geoseg::vectorize {

// Two cache lines. The first block of a boundary is begun in its middle, for both ends
// grow: vertices [begin, end) are in the order of the walk, as blocks are.
struct alignas(64) Block {
  static constexpr int CAPACITY = 13;
  static constexpr uint8_t NO_ORIGIN = 255, SPILLED = 254;

  Block* next;
  uint64_t confidence;  // of what its vertices add to their region
  uint8_t begin, end;
  uint8_t touches;  // marked vertices in it
  // The smallest vertex of a ring is the one that some piece of it began with: where that
  // of this block stands. SPILLED: `place` and `count` tell where the vertices are.
  uint8_t origin;
  uint32_t unused;
  union {
    Vertex vertices[CAPACITY];
    struct {
      int64_t place, count;
    } spilled;
  };

  int count() const { return end - begin; }
};
static_assert(sizeof(Block) == 128);

class BlockPool {
 public:
  Block* take() {
    if (free_ == nullptr) grow();
    Block* block = free_;
    free_ = block->next;
    used_++;
    block->next = nullptr;
    block->confidence = 0;
    block->touches = 0;
    block->origin = Block::NO_ORIGIN;
    return block;
  }
  void give_back(Block* block) {
    block->next = free_;
    free_ = block;
    used_--;
  }
  // A list of `count` blocks.
  void give_back(Block* first, Block* last, int64_t count) {
    last->next = free_;
    free_ = first;
    used_ -= count;
  }
  int64_t used() const { return used_; }

 private:
  static constexpr int64_t SLAB = 16384;  // blocks: a large page
  struct Free {
    void operator()(Block* slab) const { std::free(slab); }
  };

  void grow() {
    constexpr size_t SIZE = SLAB * sizeof(Block);
    void* memory = std::aligned_alloc(SIZE, SIZE);
    if (memory == nullptr) throw std::bad_alloc();
    madvise(memory, SIZE, MADV_HUGEPAGE);
    slabs_.emplace_back(static_cast<Block*>(memory));
    for (int64_t i = SLAB - 1; i >= 0; i--) {
      slabs_.back().get()[i].next = free_;
      free_ = slabs_.back().get() + i;
    }
  }

  std::vector<std::unique_ptr<Block, Free>> slabs_;
  Block* free_ = nullptr;
  int64_t used_ = 0;
};

// What is known of a ring before it is written.
struct Survey {
  Block *first, *last = nullptr;
  int64_t blocks = 0;
  int64_t count = 0;  // vertices
  uint64_t confidence = 0;
  Block* start = nullptr;  // the block of the smallest vertex; unknown if spilled
  int touches = 0;
  bool is_spilled = false;

  explicit Survey(Block* first) : first(first) {
    int64_t smallest = INT64_MAX;
    for (Block* block = first; block; block = block->next) {
      // Its other half is needed when it is written.
      __builtin_prefetch(reinterpret_cast<const char*>(block) + 64);
      last = block;
      blocks++;
      confidence += block->confidence;
      touches += block->touches;
      if (block->origin == Block::SPILLED) {
        count += block->spilled.count;
        is_spilled = true;
        continue;
      }
      count += block->count();
      if (block->origin == Block::NO_ORIGIN) continue;
      const int64_t place = place_of(block->vertices[block->origin]);
      if (place < smallest) smallest = place, start = block;
    }
  }

  Vertex smallest() const { return start->vertices[start->origin]; }
};

}  // namespace geoseg::vectorize
