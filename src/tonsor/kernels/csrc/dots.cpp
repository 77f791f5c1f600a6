// Dots: stripes where there are few pixels, as at the end of a network. Vectors go along inputs;
// each weight is read once, in order, and that is what takes the time.
#include <algorithm>

#include "packed.h"
#include "run.h"
#include "scratch.h"
#include "simd.h"

namespace tonsor {
namespace {

constexpr int PIXELS = 4;       // at a time
constexpr int64_t SOON = 1024;  // floats; how far ahead weights are asked for

thread_local Scratch input_as_floats, where_to_read;

// What one stripe adds to the sums of some pixels, those of a mask.
template <int MASK>
__attribute__((noinline)) void add(const float* w, const float* const* x, int64_t inputs, Vector* sums) {
  Vector a[PIXELS], others[PIXELS] = {};
#pragma GCC unroll 4
  for (int p = 0; p < PIXELS; p++) a[p] = sums[p];
  int64_t i = 0;
  // Few sums would wait for each other: every other vector has sums of its own.
  for (; i + 2 * LANES <= inputs; i += 2 * LANES) {
    for (int line = 0; line < 2 * LANES; line += 16) __builtin_prefetch(w + i + line + SOON, 0, 3);
    Vector b = load(w + i), next = load(w + i + LANES);
#pragma GCC unroll 4
    for (int p = 0; p < PIXELS; p++)
      if (MASK >> p & 1) {
        a[p] += b * load(x[p] + i);
        others[p] += next * load(x[p] + i + LANES);
      }
  }
  for (; i < inputs; i += LANES) {
    const int64_t left = inputs - i < LANES ? inputs - i : LANES;
    Vector b = load_some(w + i, left);
#pragma GCC unroll 4
    for (int p = 0; p < PIXELS; p++)
      if (MASK >> p & 1) a[p] += b * load_some(x[p] + i, left);
  }
#pragma GCC unroll 4
  for (int p = 0; p < PIXELS; p++) sums[p] = a[p] + others[p];
}

typedef void (*Add)(const float*, const float* const*, int64_t, Vector*);
constexpr Add ADD[16] = {nullptr, add<1>, add<2>,  add<3>,  add<4>,  add<5>,  add<6>,  add<7>,
                         add<8>,  add<9>, add<10>, add<11>, add<12>, add<13>, add<14>, add<15>};

template <typename T>
Wrong run(const Call& c) {
  const Header& h = header(c.packed);
  const int64_t inputs = h.in_channels / h.groups, filters = h.out_channels / h.groups;
  const Part* parts = at<Part>(c.packed, h.parts);
  const int64_t pixels = c.batch * c.out_height * c.out_width;
  const int64_t positions = h.kernel[0] * h.kernel[1];
  const float* x;
  if (sizeof(T) == 4) {
    x = static_cast<const float*>(c.x);
  } else {
    const int64_t size = c.batch * c.height * c.width * h.in_channels;
    float* made = input_as_floats.floats(size);
    if (!made) return NO_MEMORY;
    for (int64_t i = 0; i < size; i++) made[i] = to_float(static_cast<const T*>(c.x)[i]);
    x = made;
  }
  // For each position and pixel, what is read there; nullptr outside of the image.
  const float** where = static_cast<const float**>(where_to_read.bytes(positions * pixels * 8));
  if (!where) return NO_MEMORY;
  for (int64_t q = 0; q < positions; q++)
    for (int64_t p = 0; p < pixels; p++) {
      const int64_t image = p / (c.out_height * c.out_width), here = p % (c.out_height * c.out_width);
      const int64_t y = here / c.out_width * h.stride[0] + q / h.kernel[1] * h.dilation[0] - c.top;
      const int64_t z = here % c.out_width * h.stride[1] + q % h.kernel[1] * h.dilation[1] - c.left;
      const bool there = y >= 0 && y < c.height && z >= 0 && z < c.width;
      where[q * pixels + p] =
          there ? x + ((image * c.height + y) * c.width + z) * h.in_channels : nullptr;
    }
  const T* residual = static_cast<const T*>(c.residual);
  T* out = static_cast<T*>(c.out);
  const float* bias = at<float>(c.packed, h.bias);

  return split(h.out_channels, c.threads, [&](int64_t first, int64_t last) {
    for (int64_t p0 = 0; p0 < pixels; p0 += PIXELS)
      for (int64_t n = first; n < last; n++) {
        const int64_t g = n / filters;
        const int many = int(std::min<int64_t>(PIXELS, pixels - p0));
        const Filter& filter = at<Filter>(c.packed, parts[g].first)[n % filters];
        const int32_t* at_position = at<int32_t>(c.packed, filter.positions);
        const float* w = at<float>(c.packed, filter.weights);
        Vector sums[PIXELS] = {};
        for (int64_t s = 0; s < filter.stripes; s++, w += inputs) {
          const float* read[PIXELS];
          int mask = 0;
          for (int p = 0; p < many; p++) {
            read[p] = where[at_position[s] * pixels + p0 + p];
            if (read[p]) mask |= 1 << p, read[p] += g * inputs;
          }
          if (mask) ADD[mask](w, read, inputs, sums);
        }
        for (int p = 0; p < many; p++) {
          const int64_t o = (p0 + p) * h.out_channels + n;
          float v = bias[n] + sum(sums[p]);
          if (residual) v += to_float(residual[o]);
          if (c.relu) v = v < 0 ? 0 : v;
          put(out + o, v);
        }
      }
    return true;
  });
}

}  // namespace

Wrong run_dots(const Call& call, bool half) { return half ? run<BFloat16>(call) : run<float>(call); }

}  // namespace tonsor
