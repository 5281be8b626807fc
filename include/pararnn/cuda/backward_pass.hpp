// The backward pass on the GPU: docs/method.md.
//
//   backward_pass   all lanes once: gradients from a burn-in or from given adjoints, or the affine
//                   map of each chunk
//   sum_parts       the parameters' gradient, in a fixed order
//
// A thread takes up to eight steps at a time, a section: it runs them with dual numbers, keeps
// their Jacobians in registers, and sweeps back over them, while the next section's inputs are on
// their way.
#pragma once

#include "pararnn/core/affine.hpp"
#include "pararnn/core/cell.hpp"
#include "pararnn/cuda/starts.hpp"
#include "pararnn/cuda/verification.hpp"

namespace pararnn::cuda {

/// One cell on tensors of one storage, V columns a thread. With kStarts, states may start anew
/// within a row.
template <class C, class Storage, int V, bool kStarts = false>
struct Backward {
  static constexpr int S = C::kState, U = C::kInputs, P = C::kParams, K = kCheckpointInterval;
  static constexpr int kAll = S + U + P;
  using T = Arithmetic<Storage>;
  using Adjoint = Columns<T, S, V>;
  using Map = Vec<Affine<T, S>, V>;

  /// The inputs of a step as they lie in memory.
  struct Inputs {
    Pack<Storage, V> u[U], dy;
  };
  template <int N>
  using Jacobians = Vec<Mat<T, S, N>, V>;
  struct Gradients {
    Adjoint mu;
    Columns<T, P, V> dw;
    Vec<T, V> peak;
  };

  const BackwardProblem& problem;
  const Lane& lane;
  Columns<T, P, V> w;

  PARARNN_FN Backward(const BackwardProblem& the_problem, const Lane& the_lane)
      : problem(the_problem), lane(the_lane), w(load_columns<P, V, T>(the_problem.w, [&](int n) {
          return n * the_problem.size.channels + the_lane.channel;
        })) {}

  PARARNN_FN Inputs load_inputs(const Storage* u, const Storage* dy) const {
    Inputs inputs{};
#pragma unroll
    for (int n = 0; n < U; ++n) {
      inputs.u[n] = load_pack<Storage, V>(u + n * problem.u.component_stride);
    }
    inputs.dy = load_pack<Storage, V>(dy);
    return inputs;
  }
  PARARNN_FN const Storage* u_at(Int t) const {
    return static_cast<const Storage*>(problem.u.data) +
           view_offset(problem.u, lane.row, t, lane.channel);
  }
  PARARNN_FN const Storage* dy_at(Int t) const {
    return static_cast<const Storage*>(problem.dy.data) +
           view_offset(problem.dy, lane.row, t, lane.channel);
  }
  PARARNN_FN static Columns<T, U, V> unpack(const Inputs& inputs) {
    Columns<T, U, V> u{};
#pragma unroll
    for (int n = 0; n < U; ++n) {
      const Vec<T, V> values = inputs.u[n].unpack();
#pragma unroll
      for (int v = 0; v < V; ++v) u[v][n] = values[v];
    }
    return u;
  }

  /// Advances h by a step, and gives its Jacobians with respect to the first N arguments.
  template <int N>
  PARARNN_FN Jacobians<N> differentiate_step(const Inputs& inputs, Columns<T, S, V>& h) const {
    const Columns<T, U, V> u = unpack(inputs);
    Jacobians<N> jacobians{};
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const auto d = differentiate<C, N>(h[v], u[v], w[v]);
      jacobians[v] = d.jacobian;
      h[v] = d.next;
    }
    return jacobians;
  }

  PARARNN_FN void take_step(const Inputs& inputs, Columns<T, S, V>& h) const {
    const Columns<T, U, V> u = unpack(inputs);
#pragma unroll
    for (int v = 0; v < V; ++v) h[v] = next_state<C>(h[v], u[v], w[v]);
  }

  /// Whether the next section's inputs wait in registers; numbers of eight bytes leave no room.
  static constexpr bool kAhead = sizeof(T) == 4;

