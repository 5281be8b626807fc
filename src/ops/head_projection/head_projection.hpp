// The projection to a cell's pre-activations, block-diagonal over heads: head h maps its own d/H
// channels to the U pre-activations of its own d/H channels. One head is a dense projection.
//
// The product is written where scan reads it: (B,T,U,d) for one head, (B,T,H,U,d/H) for more.
// Biases are part of u.
#pragma once

#include <torch/types.h>

namespace pararnn::ops {

/// x (B,T,d), weight (H, U·d/H, d/H), bias (H, U·d/H) -> u (B,T,H,U,d/H), or (B,T,U,d) for H = 1,
/// in x's dtype. Differentiable.
torch::Tensor head_projection(const torch::Tensor& x, const torch::Tensor& weight,
                              const torch::Tensor& bias);

}  // namespace pararnn::ops
