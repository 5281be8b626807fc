// Rows of a table by their numbers: the embedding of tokens.
#pragma once

#include <torch/types.h>

namespace pararnn::ops {

/// table (V,d), tokens of any shape, int32 or int64, below V -> (...,d). Differentiable; a row's
/// gradient, to which each of its tokens adds, is summed in fp32 (fp64 for fp64) and rounded once.
torch::Tensor embedding(const torch::Tensor& table, const torch::Tensor& tokens);

}  // namespace pararnn::ops
