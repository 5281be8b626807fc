// The forward pass on the GPU: docs/method.md, with the correction decided on the device.
//
//   forward_pass     all lanes once: by a burn-in or from given starts, with outputs, or with
//                    Jacobians and without outputs
//   forward_scan     Newton's correction of all starts: a scan over the chunks' affine maps
//   forward_correct  one cooperative grid: verify; correct the columns that fail, a few times;
//                    repair what still fails by walking its chunks in order
//
//   sequential   pass
//   speculative  pass (burn-in, outputs), correct
//   newton       pass (burn-in, Jacobians), scan, pass (given, outputs), correct
#pragma once

#include "pararnn/core/affine.hpp"
#include "pararnn/core/cell.hpp"
#include "pararnn/cuda/input_ring.hpp"
#include "pararnn/cuda/lane.hpp"

namespace pararnn::cuda {

/// Steps between two checkpoints, run without a look at anything else.
inline constexpr int kBlock = kCheckpointInterval;

/// One cell on tensors of one storage, V columns a thread.
template <class C, class Storage, int V>
struct Forward {
  static constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  using T = Arithmetic<Storage>;
  using State = Columns<T, S, V>;
  using Jacobian = Vec<Mat<T, S, S>, V>;
  using Inputs = Vec<Pack<Storage, V>, U>;
  using Ring = InputRing<Pack<Storage, V>, U>;

  const ForwardProblem& problem;
  const Lane& lane;
  Columns<T, P, V> w;

  PARARNN_FN Forward(const ForwardProblem& the_problem, const Lane& the_lane)
      : problem(the_problem), lane(the_lane), w(load_columns<P, V, T>(the_problem.w, [&](int n) {
          return n * the_problem.size.channels + the_lane.channel;
        })) {}

  PARARNN_FN Inputs load_inputs(const Storage* at) const {
    Inputs inputs{};
    static_for<U>(
        [&](auto n) { inputs[n] = load_pack<Storage, V>(at + n * problem.u.component_stride); });
    return inputs;
  }

  PARARNN_FN static Columns<T, U, V> unpack(const Inputs& inputs) {
    Columns<T, U, V> u{};
#pragma unroll
    for (int n = 0; n < U; ++n) {
      const Vec<T, V> values = inputs[n].unpack();
#pragma unroll
      for (int v = 0; v < V; ++v) u[v][n] = values[v];
    }
    return u;
  }

  /// Advances h by a step; returns the outputs.
  PARARNN_FN Vec<T, V> take_step(const Inputs& inputs, State& h) const {
    const Columns<T, U, V> u = unpack(inputs);
    Vec<T, V> out{};
#pragma unroll
    for (int v = 0; v < V; ++v) {
      h[v] = C::step(h[v], u[v], w[v]);
      out[v] = h[v][0];
    }
    return out;
  }

  /// The same, and multiplies the step's Jacobians to m.
  PARARNN_FN Vec<T, V> take_step(const Inputs& inputs, State& h, Jacobian& m) const {
    const Columns<T, U, V> u = unpack(inputs);
    Vec<T, V> out{};
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const auto linear = linearize<C>(h[v], u[v], w[v], m[v]);
      h[v] = linear.next;
      m[v] = linear.product;
      out[v] = h[v][0];
    }
    return out;
  }

  /// Steps [begin, end) from h, writing outputs and checkpoints, and multiplying the Jacobians to
  /// m.
  template <bool kWrite, bool kLinearize>
  PARARNN_FN void run(Int begin, Int end, State& h, Jacobian& m) const {
    const Storage* next = static_cast<const Storage*>(problem.u.data) +
                          view_offset(problem.u, lane.row, begin, lane.channel);
    Storage* y = static_cast<Storage*>(problem.y.data) +
                 view_offset(problem.y, lane.row, begin, lane.channel);
    const auto advance = [&](const Inputs& inputs) {
      const Vec<T, V> out = [&] {
        if constexpr (kLinearize) {
          return take_step(inputs, h, m);
        } else {
          return take_step(inputs, h);
        }
      }();
      if constexpr (kWrite) store_pack<Storage, V>(y, Pack<Storage, V>::of(out));
      y += problem.y.step_stride;
    };
    const auto keep_checkpoint = [&](Int t) {
      if (!kWrite || !problem.checkpoints) return;
      store_columns<S, V, T>(h, problem.checkpoints,
                             [&](int s) { return checkpoint_offset(problem.size, lane, t, S, s); });
    };

    if constexpr (Ring::kPossible) {
      run_through_ring(begin, end, next, keep_checkpoint, advance);
    } else {
      run_through_registers(begin, end, next, keep_checkpoint, advance);
    }
  }

