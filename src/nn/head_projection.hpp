// The projection to a cell's pre-activations, block-diagonal over heads: head h maps its own d/H
// channels to the U pre-activations of its own d/H channels. One head is a dense projection.
//
// The product is written where scan reads it: (B,T,U,d) for one head, (B,T,H,U,d/H) for more.
// Biases are part of u.
#pragma once

#include <torch/nn/module.h>
#include <torch/types.h>

namespace pararnn::nn {

/// x (B,T,d), weight (H, U·d/H, d/H), bias (H, U·d/H) -> u (B,T,H,U,d/H), or (B,T,U,d) for H = 1,
/// in x's dtype. Differentiable.
torch::Tensor head_projection(const torch::Tensor& x, const torch::Tensor& weight,
                              const torch::Tensor& bias);

struct HeadProjection : torch::nn::Module {
  /// Weights at first normal with standard deviation 1/sqrt(d/H), biases zero.
  HeadProjection(int64_t width, int64_t heads, int64_t inputs);

  torch::Tensor forward(const torch::Tensor& x) { return head_projection(x, weight_, bias_); }

  /// The biases of pre-activation `input`, as (H,d/H): a view to be initialised.
  torch::Tensor bias_of(int64_t input) const;

 private:
  int64_t inputs_;
  torch::Tensor weight_, bias_;
};

}  // namespace pararnn::nn
