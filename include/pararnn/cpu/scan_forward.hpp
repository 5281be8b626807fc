// The forward pass by chunked Newton on the CPU. The unknowns are the states b_p at the starts of
// the chunks; F_p runs chunk p by the nonlinear step.
//
//   sequential   one chunk
//   speculative  b_p by a burn-in that starts early from zero; run all chunks, writing outputs
//   newton       the same without outputs; correct every b_p; run all chunks, writing outputs
//
// and then, where there are several chunks:
//
//   verify       F_p(b_p) equals b_{p+1}, to the tolerance, at every boundary of every column
//   correct      columns that fail: delta_{p+1} = M_p delta_p + F_p(b_p) - b_{p+1}, then run again
//                the chunks whose start moved; a few times
//   repair       what still fails: its chunks in order, each from where the one before ended
//
// A chunk's outputs are always those of the start that is recorded for it, so when every boundary
// passes, the result is the exact trajectory up to the tolerance at those P - 1 points.
#pragma once

#include "pararnn/cpu/verification.hpp"
#include "pararnn/mismatch.hpp"

namespace pararnn::cpu {

/// Runs a cell's recurrence. `problem` names tensors, tolerance and the sizes B, T, D; the rest of
/// it is this function's. Writes y, hT and, if wanted, checkpoints.
template <class T>
Statistics scan_forward(const Kernels<T>& kernels, const Executor& executor,
                        ForwardProblem<T> problem, const Plan& plan) {
  problem.size.chunk = plan.chunk;
  problem.size.chunks = plan.chunks;
  problem.size.burn_in = plan.burn_in;
  const Chunking& size = problem.size;
  const int S = kernels.state;
  const std::int64_t batch = size.batch, chunks = size.chunks, channels = size.channels;
  const BoundaryIndex at{chunks, S, channels}, at_jacobian{chunks, S * S, channels};
  std::vector<T> start(batch * chunks * S * channels), end(start.size());
  std::vector<T> jacobian(chunks > 1 ? start.size() * S : 0);
  problem.start = start.data();
  problem.end = end.data();
  problem.jacobian = jacobian.data();
  const std::vector<BlockStarts> starts = block_starts(size, problem.sequences);
  problem.starts = starts.empty() ? nullptr : starts.data();
  for (std::int64_t b = 0; problem.h0 && b < batch; ++b) {
    const std::int64_t row = first_state(problem.sequences, size, b);
    if (row < 0) continue;
    std::copy_n(problem.h0 + row * S * channels, S * channels, &start[at(b, 0, 0, 0)]);
  }
  const std::vector<std::int64_t> columns = all_of(batch * channels);
  const std::vector<std::int64_t> lanes = all_of(size.lane_count());
  const auto run = [&](ForwardPass pass, const std::vector<std::int64_t>& ids) {
    run_lanes(executor, kernels, kernels.forward, problem, pass, ids);
  };

  // Where chunk p ended against where chunk p + 1 started.
  const auto mismatch = [&](std::int64_t b, std::int64_t p, int s, std::int64_t d) {
    return state_mismatch(end[at(b, p, s, d)], start[at(b, p + 1, s, d)]);
  };
  const auto boundary_fails = [&](std::int64_t b, std::int64_t p, std::int64_t d) {
    for (int s = 0; s < S; ++s) {
      if (!mismatch(b, p, s, d).passes(problem.tolerance)) return true;
    }
    return false;
  };

  // Corrects the starts of some columns, by the Jacobians or, while there are none, by one step of
  // fixed-point iteration. Returns the lanes whose start moved.
  const auto correct = [&](const std::vector<std::int64_t>& among, bool have_jacobians) {
    std::vector<std::int64_t> moved;
    std::vector<T> delta(S), next(S);
    for (const std::int64_t column : among) {
      const std::int64_t b = column / channels, d = column % channels;
      std::fill(delta.begin(), delta.end(), T(0));
      for (std::int64_t p = 1; p < chunks; ++p) {
        bool moves = !have_jacobians && boundary_fails(b, p - 1, d);
        for (int s = 0; s < S; ++s) {
          T carried = 0;
          // The first chunk's start is given, and nobody asks for its Jacobian.
          for (int i = 0; have_jacobians && p > 1 && i < S; ++i) {
            carried += jacobian[at_jacobian(b, p - 1, s * S + i, d)] * delta[i];
          }
          const T arrived = end[at(b, p - 1, s, d)], from = start[at(b, p, s, d)];
          next[s] = arrived + carried;
          if (!std::isfinite(next[s])) next[s] = arrived;
          moves = moves || !state_mismatch(next[s], from).passes(0.25 * problem.tolerance);
        }
        for (int s = 0; s < S; ++s) {
          delta[s] = next[s] - start[at(b, p, s, d)];
          if (!std::isfinite(delta[s])) delta[s] = 0;
        }
        if (!moves) continue;
        for (int s = 0; s < S; ++s) start[at(b, p, s, d)] = next[s];
        moved.push_back(size.lane(b, p, d));
      }
    }
    std::sort(moved.begin(), moved.end());
    return moved;
  };

  const bool newton = chunks > 1 && plan.way == Way::kNewton;
  if (newton) {
    run(ForwardPass::kMap, lanes);
    correct(columns, true);
  }
  run(chunks == 1 || newton ? ForwardPass::kGiven : ForwardPass::kBurnIn, lanes);

  Statistics statistics{plan, 0, newton ? 1 : 0, batch * channels, 0, 0};
  std::vector<std::int64_t> failing = failing_columns(size, columns, boundary_fails);
  statistics.columns_corrected = std::int64_t(failing.size());
  const bool walks = walks_at_once(plan, failing.size(), kernels, executor);
  for (int k = 0; k < kMaxNewtonIterations && !walks && !failing.empty(); ++k) {
    const bool have_jacobians = newton || k > 0;
    std::vector<std::int64_t> again = correct(failing, have_jacobians);
    // Every chunk that has a Jacobian at all is to have it from here on.
    if (!have_jacobians) again = lanes_of(size, failing, 1, chunks);
    run(ForwardPass::kGivenLinearized, again);
    ++statistics.newton_iterations;
    failing = failing_columns(size, failing, boundary_fails);
  }
  statistics.columns_repaired = std::int64_t(failing.size());
  for (std::int64_t p = 1; p < chunks && !failing.empty(); ++p) {
    std::vector<std::int64_t> again;
    for (const std::int64_t column : failing) {
      const std::int64_t b = column / channels, d = column % channels;
      if (!boundary_fails(b, p - 1, d)) continue;
      for (int s = 0; s < S; ++s) start[at(b, p, s, d)] = end[at(b, p - 1, s, d)];
      again.push_back(size.lane(b, p, d));
    }
    run(ForwardPass::kGiven, again);
  }

  if (problem.sequences.offsets) {
    copy_states_of_empty(problem.sequences, S * channels, problem.h0, problem.hT);
  } else {
    for (std::int64_t b = 0; b < batch; ++b) {
      std::copy_n(&end[at(b, chunks - 1, 0, 0)], S * channels, problem.hT + b * S * channels);
    }
  }
  statistics.largest_mismatch = largest_mismatch(size, S, mismatch);
  return statistics;
}

}  // namespace pararnn::cpu
