// The tracer: polygons of a class raster in one pass over its rows.
//
// Regions are 4-connected pixels of one class. A boundary is walked with its region on the
// right, so along a pixel edge run two of them, one for each side. While rows are read,
// each boundary is a chain of vertices with two open ends, which wait at the pixel edges
// that cross the current row: `left` and `right` of a vertical edge, `upper` and `lower` of
// the horizontal edge that was reached last. Work is done only at corners where
// boundaries turn or meet; at such a corner chains begin, grow, or are joined, and a chain
// that is joined to itself is a ring: an exterior if it closes around its last pixel, else
// a hole. Where two pixels of a region meet in a corner only, a boundary passes twice;
// `PolygonRings` cuts it there.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "batch.h"
#include "blocks.h"
#include "part.h"
#include "regions.h"
#include "rings.h"
#include "scan.h"
#include "spill.h"

namespace geoseg::vectorize {

struct TracerOptions {
  Extent extent;
  Transform transform;
  uint8_t nodata;
  bool has_confidence, has_excluded;
  uint8_t classes[256];  // what a class counts as: itself, or nodata
  int64_t most_blocks;   // in memory; more go to the folder
};

class Tracer {
 public:
  Tracer(const TracerOptions& options, const ScanKernels& kernels, std::string folder);

  // Reads rows until a batch is full; returns how many.
  int64_t feed(const uint8_t* classes, const uint8_t* confidence, int64_t rows);
  // To be called after the last row.
  void finish();

  BatchWriter& writer() { return writer_; }
  const OpenPieces& open() const { return open_; }

 private:
  // What it is that a chain becomes when it is tied to itself.
  enum Closing { EXTERIOR, HOLE };

  struct End {
    Block* block;
    End* partner;  // the chain's other end
    int32_t region;
  };

  // The ends at a vertical edge, of the regions left and right of it.
  struct Crossing {
    End *left, *right;
  };

  void read_row(const uint8_t* classes);
  template <bool WEIGHTED>
  void visit_corners();

  uint64_t sum_columns(int64_t first, int64_t stop) const;
  int32_t region_left_of(int64_t x);
  End* new_end();
  void free_end(End* end);
  void begin(Vertex vertex, int32_t region, End*& start, End*& end);
  void append(End* end, Vertex vertex, uint64_t weight);
  void prepend(End* start, Vertex vertex, uint64_t weight);
  static bool merge(Block* block, Block* following);
  void join(End* end, End* start, Vertex vertex, uint64_t weight, uint8_t class_id,
            Closing closing);
  void close_exterior(Block* first, int32_t region, Vertex last, uint8_t class_id);
  bool write(Vertex last, uint8_t class_id);
  void write_gathered(Vertex last, uint8_t class_id);
  void gather(const Survey& ring, Vertex* to) const;
  void spill();
  void spill_blocks(Block* block, const Block* stop);

  TracerOptions options_;
  ScanKernels kernels_;
  BatchWriter writer_;
  OpenPieces open_;
  BlockPool blocks_;
  Regions regions_;
  SpillFile spill_file_;
  int64_t most_blocks_;

  int64_t width_;
  int32_t row_ = 0;  // of the part, the one that is read next
  std::vector<uint8_t> pixels_[2];
  uint8_t *above_, *here_;
  std::vector<uint64_t> vertical_above_, vertical_, horizontal_;
  std::vector<uint32_t> columns_;  // confidence of all pixels above the row, by column
  std::vector<Crossing> crossing_;  // by column
  std::vector<End> ends_;
  End* free_ends_ = nullptr;
  std::vector<Block*> holes_;        // of the region that is being closed
  std::vector<Survey> boundaries_;  // its exterior and its holes
  PolygonRings rings_;              // of one that is not written from its blocks
};

}  // namespace geoseg::vectorize
