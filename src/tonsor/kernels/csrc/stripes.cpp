// Stripes: each filter has its own places of the kernel, and no two need to agree.
//
// Vectors go along pixels, so that a filter needs no neighbour. At each place of the kernel, some
// of the filters that have it are multiplied with some vectors of pixels, over the inputs. What
// they sum to waits in a tile, filter by filter, until all places are done.
#include <algorithm>

#include "grid.h"
#include "packed.h"
#include "run.h"
#include "scratch.h"
#include "simd.h"

namespace tonsor {
namespace {

constexpr int MOST_VECTORS = 3;  // of pixels in a tile
constexpr int TILE = MOST_VECTORS * LANES;
constexpr int64_t SOON = 1024;  // floats; how far ahead weights are asked for


// How many filters are held in registers beside so many vectors of pixels.
constexpr int most_filters(int vectors) {
  return REGISTERS == 32 ? TEAM : vectors < 3 ? 6 : 4;
}

thread_local Scratch planes_of_input, tile_of_sums, cells_of_slab;

struct Sums {
  const float* weights;  // [input][filter]
  int64_t filters;       // floats from one input to the next
  const float* x;
  int64_t step;  // floats from one input to the next
  int64_t inputs;
  float* tile;
  const int32_t* which;
};

template <int F, int V>
__attribute__((noinline)) void add(const Sums& given) {
  Vector a[F][V];
#pragma GCC unroll 16
  for (int f = 0; f < F; f++)
#pragma GCC unroll 3
    for (int v = 0; v < V; v++) a[f][v] = load(given.tile + given.which[f] * TILE + v * LANES);
  const float *w = given.weights, *x = given.x;
  const int64_t filters = given.filters, step = given.step;
  int64_t i = given.inputs;
  if constexpr (V == 1) {
    // Too few sums to wait for each other: every other input has sums of its own.
    Vector others[F] = {};
    for (; i > 1; i -= 2, w += 2 * filters, x += 2 * step) {
      __builtin_prefetch(w + SOON, 0, 3);  // weights are read once, and all in a row
      Vector b = load(x), next = load(x + step);
#pragma GCC unroll 16
      for (int f = 0; f < F; f++) {
        a[f][0] += all(w[f]) * b;
        others[f] += all(w[filters + f]) * next;
      }
    }
#pragma GCC unroll 16
    for (int f = 0; f < F; f++) a[f][0] += others[f];
  }
  for (; i > 0; i--, w += filters, x += step) {
    Vector b[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; v++) b[v] = load(x + v * LANES);
#pragma GCC unroll 16
    for (int f = 0; f < F; f++) {
      Vector s = all(w[f]);
#pragma GCC unroll 3
      for (int v = 0; v < V; v++) a[f][v] += s * b[v];
    }
  }
#pragma GCC unroll 16
  for (int f = 0; f < F; f++)
#pragma GCC unroll 3
    for (int v = 0; v < V; v++) store(given.tile + given.which[f] * TILE + v * LANES, a[f][v]);
}

typedef void (*Add)(const Sums&);

template <int V>
Add add_of(int64_t filters) {
  constexpr int m = most_filters(V);
#define AT_MOST(f) add<(f < m ? f : m), V>
  static const Add table[TEAM + 1] = {nullptr,    AT_MOST(1), AT_MOST(2), AT_MOST(3), AT_MOST(4),
                                      AT_MOST(5), AT_MOST(6), AT_MOST(7), AT_MOST(8)};
#undef AT_MOST
  return table[filters];
}

Add add_of(int vectors, int64_t filters) {
  switch (vectors) {
    case 1: return add_of<1>(filters);
    case 2: return add_of<2>(filters);
    default: return add_of<3>(filters);
  }
}

// ---------------------------------------------------------------- how the input is laid out

void say_used(const Call& c, const Header& h, bool* rows, bool* columns) {
  const Part* parts = at<Part>(c.packed, h.parts);
  for (int64_t g = 0; g < h.groups; g++) {
    const Segment* segments = at<Segment>(c.packed, parts[g].first);
    for (int64_t s = 0; s < parts[g].count; s++) {
      rows[segments[s].position / h.kernel[1]] = true;
      columns[segments[s].position % h.kernel[1]] = true;
    }
  }
}

// How many vectors the next tile has, of so many that are left.
inline int next_tile(int64_t left) { return left == 4 ? 2 : int(std::min<int64_t>(MOST_VECTORS, left)); }

// What it takes to multiply so many vectors by a number, about: the fewer at a time, the more.
double cycles(int64_t vectors) {
  constexpr double of_tile[MOST_VECTORS + 1] = {0, .8, 1.15, 1.6};
  const int64_t rest = vectors % 3 == 1 && vectors > 1 ? 4 : vectors % 3;
  double total = (vectors - rest) / 3 * of_tile[3];
  for (int64_t left = rest; left > 0; left -= next_tile(left)) total += of_tile[next_tile(left)];
  return total;
}

Grid grid_of(const Call& c, const Header& h) {
  bool used_rows[MOST_KERNEL] = {false}, used_columns[MOST_KERNEL] = {false};
  say_used(c, h, used_rows, used_columns);
  const int64_t inputs = h.in_channels / h.groups, filters = h.out_channels / h.groups;
  int64_t stripes = 0;
  const Part* parts = at<Part>(c.packed, h.parts);
  for (int64_t g = 0; g < h.groups; g++) stripes = std::max(stripes, parts[g].stripes);

  const int64_t near = near_bytes();
  Grid best;
  double least = -1;
  for (int apart = 0; apart < 4; apart++) {
    Grid grid;
    grid.rows = line_of(apart & 1, h.kernel[0], h.stride[0], h.dilation[0], c.top, c.height,
                        c.out_height, used_rows);
    grid.columns = line_of(apart & 2, h.kernel[1], h.stride[1], h.dilation[1], c.left, c.width,
                           c.out_width, used_columns);
    const int64_t wide = grid.columns.size;
    const int64_t all_rows = grid.rows.apart ? c.batch * c.out_height : c.out_height;
    const int64_t planes = std::max<int64_t>(1, grid.rows.planes * grid.columns.planes);
    for (int64_t target = 1; target <= 12; target += target < 4 ? 1 : 2) {
      grid.slab = std::min(all_rows, std::max<int64_t>(1, target * TILE / wide));
      const int64_t many = (all_rows + grid.slab - 1) / grid.slab;
      grid.slab = (all_rows + many - 1) / many;
      grid.slabs = (all_rows + grid.slab - 1) / grid.slab;
      grid.cells = (grid.slab * wide + LANES - 1) / LANES * LANES;
      const int64_t margin = grid.rows.most * wide + grid.columns.most;
      grid.plane = (grid.cells + margin + LANES - 1) / LANES * LANES;
      // An odd number of lines, so that inputs don't all meet in one place of a cache.
      if (grid.plane / LANES % 2 == 0) grid.plane += LANES;
      grid.step = grid.plane;
      grid.plane *= inputs;
      if (planes * grid.plane * 4 > near && (target > 1 || least >= 0) && grid.slab > 1) continue;
      const int64_t pieces = grid.slabs * h.groups * (grid.rows.apart ? 1 : c.batch);
      grid.shares = pieces >= c.threads ? 1 : (c.threads + pieces - 1) / pieces;
      const int64_t rounds = (pieces * grid.shares + c.threads - 1) / c.threads;
      // In processor cycles, about: to lay out, to multiply, and to write.
      const double laid = .45 * planes * (grid.step) * inputs;
      const double multiplied = stripes * inputs * cycles(grid.cells / LANES) / grid.shares;
      const double written = .4 * grid.cells * filters / grid.shares;
      const double cost = (laid + multiplied + written + 300) * rounds;
      if (least < 0 || cost < least) least = cost, best = grid;
    }
  }
  return best;
}

// Where each cell of a plane is read from; what is outside of the image, from zeros.
template <typename T>
void say_where(const Call& c, const Header& h, const Grid& grid, const T* x, int64_t row,
               int64_t row_start, int64_t column_start, const T* zeros, const T** where) {
  const int64_t wide = grid.columns.size;
  const int64_t end = grid.step;
  for (int64_t r = 0, cell = 0; cell < end; r++) {
    int64_t image = 0, y = row + r;
    bool there = true;
    if (grid.rows.apart) {
      image = y / c.out_height, y %= c.out_height;
      there = image < c.batch;
    }
    y = y * h.stride[0] + row_start;
    there = there && y >= 0 && y < c.height;
    const int64_t stop = std::min(end, cell + wide);
    if (!there) {
      std::fill(where + cell, where + stop, zeros);
      cell = stop;
      continue;
    }
    const T* line = x + (image * c.height + y) * c.width * h.in_channels;
    for (int64_t at = column_start; cell < stop; cell++, at += h.stride[1])
      where[cell] = at >= 0 && at < c.width ? line + at * h.in_channels : zeros;
  }
}

template <typename T>
void lay_out(const Grid& grid, int64_t inputs, const T* const* where, float* plane) {
  const int64_t squares = inputs < BLOCK ? 0 : inputs;
  int64_t cell = 0;
  for (; cell + BLOCK <= grid.step; cell += BLOCK) {
    // The last square may overlap the one before; it writes the same again.
    for (int64_t i = 0; i < squares; i += BLOCK) {
      const int64_t first = std::min(i, inputs - BLOCK);
      Row turned[BLOCK];
      turn(where + cell, first, turned);
      for (int e = 0; e < BLOCK; e++) store_row(plane + (first + e) * grid.step + cell, turned[e]);
    }
    for (int64_t i = squares; i < inputs; i++)
      for (int k = 0; k < BLOCK; k++) plane[i * grid.step + cell + k] = to_float(where[cell + k][i]);
  }
  for (; cell < grid.step; cell++)
    for (int64_t i = 0; i < inputs; i++) plane[i * grid.step + cell] = to_float(where[cell][i]);
}

// ---------------------------------------------------------------- what is written

// Turns the sums of some filters and pixels and writes them; `out_at` has the place of each pixel,
// or -1 where a cell is in the margin.
template <typename T>
void finish(const Call& c, const float* tile, int64_t pixels, int64_t filters, int64_t filter,
            const int64_t* out_at) {
  const T* residual = static_cast<const T*>(c.residual);
  T* out = static_cast<T*>(c.out);
  const int64_t squares = filters < BLOCK ? 0 : filters;
  for (int64_t p = 0; p < pixels; p += BLOCK) {
    const int many = int(std::min<int64_t>(BLOCK, pixels - p));
    for (int64_t i = 0; i < squares; i += BLOCK) {
      const int64_t n = std::min(i, filters - BLOCK);  // may overlap; it writes the same again
      const float* in[BLOCK];
      for (int e = 0; e < BLOCK; e++) in[e] = tile + (n + e) * TILE + p;
      Row turned[BLOCK];
      turn(in, 0, turned);
      for (int k = 0; k < many; k++) {
        if (out_at[p + k] < 0) continue;
        const int64_t o = out_at[p + k] + filter + n;
        Row v = turned[k];
        if (residual) v += read_row(residual + o);
        if (c.relu) v = at_least_zero(v);
        write_row(out + o, v);
      }
    }
    for (int64_t n = squares; n < filters; n++)
      for (int k = 0; k < many; k++) {
        if (out_at[p + k] < 0) continue;
        const int64_t o = out_at[p + k] + filter + n;
        float v = tile[n * TILE + p + k];
        if (residual) v += to_float(residual[o]);
        if (c.relu) v = v < 0 ? 0 : v;
        put(out + o, v);
      }
  }
}

// ---------------------------------------------------------------- all together

template <typename T>
Wrong run(const Call& c) {
  const Header& h = header(c.packed);
  const Grid grid = grid_of(c, h);
  const Part* parts = at<Part>(c.packed, h.parts);
  const int64_t inputs = h.in_channels / h.groups, filters = h.out_channels / h.groups;
  const int64_t wide = grid.columns.size, columns = grid.columns.planes;
  const int64_t planes = grid.rows.planes * columns;
  const int64_t images = grid.rows.apart ? 1 : c.batch;
  const int64_t pieces = images * grid.slabs * h.groups;

  // The rows that the next piece reads and this one doesn't.
  const int64_t row_bytes = c.width * h.in_channels * int64_t(sizeof(T));
  const int64_t most_vectors = (grid.cells / LANES + MOST_VECTORS - 1) / MOST_VECTORS;
  const auto next_rows = [&](int64_t item) {
    const int64_t slab = item / grid.shares / h.groups, next = (item + 1) / grid.shares / h.groups;
    if (next == slab || next >= images * grid.slabs) return Ahead<>(nullptr, nullptr, 1);
    const int64_t row = next % grid.slabs * grid.slab;
    int64_t image = next / grid.slabs, begin, end;
    const int64_t span = (h.kernel[0] - 1) * h.dilation[0] + 1;
    if (grid.rows.apart) {
      image = row / c.out_height;
      begin = row % c.out_height * h.stride[0] - c.top;
      end = begin + (grid.slab / c.out_height + 1) * c.height;
      begin = std::max<int64_t>(0, begin);
      end = std::min(end, (c.batch - image) * c.height);
    } else {
      end = std::min(c.height, (row + grid.slab - 1) * h.stride[0] + span - c.top);
      begin = next % grid.slabs ? std::max<int64_t>(0, (row - 1) * h.stride[0] + span - c.top) : 0;
    }
    const char* at = static_cast<const char*>(c.x) + image * c.height * row_bytes;
    return Ahead<>(at + std::min(begin, end) * row_bytes, at + std::max(begin, end) * row_bytes,
                 most_vectors * parts[0].count);
  };

  // What is written when the tile is done: whole pixels, one after the other.
  const auto next_pixels = [&](const int64_t* out_at, int64_t cells, int64_t steps) {
    int64_t first = 0, last = cells - 1;
    while (first < cells && out_at[first] < 0) first++;
    while (last >= first && out_at[last] < 0) last--;
    if (first > last) return Ahead<true>(nullptr, nullptr, 1);
    const char* out = static_cast<const char*>(c.out);
    return Ahead<true>(out + out_at[first] * int64_t(sizeof(T)),
                       out + (out_at[last] + h.out_channels) * int64_t(sizeof(T)), steps);
  };

  return split(pieces * grid.shares, c.threads, [&](int64_t first, int64_t last) {
    float* laid = planes_of_input.floats(planes * grid.plane + 2 * TILE);
    float* tile = tile_of_sums.floats((filters + BLOCK) * TILE);
    char* more = static_cast<char*>(cells_of_slab.bytes(
        grid.cells * 8 + grid.step * 8 + (inputs + BLOCK) * sizeof(T) + 64));
    if (!laid || !tile || !more) return false;
    int64_t* out_at = reinterpret_cast<int64_t*>(more);
    const T** where = reinterpret_cast<const T**>(out_at + grid.cells);
    T* zeros = reinterpret_cast<T*>(where + grid.step);
    memset(static_cast<void*>(zeros), 0, (inputs + BLOCK) * sizeof(T));

    int64_t held = -1;
    for (int64_t item = first; item < last; item++) {
      const int64_t share = item % grid.shares, piece = item / grid.shares;
      const int64_t g = piece % h.groups, slab = piece / h.groups;
      const int64_t image = slab / grid.slabs, row = slab % grid.slabs * grid.slab;
      const int64_t all_rows = grid.rows.apart ? c.batch * c.out_height : c.out_height;
      const int64_t rows = std::min(grid.slab, all_rows - row);
      const int64_t low = filters * share / grid.shares, high = filters * (share + 1) / grid.shares;

      if (held != piece) {
        held = piece;
        const T* x = static_cast<const T*>(c.x) + image * c.height * c.width * h.in_channels + g * inputs;
        for (int64_t i = 0; i < grid.rows.planes; i++)
          for (int64_t j = 0; j < columns; j++) {
            say_where(c, h, grid, x, row, grid.rows.start[i], grid.columns.start[j], zeros, where);
            lay_out(grid, inputs, where, laid + (i * columns + j) * grid.plane);
          }
        for (int64_t r = 0, cell = 0; cell < grid.cells; r++)
          for (int64_t q = 0; q < wide && cell < grid.cells; q++, cell++)
            out_at[cell] = r < rows && q < c.out_width
                               ? (((image * c.out_height + row + r) * c.out_width) + q) * h.out_channels
                               : -1;
      }

      Ahead<> ahead = next_rows(item);
      const Segment* segments = at<Segment>(c.packed, parts[g].first);
      const float* bias = at<float>(c.packed, h.bias) + g * filters;
      const int64_t vectors = (rows * wide + LANES - 1) / LANES;
      for (int64_t v = 0; v < vectors;) {
        const int64_t left = vectors - v;
        const int many = next_tile(left);
        Ahead<true> written = next_pixels(out_at + v * LANES, many * LANES, parts[g].count);
        for (int64_t n = low; n < high; n++)
          for (int q = 0; q < many; q++) store(tile + n * TILE + q * LANES, all(bias[n]));
        for (int64_t s = 0; s < parts[g].count; s++) {
          const Segment& segment = segments[s];
          const int64_t i = segment.position / h.kernel[1], j = segment.position % h.kernel[1];
          const float* x = laid + (grid.rows.plane[i] * columns + grid.columns.plane[j]) * grid.plane +
                           segment.input * grid.step + grid.rows.shift[i] * wide +
                           grid.columns.shift[j] + v * LANES;
          const int32_t* which = at<int32_t>(c.packed, segment.which);
          int64_t begin = 0, end = segment.filters;
          if (grid.shares > 1) {
            begin = std::lower_bound(which, which + end, int32_t(low)) - which;
            end = std::lower_bound(which, which + end, int32_t(high)) - which;
          }
          const float* weights = at<float>(c.packed, segment.weights);
          const int most = most_filters(many);
          for (int64_t t = 0; t < teams_of(segment.filters); t++) {
            const int64_t from = team_starts(segment.filters, t), to = team_starts(segment.filters, t + 1);
            int64_t f = std::max(begin, from);
            const int64_t stop = std::min(end, to);
            for (int64_t calls = (stop - f + most - 1) / most; f < stop; calls--) {
              const int64_t some = (stop - f + calls - 1) / calls;
              add_of(many, some)({weights + from * segment.inputs + f - from, to - from, x, grid.step,
                                  segment.inputs, tile, which + f});
              f += some;
            }
            ahead.step();
            written.step();
          }
        }
        finish<T>(c, tile + low * TILE, many * LANES, high - low, g * filters + low, out_at + v * LANES);
        v += many;
      }
    }
    return true;
  });
}

}  // namespace

Wrong run_stripes(const Call& call, bool half) { return half ? run<BFloat16>(call) : run<float>(call); }

}  // namespace tonsor