  /// How many steps' Jacobians with respect to the first N arguments are kept in registers.
  template <int N>
  static constexpr int kept_steps() {
    constexpr int kRegisters = kAhead ? 198 - (K * (U + 1) + 2 * P + 3 * S) * V : 40;
    int entries = 0;
    for (int s = 0; s < S; ++s) {
      for (int n = 0; n < N; ++n) entries += kJacobianPattern<C>[s].depends_on(n);
    }
    int steps = K;
    while (steps > 1 && steps * entries * V > kRegisters) steps /= 2;
    return steps;
  }

  /// Calls sweep(jacobians, dy) for the steps of [begin, end) from the last to the first. begin is
  /// a checkpoint. `place` is that of `end`, and then that of `begin`. Behind each sweep comes
  /// cross(here, other), which, if the state starts anew `here`, before the step, takes `other` for
  /// the adjoint, and leaves there the one so far; and leave(sequence, other) where one started.
  template <int N, bool kKeep = false, class Sweep, class Cross>
  PARARNN_FN void each_step(Int begin, Int end, PlaceBackward& place, Sweep&& sweep,
                            Cross&& cross) const {
    const Int whole = begin + (end - begin) / K * K;
    if constexpr (kStarts) {
      // A block of several starts step by step.
      Int first = whole;
      while (true) {
        each_section<N, 1, kKeep>(first, end, place, sweep, cross);
        end = each_section<N, kept_steps<N>(), kKeep>(begin, first, place, sweep, cross);
        if (end <= begin) break;
        first = end - K;
      }
    } else {
      each_section<N, 1, kKeep>(whole, end, place, sweep, cross);
      each_section<N, kept_steps<N>(), kKeep>(begin, whole, place, sweep, cross);
    }
  }

  /// The same for whole sections of kKept steps, each while the inputs of the one before it are on
  /// their way. A section that does not begin at a checkpoint takes the steps from there again, in
  /// a loop, as they are many instructions to compile and their inputs are near. Returns where it
  /// came to: `begin`, or the end of a block of several starts.
  template <int N, int kKept, bool kKeep, class Sweep, class Cross>
  PARARNN_FN Int each_section(Int begin, Int end, PlaceBackward& place, Sweep&& sweep,
                              Cross&& cross) const {
    auto left = static_cast<unsigned>((end - begin) / kKept);
    if (left == 0) return begin;
    const Storage *u = u_at(end - kKept), *dy = dy_at(end - kKept);
    const auto load_step = [&](int i) {
      return load_inputs(u + i * problem.u.step_stride, dy + i * problem.dy.step_stride);
    };
    const T* checkpoint = static_cast<const T*>(problem.checkpoints) +
                          checkpoint_offset(problem.size, lane, end - kKept, S, 0);
    const auto load_start = [&] {
      return load_columns<S, V, T>(checkpoint, [&](int s) { return s * problem.size.channels; });
    };
    Columns<T, S, V> start = load_start();
    Inputs inputs[kKept];
    if constexpr (kAhead) {
#pragma unroll
      for (int i = 0; i < kKept; ++i) inputs[i] = load_step(i);
    }
#pragma unroll 1
    while (left > 0) {
      --left;
      const int offset = static_cast<int>(left % (K / kKept)) * kKept;  // in its block
      [[maybe_unused]] LastStart last{};
      if constexpr (kStarts) {
        last = last_start(begin + Int(left) * kKept - offset, offset + kKept, place);
        if (kKept > 1 && offset + kKept == K && last.is_one_of_several) {
          return begin + Int(left + 1) * kKept;
        }
      }
      const auto take_section = [&] {
        Columns<T, S, V> h = start;
        [[maybe_unused]] Columns<T, S, V> anew{};
        int i = -offset;
        if constexpr (kStarts) {
          if (last.step >= 0) anew = initial_state(place.sequence);
          if (last.step >= 0 && last.step <= offset) {
            h = anew;
            i = last.step - offset;
          }
        }
        if constexpr (kKept < K) {
#pragma unroll 1
          for (; i < 0; ++i) take_step(load_step(i), h);
        }
        if constexpr (!kAhead) {
#pragma unroll
          for (int i = 0; i < kKept; ++i) inputs[i] = load_step(i);
        }
        u -= kKept * problem.u.step_stride;
        dy -= kKept * problem.dy.step_stride;
        if (offset == 0) checkpoint -= S * problem.size.channels;
        if (left > 0) start = load_start();
        Jacobians<N> jacobians[kKept];
        Pack<Storage, V> direct[kKept];
#pragma unroll
        for (int i = 0; i < kKept; ++i) {
          const Inputs now = inputs[i];
          // The branch keeps the loads here, and so on their way while the section is computed:
          // without it the compiler moves them down to their use.
          if (kAhead && left > 0) inputs[i] = load_step(i);
          jacobians[i] = differentiate_step<N>(now, h);
          direct[i] = now.dy;
          if (kStarts && i + 1 < kKept) h = last.step == offset + i + 1 ? anew : h;
        }
        [[maybe_unused]] Adjoint other{};
        [[maybe_unused]] const int sequence = place.sequence;
        [[maybe_unused]] const bool starts = last.step >= offset && last.step < offset + kKept;
        if constexpr (kStarts) {
          if (starts) other = go_back<kKeep>(begin + Int(left) * kKept - offset + last.step, place);
        }
#pragma unroll
        for (int i = kKept - 1; i >= 0; --i) {
          sweep(jacobians[i], direct[i].unpack());
          if constexpr (kStarts) cross(last.step == offset + i, other);
        }
        if (kStarts && kKeep && starts && problem.sequences.offsets) store_initial(other, sequence);
      };
      take_section();
    }
    return begin;
  }

