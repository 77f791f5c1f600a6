// How an input is laid out so that a stripe reads its pixels side by side.
//
// Outputs are counted over a grid of cells, row after row. A *plane* holds, for one input and each
// cell, the number that is read there at some place of the kernel; another place of the kernel
// reads the same plane a few cells on, as long as the grid has a margin between its rows. The
// margin's cells are computed in vain. Without a margin each column of the kernel needs a plane of
// its own, which costs time to fill; where images are small, that is less. The same holds for rows,
// with the gain that slabs may go from one image to the next. Which is best is reckoned for a call.
#pragma once

#include <algorithm>

#include "packed.h"
#include "simd.h"

namespace tonsor {

constexpr int MOST_KERNEL = 64;  // positions of a kernel in one dimension; more go another way

// Along one dimension: which plane a place of the kernel reads, where that starts in the input,
// and how many cells on.
struct Line {
  bool apart;       // a plane for each place of the kernel, and no margin
  int64_t planes, start[MOST_KERNEL];  // of each plane
  int64_t plane[MOST_KERNEL], shift[MOST_KERNEL];  // of each place
  int64_t most;     // the largest shift
  int64_t size;     // cells of a line that hold an output, or the margin
};

inline Line line_of(bool apart, int64_t kernel, int64_t stride, int64_t dilation, int64_t before,
                    int64_t in, int64_t out, const bool* used) {
  Line line;
  line.apart = apart, line.planes = 0, line.most = 0, line.size = out;
  int64_t of[MOST_KERNEL * 2];
  std::fill(of, of + MOST_KERNEL * 2, -1);
  for (int64_t i = 0; i < kernel; i++) {
    line.plane[i] = -1, line.shift[i] = 0;
    if (!used[i]) continue;
    const int64_t offset = i * dilation, left = offset % stride;
    if (apart) {
      line.start[line.planes] = offset - before, line.plane[i] = line.planes++;
      continue;
    }
    int64_t found = -1;
    for (int64_t p = 0; p < line.planes; p++)
      if (line.start[p] == left - before) found = p;
    if (found < 0) found = line.planes++, line.start[found] = left - before;
    line.plane[i] = found, line.shift[i] = offset / stride;
    line.most = std::max(line.most, line.shift[i]);
  }
  if (!apart) {
    // A cell beyond one row is a cell of the next. It has to be zero in both, or in the margin.
    for (int64_t p = 0; p < line.planes; p++) {
      const int64_t start = line.start[p];
      const int64_t zeros = start < 0 ? (-start + stride - 1) / stride : 0;
      const int64_t filled = std::max<int64_t>(0, (in - start + stride - 1) / stride);
      line.size = std::max({line.size, std::min(filled, out + line.most), out + line.most - zeros});
    }
  }
  return line;
}

struct Grid {
  Line rows, columns;
  int64_t slab;      // rows of the output at a time
  int64_t slabs;     // in an image, or in the batch if rows are apart
  int64_t cells;     // of a slab, whole vectors
  int64_t plane;     // floats from one plane to the next, for one input
  int64_t step;      // floats from one input to the next
  int64_t shares;    // of a slab's filters, each for one thread
};

}  // namespace tonsor
