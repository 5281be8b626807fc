#pragma once

#include "pararnn/core/cell.hpp"

namespace pararnn {

/// The LSTM of ParaRNN: coupled input and forget gates (i = 1 − f) and peepholes (Greff et al.
/// 2017). State (h, c); inputs in the order f, z, o; parameters w_f, w_z, w_o, p_f, p_o:
///   f = σ(u_f + w_f h + p_f c),  z = tanh(u_z + w_z h),  c ← f c + (1−f) z,
///   o = σ(u_o + w_o h + p_o c) with the new c,  h ← o tanh(c).
struct LstmCifg {
  static constexpr int kState = 2, kInputs = 3, kParams = 5;
  static constexpr const char* kSummary = "LSTM with coupled gates and peepholes";
  static constexpr const char* kStateNames[] = {"h", "c"};
  static constexpr const char* kInputNames[] = {"f", "z", "o"};
  static constexpr const char* kParamNames[] = {"w_f", "w_z", "w_o", "p_f", "p_o"};

  template <class T>
  PARARNN_FN static Vec<T, 2> step(const Vec<T, 2>& state, const Vec<T, 3>& u, const Vec<T, 5>& w) {
    const T h = state[0];
    const T f = sigmoid(u[0] + w[0] * h + w[3] * state[1]);
    const T z = tanh(u[1] + w[1] * h);
    const T c = z + f * (state[1] - z);
    const T o = sigmoid(u[2] + w[2] * h + w[4] * c);
    return {o * tanh(c), c};
  }
};

}  // namespace pararnn
