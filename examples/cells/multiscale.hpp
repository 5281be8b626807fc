// Hidden units of several time constants, which see one another.
//
// M. Mozer. Induction of multiscale temporal structure. NIPS 1991.
#pragma once

#include "pararnn/cell.hpp"

using pararnn::Vec;

struct Multiscale {
  static constexpr int kState = 3, kInputs = 1, kParams = 3;
  static constexpr const char* kSummary = "units of three time constants";
  static constexpr const char* kStateNames[] = {"fast", "medium", "slow"};
  static constexpr const char* kInputNames[] = {"u"};
  static constexpr const char* kParamNames[] = {"w_fast", "w_medium", "w_slow"};

  template <class T>
  PARARNN_FN static Vec<T, 3> step(const Vec<T, 3>& s, const Vec<T, 1>& u, const Vec<T, 3>& w) {
    const T c = tanh(u[0] + w[0] * s[0] + w[1] * s[1] + w[2] * s[2]);
    return {0.5 * s[0] + 0.5 * c, 0.9 * s[1] + 0.1 * c, 0.99 * s[2] + 0.01 * c};
  }
};