  /// The last step of a block before which the state starts anew, or -1, and whether it is not the
  /// only one.
  struct LastStart {
    int step = -1;
    bool is_one_of_several = false;
  };
  /// Among so many steps of a block that begins at step t.
  PARARNN_FN LastStart last_start(Int t, int steps, const PlaceBackward& place) const {
    if (problem.sequences.offsets) {
      return {place.begin >= t ? static_cast<int>(place.begin - t) : -1, place.before >= t};
    }
    const unsigned bits =
        reset_bits<K>(problem.sequences, problem.size, lane.row, t) & ((1u << steps) - 1);
    LastStart last{-1, (bits & (bits - 1)) != 0};
#pragma unroll
    for (int i = 0; i < K; ++i) {
      if (bits >> i & 1) last.step = i;
    }
    return last;
  }

  /// The place of steps before t.
  PARARNN_FN PlaceBackward place_before([[maybe_unused]] Int t) const {
    const Sequences& sequences = problem.sequences;
    if (!kStarts || !sequences.offsets) return {};
    return place_in(sequence_at(sequences.offsets, sequences.count, t - 1));
  }
  PARARNN_FN PlaceBackward place_in(int n) const {
    const int* offsets = problem.sequences.offsets;
    return {n, offsets[n], n > 0 ? offsets[n - 1] : -1};
  }

  /// From where the state starts anew.
  PARARNN_FN Columns<T, S, V> initial_state(int number) const {
    if (!problem.sequences.offsets || !problem.h0) return {};
    return load_columns<S, V, T>(problem.h0, [&](int s) { return state_offset(number, s); });
  }

  /// Goes back over the start of a sequence, or a flag, before step t: the final adjoint of what is
  /// before. Whose gradients are kept, keeps those of sequences without steps between the two.
  template <bool kKeep>
  PARARNN_FN Adjoint go_back(Int t, PlaceBackward& place) const {
    if (!problem.sequences.offsets) return {};
    int n = place.sequence;
    while (--n >= 0) {
      const Adjoint mu = final_adjoint(Int(n));
      place = place_in(n);
      if (place.begin < t) return mu;
      if (kKeep) store_initial(mu, n);
    }
    place = {};
    return {};
  }

  PARARNN_FN static Vec<T, S> with_direct_part(Vec<T, S> mu, T dy) {
    mu[0] += dy;
    return mu;
  }

  PARARNN_FN static void exchange(bool here, Adjoint& mu, Adjoint& other) {
    const Adjoint before = mu;
    mu = here ? other : mu;
    other = here ? before : other;
  }

