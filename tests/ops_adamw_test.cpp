// AdamW's update of many tensors: by its loops it is the formula and LibTorch's own fused one, to
// rounding; a weight is its master rounded; a step that is not finite changes no bit.
#include "ops/adamw/adamw.hpp"

#include <ATen/Functions.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <limits>
#include <vector>

namespace pararnn::ops {
namespace {

using torch::Tensor;

/// Tensors of a dtype with masters that it does not hold, one of which has no number at all.
std::vector<AdamWTensors> random_tensors(torch::ScalarType dtype) {
  std::vector<AdamWTensors> tensors;
  const auto full = dtype == torch::kDouble ? torch::kDouble : torch::kFloat;
  for (const int64_t size : {1, 0, 7, 64, 100, 70'001}) {
    const Tensor master = torch::randn({size}, full);
    tensors.push_back({.weight = master.to(dtype),
                       .gradient = torch::randn({size}).to(dtype),
                       .master = master,
                       .first_moment = torch::randn({size}, full),
                       .second_moment = torch::rand({size}, full),
                       .decays = tensors.size() % 2 == 0});
  }
  return tensors;
}

std::vector<AdamWTensors> copies_of(const std::vector<AdamWTensors>& tensors) {
  std::vector<AdamWTensors> copies;
  for (const AdamWTensors& t : tensors) {
    const Tensor master = t.master.clone();
    copies.push_back({.weight = t.weight.is_alias_of(t.master) ? master : t.weight.clone(),
                      .gradient = t.gradient.clone(),
                      .master = master,
                      .first_moment = t.first_moment.clone(),
                      .second_moment = t.second_moment.clone(),
                      .decays = t.decays});
  }
  return copies;
}

void expect_near(const std::vector<AdamWTensors>& got, const std::vector<AdamWTensors>& expected,
                 double tolerance) {
  for (size_t i = 0; i < got.size(); ++i) {
    const auto near = [&](const Tensor& a, const Tensor& b) {
      return torch::allclose(a.to(torch::kDouble), b.to(torch::kDouble), tolerance, tolerance);
    };
    EXPECT_TRUE(near(got[i].master, expected[i].master)) << i;
    EXPECT_TRUE(near(got[i].first_moment, expected[i].first_moment)) << i;
    EXPECT_TRUE(near(got[i].second_moment, expected[i].second_moment)) << i;
    EXPECT_TRUE(torch::equal(got[i].weight, got[i].master.to(got[i].weight.scalar_type()))) << i;
  }
}

void expect_equal(const std::vector<AdamWTensors>& got, const std::vector<AdamWTensors>& expected) {
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_TRUE(torch::equal(got[i].weight, expected[i].weight)) << i;
    EXPECT_TRUE(torch::equal(got[i].master, expected[i].master)) << i;
    EXPECT_TRUE(torch::equal(got[i].first_moment, expected[i].first_moment)) << i;
    EXPECT_TRUE(torch::equal(got[i].second_moment, expected[i].second_moment)) << i;
  }
}

const AdamWOptions kAdamWOptions{
    .beta1 = 0.8, .beta2 = 0.97, .epsilon = 1e-7, .weight_decay = 0.3, .clip = 2};
Tensor rate(double learning_rate) { return torch::tensor(learning_rate, torch::kDouble); }
const Tensor kYes = torch::tensor(true), kNo = torch::tensor(false);

class AdamWOf : public testing::TestWithParam<torch::ScalarType> {
 protected:
  void SetUp() override { torch::manual_seed(1); }
};

TEST_P(AdamWOf, TheLoopsAreTheDefinition) {
  const auto tensors = random_tensors(GetParam());
  const auto in_double = [&] {
    std::vector<AdamWTensors> exact;
    for (const AdamWTensors& t : tensors) {
      const Tensor master = t.master.to(torch::kDouble, false, /*copy=*/true);
      exact.push_back({master, t.gradient.to(torch::kDouble), master,
                       t.first_moment.to(torch::kDouble, false, true),
                       t.second_moment.to(torch::kDouble, false, true), t.decays});
    }
    return exact;
  };
  for (const double norm : {0.5, 5.0}) {  // the second is clipped
    const auto got = copies_of(tensors), exact = in_double();
    const Tensor updates = torch::zeros({}), others = torch::zeros({});
    for (int step = 0; step < 3; ++step) {
      adamw(got, kAdamWOptions, rate(0.01), torch::tensor(norm), kYes, updates);
      adamw_definition(exact, kAdamWOptions, rate(0.01), torch::tensor(norm), kYes, others);
    }
    EXPECT_EQ(updates.item<double>(), 3);
    expect_near(got, exact, GetParam() == torch::kDouble ? 1e-14 : 1e-6);
  }
}

TEST_P(AdamWOf, AStepThatIsNotFiniteChangesNoBit) {
  const auto tensors = random_tensors(GetParam());
  for (const AdamWTensors& t : tensors) {
    if (t.gradient.numel() > 0) t.gradient[0] = std::numeric_limits<double>::quiet_NaN();
  }
  const auto before = copies_of(tensors);
  const Tensor updates = torch::full({}, 4.0f);
  for (const double norm :
       {1.0, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    adamw(tensors, kAdamWOptions, rate(0.01), torch::tensor(norm), kNo, updates);
    adamw_definition(tensors, kAdamWOptions, rate(0.01), torch::tensor(norm), kNo, updates);
  }
  expect_equal(tensors, before);
  EXPECT_EQ(updates.item<double>(), 4);
}

TEST_P(AdamWOf, ClippingIsASmallerGradient) {
  const auto clipped = random_tensors(torch::promoteTypes(GetParam(), torch::kFloat));
  const auto scaled = copies_of(clipped);
  for (const AdamWTensors& t : scaled) t.gradient.mul_(0.25);
  AdamWOptions unbounded = kAdamWOptions;
  unbounded.clip = 0;
  const Tensor updates = torch::zeros({}), others = torch::zeros({});
  adamw(clipped, kAdamWOptions, rate(0.1), torch::tensor(8.0), kYes, updates);
  adamw(scaled, unbounded, rate(0.1), torch::tensor(8.0), kYes, others);
  expect_equal(clipped, scaled);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, AdamWOf,
                         testing::Values(torch::kFloat, torch::kBFloat16, torch::kDouble,
                                         torch::kHalf));

TEST(AdamW, IsLibTorchsFusedOne) {
  torch::manual_seed(2);
  const auto tensors = random_tensors(torch::kFloat), others = copies_of(tensors);
  const Tensor updates = torch::zeros({}), other_updates = torch::zeros({});
  for (int step = 1; step <= 5; ++step) {
    adamw(tensors, kAdamWOptions, rate(0.01), torch::tensor(1.0), kYes, updates);
    other_updates.add_(1);
    for (const AdamWTensors& t : others) {
      at::_fused_adamw_({t.weight}, {t.gradient}, {t.first_moment}, {t.second_moment}, {},
                        {other_updates}, 0.01, kAdamWOptions.beta1, kAdamWOptions.beta2,
                        t.decays ? kAdamWOptions.weight_decay : 0, kAdamWOptions.epsilon, false,
                        false);
    }
  }
  expect_near(tensors, others, 2e-6);
}

// What a model's rounding does to its gradients apart, rounded weights are trained as exact ones.
TEST(AdamW, AMasterIsTrainedAsAWeightInFullPrecision) {
  torch::manual_seed(3);
  const auto rounded = random_tensors(torch::kBFloat16);
  std::vector<AdamWTensors> full;
  for (const AdamWTensors& t : rounded) {
    const Tensor master = t.master.clone();
    full.push_back({master, t.gradient.to(torch::kFloat), master, t.first_moment.clone(),
                    t.second_moment.clone(), t.decays});
  }
  const Tensor updates = torch::zeros({}), others = torch::zeros({});
  for (int step = 0; step < 4; ++step) {
    for (size_t i = 0; i < full.size(); ++i) {
      rounded[i].gradient.normal_();
      full[i].gradient.copy_(rounded[i].gradient);
    }
    adamw(rounded, kAdamWOptions, rate(0.01), torch::tensor(3.0), kYes, updates);
    adamw(full, kAdamWOptions, rate(0.01), torch::tensor(3.0), kYes, others);
  }
  for (size_t i = 0; i < full.size(); ++i) {
    EXPECT_TRUE(torch::equal(rounded[i].master, full[i].master)) << i;
    EXPECT_TRUE(torch::equal(rounded[i].second_moment, full[i].second_moment)) << i;
    EXPECT_TRUE(torch::equal(rounded[i].weight, full[i].master.to(torch::kBFloat16))) << i;
  }
}

}  // namespace
}  // namespace pararnn::ops
