// Scratch memory for kernels that are compiled for several instruction sets. Each includes
// this file into a namespace of its own, as it does lanes.h.

// Hands out pieces of one piece of memory, each on a cache line of its own.
class Arena {
 public:
  explicit Arena(void* memory) : next_(static_cast<char*>(memory)) {}

  template <typename X>
  X* take(int64_t count) {
    char* taken = next_;
    next_ += size_of<X>(count);
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(next_ - CACHE_LINE, CACHE_LINE);
#endif
    return reinterpret_cast<X*>(taken);
  }

  // Bytes that are gone then: whole cache lines, which whole vectors may touch. The address
  // sanitizer, which cannot know of pieces, gets one more line between them.
  template <typename X>
  static int64_t size_of(int64_t count) {
    const int64_t lines = (count * int64_t(sizeof(X)) + CACHE_LINE - 1) / CACHE_LINE;
#if defined(__SANITIZE_ADDRESS__)
    return (lines + 1) * CACHE_LINE;
#else
    return lines * CACHE_LINE;
#endif
  }

 private:
  char* next_;
};
