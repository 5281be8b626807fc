// RMSNorm: y = w ⊙ x / sqrt(mean(x²) + ε), the mean over the channels; and the gated form, which
// multiplies it by silu(gate).
#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

#include <optional>

namespace pararnn::nn {

/// x (...,d), weight (d), gate (...,d) or none -> (...,d) in `dtype`, which is the gate's.
/// Differentiable.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double epsilon,
                       torch::ScalarType dtype, const std::optional<torch::Tensor>& gate = {});

/// The same in LibTorch's operations: the definition, and what runs on a GPU.
torch::Tensor rms_norm_definition(const torch::Tensor& x, const torch::Tensor& weight,
                                  double epsilon, torch::ScalarType dtype,
                                  const std::optional<torch::Tensor>& gate = {});

/// An RMSNorm with its weight, at first ones.
struct RmsNorm : torch::nn::Module {
  RmsNorm(int64_t width, double epsilon) : epsilon_(epsilon) {
    weight_ = register_parameter("weight", torch::ones(width));
  }
  torch::Tensor forward(const torch::Tensor& x, torch::ScalarType dtype,
                        const std::optional<torch::Tensor>& gate = {}) {
    return rms_norm(x, weight_, epsilon_, dtype, gate);
  }

 private:
  double epsilon_;
  torch::Tensor weight_;
};

}  // namespace pararnn::nn
