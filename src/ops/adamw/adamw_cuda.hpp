// AdamW by the kernel of adamw_kernel.hpp.
#pragma once

#include <torch/types.h>

#include <span>

#include "ops/adamw/adamw.hpp"

namespace pararnn::ops {

/// The update of tensors of one dtype, for which has_kernels(). `scalars`: AdamWScalars, as a
/// tensor of floats on their device.
void adamw_on_cuda(std::span<const AdamWTensors> tensors, const AdamWOptions& options,
                   const torch::Tensor& scalars);

}  // namespace pararnn::ops
