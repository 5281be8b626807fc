#pragma once

#include "pararnn/core/cell.hpp"

namespace pararnn {

/// The simple recurrent network (Elman 1990) with a diagonal recurrence: h ← tanh(u + w h).
struct Elman {
  static constexpr int kState = 1, kInputs = 1, kParams = 1;
  static constexpr const char* kSummary = "simple recurrent network, tanh";
  static constexpr const char* kStateNames[] = {"h"};
  static constexpr const char* kInputNames[] = {"u"};
  static constexpr const char* kParamNames[] = {"w"};

  template <class T>
  PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 1>& u, const Vec<T, 1>& w) {
    return {tanh(u[0] + w[0] * h[0])};
  }
};

}  // namespace pararnn
