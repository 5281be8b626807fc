// The minimal gated unit: one gate that both resets and updates.
//
// G.-B. Zhou, J. Wu, C.-L. Zhang, Z.-H. Zhou. Minimal gated unit for recurrent neural networks.
// 2016.
#pragma once

#include "pararnn/cell.hpp"

using pararnn::Vec;

struct Mgu {
  static constexpr int kState = 1, kInputs = 2, kParams = 2;
  static constexpr const char* kSummary = "minimal gated unit";
  static constexpr const char* kStateNames[] = {"h"};
  static constexpr const char* kInputNames[] = {"f", "c"};
  static constexpr const char* kParamNames[] = {"w_f", "w_c"};

  template <class T>
  PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 2>& u, const Vec<T, 2>& w) {
    const T f = sigmoid(u[0] + w[0] * h[0]);
    const T c = tanh(u[1] + w[1] * (f * h[0]));
    return {(1 - f) * h[0] + f * c};
  }
};
