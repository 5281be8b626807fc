// Vec and Mat: the small fixed-size arrays in which a cell receives its state, inputs and
// parameters, and in which Jacobians are kept. Aggregates of a scalar type T, which may be a float,
// a batch of floats, or a dual number over either.
#pragma once

#include "pararnn/core/platform.hpp"

namespace pararnn {

template <class T, int N>
struct Vec {
  T data[N > 0 ? N : 1];  // a cell may have no parameters

  PARARNN_FN T& operator[](int i) { return data[i]; }
  PARARNN_FN const T& operator[](int i) const { return data[i]; }
};

/// R rows, C columns.
template <class T, int R, int C>
struct Mat {
  T data[R][C];

  PARARNN_FN T& operator()(int r, int c) { return data[r][c]; }
  PARARNN_FN const T& operator()(int r, int c) const { return data[r][c]; }
};

template <class T, int N>
PARARNN_FN Mat<T, N, N> identity() {
  Mat<T, N, N> result{};
  static_for<N>([&](auto i) PARARNN_LAMBDA { result(i, i) = T(1); });
  return result;
}

/// m v
template <class T, int R, int C>
PARARNN_FN Vec<T, R> operator*(const Mat<T, R, C>& m, const Vec<T, C>& v) {
  Vec<T, R> result{};
  static_for<R>([&](auto r) PARARNN_LAMBDA {
    T sum = m(r, 0) * v[0];
    static_for<C - 1>([&](auto c) PARARNN_LAMBDA { sum = sum + m(r, c + 1) * v[c + 1]; });
    result[r] = sum;
  });
  return result;
}

/// a b
template <class T, int R, int N, int C>
PARARNN_FN Mat<T, R, C> operator*(const Mat<T, R, N>& a, const Mat<T, N, C>& b) {
  Mat<T, R, C> result{};
  static_for<R>([&](auto r) PARARNN_LAMBDA {
    static_for<C>([&](auto c) PARARNN_LAMBDA {
      T sum = a(r, 0) * b(0, c);
      static_for<N - 1>([&](auto n) PARARNN_LAMBDA { sum = sum + a(r, n + 1) * b(n + 1, c); });
      result(r, c) = sum;
    });
  });
  return result;
}

template <class T, int N>
PARARNN_FN Vec<T, N> operator+(const Vec<T, N>& a, const Vec<T, N>& b) {
  Vec<T, N> result{};
  static_for<N>([&](auto i) PARARNN_LAMBDA { result[i] = a[i] + b[i]; });
  return result;
}

template <class T, int N>
PARARNN_FN Vec<T, N> operator-(const Vec<T, N>& a, const Vec<T, N>& b) {
  Vec<T, N> result{};
  static_for<N>([&](auto i) PARARNN_LAMBDA { result[i] = a[i] - b[i]; });
  return result;
}

}  // namespace pararnn