  /// Steps [begin, end) whose inputs start at `next`, as many on their way as the ring holds. A
  /// whole block has no branch in it, so that the compiler can move a step's loads before the one
  /// before.
  template <class Checkpoint, class Step>
  PARARNN_FN void run_through_ring(Int begin, Int end, const Storage* next,
                                   const Checkpoint& keep_checkpoint, const Step& advance) const {
    typename Ring::Slot* ring = Ring::slots();
    const auto send = [&](int slot) {
#pragma unroll
      for (int n = 0; n < U; ++n) {
        copy_async(&ring[slot][n][threadIdx.x], next + n * problem.u.component_stride);
      }
      next += problem.u.step_stride;
    };
    const auto send_block = [&](int slot, Int t) {
      if (t + kBlock <= end) {
#pragma unroll
        for (int i = 0; i < kBlock; ++i) send(slot + i);
      } else {
        for (int i = 0; t + i < end; ++i) send(slot + i);
      }
      commit_copies();
    };
    const auto received = [&](int slot) {
      Inputs inputs{};
#pragma unroll
      for (int n = 0; n < U; ++n) {
        inputs[n] = __builtin_bit_cast(Pack<Storage, V>, ring[slot][n][threadIdx.x]);
      }
      return inputs;
    };
#pragma unroll 1
    for (int slot = 0; slot < Ring::kDepth; slot += kBlock) send_block(slot, begin + slot);
    int slot = 0;
    for (Int t = begin; t < end; t += kBlock) {
      keep_checkpoint(t);
      wait_for_copies<Ring::kDepth / kBlock - 1>();
      if (t + kBlock <= end) {
#pragma unroll
        for (int i = 0; i < kBlock; ++i) advance(received(slot + i));
      } else {
        for (int i = 0; t + i < end; ++i) advance(received(slot + i));
      }
      send_block(slot, t + Ring::kDepth);
      slot = slot + kBlock == Ring::kDepth ? 0 : slot + kBlock;
    }
    wait_for_copies<0>();
  }

  /// The same for inputs too narrow for the ring: one block of steps is on its way.
  template <class Checkpoint, class Step>
  PARARNN_FN void run_through_registers(Int begin, Int end, const Storage* next,
                                        const Checkpoint& keep_checkpoint,
                                        const Step& advance) const {
    const Int whole = begin + (end - begin) / kBlock * kBlock;
    Inputs ring[kBlock];
    if (begin < whole) {
#pragma unroll
      for (int i = 0; i < kBlock; ++i) {
        ring[i] = load_inputs(next);
        next += problem.u.step_stride;
      }
    }
    Int t = begin;
    for (; t < whole; t += kBlock) {
      keep_checkpoint(t);
      const bool more = t + kBlock < whole;
#pragma unroll
      for (int i = 0; i < kBlock; ++i) {
        const Inputs inputs = ring[i];
        if (more) {
          ring[i] = load_inputs(next);
          next += problem.u.step_stride;
        }
        advance(inputs);
      }
    }
    if (t < end) keep_checkpoint(t);
    for (; t < end; ++t) {
      advance(load_inputs(next));
      next += problem.u.step_stride;
    }
  }

  PARARNN_FN State load_boundary(const void* from) const {
    return load_columns<S, V, T>(from,
                                 [&](int s) { return boundary_offset(problem.size, lane, S, s); });
  }
  PARARNN_FN void store_boundary(const State& state, void* to) const {
    store_columns<S, V, T>(state, to,
                           [&](int s) { return boundary_offset(problem.size, lane, S, s); });
  }

  /// Keeps where the chunk ended, and the final state.
  PARARNN_FN void store_end(const State& h) const {
    if (problem.size.chunks > 1) store_boundary(h, problem.end);
    if (lane.chunk == problem.size.chunks - 1) {
      store_columns<S, V, T>(h, problem.hT, [&](int s) {
        return (lane.row * S + s) * problem.size.channels + lane.channel;
      });
    }
  }
  PARARNN_FN void store_jacobian(const Jacobian& m) const {
    static_for<S>([&](auto r) {
      static_for<S>([&](auto c) {
        Vec<T, V> values{};
        static_for<V>([&](auto v) { values[v] = m[v](r, c); });
        store_pack<T, V>(static_cast<T*>(problem.jacobian) +
                             boundary_offset(problem.size, lane, S * S, r * S + c),
                         Pack<T, V>::of(values));
      });
    });
  }

