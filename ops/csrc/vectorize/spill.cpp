#include "spill.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

namespace geoseg::vectorize {

SpillFile::~SpillFile() {
  if (file_ >= 0) close(file_);
}

int64_t SpillFile::write(const Vertex* vertices, int64_t count) {
  if (file_ < 0) {
    std::string name = folder_ + "/spilled-XXXXXX";
    file_ = mkstemp(name.data());
    if (file_ < 0) throw SystemError(errno, std::strerror(errno));
    unlink(name.c_str());
  }
  const int64_t place = size_;
  const char* from = reinterpret_cast<const char*>(vertices);
  int64_t left = count * int64_t(sizeof(Vertex)), at = place * int64_t(sizeof(Vertex));
  while (left > 0) {
    const ssize_t written = pwrite(file_, from, size_t(left), at);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw SystemError(errno, std::strerror(errno));
    from += written, at += written, left -= written;
  }
  size_ += count;
  return place;
}

void SpillFile::read(int64_t place, int64_t count, Vertex* to) const {
  char* target = reinterpret_cast<char*>(to);
  int64_t left = count * int64_t(sizeof(Vertex)), at = place * int64_t(sizeof(Vertex));
  while (left > 0) {
    const ssize_t got = pread(file_, target, size_t(left), at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw SystemError(got < 0 ? errno : EIO, std::strerror(got < 0 ? errno : EIO));
    target += got, at += got, left -= got;
  }
}

}  // namespace geoseg::vectorize
