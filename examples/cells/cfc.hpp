// The closed-form continuous-time cell: between two targets, by a gate that closes with the time t
// since the step before, which is an input of its own.
//
// R. Hasani, M. Lechner and others. Closed-form continuous-time neural networks. Nature Machine
// Intelligence 4, 2022.
#pragma once

#include "pararnn/cell.hpp"

using pararnn::Vec;

struct Cfc {
  static constexpr int kState = 1, kInputs = 4, kParams = 3;
  static constexpr const char* kSummary = "closed-form continuous-time cell";
  static constexpr const char* kStateNames[] = {"x"};
  static constexpr const char* kInputNames[] = {"f", "g", "h", "t"};
  static constexpr const char* kParamNames[] = {"w_f", "w_g", "w_h"};
  static constexpr int kSideInputs[] = {3};

  template <class T>
  PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 4>& u, const Vec<T, 3>& w) {
    const T f = u[0] + w[0] * h[0];
    const T gate = sigmoid(-f * u[3]);
    return {gate * tanh(u[1] + w[1] * h[0]) + (1 - gate) * tanh(u[2] + w[2] * h[0])};
  }
};
