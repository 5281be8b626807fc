// The projection to a cell's pre-activations as a module: ops/head_projection.
#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

#include "ops/head_projection/head_projection.hpp"

namespace pararnn::nn {

struct HeadProjection : torch::nn::Module {
  /// Weights at first normal with standard deviation 1/sqrt(d/H), biases zero.
  HeadProjection(int64_t width, int64_t heads, int64_t inputs);

  torch::Tensor forward(const torch::Tensor& x) { return ops::head_projection(x, weight_, bias_); }

  /// The biases of pre-activation `input`, as (H,d/H): a view to be initialised.
  torch::Tensor bias_of(int64_t input) const;

 private:
  int64_t inputs_;
  torch::Tensor weight_, bias_;
};

}  // namespace pararnn::nn
