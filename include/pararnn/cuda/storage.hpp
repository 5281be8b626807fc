// How numbers lie in a caller's tensor, and their conversion to the arithmetic's type: float for
// half, bfloat16 and float tensors, double for double. V neighbouring channels move as one access.
#pragma once

#include "pararnn/core/vec.hpp"
#include "pararnn/cuda/primitives.hpp"

namespace pararnn::cuda {

struct Float16 {
  unsigned short bits;
};
struct BFloat16 {
  unsigned short bits;
};

template <class Storage>
struct ArithmeticOf {
  using type = Storage;
};
template <>
struct ArithmeticOf<Float16> {
  using type = float;
};
template <>
struct ArithmeticOf<BFloat16> {
  using type = float;
};
template <class Storage>
using Arithmetic = typename ArithmeticOf<Storage>::type;

PARARNN_FN float to_arithmetic(float x) { return x; }
PARARNN_FN double to_arithmetic(double x) { return x; }
PARARNN_FN float to_arithmetic(BFloat16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
PARARNN_FN float to_arithmetic(Float16 x) { return float_of_half(x.bits); }

template <class Storage>
struct Converted;  // from_arithmetic<Storage>(x), rounding to nearest even
template <>
struct Converted<float> {
  PARARNN_FN static float from(float x) { return x; }
};
template <>
struct Converted<double> {
  PARARNN_FN static double from(double x) { return x; }
};
template <>
struct Converted<Float16> {
  PARARNN_FN static Float16 from(float x) { return {half_of_float(x)}; }
};
template <>
struct Converted<BFloat16> {
  PARARNN_FN static BFloat16 from(float x) { return {bfloat16_of_float(x)}; }
};

/// V numbers as they lie in memory; aligned, so that they are one load or store.
template <class Storage, int V>
struct alignas(sizeof(Storage) * V) Pack {
  Storage values[V];

  PARARNN_FN Vec<Arithmetic<Storage>, V> unpack() const {
    Vec<Arithmetic<Storage>, V> result{};
    if constexpr (kSame<Storage, BFloat16> && V == 2) {
      // The compiler would take three instructions for each half, and one more in of().
      const auto word = __builtin_bit_cast(unsigned, *this);
      result[0] = __uint_as_float(word << 16);
      result[1] = __uint_as_float(word & 0xffff0000u);
    } else {
      static_for<V>([&](auto v) { result[v] = to_arithmetic(values[v]); });
    }
    return result;
  }
  PARARNN_FN static Pack of(const Vec<Arithmetic<Storage>, V>& x) {
    if constexpr (kSame<Storage, BFloat16> && V == 2) {
      return __builtin_bit_cast(Pack, bfloat16_pair(x[0], x[1]));
    } else {
      Pack result{};
      static_for<V>([&](auto v) { result.values[v] = Converted<Storage>::from(x[v]); });
      return result;
    }
  }
};

/// Number i of a pair, where only the thread knows which.
template <class Storage>
PARARNN_FN Arithmetic<Storage> either_of(const Pack<Storage, 2>& pair, int i) {
  if constexpr (kSame<Storage, BFloat16>) {
    return __uint_as_float(__byte_perm(__builtin_bit_cast(unsigned, pair), 0, i ? 0x3244 : 0x1044));
  } else {
    return to_arithmetic(i ? pair.values[1] : pair.values[0]);
  }
}

template <int Bytes>
struct WordOf;
template <>
struct WordOf<2> {
  using type = unsigned short;
};
template <>
struct WordOf<4> {
  using type = unsigned;
};
template <>
struct WordOf<8> {
  using type = uint2;
};
template <>
struct WordOf<16> {
  using type = uint4;
};

/// One access of the pack's size. Inputs are read through the read-only path.
template <class Storage, int V>
PARARNN_FN Pack<Storage, V> load_pack(const Storage* from) {
  using Word = typename WordOf<sizeof(Pack<Storage, V>)>::type;
  return __builtin_bit_cast(Pack<Storage, V>, __ldg(reinterpret_cast<const Word*>(from)));
}
template <class Storage, int V>
PARARNN_FN void store_pack(Storage* to, const Pack<Storage, V>& pack) {
  using Word = typename WordOf<sizeof(Pack<Storage, V>)>::type;
  *reinterpret_cast<Word*>(to) = __builtin_bit_cast(Word, pack);
}

}  // namespace pararnn::cuda
