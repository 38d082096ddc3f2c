// Overviews: four pixels become one. Plain C for Python, geoseg/io/halving.py.

#include <cstdint>
#include <cstring>

#include "../plain_c.h"

namespace geoseg::raster {
namespace {

// Numbers of 16 bits: a pair of neighbours is loaded as one, and sums of four fit.
using Number = uint16_t;

inline Number choose(bool condition, Number yes, Number no) {
  const Number mask = Number(-int(condition));
  return Number((yes & mask) | (no & ~mask));
}

// The most frequent of four, of equally frequent ones the first; nodata only for want of else.
struct Mode {
  static Number of(Number nw, Number ne, Number sw, Number se, Number nodata) {
    Number first = choose(sw != nodata, sw, se);
    first = choose(ne != nodata, ne, first);
    first = choose(nw != nodata, nw, first);
    Number found = choose((sw == se) & (sw != nodata), sw, first);
    found = choose(((ne == sw) | (ne == se)) & (ne != nodata), ne, found);
    return choose(((nw == ne) | (nw == sw) | (nw == se)) & (nw != nodata), nw, found);
  }
};

// The mean of those with data, rounded half up.
struct Mean {
  static Number of(Number nw, Number ne, Number sw, Number se, Number nodata) {
    const Number hidden = Number((nw == nodata) + (ne == nodata) + (sw == nodata) + (se == nodata));
    const Number sum = Number(nw + ne + sw + se - hidden * nodata);
    // x * 21846 >> 16 is x / 3 for all sums of three bytes.
    const Number third = Number((uint32_t(Number(sum + 1)) * 21846u) >> 16);
    Number found = choose(hidden == 0, Number((sum + 2) >> 2), third);
    found = choose(hidden == 2, Number((sum + 1) >> 1), found);
    found = choose(hidden == 3, sum, found);
    return choose(hidden == 4, nodata, found);
  }
};

template <typename Rule>
void halve(const uint8_t* rows, int64_t height, int64_t width, uint8_t nodata, uint8_t* halved) {
  for (int64_t row = 0; row < height; row += 2) {
    const uint8_t *upper = rows + row * width, *lower = upper + width;
    for (int64_t col = 0; col < width / 2; col++) {
      Number north, south;
      std::memcpy(&north, upper + 2 * col, sizeof north);
      std::memcpy(&south, lower + 2 * col, sizeof south);
      *halved++ = uint8_t(Rule::of(north & 255, north >> 8, south & 255, south >> 8, nodata));
    }
  }
}

}  // namespace
}  // namespace geoseg::raster

// Halves (height, width) pixels, both even, to (height / 2, width / 2).
GEOSEG_API void geoseg_halve_by_mode(
    const uint8_t* rows, int64_t height, int64_t width, uint8_t nodata, uint8_t* halved) {
  geoseg::raster::halve<geoseg::raster::Mode>(rows, height, width, nodata, halved);
}

GEOSEG_API void geoseg_halve_by_mean(
    const uint8_t* rows, int64_t height, int64_t width, uint8_t nodata, uint8_t* halved) {
  geoseg::raster::halve<geoseg::raster::Mean>(rows, height, width, nodata, halved);
}
