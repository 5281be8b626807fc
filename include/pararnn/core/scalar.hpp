// What every scalar type of the engine has in common: a plain number, a batch of them, a dual
// number, a pattern, a bound. Each supplies its arithmetic and the functions that core/math.hpp
// lists; what follows from those for two arguments stands here, once, as friends that are found
// with a literal on either side, as in max(h[0], 0).
#pragma once

#include "pararnn/core/platform.hpp"

namespace pararnn {

/// The types of literals. All scalar types convert from them, to numbers of their own arithmetic.
template <class L>
concept Literal =
    kSame<L, int> || kSame<L, float> || kSame<L, double> || kSame<L, unsigned> || kSame<L, long> ||
    kSame<L, unsigned long> || kSame<L, long long> || kSame<L, unsigned long long>;

template <class X>
inline constexpr bool kNever = false;

/// What a conversion to bool comes to.
template <class X>
constexpr bool refuse_to_branch() {
  static_assert(kNever<X>,
                "a step may not branch on a value, by if, ?:, while or a function that does, for "
                "all lanes run together: write select(a < b, x, y) in place of a < b ? x : y, and "
                "max(x, y) from pararnn in place of std::max");
  return false;
}

/// How a scalar type keeps the outcome of a comparison.
template <class X>
struct MaskBitsOf {
  using type = typename X::MaskBits;
};
template <>
struct MaskBitsOf<float> {
  using type = bool;
};
template <>
struct MaskBitsOf<double> {
  using type = bool;
};

/// The outcome of a comparison of X: for select, &&, || and !, and nothing else.
template <class X>
struct Mask {
  using Bits = typename MaskBitsOf<X>::type;
  Bits bits;

  PARARNN_FN explicit Mask(const Bits& b) : bits(b) {}
  constexpr explicit operator bool() const { return refuse_to_branch<X>(); }
  /// The engine's own code takes masks of batches as they are.
  PARARNN_FN operator const Bits&() const requires(!kSame<Bits, bool>) { return bits; }

  friend PARARNN_FN Mask operator&&(const Mask& a, const Mask& b) {
    return Mask(Bits(a.bits & b.bits));
  }
  friend PARARNN_FN Mask operator||(const Mask& a, const Mask& b) {
    return Mask(Bits(a.bits | b.bits));
  }
  friend PARARNN_FN Mask operator!(const Mask& a) { return Mask(!a.bits); }
  /// a where the mask is true, b elsewhere.
  friend PARARNN_FN X select(const Mask& mask, const X& a, const X& b) {
    return select(mask.bits, a, b);
  }
};

PARARNN_FN bool bits_of(bool bits) { return bits; }
template <class X>
PARARNN_FN const typename Mask<X>::Bits& bits_of(const Mask<X>& mask) {
  return mask.bits;
}

/// The base of a scalar type X, which supplies + - * /, less, less_equal, is_nan, exp and log.
template <class X>
struct Scalar {
  constexpr explicit operator bool() const { return refuse_to_branch<X>(); }

  friend PARARNN_FN Mask<X> operator<(const X& a, const X& b) { return less(a, b); }
  friend PARARNN_FN Mask<X> operator>(const X& a, const X& b) { return less(b, a); }
  friend PARARNN_FN Mask<X> operator<=(const X& a, const X& b) { return less_equal(a, b); }
  friend PARARNN_FN Mask<X> operator>=(const X& a, const X& b) { return less_equal(b, a); }

  friend PARARNN_FN X& operator+=(X& a, const X& b) { return a = a + b; }
  friend PARARNN_FN X& operator-=(X& a, const X& b) { return a = a - b; }
  friend PARARNN_FN X& operator*=(X& a, const X& b) { return a = a * b; }
  friend PARARNN_FN X& operator/=(X& a, const X& b) { return a = a / b; }

  /// The larger; NaN if either is NaN.
  friend PARARNN_FN X max(const X& a, const X& b) {
    return select(less(a, b), b, select(is_nan(b), b, a));
  }
  /// The smaller; NaN if either is NaN.
  friend PARARNN_FN X min(const X& a, const X& b) { return -max(-a, -b); }

  /// x^y for x > 0 and any y; NaN for x < 0. Its error is kPowUlp (1 + |y log x|) units in the last
  /// place: that of the product in the exponential.
  friend PARARNN_FN X pow(const X& x, const X& y) { return exp(y * log(x)); }
  /// x^n for any x and a whole number n, by repeated multiplication: right to about |n| roundings.
  template <Literal I>
  requires(!kSame<I, float> && !kSame<I, double>) friend PARARNN_FN X pow(const X& x, I n) {
    X power(1), factor = x;
    for (I left = n < 0 ? -n : n; left > 0; left /= 2) {
      if (left % 2 == 1) power = power * factor;
      if (left > 1) factor = factor * factor;
    }
    return n < 0 ? X(1) / power : power;
  }
};

/// See pow; holds for every scalar type, on every device.
inline constexpr double kPowUlp = 8;

}  // namespace pararnn
