// The plain loop, forward and backward: the definition of right. Everything else in this project
// is compared with it. No chunks, no threads, no tolerance; memory for every state.
//
//   h_t = f(h_{t-1}, u_t; w),  y_t = h_t[0],  t = 1..T
//   lambda_{t-1} = J_t^T (lambda_t + e_0 dL/dy_t),  lambda_T = dL/dh_T
//
// Contiguous arrays: u (B,T,U,D), w (P,D), h0 and hT (B,S,D), y (B,T,D). Of N sequences in one row
// (sequences.hpp), h0 and hT are (N,S,D).
#pragma once

#include <cstdint>
#include <vector>

#include "pararnn/core/cell.hpp"
#include "pararnn/sequences.hpp"

namespace pararnn {

struct Shape {
  std::int64_t batch, steps, channels;
};

/// Steps [begin, end) of a row, run from initial state number `initial` to final state number
/// `final`; -1: from zero, to nowhere.
struct Segment {
  std::int64_t row, begin, end, initial, final;
};

/// All rows, in order, cut where the state starts anew.
inline std::vector<Segment> segments_of(const Shape& shape, const Sequences& sequences) {
  std::vector<Segment> segments;
  if (sequences.offsets) {
    for (int n = 0; n < sequences.count; ++n) {
      segments.push_back({0, sequences.offsets[n], sequences.offsets[n + 1], n, n});
    }
    return segments;
  }
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    segments.push_back({b, 0, shape.steps, b, b});
    for (std::int64_t t = 0; sequences.reset && t < shape.steps; ++t) {
      if (!sequences.reset[b * shape.steps + t]) continue;
      segments.back().end = t;
      segments.back().final = -1;
      segments.push_back({b, t, shape.steps, -1, b});
    }
  }
  return segments;
}

/// The states (S,D) of a segment's initial or final state among those of all.
template <class T>
T* states_of(T* states, std::int64_t number, int components, const Shape& shape) {
  return number < 0 || !states ? nullptr : states + number * components * shape.channels;
}

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
                       T* states = nullptr, const Sequences& sequences = {}) {
  constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  const std::int64_t channels = shape.channels;
  for (const Segment& segment : segments_of(shape, sequences)) {
    const T* initial = states_of(h0, segment.initial, S, shape);
    T* final = states_of(hT, segment.final, S, shape);
    for (std::int64_t d = 0; d < channels; ++d) {
      const Vec<T, P> weights = load_channel<T, P>(w + d, channels);
      Vec<T, S> h{};
      if (initial) h = load_channel<T, S>(initial + d, channels);
      for (std::int64_t t = segment.begin; t < segment.end; ++t) {
        const std::int64_t row = segment.row * shape.steps + t;
        if (states) {
          for (int s = 0; s < S; ++s) states[(row * S + s) * channels + d] = h[s];
        }
        h = next_state<C>(h, load_channel<T, U>(u + row * U * channels + d, channels), weights);
        y[row * channels + d] = h[0];
      }
      for (int s = 0; final && s < S; ++s) final[s * channels + d] = h[s];
    }
  }
}

/// Gradients of a scalar loss from dy (B,T,D) and dhT (B,S,D). Writes du, dw (summed over the
/// batch) and dh0.
template <Cell C, class T>
void reference_backward(const Shape& shape, const T* u, const T* w, const T* h0, const T* dy,
                        const T* dhT, T* du, T* dw, T* dh0, const Sequences& sequences = {}) {
  constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  const auto [batch, steps, channels] = shape;
  const std::int64_t finals = sequences.offsets ? sequences.count : batch;
  std::vector<T> y(batch * steps * channels), hT(finals * S * channels);
  std::vector<T> states(batch * steps * S * channels);
  reference_forward<C, T>(shape, u, w, h0, y.data(), hT.data(), states.data(), sequences);
  for (std::int64_t i = 0; i < P * channels; ++i) dw[i] = T(0);
  for (std::int64_t i = 0; i < finals * S * channels; ++i) dh0[i] = T(0);
  for (const Segment& segment : segments_of(shape, sequences)) {
    const T* final = states_of(dhT, segment.final, S, shape);
    T* initial = states_of(dh0, segment.initial, S, shape);
    for (std::int64_t d = 0; d < channels; ++d) {
      const Vec<T, P> weights = load_channel<T, P>(w + d, channels);
      Vec<T, S> lambda{};
      if (final) lambda = load_channel<T, S>(final + d, channels);
      for (std::int64_t t = segment.end - 1; t >= segment.begin; --t) {
        const std::int64_t row = segment.row * steps + t;
        lambda[0] += dy[row * channels + d];
        const auto g =
            vjp<C>(load_channel<T, S>(states.data() + row * S * channels + d, channels),
                   load_channel<T, U>(u + row * U * channels + d, channels), weights, lambda);
        for (int i = 0; i < U; ++i) du[(row * U + i) * channels + d] = g.u[i];
        for (int i = 0; i < P; ++i) dw[i * channels + d] += g.w[i];
        lambda = g.h;
      }
      for (int s = 0; initial && s < S; ++s) initial[s * channels + d] = lambda[s];
    }
  }
}

}  // namespace pararnn
