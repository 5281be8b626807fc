// The coupled oscillatory RNN: a damped, driven oscillator with position y and velocity z.
//
// T. K. Rusch, S. Mishra. Coupled oscillatory recurrent neural network (coRNN). ICLR 2021; the
// step, stiffness and damping are those of its sequential MNIST.
#pragma once

#include "pararnn/cell.hpp"

using pararnn::Vec;

struct Cornn {
  static constexpr int kState = 2, kInputs = 1, kParams = 2;
  static constexpr const char* kSummary = "coupled oscillatory RNN";
  static constexpr const char* kStateNames[] = {"y", "z"};
  static constexpr const char* kInputNames[] = {"u"};
  static constexpr const char* kParamNames[] = {"w_y", "w_z"};
  static constexpr double kStep = 0.042;

  template <class T>
  PARARNN_FN static Vec<T, 2> step(const Vec<T, 2>& s, const Vec<T, 1>& u, const Vec<T, 2>& w) {
    const T force = tanh(u[0] + w[0] * s[0] + w[1] * s[1]);
    const T z = s[1] + kStep * (force - 2.7 * s[0] - 4.7 * s[1]);
    return {s[0] + kStep * z, z};
  }
};
