// What functions in plain C have in common, which Python calls by ctypes: one that can fail
// returns 0 for success, an errno, or OTHER; `geoseg_error` says what happened in this
// thread.
#pragma once

#include <cerrno>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#define GEOSEG_API extern "C" __attribute__((visibility("default")))

namespace geoseg {

// A system call failed; `code` is its errno.
struct SystemError : std::runtime_error {
  SystemError(int code, const std::string& what) : std::runtime_error(what), code(code) {}
  int code;
};

constexpr int OTHER = -1;

inline thread_local std::string error;

// Exceptions must not reach Python.
template <typename Action>
int guarded(Action action) {
  try {
    action();
    return 0;
  } catch (const SystemError& failure) {
    error = failure.what();
    return failure.code;
  } catch (const std::bad_alloc&) {
    error = "out of memory";
    return ENOMEM;
  } catch (const std::exception& failure) {
    error = failure.what();
    return OTHER;
  }
}

// For kernels of an instruction set that GEOSEG_CPU names in vain.
[[noreturn]] inline void refuse_instructions() {
  throw std::runtime_error(
      "GEOSEG_CPU names instructions that this processor lacks; use portable, avx2 or avx512");
}

}  // namespace geoseg
