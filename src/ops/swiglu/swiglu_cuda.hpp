// SwiGLU by the kernels of swiglu_kernel.hpp.
#pragma once

#include <torch/types.h>

namespace pararnn::ops {

/// swiglu on a GPU, for a dtype for which has_kernels().
torch::Tensor swiglu_on_cuda(const torch::Tensor& x);

}  // namespace pararnn::ops
