// The loss of a language model: its definition is the formula, its loops are the definition, by
// however many chunks, and its memory is that of a chunk.
#include "ops/cross_entropy/cross_entropy.hpp"

#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <limits>
#include <random>

#include "base/error.hpp"
#include "gradient_test_support.hpp"
#include "ops_test_support.hpp"
#include "tensor_memory.hpp"

namespace pararnn::ops {
namespace {

/// What a model would hand in, and so many words for it to tell apart.
struct Prediction {
  Tensor hidden, weight, targets;
};
Prediction random_prediction(int64_t tokens, int64_t width, int64_t vocabulary,
                             torch::ScalarType hidden = torch::kDouble,
                             torch::ScalarType weight = torch::kDouble) {
  const double scale = 3 / std::sqrt(double(width));
  return {torch::randn({tokens, width}).to(hidden).requires_grad_(),
          (scale * torch::randn({vocabulary, width})).to(weight).requires_grad_(),
          torch::randint(vocabulary, {tokens}, torch::kInt64)};
}

/// Losses, and the gradients of `total` times a number.
struct LossAndGradients {
  Tensor cross_entropy, total, dhidden, dweight;
};
LossAndGradients with_gradients(decltype(linear_cross_entropy) loss, const Prediction& p,
                                const CrossEntropyOptions& options, double factor = 1) {
  const Tensor hidden = p.hidden.detach().requires_grad_(),
               weight = p.weight.detach().requires_grad_();
  const CrossEntropy result = loss(hidden, weight, p.targets, options);
  EXPECT_FALSE(result.cross_entropy.requires_grad());
  const auto gradients = torch::autograd::grad({result.total * factor}, {hidden, weight});
  EXPECT_EQ(gradients[0].scalar_type(), hidden.scalar_type());
  EXPECT_EQ(gradients[1].scalar_type(), weight.scalar_type());
  return {result.cross_entropy, result.total.detach(), gradients[0], gradients[1]};
}

void expect_definition(const Prediction& p, const CrossEntropyOptions& options, double tolerance,
                       double factor = 1) {
  const auto got = with_gradients(linear_cross_entropy, p, options, factor);
  const auto expected = with_gradients(linear_cross_entropy_definition, p, options, factor);
  EXPECT_EQ(got.total.scalar_type(), expected.total.scalar_type());
  expect_close(got.cross_entropy, expected.cross_entropy, tolerance, "cross-entropy");
  expect_close(got.total, expected.total, tolerance, "total");
  expect_close(got.dhidden, expected.dhidden, tolerance, "gradient of hidden");
  expect_close(got.dweight, expected.dweight, tolerance, "gradient of weight");
}

/// The dtypes of hidden and weight, and how far two orders of rounding may be apart.
struct LossPrecision {
  torch::ScalarType hidden, weight;
  double tolerance;
};
const LossPrecision kLossPrecisions[] = {{torch::kDouble, torch::kDouble, 1e-12},
                                         {torch::kFloat, torch::kFloat, 2e-5},
                                         {torch::kBFloat16, torch::kFloat, 2e-2},
                                         {torch::kBFloat16, torch::kBFloat16, 2e-2},
                                         {torch::kHalf, torch::kHalf, 2e-3}};

TEST(LinearCrossEntropy, DefinitionIsMeanNegativeLogProbabilityAndSquaredLogPartition) {
  torch::manual_seed(1);
  for (const double z_loss : {0.0, 0.3}) {
    const Prediction p = random_prediction(7, 5, 11);
    const Tensor exps = p.hidden.detach().matmul(p.weight.detach().t()).exp();
    const Tensor sums = exps.sum(1);
    const Tensor probabilities = exps.gather(1, p.targets.unsqueeze(1)).squeeze(1) / sums;
    const double cross_entropy = -probabilities.log().mean().item<double>();
    const double z = sums.log().square().mean().item<double>();
    const CrossEntropy loss =
        linear_cross_entropy_definition(p.hidden, p.weight, p.targets, {z_loss, 0.5});
    EXPECT_NEAR(loss.cross_entropy.item<double>(), cross_entropy, 1e-12);
    EXPECT_NEAR(loss.total.item<double>(), 0.5 * (cross_entropy + z_loss * z), 1e-12);
  }
}

TEST(LinearCrossEntropy, EqualsItsDefinition) {
  torch::manual_seed(2);
  std::mt19937 random(3);
  const auto up_to = [&](int64_t largest) { return 1 + int64_t(random()) % largest; };
  for (int i = 0; i < 12; ++i) {
    const int64_t tokens = up_to(200), width = up_to(40), vocabulary = up_to(600);
    for (const auto& [hidden, weight, tolerance] : kLossPrecisions) {
      SCOPED_TRACE(fmt::format("{} tokens, {}×{}, {} {}", tokens, vocabulary, width,
                               torch::toString(hidden), torch::toString(weight)));
      const Prediction p = random_prediction(tokens, width, vocabulary, hidden, weight);
      expect_definition(p, {.z_loss = 0.1 * (i % 3), .scale = i % 2 ? 1 : 0.25}, tolerance,
                        i % 4 ? 1 : -3);
    }
  }
}

TEST(LinearCrossEntropy, EqualsItsDefinitionByChunks) {
  torch::manual_seed(4);
  for (const auto& [hidden, weight, tolerance] : kLossPrecisions) {
    if (hidden == torch::kHalf) continue;
    SCOPED_TRACE(fmt::format("{} {}", torch::toString(hidden), torch::toString(weight)));
    const int64_t vocabulary = 30011, tokens = 2400 / int64_t(c10::elementSize(hidden)) + 1;
    const int64_t at_once = tokens_at_once(tokens, vocabulary, hidden, torch::kCPU);
    ASSERT_LT(2 * at_once, tokens);
    ASSERT_NE(tokens % at_once, 0);
    expect_definition(random_prediction(tokens, 6, vocabulary, hidden, weight), {.z_loss = 1e-2},
                      tolerance);
  }
}

TEST(LinearCrossEntropy, ChunksHoldAllTokensWithinTheBound) {
  for (const int64_t tokens : {0, 1, 1000, 32768, 1 << 20}) {
    for (const int64_t vocabulary : {1, 257, 32000, 50432, 1 << 30}) {
      for (const auto device : {torch::kCPU, torch::kCUDA}) {
        const int64_t at_once = tokens_at_once(tokens, vocabulary, torch::kBFloat16, device);
        EXPECT_GE(at_once, 1);
        EXPECT_LE(at_once, std::max<int64_t>(1, tokens));
        EXPECT_LE(2 * at_once * vocabulary, std::max(int64_t{1} << 30, 2 * vocabulary));
        // No chunk is much smaller than another: what is left over is less than a token for each.
        const int64_t chunks = (tokens + at_once - 1) / at_once;
        EXPECT_LT(chunks * at_once - tokens, std::max<int64_t>(chunks, 2));
      }
    }
  }
}

TEST(LinearCrossEntropy, GradientsEqualFiniteDifferences) {
  torch::manual_seed(5);
  const Prediction p = random_prediction(9, 5, 13);
  for (const double z_loss : {0.0, 0.2}) {
    test::expect_gradient(
        [&] {
          return linear_cross_entropy(p.hidden, p.weight, p.targets, {z_loss, 0.7}).total;
        },
        {p.hidden, p.weight});
  }
}

TEST(LinearCrossEntropy, TakesRowsOfAnyLayout) {
  torch::manual_seed(6);
  const Tensor hidden = test::half_of_wider({3, 7, 6}, torch::kFloat).requires_grad_();
  const Prediction p = random_prediction(21, 6, 30, torch::kFloat, torch::kFloat);
  const Tensor targets = p.targets.view({7, 3}).t();
  const CrossEntropy got = linear_cross_entropy(hidden, p.weight, targets);
  const CrossEntropy expected =
      linear_cross_entropy(hidden.contiguous(), p.weight, targets.contiguous());
  EXPECT_TRUE(torch::equal(got.total, expected.total));
  EXPECT_EQ(torch::autograd::grad({got.total}, {hidden})[0].sizes(), hidden.sizes());
}

TEST(LinearCrossEntropy, GivesTheGradientsThatAreWanted) {
  torch::manual_seed(7);
  Prediction p = random_prediction(8, 4, 10);
  const auto all = with_gradients(linear_cross_entropy, p, {});
  const auto of = [&](const Tensor& one) {
    return torch::autograd::grad({linear_cross_entropy(p.hidden, p.weight, p.targets).total},
                                 {one})[0];
  };
  p.weight.requires_grad_(false);
  EXPECT_TRUE(torch::equal(of(p.hidden), all.dhidden));
  p.weight.requires_grad_(true);
  p.hidden.requires_grad_(false);
  EXPECT_TRUE(torch::equal(of(p.weight), all.dweight));
  const torch::NoGradGuard no_gradient;
  const CrossEntropy loss = linear_cross_entropy(p.hidden, p.weight, p.targets);
  EXPECT_FALSE(loss.total.requires_grad());
  EXPECT_TRUE(torch::equal(loss.total, all.total));
}

TEST(LinearCrossEntropy, NeverHoldsAllLogits) {
  const int64_t tokens = 3000, width = 8, vocabulary = 20000;
  const Prediction p = random_prediction(tokens, width, vocabulary, torch::kFloat, torch::kFloat);
  const double of_chunk =
      4.0 * double(tokens_at_once(tokens, vocabulary, torch::kFloat, torch::kCPU) * vocabulary);
  const double of_gradients = 4.0 * double((tokens + vocabulary) * width);
  const double of_losses = 1e5;
  Tensor total;
  EXPECT_LT(
      PeakOfTensors::of([&] { total = linear_cross_entropy(p.hidden, p.weight, p.targets).total; }),
      of_chunk + of_gradients + of_losses);
  // Gradients are there, and become those of the parameters without a copy.
  EXPECT_LT(PeakOfTensors::of([&] { total.backward(); }), 1000);
  EXPECT_TRUE(p.weight.grad().isfinite().all().item<bool>());
  const torch::NoGradGuard no_gradient;
  EXPECT_LT(PeakOfTensors::of([&] { linear_cross_entropy(p.hidden, p.weight, p.targets); }),
            of_chunk + of_losses);
}

TEST(LinearCrossEntropy, GivesItsGradientsOnce) {
  const Prediction p = random_prediction(4, 3, 5);
  const Tensor total = linear_cross_entropy(p.hidden, p.weight, p.targets).total;
  const auto backward = [&](bool create_graph) {
    torch::autograd::grad({total}, {p.hidden}, {}, /*retain_graph=*/true, create_graph);
  };
  EXPECT_NE(sentence_of([&] { backward(true); }).find("first derivatives"), std::string::npos);
  backward(false);
  EXPECT_NE(sentence_of([&] { backward(false); }).find("again"), std::string::npos);
}

TEST(LinearCrossEntropy, WhatIsNoNumberIsPassedOn) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16}) {
    for (const double bad : {double(NAN), -double(NAN), kInfinity}) {
      const Prediction p = random_prediction(1, 1, 20, dtype, dtype);
      const Tensor weight = p.weight.detach();
      weight[11][0] = bad;
      weight.requires_grad_();
      const CrossEntropy loss = linear_cross_entropy(torch::ones({1, 1}, dtype), weight, p.targets);
      EXPECT_TRUE(std::isnan(loss.cross_entropy.item<double>()));
      EXPECT_TRUE(torch::autograd::grad({loss.total}, {weight})[0].isnan().all().item<bool>());
    }
    // -∞ is the logit of what cannot be.
    const Tensor hidden = torch::ones({1, 1}, dtype).requires_grad_();
    const Tensor weight = torch::tensor({{-kInfinity}, {1.0}, {2.0}}).to(dtype);
    const CrossEntropy loss = linear_cross_entropy(hidden, weight, torch::tensor({1}));
    EXPECT_NEAR(loss.cross_entropy.item<double>(), std::log1p(std::exp(1)), 1e-6);
    EXPECT_EQ(linear_cross_entropy(hidden, weight, torch::tensor({0})).cross_entropy.item<double>(),
              kInfinity);
  }
}

TEST(LinearCrossEntropy, HasNoMeanOverNoToken) {
  const Prediction p = random_prediction(0, 3, 5);
  const auto result = with_gradients(linear_cross_entropy, p, {});
  EXPECT_TRUE(std::isnan(result.cross_entropy.item<double>()));
  EXPECT_EQ(result.dhidden.numel(), 0);
}

TEST(LinearCrossEntropy, WhatDoesNotMatchIsASentence) {
  const Prediction p = random_prediction(4, 3, 5);
  const auto says = [&](const Tensor& hidden, const Tensor& targets, const std::string& words) {
    const std::string sentence =
        sentence_of([&] { linear_cross_entropy(hidden, p.weight, targets); });
    EXPECT_NE(sentence.find(words), std::string::npos) << sentence;
  };
  says(p.hidden, p.targets + 5, "from 0 to 4");
  says(p.hidden, p.targets - 5, "from 0 to 4");
  says(p.hidden, p.targets.slice(0, 1), "[4]");
  says(p.hidden, p.targets.to(torch::kInt), "int64");
  says(p.hidden.slice(1, 1), p.targets, "[4, 2] and [5, 3]");
}

}  // namespace
}  // namespace pararnn::ops
