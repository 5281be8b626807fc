#include "train/optimizer.hpp"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <limits>
#include <random>

#include "base/error.hpp"

namespace pararnn::train {
namespace {

torch::Tensor rate_of(double rate) { return torch::tensor(rate, torch::kDouble); }

/// Random parameters, every other one of which decays, with random gradients.
class OptimizerTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    torch::manual_seed(GetParam());
    std::mt19937 random(static_cast<uint32_t>(GetParam()));
    const auto size = [&] { return static_cast<int64_t>(1 + random() % 40); };
    for (int i = 0; i < 5; ++i) {
      const torch::Tensor tensor =
          i % 2 == 0 ? torch::randn({size(), size()}) : torch::randn({size()});
      parameters_.push_back({"parameter" + std::to_string(i), tensor.requires_grad_(), i % 2 == 0});
    }
  }

  void draw_gradients() {
    for (Parameter& parameter : parameters_)
      parameter.tensor.mutable_grad() = torch::randn_like(parameter.tensor);
  }

  std::vector<Parameter> parameters_;
  const AdamWOptions options_{.beta1 = 0.8, .beta2 = 0.97, .epsilon = 1e-7, .weight_decay = 0.3};
};

TEST_P(OptimizerTest, FollowsTheFormula) {
  AdamW optimizer(parameters_, options_);
  std::vector<torch::Tensor> expected, first, second;  // the plain formula in fp64
  for (const Parameter& parameter : parameters_) {
    expected.push_back(parameter.tensor.detach().to(torch::kDouble));
    first.push_back(torch::zeros_like(expected.back()));
    second.push_back(torch::zeros_like(expected.back()));
  }
  for (int t = 1; t <= 10; ++t) {
    const double rate = 0.01 * t;
    draw_gradients();
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const torch::Tensor gradient = parameters_[i].tensor.grad().to(torch::kDouble);
      first[i] = options_.beta1 * first[i] + (1 - options_.beta1) * gradient;
      second[i] = options_.beta2 * second[i] + (1 - options_.beta2) * gradient.square();
      if (parameters_[i].decays) expected[i] = expected[i] * (1 - rate * options_.weight_decay);
      expected[i] = expected[i] -
                    rate * (first[i] / (1 - std::pow(options_.beta1, t))) /
                        ((second[i] / (1 - std::pow(options_.beta2, t))).sqrt() + options_.epsilon);
    }
    optimizer.step(rate_of(rate));
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const torch::Tensor difference =
          parameters_[i].tensor.detach().to(torch::kDouble) - expected[i];
      EXPECT_LT(difference.abs().max().item<double>(), 3e-6);
    }
  }
}

TEST_P(OptimizerTest, GoesOnFromItsStateBitForBit) {
  AdamW optimizer(parameters_, options_);
  for (int i = 0; i < 3; ++i) {
    draw_gradients();
    optimizer.step(rate_of(0.1));
  }
  std::vector<Parameter> copies;
  for (const Parameter& parameter : parameters_) {
    copies.push_back(
        {parameter.name, parameter.tensor.detach().clone().requires_grad_(), parameter.decays});
  }
  AdamW other(copies, options_);
  other.load_state(optimizer.state());
  draw_gradients();
  for (size_t i = 0; i < copies.size(); ++i)
    copies[i].tensor.mutable_grad() = parameters_[i].tensor.grad().clone();
  optimizer.step(rate_of(0.1));
  other.step(rate_of(0.1));
  for (size_t i = 0; i < copies.size(); ++i)
    EXPECT_TRUE(copies[i].tensor.equal(parameters_[i].tensor));
}

TEST_P(OptimizerTest, RefusesAStateThatIsNotItsOwn) {
  AdamW optimizer(parameters_, options_);
  auto state = optimizer.state();
  state.erase("parameter1.second_moment");
  EXPECT_THROW(optimizer.load_state(state), Error);
  state["parameter1.second_moment"] = torch::zeros({41});
  EXPECT_THROW(optimizer.load_state(state), Error);
}

TEST_P(OptimizerTest, MeasuresTheGlobalNormWhateverTheDtypes) {
  for (Parameter& parameter : parameters_) {
    if (parameter.decays) parameter.tensor.set_data(parameter.tensor.detach().to(torch::kBFloat16));
  }
  draw_gradients();
  double sum = 0;
  for (const Parameter& parameter : parameters_)
    sum += parameter.tensor.grad().to(torch::kDouble).square().sum().item<double>();
  EXPECT_NEAR(gradient_norm(parameters_).item<double>(), std::sqrt(sum), 1e-5 * std::sqrt(sum));
}

