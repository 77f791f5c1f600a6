// The functions that are called from outside.
#include <cstring>

#include "packed.h"
#include "run.h"

#ifndef TONSOR_LEVEL
#define TONSOR_LEVEL "?"
#endif

#define TONSOR_API extern "C" __attribute__((visibility("default")))

TONSOR_API int tonsor_abi(void) { return 1; }

TONSOR_API const char* tonsor_level(void) { return TONSOR_LEVEL; }

// Whether it was compiled with OpenMP; without it, everything runs in one thread.
TONSOR_API int tonsor_openmp(void) {
#if defined(_OPENMP)
  return 1;
#else
  return 0;
#endif
}

// Convolves; inputs and outputs are channels last, `half` says that they are bfloat16. Returns what
// is wrong.
TONSOR_API int tonsor_convolve(const void* packed, const void* x, const void* residual, void* out,
                               int64_t batch, int64_t height, int64_t width, int64_t out_height,
                               int64_t out_width, int64_t top, int64_t left, int relu, int half,
                               int threads) {
  using namespace tonsor;
  const Header& h = header(packed);
  if (h.magic != MAGIC) return NOT_PACKED;
  if (h.version != VERSION) return OTHER_VERSION;
  if (batch * out_height * out_width == 0) return NOTHING;
  if (!x || !out) return NO_TENSOR;  // such as one that has a shape and no numbers
  const Call call{packed, x,         residual, out, batch, height,       width, out_height,
                  out_width, top, left,     relu != 0, threads < 1 ? 1 : threads};
  switch (h.form) {
    case STRIPES: return run_stripes(call, half);
    case PANELS: return run_panels(call, half);
    case DOTS: return run_dots(call, half);
    default: return NOT_PACKED;
  }
}

// What does not change when a call is made again, on inputs of the same size.
struct Again {
  const void* packed;
  int64_t sizes[9];  // from the channels on, as the head has them: weights may be written over
  int64_t batch, height, width, out_height, out_width, top, left;
  int relu, half;
};

TONSOR_API int tonsor_again(const Again* a, const void* x, const void* residual, void* out, int threads) {
  using namespace tonsor;
  if (memcmp(a->sizes, &header(a->packed).in_channels, sizeof a->sizes)) return OTHER_CONVOLUTION;
  return tonsor_convolve(a->packed, x, residual, out, a->batch, a->height, a->width, a->out_height,
                         a->out_width, a->top, a->left, a->relu, a->half, threads);
}

// One of many calls in a row. Places are bytes from the start of a piece of memory that all share,
// or, below zero, -1 - i for what is the i-th of those that are given; a residual may be missing.
struct Step {
  Again again;
  int64_t x, residual, out;
};
constexpr int64_t MISSING = INT64_MIN;

TONSOR_API int tonsor_chain(const Step* steps, int64_t count, char* shared, void* const* given, int threads) {
  const auto at = [&](int64_t place) -> void* {
    return place == MISSING ? nullptr : place < 0 ? given[-1 - place] : shared + place;
  };
  for (const Step* step = steps; step < steps + count; step++)
    if (int wrong = tonsor_again(&step->again, at(step->x), at(step->residual), at(step->out), threads))
      return wrong;
  return 0;
}
