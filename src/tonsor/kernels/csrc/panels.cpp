// Panels: filters that read the same taps, side by side in vectors. For columns, for groups of
// filters that share their stripes, and for whole convolutions.
//
// A tap is one input at one place of the kernel. Each of some pixels is read at the tap, and the
// number is multiplied with the weights of many filters there. Since single numbers are read, it
// costs nothing that taps lie anywhere; no matrix is put together.
#include <algorithm>

#include "packed.h"
#include "run.h"
#include "scratch.h"
#include "simd.h"

namespace tonsor {
namespace {

constexpr int PARTS = PANEL / LANES;  // vectors of a panel
constexpr int MOST_PANELS = LANES == 16 ? 4 : 1;
constexpr int TAPS = 128;    // at a time, so that their weights stay near the processor
constexpr int PIXELS = 256;  // at a time, or a few more

// How many pixels are held in registers beside so many panels.
constexpr int most_pixels(int panels) {
  int vectors = panels * PARTS;
  int free = (REGISTERS - vectors - 1) / vectors;
  return free < 1 ? 1 : free > 8 ? 8 : free;
}

thread_local Scratch rows_of_input, sums, offsets_of_taps;

// What some taps add to some pixels and panels: `sums[pixel][panel]`, from the bias on if `bias`.
struct Product {
  const float* weights;  // of the first panel
  int64_t panel;         // floats from one panel to the next
  const float* const* pixels;
  const int32_t* offsets;
  int64_t taps;
  const float* bias;
  float* sums;
  int64_t step;  // floats from one pixel's sums to the next
  // If this completes the sums of floats: where they go, with what is added first.
  float* out;
  const float* residual;
  int64_t pixel, filters;  // floats from one pixel to the next; filters of these panels
  bool relu;
};

// Writes the sums of one pixel.
template <int V>
inline void complete(const Product& given, const Vector* sums, int64_t m) {
  const int64_t at = m * given.pixel;
#pragma GCC unroll 8
  for (int v = 0; v < V; v++) {
    const int64_t left = given.filters - v * LANES, n = at + v * LANES;
    Vector a = sums[v];
    if (left >= LANES) {
      if (given.residual) a += load(given.residual + n);
      store(given.out + n, given.relu ? at_least_zero(a) : a);
    } else if (left > 0) {
      if (given.residual) a += load_some(given.residual + n, left);
      store_some(given.out + n, given.relu ? at_least_zero(a) : a, left);
    }
  }
}

template <int M, int P>
__attribute__((noinline)) void multiply(const Product& given) {
  constexpr int V = P * PARTS;
  Vector a[M][V];
  const float* x[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; m++) {
    x[m] = given.pixels[m];
#pragma GCC unroll 8
    for (int v = 0; v < V; v++)
      a[m][v] = given.bias ? load(given.bias + v * LANES) : load(given.sums + m * given.step + v * LANES);
  }
  const float* w = given.weights;
  const int64_t panel = given.panel;
  const int32_t *tap = given.offsets, *end = tap + given.taps;
  for (; tap < end; tap++, w += PANEL) {
    int64_t at = *tap;
    Vector b[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) b[v] = load(w + (v / PARTS) * panel + (v % PARTS) * LANES);
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
      Vector s = all(x[m][at]);
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) a[m][v] += s * b[v];
    }
  }
  if (given.out) {
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) complete<V>(given, a[m], m);
    return;
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) store(given.sums + m * given.step + v * LANES, a[m][v]);
}

typedef void (*Multiply)(const Product&);

template <int P>
Multiply multiply_of(int pixels) {
  constexpr int most = most_pixels(P);
  static const Multiply table[9] = {
      nullptr,           multiply<1, P>,    multiply<std::min(2, most), P>,
      multiply<std::min(3, most), P>, multiply<std::min(4, most), P>, multiply<std::min(5, most), P>,
      multiply<std::min(6, most), P>, multiply<std::min(7, most), P>, multiply<std::min(8, most), P>};
  return table[pixels];
}

Multiply multiply_of(int panels, int pixels) {
  switch (panels) {
    case 1: return multiply_of<1>(pixels);
    case 2: return multiply_of<std::min(2, MOST_PANELS)>(pixels);
    case 3: return multiply_of<std::min(3, MOST_PANELS)>(pixels);
    default: return multiply_of<std::min(4, MOST_PANELS)>(pixels);
  }
}

template <typename T>
void finish(const float* sums, int64_t filters, const T* residual, T* out, bool relu) {
  const int64_t vectors = filters < LANES ? 0 : filters;
  for (int64_t i = 0; i < vectors; i += LANES) {
    const int64_t n = std::min(i, filters - LANES);  // may overlap; it writes the same again
    Vector v = load(sums + n);
    if (residual) v += read(residual + n);
    if (relu) v = at_least_zero(v);
    write(out + n, v);
  }
  for (int64_t n = vectors; n < filters; n++) {
    float v = sums[n];
    if (residual) v += to_float(residual[n]);
    if (relu) v = v < 0 ? 0 : v;
    put(out + n, v);
  }
}