  /// Carries the adjoint alone.
  PARARNN_FN void adjoint(Int begin, Int end, PlaceBackward& place, Adjoint& mu) const {
    const auto sweep = [&](const Jacobians<S>& jacobians, const Vec<T, V>& dy) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        mu[v] = apply_transposed<C, 0, S>(jacobians[v], with_direct_part(mu[v], dy[v]));
      }
    };
    each_step<S>(begin, end, place, sweep,
                 [&](bool here, Adjoint& other) { exchange(here, mu, other); });
  }

  /// The maps behind one step more.
  template <int N>
  PARARNN_FN static void extend(Map& maps, const Jacobians<N>& jacobians, const Vec<T, V>& dy) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const auto back = [&](const Vec<T, S>& x) {
        return apply_transposed<C, 0, S>(jacobians[v], x);
      };
      maps[v].offset = back(with_direct_part(maps[v].offset, dy[v]));
      static_for<S>([&](auto c) {
        Vec<T, S> column{};
        static_for<S>([&](auto r) { column[r] = maps[v].matrix(r, c); });
        column = back(column);
        static_for<S>([&](auto r) { maps[v].matrix(r, c) = column[r]; });
      });
    }
  }

  /// Carries the affine map from the adjoint at the chunk's end.
  PARARNN_FN void map(PlaceBackward place, Map& maps) const {
    const auto sweep = [&](const Jacobians<S>& jacobians, const Vec<T, V>& dy) {
      extend(maps, jacobians, dy);
    };
    each_step<S>(lane.begin, lane.end, place, sweep, [&](bool here, const Adjoint& other) {
      static_for<V>([&](auto v) { maps[v] = here ? Affine<T, S>{{}, other[v]} : maps[v]; });
    });
  }

  /// One step back: adds to the gradients, and writes those of the inputs. `counts`: the peak may
  /// be here.
  PARARNN_FN void step_back(const Jacobians<kAll>& jacobians, const Vec<T, V>& dy, bool counts,
                            Gradients& g, Storage* du) const {
    Vec<T, V> inputs[U];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const Vec<T, S> lambda = with_direct_part(g.mu[v], dy[v]);
      static_for<S>([&](auto s) {
        const bool larger = g.peak[v] < abs(lambda[s]) && counts;
        g.peak[v] = larger ? abs(lambda[s]) : g.peak[v];
      });
      const Vec<T, U> du_v = apply_transposed<C, S, U>(jacobians[v], lambda);
      static_for<U>([&](auto n) { inputs[n][v] = du_v[n]; });
      g.dw[v] = g.dw[v] + apply_transposed<C, S + U, P>(jacobians[v], lambda);
      g.mu[v] = apply_transposed<C, 0, S>(jacobians[v], lambda);
    }
