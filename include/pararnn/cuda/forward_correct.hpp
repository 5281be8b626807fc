// What makes the forward pass exact, decided on the device.
//
//   forward_scan      Newton's correction of all starts: a scan over the chunks' affine maps
//   forward_correct   one cooperative grid: verify; correct the columns that fail, a few times;
//                     repair what still fails by walking its chunks in order
//   forward_mismatch  for the statistics, the largest mismatch that is left
#pragma once

#include "pararnn/cuda/forward_pass.hpp"
#include "pararnn/cuda/warp_scan.hpp"

namespace pararnn::cuda {

/// Newton's correction of the starts of one column, by a warp:
/// delta_{p+1} = M_p delta_p + F_p(b_p) - b_{p+1}.
template <class C, class T>
__device__ void correct_column(const ForwardProblem& problem, const Lane& column) {
  constexpr int S = C::kState;
  T* start = static_cast<T*>(problem.start);
  const T* end = static_cast<const T*>(problem.end);
  const T* jacobian = static_cast<const T*>(problem.jacobian);
  struct Correction {
    Affine<T, S> map;  // from delta_p to delta_{p+1}
    Vec<T, S> arrived;
  };
  const auto load = [&](Int p) {
    const Lane lane = lane_of_chunk(problem.size, column, p);
    const Lane next = lane_of_chunk(problem.size, column, p + 1);
    Correction c{};
    static_for<S>([&](auto r) {
      c.arrived[r] = end[boundary_offset(problem.size, lane, S, r)];
      const T jump = c.arrived[r] - start[boundary_offset(problem.size, next, S, r)];
      c.map.offset[r] = is_finite(jump) ? jump : T(0);
      static_for<S>([&](auto i) {
        // The first chunk's start is given: nobody needs its Jacobian, and it may not be there.
        const T entry = jacobian[boundary_offset(problem.size, lane, S * S, r * S + i)];
        c.map.matrix(r, i) = p > 0 ? entry : T(0);
      });
    });
    return c;
  };
  const auto follow = [&](Int p, const Correction& c, const Vec<T, S>& delta) {
    const Lane next = lane_of_chunk(problem.size, column, p + 1);
    Vec<T, S> carried = c.map.matrix * delta;
    static_for<S>([&](auto r) {
      // A correction that overflows is left out.
      if (!is_finite(carried[r])) carried[r] = T(0);
      start[boundary_offset(problem.size, next, S, r)] = c.arrived[r] + carried[r];
    });
    return c.map.offset + carried;
  };
  scan_by_warp<T, S>(problem.size.chunks - 1, Vec<T, S>{}, load, follow);
}

/// Corrects all columns; one warp a column.
template <class C, class Storage>
__global__ void __launch_bounds__(kThreadsPerBlock)
    forward_scan(const __grid_constant__ ForwardProblem problem) {
  const Int i = warp_index();
  if (i >= problem.size.batch * problem.size.channels) return;
  correct_column<C, Arithmetic<Storage>>(problem, column_at(problem.size, i));
}

/// Marks the columns whose chunks do not begin where the one before ended.
template <class C, class T>
__device__ bool verify(const ForwardProblem& problem, unsigned round) {
  return mark_failing<C::kState, T>(
      problem.size, problem.end, problem.start, problem.failing, round, problem.tolerance,
      [&](Int, T arrived, T from) { return state_mismatch(arrived, from); });
}

/// Runs a lane again from the start that is kept for it.
template <class C, class Storage, bool kStarts, bool kLinearize>
__device__ void run_again(const ForwardProblem& problem, const Lane& lane) {
  const Forward<C, Storage, 1, 1, kStarts> forward(problem, lane);
  auto h = forward.load_boundary(problem.start);
  auto m = forward.identities();
  forward.template run<false, true, kLinearize>(lane.begin, forward.place_at(lane.begin), h, m);
  forward.store_end(h);
  if constexpr (kLinearize) forward.store_jacobian(m);
}

/// Walks the chunks of a column in order, and runs again those that do not begin where the one
/// before ended.
template <class C, class Storage, bool kStarts>
__device__ void repair_column(const ForwardProblem& problem, const Lane& column) {
  using F = Forward<C, Storage, 1, 1, kStarts>;
  typename F::State arrived{};
  for (Int p = 0; p < problem.size.chunks; ++p) {
    const Lane lane = lane_of_chunk(problem.size, column, p);
    const F forward(problem, lane);
    bool passes = true;
    if (p > 0) {
      const auto from = forward.load_boundary(problem.start);
      static_for<C::kState>([&](auto s) {
        passes = passes && state_mismatch(arrived[0][s], from[0][s]).passes(problem.tolerance);
      });
    }
    if (!passes) {
      forward.store_boundary(arrived, problem.start);
      run_again<C, Storage, kStarts, false>(problem, lane);
    }
    arrived = forward.load_boundary(problem.end);
  }
}

/// Verifies, corrects and repairs; a cooperative grid.
template <class C, class Storage, bool kStarts>
__global__ void __launch_bounds__(kThreadsPerBlock, kCooperativeBlocks)
    forward_correct(const __grid_constant__ ForwardProblem problem) {
  using F = Forward<C, Storage, 1, 1, kStarts>;
  using T = Arithmetic<Storage>;
  const Int columns = problem.size.batch * problem.size.channels;
  Counters* counters = problem.counters;
  int barrier = 0;
  unsigned round = 1;
  bool failing = kStarts && verify_offsets(problem);
  failing = grid_barrier(counters, barrier, verify<C, T>(problem, round) || failing);
  if (!failing) return;
  if (kStarts && problem.sequences.offsets && *problem.wrong_offsets) {
    lose_results<C, Storage>(problem);
    return;
  }

  for (; round <= kMaxNewtonIterations && failing; ++round) {
    // New starts: Newton's, or one step of fixed-point iteration while there are no Jacobians.
    if (round > 1 || problem.have_jacobians) {
      for (Int i = warp_index(); i < columns; i += warp_count()) {
        if (problem.failing[i] == round) correct_column<C, T>(problem, column_at(problem.size, i));
      }
    } else {
      for (Int i = thread_index(); i < lane_count(problem.size, 1); i += thread_count()) {
        const Lane lane = lane_at(problem.size, 1, i);
        if (lane.chunk == 0 || problem.failing[column_index(problem.size, lane)] != round) continue;
        const F here(problem, lane);
        const Lane before = lane_of_chunk(problem.size, lane, lane.chunk - 1);
        here.store_boundary(F(problem, before).load_boundary(problem.end), problem.start);
      }
    }
    grid_barrier(counters, barrier);
    for (Int i = thread_index(); i < lane_count(problem.size, 1); i += thread_count()) {
      const Lane lane = lane_at(problem.size, 1, i);
      if (lane.chunk == 0 || problem.failing[column_index(problem.size, lane)] != round) continue;
      run_again<C, Storage, kStarts, true>(problem, lane);
    }
    grid_barrier(counters, barrier);
    failing = grid_barrier(counters, barrier, verify<C, T>(problem, round + 1));
  }
  for (Int i = thread_index(); i < columns; i += thread_count()) {
    if (problem.failing[i] > 0) atomicAdd(&counters->columns_corrected, 1u);
    if (problem.failing[i] != round) continue;
    atomicAdd(&counters->columns_repaired, 1u);
    repair_column<C, Storage, kStarts>(problem, column_at(problem.size, i));
  }
  if (thread_index() == 0) counters->newton_iterations = round - 1;
}

/// The largest mismatch that is left, for the statistics; run only when they are asked for.
template <class C, class Storage>
__global__ void __launch_bounds__(kThreadsPerBlock)
    forward_mismatch(const __grid_constant__ ForwardProblem problem) {
  using F = Forward<C, Storage, 1>;
  for (Int i = thread_index(); i < lane_count(problem.size, 1); i += thread_count()) {
    const Lane lane = lane_at(problem.size, 1, i);
    if (lane.chunk == 0) continue;
    const auto from = F(problem, lane).load_boundary(problem.start);
    const auto arrived =
        F(problem, lane_of_chunk(problem.size, lane, lane.chunk - 1)).load_boundary(problem.end);
    static_for<C::kState>([&](auto s) {
      record_mismatch(problem.counters, state_mismatch(arrived[0][s], from[0][s]).value());
    });
  }
}

}  // namespace pararnn::cuda
