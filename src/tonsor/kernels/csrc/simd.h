// Vectors of floats, as wide as the machine that this is compiled for has them.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace tonsor {

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX2__)
constexpr int LANES = 8, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int LANES = 4, REGISTERS = 32;
#else
constexpr int LANES = 4, REGISTERS = 16;
#endif

constexpr int BLOCK = LANES >= 8 ? 8 : 4;  // squares of so many numbers are transposed at a time

typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef float Loose __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef float Row __attribute__((vector_size(BLOCK * 4)));
typedef float LooseRow __attribute__((vector_size(BLOCK * 4), aligned(4), may_alias));

inline Vector load(const float* at) { return *reinterpret_cast<const Loose*>(at); }
inline void store(float* at, Vector v) { *reinterpret_cast<Loose*>(at) = v; }
inline Row load_row(const float* at) { return *reinterpret_cast<const LooseRow*>(at); }
inline void store_row(float* at, Row v) { *reinterpret_cast<LooseRow*>(at) = v; }

// The first few numbers of a vector; what is behind them in memory is not touched. A sanitizer does
// not see what masks read and write, so it gets the plain way.
inline Vector load_some(const float* at, int64_t count) {
#if defined(__AVX512F__) && !defined(__SANITIZE_ADDRESS__)
  return reinterpret_cast<Vector>(_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), at));  // count is 16 at most
#else
  Vector v{};
  for (int64_t i = 0; i < count; i++) v[i] = at[i];
  return v;
#endif
}
inline void store_some(float* at, Vector v, int64_t count) {
#if defined(__AVX512F__) && !defined(__SANITIZE_ADDRESS__)
  _mm512_mask_storeu_ps(at, __mmask16((1u << count) - 1), reinterpret_cast<__m512>(v));
#else
  for (int64_t i = 0; i < count; i++) at[i] = v[i];
#endif
}

// One number in all lanes. A compiler's own way to do this is two instructions where one would do.
inline Vector all(float value) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vector>(_mm512_set1_ps(value));
#elif defined(__AVX2__)
  return reinterpret_cast<Vector>(_mm256_set1_ps(value));
#else
  return value - Vector{};
#endif
}

template <typename V>
inline V at_least_zero(V v) {
  // Not-a-numbers stay what they are, as they do in torch.
  return v < V{} ? V{} : v;
}

inline float sum(Vector v) {
  float total = 0;
  for (int i = 0; i < LANES; i++) total += v[i];
  return total;
}

// ---------------------------------------------------------------- numbers as they lie in memory

struct BFloat16 {
  uint16_t bits;
};

inline float to_float(float v) { return v; }
inline float to_float(BFloat16 v) {
  uint32_t bits = uint32_t(v.bits) << 16;
  float out;
  memcpy(&out, &bits, 4);
  return out;
}

inline void put(float* at, float v) { *at = v; }
inline void put(BFloat16* at, float v) {  // to the nearest, and of two that are as near, the even
  uint32_t bits;
  memcpy(&bits, &v, 4);
  if (v != v) {
    at->bits = uint16_t((bits >> 16) | 0x40);
    return;
  }
  at->bits = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline Row read_row(const float* at) { return load_row(at); }
inline Row read_row(const BFloat16* at) {
  Row out;
  for (int i = 0; i < BLOCK; i++) out[i] = to_float(at[i]);
  return out;
}
inline void write_row(float* at, Row v) { store_row(at, v); }
inline void write_row(BFloat16* at, Row v) {
  for (int i = 0; i < BLOCK; i++) put(at + i, v[i]);
}

inline Vector read(const float* at) { return load(at); }
inline Vector read(const BFloat16* at) {
  Vector out;
  for (int i = 0; i < LANES; i++) out[i] = to_float(at[i]);
  return out;
}
inline void write(float* at, Vector v) { store(at, v); }
inline void write(BFloat16* at, Vector v) {
  for (int i = 0; i < LANES; i++) put(at + i, v[i]);
}

// ---------------------------------------------------------------- squares, turned

// Reads a square whose rows start at `in[k] + at`; `out[e]` is its column `e`.
#if defined(__AVX__)
inline void turn(const float* const* in, int64_t at, Row* out) {
  __m256 r[8], t[8];
  for (int k = 0; k < 4; k++) {
    // Halves are put together as they are read, which spares the one unit that permutes.
    const float *low = in[k] + at, *high = in[k + 4] + at;
    r[k] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
    r[k + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low + 4)),
                                    _mm_loadu_ps(high + 4), 1);
  }
  for (int half = 0; half < 8; half += 4) {
    __m256* s = r + half;
    t[0] = _mm256_unpacklo_ps(s[0], s[1]), t[1] = _mm256_unpackhi_ps(s[0], s[1]);
    t[2] = _mm256_unpacklo_ps(s[2], s[3]), t[3] = _mm256_unpackhi_ps(s[2], s[3]);
    out[half] = reinterpret_cast<Row>(_mm256_shuffle_ps(t[0], t[2], 0x44));
    out[half + 1] = reinterpret_cast<Row>(_mm256_shuffle_ps(t[0], t[2], 0xEE));
    out[half + 2] = reinterpret_cast<Row>(_mm256_shuffle_ps(t[1], t[3], 0x44));
    out[half + 3] = reinterpret_cast<Row>(_mm256_shuffle_ps(t[1], t[3], 0xEE));
  }
}
#else
inline void turn(const float* const* in, int64_t at, Row* out) {
  for (int e = 0; e < BLOCK; e++)
    for (int k = 0; k < BLOCK; k++) out[e][k] = in[k][at + e];
}
#endif
inline void turn(const BFloat16* const* in, int64_t at, Row* out) {
  for (int k = 0; k < BLOCK; k++)
    for (int e = 0; e < BLOCK; e++) out[e][k] = to_float(in[k][at + e]);
}

}  // namespace tonsor