#pragma unroll
    for (int n = 0; n < U; ++n) {
      store_pack<Storage, V>(du + n * problem.du.component_stride, Pack<Storage, V>::of(inputs[n]));
    }
  }

  PARARNN_FN Storage* du_at(Int t) const {
    return static_cast<Storage*>(problem.du.data) +
           view_offset(problem.du, lane.row, t, lane.channel);
  }

  /// Carries the adjoint and writes the inputs' gradients.
  PARARNN_FN void gradients(PlaceBackward place, Gradients& g) const {
    Storage* du = du_at(lane.end - 1);
    [[maybe_unused]] bool crossed = false;
    const auto sweep = [&](const Jacobians<kAll>& jacobians, const Vec<T, V>& dy) {
      step_back(jacobians, dy, !(kStarts && crossed), g, du);
      du -= problem.du.step_stride;
    };
    // The sequences before have another scale than the adjoint at the chunk's end.
    each_step<kAll, true>(lane.begin, lane.end, place, sweep, [&](bool here, Adjoint& other) {
      crossed = crossed | here;
      exchange(here, g.mu, other);
    });
  }

  template <int N>
  PARARNN_FN Columns<T, N, V> load_boundary(const void* from) const {
    return load_columns<N, V, T>(from,
                                 [&](int n) { return boundary_offset(problem.size, lane, N, n); });
  }
  template <int N>
  PARARNN_FN void store_boundary(const Columns<T, N, V>& values, void* to) const {
    store_columns<N, V, T>(values, to,
                           [&](int n) { return boundary_offset(problem.size, lane, N, n); });
  }
  /// Of component s among states (N,S,D).
  PARARNN_FN Int state_offset(Int number, int s) const {
    return (number * S + s) * problem.size.channels + lane.channel;
  }
  /// The adjoint of an initial state.
  PARARNN_FN void store_initial(const Adjoint& mu, Int number) const {
    store_columns<S, V, T>(mu, problem.dh0, [&](int s) { return state_offset(number, s); });
  }

  /// The adjoint at the chunk's end by a burn-in beyond it, from zero, or from the final adjoint
  /// where the sequence ends within it. `place` becomes that of the chunk's end.
  PARARNN_FN Adjoint burn_in(PlaceBackward& place) const {
    const Int left = problem.size.steps - lane.end;
    const bool reaches_end = left <= problem.size.burn_in;
    const Int end = lane.end + (reaches_end ? left : problem.size.burn_in);
    place = place_before(end);
    Adjoint mu{};
    if (reaches_end) mu = final_adjoint(place);
    adjoint(lane.end, end, place, mu);
    return mu;
  }
  PARARNN_FN Adjoint final_adjoint([[maybe_unused]] const PlaceBackward& place) const {
    return final_adjoint(kStarts && problem.sequences.offsets ? place.sequence : lane.row);
  }
  PARARNN_FN Adjoint final_adjoint(Int number) const {
    return load_columns<S, V, T>(problem.dhT, [&](int s) { return state_offset(number, s); });
  }
  /// The adjoints of the initial states of sequences without steps at the end of the row.
  PARARNN_FN void keep_adjoints_behind(const PlaceBackward& place) const {
    if (!kStarts || !problem.sequences.offsets) return;
    for (Int n = place.sequence + 1; n < problem.sequences.count; ++n) {
      store_initial(final_adjoint(n), n);
    }
  }

  /// Runs the chunk from mu and keeps all results. `place` is that of the chunk's end.
  PARARNN_FN void run(const Adjoint& mu, const PlaceBackward& place) const {
    Gradients g{mu, {}, {}};
    gradients(place, g);
    store_boundary<S>(g.mu, problem.start);
    store_boundary<P>(g.dw, problem.dw_parts);
    Columns<T, 1, V> peak{};
    static_for<V>([&](auto v) { peak[v][0] = g.peak[v]; });
    store_boundary<1>(peak, problem.peak);
    if (kStarts && problem.sequences.offsets) return;
    if (lane.chunk == 0) store_initial(g.mu, lane.row);
  }

  PARARNN_FN void run_map(const PlaceBackward& place) const {
    Map maps{};
    static_for<V>([&](auto v) { maps[v] = identity_map<T, S>(); });
    map(place, maps);
    Columns<T, S * S, V> matrix{};
    Columns<T, S, V> offset{};
    static_for<V>([&](auto v) {
      offset[v] = maps[v].offset;
      static_for<S>([&](auto r) {
        static_for<S>([&](auto c) { matrix[v][r * S + c] = maps[v].matrix(r, c); });
      });
    });
    store_boundary<S * S>(matrix, problem.map_matrix);
    store_boundary<S>(offset, problem.map_offset);
  }
};

/// Blocks on a multiprocessor that a pass leaves registers for. 0 is the compiler's choice, which
/// spills some of single and double numbers rather than take the registers that there are.
template <class Storage, BackwardPass kPass>
inline constexpr int kLeastBlocks = sizeof(Storage) == 8 ||
                                            (kPass == BackwardPass::kMap && sizeof(Storage) == 4)
                                        ? 4
                                        : 0;

