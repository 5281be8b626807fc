#include "train/loss.hpp"

namespace pararnn::train {

Loss language_model_loss(const torch::Tensor& logits, const torch::Tensor& targets, double z_loss) {
  const torch::Tensor flat = logits.flatten(0, 1).to(torch::kFloat32);  // (B·T,V)
  const torch::Tensor flat_targets = targets.flatten();                 // (B·T)
  const torch::Tensor log_probabilities = torch::log_softmax(flat, /*dim=*/1);
  Loss loss;
  loss.cross_entropy = torch::nll_loss(log_probabilities, flat_targets);
  loss.total = loss.cross_entropy;
  if (z_loss > 0) {
    // log Σ exp(logits) = logit − log-probability, for any one token: the target, say.
    const torch::Tensor column = flat_targets.unsqueeze(1);
    const torch::Tensor log_partitions =
        flat.gather(1, column) - log_probabilities.gather(1, column);
    loss.total = loss.total + z_loss * log_partitions.square().mean();
  }
  return loss;
}

}  // namespace pararnn::train
