// Causal softmax attention (Vaswani et al., "Attention is all you need", arXiv:1706.03762) with
// rotary positions and fewer heads of keys and values than of queries (Ainslie et al., "GQA",
// arXiv:2305.13245), in two operators: what is before the softmax, and the rest.
//
// B batch rows, T steps, H heads of n channels, H' heads of keys and values, each for H/H' heads of
// queries that follow one another; S ≥ T steps of keys, of which the last T are those of the
// queries.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <optional>

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

/// Sequences of different lengths in tensors without a batch dimension, as flash attention takes
/// them: each query looks at the keys up to its own, the last ones of query and key being at one
/// place.
struct Sequences {
  torch::Tensor of_queries, of_keys;  // (M+1), int32: the begins of M sequences, and the end
  int64_t longest_queries, longest_keys;
};

/// Which keys each query looks at, in a form that attention on the queries' device takes. It
/// depends on the batch alone, so layers share one. Default: all keys up to the query's own.
///
/// Tensors in the queries' dtype are added to the scores: 0 for keys that are looked at, or -∞.
struct AttentionMask {
  torch::Tensor whole{};  // (B,1,T,S) or (1,1,T,S)
  // Or in parts: the steps are cut into L blocks of n = min(T, kAttentionBlock).
  torch::Tensor of_blocks{};  // (B·L,1,n,n), of the queries with the keys of their block
  std::optional<Sequences> sequences{};  // in all rows, for the other queries
  torch::Tensor within{};                // (B,T,1,1), bool: which queries look within their block
};

inline constexpr int64_t kAttentionBlock = 256;

/// The mask under which query t looks at the key of its own step, S - T + t, and at as many before
/// it as `before` (B,T) or (1,T) says, int64. `batch` is B, `keys` is S. `documents`: whether
/// `before` begins anew within the T steps, and not only before them. `queries`: their dtype and
/// device; `channels`: of a head.
///
/// On a GPU, for flash attention, it is in parts. A query whose document began in its block looks
/// within it, under a mask. For the others the rows are cut where the last document of each block
/// begins: their number is known though their lengths are not, so the host does not wait. In
/// float32, for odd sizes, on a CPU, and where keys before the queries' have gradients, it is
/// whole.
AttentionMask attention_mask(const torch::Tensor& before, int64_t batch, int64_t keys,
                             bool documents, const torch::TensorOptions& queries, int64_t channels);

/// Whether it is made in parts for such queries.
bool has_mask_in_parts(const torch::TensorOptions& queries, int64_t channels);

/// The same in either form, whatever the device.
AttentionMask whole_mask(const torch::Tensor& before, int64_t keys, torch::ScalarType dtype);
AttentionMask mask_in_parts(const torch::Tensor& before, int64_t batch, int64_t keys,
                            bool documents, torch::ScalarType dtype);

/// Queries (B,T,H,n), keys and values (B,S,H',n) -> (B,T,H,n), softmax(q kᵀ/√n) v, under a mask
/// that was made for them; without one, S is T. Differentiable.
torch::Tensor causal_attention(const torch::Tensor& queries, const torch::Tensor& keys,
                               const torch::Tensor& values, const AttentionMask& mask = {});

/// The same, with flash attention's form for different lengths as `attend`: queries (N,H,n), keys
/// and values (N',H',n). So that all else can be tested without a GPU.
using AttendSequences = torch::Tensor (*)(const torch::Tensor& queries, const torch::Tensor& keys,
                                          const torch::Tensor& values, const Sequences& sequences);
torch::Tensor causal_attention(const torch::Tensor& queries, const torch::Tensor& keys,
                               const torch::Tensor& values, const AttentionMask& mask,
                               AttendSequences attend);

/// One query a row (B,1,H,n), at step `last` (B) of the keys and values (B,S,H',n); it looks at the
/// keys from `first` (B) to its own. No gradient.
torch::Tensor attention_step(const torch::Tensor& queries, const torch::Tensor& keys,
                             const torch::Tensor& values, const torch::Tensor& first,
                             const torch::Tensor& last);

}  // namespace pararnn::ops
