// The backward pass of whole rows on the GPU, for columns too few to fill it: the warps of a block
// share the steps of 32 columns. In a round each takes one section of steps, the first the latest:
//
//   1. it runs its section with dual numbers, and keeps the Jacobians in registers;
//   2. it composes the affine map from the adjoint behind the section to the one before it;
//   3. with the maps of the sections behind its own it knows the adjoint from which to sweep back.
//
// So the chain from step to step is one of maps, and inputs are read once. A section must arrive,
// within the tolerance, where its map told the next to begin; a round in which one does not is
// swept again, one section after the other.
#pragma once

#include "pararnn/cuda/backward_pass.hpp"

namespace pararnn::cuda {

/// What the warps of a block tell each other.
template <class C, class T, int kGroups>
struct SectionMemory {
  static constexpr int S = C::kState, P = C::kParams > 0 ? C::kParams : 1;
  T matrix[kGroups][S][S][kWarp], offset[kGroups][S][kWarp];  // of the maps
  T arrived[S][kWarp];                                        // the adjoint before the round
  T dw[kGroups][P][kWarp];
};

template <class C, class Storage, int kGroups>
struct SectionsBackward : Backward<C, Storage, 1> {
  using B = Backward<C, Storage, 1>;
  using B::K;
  using B::kAll;
  using B::lane;
  using B::P;
  using B::problem;
  using B::S;
  using typename B::Adjoint;
  using typename B::Gradients;
  using typename B::Inputs;
  using typename B::Map;
  using typename B::T;
  using Memory = SectionMemory<C, T, kGroups>;

  static constexpr int kKept = B::template kept_steps<kAll>();
  static constexpr int kRound = kGroups * kKept;
  /// A round begins at a checkpoint. Cells of larger Jacobians have no rounds.
  static constexpr bool kHasRounds = kRound % K == 0;

  Memory& memory;
  int group = threadIdx.x / kWarp, number = threadIdx.x % kWarp;

  PARARNN_DEVICE_FN SectionsBackward(const BackwardProblem& the_problem, const Lane& the_lane,
                                     Memory& the_memory)
      : B(the_problem, the_lane), memory(the_memory) {}

  PARARNN_DEVICE_FN void tell_arrived(const Adjoint& mu) const {
    static_for<S>([&](auto s) { memory.arrived[s][number] = mu[0][s]; });
  }
  PARARNN_DEVICE_FN Adjoint arrived() const {
    Adjoint mu{};
    static_for<S>([&](auto s) { mu[0][s] = memory.arrived[s][number]; });
    return mu;
  }
  PARARNN_DEVICE_FN void tell_map(const Affine<T, S>& map) const {
    static_for<S>([&](auto r) {
      memory.offset[group][r][number] = map.offset[r];
      static_for<S>([&](auto c) { memory.matrix[group][r][c][number] = map.matrix(r, c); });
    });
  }
  PARARNN_DEVICE_FN Affine<T, S> map_of(int g) const {
    Affine<T, S> map{};
    static_for<S>([&](auto r) {
      map.offset[r] = memory.offset[g][r][number];
      static_for<S>([&](auto c) { map.matrix(r, c) = memory.matrix[g][r][c][number]; });
    });
    return map;
  }

