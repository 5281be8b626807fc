// The independently recurrent network with the rectifier: keep |w| at 1 or below.
//
// S. Li, W. Li, C. Cook, C. Zhu, Y. Gao. Independently recurrent neural network (IndRNN): building
// a longer and deeper RNN. CVPR 2018.
#pragma once

#include "pararnn/cell.hpp"

using pararnn::Vec;

struct IndrnnRelu {
  static constexpr int kState = 1, kInputs = 1, kParams = 1;
  static constexpr const char* kSummary = "independently recurrent network, rectifier";
  static constexpr const char* kStateNames[] = {"h"};
  static constexpr const char* kInputNames[] = {"u"};
  static constexpr const char* kParamNames[] = {"w"};

  template <class T>
  PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 1>& u, const Vec<T, 1>& w) {
    return {relu(u[0] + w[0] * h[0])};
  }
};
