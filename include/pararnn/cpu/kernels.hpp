// The CPU kernels: a group of lanes advanced through its chunks, forward and backward.
//
// Both work in blocks of kCheckpointInterval steps that stay in the nearest caches: the blocks of
// all groups of a task are gathered, computed one by one, and their results are written back. Lanes
// whose chunk has ended are frozen by a mask. The backward pass recomputes a block's states from
// its checkpoint with dual numbers, keeps the Jacobians, then sweeps back over them:
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

/// Registers that advance together: two hide the latency of one; with four-component states one
/// already fills the register file.
template <class C, class T>
inline constexpr int kLanesFor = (C::kState >= 4 ? 1 : 2) * kNativeLanes<T>;

/// One cell's forward kernel.
template <Cell C, class T>
struct ForwardKernel {
  static constexpr int S = C::kState, U = C::kInputs, P = C::kParams, W = kLanesFor<C, T>;
  using B = Batch<T, W>;

  static constexpr int kParts = B::kRegisters;
  using Part = PartOf<B>;

  struct Carry {
    Vec<B, S> h;
    Mat<B, S, S> m;  // the product of the steps' Jacobians
  };

  /// Advances `steps` steps of a block; lane i stops after rows[i].
  template <bool kLinearize, bool kRagged>
  static void advance(const T* u, const Vec<B, P>& w, int steps, const B& rows, Carry& carry,
                      T* y) {
    Vec<Part, P> weights[kParts];
    Vec<Part, S> h[kParts];
    Mat<Part, S, S> m[kParts];
    static_for<kParts>([&](auto part) PARARNN_LAMBDA {
      weights[part] = part_of(w, part);
      h[part] = part_of(carry.h, part);
      m[part] = part_of(carry.m, part);
    });
    for (int i = 0; i < steps; ++i) {
      static_for<kParts>([&](auto part) PARARNN_LAMBDA {
        const Vec<Part, U> input = load_part<B, U>(u + i * U * W, part);
        Linearized<Part, S> next{{}, m[part]};
        if constexpr (kLinearize) {
          next = linearize<C>(h[part], input, weights[part], m[part]);
        } else {
          next.next = next_state<C>(h[part], input, weights[part]);
        }
        if constexpr (kRagged) {
          const auto active = less(Part(T(i)), part_of(Vec<B, 1>{rows}, part)[0]);
          next = {select_vec(active, next.next, h[part]),
                  select_mat(active, next.product, m[part])};
        }
        h[part] = next.next;
        m[part] = next.product;
        h[part][0].store(y + i * W + part * Part::kLanes);
      });
    }
    static_for<kParts>([&](auto part) PARARNN_LAMBDA {
      set_part(carry.h, part, h[part]);
      set_part(carry.m, part, m[part]);
    });
  }

  static void advance(bool linearize, const Rows& rows, const T* u, const LaneGroup<T, W>& group,
                      const Vec<B, P>& w, Carry& carry, T* y) {
    const B lane_rows = rows.ragged ? group.rows() : B(T(0));
    if (linearize) {
      rows.ragged ? advance<true, true>(u, w, rows.most, lane_rows, carry, y)
                  : advance<true, false>(u, w, rows.most, lane_rows, carry, y);
    } else {
      rows.ragged ? advance<false, true>(u, w, rows.most, lane_rows, carry, y)
                  : advance<false, false>(u, w, rows.most, lane_rows, carry, y);
    }
  }

