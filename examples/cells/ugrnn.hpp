// The update gate RNN: a simple RNN with one gate that keeps the state.
//
// J. Collins, J. Sohl-Dickstein, D. Sussillo. Capacity and trainability in recurrent neural
// networks. ICLR 2017.
#pragma once

#include "pararnn/cell.hpp"

using pararnn::Vec;

struct Ugrnn {
  static constexpr int kState = 1, kInputs = 2, kParams = 2;
  static constexpr const char* kSummary = "update gate RNN";
  static constexpr const char* kStateNames[] = {"h"};
  static constexpr const char* kInputNames[] = {"g", "c"};
  static constexpr const char* kParamNames[] = {"w_g", "w_c"};

  template <class T>
  PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 2>& u, const Vec<T, 2>& w) {
    const T g = sigmoid(u[0] + w[0] * h[0]);
    const T c = tanh(u[1] + w[1] * h[0]);
    return {g * h[0] + (1 - g) * c};
  }
};
