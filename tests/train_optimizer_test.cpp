#include "train/optimizer.hpp"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <limits>
#include <random>

#include "base/error.hpp"

namespace pararnn::train {
namespace {

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
    optimizer.step(rate);
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
    optimizer.step(0.1);
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
  optimizer.step(0.1);
  other.step(0.1);
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

TEST_P(OptimizerTest, ClipsTheGlobalNormAndKeepsTheDirection) {
  draw_gradients();
  std::vector<torch::Tensor> before;
  double sum = 0;
  for (const Parameter& parameter : parameters_) {
    before.push_back(parameter.tensor.grad().clone());
    sum += before.back().to(torch::kDouble).square().sum().item<double>();
  }
  const double norm = std::sqrt(sum);
  const auto measured = [&] { return gradient_norm(parameters_).item<double>(); };
  EXPECT_NEAR(measured(), norm, 1e-5 * norm);
  clip_gradients(parameters_, norm, 2 * norm);
  clip_gradients(parameters_, norm, 0);
  clip_gradients(parameters_, std::numeric_limits<double>::infinity(), norm / 3);
  for (size_t i = 0; i < before.size(); ++i)
    EXPECT_TRUE(parameters_[i].tensor.grad().equal(before[i]));

  clip_gradients(parameters_, norm, norm / 3);
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(torch::allclose(parameters_[i].tensor.grad() * 3, before[i], 1e-5, 1e-7));
  }
  EXPECT_NEAR(measured(), norm / 3, 1e-5 * norm);
}

INSTANTIATE_TEST_SUITE_P(RandomShapes, OptimizerTest, testing::Range(0, 8));

}  // namespace
}  // namespace pararnn::train
