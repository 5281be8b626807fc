#pragma once

#include "pararnn/core/cell.hpp"

namespace pararnn {

/// The long short-term memory (Hochreiter and Schmidhuber 1997; forget gate of Gers et al. 2000)
/// with diagonal recurrent weights. State (h, c); inputs and parameters in the order f, i, o, g:
///   f, i, o = σ(u + w h),  g = tanh(u_g + w_g h),  c ← f c + i g,  h ← o tanh(c).
struct Lstm {
  static constexpr int kState = 2, kInputs = 4, kParams = 4;
  static constexpr const char* kSummary = "long short-term memory";
  static constexpr const char* kStateNames[] = {"h", "c"};
  static constexpr const char* kInputNames[] = {"f", "i", "o", "g"};
  static constexpr const char* kParamNames[] = {"w_f", "w_i", "w_o", "w_g"};

  template <class T>
  PARARNN_FN static Vec<T, 2> step(const Vec<T, 2>& state, const Vec<T, 4>& u, const Vec<T, 4>& w) {
    const T h = state[0];
    const T f = sigmoid(u[0] + w[0] * h);
    const T i = sigmoid(u[1] + w[1] * h);
    const T o = sigmoid(u[2] + w[2] * h);
    const T g = tanh(u[3] + w[3] * h);
    const T c = f * state[1] + i * g;
    return {o * tanh(c), c};
  }
};

}  // namespace pararnn
