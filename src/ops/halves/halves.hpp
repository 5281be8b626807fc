// A tensor of several parts, as a product gives them that is several products in one; mostly two
// halves. Their gradients belong into one tensor, which the product's backward pass reads: an
// operator that makes one of them writes it there, in place of one that would be copied there
// later.
#pragma once

#include <torch/types.h>

#include <utility>
#include <vector>

namespace pararnn::ops {

/// x (...,d) -> parts of its channels, (...,shape), one after the other, which share its memory.
/// The shapes have d numbers in all. Differentiable.
std::vector<torch::Tensor> split_parts(const torch::Tensor& x,
                                       const std::vector<std::vector<int64_t>>& shapes);

/// x (...,2d) -> its halves (...,d), which share its memory. Differentiable.
std::pair<torch::Tensor, torch::Tensor> split_halves(const torch::Tensor& x);

/// What the backward pass of an operator needs to know of an input, to make its gradient by
/// empty_gradient. Asked for in the forward pass, and kept in saved_data.
c10::IValue place_of_gradient(const torch::Tensor& input);

/// A tensor like `input`, not yet written, for its gradient: in the tensor of all gradients where
/// the input is one of split_parts or split_halves. Otherwise, or where that part is already taken,
/// by itself. Its last dimension is contiguous, and of a part of one dimension the others fold.
torch::Tensor empty_gradient(const torch::Tensor& input, const c10::IValue& place);

}  // namespace pararnn::ops
