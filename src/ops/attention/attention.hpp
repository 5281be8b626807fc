// Causal softmax attention (Vaswani et al., "Attention is all you need", arXiv:1706.03762) with
// rotary positions and fewer heads of keys and values than of queries (Ainslie et al., "GQA",
// arXiv:2305.13245), in two operators: what is before the softmax, and the rest.
//
// B batch rows, T steps, H heads of n channels, H' heads of keys and values, each for H/H' heads of
// queries that follow one another; S ≥ T steps of keys, of which the last T are those of the
// queries.
#pragma once

#include <torch/types.h>

namespace pararnn::ops {

struct AttentionInputs {
  torch::Tensor queries;       // (B,T,H,n), rotated
  torch::Tensor keys, values;  // (B,T,H',n), the keys rotated
};

/// The product of x (B,T,d) with `weight` ((H + 2H')·n, d), whose rows are those of queries, keys
/// and values; queries and keys turned by their positions (B,T) or (1,T), as ops::rotary does it.
/// The three are views of one tensor, in which queries and keys are turned in their place; its
/// gradient is one tensor too. Differentiable in x and weight, once.
AttentionInputs attention_inputs(const torch::Tensor& x, const torch::Tensor& weight, int64_t heads,
                                 int64_t key_value_heads, const torch::Tensor& positions,
                                 double base);

/// Queries (B,T,H,n), keys and values (B,S,H',n) -> (B,T,H,n), softmax(q kᵀ/√n) v. Query t looks at
/// the key of its own step, S - T + t, and at as many before it as `before` (B,T) or (1,T) says,
/// int64; undefined: all. `documents`: whether `before` begins anew within the T steps, and not
/// only before them. Differentiable.
///
/// On a GPU, flash attention. With `before` the steps are cut into blocks of kAttentionBlock. A
/// query whose document began in its block looks within it, under a mask. For the others the rows
/// are cut where the last document of each block begins: sequences of flash attention's form for
/// different lengths, whose number is known though their lengths are not, so the host does not
/// wait. In float32, in odd sizes and on a CPU all is one mask.
torch::Tensor causal_attention(const torch::Tensor& queries, const torch::Tensor& keys,
                               const torch::Tensor& values, const torch::Tensor& before = {},
                               bool documents = false);

/// The same under one mask: what causal_attention gives, in memory of B·T·S numbers.
torch::Tensor masked_attention(const torch::Tensor& queries, const torch::Tensor& keys,
                               const torch::Tensor& values, const torch::Tensor& before);

/// The same cut into blocks and sequences. `attend` is flash attention's form for different
/// lengths: queries (N,H,n), keys and values (N',H',n), and the sequences' begins among them (M+1),
/// int32; each query looks at the keys up to its own, the last ones of query and key being at one
/// place. Takes `attend` so that all else can be tested without a GPU.
struct Sequences {
  torch::Tensor of_queries, of_keys;  // (M+1), int32
  int64_t longest_queries, longest_keys;
};
using AttendSequences = torch::Tensor (*)(const torch::Tensor& queries, const torch::Tensor& keys,
                                          const torch::Tensor& values, const Sequences& sequences);
torch::Tensor attention_in_sequences(const torch::Tensor& queries, const torch::Tensor& keys,
                                     const torch::Tensor& values, const torch::Tensor& before,
                                     bool documents, AttendSequences attend);

inline constexpr int64_t kAttentionBlock = 256;

/// One query a row (B,1,H,n), at step `last` (B) of the keys and values (B,S,H',n); it looks at the
/// keys from `first` (B) to its own. No gradient.
torch::Tensor attention_step(const torch::Tensor& queries, const torch::Tensor& keys,
                             const torch::Tensor& values, const torch::Tensor& first,
                             const torch::Tensor& last);

}  // namespace pararnn::ops
