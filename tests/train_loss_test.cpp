#include "train/loss.hpp"

#include <gtest/gtest.h>
#include <torch/utils.h>

namespace pararnn::train {
namespace {

class LossTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    torch::manual_seed(GetParam());
    const int64_t batch = 1 + GetParam() % 3, steps = 1 + GetParam(),
                  vocabulary = 2 + 7 * GetParam();
    logits_ = 3 * torch::randn({batch, steps, vocabulary}) + 1;
    targets_ = torch::randint(vocabulary, {batch, steps}, torch::kInt64);
  }

  torch::Tensor logits_, targets_;
};

TEST_P(LossTest, IsTheMeanOfNegativeLogProbabilitiesPlusSquaredLogPartitions) {
  const double z_loss = 0.1 * GetParam();
  const torch::Tensor logits = logits_.to(torch::kDouble);
  const torch::Tensor log_partitions = logits.exp().sum(-1).log();  // (B,T)
  const torch::Tensor target_logits = logits.gather(2, targets_.unsqueeze(2)).squeeze(2);
  const double cross_entropy = (log_partitions - target_logits).mean().item<double>();
  const double z = log_partitions.square().mean().item<double>();

  const Loss loss = language_model_loss(logits_, targets_, z_loss);
  EXPECT_NEAR(loss.cross_entropy.item<double>(), cross_entropy, 1e-5);
  EXPECT_NEAR(loss.total.item<double>(), cross_entropy + z_loss * z, 1e-5 * (1 + z));
}

TEST_P(LossTest, GradientOfALogitFollowsFromTheSoftmax) {
  const double z_loss = 0.1 * GetParam();
  logits_.requires_grad_();
  language_model_loss(logits_, targets_, z_loss).total.backward();
  // d/dx of −log p(target) is p − 1[target]; d/dx of logZ² is 2 logZ p.
  const torch::Tensor logits = logits_.detach().to(torch::kDouble);
  const torch::Tensor probabilities = logits.softmax(-1);
  const torch::Tensor log_partitions = logits.logsumexp(-1, /*keepdim=*/true);
  const torch::Tensor expected = (probabilities * (1 + 2 * z_loss * log_partitions) -
                                  torch::one_hot(targets_, logits.size(2))) /
                                 static_cast<double>(targets_.numel());
  EXPECT_TRUE(torch::allclose(logits_.grad().to(torch::kDouble), expected, 1e-4, 1e-6));
}

INSTANTIATE_TEST_SUITE_P(RandomShapes, LossTest, testing::Range(0, 8));

}  // namespace
}  // namespace pararnn::train
