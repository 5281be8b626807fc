// The backward pass on the CPU. The adjoint obeys a linear recurrence from right to left,
// mu_{t-1} = J_t^T (mu_t + e_0 dL/dy_t), over the same kind of chunks as the forward pass:
//
//   guess     the adjoint at a chunk's end by a burn-in that starts beyond it from zero
//   verify    it equals the adjoint at which the next chunk arrived, to the tolerance relative to
//             the largest adjoint in the chunk: gradients have no scale of their own
//   correct   columns that fail: each chunk's affine map, a scan over the maps, and the chunks
//             whose end moved again; exact in one step, since the recurrence is linear
//   repair    what still fails (maps that overflow): its chunks in order
//
// Each chunk leaves its part of the parameters' gradient; the parts are summed in a fixed order.
#pragma once

#include "pararnn/cpu/boundaries.hpp"

namespace pararnn::cpu {

/// Gradients of a recurrence. `problem` names u, dy, du, w, checkpoints, final_adjoint and the
/// sizes B, T, D. Writes du, dw (P,D) summed over rows and chunks, and dh0 (B,S,D).
template <class T>
Statistics backward(const Kernels<T>& kernels, const Executor& executor, BackwardProblem<T> problem,
                    const Plan& plan, double tolerance, T* dw, T* dh0) {
  problem.chunk = plan.chunk;
  problem.chunks = plan.chunks;
  problem.burn_in = plan.burn_in;
  const int S = kernels.state;
  const std::int64_t batch = problem.batch, chunks = problem.chunks, channels = problem.channels;
  const BoundaryIndex at{chunks, S, channels}, at_map{chunks, S * S, channels};
  const std::int64_t boundary_size = batch * chunks * S * channels;
  std::vector<T> start(boundary_size), end(boundary_size), peak(batch * chunks * channels);
  std::vector<T> map_matrix(chunks > 1 ? boundary_size * S : 0);
  std::vector<T> map_offset(chunks > 1 ? boundary_size : 0);
  std::vector<T> dw_parts(batch * chunks * kernels.params * channels);
  problem.start = start.data();
  problem.end = end.data();
  problem.peak = peak.data();
  problem.map_matrix = map_matrix.data();
  problem.map_offset = map_offset.data();
  problem.dw = dw_parts.data();
  for (std::int64_t b = 0; b < batch; ++b) {
    std::memcpy(&end[at(b, chunks - 1, 0, 0)], problem.final_adjoint + b * S * channels,
                sizeof(T) * S * channels);
  }

  Statistics statistics{plan, 0, 0, batch * channels, 0, 0};
  // Chunk p's adjoint at its end against the one at which chunk p + 1 arrived.
  const auto boundary_fails = [&](std::int64_t b, std::int64_t p, std::int64_t d) {
    const double scale = peak[problem.lane(b, p, d)];
    for (int s = 0; s < S; ++s) {
      const double left = end[at(b, p, s, d)], right = start[at(b, p + 1, s, d)];
      const double size = std::max(scale, std::min(std::abs(left), std::abs(right)));
      if (!(mismatch(left, right) <= tolerance * size)) return true;
    }
    return false;
  };
  // The affine maps of all chunks but the first, whose adjoint nobody waits for, the scan over
  // them, and the lanes whose end moved; all of them if nothing was run before.
  const auto correct = [&](const std::vector<std::int64_t>& columns, bool run_before) {
    std::vector<std::int64_t> ids;
    for (const std::int64_t column : columns) {
      for (std::int64_t p = 1; p < chunks; ++p) {
        ids.push_back(problem.lane(column / channels, p, column % channels));
      }
    }
    std::sort(ids.begin(), ids.end());
    run_lanes(executor, kernels, kernels.backward, problem, BackwardPass::kMap, ids);
    ids.clear();
    std::vector<T> mu(S), next(S);
    for (const std::int64_t column : columns) {
      const std::int64_t b = column / channels, d = column % channels;
      for (int s = 0; s < S; ++s) mu[s] = end[at(b, chunks - 1, s, d)];
      if (!run_before) ids.push_back(problem.lane(b, chunks - 1, d));
      for (std::int64_t p = chunks - 2; p >= 0; --p) {
        bool moved = !run_before;
        const double scale = run_before ? peak[problem.lane(b, p, d)] : 0;
        for (int s = 0; s < S; ++s) {
          next[s] = map_offset[at(b, p + 1, s, d)];
          for (int i = 0; i < S; ++i) {
            next[s] += map_matrix[at_map(b, p + 1, s * S + i, d)] * mu[i];
          }
          moved = moved || !(mismatch(next[s], end[at(b, p, s, d)]) <= 0.25 * tolerance * scale);
        }
        mu = next;
        if (!moved) continue;
        for (int s = 0; s < S; ++s) end[at(b, p, s, d)] = mu[s];
        ids.push_back(problem.lane(b, p, d));
      }
    }
    std::sort(ids.begin(), ids.end());
    run_lanes(executor, kernels, kernels.backward, problem, BackwardPass::kGiven, ids);
    statistics.newton_iterations += 1;
  };

  const std::vector<std::int64_t> columns = all_of(batch * channels);
  if (chunks > 1 && plan.way == Way::kNewton) {
    correct(columns, false);
  } else {
    run_lanes(executor, kernels, kernels.backward, problem,
              chunks == 1 ? BackwardPass::kGiven : BackwardPass::kBurnIn,
              all_of(problem.lane_count()));
  }

  std::vector<std::int64_t> failing = failing_columns(problem, columns, boundary_fails);
  statistics.columns_corrected = std::int64_t(failing.size());
  // As in the forward pass: a walk when the failing columns fill the machine by themselves.
  const bool walk = std::int64_t(failing.size()) >= std::int64_t(kernels.lanes) * executor.threads;
  if (!failing.empty() && !walk && plan.way == Way::kSpeculative) {
    correct(failing, true);
    failing = failing_columns(problem, failing, boundary_fails);
  }
  statistics.columns_repaired = std::int64_t(failing.size());
  for (std::int64_t p = chunks - 2; p >= 0 && !failing.empty(); --p) {
    std::vector<std::int64_t> ids;
    for (const std::int64_t column : failing) {
      const std::int64_t b = column / channels, d = column % channels;
      if (!boundary_fails(b, p, d)) continue;
      for (int s = 0; s < S; ++s) end[at(b, p, s, d)] = start[at(b, p + 1, s, d)];
      ids.push_back(problem.lane(b, p, d));
    }
    run_lanes(executor, kernels, kernels.backward, problem, BackwardPass::kGiven, ids);
  }

  for (std::int64_t b = 0; b < batch; ++b) {
    std::memcpy(dh0 + b * S * channels, &start[at(b, 0, 0, 0)], sizeof(T) * S * channels);
    for (std::int64_t p = 0; p + 1 < chunks; ++p) {
      for (std::int64_t i = 0; i < S * channels; ++i) {
        const double scale = peak[problem.lane(b, p, i % channels)];
        const double m = mismatch(end[at(b, p, 0, 0) + i], start[at(b, p + 1, 0, 0) + i]);
        const double relative = m == 0 ? 0 : m / scale;
        if (!(relative <= statistics.largest_mismatch)) statistics.largest_mismatch = relative;
      }
    }
  }
  const std::int64_t parameters = kernels.params * channels;
  std::vector<double> sum(parameters);
  for (std::int64_t part = 0; part < batch * chunks; ++part) {
    for (std::int64_t i = 0; i < parameters; ++i) sum[i] += dw_parts[part * parameters + i];
  }
  for (std::int64_t i = 0; i < parameters; ++i) dw[i] = T(sum[i]);
  return statistics;
}

}  // namespace pararnn::cpu
