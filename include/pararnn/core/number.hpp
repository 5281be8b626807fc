// Number: a plain float or double as a scalar type. A step never sees a float itself, whose
// arithmetic with a literal 0.5 would be that of doubles and whose comparisons could be branched
// on.
#pragma once

#include "pararnn/core/math.hpp"
#include "pararnn/core/vec.hpp"

namespace pararnn {

template <class F>
struct Number : Scalar<Number<F>> {
  using MaskBits = bool;
  F value = 0;

  constexpr Number() = default;
  template <Literal L>
  PARARNN_FN Number(L v) : value(F(v)) {}

  friend PARARNN_FN Number operator+(const Number& a, const Number& b) { return a.value + b.value; }
  friend PARARNN_FN Number operator-(const Number& a, const Number& b) { return a.value - b.value; }
  friend PARARNN_FN Number operator*(const Number& a, const Number& b) { return a.value * b.value; }
  friend PARARNN_FN Number operator/(const Number& a, const Number& b) { return a.value / b.value; }
  friend PARARNN_FN Number operator-(const Number& a) { return -a.value; }

  friend PARARNN_FN Mask<Number> less(const Number& a, const Number& b) {
    return Mask<Number>(a.value < b.value);
  }
  friend PARARNN_FN Mask<Number> less_equal(const Number& a, const Number& b) {
    return Mask<Number>(a.value <= b.value);
  }
  friend PARARNN_FN Mask<Number> is_nan(const Number& x) {
    return Mask<Number>(!(x.value == x.value));
  }
  friend PARARNN_FN Number select(bool mask, const Number& a, const Number& b) {
    return mask ? a : b;
  }

  friend PARARNN_FN Number exp(const Number& x) { return pararnn::exp(x.value); }
  friend PARARNN_FN Number log(const Number& x) { return pararnn::log(x.value); }
  friend PARARNN_FN Number log1p_unit(const Number& x) { return pararnn::log1p_unit(x.value); }
  friend PARARNN_FN Number sqrt(const Number& x) { return pararnn::sqrt(x.value); }
  friend PARARNN_FN Number tanh(const Number& x) { return pararnn::tanh(x.value); }
  friend PARARNN_FN Number sigmoid(const Number& x) { return pararnn::sigmoid(x.value); }
  friend PARARNN_FN Number sin(const Number& x) { return pararnn::sin(x.value); }
  friend PARARNN_FN Number cos(const Number& x) { return pararnn::cos(x.value); }
  friend PARARNN_FN Number erf(const Number& x) { return pararnn::erf(x.value); }
  friend PARARNN_FN Number floor(const Number& x) { return pararnn::floor(x.value); }
  friend PARARNN_FN Number abs(const Number& x) { return pararnn::abs(x.value); }
};

/// The scalar type in which a step takes numbers of type T: T itself unless it is a plain number.
template <class T>
struct ScalarOf {
  using type = T;
};
template <>
struct ScalarOf<float> {
  using type = Number<float>;
};
template <>
struct ScalarOf<double> {
  using type = Number<double>;
};

/// A scalar as it is kept outside of a step.
template <class T>
PARARNN_FN const T& plain(const T& x) {
  return x;
}
template <class F>
PARARNN_FN F plain(const Number<F>& x) {
  return x.value;
}

template <class T, int N>
PARARNN_FN Vec<typename ScalarOf<T>::type, N> as_scalars(const Vec<T, N>& x) {
  Vec<typename ScalarOf<T>::type, N> result{};
  static_for<N>([&](auto i) PARARNN_LAMBDA { result[i] = x[i]; });
  return result;
}

}  // namespace pararnn
