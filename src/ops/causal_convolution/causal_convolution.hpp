// The causal depthwise convolution: every channel is filtered by K taps of its own over the current
// and the K - 1 steps before, y_t = Σ_k w_k ⊙ x_{t-K+1+k}. Steps before the first come from the
// state, the last K - 1 inputs of what was read so far, or are zeros. Where a row starts anew
// before some steps, what is before counts as zeros too. With a bias it is followed by silu, as
// Mamba has it: y_t = silu(bias + Σ_k w_k ⊙ x_{t-K+1+k}).
#pragma once

#include <torch/types.h>

namespace pararnn::ops {

/// x (B,T,d), taps (K,d), before (B,K-1,d) in x's dtype: the inputs before x; reset (B,T), bool:
/// the row starts anew before this step, or undefined; bias (d), or undefined for neither bias nor
/// silu -> y (B,T,d). Differentiable.
torch::Tensor causal_convolution(const torch::Tensor& x, const torch::Tensor& taps,
                                 const torch::Tensor& before, const torch::Tensor& reset = {},
                                 const torch::Tensor& bias = {});

/// The same in LibTorch's operations: the definition, and what runs on a GPU for more than 8 taps.
torch::Tensor causal_convolution_definition(const torch::Tensor& x, const torch::Tensor& taps,
                                            const torch::Tensor& before,
                                            const torch::Tensor& reset = {},
                                            const torch::Tensor& bias = {});

}  // namespace pararnn::ops
