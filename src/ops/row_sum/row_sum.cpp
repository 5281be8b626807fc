#include "ops/row_sum/row_sum.hpp"

#include <algorithm>

#include "ops/cuda_kernels.hpp"
#include "ops/row_sum/row_sum_problem.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

/// The sums of pieces of the rows of x (N,H,d): (pieces,H,d).
template <int kWarps>
Tensor sum_pieces(const Tensor& x, int64_t piece_rows, int pack, torch::ScalarType dtype) {
  RowSum problem{.rows = x.size(0),
                 .piece_rows = piece_rows,
                 .heads = x.size(1),
                 .width = static_cast<int>(x.size(2)),
                 .row_stride = x.stride(0),
                 .head_stride = x.stride(1),
                 .x = x.data_ptr(),
                 .y = nullptr};
  const Tensor y = torch::empty({problem.pieces(), x.size(1), x.size(2)}, x.options().dtype(dtype));
  problem.y = y.data_ptr();
  launch_kernel("row_sum/row_sum_kernel.hpp",
                fmt::format("sum_rows<{}, {}, {}, {}>", storage_name(x.scalar_type()),
                            storage_name(dtype), pack, kWarps),
                x, problem.pieces() * x.size(1) * problem.groups(pack), kWarps * 32, problem);
  return y;
}

/// Many rows are summed in pieces that fill the device, then their sums by few blocks of many
/// warps, which is how few rows are summed at once.
Tensor sum_on_cuda(Tensor x, torch::ScalarType dtype) {
  constexpr int64_t kFewRows = 2048, kBlocks = 6;
  if (x.size(0) > kFewRows) {
    const int pack = std::min<int>(access_width({x}), 16 / x.element_size());
    const int64_t groups = (x.size(2) + 32 * pack - 1) / (32 * pack);
    const int64_t pieces =
        std::max<int64_t>(1, multiprocessors_of(x) * kBlocks / (groups * x.size(1)));
    x = sum_pieces<8>(x, (x.size(0) + pieces - 1) / pieces, pack, torch::kFloat);
  }
  return sum_pieces<32>(x, x.size(0), 1, dtype).squeeze(0);
}

}  // namespace

Tensor sum_of_rows(const Tensor& x, torch::ScalarType dtype) {
  if (!has_kernels(x, x.scalar_type()) || !has_kernels(x, dtype) || x.numel() == 0) {
    return x.sum(0).to(dtype);
  }
  const Tensor rows = x.dim() == 2 ? x.unsqueeze(1) : x;
  return sum_on_cuda(rows.stride(2) == 1 ? rows : rows.contiguous(), dtype)
      .view(x.sizes().slice(1));
}

}  // namespace pararnn::ops
