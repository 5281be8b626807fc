// The minimal GRU, whose gate does not see the state: its recurrence is linear, so one correction
// of Newton's method is all that it ever needs.
//
// L. Feng, F. Tung, M. O. Ahmed, Y. Bengio, H. Hajimirsadeghi. Were RNNs all we needed?
// arXiv:2410.01201, 2024.
#pragma once

#include "pararnn/cell.hpp"

using pararnn::Vec;

struct MinGru {
  static constexpr int kState = 1, kInputs = 2, kParams = 0;
  static constexpr const char* kSummary = "minimal gated recurrent unit, linear in its state";
  static constexpr const char* kStateNames[] = {"h"};
  static constexpr const char* kInputNames[] = {"z", "c"};

  template <class T>
  PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 2>& u, const Vec<T, 0>&) {
    const T z = sigmoid(u[0]);
    return {(1 - z) * h[0] + z * u[1]};
  }
};
