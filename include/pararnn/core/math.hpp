// The functions that a cell may use, for plain float and double. The same names exist for batches
// (cpu/simd.hpp), for dual numbers (core/dual.hpp) and for sparsity patterns (core/pattern.hpp), so
// a cell written over T works with all of them.
//
//   exp log sqrt tanh sigmoid log_sigmoid softplus abs max min square
//
// A scalar type supplies exp, log, sqrt, tanh, log1p_unit, abs, less, is_nan and select; what can
// be composed from those is composed here, once, for every type.
#pragma once

#include "pararnn/core/platform.hpp"
#if defined(__CUDACC__)
#include "pararnn/core/math_device.hpp"
#endif

namespace pararnn {

#if !defined(__CUDACC__)
PARARNN_FN float exp(float x) { return __builtin_expf(x); }
PARARNN_FN float log(float x) { return __builtin_logf(x); }
PARARNN_FN float sqrt(float x) { return __builtin_sqrtf(x); }
PARARNN_FN float tanh(float x) { return __builtin_tanhf(x); }
/// log(1 + x) for x in [0, 1], accurate relative to the result.
PARARNN_FN float log1p_unit(float x) { return __builtin_log1pf(x); }
PARARNN_FN float abs(float x) { return __builtin_fabsf(x); }
PARARNN_FN double exp(double x) { return __builtin_exp(x); }
PARARNN_FN double log(double x) { return __builtin_log(x); }
PARARNN_FN double sqrt(double x) { return __builtin_sqrt(x); }
PARARNN_FN double tanh(double x) { return __builtin_tanh(x); }
PARARNN_FN double log1p_unit(double x) { return __builtin_log1p(x); }
PARARNN_FN double abs(double x) { return __builtin_fabs(x); }
#endif

PARARNN_FN bool less(float a, float b) { return a < b; }
PARARNN_FN bool less(double a, double b) { return a < b; }
PARARNN_FN bool is_nan(float x) { return !(x == x); }
PARARNN_FN bool is_nan(double x) { return !(x == x); }
PARARNN_FN float select(bool mask, float a, float b) { return mask ? a : b; }
PARARNN_FN double select(bool mask, double a, double b) { return mask ? a : b; }

template <class T>
PARARNN_FN T square(const T& x) {
  return x * x;
}

/// 1 / (1 + exp(-x)), accurate relative to the result down to the underflow of exp.
template <class T>
PARARNN_FN T sigmoid(const T& x) {
  return T(1) / (T(1) + exp(-x));
}

/// The larger; NaN if either is NaN.
template <class T>
PARARNN_FN T max(const T& a, const T& b) {
  return select(less(a, b), b, select(is_nan(b), b, a));
}

/// The smaller; NaN if either is NaN.
template <class T>
PARARNN_FN T min(const T& a, const T& b) {
  return -max(-a, -b);
}

/// log(1 + exp(x)) without overflow.
template <class T>
PARARNN_FN T softplus(const T& x) {
  return max(x, T(0)) + log1p_unit(exp(-abs(x)));
}

/// log(sigmoid(x)) without overflow.
template <class T>
PARARNN_FN T log_sigmoid(const T& x) {
  return -softplus(-x);
}

}  // namespace pararnn
