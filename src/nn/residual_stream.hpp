// The residual stream of a model, with the branch that is still to be added to it: the sum and the
// norm that follows it are one kernel.
#pragma once

#include <torch/types.h>

#include "ops/residual/residual.hpp"

namespace pararnn::nn {

/// x (...,d), scale (d), branch (...,d): the stream is x + scale ⊙ branch, or x where there is no
/// branch.
struct ResidualStream {
  torch::Tensor x, scale = {}, branch = {};

  torch::Tensor sum() const { return branch.defined() ? ops::add_scaled(x, scale, branch) : x; }
};

}  // namespace pararnn::nn