TEST_P(OptimizerTest, ClipsTheGlobalNormAndKeepsTheDirection) {
  draw_gradients();
  const double norm = gradient_norm(parameters_).item<double>();
  for (const double share : {0.0, 1 / 3.0, 2.0}) {  // of the norm, as the bound; 0: none
    std::vector<Parameter> clipped, scaled;
    for (const Parameter& parameter : parameters_) {
      for (auto* copies : {&clipped, &scaled}) {
        copies->push_back(
            {parameter.name, parameter.tensor.detach().clone().requires_grad_(), parameter.decays});
        copies->back().tensor.mutable_grad() = parameter.tensor.grad().clone();
      }
      if (share > 0 && share < 1) scaled.back().tensor.mutable_grad().mul_(share);
    }
    AdamWOptions bounded = options_;
    bounded.clip = share * norm;
    AdamW one(clipped, bounded), other(scaled, options_);
    EXPECT_EQ(one.step(rate_of(0.01)).item<double>(), gradient_norm(parameters_).item<double>());
    other.step(rate_of(0.01));
    const auto state = other.state();
    for (const auto& [name, tensor] : one.state())
      EXPECT_TRUE(torch::allclose(tensor, state.at(name), 1e-5, 1e-7)) << name;
    for (size_t i = 0; i < clipped.size(); ++i)
      EXPECT_TRUE(torch::allclose(clipped[i].tensor, scaled[i].tensor, 1e-5, 1e-5));
  }
}

TEST_P(OptimizerTest, ASkippedStepLeavesAllAsItWas) {
  AdamW optimizer(parameters_, options_);
  draw_gradients();
  optimizer.step(rate_of(0.1));
  const auto copy = [](const std::map<std::string, torch::Tensor>& tensors) {
    std::map<std::string, torch::Tensor> copies;
    for (const auto& [name, tensor] : tensors) copies[name] = tensor.clone();
    return copies;
  };
  const auto state = copy(optimizer.state()), weights = copy(optimizer.weights());
  const double infinity = std::numeric_limits<double>::infinity();
  draw_gradients();
  optimizer.step(rate_of(0.1), torch::full({}, infinity));
  parameters_[2].tensor.mutable_grad().fill_(-infinity);
  optimizer.step(rate_of(0.1), torch::ones({}));
  optimizer.step(rate_of(0.1));
  for (const auto& [name, tensor] : optimizer.state())
    EXPECT_TRUE(torch::equal(tensor, state.at(name))) << name;
  for (const auto& [name, tensor] : optimizer.weights())
    EXPECT_TRUE(torch::equal(tensor, weights.at(name))) << name;
  draw_gradients();
  optimizer.step(rate_of(0.1), torch::ones({}));
  EXPECT_FALSE(torch::equal(optimizer.weights().at("parameter0"), weights.at("parameter0")));
}

TEST_P(OptimizerTest, AMasterIsWhatTheWeightRounds) {
  std::vector<Parameter> rounded;
  for (const Parameter& parameter : parameters_) {
    rounded.push_back({parameter.name,
                       parameter.tensor.detach().to(torch::kBFloat16).requires_grad_(),
                       parameter.decays, parameter.tensor.detach().clone()});
  }
  AdamW full(parameters_, options_), optimizer(rounded, options_);
  for (int step = 0; step < 3; ++step) {
    for (size_t i = 0; i < rounded.size(); ++i) {
      rounded[i].tensor.mutable_grad() = torch::randn_like(rounded[i].tensor);
      parameters_[i].tensor.mutable_grad() = rounded[i].tensor.grad().to(torch::kFloat);
    }
    full.step(rate_of(0.01));
    optimizer.step(rate_of(0.01));
  }
  const auto expected = full.weights(), weights = optimizer.weights();
  for (const Parameter& parameter : rounded) {
    EXPECT_TRUE(torch::equal(weights.at(parameter.name), expected.at(parameter.name)));
    EXPECT_TRUE(torch::equal(parameter.tensor, expected.at(parameter.name).to(torch::kBFloat16)));
  }
  // Other weights are rounded as well.
  const std::map<std::string, torch::Tensor> first = [&] {
    std::map<std::string, torch::Tensor> random;
    for (const auto& [name, tensor] : weights) random[name] = torch::randn_like(tensor);
    return random;
  }();
  optimizer.load_weights(first);
  for (const Parameter& parameter : rounded) {
    EXPECT_TRUE(torch::equal(optimizer.weights().at(parameter.name), first.at(parameter.name)));
    EXPECT_TRUE(torch::equal(parameter.tensor, first.at(parameter.name).to(torch::kBFloat16)));
  }
}

INSTANTIATE_TEST_SUITE_P(RandomShapes, OptimizerTest, testing::Range(0, 8));

}  // namespace
}  // namespace pararnn::train
