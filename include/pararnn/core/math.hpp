// The functions that a cell may use. The same names exist for plain numbers (core/number.hpp),
// batches (cpu/simd.hpp), dual numbers (core/dual.hpp) and sparsity patterns (core/pattern.hpp), so
// a cell written over T works with all of them.
//
//   exp log sqrt pow sin cos tanh sigmoid log_sigmoid softplus erf relu floor abs max min square
//   + - * / += -= *= /=   < > <= >= && || !   select
//
// A scalar type supplies exp, log, log1p_unit, sqrt, tanh, sin, cos, erf, floor, abs, less,
// less_equal, is_nan and select; what can be composed from those is composed here and in
// core/scalar.hpp, once, for every type.
#pragma once

#include "pararnn/core/scalar.hpp"
#if defined(__CUDACC__)
#include "pararnn/core/math_device.hpp"
#endif

namespace pararnn {

#if !defined(__CUDACC__)
// The C library's, which are no constants to clang.
#define PARARNN_LIBRARY_FUNCTION(name, function)                                                   \
  __attribute__((always_inline)) inline float name(float x) { return __builtin_##function##f(x); } \
  __attribute__((always_inline)) inline double name(double x) { return __builtin_##function(x); }
PARARNN_LIBRARY_FUNCTION(exp, exp)
PARARNN_LIBRARY_FUNCTION(log, log)
PARARNN_LIBRARY_FUNCTION(sqrt, sqrt)
PARARNN_LIBRARY_FUNCTION(tanh, tanh)
/// log(1 + x) for x in [0, 1], accurate relative to the result.
PARARNN_LIBRARY_FUNCTION(log1p_unit, log1p)
PARARNN_LIBRARY_FUNCTION(sin, sin)
PARARNN_LIBRARY_FUNCTION(cos, cos)
PARARNN_LIBRARY_FUNCTION(erf, erf)
PARARNN_LIBRARY_FUNCTION(floor, floor)
PARARNN_LIBRARY_FUNCTION(abs, fabs)
#undef PARARNN_LIBRARY_FUNCTION
#endif

PARARNN_FN bool less(float a, float b) { return a < b; }
PARARNN_FN bool less(double a, double b) { return a < b; }
PARARNN_FN bool less_equal(float a, float b) { return a <= b; }
PARARNN_FN bool less_equal(double a, double b) { return a <= b; }
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

/// max(x, 0), the rectifier. The derivative at 0 is taken as 1.
template <class T>
PARARNN_FN T relu(const T& x) {
  return select(less(x, T(0)), T(0), x);
}

/// log(1 + exp(x)) without overflow.
template <class T>
PARARNN_FN T softplus(const T& x) {
  return relu(x) + log1p_unit(exp(-abs(x)));
}

/// log(sigmoid(x)) without overflow.
template <class T>
PARARNN_FN T log_sigmoid(const T& x) {
  return -softplus(-x);
}

}  // namespace pararnn
