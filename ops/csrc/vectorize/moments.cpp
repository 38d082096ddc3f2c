#include "moments.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace geoseg::vectorize {
namespace {

constexpr uint32_t POLYGON = 3;

struct Point {
  double x, y;
};

// Reads WKB and never past its end.
class Reader {
 public:
  Reader(const uint8_t* from, const uint8_t* end) : from_(from), end_(end) {}

  template <typename Value>
  Value next() {
    need(sizeof(Value));
    Value value;
    std::memcpy(&value, from_, sizeof value);
    from_ += sizeof value;
    return value;
  }
  // The bytes of `count` points; they are not aligned.
  const uint8_t* points(uint32_t count) {
    need(count * uint64_t(sizeof(Point)));
    const uint8_t* start = from_;
    from_ += count * sizeof(Point);
    return start;
  }

 private:
  void need(uint64_t bytes) const {
    if (uint64_t(end_ - from_) < bytes)
      throw std::runtime_error("the WKB of a polygon is cut short");
  }

  const uint8_t *from_, *end_;
};

Point point_at(const uint8_t* points, uint32_t index) {
  Point point;
  std::memcpy(&point, points + index * sizeof point, sizeof point);
  return point;
}

// Sums over the edges of rings, about an origin near them: map coordinates are large.
struct Sums {
  double area = 0, x = 0, y = 0;  // twice the area; six times its first moments

  void add(const uint8_t* points, uint32_t count, Point origin, Moments& bounds) {
    Point from = {0, 0};
    for (uint32_t i = 0; i < count; i++) {
      const Point place = point_at(points, i);
      bounds.x_min = std::min(bounds.x_min, place.x);
      bounds.y_min = std::min(bounds.y_min, place.y);
      bounds.x_max = std::max(bounds.x_max, place.x);
      bounds.y_max = std::max(bounds.y_max, place.y);
      const Point to = {place.x - origin.x, place.y - origin.y};
      const double cross = i == 0 ? 0 : from.x * to.y - to.x * from.y;
      area += cross;
      x += cross * (from.x + to.x);
      y += cross * (from.y + to.y);
      from = to;
    }
  }
};

}  // namespace

Moments measure_polygon(const uint8_t* wkb, const uint8_t* end) {
  Reader reader(wkb, end);
  if (reader.next<uint8_t>() != 1 || reader.next<uint32_t>() != POLYGON)
    throw std::runtime_error("a geometry is no little-endian WKB polygon");
  constexpr double NONE = std::numeric_limits<double>::quiet_NaN();
  constexpr double FAR = std::numeric_limits<double>::infinity();
  Moments moments = {0, NONE, NONE, FAR, FAR, -FAR, -FAR};
  Point origin = {NONE, NONE};
  Sums sums;
  const uint32_t rings = reader.next<uint32_t>();
  for (uint32_t ring = 0; ring < rings; ring++) {
    const uint32_t count = reader.next<uint32_t>();
    const uint8_t* points = reader.points(count);
    if (count == 0) continue;
    if (ring == 0) origin = point_at(points, 0);
    Sums own;
    own.add(points, count, origin, moments);
    // Exteriors count, holes are taken away.
    const double sign = (own.area < 0) == (ring == 0) ? -1 : 1;
    sums.area += sign * own.area;
    sums.x += sign * own.x;
    sums.y += sign * own.y;
  }
  if (std::isnan(origin.x)) return {0, NONE, NONE, NONE, NONE, NONE, NONE};
  moments.area = sums.area / 2;
  const bool flat = sums.area <= 0;
  moments.x = origin.x + (flat ? 0 : sums.x / (3 * sums.area));
  moments.y = origin.y + (flat ? 0 : sums.y / (3 * sums.area));
  return moments;
}

}  // namespace geoseg::vectorize
