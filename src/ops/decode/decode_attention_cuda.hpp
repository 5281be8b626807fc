// The functions of decode_attention.hpp by the kernels of decode_attention_kernel.hpp.
#pragma once

#include <string>

#include "ops/decode/decode_attention.hpp"

namespace pararnn::ops {

torch::Tensor decode_attention_input_cuda(const DecodeInput& input, const torch::Tensor& weight,
                                          const DecodeCache& cache, double rotary_base);
torch::Tensor decode_attention_cuda(const torch::Tensor& queries, const DecodeCache& cache);

/// How attention is cut into blocks: kQueries and kLanes of the kernel, and the parts of a row's
/// tokens.
struct AttentionPlan {
  int64_t queries, lanes, splits;

  /// "1, 8": the template arguments.
  std::string arguments() const;
};
AttentionPlan plan_decode_attention(int64_t batch, int64_t query_heads, int64_t key_heads,
                                    int64_t channels, int64_t capacity, int64_t multiprocessors);

}  // namespace pararnn::ops
