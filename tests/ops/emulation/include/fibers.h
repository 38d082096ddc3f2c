// Switching between stacks, told to the sanitizer that watches: to the address sanitizer,
// which keeps shadows of stacks, or to the thread sanitizer, to which each CUDA thread is a
// thread. The latter sees what lanes do to the same memory without a barrier between.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <memory>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#else
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulation {

struct Fiber {
  static constexpr size_t stack_size = 1 << 18;
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[stack_size]};
  void* watched = nullptr;  // what the sanitizer knows it by
  bool done;
  unsigned meetings;  // of the warp, that this lane has come to
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline void* scheduler_watched = nullptr;
inline const void* scheduler_stack = nullptr;
inline size_t scheduler_stack_size = 0;
inline int current = 0;

#if defined(__SANITIZE_THREAD__)

// What the emulator does for a thread is no access of that thread.
struct Unwatched {
  Unwatched() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  Unwatched(const Unwatched&) = delete;
  ~Unwatched() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
};

inline void hand_on(void* place) { __tsan_release(place); }
inline void take_over(void* place) { __tsan_acquire(place); }

inline void begin(Fiber& fiber) {
  scheduler_watched = __tsan_get_current_fiber();
  fiber.watched = __tsan_create_fiber(0);
}
inline void finish(Fiber& fiber) { __tsan_destroy_fiber(fiber.watched); }
inline void arrived(bool) {}

// A thread that ends hands on what it did: blocks use the same memory one after the other.
inline void leave(bool for_good) {
  Fiber& fiber = fibers[current];
  if (for_good) hand_on(&scheduler);
  __tsan_switch_to_fiber(scheduler_watched, __tsan_switch_to_fiber_no_sync);
  swapcontext(&fiber.context, &scheduler);
}

inline void enter(Fiber& fiber) {
  __tsan_switch_to_fiber(fiber.watched, __tsan_switch_to_fiber_no_sync);
  swapcontext(&scheduler, &fiber.context);
  if (fiber.done) take_over(&scheduler);
}

inline void forbid(void*, size_t) {}
inline void allow(void*, size_t) {}

#else

struct Unwatched {
  Unwatched() {}
};
inline void hand_on(void*) {}
inline void take_over(void*) {}

inline void begin(Fiber& fiber) { fiber.watched = nullptr; }
inline void finish(Fiber&) {}

// To be called first in a fiber.
inline void arrived(bool first) {
  __sanitizer_finish_switch_fiber(first ? nullptr : fibers[current].watched, &scheduler_stack,
                                  &scheduler_stack_size);
}

inline void leave(bool for_good) {
  Fiber& fiber = fibers[current];
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber.watched, scheduler_stack, scheduler_stack_size);
  swapcontext(&fiber.context, &scheduler);
  arrived(false);
}

inline void enter(Fiber& fiber) {
  __sanitizer_start_switch_fiber(&scheduler_watched, fiber.stack.get(), Fiber::stack_size);
  swapcontext(&scheduler, &fiber.context);
  __sanitizer_finish_switch_fiber(scheduler_watched, nullptr, nullptr);
}

inline void forbid(void* memory, size_t bytes) { __asan_poison_memory_region(memory, bytes); }
inline void allow(void* memory, size_t bytes) { __asan_unpoison_memory_region(memory, bytes); }

#endif

}  // namespace emulation
