// Sums over the rows of a matrix, as gradients of what all rows share are: of a bias, and of
// weights of which the blocks of a kernel give a row each.
#pragma once

#include <torch/types.h>

namespace pararnn::ops {

/// x (N,d) or (N,H,d) -> its sum over N in `dtype`, added up in float or wider, in an order that
/// the sizes alone decide. No derivative.
torch::Tensor sum_of_rows(const torch::Tensor& x, torch::ScalarType dtype);

}  // namespace pararnn::ops
