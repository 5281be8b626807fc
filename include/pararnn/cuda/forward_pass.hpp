// The forward pass on the GPU: docs/method.md. All lanes once, by a burn-in or from given starts,
// with outputs, or with Jacobians and without outputs. With the kernels of forward_correct.hpp:
//
//   sequential   pass
//   speculative  pass (burn-in, outputs), correct
//   newton       pass (burn-in, Jacobians), scan, pass (given, outputs), correct
#pragma once

#include "pararnn/core/cell.hpp"
#include "pararnn/cuda/input_ring.hpp"
#include "pararnn/cuda/starts.hpp"
#include "pararnn/cuda/verification.hpp"

namespace pararnn::cuda {

/// Steps between two checkpoints, run without a look at anything else.
inline constexpr int kBlock = kCheckpointInterval;

/// How the steps of a block are taken: kBlock at once, as are known to be there; those that are
/// there, at once if they are kBlock; or one by one.
inline constexpr Index<1> kWhole;
inline constexpr Index<0> kPerhapsNotWhole;
inline constexpr Index<-1> kOneByOne;

/// One cell on tensors of one storage, V columns a thread, W neighbours a load: two for each of two
/// threads where numbers of two bytes are to come through the ring.
/// With kStarts, states may start anew within a row.
template <class C, class Storage, int V, int W = V, bool kStarts = false>
struct Forward {
  static_assert(W == V || (V == 1 && W == 2));
  static constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
  using T = Arithmetic<Storage>;
  using State = Columns<T, S, V>;
  using Jacobian = Vec<Mat<T, S, S>, V>;
  using Inputs = Vec<Pack<Storage, W>, U>;
  using Ring = InputRing<Pack<Storage, W>, U>;

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
        [&](auto n) { inputs[n] = load_pack<Storage, W>(at + n * problem.u.component_stride); });
    return inputs;
  }

  PARARNN_FN Columns<T, U, V> unpack(const Inputs& inputs) const {
    Columns<T, U, V> u{};
#pragma unroll
    for (int n = 0; n < U; ++n) {
      if constexpr (W == V) {
        const Vec<T, V> values = inputs[n].unpack();
#pragma unroll
        for (int v = 0; v < V; ++v) u[v][n] = values[v];
      } else {
        u[0][n] = either_of(inputs[n], static_cast<int>(lane.channel % W));
      }
    }
    return u;
  }

  /// Advances h by a step; returns the outputs.
  PARARNN_FN Vec<T, V> take_step(const Inputs& inputs, State& h) const {
    const Columns<T, U, V> u = unpack(inputs);
    Vec<T, V> out{};
#pragma unroll
    for (int v = 0; v < V; ++v) {
      h[v] = next_state<C>(h[v], u[v], w[v]);
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

  /// Steps [first, lane.end) from h. Those before the chunk are a burn-in, which leaves the chunk's
  /// start; those of the chunk may write outputs and checkpoints, and multiply their Jacobians to
  /// m. `place` is that of `first`.
  template <bool kBurnIn, bool kWrite, bool kLinearize>
  PARARNN_FN void run(Int first, [[maybe_unused]] PlaceForward place, State& h, Jacobian& m) const {
    Storage* y = static_cast<Storage*>(problem.y.data) +
                 view_offset(problem.y, lane.row, lane.begin, lane.channel);
    each_block(first, lane.end, [&](Int t, const auto& each_step_of_block) {
      const auto each_step = [&](auto whole, const auto& take) {
        if constexpr (kStarts) {
          // Few blocks have a start, and what they take is little to compile.
          if (t + kBlock > lane.end || may_start_within(t, place)) {
            Int now = t;
            each_step_of_block(kOneByOne, [&](const Inputs& inputs) {
              take(inputs);
              if (!starts_before(++now, place)) return;
              start_anew(now, kWrite && t >= lane.begin, place, h);
              m = Jacobian{};
            });
          } else {
            each_step_of_block(kWhole, take);
          }
        } else {
          each_step_of_block(whole, take);
        }
      };
      if constexpr (kBurnIn) {
        if (t < lane.begin) {
          each_step(kWhole, [&](const Inputs& inputs) { take_step(inputs, h); });
          return;
        }
        if (t == lane.begin && problem.size.chunks > 1) store_boundary(h, problem.start);
      }
      if (kWrite && problem.checkpoints) {
        store_columns<S, V, T>(h, problem.checkpoints, [&](int s) {
          return checkpoint_offset(problem.size, lane, t, S, s);
        });
      }
      each_step(kPerhapsNotWhole, [&](const Inputs& inputs) {
        const Vec<T, V> out = [&] {
          if constexpr (kLinearize) {
            return take_step(inputs, h, m);
          } else {
            return take_step(inputs, h);
          }
        }();
        if constexpr (kWrite) store_pack<Storage, V>(y, Pack<Storage, V>::of(out));
        y += problem.y.step_stride;
      });
    });
  }

  /// Calls take_block(t, each_step) for the blocks of [begin, end), which calls each_step(whole,
  /// take) once, and that take(inputs) for the block's steps. The last block may have fewer than
  /// kBlock.
  template <class TakeBlock>
  PARARNN_FN void each_block(Int begin, Int end, const TakeBlock& take_block) const {
    const Storage* next = static_cast<const Storage*>(problem.u.data) +
                          view_offset(problem.u, lane.row, begin, lane.channel / W * W);
    if constexpr (Ring::kPossible) {
      each_block_through_ring(begin, end, next, take_block);
    } else {
      each_block_through_registers(begin, end, next, take_block);
    }
  }

  /// As many steps' inputs on their way as the ring holds. A whole block has no branch in it, so
  /// that the compiler can move a step's loads before the one before.
  template <class TakeBlock>
  PARARNN_FN void each_block_through_ring(Int begin, Int end, const Storage* next,
                                          const TakeBlock& take_block) const {
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
        inputs[n] = __builtin_bit_cast(Pack<Storage, W>, ring[slot][n][threadIdx.x]);
      }
      return inputs;
    };
#pragma unroll 1
    for (int slot = 0; slot < Ring::kDepth; slot += kBlock) send_block(slot, begin + slot);
    int slot = 0;
    for (Int t = begin; t < end; t += kBlock) {
      wait_for_copies<Ring::kDepth / kBlock - 1>();
      take_block(t, [&](auto whole, const auto& take) {
        if constexpr (whole == kOneByOne) {
#pragma unroll 1
          for (int i = 0; i < kBlock && t + i < end; ++i) take(received(slot + i));
        } else if (whole || t + kBlock <= end) {
#pragma unroll
          for (int i = 0; i < kBlock; ++i) take(received(slot + i));
        } else {
          for (int i = 0; t + i < end; ++i) take(received(slot + i));
        }
      });
      send_block(slot, t + Ring::kDepth);
      slot = slot + kBlock == Ring::kDepth ? 0 : slot + kBlock;
    }
    wait_for_copies<0>();
  }

  /// The same for inputs too narrow for the ring: one block of steps is on its way.
  template <class TakeBlock>
  PARARNN_FN void each_block_through_registers(Int begin, Int end, const Storage* next,
                                               const TakeBlock& take_block) const {
    const Int block_stride = kBlock * problem.u.step_stride;
    const auto load_step = [&](int i) { return load_inputs(next + i * problem.u.step_stride); };
    Inputs coming[kBlock];
    if (begin + kBlock <= end) {
#pragma unroll
      for (int i = 0; i < kBlock; ++i) coming[i] = load_step(i);
    }
    for (Int t = begin; t < end; t += kBlock) {
      // Behind the last whole block there is none: it is loaded again, which takes less time than a
      // branch around each load.
      if (t + 2 * kBlock <= end) next += block_stride;
      take_block(t, [&](auto whole, const auto& take) {
        if constexpr (whole == kOneByOne) {
          // Again from memory, as registers are not numbered.
          const Storage* now = static_cast<const Storage*>(problem.u.data) +
                               view_offset(problem.u, lane.row, t, lane.channel / W * W);
#pragma unroll 1
          for (int i = 0; i < kBlock && t + i < end; ++i) {
            take(load_inputs(now + i * problem.u.step_stride));
          }
          if (t + kBlock > end) return;
          if (t + 2 * kBlock > end) next = now;
#pragma unroll
          for (int i = 0; i < kBlock; ++i) coming[i] = load_step(i);
        } else if (whole || t + kBlock <= end) {
#pragma unroll
          for (int i = 0; i < kBlock; ++i) {
            const Inputs inputs = coming[i];
            coming[i] = load_step(i);
            take(inputs);
          }
        } else {
          if (t > begin) next += block_stride;
          for (int i = 0; t + i < end; ++i) take(load_step(i));
        }
      });
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

  /// Keeps where the chunk ended, and the final state, which those of sequences are no more.
  PARARNN_FN void store_end(const State& h) const {
    if (problem.size.chunks > 1) store_boundary(h, problem.end);
    if (kStarts && problem.sequences.offsets) return;
    if (lane.chunk == problem.size.chunks - 1) store_final(h, lane.row);
  }
  PARARNN_FN void store_final(const State& h, Int number) const {
    store_columns<S, V, T>(h, problem.hT, [&](int s) { return state_offset(number, s); });
  }
  /// Of component s among states (N,S,D).
  PARARNN_FN Int state_offset(Int number, int s) const {
    return (number * S + s) * problem.size.channels + lane.channel;
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

  /// Of the row's first step.
  PARARNN_FN State initial_state([[maybe_unused]] const PlaceForward& place = {}) const {
    if constexpr (kStarts) {
      if (problem.sequences.offsets) return initial_state(place.sequence);
      if (starts_before(0, place)) return {};
    }
    return initial_state(lane.row);
  }
  PARARNN_FN State initial_state(Int number) const {
    if (!problem.h0) return {};
    return load_columns<S, V, T>(problem.h0, [&](int s) { return state_offset(number, s); });
  }

  /// Where a burn-in begins, from zero.
  PARARNN_FN Int begin_of_burn_in() const {
    const Int before = lane.begin;
    return before - (problem.size.burn_in < before ? problem.size.burn_in : before);
  }
  /// Of step t.
  PARARNN_FN PlaceForward place_at([[maybe_unused]] Int t) const {
    const Sequences& sequences = problem.sequences;
    if (!kStarts || !sequences.offsets) return {};
    const int n = sequence_at(sequences.offsets, sequences.count, t);
    return {n, sequences.offsets[n + 1]};
  }
  /// Whether the state may start anew before one of the steps (t, t + kBlock].
  PARARNN_FN bool may_start_within(Int t, const PlaceForward& place) const {
    const Sequences& sequences = problem.sequences;
    if (sequences.offsets) return place.end <= t + kBlock;
    return reset_bits<kBlock>(sequences, problem.size, lane.row, t + 1) != 0;
  }
  /// Whether it does before step t.
  PARARNN_FN bool starts_before(Int t, const PlaceForward& place) const {
    const Sequences& sequences = problem.sequences;
    if (sequences.offsets) return place.end == t;
    return t < problem.size.steps && sequences.reset[lane.row * problem.size.steps + t];
  }
  /// The state before step t, behind another sequence or at a flag. A chunk `keeps` the final state
  /// of the sequence that ends, and of those without steps behind it.
  PARARNN_FN void start_anew(Int t, bool keeps, PlaceForward& place, State& h) const {
    const Sequences& sequences = problem.sequences;
    if (!sequences.offsets) {
      h = State{};
      return;
    }
    int n = place.sequence;
    while (true) {
      if (keeps) store_final(h, n);
      if (++n >= sequences.count) return;
      h = initial_state(n);
      place = {n, sequences.offsets[n + 1]};
      if (place.end > t) return;
    }
  }
  /// The final states of sequences without steps at the beginning of the row.
  PARARNN_FN void keep_states_before(const PlaceForward& place) const {
    if (!kStarts || !problem.sequences.offsets) return;
    for (int n = 0; n < place.sequence; ++n) store_final(initial_state(n), n);
  }

  PARARNN_FN static Jacobian identities() {
    Jacobian m{};
    static_for<V>([&](auto v) { m[v] = identity<T, S>(); });
    return m;
  }
};

/// Blocks on a multiprocessor that a pass leaves registers for, as the ring leaves them shared
/// memory. The compiler's own choice is more of them, and spills.
template <class Storage, bool kStarts>
inline constexpr int kPassBlocks = sizeof(Storage) == 8 ? 4
                                   : kStarts            ? 7
                                                        : 8;

/// Makes all results NaN; by a grid.
template <class C, class Storage>
__device__ void lose_results(const ForwardProblem& problem) {
  fill_with_nan<Storage>(problem.y, 1, problem.size);
  fill_with_nan<Arithmetic<Storage>>(problem.hT,
                                     problem.sequences.count * C::kState * problem.size.channels);
}

/// All lanes once.
template <class C, class Storage, int V, int W, ForwardPass kPass, bool kStarts>
__global__ void __launch_bounds__(kThreadsPerBlock, kPassBlocks<Storage, kStarts>)
    forward_pass(const __grid_constant__ ForwardProblem problem) {
  constexpr bool kBurnIn = kPass != ForwardPass::kGiven, kMap = kPass == ForwardPass::kMap;
  if constexpr (kStarts && !kBurnIn) {
    // Of several chunks the correction looks at the offsets.
    if (problem.size.chunks == 1 && offsets_are_wrong(problem.sequences, problem.size)) {
      lose_results<C, Storage>(problem);
      return;
    }
  }
  const Int index = thread_index();
  if (index >= lane_count(problem.size, V)) return;
  const Lane lane = lane_at(problem.size, V, index);
  using F = Forward<C, Storage, V, W, kStarts>;
  const F forward(problem, lane);
  if (kBurnIn) reset_verification<V, kStarts>(problem, lane);
  auto m = F::identities();
  typename F::State h{};
  Int first = lane.begin;
  const PlaceForward place = forward.place_at(kBurnIn ? forward.begin_of_burn_in() : first);
  if (lane.chunk == 0) {
    h = forward.initial_state(place);
    forward.keep_states_before(place);
  } else if constexpr (kBurnIn) {
    first = forward.begin_of_burn_in();
  } else {
    h = forward.load_boundary(problem.start);
  }
  forward.template run<kBurnIn, !kMap, kMap>(first, place, h, m);
  forward.store_end(h);
  if constexpr (kMap) forward.store_jacobian(m);
}

}  // namespace pararnn::cuda
