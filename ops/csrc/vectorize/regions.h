// Which boundaries belong to one region, before it is closed.
#pragma once

#include <cstdint>
#include <vector>

#include "blocks.h"

namespace geoseg::vectorize {

// Sets of region numbers that turned out to be one region, each with its closed holes.
// Numbers are used again, so that there are no more of them than open regions have.
class Regions {
 public:
  struct Hole {
    Block* first;
    int32_t next;
  };
  static constexpr int32_t NONE = -1;

  int32_t make() {
    int32_t region = free_;
    if (region == NONE) {
      region = int32_t(regions_.size());
      regions_.emplace_back();
    } else {
      free_ = regions_[region].next;
    }
    regions_[region] = {region, NONE, region, NONE, NONE};
    return region;
  }

  int32_t find(int32_t region) {
    while (regions_[region].parent != region) {
      regions_[region].parent = regions_[regions_[region].parent].parent;
      region = regions_[region].parent;
    }
    return region;
  }

  int32_t unite(int32_t a, int32_t b) {
    a = find(a), b = find(b);
    if (a == b) return a;
    Region &kept = regions_[a], &joined = regions_[b];
    joined.parent = a;
    regions_[kept.last].next = b;
    kept.last = joined.last;
    if (joined.first_hole != NONE) {
      if (kept.first_hole == NONE) kept.first_hole = joined.first_hole;
      else holes_[kept.last_hole].next = joined.first_hole;
      kept.last_hole = joined.last_hole;
      joined.first_hole = NONE;
    }
    return a;
  }

  void add_hole(int32_t region, Block* first) {
    int32_t hole = free_hole_;
    if (hole == NONE) {
      hole = int32_t(holes_.size());
      holes_.emplace_back();
    } else {
      free_hole_ = holes_[hole].next;
    }
    Region& owner = regions_[find(region)];
    holes_[hole] = {first, owner.first_hole};
    if (owner.first_hole == NONE) owner.last_hole = hole;
    owner.first_hole = hole;
  }

  // Forgets a region that is closed; gives its holes.
  void close(int32_t region, std::vector<Block*>& holes) {
    region = find(region);
    Region& closed = regions_[region];
    for (int32_t hole = closed.first_hole; hole != NONE; hole = holes_[hole].next)
      holes.push_back(holes_[hole].first);
    if (closed.first_hole != NONE) {
      holes_[closed.last_hole].next = free_hole_;
      free_hole_ = closed.first_hole;
      closed.first_hole = NONE;
    }
    regions_[closed.last].next = free_;
    free_ = region;
  }

  // Calls `visit(first block)` for each closed hole of an open region.
  template <typename Visit>
  void visit_holes(Visit visit) {
    for (const Region& region : regions_)
      for (int32_t hole = region.first_hole; hole != NONE; hole = holes_[hole].next)
        visit(holes_[hole].first);
  }

 private:
  struct Region {
    int32_t parent;
    int32_t next, last;  // the numbers of one region, or those that are free, as a list
    int32_t first_hole, last_hole;
  };

  std::vector<Region> regions_;
  std::vector<Hole> holes_;
  int32_t free_ = NONE, free_hole_ = NONE;
};

}  // namespace geoseg::vectorize
