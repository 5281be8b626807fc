// A linear map without bias, y = x Wᵀ, in the one dtype of x and W.
#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

#include <cmath>

#include "nn/initial_weights.hpp"

namespace pararnn::nn {

/// x (...,inputs), weight (outputs,inputs) -> (...,outputs).
inline torch::Tensor linear_map(const torch::Tensor& x, const torch::Tensor& weight) {
  return torch::linear(x, weight);
}

struct Linear : torch::nn::Module {
  /// Weights at first normal with standard deviation gain/sqrt(inputs): outputs of size gain for
  /// inputs of size 1.
  Linear(int64_t inputs, int64_t outputs, double gain = 1) {
    weight_ = register_parameter(
        "weight",
        torch::randn({outputs, inputs}, weight_options()).mul_(gain / std::sqrt(double(inputs))));
  }
  torch::Tensor forward(const torch::Tensor& x) { return linear_map(x, weight_); }
  const torch::Tensor& weight() const { return weight_; }

 private:
  torch::Tensor weight_;
};

}  // namespace pararnn::nn
