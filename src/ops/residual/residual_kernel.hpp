// The residual connection on a GPU (residual.hpp): sum = x + scale ⊙ branch.
#pragma once

#include "ops/residual/residual_problem.hpp"
#include "ops/rows_kernel.hpp"

namespace pararnn::ops {

template <class X, class Y, class P, int kWidth, int kPacks, int kThreads>
__global__ void __launch_bounds__(RowShare<kWidth, kPacks, kThreads>::kBlock)
    residual_forward(const __grid_constant__ ResidualForward problem) {
  using Share = RowShare<kWidth, kPacks, kThreads>;
  using Values = typename Share::Values;
  const int width = problem.width;
  const Values scale = Share::load(static_cast<const P*>(problem.scale), width);
  Share::for_each_row(problem.rows, [&](Int row, bool there) {
    Values x = Share::load(static_cast<const X*>(problem.x) + row * problem.x_stride, width);
    const Values branch =
        Share::load(static_cast<const Y*>(problem.branch) + row * problem.branch_stride, width);
    static_for<Share::kChannels>([&](auto i) { x[i] += scale[i] * branch[i]; });
    if (there) Share::store(x, static_cast<X*>(problem.sum) + row * width, width);
  });
}

/// dbranch = scale ⊙ dsum, dscale = Σ dsum ⊙ branch.
template <class X, class Y, class P, int kWidth, int kPacks, int kThreads>
__global__ void __launch_bounds__(RowShare<kWidth, kPacks, kThreads>::kBlock)
    residual_backward(const __grid_constant__ ResidualBackward problem) {
  using Share = RowShare<kWidth, kPacks, kThreads>;
  using Values = typename Share::Values;
  const int width = problem.width;
  const Values scale = Share::load(static_cast<const P*>(problem.scale), width);
  Values dscale{};
  Share::for_each_row(problem.rows, [&](Int row, bool there) {
    if (!there) return;
    Values dsum =
        Share::load(static_cast<const X*>(problem.dsum) + row * problem.dsum_stride, width);
    const Values branch =
        Share::load(static_cast<const Y*>(problem.branch) + row * problem.branch_stride, width);
    static_for<Share::kChannels>([&](auto i) {
      dscale[i] += dsum[i] * branch[i];
      dsum[i] *= scale[i];
    });
    Share::store(dsum, static_cast<Y*>(problem.dbranch) + row * width, width);
  });
  Share::store_sum_of_block(dscale, problem.dscale, width);
}

}  // namespace pararnn::ops
