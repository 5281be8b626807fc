// The forward pass by chunked Newton on the CPU. The unknowns are the states b_p at the starts of
// the chunks; F_p runs chunk p by the nonlinear step.
//
//   guess     b_p by a burn-in that starts early from zero; run all chunks, writing outputs
//   verify    |b_{p+1} - F_p(b_p)| <= tolerance at every boundary of every column
//   correct   columns that fail: delta_{p+1} = M_p delta_p + F_p(b_p) - b_{p+1}, then run again the
//             chunks whose start moved; a few times
//   repair    what still fails: its chunks in order, each from where the one before ended
//
// A chunk's outputs are always those of the start that is recorded for it, so when every boundary
// passes, the result is the exact trajectory up to the tolerance at those P - 1 points.
#pragma once

#include "pararnn/cpu/boundaries.hpp"

namespace pararnn::cpu {

/// Runs a cell's recurrence. `problem` names u, y, w and checkpoints and the sizes B, T, D; chunks
/// and boundary arrays are this function's. h0 and hT are (B,S,D), h0 may be null for zeros.
template <class T>
Statistics forward(const Kernels<T>& kernels, const Executor& executor, ForwardProblem<T> problem,
                   const Plan& plan, double tolerance, const T* h0, T* hT) {
  problem.chunk = plan.chunk;
  problem.chunks = plan.chunks;
  problem.burn_in = plan.burn_in;
  const int S = kernels.state;
  const std::int64_t batch = problem.batch, chunks = problem.chunks, channels = problem.channels;
  const BoundaryIndex at{chunks, S, channels}, at_jacobian{chunks, S * S, channels};
  std::vector<T> start(batch * chunks * S * channels), end(start.size());
  std::vector<T> jacobian(chunks > 1 ? start.size() * S : 0);
  problem.start = start.data();
  problem.end = end.data();
  problem.jacobian = jacobian.data();
  for (std::int64_t b = 0; h0 && b < batch; ++b) {
    std::memcpy(&start[at(b, 0, 0, 0)], h0 + b * S * channels, sizeof(T) * S * channels);
  }

  Statistics statistics{plan, 0, 0, batch * channels, 0, 0};
  const bool newton = plan.way == Way::kNewton;
  const ForwardPass first_pass = chunks == 1 ? ForwardPass::kGiven
                                 : newton    ? ForwardPass::kBurnInLinearized
                                             : ForwardPass::kBurnIn;
  run_lanes(executor, kernels, kernels.forward, problem, first_pass, all_of(problem.lane_count()));

  // Where chunk p ended against where chunk p + 1 started.
  const auto boundary_fails = [&](std::int64_t b, std::int64_t p, std::int64_t d) {
    for (int s = 0; s < S; ++s) {
      const double left = end[at(b, p, s, d)], right = start[at(b, p + 1, s, d)];
      if (!(mismatch(left, right) <= tolerance * (1 + std::min(std::abs(left), std::abs(right))))) {
        return true;
      }
    }
    return false;
  };

  std::vector<std::int64_t> failing;
  if (chunks > 1) {
    failing = failing_columns(problem, all_of(problem.batch * problem.channels), boundary_fails);
  }
  statistics.columns_corrected = std::int64_t(failing.size());

  // A walk costs each chunk once and needs failing columns enough to fill the machine; Newton
  // iterations cost more work, but work that runs in parallel along the sequence.
  const bool walk =
      !newton && std::int64_t(failing.size()) >= std::int64_t(kernels.lanes) * executor.threads;
  bool have_jacobians = newton;
  for (int k = 0; k < kMaxNewtonIterations && !walk && !failing.empty(); ++k) {
    std::vector<std::int64_t> moved;
    std::vector<T> delta(S), next(S);
    for (const std::int64_t column : failing) {
      const std::int64_t b = column / channels, d = column % channels;
      std::fill(delta.begin(), delta.end(), T(0));
      for (std::int64_t p = 1; p < chunks; ++p) {
        bool moves = !have_jacobians && boundary_fails(b, p - 1, d);
        for (int s = 0; s < S; ++s) {
          T sum = 0;
          for (int i = 0; have_jacobians && i < S; ++i) {
            sum += jacobian[at_jacobian(b, p - 1, s * S + i, d)] * delta[i];
          }
          const T arrived = end[at(b, p - 1, s, d)], from = start[at(b, p, s, d)];
          next[s] = arrived + sum;
          if (!std::isfinite(next[s])) next[s] = arrived;
          delta[s] = next[s] - from;
          if (!std::isfinite(delta[s])) delta[s] = 0;
          const double bar = 0.25 * tolerance * (1 + std::abs(double(from)));
          moves = moves || !(mismatch(next[s], from) <= bar);
        }
        if (!moves) continue;
        for (int s = 0; s < S; ++s) start[at(b, p, s, d)] = next[s];
        moved.push_back(problem.lane(b, p, d));
      }
    }
    // Without Jacobians the correction is one step of fixed-point iteration; every chunk of the
    // column is then run with them.
    if (!have_jacobians) {
      moved.clear();
      for (const std::int64_t column : failing) {
        for (std::int64_t p = 0; p < chunks; ++p) {
          moved.push_back(problem.lane(column / channels, p, column % channels));
        }
      }
      have_jacobians = true;
    }
    std::sort(moved.begin(), moved.end());
    run_lanes(executor, kernels, kernels.forward, problem, ForwardPass::kGivenLinearized, moved);
    statistics.newton_iterations = k + 1;
    failing = failing_columns(problem, failing, boundary_fails);
  }

  if (!failing.empty()) {
    statistics.columns_repaired = std::int64_t(failing.size());
    for (std::int64_t p = 1; p < chunks; ++p) {
      std::vector<std::int64_t> ids;
      for (const std::int64_t column : failing) {
        const std::int64_t b = column / channels, d = column % channels;
        if (!boundary_fails(b, p - 1, d)) continue;
        for (int s = 0; s < S; ++s) start[at(b, p, s, d)] = end[at(b, p - 1, s, d)];
        ids.push_back(problem.lane(b, p, d));
      }
      run_lanes(executor, kernels, kernels.forward, problem, ForwardPass::kGiven, ids);
    }
  }

  for (std::int64_t b = 0; b < batch; ++b) {
    std::memcpy(hT + b * S * channels, &end[at(b, chunks - 1, 0, 0)], sizeof(T) * S * channels);
  }
  for (std::int64_t i = 0; i < batch * (chunks - 1) * S * channels; ++i) {
    const std::int64_t per_row = (chunks - 1) * S * channels, b = i / per_row;
    const std::int64_t offset = b * chunks * S * channels + i % per_row;
    const double m = mismatch(end[offset], start[offset + S * channels]);
    if (!(m <= statistics.largest_mismatch)) statistics.largest_mismatch = m;
  }
  return statistics;
}

}  // namespace pararnn::cpu
