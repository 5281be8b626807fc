// Halves of a tensor: their gradients are those of any other views, however they are used, and are
// made in one tensor where operators make them.
#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <functional>
#include <vector>

#include "base/error.hpp"
#include "ops/causal_convolution/causal_convolution.hpp"
#include "ops/halves/halves.hpp"
#include "ops/rms_norm/rms_norm.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

constexpr int64_t kBatch = 2, kSteps = 9, kWidth = 6;

/// What a mixer does with its halves, between random weights.
struct Halves : testing::Test {
  torch::Device device{torch::kCPU};
  torch::ScalarType dtype = torch::kDouble;
  Tensor x, taps, weight;

  void make() {
    torch::manual_seed(1);
    const auto in_dtype = torch::dtype(dtype).device(device);
    const auto in_float = dtype == torch::kDouble ? in_dtype : in_dtype.dtype(torch::kFloat);
    x = torch::randn({kBatch, kSteps, 2 * kWidth}, in_dtype).requires_grad_();
    taps = torch::randn({4, kWidth}, in_float).requires_grad_();
    weight = torch::randn({kWidth}, in_float).requires_grad_();
  }
  void SetUp() override { make(); }

  Tensor convolve(const Tensor& branch) const {
    return causal_convolution(branch, taps, torch::zeros({kBatch, 3, kWidth}, branch.options()));
  }
  Tensor gated(const Tensor& y, const Tensor& gate) const {
    return rms_norm(y, weight, 1e-5, y.scalar_type(), gate);
  }

  using Use = std::function<Tensor(const Tensor&, const Tensor&)>;
  Tensor gradient(const Tensor& y) const {
    return torch::autograd::grad(
        {y}, {x}, {torch::sin(torch::arange(y.numel(), y.options())).view(y.sizes())},
        /*retain_graph=*/true)[0];
  }
  /// Expects the gradient of a use of the halves to be that of a use of other views, twice.
  void expect_same(const Use& use) const {
    const auto views = (x * 1).chunk(2, -1);
    const auto [branch, gate] = split_halves(x * 1);
    const Tensor expected = gradient(use(views[0], views[1])), y = use(branch, gate);
    const Tensor first = gradient(y);
    const Tensor kept = first.clone();
    EXPECT_TRUE(torch::equal(first, expected));
    EXPECT_TRUE(torch::equal(gradient(y), expected));
    EXPECT_TRUE(torch::equal(first, kept));  // of memory that the second pass has not written to
  }
  /// Expects the gradients of the halves to be made in that of the whole.
  void expect_in_one_tensor() const {
    const Tensor whole = x * 1;
    const auto [branch, gate] = split_halves(whole);
    const Tensor y = gated(convolve(branch), gate);
    const auto found = torch::autograd::grad({y.sum()}, {whole, branch, gate});
    EXPECT_TRUE(found[0].is_contiguous());
    EXPECT_EQ(found[1].const_data_ptr(), found[0].const_data_ptr());
    EXPECT_EQ(found[2].const_data_ptr(), found[0].narrow(-1, kWidth, kWidth).const_data_ptr());
  }
};

TEST_F(Halves, GradientsAreThoseOfViews) {
  for (const auto of : {torch::kDouble, torch::kFloat, torch::kBFloat16}) {
    dtype = of;
    make();
    expect_same([&](const Tensor& a, const Tensor& b) { return gated(convolve(a), b); });
    expect_same([&](const Tensor& a, const Tensor& b) { return gated(convolve(b), a); });
    expect_same([&](const Tensor& a, const Tensor&) { return convolve(a); });
    expect_same([&](const Tensor& a, const Tensor& b) { return gated(a.detach(), b); });
    expect_same([&](const Tensor& a, const Tensor& b) { return a.sin() * b; });
    // Used twice, by operators that both ask for its place.
    expect_same([&](const Tensor& a, const Tensor& b) {
      return gated(convolve(a), b) + convolve(a).sin();
    });
    expect_same([&](const Tensor& a, const Tensor& b) { return gated(convolve(a), a) * b; });
    expect_same(
        [&](const Tensor& a, const Tensor& b) { return gated(convolve(a), b) + gated(a, b) + b; });
  }
}

TEST_F(Halves, GradientsAreMadeInOneTensor) { expect_in_one_tensor(); }

// A backward pass that ends at a half leaves its place taken.
TEST_F(Halves, GradientOfAHalfBeforeThatOfTheWhole) {
  const auto [branch, gate] = split_halves(x * 1);
  const auto views = (x * 1).chunk(2, -1);
  const Tensor y = gated(convolve(branch), gate),
               expected = gradient(gated(convolve(views[0]), views[1]));
  const Tensor dy = torch::ones_like(y);
  const Tensor of_branch = torch::autograd::grad({y}, {branch}, {dy}, true)[0];
  const Tensor kept = of_branch.clone();
  EXPECT_TRUE(torch::equal(gradient(y), expected));
  EXPECT_TRUE(torch::equal(gradient(y), expected));
  EXPECT_TRUE(torch::equal(of_branch, kept));
}

TEST_F(Halves, SecondDerivatives) {
  const auto second = [&](const Tensor& a, const Tensor& b) {
    const Tensor y = (a.sin() * b.exp()).sum();
    const Tensor first = torch::autograd::grad({y}, {x}, {}, true, /*create_graph=*/true)[0];
    return torch::autograd::grad({first.square().sum()}, {x})[0];
  };
  const auto views = (x * 1).chunk(2, -1);
  const auto [branch, gate] = split_halves(x * 1);
  EXPECT_TRUE(torch::allclose(second(branch, gate), second(views[0], views[1]), 1e-12, 1e-12));
  // Of operators that have none they are refused, and what was refused leaves nothing behind.
  const Tensor y = gated(convolve(branch), gate);
  EXPECT_THROW(torch::autograd::grad({y.sum()}, {x}, {}, true, /*create_graph=*/true), Error);
  EXPECT_TRUE(torch::equal(gradient(y), gradient(gated(convolve(views[0]), views[1]))));
}

TEST_F(Halves, WithoutGradientTheyAreViews) {
  const torch::NoGradGuard no_grad;
  const auto [branch, gate] = split_halves(x);
  EXPECT_TRUE(torch::equal(torch::cat({branch, gate}, -1), x));
  EXPECT_EQ(branch.const_data_ptr(), x.const_data_ptr());
}

TEST_F(Halves, OnGpu) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU";
  device = torch::kCUDA;
  for (const auto of : {torch::kFloat, torch::kBFloat16}) {
    dtype = of;
    make();
    expect_same([&](const Tensor& a, const Tensor& b) { return gated(convolve(a), b); });
    expect_same([&](const Tensor& a, const Tensor& b) {
      return gated(convolve(a), b) + convolve(a).sin();
    });
    expect_same([&](const Tensor& a, const Tensor&) { return convolve(a); });
    expect_in_one_tensor();
  }
}

}  // namespace
}  // namespace pararnn::ops
