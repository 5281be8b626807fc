// What makes the backward pass exact, decided on the device.
//
//   backward_scan      the adjoints at all chunk ends, from the chunks' affine maps
//   backward_correct   one cooperative grid: verify; correct the columns that fail by their maps;
//                      repair what still fails by walking its chunks in order; sum the parameters'
//                      gradient
//   backward_mismatch  for the statistics, the largest mismatch that is left
#pragma once

#include "pararnn/cuda/backward_pass.hpp"
#include "pararnn/cuda/warp_scan.hpp"

namespace pararnn::cuda {

/// The adjoints at the chunk ends of one column, from the last chunk to the first, by a warp.
template <class C, class T, bool kStarts>
__device__ void scan_column(const BackwardProblem& problem, const Lane& column) {
  constexpr int S = C::kState;
  const T* matrix = static_cast<const T*>(problem.map_matrix);
  const T* offset = static_cast<const T*>(problem.map_offset);
  T* end = static_cast<T*>(problem.end);
  const Int last = problem.size.chunks - 1;
  struct Chunk {
    Affine<T, S> map;
  };
  const auto load = [&](Int i) {
    const Lane lane = lane_of_chunk(problem.size, column, last - i);
    Chunk chunk{};
    static_for<S>([&](auto r) {
      chunk.map.offset[r] = offset[boundary_offset(problem.size, lane, S, r)];
      static_for<S>([&](auto c) {
        chunk.map.matrix(r, c) = matrix[boundary_offset(problem.size, lane, S * S, r * S + c)];
      });
    });
    return chunk;
  };
  const auto follow = [&](Int i, const Chunk& chunk, const Vec<T, S>& mu) {
    const Lane before = lane_of_chunk(problem.size, column, last - i - 1);
    const Vec<T, S> moved = chunk.map(mu);
    static_for<S>([&](auto r) { end[boundary_offset(problem.size, before, S, r)] = moved[r]; });
    return moved;
  };
  const Sequences& sequences = problem.sequences;
  const Int final = kStarts && sequences.offsets  // the sequence of the row's last step
                        ? sequence_at(sequences.offsets, sequences.count, problem.size.steps - 1)
                        : column.row;
  Vec<T, S> mu{};
  static_for<S>([&](auto s) {
    mu[s] = static_cast<const T*>(
        problem.dhT)[(final * S + s) * problem.size.channels + column.channel];
  });
  scan_by_warp<T, S>(last, mu, load, follow);
}

/// All columns; one warp a column.
template <class C, class Storage, bool kStarts>
__global__ void __launch_bounds__(kThreadsPerBlock)
    backward_scan(const __grid_constant__ BackwardProblem problem) {
  const Int i = warp_index();
  if (i >= problem.size.batch * problem.size.channels) return;
  scan_column<C, Arithmetic<Storage>, kStarts>(problem, column_at(problem.size, i));
}

/// f(mismatch) for the components of the boundary behind a lane: between the adjoint from which its
/// chunk was run and the one at which the next arrived.
template <class C, class T, class F>
__device__ void each_mismatch(const BackwardProblem& problem, const Lane& lane, F&& f) {
  constexpr int S = C::kState;
  const Lane after = lane_of_chunk(problem.size, lane, lane.chunk + 1);
  const T peak = static_cast<const T*>(problem.peak)[boundary_offset(problem.size, lane, 1, 0)];
  static_for<S>([&](auto s) {
    f(adjoint_mismatch(
        static_cast<const T*>(problem.end)[boundary_offset(problem.size, lane, S, s)],
        static_cast<const T*>(problem.start)[boundary_offset(problem.size, after, S, s)], peak));
  });
}

/// Marks the columns whose chunks were not run from the adjoint at which the next arrived.
template <class C, class T>
__device__ bool verify(const BackwardProblem& problem, unsigned round) {
  constexpr int S = C::kState;
  return mark_failing<S, T>(
      problem.size, problem.end, problem.start, problem.failing, round, problem.tolerance,
      [&](Int i, T from, T arrived) {
        const Int channels = problem.size.channels;
        const Int at = S == 1 ? i : i / (S * channels) * channels + i % channels;
        return adjoint_mismatch(from, arrived, static_cast<const T*>(problem.peak)[at]);
      });
}

/// Runs a lane again from the adjoint at its end. A function of its own, so that it is compiled
/// once for all who correct.
template <class C, class Storage, bool kStarts>
__device__ __noinline__ void run_again(const BackwardProblem& problem, const Lane& lane) {
  const Backward<C, Storage, 1, kStarts> backward(problem, lane);
  backward.run(backward.template load_boundary<C::kState>(problem.end),
               backward.place_before(lane.end));
}

template <class C, class Storage, bool kStarts>
__device__ void repair_column(const BackwardProblem& problem, const Lane& column) {
  using B = Backward<C, Storage, 1>;
  for (Int p = problem.size.chunks - 2; p >= 0; --p) {
    const Lane lane = lane_of_chunk(problem.size, column, p);
    bool passes = true;
    each_mismatch<C, Arithmetic<Storage>>(problem, lane, [&](const auto& mismatch) {
      passes = passes && mismatch.passes(problem.tolerance);
    });
    if (passes) continue;
    const Lane after = lane_of_chunk(problem.size, column, p + 1);
    const auto mu = B(problem, after).template load_boundary<C::kState>(problem.start);
    B(problem, lane).template store_boundary<C::kState>(mu, problem.end);
    run_again<C, Storage, kStarts>(problem, lane);
  }
}

/// Corrects the columns that fail, and repairs; by a cooperative grid. Of wrong offsets all fail.
template <class C, class Storage, bool kStarts>
__device__ void correct_failing(const BackwardProblem& problem, int& barrier) {
  using T = Arithmetic<Storage>;
  const Int columns = problem.size.batch * problem.size.channels;
  Counters* counters = problem.counters;
  if (kStarts && problem.sequences.offsets && *problem.wrong_offsets) {
    lose_results<C, Storage>(problem);
    grid_barrier(counters, barrier);
    return;
  }
  const auto each_failing_lane = [&](auto&& run) {
    for (Int i = thread_index(); i < lane_count(problem.size, 1); i += thread_count()) {
      const Lane lane = lane_at(problem.size, 1, i);
      if (problem.failing[column_index(problem.size, lane)] == 1) run(lane);
    }
  };
  each_failing_lane([&](const Lane& lane) {
    if (lane.chunk > 0) {
      const Backward<C, Storage, 1, kStarts> backward(problem, lane);
      backward.run_map(backward.place_before(lane.end));
    }
  });
  grid_barrier(counters, barrier);
  for (Int i = warp_index(); i < columns; i += warp_count()) {
    if (problem.failing[i] == 1) scan_column<C, T, kStarts>(problem, column_at(problem.size, i));
  }
  grid_barrier(counters, barrier);
  each_failing_lane([&](const Lane& lane) {
    if (lane.chunk < problem.size.chunks - 1) run_again<C, Storage, kStarts>(problem, lane);
  });
  grid_barrier(counters, barrier);
  verify<C, T>(problem, 2);
  grid_barrier(counters, barrier);
  for (Int i = thread_index(); i < columns; i += thread_count()) {
    if (problem.failing[i] > 0) atomicAdd(&counters->columns_corrected, 1u);
    if (problem.failing[i] != 2) continue;
    atomicAdd(&counters->columns_repaired, 1u);
    repair_column<C, Storage, kStarts>(problem, column_at(problem.size, i));
  }
  if (thread_index() == 0) counters->newton_iterations = 1;
  grid_barrier(counters, barrier);
}

/// The same in a function of its own where states may start anew: the places in a row would leave
/// too few registers to the verification.
template <class C, class Storage>
__device__ __noinline__ void correct_failing_apart(const BackwardProblem& problem, int& barrier) {
  correct_failing<C, Storage, true>(problem, barrier);
}

/// Verifies, corrects and repairs, then sums the parameters' gradient; a cooperative grid.
template <class C, class Storage, bool kStarts>
__global__ void __launch_bounds__(kThreadsPerBlock, kCooperativeBlocks)
    backward_correct(const __grid_constant__ BackwardProblem problem) {
  int barrier = 0;
  bool fails = kStarts && verify_offsets(problem);
  fails = verify<C, Arithmetic<Storage>>(problem, 1) || fails;
  if (grid_barrier(problem.counters, barrier, fails)) {
    if constexpr (kStarts) {
      correct_failing_apart<C, Storage>(problem, barrier);
    } else {
      correct_failing<C, Storage, kStarts>(problem, barrier);
    }
  }
  sum_parts_by_grid<C, Arithmetic<Storage>>(problem);
}

/// The largest mismatch that is left, for the statistics; run only when they are asked for.
template <class C, class Storage>
__global__ void __launch_bounds__(kThreadsPerBlock)
    backward_mismatch(const __grid_constant__ BackwardProblem problem) {
  for (Int i = thread_index(); i < lane_count(problem.size, 1); i += thread_count()) {
    const Lane lane = lane_at(problem.size, 1, i);
    if (lane.chunk == problem.size.chunks - 1) continue;
    each_mismatch<C, Arithmetic<Storage>>(problem, lane, [&](const auto& mismatch) {
      record_mismatch(problem.counters, mismatch.value());
    });
  }
}

}  // namespace pararnn::cuda