/// Makes all results NaN, but for the sum of dw_parts; by a grid.
template <class C, class Storage>
__device__ void lose_results(const BackwardProblem& problem) {
  using T = Arithmetic<Storage>;
  const Chunking& size = problem.size;
  fill_with_nan<Storage>(problem.du, C::kInputs, size);
  fill_with_nan<T>(problem.dh0, problem.sequences.count * C::kState * size.channels);
  fill_with_nan<T>(problem.dw_parts, size.batch * size.chunks * C::kParams * size.channels);
}

/// All lanes once. The last chunk's end is the final adjoint.
template <class C, class Storage, int V, BackwardPass kPass, bool kStarts>
__global__ void __launch_bounds__(kThreadsPerBlock, kLeastBlocks<Storage, kPass>)
    backward_pass(const __grid_constant__ BackwardProblem problem) {
  if constexpr (kStarts && kPass == BackwardPass::kGiven) {
    // Of several chunks the correction looks at the offsets.
    if (problem.size.chunks == 1 && offsets_are_wrong(problem.sequences, problem.size)) {
      lose_results<C, Storage>(problem);
      return;
    }
  }
  const Int index = thread_index();
  if (index >= lane_count(problem.size, V)) return;
  const Lane lane = lane_at(problem.size, V, index);
  using B = Backward<C, Storage, V, kStarts>;
  const B backward(problem, lane);
  if (kPass != BackwardPass::kGiven) reset_verification<V, kStarts>(problem, lane);
  if constexpr (kPass == BackwardPass::kMap) {
    backward.run_map(backward.place_before(lane.end));
    return;
  }
  typename B::Adjoint mu{};
  PlaceBackward place{};
  if constexpr (kPass == BackwardPass::kBurnIn) {
    mu = backward.burn_in(place);
    backward.template store_boundary<C::kState>(mu, problem.end);
  } else {
    place = backward.place_before(lane.end);
    if (lane.chunk == problem.size.chunks - 1) {
      mu = backward.final_adjoint(place);
      backward.template store_boundary<C::kState>(mu, problem.end);
    } else {
      mu = backward.template load_boundary<C::kState>(problem.end);
    }
  }
  if (lane.chunk == problem.size.chunks - 1) backward.keep_adjoints_behind(place);
  backward.run(mu, place);
}

/// Parts that a thread loads before it adds the first.
inline constexpr int kPartsTogether = 8;

/// dw: the sum of the parts over rows and chunks, by a grid of blocks. sum_rows threads share a
/// column, each adding every so many parts; their sums are added in order: always the same order.
template <class C, class T>
__device__ void sum_parts_by_grid(const BackwardProblem& problem) {
  using Sums = double[kThreadsPerBlock];
  PARARNN_SHARED(Sums, sums);
  const Int width = C::kParams * problem.size.channels;
  const Int parts = problem.size.batch * problem.size.chunks;
  const int rows = sum_rows(parts), columns = kThreadsPerBlock / rows;
  const int row = threadIdx.x / columns;
  for (Int first = Int(blockIdx.x) * columns; first < width; first += Int(gridDim.x) * columns) {
    const Int column = first + threadIdx.x % columns;
    double sum = 0;
    if (column < width) {
      const T* part = static_cast<const T*>(problem.dw_parts) + row * width + column;
#pragma unroll 1
      for (Int i = row; i < parts; i += kPartsTogether * rows) {
        T values[kPartsTogether];
#pragma unroll
        for (int k = 0; k < kPartsTogether; ++k) {
          values[k] = i + k * rows < parts ? *part : T(0);
          part += rows * width;
        }
#pragma unroll
        for (int k = 0; k < kPartsTogether; ++k) sum += values[k];
      }
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (row == 0 && column < width) {
      for (int r = 1; r < rows; ++r) sum += sums[r * columns + threadIdx.x];
      static_cast<T*>(problem.dw)[column] = T(sum);
    }
    __syncthreads();
  }
}

/// After a pass of one chunk. After one of several, backward_correct does it.
template <class C, class Storage>
__global__ void __launch_bounds__(kThreadsPerBlock)
    sum_parts(const __grid_constant__ BackwardProblem problem) {
  sum_parts_by_grid<C, Arithmetic<Storage>>(problem);
}

}  // namespace pararnn::cuda
