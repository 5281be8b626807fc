// Constant: a number whose arithmetic and functions are evaluated by the compiler, so that what a
// cell does can be found out while it is compiled, by g++, clang and NVRTC alike. Functions are
// series, right to about 1e-14. Numbers end at 1e100 and at 1e-100, and what is infinite or
// undefined becomes finite: overflow, underflow and division by zero are no constants to some
// compilers, and a cell may well divide by a state that is zero.
#pragma once

#include "pararnn/core/math.hpp"

namespace pararnn {

struct Constant : Scalar<Constant> {
  using MaskBits = bool;
  static constexpr double kMost = 1e100;
  double value = 0;

  constexpr Constant() = default;
  template <Literal L>
  constexpr Constant(L v) : value(limited(static_cast<double>(v))) {}

  static constexpr double limited(double v) {
    return v > kMost ? kMost : v < -kMost ? -kMost : v > -1 / kMost && v < 1 / kMost ? 0 : v;
  }
  friend constexpr Constant operator+(Constant a, Constant b) { return a.value + b.value; }
  friend constexpr Constant operator-(Constant a, Constant b) { return a.value - b.value; }
  friend constexpr Constant operator*(Constant a, Constant b) { return a.value * b.value; }
  friend constexpr Constant operator/(Constant a, Constant b) {
    if (b.value != 0) return a.value / b.value;
    return a.value == 0 ? 0 : a.value < 0 ? -kMost : kMost;
  }
  friend constexpr Constant operator-(Constant a) { return -a.value; }

  friend constexpr Mask<Constant> less(Constant a, Constant b) {
    return Mask<Constant>(a.value < b.value);
  }
  friend constexpr Mask<Constant> less_equal(Constant a, Constant b) {
    return Mask<Constant>(a.value <= b.value);
  }
  friend constexpr Mask<Constant> is_nan(Constant) { return Mask<Constant>(false); }
  friend constexpr Constant select(bool mask, Constant a, Constant b) { return mask ? a : b; }
};

constexpr Constant abs(Constant x) { return x.value < 0 ? -x.value : x.value; }

constexpr Constant floor(Constant x) {
  if (abs(x).value >= 0x1p52) return x;
  const double whole = static_cast<double>(static_cast<long long>(x.value));
  return whole > x.value ? whole - 1 : whole;
}

constexpr Constant exp(Constant x) {
  if (x.value > 230.2) return Constant::kMost;
  if (x.value < -230.2) return 0;
  constexpr double kLn2 = 0.693147180559945309417;
  const double n = floor(x / kLn2 + 0.5).value;
  const Constant r = x - n * kLn2;
  Constant sum = 1, term = 1;
  for (int k = 1; k < 20; ++k) sum += term *= r / k;
  for (double i = 0; i < n; ++i) sum *= 2;
  for (double i = 0; i > n; --i) sum /= 2;
  return sum;
}

/// artanh(s) for |s| <= 1/3.
constexpr Constant artanh_series(Constant s) {
  Constant sum = 0, power = s;
  for (int k = 1; k < 40; k += 2, power *= s * s) sum += power / k;
  return sum;
}

/// Of zero and less, the least number.
constexpr Constant log(Constant x) {
  if (x.value <= 0) return -Constant::kMost;
  double m = x.value, n = 0;
  for (; m > 1.4142135623730951; m /= 2) ++n;
  for (; m < 0.70710678118654757; m *= 2) --n;
  return n * 0.693147180559945309417 + 2 * artanh_series((m - 1) / (m + 1));
}

constexpr Constant log1p_unit(Constant x) { return 2 * artanh_series(x / (2 + x)); }

/// Of zero and less, 0.
constexpr Constant sqrt(Constant x) {
  if (x.value <= 0) return 0;
  const Constant root = exp(log(x) / 2);
  return (root + x / root) / 2;
}

constexpr Constant tanh(Constant x) {
  const Constant e = exp(-2 * abs(x)), size = (1 - e) / (1 + e);
  return x.value < 0 ? -size : size;
}

/// Of arguments beyond 1e6, 0.
constexpr Constant sin(Constant x) {
  if (abs(x).value > 1e6) return 0;
  constexpr double kTwoPi = 6.28318530717958647693;
  const Constant r = x - floor(x / kTwoPi + 0.5) * kTwoPi;
  Constant sum = 0, term = r;
  for (int k = 1; k < 36; k += 2, term *= -r * r / ((k - 1) * k)) sum += term;
  return sum;
}

constexpr Constant cos(Constant x) { return sin(x + 1.57079632679489661923); }

constexpr Constant erf(Constant x) {
  if (abs(x).value > 6) return x.value < 0 ? -1 : 1;
  // 2/sqrt(pi) e^{-x^2} sum_n 2^n x^{2n+1} / (1 3 5 ... (2n+1))
  Constant sum = 0, term = x;
  for (int n = 1; n < 160; ++n, term *= 2 * x * x / (2 * n - 1)) sum += term;
  return 1.12837916709551257390 * sum * exp(-x * x);
}

}  // namespace pararnn
