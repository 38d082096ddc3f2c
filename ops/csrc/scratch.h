// Memory for kernels to work in.
#pragma once

#include <cstdint>
#include <memory>

#include "cache_line.h"

namespace geoseg {

// Memory for one thread, as it comes: to fill it with zeros would take time.
class Scratch {
 public:
  explicit Scratch(int64_t bytes) : memory_(new char[bytes + CACHE_LINE]) {}

  void* begin() const {
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory_.get());
    return memory_.get() + (CACHE_LINE - address % CACHE_LINE) % CACHE_LINE;
  }

 private:
  std::unique_ptr<char[]> memory_;
};

}  // namespace geoseg
