// RMSNorm as a module: ops/rms_norm.
#pragma once

#include <torch/nn/module.h>

#include <optional>
#include <utility>

#include "nn/initial_weights.hpp"
#include "nn/residual_stream.hpp"
#include "ops/rms_norm/rms_norm.hpp"

namespace pararnn::nn {

/// An RMSNorm with its weight, at first ones.
struct RmsNorm : torch::nn::Module {
  RmsNorm(int64_t width, double epsilon) : epsilon_(epsilon) {
    weight_ = register_parameter("weight", torch::ones(width, weight_options()));
  }
  /// x (...,d), gate (...,d) or none -> (...,d) in x's dtype.
  torch::Tensor forward(const torch::Tensor& x, const std::optional<torch::Tensor>& gate = {},
                        ops::NormGate place = ops::NormGate::kAfter) {
    return ops::rms_norm(x, weight_, epsilon_, x.scalar_type(), gate, place);
  }
  /// The stream with its branch added, and the norm of that.
  std::pair<torch::Tensor, torch::Tensor> forward(const ResidualStream& stream) {
    if (!stream.branch.defined()) return {stream.x, forward(stream.x)};
    return ops::add_rms_norm(stream.x, stream.scale, stream.branch, weight_, epsilon_,
                             stream.x.scalar_type());
  }

 private:
  double epsilon_;
  torch::Tensor weight_;
};

}  // namespace pararnn::nn