  PARARNN_FN State initial_state() const {
    if (!problem.h0) return {};
    return load_columns<S, V, T>(problem.h0, [&](int s) {
      return (lane.row * S + s) * problem.size.channels + lane.channel;
    });
  }

  PARARNN_FN static Jacobian identities() {
    Jacobian m{};
    static_for<V>([&](auto v) { m[v] = identity<T, S>(); });
    return m;
  }
};

/// All lanes once.
template <class C, class Storage, int V, bool kBurnIn, bool kWrite, bool kLinearize>
__global__ void __launch_bounds__(kThreadsPerBlock)
    forward_pass(const __grid_constant__ ForwardProblem problem) {
  const Int index = thread_index();
  if (index >= lane_count(problem.size, V)) return;
  const Lane lane = lane_at(problem.size, V, index);
  using F = Forward<C, Storage, V>;
  const F forward(problem, lane);
  if (kBurnIn) reset_verification<V>(problem, lane);
  auto m = F::identities();
  typename F::State h{};
  if (lane.chunk == 0) {
    h = forward.initial_state();
  } else if constexpr (kBurnIn) {
    const Int burn_in = problem.size.burn_in < lane.begin ? problem.size.burn_in : lane.begin;
    forward.template run<false, false>(lane.begin - burn_in, lane.begin, h, m);
  } else {
    h = forward.load_boundary(problem.start);
  }
  if (kBurnIn && problem.size.chunks > 1) forward.store_boundary(h, problem.start);
  forward.template run<kWrite, kLinearize>(lane.begin, lane.end, h, m);
  forward.store_end(h);
  if constexpr (kLinearize) forward.store_jacobian(m);
}

/// How a boundary that is verified compares.
template <class T>
PARARNN_FN bool boundary_passes(T arrived, T from, double tolerance) {
  const T size = abs(arrived) < abs(from) ? abs(arrived) : abs(from);
  return mismatch(arrived, from) <= T(tolerance) * (T(1) + size);
}

/// Newton's correction of the starts of one column, in order:
/// delta_{p+1} = M_p delta_p + F_p(b_p) - b_{p+1}.
template <class C, class T>
__device__ void correct_column(const ForwardProblem& problem, const Lane& column) {
  constexpr int S = C::kState, kAhead = chunks_ahead<S>();
  T* start = static_cast<T*>(problem.start);
  const T* end = static_cast<const T*>(problem.end);
  const T* jacobian = static_cast<const T*>(problem.jacobian);
  struct Correction {
    Vec<T, S> arrived, jump;  // F_p(b_p), and by how much it misses b_{p+1}
    Mat<T, S, S> m;
  };
  const auto load = [&](Int p) {
    Correction c{};
    if (p >= problem.size.chunks) return c;
    const Lane before = lane_of_chunk(problem.size, column, p - 1);
    const Lane lane = lane_of_chunk(problem.size, column, p);
    static_for<S>([&](auto r) {
      c.arrived[r] = end[boundary_offset(problem.size, before, S, r)];
      const T jump = c.arrived[r] - start[boundary_offset(problem.size, lane, S, r)];
      c.jump[r] = is_finite(jump) ? jump : T(0);
      static_for<S>([&](auto i) {
        c.m(r, i) = jacobian[boundary_offset(problem.size, before, S * S, r * S + i)];
      });
    });
    return c;
  };
  Correction next[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) next[i] = load(1 + i);
  Vec<T, S> delta{};
  for (Int first = 1; first < problem.size.chunks; first += kAhead) {
    Correction now[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) now[i] = next[i];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) next[i] = load(first + kAhead + i);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i >= problem.size.chunks) break;
      const Lane lane = lane_of_chunk(problem.size, column, first + i);
      Vec<T, S> carried{};
      static_for<S>([&](auto r) {
        static_for<S>([&](auto c) { carried[r] += now[i].m(r, c) * delta[c]; });
        // A correction that overflows is left out.
        if (!is_finite(carried[r])) carried[r] = T(0);
        start[boundary_offset(problem.size, lane, S, r)] = now[i].arrived[r] + carried[r];
      });
      delta = now[i].jump + carried;
    }
  }
}

/// Corrects all columns; one thread a column.
template <class C, class Storage>
__global__ void __launch_bounds__(kThreadsPerBlock)
    forward_scan(const __grid_constant__ ForwardProblem problem) {
  const Int i = thread_index();
  if (i >= problem.size.batch * problem.size.channels) return;
  correct_column<C, Arithmetic<Storage>>(problem, column_at(problem.size, i));
}

