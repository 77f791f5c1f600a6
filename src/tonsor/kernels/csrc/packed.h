// What a convolution is packed into: one block of memory that is read where it lies.
//
// It holds no addresses, and is the same for all machines, so it may be copied, saved and shared
// between threads. `tonsor/kernels/packed.py` writes it. All places are in bytes from its start.
#pragma once

#include <cstdint>

namespace tonsor {

constexpr int64_t MAGIC = 0x726f736e6f74;  // "tonsor"
constexpr int64_t VERSION = 1;
constexpr int PANEL = 16;                  // filters that lie side by side in a panel

enum Form : int64_t { STRIPES = 0, PANELS = 1, DOTS = 2 };

struct Header {
  int64_t magic, version, form, bytes;
  int64_t in_channels, out_channels, groups;
  int64_t kernel[2], stride[2], dilation[2];
  int64_t bias;   // a float for each filter
  int64_t parts;  // a `Part` for each group of the convolution
};

// One group of the convolution.
struct Part {
  int64_t count;  // of what follows
  int64_t first;  // where that starts: segments, lists or filters
  int64_t stripes;  // how many there are
};

// STRIPES: what some inputs, at one position of the kernel, give to the filters that have it.
struct Segment {
  int64_t position, input, inputs, filters;
  int64_t which;    // int32 for each filter, ascending
  int64_t weights;  // team after team, [input][filter of the team]
};

// The filters of a segment are in teams of about the same size, no larger than this.
constexpr int TEAM = 8;
inline int64_t teams_of(int64_t filters) { return (filters + TEAM - 1) / TEAM; }
inline int64_t team_starts(int64_t filters, int64_t team) { return filters * team / teams_of(filters); }

// PANELS: filters side by side that read the same taps.
struct List {
  int64_t filter, filters, taps;
  int64_t rows;     // int32 [tap][3]: input, and its place in the kernel
  int64_t weights;  // [panel][tap][PANEL]
};

// DOTS: the stripes of one filter.
struct Filter {
  int64_t stripes;
  int64_t positions;  // int32 for each
  int64_t weights;    // [stripe][input]
};

inline const Header& header(const void* packed) { return *static_cast<const Header*>(packed); }

template <typename T>
inline const T* at(const void* packed, int64_t place) {
  return reinterpret_cast<const T*>(static_cast<const char*>(packed) + place);
}

// What is wrong with a call; Python says it in words.
enum Wrong : int {
  NOTHING = 0, NOT_PACKED = 1, OTHER_VERSION = 2, NO_MEMORY = 3, OTHER_CONVOLUTION = 4, TOO_LARGE = 5, NO_TENSOR = 6
};

// One call: what is convolved, and how. `out` shares no memory with what is read: where the last
// numbers do not fill a vector, some outputs are written twice, each time from what was read anew.
struct Call {
  const void* packed;
  const void *x, *residual;
  void* out;
  int64_t batch, height, width, out_height, out_width, top, left;
  bool relu;
  int threads;
};

}  // namespace tonsor
