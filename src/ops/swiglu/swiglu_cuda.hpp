// SwiGLU's passes by the kernels of swiglu_kernel.hpp.
#pragma once

#include <torch/types.h>

namespace pararnn::ops {

/// x: rows (N,2m), for foldable(); writes y (...,m), contiguous.
void swiglu_forward_cuda(const torch::Tensor& x, const torch::Tensor& y);
/// dy: rows (N,m); writes dx (...,2m), contiguous.
void swiglu_backward_cuda(const torch::Tensor& x, const torch::Tensor& dy, const torch::Tensor& dx);

}  // namespace pararnn::ops
