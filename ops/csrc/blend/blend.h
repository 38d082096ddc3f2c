// Blending as kernels see it: tiles of logits in, classes and confidence out.
#pragma once

#include <cstdint>

#include "../cache_line.h"

namespace geoseg::blend {

// Tables by pixel of a tile have so many entries before and behind them, for whole vectors:
// shares and weights of 0, sources as those of the first and the last pixel.
constexpr int64_t PADDING = 16;

// The tiles that touch the output along one axis. Each has a row of `length` in the tables.
struct Axis {
  int64_t count;
  const int32_t* origins;       // first pixel of each tile, ascending
  const int32_t *starts, *stops;  // where it weighs more than 0, within the output
  // What the nearer source pixel to 0 and the next one contribute to each pixel; weighted by
  // it when logits are blended.
  const float *low_shares, *high_shares;
  const float* weights;
};

// Pixels are those of the scene.
struct Problem {
  Axis rows, cols;
  const int32_t* sources;  // the nearer source pixel to 0 of each pixel of a tile, (length,)
  int64_t length;          // tile size + 2 * PADDING
  const void* const* tiles;  // (rows.count, cols.count) of (classes, side, side); nullptr: none
  int64_t classes, side;
  int64_t row, col, height, width;  // of the output
  const uint8_t* keep;  // (height, width), 0 or 1: whether the pixel is wanted
  const uint8_t* ids;   // (classes,): what stands for each class in the mask
  uint8_t* mask;        // (height, width)
  uint8_t* confidence;  // (height, width), percent; nullptr: not wanted
  uint8_t* scores;      // (classes, height, width), percent of each class; nullptr: not wanted
  uint8_t nodata;       // of all three, for pixels that are not wanted
  bool half;            // float16 logits, not float32
  bool probabilities;   // blends the softmax of each tile
};

struct Kernels {
  int64_t (*scratch_bytes)(const Problem&);
  // Returns whether each pixel wanted lies in a tile.
  bool (*run)(const Problem&, void* scratch);
  // Whether no number is NaN or infinite.
  bool (*all_finite)(const void* numbers, int64_t count, bool half);
};

namespace portable {
Kernels kernels();
}
namespace avx2 {
Kernels kernels();
}
namespace avx512 {
Kernels kernels();
}

}  // namespace geoseg::blend
