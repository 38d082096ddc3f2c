// A temporary file for what memory should not hold.
#pragma once

#include <cstdint>
#include <string>

#include "../plain_c.h"
#include "vertex.h"

namespace geoseg::vectorize {

// Opened when it is first written to, and without a name: it goes when it is closed.
class SpillFile {
 public:
  explicit SpillFile(std::string folder) : folder_(std::move(folder)) {}
  SpillFile(const SpillFile&) = delete;
  ~SpillFile();

  // Appends vertices and returns the place of the first.
  int64_t write(const Vertex* vertices, int64_t count);
  void read(int64_t place, int64_t count, Vertex* to) const;
  const std::string& folder() const { return folder_; }

 private:
  std::string folder_;
  int file_ = -1;
  int64_t size_ = 0;
};

}  // namespace geoseg::vectorize
