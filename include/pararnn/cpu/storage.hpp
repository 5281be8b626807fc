// Conversions between the numbers of a caller's tensor and those of the arithmetic, a run of
// neighbouring channels at a time. Rounding is to nearest, ties to even.
#pragma once

#include "pararnn/cpu/problem.hpp"
#include "pararnn/cpu/simd.hpp"

namespace pararnn::cpu {
inline namespace PARARNN_INSTRUCTION_SET {

PARARNN_FN float float_of_bits(std::uint32_t bits) { return __builtin_bit_cast(float, bits); }
PARARNN_FN std::uint32_t bits_of_float(float x) { return __builtin_bit_cast(std::uint32_t, x); }

PARARNN_FN float from_bfloat16(std::uint16_t x) { return float_of_bits(std::uint32_t(x) << 16); }

PARARNN_FN std::uint16_t to_bfloat16(float x) {
  const std::uint32_t bits = bits_of_float(x);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return x == x ? std::uint16_t(rounded) : std::uint16_t((bits >> 16) | 0x40u);
}

PARARNN_FN float from_float16(std::uint16_t x) {
  // The half's exponent and fraction at the float's place, then a multiplication that mends the
  // bias and normalises subnormal halves.
  const float magnitude = float_of_bits(std::uint32_t(x & 0x7fffu) << 13) * 0x1p112f;
  const std::uint32_t special = magnitude >= 65536.0f ? 0x7f800000u : 0u;  // infinity and NaN
  return float_of_bits(bits_of_float(magnitude) | special | std::uint32_t(x & 0x8000u) << 16);
}

PARARNN_FN std::uint16_t to_float16(float x) {
  const std::uint32_t bits = bits_of_float(x), sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  // Below the smallest normal half, adding a number whose last bit is the half's last bit rounds.
  const std::uint32_t subnormal =
      bits_of_float(float_of_bits(magnitude) + float_of_bits(0x3f000000u)) - 0x3f000000u;
  const std::uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  const std::uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const std::uint32_t bounded = magnitude >= 0x477ff000u ? 0x7c00u : finite;
  return std::uint16_t(sign | (magnitude > 0x7f800000u ? 0x7e00u : bounded));
}

/// to[i] = from[i], i < count, `from` in the given storage.
template <class T>
PARARNN_FN void load_run(const void* from, Storage storage, std::int64_t at, int count, T* to) {
  const auto convert = [&](const auto* source, auto f) PARARNN_LAMBDA {
    for (int i = 0; i < count; ++i) to[i] = f(source[at + i]);
  };
  const auto same = [](auto x) PARARNN_LAMBDA { return T(x); };
  switch (storage) {
    case Storage::kFloat16:
      return convert(static_cast<const std::uint16_t*>(from),
                     [](std::uint16_t x) PARARNN_LAMBDA { return T(from_float16(x)); });
    case Storage::kBFloat16:
      return convert(static_cast<const std::uint16_t*>(from),
                     [](std::uint16_t x) PARARNN_LAMBDA { return T(from_bfloat16(x)); });
    case Storage::kFloat32:
      return convert(static_cast<const float*>(from), same);
    case Storage::kFloat64:
      return convert(static_cast<const double*>(from), same);
  }
}

/// to[i] = from[i], i < count, `to` in the given storage.
template <class T>
PARARNN_FN void store_run(const T* from, int count, void* to, Storage storage, std::int64_t at) {
  const auto convert = [&](auto* target, auto f) PARARNN_LAMBDA {
    for (int i = 0; i < count; ++i) target[at + i] = f(from[i]);
  };
  switch (storage) {
    case Storage::kFloat16:
      return convert(static_cast<std::uint16_t*>(to),
                     [](T x) PARARNN_LAMBDA { return to_float16(float(x)); });
    case Storage::kBFloat16:
      return convert(static_cast<std::uint16_t*>(to),
                     [](T x) PARARNN_LAMBDA { return to_bfloat16(float(x)); });
    case Storage::kFloat32:
      return convert(static_cast<float*>(to), [](T x) PARARNN_LAMBDA { return float(x); });
    case Storage::kFloat64:
      return convert(static_cast<double*>(to), [](T x) PARARNN_LAMBDA { return double(x); });
  }
  __builtin_unreachable();
}

/// Copies a register's bytes past the caches; `to` is aligned to it. The instruction is spelled
/// out, as the header of the intrinsics takes longer to read than all of the engine's.
inline void stream_register(const void* from, void* to) {
  using Register = char __attribute__((vector_size(PARARNN_VECTOR_BYTES)));
  Register bytes;
  __builtin_memcpy(&bytes, from, sizeof bytes);
#if defined(__AVX__)
  asm("vmovntdq %1, %0" : "=m"(*static_cast<Register*>(to)) : "v"(bytes));
#elif defined(__x86_64__)
  asm("movntdq %1, %0" : "=m"(*static_cast<Register*>(to)) : "x"(bytes));
#else
  __builtin_memcpy(to, &bytes, sizeof bytes);
#endif
}

/// Streamed stores are seen by other threads only after this.
inline void finish_streaming() {
#if defined(__x86_64__)
  asm volatile("sfence" ::: "memory");
#endif
}

/// As store_run, past the caches where whole aligned registers are written. At most 64 numbers.
template <class T>
inline void stream_run(const T* from, int count, void* to, Storage storage, std::int64_t at) {
  const int size = storage == Storage::kFloat64 ? 8 : storage == Storage::kFloat32 ? 4 : 2;
  char* target = static_cast<char*>(to) + at * size;
  const int bytes = count * size;
  if (reinterpret_cast<std::uintptr_t>(target) % PARARNN_VECTOR_BYTES != 0 ||
      bytes % PARARNN_VECTOR_BYTES != 0) {
    return store_run(from, count, to, storage, at);
  }
  alignas(PARARNN_VECTOR_BYTES) char converted[64 * 8];
  store_run(from, count, converted, storage, 0);
  for (int i = 0; i < bytes; i += PARARNN_VECTOR_BYTES) stream_register(converted + i, target + i);
}

}  // namespace PARARNN_INSTRUCTION_SET
}  // namespace pararnn::cpu
