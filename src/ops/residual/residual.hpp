// The residual connection of a block: the stream plus a branch, scaled channel by channel.
#pragma once

#include <torch/types.h>

namespace pararnn::ops {

/// x (...,d), scale (d), branch (...,d) -> x + scale ⊙ branch in x's dtype. Differentiable.
torch::Tensor add_scaled(const torch::Tensor& x, const torch::Tensor& scale,
                         const torch::Tensor& branch);

/// The same in LibTorch's operations: the definition.
torch::Tensor add_scaled_definition(const torch::Tensor& x, const torch::Tensor& scale,
                                    const torch::Tensor& branch);

}  // namespace pararnn::ops
