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

/// What a comparison says of the values, and whether the errors could change that.
struct BoundedMask {
  bool value, certain;

  PARARNN_FN BoundedMask operator&(const BoundedMask& b) const {
    return {value && b.value, (certain && (b.certain || !value)) || (b.certain && !b.value)};
  }
  PARARNN_FN BoundedMask operator|(const BoundedMask& b) const { return !((!*this) & (!b)); }
  PARARNN_FN BoundedMask operator!() const { return {!value, certain}; }
};

template <class Arithmetic>
struct Bounded : Scalar<Bounded<Arithmetic>> {
  using MaskBits = BoundedMask;
  double value = 0, error = 0;

  constexpr Bounded() = default;
  constexpr Bounded(double v, double e) : value(v), error(e) {}
  /// A literal: the number of `Arithmetic` next to it, exactly.
  template <Literal L>
  PARARNN_FN Bounded(L v) : value(Arithmetic(v)) {}

  /// `v`, off by `e` before and by `roundoffs` rounding errors of its own.
  static PARARNN_FN Bounded rounded(double v, double e, double roundoffs = 1) {
    const double own = roundoffs * (Rounding<Arithmetic>::kUnit * (pararnn::abs(v) + e));
    return {v, e + own + Rounding<Arithmetic>::kSmallest};
  }

  friend PARARNN_FN Bounded operator+(const Bounded& a, const Bounded& b) {
    return rounded(a.value + b.value, a.error + b.error);
  }

  friend PARARNN_FN Bounded operator-(const Bounded& a, const Bounded& b) {
    return rounded(a.value - b.value, a.error + b.error);
  }

  friend PARARNN_FN Bounded operator-(const Bounded& a) { return {-a.value, a.error}; }

  friend PARARNN_FN Bounded operator*(const Bounded& a, const Bounded& b) {
    return rounded(a.value * b.value,
                   pararnn::abs(a.value) * b.error + (pararnn::abs(b.value) + b.error) * a.error);
  }

  friend PARARNN_FN Bounded operator/(const Bounded& a, const Bounded& b) {
    const double quotient = a.value / b.value;
    const double nearest = pararnn::abs(b.value) - b.error;  // the divisor's smallest magnitude
    const double error = (a.error + pararnn::abs(quotient) * b.error) / nearest;
    return rounded(quotient, nearest > 0 ? error : __builtin_inf());
  }

  friend PARARNN_FN Mask<Bounded> less(const Bounded& a, const Bounded& b) {
    return Mask<Bounded>(compared(a.value < b.value, a, b));
  }

  friend PARARNN_FN Mask<Bounded> less_equal(const Bounded& a, const Bounded& b) {
    return Mask<Bounded>(compared(a.value <= b.value, a, b));
  }

  friend PARARNN_FN Mask<Bounded> is_nan(const Bounded& x) {
    return Mask<Bounded>({pararnn::is_nan(x.value), true});
  }

  friend PARARNN_FN Bounded select(const BoundedMask& mask, const Bounded& a, const Bounded& b) {
    const Bounded& chosen = mask.value ? a : b;
    if (mask.certain) return chosen;
    const Bounded& other = mask.value ? b : a;
    const double reach = pararnn::abs(a.value - b.value) + other.error;
    return {chosen.value, reach < chosen.error ? chosen.error : reach};
  }

 private:
  static PARARNN_FN BoundedMask compared(bool outcome, const Bounded& a, const Bounded& b) {
    return {outcome, pararnn::abs(a.value - b.value) > a.error + b.error};
  }
};

/// A monotone function of an interval, computed to some rounding errors.
template <class A, class F>
PARARNN_FN Bounded<A> monotone(const Bounded<A>& x, F&& f, double roundoffs = kFunctionRoundoffs) {
  const double value = f(x.value);
  const double below = abs(value - f(x.value - x.error));
  const double above = abs(f(x.value + x.error) - value);
  return Bounded<A>::rounded(value, below < above ? above : below, roundoffs);
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

template <class A>
PARARNN_FN Bounded<A> erf(const Bounded<A>& x) {
  return monotone(x, [](double v) PARARNN_LAMBDA { return pararnn::erf(v); });
}

/// A step: exact, but for the jumps within the argument's interval.
template <class A>
PARARNN_FN Bounded<A> floor(const Bounded<A>& x) {
  return monotone(
      x, [](double v) PARARNN_LAMBDA { return pararnn::floor(v); }, 0);
}

/// Of slope 1 at most, and between -1 and 1.
template <class A>
PARARNN_FN Bounded<A> sin(const Bounded<A>& x) {
  return Bounded<A>::rounded(pararnn::sin(x.value), x.error < 2 ? x.error : 2, kFunctionRoundoffs);
}

template <class A>
PARARNN_FN Bounded<A> cos(const Bounded<A>& x) {
  return Bounded<A>::rounded(pararnn::cos(x.value), x.error < 2 ? x.error : 2, kFunctionRoundoffs);
}

}  // namespace pararnn
