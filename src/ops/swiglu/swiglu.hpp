// SwiGLU without its products: silu(gate) ⊙ value of two halves.
#pragma once

#include <torch/types.h>

namespace pararnn::ops {

/// x (...,2m), the gate's half and the value's half -> silu(gate) ⊙ value (...,m). Differentiable.
torch::Tensor swiglu(const torch::Tensor& x);

/// The same in LibTorch's operations: the definition.
torch::Tensor swiglu_definition(const torch::Tensor& x);

}  // namespace pararnn::ops
