// The loss of a language model on a GPU: it equals its definition in double, whatever the dtypes
// and sizes, and by several chunks.
#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>

#include "ops/cross_entropy/cross_entropy.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

class CrossEntropyOnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU";
    torch::manual_seed(1);
  }
};

Tensor on_gpu(torch::IntArrayRef shape, double scale, torch::ScalarType dtype) {
  return (scale * torch::randn(shape, torch::kCUDA)).to(dtype).requires_grad_();
}

void expect_definition_in_double(int64_t tokens, int64_t width, int64_t vocabulary,
                                 torch::ScalarType of_hidden, torch::ScalarType of_weight,
                                 const CrossEntropyOptions& options, double factor) {
  SCOPED_TRACE(testing::Message() << tokens << " tokens, " << vocabulary << " x " << width << ", "
                                  << of_hidden << " " << of_weight);
  const Tensor hidden = on_gpu({tokens, width}, 1, of_hidden);
  const Tensor weight = on_gpu({vocabulary, width}, 3 / std::sqrt(double(width)), of_weight);
  const Tensor targets = torch::randint(vocabulary, {tokens}, torch::kLong).to(torch::kCUDA);
  const auto of_double = [&](const Tensor& t) {  // as the product sees it
    return t.detach().to(of_hidden).to(torch::kDouble).requires_grad_();
  };
  const auto results = [&](auto loss, const Tensor& x, const Tensor& w) {
    const CrossEntropy found = loss(x, w, targets, options);
    auto all = torch::autograd::grad({found.total * factor}, {x, w});
    all.push_back(found.cross_entropy);
    all.push_back(found.total.detach());
    return all;
  };
  const auto got = results(linear_cross_entropy, hidden, weight);
  const auto expected =
      results(linear_cross_entropy_definition, of_double(hidden), of_double(weight));
  EXPECT_EQ(got[0].scalar_type(), of_hidden);
  EXPECT_EQ(got[1].scalar_type(), of_weight);
  for (size_t i = 0; i < got.size(); ++i) {
    const Tensor wide = got[i].to(torch::kDouble);
    const double distance = (wide - expected[i]).norm().item<double>();
    const double tolerance = of_hidden == torch::kFloat ? 2e-5 : 1e-2;
    EXPECT_LE(distance, tolerance * (1e-6 + expected[i].norm().item<double>())) << i;
  }
}

TEST_F(CrossEntropyOnGpu, EqualsItsDefinition) {
  for (const auto& [hidden, weight] : {std::pair{torch::kFloat, torch::kFloat},
                                       {torch::kBFloat16, torch::kFloat},
                                       {torch::kBFloat16, torch::kBFloat16},
                                       {torch::kHalf, torch::kHalf}}) {
    for (const int64_t vocabulary : {1, 2, 257, 1000, 4093, 32000, 50257, 50432, 262144}) {
      expect_definition_in_double(100, 64, vocabulary, hidden, weight,
                                  {.z_loss = 1e-2, .scale = 0.5}, vocabulary % 2 ? 1 : -3);
    }
  }
}

TEST_F(CrossEntropyOnGpu, EqualsItsDefinitionByChunks) {
  const int64_t vocabulary = 262144;
  for (const auto& [hidden, weight, tokens] : {std::tuple{torch::kFloat, torch::kFloat, 1501},
                                               {torch::kBFloat16, torch::kFloat, 2501},
                                               {torch::kBFloat16, torch::kBFloat16, 2501}}) {
    ASSERT_LT(tokens_at_once(tokens, vocabulary, hidden, torch::kCUDA), tokens);
    expect_definition_in_double(tokens, 32, vocabulary, hidden, weight, {.z_loss = 1e-3}, 1);
  }
}

TEST_F(CrossEntropyOnGpu, ATargetOutsideTheVocabularyIsNoNumber) {
  const Tensor hidden = on_gpu({5, 8}, 1, torch::kFloat),
               weight = on_gpu({30, 8}, 1, torch::kFloat);
  for (const int64_t outside : {-1, 30, 1 << 30}) {
    Tensor targets = torch::zeros(5, torch::kLong);
    targets[3] = outside;
    const CrossEntropy loss = linear_cross_entropy(hidden, weight, targets.to(torch::kCUDA));
    EXPECT_TRUE(std::isnan(loss.cross_entropy.item<double>()));
    const Tensor dhidden = torch::autograd::grad({loss.total}, {hidden})[0].cpu();
    EXPECT_TRUE(dhidden[3].isnan().all().item<bool>());
    EXPECT_EQ(dhidden.isnan().sum().item<int64_t>(), 8);
  }
}

}  // namespace
}  // namespace pararnn::ops
