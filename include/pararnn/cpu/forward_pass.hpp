// The forward kernel on the CPU: a group of lanes advanced through its chunks, in blocks of
// kCheckpointInterval steps that stay in the nearest caches. The blocks of all groups of a task are
// gathered, computed one by one, and their results are written back. Lanes whose chunk has ended
// are frozen by a mask.
#pragma once

#include "pararnn/core/cell.hpp"
#include "pararnn/cpu/lanes.hpp"
#include "pararnn/cpu/parts.hpp"

namespace pararnn::cpu {
inline namespace PARARNN_INSTRUCTION_SET {

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

  struct Walker {
    LaneGroup<T, W> group;
    Vec<B, P> w;
    Carry carry;
    Rows rows = {};
    alignas(B) T u[kCheckpointInterval * U * W] = {};
    alignas(B) T y[kCheckpointInterval * W] = {};
  };

  /// Advances steps [first, last) of a walker's block.
  static void advance(bool linearize, Walker& walker, int first, int last) {
    const T* u = walker.u + first * U * W;
    T* y = walker.y + first * W;
    const bool ragged = walker.rows.ragged;
    const B rows = ragged ? walker.group.rows() - B(T(first)) : B(T(0));
    if (linearize) {
      ragged ? advance<true, true>(u, walker.w, last - first, rows, walker.carry, y)
             : advance<true, false>(u, walker.w, last - first, rows, walker.carry, y);
    } else {
      ragged ? advance<false, true>(u, walker.w, last - first, rows, walker.carry, y)
             : advance<false, false>(u, walker.w, last - first, rows, walker.carry, y);
    }
  }

  /// Advances the block at step t of the chunks, anew where the state starts anew.
  static void advance_block(const ForwardProblem<T>& problem, bool linearize, std::int64_t t, T* hT,
                            Walker& walker) {
    const int steps = walker.rows.most;
    if (!walker.group.set_starts(problem.starts, t, true)) {
      return advance(linearize, walker, 0, steps);
    }
    for (int first = 0, next; first < steps; first = next) {
      next = walker.group.next_start(first, steps);
      advance(linearize, walker, first, next);
      walker.group.template start_anew<S>(next, problem.sequences, problem.h0, hT, walker.carry.h);
      walker.carry.m = select_mat(walker.group.start_anew(next), Mat<B, S, S>{}, walker.carry.m);
    }
  }

  /// Advances all lanes of the list, block by block of time.
  static void run(const ForwardProblem<T>& problem, ForwardPass pass, const std::int64_t* ids,
                  int count) {
    const bool burn_in = pass == ForwardPass::kBurnIn || pass == ForwardPass::kMap;
    const bool linearized = pass == ForwardPass::kGivenLinearized || pass == ForwardPass::kMap;
    const bool writes = pass != ForwardPass::kMap;
    WalkerList<Walker, W> walkers(count, [&](int first, int size) {
      const LaneGroup<T, W> group(problem.size, ids + first, size, problem.u.head_width);
      return Walker{group,
                    group.template load_parameters<P>(problem.w),
                    {group.template load_boundary<S>(problem.start), identity<B, S>()}};
    });

    if (burn_in) {
      for (Walker& walker : walkers) {
        const B keeps = walker.group.each_run([](const Run& run) { return T(run.chunk == 0); });
        walker.carry.h = select_vec(less(B(T(0)), keeps), walker.carry.h, Vec<B, S>{});
      }
      for (std::int64_t t = -problem.size.burn_in; t < 0; t += kCheckpointInterval) {
        for (Walker& walker : walkers) {
          walker.rows = walker.group.set_rows(
              0, [](const Run& run) { return run.chunk == 0 ? 0 : kCheckpointInterval; });
        }
        walkers.template load<U>(problem.u, t, &Walker::u);
        for (Walker& walker : walkers) {
          advance_block(problem, false, t, nullptr, walker);
        }
      }
      for (Walker& walker : walkers) {
        walker.group.template store_boundary<S>(walker.carry.h, problem.start);
      }
    }
    for (std::int64_t t = 0; t < problem.size.chunk; t += kCheckpointInterval) {
      for (Walker& walker : walkers) {
        walker.rows = walker.group.set_rows(t);
        if (writes && problem.checkpoints) {
          walker.group.template store_checkpoint<S>(walker.carry.h, problem.checkpoints, t);
        }
      }
      walkers.template load<U>(problem.u, t, &Walker::u);
      for (Walker& walker : walkers) {
        advance_block(problem, linearized, t, writes ? problem.hT : nullptr, walker);
      }
      if (writes) walkers.template store<1>(&Walker::y, problem.y, t);
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

}  // namespace PARARNN_INSTRUCTION_SET
}  // namespace pararnn::cpu
