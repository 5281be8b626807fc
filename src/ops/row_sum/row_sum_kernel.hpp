// Sums over rows on a GPU (row_sum.hpp). The warps of a block take turns at the rows of a piece,
// each for the same 32 packs of channels, and are added up in their order.
#pragma once

#include "ops/row_sum/row_sum_problem.hpp"
#include "ops/rows_kernel.hpp"

namespace pararnn::ops {

template <class From, class To, int kWidth, int kWarps>
__global__ void __launch_bounds__(kWarps* kWarp) sum_rows(const __grid_constant__ RowSum problem) {
  const int groups = problem.groups(kWidth);
  const Int of_head = Int(blockIdx.x) / groups;  // piece and head
  const Int piece = of_head / problem.heads, head = of_head % problem.heads;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int first = static_cast<int>(blockIdx.x % groups) * kWarp * kWidth;
  const int channel = first + lane * kWidth;
  Vec<float, kWidth> sum{};
  if (channel < problem.width) {
    const Int begin = piece * problem.piece_rows + warp;
    const Int end = (piece + 1) * problem.piece_rows < problem.rows
                        ? (piece + 1) * problem.piece_rows
                        : problem.rows;
    const From* x = static_cast<const From*>(problem.x) + head * problem.head_stride +
                    begin * problem.row_stride + channel;
#pragma unroll 8
    for (Int row = begin; row < end; row += kWarps, x += kWarps * problem.row_stride) {
      const auto values = load_channels<kWidth>(x);
      static_for<kWidth>([&](auto i) { sum[i] += values[i]; });
    }
  }
  using Sums = float[kWarps][kWarp * kWidth];
  PARARNN_SHARED(Sums, sums);
  static_for<kWidth>([&](auto i) { sums[warp][lane * kWidth + i] = sum[i]; });
  __syncthreads();
  To* y = static_cast<To*>(problem.y) + of_head * problem.width + first;
  for (int i = threadIdx.x; i < kWarp * kWidth && first + i < problem.width; i += kWarps * kWarp) {
    float total = 0;
    for (int w = 0; w < kWarps; ++w) total += sums[w][i];
    y[i] = cuda::Converted<To>::from(total);
  }
}

}  // namespace pararnn::ops
