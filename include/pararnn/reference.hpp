// The plain loop, forward and backward: the definition of right. Everything else in this project
// is compared with it. No chunks, no threads, no tolerance; memory for every state.
//
//   h_t = f(h_{t-1}, u_t; w),  y_t = h_t[0],  t = 1..T
//   lambda_{t-1} = J_t^T (lambda_t + e_0 dL/dy_t),  lambda_T = dL/dh_T
//
// Contiguous arrays: u (B,T,U,D), w (P,D), h0 and hT (B,S,D), y (B,T,D).
#pragma once

#include <cstdint>
#include <vector>

#include "pararnn/core/cell.hpp"

namespace pararnn {

struct Shape {
  std::int64_t batch, steps, channels;
};

/// One column: the arguments of a step are gathered from arrays whose channels are neighbours.
template <class T, int N>
PARARNN_FN Vec<T, N> load_channel(const T* base, std::int64_t channels) {
  Vec<T, N> v{};
  for (int i = 0; i < N; ++i) v[i] = base[i * channels];
  return v;
}

/// Runs the recurrence; h0 may be null for zeros. Writes y and hT, and, where `states` is not null,
/// the states before each step (B,T,S,D).
template <Cell C, class T>
void reference_forward(const Shape& shape, const T* u, const T* w, const T* h0, T* y, T* hT,
                       T* states = nullptr) {
  constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  const auto [batch, steps, channels] = shape;
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t d = 0; d < channels; ++d) {
      const Vec<T, P> weights = load_channel<T, P>(w + d, channels);
      Vec<T, S> h{};
      if (h0) h = load_channel<T, S>(h0 + b * S * channels + d, channels);
      for (std::int64_t t = 0; t < steps; ++t) {
        const std::int64_t row = b * steps + t;
        if (states) {
          for (int s = 0; s < S; ++s) states[(row * S + s) * channels + d] = h[s];
        }
        h = next_state<C>(h, load_channel<T, U>(u + row * U * channels + d, channels), weights);
        y[row * channels + d] = h[0];
      }
      for (int s = 0; s < S; ++s) hT[(b * S + s) * channels + d] = h[s];
    }
  }
}

/// Gradients of a scalar loss from dy (B,T,D) and dhT (B,S,D). Writes du, dw (summed over the
/// batch) and dh0.
template <Cell C, class T>
void reference_backward(const Shape& shape, const T* u, const T* w, const T* h0, const T* dy,
                        const T* dhT, T* du, T* dw, T* dh0) {
  constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  const auto [batch, steps, channels] = shape;
  std::vector<T> y(batch * steps * channels), hT(batch * S * channels);
  std::vector<T> states(batch * steps * S * channels);
  reference_forward<C, T>(shape, u, w, h0, y.data(), hT.data(), states.data());
  for (std::int64_t i = 0; i < P * channels; ++i) dw[i] = T(0);
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t d = 0; d < channels; ++d) {
      const Vec<T, P> weights = load_channel<T, P>(w + d, channels);
      Vec<T, S> lambda = load_channel<T, S>(dhT + b * S * channels + d, channels);
      for (std::int64_t t = steps - 1; t >= 0; --t) {
        const std::int64_t row = b * steps + t;
        lambda[0] += dy[row * channels + d];
        const auto g =
            vjp<C>(load_channel<T, S>(states.data() + row * S * channels + d, channels),
                   load_channel<T, U>(u + row * U * channels + d, channels), weights, lambda);
        for (int i = 0; i < U; ++i) du[(row * U + i) * channels + d] = g.u[i];
        for (int i = 0; i < P; ++i) dw[i * channels + d] += g.w[i];
        lambda = g.h;
      }
      for (int s = 0; s < S; ++s) dh0[(b * S + s) * channels + d] = lambda[s];
    }
  }
}

}  // namespace pararnn
