// RMSNorm as a module: ops/rms_norm.
#pragma once

#include <torch/nn/module.h>

#include <optional>

#include "ops/rms_norm/rms_norm.hpp"

namespace pararnn::nn {

/// An RMSNorm with its weight, at first ones.
struct RmsNorm : torch::nn::Module {
  RmsNorm(int64_t width, double epsilon) : epsilon_(epsilon) {
    weight_ = register_parameter("weight", torch::ones(width));
  }
  torch::Tensor forward(const torch::Tensor& x, torch::ScalarType dtype,
                        const std::optional<torch::Tensor>& gate = {}) {
    return ops::rms_norm(x, weight_, epsilon_, dtype, gate);
  }

 private:
  double epsilon_;
  torch::Tensor weight_;
};

}  // namespace pararnn::nn
