// JANET: an LSTM of its forget gate alone; what is taken up is gated a little more than what is
// kept.
//
// J. van der Westhuizen, J. Lasenby. The unreasonable effectiveness of the forget gate.
// arXiv:1804.04849, 2018.
#pragma once

#include "pararnn/cell.hpp"

using pararnn::Vec;

struct Janet {
  static constexpr int kState = 1, kInputs = 2, kParams = 2;
  static constexpr const char* kSummary = "LSTM of the forget gate alone";
  static constexpr const char* kStateNames[] = {"h"};
  static constexpr const char* kInputNames[] = {"f", "g"};
  static constexpr const char* kParamNames[] = {"w_f", "w_g"};

  template <class T>
  PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 2>& u, const Vec<T, 2>& w) {
    const T s = u[0] + w[0] * h[0];
    const T g = tanh(u[1] + w[1] * h[0]);
    return {sigmoid(s) * h[0] + (1 - sigmoid(s - 1)) * g};
  }
};
