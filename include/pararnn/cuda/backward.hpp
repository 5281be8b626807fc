// The backward pass on the GPU: docs/method.md.
//
//   backward_pass   all lanes once: gradients from a burn-in or from given adjoints, or the affine
//                   map of each chunk
//   sum_parts       the parameters' gradient, in a fixed order
//
// A thread takes eight steps at a time: from the checkpoint it runs them with dual numbers, keeps
// their Jacobians in registers, and sweeps back over them, while the next eight steps' inputs are
// on their way.
#pragma once

#include "pararnn/core/affine.hpp"
#include "pararnn/core/cell.hpp"
#include "pararnn/cuda/lane.hpp"

namespace pararnn::cuda {

/// One cell on tensors of one storage, V columns a thread.
template <class C, class Storage, int V>
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
  PARARNN_FN Columns<T, S, V> load_checkpoint(Int t) const {
    return load_columns<S, V, T>(
        problem.checkpoints, [&](int s) { return checkpoint_offset(problem.size, lane, t, S, s); });
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
    for (int v = 0; v < V; ++v) h[v] = C::step(h[v], u[v], w[v]);
  }

  /// Whether the next block's inputs wait in registers; numbers of eight bytes leave no room.
  static constexpr bool kAhead = sizeof(T) == 4;

  /// How many steps' Jacobians with respect to the first N arguments are kept in registers.
  template <int N>
  static constexpr int kept_steps() {
    constexpr int kRegisters = kAhead ? 198 - (K * (U + 1) + 2 * P + 3 * S) * V : 72;
    int entries = 0;
    for (int s = 0; s < S; ++s) {
      for (int n = 0; n < N; ++n) entries += kJacobianPattern<C>[s].depends_on(n);
    }
    int steps = K;
    while (steps > 1 && (steps * entries + (K / steps - 1) * S) * V > kRegisters) steps /= 2;
    return steps;
  }

  /// Calls sweep(jacobians, dy) for the steps of [begin, end) from the last to the first. begin is
  /// a checkpoint.
  template <int N, class F>
  PARARNN_FN void each_step(Int begin, Int end, F&& sweep) const {
    const Int whole = begin + (end - begin) / K * K;
    // A last block that is not whole: each step from its checkpoint.
    for (Int t = end - 1; t >= whole; --t) {
      Columns<T, S, V> h = load_checkpoint(whole);
      Inputs inputs = load_inputs(u_at(whole), dy_at(whole));
      for (Int i = whole; i < t; ++i) {
        take_step(inputs, h);
        inputs = load_inputs(u_at(i + 1), dy_at(i + 1));
      }
      const Jacobians<N> jacobians = differentiate_step<N>(inputs, h);
      sweep(jacobians, inputs.dy.unpack());
    }
    if constexpr (kAhead) {
      each_step_ahead<N>(begin, whole, sweep);
    } else {
      each_step_in_loops<N>(begin, whole, sweep);
    }
  }

  /// Steps [begin, whole) of whole blocks, each while the one before it is on its way. As many
  /// steps together as Jacobians fit the registers, the last ones first.
  template <int N, class F>
  PARARNN_FN void each_step_ahead(Int begin, Int whole, F&& sweep) const {
    Int t = whole - K;
    if (t < begin) return;
    constexpr int kKept = kept_steps<N>();
    Inputs block[K];
    Columns<T, S, V> checkpoint = load_checkpoint(t);
    const Storage *u = u_at(t), *dy = dy_at(t);
    const auto load_step = [&](int i) {
      return load_inputs(u + i * problem.u.step_stride, dy + i * problem.dy.step_stride);
    };
#pragma unroll
    for (int i = 0; i < K; ++i) block[i] = load_step(i);
    for (; t >= begin; t -= K) {
      const bool more = t - K >= begin;
      Columns<T, S, V> starts[K / kKept];
      starts[0] = checkpoint;
      Columns<T, S, V> state = checkpoint;
#pragma unroll
      for (int i = 0; i < K - kKept; ++i) {
        take_step(block[i], state);
        if ((i + 1) % kKept == 0) starts[(i + 1) / kKept] = state;
      }
      u -= K * problem.u.step_stride;
      dy -= K * problem.dy.step_stride;
      if (more) checkpoint = load_checkpoint(t - K);
      static_for<K / kKept>([&]<int I>(Index<I>) {
        constexpr int kSection = K / kKept - 1 - I, kFirst = kSection * kKept;
        Columns<T, S, V> h = starts[kSection];
        Jacobians<N> jacobians[kKept];
        Pack<Storage, V> direct[kKept];
#pragma unroll
        for (int i = 0; i < kKept; ++i) {
          const Inputs inputs = block[kFirst + i];
          if (more) block[kFirst + i] = load_step(kFirst + i);
          jacobians[i] = differentiate_step<N>(inputs, h);
          direct[i] = inputs.dy;
        }
#pragma unroll
        for (int i = kKept - 1; i >= 0; --i) {
          sweep(jacobians[i], direct[i].unpack());
        }
      });
    }
  }

