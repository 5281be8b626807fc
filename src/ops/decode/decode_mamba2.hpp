// Mamba2's part of a model that reads one token of each of B rows (decode.hpp): E channels in H
// heads, and G groups of heads that share the N components of b and c.
#pragma once

#include "ops/decode/decode.hpp"

namespace pararnn::ops {

/// The components N that the kernels take: multiples of 4 up to this.
inline constexpr int64_t kMostDecodedComponents = 512;

/// What the recurrence takes, in float32.
struct Mamba2Inputs {
  torch::Tensor gate;       // (B,E): silu(z)
  torch::Tensor convolved;  // (B,E+2GN): x, b, c
  torch::Tensor steps;      // (B,H): dt
};

/// weight (2E+2GN+H, d), for z, the convolution and dt. What is convolved with the taps
/// (K,E+2GN) after the inputs `before` (B,K-1,E+2GN), bfloat16, which move on by one, gets the bias
/// (E+2GN), then silu; dt = softplus(product + step_bias), (H).
Mamba2Inputs decode_mamba2_input(const DecodeInput& input, const torch::Tensor& weight,
                                 const torch::Tensor& taps, const torch::Tensor& bias,
                                 const torch::Tensor& step_bias, const torch::Tensor& before);

/// For each head, with decay_log and skip (H),
///   h ← exp(-exp(decay_log) dt) h + dt x bᵀ,   y = h c + skip x
/// in the state h (B,H,E/H,N), float32. Returns y ⊙ gate for the norm.
DecodeInput decode_mamba2_state(const Mamba2Inputs& inputs, const torch::Tensor& decay_log,
                                const torch::Tensor& skip, const torch::Tensor& state,
                                const torch::Tensor& norm_weight, double epsilon);

}  // namespace pararnn::ops
