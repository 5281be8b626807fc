// The LSTM whose gates see the memory cell.
//
// F. Gers, N. Schraudolph, J. Schmidhuber. Learning precise timing with LSTM recurrent networks.
// JMLR 3, 2002.
#pragma once

#include "pararnn/cell.hpp"

using pararnn::Vec;

struct PeepholeLstm {
  static constexpr int kState = 2, kInputs = 4, kParams = 7;
  static constexpr const char* kSummary = "LSTM with peepholes";
  static constexpr const char* kStateNames[] = {"h", "c"};
  static constexpr const char* kInputNames[] = {"f", "i", "o", "g"};
  static constexpr const char* kParamNames[] = {"w_f", "w_i", "w_o", "w_g", "p_f", "p_i", "p_o"};

  template <class T>
  PARARNN_FN static Vec<T, 2> step(const Vec<T, 2>& s, const Vec<T, 4>& u, const Vec<T, 7>& w) {
    const T f = sigmoid(u[0] + w[0] * s[0] + w[4] * s[1]);
    const T i = sigmoid(u[1] + w[1] * s[0] + w[5] * s[1]);
    const T g = tanh(u[3] + w[3] * s[0]);
    const T c = f * s[1] + i * g;
    const T o = sigmoid(u[2] + w[2] * s[0] + w[6] * c);
    return {o * tanh(c), c};
  }
};
