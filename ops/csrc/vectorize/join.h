// Joins parts at their seams, a row of parts at a time.
//
// A part leaves its open regions as pieces: which pixels along its sides they have, and
// the boundaries that run from seam to seam (`part.h`). At a seam, the pixels on both
// sides tell which pieces are one region and where a boundary runs along the seam. At each
// corner on a seam, boundaries are then tied together as the tracer ties them.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "batch.h"
#include "part.h"
#include "rings.h"
#include "spill.h"

namespace geoseg::vectorize {

// Vertices until they are read, each once; in memory as far as that is little, else in a file.
class VertexStore {
 public:
  explicit VertexStore(std::string folder) : file_(std::move(folder)) {}
  // Returns the place of the first; the others follow it.
  int64_t write(const Vertex* vertices, int64_t count);
  void read(int64_t place, int64_t count, Vertex* to);

 private:
  // What was written together; it goes when the last of it is read.
  struct Slab {
    std::vector<Vertex> vertices;
    int64_t unread;
  };
  static constexpr int64_t MOST = (64 << 20) / sizeof(Vertex);
  // A place in memory is the number of a slab, and 32 bits for the vertex in it.
  static constexpr int64_t IN_FILE = int64_t(1) << 62;
  std::vector<Slab> slabs_;
  int64_t held_ = 0;
  SpillFile file_;
};

// Things by number; those that are removed leave their number to others.
template <typename T>
class Pool {
 public:
  int32_t add(const T& item) {
    if (free_.empty()) {
      items_.push_back(item);
      return int32_t(items_.size()) - 1;
    }
    const int32_t number = free_.back();
    free_.pop_back();
    items_[size_t(number)] = item;
    return number;
  }
  void remove(int32_t number) { free_.push_back(number); }
  T& operator[](int32_t number) { return items_[size_t(number)]; }

 private:
  std::vector<T> items_;
  std::vector<int32_t> free_;
};

class Join {
 public:
  Join(const Extent& region, const Transform& transform, std::string folder);

  // Parts come by rows from the top, within a row from the left.
  void begin_row(int32_t row, int32_t height);
  void add(const Extent& part, const Piece* pieces, int64_t piece_count, const Run* runs,
           int64_t run_count, const Arm* arms, int64_t arm_count, const InnerRing* rings,
           int64_t ring_count, const Vertex* vertices, int64_t vertex_count);
  void end_row();
  // Gives the polygons that are closed by now, by their last pixel, some at a time; nullptr
  // when there are no more. All of a row are to be taken before the next one begins.
  std::unique_ptr<Batch> take();

 private:
  static constexpr int32_t NONE = -1;

  // Nodes that follow each other.
  struct List {
    int32_t first = NONE, last = NONE;
  };
  // Vertices of a line: `count` of them in the store, or, if that is 0, the one here.
  struct Node {
    int64_t place;
    Vertex vertex;
    int32_t count;
    int32_t next;
  };
  // A closed boundary, of several that a region has.
  struct Boundary {
    List nodes;
    int32_t next;
  };
  // Pieces that turned out to be one region are a tree, and a list; the root has the rest.
  struct Region {
    int32_t parent = NONE;
    int32_t next = NONE, last = NONE;
    int32_t first_boundary = NONE, last_boundary = NONE;
    uint8_t class_id = 0;
    int64_t confidence = 0;
  };
  // One end of a line. The start also has what is known of the whole line, but for its
  // last node, which the other end has.
  struct End {
    int32_t partner;
    int32_t region;
    int32_t node;
    int64_t area;
    int64_t last;  // its largest corner
  };
  // Lines that leave a corner and that arrive there, by direction: starts and ends.
  struct Corner {
    std::array<int32_t, 4> leaving{NONE, NONE, NONE, NONE}, arriving{NONE, NONE, NONE, NONE};
  };
  struct ColumnSeam {
    int32_t col;
    std::vector<Run> left, right;
    std::vector<Corner> corners;
  };
  struct Closed {
    int64_t last;
    int32_t region;
  };

  int32_t find(int32_t region);
  void unite(int32_t a, int32_t b);
  Corner& corner_at(Vertex place);
  List single(const Node& node) {
    const int32_t number = nodes_.add(node);
    return {number, number};
  }
  List chain(List first, List second);
  void add_boundary(int32_t region, List nodes);
  void add_line(const End& line, List nodes, Vertex from, int32_t leaving, Vertex to,
                int32_t arriving);
  void add_edge(Vertex from, Vertex to, int32_t region);
  void match(std::vector<Run>& first, std::vector<Run>& second, int32_t place, bool is_row);
  void tie_corner(Corner& corner, Vertex place);
  void tie(int32_t end, int32_t start, Vertex place, bool is_vertex, bool is_touch);
  void write(int32_t region, Vertex last);
  void gather(List nodes);

  Extent region_;
  BatchWriter writer_;
  VertexStore store_;
  int32_t row_ = 0, stop_ = 0;  // of the parts that are being added
  Pool<Region> regions_;
  Pool<Node> nodes_;
  Pool<Boundary> boundaries_;
  Pool<End> ends_;
  std::vector<Run> above_, below_, next_above_;  // along the seams above and below them
  std::vector<Corner> corners_, next_corners_;   // there, by column
  std::vector<ColumnSeam> columns_;
  std::vector<Closed> closed_;
  size_t written_ = 0;  // of those that are closed
  PolygonRings rings_;
};

}  // namespace geoseg::vectorize
