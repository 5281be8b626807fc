// The passes of the causal convolution by the kernels of causal_convolution_kernel.hpp.
#pragma once

#include <torch/types.h>

namespace pararnn::ops {

/// causal_convolution on a GPU, for a dtype for which has_kernels(), of rows that do not start
/// anew.
torch::Tensor convolution_on_cuda(const torch::Tensor& x, const torch::Tensor& taps,
                                  const torch::Tensor& before);

/// x (B,T,d) with contiguous channels, taps (K,d), before (B,K-1,d), contiguous; writes y (B,T,d),
/// contiguous.
void convolution_forward_cuda(const torch::Tensor& x, const torch::Tensor& taps,
                              const torch::Tensor& before, const torch::Tensor& y);
/// dy (B,T,d) with contiguous channels; writes dx and dbefore, contiguous, and returns dtaps (K,d)
/// in float32.
torch::Tensor convolution_backward_cuda(const torch::Tensor& x, const torch::Tensor& taps,
                                        const torch::Tensor& before, const torch::Tensor& dy,
                                        const torch::Tensor& dx, const torch::Tensor& dbefore);

}  // namespace pararnn::ops
