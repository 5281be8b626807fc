// Gradients against central differences.
#pragma once

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <functional>
#include <vector>

namespace pararnn::test {

inline const auto kDouble = torch::TensorOptions(torch::kDouble);

/// The derivative of a random weighting of f's value along a random direction in `inputs` (fp64
/// leaves), by backward and by central differences.
inline void expect_gradient(const std::function<torch::Tensor()>& f,
                            const std::vector<torch::Tensor>& inputs) {
  const torch::Tensor weights = torch::randn_like(f().detach());
  for (const torch::Tensor& input : inputs) input.mutable_grad() = torch::Tensor();
  (f() * weights).sum().backward();
  for (size_t i = 0; i < inputs.size(); ++i) {
    const torch::Tensor& input = inputs[i];
    ASSERT_TRUE(input.grad().defined()) << "input " << i << " has no gradient";
    const torch::Tensor direction = torch::randn_like(input);
    const double derivative = (input.grad() * direction).sum().item<double>();
    torch::NoGradGuard no_grad;
    const double h = 1e-5;
    const auto value = [&](double step) {
      input.add_(direction, step);
      const double result = (f() * weights).sum().item<double>();
      input.add_(direction, -step);
      return result;
    };
    const double difference = (value(h) - value(-h)) / (2 * h);
    EXPECT_NEAR(derivative, difference, 1e-6 * (1 + std::abs(difference))) << "input " << i;
  }
}

inline torch::Tensor leaf(torch::IntArrayRef shape) {
  return torch::randn(shape, kDouble).requires_grad_();
}

/// One half of a twice as wide tensor: rows that are not next to each other.
inline torch::Tensor half_of_wider(torch::IntArrayRef shape, torch::TensorOptions options) {
  auto wider = shape.vec();
  wider.back() *= 2;
  return torch::randn(wider, options).narrow(-1, shape.back(), shape.back());
}

}  // namespace pararnn::test
