// Area, centroid and bounds of polygons in WKB.
#pragma once

#include <cstdint>

namespace geoseg::vectorize {

// Laid out for `geoseg/vectorize/moments.py`: seven columns of float64. A polygon without
// rings has area 0, and the others are NaN.
struct Moments {
  double area;
  double x, y;  // centroid
  double x_min, y_min, x_max, y_max;
};

// Measures one polygon, little-endian and two-dimensional, whatever way its rings run.
// Throws if the bytes from `wkb` to `end` are anything else.
Moments measure_polygon(const uint8_t* wkb, const uint8_t* end);

}  // namespace geoseg::vectorize
