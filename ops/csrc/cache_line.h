#pragma once

#include <cstdint>

namespace geoseg {

// Scratch memory begins on a cache line.
constexpr int64_t CACHE_LINE = 64;

}  // namespace geoseg
