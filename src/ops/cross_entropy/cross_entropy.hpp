// The loss of a language model from its last hidden states: the cross-entropy of the next token,
// and the z-loss, which keeps the log-partition log Σ exp(logits) near 0. Logits and their
// gradients are held for some tokens at a time, never for all.
#pragma once

#include <torch/types.h>

#include <cstdint>

namespace pararnn::ops {

struct CrossEntropy {
  torch::Tensor cross_entropy;  // (), mean over the tokens, in nats: to read
  torch::Tensor total;          // (), what is minimised: to differentiate
};

struct CrossEntropyOptions {
  double z_loss = 0;
  /// Multiplies `total`. To multiply by it afterwards would cost a pass over all gradients.
  double scale = 1;
};

/// hidden (...,d), weight (V,d), targets (...) int64 -> with logits = hidden weightᵀ,
/// total = scale · (cross-entropy + z_loss · mean of squared log-partitions).
///
/// The product is of hidden's dtype; all behind it is fp32 (fp64 for fp64). Differentiable in
/// hidden and weight: gradients are made together with the loss, so that backward, which can be
/// called once, is next to nothing. A target outside the vocabulary is an Error on a CPU; on a GPU,
/// where to look would be to wait, it makes loss and gradients NaN. So do logits that are NaN or
/// +∞.
CrossEntropy linear_cross_entropy(const torch::Tensor& hidden, const torch::Tensor& weight,
                                  const torch::Tensor& targets,
                                  const CrossEntropyOptions& options = {});

/// The same in LibTorch's operations, with all logits: the definition, and what runs where there
/// are neither loops nor kernels (fp16 on a CPU, fp64 on a GPU).
CrossEntropy linear_cross_entropy_definition(const torch::Tensor& hidden,
                                             const torch::Tensor& weight,
                                             const torch::Tensor& targets,
                                             const CrossEntropyOptions& options = {});

/// How many of so many tokens have their logits held at once: about equally many each time.
int64_t tokens_at_once(int64_t tokens, int64_t vocabulary, torch::ScalarType dtype,
                       torch::DeviceType device);

}  // namespace pararnn::ops
