// Attention's part of a model that reads one token of each of B rows (decode.hpp): over the keys
// and values of the tokens before, in a cache with room for those to come.
#pragma once

#include "ops/decode/decode.hpp"

namespace pararnn::ops {

/// The channels n of a head that the kernels take: multiples of 8 up to this.
inline constexpr int64_t kMostDecodedChannels = 256;

/// H' heads of n channels; H query heads, a multiple of H', share them in their order.
struct DecodeCache {
  torch::Tensor keys, values;  // (B,C,H',n), bfloat16; the keys are rotated
  torch::Tensor begin;         // (B), int64: the index of a row's first token
  torch::Tensor read;          // (B), int64: of the token that is read next; it grows with each
  torch::Tensor arrived;       // (B,H+1), int32, zeros; the GPU's blocks count themselves here

  /// Its `arrived`, for so many query heads.
  void make_counters(int64_t query_heads);
};

/// weight ((H+2H')·n, d), for queries, keys and values. Queries and keys are rotated as ops/rotary
/// does, by the token's position read - begin; key and value are written to the cache at `read`,
/// where it has room. Returns the queries (B,H,n), float32.
torch::Tensor decode_attention_input(const DecodeInput& input, const torch::Tensor& weight,
                                     const DecodeCache& cache, double rotary_base);

/// softmax(queries · keys / sqrt(n)) · values over the indices from `begin` to `read`, which then
/// grows by one: (B,H·n), bfloat16. NaN for a row whose cache is full.
torch::Tensor decode_attention(const torch::Tensor& queries, const DecodeCache& cache);

}  // namespace pararnn::ops
