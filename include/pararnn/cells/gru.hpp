#pragma once

#include "pararnn/core/cell.hpp"

namespace pararnn {

/// The gated recurrent unit (Cho et al. 2014) with diagonal recurrent weights, as in ParaRNN:
///   z = σ(u_z + w_z h),  r = σ(u_r + w_r h),  c = tanh(u_c + w_c r h),  h ← (1−z) h + z c.
/// Inputs and parameters in the order z, r, c. A negative bias of u_z gives long memory.
struct Gru {
  static constexpr int kState = 1, kInputs = 3, kParams = 3;
  static constexpr const char* kSummary = "gated recurrent unit";
  static constexpr const char* kStateNames[] = {"h"};
  static constexpr const char* kInputNames[] = {"z", "r", "c"};
  static constexpr const char* kParamNames[] = {"w_z", "w_r", "w_c"};

  template <class T>
  PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 3>& u, const Vec<T, 3>& w) {
    const T z = sigmoid(u[0] + w[0] * h[0]);
    const T r = sigmoid(u[1] + w[1] * h[0]);
    const T c = tanh(u[2] + w[2] * (r * h[0]));
    return {h[0] + z * (c - h[0])};
  }
};

}  // namespace pararnn
