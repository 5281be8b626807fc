// A tensor of two halves, as a product gives them that is two products in one. Their gradients
// belong into one tensor, which the product's backward pass reads: an operator that makes one of
// them writes it there, in place of one that would be copied there later.
#pragma once

#include <torch/types.h>

#include <utility>

namespace pararnn::ops {

/// x (...,2d) -> its halves (...,d), which share its memory. Differentiable.
std::pair<torch::Tensor, torch::Tensor> split_halves(const torch::Tensor& x);

/// What the backward pass of an operator needs to know of an input, to make its gradient by
/// empty_gradient. Asked for in the forward pass, and kept in saved_data.
c10::IValue place_of_gradient(const torch::Tensor& input);

/// A tensor like `input`, not yet written, for its gradient: in the tensor of both gradients where
/// the input is one of split_halves. Otherwise, or where that half is already taken, by itself. Its
/// last dimension is contiguous, and the others fold into one.
torch::Tensor empty_gradient(const torch::Tensor& input, const c10::IValue& place);

}  // namespace pararnn::ops
