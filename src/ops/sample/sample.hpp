// Drawing tokens from a model's logits, a row of a batch each, on the device where the logits are.
//
// A token's weight is exp((logit - largest) / temperature). Of the tokens, from the likeliest on,
// those of one weight by their number, the fewest are kept whose weights reach top_p of the whole.
// The kept token with the largest weight / E is drawn, with E exponentially distributed: each comes
// with the probability that its weight gives it. E is a function of the row's seed, of how many
// tokens the row has drawn, and of the token, so a row draws the same in any batch.
#pragma once

#include <torch/types.h>

#include <cstdint>

namespace pararnn::ops {

/// Rows that draw, in tensors that stay where they are.
struct SampleState {
  torch::Tensor seeds;      // (B), int64
  torch::Tensor positions;  // (B), int64: how many tokens each row has drawn
  torch::Tensor tokens;     // (B), int64: what was drawn last
  torch::Tensor drawn;      // (R,B), int32, may be pinned memory of the host: the last R draws
};

/// Draws a token for each row of logits (B,V), and advances `state`: draw number n, from 0, goes to
/// `tokens` and to row n % R of `drawn`. Logits that are no numbers give 0 and -1 there, so that a
/// GPU need not be waited for. temperature >= 0, where 0 takes the likeliest; 0 < top_p <= 1.
void sample(const torch::Tensor& logits, double temperature, double top_p, SampleState& state);

/// The same on the host in double: the definition, and what runs on a CPU.
void sample_definition(const torch::Tensor& logits, double temperature, double top_p,
                       SampleState& state);

/// The same by the kernel of sample_kernel.hpp; logits (B,V) in float32, contiguous.
void sample_on_cuda(const torch::Tensor& logits, double temperature, double top_p,
                    SampleState& state);

}  // namespace pararnn::ops
