// The residual connection's passes by the kernels of residual_kernel.hpp.
#pragma once

#include <torch/types.h>

namespace pararnn::ops {

/// Whether there are kernels for a stream x (...,d) and a branch in `dtype`.
bool has_residual_kernels(const torch::Tensor& x, torch::ScalarType dtype);

/// x and branch: rows (N,d), for foldable(); scale (d); writes sum (...,d), contiguous.
void residual_forward_cuda(const torch::Tensor& x, const torch::Tensor& scale,
                           const torch::Tensor& branch, const torch::Tensor& sum);
/// branch and dsum: rows; writes dbranch (...,d), contiguous, and returns dscale (d) in float32.
torch::Tensor residual_backward_cuda(const torch::Tensor& scale, const torch::Tensor& branch,
                                     const torch::Tensor& dsum, const torch::Tensor& dbranch);

}  // namespace pararnn::ops
