// RMSNorm by the kernels of rms_norm_kernel.hpp: rms_norm and add_rms_norm on a GPU.
#pragma once

#include <torch/types.h>

#include <optional>
#include <utility>

#include "ops/rms_norm/rms_norm_problem.hpp"

namespace pararnn::ops {

/// Whether there are kernels for a stream x (...,d) and a branch, gate and result in `dtype`.
bool has_norm_kernels(const torch::Tensor& x, torch::ScalarType dtype);

/// As rms_norm and add_rms_norm; without scale and branch the sum is undefined. Differentiable.
std::pair<torch::Tensor, torch::Tensor> norm_on_cuda(
    const torch::Tensor& x, const std::optional<torch::Tensor>& scale,
    const std::optional<torch::Tensor>& branch, const torch::Tensor& weight, double epsilon,
    torch::ScalarType dtype, const std::optional<torch::Tensor>& gate, NormGate place);

}  // namespace pararnn::ops
