// The backward kernel on the CPU, in the same blocks as the forward kernel. It recomputes a block's
// states from its checkpoint with dual numbers, keeps the Jacobians, then sweeps back over them:
//
//   mu_{t-1} = J_t^T lambda_t,  lambda_t = mu_t + e_0 dL/dy_t,
//   du_t = (dh_t/du_t)^T lambda_t,  dw += (dh_t/dw)^T lambda_t
#pragma once

#include "pararnn/core/affine.hpp"
#include "pararnn/core/cell.hpp"
#include "pararnn/cpu/lanes.hpp"
#include "pararnn/cpu/parts.hpp"

namespace pararnn::cpu {
inline namespace PARARNN_INSTRUCTION_SET {

/// One cell's backward kernel.
template <Cell C, class T>
struct BackwardKernel {
  static constexpr int S = C::kState, U = C::kInputs, P = C::kParams, W = kLanesFor<C, T>;
  static constexpr int kAll = S + U + P;
  using B = Batch<T, W>;

  template <int N>
  struct Jacobians {
    Mat<B, S, N> step[kCheckpointInterval];
  };

  static constexpr int kParts = B::kRegisters;
  using Part = PartOf<B>;

  /// The Jacobians of steps [first, last) of a block, from the state before them; returns the state
  /// behind them.
  template <int N>
  static Vec<B, S> recompute(const Vec<B, S>& before, const T* u, const Vec<B, P>& w, int first,
                             int last, Jacobians<N>& jacobians) {
    Vec<Part, S> h[kParts];
    Vec<Part, P> weights[kParts];
    static_for<kParts>([&](auto part) PARARNN_LAMBDA {
      h[part] = part_of(before, part);
      weights[part] = part_of(w, part);
    });
    for (int i = first; i < last; ++i) {
      static_for<kParts>([&](auto part) PARARNN_LAMBDA {
        const Vec<Part, U> input = load_part<B, U>(u + i * U * W, part);
        const auto d = differentiate<C, N>(h[part], input, weights[part]);
        set_part(jacobians.step[i], part, d.jacobian);
        h[part] = d.next;
      });
    }
    Vec<B, S> behind{};
    static_for<kParts>([&](auto part) PARARNN_LAMBDA { set_part(behind, part, h[part]); });
    return behind;
  }

  /// Back over steps [first, last) of a block, carrying the adjoint alone.
  static void sweep(const Jacobians<S>& jacobians, const T* dy, int first, int last, const B& rows,
                    Vec<B, S>& mu) {
    for (int i = last - 1; i >= first; --i) {
      Vec<B, S> lambda = mu;
      lambda[0] = lambda[0] + B::load(dy + i * W);
      mu =
          select_vec(less(B(T(i)), rows), apply_transposed<C, 0, S>(jacobians.step[i], lambda), mu);
    }
  }

  /// The same, carrying the affine map from the adjoint at the chunk's end.
  static void sweep(const Jacobians<S>& jacobians, const T* dy, int first, int last, const B& rows,
                    Affine<B, S>& map) {
    for (int i = last - 1; i >= first; --i) {
      const auto active = less(B(T(i)), rows);
      const Mat<B, S, S>& j = jacobians.step[i];
      Vec<B, S> lambda = map.offset;
      lambda[0] = lambda[0] + B::load(dy + i * W);
      map.offset = select_vec(active, apply_transposed<C, 0, S>(j, lambda), map.offset);
      static_for<S>([&](auto c) PARARNN_LAMBDA {
        Vec<B, S> column{};
        static_for<S>([&](auto r) PARARNN_LAMBDA { column[r] = map.matrix(r, c); });
        const Vec<B, S> next = select_vec(active, apply_transposed<C, 0, S>(j, column), column);
        static_for<S>([&](auto r) PARARNN_LAMBDA { map.matrix(r, c) = next[r]; });
      });
    }
  }

  struct Gradients {
    Vec<B, S> mu;
    Vec<B, P> dw;
    B peak;
  };

  /// The same, with the gradients of inputs and parameters.
  template <bool kRagged>
  static void sweep(const Jacobians<kAll>& jacobians, const T* dy, int first, int last,
                    const B& rows, Gradients& gradients, T* du) {
    Gradients g = gradients;
    for (int i = last - 1; i >= first; --i) {
      const Mat<B, S, kAll>& j = jacobians.step[i];
      Vec<B, S> lambda = g.mu;
      lambda[0] = lambda[0] + B::load(dy + i * W);
      Gradients next{apply_transposed<C, 0, S>(j, lambda),
                     g.dw + apply_transposed<C, S + U, P>(j, lambda), g.peak};
      static_for<S>([&](auto s) PARARNN_LAMBDA {
        next.peak = select(less(next.peak, abs(lambda[s])), abs(lambda[s]), next.peak);
      });
      const Vec<B, U> inputs = apply_transposed<C, S, U>(j, lambda);
      static_for<U>([&](auto n) PARARNN_LAMBDA { inputs[n].store(du + (i * U + n) * W); });
      if constexpr (kRagged) {
        const auto active = less(B(T(i)), rows);
        next = {select_vec(active, next.mu, g.mu), select_vec(active, next.dw, g.dw),
                select(active, next.peak, g.peak)};
      }
      g = next;
    }
    gradients = g;
  }

  struct Walker {
    LaneGroup<T, W> group;
    Vec<B, P> w;
    Gradients gradients;
    Affine<B, S> map;
    B kept_peak = B(T(0)), crossed = B(T(0));  // where a state started anew: the peak behind that
    bool starts = false;
    Rows rows = {};
    alignas(B) T u[kCheckpointInterval * U * W] = {};
    alignas(B) T du[kCheckpointInterval * U * W] = {};
    alignas(B) T dy[kCheckpointInterval * W] = {};
  };
  using Walkers = WalkerList<Walker, W>;

  /// Loads the inputs and the gradients of the outputs of the block at step t of the chunks.
  static void load(const BackwardProblem<T>& problem, std::int64_t t, Walkers& walkers) {
    walkers.template load<U>(problem.u, t, &Walker::u);
    walkers.template load<1>(problem.dy, t, &Walker::dy);
  }

  /// The Jacobians of a walker's block at step t of its chunk, whose states start anew where they
  /// did on the way forward.
  template <int N>
  static void recompute(const BackwardProblem<T>& problem, std::int64_t t, Walker& walker,
                        Jacobians<N>& jacobians) {
    const int steps = walker.rows.most;
    walker.starts = walker.group.set_starts(problem.starts, t, false);
    Vec<B, S> h = walker.group.template load_checkpoint<S>(problem.checkpoints, t);
    for (int first = 0, next; first < steps; first = next) {
      next = walker.starts ? walker.group.next_start(first, steps) : steps;
      h = recompute<N>(h, walker.u, walker.w, first, next, jacobians);
      if (next == steps) break;
      walker.group.template start_anew<S>(next, problem.sequences, problem.h0, nullptr, h);
    }
  }

  /// Calls sweep(first, last) for the steps of a walker's block from the last to the first, and
  /// cross(i) where a state started anew before step i.
  template <class Sweep, class Cross>
  static void back_over_block(const Walker& walker, Sweep&& sweep, Cross&& cross) {
    for (int last = walker.rows.most, first; last > 0; last = first) {
      first = walker.starts ? walker.group.previous_start(last) : 0;
      sweep(first, last);
      if (walker.starts) cross(first);
    }
  }

  static std::int64_t last_block(std::int64_t steps) {
    return (steps - 1) / kCheckpointInterval * kCheckpointInterval;
  }

  /// The affine map of each chunk.
  static void maps(const BackwardProblem<T>& problem, Walkers& walkers) {
    Jacobians<S> jacobians;
    for (std::int64_t t = last_block(problem.size.chunk); t >= 0; t -= kCheckpointInterval) {
      for (Walker& walker : walkers) walker.rows = walker.group.set_rows(t);
      load(problem, t, walkers);
      for (Walker& walker : walkers) {
        recompute(problem, t, walker, jacobians);
        const B rows = walker.group.rows();
        back_over_block(
            walker,
            [&](int first, int last) {
              sweep(jacobians, walker.dy, first, last, rows, walker.map);
            },
            [&](int i) {
              walker.group.template end_anew<S>(i, problem.sequences, problem.dhT, nullptr,
                                                walker.map.offset);
              walker.map.matrix =
                  select_mat(walker.group.start_anew(i), Mat<B, S, S>{}, walker.map.matrix);
            });
      }
    }
    for (const Walker& walker : walkers) {
      walker.group.template store_boundary<S * S>(flatten(walker.map.matrix), problem.map_matrix);
      walker.group.template store_boundary<S>(walker.map.offset, problem.map_offset);
    }
  }

  /// The adjoint at the chunk's end: back from a burn-in beyond it, from zero, or from the final
  /// adjoint where the sequence ends within it.
  static void burn_in(const BackwardProblem<T>& problem, Walkers& walkers) {
    Jacobians<S> jacobians;
    const auto steps_beyond = [&](const Run& run) {
      const std::int64_t left = problem.size.steps - run.begin - run.steps;
      return left < problem.size.burn_in ? left : problem.size.burn_in;
    };
    for (Walker& walker : walkers) {
      const B reaches_end = walker.group.each_run([&](const Run& run) {
        return T(run.begin + run.steps + steps_beyond(run) >= problem.size.steps);
      });
      walker.gradients.mu = select_vec(
          less(B(T(0)), reaches_end),
          walker.group.template load_final<S>(problem.dhT, problem.sequences), Vec<B, S>{});
    }
    for (std::int64_t t = last_block(problem.size.burn_in); t >= 0; t -= kCheckpointInterval) {
      for (Walker& walker : walkers) walker.rows = walker.group.set_rows(t, steps_beyond);
      // Chunks that have a next one are whole: it begins problem.size.chunk steps after theirs.
      load(problem, problem.size.chunk + t, walkers);
      for (Walker& walker : walkers) {
        recompute(problem, problem.size.chunk + t, walker, jacobians);
        const B rows = walker.group.rows();
        back_over_block(
            walker,
            [&](int first, int last) {
              sweep(jacobians, walker.dy, first, last, rows, walker.gradients.mu);
            },
            [&](int i) {
              walker.group.template end_anew<S>(i, problem.sequences, problem.dhT, nullptr,
                                                walker.gradients.mu);
            });
      }
    }
    for (const Walker& walker : walkers) {
      walker.group.template store_boundary<S>(walker.gradients.mu, problem.end);
    }
  }

  /// Back over the starts before step i. The sequences before them have another scale.
  static void cross_start(const BackwardProblem<T>& problem, int i, Walker& walker) {
    Gradients& g = walker.gradients;
    const auto starts = walker.group.start_anew(i);
    walker.group.template end_anew<S>(i, problem.sequences, problem.dhT, problem.dh0, g.mu);
    const B first_time = select(starts, B(T(1)) - walker.crossed, B(T(0)));
    walker.kept_peak = select(less(B(T(0)), first_time), g.peak, walker.kept_peak);
    walker.crossed = walker.crossed + first_time;
  }

  static void run(const BackwardProblem<T>& problem, BackwardPass pass, const std::int64_t* ids,
                  int count) {
    Walkers walkers(count, [&](int first, int size) {
      const LaneGroup<T, W> group(problem.size, ids + first, size, problem.u.head_width);
      return Walker{group,
                    group.template load_parameters<P>(problem.w),
                    {group.template load_boundary<S>(problem.end), {}, B(T(0))},
                    identity_map<B, S>()};
    });
    if (pass == BackwardPass::kMap) return maps(problem, walkers);
    if (pass == BackwardPass::kBurnIn) burn_in(problem, walkers);
    Jacobians<kAll> jacobians;
    for (std::int64_t t = last_block(problem.size.chunk); t >= 0; t -= kCheckpointInterval) {
      for (Walker& walker : walkers) walker.rows = walker.group.set_rows(t);
      load(problem, t, walkers);
      for (Walker& walker : walkers) {
        recompute(problem, t, walker, jacobians);
        back_over_block(
            walker,
            [&](int first, int last) {
              Gradients& g = walker.gradients;
              walker.rows.ragged
                  ? sweep<true>(jacobians, walker.dy, first, last, walker.group.rows(), g,
                                walker.du)
                  : sweep<false>(jacobians, walker.dy, first, last, B(T(0)), g, walker.du);
            },
            [&](int i) { cross_start(problem, i, walker); });
      }
      walkers.template store<U>(&Walker::du, problem.du, t);
    }
    finish_streaming();
    for (const Walker& walker : walkers) {
      walker.group.template store_boundary<S>(walker.gradients.mu, problem.start);
      walker.group.template store_boundary<P>(walker.gradients.dw, problem.dw_parts);
      const B peak = select(less(B(T(0)), walker.crossed), walker.kept_peak, walker.gradients.peak);
      walker.group.template store_boundary<1>(Vec<B, 1>{peak}, problem.peak);
    }
  }
};

}  // namespace PARARNN_INSTRUCTION_SET
}  // namespace pararnn::cpu
