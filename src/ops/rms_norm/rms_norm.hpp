// RMSNorm: y = w ⊙ x / sqrt(mean(x²) + ε), the mean over the channels; and the gated forms, which
// multiply it, or x before it, by silu(gate).
#pragma once

#include <torch/types.h>

#include <optional>
#include <utility>

#include "ops/rms_norm/rms_norm_problem.hpp"

namespace pararnn::ops {

/// x (...,d), weight (d), gate (...,d) or none -> (...,d) in `dtype`, which is the gate's.
/// Differentiable.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double epsilon,
                       torch::ScalarType dtype, const std::optional<torch::Tensor>& gate = {},
                       NormGate place = NormGate::kAfter);

/// x (...,d), scale (d), branch (...,d) in `dtype`, weight (d) -> the residual connection x + scale
/// ⊙ branch in x's dtype, and its norm in `dtype`. Differentiable.
std::pair<torch::Tensor, torch::Tensor> add_rms_norm(const torch::Tensor& x,
                                                     const torch::Tensor& scale,
                                                     const torch::Tensor& branch,
                                                     const torch::Tensor& weight, double epsilon,
                                                     torch::ScalarType dtype);

/// rms_norm in LibTorch's operations: the definition.
torch::Tensor rms_norm_definition(const torch::Tensor& x, const torch::Tensor& weight,
                                  double epsilon, torch::ScalarType dtype,
                                  const std::optional<torch::Tensor>& gate = {},
                                  NormGate place = NormGate::kAfter);

}  // namespace pararnn::ops