/// Verification number `round`: marks the columns with a boundary that fails. After the first, only
/// columns that failed at the one before are looked at.
template <class C, class T>
__device__ void verify(const ForwardProblem& problem, unsigned round) {
  constexpr int S = C::kState;
  for (Int i = thread_index(); i < lane_count(problem.size, 1); i += thread_count()) {
    Lane lane = lane_at(problem.size, 1, i);
    unsigned char& failing = problem.failing[lane.row * problem.size.channels + lane.channel];
    if (lane.chunk == 0 || failing + 1u < round) continue;
    bool passes = true;
    static_for<S>([&](auto s) {
      const T from =
          static_cast<const T*>(problem.start)[boundary_offset(problem.size, lane, S, s)];
      --lane.chunk;
      const T arrived =
          static_cast<const T*>(problem.end)[boundary_offset(problem.size, lane, S, s)];
      ++lane.chunk;
      passes = passes && boundary_passes(arrived, from, problem.tolerance);
    });
    if (passes) continue;
    failing = round;
    problem.counters->failed[round - 1] = 1;
  }
}

/// Runs a lane again from the start that is kept for it.
template <class C, class Storage, bool kLinearize>
__device__ void run_again(const ForwardProblem& problem, const Lane& lane) {
  const Forward<C, Storage, 1> forward(problem, lane);
  auto h = forward.load_boundary(problem.start);
  auto m = forward.identities();
  forward.template run<true, kLinearize>(lane.begin, lane.end, h, m);
  forward.store_end(h);
  if constexpr (kLinearize) forward.store_jacobian(m);
}

/// Walks the chunks of a column in order, and runs again those that do not begin where the one
/// before ended.
template <class C, class Storage>
__device__ void repair_column(const ForwardProblem& problem, const Lane& column) {
  using F = Forward<C, Storage, 1>;
  typename F::State arrived{};
  for (Int p = 0; p < problem.size.chunks; ++p) {
    const Lane lane = lane_of_chunk(problem.size, column, p);
    const F forward(problem, lane);
    bool passes = true;
    if (p > 0) {
      const auto from = forward.load_boundary(problem.start);
      static_for<C::kState>([&](auto s) {
        passes = passes && boundary_passes(arrived[0][s], from[0][s], problem.tolerance);
      });
    }
    if (!passes) {
      forward.store_boundary(arrived, problem.start);
      run_again<C, Storage, false>(problem, lane);
    }
    arrived = forward.load_boundary(problem.end);
  }
}

/// Verifies, corrects and repairs; a cooperative grid.
template <class C, class Storage>
__global__ void __launch_bounds__(kThreadsPerBlock, kCooperativeBlocks)
    forward_correct(const __grid_constant__ ForwardProblem problem) {
  using F = Forward<C, Storage, 1>;
  using T = Arithmetic<Storage>;
  const Int columns = problem.size.batch * problem.size.channels;
  Counters* counters = problem.counters;
  unsigned phase = 0, round = 1;
  verify<C, T>(problem, round);
  grid_barrier(counters, phase);
  if (!is_set(counters->failed[0])) return;

  for (; round <= kMaxNewtonIterations && is_set(counters->failed[round - 1]); ++round) {
    // New starts: Newton's, or one step of fixed-point iteration while there are no Jacobians.
    if (round > 1 || problem.have_jacobians) {
      for (Int i = thread_index(); i < columns; i += thread_count()) {
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
    grid_barrier(counters, phase);
    for (Int i = thread_index(); i < lane_count(problem.size, 1); i += thread_count()) {
      const Lane lane = lane_at(problem.size, 1, i);
      if (lane.chunk == 0 || problem.failing[column_index(problem.size, lane)] != round) continue;
      run_again<C, Storage, true>(problem, lane);
    }
    grid_barrier(counters, phase);
    verify<C, T>(problem, round + 1);
    grid_barrier(counters, phase);
  }
  for (Int i = thread_index(); i < columns; i += thread_count()) {
    if (problem.failing[i] > 0) atomicAdd(&counters->columns_corrected, 1u);
    if (problem.failing[i] != round) continue;
    atomicAdd(&counters->columns_repaired, 1u);
    repair_column<C, Storage>(problem, column_at(problem.size, i));
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
    static_for<C::kState>(
        [&](auto s) { record_mismatch(problem.counters, mismatch(arrived[0][s], from[0][s])); });
  }
}

}  // namespace pararnn::cuda