  /// The same in loops, each section of steps from the checkpoint again: the functions of doubles
  /// are long, and unrolled take many seconds to compile.
  template <int N, class F>
  PARARNN_FN void each_step_in_loops(Int begin, Int whole, F&& sweep) const {
    constexpr int kKept = kept_steps<N>();
#pragma unroll 1
    for (Int first = whole - kKept; first >= begin; first -= kKept) {
      const Int start = first - (first - begin) % K;
      const Storage *u = u_at(start), *dy = dy_at(start);
      Columns<T, S, V> h = load_checkpoint(start);
#pragma unroll 1
      for (Int t = start; t < first; ++t) {
        take_step(load_inputs(u, dy), h);
        u += problem.u.step_stride;
        dy += problem.dy.step_stride;
      }
      Jacobians<N> jacobians[kKept];
      Pack<Storage, V> direct[kKept];
#pragma unroll
      for (int i = 0; i < kKept; ++i) {
        const Inputs inputs = load_inputs(u, dy);
        jacobians[i] = differentiate_step<N>(inputs, h);
        direct[i] = inputs.dy;
        u += problem.u.step_stride;
        dy += problem.dy.step_stride;
      }
#pragma unroll
      for (int i = kKept - 1; i >= 0; --i) {
        sweep(jacobians[i], direct[i].unpack());
      }
    }
  }

  PARARNN_FN static Vec<T, S> with_direct_part(Vec<T, S> mu, T dy) {
    mu[0] += dy;
    return mu;
  }