  /// Gradients of `rounds` rounds, the first steps of the row, from mu behind the last of them.
  /// Returns the adjoint before the first step, and adds to dw what the sections of this thread
  /// give.
  PARARNN_DEVICE_FN Adjoint run(Int rounds, Adjoint mu, Columns<T, P, 1>& dw) const {
    if (rounds == 0) return mu;
    const Int first = rounds * kRound - (group + 1) * kKept;  // step of the own section
    const int in_block = static_cast<int>(first % K);         // the same in all rounds
    const Storage *u = this->u_at(first), *dy = this->dy_at(first);
    Storage* du = this->du_at(first + kKept - 1);
    const T* checkpoint = static_cast<const T*>(problem.checkpoints) +
                          checkpoint_offset(problem.size, lane, first, S, 0);
    const auto load_step = [&](int i) {
      return this->load_inputs(u + i * problem.u.step_stride, dy + i * problem.dy.step_stride);
    };
    const auto load_start = [&] {
      return load_columns<S, 1, T>(checkpoint, [&](int s) { return s * problem.size.channels; });
    };
    Columns<T, S, 1> start = load_start();
    Inputs inputs[kKept];
#pragma unroll
    for (int i = 0; i < kKept; ++i) inputs[i] = load_step(i);
    auto left = static_cast<unsigned>(rounds);
#pragma unroll 1
    while (left > 0) {
      --left;
      Columns<T, S, 1> h = start;
      if constexpr (kKept < K) {
#pragma unroll 1
        for (int i = -in_block; i < 0; ++i) this->take_step(load_step(i), h);
      }
      u -= kRound * problem.u.step_stride;
      dy -= kRound * problem.dy.step_stride;
      checkpoint -= kRound / K * S * problem.size.channels;
      if (left > 0) start = load_start();
      typename B::template Jacobians<kAll> jacobians[kKept];
      Pack<Storage, 1> direct[kKept];
#pragma unroll
      for (int i = 0; i < kKept; ++i) {
        const Inputs now = inputs[i];
        // The branch keeps the loads here: backward_pass.hpp.
        if (left > 0) inputs[i] = load_step(i);
        jacobians[i] = this->template differentiate_step<kAll>(now, h);
        direct[i] = now.dy;
      }
      Map map{};
      map[0] = identity_map<T, S>();
#pragma unroll
      for (int i = kKept - 1; i >= 0; --i) this->extend(map, jacobians[i], direct[i].unpack());
      tell_map(map[0]);
      __syncthreads();
      // By maps alone, from mu, the adjoint before the sections of so many groups.
      const auto before = [&](int groups) {
        Vec<T, S> result = mu[0];
        for (int g = 0; g < groups; ++g) result = map_of(g)(result);
        return result;
      };

      const auto sweep = [&](const Vec<T, S>& from) {
        Gradients g{};
        g.mu[0] = from;
        Storage* to = du;
#pragma unroll
        for (int i = kKept - 1; i >= 0; --i) {
          this->step_back(jacobians[i], direct[i].unpack(), true, g, to);
          to -= problem.du.step_stride;
        }
        if (group == kGroups - 1) tell_arrived(g.mu);
        return g;
      };
      Gradients found = sweep(before(group));
      bool differs = false;
      if (group < kGroups - 1) {
        const Vec<T, S> told = before(group + 1);
        static_for<S>([&](auto s) {
          const auto mismatch = adjoint_mismatch(told[s], found.mu[0][s], found.peak[0]);
          differs = differs || !mismatch.passes(problem.tolerance);
        });
      }
      if (__syncthreads_or(differs)) {
        tell_arrived(mu);  // of all groups the same
        for (int g = 0; g < kGroups; ++g) {
          __syncthreads();
          if (g != group) continue;
          found = sweep(arrived()[0]);
          tell_arrived(found.mu);
        }
        __syncthreads();
      }
      dw[0] = dw[0] + found.dw[0];
      mu = arrived();
      du -= kRound * problem.du.step_stride;
    }
    return mu;
  }
};

/// A grid of blocks of kGroups warps, each for 32 columns. Those beyond the last are the last
/// again: they write what it writes.
template <class C, class Storage, int kGroups>
__global__ void __launch_bounds__(kGroups* kWarp, section_warps(C::kState) / kGroups)
    backward_sections(const __grid_constant__ BackwardProblem problem) {
  using Sections = SectionsBackward<C, Storage, kGroups>;
  using T = Arithmetic<Storage>;
  constexpr int P = C::kParams;
  PARARNN_SHARED(typename Sections::Memory, memory);
  const Int last = problem.size.batch * problem.size.channels - 1;
  const Int column = static_cast<Int>(blockIdx.x) * kWarp + threadIdx.x % kWarp;
  const Lane row = column_at(problem.size, column < last ? column : last);
  const Int rounds = Sections::kHasRounds ? problem.size.steps / Sections::kRound : 0;
  const Sections sections(problem, row, memory);

  // What no round has, the last steps, is the first warp's.
  Columns<T, P, 1> dw{};
  if (sections.group == 0) {
    Lane rest = row;
    rest.begin = rounds * Sections::kRound;
    const Backward<C, Storage, 1> backward(problem, rest);
    typename Sections::Gradients g{backward.final_adjoint(row.row), {}, {}};
    backward.gradients({}, g);
    sections.tell_arrived(g.mu);
    dw = g.dw;
  }
  __syncthreads();
  typename Sections::Adjoint mu = sections.arrived();
  if constexpr (Sections::kHasRounds) {
    __syncthreads();
    mu = sections.run(rounds, mu, dw);
  }
  static_for<P>([&](auto n) { memory.dw[sections.group][n][sections.number] = dw[0][n]; });
  __syncthreads();
  if (sections.group > 0) return;
  for (int g = 1; g < kGroups; ++g) {
    static_for<P>([&](auto n) { dw[0][n] += memory.dw[g][n][sections.number]; });
  }
  sections.store_initial(mu, row.row);
  sections.template store_boundary<P>(dw, problem.dw_parts);
}

}  // namespace pararnn::cuda
