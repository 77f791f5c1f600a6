// Memory: what one thread works in, and what is asked for ahead of time; and work split in threads.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include <unistd.h>

#include "packed.h"

namespace tonsor {

// How many bytes stay near one processor while they are worked on: a part of its own cache.
inline int64_t near_bytes() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  static const int64_t cache = sysconf(_SC_LEVEL2_CACHE_SIZE);
#else
  static const int64_t cache = 0;
#endif
  const int64_t part = cache > 0 ? cache / 2 : 1 << 19;
  return part < (1 << 18) ? 1 << 18 : part;
}

// For one thread to work in, kept from call to call.
class Scratch {
 public:
  // So many floats, of which nothing is known; nullptr if there is no memory.
  float* floats(int64_t count) { return static_cast<float*>(bytes(count * 4)); }

  void* bytes(int64_t wanted) {
    if (wanted > size_) {
      free(held_);
      int64_t size = (wanted + wanted / 4 + 4095) / 4096 * 4096;
      held_ = aligned_alloc(64, size);
      size_ = held_ ? size : 0;
      // What is read beyond the end of something has to be numbers of some kind.
      if (held_) memset(held_, 0, size);
    }
    return held_;
  }

  ~Scratch() { free(held_); }

 private:
  void* held_ = nullptr;
  int64_t size_ = 0;
};

// Memory that is read or written next, asked for bit by bit while there is something to compute.
template <bool WRITTEN = false>
class Ahead {
 public:
  Ahead(const void* from, const void* to, int64_t steps)
      : at_(static_cast<const char*>(from)), end_(static_cast<const char*>(to)) {
    lines_ = ((end_ - at_) / 64 + steps) / (steps < 1 ? 1 : steps);
  }

  void step() {
    for (int64_t i = 0; i < lines_ && at_ < end_; i++, at_ += 64) __builtin_prefetch(at_, WRITTEN, WRITTEN ? 3 : 2);
  }

 private:
  const char *at_, *end_;
  int64_t lines_;
};

// Splits `count` pieces of work between threads; `work(first, last)` does some of them, and says
// whether it had the memory for that. Nothing may leave a parallel region early, hence no exceptions.
template <typename Work>
inline Wrong split(int64_t count, int threads, Work work) {
  int64_t many = threads < count ? threads : count;
  if (many <= 1) return !count || work(int64_t(0), count) ? NOTHING : NO_MEMORY;
  bool good = true;
#pragma omp parallel for num_threads(int(many)) schedule(static, 1) reduction(&& : good)
  for (int64_t i = 0; i < many; i++) good = work(count * i / many, count * (i + 1) / many) && good;
  return good ? NOTHING : NO_MEMORY;
}

}  // namespace tonsor
