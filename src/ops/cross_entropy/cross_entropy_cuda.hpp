// Cross-entropy's passes by the kernels of cross_entropy_kernel.hpp.
#pragma once

#include <torch/types.h>

#include <string>

namespace pararnn::ops {

/// How far apart rows of so many logits must be for the kernels, and best are for the products.
int64_t logits_stride(int64_t vocabulary);

/// How many threads share a row of logits, and how many packs each of them holds.
struct LogitsPlan {
  int threads, held_packs;
};
LogitsPlan plan_logits(int64_t vocabulary, int64_t element_bytes);

/// logits (N,V), logits_stride(V) apart, targets (N) -> each token's cross-entropy (N) and squared
/// log-partition (N), float. With `gradient`, logits are overwritten by the derivative of a token's
/// cross-entropy + z_loss · its squared log-partition.
void cross_entropy_rows_cuda(const torch::Tensor& logits, const torch::Tensor& targets,
                             double z_loss, bool gradient, const torch::Tensor& cross_entropies,
                             const torch::Tensor& squared_log_partitions);

/// gradient ← factor · gradient, of a contiguous gradient and a factor () in float. Where the
/// factor is 1, nothing is read.
void scale_gradient_cuda(const torch::Tensor& gradient, const torch::Tensor& factor);

}  // namespace pararnn::ops
