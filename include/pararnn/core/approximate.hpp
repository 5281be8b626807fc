// On the GPU, a float whose functions are the special function unit's own: a few of them are off by
// kApproximateError of 1 + |result| instead of a few units in the last place, in a third of the
// instructions. The first half of a burn-in takes its steps with them. What they lose is forgotten
// as the zero start is, and the verification does not know of them: results are exact in any case.
#pragma once

#include "pararnn/core/math.hpp"
#include "pararnn/core/vec.hpp"

namespace pararnn {

inline constexpr double kApproximateError = 0x1p-11;

struct Approximate {
  float value = 0;

  constexpr Approximate() = default;
  PARARNN_FN Approximate(int v) : value(static_cast<float>(v)) {}
  PARARNN_FN Approximate(float v) : value(v) {}
  PARARNN_FN Approximate(double v) : value(static_cast<float>(v)) {}
  PARARNN_FN explicit operator float() const { return value; }
};

PARARNN_FN Approximate operator-(Approximate a) { return -a.value; }
PARARNN_FN Approximate operator+(Approximate a, Approximate b) { return a.value + b.value; }
PARARNN_FN Approximate operator-(Approximate a, Approximate b) { return a.value - b.value; }
PARARNN_FN Approximate operator*(Approximate a, Approximate b) { return a.value * b.value; }
PARARNN_FN Approximate operator/(Approximate a, Approximate b) {
  return a.value * special_reciprocal(b.value);
}

PARARNN_FN Approximate exp(Approximate x) { return special_exp2(x.value * 1.44269504f); }
PARARNN_FN Approximate log(Approximate x) { return special_log2(x.value) * 0.693147181f; }
PARARNN_FN Approximate log1p_unit(Approximate x) { return log(1 + x); }
PARARNN_FN Approximate sqrt(Approximate x) { return special_sqrt(x.value); }
PARARNN_FN Approximate tanh(Approximate x) { return special_tanh(x.value); }
PARARNN_FN Approximate sigmoid(Approximate x) { return 0.5f + 0.5f * special_tanh(0.5f * x.value); }
PARARNN_FN Approximate abs(Approximate x) { return abs(x.value); }
PARARNN_FN bool less(Approximate a, Approximate b) { return a.value < b.value; }
PARARNN_FN bool is_nan(Approximate x) { return is_nan(x.value); }
PARARNN_FN Approximate select(bool mask, Approximate a, Approximate b) { return mask ? a : b; }

/// Whether T has a faster approximation.
template <class T>
inline constexpr bool kApproximates = kSame<T, float>;

/// The same numbers, of another type.
template <class To, class From, int N>
PARARNN_FN Vec<To, N> convert(const Vec<From, N>& x) {
  Vec<To, N> result{};
  static_for<N>([&](auto i) { result[i] = To(x[i]); });
  return result;
}

}  // namespace pararnn