// How the output is cut into pieces: rows of an image, and filters of a group.
struct Slabs {
  int64_t rows, in_image;
};

Slabs slabs_of(const Call& c, const Header& h, int64_t inputs) {
  int64_t width = c.width + 2 * h.kernel[1] * h.dilation[1];
  int64_t rows = std::max<int64_t>(1, PIXELS / std::max<int64_t>(1, c.out_width));
  const int64_t near = near_bytes();
  while (rows > 1 && ((rows - 1) * h.stride[0] + (h.kernel[0] - 1) * h.dilation[0] + 1) * width * inputs * 4 > near)
    rows--;
  rows = std::min(rows, c.out_height);
  int64_t many = (c.out_height + rows - 1) / rows;
  // Few pieces are made as many as keeps all threads busy.
  while (c.batch * many < 4 * c.threads && c.batch * many % c.threads && many < c.out_height) many++;
  rows = (c.out_height + many - 1) / many;
  return {rows, (c.out_height + rows - 1) / rows};
}

template <typename T>
Wrong run(const Call& c) {
  const Header& h = header(c.packed);
  const int64_t inputs = h.in_channels / h.groups;
  const Part* parts = at<Part>(c.packed, h.parts);
  const Slabs slabs = slabs_of(c, h, inputs);
  const int64_t span_h = (h.kernel[0] - 1) * h.dilation[0] + 1;
  const int64_t span_w = (h.kernel[1] - 1) * h.dilation[1] + 1;
  // As wide as the last pixel reads, and no less than the input: what is read of it is all copied.
  const int64_t width = std::max((c.out_width - 1) * h.stride[1] + span_w, c.left + c.width);
  const bool framed = c.top == 0 && c.left == 0 && (c.out_height - 1) * h.stride[0] + span_h <= c.height &&
                      (c.out_width - 1) * h.stride[1] + span_w <= c.width;
  const bool in_place = framed && sizeof(T) == 4;
  const int64_t line = in_place ? c.width * h.in_channels : width * inputs;  // floats of a row
  const int64_t pixel = in_place ? h.in_channels : inputs;
  // How far taps are from a pixel is said in 32 bits.
  if ((span_h - 1) * line + (span_w - 1) * pixel + inputs > INT32_MAX) return TOO_LARGE;

  const int64_t row_bytes = c.width * h.in_channels * int64_t(sizeof(T));
  const int64_t pieces = c.batch * slabs.in_image * h.groups;
  // With few pieces, threads share one and do some of its panels each.
  int64_t shares = 1;
  if (pieces < c.threads) shares = (c.threads + pieces - 1) / pieces;

  // The rows that the next piece reads and this one doesn't.
  const auto next_rows = [&](int64_t item) {
    const int64_t slab = item / shares / h.groups, next = (item + 1) / shares / h.groups;
    const int64_t images = c.batch * slabs.in_image;
    if (next == slab || next >= images) return Ahead<>(nullptr, nullptr, 1);
    const int64_t y = next % slabs.in_image * slabs.rows * h.stride[0] - c.top;
    const int64_t end = std::min(c.height, y + (slabs.rows - 1) * h.stride[0] + span_h);
    const int64_t begin = next % slabs.in_image ? std::min(end, std::max<int64_t>(0, y + span_h - h.stride[0])) : 0;
    const char* image = static_cast<const char*>(c.x) + next / slabs.in_image * c.height * row_bytes;
    const int64_t tiles = slabs.rows * c.out_width / 6 + 1;
    return Ahead<>(image + begin * row_bytes, image + std::max(begin, end) * row_bytes, tiles);
  };

  return split(pieces * shares, c.threads, [&](int64_t first, int64_t last) {
    int64_t held = -1;
    for (int64_t item = first; item < last; item++) {
      const int64_t share = item % shares, piece = item / shares;
      const int64_t g = piece % h.groups, slab = piece / h.groups;
      const int64_t image = slab / slabs.in_image;
      const int64_t y0 = slab % slabs.in_image * slabs.rows;
      const int64_t y1 = std::min(c.out_height, y0 + slabs.rows);
      if (y0 >= y1) continue;
      const T* x = static_cast<const T*>(c.x) + image * c.height * c.width * h.in_channels + g * inputs;
      const float* input;
      if (in_place) {
        input = reinterpret_cast<const float*>(x) + y0 * h.stride[0] * line;
      } else {
        const int64_t many = (y1 - y0 - 1) * h.stride[0] + span_h;
        float* rows = rows_of_input.floats(many * line + LANES);
        if (!rows) return false;
        if (held != piece) {
          for (int64_t r = 0; r < many; r++) {
            const int64_t y = y0 * h.stride[0] + r - c.top;
            float* to = rows + r * line;
            if (y < 0 || y >= c.height) {
              memset(to, 0, line * 4);
              continue;
            }
            memset(to, 0, c.left * inputs * 4);
            const T* from = x + y * c.width * h.in_channels;
            float* inner = to + c.left * inputs;
            if (sizeof(T) == 4 && h.groups == 1) {
              memcpy(inner, from, c.width * inputs * 4);
            } else {
              for (int64_t q = 0; q < c.width; q++, from += h.in_channels)
                for (int64_t i = 0; i < inputs; i++) *inner++ = to_float(from[i]);
            }
            const int64_t filled = c.left + c.width;
            memset(to + filled * inputs, 0, (width - filled) * inputs * 4);
          }
          held = piece;
        }
        input = rows;
      }

      const Part& part = parts[g];
      const List* lists = at<List>(c.packed, part.first);
      const int64_t pixels = (y1 - y0) * c.out_width;
      const int64_t out_at = (image * c.out_height + y0) * c.out_width * h.out_channels;
      // Addresses of pixels, once for all panels.
      const float** where = static_cast<const float**>(
          sums.bytes(pixels * 8 + pixels * PANEL * MOST_PANELS * 4 + 64));
      if (!where) return false;
      float* held_sums = reinterpret_cast<float*>(where + (pixels + 7) / 8 * 8);
      for (int64_t q = 0, p = 0; q < y1 - y0; q++)
        for (int64_t col = 0; col < c.out_width; col++, p++)
          where[p] = input + q * h.stride[0] * line + col * h.stride[1] * pixel;

      Ahead<> ahead = next_rows(item);
      for (int64_t l = 0; l < part.count; l++) {
        const List& list = lists[l];
        const int64_t panels = (list.filters + PANEL - 1) / PANEL;
        const int64_t begin = panels * share / shares, end = panels * (share + 1) / shares;
        if (begin == end) continue;
        const int32_t* taps = at<int32_t>(c.packed, list.rows);
        int32_t* offsets = static_cast<int32_t*>(offsets_of_taps.bytes((list.taps + 1) * 4));
        if (!offsets) return false;
        for (int64_t t = 0; t < list.taps; t++)
          offsets[t] = int32_t(taps[3 * t + 1] * h.dilation[0] * line +
                               taps[3 * t + 2] * h.dilation[1] * pixel + taps[3 * t]);
        const float* weights = at<float>(c.packed, list.weights);
        for (int64_t p0 = begin; p0 < end;) {
          const int many = int(std::min<int64_t>(MOST_PANELS, end - p0));
          const int most = most_pixels(many);
          const int64_t filter = list.filter + p0 * PANEL;
          const int64_t filters = std::min<int64_t>(many * PANEL, list.filters - p0 * PANEL);
          // The bias is as long as whole panels need it.
          float bias[PANEL * MOST_PANELS] = {0};
          memcpy(bias, at<float>(c.packed, h.bias) + filter, filters * 4);
          const int64_t step = many * PANEL;
          for (int64_t t0 = 0; t0 == 0 || t0 < list.taps; t0 += TAPS) {
            const int64_t some = std::min<int64_t>(TAPS, list.taps - t0);
            const bool done = t0 + TAPS >= list.taps;
            for (int64_t p = 0; p < pixels;) {
              const int m = int(std::min<int64_t>(most, pixels - p));
              float* to = held_sums + p * step;
              Product product{weights + p0 * list.taps * PANEL + t0 * PANEL, list.taps * PANEL,
                              where + p, offsets + t0, some, t0 ? nullptr : bias, to, step,
                              nullptr, nullptr, h.out_channels, filters, c.relu};
              if (done && sizeof(T) == 4) {
                const int64_t o = out_at + p * h.out_channels + filter;
                product.out = static_cast<float*>(c.out) + o;
                if (c.residual) product.residual = static_cast<const float*>(c.residual) + o;
              }
              multiply_of(many, m)(product);
              if (done && sizeof(T) != 4)
                for (int q = 0; q < m; q++) {
                  const int64_t o = out_at + (p + q) * h.out_channels + filter;
                  finish(to + q * step, filters,
                         c.residual ? static_cast<const T*>(c.residual) + o : nullptr,
                         static_cast<T*>(c.out) + o, c.relu);
                }
              p += m;
              ahead.step();
            }
          }
          p0 += many;
        }
      }
    }
    return true;
  });
}

}  // namespace

Wrong run_panels(const Call& call, bool half) { return half ? run<BFloat16>(call) : run<float>(call); }

}  // namespace tonsor
