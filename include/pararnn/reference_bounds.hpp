// How far from the plain loop a right result may be. A chaotic recurrence amplifies a rounding a
// millionfold in any arithmetic, so no fixed tolerance on y can tell right from wrong. This is the
// first-order propagation of all that the method permits, rigorous where errors are small:
//
//   forward    e_t = |J_t| e_{t-1} + r_t,    |J_t| enclosed over all states within e_{t-1}
//   backward   m_{t-1} = |J_t|^T m_t + |error of J_t|^T |lambda_t| + r_t
//
// r_t bounds the rounding of one step (core/bounded.hpp). At chunk boundaries the tolerance is
// added: forward relative to 1 + |state|, backward relative to the largest adjoint in the chunk.
//
// Given a trajectory to follow (y, and checkpoints of the state), the states are taken from there
// rather than from the loop. Then y is compared with one step from the given state before it, and
// the gradients with those along the given states: errors have no room to grow, and the comparison
// is strict at any weights.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "pararnn/core/bounded.hpp"
#include "pararnn/method.hpp"
#include "pararnn/reference.hpp"

namespace pararnn {

/// Values and the largest error that each may have; shapes as in reference.hpp. A bound is NaN
/// where a number may have overflowed, or come from one that has: then anything is right, also what
/// is not finite.
struct BoundedArray {
  std::vector<double> value, bound;
  explicit BoundedArray(std::int64_t size = 0) : value(size), bound(size) {}
};

struct BoundedResult {
  BoundedArray y, hT, du, dw, dh0;
  BoundedArray states;  // (B,ceil(T/16),S,D): the state before each checkpoint, without the
                        // tolerance at a boundary that lies there
};

/// What the method is allowed: chunks and the tolerance at their boundaries.
struct Permitted {
  std::int64_t forward_chunk, backward_chunk;
  double tolerance;
};

/// A trajectory to follow: y (B,T,D) and checkpoints (B,ceil(T/16),S,D).
struct Trajectory {
  const double* y;
  const double* checkpoints;
};

/// The result of the plain loop in double, and how far from it one in `Arithmetic` may be.
/// Arguments as in reference.hpp; h0 and `follow` may be null.
template <Cell C, class Arithmetic>
BoundedResult reference_bounds(const Shape& shape, const double* u, const double* w,
                               const double* h0, const double* dy, const double* dhT,
                               const Permitted& permitted, const Trajectory* follow = nullptr,
                               const Sequences& sequences = {}) {
  using Number = Bounded<Arithmetic>;
  constexpr int S = C::kState, U = C::kInputs, P = C::kParams, N = S + U + P;
  constexpr double kUnit = Rounding<Arithmetic>::kUnit, kLargest = Rounding<Arithmetic>::kLargest;
  const auto [batch, steps, channels] = shape;
  const std::int64_t checkpoints = (steps + kChunkUnit - 1) / kChunkUnit;
  const std::int64_t finals = sequences.offsets ? sequences.count : batch;
  BoundedResult result{
      BoundedArray(batch * steps * channels),     BoundedArray(finals * S * channels),
      BoundedArray(batch * steps * U * channels), BoundedArray(P * channels),
      BoundedArray(finals * S * channels),        BoundedArray(batch * checkpoints * S * channels)};
  // A bound that overflowed, or is not a number, is no bound.
  const auto bound = [](double x) { return x == x ? x : __builtin_inf(); };
  constexpr double kMost = 1e9;  // relative errors beyond this have nothing more to say

  std::vector<Mat<Number, S, N>> jacobians(steps);
  std::vector<Vec<double, S>> lambdas(steps);
  std::vector<double> peaks(permitted.backward_chunk > 0 ? steps / permitted.backward_chunk + 1
                                                         : 1);
  std::vector<Vec<double, P>> sums(channels);  // of dw, over a chunk
  std::vector<Segment> segments = segments_of(shape, sequences);
  std::reverse(segments.begin(), segments.end());
  for (const auto& [b, begin, end, initial, final] : segments) {
    for (std::int64_t d = 0; d < channels; ++d) {
      Vec<Number, P> weights{};
      for (int i = 0; i < P; ++i) weights[i] = Number(w[i * channels + d], 0);
      Vec<double, S> h{}, apart{},
          drift{};        // state; errors since the given state; since checkpoint
      bool lost = false;  // a state may have overflowed
      const auto state_bound = [&](double x) { return lost ? __builtin_nan("") : bound(x); };
      if (const double* from = states_of(h0, initial, S, shape)) {
        h = load_channel<double, S>(from + d, channels);
      }
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int64_t row = b * steps + t;
        if (t % kChunkUnit == 0) {
          const std::int64_t at = (b * checkpoints + t / kChunkUnit) * S * channels + d;
          for (int s = 0; s < S; ++s) {
            result.states.value[at + s * channels] = h[s];
            result.states.bound[at + s * channels] = state_bound(apart[s]);
            if (follow) {
              h[s] = follow->checkpoints[at + s * channels];
              apart[s] = drift[s] = 0;
            } else if (t > begin && t % permitted.forward_chunk == 0) {
              apart[s] += permitted.tolerance * (1 + std::abs(h[s]) + apart[s]);
            }
          }
        }
        Vec<Number, U> input{};
        for (int i = 0; i < U; ++i) input[i] = Number(u[(row * U + i) * channels + d], 0);
        Vec<Number, S> exact{}, enclosed{};
        for (int s = 0; s < S; ++s) {
          exact[s] = Number(h[s], 0);
          enclosed[s] = Number(h[s], std::max(apart[s], drift[s]));
        }
        const Vec<Number, S> next = next_state<C>(exact, input, weights);
        jacobians[t] = differentiate<C, N>(enclosed, input, weights).jacobian;
        const auto carry = [&](const Vec<double, S>& error) {
          Vec<double, S> carried{};
          for (int s = 0; s < S; ++s) {
            carried[s] = next[s].error;
            for (int i = 0; i < S; ++i) {
              const Number& j = jacobians[t](s, i);
              if (error[i] > 0) carried[s] += (std::abs(j.value) + j.error) * error[i];
            }
            const double most = kMost * (1 + bound(std::abs(next[s].value)));
            carried[s] = carried[s] < most ? carried[s] : most;
          }
          return carried;
        };
        apart = carry(apart);
        drift = follow ? carry(drift) : apart;
        for (int s = 0; s < S; ++s) {
          h[s] = next[s].value;
          lost = lost || !(std::abs(h[s]) + apart[s] < kLargest);
        }
        result.y.value[row * channels + d] = h[0];
        result.y.bound[row * channels + d] = state_bound(apart[0]);
        if (follow) {
          h[0] = follow->y[row * channels + d];
          if (t + 1 < end && (t + 1) % kChunkUnit != 0) apart[0] = 0;
        }
      }
      for (int s = 0; final >= 0 && s < S; ++s) {
        const std::int64_t at = (final * S + s) * channels + d;
        result.hT.value[at] = h[s];
        result.hT.bound[at] = state_bound(apart[s]);
      }

      Vec<double, S> mu{};
      if (const double* from = states_of(dhT, final, S, shape)) {
        mu = load_channel<double, S>(from + d, channels);
      }
      for (std::int64_t t = begin; t < end; ++t) peaks[t / permitted.backward_chunk] = 0;
      for (std::int64_t t = end - 1; t >= begin; --t) {
        lambdas[t] = mu;
        lambdas[t][0] += dy[(b * steps + t) * channels + d];
        for (int i = 0; i < S; ++i) {
          mu[i] = 0;
          double& peak = peaks[t / permitted.backward_chunk];
          peak = std::max(peak, std::abs(lambdas[t][i]));
          for (int s = 0; s < S; ++s) mu[i] += lambdas[t][s] * jacobians[t](s, i).value;
        }
      }
      for (int s = 0; initial >= 0 && s < S; ++s) {
        result.dh0.value[(initial * S + s) * channels + d] = mu[s];
      }

      Vec<double, S> error{};
      Vec<double, P>& sum = sums[d];
      bool overflows = lost;
      // Along given states only a gradient that is itself too large has overflowed; elsewhere also
      // one of which nothing is known.
      const auto may_overflow = [&](double value, double off) {
        const bool known = off < __builtin_inf();
        return (!known && !follow) || std::abs(value) + (known ? off : 0) >= kLargest;
      };
      for (std::int64_t t = end - 1; t >= begin; --t) {
        const std::int64_t row = b * steps + t;
        const bool ends_chunk = (t + 1) % permitted.backward_chunk == 0 || t + 1 == steps;
        if (ends_chunk) sum = {};
        for (int s = 0; s < S; ++s) {
          if (ends_chunk && t + 1 < end) {
            error[s] += permitted.tolerance * (peaks[t / permitted.backward_chunk] + error[s]);
          }
          error[s] += kUnit * (std::abs(lambdas[t][s]) + error[s]);
        }
        Vec<double, S> before{};
        for (int i = 0; i < N; ++i) {
          double value = 0, off = Rounding<Arithmetic>::kSmallest;
          for (int s = 0; s < S; ++s) {
            const Number& j = jacobians[t](s, i);
            const double size = std::abs(j.value) + j.error, lambda = std::abs(lambdas[t][s]);
            value += lambdas[t][s] * j.value;
            if (error[s] > 0) off += size * error[s];
            if (lambda > 0) off += j.error * lambda + 2 * S * kUnit * size * lambda;
          }
          off = bound(off);
          overflows = overflows || may_overflow(value, off);
          if (overflows) off = __builtin_nan("");
          if (i < S) {
            before[i] = off;
          } else if (i < S + U) {
            result.du.value[(row * U + i - S) * channels + d] = value;
            result.du.bound[(row * U + i - S) * channels + d] = off;
          } else {
            const int p = i - S - U;
            sum[p] += value;
            result.dw.value[p * channels + d] += value;
            result.dw.bound[p * channels + d] += off + bound(kUnit * std::abs(sum[p]));
          }
        }
        error = before;
      }
      for (int s = 0; initial >= 0 && s < S; ++s) {
        result.dh0.bound[(initial * S + s) * channels + d] = error[s];
      }
    }
  }
  for (std::int64_t i = 0; i < P * channels; ++i) {
    result.dw.bound[i] += kUnit * std::abs(result.dw.value[i]);
  }
  return result;
}

}  // namespace pararnn
