// Activations that are computed again: losses, states and gradients are those of the model that
// keeps them, bit for bit on a CPU, and memory falls.
#include "nn/recompute.hpp"

#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <random>

#include "cells/cell_registry.hpp"
#include "nn/language_model.hpp"
#include "tensor_memory.hpp"

using namespace pararnn;
using namespace pararnn::nn;
using torch::Tensor;

namespace {

/// Two batches forward and backward, whose gradients add up; the second goes on from the state of
/// the first, with gradients through it.
std::vector<Tensor> train_twice(LanguageModel& model, const RecomputePlan& plan,
                                const Tensor& tokens, const Tensor& reset) {
  model->set_recompute(plan);
  model->zero_grad();
  const Tensor targets = tokens.roll(-1, 1);
  std::vector<Tensor> results;
  for (int i = 0; i < 2; ++i) {
    const auto [first, state] = model->loss(tokens, targets, {.z_loss = 1e-3}, {}, reset);
    const auto [second, last] = model->loss(targets, tokens, {.scale = 0.5}, state, reset);
    (first.total + second.total).backward();
    results.insert(results.end(), {first.total.detach(), second.total.detach()});
    for (const MixerState& layer : last.layers) {
      for (const Tensor& t : layer) results.push_back(t.detach());
    }
  }
  for (const Tensor& parameter : model->parameters()) results.push_back(parameter.grad().clone());
  return results;
}

TEST(Recompute, GivesTheSameBits) {
  std::mt19937 random(1);
  const auto below = [&](int64_t n) { return int64_t(random() % uint64_t(n)); };
  torch::manual_seed(1);
  for (int i = 0; i < 12; ++i) {
    const auto& cells = built_in_cells();
    ModelConfig config;
    config.rnn.heads = 1 + below(3);
    config.width = config.rnn.heads * (1 + below(12));
    config.vocabulary = 2 + below(60);
    config.layers = 1 + below(3);
    config.rnn.conv_width = 1 + below(4);
    config.tie_embedding = below(2) == 0;
    config.rnn.cell = cells[size_t(below(std::ssize(cells)))].name;
    LanguageModel model(config);
    if (i % 3 == 1) model->to_precision(torch::kBFloat16);
    if (i % 3 == 2) model->to(torch::kDouble);
    const Tensor tokens =
        torch::randint(config.vocabulary, {1 + below(3), 1 + below(200)}, torch::kLong);
    const Tensor reset = below(2) == 0 ? torch::rand(tokens.sizes()) < 0.05 : Tensor();
    const auto expected = train_twice(model, {}, tokens, reset);
    for (int64_t blocks = 0; blocks <= config.layers; ++blocks) {
      for (int64_t mixers = 0; blocks + mixers <= config.layers; ++mixers) {
        SCOPED_TRACE(testing::Message() << to_json(config).dump() << tokens.sizes() << blocks
                                        << " blocks, " << mixers << " mixers");
        const auto results = train_twice(model, {blocks, mixers}, tokens, reset);
        ASSERT_EQ(results.size(), expected.size());
        for (size_t j = 0; j < results.size(); ++j) {
          ASSERT_TRUE(torch::equal(results[j], expected[j])) << j;
        }
      }
    }
  }
}

TEST(Recompute, TakesLessMemory) {
  const ModelConfig config{.vocabulary = 50, .width = 64, .layers = 6};
  LanguageModel model(config);
  const Tensor tokens = torch::randint(config.vocabulary, {4, 512}, torch::kLong);
  const auto peak = [&](const RecomputePlan& plan) {
    model->set_recompute(plan);
    return PeakOfTensors::of([&] {
      model->loss(tokens, tokens).first.total.backward();
      model->zero_grad();
    });
  };
  const double kept = peak({}), mixers = peak({0, 6}), blocks = peak({6, 0});
  EXPECT_LT(mixers, 0.75 * kept);
  EXPECT_LT(blocks, 0.4 * kept);
  EXPECT_LT(blocks, peak({3, 0}));
  EXPECT_LT(peak({3, 3}), peak({3, 0}));
}

TEST(Recompute, KeepsNothingWithoutABackwardPass) {
  LanguageModel model(ModelConfig{.layers = 2});
  const Tensor tokens = torch::randint(257, {2, 100}, torch::kLong);
  const torch::NoGradGuard no_grad;
  const Tensor expected = model->forward(tokens);
  model->set_recompute({1, 1});
  EXPECT_TRUE(torch::equal(model->forward(tokens), expected));
}

TEST(Recompute, HasNoSecondDerivative) {
  const Tensor x = torch::ones(3).requires_grad_();
  const auto square = [](const std::vector<Tensor>& given) {
    return std::vector<Tensor>{given[0] * given[0]};
  };
  const Tensor y = recompute(square, {x}, {})[0];
  EXPECT_ANY_THROW(torch::autograd::grad({y.sum()}, {x}, {}, true, /*create_graph=*/true));
}

// What was kept must be what it was.
TEST(Recompute, AWeightThatChangedInBetweenIsAnError) {
  LanguageModel model(ModelConfig{.layers = 1});
  model->set_recompute({1, 0});
  const Tensor tokens = torch::randint(257, {1, 10}, torch::kLong);
  const Tensor loss = model->loss(tokens, tokens).first.total;
  {
    const torch::NoGradGuard no_grad;
    for (const Tensor& parameter : model->parameters()) parameter.add_(1);
  }
  EXPECT_ANY_THROW(loss.backward());
}

}  // namespace
