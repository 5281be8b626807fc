// Bounded: a number together with a bound on how far the arithmetic may be from it. It is a scalar
// type in the engine's sense: evaluating a cell with it gives the step and a rigorous bound on the
// error of evaluating the step in `Arithmetic`, float or double. The running error analysis of
// Wilkinson; see Higham, "Accuracy and Stability of Numerical Algorithms", section 3.3.
//
// Values are computed in double. Each operation carries the errors of its arguments over and adds
// its own rounding; functions are monotone, so their values at the ends of the argument's interval
// enclose them. Errors are taken as independent, which is why a recurrence must not be iterated on
// Bounded itself: reference_bounds.hpp multiplies Jacobians instead.
#pragma once

#include "pararnn/core/math.hpp"

namespace pararnn {

template <class Arithmetic>
struct Rounding;
template <>
struct Rounding<float> {
  static constexpr double kUnit = 0x1p-24, kSmallest = 0x1p-126, kLargest = 0x1p127;
};
template <>
struct Rounding<double> {
  // Twice the unit roundoff: the value that is compared with is rounded in the same way.
  static constexpr double kUnit = 0x1p-52, kSmallest = 0x1p-1021, kLargest = 0x1p1023;
};

/// Error of the engine's functions, in unit roundoffs (two to a unit in the last place); at least
/// the constants of cpu/simd.hpp.
inline constexpr double kFunctionRoundoffs = 8;

template <class Arithmetic>
struct Bounded {
  double value = 0, error = 0;

  constexpr Bounded() = default;
  constexpr Bounded(double v) : value(v) {}
  constexpr Bounded(double v, double e) : value(v), error(e) {}
};

/// `value`, off by `error` before and by `roundoffs` rounding errors of its own.
template <class A>
PARARNN_FN Bounded<A> rounded(double value, double error, double roundoffs = 1) {
  const double own = roundoffs * (Rounding<A>::kUnit * (abs(value) + error));
  return {value, error + own + Rounding<A>::kSmallest};
}

template <class A>
PARARNN_FN Bounded<A> operator+(const Bounded<A>& a, const Bounded<A>& b) {
  return rounded<A>(a.value + b.value, a.error + b.error);
}

template <class A>
PARARNN_FN Bounded<A> operator-(const Bounded<A>& a, const Bounded<A>& b) {
  return rounded<A>(a.value - b.value, a.error + b.error);
}

template <class A>
PARARNN_FN Bounded<A> operator-(const Bounded<A>& a) {
  return {-a.value, a.error};
}

template <class A>
PARARNN_FN Bounded<A> operator*(const Bounded<A>& a, const Bounded<A>& b) {
  return rounded<A>(a.value * b.value, abs(a.value) * b.error + (abs(b.value) + b.error) * a.error);
}

template <class A>
PARARNN_FN Bounded<A> operator/(const Bounded<A>& a, const Bounded<A>& b) {
  const double quotient = a.value / b.value;
  const double nearest = abs(b.value) - b.error;  // the divisor's smallest magnitude
  const double error = (a.error + abs(quotient) * b.error) / nearest;
  return rounded<A>(quotient, nearest > 0 ? error : __builtin_inf());
}

/// A monotone function of an interval.
template <class A, class F>
PARARNN_FN Bounded<A> monotone(const Bounded<A>& x, F&& f) {
  const double value = f(x.value);
  const double below = abs(value - f(x.value - x.error));
  const double above = abs(f(x.value + x.error) - value);
  return rounded<A>(value, below < above ? above : below, kFunctionRoundoffs);
}

template <class A>
PARARNN_FN Bounded<A> exp(const Bounded<A>& x) {
  return monotone(x, [](double v) PARARNN_LAMBDA { return pararnn::exp(v); });
}

template <class A>
PARARNN_FN Bounded<A> tanh(const Bounded<A>& x) {
  return monotone(x, [](double v) PARARNN_LAMBDA { return pararnn::tanh(v); });
}

template <class A>
PARARNN_FN Bounded<A> log(const Bounded<A>& x) {
  return monotone(
      x, [](double v) PARARNN_LAMBDA { return v > 0 ? pararnn::log(v) : -__builtin_inf(); });
}

template <class A>
PARARNN_FN Bounded<A> log1p_unit(const Bounded<A>& x) {
  return monotone(x, [](double v) PARARNN_LAMBDA { return pararnn::log1p_unit(v < 0 ? 0 : v); });
}

template <class A>
PARARNN_FN Bounded<A> sqrt(const Bounded<A>& x) {
  return monotone(x, [](double v) PARARNN_LAMBDA { return pararnn::sqrt(v < 0 ? 0 : v); });
}

template <class A>
PARARNN_FN Bounded<A> abs(const Bounded<A>& x) {
  return {abs(x.value), x.error};
}

/// What a comparison says of the values, and whether the errors could change that.
struct BoundedMask {
  bool value, certain;
};

template <class A>
PARARNN_FN BoundedMask less(const Bounded<A>& a, const Bounded<A>& b) {
  return {a.value<b.value, abs(a.value - b.value)> a.error + b.error};
}

template <class A>
PARARNN_FN BoundedMask is_nan(const Bounded<A>& x) {
  return {is_nan(x.value), true};
}

template <class A>
PARARNN_FN Bounded<A> select(const BoundedMask& mask, const Bounded<A>& a, const Bounded<A>& b) {
  const Bounded<A>& chosen = mask.value ? a : b;
  if (mask.certain) return chosen;
  const Bounded<A>& other = mask.value ? b : a;
  const double reach = abs(a.value - b.value) + other.error;
  return {chosen.value, reach < chosen.error ? chosen.error : reach};
}

}  // namespace pararnn
