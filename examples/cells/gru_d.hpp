// GRU-D, for series with gaps: the state decays with the time d since the last observation, and
// the gates see the mask m of what was observed.
//
// Z. Che, S. Purushotham, K. Cho, D. Sontag, Y. Liu. Recurrent neural networks for multivariate
// time series with missing values. Scientific Reports 8, 2018.
#pragma once

#include "pararnn/cell.hpp"

using pararnn::Vec;

struct GruD {
  static constexpr int kState = 1, kInputs = 5, kParams = 8;
  static constexpr const char* kSummary = "gated recurrent unit with decay, for series with gaps";
  static constexpr const char* kStateNames[] = {"h"};
  static constexpr const char* kInputNames[] = {"z", "r", "c", "m", "d"};
  static constexpr const char* kParamNames[] = {"w_z", "w_r", "w_c", "v_z",
                                                "v_r", "v_c", "w_d", "b_d"};
  static constexpr int kSideInputs[] = {3, 4};

  template <class T>
  PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 5>& u, const Vec<T, 8>& w) {
    const T decayed = exp(-relu(w[6] * u[4] + w[7])) * h[0];
    const T z = sigmoid(u[0] + w[0] * decayed + w[3] * u[3]);
    const T r = sigmoid(u[1] + w[1] * decayed + w[4] * u[3]);
    const T c = tanh(u[2] + w[2] * (r * decayed) + w[5] * u[3]);
    return {(1 - z) * decayed + z * c};
  }
};
