#pragma once

#include "pararnn/core/cell.hpp"

namespace pararnn {

/// The sLSTM of xLSTM (Beck et al. 2024) with diagonal recurrent weights: exponential gating with
/// normaliser n and stabiliser m. State (h, c, n, m); inputs and parameters in the order f, i, z,
/// o:
///   a = log σ(u_f + w_f h) + m,  b = u_i + w_i h,  m ← max(a, b),
///   c ← e^{a−m} c + e^{b−m} tanh(u_z + w_z h),  n ← e^{a−m} n + e^{b−m},  h ← σ(u_o + w_o h) c/n.
/// As max(a, b) is subtracted, one of the two exponentials is 1. n is 0 only in the zero state, and
/// kSmallest keeps the quotient defined when the first input gate underflows.
struct Slstm {
  static constexpr int kState = 4, kInputs = 4, kParams = 4;
  static constexpr const char* kSummary = "LSTM with exponential gating, normaliser and stabiliser";
  static constexpr const char* kStateNames[] = {"h", "c", "n", "m"};
  static constexpr const char* kInputNames[] = {"f", "i", "z", "o"};
  static constexpr const char* kParamNames[] = {"w_f", "w_i", "w_z", "w_o"};
  static constexpr float kSmallest = 1e-30f;

  template <class T>
  PARARNN_FN static Vec<T, 4> step(const Vec<T, 4>& state, const Vec<T, 4>& u, const Vec<T, 4>& w) {
    const T h = state[0];
    const T a = log_sigmoid(u[0] + w[0] * h) + state[3];
    const T b = u[1] + w[1] * h;
    const T m = max(a, b);
    const T forget = exp(a - m);
    const T input = exp(b - m);
    const T c = forget * state[1] + input * tanh(u[2] + w[2] * h);
    const T n = forget * state[2] + input;
    const T o = sigmoid(u[3] + w[3] * h);
    return {o * (c / max(n, kSmallest)), c, n, m};
  }
};

}  // namespace pararnn
