// The backward pass on the CPU. The adjoint obeys a linear recurrence from right to left,
// mu_{t-1} = J_t^T (mu_t + e_0 dL/dy_t), over the same kind of chunks as the forward pass:
//
//   sequential   one chunk
//   speculative  the adjoint at a chunk's end by a burn-in that starts beyond it from zero; run all
//                chunks, writing gradients
//   newton       the affine maps of all chunks; a scan over them gives the adjoints at their ends;
//                run all chunks, writing gradients
//
// and then, where there are several chunks:
//
//   verify       the adjoint at a chunk's end equals the one at which the next chunk arrived, to
//                the tolerance, at every boundary of every column
//   correct      columns that fail: the affine maps, the scan, and the chunks whose end moved;
//                once, since the recurrence is linear
//   repair       what still fails (maps that overflow): its chunks in order
//
// Each chunk leaves its part of the parameters' gradient; the parts are summed in a fixed order.
#pragma once

#include "pararnn/cpu/verification.hpp"
#include "pararnn/mismatch.hpp"

namespace pararnn::cpu {

/// Gradients of a recurrence. `problem` names tensors, tolerance and the sizes B, T, D; the rest of
/// it is this function's. Writes du, dw and dh0.
template <class T>
Statistics scan_backward(const Kernels<T>& kernels, const Executor& executor,
                         BackwardProblem<T> problem, const Plan& plan) {
  problem.size.chunk = plan.chunk;
  problem.size.chunks = plan.chunks;
  problem.size.burn_in = plan.burn_in;
  const Chunking& size = problem.size;
  const int S = kernels.state;
  const std::int64_t batch = size.batch, chunks = size.chunks, channels = size.channels;
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
  problem.dw_parts = dw_parts.data();
  const std::vector<BlockStarts> starts = block_starts(size, problem.sequences);
  problem.starts = starts.empty() ? nullptr : starts.data();
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t row = last_state(problem.sequences, size, b);
    std::copy_n(problem.dhT + row * S * channels, S * channels, &end[at(b, chunks - 1, 0, 0)]);
  }
  const std::vector<std::int64_t> columns = all_of(batch * channels);
  const std::vector<std::int64_t> lanes = all_of(size.lane_count());
  const auto run = [&](BackwardPass pass, const std::vector<std::int64_t>& ids) {
    run_lanes(executor, kernels, kernels.backward, problem, pass, ids);
  };

  // Chunk p's adjoint at its end against the one at which chunk p + 1 arrived.
  const auto mismatch = [&](std::int64_t b, std::int64_t p, int s, std::int64_t d) {
    return adjoint_mismatch(end[at(b, p, s, d)], start[at(b, p + 1, s, d)],
                            peak[size.lane(b, p, d)]);
  };
  const auto boundary_fails = [&](std::int64_t b, std::int64_t p, std::int64_t d) {
    for (int s = 0; s < S; ++s) {
      if (!mismatch(b, p, s, d).passes(problem.tolerance)) return true;
    }
    return false;
  };

  // The adjoints at the chunk ends of some columns, by the affine maps of all chunks but the first,
  // whose adjoint nobody waits for. Returns the lanes whose end moved.
  const auto correct = [&](const std::vector<std::int64_t>& among) {
    run(BackwardPass::kMap, lanes_of(size, among, 1, chunks));
    std::vector<std::int64_t> moved;
    std::vector<T> mu(S), next(S);
    for (const std::int64_t column : among) {
      const std::int64_t b = column / channels, d = column % channels;
      for (int s = 0; s < S; ++s) mu[s] = end[at(b, chunks - 1, s, d)];
      for (std::int64_t p = chunks - 2; p >= 0; --p) {
        bool moves = false;
        for (int s = 0; s < S; ++s) {
          next[s] = map_offset[at(b, p + 1, s, d)];
          for (int i = 0; i < S; ++i) {
            next[s] += map_matrix[at_map(b, p + 1, s * S + i, d)] * mu[i];
          }
          moves = moves || !adjoint_mismatch(next[s], end[at(b, p, s, d)], peak[size.lane(b, p, d)])
                                .passes(0.25 * problem.tolerance);
        }
        mu = next;
        if (!moves) continue;
        for (int s = 0; s < S; ++s) end[at(b, p, s, d)] = mu[s];
        moved.push_back(size.lane(b, p, d));
      }
    }
    std::sort(moved.begin(), moved.end());
    return moved;
  };

  const bool newton = chunks > 1 && plan.way == Way::kNewton;
  if (newton) correct(columns);
  run(chunks == 1 || newton ? BackwardPass::kGiven : BackwardPass::kBurnIn, lanes);

  Statistics statistics{plan, 0, newton ? 1 : 0, batch * channels, 0, 0};
  std::vector<std::int64_t> failing = failing_columns(size, columns, boundary_fails);
  statistics.columns_corrected = std::int64_t(failing.size());
  if (!failing.empty() && !walks_at_once(plan, failing.size(), kernels, executor)) {
    run(BackwardPass::kGiven, correct(failing));
    ++statistics.newton_iterations;
    failing = failing_columns(size, failing, boundary_fails);
  }
  statistics.columns_repaired = std::int64_t(failing.size());
  for (std::int64_t p = chunks - 2; p >= 0 && !failing.empty(); --p) {
    std::vector<std::int64_t> again;
    for (const std::int64_t column : failing) {
      const std::int64_t b = column / channels, d = column % channels;
      if (!boundary_fails(b, p, d)) continue;
      for (int s = 0; s < S; ++s) end[at(b, p, s, d)] = start[at(b, p + 1, s, d)];
      again.push_back(size.lane(b, p, d));
    }
    run(BackwardPass::kGiven, again);
  }

  if (problem.sequences.offsets) {
    copy_states_of_empty(problem.sequences, S * channels, problem.dhT, problem.dh0);
  } else {
    for (std::int64_t b = 0; b < batch; ++b) {
      std::copy_n(&start[at(b, 0, 0, 0)], S * channels, problem.dh0 + b * S * channels);
    }
  }
  const std::int64_t parameters = kernels.params * channels;
  std::vector<double> sum(parameters);
  for (std::int64_t part = 0; part < batch * chunks; ++part) {
    for (std::int64_t i = 0; i < parameters; ++i) sum[i] += dw_parts[part * parameters + i];
  }
  for (std::int64_t i = 0; i < parameters; ++i) problem.dw[i] = T(sum[i]);
  statistics.largest_mismatch = largest_mismatch(size, S, mismatch);
  return statistics;
}

}  // namespace pararnn::cpu
