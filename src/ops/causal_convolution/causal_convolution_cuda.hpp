// The causal convolution by the kernels of causal_convolution_kernel.hpp.
#pragma once

#include <torch/types.h>

namespace pararnn::ops {

/// causal_convolution on a GPU, for a dtype for which has_kernels(), of rows that do not start
/// anew.
torch::Tensor convolution_on_cuda(const torch::Tensor& x, const torch::Tensor& taps,
                                  const torch::Tensor& before);

}  // namespace pararnn::ops
