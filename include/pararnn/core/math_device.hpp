// The functions of core/math.hpp for plain numbers on the GPU. Those of float are free of branches,
// so that the compiler can interleave neighbouring channels; each states its largest error in units
// in the last place, which a test enforces on a device, over every float.
//
// The special function unit gives 2^x and 1/x to about 2 and 1 units, at a fraction of the rate of
// multiplications; what can be had from multiplications is.
#pragma once

#include "pararnn/core/platform.hpp"

namespace pararnn {

inline constexpr double kDeviceExpUlp = 2, kDeviceTanhUlp = 2, kDeviceSigmoidUlp = 5,
                        kDeviceLog1pUlp = 1, kDeviceLogUlp = 1, kDeviceSinUlp = 2,
                        kDeviceCosUlp = 2, kDeviceErfUlp = 2;

/// 2^x; subnormal results are 0.
PARARNN_FN float special_exp2(float x) {
  float result = 0;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// 1/x for |x| <= 2^126.
PARARNN_FN float special_reciprocal(float x) {
  float result = 0;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// The smaller; NaN if either is NaN.
PARARNN_FN float special_min(float a, float b) {
  float result = 0;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}

PARARNN_FN float exp(float x) { return ::expf(x); }

PARARNN_FN float tanh(float x) {
  // Near 0, x + x^3 P(x^2) with the coefficients of least relative error on |x| <= 0.6; elsewhere
  // 1 - 2 / (e^{2|x|} + 1), which forgives the error of its exponential.
  const float square = x * x;
  float p = -5.90585843e-03f;
  p = p * square + 2.08053760e-02f;
  p = p * square + -5.37866810e-02f;
  p = p * square + 1.33319582e-01f;
  p = p * square + -3.33332993e-01f;
  const float small = p * (square * x) + x;
  const float magnitude = ::fabsf(x);
  const float e = special_exp2(magnitude * 2.885390082f);
  const float large = ::copysignf(1.0f - 2.0f * special_reciprocal(e + 1.0f), x);
  return magnitude < 0.58f ? small : large;
}

PARARNN_FN float sigmoid(float x) {
  // e^{-x} = 2^t e^{-x - t log 2}, for any t near -x / log 2; log 2 is a float and, in terms of x,
  // a small rest. t is limited where the result has long been 0, and what rounding t lost where it
  // is infinite or NaN for an infinite x.
  const float t = special_min(x * -1.44269504f, 126.0f);
  const float lost = ::fmaf(x, -2.74784e-9f, ::fmaf(t, -0.693147182f, -x));
  const float power = special_exp2(t);
  return special_reciprocal(1.0f + ::fmaf(power, ::fminf(lost, 1e30f), power));
}

PARARNN_FN float log(float x) { return ::logf(x); }
PARARNN_FN float log1p_unit(float x) { return ::log1pf(x); }
PARARNN_FN float sqrt(float x) { return ::sqrtf(x); }
PARARNN_FN float abs(float x) { return ::fabsf(x); }
PARARNN_FN float floor(float x) { return ::floorf(x); }
PARARNN_FN float erf(float x) { return ::erff(x); }
/// sin and cos branch at |x| > 105615, where their reduction of the argument takes integers and a
/// few operations of doubles.
PARARNN_FN float sin(float x) { return ::sinf(x); }
PARARNN_FN float cos(float x) { return ::cosf(x); }

PARARNN_FN double exp(double x) { return ::exp(x); }
PARARNN_FN double log(double x) { return ::log(x); }
PARARNN_FN double sqrt(double x) { return ::sqrt(x); }
PARARNN_FN double tanh(double x) { return ::tanh(x); }
PARARNN_FN double log1p_unit(double x) { return ::log1p(x); }
PARARNN_FN double abs(double x) { return ::fabs(x); }
PARARNN_FN double floor(double x) { return ::floor(x); }
PARARNN_FN double erf(double x) { return ::erf(x); }
PARARNN_FN double sin(double x) { return ::sin(x); }
PARARNN_FN double cos(double x) { return ::cos(x); }

}  // namespace pararnn