  /// Advances all lanes of the list, block by block of time.
  static void run(const ForwardProblem<T>& problem, ForwardPass pass, const std::int64_t* ids,
                  int count) {
    const bool burn_in = pass == ForwardPass::kBurnIn || pass == ForwardPass::kBurnInLinearized;
    const bool linearized =
        pass == ForwardPass::kGivenLinearized || pass == ForwardPass::kBurnInLinearized;
    struct Walker {
      LaneGroup<T, W> group;
      Vec<B, P> w;
      Carry carry;
      Rows rows = {};
      alignas(B) T u[kCheckpointInterval * U * W] = {};
      alignas(B) T y[kCheckpointInterval * W] = {};
    };
    WalkerList<Walker, W> walkers(count, [&](int first, int size) {
      const LaneGroup<T, W> group(problem, ids + first, size, problem.u.head_width);
      return Walker{group,
                    group.template load_parameters<P>(problem.w),
                    {group.template load_boundary<S>(problem.start), identity<B, S>()}};
    });

    if (burn_in) {
      for (Walker& walker : walkers) {
        const B keeps = walker.group.each_run([](const Run& run) { return T(run.chunk == 0); });
        walker.carry.h = select_vec(less(B(T(0)), keeps), walker.carry.h, Vec<B, S>{});
      }
      for (std::int64_t t = -problem.burn_in; t < 0; t += kCheckpointInterval) {
        for (Walker& walker : walkers) {
          walker.rows = walker.group.set_rows(
              0, [](const Run& run) { return run.chunk == 0 ? 0 : kCheckpointInterval; });
        }
        walkers.template load<U>(problem.u, t, &Walker::u);
        for (Walker& walker : walkers) {
          advance(false, walker.rows, walker.u, walker.group, walker.w, walker.carry, walker.y);
        }
      }
      for (Walker& walker : walkers) {
        walker.group.template store_boundary<S>(walker.carry.h, problem.start);
      }
    }
    for (std::int64_t t = 0; t < problem.chunk; t += kCheckpointInterval) {
      for (Walker& walker : walkers) {
        walker.rows = walker.group.set_rows(t);
        if (problem.checkpoints) {
          walker.group.template store_checkpoint<S>(walker.carry.h, problem.checkpoints, t);
        }
      }
      walkers.template load<U>(problem.u, t, &Walker::u);
      for (Walker& walker : walkers) {
        advance(linearized, walker.rows, walker.u, walker.group, walker.w, walker.carry, walker.y);
      }
      walkers.template store<1>(&Walker::y, problem.y, t);
    }
    finish_streaming();
    for (const Walker& walker : walkers) {
      walker.group.template store_boundary<S>(walker.carry.h, problem.end);
      if (linearized) {
        walker.group.template store_boundary<S * S>(flatten(walker.carry.m), problem.jacobian);
      }
    }
  }
};

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

  /// The Jacobians of a block's steps, from the state before it.
  template <int N>
  static void recompute(const Vec<B, S>& before, const T* u, const Vec<B, P>& w, int steps,
                        Jacobians<N>& jacobians) {
    Vec<Part, S> h[kParts];
    Vec<Part, P> weights[kParts];
    static_for<kParts>([&](auto part) PARARNN_LAMBDA {
      h[part] = part_of(before, part);
      weights[part] = part_of(w, part);
    });
    for (int i = 0; i < steps; ++i) {
      static_for<kParts>([&](auto part) PARARNN_LAMBDA {
        const Vec<Part, U> input = load_part<B, U>(u + i * U * W, part);
        const auto d = differentiate<C, N>(h[part], input, weights[part]);
        set_part(jacobians.step[i], part, d.jacobian);
        h[part] = d.next;
      });
    }
  }

  /// Back over a block, carrying the adjoint alone.
  static void sweep(const Jacobians<S>& jacobians, const T* dy, int steps, const B& rows,
                    Vec<B, S>& mu) {
    for (int i = steps - 1; i >= 0; --i) {
      Vec<B, S> lambda = mu;
      lambda[0] = lambda[0] + B::load(dy + i * W);
      mu =
          select_vec(less(B(T(i)), rows), apply_transposed<C, 0, S>(jacobians.step[i], lambda), mu);
    }
  }

  /// Back over a block, carrying the affine map from the adjoint at the chunk's end.
  static void sweep(const Jacobians<S>& jacobians, const T* dy, int steps, const B& rows,
                    Affine<B, S>& map) {
    for (int i = steps - 1; i >= 0; --i) {
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

  /// Back over a block, with the gradients of inputs and parameters.
  template <bool kRagged>
  static void sweep(const Jacobians<kAll>& jacobians, const T* dy, int steps, const B& rows,
                    Gradients& gradients, T* du) {
    Gradients g = gradients;
    for (int i = steps - 1; i >= 0; --i) {
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

  /// The Jacobians of a walker's block at step t of its chunk.
  template <int N>
  static void recompute(const BackwardProblem<T>& problem, std::int64_t t, const Walker& walker,
                        Jacobians<N>& jacobians) {
    recompute<N>(walker.group.template load_checkpoint<S>(problem.checkpoints, t), walker.u,
                 walker.w, walker.rows.most, jacobians);
  }

  static std::int64_t last_block(std::int64_t steps) {
    return (steps - 1) / kCheckpointInterval * kCheckpointInterval;
  }

  /// The affine map of each chunk.
  static void maps(const BackwardProblem<T>& problem, Walkers& walkers) {
    Jacobians<S> jacobians;
    for (std::int64_t t = last_block(problem.chunk); t >= 0; t -= kCheckpointInterval) {
      for (Walker& walker : walkers) walker.rows = walker.group.set_rows(t);
      load(problem, t, walkers);
      for (Walker& walker : walkers) {
        recompute(problem, t, walker, jacobians);
        sweep(jacobians, walker.dy, walker.rows.most, walker.group.rows(), walker.map);
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
      const std::int64_t left = problem.steps - run.begin - run.steps;
      return left < problem.burn_in ? left : problem.burn_in;
    };
    for (Walker& walker : walkers) {
      const B reaches_end = walker.group.each_run([&](const Run& run) {
        return T(run.begin + run.steps + steps_beyond(run) >= problem.steps);
      });
      walker.gradients.mu =
          select_vec(less(B(T(0)), reaches_end),
                     walker.group.template load_row<S>(problem.final_adjoint), Vec<B, S>{});
    }
    for (std::int64_t t = last_block(problem.burn_in); t >= 0; t -= kCheckpointInterval) {
      for (Walker& walker : walkers) walker.rows = walker.group.set_rows(t, steps_beyond);
      // Chunks that have a next one are whole: it begins problem.chunk steps after theirs.
      load(problem, problem.chunk + t, walkers);
      for (Walker& walker : walkers) {
        recompute(problem, problem.chunk + t, walker, jacobians);
        sweep(jacobians, walker.dy, walker.rows.most, walker.group.rows(), walker.gradients.mu);
      }
    }
    for (const Walker& walker : walkers) {
      walker.group.template store_boundary<S>(walker.gradients.mu, problem.end);
    }
  }

  static void run(const BackwardProblem<T>& problem, BackwardPass pass, const std::int64_t* ids,
                  int count) {
    Walkers walkers(count, [&](int first, int size) {
      const LaneGroup<T, W> group(problem, ids + first, size, problem.u.head_width);
      return Walker{group,
                    group.template load_parameters<P>(problem.w),
                    {group.template load_boundary<S>(problem.end), {}, B(T(0))},
                    identity_map<B, S>()};
    });
    if (pass == BackwardPass::kMap) return maps(problem, walkers);
    if (pass == BackwardPass::kBurnIn) burn_in(problem, walkers);
    Jacobians<kAll> jacobians;
    for (std::int64_t t = last_block(problem.chunk); t >= 0; t -= kCheckpointInterval) {
      for (Walker& walker : walkers) walker.rows = walker.group.set_rows(t);
      load(problem, t, walkers);
      for (Walker& walker : walkers) {
        recompute(problem, t, walker, jacobians);
        if (walker.rows.ragged) {
          sweep<true>(jacobians, walker.dy, walker.rows.most, walker.group.rows(), walker.gradients,
                      walker.du);
        } else {
          sweep<false>(jacobians, walker.dy, walker.rows.most, B(T(0)), walker.gradients,
                       walker.du);
        }
      }
      walkers.template store<U>(&Walker::du, problem.du, t);
    }
    finish_streaming();
    for (const Walker& walker : walkers) {
      walker.group.template store_boundary<S>(walker.gradients.mu, problem.start);
      walker.group.template store_boundary<P>(walker.gradients.dw, problem.dw);
      walker.group.template store_boundary<1>(Vec<B, 1>{walker.gradients.peak}, problem.peak);
    }
  }
};

/// The kernels of cell C for arithmetic in T, for the instruction set this file is compiled for.
template <Cell C, class T>
Kernels<T> make_kernels() {
  return {C::kState,
          C::kInputs,
          C::kParams,
          kLanesFor<C, T>,
          &ForwardKernel<C, T>::run,
          &BackwardKernel<C, T>::run};
}

}  // namespace PARARNN_INSTRUCTION_SET
}  // namespace pararnn::cpu
