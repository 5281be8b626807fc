#include "ops/residual/residual_cuda.hpp"

#include <algorithm>

#include "ops/cuda_kernels.hpp"
#include "ops/residual/residual_problem.hpp"
#include "ops/row_sum/row_sum.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

/// Threads for each multiprocessor: enough to fill it, backward few enough that what each block
/// adds up is little.
constexpr int64_t kThreadsOfSum = 2048, kThreadsOfSumBackward = 1024;

int64_t residual_blocks(const Tensor& rows, const RowPlan& plan, int64_t threads) {
  const int64_t resident = std::max<int64_t>(1, threads / plan.block_threads());
  return std::min((rows.size(0) + plan.rows_of_block() - 1) / plan.rows_of_block(),
                  resident * multiprocessors_of(rows));
}

void launch_residual(const char* pass, const Tensor& stream, const Tensor& branch,
                     const Tensor& scale, const RowPlan& plan, int64_t blocks,
                     const auto& problem) {
  launch_kernel("residual/residual_kernel.hpp",
                fmt::format("residual_{}<{}, {}, {}, {}>", pass, storage_name(stream.scalar_type()),
                            storage_name(branch.scalar_type()), storage_name(scale.scalar_type()),
                            plan.arguments()),
                stream, blocks, plan.block_threads(), problem);
}

}  // namespace

bool has_residual_kernels(const Tensor& x, torch::ScalarType dtype) {
  return has_kernels(x, x.scalar_type()) && has_kernels(x, dtype) && x.size(-1) > 0 &&
         x.size(-1) <= kLongestRow;
}

void residual_forward_cuda(const Tensor& x, const Tensor& scale, const Tensor& branch,
                           const Tensor& sum) {
  const Tensor scales = scale.contiguous();
  const RowPlan plan = plan_rows(x.size(-1), access_width({x, scales, branch, sum}));
  launch_residual("forward", x, branch, scales, plan, residual_blocks(x, plan, kThreadsOfSum),
                  ResidualForward{.rows = x.size(0),
                                  .width = static_cast<int>(x.size(-1)),
                                  .x_stride = x.stride(0),
                                  .branch_stride = branch.stride(0),
                                  .x = x.data_ptr(),
                                  .scale = scales.data_ptr(),
                                  .branch = branch.data_ptr(),
                                  .sum = sum.data_ptr()});
}

Tensor residual_backward_cuda(const Tensor& scale, const Tensor& branch, const Tensor& dsum,
                              const Tensor& dbranch) {
  const Tensor scales = scale.contiguous();
  const RowPlan plan = plan_rows(dsum.size(-1), access_width({scales, branch, dsum, dbranch}));
  const int64_t blocks = residual_blocks(dsum, plan, kThreadsOfSumBackward);
  const Tensor dscale = torch::empty({blocks, dsum.size(-1)}, dsum.options().dtype(torch::kFloat));
  launch_residual("backward", dsum, branch, scales, plan, blocks,
                  ResidualBackward{.rows = dsum.size(0),
                                   .width = static_cast<int>(dsum.size(-1)),
                                   .branch_stride = branch.stride(0),
                                   .dsum_stride = dsum.stride(0),
                                   .scale = scales.data_ptr(),
                                   .branch = branch.data_ptr(),
                                   .dsum = dsum.data_ptr(),
                                   .dbranch = dbranch.data_ptr(),
                                   .dscale = dscale.data_ptr<float>()});
  return sum_of_rows(dscale, torch::kFloat);
}

}  // namespace pararnn::ops
