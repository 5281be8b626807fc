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
  struct Row {
    typename Share::template Fetched<X> x;
    typename Share::template Fetched<Y> branch;
  };
  const auto fetch = [&](Int row) {
    return Row{
        Share::fetch(static_cast<const X*>(problem.x) + row * problem.x_stride, width),
        Share::fetch(static_cast<const Y*>(problem.branch) + row * problem.branch_stride, width)};
  };
  Share::for_each_row(problem.rows, fetch, [&](Int row, bool there, const Row& here, int) {
    Values x = here.x.unpack();
    const Values branch = here.branch.unpack();
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
  struct Row {
    typename Share::template Fetched<X> dsum;
    typename Share::template Fetched<Y> branch;
  };
  const auto fetch = [&](Int row) {
    return Row{
        Share::fetch(static_cast<const X*>(problem.dsum) + row * problem.dsum_stride, width),
        Share::fetch(static_cast<const Y*>(problem.branch) + row * problem.branch_stride, width)};
  };
  Share::for_each_row(problem.rows, fetch, [&](Int row, bool there, const Row& here, int) {
    if (!there) return;
    Values dsum = here.dsum.unpack();
    const Values branch = here.branch.unpack();
    static_for<Share::kChannels>([&](auto i) {
      dscale[i] += dsum[i] * branch[i];
      dsum[i] *= scale[i];
    });
    Share::store(dsum, static_cast<Y*>(problem.dbranch) + row * width, width);
  });
  Share::store_sum_of_block(dscale, problem.dscale + Int(blockIdx.x) * width, width);
}

}  // namespace pararnn::ops
