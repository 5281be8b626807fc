// What training minimises: the cross-entropy of the next token, in nats, and optionally the z-loss,
// which keeps the log-partition log Σ exp(logits) near 0.
#pragma once

#include <torch/types.h>

namespace pararnn::train {

struct Loss {
  torch::Tensor cross_entropy;  // (), mean over the tokens, in nats
  torch::Tensor
      total;  // (), cross-entropy + z_loss · mean of squared log-partitions: to differentiate
};

/// logits (B,T,V), targets (B,T) int64.
Loss language_model_loss(const torch::Tensor& logits, const torch::Tensor& targets, double z_loss);

}  // namespace pararnn::train