  /// Carries the adjoint alone.
  PARARNN_FN void adjoint(Int begin, Int end, Adjoint& mu) const {
    each_step<S>(begin, end, [&](const Jacobians<S>& jacobians, const Vec<T, V>& dy) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        mu[v] = apply_transposed<C, 0, S>(jacobians[v], with_direct_part(mu[v], dy[v]));
      }
    });
  }

  /// Carries the affine map from the adjoint at the chunk's end.
  PARARNN_FN void map(Map& maps) const {
    each_step<S>(lane.begin, lane.end, [&](const Jacobians<S>& jacobians, const Vec<T, V>& dy) {
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
    });
  }

  /// Carries the adjoint and writes the inputs' gradients.
  PARARNN_FN void gradients(Gradients& g) const {
    Storage* du = static_cast<Storage*>(problem.du.data) +
                  view_offset(problem.du, lane.row, lane.end - 1, lane.channel);
    each_step<kAll>(lane.begin, lane.end,
                    [&](const Jacobians<kAll>& jacobians, const Vec<T, V>& dy) {
                      Vec<T, V> inputs[U];
#pragma unroll
                      for (int v = 0; v < V; ++v) {
                        const Vec<T, S> lambda = with_direct_part(g.mu[v], dy[v]);
                        static_for<S>([&](auto s) {
                          g.peak[v] = g.peak[v] < abs(lambda[s]) ? abs(lambda[s]) : g.peak[v];
                        });
                        const Vec<T, U> du_v = apply_transposed<C, S, U>(jacobians[v], lambda);
                        static_for<U>([&](auto n) { inputs[n][v] = du_v[n]; });
                        g.dw[v] = g.dw[v] + apply_transposed<C, S + U, P>(jacobians[v], lambda);
                        g.mu[v] = apply_transposed<C, 0, S>(jacobians[v], lambda);
                      }
#pragma unroll
                      for (int n = 0; n < U; ++n) {
                        store_pack<Storage, V>(du + n * problem.du.component_stride,
                                               Pack<Storage, V>::of(inputs[n]));
                      }
                      du -= problem.du.step_stride;
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
  PARARNN_FN Int row_offset(int s) const {
    return (lane.row * S + s) * problem.size.channels + lane.channel;
  }

  /// The adjoint at the chunk's end by a burn-in beyond it, from zero, or from the final adjoint
  /// where the sequence ends within it.
  PARARNN_FN Adjoint burn_in() const {
    const Int left = problem.size.steps - lane.end;
    const bool reaches_end = left <= problem.size.burn_in;
    Adjoint mu{};
    if (reaches_end) mu = load_columns<S, V, T>(problem.dhT, [&](int s) { return row_offset(s); });
    adjoint(lane.end, reaches_end ? problem.size.steps : lane.end + problem.size.burn_in, mu);
    return mu;
  }

  /// Runs the chunk from mu and keeps all results.
  PARARNN_FN void run(const Adjoint& mu) const {
    Gradients g{mu, {}, {}};
    gradients(g);
    store_boundary<S>(g.mu, problem.start);
    store_boundary<P>(g.dw, problem.dw_parts);
    Columns<T, 1, V> peak{};
    static_for<V>([&](auto v) { peak[v][0] = g.peak[v]; });
    store_boundary<1>(peak, problem.peak);
    if (lane.chunk == 0) {
      store_columns<S, V, T>(g.mu, problem.dh0, [&](int s) { return row_offset(s); });
    }
  }

  PARARNN_FN void run_map() const {
    Map maps{};
    static_for<V>([&](auto v) { maps[v] = identity_map<T, S>(); });
    map(maps);
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

/// Blocks on a multiprocessor that a kernel leaves registers for. 0 is the compiler's choice, which
/// spills some of single and double numbers rather than take the registers that there are.
template <class Storage, BackwardMode kMode>
inline constexpr int kLeastBlocks = sizeof(Storage) == 8 ||
                                            (kMode == BackwardMode::kMap && sizeof(Storage) == 4)
                                        ? 4
                                        : 0;

/// All lanes once. The last chunk's end is the final adjoint.
template <class C, class Storage, int V, BackwardMode kMode>
__global__ void __launch_bounds__(kThreadsPerBlock, kLeastBlocks<Storage, kMode>)
    backward_pass(const __grid_constant__ BackwardProblem problem) {
  const Int index = thread_index();
  if (index >= lane_count(problem.size, V)) return;
  const Lane lane = lane_at(problem.size, V, index);
  using B = Backward<C, Storage, V>;
  const B backward(problem, lane);
  if (kMode != BackwardMode::kGiven) reset_verification<V>(problem, lane);
  if constexpr (kMode == BackwardMode::kMap) {
    backward.run_map();
    return;
  }
  typename B::Adjoint mu{};
  if (kMode == BackwardMode::kBurnIn || lane.chunk == problem.size.chunks - 1) {
    mu = backward.burn_in();
    backward.template store_boundary<C::kState>(mu, problem.end);
  } else {
    mu = backward.template load_boundary<C::kState>(problem.end);
  }
  backward.run(mu);
}

/// dw (P,D): the sum of the parts over rows and chunks. A block adds kSumColumns numbers, each in
/// kSumRows sums over every so many parts, then those in their order: always the same order.
inline constexpr int kSumColumns = kThreadsPerBlock / kSumRows;

template <class C, class Storage>
__global__ void __launch_bounds__(kThreadsPerBlock)
    sum_parts(const __grid_constant__ BackwardProblem problem, void* dw) {
  using T = Arithmetic<Storage>;
  __shared__ double sums[kSumRows][kSumColumns];
  const int row = threadIdx.x / kSumColumns, i = threadIdx.x % kSumColumns;
  const Int column = static_cast<Int>(blockIdx.x) * kSumColumns + i;
  const Int width = C::kParams * problem.size.channels;
  const Int parts = problem.size.batch * problem.size.chunks;
  double sum = 0;
  if (column < width) {
#pragma unroll 8
    for (Int part = row; part < parts; part += kSumRows) {
      sum += static_cast<const T*>(problem.dw_parts)[part * width + column];
    }
  }
  sums[row][i] = sum;
  __syncthreads();
  if (row > 0 || column >= width) return;
  for (int r = 1; r < kSumRows; ++r) sum += sums[r][i];
  static_cast<T*>(dw)[column] = T(sum);
}

}  // namespace pararnn::cuda
