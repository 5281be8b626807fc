// The logistic map, moved to [-1, 1] and pushed a little by its input: a cell that is chaotic
// whatever its weights. Nothing but the sequence itself can run it.
//
// R. May. Simple mathematical models with very complicated dynamics. Nature 261, 1976.
#pragma once

#include "pararnn/cell.hpp"

using pararnn::Vec;

struct LogisticMap {
  static constexpr int kState = 1, kInputs = 1, kParams = 1;
  static constexpr const char* kSummary = "logistic map, chaotic";
  static constexpr const char* kStateNames[] = {"x"};
  static constexpr const char* kInputNames[] = {"u"};
  static constexpr const char* kParamNames[] = {"w"};

  template <class T>
  PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 1>& u, const Vec<T, 1>& w) {
    const T x = max(-1, min(1, h[0] + 0.01 * tanh(u[0] + w[0] * h[0])));
    return {1 - 2 * square(x)};
  }
};
